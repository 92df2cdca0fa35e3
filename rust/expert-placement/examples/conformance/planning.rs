//! Plans of placements, and how many slots they take.

use std::num::NonZeroU64;

use expert_placement::limits::{NUM_RANKS, NUM_SLOTS};
use expert_placement::{Capacity, Loads, Options, Placement, Search, Topology, capacity, least_slots, rebalance};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Handler;
use crate::answering::{Answer, Failure, read};
use crate::fields::{LoadsFields, PlacementFields, Real, TopologyFields, Whole, natural, optional, size};
use crate::placement::table_of;

pub(crate) const CALLS: [(&str, Handler); 3] =
    [("rebalance", plan), ("capacity_curve", curve), ("least_slots", search)];

/// What every call is told.
#[derive(Deserialize)]
struct Common {
    loads: LoadsFields,
    topology: TopologyFields,
    policy: String,
    num_groups: Whole,
    max_off_node: Option<Real>,
}

impl Common {
    fn made<'a>(self) -> Result<(Loads, Topology, Options<'a>), Failure> {
        let mut options = Options::default();
        options.policy = self.policy.parse()?;
        options.num_groups = natural("num_groups", self.num_groups)?;
        options.max_off_node = self.max_off_node.map(|part| part.0);
        Ok((self.loads.made()?, self.topology.made()?, options))
    }
}

#[derive(Deserialize)]
struct Plan {
    #[serde(flatten)]
    common: Common,
    num_slots: Whole,
    previous: Option<PlacementFields>,
    max_moves: Option<Whole>,
    min_gain: Option<Real>,
    num_threads: Whole,
}

fn plan(request: Value) -> Answer {
    let Plan { common, num_slots, previous, max_moves, min_gain, num_threads } = read(request)?;
    let (loads, topology, mut options) = common.made()?;
    let previous: Option<Placement> = previous.map(PlacementFields::made).transpose()?;
    options.previous = previous.as_ref();
    options.max_moves = optional("max_moves", max_moves)?.map(u64::from);
    options.min_gain = min_gain.map(|gain| gain.0);
    options.num_threads = size(NUM_RANKS.named("num_threads").check(num_threads.0)?);
    let slots = NUM_SLOTS.check(num_slots.0)?;
    Ok(table_of(&rebalance(&loads, slots.into(), &topology, &options)?))
}

fn record(found: &Capacity) -> Value {
    json!({ "num_slots": found.num_slots, "balancedness": found.balancedness, "most": found.most })
}

#[derive(Deserialize)]
struct Curve {
    #[serde(flatten)]
    common: Common,
    num_slots: Vec<Whole>,
}

fn curve(request: Value) -> Answer {
    let Curve { common, num_slots } = read(request)?;
    let (loads, topology, options) = common.made()?;
    let mut records = Vec::with_capacity(num_slots.len());
    for slots in num_slots {
        let slots = NUM_SLOTS.check(slots.0)?;
        records.push(record(&capacity(&loads, slots.into(), &topology, &options)?));
    }
    Ok(json!(records))
}

#[derive(Deserialize)]
struct Least {
    #[serde(flatten)]
    common: Common,
    balancedness: Real,
    max_slots: Option<Whole>,
    step: Option<Whole>,
}

fn search(request: Value) -> Answer {
    let Least { common, balancedness, max_slots, step } = read(request)?;
    let (loads, topology, options) = common.made()?;
    let mut search = Search::default();
    search.max_slots = optional("max_slots", max_slots)?.map(u64::from);
    let step = step.map(|step| NUM_RANKS.named("step").check(step.0)).transpose()?;
    search.step = step.and_then(|step| NonZeroU64::new(step.into()));
    let looked = |_: &Capacity| Ok::<(), Failure>(());
    Ok(record(&least_slots(&loads, balancedness.0, search, &topology, &options, looked)?))
}
