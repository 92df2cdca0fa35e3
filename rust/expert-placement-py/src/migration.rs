//! `plan_migration`'s compiled half. SPEC.md, "Migration".

use expert_placement as core;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::partition::{Device, Tensor};
use crate::{argument, placement, tensor, to_py_err};

/// The compiled base of `expert_placement.Migration`.
#[pyclass(frozen, subclass, module = "expert_placement._core")]
#[derive(Clone)]
pub(crate) struct Migration(core::Migration);

#[pymethods]
impl Migration {
    /// The same plan, as an instance of the class that is called.
    #[new]
    fn new(plan: &Bound<'_, Self>) -> Self {
        plan.get().clone()
    }

    /// How many slots come to hold another expert.
    #[getter]
    fn num_moves(&self) -> usize {
        self.0.moves().len()
    }

    /// How many moves go from one rank to another.
    #[getter]
    fn num_transfers(&self) -> usize {
        self.0.num_transfers()
    }

    /// How many batches there are: without limits the most that any rank sends or receives.
    #[getter]
    fn num_batches(&self) -> usize {
        self.0.num_batches()
    }

    /// How many experts a rank has to keep beside its slots at most: those that it has read and not yet written, counted
    /// between the reads and the writes of a batch.
    #[getter]
    fn num_staged(&self) -> usize {
        self.0.num_staged()
    }

    /// Whether after every batch every expert of every layer is in at least one slot of a rank in service.
    #[getter]
    fn is_interruption_safe(&self) -> bool {
        self.0.is_interruption_safe()
    }

    /// How many layers there are, L.
    #[getter]
    fn num_layers(&self) -> usize {
        self.0.num_layers()
    }

    /// How many physical slots a layer has, P.
    #[getter]
    fn num_slots(&self) -> usize {
        self.0.num_slots()
    }

    /// How many ranks there are, R.
    #[getter]
    fn num_ranks(&self) -> usize {
        self.0.num_ranks()
    }

    fn _senders<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        copied(py, self.0.senders(), device)
    }

    fn _receivers<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        copied(py, self.0.receivers(), device)
    }

    /// What every rank sends, and what it receives, in every batch: two int64 tensors.
    fn _traffic<'py>(
        &self,
        py: Python<'py>,
        bytes_per_expert: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let layers = self.0.num_layers();
        let (sizes, is_sequence) = argument::sizes("bytes_per_expert", bytes_per_expert, layers)?;
        if is_sequence && sizes.len() != layers {
            let message = format!("bytes_per_expert has length {}, expected {layers}, one for each layer", sizes.len());
            return Err(PyValueError::new_err(message));
        }
        let core::Traffic { sent, received, .. } = self.0.traffic(&sizes).map_err(to_py_err)?;
        let tensor = |bytes: Vec<u64>| {
            tensor::longs(py, bytes.into_iter().map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        };
        Ok((tensor(sent)?, tensor(received)?))
    }

    fn _moves<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        let moves = self.0.moves();
        tensor::filled(py, u64::try_from(moves.len())? * 4, device, |out| {
            for (row, one) in out.chunks_exact_mut(4).zip(moves) {
                let fields = [one.layer, one.expert, one.source, one.destination];
                row.copy_from_slice(&fields.map(|field| i32::try_from(field).unwrap_or(i32::MAX)));
            }
            Ok(())
        })
    }

    fn _batches<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        copied(py, self.0.batches(), device)
    }

    fn _write_batches<'py>(&self, py: Python<'py>, device: Device<'_, 'py>) -> Tensor<'py> {
        copied(py, self.0.write_batches(), device)
    }
}

fn copied<'py>(py: Python<'py>, values: &[u32], device: Device<'_, 'py>) -> Tensor<'py> {
    tensor::filled(py, u64::try_from(values.len())?, device, |out| {
        for (to, from) in out.iter_mut().zip(values) {
            *to = i32::try_from(*from).unwrap_or(i32::MAX);
        }
        Ok(())
    })
}

/// Plans the way from one placement to another.
#[pyfunction]
pub(crate) fn _plan_migration(
    py: Python<'_>,
    old: &Bound<'_, PyAny>,
    new: &Bound<'_, PyAny>,
    max_node_transfers: Option<&Bound<'_, PyAny>>,
    max_staged: Option<&Bound<'_, PyAny>>,
) -> PyResult<Migration> {
    let (old, new) = (placement::shared("old", old)?, placement::shared("new", new)?);
    let mut limits = core::MigrationLimits::default();
    limits.max_node_transfers = argument::optional_count(core::limits::MAX_NODE_TRANSFERS, max_node_transfers)?;
    limits.max_staged = argument::optional_count(core::limits::MAX_STAGED, max_staged)?;
    py.detach(|| core::plan_migration_within(&old, &new, limits)).map(Migration).map_err(to_py_err)
}
