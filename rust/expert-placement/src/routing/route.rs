//! Ids through a routing table: slots, counts, offsets and the stable order. SPEC.md, "Routing".

use core::ops::Range;

use super::rule;
use super::shape::RoutingShape;
use crate::batch::{expect_length_of, int32};
use crate::error::Error;
use crate::expert_map::with_room;
use crate::limits::NUM_ROUTED_IDS;
use crate::partition::to_usize;
use crate::refusal::{Place, Refusal};

/// What is said of an id that no slot serves: one that is no expert, or that belongs to a padded token.
pub const UNROUTED: i32 = -1;

/// An id as the router gives it: `i32` or `i64`.
pub trait ExpertId: Copy + private::Sealed {
    /// The id as an expert, where it is one of `end`.
    fn expert(self, end: u32) -> Option<u32>;
}

impl ExpertId for i32 {
    fn expert(self, end: u32) -> Option<u32> {
        u32::try_from(self).ok().filter(|expert| *expert < end)
    }
}

impl ExpertId for i64 {
    fn expert(self, end: u32) -> Option<u32> {
        u32::try_from(self).ok().filter(|expert| *expert < end)
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// What is said of a batch beside its ids, of which each token has `top_k`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Ids of each token, k.
    pub top_k: usize,
    /// The number of the first token; tokens are numbered on from it, modulo 2^32.
    pub token_offset: u64,
    /// Another seed is another choice of replicas. Its value modulo 2^32 counts.
    pub seed: u64,
    /// How many tokens are not padding; all of them without other word.
    pub valid_tokens: Option<usize>,
}

impl Batch {
    /// A batch of tokens that have `top_k` ids each.
    #[must_use]
    pub fn new(top_k: usize) -> Self {
        Self { top_k, ..Self::default() }
    }

    /// The same batch with its tokens numbered from here on.
    #[must_use]
    pub const fn with_token_offset(self, token_offset: u64) -> Self {
        Self { token_offset, ..self }
    }

    /// The same batch with another choice of replicas.
    #[must_use]
    pub const fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same batch with only so many tokens that are not padding.
    #[must_use]
    pub const fn with_valid_tokens(self, valid_tokens: usize) -> Self {
        Self { valid_tokens: Some(valid_tokens), ..self }
    }
}

/// What a routing table says of an expert.
struct Entry {
    expert: u32,
    /// The slot of the only replica, or where the slots of several begin in the list.
    upper: u32,
    count: u32,
}

/// The routing table of one layer, looked at.
///
/// ```
/// use expert_placement::{Batch, Placement, Router, RoutingShape, Topology};
///
/// // Three experts on two ranks of two slots; expert 0 has two replicas.
/// let placement = Placement::new(3, 1, Topology::new(2, 1)?, vec![0, 1, 2, 0])?;
/// let shape = RoutingShape::of(&placement, false)?;
/// let mut table = vec![0; shape.len()];
/// placement.write_routing_table(0, &shape, None, None, &mut table)?;
///
/// let router = Router::new(shape, &table)?;
/// let (mut slots, mut counts) = ([0; 6], [0; 4]);
/// router.route(&[0, 1, 0, 2, 7, -1], &Batch::new(2), &mut slots)?;
/// assert_eq!(slots[1..2], [1]);
/// assert_eq!(slots[3..], [2, -1, -1]);
/// assert!(slots[0] == 0 || slots[0] == 3);
/// router.count(&slots, &mut counts)?;
/// assert_eq!(counts[0] + counts[3], 2);
/// # Ok::<(), expert_placement::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    shape: RoutingShape,
    entries: &'a [i32],
    slots: &'a [i32],
    rank_slots: &'a [i32],
    cutoffs: &'a [i32],
    aliases: &'a [i32],
}

impl<'a> Router<'a> {
    /// A router over a table that [`crate::Placement::write_routing_table`] wrote. A table with other content gives
    /// wrong slots, or [`UNROUTED`], and nothing worse.
    ///
    /// # Errors
    /// A table of another length than the shape has.
    pub fn new(shape: RoutingShape, table: &'a [i32]) -> Result<Self, Error> {
        expect_length_of("table", table, u64::try_from(shape.len()).unwrap_or(u64::MAX))?;
        let part = |range: Range<usize>| -> &'a [i32] { table.get(range).unwrap_or_default() };
        let weighted = |range: Range<usize>| if shape.is_weighted() { part(range) } else { part(0..0) };
        Ok(Self {
            shape,
            entries: part(shape.entries()),
            slots: part(shape.slots()),
            rank_slots: part(shape.rank_slots()),
            cutoffs: weighted(shape.cutoffs()),
            aliases: weighted(shape.aliases()),
        })
    }

    /// Writes the slot of every id, or [`UNROUTED`]: each token's replicas are chosen by hash, or by weight.
    ///
    /// # Errors
    /// Ids that are no multiple of `top_k`, more of them than 2^30, more valid tokens than there are, or `slots` of
    /// another length.
    pub fn route<I: ExpertId>(&self, ids: &[I], batch: &Batch, slots: &mut [i32]) -> Result<(), Error> {
        let valid = Self::valid_ids(ids, batch)?;
        expect_length_of("slots", slots, length(ids))?;
        slots.fill(UNROUTED);
        let seed = rule::low(batch.seed);
        let mut token = rule::low(batch.token_offset);
        let rows = valid.chunks_exact(batch.top_k.max(1));
        for (ids, slots) in rows.zip(slots.chunks_exact_mut(batch.top_k.max(1))) {
            let of_token = rule::of_token(token, seed);
            for (id, slot) in ids.iter().zip(slots) {
                *slot = self.slot_of(*id, of_token);
            }
            token = token.wrapping_add(1);
        }
        Ok(())
    }

    fn slot_of<I: ExpertId>(&self, id: I, of_token: u32) -> i32 {
        let Some(entry) = self.entry(id) else { return UNROUTED };
        if entry.count == 1 {
            return int32(entry.upper);
        }
        let (replica, fraction) = rule::scaled(rule::hash(entry.expert, of_token), entry.count);
        let at = to_usize(entry.upper) + to_usize(replica);
        // Without weights there are no cutoffs.
        let list = match self.cutoffs.get(at) {
            Some(cutoff) if fraction >= u32::from_ne_bytes(cutoff.to_ne_bytes()) => self.aliases,
            _ => self.slots,
        };
        list.get(at).copied().unwrap_or(UNROUTED)
    }

    /// What the table says of an id; nothing of one that is no expert, or that nothing serves.
    fn entry<I: ExpertId>(&self, id: I) -> Option<Entry> {
        let expert = id.expert(self.shape.num_experts())?;
        let bits = u32::from_ne_bytes(self.entries.get(to_usize(expert))?.to_ne_bytes());
        let entry = Entry { expert, upper: bits >> 16, count: bits & 0xFFFF };
        if entry.count > 0 { Some(entry) } else { None }
    }

    /// As [`Router::route`], with the replicas of every expert used equally often, or some once more: its ids go to its
    /// replicas in turn, in the order of the batch, from the one on that its hash for the first token names.
    ///
    /// # Errors
    /// As for [`Router::route`]; also a table with weights, which this has no use for, or too little memory.
    pub fn route_evenly<I: ExpertId>(&self, ids: &[I], batch: &Batch, slots: &mut [i32]) -> Result<(), Error> {
        let valid = Self::valid_ids(ids, batch)?;
        expect_length_of("slots", slots, length(ids))?;
        if self.shape.is_weighted() {
            return Err(Error::refused(Refusal::Excludes { parameter: "exact", other: "weights" }));
        }
        slots.fill(UNROUTED);
        let first = rule::of_token(rule::low(batch.token_offset), rule::low(batch.seed));
        // The replica that each expert's next id goes to; none before its first.
        let mut next: Vec<u32> = with_room(to_usize(self.shape.num_experts()))?;
        next.resize(to_usize(self.shape.num_experts()), u32::MAX);
        for (id, slot) in valid.iter().zip(slots) {
            let Some(Entry { expert, upper, count }) = self.entry(*id) else { continue };
            if count == 1 {
                *slot = int32(upper);
                continue;
            }
            let Some(turn) = next.get_mut(to_usize(expert)) else { continue };
            if *turn == u32::MAX {
                *turn = rule::scaled(rule::hash(expert, first), count).0;
            }
            *slot = self.slots.get(to_usize(upper) + to_usize(*turn)).copied().unwrap_or(UNROUTED);
            *turn = if *turn + 1 < count { *turn + 1 } else { 0 };
        }
        Ok(())
    }

    /// The ids of tokens that are not padding.
    fn valid_ids<'b, I: ExpertId>(ids: &'b [I], batch: &Batch) -> Result<&'b [I], Error> {
        NUM_ROUTED_IDS.check(length(ids).into())?;
        let tokens = ids.len().checked_div(batch.top_k).unwrap_or(0);
        if tokens * batch.top_k != ids.len() {
            let expected = u64::try_from(tokens * batch.top_k).unwrap_or(u64::MAX);
            return Err(Error::wrong_length("topk_ids", ids.len(), expected));
        }
        match batch.valid_tokens {
            None => Ok(ids),
            // Tokens without ids are as many as anyone says.
            Some(_) if batch.top_k == 0 => Ok(ids),
            Some(valid) if valid <= tokens => Ok(ids.get(..valid * batch.top_k).unwrap_or_default()),
            Some(valid) => Err(Error::refused(Refusal::OutOfRange {
                place: Place::of("valid_tokens"),
                value: i128::from(u64::try_from(valid).unwrap_or(u64::MAX)),
                min: 0,
                max: i64::try_from(tokens).unwrap_or(i64::MAX),
                because: "there are no more tokens",
            })),
        }
    }

    /// Writes for every slot of `slots` the local slot on `rank`, or -1 where another rank has it.
    ///
    /// # Errors
    /// `rank` out of range, or slices of different lengths.
    pub fn localise(&self, rank: u32, slots: &[i32], local: &mut [i32]) -> Result<(), Error> {
        if rank >= self.shape.num_ranks() {
            return Err(Error::no_such_rank(rank.into(), self.shape.num_ranks()));
        }
        expect_length_of("local", local, length(slots))?;
        let at = to_usize(rank);
        let (begin, end) = match self.rank_slots.get(at..at + 2) {
            Some([begin, end]) => (*begin, *end),
            _ => (0, 0),
        };
        for (local, &slot) in local.iter_mut().zip(slots) {
            // What a damaged table says may be too far apart for any difference.
            let own = if begin <= slot && slot < end { slot.checked_sub(begin) } else { None };
            *local = own.unwrap_or(UNROUTED);
        }
        Ok(())
    }

    /// Writes how many ids each slot serves; `counts` has length P, and slots that are none are not counted.
    ///
    /// # Errors
    /// `counts` of another length, or more slots than 2^30.
    pub fn count(&self, slots: &[i32], counts: &mut [i32]) -> Result<(), Error> {
        NUM_ROUTED_IDS.check(length(slots).into())?;
        expect_length_of("counts", counts, self.shape.max_slots().into())?;
        counts.fill(0);
        for &slot in slots {
            if let Some(count) = usize::try_from(slot).ok().and_then(|slot| counts.get_mut(slot)) {
                *count += 1;
            }
        }
        Ok(())
    }

    /// Writes the exclusive prefix sums of counts, their sum last; `offsets` is one longer.
    ///
    /// # Errors
    /// `offsets` of another length, or negative counts, or counts that add up to more than 2^30.
    pub fn sum_up(counts: &[i32], offsets: &mut [i32]) -> Result<(), Error> {
        expect_length_of("offsets", offsets, length(counts) + 1)?;
        let mut sum = 0_u32;
        for (place, (offset, &count)) in offsets.iter_mut().zip(counts.iter().chain(&[0])).enumerate() {
            *offset = int32(sum);
            let room = NUM_ROUTED_IDS.max() - sum;
            sum += u32::try_from(count).ok().filter(|count| *count <= room).ok_or_else(|| {
                Error::refused(Refusal::OutOfRange {
                    place: Place::at("counts", place),
                    value: count.into(),
                    min: 0,
                    max: room.into(),
                    because: "no more ids are routed at once",
                })
            })?;
        }
        Ok(())
    }

    /// Writes where the ids of each rank begin among the ids in order of their slots, given where those of each slot
    /// do; `rank_offsets` has length R + 1.
    ///
    /// # Errors
    /// Slices of other lengths than P + 1 and R + 1.
    pub fn write_rank_offsets(&self, slot_offsets: &[i32], rank_offsets: &mut [i32]) -> Result<(), Error> {
        expect_length_of("slot_offsets", slot_offsets, u64::from(self.shape.max_slots()) + 1)?;
        expect_length_of("rank_offsets", rank_offsets, u64::from(self.shape.num_ranks()) + 1)?;
        for (offset, &slot) in rank_offsets.iter_mut().zip(self.rank_slots) {
            *offset = usize::try_from(slot).ok().and_then(|slot| slot_offsets.get(slot)).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// Writes how many ids each rank serves, given where those of each begin; `rank_counts` is one shorter.
    ///
    /// # Errors
    /// `rank_counts` of another length, or offsets that do not ascend from 0 on.
    pub fn count_ranks(rank_offsets: &[i32], rank_counts: &mut [i32]) -> Result<(), Error> {
        expect_length_of("rank_counts", rank_counts, length(rank_offsets).saturating_sub(1))?;
        let ends = rank_offsets.iter().zip(rank_offsets.iter().skip(1));
        for (place, (count, (&begin, &end))) in rank_counts.iter_mut().zip(ends).enumerate() {
            if begin < 0 || end < begin {
                return Err(Error::refused(Refusal::OutOfRange {
                    place: Place::at("rank_offsets", place + 1),
                    value: end.into(),
                    min: begin.max(0).into(),
                    max: i32::MAX.into(),
                    because: "offsets ascend",
                }));
            }
            *count = end - begin;
        }
        Ok(())
    }

    /// Writes the places of all ids in order of their slots, equal slots in the order of the batch and unrouted ids last:
    /// `order[i]` is which id comes `i`-th, and `positions[j]` where the `j`-th id comes.
    ///
    /// # Errors
    /// Slices of other lengths than the slots and P + 1, more slots than 2^30, or too little memory.
    pub fn write_order(
        &self,
        slots: &[i32],
        slot_offsets: &[i32],
        order: &mut [i32],
        positions: &mut [i32],
    ) -> Result<(), Error> {
        NUM_ROUTED_IDS.check(length(slots).into())?;
        expect_length_of("slot_offsets", slot_offsets, u64::from(self.shape.max_slots()) + 1)?;
        expect_length_of("order", order, length(slots))?;
        expect_length_of("positions", positions, length(slots))?;
        let mut next: Vec<i32> = with_room(slot_offsets.len())?;
        next.extend_from_slice(slot_offsets);
        let last = next.len() - 1;
        for ((id, &slot), position) in (0..).zip(slots).zip(positions) {
            let slot = usize::try_from(slot).ok().filter(|slot| *slot < last).unwrap_or(last);
            let Some(next) = next.get_mut(slot) else { continue };
            *position = *next;
            if let Some(entry) = usize::try_from(*next).ok().and_then(|place| order.get_mut(place)) {
                *entry = id;
            }
            *next = next.saturating_add(1);
        }
        Ok(())
    }
}

fn length<T>(slice: &[T]) -> u64 {
    u64::try_from(slice.len()).unwrap_or(u64::MAX)
}
