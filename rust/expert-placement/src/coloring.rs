//! Transfers in as few batches as there can be: an edge colouring of a bipartite multigraph. SPEC.md, "Batches".
//!
//! Senders are on one side, receivers on the other. By Koenig's theorem as many colours as the largest degree suffice: an
//! edge that finds no colour free at both ends takes one that is free at its sender, after the colours along the path that
//! is in the way have been exchanged.

#![expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "vertices, edges and colours are indices into tables that are laid out here"
)]

use crate::error::Error;
use crate::expert_map::with_room;

/// No edge, or no colour.
pub(crate) const NONE: u32 = u32::MAX;

/// The colouring while it grows.
pub(crate) struct Colouring<'a> {
    edges: &'a [(u32, u32)],
    /// The colour of each edge, or `NONE`.
    pub(crate) colours: Vec<u32>,
    /// Which edge has each colour at each vertex: senders, then receivers.
    table: Vec<u32>,
    /// One bit a colour for each vertex: whether it is free there.
    free: Vec<u64>,
    /// The largest degree.
    pub(crate) degree: usize,
    words: usize,
    num_vertices: usize,
    path: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
}

impl<'a> Colouring<'a> {
    /// No edge coloured yet; as many colours as the largest degree of the edges, (sender, receiver).
    ///
    /// # Errors
    /// Too little memory for a table of all vertices and colours.
    pub(crate) fn new(edges: &'a [(u32, u32)], num_vertices: usize) -> Result<Self, Error> {
        let mut degrees = vec![0_usize; 2 * num_vertices];
        for &(sender, receiver) in edges {
            degrees[sender as usize] += 1;
            degrees[num_vertices + receiver as usize] += 1;
        }
        let degree = degrees.into_iter().max().unwrap_or(0);
        let words = degree.div_ceil(64);
        let mut all = vec![u64::MAX; words];
        if let Some(last) = all.last_mut().filter(|_| degree % 64 != 0) {
            *last = (1 << (degree % 64)) - 1;
        }
        let entries = (2 * num_vertices).saturating_mul(degree);
        let mut table = with_room(entries)?;
        table.resize(entries, NONE);
        Ok(Self {
            edges,
            colours: vec![NONE; edges.len()],
            table,
            free: all.repeat(2 * num_vertices),
            degree,
            words,
            num_vertices,
            path: Vec::new(),
        })
    }

    fn vertex(&self, side: Side, vertex: u32) -> usize {
        vertex as usize + if side == Side::Sender { 0 } else { self.num_vertices }
    }

    fn free_at(&self, side: Side, vertex: u32) -> &[u64] {
        let first = self.vertex(side, vertex) * self.words;
        &self.free[first..first + self.words]
    }

    fn edge_at(&self, side: Side, vertex: u32, colour: u32) -> u32 {
        self.table[self.vertex(side, vertex) * self.degree + colour as usize]
    }

    /// The lowest colour from `least` on that is free at both ends of all these edges.
    pub(crate) fn common_free(&self, edges: &[u32], least: u32) -> Option<u32> {
        for word in least as usize / 64..self.words {
            let mut free = if word == least as usize / 64 { u64::MAX << (least % 64) } else { u64::MAX };
            for &edge in edges {
                let (sender, receiver) = self.edges[edge as usize];
                free &= self.free_at(Side::Sender, sender)[word] & self.free_at(Side::Receiver, receiver)[word];
            }
            if free != 0 {
                return Some(word as u32 * 64 + free.trailing_zeros());
            }
        }
        None
    }

    /// The sender and the receiver of an edge.
    pub(crate) fn ends(&self, edge: u32) -> (u32, u32) {
        self.edges[edge as usize]
    }

    /// Gives an edge a colour that is free at both its ends.
    pub(crate) fn put(&mut self, edge: u32, colour: u32) {
        self.colours[edge as usize] = colour;
        self.mark(edge, colour, edge);
    }

    fn mark(&mut self, edge: u32, colour: u32, value: u32) {
        let (sender, receiver) = self.edges[edge as usize];
        for (side, end) in [(Side::Sender, sender), (Side::Receiver, receiver)] {
            let vertex = self.vertex(side, end);
            self.table[vertex * self.degree + colour as usize] = value;
            let word = &mut self.free[vertex * self.words + colour as usize / 64];
            let bit = 1 << (colour % 64);
            if value == NONE { *word |= bit } else { *word &= !bit }
        }
    }

    /// Colours every edge in its order, each with the lowest colour that is free, or one that can be freed.
    pub(crate) fn colour_all(&mut self) {
        for edge in 0..self.edges.len() as u32 {
            match self.common_free(&[edge], 0) {
                Some(colour) => self.put(edge, colour),
                None => self.force(edge, |_, _, _| true),
            }
        }
    }

    /// Colours an edge that has no colour free at both ends: one that is free at its sender is freed at its receiver.
    ///
    /// Of the pairs of colours that would do, the first is taken for which `spares` says that it harms nothing, or else the
    /// first of all; it is asked with the edges whose colours would be exchanged, and the colours.
    pub(crate) fn force(&mut self, edge: u32, spares: impl Fn(&Self, &[u32], (u32, u32)) -> bool) {
        let (sender, receiver) = self.edges[edge as usize];
        let mut first_of_all = None;
        let mut chosen = None;
        let mut path = std::mem::take(&mut self.path);
        let mut tries = 0;
        'search: for at_sender in colours_in(self.free_at(Side::Sender, sender)) {
            for at_receiver in colours_in(self.free_at(Side::Receiver, receiver)) {
                first_of_all = first_of_all.or(Some((at_sender, at_receiver)));
                self.fill_path(receiver, at_sender, at_receiver, &mut path);
                if spares(self, &path, (at_sender, at_receiver)) {
                    chosen = Some((at_sender, at_receiver));
                    break 'search;
                }
                tries += 1;
                if tries == MOST_TRIES {
                    break 'search;
                }
            }
        }
        let Some((at_sender, at_receiver)) = chosen.or(first_of_all) else { return };
        if chosen.is_none() {
            self.fill_path(receiver, at_sender, at_receiver, &mut path);
        }
        // All give their colours up before any takes another, so that no two have one at a vertex.
        for &edge in &path {
            self.mark(edge, self.colours[edge as usize], NONE);
        }
        for &edge in &path {
            let colour = if self.colours[edge as usize] == at_sender { at_receiver } else { at_sender };
            self.put(edge, colour);
        }
        self.path = path;
        self.put(edge, at_sender);
    }

    /// The edges of two colours in turn from a receiver on, which is where `first` is in the way.
    ///
    /// The path cannot come to a sender where `first` is free: it would have to arrive there by it.
    fn fill_path(&self, receiver: u32, first: u32, second: u32, path: &mut Vec<u32>) {
        path.clear();
        let (mut side, mut vertex, mut colour) = (Side::Receiver, receiver, first);
        loop {
            let edge = self.edge_at(side, vertex, colour);
            if edge == NONE {
                return;
            }
            path.push(edge);
            let (sender, receiver) = self.edges[edge as usize];
            (side, vertex) = if side == Side::Receiver { (Side::Sender, sender) } else { (Side::Receiver, receiver) };
            colour = if colour == first { second } else { first };
        }
    }
}

/// How many pairs of colours are looked at for one that spares everything.
const MOST_TRIES: usize = 2;

/// The colours of a set, ascending.
fn colours_in(words: &[u64]) -> Vec<u32> {
    let mut colours = Vec::new();
    for (word, &bits) in words.iter().enumerate() {
        let mut bits = bits;
        while bits != 0 {
            colours.push(word as u32 * 64 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
    colours
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Domain: a thousand pseudo-random multigraphs of up to 9 vertices a side and 60 edges, and thirty of up to 5 and 400,
    /// whose colours take several words.
    #[test]
    fn as_many_colours_as_the_largest_degree_suffice() {
        let mut seed = 5_u64;
        let mut random = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((seed >> 33) % end).unwrap()
        };
        let mut words = 0;
        for round in 0..1030 {
            let (vertices, edges) =
                if round < 1000 { (1 + random(9), random(60)) } else { (1 + random(5), random(400)) };
            let edges: Vec<(u32, u32)> =
                (0..edges).map(|_| (random(vertices.into()), random(vertices.into()))).collect();
            let mut colouring = Colouring::new(&edges, vertices as usize).unwrap();
            words = words.max(colouring.words);
            colouring.colour_all();
            let mut used = std::collections::BTreeSet::new();
            for (&(sender, receiver), &colour) in edges.iter().zip(&colouring.colours) {
                assert!((colour as usize) < colouring.degree, "{edges:?}");
                assert!(used.insert((0, sender, colour)) && used.insert((1, receiver, colour)), "{edges:?}");
            }
        }
        assert!(words > 2);
    }

    #[test]
    fn colours_of_a_set_are_those_of_all_its_words() {
        assert_eq!(colours_in(&[0b101, 0, 1 << 63]), [0, 2, 191]);
    }
}
