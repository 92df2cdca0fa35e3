//! Topologies and loads: what they say of themselves, and where their limits are.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use expert_placement::limits::{MAX_TOTAL_LOAD, NUM_RANKS, NUM_SLOTS, SLOTS_PER_RANK, SPEEDS};
use expert_placement::{Error, Loads, Topology};

fn of(ranks: u32, nodes: u32) -> Topology {
    Topology::new(ranks, nodes).unwrap()
}

fn text<T: core::fmt::Debug>(answer: Result<T, Error>) -> String {
    answer.unwrap_err().to_string()
}

/// Domain: up to 9 ranks on up to 9 nodes, and the numbers just outside.
#[test]
fn ranks_are_shared_out_over_nodes_in_order() {
    for ranks in 1..=9 {
        for nodes in 1..=ranks {
            let topology = of(ranks, nodes);
            assert_eq!((topology.num_ranks(), topology.num_nodes()), (ranks, nodes));
            let of_ranks: Vec<u32> = (0..ranks).map(|rank| topology.node_of(rank).unwrap()).collect();
            let counts = |node| u32::try_from(of_ranks.iter().filter(|one| **one == node).count()).unwrap();
            assert!(of_ranks.is_sorted());
            for node in 0..nodes {
                assert_eq!(counts(node), ranks / nodes + u32::from(node < ranks % nodes));
            }
            assert_eq!(text(topology.node_of(ranks)), format!("rank={ranks} is out of range, expected 0..{ranks}"));
        }
        let more = ranks + 1;
        let because = format!("is out of range, expected 1..={ranks}: a node has at least one rank");
        assert_eq!(text(Topology::new(ranks, more)), format!("num_nodes={more} {because}"));
        assert_eq!(text(Topology::new(ranks, 0)), format!("num_nodes=0 {because}"));
    }
    assert_eq!(text(Topology::new(0, 1)), format!("num_ranks=0 is out of range, expected 1..={}", NUM_RANKS.max()));
}

/// Domain: no word, one number, equal numbers and different ones.
#[test]
fn slots_are_what_was_said_of_them() {
    let said = of(3, 1);
    assert_eq!((said.slots(), said.slots_per_rank(), said.num_slots()), (None, None, None));
    assert_eq!(said.slot_offsets(7).unwrap(), [0, 3, 5, 7]);
    let equal = said.clone().with_slots_per_rank(2).unwrap();
    assert_eq!((equal.slots(), equal.slots_per_rank(), equal.num_slots()), (Some(vec![2; 3]), Some(2), Some(6)));
    assert_eq!(equal.slot_offsets(6).unwrap(), [0, 2, 4, 6]);
    assert_eq!(said.clone().with_slots(vec![2; 3]).unwrap(), equal);
    let list = said.clone().with_slots(vec![2, 0, 5]).unwrap();
    assert_eq!((list.slots(), list.slots_per_rank(), list.num_slots()), (Some(vec![2, 0, 5]), None, Some(7)));
    assert_eq!(list.slot_offsets(7).unwrap(), [0, 2, 2, 7]);
    for (topology, given) in [(equal, 6), (list, 7)] {
        for other in [given - 1, given + 1] {
            let expected = format!(
                "num_slots={other} is out of range, expected {given}..={given}: the ranks of the topology have that many"
            );
            assert_eq!(text(topology.slot_offsets(other)), expected);
        }
    }
    assert_eq!(text(said.clone().with_slots(vec![1; 2])), "slots_per_rank has length 2, expected 3");
}

/// Domain: the largest numbers of slots, and the next.
#[test]
fn slots_end_at_their_limits() {
    let (most, ranks) = (NUM_SLOTS.max(), 65_536);
    let range = |limit: expert_placement::limits::Limit| format!("is out of range, expected 0..={}", limit.max());
    assert!(of(2, 1).with_slots(vec![most - 1, 1]).is_ok());
    let more = u64::from(most) + 1;
    assert_eq!(text(of(2, 1).with_slots(vec![most - 1, 2])), format!("num_slots={more} {}", range(NUM_SLOTS)));
    assert!(of(ranks, 1).with_slots_per_rank(most / ranks).is_ok());
    let each = most / ranks + 1;
    let product = u64::from(each) * u64::from(ranks);
    assert_eq!(text(of(ranks, 1).with_slots_per_rank(each)), format!("num_slots={product} {}", range(NUM_SLOTS)));
    let beyond = SLOTS_PER_RANK.max() + 1;
    let said = format!("{beyond} {}", range(SLOTS_PER_RANK));
    assert_eq!(text(of(1, 1).with_slots_per_rank(beyond)), format!("slots_per_rank={said}"));
    assert_eq!(text(of(2, 1).with_slots(vec![0, beyond])), format!("slots_per_rank={said} (at position 1)"));
    assert_eq!(text(of(1, 1).slot_offsets(more)), format!("num_slots={more} {}", range(NUM_SLOTS)));
}

/// Domain: speeds and activity that differ, those that do not, and those that are none.
#[test]
fn speeds_and_activity_are_kept_where_ranks_differ() {
    let plain = of(3, 1);
    assert_eq!((plain.speeds(), plain.active()), (None, None));
    assert_eq!(plain.clone().with_speeds(vec![1.0; 3]).unwrap(), plain);
    assert_eq!(plain.clone().with_active(vec![true; 3]).unwrap(), plain);
    let slow = plain.clone().with_speeds(vec![1.0, 0.5, 1.0]).unwrap();
    assert_eq!(slow.speeds(), Some([1.0, 0.5, 1.0].as_slice()));
    let few = plain.clone().with_active(vec![false, true, false]).unwrap();
    assert_eq!(few.active(), Some([false, true, false].as_slice()));
    assert!(slow != plain && few != plain);
    for (speed, is_right) in [
        (*SPEEDS.start(), true),
        (*SPEEDS.end(), true),
        (9e-7, false),
        (1.1e6, false),
        (f64::NAN, false),
        (-1.0, false),
    ] {
        let answer = plain.clone().with_speeds(vec![1.0, 1.0, speed]);
        assert_eq!(answer.is_ok(), is_right, "{speed}");
        if let Err(error) = answer {
            let said = error.to_string();
            assert!(said.starts_with("speeds[2]=") && said.ends_with("expected a number in 1e-6..=1e6"), "{said}");
        }
    }
    assert_eq!(text(plain.clone().with_speeds(vec![1.0; 4])), "speeds has length 4, expected 3");
    assert_eq!(text(plain.clone().with_active(vec![true; 2])), "active has length 2, expected 3");
    assert_eq!(text(plain.with_active(vec![false; 3])), "active has no active rank, expected at least one");
}

/// Domain: loads of 2 windows, 3 layers and 2 experts with one that is none, at every place; and one window.
#[test]
fn a_load_that_is_none_is_named_with_its_place() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        for place in 0..12 {
            let mut values = vec![1.0; 12];
            *values.get_mut(place).unwrap() = bad;
            let (window, layer, expert) = (place / 6, place / 2 % 3, place % 2);
            let said = text(Loads::new(2, 3, 2, values.clone()));
            assert!(said.starts_with(&format!("loads[{window}, {layer}, {expert}]=")), "{said}");
            assert!(said.ends_with("is out of range, expected a finite number of at least 0"), "{said}");
            let said = text(Loads::new(1, 6, 2, values));
            assert!(said.starts_with(&format!("loads[{}, {expert}]=", place / 2)), "{said}");
        }
    }
    let loads = Loads::new(2, 3, 2, vec![-0.0; 12]).unwrap();
    assert_eq!((loads.num_windows(), loads.num_layers(), loads.num_experts()), (2, 3, 2));
    assert!(Loads::new(1, 1, 2, vec![MAX_TOTAL_LOAD, 0.0]).is_ok());
    let said = text(Loads::new(1, 1, 2, vec![MAX_TOTAL_LOAD, MAX_TOTAL_LOAD]));
    assert_eq!(said, "loads add up to too much, expected a sum of at most 1e301");
    assert_eq!(text(Loads::new(2, 3, 2, vec![1.0; 11])), "loads has length 11, expected 12");
    assert_eq!(text(Loads::new(usize::MAX, 3, 2, vec![])), format!("loads has length 0, expected {}", u64::MAX));
}
