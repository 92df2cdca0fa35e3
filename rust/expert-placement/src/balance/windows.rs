//! Several windows of time: the sum over them of the busiest rank's time. SPEC.md, "Windows".
//!
//! A plan for the sum of the loads is where the search begins; exchanges between ranks then lower what a user waits for,
//! the busiest rank of each window.

use super::nodes::may_exchange;
use super::refine::{self, Step};
use super::shape::Shape;
use super::state::{NONE, State};
use crate::loads::Loads;

/// How many exchanges are looked at for a layer, times the windows.
const MOST_TRIALS: usize = 4_000_000;

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Each rank's load in each window, windows within ranks.
    loads: Vec<f64>,
    /// The three busiest ranks of each window.
    busiest: Vec<[(f64, usize); 3]>,
    hot: Vec<usize>,
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
                items.fold(0.0, |sum, item| sum + share(row, *item, state)) / bin.speed
            });
            times.fold(0.0, f64::max)
        })
        .sum()
}

fn share(row: &[f64], item: u32, state: &State) -> f64 {
    if item == NONE { 0.0 } else { row[item as usize] / f64::from(state.counts[item as usize]) }
}

/// Lowers the sum over the windows by exchanges with their busiest ranks, as long as there is one that helps.
pub(crate) fn refine(loads: &Loads, layer: usize, shape: &Shape, work: &mut Workspace, state: &mut State) {
    let windows = loads.num_windows();
    let mut trials = 0;
    while trials < MOST_TRIALS {
        measure(loads, layer, shape, work, state);
        let now: f64 = work.busiest.iter().map(|busiest| busiest[0].0).sum();
        let (mut best, mut step) = (now * (1.0 - 1e-12), None);
        for &hot in &work.hot {
            for cold in (0..shape.bins.len()).filter(|cold| *cold != hot) {
                for &gives in state.items_of(hot) {
                    if gives == NONE || state.holds(cold, gives) {
                        continue;
                    }
                    for &takes in state.items_of(cold) {
                        if takes != NONE && state.holds(hot, takes)
                            || !may_exchange((hot, &[gives]), (cold, &[takes]), shape, state)
                        {
                            continue;
                        }
                        trials += windows;
                        let time = after(loads, layer, shape, work, state, (hot, gives, cold, takes));
                        if time < best {
                            best = time;
                            step = Some(Step::Swap { hot, gives, cold, takes });
                        }
                    }
                }
            }
        }
        let Some(step) = step else { return };
        refine::apply(step, &[], shape, state);
    }
}

/// Each rank's load in each window, and the busiest ranks.
fn measure(loads: &Loads, layer: usize, shape: &Shape, work: &mut Workspace, state: &State) {
    let windows = loads.num_windows();
    work.loads.clear();
    work.busiest.clear();
    work.busiest.resize(windows, [(0.0, usize::MAX); 3]);
    for (index, bin) in shape.bins.iter().enumerate() {
        for window in 0..windows {
            let row = loads.row(window, layer);
            let load = state.items_of(index).iter().fold(0.0, |sum, item| sum + share(row, *item, state));
            work.loads.push(load);
            let (busiest, time) = (&mut work.busiest[window], load / bin.speed);
            if let Some(place) = busiest.iter().position(|(other, rank)| time > *other || *rank == usize::MAX) {
                busiest[place..].rotate_right(1);
                busiest[place] = (time, index);
            }
        }
    }
    work.hot.clear();
    for busiest in &work.busiest {
        if busiest[0].1 != usize::MAX && !work.hot.contains(&busiest[0].1) {
            work.hot.push(busiest[0].1);
        }
    }
}

/// The sum over the windows after an exchange.
fn after(
    loads: &Loads,
    layer: usize,
    shape: &Shape,
    work: &Workspace,
    state: &State,
    (hot, gives, cold, takes): (usize, u32, usize, u32),
) -> f64 {
    let windows = loads.num_windows();
    (0..windows)
        .map(|window| {
            let row = loads.row(window, layer);
            let moved = share(row, gives, state) - share(row, takes, state);
            let ours = (work.loads[hot * windows + window] - moved) / shape.bins[hot].speed;
            let theirs = (work.loads[cold * windows + window] + moved) / shape.bins[cold].speed;
            let others = work.busiest[window].iter().find(|(_, rank)| *rank != hot && *rank != cold);
            others.map_or(0.0, |(time, _)| *time).max(ours).max(theirs)
        })
        .sum()
}
