"""What several files have in their inputs: the ranks of a placement, and the placement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expert_placement_spec.placement.topology import Topology


def topology_input(topology: Topology) -> dict[str, Any]:
    """The arguments of a topology; null for what is left to the rule."""
    return {
        "num_ranks": topology.num_ranks,
        "num_nodes": topology.num_nodes,
        "slots_per_rank": topology.slots_per_rank,
        "speeds": topology.speeds,
        "active": topology.active,
    }


def placement_input(table: Sequence[Sequence[int]], num_experts: int, topology: Topology) -> dict[str, Any]:
    """The arguments of a placement."""
    return {
        "num_experts": num_experts,
        "topology": topology_input(topology),
        "physical_to_logical": [list(row) for row in table],
    }
