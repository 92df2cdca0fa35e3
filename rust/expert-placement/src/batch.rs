//! Whole tables at once, into memory that the caller owns. SPEC.md, "Tables" and "Representations".
//!
//! Elements are `i32` because that is what tensors and kernels read; every value of the domain fits.

use crate::arithmetic::word;
use crate::error::Error;
use crate::limits::{NUM_EXPERTS, NUM_REDUNDANT_EXPERTS, NUM_SHARED_EXPERTS};
use crate::partition::{Experts, Partition, Strategy, to_usize};

/// The entry of an index map for an expert that the rank does not own.
pub const ABSENT: i32 = -1;

impl Partition {
    /// Writes `count(r)` for every rank; `out` has length R.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_counts(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_ranks()))?;
        match self.strategy() {
            Strategy::Linear | Strategy::RoundRobin => {
                let shares = self.shares();
                for (slot, rank) in out.iter_mut().zip(0..self.num_ranks()) {
                    *slot = int32(shares.count(rank));
                }
            }
            Strategy::Proportional => {
                let mut start = 0;
                for (slot, rank) in out.iter_mut().zip(0..self.num_ranks()) {
                    let end = word::proportional_start(self.num_experts(), self.num_ranks(), rank + 1);
                    *slot = int32(end - start);
                    start = end;
                }
            }
        }
        Ok(())
    }

    /// Writes `start(r)` for every rank; `out` has length R.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_starts(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_ranks()))?;
        match self.strategy() {
            Strategy::Linear => {
                let shares = self.shares();
                for (slot, rank) in out.iter_mut().zip(0..self.num_ranks()) {
                    *slot = int32(shares.linear_start(rank));
                }
            }
            Strategy::RoundRobin => ascend(out),
            Strategy::Proportional => {
                for (slot, rank) in out.iter_mut().zip(0..self.num_ranks()) {
                    *slot = int32(word::proportional_start(self.num_experts(), self.num_ranks(), rank));
                }
            }
        }
        Ok(())
    }

    /// Writes the exclusive prefix sums of the counts, E last; `out` has length R + 1.
    ///
    /// # Errors
    /// `out` of another length, or a strategy whose ranks do not own consecutive experts.
    pub fn write_offsets(&self, out: &mut [i32]) -> Result<(), Error> {
        if !self.strategy().is_contiguous() {
            return Err(Error::not_contiguous(self.strategy()));
        }
        expect_length(out, u64::from(self.num_ranks()) + 1)?;
        if let Some((total, starts)) = out.split_last_mut() {
            *total = int32(self.num_experts());
            self.write_starts(starts)?;
        }
        Ok(())
    }

    /// Writes `owner(e)` for every expert; `out` has length E.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_owners(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_experts()))?;
        match self.strategy() {
            Strategy::RoundRobin => out.chunks_mut(to_usize(self.num_ranks())).for_each(ascend),
            Strategy::Linear | Strategy::Proportional => {
                self.for_each_block(out, |block, rank| block.fill(int32(rank)));
            }
        }
        Ok(())
    }

    /// Writes `local_index(e)` for every expert; `out` has length E.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_local_indices(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, u64::from(self.num_experts()))?;
        match self.strategy() {
            Strategy::RoundRobin => {
                for (round, index) in out.chunks_mut(to_usize(self.num_ranks())).zip(0..i32::MAX) {
                    round.fill(index);
                }
            }
            Strategy::Linear | Strategy::Proportional => self.for_each_block(out, |block, _| ascend(block)),
        }
        Ok(())
    }

    /// Cuts a table of length E, of a contiguous strategy, into the blocks of the ranks that own something.
    ///
    /// Empty ranks are passed over without a look, so the work is linear in E however large R is.
    fn for_each_block(&self, out: &mut [i32], mut write: impl FnMut(&mut [i32], u32)) {
        if self.num_experts() < self.num_ranks() {
            // No rank owns more than one expert.
            for (block, expert) in out.chunks_mut(1).zip(0..self.num_experts()) {
                write(block, self.owner_of(expert));
            }
            return;
        }
        let mut rest = out;
        for rank in 0..self.num_ranks() {
            let count = to_usize(self.count_of(rank));
            let Some((block, tail)) = rest.split_at_mut_checked(count) else { return };
            write(block, rank);
            rest = tail;
        }
    }

    /// Writes `owner(e)` for each of `experts`, in their order; `out` has their length.
    ///
    /// # Errors
    /// An expert outside `0 .. E`, named with its position, or `out` of another length.
    pub fn write_owners_of<I: Copy + Into<i64>>(&self, experts: &[I], out: &mut [i32]) -> Result<(), Error> {
        write_each(experts, out, |expert| Ok(self.owner_of(self.check_expert(expert)?)))
    }

    /// Writes `local_index(e)` for each of `experts`, in their order; `out` has their length.
    ///
    /// # Errors
    /// An expert outside `0 .. E`, named with its position, or `out` of another length.
    pub fn write_local_indices_of<I: Copy + Into<i64>>(&self, experts: &[I], out: &mut [i32]) -> Result<(), Error> {
        write_each(experts, out, |expert| Ok(self.local_index_of(self.check_expert(expert)?)))
    }

    /// Writes `count(r)` for each of `ranks`, in their order; `out` has their length.
    ///
    /// # Errors
    /// A rank outside `0 .. R`, named with its position, or `out` of another length.
    pub fn write_counts_of<I: Copy + Into<i64>>(&self, ranks: &[I], out: &mut [i32]) -> Result<(), Error> {
        write_each(ranks, out, |rank| Ok(self.count_of(self.check_rank(rank)?)))
    }

    /// Writes `start(r)` for each of `ranks`, in their order; `out` has their length.
    ///
    /// # Errors
    /// A rank outside `0 .. R`, named with its position, or `out` of another length.
    pub fn write_starts_of<I: Copy + Into<i64>>(&self, ranks: &[I], out: &mut [i32]) -> Result<(), Error> {
        write_each(ranks, out, |rank| Ok(self.start_of(self.check_rank(rank)?)))
    }

    /// Writes the global ids of the experts that `rank` owns, in local order; `out` has length `count(rank)`.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, or `out` of another length.
    pub fn write_local_experts(&self, rank: u32, out: &mut [i32]) -> Result<(), Error> {
        let experts = self.experts(rank)?;
        expect_length(out, u64::from(experts.remaining()))?;
        if experts.stride() == 1 {
            ascend_from(experts.start(), out);
        } else {
            for (slot, expert) in out.iter_mut().zip(experts) {
                *slot = int32(expert);
            }
        }
        Ok(())
    }

    /// Writes the index map of `rank`: the local index of each expert it owns and -1 elsewhere; `out` has length E.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, or `out` of another length.
    pub fn write_expert_map(&self, rank: u32, out: &mut [i32]) -> Result<(), Error> {
        let experts = self.experts(rank)?;
        expect_length(out, u64::from(self.num_experts()))?;
        write_index_map(experts, out);
        Ok(())
    }

    /// The length of a map with `num_shared_experts` fused shared experts appended, E + S.
    ///
    /// # Errors
    /// E + S beyond the limit of E: local indices are `int32`.
    pub fn length_with_shared(&self, num_shared_experts: u32) -> Result<u64, Error> {
        length_with_shared(self.num_experts(), num_shared_experts).map(u64::from)
    }

    /// Writes the index map of `rank` followed by `num_shared_experts` fused shared experts, which every rank holds
    /// after its routed ones; `out` has length E + S.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, E + S beyond the limit of E, or `out` of another length.
    pub fn write_expert_map_with_shared(
        &self,
        rank: u32,
        num_shared_experts: u32,
        out: &mut [i32],
    ) -> Result<(), Error> {
        let experts = self.experts(rank)?;
        expect_length(out, self.length_with_shared(num_shared_experts)?)?;
        write_index_map_with_shared(experts, to_usize(self.num_experts()), out);
        Ok(())
    }

    /// Writes the index map of `rank` with one more entry, -1, for ids that stand for "no expert"; `out` has length
    /// E + 1.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, or `out` of another length.
    pub fn write_expert_map_with_sentinel(&self, rank: u32, out: &mut [i32]) -> Result<(), Error> {
        let experts = self.experts(rank)?;
        expect_length(out, u64::from(self.num_experts()) + 1)?;
        write_index_map(experts, out);
        Ok(())
    }

    /// Writes the 0/1 mask of `rank`: 1 for each expert it owns and for each of `num_shared_experts` fused shared
    /// experts, and a trailing 0; `out` has length E + S + 1.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`, E + S beyond the limit of E, or `out` of another length.
    pub fn write_expert_mask(&self, rank: u32, num_shared_experts: u32, out: &mut [i32]) -> Result<(), Error> {
        let experts = self.experts(rank)?;
        expect_length(out, self.length_with_shared(num_shared_experts)? + 1)?;
        write_mask(experts, to_usize(self.num_experts()), out);
        Ok(())
    }
}

/// Answers one query for each id, in order.
fn write_each<I: Copy + Into<i64>>(
    ids: &[I],
    out: &mut [i32],
    answer: impl Fn(i128) -> Result<u32, Error>,
) -> Result<(), Error> {
    expect_length(out, u64::try_from(ids.len()).unwrap_or(u64::MAX))?;
    for (position, (slot, id)) in out.iter_mut().zip(ids).enumerate() {
        *slot = int32(answer(i128::from((*id).into())).map_err(|error| error.at(position))?);
    }
    Ok(())
}

/// The local experts of one rank, as far as the writers of maps need to know them.
pub(crate) trait LocalExperts {
    /// Sets the entries of these experts, each to what `value` says of its local index.
    fn scatter(self, out: &mut [i32], value: impl Fn(i32) -> i32);
    /// How many there are.
    fn len(&self) -> u32;
}

impl LocalExperts for Experts {
    fn scatter(self, out: &mut [i32], value: impl Fn(i32) -> i32) {
        let Some(tail) = out.get_mut(to_usize(self.start())..) else { return };
        let count = to_usize(self.remaining());
        if self.stride() == 1 {
            for (slot, local) in tail.iter_mut().take(count).zip(0..i32::MAX) {
                *slot = value(local);
            }
        } else {
            for (slot, local) in tail.iter_mut().step_by(to_usize(self.stride())).take(count).zip(0..i32::MAX) {
                *slot = value(local);
            }
        }
    }

    fn len(&self) -> u32 {
        self.remaining()
    }
}

/// Writes the index map over all of `out`.
pub(crate) fn write_index_map(local: impl LocalExperts, out: &mut [i32]) {
    out.fill(ABSENT);
    local.scatter(out, |index| index);
}

/// Writes the index map over the first `num_experts` entries, and the shared experts' local indices over the rest.
pub(crate) fn write_index_map_with_shared(local: impl LocalExperts, num_experts: usize, out: &mut [i32]) {
    let first_shared = local.len();
    let Some((routed, shared)) = out.split_at_mut_checked(num_experts) else { return };
    write_index_map(local, routed);
    ascend_from(first_shared, shared);
}

/// Writes the 0/1 mask over the first `num_experts` entries, 1 over the shared experts, and the trailing 0.
pub(crate) fn write_mask(local: impl LocalExperts, num_experts: usize, out: &mut [i32]) {
    let Some((trailing, entries)) = out.split_last_mut() else { return };
    *trailing = 0;
    let Some((routed, shared)) = entries.split_at_mut_checked(num_experts) else { return };
    routed.fill(0);
    local.scatter(routed, |_| 1);
    shared.fill(1);
}

/// E + S, unless that many experts leave a local index that is no `int32`.
pub(crate) const fn length_with_shared(num_experts: u32, num_shared_experts: u32) -> Result<u32, Error> {
    NUM_EXPERTS.check_sum(num_experts, &NUM_SHARED_EXPERTS, num_shared_experts)
}

/// E + n: how many experts are divided where n redundant ones are added to a model's own.
///
/// # Errors
/// E + n beyond the limit of E.
pub const fn with_redundant_experts(num_experts: u32, num_redundant_experts: u32) -> Result<u32, Error> {
    NUM_EXPERTS.check_sum(num_experts, &NUM_REDUNDANT_EXPERTS, num_redundant_experts)
}

pub(crate) fn expect_length(out: &[i32], expected: u64) -> Result<(), Error> {
    expect_length_of("out", out, expected)
}

/// Refuses a slice of another length, by the name that it has.
pub(crate) fn expect_length_of<T>(parameter: &'static str, slice: &[T], expected: u64) -> Result<(), Error> {
    let length = slice.len();
    if u64::try_from(length) == Ok(expected) { Ok(()) } else { Err(Error::wrong_length(parameter, length, expected)) }
}

/// Writes 0, 1, 2, ...
fn ascend(out: &mut [i32]) {
    ascend_from(0, out);
}

/// Writes `first`, `first + 1`, ...; every value is below 2^31.
fn ascend_from(first: u32, out: &mut [i32]) {
    // A range with an end compiles to vector instructions; one without checks each step for overflow.
    for (slot, value) in out.iter_mut().zip(int32(first)..i32::MAX) {
        *slot = value;
    }
}

/// Every value of the domain is below 2^31, so the bits are the same.
pub(crate) fn int32(value: u32) -> i32 {
    i32::from_ne_bytes(value.to_ne_bytes())
}
