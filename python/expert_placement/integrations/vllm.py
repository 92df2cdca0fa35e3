"""vLLM's `determine_expert_map` on top of `Partition`. SPEC.md, "Representations".

The signature and the return values are those of vLLM 0.33
(`vllm/model_executor/layers/fused_moe/expert_map_manager.py`), whose function this can replace. Where that one returns
the map of no rank, or fails in the middle, this one raises an error that names the parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from expert_placement import _core
from expert_placement._arguments import bool_argument, choice_argument
from expert_placement.partition import Partition

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ExpertPlacementStrategy", "determine_expert_map"]

ExpertPlacementStrategy: TypeAlias = Literal["linear", "round_robin"]
"""The strategies that the engine knows; its weight loader knows no other."""

_STRATEGIES: Final[tuple[ExpertPlacementStrategy, ...]] = ("linear", "round_robin")


def determine_expert_map(
    ep_size: int,
    ep_rank: int,
    global_num_experts: int,
    expert_placement_strategy: ExpertPlacementStrategy = "linear",
    num_fused_shared_experts: int = 0,
    return_expert_mask: bool = False,
) -> tuple[int, Tensor | None, Tensor | None]:
    """How many experts one rank owns, and its maps, as vLLM's function of this name returns them.

    Every argument is checked at every EP size, also at 1, where no map is made. Tensors are made on torch's default
    device, as the engine's are when it builds a model.

    Args:
        ep_size: number of ranks, R, in 1..=2**31 - 1.
        ep_rank: the rank asked about, in 0..ep_size.
        global_num_experts: number of routed experts, E, redundant ones included, in 0..=2**31 - 1.
        expert_placement_strategy: `"linear"` or `"round_robin"`; the strategy in effect, after any fallback.
        num_fused_shared_experts: shared experts that every rank holds after its routed ones, S, in
            0..=2**31 - 1 - E. It changes nothing unless a mask is asked for.
        return_expert_mask: whether to return the 0/1 mask, and the index map with the shared experts appended.

    Returns:
        `(local_num_experts, expert_map, expert_mask)`. The count leaves out shared experts. The map is int32[E], -1 for
        experts of other ranks, or int32[E + S] where a mask is asked for; the mask is int32[E + S + 1] with a trailing
        0, and None where it is not asked for. For one rank the answer is `(E, None, None)`.

    Raises:
        ValueError: `ep_size`, `global_num_experts` or `num_fused_shared_experts` out of range, or an unknown strategy.
        IndexError: `ep_rank` out of range.
        TypeError: a count or a rank that is no int, a strategy that is no str, or a `return_expert_mask` that is no
            bool.

    Example:
        >>> determine_expert_map(ep_size=8, ep_rank=7, global_num_experts=30)[0]
        3
    """
    # What the engine refuses, at any EP size; `Partition` alone knows one strategy more.
    strategy = choice_argument("expert_placement_strategy", expert_placement_strategy, _STRATEGIES)
    with_mask = bool_argument("return_expert_mask", return_expert_mask)
    num_experts, num_ranks, rank, num_shared_experts, count = _core._vllm_partition(
        ep_size, ep_rank, global_num_experts, strategy, num_fused_shared_experts
    )
    if num_ranks == 1:
        return count, None, None
    partition = Partition(num_experts, num_ranks, strategy)
    device = _default_device()
    if not with_mask:
        return count, partition.expert_map(rank, device=device), None
    expert_map = partition.expert_map_with_shared(rank, num_shared_experts, device=device)
    return count, expert_map, partition.expert_mask(rank, num_shared_experts, device=device)


def _default_device() -> torch.device | None:
    """Where torch makes tensors without other word; None for the CPU, where ours are already."""
    import torch

    device = torch.get_default_device()
    return None if device.type == "cpu" else device
