//! Local search: swaps between two ranks, and replicas that move from one expert to another. SPEC.md, "Refinement".
//!
//! Every step takes load from the busiest rank and leaves all ranks that it touches below that rank's old time, so the
//! times in descending order fall from step to step, and the search ends.

use std::cmp::Ordering;

use super::nodes::{may_exchange, may_replace};
use super::shape::Shape;
use super::state::{NONE, State};

/// A step counts only where it gains more than rounding could feign.
pub(crate) const LEAST_GAIN: f64 = 1e-12;

/// A change to a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Two ranks exchange an item each; the second may be `NONE`, unused room.
    Swap { hot: usize, gives: u32, cold: usize, takes: u32 },
    /// A rank's redundant replica, or unused room, becomes a replica of another expert; `NONE` is room that is left.
    Replace { bin: usize, old: u32, new: u32 },
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Ranks by time, the least busy first; of equals the highest first, so that the last is the lowest busiest rank.
    order: Vec<u32>,
    my_pairs: Vec<Pair>,
    their_pairs: Vec<Pair>,
    changes: Vec<(usize, f64)>,
    gainers: Vec<Latest>,
    /// How many replacements were looked at in this layer.
    tries: usize,
}

/// Two items of one rank, and what they weigh together.
#[derive(Clone, Copy, Debug)]
struct Pair {
    share: f64,
    items: [u32; 2],
}

/// An exchange of two items for two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoubleSwap {
    pub(crate) gives: [u32; 2],
    pub(crate) cold: usize,
    pub(crate) takes: [u32; 2],
}

impl Workspace {
    /// Begins with another layer.
    pub(crate) fn begin(&mut self) {
        self.tries = 0;
    }

    pub(crate) fn sort(&mut self, state: &State) {
        self.order.clear();
        self.order.extend(0..state.times.len() as u32);
        self.order.sort_unstable_by(|left, right| before(*left, *right, state));
    }

    /// Puts ranks whose times have changed where they belong.
    fn move_to_their_places(&mut self, bins: [usize; 2], state: &State) {
        let bins = bins.map(|bin| bin as u32);
        self.order.retain(|other| !bins.contains(other));
        for bin in bins {
            let place = self.order.partition_point(|other| before(*other, bin, state).is_lt());
            self.order.insert(place, bin);
        }
    }
}

fn before(left: u32, right: u32, state: &State) -> Ordering {
    // Times are at least 0, so their bits order them.
    let time = |bin: u32| state.times[bin as usize].to_bits();
    time(left).cmp(&time(right)).then(right.cmp(&left))
}

/// Improves a state until its busiest rank takes at most `target`, no step helps, or there were enough.
pub(crate) fn refine(weights: &[f64], target: f64, shape: &Shape, work: &mut Workspace, state: &mut State) {
    work.sort(state);
    // Each step lowers the number of ranks at the largest time; the bound is a safeguard of time.
    let most_steps = 32 * shape.bins.len() + 256;
    for _ in 0..most_steps {
        let Some(&hot) = work.order.last() else { return };
        let hot = hot as usize;
        if state.times[hot] <= target {
            return;
        }
        if let Some(Step::Swap { cold, gives, takes, .. }) = best_swap(hot, target, shape, work, state) {
            exchange(hot, gives, cold, takes, shape, state);
            work.move_to_their_places([hot, cold], state);
        } else if let Some(swap) = best_double_swap(hot, target, shape, work, state) {
            for (gives, takes) in swap.gives.into_iter().zip(swap.takes) {
                state.replace(hot, gives, takes);
                state.replace(swap.cold, takes, gives);
            }
            state.settle(hot, shape);
            state.settle(swap.cold, shape);
            work.move_to_their_places([hot, swap.cold], state);
        } else if let Some(step) = best_replacement(weights, shape, work, state) {
            apply(step, weights, shape, state);
            work.sort(state);
        } else {
            return;
        }
    }
}

fn exchange(hot: usize, gives: u32, cold: usize, takes: u32, shape: &Shape, state: &mut State) {
    state.replace(hot, gives, takes);
    state.replace(cold, takes, gives);
    state.settle(hot, shape);
    state.settle(cold, shape);
}

/// Exchanges second replicas of an expert on a rank for the items of other ranks that weigh the most like them, of equals
/// those of the lowest rank; whether that is possible.
pub(crate) fn separate(shape: &Shape, state: &mut State) -> bool {
    for bin in 0..shape.bins.len() {
        // Equal items stand side by side.
        while let Some(twice) =
            state.items_of(bin).windows(2).find(|pair| pair[0] == pair[1] && pair[0] != NONE).map(|pair| pair[0])
        {
            let mut best: Option<(f64, usize, u32)> = None;
            for other in (0..shape.bins.len()).filter(|other| !state.holds(*other, twice)) {
                for (&item, share) in state.items_of(other).iter().zip(state.shares_of(other)) {
                    let distance = (share - state.share(twice)).abs();
                    let is_apt = item != NONE && !state.holds(bin, item);
                    if is_apt && best.is_none_or(|(least, _, _)| distance < least) {
                        best = Some((distance, other, item));
                    }
                }
            }
            let Some((_, other, item)) = best else { return false };
            exchange(bin, twice, other, item, shape, state);
            // One of two is still there, of the other rank's item, too, if that stood there twice.
            for touched in [bin, other] {
                for place in state.first[touched]..state.first[touched + 1] {
                    let item = state.items[place];
                    state.set_holder(touched, item, true);
                }
            }
        }
    }
    true
}

/// Carries a step out.
pub(crate) fn apply(step: Step, weights: &[f64], shape: &Shape, state: &mut State) {
    match step {
        Step::Swap { hot, gives, cold, takes } => exchange(hot, gives, cold, takes, shape, state),
        Step::Replace { bin, old, new } => {
            state.replace(bin, old, new);
            for (expert, grows) in [(old, false), (new, true)] {
                if expert != NONE {
                    let count = &mut state.counts[expert as usize];
                    *count = if grows { *count + 1 } else { *count - 1 };
                    state.shares[expert as usize] = weights[expert as usize] / f64::from(*count);
                }
            }
            for touched in 0..shape.bins.len() {
                let holds = |expert| expert != NONE && state.holds(touched, expert);
                if touched == bin || holds(old) || holds(new) {
                    state.settle(touched, shape);
                }
            }
        }
    }
}

/// Gives an expert without a replica one: in unused room, or in the place of a redundant replica, wherever that leaves the
/// busiest of the ranks that it touches done earliest; of equals the lowest rank, and then the lightest item.
pub(crate) fn bring_back(expert: u32, weights: &[f64], shape: &Shape, state: &mut State) {
    let weight = weights[expert as usize];
    let mut best: Option<(f64, usize, u32)> = None;
    for (index, bin) in shape.bins.iter().enumerate() {
        for (&old, &share) in state.items_of(index).iter().zip(state.shares_of(index)).rev() {
            let mut time = (state.loads[index] - share + weight) / bin.speed;
            if old != NONE {
                let count = state.counts[old as usize];
                if count < 2 {
                    continue;
                }
                let more = weights[old as usize] / f64::from(count - 1) - share;
                for holder in state.holders_of(old).filter(|holder| *holder != index) {
                    time = time.max((state.loads[holder] + more) / shape.bins[holder].speed);
                }
            }
            if best.is_none_or(|(least, _, _)| time < least) {
                best = Some((time, index, old));
            }
        }
    }
    if let Some((_, bin, old)) = best {
        apply(Step::Replace { bin, old, new: expert }, weights, shape, state);
    }
}

/// The exchange with another rank that leaves the later of the two done earliest; the first that both end by `target`.
fn best_swap(hot: usize, target: f64, shape: &Shape, work: &Workspace, state: &State) -> Option<Step> {
    let (hot_load, hot_speed) = (state.loads[hot], shape.bins[hot].speed);
    let mut best = state.times[hot] * (1.0 - LEAST_GAIN);
    let mut step = None;
    let (mine, my_shares) = (state.items_of(hot), state.shares_of(hot));
    for &cold in &work.order {
        let cold = cold as usize;
        if cold == hot {
            continue;
        }
        let (cold_load, cold_speed) = (state.loads[cold], shape.bins[cold].speed);
        // Where the two would be done at the same time; no exchange can do better.
        let together = (hot_load + cold_load) / (hot_speed + cold_speed);
        if together >= best {
            if shape.is_even_speed {
                break;
            }
            continue;
        }
        // The load to move for that. With less the hot rank is done later than `together`, with more the cold one.
        let ideal = hot_load - together * hot_speed;
        let (mut least, mut most) = (ideal - (best - together) * hot_speed, ideal + (best - together) * cold_speed);
        let (theirs, their_shares) = (state.items_of(cold), state.shares_of(cold));
        let mut next = 0;
        for (&gives, &share) in mine.iter().zip(my_shares) {
            // Both lists descend, so the item nearest to the ideal difference moves on in one direction.
            while next < theirs.len() && their_shares[next] > share - ideal {
                next += 1;
            }
            if share <= 0.0 {
                break;
            }
            if state.holds(cold, gives) {
                continue;
            }
            // From there both ways: of either, the first that is allowed comes nearest.
            let is_allowed = |place: &usize| {
                let takes = theirs[*place];
                (takes == NONE || !state.holds(hot, takes))
                    && may_exchange((hot, &[gives]), (cold, &[takes]), shape, state)
            };
            let mut heavier = (0..next).rev().take_while(|place| share - their_shares[*place] > least.max(0.0));
            let mut lighter = (next..theirs.len()).take_while(|place| share - their_shares[*place] < most);
            let (heavier, lighter) = (heavier.find(is_allowed), lighter.find(is_allowed));
            for place in heavier.into_iter().chain(lighter) {
                let moved = share - their_shares[place];
                let later = ((hot_load - moved) / hot_speed).max((cold_load + moved) / cold_speed);
                if later < best {
                    best = later;
                    (least, most) = (ideal - (best - together) * hot_speed, ideal + (best - together) * cold_speed);
                    step = Some(Step::Swap { hot, gives, cold, takes: theirs[place] });
                }
            }
        }
        if best <= target.max(state.times[hot] - 0.8 * (state.times[hot] - together)) {
            break;
        }
    }
    step
}

/// How many replacements are looked at for a layer, times the ranks that each touches where it is looked at closely.
const MOST_REPLACEMENTS: usize = 1 << 27;

/// The replacement for one of the ranks that are as busy as the busiest that leaves the busiest of those that it touches
/// done earliest, of equals the first, and of those that may still be looked at in this layer.
fn best_replacement(weights: &[f64], shape: &Shape, work: &mut Workspace, state: &State) -> Option<Step> {
    let largest = work.order.last().map_or(0.0, |hot| state.times[*hot as usize]);
    let least = largest * (1.0 - LEAST_GAIN);
    let (mut best, mut step) = (least, None);
    // Of equally busy ranks the lowest comes last.
    let busiest = work.order.iter().rev().map(|hot| *hot as usize).take_while(|hot| state.times[*hot] >= least);
    find_gainers(weights, shape, &mut work.gainers, state);
    let slowest = shape.bins.iter().map(|bin| bin.speed).fold(f64::INFINITY, f64::min);
    for (bin, old, new) in busiest.flat_map(|hot| replacements(hot, shape, state)) {
        work.tries += 1;
        if work.tries > MOST_REPLACEMENTS {
            break;
        }
        // What that rank gets, and the busiest of those that get more of what it gives up, is soon known, and mostly too
        // much.
        let (gets, relief) = if new == NONE {
            (0.0, 0.0)
        } else {
            let next = weights[new as usize] / f64::from(state.counts[new as usize] + 1);
            (next, (state.share(new) - next) / slowest)
        };
        let gainer = if old == NONE { 0.0 } else { work.gainers[old as usize].without(bin) };
        if (state.loads[bin] - state.share(old) + gets) / shape.bins[bin].speed >= best || gainer - relief >= best {
            continue;
        }
        list_changes(bin, old, new, weights, state, &mut work.changes);
        work.tries += work.changes.len();
        let times = work.changes.iter().map(|(bin, change)| (state.loads[*bin] + change) / shape.bins[*bin].speed);
        let latest = times.fold(0.0, f64::max);
        if latest < best && may_replace(old, new, bin, weights, shape, state) {
            best = latest;
            step = Some(Step::Replace { bin, old, new });
        }
    }
    step
}

/// For each expert with several replicas, when the two busiest of the ranks that hold it would be done if there were one
/// less, and which these are.
fn find_gainers(weights: &[f64], shape: &Shape, gainers: &mut Vec<Latest>, state: &State) {
    gainers.clear();
    gainers.resize(weights.len(), Latest::default());
    for (expert, (latest, &count)) in
        (0..).zip(gainers.iter_mut().zip(&state.counts)).filter(|(_, (_, count))| **count > 1)
    {
        let more = weights[expert as usize] / f64::from(count - 1) - state.share(expert);
        for holder in state.holders_of(expert) {
            latest.offer((state.loads[holder] + more) / shape.bins[holder].speed, holder);
        }
    }
}

/// The two ranks that are done latest of those that were offered, with their times; 0 where there are fewer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latest([(f64, usize); 2]);

impl Latest {
    pub(crate) fn offer(&mut self, time: f64, rank: usize) {
        let [first, second] = &mut self.0;
        if time > first.0 {
            (*first, *second) = ((time, rank), *first);
        } else if time > second.0 {
            *second = (time, rank);
        }
    }

    /// The later time that is not of a certain rank.
    pub(crate) const fn without(&self, rank: usize) -> f64 {
        let [first, second] = self.0;
        if first.1 == rank { second.0 } else { first.0 }
    }
}

/// Every rank, what it gives up and what it gets, where an expert of a rank comes to stand where there is room or a
/// redundant replica: the heaviest expert first, and then the lowest rank. At last, where that rank gives a redundant
/// replica up for nothing.
pub(crate) fn replacements<'a>(
    hot: usize,
    shape: &Shape,
    state: &'a State,
) -> impl Iterator<Item = (usize, u32, u32)> + 'a {
    let is_redundant = |item: u32| item != NONE && state.counts[item as usize] > 1;
    let mine: Vec<u32> = state.items_of(hot).iter().copied().filter(|item| *item != NONE).collect();
    let given: Vec<u32> = mine.iter().copied().filter(|item| is_redundant(*item)).collect();
    // Few places are room, or hold a redundant replica.
    let mut places = Vec::new();
    for bin in 0..shape.bins.len() {
        let items = state.items_of(bin).iter().copied();
        places.extend(items.filter(|item| *item == NONE || is_redundant(*item)).map(|item| (bin, item)));
    }
    let taken = (0..mine.len() * places.len()).map(move |index| {
        let (bin, old) = places[index % places.len()];
        (bin, old, mine[index / places.len()])
    });
    let taken = taken.filter(|(bin, _, new)| !state.holds(*bin, *new));
    taken.chain(given.into_iter().map(move |old| (hot, old, NONE)))
}

/// How the loads of ranks change where a replica of `new` comes to a rank in the place of one of `old`; either may be
/// `NONE`. No rank is listed twice, and that rank first.
pub(crate) fn list_changes(
    bin: usize,
    old: u32,
    new: u32,
    weights: &[f64],
    state: &State,
    changes: &mut Vec<(usize, f64)>,
) {
    let shares = |expert: u32, then: u32| {
        let (weight, now) = (weights[expert as usize], state.counts[expert as usize]);
        (weight / f64::from(now), weight / f64::from(then))
    };
    changes.clear();
    changes.push((bin, 0.0));
    let (mut given, mut more) = (0.0, 0.0);
    if old != NONE {
        let (share, next) = shares(old, state.counts[old as usize] - 1);
        (given, more) = (share, next - share);
    }
    if new != NONE {
        let (share, next) = shares(new, state.counts[new as usize] + 1);
        changes[0].1 += next;
        let of_both = |holder: usize| if old != NONE && state.holds(holder, old) { more } else { 0.0 };
        changes.extend(state.holders_of(new).map(|holder| (holder, next - share + of_both(holder))));
    }
    changes[0].1 -= given;
    if old != NONE {
        let others =
            state.holders_of(old).filter(|holder| *holder != bin && (new == NONE || !state.holds(*holder, new)));
        changes.extend(others.map(|holder| (holder, more)));
    }
}

/// With how many ranks, the least busy first, exchanges of two items for two are tried: each costs as much as many single
/// ones.
const DOUBLE_TRIES: usize = 8;

/// The exchange of two items for two with one of the least busy ranks that leaves the later of the two ranks done earliest.
///
/// There are many more of them than of single exchanges, and so one comes nearer to what is wanted.
pub(crate) fn best_double_swap(
    hot: usize,
    target: f64,
    shape: &Shape,
    work: &mut Workspace,
    state: &State,
) -> Option<DoubleSwap> {
    let (hot_load, hot_speed) = (state.loads[hot], shape.bins[hot].speed);
    let mut best = state.times[hot] * (1.0 - LEAST_GAIN);
    let mut step = None;
    pairs(state.items_of(hot), state.shares_of(hot), &mut work.my_pairs);
    for &cold in work.order.iter().take(DOUBLE_TRIES) {
        let cold = cold as usize;
        let (cold_load, cold_speed) = (state.loads[cold], shape.bins[cold].speed);
        let together = (hot_load + cold_load) / (hot_speed + cold_speed);
        if cold == hot || together >= best {
            continue;
        }
        let ideal = hot_load - together * hot_speed;
        let (mut least, mut most) = (ideal - (best - together) * hot_speed, ideal + (best - together) * cold_speed);
        pairs(state.items_of(cold), state.shares_of(cold), &mut work.their_pairs);
        let theirs = &work.their_pairs;
        let mut next = 0;
        for mine in &work.my_pairs {
            while next < theirs.len() && theirs[next].share > mine.share - ideal {
                next += 1;
            }
            for other in &theirs[next.saturating_sub(1)..(next + 1).min(theirs.len())] {
                let moved = mine.share - other.share;
                if least < moved
                    && moved < most
                    && moved > 0.0
                    && mine.items.iter().all(|item| !state.holds(cold, *item))
                    && other.items.iter().all(|item| !state.holds(hot, *item))
                    && may_exchange((hot, &mine.items), (cold, &other.items), shape, state)
                {
                    best = ((hot_load - moved) / hot_speed).max((cold_load + moved) / cold_speed);
                    (least, most) = (ideal - (best - together) * hot_speed, ideal + (best - together) * cold_speed);
                    step = Some(DoubleSwap { gives: mine.items, cold, takes: other.items });
                }
            }
        }
        if best <= target {
            break;
        }
    }
    step
}

/// All pairs of a rank's items, the heaviest first.
fn pairs(items: &[u32], shares: &[f64], out: &mut Vec<Pair>) {
    out.clear();
    for (place, (&item, &share)) in items.iter().zip(shares).enumerate() {
        for (&other, &more) in items.iter().zip(shares).skip(place + 1) {
            if other != NONE {
                out.push(Pair { share: share + more, items: [item, other] });
            }
        }
    }
    out.sort_unstable_by_key(|pair| (!pair.share.to_bits(), pair.items));
}
