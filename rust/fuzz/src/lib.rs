//! Fuzz targets of `expert-placement`: whatever bytes come, the crate answers as a plain reference does, or refuses.
//!
//! A target is a function of bytes. It makes a small case of them, asks the crate, and panics where an answer is not as it
//! should be. libFuzzer calls the targets through `fuzz_targets`; the tests call the same functions on the files of `corpus`.
//! The references are written from SPEC.md, without a look at how the crate does it.

#![forbid(unsafe_code)]
#![allow(
    clippy::as_conversions,
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "cases are small, and a target stops at the first surprise"
)]

mod input;
pub mod migrations;
pub mod partition;
pub mod placement;
pub mod plans;
mod ranks;
pub mod readers;
pub mod routing;
mod tables;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The crate had an answer, and it was checked.
    Answered,
    /// The crate refused the case, as it should.
    Refused,
}

/// A target, and the name that its module, its binary and its folder in `corpus` have.
pub type Target = (&'static str, fn(&[u8]) -> Outcome);

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("partition", partition::run),
    ("placement", placement::run),
    ("routing", routing::run),
    ("plans", plans::run),
    ("migrations", migrations::run),
    ("readers", readers::run),
];

/// Stops with the case where a check failed; libFuzzer takes a panic for a finding.
fn report(case: &dyn std::fmt::Debug, checked: Result<(), String>) {
    if let Err(broken) = checked {
        panic!("{broken}: {case:?}");
    }
}

/// Whether two numbers are equal but for rounding: they differ by at most a part in 10^9.
fn is_close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
}

/// That a law holds of a case, or its name.
fn law(name: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(name.to_owned()) }
}
