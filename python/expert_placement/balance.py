"""Where the replicas of every expert should live, for measured loads. SPEC.md, "Rebalancing"."""

from __future__ import annotations

from expert_placement import _core
from expert_placement._loads import as_bits
from expert_placement.placement import Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import SupportsIndex

    from expert_placement._core import Topology
    from expert_placement._loads import LoadsLike
    from expert_placement.names import Policy


def rebalance(
    loads: LoadsLike,
    num_slots: SupportsIndex,
    topology: Topology,
    policy: Policy = "balanced",
    num_groups: SupportsIndex = 1,
    previous: Placement | None = None,
    max_moves: SupportsIndex | None = None,
    *,
    min_gain: float | None = None,
    max_off_node: float | None = None,
    active: Sequence[bool] | None = None,
    num_threads: SupportsIndex = 1,
) -> Placement:
    """Plans where the replicas of every expert live.

    Args:
        loads: `[L, E]`, or `[W, L, E]` for W windows of time: how much each expert had to do, in any unit.
        num_slots: number of physical slots of a layer, P, at least E.
        topology: the ranks.
        policy: `"balanced"`, or `"deepseek"` for the field's own algorithm.
        num_groups: groups of equally many consecutive experts that the model's routing chooses among, G. Where there
            are several nodes and they divide G, each group has a home: a node on which all its experts have a replica.
        previous: the placement to start from. Replicas stay in their slots, as far as that costs no balance: without a
            limit the result is as balanced as one from nothing, with as few moves as are found.
        max_moves: how many experts may come to a rank that did not hold them, over all layers; 0 gives `previous`
            back. They are spent where they lower the busiest ranks' times most.
        min_gain: what a move must bring at least: the sum of the busiest ranks' times that it saves, over the sum of
            the mean ones, so that 0.01 is a hundredth of the time that all layers took if they were perfectly balanced.
        max_off_node: which part of each layer's load may be served off the groups' homes, in 0.0..=1.0; needs groups
            that the nodes divide. 0.15 without other word, or more where the slots of a node's active ranks leave homes
            too little room. With `max_moves` or `min_gain` moves never lift it above the limit, or above what it was.
        active: R bools that take the place of the topology's: which ranks are in service.
        num_threads: how many threads share the layers; the result does not depend on it.

    Returns:
        A placement with every expert in at least one slot of an active rank.

    Raises:
        ValueError: fewer usable slots than experts, loads that are negative or not finite, an unknown policy, or
            numbers that do not divide where `"deepseek"` needs them to; `max_moves` or `min_gain` with that policy or
            without `previous`; a `previous` of another shape; fewer `max_moves` than experts without a live replica
            need; groups that do not divide E; a `max_off_node` that homes have too little room for.
        TypeError: an argument of another type.
    """
    bits, shape, _ = as_bits(loads)
    limits = (previous, max_moves, min_gain, max_off_node)
    return Placement(
        _core._rebalance(bits, shape, num_slots, topology, policy, num_groups, *limits, active, num_threads)
    )
