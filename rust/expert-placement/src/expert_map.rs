//! One rank's map, read from any of the four representations in use. SPEC.md, "Representations".
//!
//! Mixing the representations up is the commonest silent bug of the field, so reading is strict: whatever is not
//! exactly the representation that was named is refused, and a 0/1 mask in the place of an index map is called one.

extern crate alloc;
use alloc::vec::Vec;

use crate::batch::{
    ABSENT, LocalExperts, expect_length, int32, length_with_shared, write_index_map, write_index_map_with_shared,
    write_mask,
};
use crate::error::{Error, Expected, MapFlaw};
use crate::limits::NUM_EXPERTS;
use crate::partition::{Partition, to_usize};

/// The routed experts of one rank: E and, in local order, the global ids that the rank owns, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpertMap {
    num_experts: u32,
    local: Vec<u32>,
}

impl ExpertMap {
    /// The map of one rank of a partition.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, or too little memory.
    pub fn from_partition(partition: &Partition, rank: u32) -> Result<Self, Error> {
        let experts = partition.experts(rank)?;
        let mut local = with_room(to_usize(experts.remaining()))?;
        local.extend(experts);
        Ok(Self { num_experts: partition.num_experts(), local })
    }

    /// The map of a rank that owns these experts, given as global ids in ascending order.
    ///
    /// # Errors
    /// `num_experts` out of range, or an id that is not above the one before it and below E.
    pub fn from_local_experts(num_experts: u32, local_experts: &[i32]) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
        let mut local = with_room(local_experts.len())?;
        let mut least = 0;
        for (position, &expert) in local_experts.iter().enumerate() {
            match u32::try_from(expert) {
                Ok(id) if least <= id && id < num_experts => local.push(id),
                _ => return Err(Error::not_ascending(position, expert.into(), least.into(), num_experts)),
            }
            least = local.last().map_or(0, |last| last + 1);
        }
        Ok(Self { num_experts, local })
    }

    /// Reads the `-1` index map of length E.
    ///
    /// # Errors
    /// Entries that are not -1 or the next local index; a 0/1 mask is named as such.
    pub fn from_index_map(map: &[i32]) -> Result<Self, Error> {
        Self::from_routed(map, map)
    }

    /// Reads the index map of length E + S, whose last S entries are the local indices of the shared experts.
    ///
    /// # Errors
    /// A map shorter than S, a routed part that is not an index map, or other entries at the end.
    pub fn from_index_map_with_shared(map: &[i32], num_shared_experts: u32) -> Result<Self, Error> {
        let (routed, shared) =
            split_tail(map, u64::from(num_shared_experts)).map_err(|flaw| refuse_index_map(map, flaw))?;
        let read = Self::from_routed(routed, map)?;
        for ((position, &value), expected) in (routed.len()..).zip(shared).zip(length(&read.local)..) {
            if i128::from(value) != expected {
                let expected = Expected::Exactly(i64::try_from(expected).unwrap_or(i64::MAX));
                return Err(refuse_index_map(map, MapFlaw::Entry { position, value: i64::from(value), expected }));
            }
        }
        Ok(read)
    }

    /// Reads the index map of length E + 1 whose last entry is -1.
    ///
    /// # Errors
    /// An empty map, another last entry, or a rest that is not an index map.
    pub fn from_index_map_with_sentinel(map: &[i32]) -> Result<Self, Error> {
        let (routed, sentinel) = split_tail(map, 1).map_err(|flaw| refuse_index_map(map, flaw))?;
        if let Some(&value) = sentinel.first().filter(|value| **value != ABSENT) {
            let expected = Expected::Exactly(i64::from(ABSENT));
            let flaw = MapFlaw::Entry { position: routed.len(), value: i64::from(value), expected };
            return Err(refuse_index_map(map, flaw));
        }
        Self::from_routed(routed, map)
    }

    /// Reads the routed part of an index map; `map` is all of it, by which a refusal is worded.
    fn from_routed(routed: &[i32], map: &[i32]) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(length(routed))?;
        let local = read_local_experts(routed).map_err(|flaw| refuse_index_map(map, flaw))?;
        Ok(Self { num_experts, local })
    }

    /// Reads the 0/1 mask of length E + S + 1 with 1 for each shared expert and a trailing 0.
    ///
    /// # Errors
    /// A mask shorter than S + 1, an entry other than 0 or 1, or another tail.
    pub fn from_mask(mask: &[i32], num_shared_experts: u32) -> Result<Self, Error> {
        let (routed, tail) = split_tail(mask, u64::from(num_shared_experts) + 1).map_err(Error::not_mask)?;
        let num_experts = NUM_EXPERTS.check(length(routed))?;
        let refuse =
            |position, value, expected| Error::not_mask(MapFlaw::Entry { position, value: i64::from(value), expected });
        let mut local = Vec::new();
        for ((position, &value), expert) in routed.iter().enumerate().zip(0..) {
            match value {
                0 => {}
                1 => local.push(expert),
                _ => return Err(refuse(position, value, Expected::Bit)),
            }
        }
        for (position, &value) in (routed.len()..).zip(tail) {
            let expected = i32::from(position + 1 < mask.len());
            if value != expected {
                return Err(refuse(position, value, Expected::Exactly(i64::from(expected))));
            }
        }
        Ok(Self { num_experts, local })
    }

    /// Number of routed experts, E.
    #[must_use]
    pub const fn num_experts(&self) -> u32 {
        self.num_experts
    }

    /// The global ids that the rank owns, in local order.
    #[must_use]
    pub fn local_experts(&self) -> &[u32] {
        &self.local
    }

    /// The length of a map with `num_shared_experts` fused shared experts appended, E + S.
    ///
    /// # Errors
    /// E + S beyond the limit of E: local indices are `int32`.
    pub fn length_with_shared(&self, num_shared_experts: u32) -> Result<u64, Error> {
        length_with_shared(self.num_experts, num_shared_experts).map(u64::from)
    }

    /// Writes the global ids that the rank owns, in local order; `out` has as many elements.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_local_experts(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::try_from(self.local.len()).unwrap_or(u64::MAX))?;
        for (slot, expert) in out.iter_mut().zip(&self.local) {
            *slot = int32(*expert);
        }
        Ok(())
    }

    /// Writes the `-1` index map; `out` has length E.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_index_map(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_experts))?;
        write_index_map(self, out);
        Ok(())
    }

    /// Writes the index map with S shared experts appended; `out` has length E + S.
    ///
    /// # Errors
    /// E + S beyond the limit of E, or `out` of another length.
    pub fn write_index_map_with_shared(&self, num_shared_experts: u32, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, self.length_with_shared(num_shared_experts)?)?;
        write_index_map_with_shared(self, to_usize(self.num_experts), out);
        Ok(())
    }

    /// Writes the index map with a last entry -1; `out` has length E + 1.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_index_map_with_sentinel(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_experts) + 1)?;
        write_index_map(self, out);
        Ok(())
    }

    /// Writes the 0/1 mask with S shared experts and the trailing 0; `out` has length E + S + 1.
    ///
    /// # Errors
    /// E + S beyond the limit of E, or `out` of another length.
    pub fn write_mask(&self, num_shared_experts: u32, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, self.length_with_shared(num_shared_experts)? + 1)?;
        write_mask(self, to_usize(self.num_experts), out);
        Ok(())
    }
}

impl LocalExperts for &ExpertMap {
    fn scatter(self, out: &mut [i32], value: impl Fn(i32) -> i32) {
        for (&expert, local) in self.local.iter().zip(0..i32::MAX) {
            if let Some(slot) = out.get_mut(to_usize(expert)) {
                *slot = value(local);
            }
        }
    }

    fn len(&self) -> u32 {
        // At most E elements, by construction.
        u32::try_from(self.local.len()).unwrap_or(u32::MAX)
    }
}

/// An empty list with room for as many elements.
pub(crate) fn with_room<T>(elements: usize) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    let reserved = list.try_reserve_exact(elements);
    reserved.map_err(|_| Error::out_of_memory(u64::try_from(elements).unwrap_or(u64::MAX)))?;
    Ok(list)
}

/// The experts that have a local index, where every other entry is -1 and the indices ascend from 0.
fn read_local_experts(routed: &[i32]) -> Result<Vec<u32>, MapFlaw> {
    let mut local = Vec::new();
    let mut next = 0;
    for ((position, &value), expert) in routed.iter().enumerate().zip(0..) {
        if value == int32(next) {
            local.push(expert);
            next += 1;
        } else if value != ABSENT {
            return Err(MapFlaw::Entry { position, value: i64::from(value), expected: Expected::AbsentOr(next) });
        }
    }
    Ok(local)
}

/// The error for a map that is not the index map it was given for; only here a 0/1 mask is looked for.
fn refuse_index_map(map: &[i32], flaw: MapFlaw) -> Error {
    let only_bits = !map.is_empty() && map.iter().all(|value| matches!(value, 0 | 1));
    Error::not_index_map(flaw, only_bits && read_local_experts(map).is_err())
}

fn split_tail(map: &[i32], tail: u64) -> Result<(&[i32], &[i32]), MapFlaw> {
    usize::try_from(tail)
        .ok()
        .and_then(|tail| map.len().checked_sub(tail))
        .and_then(|head| map.split_at_checked(head))
        .ok_or(MapFlaw::TooShort { length: map.len(), tail })
}

fn length<T>(items: &[T]) -> i128 {
    i128::try_from(items.len()).unwrap_or(i128::MAX)
}
