//! Migrations between any two placements, carried out slot by slot. SPEC.md, "Migration" and "Batches".

use std::collections::BTreeMap;

use expert_placement::{EMPTY, Migration, MigrationLimits, plan_migration, plan_migration_within};

use crate::input::Input;
use crate::ranks::Ranks;
use crate::{Outcome, law, report};

#[derive(Debug)]
struct Case {
    ranks: Ranks,
    /// Which ranks were active in the old placement.
    was_active: Vec<bool>,
    experts: usize,
    old: Vec<Vec<i32>>,
    new: Vec<Vec<i32>>,
    max_node_transfers: Option<u32>,
    max_staged: Option<u32>,
    bytes: Vec<u64>,
}

impl Case {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        let ranks = Ranks::read(input, 5, 5);
        let before = ranks.with_active(ranks.active.iter().map(|active| *active || input.is_set()).collect());
        let (experts, layers) = (input.below(9), 1 + input.below(3));
        let mut limit = |most| (input.below(3) == 0).then(|| input.below(most) as u32);
        let (max_node_transfers, max_staged) = (limit(4), limit(8));
        let old = (0..layers).map(|_| before.legal_row(input, experts)).collect::<Option<_>>()?;
        let new = (0..layers).map(|_| ranks.legal_row(input, experts)).collect::<Option<_>>()?;
        let bytes = (0..layers).map(|_| u64::from(input.u32())).collect();
        Some(Self { ranks, was_active: before.active, experts, old, new, max_node_transfers, max_staged, bytes })
    }

    /// An expert that no rank which is in service holds in the old placement, though one is to get it.
    fn has_lost(&self) -> bool {
        let of_slots = self.ranks.of_slots();
        self.old.iter().zip(&self.new).any(|(old, new)| {
            let is_held =
                |expert: i32| (0..old.len()).any(|slot| old[slot] == expert && self.ranks.active[of_slots[slot]]);
            (0..old.len()).any(|slot| new[slot] != EMPTY && new[slot] != old[slot] && !is_held(new[slot]))
        })
    }
}

/// A plan in plain numbers, which the laws are about.
#[derive(Clone, Debug)]
struct Plan {
    /// Layer, expert, source and destination of each move.
    moves: Vec<[usize; 4]>,
    batches: Vec<usize>,
    written: Vec<usize>,
    senders: Vec<usize>,
    receivers: Vec<usize>,
    staged: usize,
    is_safe: bool,
}

impl Plan {
    fn of(plan: &Migration) -> Self {
        let wide = |numbers: &[u32]| numbers.iter().map(|number| *number as usize).collect();
        let moves =
            plan.moves().iter().map(|one| [one.layer, one.expert, one.source, one.destination].map(|id| id as usize));
        Self {
            moves: moves.collect(),
            batches: wide(plan.batches()),
            written: wide(plan.write_batches()),
            senders: wide(plan.senders()),
            receivers: wide(plan.receivers()),
            staged: plan.num_staged(),
            is_safe: plan.is_interruption_safe(),
        }
    }

    /// The batch of each move.
    fn of_moves(&self) -> Vec<usize> {
        self.batches.windows(2).enumerate().flat_map(|(batch, ends)| vec![batch; ends[1] - ends[0]]).collect()
    }

    fn is_transfer(&self, index: usize) -> bool {
        self.senders[index] != self.receivers[index]
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let Some(case) = Case::read(&mut Input::new(bytes)) else { return Outcome::Refused };
    let before = case.ranks.with_active(case.was_active.clone());
    let old = before.placement(&case.old, case.experts).expect("a legal placement");
    let new = case.ranks.placement(&case.new, case.experts).expect("a legal placement");
    let mut limits = MigrationLimits::default();
    limits.max_node_transfers = case.max_node_transfers;
    limits.max_staged = case.max_staged;
    let Ok(free) = plan_migration(&old, &new) else {
        assert!(case.has_lost(), "refused: {case:?}");
        return Outcome::Refused;
    };
    assert!(!case.has_lost(), "not refused: {case:?}");
    let mut plan = Plan::of(&free);
    plant(&case, &mut plan);
    report(
        &case,
        check(&case, &plan)
            .and_then(|()| law("batches_are_as_few_as_can_be", fewest(&case, &plan) == plan.batches.len() - 1)),
    );
    report(&case, traffic(&case, &free));
    let Ok(within) = plan_migration_within(&old, &new, limits) else {
        // The limit was too low for the moves of some layer.
        let is_wrong = limits.max_node_transfers == Some(0);
        assert!(is_wrong || limits.max_staged.is_some_and(|most| (most as usize) < plan.staged), "refused: {case:?}");
        return Outcome::Refused;
    };
    let within = Plan::of(&within);
    report(&case, check(&case, &within).and_then(|()| limited(&case, &plan, &within)));
    Outcome::Answered
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case, _: &mut Plan) {}

/// What waits is written a batch too early.
#[cfg(feature = "planted")]
fn plant(_: &Case, plan: &mut Plan) {
    let of_moves = plan.of_moves();
    for (written, batch) in plan.written.iter_mut().zip(of_moves) {
        *written -= usize::from(*written > batch);
    }
}

/// The laws of every plan, whatever its limits.
fn check(case: &Case, plan: &Plan) -> Result<(), String> {
    let (of_slots, nodes, of_moves) = (case.ranks.of_slots(), case.ranks.nodes(), plan.of_moves());
    let num_moves = plan.moves.len();
    let is_cut = plan.batches[0] == 0 && plan.batches.windows(2).all(|ends| ends[0] < ends[1]);
    law("batches_cut_the_moves", is_cut && plan.batches.last() == Some(&num_moves) && plan.written.len() == num_moves)?;
    let mut wanted: Vec<[usize; 3]> = Vec::new();
    for (layer, (old, new)) in case.old.iter().zip(&case.new).enumerate() {
        let changed = (0..old.len()).filter(|slot| new[*slot] != EMPTY && new[*slot] != old[*slot]);
        wanted.extend(changed.map(|slot| [layer, new[slot] as usize, slot]));
    }
    let mut planned: Vec<[usize; 3]> =
        plan.moves.iter().map(|[layer, expert, _, slot]| [*layer, *expert, *slot]).collect();
    planned.sort_unstable_by_key(|[layer, _, slot]| [*layer, *slot]);
    law("changed_slots_are_moved_to", planned == wanted)?;
    // What every rank has sent, as the moves are taken by layer and slot.
    let mut taken: Vec<usize> = (0..num_moves).collect();
    taken.sort_unstable_by_key(|index| [plan.moves[*index][0], plan.moves[*index][3]]);
    let mut sent = vec![0; case.ranks.num_ranks()];
    for index in taken {
        let [layer, expert, source, destination] = plan.moves[index];
        let (old, to) = (&case.old[layer], of_slots[destination]);
        let distance = |slot: usize| match of_slots[slot] {
            rank if rank == to => 0,
            rank if nodes[rank] == nodes[to] => 1,
            _ => 2,
        };
        let is_source = |slot: &usize| old[*slot] == expert as i32 && case.ranks.active[of_slots[*slot]];
        let best = (0..old.len()).filter(is_source).min_by_key(|slot| {
            (distance(*slot), if distance(*slot) == 0 { 0 } else { sent[of_slots[*slot]] }, of_slots[*slot], *slot)
        });
        law("senders_are_spared", best == Some(source))?;
        law("senders_and_receivers_are_told", plan.senders[index] == of_slots[source] && plan.receivers[index] == to)?;
        sent[of_slots[source]] += usize::from(of_slots[source] != to);
    }
    let mut busy = BTreeMap::new();
    for index in (0..num_moves).filter(|index| plan.is_transfer(*index)) {
        for end in [(of_moves[index], 0, plan.senders[index]), (of_moves[index], 1, plan.receivers[index])] {
            *busy.entry(end).or_insert(0) += 1;
        }
    }
    law("no_rank_sends_or_receives_twice", busy.values().all(|times| *times == 1))?;
    let is_later =
        |index: usize| plan.written[index] >= of_moves[index] && plan.written[index] + 1 < plan.batches.len();
    law("writes_follow_reads", (0..num_moves).all(is_later))?;
    carried_out(case, plan, &of_moves)
}

/// Every batch read and written, slot by slot.
fn carried_out(case: &Case, plan: &Plan, of_moves: &[usize]) -> Result<(), String> {
    let of_slots = case.ranks.of_slots();
    let mut now = case.old.clone();
    let mut held: Vec<Option<i32>> = vec![None; plan.moves.len()];
    let (mut staged, mut is_safe) = (0, true);
    for batch in 0..plan.batches.len() - 1 {
        for index in (0..plan.moves.len()).filter(|index| of_moves[*index] == batch) {
            let [layer, expert, source, _] = plan.moves[index];
            law("nothing_is_read_too_late", now[layer][source] == expert as i32)?;
            held[index] = Some(now[layer][source]);
        }
        let on_rank = |rank: usize| {
            (0..held.len()).filter(|index| held[*index].is_some() && plan.receivers[*index] == rank).count()
        };
        staged = staged.max((0..case.ranks.num_ranks()).map(on_rank).max().unwrap_or(0));
        for index in (0..plan.moves.len()).filter(|index| plan.written[*index] == batch) {
            let [layer, _, _, destination] = plan.moves[index];
            if let Some(expert) = held[index].take() {
                now[layer][destination] = expert;
            }
        }
        for row in &now {
            let is_held =
                |expert: i32| (0..row.len()).any(|slot| row[slot] == expert && case.ranks.active[of_slots[slot]]);
            is_safe &= (0..case.experts as i32).all(is_held);
        }
    }
    law("interruptions_lose_nothing", is_safe)?;
    law("safety_is_told_truly", is_safe == plan.is_safe)?;
    law("staging_is_the_stated_peak", staged == plan.staged)?;
    let is_there =
        |(now, new): (&Vec<i32>, &Vec<i32>)| now.iter().zip(new).all(|(now, new)| *new == EMPTY || now == new);
    law("plan_ends_in_the_new_placement", now.iter().zip(&case.new).all(is_there))?;
    // The least that a destination has to wait: for the copies of what it held, and for what waits for those.
    let mut least = of_moves.to_vec();
    for _ in 0..=least.len() {
        for index in 0..least.len() {
            let [layer, _, _, destination] = plan.moves[index];
            let copies =
                (0..least.len()).filter(|other| plan.moves[*other][0] == layer && plan.moves[*other][2] == destination);
            least[index] = copies.map(|other| least[other]).fold(least[index], usize::max);
        }
    }
    law("writes_wait_for_copies", least == plan.written)
}

/// As many batches as the busiest rank sends or receives, or one where nothing leaves its rank.
fn fewest(case: &Case, plan: &Plan) -> usize {
    let transfers: Vec<usize> = (0..plan.moves.len()).filter(|index| plan.is_transfer(*index)).collect();
    let times = |ends: &[usize], rank: usize| transfers.iter().filter(|index| ends[**index] == rank).count();
    let busiest =
        (0..case.ranks.num_ranks()).flat_map(|rank| [times(&plan.senders, rank), times(&plan.receivers, rank)]);
    busiest.max().unwrap_or(0).max(usize::from(!plan.moves.is_empty()))
}

/// What goes over the network in each batch.
fn traffic(case: &Case, migration: &Migration) -> Result<(), String> {
    let told = migration.traffic(&case.bytes).expect("traffic");
    let plan = Plan::of(migration);
    let width = case.ranks.num_ranks();
    let (mut sent, mut received) = (vec![0; told.sent.len()], vec![0; told.sent.len()]);
    for (index, batch) in plan.of_moves().into_iter().enumerate().filter(|(index, _)| plan.is_transfer(*index)) {
        sent[batch * width + plan.senders[index]] += case.bytes[plan.moves[index][0]];
        received[batch * width + plan.receivers[index]] += case.bytes[plan.moves[index][0]];
    }
    law("traffic_is_of_transfers", told.sent == sent && told.received == received)
}

/// The laws of plans within limits, beside the plan without.
fn limited(case: &Case, free: &Plan, within: &Plan) -> Result<(), String> {
    let sorted = |plan: &Plan| {
        let mut moves = plan.moves.clone();
        moves.sort_unstable();
        moves
    };
    law("limits_change_no_moves", sorted(free) == sorted(within))?;
    law("staging_is_limited", case.max_staged.is_none_or(|most| within.staged <= most as usize))?;
    let nodes = case.ranks.nodes();
    // The most transfers between nodes that leave a node, or enter one, in a batch.
    let busiest = |plan: &Plan, batch: usize| {
        let members = plan.batches[batch]..plan.batches[batch + 1];
        let between: Vec<usize> =
            members.filter(|index| nodes[plan.senders[*index]] != nodes[plan.receivers[*index]]).collect();
        let at = |ends: &[usize], node: usize| between.iter().filter(|index| nodes[ends[**index]] == node).count();
        let of_nodes = (0..case.ranks.num_nodes).flat_map(|node| [at(&plan.senders, node), at(&plan.receivers, node)]);
        of_nodes.max().unwrap_or(0)
    };
    let batches = |plan: &Plan| 0..plan.batches.len() - 1;
    if let Some(most) = case.max_node_transfers {
        let most = most as usize;
        law("node_transfers_are_limited", batches(within).all(|batch| busiest(within, batch) <= most))?;
        let split: usize = batches(free).map(|batch| busiest(free, batch).div_ceil(most).max(1)).sum();
        law("batches_are_split_as_little_as_can_be", case.max_staged.is_some() || within.batches.len() - 1 == split)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three ranks of a slot pass their experts on in a ring, and a fourth gets a copy.
    fn case() -> Case {
        Case {
            ranks: Ranks::with(&[1, 1, 1, 1]),
            was_active: vec![true; 4],
            experts: 3,
            old: vec![vec![0, 1, 2, -1]],
            new: vec![vec![1, 2, 0, 0]],
            max_node_transfers: None,
            max_staged: None,
            bytes: vec![10],
        }
    }

    fn plan(case: &Case) -> Plan {
        let [old, new] = [&case.old, &case.new].map(|rows| case.ranks.placement(rows, case.experts).unwrap());
        Plan::of(&plan_migration(&old, &new).unwrap())
    }

    #[test]
    fn what_the_crate_plans_is_a_plan() {
        assert_eq!(check(&case(), &plan(&case())), Ok(()));
        assert_eq!(limited(&case(), &plan(&case()), &plan(&case())), Ok(()));
    }

    #[test]
    fn broken_plans_are_refused_by_the_name_of_the_law() {
        type Break = fn(&mut Plan);
        let breaking: [(&str, Break); 10] = [
            ("batches_cut_the_moves", |plan| plan.batches[0] = 1),
            ("changed_slots_are_moved_to", |plan| plan.moves[0][1] += 1),
            ("senders_are_spared", |plan| plan.moves[0][2] = 3),
            ("senders_and_receivers_are_told", |plan| plan.senders[0] = 3),
            ("no_rank_sends_or_receives_twice", |plan| plan.batches = vec![0, plan.moves.len()]),
            ("writes_follow_reads", |plan| plan.written[0] = 7),
            ("safety_is_told_truly", |plan| plan.is_safe = false),
            ("staging_is_the_stated_peak", |plan| plan.staged = 0),
            ("nothing_is_read_too_late", |plan| {
                // The ring before the copy, and each written as soon as it is read.
                let end = plan.moves.len();
                plan.moves.reverse();
                plan.senders.reverse();
                plan.receivers.reverse();
                plan.batches = vec![0, end - plan.batches[1], end];
                plan.written = plan.of_moves();
            }),
            ("writes_wait_for_copies", |plan| plan.written = vec![1; plan.moves.len()]),
        ];
        for (law, break_it) in breaking {
            let mut plan = plan(&case());
            break_it(&mut plan);
            assert_eq!(check(&case(), &plan), Err(law.to_owned()));
        }
    }

    #[test]
    fn broken_limits_are_refused_by_the_name_of_the_law() {
        let mut case = case();
        let plan = plan(&case);
        case.ranks.num_nodes = 2;
        case.max_node_transfers = Some(1);
        let mut other = plan.clone();
        other.moves.pop();
        assert_eq!(limited(&case, &plan, &other), Err("limits_change_no_moves".to_owned()));
        case.max_staged = Some(0);
        assert_eq!(limited(&case, &plan, &plan), Err("staging_is_limited".to_owned()));
    }
}
