//! Prints answers to cases that are made the same everywhere, so that builds can be compared with what is recorded.
//!
//! A plan is a function of its arguments alone. `make determinism` runs this as it is built for debugging and for release,
//! for any CPU and for this one with everything that it can do, without vector instructions, and with one thread and more.

#[path = "../tests/it/recorded.rs"]
mod recorded;

fn main() -> Result<(), expert_placement::Error> {
    let num_threads = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(1);
    for line in recorded::answers(num_threads)? {
        println!("{line}");
    }
    Ok(())
}
