//! Where everything stands in a routing table. SPEC.md, "Routing tables".

use core::ops::Range;

use crate::error::Error;
use crate::limits::{NUM_ROUTED_EXPERTS, NUM_ROUTED_RANKS, NUM_ROUTED_SLOTS};
use crate::partition::to_usize;
use crate::placement::Placement;

/// The numbers that a routing table of one layer is made for; its length and the places of its parts follow from them.
///
/// A table is one block of `int32`, and its parts follow each other in this order:
/// - `entries`, `[E]`: of each expert in the lower 16 bits how many replicas it has, and in the upper 16 its slot if it
///   is one, and else where its slots begin in the list;
/// - `slots`, `[P]`: the slots of all experts, one expert after the other, each expert's ascending; then -1;
/// - `homes`, `[P, 2]`: of each slot its expert, and the place among the replicas of that; -1 twice for a slot that
///   serves nothing;
/// - `rank_slots`, `[R + 1]`: where each rank's slots begin, and P last;
/// - `cutoffs` and `aliases`, `[P]` each, where replicas are weighted: beside each entry of `slots` the part of its
///   hashes that it keeps, in units of 2^-32, and the slot that the others go to.
///
/// P is a capacity: a placement of fewer slots fits too. -1 fills the rest, up to a multiple of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoutingShape {
    num_experts: u32,
    max_slots: u32,
    num_ranks: u32,
    is_weighted: bool,
}

impl RoutingShape {
    /// The shape for E experts in up to `max_slots` slots on R ranks.
    ///
    /// # Errors
    /// A number out of its range: E, P and R up to 2^16 - 1.
    pub fn new(num_experts: u32, max_slots: u32, num_ranks: u32, is_weighted: bool) -> Result<Self, Error> {
        NUM_ROUTED_EXPERTS.check(num_experts.into())?;
        NUM_ROUTED_SLOTS.check(max_slots.into())?;
        NUM_ROUTED_RANKS.check(num_ranks.into())?;
        Ok(Self { num_experts, max_slots, num_ranks, is_weighted })
    }

    /// The shape that a placement fills.
    ///
    /// # Errors
    /// As for [`RoutingShape::new`].
    pub fn of(placement: &Placement, is_weighted: bool) -> Result<Self, Error> {
        let slots = u32::try_from(placement.num_slots()).unwrap_or(u32::MAX);
        Self::new(placement.num_experts(), slots, placement.num_ranks(), is_weighted)
    }

    /// Number of logical experts, E.
    #[must_use]
    pub const fn num_experts(&self) -> u32 {
        self.num_experts
    }

    /// Number of physical slots that fit, P.
    #[must_use]
    pub const fn max_slots(&self) -> u32 {
        self.max_slots
    }

    /// Number of ranks, R.
    #[must_use]
    pub const fn num_ranks(&self) -> u32 {
        self.num_ranks
    }

    /// Whether replicas are chosen by weight.
    #[must_use]
    pub const fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// How many `int32` a table has; a multiple of four, so that every layer of a block of them is aligned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end().next_multiple_of(4)
    }

    /// Whether a table has no elements; it never has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self) -> usize {
        if self.is_weighted { self.aliases().end } else { self.rank_slots().end }
    }

    pub(super) fn entries(&self) -> Range<usize> {
        0..to_usize(self.num_experts)
    }

    pub(super) fn slots(&self) -> Range<usize> {
        after(&self.entries(), to_usize(self.max_slots))
    }

    pub(super) fn homes(&self) -> Range<usize> {
        after(&self.slots(), 2 * to_usize(self.max_slots))
    }

    pub(super) fn rank_slots(&self) -> Range<usize> {
        after(&self.homes(), to_usize(self.num_ranks) + 1)
    }

    pub(super) fn cutoffs(&self) -> Range<usize> {
        after(&self.rank_slots(), to_usize(self.max_slots))
    }

    pub(super) fn aliases(&self) -> Range<usize> {
        after(&self.cutoffs(), to_usize(self.max_slots))
    }

    /// Where the parts begin, in the order in which they follow each other; those that a table lacks begin at its end.
    #[must_use]
    pub fn starts(&self) -> [usize; 6] {
        let parts = [self.entries(), self.slots(), self.homes(), self.rank_slots(), self.cutoffs(), self.aliases()];
        parts.map(|part| part.start.min(self.end()))
    }
}

fn after(part: &Range<usize>, length: usize) -> Range<usize> {
    part.end..part.end + length
}
