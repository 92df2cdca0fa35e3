//! Every limit of the domain, declared once.
//!
//! Checks, error messages, documentation and test generators read these rows; nothing else states a bound.
//! SPEC.md, "Terms and ranges".

use core::fmt;

use crate::Error;

/// The inclusive range that one parameter may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    parameter: &'static str,
    min: u32,
    max: u32,
}

/// The largest value that an `int32` tensor element can hold, and so the largest count of anything here.
const INT32_MAX: u32 = i32::MAX.unsigned_abs();

/// Number of routed (logical) experts, E.
pub const NUM_EXPERTS: Limit = Limit::new("num_experts", 0, INT32_MAX);
/// Number of ranks, R.
pub const NUM_RANKS: Limit = Limit::new("num_ranks", 1, INT32_MAX);
/// The largest rank count that a search for legal ones considers.
pub const MAX_RANKS: Limit = Limit::new("max_ranks", NUM_RANKS.min, NUM_RANKS.max);
/// The same where there are no experts: every count is legal then, and is listed.
pub const NUM_LISTED_RANKS: Limit = Limit::new("max_ranks", NUM_RANKS.min, 1 << 24);
/// Number of redundant experts, n, that are added to a model's own. E + n must stay within the limit of E.
pub const NUM_REDUNDANT_EXPERTS: Limit = Limit::new("num_redundant_experts", 0, INT32_MAX);
/// Number of fused shared experts, S. E + S must also stay within the limit of E: local indices are `int32`.
pub const NUM_SHARED_EXPERTS: Limit = Limit::new("num_shared_experts", 0, INT32_MAX);

/// Number of layers of a placement, L.
pub const NUM_LAYERS: Limit = Limit::new("num_layers", 1, INT32_MAX);
/// Number of physical slots of a layer, P.
pub const NUM_SLOTS: Limit = Limit::new("num_slots", 0, INT32_MAX);
/// Number of slots in all layers of a plan, L x P: a gibibyte of `int32`.
pub const MAX_PLANNED_SLOTS: u64 = 1 << 28;
/// Number of pairs of an expert and a usable rank in a layer of a plan: a quarter of a gibibyte of bits.
pub const MAX_PLANNED_PAIRS: u64 = 1 << 31;
/// How many experts a plan may bring to ranks that did not hold them, over all layers.
pub const MAX_MOVES: Limit = Limit::new("max_moves", 0, INT32_MAX);
/// How many experts a rank may have to keep beside its slots.
pub const MAX_STAGED: Limit = Limit::new("max_staged", 0, INT32_MAX);
/// How many transfers may leave and enter a node in a batch.
pub const MAX_NODE_TRANSFERS: Limit = Limit::new("max_node_transfers", 1, INT32_MAX);
/// The most slots that a search for the least number of them considers.
pub const MAX_SLOTS: Limit = Limit::new("max_slots", NUM_SLOTS.min, NUM_SLOTS.max);
/// How far apart the numbers of slots are that such a search considers.
pub const SLOTS_STEP: Limit = Limit::new("step", 1, NUM_SLOTS.max);
/// The relative speed of a rank: wide enough for any hardware, and no time is lost to what floats can not hold.
pub const SPEEDS: core::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// The sum of all loads: over the slowest speed it is still a finite time.
pub const MAX_TOTAL_LOAD: f64 = 1e301;
/// Number of slots of one rank.
pub const SLOTS_PER_RANK: Limit = Limit::new("slots_per_rank", 0, INT32_MAX);

/// Number of experts of a routing table, whose entry holds two numbers of 16 bits.
pub const NUM_ROUTED_EXPERTS: Limit = Limit::new("num_experts", 0, MOST_ROUTED);
/// Number of slots that a routing table has room for.
pub const NUM_ROUTED_SLOTS: Limit = Limit::new("max_slots", 0, MOST_ROUTED);
/// Number of ranks of a routing table.
pub const NUM_ROUTED_RANKS: Limit = Limit::new("num_ranks", 1, MOST_ROUTED);
/// Number of ids that are routed in one call, T * k: places of theirs are `int32`, also those a block beyond.
pub const NUM_ROUTED_IDS: Limit = Limit::new("topk_ids.numel()", 0, 1 << 30);

const MOST_ROUTED: u32 = 0xFFFF;

impl Limit {
    const fn new(parameter: &'static str, min: u32, max: u32) -> Self {
        Self { parameter, min, max }
    }

    /// The same range for a parameter that goes by another name, as the arguments of an engine's function do.
    #[must_use]
    pub const fn named(self, parameter: &'static str) -> Self {
        Self { parameter, ..self }
    }

    /// The sum of a value within this limit and of a number that is added to it, where the sum is within it, too.
    ///
    /// # Errors
    /// A sum above the limit; the error names both parameters, by `self` and `added`, and the range of `number`.
    pub const fn check_sum(&self, value: u32, added: &Self, number: u32) -> Result<u32, Error> {
        match value.checked_add(number) {
            Some(total) if total <= self.max => Ok(total),
            _ => Err(Error::sum_out_of_range(*self, value, *added, number)),
        }
    }

    /// The parameter's name, as it stands in every public signature.
    #[must_use]
    pub const fn parameter(&self) -> &'static str {
        self.parameter
    }

    /// The smallest legal value.
    #[must_use]
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// The largest legal value.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Narrows a value of any sign and size to the range.
    ///
    /// # Errors
    /// A value outside `min ..= max`; the error names the parameter, the value and the range.
    pub const fn check(&self, value: i128) -> Result<u32, Error> {
        match narrow(value) {
            Some(narrowed) if self.min <= narrowed && narrowed <= self.max => Ok(narrowed),
            _ => Err(Error::out_of_range(*self, value)),
        }
    }

    /// The sentence an error gives for a value outside the range, for values that no machine integer holds.
    #[must_use]
    pub const fn describe<D: fmt::Display>(&self, value: D) -> OutOfRange<D> {
        OutOfRange { parameter: self.parameter, value, min: self.min, end: self.max, closed: true }
    }
}

/// The common sentence of every range error: parameter, value, allowed range.
#[derive(Clone, Copy, Debug)]
pub struct OutOfRange<D> {
    pub(crate) parameter: &'static str,
    pub(crate) value: D,
    pub(crate) min: u32,
    pub(crate) end: u32,
    pub(crate) closed: bool,
}

impl<D: fmt::Display> fmt::Display for OutOfRange<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parameter, value, min, end, closed } = self;
        let dots = if *closed { "..=" } else { ".." };
        write!(f, "{parameter}={value} is out of range, expected {min}{dots}{end}")
    }
}

/// `value` as a `u32`, where it is one.
#[expect(
    clippy::as_conversions,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the range is checked in the same expression, and `TryFrom` is not `const`"
)]
pub(crate) const fn narrow(value: i128) -> Option<u32> {
    if 0 <= value && value <= 0xFFFF_FFFF { Some(value as u32) } else { None }
}
