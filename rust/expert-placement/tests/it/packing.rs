//! Which rank a replica goes to, and what a budget buys, where plans of equal worth or of nearly equal loads compete.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use expert_placement::{Loads, Options, Placement, Policy, Topology, rebalance};

fn one_layer(loads: &[f64]) -> Loads {
    Loads::new(1, 1, loads.len(), loads.to_vec()).unwrap()
}

fn uneven(slots: &[u32], nodes: u32) -> (Topology, u64) {
    let ranks = u32::try_from(slots.len()).unwrap();
    let topology = Topology::new(ranks, nodes).unwrap().with_slots(slots.to_vec()).unwrap();
    (topology, slots.iter().copied().map(u64::from).sum())
}

/// 1 and so many of the smallest steps above it.
fn about_one(steps: &[f64]) -> Loads {
    one_layer(&steps.iter().map(|steps| 1.0 + steps * f64::EPSILON).collect::<Vec<_>>())
}

/// Domain: loads whose sums are equal after rounding, on two nodes and with replicas on one.
#[test]
fn the_less_busy_rank_is_next_even_where_sums_round_the_difference_away() {
    // The third expert goes to the rank of the second, which is less busy than that of the first.
    let (topology, slots) = uneven(&[2, 3], 2);
    let plan = rebalance(&about_one(&[1.0, 1.0, 2.0, 2.0, 3.0]), slots, &topology, &Options::default()).unwrap();
    assert_eq!(plan.physical_to_logical(), [0, 4, 1, 2, 3]);
    let (topology, slots) = uneven(&[2, 3, 3], 1);
    let plan = rebalance(&about_one(&[0.0, 1.0, 2.0, 3.0, 1.0]), slots, &topology, &Options::default()).unwrap();
    assert_eq!(plan.physical_to_logical(), [3, 4, 0, 1, 3, 1, 2, 3]);
}

/// Domain: two ranks that are as busy in the end, after one of them took what made room for another expert's replica.
#[test]
fn of_ranks_as_busy_the_lower_gets_the_lower_expert() {
    for (slots, nodes) in [([1, 3, 0, 3].as_slice(), 1), (&[1, 3, 0, 3, 1, 1, 1], 2)] {
        let (topology, slots) = uneven(slots, nodes);
        let plan = rebalance(&one_layer(&[1.0, 0.0, 1.0, 0.0]), slots, &topology, &Options::default()).unwrap();
        assert_eq!(plan.local_experts(0, 1).unwrap(), [0, 1, 2]);
        assert_eq!(plan.local_experts(0, 3).unwrap(), [0, 2, 3]);
    }
}

/// Domain: a budget of one move for what a second would improve by more.
#[test]
fn a_least_gain_of_0_buys_as_none_does() {
    let (topology, loads) = (Topology::new(6, 1).unwrap(), one_layer(&[856.0, 542.0]));
    let old = Placement::new(2, 1, topology.clone(), vec![1, 0, 0, -1, -1, -1]).unwrap();
    let mut options = Options::default();
    options.previous = Some(&old);
    options.max_moves = Some(1);
    let plan = rebalance(&loads, 6, &topology, &options).unwrap();
    assert_eq!(plan.moves_from(&old).unwrap(), [1]);
    options.min_gain = Some(0.0);
    assert_eq!(rebalance(&loads, 6, &topology, &options).unwrap(), plan);
}

/// Domain: a second replica on a rank that only keeps another rank from serving its part.
#[test]
fn a_replica_is_given_up_whatever_a_move_must_bring() {
    let (topology, loads) = (Topology::new(2, 1).unwrap(), one_layer(&[2.0, 0.0]));
    let old = Placement::new(2, 1, topology.clone(), vec![0, 0, 0, 1]).unwrap();
    let mut options = Options::default();
    options.previous = Some(&old);
    options.min_gain = Some(1e9);
    let plan = rebalance(&loads, 4, &topology, &options).unwrap();
    assert_eq!(plan.physical_to_logical(), [0, -1, 0, 1]);
    assert_eq!(plan.moves_from(&old).unwrap(), [0]);
}

/// Domain: three loads beside one that is 2^170 times as large, within the range of float32.
#[test]
fn deepseek_orders_the_smallest_loads_of_the_range_of_float32() {
    let (large, small) = (2_f64.powi(100), 2_f64.powi(-70));
    let loads = one_layer(&[large, small, 2.0 * small, 3.0 * small]);
    let mut options = Options::default();
    options.policy = Policy::Deepseek;
    let plan = rebalance(&loads, 4, &Topology::new(2, 1).unwrap(), &options).unwrap();
    assert_eq!(plan.physical_to_logical(), [0, 1, 3, 2]);
}
