//! The Python binding of `expert-placement`: names, conversions and hand-over, and no rule of its own.
//!
//! The module is `expert_placement._core`; users import `expert_placement`, whose stub documents it.

#![allow(clippy::doc_markdown, reason = "the documentation of a class or a method is its docstring in Python")]

mod argument;
mod capacity;
mod dlpack;
mod expert_map;
mod migration;
mod partition;
mod placement;
mod routing;
mod tensor;
mod topology;
mod vllm;

use pyo3::prelude::*;

/// The compiled core of `expert_placement`.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use crate::capacity::{_capacity, _least_slots};
    #[pymodule_export]
    use crate::dlpack::Int32Exporter;
    #[pymodule_export]
    use crate::expert_map::ExpertMap;
    #[pymodule_export]
    use crate::migration::{_plan_migration, Migration};
    #[pymodule_export]
    use crate::partition::Partition;
    #[pymodule_export]
    use crate::placement::{_rebalance, Placement};
    #[pymodule_export]
    use crate::routing::{_route, _routing_shape, _routing_tables, _split};
    #[pymodule_export]
    use crate::tensor::_expect_dense;
    #[pymodule_export]
    use crate::topology::Topology;
    #[pymodule_export]
    use crate::vllm::_vllm_partition;

    /// The strategies' names, in the order in which messages list them.
    #[pymodule_export]
    const STRATEGIES: (&str, &str, &str) = {
        assert!(expert_placement::Strategy::ALL.len() == 3, "each strategy is named here");
        match expert_placement::Strategy::ALL {
            [linear, round_robin, proportional, ..] => (linear.name(), round_robin.name(), proportional.name()),
            _ => ("", "", ""),
        }
    };

    /// The policies' names, the default first.
    #[pymodule_export]
    const POLICIES: (&str, &str) = {
        assert!(expert_placement::Policy::ALL.len() == 2, "each policy is named here");
        match expert_placement::Policy::ALL {
            [balanced, deepseek, ..] => (balanced.name(), deepseek.name()),
            _ => ("", ""),
        }
    };

    /// The version of the crate and the wheel.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// The largest legal `num_experts` and `num_ranks`.
    #[pymodule_export]
    const MAX_NUM_EXPERTS: u32 = expert_placement::limits::NUM_EXPERTS.max();

    /// The most slots that a routing table has room for.
    #[pymodule_export]
    const MAX_ROUTED_SLOTS: u32 = expert_placement::limits::NUM_ROUTED_SLOTS.max();

    /// The most ids that are routed at once.
    #[pymodule_export]
    const MAX_ROUTED_IDS: u32 = expert_placement::limits::NUM_ROUTED_IDS.max();

    /// E + n: how many experts are divided where n redundant ones are added to a model's own.
    #[pyfunction]
    fn with_redundant_experts(num_experts: u32, num_redundant_experts: &Bound<'_, PyAny>) -> PyResult<u32> {
        let redundant = crate::argument::count(expert_placement::limits::NUM_REDUNDANT_EXPERTS, num_redundant_experts)?;
        expert_placement::with_redundant_experts(num_experts, redundant).map_err(crate::to_py_err)
    }

    /// What a bug report should say about this build: version, profile and how tensors are handed over.
    #[pyfunction]
    fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let info = PyDict::new(py);
        info.set_item("version", VERSION)?;
        info.set_item("python_abi", "abi3-py310")?;
        info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
        info.set_item("tensor_hand_over", crate::tensor::hand_over_in_use(py))?;
        Ok(info)
    }
}

/// The crate's one error type as Python's two: a rank or an expert out of range is an `IndexError`.
fn to_py_err(error: expert_placement::Error) -> PyErr {
    use pyo3::exceptions::{PyIndexError, PyMemoryError, PyValueError};
    if error.is_out_of_memory() {
        PyMemoryError::new_err(error.to_string())
    } else if error.is_no_such_id() {
        PyIndexError::new_err(error.to_string())
    } else {
        PyValueError::new_err(error.to_string())
    }
}
