//! `expert_placement.ExpertMap`: one rank's map, read from and written in each representation. SPEC.md,
//! "Representations".

use expert_placement as core;
use expert_placement::limits::{NUM_EXPERTS, NUM_SHARED_EXPERTS};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::dlpack::Elements;
use crate::partition::{Device, Tensor};
use crate::{argument, tensor, to_py_err};

/// The experts of one rank, read from and written in any of the four representations in use.
///
/// Reading is strict. Some representations differ in nothing but their length, so that every reader is told E: what is
/// not exactly the representation that the method names, of E experts, is a ValueError, which names the one that it is
/// instead where that can be told.
///
/// Maps are made by `from_partition`, `from_local_experts` and the readers. They are immutable values: hashable,
/// comparable and picklable.
#[pyclass(frozen, eq, hash, module = "expert_placement")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct ExpertMap(core::ExpertMap);

#[pymethods]
impl ExpertMap {
    /// The map of one rank of a partition.
    ///
    /// Args:
    ///     partition: the partition.
    ///     rank: a rank in 0..R.
    ///
    /// Raises:
    ///     IndexError: `rank` out of range.
    ///     TypeError: a partition that is none, or a rank that is no int.
    #[staticmethod]
    fn from_partition(partition: &Bound<'_, PyAny>, rank: &Bound<'_, PyAny>) -> PyResult<Self> {
        let partition = argument::partition(partition)?.get();
        let rank = argument::rank(&partition.0, rank)?;
        core::ExpertMap::from_partition(&partition.0, rank).map(Self).map_err(to_py_err)
    }

    /// The map of a rank that owns these experts.
    ///
    /// Args:
    ///     local_experts: global ids in 0..E, ascending; an array of one dimension, int32 or int64, of torch or numpy, or
    ///         a sequence of ints.
    ///     num_experts: number of routed experts, E, in 0..=2**31 - 1.
    ///
    /// Raises:
    ///     ValueError: `num_experts` out of range, an id that is not above the one before it and below E, or an array of
    ///         another number of dimensions than one.
    ///     TypeError: an array of another dtype, or an E that is no int.
    #[staticmethod]
    fn from_local_experts(local_experts: &Bound<'_, PyAny>, num_experts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let num_experts = argument::count(NUM_EXPERTS, num_experts)?;
        read("local_experts", local_experts, |local| core::ExpertMap::from_local_experts(local, num_experts))
    }

    /// Reads the index map of length E, with -1 for experts of other ranks.
    ///
    /// Args:
    ///     expert_map: an array of one dimension, int32 or int64, of torch or numpy, or a sequence of ints.
    ///     num_experts: number of routed experts, E, in 0..=2**31 - 1.
    ///
    /// Raises:
    ///     ValueError: `num_experts` out of range, or a map that is not this representation of E experts: another length,
    ///         an entry that is neither -1 nor the next local index, or another number of dimensions than one. The
    ///         message names the representation that it is instead, where it is one of E experts.
    ///     TypeError: an array of another dtype, or an E that is no int.
    ///
    /// Example:
    ///     >>> ExpertMap.from_index_map([-1, 0, -1, 1], num_experts=4)
    ///     <ExpertMap of 2 of 4 experts: [1, 3]>
    ///     >>> ExpertMap.from_index_map([-1, 0, -1, 1, 2], num_experts=4)
    ///     Traceback (most recent call last):
    ///     ValueError: expert_map has length 5, expected 4; it is the index map of 4 experts with num_shared_experts=1, which `from_index_map_with_shared` reads
    #[staticmethod]
    fn from_index_map(expert_map: &Bound<'_, PyAny>, num_experts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let experts = argument::count(NUM_EXPERTS, num_experts)?;
        read("expert_map", expert_map, |map| core::ExpertMap::from_index_map(map, experts))
    }

    /// Reads the index map of length E + S, whose last S entries are the local slots of the shared experts.
    ///
    /// Args:
    ///     expert_map: as for `from_index_map`.
    ///     num_experts: number of routed experts, E, in 0..=2**31 - 1.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E.
    ///
    /// Raises:
    ///     ValueError, TypeError: as for `from_index_map`, and ValueError for S out of range.
    #[staticmethod]
    fn from_index_map_with_shared(
        expert_map: &Bound<'_, PyAny>,
        num_experts: &Bound<'_, PyAny>,
        num_shared_experts: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let experts = argument::count(NUM_EXPERTS, num_experts)?;
        let shared = argument::count(NUM_SHARED_EXPERTS, num_shared_experts)?;
        read("expert_map", expert_map, |map| core::ExpertMap::from_index_map_with_shared(map, experts, shared))
    }

    /// Reads the index map of length E + 1 whose last entry is -1.
    ///
    /// Args:
    ///     expert_map: as for `from_index_map`.
    ///     num_experts: number of routed experts, E, in 0..=2**31 - 1.
    ///
    /// Raises:
    ///     ValueError, TypeError: as for `from_index_map`.
    #[staticmethod]
    fn from_index_map_with_sentinel(expert_map: &Bound<'_, PyAny>, num_experts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let experts = argument::count(NUM_EXPERTS, num_experts)?;
        read("expert_map", expert_map, |map| core::ExpertMap::from_index_map_with_sentinel(map, experts))
    }

    /// Reads the 0/1 mask of length E + S + 1 with 1 for each shared expert and a trailing 0.
    ///
    /// Args:
    ///     expert_mask: an array of one dimension, int32 or int64, of torch or numpy, or a sequence of ints.
    ///     num_experts: number of routed experts, E, in 0..=2**31 - 1.
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E; 0 without other word.
    ///
    /// Raises:
    ///     ValueError, TypeError: as for `from_index_map`, and ValueError for S out of range.
    #[staticmethod]
    #[pyo3(signature = (expert_mask, num_experts, num_shared_experts=None))]
    fn from_mask(
        expert_mask: &Bound<'_, PyAny>,
        num_experts: &Bound<'_, PyAny>,
        num_shared_experts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let experts = argument::count(NUM_EXPERTS, num_experts)?;
        let shared = shared_or_none(num_shared_experts)?;
        read("expert_mask", expert_mask, |mask| core::ExpertMap::from_mask(mask, experts, shared))
    }

    /// Number of routed experts, E.
    #[getter]
    fn num_experts(&self) -> u32 {
        self.0.num_experts()
    }

    /// Number of routed experts that the rank owns.
    #[getter]
    fn num_local_experts(&self) -> usize {
        self.0.local_experts().len()
    }

    /// The global ids that the rank owns, in local order: int32[num_local_experts].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn local_experts<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        let length = u64::try_from(self.0.local_experts().len())?;
        tensor::filled(py, length, device, |out| self.0.write_local_experts(out))
    }

    /// The index map, int32[E]: the local index of each expert that the rank owns, and -1 elsewhere.
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn index_map<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        tensor::filled(py, self.0.num_experts().into(), device, |out| self.0.write_index_map(out))
    }

    /// The index map with S fused shared experts appended, int32[E + S].
    ///
    /// Args:
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: an S that is no int.
    #[pyo3(signature = (num_shared_experts, *, device=None))]
    fn index_map_with_shared<'py>(
        &self,
        num_shared_experts: &Bound<'py, PyAny>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let shared = argument::count(NUM_SHARED_EXPERTS, num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)?;
        tensor::filled(num_shared_experts.py(), length, device, |out| self.0.write_index_map_with_shared(shared, out))
    }

    /// The index map with one more entry, -1: int32[E + 1].
    ///
    /// Args:
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: a device that cannot be used.
    #[pyo3(signature = (*, device=None))]
    fn index_map_with_sentinel<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        let length = u64::from(self.0.num_experts()) + 1;
        tensor::filled(py, length, device, |out| self.0.write_index_map_with_sentinel(out))
    }

    /// The 0/1 mask, int32[E + S + 1], with 1 for each shared expert and a trailing 0.
    ///
    /// Args:
    ///     num_shared_experts: number of fused shared experts, S, in 0..=2**31 - 1 - E; 0 without other word.
    ///     device: where the tensor goes; the CPU without other word. CUDA is not waited for.
    ///
    /// Raises:
    ///     ValueError: S out of range, or a device that cannot be used.
    ///     TypeError: an S that is no int.
    #[pyo3(signature = (num_shared_experts=None, *, device=None))]
    fn mask<'py>(
        &self,
        py: Python<'py>,
        num_shared_experts: Option<&Bound<'py, PyAny>>,
        device: Device<'_, 'py>,
    ) -> Tensor<'py> {
        let shared = shared_or_none(num_shared_experts)?;
        let length = self.0.length_with_shared(shared).map_err(to_py_err)? + 1;
        tensor::filled(py, length, device, |out| self.0.write_mask(shared, out))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let map = &slf.get().0;
        let make = slf.get_type().getattr("from_local_experts")?;
        Ok((make, (map.local_experts().to_vec(), map.num_experts())))
    }

    fn __repr__(&self) -> String {
        let local = self.0.local_experts();
        let shown = local.iter().take(SHOWN_EXPERTS).map(u32::to_string).collect::<Vec<_>>().join(", ");
        let rest = if local.len() > SHOWN_EXPERTS { ", ..." } else { "" };
        format!("<ExpertMap of {} of {} experts: [{shown}{rest}]>", local.len(), self.0.num_experts())
    }
}

/// What pickle calls, and with what.
type Reduced<'py> = (Bound<'py, PyAny>, (Vec<u32>, u32));

/// How many experts a `repr` lists.
const SHOWN_EXPERTS: usize = 8;

/// A number of shared experts, 0 where none is given.
pub(crate) fn shared_or_none(value: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
    value.map_or(Ok(0), |value| argument::count(NUM_SHARED_EXPERTS, value))
}

fn read(
    parameter: &str,
    value: &Bound<'_, PyAny>,
    parse: impl FnOnce(&[i32]) -> Result<core::ExpertMap, core::Error>,
) -> PyResult<ExpertMap> {
    let map = match tensor::row(parameter, value)?.to_elements()? {
        Elements::Int32(values) => parse(&values),
        Elements::Int64(values) => {
            let narrowed = values.iter().enumerate().map(|(position, value)| {
                i32::try_from(*value)
                    .map_err(|_| PyValueError::new_err(format!("{parameter}[{position}]={value} is no int32")))
            });
            parse(&narrowed.collect::<PyResult<Vec<_>>>()?)
        }
    };
    map.map(ExpertMap).map_err(to_py_err)
}
