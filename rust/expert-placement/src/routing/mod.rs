//! From the router's top-k ids to slots, counts and offsets. SPEC.md, "Routing".

mod route;
mod rule;
mod shape;
mod split;
mod table;
mod weights;

pub use route::{Batch, ExpertId, Router, UNROUTED};
pub use shape::RoutingShape;
pub use split::Split;
