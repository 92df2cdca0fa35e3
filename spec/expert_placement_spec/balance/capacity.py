"""The reference model of how many slots a balance takes. SPEC.md, "Capacity"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.balance.measure import ratio
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.reference import rebalance
from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from expert_placement_spec.placement.topology import Topology


@dataclass(frozen=True)
class Capacity:
    """What a number of slots makes of loads."""

    num_slots: int
    balancedness: float
    most: float
    """What no placement in so many slots exceeds."""


def capacity_curve(
    loads: Any,
    num_slots: Iterable[int],
    topology: Topology,
    policy: str = "balanced",
    num_groups: int = 1,
    max_off_node: float | None = None,
) -> list[Capacity]:
    """How balanced the plan is for each number of slots."""
    curve = []
    for number in num_slots:
        plan = rebalance(loads, number, topology, policy, num_groups, max_off_node=max_off_node)
        reports = plan.report(loads)
        most = ratio(in_order(report.mean for report in reports), in_order(report.lower_bound for report in reports))
        curve.append(Capacity(number, plan.balancedness(loads), most))
    return curve


def least_slots(
    loads: Any,
    balancedness: float,
    topology: Topology,
    policy: str = "balanced",
    num_groups: int = 1,
    max_slots: int | None = None,
    step: int | None = None,
    max_off_node: float | None = None,
) -> Capacity:
    """The least number of slots, of those that a step divides, whose plan is at least so balanced.

    Raises:
        ValueError: a balance or a step that is none, or no number of slots up to `max_slots` that is enough.
    """
    if not 0.0 <= balancedness <= 1.0:
        raise ValueError(f"balancedness={balancedness} is out of range, expected a number in 0.0..=1.0")
    step = topology.num_ranks if step is None else step
    if step < 1:
        raise ValueError(f"step={step} is out of range, expected at least 1")
    first = fewest_slots(np.shape(loads)[-1], topology, step)
    last = max(2 * first, topology.num_ranks) if max_slots is None else max_slots
    for number in range(first, last + 1, step):
        (point,) = capacity_curve(loads, [number], topology, policy, num_groups, max_off_node)
        if point.balancedness >= balancedness:
            return point
    raise ValueError(f"balancedness={balancedness} is out of reach with {first} to {last} slots")


def fewest_slots(num_experts: int, topology: Topology, step: int = 1) -> int:
    """The least number of slots, of those that a step divides, that hold every expert on active ranks."""
    number = step
    while len(Problem([], number, topology).usable_slots) < num_experts:
        number += step
    return number
