//! The rank counts that give every rank an equal slab. SPEC.md, "Uniform partitions".

extern crate alloc;
use alloc::vec::Vec;

use crate::error::Error;
use crate::expert_map::with_room;
use crate::limits::{MAX_RANKS, NUM_EXPERTS, NUM_LISTED_RANKS};
use crate::partition::{divisors, to_usize};

/// The rank counts up to `max_ranks` over which `num_experts` divides equally, ascending.
///
/// With no experts every count is legal. The cost is O(sqrt(E)), or O(`max_ranks`) for E = 0.
///
/// # Errors
/// `num_experts` or `max_ranks` outside [`NUM_EXPERTS`] or [`MAX_RANKS`], which without experts is [`NUM_LISTED_RANKS`],
/// or too little memory.
pub fn legal_ranks(num_experts: u32, max_ranks: u32) -> Result<Vec<u32>, Error> {
    let num_experts = NUM_EXPERTS.check(i128::from(num_experts))?;
    let max_ranks = MAX_RANKS.check(i128::from(max_ranks))?;
    if num_experts == 0 {
        let max_ranks = NUM_LISTED_RANKS.check(i128::from(max_ranks))?;
        let mut counts = with_room(to_usize(max_ranks))?;
        counts.extend(1..=max_ranks);
        return Ok(counts);
    }
    let within = || divisors(num_experts).filter(|count| *count <= max_ranks);
    let mut counts = with_room(within().count())?;
    counts.extend(within());
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}
