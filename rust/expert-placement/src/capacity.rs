//! How many slots a balance takes. SPEC.md, "Capacity".

use core::num::NonZeroU64;
use core::ops::RangeInclusive;

use crate::balance::{Options, rebalance};
use crate::error::Error;
use crate::loads::Loads;
use crate::refusal::{Place, Refusal};
use crate::topology::Topology;

/// What a number of slots makes of the loads.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capacity {
    /// Number of slots of a layer, P.
    pub num_slots: u64,
    /// The sum of the means over that of the largest times, under the plan for so many slots.
    pub balancedness: f64,
    /// What no placement in so many slots exceeds: the sum of the means over that of the lower bounds.
    pub most: f64,
}

/// Plans for one number of slots, and says how balanced that is.
///
/// # Errors
/// Those of [`rebalance`].
pub fn capacity(loads: &Loads, num_slots: u64, topology: &Topology, options: &Options<'_>) -> Result<Capacity, Error> {
    let plan = rebalance(loads, num_slots, topology, options)?;
    let reports = plan.report(loads)?;
    let sum = |of: fn(&crate::LayerReport) -> f64| reports.iter().map(of).sum::<f64>();
    let (mean, bound) = (sum(|report| report.mean), sum(|report| report.lower_bound));
    let most = if bound > 0.0 { (mean / bound).min(1.0) } else { 1.0 };
    Ok(Capacity { num_slots, balancedness: plan.balancedness(loads)?, most })
}

/// The least number of slots, of those of a range in steps from its start, whose plan is at least so balanced; `None`
/// where none is.
///
/// Plans are made one by one in ascending order, since more slots do not always balance better. `looked` is told each,
/// and stops the search with its error.
///
/// # Errors
/// A balancedness outside `0.0 ..= 1.0`, what `looked` says, and those of [`rebalance`].
pub fn least_slots<E: From<Error>>(
    loads: &Loads,
    balancedness: f64,
    num_slots: RangeInclusive<u64>,
    step: NonZeroU64,
    topology: &Topology,
    options: &Options<'_>,
    mut looked: impl FnMut(&Capacity) -> Result<(), E>,
) -> Result<Option<Capacity>, E> {
    if !(0.0..=1.0).contains(&balancedness) {
        let (place, expected) = (Place::of("balancedness"), "a number in 0.0..=1.0");
        return Err(Error::refused(Refusal::BadNumber { place, bits: balancedness.to_bits(), expected }).into());
    }
    let (mut slots, last) = (*num_slots.start(), *num_slots.end());
    while slots <= last {
        let found = capacity(loads, slots, topology, options)?;
        looked(&found)?;
        if found.balancedness >= balancedness {
            return Ok(Some(found));
        }
        match slots.checked_add(step.get()) {
            Some(next) => slots = next,
            None => break,
        }
    }
    Ok(None)
}
