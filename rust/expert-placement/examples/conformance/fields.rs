//! Fields that several requests have: numbers of any size, ranks, placements and loads.

use std::fmt;

use expert_placement::limits::{Limit, NUM_EXPERTS, NUM_LAYERS, NUM_RANKS, SLOTS_PER_RANK};
use expert_placement::{Loads, Partition, Placement, Topology};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::answering::Failure;

/// An integer as it was written, however large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(pub(crate) i128);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value.into()))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value.into()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A number, or one of the texts for those that JSON does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real(pub(crate) f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Real;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, `NaN`, `Infinity` or `-Infinity`")
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Real, E> {
                Ok(Real(value))
            }
            #[expect(
                clippy::as_conversions,
                clippy::cast_precision_loss,
                reason = "a count is rounded to the nearest number"
            )]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            #[expect(
                clippy::as_conversions,
                clippy::cast_precision_loss,
                reason = "a count is rounded to the nearest number"
            )]
            fn visit_u64<E: Error>(self, value: u64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Real, E> {
                match text {
                    "NaN" => Ok(Real(f64::NAN)),
                    "Infinity" => Ok(Real(f64::INFINITY)),
                    "-Infinity" => Ok(Real(f64::NEG_INFINITY)),
                    _ => Err(E::custom("a text that is no number")),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The numbers as the crate takes them.
pub(crate) fn reals(values: impl IntoIterator<Item = Real>) -> Vec<f64> {
    values.into_iter().map(|value| value.0).collect()
}

/// One number for all, or one for each.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Numbers {
    Same(Whole),
    Each(Vec<Whole>),
}

/// A natural number under the name that messages give it.
pub(crate) fn natural(parameter: &'static str, value: Whole) -> Result<u32, Failure> {
    Ok(NUM_EXPERTS.named(parameter).check(value.0)?)
}

/// The same where there may be none.
pub(crate) fn optional(parameter: &'static str, value: Option<Whole>) -> Result<Option<u32>, Failure> {
    value.map(|value| natural(parameter, value)).transpose()
}

/// A number that indexes.
pub(crate) fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Zeros to be filled.
pub(crate) fn zeros(length: u64) -> Vec<i32> {
    vec![0; usize::try_from(length).unwrap_or(usize::MAX)]
}

/// Ranks.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct TopologyFields {
    num_ranks: Whole,
    num_nodes: Whole,
    slots_per_rank: Option<Numbers>,
    speeds: Option<Vec<Real>>,
    active: Option<Vec<bool>>,
}

impl TopologyFields {
    pub(crate) fn made(self) -> Result<Topology, Failure> {
        let checked = |limit: Limit, value: Whole| limit.check(value.0);
        let nodes = NUM_RANKS.named("num_nodes");
        let mut made = Topology::new(checked(NUM_RANKS, self.num_ranks)?, checked(nodes, self.num_nodes)?)?;
        match self.slots_per_rank {
            None => {}
            Some(Numbers::Same(slots)) => made = made.with_slots_per_rank(checked(SLOTS_PER_RANK, slots)?)?,
            Some(Numbers::Each(slots)) => {
                let slots: Result<Vec<u32>, _> = slots.into_iter().map(|one| checked(SLOTS_PER_RANK, one)).collect();
                made = made.with_slots(slots?)?;
            }
        }
        if let Some(speeds) = self.speeds {
            made = made.with_speeds(reals(speeds))?;
        }
        if let Some(active) = self.active {
            made = made.with_active(active)?;
        }
        Ok(made)
    }
}

/// A placement: what every slot of every layer holds, and the ranks.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct PlacementFields {
    num_experts: Whole,
    table: Vec<Vec<Whole>>,
    topology: TopologyFields,
}

impl PlacementFields {
    pub(crate) fn made(self) -> Result<Placement, Failure> {
        let num_experts = NUM_EXPERTS.check(self.num_experts.0)?;
        let topology = self.topology.made()?;
        let width = expect_even("table", &self.table)?;
        let mut entries = Vec::with_capacity(self.table.len() * width);
        for (layer, row) in self.table.iter().enumerate() {
            for (slot, entry) in row.iter().enumerate() {
                let refuse = |_| Placement::no_entry(num_experts, layer, slot, entry.0);
                entries.push(i32::try_from(entry.0).map_err(refuse)?);
            }
        }
        Ok(Placement::new(num_experts, self.table.len(), topology, entries)?)
    }
}

/// A partition.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct PartitionFields {
    num_experts: Whole,
    num_ranks: Whole,
    strategy: String,
}

impl PartitionFields {
    pub(crate) fn made(&self) -> Result<Partition, Failure> {
        partition(self.num_experts, self.num_ranks, &self.strategy)
    }
}

/// A partition of these numbers.
pub(crate) fn partition(num_experts: Whole, num_ranks: Whole, strategy: &str) -> Result<Partition, Failure> {
    let (experts, ranks) = (NUM_EXPERTS.check(num_experts.0)?, NUM_RANKS.check(num_ranks.0)?);
    Ok(Partition::new(experts, ranks, strategy.parse()?)?)
}

/// Loads, of one window without its dimension or of several. Empty lists are read as the first form that they fit.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum LoadsFields {
    Window(Vec<Vec<Real>>),
    Windows(Vec<Vec<Vec<Real>>>),
    Other(serde::de::IgnoredAny),
}

impl LoadsFields {
    /// Whether there is a dimension of windows, which an answer has then too.
    pub(crate) const fn has_windows(&self) -> bool {
        matches!(self, Self::Windows(_))
    }

    pub(crate) fn made(self) -> Result<Loads, Failure> {
        let windows = match self {
            Self::Window(layers) => vec![layers],
            Self::Windows(windows) => windows,
            Self::Other(_) => return Err(Failure::of_value("loads has another shape than [L, E] or [W, L, E]")),
        };
        let layers = expect_even("loads", &windows)?;
        let experts = expect_even("loads", &windows.concat())?;
        let number = windows.len();
        Ok(Loads::new(number, layers, experts, reals(windows.into_iter().flatten().flatten()))?)
    }
}

/// The length of rows that are all equally long; of none it is 0.
pub(crate) fn expect_even<T>(name: &str, rows: &[Vec<T>]) -> Result<usize, Failure> {
    let width = rows.first().map_or(0, Vec::len);
    match rows.iter().find(|row| row.len() != width) {
        Some(other) => Err(Failure::of_value(format!("{name} has a row of length {}, expected {width}", other.len()))),
        None => Ok(width),
    }
}

/// A layer of a placement, of which there is one at least.
pub(crate) fn layer_of(placement: &Placement, layer: Whole) -> Result<usize, Failure> {
    Ok(placement.check_layer(layer.0)?)
}

/// A number of layers.
pub(crate) fn layers(value: Whole) -> Result<usize, Failure> {
    Ok(size(NUM_LAYERS.check(value.0)?))
}
