//! What is recorded is what is answered, with any number of threads: a changed plan is a change that somebody made.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::recorded;

const RECORDED: &str = include_str!("recorded/answers.txt");

/// Domain: the plans, migrations, routes and refusals of `recorded/mod.rs`, with 1 and 2 threads.
#[test]
fn answers_are_those_recorded() {
    for num_threads in [1, 2] {
        let answers = recorded::answers(num_threads).unwrap();
        for (answer, expected) in answers.iter().zip(RECORDED.lines()) {
            assert_eq!(answer, expected, "{num_threads} threads");
        }
        assert_eq!(answers.len(), RECORDED.lines().count());
    }
}
