//! One rank's map, read from any of the four representations in use. SPEC.md, "Representations".
//!
//! Mixing the representations up is the commonest silent bug of the field, so reading is strict. Some differ in nothing
//! but their length, so that a reader is told E: whatever is not exactly the representation that was named, of E experts,
//! is refused, and the error says which representation it is where that can be told.

extern crate alloc;
use alloc::vec::Vec;

use crate::batch::{
    ABSENT, LocalExperts, expect_length, int32, length_with_shared, write_index_map, write_index_map_with_shared,
    write_mask,
};
use crate::error::{Error, Expected, Instead, MapFlaw, WrongMap};
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
    /// `num_experts` out of range, an id that is not above the one before it and below E, or too little memory.
    pub fn from_local_experts(local_experts: &[i32], num_experts: u32) -> Result<Self, Error> {
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
    /// `num_experts` out of range, a map of another length, entries that are not -1 or the next local index, or too little
    /// memory. The error names the representation that the map is instead, where it is one of a map of E experts.
    pub fn from_index_map(map: &[i32], num_experts: u32) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
        let owned = check_index_map(map, num_experts).map_err(|flaw| refuse_index_map(map, num_experts, flaw))?;
        Self::collected(map, num_experts, owned, |value| value != ABSENT)
    }

    /// Reads the index map of length E + S, whose last S entries are the local indices of the shared experts.
    ///
    /// # Errors
    /// `num_experts` or E + S out of range, a map of another length, a routed part that is not an index map, other
    /// entries at the end, or too little memory. The error names the representation that the map is instead, as for
    /// [`ExpertMap::from_index_map`].
    pub fn from_index_map_with_shared(map: &[i32], num_experts: u32, num_shared_experts: u32) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
        length_with_shared(num_experts, num_shared_experts)?;
        let owned = check_index_map_with_shared(map, num_experts, num_shared_experts)
            .map_err(|flaw| refuse_index_map(map, num_experts, flaw))?;
        Self::collected(map, num_experts, owned, |value| value != ABSENT)
    }

    /// Reads the index map of length E + 1 whose last entry is -1.
    ///
    /// # Errors
    /// `num_experts` out of range, a map of another length, another last entry, a rest that is not an index map, or too
    /// little memory. The error names the representation that the map is instead, as for [`ExpertMap::from_index_map`].
    pub fn from_index_map_with_sentinel(map: &[i32], num_experts: u32) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
        let owned =
            check_index_map_with_sentinel(map, num_experts).map_err(|flaw| refuse_index_map(map, num_experts, flaw))?;
        Self::collected(map, num_experts, owned, |value| value != ABSENT)
    }

    /// Reads the 0/1 mask of length E + S + 1 with 1 for each shared expert and a trailing 0.
    ///
    /// # Errors
    /// `num_experts` or E + S out of range, a mask of another length, an entry other than 0 or 1, another tail, or too
    /// little memory. The error names the representation that the mask is instead, as for [`ExpertMap::from_index_map`].
    pub fn from_mask(mask: &[i32], num_experts: u32, num_shared_experts: u32) -> Result<Self, Error> {
        let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
        length_with_shared(num_experts, num_shared_experts)?;
        let owned = check_mask(mask, num_experts, num_shared_experts).map_err(|flaw| {
            // As long as it should be but for the last entry, and 0 and 1 throughout.
            let is_cut = matches!(flaw, MapFlaw::Length { actual, expected }
                if u64::try_from(actual).is_ok_and(|actual| actual + 1 == expected));
            let bits = || (is_cut && only_bits(mask)).then_some(Instead::Bits);
            let instead = recognised(mask, num_experts).or_else(bits);
            Error::wrong_map(WrongMap { read_as_mask: true, num_experts, flaw, instead })
        })?;
        Self::collected(mask, num_experts, owned, |value| value == 1)
    }

    /// The map that owns the `owned` experts whose entries say so; what follows the routed ones says nothing of it.
    fn collected(
        entries: &[i32],
        num_experts: u32,
        owned: usize,
        is_owned: impl Fn(i32) -> bool,
    ) -> Result<Self, Error> {
        let mut local = with_room(owned)?;
        local.extend((0..num_experts).zip(entries).filter(|(_, value)| is_owned(**value)).map(|(expert, _)| expert));
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

/// That this is the index map of `num_experts` experts, and how many of them it owns.
fn check_index_map(map: &[i32], num_experts: u32) -> Result<usize, MapFlaw> {
    let (routed, _) = split(map, num_experts, 0)?;
    count_local_experts(routed)
}

/// The same of the index map with the local indices of the shared experts at its end.
fn check_index_map_with_shared(map: &[i32], num_experts: u32, shared: u32) -> Result<usize, MapFlaw> {
    let (routed, tail) = split(map, num_experts, u64::from(shared))?;
    let owned = count_local_experts(routed)?;
    for ((position, &value), index) in (routed.len()..).zip(tail).zip(owned..) {
        expect_entry(position, value, i64::try_from(index).unwrap_or(i64::MAX))?;
    }
    Ok(owned)
}

/// The same of the index map with -1 at its end.
fn check_index_map_with_sentinel(map: &[i32], num_experts: u32) -> Result<usize, MapFlaw> {
    let (routed, tail) = split(map, num_experts, 1)?;
    for (position, &value) in (routed.len()..).zip(tail) {
        expect_entry(position, value, i64::from(ABSENT))?;
    }
    count_local_experts(routed)
}

/// The same of the mask with 1 for each shared expert, and 0 at its end.
fn check_mask(mask: &[i32], num_experts: u32, shared: u32) -> Result<usize, MapFlaw> {
    let (routed, tail) = split(mask, num_experts, u64::from(shared) + 1)?;
    let mut owned = 0;
    for (position, &value) in routed.iter().enumerate() {
        match value {
            0 => {}
            1 => owned += 1,
            _ => return Err(MapFlaw::Entry { position, value: i64::from(value), expected: Expected::Bit }),
        }
    }
    for (position, &value) in (routed.len()..).zip(tail) {
        expect_entry(position, value, i64::from(position + 1 < mask.len()))?;
    }
    Ok(owned)
}

/// A map of exactly `num_experts` + `tail` entries, cut after the routed ones.
fn split(map: &[i32], num_experts: u32, tail: u64) -> Result<(&[i32], &[i32]), MapFlaw> {
    let expected = u64::from(num_experts) + tail;
    let flaw = MapFlaw::Length { actual: map.len(), expected };
    if u64::try_from(map.len()) != Ok(expected) {
        return Err(flaw);
    }
    map.split_at_checked(to_usize(num_experts)).ok_or(flaw)
}

fn expect_entry(position: usize, value: i32, expected: i64) -> Result<(), MapFlaw> {
    let value = i64::from(value);
    if value == expected {
        return Ok(());
    }
    Err(MapFlaw::Entry { position, value, expected: Expected::Exactly(expected) })
}

/// How many experts have a local index, where every other entry is -1 and the indices ascend from 0.
fn count_local_experts(routed: &[i32]) -> Result<usize, MapFlaw> {
    let mut next = 0;
    for (position, &value) in routed.iter().enumerate() {
        if value == int32(next) {
            next += 1;
        } else if value != ABSENT {
            return Err(MapFlaw::Entry { position, value: i64::from(value), expected: Expected::AbsentOr(next) });
        }
    }
    Ok(to_usize(next))
}

/// Whether a map has entries, 0 and 1 alone.
fn only_bits(map: &[i32]) -> bool {
    !map.is_empty() && map.iter().all(|value| matches!(value, 0 | 1))
}

/// The error for a map that is not the index map it was given for; only here another representation is looked for.
fn refuse_index_map(map: &[i32], num_experts: u32, flaw: MapFlaw) -> Error {
    let bits = || (only_bits(map) && count_local_experts(map).is_err()).then_some(Instead::Bits);
    let instead = recognised(map, num_experts).or_else(bits);
    Error::wrong_map(WrongMap { read_as_mask: false, num_experts, flaw, instead })
}

/// The representation of a map of `num_experts` experts that this is. With experts no map is two of them.
fn recognised(map: &[i32], num_experts: u32) -> Option<Instead> {
    let beyond = u32::try_from(map.len()).ok()?.checked_sub(num_experts)?;
    let Some(fewer) = beyond.checked_sub(1) else {
        return check_index_map(map, num_experts).is_ok().then_some(Instead::IndexMap);
    };
    if check_mask(map, num_experts, fewer).is_ok() {
        Some(Instead::Mask(fewer))
    } else if check_index_map_with_shared(map, num_experts, beyond).is_ok() {
        Some(Instead::WithShared(beyond))
    } else {
        check_index_map_with_sentinel(map, num_experts).is_ok().then_some(Instead::WithSentinel)
    }
}

#[cfg(test)]
mod tests {
    use super::with_room;

    /// Domain: more than any machine has, by one element, and nothing.
    #[test]
    fn room_that_there_is_not_is_an_error() {
        assert!(with_room::<u64>(usize::MAX).unwrap_err().is_out_of_memory());
        assert_eq!(with_room::<u64>(0).unwrap().capacity(), 0);
        assert!(with_room::<u64>(3).unwrap().capacity() >= 3);
    }
}
