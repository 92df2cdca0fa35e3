"""The reference model of `rebalance`. SPEC.md, "Rebalancing"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.balance import deepseek, packing, refinement, warm_start
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

    Raises:
        ValueError: loads that are none, fewer usable slots than experts, numbers that do not divide where the policy
            needs it, or a previous placement of another shape.
    """
    windows = checked_loads(loads)
    problems = [Problem(list(layer), num_slots, topology) for layer in zip(*windows, strict=True)]
    check_policy(problems[0], policy, num_groups, max_moves)
    check_previous(problems, previous, max_moves)
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads} is out of range, expected at least 1")
    before = previous.physical_to_logical() if previous is not None else None
    if policy == "deepseek":
        rows = [deepseek.place(problem.summed, num_slots, topology, num_groups) for problem in problems]
        if before is not None:
            rows = [warm_start.aligned(*layer) for layer in zip(problems, before, rows, strict=True)]
    else:
        rows = [plan_layer(problem, num_groups) for problem in problems]
        if before is not None:
            rows = warm_start.plan(problems, before, rows, max_moves)
    return Placement(rows, problems[0].num_experts, topology)


def check_policy(problem: Problem, policy: str, num_groups: int, max_moves: int | None) -> None:
    """Refuses an unknown policy, groups that there can not be, and what the policy `deepseek` can not plan."""
    if policy not in POLICIES:
        raise ValueError(f"policy=`{policy}` is unknown, expected one of {', '.join(POLICIES)}")
    most = max(problem.num_experts, 1)
    if not 1 <= num_groups <= most:
        raise ValueError(f"num_groups={num_groups} is out of range, expected 1..={most}")
    if policy == "deepseek":
        if max_moves is not None:
            raise ValueError(f"max_moves={max_moves} is for other policies: `deepseek` knows nothing of moves")
        needs = deepseek.what_it_needs(problem.num_experts, problem.num_slots, problem.topology, num_groups)
        if needs:
            raise ValueError(f"{needs}, which policy `deepseek` needs")


def check_previous(problems: list[Problem], previous: Placement | None, max_moves: int | None) -> None:
    """Refuses too few slots, a previous placement of another shape, and a budget that is none."""
    problem = problems[0]
    if previous is not None:
        shape = (len(problems), problem.num_experts, problem.offsets)
        if (previous.num_layers, previous.num_experts, previous.slot_offsets()) != shape:
            raise ValueError("previous has another shape, expected the layers, experts and slots of this plan")
        if max_moves is not None and max_moves < 0:
            raise ValueError(f"max_moves={max_moves} is out of range, expected at least 0")
        for one, row in zip(problems, previous.physical_to_logical(), strict=True):
            warm_start.repaired(one, row)
    elif max_moves is not None:
        raise ValueError(f"max_moves={max_moves} needs a previous placement to move from")
    elif len(problem.usable_slots) < problem.num_experts:
        raise ValueError(
            f"num_slots={problem.num_slots} leaves {len(problem.usable_slots)} slots on active ranks for "
            f"{problem.num_experts} experts, expected at least one for each"
        )


def plan_layer(problem: Problem, num_groups: int) -> list[int]:
    """The row of one layer from nothing: replication, packing, refinement; or the field's plan where that is better."""
    if not problem.num_experts:
        return [-1] * problem.num_slots
    if len(problem.windows) > 1:
        # What is best for the sum of the windows is where the search for them begins.
        start = plan_layer(Problem([problem.summed], problem.num_slots, problem.topology), num_groups)
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
