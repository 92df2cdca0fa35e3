"""How many slots a wanted balance takes, and what more of them bring. SPEC.md, "Capacity"."""

from __future__ import annotations

from typing import NamedTuple

from expert_placement import _core
from expert_placement._arguments import items_argument
from expert_placement._loads import as_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import SupportsIndex

    from expert_placement._core import Topology
    from expert_placement._loads import LoadsLike
    from expert_placement.names import Policy


# Of a curve; nobody waits for as many plans.
_MOST_POINTS = 2**20


class Capacity(NamedTuple):
    """What a number of slots makes of measured loads."""

    num_slots: int
    """Number of slots of a layer, P."""
    balancedness: float
    """The sum of the mean rank times over that of the largest, under the plan for so many slots."""
    most: float
    """What no placement in so many slots exceeds: the sum of the means over that of the lower bounds."""


def capacity_curve(
    loads: LoadsLike,
    num_slots: Iterable[SupportsIndex],
    topology: Topology,
    policy: Policy = "balanced",
    num_groups: SupportsIndex = 1,
    *,
    max_off_node: float | None = None,
    num_threads: SupportsIndex = 1,
    looked: Callable[[Capacity], object] = lambda point: None,
) -> list[Capacity]:
    """How balanced plans are that have so many slots, for each number of slots given.

    Args:
        loads: `[L, E]`, or `[W, L, E]` for W windows.
        num_slots: numbers of physical slots of a layer, P, each at least E, in any order.
        topology: the ranks; with slots of their own they allow no other number.
        policy: which rule plans, as for `rebalance`.
        num_groups: groups of experts that routing chooses among, G.
        max_off_node: as for `rebalance`.
        num_threads: how many threads share the layers.
        looked: is called with each point as soon as it is known, for instance to move a progress bar.

    Returns:
        One point for each number of slots, in their order.

    Raises:
        ValueError: no number of slots, more than 2**20 of them, and what `rebalance` refuses.
        TypeError: what `rebalance` refuses, and numbers of slots that are no iterable of ints.
    """
    bits, shape, _ = as_bits(loads)
    if not callable(looked):
        raise TypeError(f"looked must be a function, got `{type(looked).__name__}`")
    numbers = items_argument("num_slots", num_slots, "an iterable of ints", _MOST_POINTS, "numbers of slots")
    if not numbers:
        raise ValueError("num_slots is empty, expected one number of slots or more")
    points = []
    for slots in numbers:
        row = _core._capacity(bits, shape, slots, topology, policy, num_groups, max_off_node, num_threads)
        points.append(Capacity(*row))
        looked(points[-1])
    return points


def least_slots(
    loads: LoadsLike,
    balancedness: float,
    topology: Topology,
    policy: Policy = "balanced",
    num_groups: SupportsIndex = 1,
    *,
    max_slots: SupportsIndex | None = None,
    step: SupportsIndex | None = None,
    max_off_node: float | None = None,
    num_threads: SupportsIndex = 1,
) -> Capacity:
    """The least number of slots of a layer whose plan is at least so balanced.

    Multiples of `step` are looked at in ascending order, from the fewest slots on active ranks that hold every expert
    on.

    Args:
        loads: `[L, E]`, or `[W, L, E]` for W windows.
        balancedness: what is wanted, in 0.0..=1.0.
        topology: the ranks, without slots of their own.
        policy: which rule plans, as for `rebalance`.
        num_groups: groups of experts that routing chooses among, G.
        max_slots: the most that may be had; twice as many as hold every expert, or one a rank, without other word.
        step: what slots come in; R without other word, so that all ranks have equally many.
        max_off_node: as for `rebalance`.
        num_threads: how many threads share the layers.

    Returns:
        The number of slots, and how balanced the plan with them is.

    Raises:
        ValueError: no number of slots up to `max_slots` is enough; the error names the best. A `balancedness` outside
            0.0..=1.0, a `step` of 0, and what `rebalance` refuses.
    """
    bits, shape, _ = as_bits(loads)
    limits = (max_slots, step, max_off_node)
    return Capacity(*_core._least_slots(bits, shape, balancedness, topology, policy, num_groups, *limits, num_threads))
