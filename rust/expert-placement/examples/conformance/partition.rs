//! Partitions: points of any partitions at once, and whole tables of one.

use expert_placement::limits::{MAX_RANKS, NUM_EXPERTS, NUM_SHARED_EXPERTS};
use expert_placement::{Error, Partition, legal_ranks};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Handler;
use crate::answering::{Answer, Failure, read};
use crate::fields::{PartitionFields, Whole, partition, zeros};

pub(crate) const CALLS: [(&str, Handler); 18] = [
    ("partition.count", |request| of_ranks(request, Partition::count)),
    ("partition.start", |request| of_ranks(request, Partition::start)),
    ("partition.owner", |request| of_experts(request, Partition::owner)),
    ("partition.local_index", |request| of_experts(request, Partition::local_index)),
    ("partition.experts", |request| {
        maps(request, |partition, rank, _| {
            let experts = partition.experts(rank)?;
            Ok(json!([experts.start(), experts.stride(), experts.remaining()]))
        })
    }),
    ("partition.local_experts", |request| {
        maps(request, |partition, rank, _| {
            filled(u64::from(partition.count(rank)?), |out| partition.write_local_experts(rank, out))
        })
    }),
    ("partition.counts", |request| table(request, |p| u64::from(p.num_ranks()), Partition::write_counts)),
    ("partition.starts", |request| table(request, |p| u64::from(p.num_ranks()), Partition::write_starts)),
    ("partition.owners", |request| table(request, |p| u64::from(p.num_experts()), Partition::write_owners)),
    ("partition.local_indices", |request| {
        table(request, |p| u64::from(p.num_experts()), Partition::write_local_indices)
    }),
    ("partition.offsets", |request| table(request, |p| u64::from(p.num_ranks()) + 1, Partition::write_offsets)),
    ("partition.is_uniform", |request| Ok(json!(read::<PartitionFields>(request)?.made()?.is_uniform()))),
    ("partition.min_redundant_experts", |request| {
        Ok(json!(read::<PartitionFields>(request)?.made()?.min_redundant_experts()))
    }),
    ("partition.legal_ranks", |request| {
        let Ranks { num_experts, max_ranks } = read(request)?;
        Ok(json!(legal_ranks(NUM_EXPERTS.check(num_experts.0)?, MAX_RANKS.check(max_ranks.0)?)?))
    }),
    ("partition.expert_map", |request| {
        maps(request, |partition, rank, _| {
            filled(u64::from(partition.num_experts()), |out| partition.write_expert_map(rank, out))
        })
    }),
    ("partition.expert_map_with_shared", |request| {
        maps(request, |partition, rank, shared| {
            let length = partition.length_with_shared(shared)?;
            filled(length, |out| partition.write_expert_map_with_shared(rank, shared, out))
        })
    }),
    ("partition.expert_map_with_sentinel", |request| {
        maps(request, |partition, rank, _| {
            filled(u64::from(partition.num_experts()) + 1, |out| partition.write_expert_map_with_sentinel(rank, out))
        })
    }),
    ("partition.expert_mask", |request| {
        maps(request, |partition, rank, shared| {
            let length = partition.length_with_shared(shared)? + 1;
            filled(length, |out| partition.write_expert_mask(rank, shared, out))
        })
    }),
];

/// Up to how many ranks some experts may be divided equally.
#[derive(Deserialize)]
struct Ranks {
    num_experts: Whole,
    max_ranks: Whole,
}

/// Points, each of a partition of its own.
#[derive(Deserialize)]
struct Points {
    num_experts: Vec<Whole>,
    num_ranks: Vec<Whole>,
    strategy: String,
    #[serde(alias = "ranks", alias = "experts")]
    ids: Vec<Whole>,
}

fn of_ranks(request: Value, ask: fn(&Partition, u32) -> Result<u32, Error>) -> Answer {
    points(request, |partition, rank| ask(partition, partition.check_rank(rank)?))
}

fn of_experts(request: Value, ask: fn(&Partition, u32) -> Result<u32, Error>) -> Answer {
    points(request, |partition, expert| ask(partition, partition.check_expert(expert)?))
}

fn points(request: Value, ask: impl Fn(&Partition, i128) -> Result<u32, Error>) -> Answer {
    let Points { num_experts, num_ranks, strategy, ids } = read(request)?;
    if num_experts.len() != ids.len() || num_ranks.len() != ids.len() {
        return Err(Failure::of_type("num_experts, num_ranks and ids have different lengths, expected the same"));
    }
    let mut answers = Vec::with_capacity(ids.len());
    for ((num_experts, num_ranks), id) in num_experts.into_iter().zip(num_ranks).zip(ids) {
        answers.push(ask(&partition(num_experts, num_ranks, &strategy)?, id.0)?);
    }
    Ok(json!(answers))
}

fn table(
    request: Value,
    length: impl Fn(&Partition) -> u64,
    write: impl Fn(&Partition, &mut [i32]) -> Result<(), Error>,
) -> Answer {
    let partition = read::<PartitionFields>(request)?.made()?;
    filled(length(&partition), |out| write(&partition, out))
}

/// Some ranks of one partition.
#[derive(Deserialize)]
struct OfRanks {
    #[serde(flatten)]
    of: PartitionFields,
    ranks: Vec<Whole>,
    num_shared_experts: Option<Whole>,
}

fn maps(request: Value, ask: impl Fn(&Partition, u32, u32) -> Answer) -> Answer {
    let OfRanks { of, ranks, num_shared_experts } = read(request)?;
    let partition = of.made()?;
    let shared = num_shared_experts.map_or(Ok(0), |shared| NUM_SHARED_EXPERTS.check(shared.0))?;
    let one = |rank: &Whole| ask(&partition, partition.check_rank(rank.0)?, shared);
    Ok(Value::Array(ranks.iter().map(one).collect::<Result<_, Failure>>()?))
}

/// A table that is written into.
fn filled(length: u64, write: impl Fn(&mut [i32]) -> Result<(), Error>) -> Answer {
    let mut out = zeros(length);
    write(&mut out)?;
    Ok(json!(out))
}
