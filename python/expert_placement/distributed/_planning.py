"""Whether another placement is worth moving to, worked out beside the steps in a thread of its own."""

from __future__ import annotations

import math
import operator
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from expert_placement import Placement, Topology, plan_migration, rebalance
from expert_placement._arguments import real_argument, str_argument
from expert_placement.distributed._groups import number_words, reason_of
from expert_placement.distributed.loads import number_argument
from expert_placement.torch._arguments import expect_placement

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from torch import Tensor

    from expert_placement import Migration
    from expert_placement.names import Policy

    Planner: TypeAlias = Callable[[Tensor, Placement], Placement]


_MOST_GROUPS = 2**16


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

    Raises:
        ValueError: what `rebalance` refuses whatever the loads are.
        TypeError: likewise.
    """

    policy: Policy = "balanced"
    num_groups: int = 1
    max_moves: int | None = None
    min_gain: float | None = None
    max_off_node: float | None = None
    num_threads: int = 1

    def __post_init__(self) -> None:
        groups = number_argument("num_groups", self.num_groups, 1)
        # Experts that the groups divide, and one node: whatever is refused here is refused always.
        number = 2 * groups if groups <= _MOST_GROUPS else 2
        topology = Topology(1)
        loads = torch.ones(1, 1, number)
        previous = rebalance(loads, number, topology)
        rebalance(
            loads,
            number,
            topology,
            self.policy,
            groups if groups <= _MOST_GROUPS else 1,
            previous=previous,
            max_moves=self.max_moves,
            min_gain=self.min_gain,
            max_off_node=self.max_off_node,
            num_threads=self.num_threads,
        )
        # Plans are made of the numbers that were looked at, and not of objects that may say something else by then.
        kept = {
            "policy": str_argument("policy", self.policy),
            "num_groups": groups,
            "max_moves": None if self.max_moves is None else operator.index(self.max_moves),
            "min_gain": None if self.min_gain is None else float(self.min_gain),
            "max_off_node": None if self.max_off_node is None else float(self.max_off_node),
            "num_threads": 1 if self.num_threads is None else operator.index(self.num_threads),
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    def __call__(self, loads: Tensor, placement: Placement) -> Placement:
        """A placement for these loads.

        Args:
            loads: int64[W, L, E], what each expert had to do in the last windows.
            placement: where the experts are.

        Raises:
            ValueError: as for `rebalance`.
            TypeError: as for `rebalance`.
        """
        expect_placement(placement)
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
    time in which each batch's busiest rank sends or receives, in the batches of the balancer's steps one after the
    other. Both are predictions from the last windows.

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
            number = real_argument(
                name,
                getattr(self, name),
                lambda value: math.isfinite(value) and value > 0,
                "a finite number more than 0",
                "a number",
            )
            object.__setattr__(self, name, number)


class Part(NamedTuple):
    """What is moved in one step."""

    layers: tuple[int, ...]
    migration: Migration
    """Of these layers alone, numbered from 0."""


@dataclass(frozen=True)
class Moving:
    """How a balancer carries plans out.

    Args:
        layers_per_step: how many layers are moved in a step at most.
        max_staged: as for `plan_migration`, in a step.
        max_node_transfers: as for `plan_migration`.
        bytes_per_expert: for each layer.
    """

    layers_per_step: int
    max_staged: int | None
    max_node_transfers: int | None
    bytes_per_expert: tuple[int, ...]

    def plan(self, old: Placement, new: Placement) -> Migration:
        """The way from one placement to the next, with these limits."""
        return plan_migration(old, new, max_staged=self.max_staged, max_node_transfers=self.max_node_transfers)

    def plans(self, old: Placement, new: Placement) -> list[Part]:
        """The parts in which a plan is carried out; raises where the limits make that impossible."""
        layers = differing(old, new)
        every = [layers[first : first + self.layers_per_step] for first in range(0, len(layers), self.layers_per_step)]
        return [Part(each, self.plan(_of_layers(old, each), _of_layers(new, each))) for each in every]

    def most_bytes(self, part: Part) -> int:
        """What the busiest ranks send or receive, batch by batch."""
        if not part.migration.num_batches:
            return 0
        sent, received = part.migration.traffic([self.bytes_per_expert[layer] for layer in part.layers])
        return int(sent.maximum(received).amax(dim=1).sum())


def differing(old: Placement, new: Placement) -> tuple[int, ...]:
    """The layers in which two placements differ."""
    return tuple(torch.nonzero((old.physical_to_logical() != new.physical_to_logical()).any(dim=1)).flatten().tolist())


def _of_layers(placement: Placement, layers: tuple[int, ...]) -> Placement:
    table = placement.physical_to_logical()[list(layers)]
    return Placement.from_physical_to_logical(table, placement.num_experts, placement.topology)


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
        moving: how the balancer moves.
    """

    planner: Planner
    balanced_enough: float
    cost: MovingCost | None
    moving: Moving

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
        plans = self.moving.plans(placement, planned)
        if self.cost is not None:
            gained, taken = self._seconds(self.cost, loads, placement, planned, plans)
            if gained <= taken:
                return Proposal(None, f"not worth it: {gained:.3g} s gained, {taken:.3g} s to move", before, after)
        return Proposal(planned, "moving", before, after)

    def _seconds(
        self, cost: MovingCost, loads: Tensor, placement: Placement, planned: Placement, plans: list[Part]
    ) -> tuple[float, float]:
        """What a plan brings and what it takes, in seconds."""
        now, then = (sum(layer.largest for layer in each.report(loads)) for each in (placement, planned))
        gained = (1 - then / now) * cost.step_seconds * cost.num_steps if now > 0 else 0.0
        return gained, sum(self.moving.most_bytes(part) for part in plans) / cost.bytes_per_second


def _expect_like(planned: object, placement: Placement) -> None:
    if not isinstance(planned, Placement):
        raise TypeError(f"planning must give a Placement, got `{type(planned).__name__}`")
    for name in ("num_layers", "num_experts", "num_slots", "num_ranks"):
        actual, expected = getattr(planned, name), getattr(placement, name)
        if actual != expected:
            raise ValueError(f"planning gave a placement with {name}={actual}, expected {expected}")
    if planned.slot_offsets().tolist() != placement.slot_offsets().tolist():
        raise ValueError("planning gave a placement with other slots of the ranks, expected the same")
    for name, said in topology_words(planned.topology).items():
        expected = topology_words(placement.topology)[name]
        if said != expected:
            raise ValueError(f"planning gave a placement with {name}={said}, expected {expected}")


def topology_words(topology: Topology) -> dict[str, str]:
    """What a topology says of its ranks beside their slots, by name."""
    ranks = range(topology.num_ranks)
    speeds = topology.speeds or tuple(1.0 for _ in ranks)
    active = topology.active or tuple(True for _ in ranks)
    return {
        "num_nodes": str(topology.num_nodes),
        "speeds": f"[{', '.join(f'{speed:g}' if float(f'{speed:g}') == speed else repr(speed) for speed in speeds)}]",
        "active": f"[{number_words(tuple(rank for rank in ranks if active[rank]))}]",
    }


class Job:
    """A proposal in the making, in a thread that ends with the process.

    Args:
        judge: what makes it.
        loads: int64[W, L, E].
        placement: where the experts are.
    """

    __slots__ = ("_end", "_error", "_proposal", "_start", "_thread")

    def __init__(self, judge: Judge, loads: Tensor, placement: Placement) -> None:
        self._proposal: Proposal | None = None
        self._error: Exception | None = None
        self._end: float | None = None
        self._start = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(judge, loads, placement), name="expert-placement-planning", daemon=True
        )
        self._thread.start()

    def _run(self, judge: Judge, loads: Tensor, placement: Placement) -> None:
        try:
            self._proposal = judge.propose(loads, placement)
        except Exception as error:
            # It is raised where the result is asked for: a thread that ends silently helps nobody.
            self._error = error
        except BaseException as error:
            # What would end a process, or a panic of compiled code, ends this plan: the ranks go on.
            self._error = RuntimeError(f"planning ended with {type(error).__name__}: {reason_of(error)}")
            self._error.__cause__ = error
        finally:
            self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it was thought about, up to now where it still is."""
        return (self._end or time.monotonic()) - self._start

    @property
    def is_done(self) -> bool:
        """Whether its thread has ended."""
        return not self._thread.is_alive()

    def result(self) -> Proposal | None:
        """The proposal, or None while it is being made; raises what the planning raised."""
        if not self.is_done:
            return None
        if self._error is not None:
            raise self._error
        return self._proposal
