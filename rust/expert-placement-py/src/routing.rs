//! Routing tables as tensors, and routing on the CPU. SPEC.md, "Routing".

use expert_placement as core;
use expert_placement::{Batch, Router, RoutingShape};
use pyo3::prelude::*;

use crate::dlpack::{Elements, Int32Buffer, Integers};
use crate::partition::Tensor;
use crate::placement::Placement;
use crate::{argument, tensor, to_py_err};

/// E, P, R and whether there are weights, as `RoutingShape` has them.
type Sizes = (u32, u32, u32, bool);

fn shape_of(sizes: Sizes) -> PyResult<RoutingShape> {
    let (num_experts, max_slots, num_ranks, is_weighted) = sizes;
    RoutingShape::new(num_experts, max_slots, num_ranks, is_weighted).map_err(to_py_err)
}

/// How long a table of these sizes is, and where its parts begin.
#[pyfunction]
pub(crate) fn _routing_shape(sizes: Sizes) -> PyResult<(usize, [usize; 6])> {
    let shape = shape_of(sizes)?;
    Ok((shape.len(), shape.starts()))
}

/// The tables of layers of a placement, whose first and number are given, one after the other; weights are the bits of
/// float64, `[L, P]`.
#[pyfunction]
pub(crate) fn _routing_tables<'py>(
    py: Python<'py>,
    placement: &Bound<'py, Placement>,
    layers: (usize, usize),
    sizes: Sizes,
    sender: Option<&Bound<'py, PyAny>>,
    weights: Option<&Bound<'py, PyAny>>,
) -> Tensor<'py> {
    let shape = shape_of(sizes)?;
    let placement = &placement.get().0;
    let sender = sender.map(|rank| argument::index("rank", rank, placement.num_ranks().into())).transpose()?;
    let sender = sender.map(u32::try_from).transpose()?;
    let weights: Option<Vec<f64>> = weights.map(|bits| tensor::floats("weights", bits)).transpose()?;
    let length = u64::try_from(shape.len().saturating_mul(layers.1))?;
    tensor::filled(py, length, None, |out| {
        for (out, layer) in out.chunks_exact_mut(shape.len()).zip(layers.0..) {
            let slots = placement.num_slots();
            let own = weights.as_ref().map(|all| all.get(layer * slots..(layer + 1) * slots).unwrap_or_default());
            placement.write_routing_table(layer, &shape, sender, own, out)?;
        }
        Ok(())
    })
}

/// What may be asked for, as bits of `wanted`, in the order in which it is given.
mod wanted {
    pub(super) const SLOTS: u32 = 1;
    pub(super) const LOCAL_SLOTS: u32 = 1 << 1;
    pub(super) const SLOT_COUNTS: u32 = 1 << 2;
    pub(super) const SLOT_OFFSETS: u32 = 1 << 3;
    pub(super) const RANK_COUNTS: u32 = 1 << 4;
    pub(super) const RANK_OFFSETS: u32 = 1 << 5;
    pub(super) const ORDER: u32 = 1 << 6;
    pub(super) const POSITIONS: u32 = 1 << 7;
    /// What needs the counts of slots.
    pub(super) const SUMS: u32 = SLOT_COUNTS | SLOT_OFFSETS | RANK_COUNTS | RANK_OFFSETS | ORDER | POSITIONS;
}

/// Everything that was asked for, as long as it is being filled.
struct Answers {
    slots: Int32Buffer,
    local_slots: Int32Buffer,
    slot_counts: Int32Buffer,
    slot_offsets: Int32Buffer,
    rank_counts: Int32Buffer,
    rank_offsets: Int32Buffer,
    order: Int32Buffer,
    positions: Int32Buffer,
}

impl Answers {
    fn new(shape: &RoutingShape, ids: usize, wanted: u32) -> PyResult<Self> {
        let ids = u64::try_from(ids)?;
        let (slots, ranks) = (u64::from(shape.max_slots()), u64::from(shape.num_ranks()));
        let room = |needed: u32, length: u64| Int32Buffer::zeroed(if wanted & needed == 0 { 0 } else { length });
        Ok(Self {
            slots: Int32Buffer::zeroed(ids)?,
            local_slots: room(wanted::LOCAL_SLOTS, ids)?,
            slot_counts: room(wanted::SUMS, slots)?,
            slot_offsets: room(wanted::SUMS, slots + 1)?,
            rank_counts: room(wanted::RANK_COUNTS, ranks)?,
            rank_offsets: room(wanted::RANK_COUNTS | wanted::RANK_OFFSETS, ranks + 1)?,
            order: room(wanted::ORDER | wanted::POSITIONS, ids)?,
            positions: room(wanted::ORDER | wanted::POSITIONS, ids)?,
        })
    }

    fn fill(&mut self, router: &Router<'_>, asked: &Asked<'_>) -> Result<(), core::Error> {
        let slots = self.slots.as_mut_slice();
        match (asked.ids, asked.is_exact) {
            (Elements::Int32(ids), false) => router.route(ids, &asked.batch, slots)?,
            (Elements::Int64(ids), false) => router.route(ids, &asked.batch, slots)?,
            (Elements::Int32(ids), true) => router.route_evenly(ids, &asked.batch, slots)?,
            (Elements::Int64(ids), true) => router.route_evenly(ids, &asked.batch, slots)?,
        }
        let wants = |what: u32| asked.wanted & what != 0;
        if wants(wanted::LOCAL_SLOTS) {
            router.localise(asked.rank, slots, self.local_slots.as_mut_slice())?;
        }
        if !wants(wanted::SUMS) {
            return Ok(());
        }
        let (counts, offsets) = (self.slot_counts.as_mut_slice(), self.slot_offsets.as_mut_slice());
        router.count(slots, counts)?;
        Router::sum_up(counts, offsets)?;
        if wants(wanted::RANK_COUNTS | wanted::RANK_OFFSETS) {
            let rank_offsets = self.rank_offsets.as_mut_slice();
            router.write_rank_offsets(offsets, rank_offsets)?;
            if wants(wanted::RANK_COUNTS) {
                Router::count_ranks(rank_offsets, self.rank_counts.as_mut_slice())?;
            }
        }
        if wants(wanted::ORDER | wanted::POSITIONS) {
            router.write_order(slots, offsets, self.order.as_mut_slice(), self.positions.as_mut_slice())?;
        }
        Ok(())
    }

    fn handed_over(self, py: Python<'_>, wanted: u32) -> PyResult<Vec<Bound<'_, PyAny>>> {
        let all = [
            (wanted::SLOTS, self.slots),
            (wanted::LOCAL_SLOTS, self.local_slots),
            (wanted::SLOT_COUNTS, self.slot_counts),
            (wanted::SLOT_OFFSETS, self.slot_offsets),
            (wanted::RANK_COUNTS, self.rank_counts),
            (wanted::RANK_OFFSETS, self.rank_offsets),
            (wanted::ORDER, self.order),
            (wanted::POSITIONS, self.positions),
        ];
        let asked_for = all.into_iter().filter(|(what, _)| wanted & what != 0);
        asked_for.map(|(_, buffer)| tensor::handed_over(py, buffer)).collect()
    }
}

/// What is routed, and what of it is wanted.
struct Asked<'a> {
    ids: &'a Elements,
    batch: Batch,
    rank: u32,
    is_exact: bool,
    wanted: u32,
}

/// Routes a batch on the CPU: ids and table are contiguous, and the answers come in the order of the bits of `wanted`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "these are the arguments of the operator")]
pub(crate) fn _route<'py>(
    py: Python<'py>,
    topk_ids: &Bound<'py, PyAny>,
    table: &Bound<'py, PyAny>,
    sizes: Sizes,
    top_k: usize,
    token_offset: u64,
    seed: u64,
    valid_tokens: usize,
    rank: u32,
    is_exact: bool,
    wanted: u32,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let shape = shape_of(sizes)?;
    let ids = Integers::read("topk_ids", topk_ids)?.to_elements()?;
    let Elements::Int32(table) = Integers::read("table", table)?.to_elements()? else {
        return Err(pyo3::exceptions::PyTypeError::new_err("table must have dtype int32"));
    };
    let router = Router::new(shape, &table).map_err(to_py_err)?;
    let batch = Batch::new(top_k).with_token_offset(token_offset).with_seed(seed).with_valid_tokens(valid_tokens);
    let asked = Asked { ids: &ids, batch, rank, is_exact, wanted };
    let mut answers = Answers::new(&shape, ids.len(), wanted)?;
    tensor::working(py, ids.len(), || answers.fill(&router, &asked)).map_err(to_py_err)?;
    answers.handed_over(py, wanted)
}

/// The part of its expert's load that each slot should serve, float64 `[L * P]`, and the time of the busiest rank of
/// each layer.
#[pyfunction]
pub(crate) fn _split<'py>(
    py: Python<'py>,
    placement: &Bound<'py, Placement>,
    bits: &Bound<'py, PyAny>,
    windows: usize,
) -> PyResult<(Bound<'py, PyAny>, Vec<f64>)> {
    let loads = placement.get().loads(bits, windows)?;
    let placement = &placement.get().0;
    let split = py.detach(|| placement.split(&loads)).map_err(to_py_err)?;
    Ok((tensor::doubles(py, &split.weights)?, split.largest))
}
