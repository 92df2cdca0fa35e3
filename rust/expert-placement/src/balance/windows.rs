//! Several windows of time: the sum over them of the busiest rank's time. SPEC.md, "Windows".
//!
//! A plan for the sum of the loads is where the search begins; exchanges between ranks, and other numbers of replicas, then
//! lower what a user waits for, the busiest rank of each window.

use super::nodes::{may_exchange, may_replace};
use super::refine::{self, LEAST_GAIN, Latest, Step};
use super::shape::Shape;
use super::state::{NONE, State};
use super::warm::{Course, Offer, Residents, Way};
use crate::loads::Loads;

/// How many steps are looked at from one start, each counted for every window and, where it changes numbers of replicas and
/// is looked at closely, for every rank that it touches.
const MOST_TRIALS: usize = 1 << 26;

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    windows: usize,
    /// The share of each expert in each window, windows within experts; nothing for `NONE`, which comes last.
    shares: Vec<f64>,
    /// Each rank's load in each window, windows within ranks.
    loads: Vec<f64>,
    /// The three busiest ranks of each window.
    busiest: Vec<[(f64, usize); 3]>,
    /// The ranks that are busiest in a window, with the time by which all windows would end earlier without them.
    hot: Vec<(f64, usize)>,
    /// In each window the time of the busiest rank but for the two at hand.
    rest: Vec<f64>,
    trials: usize,
    /// The load of each expert in all windows together.
    summed: Vec<f64>,
    /// The two busiest ranks of each window among those that a further replica of an expert does not relieve.
    others: Vec<Latest>,
    /// The ranks whose loads a replacement changes in one window, and by how much.
    changes: Vec<(usize, f64)>,
}

/// The sum over the windows of the busiest rank's time.
pub(crate) fn time(loads: &Loads, layer: usize, shape: &Shape, state: &State) -> f64 {
    if loads.num_windows() == 1 {
        return state.largest();
    }
    (0..loads.num_windows())
        .map(|window| {
            let row = loads.row(window, layer);
            let times = shape.bins.iter().enumerate().map(|(index, bin)| {
                let items = state.items_of(index).iter().filter(|item| **item != NONE);
                items.fold(0.0, |sum, item| sum + row[*item as usize] / f64::from(state.counts[*item as usize]))
                    / bin.speed
            });
            times.fold(0.0, f64::max)
        })
        .sum()
}

/// Lowers the sum over the windows by exchanges with their busiest ranks, and where none helps by a replacement, as long as
/// there is one that does.
pub(crate) fn refine(loads: &Loads, layer: usize, shape: &Shape, work: &mut Workspace, state: &mut State) {
    work.begin(loads, layer, state);
    loads.add_up(layer, &mut work.summed);
    loop {
        while let Some(step) = work.best_step(shape, state, |_| 1.0) {
            refine::apply(step, &[], shape, state);
        }
        let Some(step) = work.best_replacement(loads, layer, shape, state) else { return };
        refine::apply(step, &work.summed, shape, state);
        work.share(loads, layer, state);
    }
}

/// Goes from a state towards one that takes at most `target` in all windows, by exchanges that help most for each expert
/// that is moved, and keeps every state on the way as an offer.
pub(crate) fn walk(
    loads: &Loads,
    layer: usize,
    target: f64,
    shape: &Shape,
    residents: &Residents,
    work: &mut Workspace,
    state: &mut State,
) -> Way {
    let mut way = Way::default();
    work.begin(loads, layer, state);
    let mut now = time(loads, layer, shape, state);
    while now > target {
        let Some(step) = work.best_step(shape, state, |step| residents.price(step)) else { break };
        refine::apply(step, &[], shape, state);
        way.steps.push(step);
        now = time(loads, layer, shape, state);
        let (moves, off_node) = (residents.moves(state), state.off_node());
        way.offers.push(Offer { course: Course::Windows(way.steps.len()), moves, time: now, off_node });
    }
    way
}

impl Workspace {
    fn begin(&mut self, loads: &Loads, layer: usize, state: &State) {
        self.windows = loads.num_windows();
        self.trials = 0;
        self.share(loads, layer, state);
    }

    /// The shares of the experts, which no exchange changes.
    fn share(&mut self, loads: &Loads, layer: usize, state: &State) {
        let (windows, experts) = (self.windows, state.counts.len());
        self.shares.clear();
        self.shares.resize((experts + 1) * windows, 0.0);
        for window in 0..windows {
            for (expert, (load, count)) in loads.row(window, layer).iter().zip(&state.counts).enumerate() {
                self.shares[expert * windows + window] = load / f64::from((*count).max(1));
            }
        }
    }

    /// The shares of an item in all windows.
    fn shares_of(&self, item: u32) -> &[f64] {
        shares_at(&self.shares, self.windows, item)
    }

    /// The exchange that lowers the sum of the busiest ranks' times most for its price: with the rank without which it
    /// could be lowered most, or if there is none, with the next.
    fn best_step(&mut self, shape: &Shape, state: &State, price: impl Fn(Step) -> f64) -> Option<Step> {
        self.measure(shape, state);
        let hot = std::mem::take(&mut self.hot);
        let step = hot.iter().find_map(|(_, hot)| self.best_exchange(*hot, shape, state, &price));
        self.hot = hot;
        step
    }

    /// Each rank's load in each window, and the busiest ranks.
    fn measure(&mut self, shape: &Shape, state: &State) {
        let windows = self.windows;
        self.loads.clear();
        self.loads.resize(shape.bins.len() * windows, 0.0);
        self.busiest.clear();
        self.busiest.resize(windows, [(0.0, usize::MAX); 3]);
        for (index, bin) in shape.bins.iter().enumerate() {
            for &item in state.items_of(index) {
                let shares = shares_at(&self.shares, windows, item);
                for (load, share) in self.loads[index * windows..][..windows].iter_mut().zip(shares) {
                    *load += share;
                }
            }
            for (window, busiest) in self.busiest.iter_mut().enumerate() {
                let time = self.loads[index * windows + window] / bin.speed;
                if let Some(place) = busiest.iter().position(|(other, rank)| time > *other || *rank == usize::MAX) {
                    busiest[place..].rotate_right(1);
                    busiest[place] = (time, index);
                }
            }
        }
        self.hot.clear();
        for (window, [(time, rank), (next, _), _]) in self.busiest.iter().enumerate() {
            // As busy as that one, but for rounding, is as busy.
            let is_hot = |index: usize| {
                index == *rank
                    || *time > 0.0
                        && self.loads[index * windows + window] / shape.bins[index].speed >= time * (1.0 - LEAST_GAIN)
            };
            for index in (0..shape.bins.len()).filter(|index| is_hot(*index)) {
                match self.hot.iter_mut().find(|(_, hot)| *hot == index) {
                    Some((gain, _)) => *gain += time - next,
                    None => self.hot.push((time - next, index)),
                }
            }
        }
        // Of equals the lower rank.
        self.hot.sort_by(|(left, one), (right, other)| right.total_cmp(left).then(one.cmp(other)));
    }

    /// The best exchange of one rank with any other.
    fn best_exchange(&mut self, hot: usize, shape: &Shape, state: &State, price: impl Fn(Step) -> f64) -> Option<Step> {
        let windows = self.windows;
        let now: f64 = self.busiest.iter().map(|busiest| busiest[0].0).sum();
        let (mut best, mut found, mut trials) = (now * LEAST_GAIN, None, self.trials);
        for cold in (0..shape.bins.len()).filter(|cold| *cold != hot) {
            if trials > MOST_TRIALS {
                break;
            }
            self.rest.clear();
            self.rest.extend(self.busiest.iter().map(|busiest| {
                let others = busiest.iter().find(|(_, rank)| *rank != hot && *rank != cold);
                others.map_or(0.0, |(time, _)| *time)
            }));
            // Nothing costs less than half a move.
            if (now - self.rest.iter().sum::<f64>()) * 2.0 <= best {
                continue;
            }
            let (mine, theirs) = (&self.loads[hot * windows..][..windows], &self.loads[cold * windows..][..windows]);
            let (my_speed, their_speed) = (shape.bins[hot].speed, shape.bins[cold].speed);
            for &gives in state.items_of(hot).iter().filter(|gives| **gives != NONE && !state.holds(cold, **gives)) {
                let given = self.shares_of(gives);
                // Whatever is taken for it, these windows do not end earlier than this.
                let without = mine.iter().zip(given).zip(&self.rest);
                let floor = without.fold(0.0, |sum, ((mine, given), rest)| sum + rest.max((mine - given) / my_speed));
                trials += windows;
                if (now - floor) * 2.0 <= best {
                    continue;
                }
                for &takes in state.items_of(cold) {
                    if takes != NONE && state.holds(hot, takes) {
                        continue;
                    }
                    let loads = mine.iter().zip(theirs).zip(&self.rest);
                    let moved = given.iter().zip(self.shares_of(takes)).map(|(given, taken)| given - taken);
                    let time = loads.zip(moved).fold(0.0, |sum, (((mine, theirs), rest), moved)| {
                        sum + rest.max((mine - moved) / my_speed).max((theirs + moved) / their_speed)
                    });
                    trials += windows;
                    if (now - time) * 2.0 <= best {
                        continue;
                    }
                    let step = Step::Swap { hot, gives, cold, takes };
                    let worth = (now - time) / price(step);
                    if worth > best && may_exchange((hot, &[gives]), (cold, &[takes]), shape, state) {
                        best = worth;
                        found = Some(step);
                    }
                }
            }
        }
        self.trials = trials;
        found
    }

    /// The replacement for a rank that is busiest in a window that lowers the sum of the busiest ranks' times most, of
    /// equals the first; what no exchange helped is measured already.
    fn best_replacement(&mut self, loads: &Loads, layer: usize, shape: &Shape, state: &State) -> Option<Step> {
        let hot = std::mem::take(&mut self.hot);
        let now: f64 = self.busiest.iter().map(|busiest| busiest[0].0).sum();
        let (mut best, mut found, mut last) = (now * (1.0 - LEAST_GAIN), None, None);
        for (bin, old, new) in hot.iter().flat_map(|(_, hot)| refine::replacements(*hot, shape, state)) {
            if self.trials > MOST_TRIALS {
                break;
            }
            self.trials += self.windows;
            if last != Some(new) {
                self.find_others(new, shape, state);
                self.trials += shape.bins.len() * self.windows;
                last = Some(new);
            }
            if self.least_time(bin, old, new, shape, state) < best {
                let time = self.time_after((bin, old, new), loads, layer, shape, state);
                self.trials += self.changes.len() * self.windows;
                if time < best && may_replace(old, new, bin, &self.summed, shape, state) {
                    best = time;
                    found = Some(Step::Replace { bin, old, new });
                }
            }
        }
        self.hot = hot;
        found
    }

    /// The two busiest ranks of each window among those that a further replica of `new` does not relieve.
    fn find_others(&mut self, new: u32, shape: &Shape, state: &State) {
        self.others.clear();
        self.others.resize(self.windows, Latest::default());
        for (rank, bin) in shape.bins.iter().enumerate().filter(|(rank, _)| new == NONE || !state.holds(*rank, new)) {
            for (load, others) in self.loads[rank * self.windows..].iter().zip(&mut self.others) {
                others.offer(load / bin.speed, rank);
            }
        }
    }

    /// What the sum of the busiest ranks' times is at least after a replacement: without what other ranks get of `old`, and
    /// without those that hold `new` already.
    fn least_time(&self, bin: usize, old: u32, new: u32, shape: &Shape, state: &State) -> f64 {
        // What a further replica of `new` serves of what each of them does now.
        let part = if new == NONE {
            0.0
        } else {
            f64::from(state.counts[new as usize]) / f64::from(state.counts[new as usize] + 1)
        };
        let loads = self.loads[bin * self.windows..].iter().zip(self.shares_of(old)).zip(self.shares_of(new));
        loads.zip(&self.others).fold(0.0, |sum, (((load, gives), gets), others)| {
            sum + others.without(bin).max((load - gives + gets * part) / shape.bins[bin].speed)
        })
    }

    /// The sum of the busiest ranks' times after a replacement.
    fn time_after(
        &mut self,
        (bin, old, new): (usize, u32, u32),
        loads: &Loads,
        layer: usize,
        shape: &Shape,
        state: &State,
    ) -> f64 {
        let Self { changes, others, windows, loads: now, .. } = self;
        let mut sum = 0.0;
        for (window, others) in others.iter().enumerate() {
            refine::list_changes(bin, old, new, loads.row(window, layer), state, changes);
            let time = |rank: usize, change: f64| (now[rank * *windows + window] + change) / shape.bins[rank].speed;
            // The ranks that get more of `old` are later done than before.
            let least = others.without(bin);
            sum += changes.iter().map(|(rank, change)| time(*rank, *change)).fold(least, f64::max);
        }
        sum
    }
}

/// The shares of an item in all windows, of a table with a last row for none.
fn shares_at(shares: &[f64], windows: usize, item: u32) -> &[f64] {
    let first = if item == NONE { shares.len() - windows } else { item as usize * windows };
    &shares[first..first + windows]
}
