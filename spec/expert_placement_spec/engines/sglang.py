"""SGLang's functions as implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from expert_placement_spec.engines.reading import Planner, Table, equal_ranks, ranks_of_equal_slots, tensor
from expert_placement_spec.engines.sources import EngineFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from expert_placement_spec.placement.topology import Topology

ALGORITHMS = "sglang/srt/eplb/eplb_algorithms"
PARTS = ("balanced_packing", "replicate_experts", "rebalance_experts_hierarchical")
EPLB = EngineFunction("sglang", "rebalance_experts", ((f"{ALGORITHMS}/deepseek.py", (*PARTS, "rebalance_experts")),))
EPLB_IN_CHUNKS = EngineFunction(
    "sglang",
    "rebalance_experts",
    (
        (
            f"{ALGORITHMS}/deepseek_vec.py",
            (
                "pack_groups",
                "make_redundant_experts_chunkwise",
                "decode_rebalance_experts",
                "prefill_rebalance_experts",
                "rebalance_experts",
            ),
        ),
    ),
)
EPLB_AFTER_FAILURES = EngineFunction(
    "sglang",
    "rebalance_experts",
    ((f"{ALGORITHMS}/deepseek.py", PARTS), (f"{ALGORITHMS}/elasticity_aware.py", ("rebalance_experts",))),
)


def is_hierarchical(num_groups: int, topology: Topology) -> bool:
    """When the engine asks for a hierarchical plan without other word: as its `compute_algorithm` decides."""
    return num_groups % topology.num_nodes == 0


class Eplb(Planner):
    """`deepseek.rebalance_experts`."""

    ask: ClassVar[Callable[..., Any]] = EPLB

    @classmethod
    def rebalance(
        cls, loads: Any, num_slots: int, topology: Topology, policy: str = "deepseek", num_groups: int = 1
    ) -> Table:
        """The first of the tables that the function gives."""
        equal_ranks(topology, policy)
        given = (num_groups, topology.num_nodes, topology.num_ranks, is_hierarchical(num_groups, topology))
        return Table(cls.ask(tensor(loads), num_slots, *given)[0])


class EplbInChunks(Planner):
    """`deepseek_vec.rebalance_experts`, which takes windows."""

    ask: ClassVar[Callable[..., Any]] = EPLB_IN_CHUNKS

    @classmethod
    def rebalance(
        cls, loads: Any, num_slots: int, topology: Topology, policy: str = "deepseek", num_groups: int = 1
    ) -> Table:
        """The first of the tables that the function gives."""
        equal_ranks(topology, policy)
        windows = tensor(loads if np.ndim(loads) == 3 else [loads])
        slots = num_slots // topology.num_ranks
        given = (slots, num_groups, topology.num_nodes, is_hierarchical(num_groups, topology))
        return Table(cls.ask(windows, num_slots, *given)[0])


class EplbAfterFailures(Planner):
    """`elasticity_aware.rebalance_experts`, which takes the ranks that are in service."""

    ask: ClassVar[Callable[..., Any]] = EPLB_AFTER_FAILURES

    @classmethod
    def rebalance(
        cls, loads: Any, num_slots: int, topology: Topology, policy: str = "deepseek", num_groups: int = 1
    ) -> Table:
        """The first of the tables that the function gives."""
        import torch

        ranks_of_equal_slots(topology, policy)
        active = torch.tensor([topology.is_active(rank) for rank in range(topology.num_ranks)], dtype=torch.int32)
        given = (num_groups, topology.num_nodes, topology.num_ranks, is_hierarchical(num_groups, topology), active)
        return Table(cls.ask(tensor(loads), num_slots, *given)[0])
