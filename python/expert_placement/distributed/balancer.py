"""What an engine calls once a step: it counts loads, plans beside the steps, and moves a few layers at a time.

A balancer is in one of three phases, the same on every rank in the same step:

- `recording`: nothing is sent, but for one all-reduce of the loads at the end of every window.
- `planning`: one rank plans in a thread, and every step has one all-gather of small messages, in which it says whether
  it is done. Then the plan is broadcast and agreed on.
- `moving`: every step migrates the next layers, switches their tables, and ends with one all-gather of small messages.

What fails on one rank is told in these messages, so that all ranks give up the plan in the same step.
"""

from __future__ import annotations

import logging
import struct
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch

from expert_placement import Placement, plan_migration
from expert_placement.distributed._groups import Deadline, Members, number_words, reason_of, seconds_argument
from expert_placement.distributed._planning import Job, Judge, MovingCost, Planning, Proposal
from expert_placement.distributed._weights import LocalWeights
from expert_placement.distributed.agreement import agreed
from expert_placement.distributed.loads import LoadWindows, number_argument, without_nowhere
from expert_placement.distributed.migration import MigrationError, migrate, placement_after
from expert_placement.torch._arguments import index_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import SupportsIndex

    from expert_placement.distributed._groups import Group
    from expert_placement.distributed._planning import Planner
    from expert_placement.distributed._weights import Weights
    from expert_placement.torch._arguments import Device

__all__ = ["BalanceError", "Balancer", "BalancerState", "MovingCost", "Planning", "Tables"]

Phase = Literal["recording", "planning", "moving"]
_LOG = logging.getLogger("expert_placement")


class Tables(Protocol):
    """What follows a placement layer by layer, such as `RoutingTables`."""

    @property
    def layers(self) -> range:
        """The layers that there are tables for."""

    def update(self, placement: Placement, *, layer: SupportsIndex | None = None) -> None:
        """Takes over one layer of a placement."""


@dataclass(frozen=True)
class BalancerState:
    """What a balancer is doing and has done, at the end of a step."""

    phase: Phase = "recording"
    """What the next step goes on with."""
    step: int = 0
    """How many steps there were."""
    windows: int = 0
    """How many windows of loads were closed."""
    plans: int = 0
    """How many plans were carried out, or are being carried out."""
    declined: int = 0
    """How often nothing was to be moved, or was not worth it; `decision` says why."""
    failures: int = 0
    """How many steps failed on this rank or, in their messages, on another."""
    layers_left: tuple[int, ...] = ()
    """Layers that the plan has still to move; their tables and slots are those from before it."""
    layers_stale: tuple[int, ...] = ()
    """Layers that were moved, but whose tables or `on_layer` raised on this rank: they have to be updated with the
    balancer's placement before ids are routed through them."""
    layers_moved: int = 0
    """How many layers were moved, in all plans."""
    bytes_sent: int = 0
    """What this rank sent, in all plans."""
    bytes_received: int = 0
    """What this rank received, in all plans."""
    planning_seconds: float = 0.0
    """How long the last plan was thought about, as the planning rank measured."""
    moving_seconds: float = 0.0
    """How long the steps of the last plan that moved layers took on this rank, for moving."""
    balancedness: float | None = None
    """How balanced the last windows were where the experts were; None before there was a decision."""
    expected: float | None = None
    """How balanced the same loads are in the placement that was planned."""
    decision: str = "nothing is decided yet"
    """The last decision, in words."""
    error: str | None = None
    """What the last failure said; None where the last window or plan went well."""


class BalanceError(RuntimeError):
    """A step of a balancer that failed on some rank. Every rank that hears of it gives up the plan in that step.

    Args:
        message: what is wrong.
        reasons: by rank what it says.
    """

    reasons: dict[int, str]
    """What each rank says that failed; empty where ranks could not be heard."""

    def __init__(self, message: str, reasons: dict[int, str]) -> None:
        super().__init__(message)
        self.reasons = reasons

    def __reduce__(self) -> tuple[type[BalanceError], tuple[object, ...]]:
        return type(self), (str(self), self.reasons)


class Balancer:
    """Keeps the ranks of a group equally busy while an engine runs.

    Every rank makes one with the same arguments, but for its own weights and tables, and calls `step` equally often.
    Making one is a collective: ranks agree on the placement. A rank that refuses its arguments takes no part in it, and
    the others wait for it until the timeout.

    Args:
        placement: where the experts are; its ranks are those of the group.
        weights: this rank's own slots, as for `migrate`. They are changed in place.
        tables: what routes ids, such as `RoutingTables` without weights: each layer that was moved is updated in them.
        on_layer: called with a layer and the new placement after it was moved and its tables are updated.
        group: the process group that weights and loads travel through; torch's default group without other word.
        control_group: a group of the same ranks for small messages; `group` without other word. One of gloo beside one
            of NCCL is heard without a wait for the GPU, and still is after a transfer failed.
        planner_rank: the rank that plans, in 0..R.
        planning: what makes a placement of loads int64[W, L, E] and the placement that is there; `Planning()`, that is
            `rebalance` from where the experts are, without other word.
        interval: the steps of a window of loads, in 1..=2**31 - 1. Where nothing is planned or moved at the end of one,
            a plan is thought about.
        num_windows: how many of the last windows a plan is for, in 1..=2**31 - 1.
        balanced_enough: the balancedness of the last windows from which on nothing is planned, in 0.0..=1.0.
        cost: what moving costs; without it every plan that changes something is carried out.
        layers_per_step: how many layers are moved in a step at most, in 1..=2**31 - 1: fewer make for shorter stalls.
        device: where loads are counted; the CPU without other word.
        verify: whether moved weights are compared by checksums, as for `migrate`.
        on_error: `"raise"`, or `"report"` for failures that are logged and stand in the state, and nothing else.
        timeout: seconds to wait for the other ranks in each message or batch, more than 0 and at most 86400.
        planning_timeout: seconds after which a plan that is not done is a failure, likewise.

    Raises:
        ValueError: an argument out of range, weights of another size than the placement's slots of this rank, or
            ranks with different placements.
        IndexError: a `planner_rank` out of range.
        TypeError: an argument of another type.
        RuntimeError: another rank did not answer in time.
    """

    def __init__(
        self,
        placement: Placement,
        weights: Weights,
        *,
        tables: Iterable[Tables] = (),
        on_layer: Callable[[int, Placement], None] | None = None,
        group: Group = None,
        control_group: Group = None,
        planner_rank: SupportsIndex = 0,
        planning: Planner | None = None,
        interval: SupportsIndex = 1000,
        num_windows: SupportsIndex = 1,
        balanced_enough: float = 1.0,
        cost: MovingCost | None = None,
        layers_per_step: SupportsIndex = 1,
        device: Device | None = None,
        verify: bool = False,
        on_error: Literal["raise", "report"] = "raise",
        timeout: float = 60.0,
        planning_timeout: float = 60.0,
    ) -> None:
        if not isinstance(placement, Placement):
            raise TypeError(f"placement must be a Placement, got `{type(placement).__name__}`")
        self._members = Members(group)
        self._control = self._members if control_group is None else Members(control_group)
        _expect_ranks(placement, self._members, self._control)
        self._placement = placement
        self._weights = weights
        self._tables = tuple(tables)
        self._on_layer = on_layer
        self._planner_rank = index_argument("planner_rank", planner_rank, placement.num_ranks)
        self._interval = number_argument("interval", interval, 1)
        self._layers_per_step = number_argument("layers_per_step", layers_per_step, 1)
        self._windows = LoadWindows(placement.num_layers, placement.num_experts, num_windows, device=device)
        self._judge = Judge(
            _planner(planning),
            _part("balanced_enough", balanced_enough),
            _cost(cost),
            _sizes(weights, placement, group),
        )
        self._verify = bool(verify)
        if on_error not in ("raise", "report"):
            raise ValueError(f"on_error=`{on_error}` is unknown, expected `raise` or `report`")
        self._is_raising = on_error == "raise"
        self._timeout = seconds_argument("timeout", timeout)
        self._planning_timeout = seconds_argument("planning_timeout", planning_timeout)
        self._job: Job | None = None
        self._target: Placement | None = None
        self._state = BalancerState()
        agreed(placement, self._control, self._timeout)

    @property
    def placement(self) -> Placement:
        """Where the experts are now: while a plan is carried out, layers that it has not moved yet are as they were."""
        return self._placement

    @property
    def state(self) -> BalancerState:
        """What the balancer is doing and has done."""
        return self._state

    def step(self, load: torch.Tensor) -> BalancerState:
        """Goes on by one step; every rank calls it equally often.

        While nothing is planned or moved it sends nothing, but for one all-reduce of `L * (E + 1) + 1` int64 every
        `interval` steps. While something is planned it is one all-gather of 265 bytes a rank, and in the step in which
        the plan is there a broadcast of `L * P` int32 and an all-gather of 66 bytes. While layers are moved it is what
        `migrate` takes, and one all-gather.

        Args:
            load: integers of any width, at least 0: `[L, S]`, how often this rank chose each physical slot in the step,
                on the device that the balancer was made for. S is P or more. It belongs to the placement from before
                the call.

        Returns:
            What the balancer is doing and has done.

        Raises:
            BalanceError: a step that failed on some rank, raised on all of them with the same reasons, unless
                `on_error` is `"report"`. The placement and the tables are those of the layers that were moved before.
                Where it has no reasons, ranks were not heard, and may be in different phases: a new balancer in a new
                group goes on from `placement` where the ranks agree on it.
            ValueError: a `load` that does not fit, on the rank that was given it: in a step without messages, else it
                is the reason of the above. On every rank, at the end of a window, loads whose sums cannot be: negative
                ones, or some in slots that hold no expert.
            TypeError: likewise.
        """
        self._state = replace(self._state, step=self._state.step + 1)
        try:
            self._advance(load)
        except Exception as error:
            self._give_up(error)
            if self._is_raising:
                raise
        return self._state

    def _advance(self, load: torch.Tensor) -> None:
        phase = self._state.phase
        trouble = _trouble(partial(self._windows.record, load, self._placement))
        if self._state.step % self._interval == 0:
            self._close_window(trouble)
        if phase == "planning":
            self._hear(trouble)
        elif phase == "moving":
            self._move(trouble)
        elif trouble is not None:
            raise trouble

    # --- recording ----------------------------------------------------------------------------------------------------

    def _close_window(self, trouble: Exception | None) -> None:
        """Adds the window up over the ranks and, where nothing else is going on, has a plan thought about."""
        deadline = Deadline(self._timeout)
        try:
            total, troubled = self._windows._take(self._members, deadline, int(trouble is not None))
        except RuntimeError as error:
            raise BalanceError(f"{self._where()}: {reason_of(error)}", {}) from (trouble or error)
        if troubled:
            self._meet(_Word(), trouble)
        # The sums are the same on all ranks, and so is what is wrong with them.
        self._windows._keep(without_nowhere(total))
        self._state = replace(self._state, windows=self._state.windows + 1, error=None)
        if self._state.phase == "recording":
            self._state = replace(self._state, phase="planning")
            if self._members.rank == self._planner_rank:
                self._job = Job(self._judge, self._windows.loads(), self._placement)

    # --- planning -----------------------------------------------------------------------------------------------------

    def _hear(self, trouble: Exception | None) -> None:
        """Hears whether the planning rank is done, and takes over what it decided."""
        proposal: Proposal | None = None
        word = _Word()
        if self._job is not None and trouble is None:
            try:
                proposal = self._proposal(self._job)
                word = _Word.of(proposal, self._job.seconds)
            except Exception as error:
                trouble = error
        heard = self._meet(word, trouble)[self._planner_rank]
        if heard.code == _WAIT:
            return
        self._job = None
        self._state = replace(
            self._state,
            planning_seconds=heard.seconds,
            balancedness=heard.balancedness,
            expected=heard.expected,
            decision=heard.text,
        )
        if heard.code == _STAY:
            self._state = replace(self._state, phase="recording", declined=self._state.declined + 1)
            self._say(f"nothing is moved, {heard.text}")
            return
        self._begin(self._received(proposal))

    def _proposal(self, job: Job) -> Proposal | None:
        proposal = job.result()
        if proposal is None and job.seconds > self._planning_timeout:
            raise RuntimeError(f"planning is not done after {self._planning_timeout:g} s")
        return proposal

    def _received(self, proposal: Proposal | None) -> Placement:
        """The planned placement, on every rank, agreed on."""
        table = self._placement.physical_to_logical()
        if proposal is not None and proposal.placement is not None:
            table = proposal.placement.physical_to_logical()
        planned: Placement | None = None
        try:
            table = self._control.broadcast(table, self._planner_rank, Deadline(self._timeout))
            planned = Placement.from_physical_to_logical(table, self._placement.num_experts, self._placement.topology)
        except ValueError:
            # It is no placement here: the comparison says so to all ranks.
            _LOG.exception("balancer of rank %d: the plan that arrived is no placement", self._members.rank)
        except RuntimeError as error:
            raise BalanceError(f"{self._where()}: the plan did not reach all ranks: {reason_of(error)}", {}) from error
        try:
            return agreed(planned, self._control, self._timeout)
        except Exception as error:
            raise BalanceError(f"{self._where()}: {reason_of(error, 400)}", {}) from error

    def _begin(self, planned: Placement) -> None:
        differs = (planned.physical_to_logical() != self._placement.physical_to_logical()).any(dim=1)
        layers = tuple(torch.nonzero(differs).flatten().tolist())
        self._target = planned
        self._state = replace(
            self._state, phase="moving", plans=self._state.plans + 1, layers_left=layers, moving_seconds=0.0
        )
        before, expected = self._state.balancedness, self._state.expected
        self._say(f"{len(layers)} layers are moved, balancedness {before:.4f}, expected {expected:.4f}")

    # --- moving -------------------------------------------------------------------------------------------------------

    def _move(self, trouble: Exception | None) -> None:
        """Moves the next layers, and hears whether all ranks did."""
        start = time.perf_counter()
        layers = self._state.layers_left[: self._layers_per_step]
        failure = _trouble(partial(self._move_layers, layers))
        self._meet(_Word(), failure or trouble)
        left = self._state.layers_left[len(layers) :]
        self._state = replace(
            self._state,
            layers_left=left,
            layers_moved=self._state.layers_moved + len(layers),
            moving_seconds=self._state.moving_seconds + time.perf_counter() - start,
        )
        if not left:
            self._target = None
            self._state = replace(self._state, phase="recording", decision="moved")
            self._say(f"all layers are moved in {self._state.moving_seconds:.3f} s")

    def _move_layers(self, layers: tuple[int, ...]) -> None:
        """Migrates some layers, and switches their tables."""
        if self._target is None:
            raise RuntimeError("there is no plan")
        table, wanted = self._placement.physical_to_logical(), self._target.physical_to_logical()
        table[list(layers)] = wanted[list(layers)]
        old = self._placement
        new = Placement.from_physical_to_logical(table, old.num_experts, old.topology)
        plan = plan_migration(old, new)
        try:
            moved = migrate(
                self._weights,
                plan,
                self._members.group,
                control_group=self._control.group,
                verify=self._verify,
                timeout=self._timeout,
            )
        except MigrationError as error:
            # What was written is where it is, and tables that know of it are right; every expert is somewhere.
            self._placement = placement_after(old, plan, error.batch)
            self._switch((*error.layers_done, *error.layers_partly_done))
            raise
        self._state = replace(
            self._state,
            bytes_sent=self._state.bytes_sent + moved.bytes_sent,
            bytes_received=self._state.bytes_received + moved.bytes_received,
        )
        self._placement = new
        self._switch(layers)

    def _switch(self, layers: tuple[int, ...]) -> None:
        """Has the tables follow layers that were moved, all that can, and raises what the first that cannot says."""
        failure: Exception | None = None
        for layer in layers:
            trouble = _trouble(partial(self._switch_layer, layer))
            if trouble is not None:
                failure = failure or trouble
                self._state = replace(self._state, layers_stale=(*self._state.layers_stale, layer))
        if failure is not None:
            raise failure

    def _switch_layer(self, layer: int) -> None:
        for tables in self._tables:
            if layer in tables.layers:
                tables.update(self._placement, layer=layer)
        if self._on_layer is not None:
            self._on_layer(layer, self._placement)

    # --- messages and failures ----------------------------------------------------------------------------------------

    def _meet(self, word: _Word, trouble: Exception | None) -> list[_Word]:
        """What every rank says; an error on all of them where one is in trouble."""
        if trouble is not None:
            word = _Word(_TROUBLE, text=f"{type(trouble).__name__}: {reason_of(trouble, 200)}")
        try:
            words = [_Word.unpacked(each) for each in self._control.exchange(word.packed(), Deadline(self._timeout))]
        except RuntimeError as error:
            known = f"{reason_of(trouble, 400)}; and " if trouble is not None else ""
            late = f"no answer from every rank within {self._timeout:g} s: {reason_of(error)}"
            raise BalanceError(f"{self._where()}: {known}{late}", {}) from (trouble or error)
        reasons = {rank: each.text for rank, each in enumerate(words) if each.code == _TROUBLE}
        if reasons:
            said = "; ".join(f"rank {rank}: {text}" for rank, text in reasons.items())
            raise BalanceError(f"{self._where()}: {said}", reasons) from trouble
        return words

    def _where(self) -> str:
        """Which step failed, and what it leaves."""
        left = self._state.layers_left
        kept = f", layers {number_words(left)} were not moved before it" if left else ""
        return f"step {self._state.step} failed while {self._state.phase}{kept}"

    def _give_up(self, error: Exception) -> None:
        """Drops what was planned; what was moved stays where it is."""
        self._job = self._target = None
        self._state = replace(
            self._state,
            phase="recording",
            failures=self._state.failures + 1,
            layers_left=(),
            decision="given up" if self._state.phase != "recording" else self._state.decision,
            error=f"{type(error).__name__}: {error}",
        )
        _LOG.error("balancer of rank %d: %s", self._members.rank, error)

    def _say(self, what: str) -> None:
        """One line in the log, by the rank that plans."""
        if self._members.rank == self._planner_rank:
            _LOG.info("balancer in step %d: %s", self._state.step, what)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.phase} in step {self._state.step}, {self._placement!r}>"


_WAIT, _STAY, _GO, _TROUBLE = range(4)
_WORD = struct.Struct("<q3d233s")
_MOST_TEXT = 233


class _Word(NamedTuple):
    """What a rank says in a message."""

    code: int = _WAIT
    seconds: float = 0.0
    balancedness: float = 0.0
    expected: float = 0.0
    text: str = ""

    @classmethod
    def of(cls, proposal: Proposal | None, seconds: float) -> _Word:
        if proposal is None:
            return cls()
        code = _STAY if proposal.placement is None else _GO
        return cls(code, seconds, proposal.balancedness, proposal.expected, proposal.decision)

    def packed(self) -> bytes:
        return _WORD.pack(*self[:-1], self.text.encode()[:_MOST_TEXT])

    @classmethod
    def unpacked(cls, message: bytes) -> _Word:
        code, seconds, balancedness, expected, text = _WORD.unpack(message)
        return cls(code, seconds, balancedness, expected, text.rstrip(b"\0").decode(errors="ignore"))


def _trouble(act: Callable[[], object]) -> Exception | None:
    """What goes wrong, where something does."""
    try:
        act()
    except Exception as error:
        return error
    return None


def _expect_ranks(placement: Placement, members: Members, control: Members) -> None:
    if members.size != placement.num_ranks:
        raise ValueError(f"group has {members.size} ranks, expected {placement.num_ranks} as the placement has")
    if (control.rank, control.size) != (members.rank, members.size):
        mine, expected = f"rank {control.rank} of {control.size}", f"{members.rank} of {members.size} as in group"
        raise ValueError(f"control_group has this process as {mine}, expected {expected}")


def _sizes(weights: Weights, placement: Placement, group: Group) -> tuple[int, ...]:
    """The bytes of an expert of each layer, of weights that are this rank's slots."""
    local = LocalWeights(weights, placement.num_layers)
    rank = Members(group).rank
    first, last = placement.slot_offsets().tolist()[rank : rank + 2]
    if local.num_local_slots != last - first:
        raise ValueError(
            f"weights have {local.num_local_slots} local slots, expected {last - first} as rank {rank} has"
        )
    return tuple(local.bytes_per_expert(layer) for layer in range(placement.num_layers))


def _planner(planning: Planner | None) -> Planner:
    if planning is None:
        return Planning()
    if not callable(planning):
        raise TypeError(f"planning must be a Planning or a function, got `{type(planning).__name__}`")
    return planning


def _cost(cost: MovingCost | None) -> MovingCost | None:
    if cost is not None and not isinstance(cost, MovingCost):
        raise TypeError(f"cost must be a MovingCost, got `{type(cost).__name__}`")
    return cost


def _part(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got `{type(value).__name__}`")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value} is out of range, expected 0.0..=1.0")
    return float(value)
