//! A placement: which logical expert each physical slot of each layer holds, replicas included. SPEC.md, "Placement".
//!
//! The physical-to-logical table and the slots of the ranks are the only state; every other table follows from them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::batch::{
    ABSENT, LocalExperts, expect_length, int32, length_with_shared, write_index_map, write_index_map_with_shared,
    write_mask,
};
use crate::error::Error;
use crate::expert_map::with_room;
use crate::limits::{NUM_EXPERTS, NUM_LAYERS, NUM_SLOTS};
use crate::partition::{Partition, to_usize};
use crate::refusal::{Place, Refusal};
use crate::topology::Topology;

/// The entry of an empty slot: spare capacity, or a slot of a rank that is out of service.
pub const EMPTY: i32 = -1;

/// The first byte of a digest; another layout of the content gets another one.
const DIGEST_VERSION: u8 = 1;

/// L layers of P physical slots, each holding one of E logical experts or none.
///
/// ```
/// use expert_placement::{Placement, Topology};
///
/// // Three experts on two ranks of two slots; expert 0 has two replicas.
/// let placement = Placement::new(3, 1, Topology::new(2, 1)?, vec![0, 1, 2, 0])?;
/// let mut counts = [0; 3];
/// placement.write_replica_counts(&mut counts)?;
/// assert_eq!(counts, [2, 1, 1]);
/// assert_eq!(placement.local_experts(0, 1)?, [2, 0]);
/// # Ok::<(), expert_placement::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    num_experts: u32,
    num_layers: usize,
    topology: Topology,
    offsets: Vec<u32>,
    table: Vec<i32>,
    most_replicas: u32,
}

impl Placement {
    /// A placement from its physical-to-logical table in row-major order, `[num_layers, P]`.
    ///
    /// The ranks' slots are those of `topology`, or a linear partition of the P slots where it names none.
    ///
    /// # Errors
    /// A table whose length is no multiple of `num_layers`, another P than the topology has, an entry that is neither
    /// an expert nor -1, an expert that a layer leaves out, or content on a rank that is not active.
    pub fn new(num_experts: u32, num_layers: usize, topology: Topology, table: Vec<i32>) -> Result<Self, Error> {
        NUM_EXPERTS.check(i128::from(num_experts))?;
        let layers = u32::try_from(num_layers).map_or(i128::MAX, i128::from);
        NUM_LAYERS.check(layers)?;
        if table.len() % num_layers != 0 {
            let expected = u64::try_from(table.len().next_multiple_of(num_layers)).unwrap_or(u64::MAX);
            return Err(Error::wrong_length("physical_to_logical", table.len(), expected));
        }
        let num_slots = table.len() / num_layers;
        let offsets = topology.slot_offsets(u64::try_from(num_slots).unwrap_or(u64::MAX))?;
        let mut placement = Self { num_experts, num_layers, topology, offsets, table, most_replicas: 0 };
        placement.most_replicas = placement.checked_most_replicas()?;
        Ok(placement)
    }

    /// Checks every entry, and counts the replicas of the most replicated expert of any layer.
    fn checked_most_replicas(&self) -> Result<u32, Error> {
        // P slots leave out one of any P + 1 experts, so that no more are counted, however many there are said to be.
        let counted = to_usize(self.num_experts).min(self.num_slots().saturating_add(1));
        let mut counts: Vec<u32> = with_room(counted)?;
        let mut most = 0;
        // Layers without slots are all alike, however many there are said to be.
        let layers = if self.table.is_empty() { 1 } else { self.num_layers };
        for layer in 0..layers {
            counts.clear();
            counts.resize(counted, 0);
            for (slot, &entry) in self.row(layer).iter().enumerate() {
                if entry == EMPTY {
                    continue;
                }
                let Some(expert) = u32::try_from(entry).ok().filter(|expert| *expert < self.num_experts) else {
                    return Err(Self::no_entry(self.num_experts, layer, slot, entry.into()));
                };
                if let Some(count) = counts.get_mut(to_usize(expert)) {
                    *count += 1;
                }
            }
            for (expert, &count) in (0..).zip(&counts) {
                if count == 0 {
                    return Err(Error::refused(Refusal::Missing { layer, expert }));
                }
                most = most.max(count);
            }
            self.expect_inactive_ranks_empty(layer)?;
        }
        Ok(most)
    }

    /// The error for an entry of any size that is neither an expert nor -1.
    #[must_use]
    pub fn no_entry(num_experts: u32, layer: usize, slot: usize, entry: i128) -> Error {
        Error::refused(Refusal::OutOfRange {
            place: Place::at_two("physical_to_logical", layer, slot),
            value: entry,
            min: -1,
            max: i64::from(num_experts) - 1,
            because: "-1 is an empty slot",
        })
    }

    fn expect_inactive_ranks_empty(&self, layer: usize) -> Result<(), Error> {
        let Some(active) = self.topology.active() else { return Ok(()) };
        for (rank, _) in (0..self.num_ranks()).zip(active).filter(|(_, active)| !**active) {
            let start = self.start_of(rank);
            if let Some((slot, &expert)) = (start..).zip(self.slots_of(layer, rank)).find(|(_, entry)| **entry != EMPTY)
            {
                return Err(Error::refused(Refusal::OnInactiveRank { layer, slot, rank, expert }));
            }
        }
        Ok(())
    }

    /// The placement of a partition: one replica of each expert, every layer alike, a slot for each expert of a rank.
    ///
    /// # Errors
    /// `num_layers` out of range, or too little memory.
    pub fn from_partition(partition: &Partition, num_layers: usize) -> Result<Self, Error> {
        let mut slots = with_room(to_usize(partition.num_ranks()))?;
        let mut row = with_room(to_usize(partition.num_experts()))?;
        for rank in 0..partition.num_ranks() {
            let experts = partition.experts_of(rank);
            slots.push(experts.remaining());
            row.extend(experts.map(int32));
        }
        let topology = Topology::new(partition.num_ranks(), 1)?.with_slots(slots)?;
        let length = row.len().saturating_mul(num_layers);
        let mut table = with_room(length)?;
        for _ in 0..num_layers {
            table.extend_from_slice(&row);
        }
        Self::new(partition.num_experts(), num_layers, topology, table)
    }

    /// Number of layers, L.
    #[must_use]
    pub const fn num_layers(&self) -> usize {
        self.num_layers
    }

    /// Number of logical experts, E.
    #[must_use]
    pub const fn num_experts(&self) -> u32 {
        self.num_experts
    }

    /// Number of physical slots of a layer, P.
    #[must_use]
    pub fn num_slots(&self) -> usize {
        self.table.len() / self.num_layers
    }

    /// Number of ranks, R.
    #[must_use]
    pub const fn num_ranks(&self) -> u32 {
        self.topology.num_ranks()
    }

    /// The ranks.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Replicas of the most replicated expert of any layer, K.
    #[must_use]
    pub const fn most_replicas(&self) -> u32 {
        self.most_replicas
    }

    /// The whole table in row-major order, `[L, P]`: the expert of each slot, or -1.
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        &self.table
    }

    /// Where each rank's slots begin, and P last: R + 1 numbers.
    #[must_use]
    pub fn slot_offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The rank of a slot.
    ///
    /// # Errors
    /// `slot` outside `0 .. P`.
    pub fn rank_of_slot(&self, slot: usize) -> Result<u32, Error> {
        if slot < self.num_slots() {
            Ok(self.owner_of_slot(slot))
        } else {
            Err(out_of_range("slot", slot, self.num_slots()))
        }
    }

    pub(crate) fn owner_of_slot(&self, slot: usize) -> u32 {
        // The last rank that starts at or before the slot: empty ranks start there too, but earlier in the list.
        let after = self.offsets.partition_point(|offset| to_usize(*offset) <= slot);
        u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// A value of any sign and size as a layer.
    ///
    /// # Errors
    /// A value outside `0 .. L`.
    pub fn check_layer(&self, layer: i128) -> Result<usize, Error> {
        match usize::try_from(layer) {
            Ok(narrowed) if narrowed < self.num_layers => Ok(narrowed),
            _ => Err(Error::no_such_index(
                "layer",
                layer,
                i128::from(u64::try_from(self.num_layers).unwrap_or(u64::MAX)),
            )),
        }
    }

    pub(crate) fn row(&self, layer: usize) -> &[i32] {
        let slots = self.num_slots();
        self.table.get(layer * slots..(layer + 1) * slots).unwrap_or_default()
    }

    fn start_of(&self, rank: u32) -> usize {
        self.offsets.get(to_usize(rank)).map_or(0, |offset| to_usize(*offset))
    }

    fn slots_of(&self, layer: usize, rank: u32) -> &[i32] {
        self.row(layer).get(self.start_of(rank)..self.start_of(rank + 1)).unwrap_or_default()
    }

    /// The expert that each local slot of `rank` holds, or -1: what a weight loader puts where.
    ///
    /// # Errors
    /// `layer` or `rank` out of range.
    pub fn local_experts(&self, layer: usize, rank: u32) -> Result<&[i32], Error> {
        if layer >= self.num_layers {
            return Err(out_of_range("layer", layer, self.num_layers));
        }
        let rank = self.topology.check_rank(i128::from(rank))?;
        Ok(self.slots_of(layer, rank))
    }

    /// The experts whose weights `rank` needs, ascending, each once: what a weight filter lets through.
    ///
    /// # Errors
    /// `layer` or `rank` out of range, or too little memory.
    pub fn experts_to_load(&self, layer: usize, rank: u32) -> Result<Vec<i32>, Error> {
        let slots = self.local_experts(layer, rank)?;
        let mut experts = with_room(slots.len())?;
        experts.extend(slots.iter().copied().filter(|entry| *entry != EMPTY));
        experts.sort_unstable();
        experts.dedup();
        Ok(experts)
    }

    /// Writes how many replicas each expert has in each layer; `out` has length L * E.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn write_replica_counts(&self, out: &mut [i32]) -> Result<(), Error> {
        expect_length(out, self.area(self.num_experts))?;
        out.fill(0);
        for (layer, counts) in out.chunks_mut(to_usize(self.num_experts).max(1)).enumerate() {
            for &entry in self.row(layer) {
                if let Some(count) = usize::try_from(entry).ok().and_then(|expert| counts.get_mut(expert)) {
                    *count += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes the slots of each expert in each layer, ascending and padded with -1; `out` has length L * E * `width`.
    ///
    /// # Errors
    /// A `width` below [`Self::most_replicas`], `out` of another length, or too little memory.
    pub fn write_logical_to_physical(&self, width: u32, out: &mut [i32]) -> Result<(), Error> {
        self.check_width(i128::from(width))?;
        expect_length(out, self.area(self.num_experts).saturating_mul(u64::from(width)))?;
        out.fill(ABSENT);
        let (width, experts) = (to_usize(width), to_usize(self.num_experts));
        // How many of each expert's slots of the layer are written.
        let mut written: Vec<usize> = with_room(experts)?;
        for (layer, lists) in out.chunks_mut((width * experts).max(1)).enumerate() {
            written.clear();
            written.resize(experts, 0);
            for (slot, &entry) in (0..).zip(self.row(layer)) {
                let Ok(expert) = usize::try_from(entry) else { continue };
                let Some(place) = written.get_mut(expert) else { continue };
                if let Some(free) = lists.get_mut(expert * width + *place) {
                    *free = slot;
                }
                *place += 1;
            }
        }
        Ok(())
    }

    /// A value of any sign and size as a width of the logical-to-physical table.
    ///
    /// # Errors
    /// A value below K, or above P where that is more.
    pub fn check_width(&self, width: i128) -> Result<u32, Error> {
        let most = NUM_SLOTS.max();
        match crate::limits::narrow(width) {
            Some(narrowed) if self.most_replicas <= narrowed && narrowed <= most => Ok(narrowed),
            _ => Err(Error::refused(Refusal::OutOfRange {
                place: Place::of("width"),
                value: width,
                min: i64::from(self.most_replicas),
                max: i64::from(most),
                because: "an expert has that many replicas",
            })),
        }
    }

    /// Elements of a table with so many entries for each layer.
    fn area(&self, each: u32) -> u64 {
        u64::try_from(self.num_layers).unwrap_or(u64::MAX).saturating_mul(u64::from(each))
    }

    /// Writes the index map of `rank`: the first local slot of each expert it holds, -1 elsewhere; `out` has length E.
    ///
    /// # Errors
    /// `layer` or `rank` out of range, or `out` of another length.
    pub fn write_expert_map(&self, layer: usize, rank: u32, out: &mut [i32]) -> Result<(), Error> {
        let held = Held(self.local_experts(layer, rank)?);
        expect_length(out, u64::from(self.num_experts))?;
        write_index_map(held, out);
        Ok(())
    }

    /// The length of a map with `num_shared_experts` fused shared experts appended, E + S.
    ///
    /// # Errors
    /// E + S beyond the limit of E.
    pub fn length_with_shared(&self, num_shared_experts: u32) -> Result<u64, Error> {
        length_with_shared(self.num_experts, num_shared_experts).map(u64::from)
    }

    /// Writes the index map of `rank` followed by `num_shared_experts` fused shared experts, which every rank holds in
    /// the local slots after its own; `out` has length E + S.
    ///
    /// # Errors
    /// As [`Self::write_expert_map`]; also where E + S, or the local slot of a shared expert, is beyond `int32`.
    pub fn write_expert_map_with_shared(
        &self,
        layer: usize,
        rank: u32,
        num_shared_experts: u32,
        out: &mut [i32],
    ) -> Result<(), Error> {
        let held = Held(self.local_experts(layer, rank)?);
        expect_length(out, self.length_with_shared(num_shared_experts)?)?;
        // The last shared expert's local slot must be an int32 too.
        length_with_shared(held.len(), num_shared_experts)?;
        write_index_map_with_shared(held, to_usize(self.num_experts), out);
        Ok(())
    }

    /// Writes the index map of `rank` and one more entry, -1; `out` has length E + 1.
    ///
    /// # Errors
    /// As [`Self::write_expert_map`].
    pub fn write_expert_map_with_sentinel(&self, layer: usize, rank: u32, out: &mut [i32]) -> Result<(), Error> {
        let held = Held(self.local_experts(layer, rank)?);
        expect_length(out, u64::from(self.num_experts) + 1)?;
        write_index_map(held, out);
        Ok(())
    }

    /// Writes the 0/1 mask of `rank`: 1 for each expert it holds and each shared expert, and a trailing 0; `out` has
    /// length E + S + 1.
    ///
    /// # Errors
    /// As [`Self::write_expert_map_with_shared`].
    pub fn write_expert_mask(
        &self,
        layer: usize,
        rank: u32,
        num_shared_experts: u32,
        out: &mut [i32],
    ) -> Result<(), Error> {
        let held = Held(self.local_experts(layer, rank)?);
        expect_length(out, self.length_with_shared(num_shared_experts)? + 1)?;
        write_mask(held, to_usize(self.num_experts), out);
        Ok(())
    }

    /// A stable hash of the content, for ranks that compare what they hold: 66 hexadecimal digits.
    ///
    /// Two digits are the version, the others SHA-256 over, as little-endian 32-bit numbers, E, L, P, R, the R + 1 slot
    /// offsets and the table. Nodes, speeds and activity say nothing of where an expert is, and are left out.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let layers = u32::try_from(self.num_layers).unwrap_or(u32::MAX);
        let slots = u32::try_from(self.num_slots()).unwrap_or(u32::MAX);
        hash.update([DIGEST_VERSION]);
        for number in [self.num_experts, layers, slots, self.num_ranks()].iter().chain(&self.offsets) {
            hash.update(number.to_le_bytes());
        }
        for entry in &self.table {
            hash.update(entry.to_le_bytes());
        }
        let mut text = format!("{DIGEST_VERSION:02x}");
        for byte in hash.finalize() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

fn out_of_range(parameter: &'static str, value: usize, end: usize) -> Error {
    let number = |value| i128::from(u64::try_from(value).unwrap_or(u64::MAX));
    Error::no_such_index(parameter, number(value), number(end))
}

/// What one rank's slots hold, for the writers of maps.
struct Held<'a>(&'a [i32]);

impl LocalExperts for Held<'_> {
    fn scatter(self, out: &mut [i32], value: impl Fn(i32) -> i32) {
        // Backwards, so that of two replicas on one rank the first slot is what stays.
        for (local, entry) in (0..int32(self.len())).zip(self.0).rev() {
            if let Some(place) = usize::try_from(*entry).ok().and_then(|expert| out.get_mut(expert)) {
                *place = value(local);
            }
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}
