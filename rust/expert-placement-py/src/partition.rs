//! `expert_placement.Partition`'s compiled base. SPEC.md, "Partition".

use expert_placement as core;
use expert_placement::limits::{MAX_RANKS, NUM_EXPERTS, NUM_RANKS, NUM_SHARED_EXPERTS};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyRange, PyString};

use crate::argument::StrategyArgument;
use crate::dlpack::Elements;
use crate::expert_map::shared_or_none;
use crate::{argument, tensor, to_py_err};

/// The compiled base of `expert_placement.Partition`.
#[pyclass(frozen, eq, hash, subclass, module = "expert_placement._core")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Partition(pub(crate) core::Partition);

pub(crate) type Device<'a, 'py> = Option<&'a Bound<'py, PyAny>>;
pub(crate) type Tensor<'py> = PyResult<Bound<'py, PyAny>>;

#[pymethods]
impl Partition {
    #[new]
    #[pyo3(
        signature = (num_experts, num_ranks, strategy=StrategyArgument::default()),
        text_signature = "(num_experts, num_ranks, strategy='linear')"
    )]
    fn new(num_experts: &Bound<'_, PyAny>, num_ranks: &Bound<'_, PyAny>, strategy: StrategyArgument) -> PyResult<Self> {
        let num_experts = argument::count(NUM_EXPERTS, num_experts)?;
        let num_ranks = argument::count(NUM_RANKS, num_ranks)?;
        core::Partition::new(num_experts, num_ranks, strategy.checked()?).map(Self).map_err(to_py_err)
    }

    /// Number of experts, E.
    #[getter]
    fn num_experts(&self) -> u32 {
        self.0.num_experts()
    }

    /// Number of ranks, R.
    #[getter]
    fn num_ranks(&self) -> u32 {
        self.0.num_ranks()
    }

    /// The name of the rule by which experts are dealt to ranks.
    #[getter]
    fn strategy<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, self.0.strategy().name())
    }

    /// Whether every rank's experts are consecutive ids.
    #[getter]
    fn is_contiguous(&self) -> bool {
        self.0.strategy().is_contiguous()
    }

    /// Whether R divides E, so that every rank owns equally many experts.
    #[getter]
    fn is_uniform(&self) -> bool {
        self.0.is_uniform()
    }

    /// The fewest redundant experts n that make R divide E + n; 0 where it divides E already.
    #[getter]
    fn min_redundant_experts(&self) -> u32 {
        self.0.min_redundant_experts()
    }

    /// The nearest rank counts, below and above R, over which E divides equally; None where there is none.
    #[getter]
    fn nearest_legal_ranks(&self) -> (Option<u32>, Option<u32>) {
        self.0.nearest_legal_ranks()
    }

    /// The one count that all ranks share.
    ///
    /// Raises:
    ///     ValueError: R does not divide E; the message says how many redundant experts, or which rank counts, would mend
    ///         it.
    fn uniform_count(&self) -> PyResult<u32> {
        self.0.uniform_count().map_err(to_py_err)
    }

    /// How many experts `rank` owns.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     TypeError: a rank that is no int.
    fn count(&self, rank: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.0.count(argument::rank(&self.0, rank)?).map_err(to_py_err)
    }

    /// The first expert of the arithmetic progression that `rank` owns.
    ///
    /// A rank without experts has a start too: where its block would begin, or `rank` itself for round robin.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     TypeError: a rank that is no int.
    fn start(&self, rank: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.0.start(argument::rank(&self.0, rank)?).map_err(to_py_err)
    }

    /// The experts of `rank` in local order, as a range.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     TypeError: a rank that is no int.
    fn experts<'py>(&self, py: Python<'py>, rank: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyRange>> {
        let experts = self.0.experts(argument::rank(&self.0, rank)?).map_err(to_py_err)?;
        let (start, stride) = (u64::from(experts.start()), u64::from(experts.stride()));
        let stop = start + stride * u64::from(experts.remaining());
        PyRange::new_with_step(py, start.try_into()?, stop.try_into()?, stride.try_into()?)
    }

    /// The rank that owns `expert`.
    ///
    /// Args:
    ///     expert: an expert in 0..E.
    ///
    /// Raises:
    ///     IndexError: `expert` out of range.
    ///     TypeError: an expert that is no int.
    fn owner(&self, expert: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.0.owner(argument::expert(&self.0, expert)?).map_err(to_py_err)
    }

    /// The position of `expert` among its owner's experts.
    ///
    /// Args:
    ///     expert: an expert in 0..E.
    ///
    /// Raises:
    ///     IndexError: `expert` out of range.
    ///     TypeError: an expert that is no int.
    fn local_index(&self, expert: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.0.local_index(argument::expert(&self.0, expert)?).map_err(to_py_err)
    }

    /// `count(r)` for every rank: int32[R].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn counts<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.0.num_ranks().into(), device, |out| self.0.write_counts(out))
    }

    /// `start(r)` for every rank: int32[R].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn starts<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.0.num_ranks().into(), device, |out| self.0.write_starts(out))
    }

    /// The exclusive prefix sums of the counts, E last: int32[R + 1].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: the strategy is `round_robin`, whose ranks own no consecutive experts, or a device that cannot be
    ///         used.
    #[pyo3(signature = (*, device=None))]
    fn offsets<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, u64::from(self.0.num_ranks()) + 1, device, |out| self.0.write_offsets(out))
    }

    /// `owner(e)` for every expert: int32[E].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn owners<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.0.num_experts().into(), device, |out| self.0.write_owners(out))
    }

    /// `local_index(e)` for every expert: int32[E].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn local_indices<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.0.num_experts().into(), device, |out| self.0.write_local_indices(out))
    }

    /// The global ids of the experts that `rank` owns, in local order: int32[count(rank)].
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a rank that is no int.
    #[pyo3(signature = (rank, *, device=None))]
    fn local_experts<'py>(&self, rank: &Bound<'py, PyAny>, device: Device<'_, 'py>) -> Tensor<'py> {
        let id = argument::rank(&self.0, rank)?;
        let count = self.0.count(id).map_err(to_py_err)?;
        tensor::filled(rank.py(), count.into(), device, |out| self.0.write_local_experts(id, out))
    }

    /// The index map of `rank`, int32[E]: `local_index(e)` where the rank owns e, and -1 elsewhere.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a rank that is no int.
    #[pyo3(signature = (rank, *, device=None))]
    fn expert_map<'py>(&self, rank: &Bound<'py, PyAny>, device: Device<'_, 'py>) -> Tensor<'py> {
        let id = argument::rank(&self.0, rank)?;
        let length = self.0.num_experts().into();
        tensor::filled(rank.py(), length, device, |out| self.0.write_expert_map(id, out))
    }

    /// The index map with S fused shared experts appended, int32[E + S].
    ///
    /// Every rank holds the shared experts, in local slots after its routed ones.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: a rank or an S that is no int.
    #[pyo3(signature = (rank, num_shared_experts, *, device=None))]
    fn expert_map_with_shared<'py>(
        &self,
        rank: &Bound<'py, PyAny>,
        num_shared_experts: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let id = argument::rank(&self.0, rank)?;
        let shared = argument::count(NUM_SHARED_EXPERTS, num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)?;
        tensor::filled(rank.py(), length, device, |out| self.0.write_expert_map_with_shared(id, shared, out))
    }

    /// The index map with one more entry, -1, for ids that stand for "no expert": int32[E + 1].
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     ValueError: a device that cannot be used.
    ///     TypeError: a rank that is no int.
    #[pyo3(signature = (rank, *, device=None))]
    fn expert_map_with_sentinel<'py>(&self, rank: &Bound<'py, PyAny>, device: Device<'_, 'py>) -> Tensor<'py> {
        let id = argument::rank(&self.0, rank)?;
        let length = u64::from(self.0.num_experts()) + 1;
        tensor::filled(rank.py(), length, device, |out| self.0.write_expert_map_with_sentinel(id, out))
    }

    /// The 0/1 mask, int32[E + S + 1]: 1 where the rank owns the expert or where it is shared, and a last 0.
    ///
    /// Args:
    ///     rank: a rank in 0..R.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E; 0 without other word.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: a rank or an S that is no int.
    #[pyo3(signature = (rank, num_shared_experts=None, *, device=None))]
    fn expert_mask<'py>(
        &self,
        rank: &Bound<'py, PyAny>,
        num_shared_experts: Option<&Bound<'py, PyAny>>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let id = argument::rank(&self.0, rank)?;
        let shared = shared_or_none(num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)? + 1;
        tensor::filled(rank.py(), length, device, |out| self.0.write_expert_mask(id, shared, out))
    }

    /// `owner(e)` for each element of an array, flattened; the Python layer gives it its shape back.
    fn _owner_of<'py>(&self, experts: &Bound<'py, PyAny>) -> Tensor<'py> {
        each("experts", "expert", self.0.num_experts(), experts, |ids, out| match ids {
            Elements::Int32(ids) => self.0.write_owners_of(ids, out),
            Elements::Int64(ids) => self.0.write_owners_of(ids, out),
        })
    }

    /// `local_index(e)` for each element of an array, flattened.
    fn _local_index_of<'py>(&self, experts: &Bound<'py, PyAny>) -> Tensor<'py> {
        each("experts", "expert", self.0.num_experts(), experts, |ids, out| match ids {
            Elements::Int32(ids) => self.0.write_local_indices_of(ids, out),
            Elements::Int64(ids) => self.0.write_local_indices_of(ids, out),
        })
    }

    /// `count(r)` for each element of an array, flattened.
    fn _count_of<'py>(&self, ranks: &Bound<'py, PyAny>) -> Tensor<'py> {
        each("ranks", "rank", self.0.num_ranks(), ranks, |ids, out| match ids {
            Elements::Int32(ids) => self.0.write_counts_of(ids, out),
            Elements::Int64(ids) => self.0.write_counts_of(ids, out),
        })
    }

    /// `start(r)` for each element of an array, flattened.
    fn _start_of<'py>(&self, ranks: &Bound<'py, PyAny>) -> Tensor<'py> {
        each("ranks", "rank", self.0.num_ranks(), ranks, |ids, out| match ids {
            Elements::Int32(ids) => self.0.write_starts_of(ids, out),
            Elements::Int64(ids) => self.0.write_starts_of(ids, out),
        })
    }

    /// The rank counts up to `max_ranks` that divide `num_experts`, ascending.
    ///
    /// Args:
    ///     num_experts: number of experts, E, in 0..=2**31 - 1.
    ///     max_ranks: the largest rank count to list, in 1..=2**31 - 1; E without other word. With no experts every rank
    ///         count is legal, so that it must be given, in 1..=2**24.
    ///
    /// Raises:
    ///     ValueError: a number out of range, or E = 0 without `max_ranks`.
    ///     TypeError: a number that is no int.
    ///
    /// Example:
    ///     >>> Partition.legal_ranks(30)
    ///     [1, 2, 3, 5, 6, 10, 15, 30]
    #[staticmethod]
    #[pyo3(signature = (num_experts, max_ranks=None))]
    fn legal_ranks(num_experts: &Bound<'_, PyAny>, max_ranks: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<u32>> {
        let experts = argument::count(NUM_EXPERTS, num_experts)?;
        if experts == 0 && max_ranks.is_none() {
            return Err(PyValueError::new_err("max_ranks is needed where num_experts=0: every rank count is legal"));
        }
        let max_ranks = argument::count(MAX_RANKS, max_ranks.unwrap_or(num_experts))?;
        core::legal_ranks(experts, max_ranks).map_err(to_py_err)
    }
}

/// A tensor with one answer for each id of an array, in `0 .. end`.
fn each<'py>(
    parameter: &str,
    id: &str,
    end: u32,
    ids: &Bound<'py, PyAny>,
    write: impl Fn(&Elements, &mut [i32]) -> Result<(), core::Error> + Send,
) -> Tensor<'py> {
    let elements = tensor::ids(parameter, id, end, ids)?.to_elements()?;
    tensor::filled(ids.py(), u64::try_from(elements.len())?, None, move |out| write(&elements, out))
}
