"""DeepSeek's EPLB as an implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from expert_placement_spec.engines.reading import Planner, Table, equal_ranks, tensor
from expert_placement_spec.engines.sources import EngineFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from expert_placement_spec.placement.topology import Topology

EPLB = EngineFunction(
    "deepseek",
    "rebalance_experts",
    (
        (
            "eplb.py",
            ("balanced_packing", "replicate_experts", "rebalance_experts_hierarchical", "rebalance_experts"),
        ),
    ),
)


class Eplb(Planner):
    """`rebalance_experts`."""

    ask: ClassVar[Callable[..., Any]] = EPLB

    @classmethod
    def rebalance(
        cls, loads: Any, num_slots: int, topology: Topology, policy: str = "deepseek", num_groups: int = 1
    ) -> Table:
        """The first of the tables that the function gives."""
        equal_ranks(topology, policy)
        return Table(cls.ask(tensor(loads), num_slots, num_groups, topology.num_nodes, topology.num_ranks)[0])
