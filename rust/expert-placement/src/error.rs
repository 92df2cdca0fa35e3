//! The one error type of the crate.
//!
//! Its text is lower case, without a full stop, and names the parameter, the value and the allowed range.

use core::fmt;

use crate::limits::{Limit, OutOfRange};
use crate::partition::{Partition, Strategy};
#[cfg(feature = "placement")]
use crate::refusal::Refusal;

/// Why a call was refused.
///
/// The type is opaque so that causes can be added; ask the predicates what a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    cause: Cause,
    /// Where in a slice of ids the refused one stands.
    position: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    OutOfRange {
        limit: Limit,
        value: i128,
    },
    NoSuchRank {
        rank: i128,
        num_ranks: u32,
    },
    NoSuchExpert {
        expert: i128,
        num_experts: u32,
    },
    SumOutOfRange {
        limit: Limit,
        value: u32,
        added: Limit,
        number: u32,
    },
    UnknownStrategy {
        name: Excerpt,
    },
    #[cfg(feature = "placement")]
    NoSuchIndex {
        parameter: &'static str,
        value: i128,
        end: i128,
    },
    #[cfg(feature = "placement")]
    UnknownPolicy {
        name: Excerpt,
    },
    #[cfg(feature = "placement")]
    Refused(Refusal),
    #[cfg(feature = "placement")]
    Interrupted,
    NotContiguous {
        strategy: Strategy,
    },
    NotUniform {
        partition: Partition,
    },
    WrongLength {
        parameter: &'static str,
        actual: usize,
        expected: u64,
    },
    #[cfg(feature = "alloc")]
    WrongMap(WrongMap),
    #[cfg(feature = "alloc")]
    OutOfMemory {
        elements: u64,
    },
    #[cfg(feature = "alloc")]
    NotAscending {
        position: usize,
        expert: i64,
        least: i64,
        num_experts: u32,
    },
}

#[cfg(feature = "alloc")]
/// Why a map is not the representation that it was read as, and which one it is instead, where that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongMap {
    pub(crate) read_as_mask: bool,
    pub(crate) num_experts: u32,
    pub(crate) flaw: MapFlaw,
    pub(crate) instead: Option<Instead>,
}

#[cfg(feature = "alloc")]
/// What is wrong with a map that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapFlaw {
    /// The map has another length than its representation has for E and S.
    Length { actual: usize, expected: u64 },
    /// The entry is none of the values allowed at its position; `expected` says which are.
    Entry { position: usize, value: i64, expected: Expected },
}

#[cfg(feature = "alloc")]
/// What a map is that is not what it was read as: a representation of a map of the same E, or at least 0 and 1 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    IndexMap,
    WithShared(u32),
    WithSentinel,
    Mask(u32),
    Bits,
}

#[cfg(feature = "alloc")]
/// The values allowed at one position of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `-1` or the next local index.
    AbsentOr(u32),
    /// Exactly this value.
    Exactly(i64),
    /// 0 or 1.
    Bit,
}

impl Error {
    const fn because(cause: Cause) -> Self {
        Self { cause, position: None }
    }

    /// The same error, about the id at `position` of a slice.
    pub(crate) const fn at(self, position: usize) -> Self {
        Self { position: Some(position), ..self }
    }

    pub(crate) const fn out_of_range(limit: Limit, value: i128) -> Self {
        Self::because(Cause::OutOfRange { limit, value })
    }

    pub(crate) const fn no_such_rank(rank: i128, num_ranks: u32) -> Self {
        Self::because(Cause::NoSuchRank { rank, num_ranks })
    }

    pub(crate) const fn no_such_expert(expert: i128, num_experts: u32) -> Self {
        Self::because(Cause::NoSuchExpert { expert, num_experts })
    }

    pub(crate) const fn sum_out_of_range(limit: Limit, value: u32, added: Limit, number: u32) -> Self {
        Self::because(Cause::SumOutOfRange { limit, value, added, number })
    }

    #[cfg(feature = "placement")]
    pub(crate) const fn no_such_index(parameter: &'static str, value: i128, end: i128) -> Self {
        Self::because(Cause::NoSuchIndex { parameter, value, end })
    }

    #[cfg(feature = "placement")]
    pub(crate) const fn interrupted() -> Self {
        Self::because(Cause::Interrupted)
    }

    #[cfg(feature = "placement")]
    pub(crate) const fn refused(refusal: Refusal) -> Self {
        Self::because(Cause::Refused(refusal))
    }

    #[cfg(feature = "placement")]
    pub(crate) fn unknown_policy(name: &str) -> Self {
        Self::because(Cause::UnknownPolicy { name: Excerpt::new(name) })
    }

    pub(crate) fn unknown_strategy(name: &str) -> Self {
        Self::because(Cause::UnknownStrategy { name: Excerpt::new(name) })
    }

    pub(crate) const fn not_contiguous(strategy: Strategy) -> Self {
        Self::because(Cause::NotContiguous { strategy })
    }

    pub(crate) const fn not_uniform(partition: Partition) -> Self {
        Self::because(Cause::NotUniform { partition })
    }

    pub(crate) const fn wrong_length(parameter: &'static str, actual: usize, expected: u64) -> Self {
        Self::because(Cause::WrongLength { parameter, actual, expected })
    }

    #[cfg(feature = "alloc")]
    pub(crate) const fn wrong_map(wrong: WrongMap) -> Self {
        Self::because(Cause::WrongMap(wrong))
    }

    #[cfg(feature = "alloc")]
    pub(crate) const fn out_of_memory(elements: u64) -> Self {
        Self::because(Cause::OutOfMemory { elements })
    }

    #[cfg(feature = "alloc")]
    pub(crate) const fn not_ascending(position: usize, expert: i64, least: i64, num_experts: u32) -> Self {
        Self::because(Cause::NotAscending { position, expert, least, num_experts })
    }

    /// Whether a rank, an expert, a layer or a slot was outside its range (an `IndexError` in Python; the rest are `ValueError`).
    #[must_use]
    pub const fn is_no_such_id(&self) -> bool {
        #[cfg(feature = "placement")]
        if matches!(self.cause, Cause::NoSuchIndex { .. }) {
            return true;
        }
        matches!(self.cause, Cause::NoSuchRank { .. } | Cause::NoSuchExpert { .. })
    }

    /// Whether memory for a result could not be had.
    #[must_use]
    pub const fn is_out_of_memory(&self) -> bool {
        #[cfg(feature = "alloc")]
        let is_out_of_memory = matches!(self.cause, Cause::OutOfMemory { .. });
        #[cfg(not(feature = "alloc"))]
        let is_out_of_memory = false;
        is_out_of_memory
    }

    /// Whether the call was ended by its `stop`.
    #[cfg(feature = "placement")]
    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
        matches!(self.cause, Cause::Interrupted)
    }

    /// Whether equal slabs were asked for where E does not divide by R.
    #[must_use]
    pub const fn is_not_uniform(&self) -> bool {
        matches!(self.cause, Cause::NotUniform { .. })
    }

    #[cfg(feature = "alloc")]
    /// Whether a map was read in a representation that it is not.
    #[must_use]
    pub const fn is_wrong_representation(&self) -> bool {
        matches!(self.cause, Cause::WrongMap(_))
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        match self.position {
            Some(position) => write!(f, " (at position {position})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange { limit, value } => limit.describe(value).fmt(f),
            Self::NoSuchRank { rank, num_ranks } => {
                OutOfRange { parameter: "rank", value: rank, min: 0, end: num_ranks, closed: false }.fmt(f)
            }
            Self::NoSuchExpert { expert, num_experts } => {
                OutOfRange { parameter: "expert", value: expert, min: 0, end: num_experts, closed: false }.fmt(f)
            }
            Self::SumOutOfRange { limit, value, added, number } => write!(
                f,
                "{}={number} is out of range, expected 0..={} beside {}={value}: ids are int32",
                added.parameter(),
                limit.max().saturating_sub(value),
                limit.parameter(),
            ),
            #[cfg(feature = "placement")]
            Self::NoSuchIndex { parameter, value, end } => {
                write!(f, "{parameter}={value} is out of range, expected 0..{end}")
            }
            #[cfg(feature = "placement")]
            Self::UnknownPolicy { name } => {
                write!(f, "policy=`{name}` is unknown, expected one of ")?;
                write_names(f, crate::Policy::ALL)
            }
            #[cfg(feature = "placement")]
            Self::Refused(refusal) => refusal.fmt(f),
            #[cfg(feature = "placement")]
            Self::Interrupted => f.write_str("the call was interrupted"),
            Self::UnknownStrategy { name } => {
                write!(f, "strategy=`{name}` is unknown, expected one of ")?;
                write_names(f, Strategy::ALL)
            }
            Self::NotContiguous { strategy } => write!(
                f,
                "strategy=`{strategy}` has no offsets, expected a contiguous strategy: `{}` or `{}`",
                Strategy::Linear,
                Strategy::Proportional,
            ),
            Self::NotUniform { partition } => write_not_uniform(f, partition),
            Self::WrongLength { parameter, actual, expected } => {
                write!(f, "{parameter} has length {actual}, expected {expected}")
            }
            #[cfg(feature = "alloc")]
            Self::WrongMap(wrong) => wrong.fmt(f),
            #[cfg(feature = "alloc")]
            Self::OutOfMemory { elements } => write!(f, "cannot allocate a list of {elements} elements"),
            #[cfg(feature = "alloc")]
            Self::NotAscending { position, expert, least, num_experts } => write!(
                f,
                "local_experts[{position}]={expert} is out of range, expected ascending ids and here {least}..{num_experts}",
            ),
        }
    }
}

/// Writes the names that a parameter may have.
fn write_names(f: &mut fmt::Formatter<'_>, names: &[impl fmt::Display]) -> fmt::Result {
    for (position, name) in names.iter().enumerate() {
        write!(f, "{}`{name}`", if position == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// Says what would make the slabs equal: the redundant experts, and the nearest rank counts that divide E.
fn write_not_uniform(f: &mut fmt::Formatter<'_>, partition: Partition) -> fmt::Result {
    let (experts, ranks) = (partition.num_experts(), partition.num_ranks());
    let redundant = partition.min_redundant_experts();
    write!(f, "num_experts={experts} does not divide by num_ranks={ranks}, so slabs are not equal: ")?;
    if let Ok(total) = crate::with_redundant_experts(experts, redundant) {
        let plural = if redundant == 1 { "" } else { "s" };
        write!(f, "add {redundant} redundant expert{plural} ({total} over {ranks} ranks), or ")?;
    }
    match partition.nearest_legal_ranks() {
        (Some(below), Some(above)) => write!(f, "use {below} or {above} ranks"),
        // Where slabs are not equal there are two ranks or more, and one rank is legal.
        (below, above) => {
            let count = below.or(above).unwrap_or(1);
            write!(f, "use {count} rank{}", if count == 1 { "" } else { "s" })
        }
    }
}

#[cfg(feature = "alloc")]
impl fmt::Display for WrongMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read_as_mask, num_experts, flaw, instead } = *self;
        let (parameter, name) =
            if read_as_mask { ("expert_mask", "a 0/1 mask with a trailing 0") } else { ("expert_map", "an index map") };
        match (flaw, instead) {
            (MapFlaw::Entry { .. }, Some(Instead::Mask(_))) => write!(
                f,
                "{parameter} is not {name} but looks like a 0/1 expert mask, read it as a mask instead ({flaw})",
            )?,
            (MapFlaw::Entry { .. }, Some(Instead::Bits)) => write!(
                f,
                "{parameter} is not {name} but looks like a 0/1 expert mask of other numbers of experts, or without the \
                 trailing 0 that `from_mask` expects ({flaw})",
            )?,
            (MapFlaw::Entry { .. }, _) => write!(f, "{parameter} is not {name}: {flaw}")?,
            (MapFlaw::Length { .. }, _) => write!(f, "{parameter} {flaw}")?,
        }
        match instead {
            Some(Instead::IndexMap) => {
                write!(f, "; it is the index map of {num_experts} experts, which `from_index_map` reads")
            }
            Some(Instead::WithShared(shared)) => write!(
                f,
                "; it is the index map of {num_experts} experts with num_shared_experts={shared}, which \
                 `from_index_map_with_shared` reads",
            ),
            Some(Instead::WithSentinel) => write!(
                f,
                "; it is the index map of {num_experts} experts with a sentinel, which \
                 `from_index_map_with_sentinel` reads",
            ),
            Some(Instead::Mask(shared)) => write!(
                f,
                "; it is the 0/1 mask of {num_experts} experts with num_shared_experts={shared}, which `from_mask` reads",
            ),
            Some(Instead::Bits) if read_as_mask => {
                f.write_str("; it looks like a 0/1 expert mask without the trailing 0")
            }
            Some(Instead::Bits) if matches!(flaw, MapFlaw::Length { .. }) => {
                f.write_str("; it looks like a 0/1 expert mask of other numbers of experts")
            }
            None | Some(Instead::Bits) => Ok(()),
        }
    }
}

#[cfg(feature = "alloc")]
impl fmt::Display for MapFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { actual, expected } => write!(f, "has length {actual}, expected {expected}"),
            Self::Entry { position, value, expected } => {
                write!(f, "entry {position} is {value}, expected {expected}")
            }
        }
    }
}

#[cfg(feature = "alloc")]
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AbsentOr(next) => write!(f, "-1 or the next local index {next}"),
            Self::Exactly(value) => write!(f, "{value}"),
            Self::Bit => f.write_str("0 or 1"),
        }
    }
}

/// The beginning of a text, held without the heap so that the error stays `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Excerpt {
    bytes: [u8; Excerpt::CAPACITY],
    length: usize,
    shortened: bool,
}

impl Excerpt {
    const CAPACITY: usize = 40;

    fn new(text: &str) -> Self {
        let length = length_within(text, Self::CAPACITY);
        let mut bytes = [0; Self::CAPACITY];
        for (to, from) in bytes.iter_mut().zip(text.as_bytes().iter().take(length)) {
            *to = *from;
        }
        Self { bytes, length, shortened: length < text.len() }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.bytes.get(..self.length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default();
        write!(f, "{}{}", Printable { text, most: Self::CAPACITY }, if self.shortened { "..." } else { "" })
    }
}

/// A text of others as it stands in a message: on one line, with escapes for what no terminal can show, and no longer
/// than `most` bytes before it is cut.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a> {
    /// The text.
    pub text: &'a str,
    /// The most bytes of it that are shown.
    pub most: usize,
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = length_within(self.text, self.most);
        for character in self.text.get(..length).unwrap_or_default().chars() {
            match (character, u32::from(character)) {
                ('\n' | '\r' | '\t', _) => write!(f, "{}", character.escape_debug())?,
                // These are escaped in source code only.
                ('\\' | '\'' | '"', _) => fmt::Write::write_char(f, character)?,
                _ if is_shown(character) => fmt::Write::write_char(f, character)?,
                (_, code @ ..0x100) => write!(f, "\\x{code:02x}")?,
                (_, code @ ..0x1_0000) => write!(f, "\\u{code:04x}")?,
                (_, code) => write!(f, "\\U{code:08x}")?,
            }
        }
        if length < self.text.len() { f.write_str("...") } else { Ok(()) }
    }
}

/// Whether a terminal can show a character; one that combines with the character before it is not escaped there.
fn is_shown(character: char) -> bool {
    let mut bytes = [b'a', 0, 0, 0, 0];
    let [_, rest @ ..] = &mut bytes;
    let length = 1 + character.encode_utf8(rest).len();
    let text = bytes.get(..length).and_then(|bytes| core::str::from_utf8(bytes).ok());
    text.is_some_and(|text| text.escape_debug().count() == 2)
}

/// The length in bytes of the longest beginning of a text, in whole characters, within `most` bytes.
fn length_within(text: &str, most: usize) -> usize {
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    ends.take_while(|end| *end <= most).last().unwrap_or(0)
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;

    /// Domain: one error for want of memory, which no machine is sure to give, and one other.
    #[test]
    fn want_of_memory_is_told_from_other_errors() {
        assert!(Error::out_of_memory(5).is_out_of_memory());
        assert!(!Error::not_ascending(0, 1, 2, 3).is_out_of_memory());
    }
}
