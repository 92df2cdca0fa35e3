//! Other numbers of replicas, for ranks of two slots. SPEC.md, "Replication".
//!
//! The greedy numbers make the largest replica as small as can be, but with few slots a rank what matters is how replicas
//! fit together. With two, the best fit for given numbers is known: the largest share beside the smallest, the next beside
//! the next. That makes a trial cheap, and the search goes over the numbers themselves: one replica more for an expert of
//! a busy pair, one less for another, the best exchange each time even where it is worse than what was (but not one that
//! was undone lately), and the best of all is kept.

/// How many exchanges are tried for a layer.
const MOST_TRIALS: usize = 8000;
/// What it costs, in trials, to sort everything anew after an exchange.
const SORTING: usize = 30;
/// For how many exchanges an expert's number is left alone after it has changed, and fewer where there are few experts.
const MOST_REST: usize = 20;
/// From how many of the busiest pairs the experts are taken that get one more replica.
const BUSY_PAIRS: usize = 2;

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    counts: Vec<u32>,
    /// The experts in descending order of their shares, lower ones first of equals.
    order: Vec<u32>,
    /// The shares of all replicas, the largest first, and their experts.
    shares: Vec<f64>,
    experts: Vec<u32>,
    /// Where each expert's replicas begin among them.
    first: Vec<usize>,
    trial: Vec<f64>,
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
        work.sort(weights);
        work.find_busy();
        trials += SORTING;
        let mut step: Option<(Score, u32, u32)> = None;
        for index in 0..work.busy.len() {
            let more = work.busy[index];
            if work.counts[more as usize] as usize >= ranks || work.changed[more as usize] + rest > round {
                continue;
            }
            for less in 0..weights.len() as u32 {
                if less == more || work.counts[less as usize] < 2 || work.changed[less as usize] + rest > round {
                    continue;
                }
                trials += 1;
                let score = work.score(weights, more, less);
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

/// How good numbers of replicas are: the time of the busiest pair and, of equals, how unevenly all are busy.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Score {
    time: f64,
    squares: f64,
}

impl Workspace {
    fn sort(&mut self, weights: &[f64]) {
        let share = |expert: u32| weights[expert as usize] / f64::from(self.counts[expert as usize]);
        self.order.clear();
        self.order.extend(0..weights.len() as u32);
        self.order.sort_unstable_by_key(|expert| (!share(*expert).to_bits(), *expert));
        self.shares.clear();
        self.experts.clear();
        self.first.clear();
        self.first.resize(weights.len(), 0);
        for &expert in &self.order {
            self.first[expert as usize] = self.shares.len();
            let end = self.shares.len() + self.counts[expert as usize] as usize;
            self.shares.resize(end, share(expert));
            self.experts.resize(end, expert);
        }
    }

    /// The experts of the busiest pairs, those of the busiest first.
    fn find_busy(&mut self) {
        let last = self.shares.len() - 1;
        self.pairs.clear();
        self.pairs
            .extend((0..self.shares.len() / 2).map(|place| (self.shares[place] + self.shares[last - place], place)));
        self.pairs.sort_unstable_by_key(|(time, place)| (!time.to_bits(), *place));
        self.busy.clear();
        for &(_, place) in self.pairs.iter().take(BUSY_PAIRS) {
            for expert in [self.experts[place], self.experts[last - place]] {
                if !self.busy.contains(&expert) {
                    self.busy.push(expert);
                }
            }
        }
    }

    /// The score with one replica more of an expert and one less of another.
    fn score(&mut self, weights: &[f64], more: u32, less: u32) -> Score {
        // The replicas of the two make way, and those of their new shares come where they belong.
        let mut gone = [more, less].map(|expert| {
            let first = self.first[expert as usize];
            (first, first + self.counts[expert as usize] as usize)
        });
        gone.sort_unstable();
        let coming = |expert: u32, count: u32| {
            let share = weights[expert as usize] / f64::from(count);
            (self.shares.partition_point(|other| *other >= share), share, count as usize, expert)
        };
        let mut come = [coming(more, self.counts[more as usize] + 1), coming(less, self.counts[less as usize] - 1)];
        if come[0].1 < come[1].1 {
            come.swap(0, 1);
        }
        self.trial.clear();
        let (half, mut next) = (self.shares.len() / 2, 0);
        // The experts on both sides of the middle: two replicas of one are no pair.
        let mut middle = [u32::MAX; 2];
        let mut skip = gone.into_iter().peekable();
        for (place, share, count, expert) in come.into_iter().chain([(self.shares.len(), 0.0, 0, u32::MAX)]) {
            while next < place {
                let end = match skip.peek() {
                    Some((first, end)) if *first <= next => {
                        next = *end;
                        skip.next();
                        continue;
                    }
                    Some((first, _)) => place.min(*first),
                    None => place,
                };
                let before = self.trial.len();
                self.trial.extend_from_slice(&self.shares[next..end]);
                for (side, at) in [half - 1, half].into_iter().enumerate() {
                    if (before..self.trial.len()).contains(&at) {
                        middle[side] = self.experts[next + at - before];
                    }
                }
                next = end;
            }
            let before = self.trial.len();
            self.trial.resize(before + count, share);
            for (side, at) in [half - 1, half].into_iter().enumerate() {
                if (before..self.trial.len()).contains(&at) {
                    middle[side] = expert;
                }
            }
        }
        if middle[0] == middle[1] {
            return Score { time: f64::INFINITY, squares: f64::INFINITY };
        }
        let (large, small) = self.trial.split_at(half);
        pair_up(large, small)
    }
}

/// How many pairs are looked at side by side.
const LANES: usize = 8;

/// The score of pairs of the first with the last, and so on inwards.
fn pair_up(large: &[f64], small: &[f64]) -> Score {
    let mut times = [0.0_f64; LANES];
    let mut squares = [0.0_f64; LANES];
    let (large, small) = (large.chunks_exact(LANES), small.rchunks_exact(LANES));
    let rest = (large.remainder(), small.remainder());
    for (large, small) in large.zip(small) {
        for lane in 0..LANES {
            let pair = large[lane] + small[LANES - 1 - lane];
            times[lane] = if pair > times[lane] { pair } else { times[lane] };
            squares[lane] += pair * pair;
        }
    }
    let mut score = Score { time: times.into_iter().fold(0.0, f64::max), squares: squares.into_iter().sum() };
    for (large, small) in rest.0.iter().zip(rest.1.iter().rev()) {
        score.time = score.time.max(large + small);
        score.squares += (large + small) * (large + small);
    }
    score
}
