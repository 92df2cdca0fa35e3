//! Routing as a serving component sees it: tables, slots, counts, order, and what is refused. SPEC.md, "Routing".

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a test stops at the first thing that is not as it should be"
)]

use expert_placement::{Batch, Error, Loads, Placement, Router, RoutingShape, Topology, UNROUTED};
use proptest::prelude::*;

/// A layer on ranks of some slots, which hold each expert at least once.
#[derive(Clone, Debug)]
struct Layer {
    experts: u32,
    slots: Vec<u32>,
    row: Vec<i32>,
}

impl Layer {
    fn placement(&self) -> Placement {
        let ranks = self.slots.len() as u32;
        let topology = Topology::new(ranks, ranks.min(2)).unwrap().with_slots(self.slots.clone()).unwrap();
        Placement::new(self.experts, 1, topology, self.row.clone()).unwrap()
    }
}

fn layers() -> impl Strategy<Value = Layer> {
    prop::collection::vec(0_u32..5, 1..6).prop_flat_map(|slots| {
        let total: u32 = slots.iter().sum();
        (0..=total, Just(slots)).prop_flat_map(move |(experts, slots)| {
            let more = (total - experts) as usize;
            let rest = prop::collection::vec(-1..experts as i32, more);
            (rest, Just(slots)).prop_flat_map(move |(rest, slots)| {
                let row: Vec<i32> = (0..experts as i32).chain(rest).collect();
                (Just(row).prop_shuffle(), Just(slots)).prop_map(move |(row, slots)| Layer { experts, slots, row })
            })
        })
    })
}

fn table(placement: &Placement, sender: Option<u32>, weights: Option<&[f64]>) -> (RoutingShape, Vec<i32>) {
    let shape = RoutingShape::of(placement, weights.is_some()).unwrap();
    let mut table = vec![0; shape.len()];
    placement.write_routing_table(0, &shape, sender, weights, &mut table).unwrap();
    (shape, table)
}

fn batch(top_k: usize, token_offset: u64, seed: u64) -> Batch {
    Batch::new(top_k).with_token_offset(token_offset).with_seed(seed)
}

proptest! {
    #[test]
    fn ids_are_served_by_their_experts(
        layer in layers(), ids in prop::collection::vec(-2_i64..12, 0..40), offset: u64, seed: u64, exact: bool,
    ) {
        let placement = layer.placement();
        let (shape, table) = table(&placement, None, None);
        let router = Router::new(shape, &table).unwrap();
        let mut slots = vec![7; ids.len()];
        let asked = batch(1, offset, seed);
        if exact { router.route_evenly(&ids, &asked, &mut slots) } else { router.route(&ids, &asked, &mut slots) }.unwrap();
        for (id, slot) in ids.iter().zip(&slots) {
            if (0..i64::from(layer.experts)).contains(id) {
                prop_assert_eq!(i64::from(layer.row[*slot as usize]), *id);
            } else {
                prop_assert_eq!(*slot, UNROUTED);
            }
        }
        let mut counts = vec![7; layer.row.len()];
        let mut offsets = vec![7; layer.row.len() + 1];
        router.count(&slots, &mut counts).unwrap();
        Router::sum_up(&counts, &mut offsets).unwrap();
        for (slot, count) in counts.iter().enumerate() {
            prop_assert_eq!(slots.iter().filter(|one| **one == slot as i32).count(), *count as usize);
        }
        for expert in 0..layer.experts as i32 {
            let uses = || layer.row.iter().zip(&counts).filter(|(one, _)| **one == expert).map(|(_, count)| *count);
            prop_assert!(!exact || uses().max().unwrap() - uses().min().unwrap() <= 1);
        }
        let (mut order, mut positions) = (vec![7; ids.len()], vec![7; ids.len()]);
        router.write_order(&slots, &offsets, &mut order, &mut positions).unwrap();
        let mut sorted: Vec<i32> = (0..ids.len() as i32).collect();
        sorted.sort_by_key(|place| (slots[*place as usize] == UNROUTED, slots[*place as usize]));
        prop_assert_eq!(&order, &sorted);
        for (place, position) in positions.iter().enumerate() {
            prop_assert_eq!(order[*position as usize], place as i32);
        }
        let mut of_ranks = vec![7; layer.slots.len() + 1];
        router.write_rank_offsets(&offsets, &mut of_ranks).unwrap();
        for (rank, begin) in of_ranks.iter().enumerate() {
            prop_assert_eq!(*begin, offsets[placement.slot_offsets()[rank] as usize]);
        }
        let mut on_ranks = vec![7; layer.slots.len()];
        Router::count_ranks(&of_ranks, &mut on_ranks).unwrap();
        for (rank, count) in on_ranks.iter().enumerate() {
            let own = placement.slot_offsets()[rank] as usize..placement.slot_offsets()[rank + 1] as usize;
            prop_assert_eq!(*count, counts[own].iter().sum::<i32>());
        }
        let mut served = 0;
        for rank in 0..layer.slots.len() as u32 {
            let mut local = vec![7; ids.len()];
            router.localise(rank, &slots, &mut local).unwrap();
            served += local.iter().filter(|slot| **slot >= 0).count();
        }
        prop_assert_eq!(served, slots.iter().filter(|slot| **slot >= 0).count());
    }

    #[test]
    fn widths_and_offsets_are_modulo_32_bits(layer in layers(), ids in prop::collection::vec(0_i32..8, 1..20), offset: u32) {
        let placement = layer.placement();
        let (shape, table) = table(&placement, None, None);
        let router = Router::new(shape, &table).unwrap();
        let wide: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let (mut one, mut other) = (vec![0; ids.len()], vec![0; ids.len()]);
        router.route(&ids, &batch(1, offset.into(), 3), &mut one).unwrap();
        router.route(&wide, &batch(1, u64::from(offset) + (5 << 32), 3 + (1 << 40)), &mut other).unwrap();
        prop_assert_eq!(&one, &other);
        let beyond: Vec<i64> = wide.iter().map(|id| id + (1 << 32)).collect();
        router.route(&beyond, &batch(1, 0, 0), &mut one).unwrap();
        prop_assert!(one.iter().all(|slot| *slot == UNROUTED));
    }

    #[test]
    fn any_table_is_read_within_its_bounds(
        layer in layers(), noise in prop::collection::vec(any::<i32>(), 400), ids in prop::collection::vec(-2_i32..9, 0..12),
    ) {
        let placement = layer.placement();
        for is_weighted in [false, true] {
            let shape = RoutingShape::of(&placement, is_weighted).unwrap();
            let table = &noise[..shape.len()];
            let router = Router::new(shape, table).unwrap();
            let (mut slots, mut counts) = (vec![0; ids.len()], vec![0; layer.row.len()]);
            router.route(&ids, &batch(1, 1, 1), &mut slots).unwrap();
            router.count(&slots, &mut counts).unwrap();
            let mut offsets = vec![0; counts.len() + 1];
            Router::sum_up(&counts, &mut offsets).unwrap();
            let (mut order, mut positions) = (slots.clone(), slots.clone());
            router.write_order(&slots, &offsets, &mut order, &mut positions).unwrap();
            router.write_rank_offsets(&offsets, &mut vec![0; layer.slots.len() + 1]).unwrap();
            router.localise(0, &slots, &mut order).unwrap();
            let _ = router.route_evenly(&ids, &batch(1, 1, 1), &mut slots);
        }
    }

    #[test]
    fn the_busiest_rank_is_done_when_some_ranks_could_be(
        layer in layers(), load in prop::collection::vec(prop_oneof![Just(0.0), 0.0..100.0], 20),
    ) {
        let placement = layer.placement();
        let load = &load[..layer.experts as usize];
        let loads = Loads::new(1, 1, layer.experts as usize, load.to_vec()).unwrap();
        let split = placement.split(&loads).unwrap();
        let ranks: Vec<usize> =
            layer.slots.iter().enumerate().flat_map(|(rank, slots)| vec![rank; *slots as usize]).collect();
        let mut least: f64 = 0.0;
        for set in 1..1_u32 << layer.slots.len() {
            let is_in = |rank: usize| set >> rank & 1 == 1;
            let bound = (0..layer.experts).filter(|expert| {
                ranks.iter().zip(&layer.row).all(|(rank, entry)| *entry != *expert as i32 || is_in(*rank))
            });
            let bound: f64 = bound.map(|expert| load[expert as usize]).sum();
            let holding = (0..layer.slots.len()).filter(|rank| {
                is_in(*rank) && ranks.iter().zip(&layer.row).any(|(own, entry)| own == rank && *entry >= 0)
            });
            least = least.max(bound / (holding.count() as f64).max(1.0));
        }
        prop_assert!((split.largest[0] - least).abs() <= 1e-9 * least.max(1.0), "{} {}", split.largest[0], least);
        for expert in 0..layer.experts {
            let parts = layer.row.iter().zip(&split.weights).filter(|(entry, _)| **entry == expert as i32);
            prop_assert!((parts.map(|(_, part)| part).sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}

fn two_ranks() -> Placement {
    Placement::new(3, 1, Topology::new(2, 1).unwrap(), vec![0, 1, 2, 0]).unwrap()
}

fn message<T: core::fmt::Debug>(answer: Result<T, Error>) -> String {
    answer.unwrap_err().to_string()
}

#[test]
fn tokens_without_ids_are_as_many_as_anyone_says() {
    let placement = two_ranks();
    let (shape, table) = table(&placement, None, None);
    let router = Router::new(shape, &table).unwrap();
    for valid in [0, 5] {
        router.route::<i32>(&[], &Batch::new(0).with_valid_tokens(valid), &mut []).unwrap();
        router.route_evenly::<i64>(&[], &Batch::new(0).with_valid_tokens(valid), &mut []).unwrap();
    }
}

#[test]
fn senders_have_the_nearest_replicas_alone() {
    let topology = Topology::new(4, 2).unwrap();
    // Expert 0 is on ranks 0 and 3, expert 1 on ranks 1 and 2, expert 2 on rank 3.
    let placement = Placement::new(3, 1, topology, vec![0, -1, 1, -1, 1, -1, 0, 2]).unwrap();
    for (sender, expected) in [(0, [0, 2, 7]), (1, [0, 2, 7]), (2, [6, 4, 7]), (3, [6, 4, 7])] {
        let (shape, table) = table(&placement, Some(sender), None);
        let mut slots = [9; 3];
        for token in 0..50 {
            Router::new(shape, &table).unwrap().route(&[0, 1, 2], &batch(3, token, 0), &mut slots).unwrap();
            assert_eq!(slots, expected, "sender {sender}");
        }
    }
}

#[test]
fn replicas_without_weight_serve_nothing() {
    let placement = two_ranks();
    let (shape, table) = table(&placement, None, Some(&[0.0, 1.0, 1.0, 2.5]));
    let ids = [0_i32; 1000];
    let mut slots = [0; 1000];
    Router::new(shape, &table).unwrap().route(&ids, &Batch::new(1), &mut slots).unwrap();
    assert!(slots.iter().all(|slot| *slot == 3));
}

#[test]
fn wrong_arguments_are_refused() {
    let placement = two_ranks();
    let (shape, table) = table(&placement, None, None);
    let router = Router::new(shape, &table).unwrap();
    let mut slots = [0; 4];
    let ids = [0_i32, 1, 2, 0];
    assert_eq!(message(router.route(&ids, &Batch::new(3), &mut slots)), "topk_ids has length 4, expected 3");
    assert_eq!(message(router.route(&ids, &Batch::new(2), &mut slots[..3])), "slots has length 3, expected 4");
    let asked = Batch::new(2).with_valid_tokens(3);
    let text = "valid_tokens=3 is out of range, expected 0..=2: there are no more tokens";
    assert_eq!(message(router.route(&ids, &asked, &mut slots)), text);
    assert!(router.localise(2, &ids, &mut slots).unwrap_err().is_no_such_id());
    assert_eq!(
        message(Router::sum_up(&[1, -1], &mut [0; 3])),
        "counts[1]=-1 is out of range, expected 0..=1073741823: no more ids are routed at once"
    );
    let text = "rank_offsets[2]=1 is out of range, expected 2..=2147483647: offsets ascend";
    assert_eq!(message(Router::count_ranks(&[0, 2, 1], &mut [0; 2])), text);
    assert_eq!(message(Router::count_ranks(&[0, 2], &mut [0; 2])), "rank_counts has length 2, expected 1");
    assert_eq!(
        message(Router::new(shape, &table[1..])),
        format!("table has length {}, expected {}", shape.len() - 1, shape.len())
    );
    let text = "num_ranks=0 is out of range, expected 1..=65535";
    assert_eq!(message(RoutingShape::new(1, 1, 0, false)), text);

    let mut out = vec![0; shape.len()];
    let mut write = |layer, shape: &RoutingShape, sender, weights: Option<&[f64]>| {
        out.resize(shape.len(), 0);
        message(placement.write_routing_table(layer, shape, sender, weights, &mut out))
    };
    assert_eq!(write(1, &shape, None, None), "layer=1 is out of range, expected 0..1");
    assert_eq!(write(0, &shape, Some(2), None), "rank=2 is out of range, expected 0..2");
    let small = RoutingShape::new(3, 3, 2, false).unwrap();
    let text = "the placement has num_slots=4, expected at most 3: tables made with max_slots=4 would do";
    assert_eq!(write(0, &small, None, None), text);
    let other = RoutingShape::new(4, 4, 2, false).unwrap();
    assert!(write(0, &other, None, None).contains("num_experts"));
    let weighted = RoutingShape::new(3, 4, 2, true).unwrap();
    assert_eq!(write(0, &weighted, None, None), "a weighted shape needs weights");
    assert_eq!(write(0, &shape, None, Some(&[1.0; 4])), "weights needs a weighted shape");
    assert_eq!(write(0, &weighted, Some(0), Some(&[1.0; 4])), "weights can not be had together with sender");
    assert_eq!(write(0, &weighted, None, Some(&[1.0; 3])), "weights has length 3, expected 4");
    let text = "weights[0, 1]=-1 is out of range, expected a finite number of at least 0";
    assert_eq!(write(0, &weighted, None, Some(&[1.0, -1.0, 1.0, 1.0])), text);
    let text =
        "weights of expert 1 in layer 0 add up to no finite number above 0, so that none of its replicas can be chosen";
    assert_eq!(write(0, &weighted, None, Some(&[1.0, 0.0, 1.0, 1.0])), text);
}

/// Domain: a table of zeros, which nobody wrote.
#[test]
fn a_table_without_replicas_serves_nothing() {
    let placement = Layer { experts: 3, slots: vec![2, 2], row: vec![0, 1, 2, 0] }.placement();
    let shape = RoutingShape::of(&placement, false).unwrap();
    let zeros = vec![0; shape.len()];
    let mut slots = [7; 4];
    Router::new(shape, &zeros).unwrap().route(&[0, 1, 2, -1], &batch(1, 0, 0), &mut slots).unwrap();
    assert_eq!(slots, [UNROUTED; 4]);
}
