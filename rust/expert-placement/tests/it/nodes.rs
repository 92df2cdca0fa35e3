//! Where groups of experts are at home, and how replicas are spread over nodes. SPEC.md, "Nodes and groups".

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use expert_placement::{Loads, Options, Placement, Topology, rebalance};

fn one_layer(loads: &[f64]) -> Loads {
    Loads::new(1, 1, loads.len(), loads.to_vec()).unwrap()
}

fn largest(plan: &Placement, loads: &Loads) -> f64 {
    plan.report(loads).unwrap().iter().map(|report| report.largest).sum()
}

/// The experts of each node, where a node is one rank, a group one expert, and nothing is served off node.
fn at_home(slots: &[u32], loads: &[f64]) -> Vec<Vec<i32>> {
    let ranks = u32::try_from(slots.len()).unwrap();
    let topology = Topology::new(ranks, ranks).unwrap().with_slots(slots.to_vec()).unwrap();
    let mut options = Options::default();
    options.num_groups = u32::try_from(loads.len()).unwrap();
    options.max_off_node = Some(0.0);
    let number = slots.iter().copied().map(u64::from).sum();
    let plan = rebalance(&one_layer(loads), number, &topology, &options).unwrap();
    let held = |rank| plan.local_experts(0, rank).unwrap().iter().copied().filter(|expert| *expert >= 0).collect();
    (0..ranks).map(held).collect()
}

/// Domain: two nodes of which one has an unused slot.
#[test]
fn a_node_gives_a_group_away_where_that_helps() {
    // As exchanges alone leave it, the nodes carry 67 and 64.
    let homes = at_home(&[3, 4], &[49.0, 44.0, 8.0, 2.0, 16.0, 12.0]);
    assert_eq!(homes, [vec![0, 4], vec![1, 2, 3, 5]]);
}

/// Domain: three nodes, the second of which is full after the first gave it a group.
#[test]
fn a_node_takes_no_more_groups_than_it_has_room_for() {
    // The first node, which carries 514 then, has to exchange a group with the third, for the second has three already.
    let homes = at_home(&[4, 3, 1], &[19.0, 301.0, 1.0, 499.0, 176.0, 513.0]);
    assert_eq!(homes, [vec![2, 3], vec![0, 1, 4], vec![5]]);
}

/// Domain: four nodes, the second of which is full until it gives a group away.
#[test]
fn a_node_that_gave_a_group_away_has_room_for_another() {
    let homes = at_home(&[4, 2, 4, 1], &[769.0, 606.0, 977.0, 252.0, 912.0, 271.0, 125.0, 259.0]);
    assert_eq!(homes, [vec![1, 3, 7], vec![4, 6], vec![0, 5], vec![2]]);
}

/// Domain: two nodes that are as busy as each other, of which the first has one group.
#[test]
fn of_nodes_as_busy_the_first_decides_whether_groups_are_exchanged() {
    let homes = at_home(&[0, 1, 2, 1], &[5.0, 10.0, 7.0, 3.0]);
    assert_eq!(homes, [vec![], vec![1], vec![2, 3], vec![0]]);
}

/// Domain: a node without slots before two with some.
#[test]
fn a_node_without_slots_keeps_no_others_from_exchanging_groups() {
    assert_eq!(at_home(&[0, 2, 1], &[4.0, 5.0, 4.0]), [vec![], vec![0, 2], vec![1]]);
}

/// Domain: eight nodes, one of them without slots, and 24 groups whose loads take 35 exchanges.
#[test]
fn groups_are_exchanged_until_no_exchange_helps() {
    let loads = [
        1567.0, 1738.0, 1428.0, 1822.0, 2477.0, 1501.0, 1142.0, 1438.0, 1165.0, 404.0, 1572.0, 1979.0, 1095.0, 765.0,
        1315.0, 1341.0, 2363.0, 1099.0, 1080.0, 1804.0, 1555.0, 1443.0, 1196.0, 1084.0,
    ];
    let load = |expert: &i32| loads[usize::try_from(*expert).unwrap()];
    let homes = at_home(&[3, 0, 3, 2, 3, 5, 4, 4], &loads);
    let sum = |node: &[i32]| node.iter().map(load).sum::<f64>();
    let busiest = homes.iter().max_by(|left, right| sum(left).total_cmp(&sum(right))).unwrap();
    for other in homes.iter().filter(|other| *other != busiest) {
        for (gives, takes) in busiest.iter().flat_map(|gives| other.iter().map(move |takes| (gives, takes))) {
            let moved = load(gives) - load(takes);
            let later = (sum(busiest) - moved).max(sum(other) + moved);
            assert!(later >= sum(busiest), "{gives} for {takes} leaves {later} of {}", sum(busiest));
        }
    }
}

/// Domain: one node, with groups and without.
#[test]
fn on_one_node_groups_change_nothing() {
    let (loads, topology) = (one_layer(&[2.0, 1.0]), Topology::new(3, 1).unwrap());
    let mut options = Options::default();
    for groups in [1, 2] {
        options.num_groups = groups;
        let plan = rebalance(&loads, 3, &topology, &options).unwrap();
        assert_eq!(plan.physical_to_logical(), [0, 1, 0], "{groups} groups");
    }
}

/// Domain: without groups, a node that has no slots beside one that has.
#[test]
fn a_node_without_slots_keeps_no_replica_from_the_others() {
    let topology = Topology::new(4, 2).unwrap().with_slots(vec![0, 0, 2, 4]).unwrap();
    let loads = one_layer(&[1.0, 2.0, 4.0, 1.0, 2.0]);
    let plan = rebalance(&loads, 6, &topology, &Options::default()).unwrap();
    assert!((largest(&plan, &loads) - 5.0).abs() < 1e-9, "{}", largest(&plan, &loads));
}

/// A rebalance from a table, with groups of one expert or more.
fn again(old: &[i32], topology: &Topology, loads: &Loads, groups: u32, limits: (Option<u64>, Option<f64>)) -> Vec<i32> {
    let experts = u32::try_from(loads.num_experts()).unwrap();
    let previous = Placement::new(experts, 1, topology.clone(), old.to_vec()).unwrap();
    let mut options = Options::default();
    options.num_groups = groups;
    options.previous = Some(&previous);
    (options.max_moves, options.max_off_node) = limits;
    let slots = u64::try_from(old.len()).unwrap();
    rebalance(loads, slots, topology, &options).unwrap().physical_to_logical().to_vec()
}

/// Domain: two groups of two experts, each with a replica without load on the other node.
#[test]
fn a_group_is_at_home_where_most_of_its_load_is_served() {
    let topology = Topology::new(2, 2).unwrap();
    let old = [1, 2, 0, 3];
    assert_eq!(again(&old, &topology, &one_layer(&[0.0, 1.0, 0.0, 1.0]), 2, (None, None)), old);
}

/// Domain: an expert without load, with two replicas on one node and one or none on the first.
#[test]
fn a_group_without_load_is_at_home_where_most_of_its_replicas_are() {
    let topology = Topology::new(6, 3).unwrap();
    let new = again(&[1, 2, 1, 1, -1, 0], &topology, &one_layer(&[2.0, 0.0, 2.0]), 3, (None, None));
    assert_eq!(new, [2, 2, 1, 1, 0, 0]);
}

/// Domain: an expert without load with as many replicas on both nodes, and with more on the second.
#[test]
fn of_nodes_that_serve_a_group_alike_the_lower_is_its_home() {
    let (topology, loads) = (Topology::new(4, 2).unwrap(), one_layer(&[0.0, 2.0]));
    let after_a_move = |old: [i32; 4]| again(&old, &topology, &loads, 2, (Some(1), None));
    // The last replica at home makes no room for one of the expert that has the load.
    assert_eq!(after_a_move([0, 1, -1, 0]), [0, 1, -1, 0]);
    assert_eq!(after_a_move([0, 1, 0, 0]), [1, 1, 0, 0]);
}

/// Domain: a placement that serves two fifths of the load off node, and is better balanced than one that may not.
#[test]
fn what_is_served_off_node_comes_home_without_a_budget() {
    let (topology, loads) = (Topology::new(2, 2).unwrap(), one_layer(&[107.0, 491.0]));
    let old = [1, -1, 0, 1];
    assert_eq!(again(&old, &topology, &loads, 2, (None, None)), [1, -1, 0, -1]);
    assert_eq!(again(&old, &topology, &loads, 2, (None, Some(0.45))), old);
    // With half of the load off node both nodes carry as much.
    assert_eq!(again(&old, &topology, &loads, 2, (None, Some(0.5))), [1, 0, 0, 1]);
}

/// Domain: a placement that serves a fifth of the load off node, where two fifths are allowed.
#[test]
fn a_placement_within_its_limit_off_node_stays() {
    let (topology, loads) = (Topology::new(2, 2).unwrap(), one_layer(&[11.0, 6.0]));
    let old = [1, 0, 0, 0];
    assert_eq!(again(&old, &topology, &loads, 2, (None, Some(0.4))), old);
}

/// Domain: six ranks of other sizes, and an expert of which homes alone hold one replica.
#[test]
fn the_search_goes_on_until_the_best_numbers_of_replicas_help_no_more() {
    let ranks = Topology::new(6, 3).unwrap().with_slots(vec![1, 1, 3, 2, 2, 1]).unwrap();
    let loads = one_layer(&[0.58, 1.3, 2.14, 0.55, 0.72, 0.29]);
    let mut options = Options::default();
    (options.num_groups, options.max_off_node) = (3, Some(0.5));
    let plan = rebalance(&loads, 10, &ranks, &options).unwrap();
    assert!((largest(&plan, &loads) - 1.07).abs() < 1e-9);
}

/// Domain: three windows for which the plan of `deepseek` is as good but for rounding, with each group on the other node.
#[test]
fn windows_are_planned_for_with_the_homes_that_the_start_has() {
    let loads = [
        [0.374_536_667_288_908_66, 0.982_658_671_309_636_1],
        [0.277_695_617_306_387_14, 0.068_201_656_009_552_64],
        [0.234_943_178_216_890_04, 0.753_734_987_383_028_1],
    ];
    let loads = Loads::new(3, 1, 2, loads.concat()).unwrap();
    for limit in [None, Some(0.0), Some(0.15)] {
        let mut options = Options::default();
        (options.num_groups, options.max_off_node) = (2, limit);
        let plan = rebalance(&loads, 6, &Topology::new(2, 2).unwrap(), &options).unwrap();
        let off_node = plan.off_node_fractions(&loads, 2).unwrap();
        assert!(off_node[0] <= limit.unwrap_or(0.15), "{off_node:?} {:?}", plan.physical_to_logical());
    }
}
