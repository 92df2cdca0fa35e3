//! Rebalancing through the public names. The field's golden and toy cases, and what every plan must keep.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_lossless,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;

use expert_placement::{
    EMPTY, Loads, MigrationLimits, Options, Placement, Policy, Topology, plan_migration_within, rebalance,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn plan(policy: Policy, loads: &Loads, slots: u64, ranks: u32, nodes: u32, groups: u32) -> Placement {
    let topology = Topology::new(ranks, nodes).unwrap();
    let mut options = Options::default();
    options.policy = policy;
    options.num_groups = groups;
    rebalance(loads, slots, &topology, &options).unwrap()
}

/// Domain: the example of the algorithm's own authors.
#[test]
fn the_policy_deepseek_gives_the_golden_case() {
    let loads =
        [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]];
    let loads = Loads::new(1, 2, 12, loads.concat().into_iter().map(f64::from).collect()).unwrap();
    let placement = plan(Policy::Deepseek, &loads, 16, 8, 2, 4);
    let expected =
        [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]];
    assert_eq!(placement.physical_to_logical(), expected.concat());
}

/// Domain: a small case whose optimum was found by exhaustion.
#[test]
fn the_toy_case_reaches_its_optimum() {
    let loads = [600.0, 560.0, 120.0, 120.0, 20.0, 10.0, 10.0, 10.0];
    let loads = Loads::new(1, 1, 8, loads.to_vec()).unwrap();
    let largest = |policy| plan(policy, &loads, 16, 8, 1, 1).report(&loads).unwrap()[0].largest;
    assert!((largest(Policy::Deepseek) - 232.0).abs() < 1e-9, "{}", largest(Policy::Deepseek));
    assert!((largest(Policy::Balanced) - 590.0 / 3.0).abs() < 1e-9, "{}", largest(Policy::Balanced));
}

/// Loads, slots and a topology with room for every expert: uneven slots, speeds, nodes and ranks out of service.
pub(crate) fn cases() -> impl Strategy<Value = (Vec<f64>, usize, usize, u64, Topology)> {
    let ranks = vec((0_u32..5, prop_oneof![Just(1.0), Just(0.5), Just(3.0)], any::<bool>()), 1..6);
    (ranks, 1_usize..4, 1_usize..10, 1_u32..4).prop_flat_map(|(ranks, layers, experts, nodes)| {
        let mut slots: Vec<u32> = ranks.iter().map(|(slots, _, _)| *slots).collect();
        let mut active: Vec<bool> = ranks.iter().map(|(_, _, active)| *active).collect();
        active[0] = true;
        slots[0] = slots[0].max(u32::try_from(experts).unwrap());
        let nodes = nodes.min(u32::try_from(ranks.len()).unwrap());
        let total = slots.iter().map(|slots| u64::from(*slots)).sum::<u64>();
        let topology = Topology::new(u32::try_from(ranks.len()).unwrap(), nodes)
            .and_then(|topology| topology.with_slots(slots))
            .and_then(|topology| topology.with_speeds(ranks.iter().map(|(_, speed, _)| *speed).collect()))
            .and_then(|topology| topology.with_active(active))
            .unwrap();
        let load = prop_oneof![Just(0.0), 0.0..1.0, 1.0..1e6, Just(5.0)];
        (vec(load, layers * experts), Just(layers), Just(experts), Just(total), Just(topology))
    })
}

fn largest(plan: &Placement, loads: &Loads) -> f64 {
    plan.report(loads).unwrap().iter().map(|report| report.largest).sum()
}

proptest! {
    /// Domain: random loads and topologies of up to 5 ranks, 9 experts and 3 layers; every budget up to 4.
    #[test]
    fn plans_keep_what_they_promise((values, layers, experts, slots, topology) in cases()) {
        let loads = Loads::new(1, layers, experts, values.clone()).unwrap();
        let mut options = Options::default();
        let plan = rebalance(&loads, slots, &topology, &options).unwrap();
        for report in plan.report(&loads).unwrap() {
            prop_assert!(report.largest >= report.lower_bound);
        }
        options.num_threads = 2;
        prop_assert_eq!(&plan, &rebalance(&loads, slots, &topology, &options).unwrap());

        // From a plan for other loads: budgets are kept, none changes nothing, and more never hurt.
        let mut turned = values;
        turned.rotate_right(1);
        let old = rebalance(&Loads::new(1, layers, experts, turned).unwrap(), slots, &topology, &options).unwrap();
        options.previous = Some(&old);
        let mut before = f64::INFINITY;
        for budget in 0..5 {
            options.max_moves = Some(budget);
            let new = rebalance(&loads, slots, &topology, &options).unwrap();
            let moves: usize = new.moves_from(&old).unwrap().iter().sum();
            prop_assert!(moves as u64 <= budget);
            prop_assert!(budget > 0 || new == old);
            let now = largest(&new, &loads);
            prop_assert!(now <= before * (1.0 + 1e-12), "{} moves: {} after {}", budget, now, before);
            before = now;
        }
    }

    /// Domain: migrations between plans for random loads, with and without limits.
    #[test]
    fn migrations_arrive((values, layers, experts, slots, topology) in cases(), staged in 4_u32..20) {
        let mut turned = values.clone();
        turned.rotate_right(2 % values.len());
        let [old, new] = [values, turned].map(|values| {
            let loads = Loads::new(1, layers, experts, values).unwrap();
            rebalance(&loads, slots, &topology, &Options::default()).unwrap()
        });
        let mut limits = MigrationLimits::default();
        for (transfers, most) in [(None, None), (Some(1), None), (None, Some(staged))] {
            limits.max_node_transfers = transfers;
            limits.max_staged = most;
            let Ok(plan) = plan_migration_within(&old, &new, limits) else {
                prop_assert!(most.is_some());
                continue;
            };
            prop_assert!(plan.is_interruption_safe());
            let size = (plan.num_slots(), plan.num_ranks());
            prop_assert_eq!(size, (old.num_slots(), topology.num_ranks() as usize));
            prop_assert!(most.is_none_or(|most| plan.num_staged() <= most as usize));
            let (mut slots_now, width) = (old.physical_to_logical().to_vec(), old.num_slots());
            let at = |layer: u32, slot: u32| layer as usize * width + slot as usize;
            let mut waiting = Vec::new();
            for batch in 0..plan.num_batches() {
                let (first, last) = (plan.batches()[batch] as usize, plan.batches()[batch + 1] as usize);
                let mut busy = BTreeSet::new();
                for index in first..last {
                    let one = plan.moves()[index];
                    prop_assert_eq!(slots_now[at(one.layer, one.source)], i32::try_from(one.expert).unwrap());
                    let (sender, receiver) = (plan.senders()[index], plan.receivers()[index]);
                    prop_assert!(sender == receiver || busy.insert((0, sender)) && busy.insert((1, receiver)));
                    waiting.push(index);
                }
                let batch = u32::try_from(batch).unwrap();
                waiting.retain(|index| {
                    let (one, is_due) = (plan.moves()[*index], plan.write_batches()[*index] == batch);
                    if is_due {
                        slots_now[at(one.layer, one.destination)] = i32::try_from(one.expert).unwrap();
                    }
                    !is_due
                });
            }
            prop_assert!(waiting.is_empty());
            let arrived = slots_now.iter().zip(new.physical_to_logical());
            prop_assert!(arrived.into_iter().all(|(now, wanted)| *wanted == EMPTY || now == wanted));
        }
    }
}
