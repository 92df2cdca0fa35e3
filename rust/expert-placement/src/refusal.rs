//! Why a topology, a placement, a rebalance or a migration was refused: the causes behind [`crate::Error`] that speak of
//! layers, slots and loads.

use core::fmt;

/// A parameter, and where in it: `loads[0, 3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    parameter: &'static str,
    index: [u32; 3],
    depth: u8,
}

impl Place {
    pub(crate) const fn of(parameter: &'static str) -> Self {
        Self { parameter, index: [0; 3], depth: 0 }
    }

    pub(crate) fn at(parameter: &'static str, index: usize) -> Self {
        Self { parameter, index: [short(index), 0, 0], depth: 1 }
    }

    pub(crate) fn at_two(parameter: &'static str, first: usize, second: usize) -> Self {
        Self { parameter, index: [short(first), short(second), 0], depth: 2 }
    }

    pub(crate) fn at_three(parameter: &'static str, index: [usize; 3]) -> Self {
        Self { parameter, index: index.map(short), depth: 3 }
    }
}

/// An index within the limits, all of which fit 31 bits.
fn short(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parameter)?;
        for (position, index) in self.index.iter().take(self.depth.into()).enumerate() {
            write!(f, "{}{index}", if position == 0 { "[" } else { ", " })?;
        }
        f.write_str(if self.depth == 0 { "" } else { "]" })
    }
}

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A value outside a range that follows from other arguments, which `because` names.
    OutOfRange { place: Place, value: i128, min: i64, max: i64, because: &'static str },
    /// A number that is no legal load, speed or gain; its bits, so that the type stays comparable.
    BadNumber { place: Place, bits: u64, expected: &'static str },
    /// Numbers whose sum no type holds.
    Overflow { parameter: &'static str, expected: &'static str },
    /// An expert that a table leaves out.
    Missing { layer: usize, expert: u32 },
    /// Content on a rank that is not active.
    OnInactiveRank { layer: usize, slot: usize, rank: u32, expert: i32 },
    /// Every rank was said to be inactive.
    NoActiveRank,
    /// Fewer usable slots than experts; and how many would do, where ranks may have any number of them.
    TooFewSlots { num_experts: u32, usable: u64, num_slots: u64, enough: Option<u64>, lost: Option<(usize, u32)> },
    /// A number that has to divide by another.
    NotDivisible { parameter: &'static str, value: u64, by: &'static str, divisor: u64 },
    /// A policy that needs what the topology does not have.
    Unsupported { policy: &'static str, needs: &'static str },
    /// An argument that means nothing without another.
    Needs { parameter: &'static str, needs: &'static str },
    /// An argument that another leaves no use for.
    Excludes { parameter: &'static str, other: &'static str },
    /// A placement of more slots than a routing table has room for.
    Capacity { num_slots: u64, max_slots: u32 },
    /// An expert whose replicas have no weight, or an infinite one.
    NoWeight { layer: usize, expert: u32 },
    /// Two arguments that must agree.
    Mismatch { left: &'static str, right: &'static str, what: &'static str, left_value: u64, right_value: u64 },
    /// A balancedness that no number of slots reaches, and the most that was; both as bits.
    Unbalanced { wanted: u64, max_slots: u64, most: u64, num_slots: u64 },
    /// A limit on the load off node that whole groups on whole nodes do not allow; both as bits.
    OffNode { limit: u64, layer: usize, least: u64 },
    /// A move without a source.
    NoSource { layer: usize, expert: u32, slot: usize },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange { place, value, min, max, because } => {
                write!(f, "{place}={value} is out of range, expected {min}..={max}")?;
                if because.is_empty() { Ok(()) } else { write!(f, ": {because}") }
            }
            Self::BadNumber { place, bits, expected } => {
                write!(f, "{place}={} is out of range, expected {expected}", Float(f64::from_bits(bits)))
            }
            Self::Overflow { parameter, expected } => write!(f, "{parameter} add up to too much, expected {expected}"),
            Self::Missing { layer, expert } => {
                write!(f, "expert {expert} has no slot in layer {layer}, expected every expert in at least one")
            }
            Self::OnInactiveRank { layer, slot, rank, expert } => write!(
                f,
                "slot {slot} of layer {layer} holds expert {expert} on rank {rank}, which is not active, expected -1",
            ),
            Self::NoActiveRank => f.write_str("active has no active rank, expected at least one"),
            Self::TooFewSlots { num_experts, usable, num_slots, enough, lost } => {
                if let Some((layer, expert)) = lost {
                    write!(f, "expert {expert} has no live replica in layer {layer} and no slot is free for one: ")?;
                }
                write!(
                    f,
                    "num_slots={num_slots} leaves room for {usable} experts on active ranks, expected at least \
                     {num_experts}"
                )?;
                enough.map_or(Ok(()), |enough| write!(f, ": num_slots={enough} would do"))
            }
            Self::Needs { parameter, needs } => write!(f, "{parameter} needs {needs}"),
            Self::Excludes { parameter, other } => write!(f, "{parameter} can not be had together with {other}"),
            Self::Capacity { num_slots, max_slots } => write!(
                f,
                "the placement has num_slots={num_slots}, expected at most {max_slots}: tables made with \
                 max_slots={num_slots} would do"
            ),
            Self::NoWeight { layer, expert } => write!(
                f,
                "weights of expert {expert} in layer {layer} add up to no finite number above 0, so that none of its \
                 replicas can be chosen"
            ),
            Self::NotDivisible { parameter, value, by, divisor } => write!(
                f,
                "{parameter}={value} does not divide by {by}={divisor} (next multiple: {})",
                value.next_multiple_of(divisor.max(1)),
            ),
            Self::Unsupported { policy, needs } => write!(f, "policy `{policy}` needs {needs}"),
            Self::Mismatch { left, right, what, left_value, right_value } => {
                write!(f, "{left} has {what}={left_value}, expected {right_value} as {right} has")
            }
            Self::Unbalanced { wanted, max_slots, most, num_slots } => {
                let (wanted, most) = (Float(f64::from_bits(wanted)), Float(f64::from_bits(most)));
                write!(
                    f,
                    "balancedness={wanted} is out of reach with up to max_slots={max_slots} slots, expected at most {most}, \
                     which {num_slots} have"
                )
            }
            Self::OffNode { limit, layer, least } => {
                let (limit, least) = (Float(f64::from_bits(limit)), Float(f64::from_bits(least)));
                write!(
                    f,
                    "max_off_node={limit} is out of reach: the groups do not fit whole on the nodes' active ranks, and the \
                     plan serves {least} of the load of layer {layer} off node"
                )
            }
            Self::NoSource { layer, expert, slot } => write!(
                f,
                "slot {slot} of layer {layer} is to hold expert {expert}, which no rank in service in the new placement holds \
                 in the old one",
            ),
        }
    }
}

/// A number as a message has it: with an exponent where it would be long without.
struct Float(f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size.is_finite() && size > 0.0 && !(1e-6..1e16).contains(&size) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}
