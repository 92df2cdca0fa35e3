//! What a rebalance refuses, and what it says then.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use expert_placement::limits::{MAX_PLANNED_PAIRS, MAX_PLANNED_SLOTS};
use expert_placement::{Loads, Options, Placement, Policy, Topology, rebalance};

fn of(ranks: u32, nodes: u32) -> Topology {
    Topology::new(ranks, nodes).unwrap()
}

/// One window of equal loads.
fn equal(layers: usize, experts: usize) -> Loads {
    Loads::new(1, layers, experts, vec![1.0; layers * experts]).unwrap()
}

fn refusal(loads: &Loads, slots: u64, topology: &Topology, options: &Options<'_>) -> String {
    rebalance(loads, slots, topology, options).unwrap_err().to_string()
}

/// Domain: every policy.
#[test]
fn a_policy_is_shown_by_its_name() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse::<Policy>().unwrap(), *policy);
    }
    assert_eq!(format!("{:>10}", Policy::Balanced), "  balanced");
}

/// Groups that no plan has: what is refused for another reason is refused before them, and nothing is planned.
fn without_groups() -> Options<'static> {
    let mut options = Options::default();
    options.num_groups = 0;
    options
}

const NO_GROUPS: &str = "num_groups=0 is out of range, expected 1..=2: a group has at least one expert";

/// Domain: the largest numbers of slots of plans of 1, 2 and 5 layers, and the next.
#[test]
fn plans_end_at_so_many_slots_in_all_layers() {
    for layers in [1, 2, 5] {
        let most = MAX_PLANNED_SLOTS / u64::try_from(layers).unwrap();
        let said = |slots| refusal(&equal(layers, 2), slots, &of(1, 1), &without_groups());
        assert_eq!(said(most), NO_GROUPS);
        let because = "a plan has at most 2^28 slots in all layers";
        for more in [most + 1, most + 2] {
            assert_eq!(said(more), format!("num_slots={more} is out of range, expected 0..={most}: {because}"));
        }
    }
}

/// Domain: 2^16 ranks with the most experts, and with one more.
#[test]
fn plans_end_at_so_many_pairs_of_experts_and_ranks() {
    let ranks = 1_u32 << 16;
    let experts = usize::try_from(MAX_PLANNED_PAIRS / u64::from(ranks)).unwrap();
    let said = |experts| refusal(&equal(1, experts), ranks.into(), &of(ranks, 1), &without_groups());
    assert!(said(experts).starts_with("num_groups=0 "), "{}", said(experts));
    let because = "a plan has at most 2^31 pairs of an expert and a usable rank";
    assert_eq!(said(experts + 1), format!("num_ranks=65536 is out of range, expected 1..=65534: {because}"));
}

/// Domain: both policies.
#[test]
fn no_expert_needs_no_slot() {
    let mut options = Options::default();
    for policy in Policy::ALL {
        options.policy = *policy;
        let plan = rebalance(&equal(2, 0), 0, &of(3, 1), &options).unwrap();
        assert_eq!((plan.num_layers(), plan.num_slots(), plan.num_experts()), (2, 0, 0));
    }
}

/// Domain: each limit of moves by itself, without a placement to start from and with the policy that knows none.
#[test]
fn limits_of_moves_need_what_they_are_about() {
    let (loads, topology) = (equal(1, 4), of(2, 1));
    let old = Placement::new(4, 1, topology.clone(), vec![0, 1, 2, 3]).unwrap();
    for (max_moves, min_gain, limit) in [(Some(3), None, "max_moves"), (None, Some(0.5), "min_gain")] {
        let mut options = Options::default();
        (options.max_moves, options.min_gain) = (max_moves, min_gain);
        let said = refusal(&loads, 4, &topology, &options);
        assert_eq!(said, format!("{limit} needs the placement to start from, previous"));
        options.previous = Some(&old);
        assert_eq!(rebalance(&loads, 4, &topology, &options).unwrap(), old);
        options.policy = Policy::Deepseek;
        let said = refusal(&loads, 4, &topology, &options);
        assert_eq!(said, "policy `deepseek` needs no max_moves and no min_gain: it knows nothing of moves");
    }
}

/// Domain: gains at the ends of what is allowed, and beyond.
#[test]
fn a_gain_is_a_finite_number_of_at_least_0() {
    let (loads, topology) = (equal(1, 4), of(2, 1));
    let old = Placement::new(4, 1, topology.clone(), vec![0, 1, 2, 3]).unwrap();
    let mut options = Options::default();
    options.previous = Some(&old);
    for gain in [0.0, -0.0, f64::MAX] {
        options.min_gain = Some(gain);
        assert_eq!(rebalance(&loads, 4, &topology, &options).unwrap(), old, "{gain}");
    }
    for (gain, shown) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        options.min_gain = Some(gain);
        let said = refusal(&loads, 4, &topology, &options);
        assert_eq!(said, format!("min_gain={shown} is out of range, expected a finite number of at least 0"));
    }
}

/// Domain: a placement of other layers, experts, slots, ranks and slots of a rank.
#[test]
fn a_placement_of_another_shape_is_no_start() {
    let (loads, topology) = (equal(1, 2), of(2, 1));
    let uneven = of(2, 1).with_slots(vec![3, 1]).unwrap();
    for (experts, layers, ranks, table, said) in [
        (2, 2, of(2, 1), vec![0, 1, 0, 1, 0, 1, 0, 1], "num_layers=2, expected 1"),
        (3, 1, of(2, 1), vec![0, 1, 2, 1], "num_experts=3, expected 2"),
        (2, 1, of(2, 1), vec![0, 1, 0, 1, 0], "num_slots=5, expected 4"),
        (2, 1, of(4, 1), vec![0, 1, 0, 1], "num_ranks=4, expected 2"),
        (2, 1, uneven, vec![0, 1, -1, 1], "the start of a rank's slots=3, expected 2"),
    ] {
        let old = Placement::new(experts, layers, ranks, table).unwrap();
        let mut options = Options::default();
        options.previous = Some(&old);
        let whole = refusal(&loads, 4, &topology, &options);
        assert!(whole.starts_with(&format!("previous has {said} as the plan has")), "{whole}");
    }
}

/// Domain: one rank of three in service, each in turn.
#[test]
fn an_expert_that_no_rank_in_service_holds_is_named() {
    let old = Placement::new(6, 2, of(3, 1), vec![0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 0, 1]).unwrap();
    let mut options = Options::default();
    options.previous = Some(&old);
    for (rank, lost) in [(0, 2), (1, 0), (2, 0)] {
        let few = of(3, 1).with_active((0..3).map(|one| one == rank).collect()).unwrap();
        let room = "num_slots=6 leaves room for 2 experts on active ranks, expected at least 6: num_slots=18 would do";
        let expected = format!("expert {lost} has no live replica in layer 0 and no slot is free for one: {room}");
        assert_eq!(refusal(&equal(2, 6), 6, &few, &options), expected);
    }
}

/// Domain: two groups of two experts, of which one node has room for three and the other for one.
#[test]
fn a_limit_off_node_is_refused_where_it_is_missed_by_more_than_rounding() {
    let topology = of(2, 2).with_slots(vec![3, 1]).unwrap();
    let mut options = Options::default();
    options.num_groups = 2;
    let because = "the groups do not fit whole on the nodes' active ranks";
    for (limit, shown) in [(0.0, "0"), (0.2, "0.2")] {
        options.max_off_node = Some(limit);
        assert_eq!(
            refusal(&equal(1, 4), 4, &topology, &options),
            format!(
                "max_off_node={shown} is out of reach: {because}, and the plan serves 0.25 of the load of layer 0 off node"
            )
        );
    }
    let just_enough = 0.25_f64 - 1e-9;
    assert_eq!((just_enough + 1e-9).to_bits(), 0.25_f64.to_bits());
    for limit in [just_enough, 0.25, 1.0] {
        options.max_off_node = Some(limit);
        let plan = rebalance(&equal(1, 4), 4, &topology, &options).unwrap();
        assert_eq!(plan.off_node_fractions(&equal(1, 4), 2).unwrap(), [0.25]);
    }
}
