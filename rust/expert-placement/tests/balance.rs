//! Rebalancing through the public names. The field's golden and toy cases, and what every plan must keep.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use expert_placement::{Loads, Options, Placement, Policy, Topology, rebalance};

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
