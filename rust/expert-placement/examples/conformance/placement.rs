//! Topologies and placements.

use expert_placement::limits::NUM_SHARED_EXPERTS;
use expert_placement::{Error, Loads, Placement};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Handler;
use crate::answering::{Answer, read, rows};
use crate::fields::{
    LoadsFields, PartitionFields, PlacementFields, TopologyFields, Whole, layer_of, layers, natural, size, zeros,
};

pub(crate) const CALLS: [(&str, Handler); 20] = [
    ("topology", |request| read::<OfTopology>(request)?.topology.made().map(|_| Value::Null)),
    ("topology.node_of", node_of),
    ("placement", |request| {
        of_placement(request, |made| {
            Ok(json!({
                "num_layers": made.num_layers(),
                "num_experts": made.num_experts(),
                "num_slots": made.num_slots(),
                "num_ranks": made.num_ranks(),
            }))
        })
    }),
    ("placement.from_partition", from_partition),
    ("placement.physical_to_logical", |request| of_placement(request, |made| Ok(table_of(made)))),
    ("placement.logical_to_physical", logical_to_physical),
    ("placement.replica_counts", |request| {
        of_placement(request, |made| {
            let experts = size(made.num_experts());
            let mut out = vec![0; made.num_layers() * experts];
            made.write_replica_counts(&mut out)?;
            Ok(rows(&out, made.num_layers(), experts))
        })
    }),
    ("placement.slot_offsets", |request| of_placement(request, |made| Ok(json!(made.slot_offsets())))),
    ("placement.digest", |request| of_placement(request, |made| Ok(json!(made.digest())))),
    ("placement.expert_map", |request| {
        of_rank(request, |of| of.filled(of.experts(), |out| of.made.write_expert_map(of.layer, of.rank, out)))
    }),
    ("placement.expert_map_with_shared", |request| {
        of_rank(request, |of| {
            let length = of.made.length_with_shared(of.shared)?;
            of.filled(length, |out| of.made.write_expert_map_with_shared(of.layer, of.rank, of.shared, out))
        })
    }),
    ("placement.expert_map_with_sentinel", |request| {
        of_rank(request, |of| {
            of.filled(of.experts() + 1, |out| of.made.write_expert_map_with_sentinel(of.layer, of.rank, out))
        })
    }),
    ("placement.expert_mask", |request| {
        of_rank(request, |of| {
            let length = of.made.length_with_shared(of.shared)? + 1;
            of.filled(length, |out| of.made.write_expert_mask(of.layer, of.rank, of.shared, out))
        })
    }),
    ("placement.local_experts", |request| of_rank(request, |of| Ok(json!(of.made.local_experts(of.layer, of.rank)?)))),
    ("placement.experts_to_load", |request| {
        of_rank(request, |of| Ok(json!(of.made.experts_to_load(of.layer, of.rank)?)))
    }),
    ("placement.rank_loads", rank_loads),
    ("placement.balancedness", |request| with_loads(request, |made, loads, _| Ok(json!(made.balancedness(loads)?)))),
    ("placement.report", |request| with_loads(request, |made, loads, _| report(made, loads))),
    ("placement.off_node", |request| {
        with_loads(request, |made, loads, groups| Ok(json!(made.off_node_fractions(loads, groups)?)))
    }),
    ("placement.replica_weights", |request| {
        with_loads(request, |made, loads, _| Ok(rows(&made.split(loads)?.weights, made.num_layers(), made.num_slots())))
    }),
];

/// The physical-to-logical table in rows.
pub(crate) fn table_of(made: &Placement) -> Value {
    rows(made.physical_to_logical(), made.num_layers(), made.num_slots())
}

#[derive(Deserialize)]
struct OfTopology {
    topology: TopologyFields,
    rank: Option<Whole>,
}

fn node_of(request: Value) -> Answer {
    let OfTopology { topology, rank } = read(request)?;
    let topology = topology.made()?;
    let rank = topology.check_rank(rank.map_or(-1, |rank| rank.0))?;
    Ok(json!(topology.node_of(rank)?))
}

#[derive(Deserialize)]
struct OfPlacement {
    placement: PlacementFields,
}

fn of_placement(request: Value, ask: impl Fn(&Placement) -> Answer) -> Answer {
    ask(&read::<OfPlacement>(request)?.placement.made()?)
}

#[derive(Deserialize)]
struct FromPartition {
    partition: PartitionFields,
    num_layers: Whole,
}

fn from_partition(request: Value) -> Answer {
    let FromPartition { partition, num_layers } = read(request)?;
    let made = Placement::from_partition(&partition.made()?, layers(num_layers)?)?;
    let ends = made.slot_offsets().iter().skip(1);
    let slots: Vec<u32> = made.slot_offsets().iter().zip(ends).map(|(begin, end)| end - begin).collect();
    Ok(json!({
        "num_experts": made.num_experts(),
        "table": table_of(&made),
        "topology": {
            "num_ranks": made.num_ranks(),
            "num_nodes": made.topology().num_nodes(),
            "slots_per_rank": slots,
            "speeds": made.topology().speeds(),
            "active": made.topology().active(),
        },
    }))
}

#[derive(Deserialize)]
struct Widened {
    placement: PlacementFields,
    width: Option<Whole>,
}

fn logical_to_physical(request: Value) -> Answer {
    let Widened { placement, width } = read(request)?;
    let made = placement.made()?;
    let width = made.check_width(width.map_or_else(|| made.most_replicas().into(), |width| width.0))?;
    let (experts, each) = (size(made.num_experts()), size(width));
    let mut out = vec![0; made.num_layers() * experts * each];
    made.write_logical_to_physical(width, &mut out)?;
    let layer = |at: usize| rows(out.get(at * experts * each..).unwrap_or_default(), experts, each);
    Ok(Value::Array((0..made.num_layers()).map(layer).collect()))
}

#[derive(Deserialize)]
struct RankFields {
    placement: PlacementFields,
    layer: Whole,
    rank: Whole,
    num_shared_experts: Option<Whole>,
}

/// A rank of a layer of a placement.
struct OfRank {
    made: Placement,
    layer: usize,
    rank: u32,
    shared: u32,
}

impl OfRank {
    fn experts(&self) -> u64 {
        u64::from(self.made.num_experts())
    }

    #[expect(clippy::unused_self, reason = "what is written is about the rank")]
    fn filled(&self, length: u64, write: impl Fn(&mut [i32]) -> Result<(), Error>) -> Answer {
        let mut out = zeros(length);
        write(&mut out)?;
        Ok(json!(out))
    }
}

fn of_rank(request: Value, ask: impl Fn(&OfRank) -> Answer) -> Answer {
    let RankFields { placement, layer, rank, num_shared_experts } = read(request)?;
    let made = placement.made()?;
    let layer = layer_of(&made, layer)?;
    let rank = made.topology().check_rank(rank.0)?;
    let shared = num_shared_experts.map_or(Ok(0), |shared| NUM_SHARED_EXPERTS.check(shared.0))?;
    ask(&OfRank { made, layer, rank, shared })
}

#[derive(Deserialize)]
struct Loaded {
    placement: PlacementFields,
    loads: LoadsFields,
    num_groups: Option<Whole>,
}

fn with_loads(request: Value, ask: impl Fn(&Placement, &Loads, u32) -> Answer) -> Answer {
    let Loaded { placement, loads, num_groups } = read(request)?;
    let made = placement.made()?;
    let groups = num_groups.map_or(Ok(1), |groups| natural("num_groups", groups))?;
    ask(&made, &loads.made()?, groups)
}

fn rank_loads(request: Value) -> Answer {
    let Loaded { placement, loads, .. } = read(request)?;
    let (made, has_windows) = (placement.made()?, loads.has_windows());
    let loads = loads.made()?;
    let (answer, ranks) = (made.rank_loads(&loads)?, size(made.num_ranks()));
    let window = |at: usize| {
        let length = made.num_layers() * ranks;
        rows(answer.get(at * length..(at + 1) * length).unwrap_or_default(), made.num_layers(), ranks)
    };
    let windows: Vec<Value> = (0..loads.num_windows()).map(window).collect();
    if has_windows { Ok(json!(windows)) } else { Ok(windows.into_iter().next().unwrap_or_default()) }
}

fn report(made: &Placement, loads: &Loads) -> Answer {
    let of_layers = made.report(loads)?;
    let one = |report: &expert_placement::LayerReport| {
        json!({
            "layer": report.layer,
            "mean": report.mean,
            "largest": report.largest,
            "busiest_rank": report.busiest_rank,
            "lower_bound": report.lower_bound,
            "gap": report.gap(),
        })
    };
    Ok(Value::Array(of_layers.iter().map(one).collect::<Vec<Value>>()))
}
