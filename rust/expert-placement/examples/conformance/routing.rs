//! Routing tables, and batches routed over them.

use expert_placement::{Batch, Error, ExpertId, Placement, Router, RoutingShape};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Handler;
use crate::answering::{Answer, Failure, read, rows};
use crate::fields::{PlacementFields, Real, Whole, expect_even, natural, optional, reals, size};

pub(crate) const CALLS: [(&str, Handler); 2] = [("routing_tables", tables), ("route", route)];

/// What may be asked for.
const FIELDS: [&str; 8] =
    ["slots", "local_slots", "slot_counts", "slot_offsets", "rank_counts", "rank_offsets", "order", "positions"];

#[derive(Deserialize)]
struct Content {
    placement: PlacementFields,
    weights: Option<Vec<Vec<Real>>>,
}

#[derive(Deserialize)]
struct TablesFields {
    #[serde(flatten)]
    content: Content,
    rank: Option<Whole>,
    sender: Option<Whole>,
    max_slots: Option<Whole>,
    updates: Vec<Content>,
}

/// The tables of all layers.
struct Tables {
    placement: Placement,
    shape: RoutingShape,
    rank: Option<u32>,
    sender: Option<u32>,
    layers: Vec<Vec<i32>>,
}

/// Which slots serve each expert in each layer of a placement.
fn written(
    placement: &Placement,
    shape: &RoutingShape,
    sender: Option<u32>,
    weights: Option<Vec<Vec<Real>>>,
) -> Result<Vec<Vec<i32>>, Failure> {
    let weights = weights.map(|rows| expect_even("weights", &rows).map(|_| rows)).transpose()?;
    if weights.as_ref().is_some_and(|rows| rows.len() != placement.num_layers()) {
        return Err(Failure::of_value(format!("weights has another length than {} layers", placement.num_layers())));
    }
    let mut rows = weights.map(Vec::into_iter);
    let mut layers = Vec::with_capacity(placement.num_layers());
    for layer in 0..placement.num_layers() {
        let own = rows.as_mut().and_then(Iterator::next).map(reals);
        let mut table = vec![0; shape.len()];
        placement.write_routing_table(layer, shape, sender, own.as_deref(), &mut table)?;
        layers.push(table);
    }
    Ok(layers)
}

impl Tables {
    fn new(content: Content, rank: Option<Whole>, sender: Option<Whole>, room: Option<Whole>) -> Result<Self, Failure> {
        let placement = content.placement.made()?;
        let in_range = |rank: Whole| placement.topology().check_rank(rank.0);
        let (rank, sender) = (rank.map(in_range).transpose()?, sender.map(in_range).transpose()?);
        let own = u32::try_from(placement.num_slots()).unwrap_or(u32::MAX);
        let max_slots = optional("max_slots", room)?.unwrap_or(own);
        let (experts, ranks) = (placement.num_experts(), placement.num_ranks());
        let shape = RoutingShape::new(experts, max_slots, ranks, content.weights.is_some())?;
        let layers = written(&placement, &shape, sender, content.weights)?;
        Ok(Self { placement, shape, rank, sender, layers })
    }

    fn update(&mut self, content: Content) -> Result<(), Failure> {
        let placement = content.placement.made()?;
        if placement.num_layers() != self.placement.num_layers() {
            let (layers, expected) = (placement.num_layers(), self.placement.num_layers());
            return Err(Failure::of_value(format!("the placement has {layers} layers, expected {expected}")));
        }
        if content.weights.is_some() != self.shape.is_weighted() {
            return Err(Failure::of_value("weights are needed exactly where the tables were made with some"));
        }
        self.layers = written(&placement, &self.shape, self.sender, content.weights)?;
        self.placement = placement;
        Ok(())
    }
}

impl TablesFields {
    /// The tables after all updates, and the refusal of the last one. Those that are refused change nothing.
    fn made(self) -> Result<(Tables, Result<(), Failure>), Failure> {
        let mut tables = Tables::new(self.content, self.rank, self.sender, self.max_slots)?;
        let mut last = Ok(());
        for update in self.updates {
            last = tables.update(update);
        }
        Ok((tables, last))
    }
}

#[derive(Deserialize)]
struct OfTables {
    tables: TablesFields,
}

fn tables(request: Value) -> Answer {
    let (_, last) = read::<OfTables>(request)?.tables.made()?;
    last.map(|()| Value::Null)
}

#[derive(Deserialize)]
struct LoadFields {
    dtype: String,
    values: Vec<Whole>,
}

#[derive(Deserialize)]
struct Route {
    tables: TablesFields,
    ids: Vec<Vec<Whole>>,
    shape: (usize, usize),
    dtype: String,
    layer: Option<Whole>,
    token_offset: Whole,
    seed: Whole,
    valid_tokens: Option<Whole>,
    load: Option<LoadFields>,
    want: Vec<String>,
    exact: bool,
}

fn route(request: Value) -> Answer {
    let Route { tables, ids, shape, dtype, layer, token_offset, seed, valid_tokens, load, want, exact } =
        read(request)?;
    let (tables, _) = tables.made()?;
    let number = |name: &str, value: Whole| {
        let fitting = u64::try_from(value.0).ok().filter(|value| i64::try_from(*value).is_ok());
        fitting.ok_or_else(|| {
            Failure::of_value(format!("{name}={} is out of range, expected 0..{}", value.0, 1_u64 << 63))
        })
    };
    let (tokens, top_k) = shape;
    let mut batch =
        Batch::new(top_k).with_token_offset(number("token_offset", token_offset)?).with_seed(number("seed", seed)?);
    if let Some(valid) = valid_tokens {
        batch = batch.with_valid_tokens(size(natural("valid_tokens", valid)?));
    }
    if let Some(unknown) = want.iter().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(Failure::of_value(format!("want has `{unknown}`, expected some of {}", FIELDS.join(", "))));
    }
    let layer = match layer {
        None if tables.placement.num_layers() == 1 => 0,
        None => return Err(Failure::of_type("layer must be an int where there are several layers")),
        Some(layer) => tables.placement.check_layer(layer.0)?,
    };
    let table = tables.layers.get(layer).map(Vec::as_slice).unwrap_or_default();
    let router = Router::new(tables.shape, table)?;
    let flat: Vec<Whole> = ids.into_iter().flatten().collect();
    if flat.len() != tokens * top_k {
        return Err(Failure::of_type("ids have another shape than `shape`"));
    }
    let slots = match dtype.as_str() {
        "int32" => slots_of::<i32>(&router, &flat, &batch, exact)?,
        "int64" => slots_of::<i64>(&router, &flat, &batch, exact)?,
        _ => return Err(Failure::of_type(format!("dtype=`{dtype}` is unknown, expected `int32` or `int64`"))),
    };
    let mut answer = Map::new();
    let (counts, all) = everything(&router, tables.shape, tables.rank, &slots, shape)?;
    for name in want {
        let found = all.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        let value = found.ok_or_else(|| Failure::of_value("local_slots need tables with a rank"))?;
        answer.insert(name, value);
    }
    if let Some(load) = load {
        answer.insert("load".to_owned(), json!(added(&load, &counts)?));
    }
    Ok(Value::Object(answer))
}

/// The slot of every id.
fn slots_of<I: ExpertId + TryFrom<i128>>(
    router: &Router<'_>,
    ids: &[Whole],
    batch: &Batch,
    exact: bool,
) -> Result<Vec<i32>, Failure> {
    let fitting: Result<Vec<I>, _> = ids.iter().map(|id| I::try_from(id.0)).collect();
    let ids = fitting.map_err(|_| Failure::of_type("an id does not fit the dtype"))?;
    let mut slots = vec![0; ids.len()];
    if exact {
        router.route_evenly(&ids, batch, &mut slots)?;
    } else {
        router.route(&ids, batch, &mut slots)?;
    }
    Ok(slots)
}

/// What can be asked for, by name.
type Everything = Vec<(&'static str, Value)>;

/// The count of each slot, and everything that can be asked for; local slots only where the tables have a rank.
fn everything(
    router: &Router<'_>,
    of: RoutingShape,
    rank: Option<u32>,
    slots: &[i32],
    shape: (usize, usize),
) -> Result<(Vec<i32>, Everything), Error> {
    let (tokens, top_k) = shape;
    let (room, ranks) = (size(of.max_slots()), size(of.num_ranks()));
    let (mut counts, mut offsets) = (vec![0; room], vec![0; room + 1]);
    router.count(slots, &mut counts)?;
    Router::sum_up(&counts, &mut offsets)?;
    let (mut rank_counts, mut rank_offsets) = (vec![0; ranks], vec![0; ranks + 1]);
    router.write_rank_offsets(&offsets, &mut rank_offsets)?;
    Router::count_ranks(&rank_offsets, &mut rank_counts)?;
    let (mut order, mut positions) = (vec![0; slots.len()], vec![0; slots.len()]);
    router.write_order(slots, &offsets, &mut order, &mut positions)?;
    let mut all = vec![
        ("slots", rows(slots, tokens, top_k)),
        ("slot_counts", json!(counts)),
        ("slot_offsets", json!(offsets)),
        ("rank_counts", json!(rank_counts)),
        ("rank_offsets", json!(rank_offsets)),
        ("order", json!(order)),
        ("positions", rows(&positions, tokens, top_k)),
    ];
    if let Some(rank) = rank {
        let mut local = vec![0; slots.len()];
        router.localise(rank, slots, &mut local)?;
        all.push(("local_slots", rows(&local, tokens, top_k)));
    }
    Ok((counts, all))
}

/// A load with what each slot served added to it.
fn added(load: &LoadFields, counts: &[i32]) -> Result<Vec<i128>, Failure> {
    if load.dtype != "int32" && load.dtype != "int64" {
        return Err(Failure::of_type(format!("load has dtype `{}`, expected `int32` or `int64`", load.dtype)));
    }
    if load.values.len() != counts.len() {
        let (length, expected) = (load.values.len(), counts.len());
        return Err(Failure::of_value(format!("load has length {length}, expected {expected}")));
    }
    Ok(load.values.iter().zip(counts).map(|(before, count)| before.0 + i128::from(*count)).collect())
}
