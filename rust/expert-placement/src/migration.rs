//! From one placement to the next: which slot is filled from which, and what can travel at once. SPEC.md, "Migration".

#![expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "moves are indices into tables that are laid out here, from sizes that were checked to fit 31 bits"
)]

use crate::coloring::{Colouring, NONE};
use crate::error::Error;
use crate::partition::to_usize;
use crate::placement::{EMPTY, Placement};
use crate::refusal::{Place, Refusal};

/// One slot that comes to hold another expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Move {
    /// The layer.
    pub layer: u32,
    /// The logical expert.
    pub expert: u32,
    /// A slot of the layer that holds the expert in the old placement.
    pub source: u32,
    /// The slot of the layer that holds it in the new one.
    pub destination: u32,
}

/// Moves in batches, from an old placement to a new one.
///
/// Inside a batch no rank sends twice or receives twice; copies inside a rank are no transfers. A batch is executed by
/// reading all its sources first. Then the destinations whose turn it is are written: those of [`Self::write_batches`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    moves: Vec<Move>,
    batches: Vec<u32>,
    write_batches: Vec<u32>,
    senders: Vec<u32>,
    receivers: Vec<u32>,
    num_layers: usize,
    num_slots: usize,
    num_ranks: usize,
    num_staged: usize,
    is_interruption_safe: bool,
}

impl Migration {
    /// All moves, batch by batch, and in a batch by layer and destination.
    #[must_use]
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Where each batch begins among the moves, and their number last.
    #[must_use]
    pub fn batches(&self) -> &[u32] {
        &self.batches
    }

    /// For each move the batch at whose end its destination is written: its own, unless what the destination holds is
    /// still needed.
    #[must_use]
    pub fn write_batches(&self) -> &[u32] {
        &self.write_batches
    }

    /// How many batches there are.
    #[must_use]
    pub fn num_batches(&self) -> usize {
        self.batches.len().saturating_sub(1)
    }

    /// Number of layers, L.
    #[must_use]
    pub const fn num_layers(&self) -> usize {
        self.num_layers
    }

    /// Number of physical slots of a layer, P.
    #[must_use]
    pub const fn num_slots(&self) -> usize {
        self.num_slots
    }

    /// Number of ranks, R.
    #[must_use]
    pub const fn num_ranks(&self) -> usize {
        self.num_ranks
    }

    /// For each move the rank that its source is on.
    #[must_use]
    pub fn senders(&self) -> &[u32] {
        &self.senders
    }

    /// For each move the rank that its destination is on.
    #[must_use]
    pub fn receivers(&self) -> &[u32] {
        &self.receivers
    }

    /// How many moves go from one rank to another.
    #[must_use]
    pub fn num_transfers(&self) -> usize {
        self.transfers().count()
    }

    /// The places of the moves that go from one rank to another.
    fn transfers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.moves.len()).filter(|index| self.senders[*index] != self.receivers[*index])
    }

    /// What every rank sends and receives in every batch, `[num_batches, num_ranks]`, copies inside a rank left out.
    ///
    /// `bytes_per_expert` holds how large an expert is in each layer, or one number for all of them.
    ///
    /// # Errors
    /// Another number of sizes, or more than 2^63 - 1 bytes in all.
    pub fn traffic(&self, bytes_per_expert: &[u64]) -> Result<Traffic, Error> {
        if bytes_per_expert.len() != 1 && bytes_per_expert.len() != self.num_layers {
            let expected = u64::try_from(self.num_layers).unwrap_or(u64::MAX);
            return Err(Error::wrong_length("bytes_per_expert", bytes_per_expert.len(), expected));
        }
        let size = |layer: u32| bytes_per_expert[if bytes_per_expert.len() == 1 { 0 } else { layer as usize }];
        let total = self.transfers().try_fold(0_u64, |sum, index| sum.checked_add(size(self.moves[index].layer)));
        if total.is_none_or(|total| i64::try_from(total).is_err()) {
            let (parameter, expected) = ("bytes_per_expert", "at most 2^63 - 1 bytes in all");
            return Err(Error::refused(Refusal::Overflow { parameter, expected }));
        }
        let empty = vec![0; self.num_batches() * self.num_ranks];
        let mut traffic = Traffic { sent: empty.clone(), received: empty };
        for (batch, (start, end)) in self.batches.iter().zip(self.batches.iter().skip(1)).enumerate() {
            for index in to_usize(*start)..to_usize(*end) {
                let (from, to) = (self.senders[index], self.receivers[index]);
                if from != to {
                    traffic.sent[batch * self.num_ranks + from as usize] += size(self.moves[index].layer);
                    traffic.received[batch * self.num_ranks + to as usize] += size(self.moves[index].layer);
                }
            }
        }
        Ok(traffic)
    }

    /// How many experts a rank has to keep beside its slots at most: those that it has read and not yet written, counted
    /// between the reads and the writes of a batch.
    #[must_use]
    pub const fn num_staged(&self) -> usize {
        self.num_staged
    }

    /// Whether after every batch every expert of every layer is in at least one slot of a rank in service.
    #[must_use]
    pub const fn is_interruption_safe(&self) -> bool {
        self.is_interruption_safe
    }
}

/// Bytes, `[num_batches, num_ranks]` each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// What each rank sends in each batch.
    pub sent: Vec<u64>,
    /// What each rank receives in each batch.
    pub received: Vec<u64>,
}

/// What a migration is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationLimits {
    /// How many transfers between nodes may leave a node, and how many may enter it, in one batch.
    pub max_node_transfers: Option<u32>,
    /// How many experts a rank may keep beside its slots.
    pub max_staged: Option<u32>,
}

/// Plans the way from `old` to `new`.
///
/// The number of batches is the largest number of transfers that any rank sends or receives, and no plan has fewer.
///
/// # Errors
/// Placements of different layers, experts, slots or ranks, or an expert that `old` holds nowhere: nothing moves then.
pub fn plan_migration(old: &Placement, new: &Placement) -> Result<Migration, Error> {
    plan_migration_within(old, new, MigrationLimits::default())
}

/// As [`plan_migration`], within limits, which cost batches.
///
/// # Errors
/// Those of [`plan_migration`], a limit of 0 transfers, or one on staging that a single layer exceeds.
pub fn plan_migration_within(old: &Placement, new: &Placement, limits: MigrationLimits) -> Result<Migration, Error> {
    if limits.max_node_transfers == Some(0) {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("max_node_transfers"),
            value: 0,
            min: 1,
            max: i64::from(u32::MAX),
            because: "",
        }));
    }
    expect_same_shape(("old", old), ("new", new))?;
    let moves = choose_sources(old, new)?;
    let ranks = Ranks::of(new);
    let schedule = scheduled(&moves, old.num_slots(), &ranks, limits)?;
    let mut plan = arranged(&moves, &schedule, &ranks);
    (plan.num_layers, plan.num_slots) = (old.num_layers(), old.num_slots());
    plan.is_interruption_safe = keeps_every_expert(old, new, &moves, &schedule.written, &ranks);
    Ok(plan)
}

/// When each move is read and when it is written.
#[derive(Default)]
struct Schedule {
    batches: Vec<u32>,
    written: Vec<u32>,
}

impl Schedule {
    /// Moves of whole layers, planned together.
    fn of(moves: &[Move], num_slots: usize, ranks: &Ranks, limits: MigrationLimits) -> Result<Self, Error> {
        let hazards = Hazards::of(moves, num_slots);
        let mut batches = order(moves, ranks, &hazards)?;
        if let Some(most) = limits.max_node_transfers {
            split_batches(moves, ranks, most, &mut batches)?;
        }
        let written = write_batches(&batches, &hazards);
        Ok(Self { batches, written })
    }

    fn num_batches(&self) -> usize {
        self.batches.iter().max().map_or(0, |last| *last as usize + 1)
    }

    /// Appends what comes after everything that is there.
    fn extend(&mut self, next: &Self) {
        let first = self.num_batches() as u32;
        self.batches.extend(next.batches.iter().map(|batch| first + batch));
        self.written.extend(next.written.iter().map(|batch| first + batch));
    }
}

/// All layers together or, where that stages too much, as many at a time as the limit allows.
fn scheduled(moves: &[Move], num_slots: usize, ranks: &Ranks, limits: MigrationLimits) -> Result<Schedule, Error> {
    let plan = |moves: &[Move]| {
        let schedule = Schedule::of(moves, num_slots, ranks, limits)?;
        let staged = limits.max_staged.map_or(0, |_| most_staged(moves, &schedule, ranks));
        Ok::<_, Error>((schedule, staged))
    };
    let most = limits.max_staged.map_or(usize::MAX, to_usize);
    let (whole, staged) = plan(moves)?;
    if staged <= most {
        return Ok(whole);
    }
    let layers: Vec<&[Move]> = moves.chunk_by(|left, right| left.layer == right.layer).collect();
    let mut schedule = Schedule::default();
    let (mut next, mut first) = (0, 0);
    while next < layers.len() {
        let mut end = first + layers[next].len();
        let (mut best, staged) = plan(&moves[first..end])?;
        if staged > most {
            return Err(Error::refused(Refusal::OutOfRange {
                place: Place::of("max_staged"),
                value: i128::try_from(most).unwrap_or(i128::MAX),
                min: i64::try_from(staged).unwrap_or(i64::MAX),
                max: i64::from(u32::MAX),
                because: "the moves of a single layer stage that many on a rank",
            }));
        }
        next += 1;
        while let Some(layer) = layers.get(next) {
            let (more, staged) = plan(&moves[first..end + layer.len()])?;
            if staged > most {
                break;
            }
            best = more;
            end += layer.len();
            next += 1;
        }
        schedule.extend(&best);
        first = end;
    }
    Ok(schedule)
}

/// Splits batches in which more transfers between nodes leave a node, or enter it, than `most`.
///
/// A batch of up to d of them at a node becomes d / `most` batches, rounded up, which is the fewest for what it holds:
/// between nodes, too, as many colours as the largest degree suffice, and `most` colours make a batch.
fn split_batches(moves: &[Move], ranks: &Ranks, most: u32, batches: &mut [u32]) -> Result<(), Error> {
    let num_nodes = ranks.node_of_rank.iter().max().map_or(0, |last| *last as usize + 1);
    let num_batches = batches.iter().max().map_or(0, |last| *last as usize + 1);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); num_batches];
    for (index, &batch) in batches.iter().enumerate() {
        members[batch as usize].push(index);
    }
    let mut first = 0;
    for members in members {
        let between = |index: &usize| ranks.node(moves[*index].source) != ranks.node(moves[*index].destination);
        let crossing: Vec<usize> = members.iter().copied().filter(between).collect();
        let ends = |index: &usize| (ranks.node(moves[*index].source), ranks.node(moves[*index].destination));
        let edges: Vec<(u32, u32)> = crossing.iter().map(ends).collect();
        let mut colouring = Colouring::new(&edges, num_nodes)?;
        colouring.colour_all();
        for &index in &members {
            batches[index] = first;
        }
        for (index, colour) in crossing.iter().zip(&colouring.colours) {
            batches[*index] = first + colour / most;
        }
        first += colouring.degree.div_ceil(most as usize).max(1) as u32;
    }
    Ok(())
}

impl Placement {
    /// For each layer how many experts come to a rank that did not hold them in `previous`: where a rank held an expert n
    /// times and holds it m times now, that is max(m - n, 0).
    ///
    /// Experts that no rank in service holds any more are counted too, though no migration can bring them.
    ///
    /// # Errors
    /// Placements of different layers, experts, slots or ranks.
    pub fn moves_from(&self, previous: &Self) -> Result<Vec<usize>, Error> {
        expect_same_shape(("previous", previous), ("placement", self))?;
        let ranks = self.slot_offsets().iter().zip(self.slot_offsets().iter().skip(1));
        let of_layer = |layer| {
            let of_rank = |(start, end): (&u32, &u32)| {
                let slots = to_usize(*start)..to_usize(*end);
                rank_moves(&previous.row(layer)[slots.clone()], &self.row(layer)[slots])
            };
            ranks.clone().map(of_rank).sum()
        };
        Ok((0..self.num_layers()).map(of_layer).collect())
    }
}

/// How many experts one rank gets that it did not hold as often before.
pub(crate) fn rank_moves(before: &[i32], after: &[i32]) -> usize {
    let mut held = before.to_vec();
    held.sort_unstable();
    let mut now: Vec<i32> = after.iter().copied().filter(|entry| *entry != EMPTY).collect();
    now.sort_unstable();
    let mut rest = held.into_iter().filter(|entry| *entry != EMPTY).peekable();
    let mut moves = 0;
    for entry in &now {
        while rest.next_if(|old| old < entry).is_some() {}
        moves += usize::from(rest.next_if_eq(entry).is_none());
    }
    moves
}

/// Placements by the names of their parameters.
fn expect_same_shape(
    (old_name, old): (&'static str, &Placement),
    (new_name, new): (&'static str, &Placement),
) -> Result<(), Error> {
    let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let pairs = [
        ("num_layers", number(new.num_layers()), number(old.num_layers())),
        ("num_experts", new.num_experts().into(), old.num_experts().into()),
        ("num_slots", number(new.num_slots()), number(old.num_slots())),
        ("num_ranks", new.num_ranks().into(), old.num_ranks().into()),
    ];
    for (what, left_value, right_value) in pairs {
        if left_value != right_value {
            let (left, right) = (new_name, old_name);
            return Err(Error::refused(Refusal::Mismatch { left, right, what, left_value, right_value }));
        }
    }
    let differs = old.slot_offsets().iter().zip(new.slot_offsets()).enumerate().find(|(_, (old, new))| old != new);
    match differs {
        None => Ok(()),
        Some((rank, (old, new))) => Err(Error::refused(Refusal::Mismatch {
            left: new_name,
            right: old_name,
            what: "the start of a rank's slots",
            left_value: u64::from(*new),
            right_value: u64::from(*old),
        })
        .at(rank)),
    }
}

/// The rank and the node of each slot.
struct Ranks {
    of_slot: Vec<u32>,
    node_of_rank: Vec<u32>,
}

impl Ranks {
    fn of(placement: &Placement) -> Self {
        let offsets = placement.slot_offsets();
        let mut of_slot = Vec::with_capacity(placement.num_slots());
        for (rank, (start, end)) in (0..).zip(offsets.iter().zip(offsets.iter().skip(1))) {
            of_slot.resize(of_slot.len() + to_usize(*end - *start), rank);
        }
        let topology = placement.topology();
        let node_of_rank = (0..placement.num_ranks()).map(|rank| topology.node_of(rank).unwrap_or(0)).collect();
        Self { of_slot, node_of_rank }
    }

    fn rank(&self, slot: u32) -> u32 {
        self.of_slot[slot as usize]
    }

    fn node(&self, slot: u32) -> u32 {
        self.node_of_rank[self.rank(slot) as usize]
    }

    fn is_transfer(&self, one: &Move) -> bool {
        self.rank(one.source) != self.rank(one.destination)
    }
}

/// Every slot that changes, in the order of layers and slots, with its source.
///
/// The source is the nearest slot that holds the expert in the old placement, on a rank that is in service in the new
/// one: on the same rank, else on the same node, else anywhere. Of ranks equally near it is the one that sends least so
/// far, then the lower one; of a rank's slots the lowest.
fn choose_sources(old: &Placement, new: &Placement) -> Result<Vec<Move>, Error> {
    let ranks = Ranks::of(new);
    let experts = to_usize(old.num_experts());
    let mut sends = vec![0_u32; to_usize(old.num_ranks())];
    let mut moves = Vec::new();
    // The slots of each expert in the old layer, one list after the other.
    let (mut first, mut slots) = (Vec::new(), Vec::new());
    for layer in 0..old.num_layers() {
        let (before, after) = (old.row(layer), new.row(layer));
        if before == after {
            continue;
        }
        list_slots(before, experts, &mut first, &mut slots);
        for (destination, (&held, &wanted)) in (0_u32..).zip(before.iter().zip(after)) {
            if wanted == EMPTY || wanted == held {
                continue;
            }
            let expert = wanted as usize;
            let candidates = &slots[first[expert]..first[expert + 1]];
            let key = |source: u32| {
                let rank = ranks.rank(source);
                if rank == ranks.rank(destination) {
                    return (0, 0, rank, source);
                }
                let is_far = ranks.node(source) != ranks.node(destination);
                (1 + u32::from(is_far), sends[rank as usize], rank, source)
            };
            let is_live = |source: &u32| new.topology().is_active(ranks.rank(*source) as usize);
            let Some(source) = candidates.iter().copied().filter(is_live).min_by_key(|source| key(*source)) else {
                let refusal = Refusal::NoSource { layer, expert: wanted as u32, slot: destination as usize };
                return Err(Error::refused(refusal));
            };
            if ranks.rank(source) != ranks.rank(destination) {
                sends[ranks.rank(source) as usize] += 1;
            }
            moves.push(Move { layer: layer as u32, expert: wanted as u32, source, destination });
        }
    }
    Ok(moves)
}

/// The slots of each expert: `slots[first[e] .. first[e + 1]]`, ascending.
fn list_slots(row: &[i32], experts: usize, first: &mut Vec<usize>, slots: &mut Vec<u32>) {
    first.clear();
    first.resize(experts + 1, 0);
    for &entry in row.iter().filter(|entry| **entry != EMPTY) {
        first[entry as usize + 1] += 1;
    }
    for expert in 0..experts {
        first[expert + 1] += first[expert];
    }
    slots.clear();
    slots.resize(first[experts], 0);
    let mut next = first.clone();
    for (slot, &entry) in (0..).zip(row).filter(|(_, entry)| **entry != EMPTY) {
        slots[next[entry as usize]] = slot;
        next[entry as usize] += 1;
    }
}

/// What must be read before what is written: each move's source is overwritten by one other move at most.
struct Hazards {
    /// The move that overwrites a move's source, or `NONE`.
    overwriter: Vec<u32>,
    /// The moves that read a move's destination: `readers[first[m] .. first[m + 1]]`.
    first: Vec<u32>,
    readers: Vec<u32>,
}

impl Hazards {
    fn of(moves: &[Move], num_slots: usize) -> Self {
        let mut overwriter = vec![NONE; moves.len()];
        let mut writer = vec![NONE; num_slots];
        let mut start = 0;
        while start < moves.len() {
            let end = start + moves[start..].iter().take_while(|one| one.layer == moves[start].layer).count();
            for (index, one) in (start..end).zip(&moves[start..end]) {
                writer[one.destination as usize] = index as u32;
            }
            for (index, one) in (start..end).zip(&moves[start..end]) {
                overwriter[index] = writer[one.source as usize];
            }
            for one in &moves[start..end] {
                writer[one.destination as usize] = NONE;
            }
            start = end;
        }
        let mut first = vec![0_u32; moves.len() + 1];
        for &over in overwriter.iter().filter(|over| **over != NONE) {
            first[over as usize + 1] += 1;
        }
        for index in 0..moves.len() {
            first[index + 1] += first[index];
        }
        let mut next = first.clone();
        let mut readers = vec![0; first[moves.len()] as usize];
        for (index, &over) in overwriter.iter().enumerate().filter(|(_, over)| **over != NONE) {
            readers[next[over as usize] as usize] = index as u32;
            next[over as usize] += 1;
        }
        Self { overwriter, first, readers }
    }

    fn readers_of(&self, index: usize) -> &[u32] {
        &self.readers[self.first[index] as usize..self.first[index + 1] as usize]
    }
}

/// The batch of each move.
///
/// A move comes no earlier than those that read what it overwrites, as far as the least number of batches allows: moves
/// are taken from the ends of the chains that these make, each in the lowest batch that is free; a ring of moves that pass
/// their slots on in turn shares one batch.
fn order(moves: &[Move], ranks: &Ranks, hazards: &Hazards) -> Result<Vec<u32>, Error> {
    let (edges, edge_of) = transfers(moves, ranks);
    let mut move_of = vec![0_u32; edges.len()];
    for (index, &edge) in (0_u32..).zip(&edge_of).filter(|(_, edge)| **edge != NONE) {
        move_of[edge as usize] = index;
    }
    let num_vertices = ranks.node_of_rank.len();
    let mut batches = Batches {
        colouring: Colouring::new(&edges, num_vertices)?,
        local: vec![NONE; moves.len()],
        edge_of: &edge_of,
        move_of: &move_of,
        hazards,
    };
    let mut waiting: Vec<u32> = (0..moves.len()).map(|index| hazards.readers_of(index).len() as u32).collect();
    let mut done = vec![false; moves.len()];
    let mut seen = vec![NONE; moves.len()];
    let mut ready = Vec::new();
    // Layer by layer, so that what a layer has to hold back is not held for long.
    let mut first = 0;
    for layer in moves.chunk_by(|left, right| left.layer == right.layer) {
        let mut rest = first;
        ready.clear();
        ready.extend(
            (first..first + layer.len()).map(|index| index as u32).filter(|index| waiting[*index as usize] == 0),
        );
        while rest < first + layer.len() {
            // From moves whose destination nobody reads on towards the moves that overwrite their sources.
            let mut head = 0;
            while let Some(&index) = ready.get(head) {
                head += 1;
                batches.place_one(index);
                done[index as usize] = true;
                let over = hazards.overwriter[index as usize];
                if over != NONE && !done[over as usize] {
                    waiting[over as usize] -= 1;
                    if waiting[over as usize] == 0 {
                        ready.push(over);
                    }
                }
            }
            ready.clear();
            // What is left are rings, and what hangs behind them.
            while rest < first + layer.len() && done[rest] {
                rest += 1;
            }
            if rest < first + layer.len() {
                let ring = ring_from(rest as u32, hazards, &mut seen);
                batches.place(&ring);
                for &index in &ring {
                    done[index as usize] = true;
                    let over = hazards.overwriter[index as usize];
                    waiting[over as usize] = waiting[over as usize].saturating_sub(1);
                }
            }
        }
        first += layer.len();
    }
    Ok((0..moves.len()).map(|index| batches.batch(index as u32)).collect())
}

/// The ring that a move's chain leads into. `seen` holds for each move the last start from which it was come by.
fn ring_from(start: u32, hazards: &Hazards, seen: &mut [u32]) -> Vec<u32> {
    // A chain that ends was taken before, so this one comes back to where it has been.
    let mut index = start;
    while seen[index as usize] != start {
        seen[index as usize] = start;
        index = hazards.overwriter[index as usize];
    }
    let mut ring = vec![index];
    let mut next = hazards.overwriter[index as usize];
    while next != index {
        ring.push(next);
        next = hazards.overwriter[next as usize];
    }
    ring
}

/// The moves between ranks as edges, and the edge of each move or `NONE`.
fn transfers(moves: &[Move], ranks: &Ranks) -> (Vec<(u32, u32)>, Vec<u32>) {
    let mut edges = Vec::new();
    let mut edge_of = Vec::with_capacity(moves.len());
    for one in moves {
        if ranks.is_transfer(one) {
            edge_of.push(edges.len() as u32);
            edges.push((ranks.rank(one.source), ranks.rank(one.destination)));
        } else {
            edge_of.push(NONE);
        }
    }
    (edges, edge_of)
}

/// The batches while they are filled.
struct Batches<'a> {
    colouring: Colouring<'a>,
    /// The batches of copies inside a rank, which are never in the way.
    local: Vec<u32>,
    edge_of: &'a [u32],
    move_of: &'a [u32],
    hazards: &'a Hazards,
}

impl Batches<'_> {
    fn batch(&self, index: u32) -> u32 {
        match self.edge_of[index as usize] {
            NONE => self.local[index as usize],
            edge => self.colouring.colours[edge as usize],
        }
    }

    /// The earliest batch that a move may have: no earlier than those that read what it overwrites, as far as they have
    /// one.
    fn least(&self, index: u32) -> u32 {
        let readers = self.hazards.readers_of(index as usize).iter();
        readers.map(|reader| self.batch(*reader)).filter(|batch| *batch != NONE).max().unwrap_or(0)
    }

    /// Gives a move the lowest batch that it may have and that is free.
    fn place_one(&mut self, index: u32) {
        let least = self.least(index);
        match self.edge_of[index as usize] {
            NONE => self.local[index as usize] = least,
            edge => self.colour_alone(edge, least),
        }
    }

    /// Gives moves that belong together one batch; where none is free for all, each by itself.
    fn place(&mut self, together: &[u32]) {
        let edges: Vec<u32> =
            together.iter().map(|index| self.edge_of[*index as usize]).filter(|edge| *edge != NONE).collect();
        let least = together.iter().map(|index| self.least(*index)).max().unwrap_or(0);
        let batch = if edges.is_empty() {
            Some(least)
        } else if self.are_apart(&edges) {
            self.colouring.common_free(&edges, least)
        } else {
            None
        };
        for &index in together {
            match (self.edge_of[index as usize], batch) {
                (NONE, _) => self.local[index as usize] = batch.unwrap_or(least),
                (edge, Some(batch)) => self.colouring.put(edge, batch),
                (edge, None) => self.colour_alone(edge, least),
            }
        }
    }

    /// Whether no two of these edges have a sender or a receiver in common.
    fn are_apart(&self, edges: &[u32]) -> bool {
        let ends: Vec<(u32, u32)> = edges.iter().map(|edge| self.colouring.ends(*edge)).collect();
        let clash = |one: &(u32, u32), other: &(u32, u32)| one.0 == other.0 || one.1 == other.1;
        // Rings are short; a long one has more moves than there are ranks, and so some end twice.
        ends.iter().enumerate().all(|(place, one)| !ends[..place].iter().any(|other| clash(one, other)))
    }

    fn colour_alone(&mut self, edge: u32, least: u32) {
        if let Some(batch) = self.colouring.common_free(&[edge], least) {
            return self.colouring.put(edge, batch);
        }
        let (edge_of, move_of, hazards, local) = (self.edge_of, self.move_of, self.hazards, &self.local);
        self.colouring.force(edge, |colouring, path, (at_sender, at_receiver)| {
            if at_sender < least {
                return false;
            }
            // The batch of a move after the exchange.
            let after = |index: u32| match edge_of[index as usize] {
                NONE => local[index as usize],
                other if path.contains(&other) => {
                    if colouring.colours[other as usize] == at_sender {
                        at_receiver
                    } else {
                        at_sender
                    }
                }
                other => colouring.colours[other as usize],
            };
            path.iter().all(|&exchanged| {
                let index = move_of[exchanged as usize];
                let batch = after(index);
                let over = hazards.overwriter[index as usize];
                let is_read_in_time = over == NONE || after(over) == NONE || batch <= after(over);
                let is_not_too_early = hazards.readers_of(index as usize).iter().all(|reader| {
                    let read = after(*reader);
                    read == NONE || read <= batch
                });
                is_read_in_time && is_not_too_early
            })
        });
    }
}

/// The moves in the order of their batches, and when each is written.
fn arranged(moves: &[Move], schedule: &Schedule, ranks: &Ranks) -> Migration {
    // Moves are in the order of layers and destinations already, and stay in it inside a batch.
    let (batches, order) = by_number(&schedule.batches);
    let ordered: Vec<Move> = order.iter().map(|index| moves[*index as usize]).collect();
    Migration {
        write_batches: order.iter().map(|index| schedule.written[*index as usize]).collect(),
        senders: ordered.iter().map(|one| ranks.rank(one.source)).collect(),
        receivers: ordered.iter().map(|one| ranks.rank(one.destination)).collect(),
        moves: ordered,
        batches,
        num_layers: 0,
        num_slots: 0,
        num_ranks: ranks.node_of_rank.len(),
        num_staged: most_staged(moves, schedule, ranks),
        is_interruption_safe: false,
    }
}

/// The batch at whose end each destination is written: when every copy of what it held has been written, so that at no
/// time an expert is in no slot.
fn write_batches(batch_of: &[u32], hazards: &Hazards) -> Vec<u32> {
    let mut written = batch_of.to_vec();
    // Along a chain later batches follow from earlier ones; in a ring all come to the latest. Each round settles at least
    // one more move of a chain, and a move that waits passes it on.
    let mut changed: Vec<u32> = (0..batch_of.len() as u32).collect();
    while let Some(index) = changed.pop() {
        let over = hazards.overwriter[index as usize];
        if over != NONE && written[over as usize] < written[index as usize] {
            written[over as usize] = written[index as usize];
            changed.push(over);
        }
    }
    written
}

/// The most experts that any rank has read and not written, between the reads and the writes of a batch.
fn most_staged(moves: &[Move], schedule: &Schedule, ranks: &Ranks) -> usize {
    // What begins and ends to be staged with each batch, rank by rank.
    let width = schedule.num_batches() + 1;
    let mut changes = vec![0_i32; ranks.node_of_rank.len() * width];
    for ((one, &batch), &write) in moves.iter().zip(&schedule.batches).zip(&schedule.written) {
        let first = ranks.rank(one.destination) as usize * width;
        changes[first + batch as usize] += 1;
        changes[first + write as usize + 1] -= 1;
    }
    let mut most = 0;
    for of_rank in changes.chunks(width) {
        let mut staged = 0;
        for change in of_rank {
            staged += change;
            most = most.max(staged);
        }
    }
    most as usize
}

/// Whether at the end of every batch every expert is in a slot of a rank that is in service in the new placement.
fn keeps_every_expert(old: &Placement, new: &Placement, moves: &[Move], written: &[u32], ranks: &Ranks) -> bool {
    let experts = to_usize(old.num_experts());
    let is_live: Vec<bool> = ranks.of_slot.iter().map(|rank| new.topology().is_active(*rank as usize)).collect();
    let mut replicas = vec![0_u32; old.num_layers() * experts];
    for layer in 0..old.num_layers() {
        for (entry, _) in old.row(layer).iter().zip(&is_live).filter(|(entry, is_live)| **entry != EMPTY && **is_live) {
            replicas[layer * experts + *entry as usize] += 1;
        }
    }
    let (first, order) = by_number(written);
    for batch in first.windows(2) {
        let due = &order[batch[0] as usize..batch[1] as usize];
        for one in due.iter().map(|index| &moves[*index as usize]) {
            replicas[one.layer as usize * experts + one.expert as usize] += 1;
        }
        for one in due.iter().map(|index| &moves[*index as usize]) {
            let overwritten = old.row(one.layer as usize)[one.destination as usize];
            if overwritten != EMPTY && is_live[one.destination as usize] {
                let left = &mut replicas[one.layer as usize * experts + overwritten as usize];
                *left -= 1;
                if *left == 0 {
                    return false;
                }
            }
        }
    }
    true
}

/// Indices in the order of their numbers, equal ones ascending: those of number n are `order[first[n] .. first[n + 1]]`.
fn by_number(numbers: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let end = numbers.iter().max().map_or(0, |last| *last as usize + 1);
    let mut first = vec![0_u32; end + 1];
    for &number in numbers {
        first[number as usize + 1] += 1;
    }
    for number in 0..end {
        first[number + 1] += first[number];
    }
    let (mut next, mut order) = (first.clone(), vec![0; numbers.len()]);
    for (index, &number) in (0..).zip(numbers) {
        order[next[number as usize] as usize] = index;
        next[number as usize] += 1;
    }
    (first, order)
}
