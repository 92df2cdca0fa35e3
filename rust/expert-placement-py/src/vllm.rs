//! The arguments of vLLM's `determine_expert_map`, checked by the limits of the crate under the engine's names.

use expert_placement::limits::{Limit, NUM_EXPERTS, NUM_RANKS, NUM_SHARED_EXPERTS};
use pyo3::prelude::*;

use crate::argument::{self, StrategyArgument};
use crate::to_py_err;

const EP_SIZE: Limit = NUM_RANKS.named("ep_size");
const GLOBAL_NUM_EXPERTS: Limit = NUM_EXPERTS.named("global_num_experts");
const NUM_FUSED_SHARED_EXPERTS: Limit = NUM_SHARED_EXPERTS.named("num_fused_shared_experts");

/// E, R, the rank and S of a call, each in its range, and how many experts the rank owns.
#[pyfunction]
pub(crate) fn _vllm_partition(
    ep_size: &Bound<'_, PyAny>,
    ep_rank: &Bound<'_, PyAny>,
    global_num_experts: &Bound<'_, PyAny>,
    strategy: StrategyArgument,
    num_fused_shared_experts: &Bound<'_, PyAny>,
) -> PyResult<(u32, u32, u32, u32, u32)> {
    let num_experts = argument::count(GLOBAL_NUM_EXPERTS, global_num_experts)?;
    let num_ranks = argument::count(EP_SIZE, ep_size)?;
    let rank = u32::try_from(argument::index("ep_rank", ep_rank, num_ranks.into())?)?;
    let shared = argument::count(NUM_FUSED_SHARED_EXPERTS, num_fused_shared_experts)?;
    GLOBAL_NUM_EXPERTS.check_sum(num_experts, &NUM_FUSED_SHARED_EXPERTS, shared).map_err(to_py_err)?;
    let partition = expert_placement::Partition::new(num_experts, num_ranks, strategy.checked()?).map_err(to_py_err)?;
    Ok((num_experts, num_ranks, rank, shared, partition.count(rank).map_err(to_py_err)?))
}
