//! One layer's placement while it is planned: what each rank holds, and what that weighs.

use super::shape::Shape;

/// No expert.
pub(crate) const NONE: u32 = u32::MAX;

/// Which experts the usable ranks hold, each rank's in descending order of their shares.
#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    /// Where each rank's items begin, and their total last.
    pub(crate) first: Vec<usize>,
    /// The items of all ranks, one after the other; `NONE` stands for room that is not used, after all others.
    pub(crate) items: Vec<u32>,
    /// The share of each item, 0 where it is `NONE`; true of a rank once it is settled.
    pub(crate) item_shares: Vec<f64>,
    pub(crate) counts: Vec<u32>,
    /// The load of one replica of each expert.
    pub(crate) shares: Vec<f64>,
    /// The load of each rank: its items' shares added up in their order.
    pub(crate) loads: Vec<f64>,
    /// The load divided by the rank's speed.
    pub(crate) times: Vec<f64>,
    /// What each rank serves of experts that are at home elsewhere; nothing where there are no homes.
    away: Vec<f64>,
    /// For each expert, one bit a rank: who holds it.
    holders: Vec<u64>,
    words: usize,
}

impl State {
    /// Begins with empty ranks.
    pub(crate) fn begin(&mut self, weights: &[f64], counts: &[u32], shape: &Shape) {
        self.counts.clear();
        self.counts.extend_from_slice(counts);
        self.shares.clear();
        self.shares.extend(weights.iter().zip(counts).map(|(weight, count)| weight / f64::from(*count)));
        self.first.clear();
        self.first.push(0);
        let mut end = 0;
        for bin in &shape.bins {
            end += bin.room;
            self.first.push(end);
        }
        self.items.clear();
        self.items.resize(end, NONE);
        self.item_shares.clear();
        self.item_shares.resize(end, 0.0);
        self.loads.clear();
        self.loads.resize(shape.bins.len(), 0.0);
        self.times.clear();
        self.times.resize(shape.bins.len(), 0.0);
        self.away.clear();
        self.away.resize(shape.bins.len(), 0.0);
        self.words = shape.bins.len().div_ceil(64);
        self.holders.clear();
        self.holders.resize(weights.len() * self.words, 0);
    }

    pub(crate) fn items_of(&self, bin: usize) -> &[u32] {
        &self.items[self.first[bin]..self.first[bin + 1]]
    }

    pub(crate) fn shares_of(&self, bin: usize) -> &[f64] {
        &self.item_shares[self.first[bin]..self.first[bin + 1]]
    }

    pub(crate) fn holds(&self, bin: usize, expert: u32) -> bool {
        self.holders[expert as usize * self.words + bin / 64] >> (bin % 64) & 1 == 1
    }

    /// For each expert, one bit a rank: who holds it.
    pub(crate) fn holder_bits(&self) -> &[u64] {
        &self.holders
    }

    /// How many words of bits each expert has.
    pub(crate) const fn words(&self) -> usize {
        self.words
    }

    /// The ranks that hold an expert, ascending.
    pub(crate) fn holders_of(&self, expert: u32) -> impl Iterator<Item = usize> + '_ {
        let first = expert as usize * self.words;
        self.holders[first..first + self.words].iter().enumerate().flat_map(|(word, &bits)| {
            std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)))
                .take_while(|bits| *bits != 0)
                .map(move |bits| word * 64 + bits.trailing_zeros() as usize)
        })
    }

    pub(crate) fn set_holder(&mut self, bin: usize, expert: u32, holds: bool) {
        if expert == NONE {
            return;
        }
        let word = &mut self.holders[expert as usize * self.words + bin / 64];
        if holds {
            *word |= 1 << (bin % 64);
        } else {
            *word &= !(1 << (bin % 64));
        }
    }

    pub(crate) fn share(&self, expert: u32) -> f64 {
        if expert == NONE { 0.0 } else { self.shares[expert as usize] }
    }

    /// Orders a rank's items, heavier first and then the lower expert, and adds their shares up in that order.
    pub(crate) fn settle(&mut self, bin: usize, shape: &Shape) {
        let range = self.first[bin]..self.first[bin + 1];
        let (items, weights) = (&mut self.items[range.clone()], &mut self.item_shares[range]);
        for (item, weight) in items.iter().zip(weights.iter_mut()) {
            *weight = if *item == NONE { 0.0 } else { self.shares[*item as usize] };
        }
        let is_before = |item: u32, weight: f64, other: u32, than: f64| {
            weight.total_cmp(&than).reverse().then(item.cmp(&other)).is_lt()
        };
        // Few items are out of place at a time, so that insertion is all it takes. `NONE` is the largest number, and so
        // comes last among items without a share.
        for place in 1..items.len() {
            let (item, weight) = (items[place], weights[place]);
            let mut to = place;
            while to > 0 && is_before(item, weight, items[to - 1], weights[to - 1]) {
                items[to] = items[to - 1];
                weights[to] = weights[to - 1];
                to -= 1;
            }
            items[to] = item;
            weights[to] = weight;
        }
        let load = weights.iter().fold(0.0, |sum, weight| sum + weight);
        self.loads[bin] = load;
        self.times[bin] = load / shape.bins[bin].speed;
        if let Some(homes) = &shape.homes {
            let node = shape.bins[bin].node;
            let strangers =
                items.iter().zip(weights.iter()).filter(|(item, _)| **item != NONE && homes.of(**item) != node);
            self.away[bin] = strangers.fold(0.0, |sum, (_, weight)| sum + weight);
        }
    }

    /// The busiest rank, the first of equals.
    pub(crate) fn hottest(&self) -> usize {
        let mut hottest = 0;
        for (bin, time) in self.times.iter().enumerate() {
            if *time > self.times[hottest] {
                hottest = bin;
            }
        }
        hottest
    }

    /// The time of the busiest rank.
    pub(crate) fn largest(&self) -> f64 {
        self.times.iter().copied().fold(0.0, f64::max)
    }

    /// The load that is served away from home.
    pub(crate) fn off_node(&self) -> f64 {
        self.away.iter().fold(0.0, |sum, away| sum + away)
    }

    /// Replaces one item of a rank, without settling it.
    pub(crate) fn replace(&mut self, bin: usize, old: u32, new: u32) {
        let range = self.first[bin]..self.first[bin + 1];
        if let Some(item) = self.items[range].iter_mut().find(|item| **item == old) {
            *item = new;
        }
        self.set_holder(bin, old, false);
        self.set_holder(bin, new, true);
    }

    /// How many of an expert's replicas each node has.
    pub(crate) fn on_node(&self, expert: u32, node: usize, shape: &Shape) -> usize {
        self.holders_of(expert).filter(|bin| shape.bins[*bin].node == node).count()
    }
}
