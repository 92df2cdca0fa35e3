"""The reference model of `rebalance`. SPEC.md, "Rebalancing"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expert_placement_spec.balance import deepseek, homes, packing, refinement, warm_start
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.replication import replica_counts
from expert_placement_spec.placement.loads import checked_loads
from expert_placement_spec.placement.reference import Placement

if TYPE_CHECKING:
    from expert_placement_spec.placement.topology import Topology

POLICIES = ("balanced", "deepseek")
ROUNDING = 1e-9


def rebalance(
    loads: Any,
    num_slots: int,
    topology: Topology,
    policy: str = "balanced",
    num_groups: int = 1,
    previous: Placement | None = None,
    max_moves: int | None = None,
    num_threads: int = 1,
    max_off_node: float | None = None,
    min_gain: float | None = None,
) -> Placement:
    """Plans a placement of every expert for measured loads.

    Args:
        loads: of shape [L, E], or [W, L, E] for W windows.
        num_slots: P.
        topology: the ranks.
        policy: `"balanced"` or `"deepseek"`.
        num_groups: groups of experts that routing chooses among.
        previous: the placement to start from.
        max_moves: the most moves from `previous`, over all layers together.
        num_threads: changes nothing.
        max_off_node: which part of a layer's load may be served off the homes of groups.
        min_gain: what a move saves at least, as a part of the sum of the mean times.

    Raises:
        ValueError: loads that are none, fewer usable slots than experts, groups that do not divide the experts, numbers
            that do not divide where the policy needs it, a previous placement of another shape, or a limit that is none
            or that homes have too little room for.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads} is out of range, expected at least 1")
    limits = (previous, max_moves, max_off_node, min_gain)
    problems = checked_problems(loads, num_slots, topology, policy, num_groups, *limits)
    before = previous.physical_to_logical() if previous is not None else None
    if policy == "deepseek":
        rows = [deepseek.place(problem.summed, num_slots, topology, num_groups) for problem in problems]
        if before is not None:
            rows = [warm_start.aligned(*layer) for layer in zip(problems, before, rows, strict=True)]
    else:
        rows = [plan_layer(problem, num_groups, max_off_node) for problem in problems]
        if before is not None:
            if homes.are_kept_together(topology, num_groups):
                problems = [
                    homes.settled(problem, warm_start.repaired(problem, row), num_groups, max_off_node)
                    for problem, row in zip(problems, before, strict=True)
                ]
            rows = warm_start.plan(problems, before, rows, max_moves, min_gain)
    return Placement(rows, problems[0].num_experts, topology)


def checked_problems(
    loads: Any,
    num_slots: int,
    topology: Topology,
    policy: str,
    num_groups: int,
    previous: Placement | None,
    max_moves: int | None,
    max_off_node: float | None,
    min_gain: float | None = None,
) -> list[Problem]:
    """The layers of a call that has an answer, with the parameters of `rebalance`.

    Raises:
        ValueError: whatever `rebalance` refuses but a number of threads.
    """
    windows = checked_loads(loads)
    problems = [Problem(list(layer), num_slots, topology) for layer in zip(*windows, strict=True)]
    check_policy(problems[0], policy, num_groups)
    check_gain(policy, previous, min_gain)
    if max_off_node is not None:
        check_limit(topology, policy, num_groups, max_off_node)
    check_previous(problems, policy, previous, max_moves)
    if policy == "balanced" and problems[0].num_experts and homes.are_kept_together(topology, num_groups):
        for problem in problems:
            homes.settle(problem, num_groups, max_off_node)
    return problems


def check_policy(problem: Problem, policy: str, num_groups: int) -> None:
    """Refuses an unknown policy, groups that there can not be, and what the policy `deepseek` can not plan."""
    if policy not in POLICIES:
        raise ValueError(f"policy=`{policy}` is unknown, expected one of {', '.join(POLICIES)}")
    most = max(problem.num_experts, 1)
    if not 1 <= num_groups <= most:
        raise ValueError(f"num_groups={num_groups} is out of range, expected 1..={most}")
    if problem.num_experts % num_groups:
        raise ValueError(f"num_experts={problem.num_experts} does not divide by num_groups={num_groups}")
    if policy == "deepseek":
        needs = deepseek.what_it_needs(problem.num_experts, problem.num_slots, problem.topology, num_groups)
        if needs:
            raise ValueError(f"{needs}, which policy `deepseek` needs")


def check_limit(topology: Topology, policy: str, num_groups: int, max_off_node: float) -> None:
    """Refuses a part that is none, and a limit where there are no homes."""
    if policy == "deepseek":
        raise ValueError(f"max_off_node={max_off_node} is for other policies: `deepseek` leaves nothing off node")
    if not 0.0 <= max_off_node <= 1.0:
        raise ValueError(f"max_off_node={max_off_node} is out of range, expected a number in 0.0..=1.0")
    if num_groups % topology.num_nodes:
        raise ValueError(
            f"max_off_node={max_off_node} needs groups that the nodes divide: num_groups={num_groups} does not divide "
            f"by num_nodes={topology.num_nodes}"
        )


def check_gain(policy: str, previous: Placement | None, min_gain: float | None) -> None:
    """Refuses a gain that is none, with a policy that knows nothing of moves, or without a placement to move from."""
    if min_gain is None:
        return
    if policy == "deepseek":
        raise ValueError(f"min_gain={min_gain} is for other policies: `deepseek` knows nothing of moves")
    if previous is None:
        raise ValueError(f"min_gain={min_gain} needs a previous placement to move from")
    if not 0.0 <= min_gain < float("inf"):
        raise ValueError(f"min_gain={min_gain} is out of range, expected a finite number of at least 0")


def check_previous(problems: list[Problem], policy: str, previous: Placement | None, max_moves: int | None) -> None:
    """Refuses too few slots, another shape of the previous placement, and a budget that is none or too small."""
    problem = problems[0]
    if policy == "deepseek" and max_moves is not None:
        raise ValueError(f"max_moves={max_moves} is for other policies: `deepseek` knows nothing of moves")
    if previous is not None:
        shape = (len(problems), problem.num_experts, problem.offsets)
        if (previous.num_layers, previous.num_experts, previous.slot_offsets()) != shape:
            raise ValueError("previous has another shape, expected the layers, experts and slots of this plan")
        if max_moves is not None and max_moves < 0:
            raise ValueError(f"max_moves={max_moves} is out of range, expected at least 0")
        warm_start.restored(problems, previous.physical_to_logical(), max_moves)
    elif max_moves is not None:
        raise ValueError(f"max_moves={max_moves} needs a previous placement to move from")
    elif len(problem.usable_slots) < problem.num_experts:
        raise ValueError(
            f"num_slots={problem.num_slots} leaves {len(problem.usable_slots)} slots on active ranks for "
            f"{problem.num_experts} experts, expected at least one for each"
        )


def plan_layer(problem: Problem, num_groups: int, max_off_node: float | None) -> list[int]:
    """The row of one layer from nothing: replication, packing, refinement; or the field's plan where that is better."""
    if not problem.num_experts:
        return [-1] * problem.num_slots
    begins = None
    if homes.are_kept_together(problem.topology, num_groups):
        settled, begins = homes.settle(problem, num_groups, max_off_node)
        problem = replace(problem, homes=settled)
    if len(problem.windows) > 1:
        # What is best for the sum of the windows is where the search for them begins.
        alone = Problem([problem.summed], problem.num_slots, problem.topology)
        start = plan_layer(alone, num_groups, max_off_node)
    elif begins is not None:
        start = packing.pack_nodes(problem, begins)
    else:
        start = packing.pack(problem, replica_counts(problem.summed, problem.rooms))
    best = refinement.refine(problem, start)
    if not deepseek.what_it_needs(problem.num_experts, problem.num_slots, problem.topology, num_groups):
        field = deepseek.place(problem.summed, problem.num_slots, problem.topology, num_groups)
        # Two replicas on a rank are kept only where nothing without them is as good, but for rounding.
        for row in (problem.without_duplicates(field), field):
            if problem.largest(row) < problem.largest(best) * (1 - ROUNDING):
                best = row
    return best
