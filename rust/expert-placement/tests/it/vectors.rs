//! The crate answers what the test vectors of the specification say. `spec/vectors/README.md` says how they are read.
//!
//! A case is asked through the public names alone. Each reader is itself tested: it has to reject every case in which one
//! number of one field was changed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::collections::BTreeMap;
use std::fs;

use expert_placement::{
    Batch, EMPTY, Error, Loads, MigrationLimits, Options, Partition, Placement, Policy, Router, RoutingShape, Strategy,
    Topology, UNROUTED, plan_migration_within, rebalance,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors");

/// Why a case has no answer.
enum Failure {
    /// The crate, or a type of its, refuses: with the kind of error of the vectors.
    Refused(&'static str),
    /// The case does not hold.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(if error.is_no_such_id() { "no_such_id" } else { "wrong_value" })
    }
}

/// A number that the type of a parameter can not hold: the type refuses it.
impl From<std::num::TryFromIntError> for Failure {
    fn from(_: std::num::TryFromIntError) -> Self {
        Self::Refused("wrong_value")
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Wrong(text.into()))
}

/// The case holds only if this does.
fn expect(holds: bool, text: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { wrong(text) }
}

/// An input, or a part of the answer, in the shape that the reader knows: any other field is a failure.
fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone()).or_else(|error| wrong(format!("{error} in {value}")))
}

/// An integer of any size, written as a number or as its digits.
fn integer(value: &Value) -> Result<i128, Failure> {
    let digits = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    digits.parse().or_else(|_| wrong(format!("{value} is no integer")))
}

/// Every field of `expected` is what `answer` gives for its name.
fn compare(expected: &Value, mut answer: impl FnMut(&str) -> Result<Value, Failure>) -> Result<(), Failure> {
    for (name, value) in expected.as_object().unwrap() {
        let given = answer(name)?;
        expect(given == *value, &format!("{name} is {given}, expected {value}"))?;
    }
    Ok(())
}

/// Tables are written into slices that the caller owns.
fn filled<T: Clone + Default>(
    length: usize,
    write: impl FnOnce(&mut [T]) -> Result<(), Error>,
) -> Result<Vec<T>, Failure> {
    let mut out = vec![T::default(); length];
    write(&mut out)?;
    Ok(out)
}

fn nested<T: Clone>(flat: &[T], length: usize, inner: usize) -> Vec<Vec<T>> {
    (0..length).map(|row| flat[row * inner..(row + 1) * inner].to_vec()).collect()
}

// Partitions.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionInput {
    num_experts: Value,
    num_ranks: Value,
    strategy: String,
    #[serde(default)]
    num_shared_experts: u32,
    #[serde(default)]
    ranks: Vec<u32>,
    #[serde(default)]
    experts: Vec<u32>,
    call: Option<Call>,
}

impl PartitionInput {
    fn partition(&self) -> Result<Partition, Failure> {
        // The crate has an enum in the place of names.
        let strategies = [Strategy::Linear, Strategy::RoundRobin, Strategy::Proportional];
        let strategy = strategies.into_iter().find(|one| one.name() == self.strategy);
        let strategy = strategy.ok_or(Failure::Refused("wrong_value"))?;
        let (experts, ranks) = (integer(&self.num_experts)?.try_into()?, integer(&self.num_ranks)?.try_into()?);
        Ok(Partition::new(experts, ranks, strategy)?)
    }
}

/// A query that is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    rank: Option<i64>,
    expert: Option<i64>,
    layer: Option<i64>,
    width: Option<i64>,
    loads: Option<Vec<Vec<Vec<f64>>>>,
}

fn of_rank(partition: &Partition, name: &str, rank: u32, shared: u32) -> Result<Value, Failure> {
    let experts = partition.num_experts() as usize;
    let with_shared = partition.length_with_shared(shared)? as usize;
    Ok(match name {
        "count" => json!(partition.count(rank)?),
        "start" => json!(partition.start(rank)?),
        "experts" => json!(partition.experts(rank)?.collect::<Vec<_>>()),
        "local_experts" => {
            let count = partition.count(rank)? as usize;
            json!(filled(count, |out| partition.write_local_experts(rank, out))?)
        }
        "expert_map" => json!(filled(experts, |out| partition.write_expert_map(rank, out))?),
        "expert_map_with_sentinel" => {
            json!(filled(experts + 1, |out| partition.write_expert_map_with_sentinel(rank, out))?)
        }
        "expert_map_with_shared" => {
            json!(filled(with_shared, |out| partition.write_expert_map_with_shared(rank, shared, out))?)
        }
        "expert_mask" => json!(filled(with_shared + 1, |out| partition.write_expert_mask(rank, shared, out))?),
        _ => return wrong(format!("{name} is unknown")),
    })
}

fn of_partition(partition: &Partition, name: &str, input: &PartitionInput) -> Result<Value, Failure> {
    let (experts, ranks) = (partition.num_experts() as usize, partition.num_ranks() as usize);
    Ok(match name {
        "is_uniform" => json!(partition.is_uniform()),
        "counts" => json!(filled(ranks, |out| partition.write_counts(out))?),
        "starts" => json!(filled(ranks, |out| partition.write_starts(out))?),
        "offsets" => json!(filled(ranks + 1, |out| partition.write_offsets(out))?),
        "owners" => json!(filled(experts, |out| partition.write_owners(out))?),
        "local_indices" => json!(filled(experts, |out| partition.write_local_indices(out))?),
        "owner" => json!(input.experts.iter().map(|one| partition.owner(*one)).collect::<Result<Vec<_>, _>>()?),
        "local_index" => {
            json!(input.experts.iter().map(|one| partition.local_index(*one)).collect::<Result<Vec<_>, _>>()?)
        }
        _ => {
            let of = |rank: &u32| of_rank(partition, name, *rank, input.num_shared_experts);
            json!(input.ranks.iter().map(of).collect::<Result<Vec<_>, _>>()?)
        }
    })
}

fn check_partition(input: &Value, expected: Option<&Value>) -> Result<(), Failure> {
    let input: PartitionInput = parse(input)?;
    let partition = input.partition()?;
    if let Some(call) = &input.call {
        if let Some(rank) = call.rank {
            of_rank(&partition, &call.name, partition.check_rank(rank.into())?, input.num_shared_experts)?;
        } else if let Some(expert) = call.expert {
            let expert = partition.check_expert(expert.into())?;
            expect(matches!(call.name.as_str(), "owner" | "local_index"), "no query of an expert")?;
            partition.owner(expert)?;
        } else {
            of_partition(&partition, &call.name, &input)?;
        }
    }
    expected.map_or(Ok(()), |expected| compare(expected, |name| of_partition(&partition, name, &input)))
}

// Placements.

#[derive(Deserialize)]
#[serde(untagged)]
enum Slots {
    Each(i64),
    List(Vec<i64>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyInput {
    num_ranks: i64,
    num_nodes: i64,
    slots_per_rank: Option<Slots>,
    speeds: Option<Vec<f64>>,
    active: Option<Vec<bool>>,
}

impl TopologyInput {
    fn topology(&self) -> Result<Topology, Failure> {
        let mut topology = Topology::new(self.num_ranks.try_into()?, self.num_nodes.try_into()?)?;
        topology = match &self.slots_per_rank {
            None => topology,
            Some(Slots::Each(slots)) => topology.with_slots_per_rank((*slots).try_into()?)?,
            Some(Slots::List(slots)) => {
                topology.with_slots(slots.iter().map(|one| u32::try_from(*one)).collect::<Result<_, _>>()?)?
            }
        };
        topology = if let Some(speeds) = &self.speeds { topology.with_speeds(speeds.clone())? } else { topology };
        Ok(if let Some(active) = &self.active { topology.with_active(active.clone())? } else { topology })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableInput {
    num_experts: i64,
    topology: TopologyInput,
    physical_to_logical: Vec<Vec<i32>>,
}

impl TableInput {
    fn placement(&self) -> Result<Placement, Failure> {
        let table = &self.physical_to_logical;
        let topology = self.topology.topology()?;
        Ok(Placement::new(self.num_experts.try_into()?, table.len(), topology, table.concat())?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementInput {
    num_experts: Option<i64>,
    topology: Option<TopologyInput>,
    physical_to_logical: Option<Vec<Vec<i32>>>,
    partition: Option<PartitionInput>,
    num_layers: Option<usize>,
    #[serde(default)]
    num_shared_experts: u32,
    loads: Option<Vec<Vec<Vec<f64>>>>,
    call: Option<Call>,
}

impl PlacementInput {
    fn placement(&mut self) -> Result<Placement, Failure> {
        if let Some(partition) = &self.partition {
            return Ok(Placement::from_partition(&partition.partition()?, self.num_layers.unwrap())?);
        }
        let table = self.physical_to_logical.take().unwrap();
        let topology = self.topology.take().unwrap();
        TableInput { num_experts: self.num_experts.unwrap(), topology, physical_to_logical: table }.placement()
    }
}

fn loads_of(windows: &[Vec<Vec<f64>>]) -> Result<Loads, Failure> {
    let (layers, experts) = (windows[0].len(), windows[0][0].len());
    Ok(Loads::new(windows.len(), layers, experts, windows.concat().concat())?)
}

fn rank_loads(placement: &Placement, windows: &[Vec<Vec<f64>>]) -> Result<Value, Failure> {
    let flat = placement.rank_loads(&loads_of(windows)?)?;
    let ranks = placement.num_ranks() as usize;
    let rows = nested(&flat, flat.len() / ranks, ranks);
    Ok(json!(nested(&rows, windows.len(), placement.num_layers())))
}

fn held(placement: &Placement, name: &str, layer: usize, rank: u32, shared: u32) -> Result<Value, Failure> {
    let experts = placement.num_experts() as usize;
    let with_shared = placement.length_with_shared(shared)? as usize;
    Ok(match name {
        "local_experts" => json!(placement.local_experts(layer, rank)?),
        "experts_to_load" => json!(placement.experts_to_load(layer, rank)?),
        "expert_map" => json!(filled(experts, |out| placement.write_expert_map(layer, rank, out))?),
        "expert_map_with_sentinel" => {
            json!(filled(experts + 1, |out| placement.write_expert_map_with_sentinel(layer, rank, out))?)
        }
        "expert_map_with_shared" => {
            json!(filled(with_shared, |out| placement.write_expert_map_with_shared(layer, rank, shared, out))?)
        }
        "expert_mask" => {
            json!(filled(with_shared + 1, |out| placement.write_expert_mask(layer, rank, shared, out))?)
        }
        _ => return wrong(format!("{name} is unknown")),
    })
}

fn lists(placement: &Placement, width: u32) -> Result<Value, Failure> {
    let (layers, experts, width) = (placement.num_layers(), placement.num_experts() as usize, width as usize);
    let flat = filled(layers * experts * width, |out| placement.write_logical_to_physical(width as u32, out))?;
    Ok(json!(nested(&nested(&flat, layers * experts, width), layers, experts)))
}

fn of_placement(placement: &Placement, name: &str, input: &PlacementInput) -> Result<Value, Failure> {
    let (layers, slots, ranks) = (placement.num_layers(), placement.num_slots(), placement.num_ranks());
    Ok(match name {
        "num_layers" => json!(layers),
        "num_slots" => json!(slots),
        "node_of" => json!((0..ranks).map(|rank| placement.topology().node_of(rank)).collect::<Result<Vec<_>, _>>()?),
        "slot_offsets" => json!(placement.slot_offsets()),
        "physical_to_logical" => json!(nested(placement.physical_to_logical(), layers, slots)),
        "replica_counts" => {
            let experts = placement.num_experts() as usize;
            json!(nested(&filled(layers * experts, |out| placement.write_replica_counts(out))?, layers, experts))
        }
        "logical_to_physical" => lists(placement, placement.most_replicas())?,
        "wider" => lists(placement, placement.most_replicas() + 2)?,
        "digest" => json!(placement.digest()),
        "rank_loads" => rank_loads(placement, input.loads.as_deref().unwrap())?,
        _ => {
            let of_layer =
                |layer| (0..ranks).map(|rank| held(placement, name, layer, rank, input.num_shared_experts)).collect();
            json!((0..layers).map(of_layer).collect::<Result<Vec<Vec<_>>, _>>()?)
        }
    })
}

fn check_placement(input: &Value, expected: Option<&Value>) -> Result<(), Failure> {
    let mut input: PlacementInput = parse(input)?;
    let placement = input.placement()?;
    if let Some(call) = &input.call {
        if let (Some(layer), Some(rank)) = (call.layer, call.rank) {
            let layer = placement.check_layer(layer.into())?;
            let rank = placement.topology().check_rank(rank.into())?;
            held(&placement, &call.name, layer, rank, input.num_shared_experts)?;
        } else if let Some(width) = call.width {
            lists(&placement, placement.check_width(width.into())?)?;
        } else if let Some(loads) = &call.loads {
            rank_loads(&placement, loads)?;
        } else {
            return wrong(format!("{} is given nothing", call.name));
        }
    }
    expected.map_or(Ok(()), |expected| compare(expected, |name| of_placement(&placement, name, &input)))
}

// The policy `deepseek`.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanInput {
    loads: Vec<Vec<Vec<f64>>>,
    num_slots: i64,
    topology: TopologyInput,
    policy: String,
    num_groups: i64,
}

fn check_deepseek(input: &Value, expected: Option<&Value>) -> Result<(), Failure> {
    let input: PlanInput = parse(input)?;
    let mut options = Options::default();
    options.policy = input.policy.parse::<Policy>()?;
    options.num_groups = input.num_groups.try_into()?;
    let (loads, topology) = (loads_of(&input.loads)?, input.topology.topology()?);
    let plan = rebalance(&loads, input.num_slots.try_into()?, &topology, &options)?;
    expected.map_or(Ok(()), |expected| {
        compare(expected, |name| match name {
            "physical_to_logical" => Ok(json!(nested(plan.physical_to_logical(), plan.num_layers(), plan.num_slots()))),
            _ => wrong(format!("{name} is unknown")),
        })
    })
}

// Migrations.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationInput {
    old: TableInput,
    new: TableInput,
    max_node_transfers: Option<i64>,
    max_staged: Option<i64>,
}

/// Layer, expert, source slot and destination slot.
type Step = [usize; 4];
/// What the slots of each layer hold.
type State = Vec<Vec<i32>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    moves: Vec<Step>,
    batches: Vec<usize>,
    write_batches: Vec<usize>,
    num_staged: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationAnswer {
    moves: Vec<Step>,
    num_batches: Option<usize>,
    plan: Plan,
    states: Vec<State>,
}

fn by_destination(moves: &[Step]) -> Vec<Step> {
    let mut sorted = moves.to_vec();
    sorted.sort_by_key(|[layer, _, _, destination]| (*layer, *destination));
    sorted
}

/// Carries a plan out from what can be read, and gives what the slots hold before and after each batch.
fn carried_out(plan: &Plan, old: &Placement, new: &Placement, limits: MigrationLimits) -> Result<Vec<State>, Failure> {
    let number = plan.batches.len() - 1;
    let ends = (plan.batches[0], plan.batches[number]);
    expect(ends == (0, plan.moves.len()), "the batches begin with 0 and end with the number of moves")?;
    expect(plan.batches.windows(2).all(|pair| pair[0] < pair[1]), "every batch has a move")?;
    expect(plan.write_batches.len() == plan.moves.len(), "every move is written")?;
    let read = |index: usize| plan.batches.partition_point(|begin| *begin <= index) - 1;
    for (index, [layer, _, _, destination]) in plan.moves.iter().enumerate() {
        let reads = plan.moves.iter().zip(&plan.write_batches);
        let waits =
            reads.filter(|([of, _, source, _], _)| of == layer && source == destination).map(|(_, write)| *write);
        // Moves in a ring wait for one another: later batches of all of them would do here, and the states tell.
        let least = waits.chain([read(index)]).max().unwrap_or(0);
        expect(plan.write_batches[index] == least, "a move is written as early as it can be")?;
    }
    let rank_of = |slot: usize| new.rank_of_slot(slot);
    let is_active =
        |slot| Ok::<_, Error>(new.topology().active().is_none_or(|all| all[rank_of(slot).unwrap() as usize]));
    let slots = new.num_slots();
    let mut state = nested(old.physical_to_logical(), old.num_layers(), slots);
    for row in &mut state {
        for (slot, entry) in row.iter_mut().enumerate() {
            *entry = if is_active(slot)? { *entry } else { EMPTY };
        }
    }
    let mut states = vec![state.clone()];
    let mut waiting: BTreeMap<usize, i32> = BTreeMap::new();
    let mut most = 0;
    for batch in 0..number {
        let (mut sent, mut received) = (vec![0; new.num_ranks() as usize], vec![0; new.num_ranks() as usize]);
        let nodes = new.topology().num_nodes() as usize;
        let (mut left, mut entered) = (vec![0; nodes], vec![0; nodes]);
        for index in plan.batches[batch]..plan.batches[batch + 1] {
            let [layer, _, source, destination] = plan.moves[index];
            waiting.insert(index, state[layer][source]);
            let (from, to) = (rank_of(source)?, rank_of(destination)?);
            let (from_node, to_node) = (new.topology().node_of(from)?, new.topology().node_of(to)?);
            sent[from as usize] += i32::from(from != to);
            received[to as usize] += i32::from(from != to);
            left[from_node as usize] += u32::from(from_node != to_node);
            entered[to_node as usize] += u32::from(from_node != to_node);
        }
        expect(sent.iter().chain(&received).all(|times| *times <= 1), "no rank sends or receives twice")?;
        let busiest = left.iter().chain(&entered).max().copied().unwrap_or(0);
        expect(limits.max_node_transfers.is_none_or(|limit| busiest <= limit), "transfers between nodes are limited")?;
        for rank in 0..new.num_ranks() {
            let staged = waiting.keys().filter(|index| rank_of(plan.moves[**index][3]).unwrap() == rank).count();
            most = most.max(staged);
        }
        for (index, [layer, _, _, destination]) in plan.moves.iter().enumerate() {
            if plan.write_batches[index] == batch {
                state[*layer][*destination] = waiting.remove(&index).unwrap_or(EMPTY);
            }
        }
        let is_there = |row: &Vec<i32>| (0..new.num_experts() as i32).all(|expert| row.contains(&expert));
        expect(state.iter().all(is_there), "every expert is in every state")?;
        states.push(state.clone());
    }
    expect(most == plan.num_staged, &format!("num_staged is {most}, expected {}", plan.num_staged))?;
    expect(limits.max_staged.is_none_or(|limit| most <= limit as usize), "staging is limited")?;
    let wanted = new.physical_to_logical();
    let mut pairs = wanted.iter().zip(state.iter().flatten());
    expect(pairs.all(|(wanted, held)| *wanted == EMPTY || wanted == held), "the plan ends in the new placement")?;
    Ok(states)
}

fn check_migration(input: &Value, expected: Option<&Value>) -> Result<(), Failure> {
    let input: MigrationInput = parse(input)?;
    let (old, new) = (input.old.placement()?, input.new.placement()?);
    let mut limits = MigrationLimits::default();
    limits.max_node_transfers = input.max_node_transfers.map(TryInto::try_into).transpose()?;
    limits.max_staged = input.max_staged.map(TryInto::try_into).transpose()?;
    let migration = plan_migration_within(&old, &new, limits)?;
    let Some(expected) = expected else { return Ok(()) };
    let expected: MigrationAnswer = parse(expected)?;
    let step =
        |one: &expert_placement::Move| [one.layer, one.expert, one.source, one.destination].map(|at| at as usize);
    let all = |numbers: &[u32]| numbers.iter().map(|number| *number as usize).collect::<Vec<_>>();
    // The crate's plan keeps the rule, and has the moves of the case.
    let own = Plan {
        moves: migration.moves().iter().map(step).collect(),
        batches: all(migration.batches()),
        write_batches: all(migration.write_batches()),
        num_staged: migration.num_staged(),
    };
    expect(by_destination(&own.moves) == expected.moves, "the crate has other moves")?;
    let number = (input.max_node_transfers, input.max_staged) == (None, None);
    expect(expected.num_batches == number.then(|| migration.num_batches()), "the crate has more or fewer batches")?;
    expect(migration.is_interruption_safe(), "the crate's plan is said to lose something")?;
    carried_out(&own, &old, &new, limits)?;
    // The plan of the case, carried out, goes through its states.
    expect(by_destination(&expected.plan.moves) == expected.moves, "the plan has other moves")?;
    expect(carried_out(&expected.plan, &old, &new, limits)? == expected.states, "the plan has other states")
}

// Routing.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutingInput {
    placement: TableInput,
    layer: i64,
    rank: i64,
    sender: Option<i64>,
    max_slots: Option<i64>,
    weights: Option<Vec<Vec<f64>>>,
    id_type: String,
    topk_ids: Vec<Vec<String>>,
    token_offset: String,
    seed: String,
    valid_tokens: Option<i64>,
    exact: bool,
}

/// "Choice of a replica", word by word.
fn hash(expert: u32, token: u32, seed: u32) -> u32 {
    let spread = expert.wrapping_mul(0x85EB_CA77).wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
    let mut x = token.wrapping_mul(0x9E37_79B1).wrapping_add(spread);
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

fn check_routing(input: &Value, expected: Option<&Value>) -> Result<(), Failure> {
    let input: RoutingInput = parse(input)?;
    let placement = input.placement.placement()?;
    let layer = placement.check_layer(input.layer.into())?;
    let rank = placement.topology().check_rank(input.rank.into())?;
    let sender = input.sender.map(TryInto::try_into).transpose()?;
    let room = input.max_slots.map_or(Ok(placement.num_slots() as u32), TryInto::try_into)?;
    let weights = input.weights.as_ref().map(|weights| weights[layer].as_slice());
    let shape = RoutingShape::new(placement.num_experts(), room, placement.num_ranks(), weights.is_some())?;
    let table = filled(shape.len(), |out| placement.write_routing_table(layer, &shape, sender, weights, out))?;
    let router = Router::new(shape, &table)?;

    let (tokens, top_k) = (input.topk_ids.len(), input.topk_ids.first().map_or(0, Vec::len));
    let number = |digits: &String| integer(&json!(digits)).and_then(|number| Ok(u64::try_from(number)?));
    let (offset, seed) = (number(&input.token_offset)?, number(&input.seed)?);
    let mut batch = Batch::new(top_k).with_token_offset(offset).with_seed(seed);
    if let Some(valid) = input.valid_tokens {
        batch = batch.with_valid_tokens(valid.try_into()?);
    }
    let digits = input.topk_ids.iter().flatten();
    let ids: Vec<i64> = digits.map(|one| one.parse().unwrap()).collect();
    let slots = filled(ids.len(), |out| {
        if input.exact { router.route_evenly(&ids, &batch, out) } else { router.route(&ids, &batch, out) }
    })?;
    if input.id_type == "int32" {
        let narrow = ids.iter().map(|one| i32::try_from(*one)).collect::<Result<Vec<_>, _>>();
        let narrow = narrow.or_else(|_| wrong("an id needs more than 32 bits"))?;
        let same = filled(ids.len(), |out| {
            if input.exact { router.route_evenly(&narrow, &batch, out) } else { router.route(&narrow, &batch, out) }
        })?;
        expect(slots == same, "32 and 64 bits are routed otherwise")?;
    } else {
        expect(input.id_type == "int64", "the type of the ids is unknown")?;
    }

    let counts = filled(room as usize, |out| router.count(&slots, out))?;
    let offsets = filled(counts.len() + 1, |out| Router::sum_up(&counts, out))?;
    let ranks = placement.num_ranks() as usize;
    let of_ranks = filled(ranks + 1, |out| router.write_rank_offsets(&offsets, out))?;
    let mut positions = vec![0; slots.len()];
    let order = filled(slots.len(), |out| router.write_order(&slots, &offsets, out, &mut positions))?;
    let by_token = |flat: &[i32]| json!(nested(flat, tokens, top_k));
    let Some(expected) = expected else { return Ok(()) };
    compare(expected, |name| {
        Ok(match name {
            "slots" => by_token(&slots),
            "local_slots" => by_token(&filled(slots.len(), |out| router.localise(rank, &slots, out))?),
            "slot_counts" => json!(counts),
            "slot_offsets" => json!(offsets),
            "rank_counts" => json!(filled(ranks, |out| Router::count_ranks(&of_ranks, out))?),
            "rank_offsets" => json!(of_ranks),
            "order" => json!(order),
            "positions" => by_token(&positions),
            "hashes" => {
                // Those of the ids that the crate serves, by the formula of the specification.
                let of = |(place, slot): (usize, &i32)| {
                    let token = (offset as u32).wrapping_add((place / top_k) as u32);
                    (*slot != UNROUTED).then(|| hash(ids[place] as u32, token, seed as u32))
                };
                json!(nested(&slots.iter().enumerate().map(of).collect::<Vec<_>>(), tokens, top_k))
            }
            _ => return wrong(format!("{name} is unknown")),
        })
    })
}

// Files.

type Check = fn(&Value, Option<&Value>) -> Result<(), Failure>;

/// The readers by the names of their files.
const READERS: [(&str, Check); 5] = [
    ("partition", check_partition),
    ("placement", check_placement),
    ("deepseek", check_deepseek),
    ("migration", check_migration),
    ("routing", check_routing),
];

fn read(name: &str) -> Value {
    let text = fs::read_to_string(format!("{VECTORS}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What is wrong with a case; nothing where it holds.
fn flaw(case: &Value, check: Check) -> Option<String> {
    let outcome = match case["result"].as_str() {
        Some("valid") => check(&case["input"], Some(&case["expected"])),
        Some("refused") => check(&case["input"], None),
        _ => wrong("the result is neither valid nor refused"),
    };
    match (outcome, case.get("error").and_then(Value::as_str)) {
        (Err(Failure::Wrong(text)), _) => Some(text),
        (Ok(()), None) => None,
        (Ok(()), Some(_)) => Some("it is answered".to_owned()),
        (Err(Failure::Refused(kind)), Some(error)) if kind == error => None,
        (Err(Failure::Refused(kind)), _) => Some(format!("it is refused with {kind}")),
    }
}

/// Every case of a file that does not hold, and whether all its cases are there.
fn flaws(file: &Value, check: Check) -> Vec<String> {
    let cases = file["cases"].as_array().unwrap();
    let count = (file["number_of_cases"] != json!(cases.len())).then(|| "the number of cases is another".to_owned());
    let of = |case: &Value| flaw(case, check).map(|text| format!("{}: {text}", case["id"]));
    count.into_iter().chain(cases.iter().filter_map(of)).collect()
}

#[test]
fn every_file_has_a_reader() {
    let mut names: Vec<String> = fs::read_dir(VECTORS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    let mut read: Vec<&str> = READERS.iter().map(|(name, _)| *name).collect();
    read.sort_unstable();
    assert_eq!(names, read);
}

/// Domain: every case of every file.
#[test]
fn the_crate_answers_what_the_vectors_say() {
    for (name, check) in READERS {
        assert_eq!(flaws(&read(name), check), Vec::<String>::new(), "{name}.json");
    }
}

/// Changes the last number, text or flag below a value, and says whether there is one.
fn spoil(value: &mut Value) -> bool {
    match value {
        Value::Array(list) => list.iter_mut().rev().any(spoil),
        Value::Object(fields) => fields.values_mut().rev().any(spoil),
        Value::Null => {
            *value = json!(0);
            true
        }
        Value::Bool(flag) => {
            *flag = !*flag;
            true
        }
        Value::String(text) => {
            text.push('0');
            true
        }
        Value::Number(number) => {
            // The next float64, or the next integer.
            *value = match number.as_i64() {
                Some(number) => json!(number + 1),
                None => json!(f64::from_bits(number.as_f64().unwrap().to_bits() + 1)),
            };
            true
        }
    }
}

/// Domain: every field of what is expected, in every case, with its last number changed; every error and every result.
#[test]
fn a_changed_case_is_rejected() {
    for (name, check) in READERS {
        let file = read(name);
        let mut changed = 0;
        for case in file["cases"].as_array().unwrap() {
            let fields: Vec<String> = match case.get("expected").and_then(Value::as_object) {
                Some(fields) => fields.keys().cloned().collect(),
                None => Vec::new(),
            };
            for field in fields {
                let mut other = case.clone();
                if spoil(&mut other["expected"][&field]) {
                    assert!(flaw(&other, check).is_some(), "{name}.json: {} with another {field}", case["id"]);
                    changed += 1;
                }
            }
            let mut other = case.clone();
            if case["result"] == "valid" {
                other["expected"]["unheard_of"] = json!(1);
                assert!(flaw(&other, check).is_some(), "{name}.json: {} with a field more", case["id"]);
                other["error"] = json!("wrong_value");
                other["result"] = json!("refused");
            } else {
                let kinds = ["no_such_id", "wrong_value"];
                other["error"] = json!(kinds[usize::from(case["error"] == kinds[0])]);
            }
            assert!(flaw(&other, check).is_some(), "{name}.json: {} with another result", case["id"]);
        }
        assert!(changed > file["cases"].as_array().unwrap().len() / 2, "{name}.json: {changed}");
        let mut other = file.clone();
        other["cases"].as_array_mut().unwrap().pop();
        assert_eq!(flaws(&other, check), ["the number of cases is another"], "{name}.json");
    }
}
