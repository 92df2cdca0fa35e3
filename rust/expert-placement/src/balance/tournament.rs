//! The smallest of many keys, of which few change at a time.

/// A tree of comparisons over keys: the place of the smallest is known, and a key is replaced in O(log n).
///
/// Of equal keys the one with the lowest place is the smallest: that is the tie rule of every policy. Each node has four
/// children, of which three can be compared while the fourth is still being found: half the chain of a binary tree.
#[derive(Debug, Default)]
pub(super) struct Tournament {
    /// The tree: the root at 0, the children of node i from 4 i + 1 on, the leaves from `first_leaf` on. A node is its
    /// winner's key with the place below it, so that the smaller of two nodes is found without a branch.
    nodes: Vec<u128>,
    first_leaf: usize,
}

/// A key that loses to every other, for what cannot be chosen.
pub(super) const OUT: u64 = u64::MAX;

fn node(key: u64, place: usize) -> u128 {
    (u128::from(key) << 64) | place as u128
}

impl Tournament {
    /// Begins with these keys.
    pub(super) fn fill(&mut self, keys: impl ExactSizeIterator<Item = u64>) {
        let (mut leaves, mut inner) = (1, 0);
        while leaves < keys.len() {
            inner += leaves;
            leaves *= 4;
        }
        self.first_leaf = inner;
        // Only as many leaves as there are keys, and the rest of the last one's siblings.
        self.nodes.clear();
        self.nodes.resize(inner, node(OUT, 0));
        self.nodes.extend(keys.enumerate().map(|(place, key)| node(key, place)));
        while self.nodes.len() % 4 != 1 {
            self.nodes.push(node(OUT, self.nodes.len() - inner));
        }
        for parent in (0..inner).rev() {
            let first = 4 * parent + 1;
            if let Some(children) = self.nodes.get(first..first + 4) {
                self.nodes[parent] = children[0].min(children[1]).min(children[2].min(children[3]));
            }
        }
    }

    /// The smallest key.
    pub(super) fn least(&self) -> u64 {
        (self.nodes[0] >> 64) as u64
    }

    /// The lowest place of the smallest key.
    pub(super) fn winner(&self) -> usize {
        self.nodes[0] as u64 as usize
    }

    /// Replaces the key at a place.
    pub(super) fn set(&mut self, place: usize, key: u64) {
        let mut index = self.first_leaf + place;
        let mut winner = node(key, place);
        self.nodes[index] = winner;
        while index > 0 {
            let (parent, child) = ((index - 1) / 4, (index - 1) % 4);
            let siblings = &self.nodes[4 * parent + 1..4 * parent + 5];
            let others = siblings[child ^ 1].min(siblings[child ^ 2].min(siblings[child ^ 3]));
            winner = winner.min(others);
            self.nodes[parent] = winner;
            index = parent;
        }
    }
}

/// A key by which the smaller of two numbers, both at least 0, comes first.
pub(super) fn ascending(number: f64) -> u64 {
    number.to_bits()
}

/// A key by which the larger of two numbers, both at least 0, comes first.
pub(super) fn descending(number: f64) -> u64 {
    // The bits of a finite number leave the highest one free, so no key is `OUT`.
    !number.to_bits() & (OUT >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Domain: 1 to 20 places, a thousand pseudo-random replacements each, keys with many ties.
    #[test]
    fn the_winner_is_the_first_of_the_smallest() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        for places in 1..=20 {
            let mut keys: Vec<u64> = (0..places).map(|_| random() % 7).collect();
            let mut tournament = Tournament::default();
            tournament.fill(keys.iter().copied());
            for _ in 0..1000 {
                let expected = (0..keys.len()).min_by_key(|place| keys[*place]).unwrap();
                assert_eq!((tournament.winner(), tournament.least()), (expected, keys[expected]));
                let place = usize::try_from(random()).unwrap() % keys.len();
                keys[place] = random() % 7;
                tournament.set(place, keys[place]);
            }
        }
    }

    #[test]
    fn keys_order_numbers() {
        let numbers = [0.0, f64::MIN_POSITIVE, 0.5, 1.0, 1e300];
        assert!(numbers.windows(2).all(|pair| ascending(pair[0]) < ascending(pair[1])));
        assert!(numbers.windows(2).all(|pair| descending(pair[0]) > descending(pair[1])));
        assert!(numbers.iter().all(|number| ascending(*number) < OUT && descending(*number) < OUT));
    }
}
