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

#[cfg(test)]
mod tests {
    use super::*;

    /// Integers below an end that are in no order.
    fn numbers(seed: usize, length: usize, end: usize) -> Vec<f64> {
        (0..length).map(|place| ((place * place * 7_919 + seed * 104_729) % end) as f64).collect()
    }

    /// The largest with the smallest, the next with the next.
    fn pairs(mut shares: Vec<f64>) -> Vec<f64> {
        shares.sort_unstable_by(|left, right| right.total_cmp(left));
        let last = shares.len() - 1;
        (0..shares.len() / 2).map(|place| shares[place] + shares[last - place]).collect()
    }

    fn largest(pairs: &[f64]) -> f64 {
        pairs.iter().copied().fold(0.0, f64::max)
    }

    /// Domain: up to 40 pairs of integers, which add up exactly in any order.
    #[test]
    fn the_largest_is_paired_with_the_smallest() {
        for length in 1..=40 {
            let mut shares = numbers(length, 2 * length, 1000);
            let pairs = pairs(shares.clone());
            shares.sort_unstable_by(|left, right| right.total_cmp(left));
            let (large, small) = shares.split_at(length);
            let squares = pairs.iter().map(|pair| pair * pair).sum();
            assert!(pair_up(large, small) == Score { time: largest(&pairs), squares }, "{length} pairs");
        }
    }

    /// The time of the busiest pair, with two replicas of one expert as a pair like any other.
    fn busiest(weights: &[f64], counts: &[u32]) -> f64 {
        let share = |(weight, count): (&f64, &u32)| std::iter::repeat_n(weight / f64::from(*count), *count as usize);
        largest(&pairs(weights.iter().zip(counts).flat_map(share).collect()))
    }

    /// Domain: layers of 3 to 60 experts of integer loads on two slots of 2 to 40 ranks, from one replica of each expert
    /// and the rest with the first ones. What is found is recorded: it is the same wherever it is searched for.
    #[test]
    fn numbers_that_are_found_are_those_recorded() {
        let mut found = Vec::new();
        for (seed, experts, ranks) in RECORDED.map(|(seed, experts, ranks, _, _)| (seed, experts, ranks)) {
            let weights: Vec<f64> = numbers(seed, experts, 500).iter().map(|load| load + 1.0).collect();
            let mut counts: Vec<u32> = (0..experts).map(|expert| 1 + u32::from(expert < 2 * ranks - experts)).collect();
            let least = busiest(&weights, &counts);
            let mut work = Workspace::default();
            let is_better = search(&weights, ranks, least, 0.0, &mut work, &mut counts);
            assert_eq!(counts.iter().sum::<u32>() as usize, 2 * ranks);
            assert!(counts.iter().all(|count| (1..=ranks).contains(&(*count as usize))));
            assert_eq!(is_better, busiest(&weights, &counts) < least);
            let digest = counts.iter().fold(0_u64, |digest, count| digest.wrapping_mul(1_000_003) ^ u64::from(*count));
            found.push((seed, experts, ranks, busiest(&weights, &counts), digest));
        }
        assert_eq!(found, RECORDED);
    }

    const RECORDED: [(usize, usize, usize, f64, u64); 8] = [
        (1, 3, 2, 480.5, 1_000_004_000_002),
        (2, 5, 4, 352.0, 7_560_875_336_870_241_774),
        (3, 8, 6, 379.0, 17_549_041_447_185_209_020),
        (4, 12, 9, 356.333_333_333_333_3, 8_081_120_012_585_640_876),
        (5, 12, 8, 382.5, 14_245_102_318_218_990_608),
        (6, 24, 16, 376.0, 2_115_986_806_401_536_346),
        (7, 40, 24, 470.0, 17_542_893_337_448_047_018),
        (8, 60, 40, 397.0, 1_610_952_440_032_522_032),
    ];
}
