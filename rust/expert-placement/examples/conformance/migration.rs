//! Plans of migrations, and weights that are moved by them.

use expert_placement::{Migration, MigrationLimits, plan_migration_within};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Handler;
use crate::answering::{Answer, Failure, read, rows};
use crate::fields::{Numbers, PlacementFields, Whole, expect_even, optional, size};

pub(crate) const CALLS: [(&str, Handler); 3] =
    [("plan_migration", plan), ("plan.traffic", traffic), ("plan.apply", apply)];

/// The fields of a plan beside its moves and batches.
pub(crate) const FIELDS: [&str; 5] =
    ["plan.write_batches", "plan.num_staged", "plan.is_interruption_safe", "plan.senders", "plan.receivers"];

#[derive(Deserialize)]
struct Plan {
    old: PlacementFields,
    new: PlacementFields,
    max_node_transfers: Option<Whole>,
    max_staged: Option<Whole>,
}

impl Plan {
    fn made(self) -> Result<Migration, Failure> {
        let mut limits = MigrationLimits::default();
        limits.max_node_transfers = optional("max_node_transfers", self.max_node_transfers)?;
        limits.max_staged = optional("max_staged", self.max_staged)?;
        Ok(plan_migration_within(&self.old.made()?, &self.new.made()?, limits)?)
    }
}

fn plan(request: Value) -> Answer {
    let plan = read::<Plan>(request)?.made()?;
    let moves = plan.moves().iter().map(|one| [one.layer, one.expert, one.source, one.destination]);
    Ok(json!({
        "moves": moves.collect::<Vec<_>>(),
        "batches": plan.batches(),
        "write_batches": plan.write_batches(),
        "num_staged": plan.num_staged(),
        "is_interruption_safe": plan.is_interruption_safe(),
        "senders": plan.senders(),
        "receivers": plan.receivers(),
    }))
}

#[derive(Deserialize)]
struct Traffic {
    #[serde(flatten)]
    plan: Plan,
    bytes_per_expert: Numbers,
}

fn traffic(request: Value) -> Answer {
    let Traffic { plan, bytes_per_expert } = read(request)?;
    let plan = plan.made()?;
    let sizes = match bytes_per_expert {
        Numbers::Same(size) => vec![size],
        Numbers::Each(sizes) if sizes.len() == plan.num_layers() => sizes,
        Numbers::Each(sizes) => {
            let (length, layers) = (sizes.len(), plan.num_layers());
            return Err(Failure::of_value(format!("bytes_per_expert has length {length}, expected {layers}")));
        }
    };
    let refuse = |size: Whole| Failure::of_value(format!("bytes_per_expert={} is out of range, expected 0..", size.0));
    let sizes: Result<Vec<u64>, Failure> =
        sizes.into_iter().map(|size| u64::try_from(size.0).map_err(|_| refuse(size))).collect();
    let bytes = plan.traffic(&sizes?)?;
    let (batches, ranks) = (plan.num_batches(), plan.num_ranks());
    Ok(json!({ "sent": rows(&bytes.sent, batches, ranks), "received": rows(&bytes.received, batches, ranks) }))
}

#[derive(Deserialize)]
struct Apply {
    #[serde(flatten)]
    plan: Plan,
    weights: Vec<Vec<Value>>,
}

/// Executes the plan as ranks would: each batch is read whole, and then written where it is time.
fn apply(request: Value) -> Answer {
    let Apply { plan, mut weights } = read(request)?;
    let plan = plan.made()?;
    let slots = expect_even("weights", &weights)?;
    if weights.len() != plan.num_layers() || slots != plan.num_slots() {
        let expected = (plan.num_layers(), plan.num_slots());
        return Err(Failure::of_value(format!(
            "weights has shape {:?}, expected {expected:?}",
            (weights.len(), slots)
        )));
    }
    let mut staged: Vec<(usize, Value)> = Vec::new();
    let ends = plan.batches().iter().skip(1);
    for (batch, (begin, end)) in (0_u32..).zip(plan.batches().iter().zip(ends)) {
        for index in size(*begin)..size(*end) {
            let Some(one) = plan.moves().get(index) else { continue };
            let held = weights.get(size(one.layer)).and_then(|row| row.get(size(one.source)));
            staged.extend(held.map(|held| (index, held.clone())));
        }
        let (due, kept) = staged.into_iter().partition(|(index, _)| plan.write_batches().get(*index) == Some(&batch));
        staged = kept;
        let due: Vec<(usize, Value)> = due;
        for (index, read) in due {
            let Some(one) = plan.moves().get(index) else { continue };
            let slot = weights.get_mut(size(one.layer)).and_then(|row| row.get_mut(size(one.destination)));
            if let Some(slot) = slot {
                *slot = read;
            }
        }
    }
    Ok(json!(weights))
}
