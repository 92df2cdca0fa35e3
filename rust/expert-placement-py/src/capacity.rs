//! `capacity_curve`'s and `least_slots`' compiled half. SPEC.md, "Capacity".

use std::num::NonZeroU64;

use expert_placement as core;
use pyo3::prelude::*;

use crate::placement::{interruptible, options_from, read_loads};
use crate::topology::Topology;
use crate::{argument, to_py_err};

/// Slots, balancedness, and the most that any placement reaches.
type Row = (u64, f64, f64);

fn row(found: &core::Capacity) -> Row {
    (found.num_slots, found.balancedness, found.most)
}

/// What one number of slots makes of the loads.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the public function gives names to all of them")]
pub(crate) fn _capacity(
    py: Python<'_>,
    loads: &Bound<'_, PyAny>,
    shape: (usize, usize, usize),
    num_slots: &Bound<'_, PyAny>,
    topology: &Bound<'_, PyAny>,
    policy: &Bound<'_, PyAny>,
    num_groups: &Bound<'_, PyAny>,
    max_off_node: Option<&Bound<'_, PyAny>>,
    num_threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<Row> {
    let slots = argument::count(core::limits::NUM_SLOTS, num_slots)?;
    let topology = Topology::from_argument(topology)?;
    let options = options_from(shape.2, policy, num_groups, max_off_node, num_threads)?;
    let loads = read_loads(loads, shape.0, shape.1, shape.2)?;
    let found = interruptible(py, |stop| {
        let mut options = options;
        options.stop = Some(stop);
        core::capacity(&loads, slots.into(), &topology, &options)
    })?;
    found.map(|found| row(&found)).map_err(to_py_err)
}

/// The least number of slots that is balanced enough.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the public function gives names to all of them")]
pub(crate) fn _least_slots(
    py: Python<'_>,
    loads: &Bound<'_, PyAny>,
    shape: (usize, usize, usize),
    balancedness: &Bound<'_, PyAny>,
    topology: &Bound<'_, PyAny>,
    policy: &Bound<'_, PyAny>,
    num_groups: &Bound<'_, PyAny>,
    max_slots: Option<&Bound<'_, PyAny>>,
    step: Option<&Bound<'_, PyAny>>,
    max_off_node: Option<&Bound<'_, PyAny>>,
    num_threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<Row> {
    let wanted = argument::number("balancedness", balancedness)?;
    let topology = Topology::from_argument(topology)?;
    let options = options_from(shape.2, policy, num_groups, max_off_node, num_threads)?;
    let loads = read_loads(loads, shape.0, shape.1, shape.2)?;
    let mut search = core::Search::default();
    search.max_slots = argument::optional_count(core::limits::MAX_SLOTS, max_slots)?.map(u64::from);
    let step = argument::optional_count(core::limits::SLOTS_STEP, step)?;
    search.step = step.and_then(|step| NonZeroU64::new(step.into()));
    let found = interruptible(py, |stop| {
        let mut options = options;
        options.stop = Some(stop);
        core::least_slots(&loads, wanted, search, &topology, &options, |_: &core::Capacity| Ok::<_, core::Error>(()))
    })?;
    found.map(|found| row(&found)).map_err(to_py_err)
}
