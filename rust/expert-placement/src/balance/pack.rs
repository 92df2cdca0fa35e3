//! Replicas into ranks: the heaviest first, each to the rank that is done first. SPEC.md, "Packing".

use super::shape::Shape;
use super::state::{NONE, State};
use super::tournament::{OUT, Tournament, ascending};

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    order: Vec<u32>,
    tournament: Tournament,
    chosen: Vec<usize>,
    room: Vec<usize>,
    used: Vec<usize>,
    came_from: Vec<(usize, u32)>,
    queue: Vec<usize>,
}

/// Fills the empty ranks of a state with every expert's replicas, no two of one expert on a rank.
pub(crate) fn pack(shape: &Shape, work: &mut Workspace, state: &mut State) {
    work.order.clear();
    work.order.extend(0..state.counts.len() as u32);
    let shares = &state.shares;
    // Heavier first; of equals the lower expert.
    work.order.sort_unstable_by_key(|expert| (!shares[*expert as usize].to_bits(), *expert));
    work.room.clear();
    work.room.extend(shape.bins.iter().map(|bin| bin.room));
    work.tournament.fill(work.room.iter().map(|room| if *room == 0 { OUT } else { 0 }));
    let order = std::mem::take(&mut work.order);
    for &expert in &order {
        put_all(expert, shape, work, state);
    }
    work.order = order;
    for bin in 0..shape.bins.len() {
        state.settle(bin, shape);
    }
}

/// Puts every replica of an expert on a rank of its own.
fn put_all(expert: u32, shape: &Shape, work: &mut Workspace, state: &mut State) {
    let (replicas, load) = (state.counts[expert as usize], state.shares[expert as usize]);
    let is_spread = replicas > 1 && shape.num_nodes > 1;
    work.chosen.clear();
    work.used.clear();
    work.used.resize(shape.num_nodes, 0);
    for _ in 0..replicas {
        let bin = if shape.is_even_speed && !is_spread {
            (work.tournament.least() != OUT).then(|| work.tournament.winner())
        } else {
            first_done(load, shape, work, state)
        };
        let bin = match bin {
            Some(bin) => bin,
            None => match make_room(expert, shape, work, state) {
                Some(bin) => bin,
                None => break,
            },
        };
        work.used[shape.bins[bin].node] += 1;
        // Out of the choice until all replicas of this expert have their ranks.
        work.tournament.set(bin, OUT);
        work.chosen.push(bin);
        work.room[bin] -= 1;
        let last = state.first[bin] + work.room[bin];
        state.items[last] = expert;
        state.set_holder(bin, expert, true);
        state.loads[bin] += load;
    }
    for &bin in &work.chosen {
        if work.room[bin] > 0 {
            work.tournament.set(bin, ascending(state.loads[bin]));
        }
    }
}

/// The rank with room that would be done first with one more share; on the node with the fewest replicas of the expert.
fn first_done(load: f64, shape: &Shape, work: &Workspace, state: &State) -> Option<usize> {
    let mut best: Option<(usize, f64, usize)> = None;
    for (bin, about) in shape.bins.iter().enumerate() {
        if work.room[bin] == 0 || work.chosen.contains(&bin) {
            continue;
        }
        let used = work.used[about.node];
        let time = (state.loads[bin] + load) / about.speed;
        if best.is_none_or(|(fewest, least, _)| used < fewest || (used == fewest && time < least)) {
            best = Some((used, time, bin));
        }
    }
    best.map(|(_, _, bin)| bin)
}

/// Frees a place on a rank that lacks the expert, by passing items on from rank to rank until one finds room.
///
/// All ranks with room hold the expert already. A chain exists wherever the numbers of replicas can be placed at all.
fn make_room(expert: u32, shape: &Shape, work: &mut Workspace, state: &mut State) -> Option<usize> {
    const UNSEEN: usize = usize::MAX;
    work.came_from.clear();
    work.came_from.resize(shape.bins.len(), (UNSEEN, NONE));
    work.queue.clear();
    for bin in 0..shape.bins.len() {
        if !state.holds(bin, expert) {
            work.came_from[bin] = (bin, NONE);
            work.queue.push(bin);
        }
    }
    let mut head = 0;
    while let Some(&bin) = work.queue.get(head) {
        head += 1;
        for place in state.first[bin]..state.first[bin + 1] {
            let item = state.items[place];
            for next in 0..shape.bins.len() {
                if work.came_from[next].0 != UNSEEN || state.holds(next, item) {
                    continue;
                }
                work.came_from[next] = (bin, item);
                if work.room[next] > 0 {
                    return Some(pass_on(next, work, state));
                }
                work.queue.push(next);
            }
        }
    }
    None
}

/// Moves one item along each link of the chain that ends at `to`, and gives the rank where the chain began.
fn pass_on(to: usize, work: &mut Workspace, state: &mut State) -> usize {
    work.room[to] -= 1;
    let mut free = state.first[to] + work.room[to];
    let mut bin = to;
    loop {
        let (from, item) = work.came_from[bin];
        if from == bin {
            break;
        }
        let share = state.share(item);
        let place =
            (state.first[from]..state.first[from + 1]).find(|place| state.items[*place] == item).unwrap_or(free);
        state.items.swap(free, place);
        state.set_holder(from, item, false);
        state.set_holder(bin, item, true);
        state.loads[from] -= share;
        state.loads[bin] += share;
        free = place;
        bin = from;
    }
    // The free place is the rank's next one by its count of free places.
    let next = state.first[bin] + work.room[bin];
    state.items.swap(free, next);
    work.room[bin] += 1;
    bin
}
