"""Whether another placement is worth moving to, worked out beside the steps in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from expert_placement import Placement, plan_migration, rebalance

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from torch import Tensor

    from expert_placement.names import Policy

    Planner: TypeAlias = Callable[[Tensor, Placement], Placement]


@dataclass(frozen=True)
class Planning:
    """How a balancer plans: the arguments of `rebalance` that do not change from plan to plan.

    Args:
        policy: as for `rebalance`; `"deepseek"` plans from nothing, and takes neither `max_moves` nor `min_gain`.
        num_groups: as for `rebalance`.
        max_moves: as for `rebalance`, in each plan.
        min_gain: as for `rebalance`.
        max_off_node: as for `rebalance`.
        num_threads: as for `rebalance`; threads of the engine's other work are beside them.
    """

    policy: Policy = "balanced"
    num_groups: int = 1
    max_moves: int | None = None
    min_gain: float | None = None
    max_off_node: float | None = None
    num_threads: int = 1

    def __call__(self, loads: Tensor, placement: Placement) -> Placement:
        """A placement for these loads.

        Args:
            loads: int64[W, L, E], what each expert had to do in the last windows.
            placement: where the experts are.

        Raises:
            ValueError: as for `rebalance`.
            TypeError: as for `rebalance`.
        """
        return rebalance(
            loads,
            placement.num_slots,
            placement.topology,
            self.policy,
            self.num_groups,
            previous=None if self.policy == "deepseek" else placement,
            max_moves=self.max_moves,
            min_gain=self.min_gain,
            max_off_node=self.max_off_node,
            num_threads=self.num_threads,
        )


@dataclass(frozen=True)
class MovingCost:
    """What moving costs and what balance brings, so that a plan is carried out only if it pays.

    A plan pays if `step_seconds` times the part of it that the busiest ranks save, over `num_steps`, is more than the
    time in which each batch's busiest rank sends or receives. Both are predictions from the last windows.

    Args:
        step_seconds: how long the experts of all layers take in a step, as things are, more than 0.
        num_steps: for how many steps a plan is expected to hold, such as the interval of the plans, more than 0.
        bytes_per_second: what a rank sends and receives meanwhile, more than 0.

    Raises:
        ValueError: a number that is not finite or not more than 0.
        TypeError: no number.
    """

    step_seconds: float
    num_steps: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        for name in ("step_seconds", "num_steps", "bytes_per_second"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got `{type(value).__name__}`")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value} is out of range, expected a finite number more than 0")


class Proposal(NamedTuple):
    """What comes of thinking about a plan."""

    placement: Placement | None
    """Where to move, or None if it is better to stay."""
    decision: str
    """Why."""
    balancedness: float
    """How balanced the loads were where things are."""
    expected: float
    """How balanced the same loads would be where things shall be."""


@dataclass(frozen=True)
class Judge:
    """Plans, and says whether it is worth it.

    Args:
        planner: what makes a placement of loads and the placement that is there.
        balanced_enough: the balancedness from which on nothing is planned.
        cost: what moving costs; nothing without other word.
        bytes_per_expert: for each layer.
    """

    planner: Planner
    balanced_enough: float
    cost: MovingCost | None
    bytes_per_expert: tuple[int, ...]

    def propose(self, loads: Tensor, placement: Placement) -> Proposal:
        """Whether to move, and where.

        Args:
            loads: int64[W, L, E].
            placement: where the experts are.

        Raises:
            ValueError: a planner's placement of another size.
            TypeError: a planner's placement that is none.
        """
        before = placement.balancedness(loads)
        if before >= self.balanced_enough:
            return Proposal(None, f"balanced enough: {before:.4f} >= {self.balanced_enough:g}", before, before)
        planned = self.planner(loads, placement)
        _expect_like(planned, placement)
        after = planned.balancedness(loads)
        if planned == placement:
            return Proposal(None, "the plan moves nothing", before, after)
        if self.cost is not None:
            gained, taken = self._seconds(self.cost, loads, placement, planned)
            if gained <= taken:
                return Proposal(None, f"not worth it: {gained:.3g} s gained, {taken:.3g} s to move", before, after)
        return Proposal(planned, "moving", before, after)

    def _seconds(
        self, cost: MovingCost, loads: Tensor, placement: Placement, planned: Placement
    ) -> tuple[float, float]:
        """What a plan brings and what it takes, in seconds."""
        now, then = (sum(layer.largest for layer in each.report(loads)) for each in (placement, planned))
        gained = (1 - then / now) * cost.step_seconds * cost.num_steps if now > 0 else 0.0
        plan = plan_migration(placement, planned)
        if not plan.num_batches:
            return gained, 0.0
        sent, received = plan.traffic(self.bytes_per_expert)
        busiest = sent.maximum(received).amax(dim=1)
        return gained, float(busiest.sum()) / cost.bytes_per_second


def _expect_like(planned: object, placement: Placement) -> None:
    if not isinstance(planned, Placement):
        raise TypeError(f"planning must give a Placement, got `{type(planned).__name__}`")
    for name in ("num_layers", "num_experts", "num_slots", "num_ranks"):
        actual, expected = getattr(planned, name), getattr(placement, name)
        if actual != expected:
            raise ValueError(f"planning gave a placement with {name}={actual}, expected {expected}")
    if planned.slot_offsets().tolist() != placement.slot_offsets().tolist():
        raise ValueError("planning gave a placement with other slots of the ranks, expected the same")


class Job:
    """A proposal in the making, in a thread that ends with the process.

    Args:
        judge: what makes it.
        loads: int64[W, L, E].
        placement: where the experts are.
    """

    __slots__ = ("_error", "_proposal", "_start", "_thread")

    def __init__(self, judge: Judge, loads: Tensor, placement: Placement) -> None:
        self._proposal: Proposal | None = None
        self._error: BaseException | None = None
        self._start = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(judge, loads, placement), name="expert-placement-planning", daemon=True
        )
        self._thread.start()

    def _run(self, judge: Judge, loads: Tensor, placement: Placement) -> None:
        try:
            self._proposal = judge.propose(loads, placement)
        except BaseException as error:
            # It is raised where the result is asked for, whatever it is: a thread that ends silently helps nobody.
            self._error = error

    @property
    def seconds(self) -> float:
        """Since when it is being made."""
        return time.monotonic() - self._start

    def result(self) -> Proposal | None:
        """The proposal, or None while it is being made; raises what the planning raised."""
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        return self._proposal
