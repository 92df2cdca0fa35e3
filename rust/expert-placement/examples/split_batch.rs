//! A small serving component: splits a batch of routed tokens by the rank that owns each expert.
//!
//!     cargo run --example split_batch -- [RANKS [CONFIG_JSON [BATCH_JSON]]]
//!
//! It reads a published model's `config.json` and the top-k expert ids of a batch of tokens, and prints for each rank
//! how many routed ids it gets and where they begin in the send buffer, as an uneven all-to-all needs them. Without
//! arguments it takes OLMoE-1B-7B, 6 ranks, and the batch beside this repository's examples.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::{env, fs};

use expert_placement::{Partition, Strategy};
use serde::Deserialize;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/olmoe-1b-7b");

/// The one figure needed of the model; engines know more names for it, and the Python package reads them all.
#[derive(Deserialize)]
struct Config {
    #[serde(alias = "num_local_experts", alias = "n_routed_experts", alias = "moe_num_experts")]
    num_experts: u32,
}

/// The router's choice for every token of a batch.
#[derive(Deserialize)]
struct Batch {
    topk_ids: Vec<Vec<i32>>,
}

/// Where each rank's part of the send buffer begins and how long it is, and the routed ids in that order.
struct Split {
    counts: Vec<usize>,
    offsets: Vec<usize>,
    /// (token, local expert on the owning rank), grouped by rank, in token order within a rank.
    send: Vec<(usize, u32)>,
}

fn split(partition: &Partition, batch: &Batch) -> Result<Split, expert_placement::Error> {
    let ranks = usize::try_from(partition.num_ranks()).unwrap_or(usize::MAX);
    let mut by_rank: Vec<Vec<(usize, u32)>> = vec![Vec::new(); ranks];
    for (token, experts) in batch.topk_ids.iter().enumerate() {
        for &expert in experts {
            let expert = partition.check_expert(i128::from(expert))?;
            let owner = usize::try_from(partition.owner(expert)?).unwrap_or(usize::MAX);
            if let Some(part) = by_rank.get_mut(owner) {
                part.push((token, partition.local_index(expert)?));
            }
        }
    }
    let counts: Vec<usize> = by_rank.iter().map(Vec::len).collect();
    let offsets = counts
        .iter()
        .scan(0, |next, count| {
            let offset = *next;
            *next += count;
            Some(offset)
        })
        .collect();
    Ok(Split { counts, offsets, send: by_rank.concat() })
}

fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let ranks = arguments.next().map_or(Ok(6), |text| text.parse())?;
    let config_path = arguments.next().unwrap_or_else(|| format!("{DATA}/config.json"));
    let batch_path = arguments.next().unwrap_or_else(|| format!("{DATA}/topk_ids.json"));

    let config: Config = serde_json::from_str(&fs::read_to_string(&config_path)?)?;
    let batch: Batch = serde_json::from_str(&fs::read_to_string(&batch_path)?)?;
    let partition = Partition::new(config.num_experts, ranks, Strategy::Linear)?;
    let split = split(&partition, &batch)?;

    writeln!(out, "{} experts over {ranks} ranks, {} tokens", config.num_experts, batch.topk_ids.len())?;
    writeln!(out, "rank  experts    count  offset")?;
    for ((rank, count), offset) in (0..ranks).zip(&split.counts).zip(&split.offsets) {
        let experts = partition.experts(rank)?;
        let end = experts.start() + experts.remaining();
        writeln!(out, "{rank:>4}  {:>3}..{end:<4}  {count:>6}  {offset:>6}", experts.start())?;
    }
    let first = split.send.first().map_or_else(
        || "the batch is empty".to_owned(),
        |(token, local)| format!("the send buffer begins with token {token} for local expert {local} of its rank"),
    );
    writeln!(out, "{first}, and holds {} routed ids", split.send.len())?;
    Ok(())
}

fn main() -> ExitCode {
    match run(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
