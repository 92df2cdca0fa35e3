//! The ranks that a placement is for: their nodes, slots, speeds, and which of them are active. SPEC.md, "Topology".

use crate::error::Error;
use crate::expert_map::with_room;
use crate::limits::{NUM_RANKS, NUM_SLOTS, SLOTS_PER_RANK, SPEEDS};
use crate::partition::{Partition, Strategy, to_usize};
use crate::refusal::{Place, Refusal};

/// Ranks, the nodes that they are on, and what each can hold.
///
/// ```
/// use expert_placement::Topology;
///
/// let topology = Topology::new(4, 2)?.with_slots(vec![3, 3, 3, 1])?.with_active(vec![true, true, true, false])?;
/// assert_eq!(topology.node_of(3)?, 1);
/// assert_eq!(topology.slot_offsets(10)?, [0, 3, 6, 9, 10]);
/// # Ok::<(), expert_placement::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    nodes: Partition,
    slots: Slots,
    speeds: Option<Vec<f64>>,
    active: Option<Vec<bool>>,
}

/// How many slots the ranks have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slots {
    /// A linear partition of however many slots a placement has.
    Shared,
    /// Equally many on every rank.
    Each(u32),
    /// One number for each rank.
    List(Vec<u32>),
}

impl Topology {
    /// `num_ranks` ranks of one speed, all active, on `num_nodes` nodes: a linear partition of the ranks.
    ///
    /// # Errors
    /// `num_ranks` out of [`NUM_RANKS`], or `num_nodes` outside `1 ..= num_ranks`.
    pub fn new(num_ranks: u32, num_nodes: u32) -> Result<Self, Error> {
        let num_ranks = NUM_RANKS.check(i128::from(num_ranks))?;
        if num_nodes < 1 || num_ranks < num_nodes {
            return Err(Error::refused(Refusal::OutOfRange {
                place: Place::of("num_nodes"),
                value: i128::from(num_nodes),
                min: 1,
                max: i64::from(num_ranks),
                because: "a node has at least one rank",
            }));
        }
        let nodes = Partition::new(num_ranks, num_nodes, Strategy::Linear)?;
        Ok(Self { nodes, slots: Slots::Shared, speeds: None, active: None })
    }

    /// The same with equally many slots on every rank.
    ///
    /// # Errors
    /// `slots_per_rank` out of range, or more slots in all than a placement may have.
    pub fn with_slots_per_rank(mut self, slots_per_rank: u32) -> Result<Self, Error> {
        SLOTS_PER_RANK.check(i128::from(slots_per_rank))?;
        NUM_SLOTS.check(i128::from(slots_per_rank) * i128::from(self.num_ranks()))?;
        self.slots = Slots::Each(slots_per_rank);
        Ok(self)
    }

    /// The same with a number of slots for each rank; equal ones are what [`Topology::with_slots_per_rank`] says.
    ///
    /// # Errors
    /// A list of another length than R, or a number out of range.
    pub fn with_slots(mut self, slots_per_rank: Vec<u32>) -> Result<Self, Error> {
        self.expect_one_a_rank("slots_per_rank", slots_per_rank.len())?;
        let mut total = 0;
        for (rank, &slots) in slots_per_rank.iter().enumerate() {
            SLOTS_PER_RANK.check(i128::from(slots)).map_err(|error| error.at(rank))?;
            total += i128::from(slots);
        }
        NUM_SLOTS.check(total)?;
        self.slots = match slots_per_rank.as_slice() {
            [first, rest @ ..] if rest.iter().all(|slots| slots == first) => Slots::Each(*first),
            _ => Slots::List(slots_per_rank),
        };
        Ok(self)
    }

    /// The same with a relative speed for each rank: a rank of speed 2 carries twice the load in the same time.
    ///
    /// # Errors
    /// A list of another length than R, or a speed out of [`SPEEDS`].
    pub fn with_speeds(mut self, speeds: Vec<f64>) -> Result<Self, Error> {
        self.expect_one_a_rank("speeds", speeds.len())?;
        for (rank, &speed) in speeds.iter().enumerate() {
            if !SPEEDS.contains(&speed) {
                let expected = "a number in 1e-6..=1e6";
                return Err(Error::refused(Refusal::BadNumber {
                    place: Place::at("speeds", rank),
                    bits: speed.to_bits(),
                    expected,
                }));
            }
        }
        // Speeds of 1 are what no speeds mean.
        let differ = speeds.iter().any(|speed| speed.to_bits() != 1.0_f64.to_bits());
        self.speeds = differ.then_some(speeds);
        Ok(self)
    }

    /// The same with some ranks out of service: their slots stay empty.
    ///
    /// # Errors
    /// A list of another length than R, or none active.
    pub fn with_active(mut self, active: Vec<bool>) -> Result<Self, Error> {
        self.expect_one_a_rank("active", active.len())?;
        if !active.contains(&true) {
            return Err(Error::refused(Refusal::NoActiveRank));
        }
        self.active = active.contains(&false).then_some(active);
        Ok(self)
    }

    fn expect_one_a_rank(&self, parameter: &'static str, length: usize) -> Result<(), Error> {
        if length == to_usize(self.num_ranks()) {
            Ok(())
        } else {
            Err(Error::wrong_length(parameter, length, u64::from(self.num_ranks())))
        }
    }

    /// Number of ranks, R.
    #[must_use]
    pub const fn num_ranks(&self) -> u32 {
        self.nodes.num_experts()
    }

    /// Number of nodes.
    #[must_use]
    pub const fn num_nodes(&self) -> u32 {
        self.nodes.num_ranks()
    }

    /// The node of a rank.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`.
    pub fn node_of(&self, rank: u32) -> Result<u32, Error> {
        self.check_rank(i128::from(rank))?;
        self.nodes.owner(rank)
    }

    /// A value of any sign and size as a rank.
    ///
    /// # Errors
    /// A value outside `0 .. R`.
    pub const fn check_rank(&self, rank: i128) -> Result<u32, Error> {
        match crate::limits::narrow(rank) {
            Some(narrowed) if narrowed < self.num_ranks() => Ok(narrowed),
            _ => Err(Error::no_such_rank(rank, self.num_ranks())),
        }
    }

    /// The relative speed of each rank, where one is not 1.
    #[must_use]
    pub fn speeds(&self) -> Option<&[f64]> {
        self.speeds.as_deref()
    }

    /// Which ranks are active, where some are not.
    #[must_use]
    pub fn active(&self) -> Option<&[bool]> {
        self.active.as_deref()
    }

    /// The number of slots of each rank, where it was given: one for all, or one for each.
    #[must_use]
    pub fn slots(&self) -> Option<Vec<u32>> {
        match &self.slots {
            Slots::Shared => None,
            Slots::Each(slots) => Some(vec![*slots; to_usize(self.num_ranks())]),
            Slots::List(slots) => Some(slots.clone()),
        }
    }

    /// The one number of slots that every rank was given, if it was one.
    #[must_use]
    pub const fn slots_per_rank(&self) -> Option<u32> {
        match self.slots {
            Slots::Each(slots) => Some(slots),
            Slots::Shared | Slots::List(_) => None,
        }
    }

    /// How many slots the ranks have together, where it was given.
    #[must_use]
    pub fn num_slots(&self) -> Option<u64> {
        match &self.slots {
            Slots::Shared => None,
            Slots::Each(slots) => Some(u64::from(*slots) * u64::from(self.num_ranks())),
            Slots::List(slots) => Some(slots.iter().map(|slots| u64::from(*slots)).sum()),
        }
    }

    /// Where each rank's slots begin among `num_slots`, and `num_slots` last: R + 1 numbers.
    ///
    /// Without other word the slots are a linear partition over the ranks.
    ///
    /// # Errors
    /// `num_slots` out of range, or another number than the ranks have; or too little memory.
    pub fn slot_offsets(&self, num_slots: u64) -> Result<Vec<u32>, Error> {
        let total = NUM_SLOTS.check(i128::from(num_slots))?;
        if let Some(given) = self.num_slots() {
            if given != num_slots {
                return Err(Error::refused(Refusal::OutOfRange {
                    place: Place::of("num_slots"),
                    value: i128::from(num_slots),
                    min: i64::try_from(given).unwrap_or(i64::MAX),
                    max: i64::try_from(given).unwrap_or(i64::MAX),
                    because: "the ranks of the topology have that many",
                }));
            }
        }
        let mut offsets = with_room(to_usize(self.num_ranks()) + 1)?;
        let mut next = 0;
        offsets.push(next);
        match &self.slots {
            Slots::Shared => {
                let partition = Partition::new(total, self.num_ranks(), Strategy::Linear)?;
                offsets.extend((1..self.num_ranks()).map(|rank| partition.start_of(rank)));
                offsets.push(total);
            }
            Slots::Each(slots) => {
                for _ in 0..self.num_ranks() {
                    next += slots;
                    offsets.push(next);
                }
            }
            Slots::List(slots) => {
                for slots in slots {
                    next += slots;
                    offsets.push(next);
                }
            }
        }
        Ok(offsets)
    }

    pub(crate) fn is_active(&self, rank: usize) -> bool {
        self.active.as_ref().is_none_or(|active| active.get(rank).copied().unwrap_or(false))
    }

    pub(crate) fn speed(&self, rank: usize) -> f64 {
        self.speeds.as_ref().and_then(|speeds| speeds.get(rank).copied()).unwrap_or(1.0)
    }
}
