//! `expert_placement.Placement`'s compiled base, and `rebalance`. SPEC.md, "Placement" and "Rebalancing".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use expert_placement as core;
use expert_placement::limits::{NUM_EXPERTS, NUM_LAYERS, NUM_SHARED_EXPERTS};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::partition::{Device, Tensor};
use crate::topology::{self, Topology};
use crate::{argument, tensor, to_py_err};

/// The compiled base of `expert_placement.Placement`.
#[pyclass(frozen, subclass, module = "expert_placement._core")]
pub(crate) struct Placement(pub(crate) Arc<core::Placement>);

impl Placement {
    fn layer_and_rank(&self, layer: &Bound<'_, PyAny>, rank: &Bound<'_, PyAny>) -> PyResult<(usize, u32)> {
        let layers = i64::try_from(self.0.num_layers()).unwrap_or(i64::MAX);
        let layer = argument::index("layer", layer, layers)?;
        let rank = argument::index("rank", rank, self.0.num_ranks().into())?;
        Ok((usize::try_from(layer).unwrap_or(usize::MAX), u32::try_from(rank).unwrap_or(u32::MAX)))
    }

    fn area(&self, each: u64) -> u64 {
        u64::try_from(self.0.num_layers()).unwrap_or(u64::MAX).saturating_mul(each)
    }

    fn shared(value: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
        value.map_or(Ok(0), |value| argument::count(NUM_SHARED_EXPERTS, value))
    }
}

#[pymethods]
impl Placement {
    /// The same placement, as an instance of the class that is called.
    #[new]
    fn new(placement: &Bound<'_, Self>) -> Self {
        Self(Arc::clone(&placement.get().0))
    }

    /// From a flat table of `num_layers` rows.
    #[staticmethod]
    fn _from_table(
        table: &Bound<'_, PyAny>,
        num_layers: &Bound<'_, PyAny>,
        num_experts: &Bound<'_, PyAny>,
        topology: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let num_experts = argument::count(NUM_EXPERTS, num_experts)?;
        let num_layers = argument::count(NUM_LAYERS, num_layers)?;
        let topology = Topology::from_argument(topology)?;
        let elements = tensor::integers("physical_to_logical", table)?.to_elements()?;
        let layers = usize::try_from(num_layers).unwrap_or(usize::MAX);
        let width = (elements.len() / layers).max(1);
        // What no int32 holds is out of range whatever E is.
        let entry = |(place, value): (usize, i64)| {
            let refuse = |_| core::Placement::no_entry(num_experts, place / width, place % width, value.into());
            i32::try_from(value).map_err(refuse)
        };
        let table = elements.iter().enumerate().map(entry).collect::<Result<_, _>>().map_err(to_py_err)?;
        core::Placement::new(num_experts, layers, topology, table).map(|made| Self(Arc::new(made))).map_err(to_py_err)
    }

    #[staticmethod]
    fn _from_partition(partition: &Bound<'_, PyAny>, num_layers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let layers = usize::try_from(argument::count(NUM_LAYERS, num_layers)?).unwrap_or(usize::MAX);
        let made =
            core::Placement::from_partition(&argument::partition(partition)?.get().0, layers).map_err(to_py_err)?;
        Ok(Self(Arc::new(made)))
    }

    /// Number of layers, L.
    #[getter]
    fn num_layers(&self) -> usize {
        self.0.num_layers()
    }

    /// Number of logical experts, E.
    #[getter]
    fn num_experts(&self) -> u32 {
        self.0.num_experts()
    }

    /// Number of physical slots of a layer, P.
    #[getter]
    fn num_slots(&self) -> usize {
        self.0.num_slots()
    }

    /// Number of ranks, R.
    #[getter]
    fn num_ranks(&self) -> u32 {
        self.0.num_ranks()
    }

    /// Replicas of the most replicated expert of any layer, K.
    #[getter]
    fn most_replicas(&self) -> u32 {
        self.0.most_replicas()
    }

    /// The ranks.
    #[getter]
    fn topology(&self) -> Topology {
        Topology(self.0.topology().clone())
    }

    fn _physical_to_logical<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        let table = self.0.physical_to_logical();
        tensor::filled(py, u64::try_from(table.len())?, device, |out| {
            out.copy_from_slice(table);
            Ok(())
        })
    }

    fn _logical_to_physical<'py>(
        &self,
        py: Python<'py>,
        width: Option<&Bound<'py, PyAny>>,
        device: Device<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, u32)> {
        let width = match width {
            None => self.0.most_replicas(),
            Some(width) => {
                let range = self.0.most_replicas()..=NUM_EXPERTS.max();
                self.0.check_width(argument::natural("width", width, range)?.into()).map_err(to_py_err)?
            }
        };
        let length = self.area(self.0.num_experts().into()).saturating_mul(width.into());
        let table = tensor::filled(py, length, device, |out| self.0.write_logical_to_physical(width, out))?;
        Ok((table, width))
    }

    fn _replica_counts<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.area(self.0.num_experts().into()), device, |out| self.0.write_replica_counts(out))
    }

    /// Where each rank's slots begin, and P last: int32[R + 1].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn slot_offsets<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        let offsets = self.0.slot_offsets();
        tensor::filled(py, u64::try_from(offsets.len())?, device, |out| {
            for (to, from) in out.iter_mut().zip(offsets) {
                *to = i32::try_from(*from).unwrap_or(i32::MAX);
            }
            Ok(())
        })
    }

    /// The expert that each local slot of `rank` holds, or -1: int32[slots of the rank]. What a weight loader puts where.
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a layer or a rank that is no int.
    #[pyo3(signature = (layer, rank, *, device=None))]
    fn local_experts<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        let slots = self.0.local_experts(layer, rank).map_err(to_py_err)?;
        tensor::filled(py, u64::try_from(slots.len())?, device, |out| {
            out.copy_from_slice(slots);
            Ok(())
        })
    }

    /// The experts whose weights `rank` needs, ascending, each once: int32[n]. What a weight filter lets through.
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a layer or a rank that is no int.
    #[pyo3(signature = (layer, rank, *, device=None))]
    fn experts_to_load<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        let experts = self.0.experts_to_load(layer, rank).map_err(to_py_err)?;
        tensor::filled(py, u64::try_from(experts.len())?, device, |out| {
            out.copy_from_slice(&experts);
            Ok(())
        })
    }

    /// The index map of `rank`: int32[E], the first local slot of each expert that it holds, -1 elsewhere.
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a layer or a rank that is no int.
    #[pyo3(signature = (layer, rank, *, device=None))]
    fn expert_map<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        tensor::filled(py, self.0.num_experts().into(), device, |out| self.0.write_expert_map(layer, rank, out))
    }

    /// The index map with S fused shared experts appended, which `rank` holds in the local slots after its own:
    /// int32[E + S].
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: a layer, a rank or an S that is no int.
    #[pyo3(signature = (layer, rank, num_shared_experts, *, device=None))]
    fn expert_map_with_shared<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        num_shared_experts: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        let shared = argument::count(NUM_SHARED_EXPERTS, num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)?;
        tensor::filled(py, length, device, |out| self.0.write_expert_map_with_shared(layer, rank, shared, out))
    }

    /// The index map and one more entry, -1: int32[E + 1].
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a layer or a rank that is no int.
    #[pyo3(signature = (layer, rank, *, device=None))]
    fn expert_map_with_sentinel<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        let length = u64::from(self.0.num_experts()) + 1;
        tensor::filled(py, length, device, |out| self.0.write_expert_map_with_sentinel(layer, rank, out))
    }

    /// The 0/1 mask of `rank`: int32[E + S + 1], 1 for each expert that it holds and each shared one, a trailing 0.
    ///
    /// Args:
    ///     layer: a layer in 0..L.
    ///     rank: a rank in 0..R.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E; 0 without other word.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `layer` or `rank` out of range.
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: a layer, a rank or an S that is no int.
    #[pyo3(signature = (layer, rank, num_shared_experts=None, *, device=None))]
    fn expert_mask<'py>(
        &self,
        py: Python<'py>,
        layer: &Bound<'py, PyAny>,
        rank: &Bound<'py, PyAny>,
        num_shared_experts: Option<&Bound<'py, PyAny>>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let (layer, rank) = self.layer_and_rank(layer, rank)?;
        let shared = Self::shared(num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)? + 1;
        tensor::filled(py, length, device, |out| self.0.write_expert_mask(layer, rank, shared, out))
    }

    fn _rank_loads<'py>(&self, py: Python<'py>, loads: &Bound<'py, PyAny>, windows: usize) -> Tensor<'py> {
        let loads = self.loads(loads, windows)?;
        let values = py.detach(|| self.0.rank_loads(&loads)).map_err(to_py_err)?;
        tensor::doubles(py, &values)
    }

    /// For each layer how many experts come to a rank that did not hold them in `previous`.
    ///
    /// Where a rank held an expert n times and holds it m times now, that is max(m - n, 0). Experts that no rank in service
    /// holds any more are counted too, though no migration can bring them.
    ///
    /// Args:
    ///     previous: a placement of as many layers, experts and ranks.
    ///
    /// Raises:
    ///     ValueError: a placement of other numbers.
    ///     TypeError: something that is no placement.
    fn moves_from(&self, py: Python<'_>, previous: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
        let previous = shared("previous", previous)?;
        py.detach(|| self.0.moves_from(&previous)).map_err(to_py_err)
    }

    fn _off_node(
        &self,
        py: Python<'_>,
        loads: &Bound<'_, PyAny>,
        windows: usize,
        num_groups: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<f64>> {
        let num_groups = argument::num_groups(num_groups, self.0.num_experts())?;
        let loads = self.loads(loads, windows)?;
        py.detach(|| self.0.off_node_fractions(&loads, num_groups)).map_err(to_py_err)
    }

    /// One tuple a layer: mean, largest, busiest rank, lower bound, what the bound follows from, balancedness, gap.
    fn _report(&self, py: Python<'_>, loads: &Bound<'_, PyAny>, windows: usize) -> PyResult<Vec<Report>> {
        let loads = self.loads(loads, windows)?;
        let reports = py.detach(|| self.0.report(&loads)).map_err(to_py_err)?;
        let row = |report: core::LayerReport| {
            let scores = (report.balancedness(), report.gap());
            (
                report.mean,
                report.largest,
                report.busiest_rank,
                report.lower_bound,
                report.bound.name(),
                scores.0,
                scores.1,
            )
        };
        Ok(reports.into_iter().map(row).collect())
    }

    /// The balancedness of a mean time and the largest, or of sums of them over layers: mean / largest, at most 1, and 1
    /// without any load.
    ///
    /// Args:
    ///     mean: the mean time of the ranks, or the sum of these.
    ///     largest: the largest time of a rank, or the sum of these.
    ///
    /// Raises:
    ///     ValueError: a number that is negative or not finite.
    ///     TypeError: something that is no number.
    #[staticmethod]
    fn balancedness_of(mean: &Bound<'_, PyAny>, largest: &Bound<'_, PyAny>) -> PyResult<f64> {
        let time = |parameter: &str, value: &Bound<'_, PyAny>| match argument::number(parameter, value)? {
            time if time.is_finite() && time >= 0.0 => Ok(time),
            time => {
                let text = format!("{parameter}={time} is out of range, expected a finite number of at least 0");
                Err(PyValueError::new_err(text))
            }
        };
        Ok(core::LayerReport::balancedness_of(time("mean", mean)?, time("largest", largest)?))
    }

    fn _balancedness(&self, py: Python<'_>, loads: &Bound<'_, PyAny>, windows: usize) -> PyResult<f64> {
        let loads = self.loads(loads, windows)?;
        py.detach(|| self.0.balancedness(&loads)).map_err(to_py_err)
    }

    /// A stable hash of the content, for ranks that compare what they hold: a version and a SHA-256, 66 hexadecimal
    /// digits. It covers E, the table and the slots of the ranks, not nodes, speeds or activity.
    fn digest(&self) -> String {
        self.0.digest()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| *self.0 == *other.get().0)
    }

    fn __hash__(&self) -> u64 {
        // The first bits of the digest: equal placements have equal ones.
        self.0.digest().get(2..18).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
    }
}

type Report = (f64, f64, u32, f64, &'static str, f64, f64);

impl Placement {
    pub(crate) fn loads(&self, bits: &Bound<'_, PyAny>, windows: usize) -> PyResult<core::Loads> {
        let experts = usize::try_from(self.0.num_experts()).unwrap_or(usize::MAX);
        read_loads(bits, windows, self.0.num_layers(), experts)
    }
}

/// Loads from the bits of a float64 array.
pub(crate) fn read_loads(
    bits: &Bound<'_, PyAny>,
    windows: usize,
    layers: usize,
    experts: usize,
) -> PyResult<core::Loads> {
    core::Loads::new(windows, layers, experts, tensor::floats("loads", bits)?).map_err(to_py_err)
}

/// The options that every plan has.
pub(crate) fn options_from<'a>(
    num_experts: usize,
    policy: &Bound<'_, PyAny>,
    num_groups: &Bound<'_, PyAny>,
    max_off_node: Option<&Bound<'_, PyAny>>,
    num_threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<core::Options<'a>> {
    let mut options = core::Options::default();
    options.policy = match policy.cast::<PyString>() {
        Ok(name) => name.to_string_lossy().parse().map_err(to_py_err)?,
        Err(_) => return Err(argument::wrong_type("policy", "a str", policy)),
    };
    options.num_groups = argument::num_groups(num_groups, u32::try_from(num_experts).unwrap_or(u32::MAX))?;
    options.max_off_node = max_off_node.map(|part| argument::number("max_off_node", part)).transpose()?;
    options.num_threads = topology::num_threads(num_threads)?;
    Ok(options)
}

/// Plans a placement; the loads are the bits of a float64 array of `shape`, windows x layers x experts.
#[pyfunction]
#[pyo3(signature = (loads, shape, num_slots, topology, policy, num_groups, previous, max_moves, min_gain, max_off_node, active, num_threads))]
#[expect(clippy::too_many_arguments, reason = "the public function gives names to all of them")]
pub(crate) fn _rebalance(
    py: Python<'_>,
    loads: &Bound<'_, PyAny>,
    shape: (usize, usize, usize),
    num_slots: &Bound<'_, PyAny>,
    topology: &Bound<'_, PyAny>,
    policy: &Bound<'_, PyAny>,
    num_groups: &Bound<'_, PyAny>,
    previous: Option<&Bound<'_, PyAny>>,
    max_moves: Option<&Bound<'_, PyAny>>,
    min_gain: Option<&Bound<'_, PyAny>>,
    max_off_node: Option<&Bound<'_, PyAny>>,
    active: Option<&Bound<'_, PyAny>>,
    num_threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<Placement> {
    let slots = argument::count(core::limits::NUM_SLOTS, num_slots)?;
    let topology = topology::with_active(Topology::from_argument(topology)?, active)?;
    let mut options = options_from(shape.2, policy, num_groups, max_off_node, num_threads)?;
    let previous = previous.map(|previous| shared("previous", previous)).transpose()?;
    options.previous = previous.as_deref();
    options.max_moves = argument::optional_count(core::limits::MAX_MOVES, max_moves)?.map(u64::from);
    options.min_gain = min_gain.map(|gain| argument::number("min_gain", gain)).transpose()?;
    let loads = read_loads(loads, shape.0, shape.1, shape.2)?;
    let work = shape.0.saturating_mul(shape.1).saturating_mul(usize::try_from(slots)?);
    let made = if work < LONG_WORK && options.previous.is_none() {
        py.detach(|| core::rebalance(&loads, slots.into(), &topology, &options))
    } else {
        interruptible(py, |stop| {
            let mut options = options;
            options.stop = Some(stop);
            core::rebalance(&loads, slots.into(), &topology, &options)
        })?
    };
    Ok(Placement(Arc::new(made.map_err(to_py_err)?)))
}

/// From so many slots of all layers and windows on, a plan from nothing takes longer than a thread takes to start.
const LONG_WORK: usize = 1 << 15;

/// How long a signal may wait until it is looked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Works in a thread of its own, and looks for signals here: Ctrl-C, or another signal whose handler raises, ends it.
pub(crate) fn interruptible<T: Send>(py: Python<'_>, work: impl FnOnce(&AtomicBool) -> T + Send) -> PyResult<T> {
    let is_stopped = AtomicBool::new(false);
    let stop = &is_stopped;
    py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || {
                // Nobody listens any more where a signal came, and what was made is dropped.
                let _ = sender.send(work(stop));
            });
            loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(made) => return Ok(made),
                    Err(RecvTimeoutError::Timeout) => {
                        #[expect(
                            clippy::redundant_closure_for_method_calls,
                            reason = "the method is of one lifetime alone"
                        )]
                        let signals = Python::attach(|py| py.check_signals());
                        if let Err(error) = signals {
                            stop.store(true, Ordering::Relaxed);
                            return Err(error);
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(PyRuntimeError::new_err("the thread that planned ended without a plan"));
                    }
                }
            }
        })
    })
}

/// The placement of an argument.
pub(crate) fn shared(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Arc<core::Placement>> {
    match value.cast::<Placement>() {
        Ok(placement) => Ok(Arc::clone(&placement.get().0)),
        Err(_) => Err(argument::wrong_type(parameter, "a Placement", value)),
    }
}
