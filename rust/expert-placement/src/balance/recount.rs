//! Other numbers of replicas, for ranks of two slots. SPEC.md, "Replication".
//!
//! The greedy numbers make the largest replica as small as can be, but with few slots a rank what matters is how replicas
//! fit together. With two, the best fit for given numbers is known: the largest share beside the smallest, the next beside
//! the next. That makes a trial cheap, and the search goes over the numbers themselves: one replica more for an expert of
//! a busy pair, one less for another, the best exchange each time even where it is worse than what was (but not one that
//! was undone lately), and the best of all is kept.

/// How many exchanges are tried for a layer.
const MOST_TRIALS: usize = 1500;
/// For how many exchanges an expert's number is left alone after it has changed, and fewer where there are few experts.
const MOST_REST: usize = 6;
/// From how many of the busiest pairs the experts are taken that get one more replica.
const BUSY_PAIRS: usize = 4;

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    counts: Vec<u32>,
    /// The shares of all replicas, the largest first, with their experts.
    sorted: Vec<(f64, u32)>,
    trial: Vec<(f64, u32)>,
    changed: Vec<usize>,
    busy: Vec<u32>,
    pairs: Vec<(f64, usize)>,
}

/// Looks for numbers of replicas whose pairs are less busy than `least`; writes them and says so where it finds some.
pub(crate) fn search(
    weights: &[f64],
    ranks: usize,
    least: f64,
    target: f64,
    work: &mut Workspace,
    best: &mut [u32],
) -> bool {
    work.counts.clear();
    work.counts.extend_from_slice(best);
    work.changed.clear();
    work.changed.resize(weights.len(), 0);
    let (mut least, mut is_better) = (least, false);
    let (mut trials, mut last_change) = (0, 0);
    let rest = (weights.len() / 4).clamp(1, MOST_REST);
    for round in rest.. {
        sort(weights, work);
        find_busy(work);
        let mut step: Option<(Score, u32, u32)> = None;
        for &more in &work.busy {
            if work.counts[more as usize] as usize >= ranks || work.changed[more as usize] + rest > round {
                continue;
            }
            for less in 0..weights.len() as u32 {
                if less == more || work.counts[less as usize] < 2 || work.changed[less as usize] + rest > round {
                    continue;
                }
                trials += 1;
                let score = score(weights, &work.counts, &work.sorted, more, less, &mut work.trial);
                if step.is_none_or(|(best, _, _)| score < best) {
                    step = Some((score, more, less));
                }
            }
        }
        let Some((Score { time, .. }, more, less)) = step else {
            // Everyone who could change rests; some time later somebody can.
            if round > rest + last_change {
                return is_better;
            }
            continue;
        };
        last_change = round;
        work.counts[more as usize] += 1;
        work.counts[less as usize] -= 1;
        work.changed[more as usize] = round;
        work.changed[less as usize] = round;
        if time < least {
            least = time;
            is_better = true;
            best.copy_from_slice(&work.counts);
        }
        if trials >= MOST_TRIALS || least <= target {
            return is_better;
        }
    }
    is_better
}

fn sort(weights: &[f64], work: &mut Workspace) {
    work.sorted.clear();
    for (expert, (&weight, &count)) in (0..).zip(weights.iter().zip(&work.counts)) {
        for _ in 0..count {
            work.sorted.push((weight / f64::from(count), expert));
        }
    }
    work.sorted.sort_unstable_by_key(|(share, expert)| (!share.to_bits(), *expert));
}

/// The experts of the busiest pairs, those of the busiest first.
fn find_busy(work: &mut Workspace) {
    let last = work.sorted.len() - 1;
    work.pairs.clear();
    work.pairs
        .extend((0..work.sorted.len() / 2).map(|place| (work.sorted[place].0 + work.sorted[last - place].0, place)));
    work.pairs.sort_unstable_by_key(|(time, place)| (!time.to_bits(), *place));
    work.busy.clear();
    for &(_, place) in work.pairs.iter().take(BUSY_PAIRS) {
        for (_, expert) in [work.sorted[place], work.sorted[last - place]] {
            if !work.busy.contains(&expert) {
                work.busy.push(expert);
            }
        }
    }
}

/// How good numbers of replicas are: the time of the busiest pair and, of equals, how unevenly all are busy.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Score {
    time: f64,
    squares: f64,
}

/// The score with one replica more of an expert and one less of another.
fn score(
    weights: &[f64],
    counts: &[u32],
    sorted: &[(f64, u32)],
    more: u32,
    less: u32,
    trial: &mut Vec<(f64, u32)>,
) -> Score {
    let changed = |expert: u32, count: u32| (weights[expert as usize] / f64::from(count), count, expert);
    let (one, other) = (changed(more, counts[more as usize] + 1), changed(less, counts[less as usize] - 1));
    let mut new = if one.0 >= other.0 { [one, other] } else { [other, one] };
    trial.clear();
    for &(share, expert) in sorted {
        for (weight, left, of) in &mut new {
            while *left > 0 && *weight >= share {
                trial.push((*weight, *of));
                *left -= 1;
            }
        }
        if expert != more && expert != less {
            trial.push((share, expert));
        }
    }
    for (weight, left, of) in new {
        trial.extend((0..left).map(|_| (weight, of)));
    }
    let half = trial.len() / 2;
    let mut score = Score { time: 0.0, squares: 0.0 };
    for (large, small) in trial[..half].iter().zip(trial[half..].iter().rev()) {
        // Two replicas of one expert are no pair.
        let pair = if large.1 == small.1 { f64::INFINITY } else { large.0 + small.0 };
        score.time = score.time.max(pair);
        score.squares += pair * pair;
    }
    score
}
