//! Routing against the stated rule, one id at a time. SPEC.md, "Routing" and the chapters after it.

use expert_placement::{Batch, Error, ExpertId, Placement, Router, RoutingShape};

use crate::input::Input;
use crate::ranks::Ranks;
use crate::tables::Tables;
use crate::{Outcome, law, report};

#[derive(Debug)]
struct Case {
    ranks: Ranks,
    experts: usize,
    row: Vec<i32>,
    ids: Vec<i64>,
    top_k: usize,
    offset: u64,
    seed: u64,
    /// Tokens that are not padding.
    valid: Option<usize>,
    choice: Choice,
    sender: Option<usize>,
    more_room: usize,
    /// Words of the table that are overwritten: then nothing is known of the slots but that they are numbers.
    damage: Vec<(usize, u32)>,
}

#[derive(Debug)]
enum Choice {
    Hashed,
    Even,
    Weighted(Vec<f64>),
}

impl Case {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        let ranks = Ranks::read(input, 5, 4);
        let experts = input.below(7);
        let row = ranks.legal_row(input, experts)?;
        let choice = match input.below(4) {
            0 | 1 => Choice::Hashed,
            2 => Choice::Even,
            _ => Choice::Weighted((0..row.len()).map(|_| input.load()).collect()),
        };
        let is_sent = !matches!(choice, Choice::Weighted(_)) && input.below(3) == 0;
        let sender = is_sent.then(|| input.below(ranks.num_ranks()));
        let (offset, seed) = (input.u64(), input.u64());
        let (top_k, more_room) = (input.below(5), input.below(4));
        let valid = input.is_set().then(|| input.below(8));
        let damage =
            if input.below(8) == 0 { (0..3).map(|_| (input.byte().into(), input.u32())).collect() } else { vec![] };
        let id = |input: &mut Input<'_>| match input.byte() {
            byte @ 0..200 => i64::from(byte % 9) - 1,
            200..230 => i64::from(input.edge()),
            _ => input.u64() as i64,
        };
        let ids = input.list(64, id);
        Some(Self { ranks, experts, row, ids, top_k, offset, seed, valid, choice, sender, more_room, damage })
    }

    /// Whether the batch itself is one: whole tokens, and no more valid ones than there are.
    fn is_legal(&self) -> bool {
        match self.top_k {
            0 => self.ids.is_empty(),
            k => self.ids.len() % k == 0 && self.valid.is_none_or(|valid| valid <= self.ids.len() / k),
        }
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let Some(case) = Case::read(&mut Input::new(bytes)) else { return Outcome::Refused };
    let placement = case.ranks.placement(std::slice::from_ref(&case.row), case.experts).expect("a legal placement");
    let weights = match &case.choice {
        Choice::Weighted(weights) => Some(weights.as_slice()),
        Choice::Hashed | Choice::Even => None,
    };
    let room = case.row.len() + case.more_room;
    let ranks = case.ranks.num_ranks() as u32;
    let shape = RoutingShape::new(case.experts as u32, room as u32, ranks, weights.is_some()).expect("a legal shape");
    let mut table = vec![7; shape.len()];
    let sender = case.sender.map(|sender| sender as u32);
    if let Err(error) = placement.write_routing_table(0, &shape, sender, weights, &mut table) {
        let is_without = |expert: usize| {
            replicas(&case, expert).iter().map(|slot| weights.unwrap_or(&[])[*slot]).sum::<f64>() == 0.0
        };
        assert!(weights.is_some() && (0..case.experts).any(is_without), "{error}: {case:?}");
        return Outcome::Refused;
    }
    for (place, word) in &case.damage {
        let length = table.len();
        table[place % length] = i32::from_ne_bytes(word.to_ne_bytes());
    }
    let router = Router::new(shape, &table).expect("a table of the shape's length");
    let answered = answers(&router, &case, &case.ids);
    if !case.is_legal() {
        assert!(answered.is_err(), "not refused: {case:?}");
        return Outcome::Refused;
    }
    if !case.damage.is_empty() {
        return if answered.is_ok() { Outcome::Answered } else { Outcome::Refused };
    }
    let mut answers = answered.unwrap_or_else(|error| panic!("{error}: {case:?}"));
    plant(&case, &mut answers);
    report(&case, answers.compare(&expected(&case)).and_then(|()| narrow(&router, &placement, &case)));
    Outcome::Answered
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case, _: &mut Tables) {}

/// Numbers of tokens that stop at 2^32 - 1, where they should go on from 0.
#[cfg(feature = "planted")]
fn plant(case: &Case, answers: &mut Tables) {
    let stopped = |place: usize| (case.offset & 0xFFFF_FFFF) + (place / case.top_k) as u64 > 0xFFFF_FFFF;
    for place in (0..case.ids.len()).filter(|place| stopped(*place)) {
        if answers.table("slots")[place] >= 0 && !matches!(case.choice, Choice::Even) {
            answers.table("slots")[place] = slot_of(case, case.ids[place], 0xFFFF_FFFF);
        }
    }
}

fn answers<I: ExpertId>(router: &Router<'_>, case: &Case, ids: &[I]) -> Result<Tables, Error> {
    let mut batch = Batch::new(case.top_k).with_token_offset(case.offset).with_seed(case.seed);
    batch.valid_tokens = case.valid;
    let room = case.row.len() + case.more_room;
    let ranks = case.ranks.num_ranks();
    let fresh = || vec![i32::MIN; ids.len()];
    let mut slots = fresh();
    match case.choice {
        Choice::Even => router.route_evenly(ids, &batch, &mut slots)?,
        Choice::Hashed | Choice::Weighted(_) => router.route(ids, &batch, &mut slots)?,
    }
    let (mut counts, mut offsets) = (vec![7; room], vec![7; room + 1]);
    router.count(&slots, &mut counts)?;
    Router::sum_up(&counts, &mut offsets)?;
    let (mut order, mut positions) = (fresh(), fresh());
    router.write_order(&slots, &offsets, &mut order, &mut positions)?;
    let (mut rank_offsets, mut rank_counts) = (vec![7; ranks + 1], vec![7; ranks]);
    router.write_rank_offsets(&offsets, &mut rank_offsets)?;
    let mut tables = Tables::default();
    let mut all_local = Vec::new();
    for rank in 0..ranks {
        let mut local = fresh();
        router.localise(rank as u32, &slots, &mut local)?;
        all_local.extend(local);
    }
    Router::count_ranks(&rank_offsets, &mut rank_counts)?;
    tables.put("slots", slots);
    tables.put("local_slots", all_local);
    tables.put("slot_counts", counts);
    tables.put("slot_offsets", offsets);
    tables.put("rank_counts", rank_counts);
    tables.put("rank_offsets", rank_offsets);
    tables.put("order", order);
    tables.put("positions", positions);
    Ok(tables)
}

/// The slots that serve an expert: of the nearest ones to the sender where there is one.
fn replicas(case: &Case, expert: usize) -> Vec<usize> {
    let (of_slots, nodes) = (case.ranks.of_slots(), case.ranks.nodes());
    let all: Vec<usize> = (0..case.row.len()).filter(|slot| case.row[*slot] == expert as i32).collect();
    let Some(sender) = case.sender else { return all };
    let near = |slot: &usize| of_slots[*slot] == sender;
    let on_node = |slot: &usize| nodes[of_slots[*slot]] == nodes[sender];
    if all.iter().any(near) {
        return all.into_iter().filter(near).collect();
    }
    if all.iter().any(on_node) { all.into_iter().filter(on_node).collect() } else { all }
}

/// The stated hash, in integers that are cut to 32 bits after every step.
fn hash(expert: u64, token: u64, seed: u64) -> u64 {
    const CUT: u64 = 0xFFFF_FFFF;
    let part = |number: u64, factor: u64| ((number & CUT) * factor) & CUT;
    let x = (part(token, 0x9E37_79B1) + part(expert, 0x85EB_CA77) + part(seed, 0xC2B2_AE3D)) & CUT;
    let x = part(x ^ (x >> 16), 0x7FEB_352D);
    let x = part(x ^ (x >> 15), 0x846C_A68B);
    x ^ (x >> 16)
}

/// Of each replica how much of its bucket it keeps, and which replica gets the rest.
fn buckets(weights: &[f64]) -> Vec<(u64, usize)> {
    const FULL: u64 = 1 << 32;
    let total: f64 = weights.iter().sum();
    let whole = FULL * weights.len() as u64;
    let last = weights.iter().rposition(|weight| *weight > 0.0).expect("a weight");
    let (mut sum, mut sums) = (0.0, vec![0]);
    for (place, weight) in weights.iter().enumerate() {
        sum += weight;
        sums.push(if place >= last { whole } else { (sum / total * whole as f64).floor() as u64 });
    }
    let mut left: Vec<u64> = sums.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut buckets: Vec<(u64, usize)> = (0..left.len()).map(|place| (FULL, place)).collect();
    let mut is_filled = vec![false; left.len()];
    // One that has fallen short by giving comes next, and else the first with too few.
    let mut next = None;
    while let Some(place) =
        next.take().or_else(|| (0..left.len()).find(|place| left[*place] < FULL && !is_filled[*place]))
    {
        let Some(giver) = (0..left.len()).find(|place| left[*place] > FULL) else { break };
        buckets[place] = (left[place], giver);
        is_filled[place] = true;
        left[giver] -= FULL - left[place];
        next = (left[giver] < FULL).then_some(giver);
    }
    buckets
}

fn slot_of(case: &Case, id: i64, token: u64) -> i64 {
    let Some(expert) = usize::try_from(id).ok().filter(|expert| *expert < case.experts) else { return -1 };
    let replicas = replicas(case, expert);
    let product = hash(expert as u64, token, case.seed) * replicas.len() as u64;
    let (bucket, place) = ((product >> 32) as usize, product & 0xFFFF_FFFF);
    let chosen = match &case.choice {
        Choice::Weighted(weights) => {
            let own: Vec<f64> = replicas.iter().map(|slot| weights[*slot]).collect();
            let (kept, other) = buckets(&own)[bucket];
            if place < kept { bucket } else { other }
        }
        Choice::Hashed | Choice::Even => bucket,
    };
    replicas[chosen] as i64
}

fn expected(case: &Case) -> Tables {
    let valid = case.valid.map_or(case.ids.len(), |valid| valid * case.top_k);
    let mut slots = vec![-1; case.ids.len()];
    for (place, slot) in slots.iter_mut().enumerate().take(valid) {
        let token = case.offset.wrapping_add((place / case.top_k) as u64);
        let id = case.ids[place];
        *slot = match case.choice {
            Choice::Even if (0..case.experts as i64).contains(&id) => {
                let replicas = replicas(case, id as usize);
                let first = (hash(id as u64, case.offset, case.seed) * replicas.len() as u64) >> 32;
                let turn = case.ids[..place].iter().filter(|before| **before == id).count();
                replicas[(first as usize + turn) % replicas.len()] as i64
            }
            _ => slot_of(case, id, token),
        };
    }
    let room = case.row.len() + case.more_room;
    let ranks = case.ranks.num_ranks();
    let counts = (0..room).map(|slot| slots.iter().filter(|one| **one == slot as i64).count() as i64);
    let below = |end: usize| slots.iter().filter(|slot| (0..end as i64).contains(*slot)).count() as i64;
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|place| (slots[*place] < 0, slots[*place], *place));
    let position = |place: usize| order.iter().position(|one| *one == place).expect("a permutation") as i64;
    let local = |rank: usize| {
        let own = case.ranks.range(rank);
        let local = move |slot: &i64| if own.contains(&(*slot as usize)) { slot - own.start as i64 } else { -1 };
        slots.iter().map(local).collect::<Vec<_>>()
    };
    let begin = |rank: usize| if rank == ranks { below(case.row.len()) } else { below(case.ranks.range(rank).start) };
    let mut tables = Tables::default();
    tables.put("slots", slots.iter().copied());
    tables.put("local_slots", (0..ranks).flat_map(local));
    tables.put("slot_counts", counts);
    tables.put("slot_offsets", (0..=room).map(below));
    tables.put("rank_counts", (0..ranks).map(|rank| begin(rank + 1) - begin(rank)));
    tables.put("rank_offsets", (0..=ranks).map(begin));
    tables.put("order", order.iter().map(|place| *place as i64));
    tables.put("positions", (0..slots.len()).map(position));
    tables
}

/// Ids of 32 bits are routed alike, and offsets and seeds count modulo 2^32.
fn narrow(router: &Router<'_>, placement: &Placement, case: &Case) -> Result<(), String> {
    let narrow: Vec<i32> = case.ids.iter().map(|id| i32::try_from(*id).unwrap_or(-1)).collect();
    let turned = Case {
        ranks: case.ranks.clone(),
        row: case.row.clone(),
        ids: Vec::new(),
        offset: case.offset.wrapping_add(3 << 32),
        seed: case.seed.wrapping_add(1 << 40),
        choice: match &case.choice {
            Choice::Hashed => Choice::Hashed,
            Choice::Even => Choice::Even,
            Choice::Weighted(weights) => Choice::Weighted(weights.clone()),
        },
        damage: Vec::new(),
        ..*case
    };
    let same = answers(router, &turned, &narrow).and_then(|narrow| Ok(narrow == answers(router, case, &case.ids)?));
    law("widths_of_ids_change_nothing", same == Ok(true))?;
    let wrong = RoutingShape::new(case.experts as u32 + 1, 64, case.ranks.num_ranks() as u32, false).expect("a shape");
    let refused = placement.write_routing_table(0, &wrong, None, None, &mut vec![0; wrong.len()]);
    law("wrong_updates_are_refused", refused.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three experts on two ranks, of which one is on both.
    fn case(choice: Choice) -> Case {
        Case {
            ranks: Ranks::with(&[2, 2]),
            experts: 3,
            row: vec![0, 1, 2, 0],
            ids: vec![0, 1, 2, 0, 7, 0],
            top_k: 2,
            offset: u64::from(u32::MAX),
            seed: 5,
            valid: None,
            choice,
            sender: None,
            more_room: 1,
            damage: vec![],
        }
    }

    #[test]
    fn every_entry_of_every_table_matters() {
        for choice in [Choice::Hashed, Choice::Even, Choice::Weighted(vec![1.0, 1.0, 2.0, 5.0])] {
            crate::tables::expect_every_entry_matters(&expected(&case(choice)));
        }
    }

    #[test]
    fn a_router_that_takes_tokens_in_turn_is_refused() {
        let case = case(Choice::Hashed);
        let placement = case.ranks.placement(std::slice::from_ref(&case.row), 3).unwrap();
        let shape = RoutingShape::new(3, 5, 2, false).unwrap();
        let mut table = vec![0; shape.len()];
        placement.write_routing_table(0, &shape, None, None, &mut table).unwrap();
        let router = Router::new(shape, &table).unwrap();
        assert_eq!(answers(&router, &case, &case.ids).unwrap().compare(&expected(&case)), Ok(()));
        let other = Case { seed: 6, ..self::case(Choice::Hashed) };
        assert!(answers(&router, &other, &case.ids).unwrap().compare(&expected(&case)).is_err());
        // The seven tokens' hashes are those of the specification.
        assert_eq!([hash(0, 0, 0), hash(1, 0, 0)], [0, hash(1, 1 << 32, 1 << 40)]);
    }

    #[test]
    fn buckets_hold_the_parts_of_the_weights() {
        let weights = [1.0, 0.0, 2.0, 5.0];
        let mut shares = vec![0; 4];
        for (place, (kept, other)) in buckets(&weights).into_iter().enumerate() {
            shares[place] += kept;
            shares[other] += (1 << 32) - kept;
        }
        assert_eq!(shares, [1 << 31, 0, 1 << 32, 5 << 31]);
    }
}
