//! A partition: E experts over R ranks, one replica each. SPEC.md, "Partition".

use core::fmt;
use core::iter::FusedIterator;
use core::str::FromStr;

use crate::arithmetic::word;
use crate::error::Error;
use crate::limits::{NUM_EXPERTS, NUM_RANKS};

/// The rule by which experts are dealt to ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Consecutive blocks; the first E % R ranks hold one expert more. The rule of vLLM and of TensorRT-LLM's layers.
    #[default]
    Linear,
    /// Expert e on rank e % R. vLLM's rule for grouped routing.
    RoundRobin,
    /// Consecutive blocks that start at r * E // R. The rule of TensorRT-LLM's load balancer.
    Proportional,
}

impl Strategy {
    /// Every strategy, in the order in which messages list them.
    pub const ALL: &'static [Self] = &[Self::Linear, Self::RoundRobin, Self::Proportional];

    /// The name used in files, on the command line and in Python.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::RoundRobin => "round_robin",
            Self::Proportional => "proportional",
        }
    }

    /// Whether every rank's experts are consecutive ids.
    #[must_use]
    pub const fn is_contiguous(self) -> bool {
        !matches!(self, Self::RoundRobin)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Strategy {
    type Err = Error;

    /// The strategy of this name, which is matched to the letter.
    ///
    /// # Errors
    /// A name that is none of [`Strategy::ALL`]; the error lists them.
    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.iter().copied().find(|strategy| strategy.name() == name);
        named.ok_or_else(|| Error::unknown_strategy(name))
    }
}

/// Which rank owns which of E experts, and where in that rank's own numbering each one stands.
///
/// A value of three small integers: every question is answered from them in constant time, without memory.
///
/// ```
/// use expert_placement::{Partition, Strategy};
///
/// let partition = Partition::new(30, 8, Strategy::Linear)?;
/// assert_eq!(partition.count(7)?, 3);
/// assert_eq!(partition.start(7)?, 27);
/// assert_eq!(partition.owner(29)?, 7);
/// assert_eq!(partition.local_index(29)?, 2);
/// assert_eq!(partition.experts(7)?.collect::<Vec<_>>(), [27, 28, 29]);
/// # Ok::<(), expert_placement::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    num_experts: u32,
    num_ranks: u32,
    strategy: Strategy,
}

impl Partition {
    /// A partition of `num_experts` experts over `num_ranks` ranks.
    ///
    /// # Errors
    /// `num_experts` or `num_ranks` outside [`NUM_EXPERTS`] or [`NUM_RANKS`].
    pub const fn new(num_experts: u32, num_ranks: u32, strategy: Strategy) -> Result<Self, Error> {
        if num_experts < NUM_EXPERTS.min() || NUM_EXPERTS.max() < num_experts {
            return Err(Error::out_of_range(NUM_EXPERTS, widen(num_experts)));
        }
        if num_ranks < NUM_RANKS.min() || NUM_RANKS.max() < num_ranks {
            return Err(Error::out_of_range(NUM_RANKS, widen(num_ranks)));
        }
        Ok(Self { num_experts, num_ranks, strategy })
    }

    /// Number of experts, E.
    #[must_use]
    pub const fn num_experts(&self) -> u32 {
        self.num_experts
    }

    /// Number of ranks, R.
    #[must_use]
    pub const fn num_ranks(&self) -> u32 {
        self.num_ranks
    }

    /// The rule by which experts are dealt to ranks.
    #[must_use]
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whether every rank owns equally many experts, as kernels that take one slab size for all ranks need.
    #[must_use]
    pub const fn is_uniform(&self) -> bool {
        self.min_redundant_experts() == 0
    }

    /// The fewest redundant experts n that make E + n divide by R; 0 where E already does.
    #[must_use]
    pub const fn min_redundant_experts(&self) -> u32 {
        match self.num_experts % self.num_ranks {
            0 => 0,
            remainder => self.num_ranks - remainder,
        }
    }

    /// The nearest rank counts, below and above R, over which E divides equally. The cost is O(sqrt(E)).
    ///
    /// With no experts every count is legal, and the nearest are R - 1 and R + 1.
    ///
    /// ```
    /// # use expert_placement::{Partition, Strategy};
    /// let partition = Partition::new(30, 8, Strategy::Linear)?;
    /// assert_eq!(partition.nearest_legal_ranks(), (Some(6), Some(10)));
    /// # Ok::<(), expert_placement::Error>(())
    /// ```
    #[must_use]
    pub fn nearest_legal_ranks(&self) -> (Option<u32>, Option<u32>) {
        let (experts, ranks) = (self.num_experts, self.num_ranks);
        if experts == 0 {
            let above = (ranks < NUM_RANKS.max()).then(|| ranks + 1);
            return ((NUM_RANKS.min() < ranks).then(|| ranks - 1), above);
        }
        let legal = || divisors(experts);
        (legal().filter(|count| *count < ranks).max(), legal().filter(|count| *count > ranks).min())
    }

    /// The one count that all ranks share.
    ///
    /// # Errors
    /// E does not divide by R; the error says how many redundant experts, or which rank counts, would mend it.
    pub const fn uniform_count(&self) -> Result<u32, Error> {
        if self.is_uniform() { Ok(self.num_experts / self.num_ranks) } else { Err(Error::not_uniform(*self)) }
    }

    /// A value of any sign and size as a rank of this partition.
    ///
    /// # Errors
    /// A value outside `0 .. R`.
    pub const fn check_rank(&self, rank: i128) -> Result<u32, Error> {
        match crate::limits::narrow(rank) {
            Some(narrowed) if narrowed < self.num_ranks => Ok(narrowed),
            _ => Err(Error::no_such_rank(rank, self.num_ranks)),
        }
    }

    /// A value of any sign and size as an expert of this partition.
    ///
    /// # Errors
    /// A value outside `0 .. E`.
    pub const fn check_expert(&self, expert: i128) -> Result<u32, Error> {
        match crate::limits::narrow(expert) {
            Some(narrowed) if narrowed < self.num_experts => Ok(narrowed),
            _ => Err(Error::no_such_expert(expert, self.num_experts)),
        }
    }

    /// How many experts `rank` owns.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`.
    pub const fn count(&self, rank: u32) -> Result<u32, Error> {
        if rank < self.num_ranks { Ok(self.count_of(rank)) } else { Err(self.bad_rank(rank)) }
    }

    /// The first expert of the arithmetic progression that `rank` owns.
    ///
    /// A rank without experts has a start too: where its block would begin (E at most), or `rank` for round robin.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`.
    pub const fn start(&self, rank: u32) -> Result<u32, Error> {
        if rank < self.num_ranks { Ok(self.start_of(rank)) } else { Err(self.bad_rank(rank)) }
    }

    /// The experts of `rank`, in local order.
    ///
    /// # Errors
    /// `rank` outside `0 .. R`.
    pub const fn experts(&self, rank: u32) -> Result<Experts, Error> {
        if rank < self.num_ranks { Ok(self.experts_of(rank)) } else { Err(self.bad_rank(rank)) }
    }

    /// The rank that owns `expert`.
    ///
    /// # Errors
    /// `expert` outside `0 .. E`.
    pub const fn owner(&self, expert: u32) -> Result<u32, Error> {
        if expert < self.num_experts { Ok(self.owner_of(expert)) } else { Err(self.bad_expert(expert)) }
    }

    /// The position of `expert` among its owner's experts.
    ///
    /// # Errors
    /// `expert` outside `0 .. E`.
    pub const fn local_index(&self, expert: u32) -> Result<u32, Error> {
        if expert < self.num_experts { Ok(self.local_index_of(expert)) } else { Err(self.bad_expert(expert)) }
    }

    const fn bad_rank(&self, rank: u32) -> Error {
        Error::no_such_rank(widen(rank), self.num_ranks)
    }

    const fn bad_expert(&self, expert: u32) -> Error {
        Error::no_such_expert(widen(expert), self.num_experts)
    }

    pub(crate) const fn shares(&self) -> word::Shares {
        word::Shares::of(self.num_experts, self.num_ranks)
    }

    pub(crate) const fn count_of(&self, rank: u32) -> u32 {
        match self.strategy {
            Strategy::Linear | Strategy::RoundRobin => self.shares().count(rank),
            Strategy::Proportional => word::proportional_count(self.num_experts, self.num_ranks, rank),
        }
    }

    pub(crate) const fn start_of(&self, rank: u32) -> u32 {
        match self.strategy {
            Strategy::Linear => self.shares().linear_start(rank),
            Strategy::RoundRobin => rank,
            Strategy::Proportional => word::proportional_start(self.num_experts, self.num_ranks, rank),
        }
    }

    pub(crate) const fn experts_of(&self, rank: u32) -> Experts {
        let stride = if self.strategy.is_contiguous() { 1 } else { self.num_ranks };
        Experts { next: self.start_of(rank), stride, remaining: self.count_of(rank) }
    }

    pub(crate) const fn owner_of(&self, expert: u32) -> u32 {
        match self.strategy {
            Strategy::Linear => self.shares().linear_owner(expert),
            Strategy::RoundRobin => word::round_robin_owner(self.num_ranks, expert),
            Strategy::Proportional => word::proportional_owner(self.num_experts, self.num_ranks, expert),
        }
    }

    pub(crate) const fn local_index_of(&self, expert: u32) -> u32 {
        match self.strategy {
            Strategy::Linear => self.shares().linear_local_index(expert),
            Strategy::RoundRobin => word::round_robin_local_index(self.num_ranks, expert),
            Strategy::Proportional => word::proportional_local_index(self.num_experts, self.num_ranks, expert),
        }
    }
}

/// Every divisor of a number above 0, in no order; the root of a square comes twice.
pub(crate) fn divisors(number: u32) -> impl Iterator<Item = u32> {
    let small = (1..=number.isqrt()).filter(move |divisor| number % divisor == 0);
    small.flat_map(move |divisor| [divisor, number / divisor])
}

/// The experts of one rank in local order: an arithmetic progression of known length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Experts {
    next: u32,
    stride: u32,
    remaining: u32,
}

impl Experts {
    /// The expert that comes next; in a fresh iterator the rank's first, or where its block would begin if it owns none.
    ///
    /// ```
    /// # use expert_placement::{Partition, Strategy};
    /// let mut experts = Partition::new(30, 8, Strategy::Linear)?.experts(7)?;
    /// assert_eq!((experts.start(), experts.next(), experts.start()), (27, Some(27), 28));
    /// # Ok::<(), expert_placement::Error>(())
    /// ```
    #[must_use]
    pub const fn start(&self) -> u32 {
        self.next
    }

    /// The distance between two neighbours: 1 for the contiguous strategies, R for round robin.
    #[must_use]
    pub const fn stride(&self) -> u32 {
        self.stride
    }

    /// How many experts are left.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }
}

impl Iterator for Experts {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.remaining = self.remaining.checked_sub(1)?;
        let expert = self.next;
        // The step past the last expert stays below E + R < 2^32.
        self.next = word::further(self.next, self.stride, 1);
        Some(expert)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = to_usize(self.remaining);
        (remaining, Some(remaining))
    }

    fn count(self) -> usize {
        to_usize(self.remaining)
    }

    fn nth(&mut self, skipped: usize) -> Option<u32> {
        let skipped = u32::try_from(skipped).unwrap_or(u32::MAX).min(self.remaining);
        self.remaining -= skipped;
        // At most `remaining` steps are skipped, so this too stays below E + R.
        self.next = word::further(self.next, self.stride, skipped);
        self.next()
    }
}

impl DoubleEndedIterator for Experts {
    fn next_back(&mut self) -> Option<u32> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(word::further(self.next, self.stride, self.remaining))
    }
}

impl ExactSizeIterator for Experts {}
impl FusedIterator for Experts {}

const _: () = assert!(usize::BITS >= u32::BITS, "counts are u32 and slices of that length must be possible");

/// Lossless: the assertion above refuses the targets where it would not be.
pub(crate) fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[expect(clippy::as_conversions, reason = "`From` is not `const`")]
const fn widen(value: u32) -> i128 {
    value as i128
}
