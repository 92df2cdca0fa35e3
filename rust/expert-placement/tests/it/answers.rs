//! What Rust alone asks of placements, migrations, loads and errors: Python has other names for it, or none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::sync::atomic::AtomicBool;

use expert_placement::{
    Error, ExpertMap, Loads, Options, Partition, Placement, RoutingShape, Strategy, Topology, plan_migration, rebalance,
};

/// Four experts in two layers, in six slots on three ranks.
fn placement(table: [i32; 12]) -> Placement {
    Placement::new(4, 2, Topology::new(3, 1).unwrap(), table.to_vec()).unwrap()
}

fn text<T: core::fmt::Debug>(answer: Result<T, Error>) -> String {
    answer.unwrap_err().to_string()
}

/// Domain: every slot, layer and rank of one placement, and those behind the last.
#[test]
fn slots_have_the_ranks_whose_experts_they_hold() {
    let p = placement([0, 1, 2, 3, 0, 1, 3, 2, 1, 0, -1, 2]);
    for slot in 0..6 {
        assert_eq!(p.rank_of_slot(slot).unwrap(), u32::try_from(slot / 2).unwrap());
    }
    assert_eq!(text(p.rank_of_slot(6)), "slot=6 is out of range, expected 0..6");
    assert_eq!(p.local_experts(1, 2).unwrap(), [-1, 2]);
    assert_eq!(text(p.local_experts(2, 0)), "layer=2 is out of range, expected 0..2");
    assert_eq!(text(p.local_experts(0, 3)), "rank=3 is out of range, expected 0..3");
    assert!(p.rank_of_slot(6).unwrap_err().is_no_such_id());
}

/// Domain: one migration of two layers; a size for both, for each, for one too many, and sizes beyond 63 bits.
#[test]
fn traffic_needs_sizes_that_add_up() {
    let (old, new) = (placement([0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1]), placement([2, 3, 0, 1, 0, 1, 2, 3, 0, 1, 0, 1]));
    let plan = plan_migration(&old, &new).unwrap();
    let sum = |sizes: &[u64]| plan.traffic(sizes).unwrap().sent.iter().sum::<u64>();
    assert!(plan.num_transfers() > 1);
    assert_eq!(sum(&[1]), u64::try_from(plan.num_transfers()).unwrap());
    assert_eq!(sum(&[3, 3]), 3 * sum(&[1]));
    assert_eq!(text(plan.traffic(&[1, 2, 3])), "bytes_per_expert has length 3, expected 2");
    for size in [i64::MAX.unsigned_abs(), u64::MAX] {
        assert_eq!(
            text(plan.traffic(&[size])),
            "bytes_per_expert add up to too much, expected at most 2^63 - 1 bytes in all"
        );
    }
}

/// Domain: the named cases.
#[test]
fn loads_and_tables_of_another_size_are_refused() {
    let most = expert_placement::limits::NUM_LAYERS.max();
    assert_eq!(text(Loads::new(0, 1, 4, vec![])), format!("num_windows=0 is out of range, expected 1..={most}"));
    assert_eq!(text(Loads::new(1, 0, 4, vec![])), format!("num_layers=0 is out of range, expected 1..={most}"));
    assert_eq!(text(Loads::new(1, 2, 4, vec![0.0; 7])), "loads has length 7, expected 8");
    let odd = Placement::new(4, 2, Topology::new(1, 1).unwrap(), vec![0; 11]);
    assert_eq!(text(odd), "physical_to_logical has length 11, expected 12");
    for entry in [-2, 4] {
        let none = Placement::new(4, 2, Topology::new(1, 1).unwrap(), vec![0, 1, 2, 3, 3, entry, 1, 2]);
        let said = format!("physical_to_logical[1, 1]={entry} is out of range, expected -1..=3: -1 is an empty slot");
        assert_eq!(text(none), said);
    }
}

/// Domain: the kinds of errors that have names.
#[test]
fn an_error_says_of_which_kind_it_is() {
    let kinds = |error: &Error| {
        [
            error.is_no_such_id(),
            error.is_out_of_memory(),
            error.is_interrupted(),
            error.is_not_uniform(),
            error.is_wrong_representation(),
        ]
    };
    let mut options = Options::default();
    let stop = AtomicBool::new(true);
    options.stop = Some(&stop);
    let loads = Loads::new(1, 1, 4, vec![1.0; 4]).unwrap();
    let interrupted = rebalance(&loads, 4, &Topology::new(2, 1).unwrap(), &options).unwrap_err();
    assert_eq!(kinds(&interrupted), [false, false, true, false, false]);
    assert_eq!(interrupted.to_string(), "the call was interrupted");
    let uneven = Partition::new(5, 2, Strategy::Linear).unwrap().uniform_count().unwrap_err();
    assert_eq!(kinds(&uneven), [false, false, false, true, false]);
    let mask = ExpertMap::from_index_map(&[1, 1, 0, 0], 4).unwrap_err();
    assert_eq!(kinds(&mask), [false, false, false, false, true]);
    let huge = Loads::new(1, 1, 1, vec![1e302]).unwrap_err();
    assert_eq!(kinds(&huge), [false; 5]);
}

/// Domain: shapes of no expert and no slot, and of some.
#[test]
fn a_routing_table_is_never_empty() {
    for (experts, slots) in [(0, 0), (4, 6)] {
        let shape = RoutingShape::new(experts, slots, 1, false).unwrap();
        assert!(!shape.is_empty() && shape.len() >= 4);
    }
}

/// Domain: one slab, from both ends.
#[test]
fn experts_are_walked_from_either_end() {
    let experts = Partition::new(10, 3, Strategy::RoundRobin).unwrap().experts(0).unwrap();
    assert_eq!(experts.clone().size_hint(), (4, Some(4)));
    assert_eq!(experts.clone().count(), 4);
    assert_eq!(experts.clone().rev().collect::<Vec<_>>(), [9, 6, 3, 0]);
    assert_eq!(experts.clone().nth(2), Some(6));
    assert_eq!(experts.clone().nth(4), None);
}
