//! How many slots a balance takes. SPEC.md, "Capacity".

use core::num::NonZeroU64;

use crate::balance::shape::Shape;
use crate::balance::{Options, rebalance};
use crate::error::Error;
use crate::limits::NUM_SLOTS;
use crate::loads::Loads;
use crate::refusal::{Place, Refusal};
use crate::report::LayerReport;
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
    let sum = |of: fn(&LayerReport) -> f64| reports.iter().map(of).sum::<f64>();
    let (mean, bound) = (sum(|report| report.mean), sum(|report| report.lower_bound));
    Ok(Capacity { num_slots, balancedness: plan.balancedness(loads)?, most: LayerReport::balancedness_of(mean, bound) })
}

/// What a search for slots is told beside the options of its plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Search {
    /// The most slots that there may be; twice as many as hold every expert, or one a rank, without other word.
    pub max_slots: Option<u64>,
    /// What slots come in; the number of ranks without other word, so that all have equally many.
    pub step: Option<NonZeroU64>,
}

/// The least number of slots, of the multiples of a step, whose plan is at least so balanced.
///
/// Plans are made one by one in ascending order, from the fewest slots that hold every expert on, since more slots do not
/// always balance better. `looked` is told each, and stops the search with its error.
///
/// # Errors
/// A balancedness outside `0.0 ..= 1.0`, or that no number of slots reaches, `max_slots` that hold too few experts, what
/// `looked` says, and the errors of [`rebalance`].
pub fn least_slots<E: From<Error>>(
    loads: &Loads,
    balancedness: f64,
    search: Search,
    topology: &Topology,
    options: &Options<'_>,
    mut looked: impl FnMut(&Capacity) -> Result<(), E>,
) -> Result<Capacity, E> {
    if !(0.0..=1.0).contains(&balancedness) {
        let (place, expected) = (Place::of("balancedness"), "a number in 0.0..=1.0");
        return Err(Error::refused(Refusal::BadNumber { place, bits: balancedness.to_bits(), expected }).into());
    }
    let step = search.step.map_or_else(|| u64::from(topology.num_ranks()), NonZeroU64::get);
    let first = fewest_slots(topology, loads.num_experts(), step)?;
    let last = search.max_slots.unwrap_or_else(|| first.saturating_mul(2).max(topology.num_ranks().into()));
    let mut best: Option<Capacity> = None;
    for slots in (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let found = capacity(loads, slots, topology, options)?;
        looked(&found)?;
        if found.balancedness >= balancedness {
            return Ok(found);
        }
        if best.is_none_or(|best| found.balancedness > best.balancedness) {
            best = Some(found);
        }
    }
    let refusal = match best {
        Some(best) => {
            let (wanted, most) = (balancedness.to_bits(), best.balancedness.to_bits());
            Refusal::Unbalanced { wanted, max_slots: last, most, num_slots: best.num_slots }
        }
        None => Refusal::OutOfRange {
            place: Place::of("max_slots"),
            value: i128::from(last),
            min: i64::try_from(first).unwrap_or(i64::MAX),
            max: i64::from(NUM_SLOTS.max()),
            because: "fewer slots do not hold every expert",
        },
    };
    Err(Error::refused(refusal).into())
}

/// The fewest slots, of the multiples of a step, whose usable ranks hold every expert.
pub(crate) fn fewest_slots(topology: &Topology, num_experts: usize, step: u64) -> Result<u64, Error> {
    let experts = u64::try_from(num_experts).unwrap_or(u64::MAX);
    let mut least = experts.max(1);
    if topology.num_slots().is_none() {
        // A rank has at most the even share rounded up, and some active rank needs this many.
        let ranks = u64::from(topology.num_ranks());
        let active =
            topology.active().map_or(ranks, |active| active.iter().map(|is_active| u64::from(*is_active)).sum());
        least = (experts.div_ceil(active.max(1)).max(1) - 1).saturating_mul(ranks).saturating_add(1).max(least);
    }
    let mut slots = least.checked_next_multiple_of(step).unwrap_or(u64::MAX);
    loop {
        NUM_SLOTS.check(slots.into())?;
        if Shape::new(topology, slots, num_experts)?.room >= num_experts {
            return Ok(slots);
        }
        slots = slots.saturating_add(step);
    }
}
