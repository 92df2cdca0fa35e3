//! `expert_placement.Topology`. SPEC.md, "Topology".

#![expect(clippy::doc_markdown, reason = "docstrings are Python's, whose tools read names without backticks")]

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use expert_placement as core;
use expert_placement::limits::{NUM_RANKS, SLOTS_PER_RANK};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::{argument, tensor, to_py_err};

/// Ranks, the nodes that they are on, and what each can hold.
///
/// Ranks are dealt to nodes in consecutive blocks, as equal as can be. An immutable value: hashable, comparable and
/// picklable.
///
/// Args:
///     num_ranks: number of ranks, R, in 1..=2**31 - 1.
///     num_nodes: number of nodes, in 1..=R.
///     slots_per_rank: how many physical slots each rank has: one int, or R of them. Without it the slots of a placement
///         are themselves a linear partition over the ranks.
///     speeds: R numbers in 1e-6..=1e6: how much load each rank carries in the same time, relative to the others.
///     active: R bools: which ranks are in service. The slots of the others stay empty.
///
/// Raises:
///     ValueError: a number out of range, a list of another length than R, or no active rank.
///     TypeError: something that is no number where one is wanted.
#[pyclass(frozen, eq, module = "expert_placement")]
#[derive(Clone, PartialEq)]
pub(crate) struct Topology(pub(crate) core::Topology);

#[pymethods]
impl Topology {
    #[new]
    #[pyo3(signature = (num_ranks, num_nodes=None, slots_per_rank=None, speeds=None, active=None),
           text_signature = "(num_ranks, num_nodes=1, slots_per_rank=None, speeds=None, active=None)")]
    fn new(
        num_ranks: &Bound<'_, PyAny>,
        num_nodes: Option<&Bound<'_, PyAny>>,
        slots_per_rank: Option<&Bound<'_, PyAny>>,
        speeds: Option<&Bound<'_, PyAny>>,
        active: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let ranks = argument::count(NUM_RANKS, num_ranks)?;
        let nodes = num_nodes.map_or(Ok(1), |nodes| argument::natural("num_nodes", nodes, 1..=ranks))?;
        let mut topology = core::Topology::new(ranks, nodes).map_err(to_py_err)?;
        if let Some(slots) = slots_per_rank {
            topology = if argument::is_integer(slots)? {
                topology.with_slots_per_rank(argument::count(SLOTS_PER_RANK, slots)?)
            } else {
                let elements = tensor::row("slots_per_rank", slots)?.to_elements()?;
                let check = |(rank, slots): (usize, i64)| {
                    u32::try_from(slots).map_err(|_| {
                        let (least, most) = (SLOTS_PER_RANK.min(), SLOTS_PER_RANK.max());
                        let text = format!("slots_per_rank[{rank}]={slots} is out of range, expected {least}..={most}");
                        PyValueError::new_err(text)
                    })
                };
                topology.with_slots(elements.iter().enumerate().map(check).collect::<PyResult<_>>()?)
            }
            .map_err(to_py_err)?;
        }
        if let Some(speeds) = speeds {
            topology = topology.with_speeds(argument::numbers("speeds", speeds, length(ranks)?)?).map_err(to_py_err)?;
        }
        match active {
            None => Ok(Self(topology)),
            Some(_) => Ok(Self(with_active(topology, active)?)),
        }
    }

    /// Number of ranks, R.
    #[getter]
    fn num_ranks(&self) -> u32 {
        self.0.num_ranks()
    }

    /// Number of nodes.
    #[getter]
    fn num_nodes(&self) -> u32 {
        self.0.num_nodes()
    }

    /// How many slots each rank has: one int for all, one a rank, or None where a placement says it.
    #[getter]
    fn slots_per_rank<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match (self.0.slots_per_rank(), self.0.slots()) {
            (Some(each), _) => Ok(each.into_pyobject(py)?.into_any()),
            (None, Some(list)) => Ok(pyo3::types::PyTuple::new(py, list)?.into_any()),
            (None, None) => Ok(py.None().into_bound(py)),
        }
    }

    /// The relative speed of each rank; None where all are 1.
    #[getter]
    fn speeds<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, pyo3::types::PyTuple>>> {
        self.0.speeds().map(|speeds| pyo3::types::PyTuple::new(py, speeds)).transpose()
    }

    /// Which ranks are in service; None where all are.
    #[getter]
    fn active<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, pyo3::types::PyTuple>>> {
        self.0.active().map(|active| pyo3::types::PyTuple::new(py, active)).transpose()
    }

    /// The node of a rank.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     TypeError: a rank that is no int.
    fn node_of(&self, rank: &Bound<'_, PyAny>) -> PyResult<u32> {
        let rank = argument::index("rank", rank, self.0.num_ranks().into())?;
        self.0.node_of(u32::try_from(rank).unwrap_or(u32::MAX)).map_err(to_py_err)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0.num_ranks(), self.0.num_nodes(), self.0.slots(), self.0.active()).hash(&mut hasher);
        for speed in self.0.speeds().unwrap_or_default() {
            speed.to_bits().hash(&mut hasher);
        }
        hasher.finish()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let mut text = format!("Topology(num_ranks={}, num_nodes={}", slf.get().0.num_ranks(), slf.get().0.num_nodes());
        for name in ["slots_per_rank", "speeds", "active"] {
            let value = slf.getattr(name)?;
            if !value.is_none() {
                // Writing to a string does not fail.
                let _ = write!(text, ", {name}={}", value.repr()?);
            }
        }
        text.push(')');
        Ok(text)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, pyo3::types::PyTuple>)> {
        let fields = ["num_ranks", "num_nodes", "slots_per_rank", "speeds", "active"];
        let values: PyResult<Vec<_>> = fields.iter().map(|name| slf.getattr(*name)).collect();
        Ok((slf.get_type().into_any(), pyo3::types::PyTuple::new(slf.py(), values?)?))
    }
}

impl Topology {
    /// The topology of an argument, or of all equal ranks where none is given.
    pub(crate) fn from_argument(value: &Bound<'_, PyAny>) -> PyResult<core::Topology> {
        match value.cast::<Self>() {
            Ok(topology) => Ok(topology.get().0.clone()),
            Err(_) => Err(argument::wrong_type("topology", "a Topology", value)),
        }
    }
}

/// How long a list with an entry for each rank is.
fn length(num_ranks: u32) -> PyResult<usize> {
    Ok(usize::try_from(num_ranks)?)
}

/// `active=` of a call that takes a topology: the same ranks, others of them in service.
pub(crate) fn with_active(topology: core::Topology, active: Option<&Bound<'_, PyAny>>) -> PyResult<core::Topology> {
    match active {
        None => Ok(topology),
        Some(active) => {
            let ranks = length(topology.num_ranks())?;
            topology.with_active(argument::flags("active", active, ranks)?).map_err(to_py_err)
        }
    }
}

/// Refuses a number of threads below one.
pub(crate) fn num_threads(value: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let Some(value) = value else { return Ok(1) };
    Ok(usize::try_from(argument::bounded("num_threads", value, 1..=MOST_THREADS)?)?)
}

/// More threads than any machine has cores; a limit against slips of the pen.
const MOST_THREADS: u32 = 4096;
