//! Other numbers of replicas, by trial: one more for an expert of the busiest rank, one less for another, and then what
//! exchanges make of that. SPEC.md, "Refinement".
//!
//! A single step that is judged by itself hardly ever helps here: of balanced ranks, those that hold the other expert
//! become the busiest. Refinement spreads that again, and what counts is how it ends.

use super::nodes::may_replace;
use super::refine::{self, Step};
use super::shape::Shape;
use super::state::{NONE, State};

/// How many trials there are for a layer.
const MOST_TRIALS: usize = 16;
/// How many experts of the busiest rank are tried, its heaviest, and how many others that give a replica up.
const MOST_EXPERTS: usize = 3;

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    kept: State,
    givers: Vec<u32>,
    takers: Vec<u32>,
}

/// Improves a state that exchanges alone do not improve, until its busiest rank takes at most `target`, no trial of those
/// from one state helps, or there were enough.
pub(crate) fn improve(
    weights: &[f64],
    target: f64,
    shape: &Shape,
    work: &mut Workspace,
    by: &mut refine::Workspace,
    state: &mut State,
) {
    let mut trials = 0;
    while state.largest() > target {
        find_candidates(weights, shape, work, state);
        let Workspace { kept, givers, takers } = work;
        let mut is_better = false;
        for (&less, &more) in givers.iter().flat_map(|less| takers.iter().map(move |more| (less, more))) {
            let Some(bin) = least_busy_holder(less, more, weights, shape, state) else { continue };
            if trials == MOST_TRIALS {
                return;
            }
            trials += 1;
            kept.clone_from(state);
            refine::apply(Step::Replace { bin, old: less, new: more }, weights, shape, state);
            refine::refine(weights, target, shape, by, state);
            is_better = state.largest() < kept.largest();
            if is_better {
                break;
            }
            std::mem::swap(state, kept);
        }
        if !is_better {
            return;
        }
    }
}

/// Who may get a replica, and who gives one up: those whose shares would be the lightest then, of equals the lower.
fn find_candidates(weights: &[f64], shape: &Shape, work: &mut Workspace, state: &State) {
    let with_one_less = |expert: u32| weights[expert as usize] / f64::from(state.counts[expert as usize] - 1);
    work.givers.clear();
    work.givers.extend((0..weights.len() as u32).filter(|expert| state.counts[*expert as usize] > 1));
    work.givers.sort_unstable_by_key(|expert| (with_one_less(*expert).to_bits(), *expert));
    work.givers.truncate(MOST_EXPERTS);
    let is_on_all = |expert: u32| state.counts[expert as usize] as usize == shape.bins.len();
    work.takers.clear();
    let items = state.items_of(state.hottest()).iter();
    work.takers.extend(items.copied().filter(|item| *item != NONE && !is_on_all(*item)).take(MOST_EXPERTS));
}

/// The least busy rank where a replica of one expert can make way for one of another, the lowest of equals.
fn least_busy_holder(less: u32, more: u32, weights: &[f64], shape: &Shape, state: &State) -> Option<usize> {
    let holders = state.holders_of(less).filter(|bin| !state.holds(*bin, more));
    holders
        .filter(|bin| may_replace(less, more, *bin, weights, shape, state))
        .min_by(|left, right| state.times[*left].total_cmp(&state.times[*right]))
}
