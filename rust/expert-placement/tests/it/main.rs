//! The crate through its public names, in one program: linking is what takes time.

#[cfg(feature = "placement")]
mod answers;
#[cfg(feature = "placement")]
mod balance;
#[cfg(feature = "placement")]
mod nodes;
#[cfg(feature = "placement")]
mod packing;
#[cfg(feature = "alloc")]
mod partition;
#[cfg(feature = "placement")]
mod recorded;
#[cfg(feature = "placement")]
mod recorded_answers;
#[cfg(feature = "placement")]
mod refinement;
#[cfg(feature = "placement")]
mod refusals;
#[cfg(feature = "placement")]
mod routing;
#[cfg(feature = "placement")]
mod topology;
#[cfg(feature = "placement")]
mod vectors;
