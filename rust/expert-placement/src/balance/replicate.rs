//! How many replicas each expert gets. SPEC.md, "Replication".
//!
//! One for each, and then again and again one more for the expert with the largest load a replica: no other numbers make
//! the largest replica smaller. Ties go to the lower expert. No expert gets more replicas than there are ranks to hold
//! them apart.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::shape::Shape;
use super::tournament::{OUT, Tournament, descending};

/// How many more replicas the ranks could hold without two of one expert on a rank.
///
/// Replicas beyond each expert's k-th must find room beyond the k ranks of the most room (Gale and Ryser's condition), so
/// with `spare[k]` the room left there, an expert of c replicas may get another one as long as `spare[0..=c]` are above 0.
#[derive(Debug, Default)]
struct Spare {
    beyond: Vec<usize>,
    /// The first k without room: no expert can have more replicas.
    most: u32,
}

impl Spare {
    fn fill(&mut self, shape: &Shape, experts: usize) {
        self.beyond.clear();
        self.beyond.extend(shape.bins.iter().map(|bin| bin.room));
        self.beyond.sort_unstable();
        // Ascending, so that running sums are the room of the k-th rank and all smaller ones, from the last k to the first.
        let mut sum = 0;
        for room in &mut self.beyond {
            sum += *room;
            *room = sum;
        }
        self.beyond.push(0);
        let ranks = shape.bins.len();
        self.beyond[..ranks].reverse();
        self.most = ranks as u32;
        // There is room for more than one replica of each: where there is none, nobody asks.
        self.beyond[0] -= experts;
    }

    /// One more replica for an expert that has `count`.
    fn take(&mut self, count: u32) {
        for (k, room) in self.beyond.iter_mut().take(count as usize + 1).enumerate() {
            *room -= 1;
            if *room == 0 {
                self.most = self.most.min(k as u32);
            }
        }
    }
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    tournament: Tournament,
    spare: Spare,
}

/// Writes the number of replicas of each expert; asks for room for each at least once.
pub(crate) fn replicate(weights: &[f64], shape: &Shape, work: &mut Workspace, counts: &mut Vec<u32>) {
    counts.clear();
    counts.resize(weights.len(), 1);
    let extra = shape.room - weights.len();
    if extra == 0 {
        return;
    }
    work.spare.fill(shape, weights.len());
    work.tournament.fill(weights.iter().map(|weight| descending(*weight)));
    let mut left = extra;
    while left > 0 && work.tournament.least() != OUT {
        let expert = work.tournament.winner();
        if weights[expert] == 0.0 {
            return share_out(left, &mut work.spare, counts);
        }
        if counts[expert] >= work.spare.most {
            work.tournament.set(expert, OUT);
            continue;
        }
        work.spare.take(counts[expert]);
        counts[expert] += 1;
        left -= 1;
        work.tournament.set(expert, descending(weights[expert] / f64::from(counts[expert])));
    }
}

/// Replicas where nothing is left to share: fewest replicas first, so that no unused expert hoards the room.
fn share_out(left: usize, spare: &mut Spare, counts: &mut [u32]) {
    let mut fewest: BinaryHeap<_> =
        counts.iter().zip(0_usize..).map(|(count, expert)| Reverse((*count, expert))).collect();
    for _ in 0..left {
        let Some(Reverse((count, expert))) = fewest.pop().filter(|Reverse((count, _))| *count < spare.most) else {
            return;
        };
        spare.take(count);
        counts[expert] += 1;
        fewest.push(Reverse((count + 1, expert)));
    }
}

/// The smallest that the largest replica can be: the largest share after optimal replication.
pub(crate) fn largest_share(weights: &[f64], counts: &[u32]) -> f64 {
    weights.iter().zip(counts).map(|(weight, count)| weight / f64::from(*count)).fold(0.0, f64::max)
}
