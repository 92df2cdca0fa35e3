//! Which rank owns which expert: the single source of truth for mixture-of-experts placement.
//!
//! A mixture-of-experts model has E experts and runs on R ranks. A [`Partition`] says, in constant time and without
//! memory, how many experts each rank owns, where they start, who owns an expert and where it stands in its owner's
//! own numbering. The rule is balanced: 30 experts over 8 ranks are `4 4 4 4 4 4 3 3`.
//!
//! ```
//! use expert_placement::{Partition, Strategy};
//!
//! let partition = Partition::new(30, 8, Strategy::Linear)?;
//!
//! let mut counts = [0; 8];
//! partition.write_counts(&mut counts)?;
//! assert_eq!(counts, [4, 4, 4, 4, 4, 4, 3, 3]);
//!
//! // Expert 25 is the second expert of rank 6.
//! assert_eq!((partition.owner(25)?, partition.local_index(25)?), (6, 1));
//!
//! // Wrong input is an error that names the parameter, the value and the range.
//! let error = partition.count(8).unwrap_err();
//! assert_eq!(error.to_string(), "rank=8 is out of range, expected 0..8");
//! # Ok::<(), expert_placement::Error>(())
//! ```
//!
//! Tables are written into slices that the caller owns ([`Partition::write_expert_map`] and its neighbours), so a
//! serving component allocates nothing. Everything constant-time is `const`, and works at compile time:
//!
//! ```
//! use expert_placement::{Partition, Strategy};
//!
//! const LAST_START: u32 = match Partition::new(256, 72, Strategy::Linear) {
//!     Ok(partition) => match partition.start(71) {
//!         Ok(start) => start,
//!         Err(_) => panic!("rank out of range"),
//!     },
//!     Err(_) => panic!("partition out of range"),
//! };
//! assert_eq!(LAST_START, 253);
//! ```
//!
//! # Placements
//!
//! With replicas, a [`Placement`] says which expert each physical slot of each layer holds. [`rebalance`] plans one for
//! measured [`Loads`], from nothing or from the placement that is there with a budget of moves, and [`plan_migration`] says
//! how the weights get from one to the next:
//!
//! ```
//! # #[cfg(feature = "placement")] {
//! use expert_placement::{Loads, Options, Topology, plan_migration, rebalance};
//!
//! // One window, one layer, eight experts; sixteen slots on eight ranks.
//! let loads = Loads::new(1, 1, 8, vec![600.0, 560.0, 120.0, 120.0, 20.0, 10.0, 10.0, 10.0])?;
//! let topology = Topology::new(8, 1)?;
//! let plan = rebalance(&loads, 16, &topology, &Options::default())?;
//! let report = plan.report(&loads)?[0];
//! assert!((report.largest - 590.0 / 3.0).abs() < 1e-9 && report.gap() < 0.09);
//!
//! // Later the loads have changed, and three experts may move.
//! let later = Loads::new(1, 1, 8, vec![500.0, 700.0, 100.0, 120.0, 30.0, 10.0, 10.0, 20.0])?;
//! let mut options = Options::default();
//! options.previous = Some(&plan);
//! options.max_moves = Some(3);
//! let next = rebalance(&later, 16, &topology, &options)?;
//! assert!(next.moves_from(&plan)?[0] <= 3 && next.balancedness(&later)? >= plan.balancedness(&later)?);
//!
//! // Batches in which no rank sends twice or receives twice, in the least number.
//! let migration = plan_migration(&plan, &next)?;
//! assert!(migration.is_interruption_safe());
//! # }
//! # Ok::<(), expert_placement::Error>(())
//! ```
//!
//! # Features
//! - `placement` (default): placements with replicas, balancing and migration; implies `std`, and brings `rayon` and
//!   `sha2`.
//! - `std` (default): implies `alloc`.
//! - `alloc`: [`ExpertMap`], which reads the four representations in use, and [`legal_ranks`].
//!
//! Without features the crate needs neither `std` nor a heap, and it has no dependencies.

#![forbid(unsafe_code)]
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions,
        reason = "a test stops at the first thing that is not as it should be"
    )
)]

mod arithmetic;
#[cfg(feature = "placement")]
mod balance;
mod batch;
#[cfg(feature = "placement")]
mod capacity;
#[cfg(feature = "placement")]
mod coloring;
mod error;
#[cfg(feature = "alloc")]
mod expert_map;
#[cfg(feature = "alloc")]
mod legal_ranks;
pub mod limits;
#[cfg(feature = "placement")]
mod loads;
#[cfg(feature = "placement")]
mod migration;
mod partition;
#[cfg(feature = "placement")]
mod placement;
#[cfg(feature = "placement")]
mod refusal;
#[cfg(feature = "placement")]
mod report;
#[cfg(feature = "placement")]
mod routing;
#[cfg(feature = "placement")]
mod topology;

#[cfg(test)]
mod laws;

/// The examples of the crate's README, compiled and run as documentation tests.
#[cfg(all(doctest, feature = "placement"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "placement")]
pub use balance::{MAX_OFF_NODE, Options, Policy, rebalance};
pub use batch::{ABSENT, with_redundant_experts};
#[cfg(feature = "placement")]
pub use capacity::{Capacity, Search, capacity, least_slots};
pub use error::{Error, Printable};
#[cfg(feature = "alloc")]
pub use expert_map::ExpertMap;
#[cfg(feature = "alloc")]
pub use legal_ranks::legal_ranks;
#[cfg(feature = "placement")]
pub use loads::Loads;
#[cfg(feature = "placement")]
pub use migration::{Migration, MigrationLimits, Move, Traffic, plan_migration, plan_migration_within};
pub use partition::{Experts, Partition, Strategy};
#[cfg(feature = "placement")]
pub use placement::{EMPTY, Placement};
#[cfg(feature = "placement")]
pub use report::{Bound, LayerReport};
#[cfg(feature = "placement")]
pub use routing::{Batch, ExpertId, Router, RoutingShape, Split, UNROUTED};
#[cfg(feature = "placement")]
pub use topology::Topology;
