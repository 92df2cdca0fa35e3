//! Answers the specification's line protocol with this crate: one JSON object a line on standard input, one a line on
//! standard output, as `spec/PROTOCOL.md` says.
//!
//!     cargo build -p expert-placement --release --example conformance
//!     expert-placement-spec check --profile small --command target/release/examples/conformance
//!
//! Other programs can be checked in the same way. This one offers everything that there is.

mod answering;
mod fields;
mod migration;
mod partition;
mod placement;
mod planning;
mod routing;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use answering::{Answer, Failure};

/// The version of the protocol that is spoken here.
const PROTOCOL: u32 = 1;

/// Options of calls, beside the calls themselves.
const OPTIONS: [&str; 13] = [
    "rebalance(previous)",
    "rebalance(max_moves)",
    "rebalance(min_gain)",
    "rebalance(max_off_node)",
    "rebalance(num_threads)",
    "capacity_curve(max_off_node)",
    "least_slots(max_off_node)",
    "plan_migration(max_node_transfers)",
    "plan_migration(max_staged)",
    "routing_tables(max_slots)",
    "routing_tables(weights)",
    "routing_tables(sender)",
    "routing_tables(updates)",
];

/// What answers a call; the request is given whole.
type Handler = fn(Value) -> Answer;

/// Every call that is offered, by name.
fn handlers() -> impl Iterator<Item = (&'static str, Handler)> {
    let chapters: [&'static [(&'static str, Handler)]; 5] =
        [&partition::CALLS, &placement::CALLS, &planning::CALLS, &migration::CALLS, &routing::CALLS];
    chapters.into_iter().flatten().copied()
}

fn hello() -> Value {
    let calls = handlers().map(|(name, _)| name);
    let offers: Vec<&str> = calls.chain(migration::FIELDS).chain(OPTIONS).collect();
    json!({ "protocol": PROTOCOL, "name": concat!("expert-placement ", env!("CARGO_PKG_VERSION")), "offers": offers })
}

fn answer(call: &str, request: Value) -> Answer {
    if call == "hello" {
        return Ok(hello());
    }
    let named = handlers().find(|(name, _)| *name == call);
    let (_, handler) = named.ok_or_else(|| Failure::of_type(format!("call=`{call}` is unknown")))?;
    handler(request)
}

/// What is said to one line.
fn reply(line: &str) -> Result<Value, serde_json::Error> {
    let request: Value = serde_json::from_str(line)?;
    let id = request.get("id").cloned().unwrap_or_default();
    let call = request.get("call").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match answer(&call, request) {
        Ok(answer) => json!({ "id": id, "answer": answer }),
        Err(Failure { kind, message }) => json!({ "id": id, "error": { "kind": kind, "message": message } }),
    })
}

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let said = line.and_then(|line| {
            writeln!(out, "{}", reply(&line)?)?;
            out.flush()
        });
        match said {
            Ok(()) => {}
            // Whoever asked has gone away.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
