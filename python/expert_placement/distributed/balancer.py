"""What an engine calls once a step: it counts loads, plans beside the steps, and moves a few layers at a time.

A balancer is in one of three phases, the same on every rank that was heard in the same step:

- `recording`: nothing is sent, but for one all-reduce of the loads at the end of every window.
- `planning`: one rank plans in a thread, and every step has one all-gather of small messages, in which it says whether
  it is done. Then the plan is broadcast and agreed on.
- `moving`: every step migrates the next layers, switches their tables, and ends with one all-gather of small messages.

What fails on one rank is told in these messages, so that all ranks give up the plan in the same step. They also say
which step and which placement they are of. Where ranks could not be heard, or say what cannot be, the balancer is
broken on those that know of it: it sends nothing more, so that what comes late from others is not taken for something
else, and these find nobody and break as well.
"""

from __future__ import annotations

import hashlib
import logging
import math
import struct
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from expert_placement import Migration, Placement
from expert_placement._arguments import bool_argument, choice_argument, is_a, items_argument, real_argument
from expert_placement.distributed._groups import (
    Deadline,
    Members,
    expect_ranks,
    merged,
    number_words,
    rank_words,
    reason_of,
    seconds_argument,
)
from expert_placement.distributed._planning import (
    Job,
    Judge,
    Moving,
    MovingCost,
    Planning,
    Proposal,
    differing,
    topology_words,
)
from expert_placement.distributed._weights import LocalWeights
from expert_placement.distributed.agreement import agreed
from expert_placement.distributed.loads import LoadWindows, number_argument, without_nowhere
from expert_placement.distributed.migration import (
    MigrationError,
    Progress,
    carried_out,
    layers_written,
    placement_after,
)
from expert_placement.torch._arguments import expect_placement, index_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import SupportsIndex

    import torch

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
    """How many steps failed on this rank or, in their messages, on another; after the one that broke it none count."""
    layers_left: tuple[int, ...] = ()
    """Layers that the plan has still to move; their tables and slots are those from before it."""
    layers_stale: tuple[int, ...] = ()
    """Layers that were moved, but whose tables or `on_layer` raised on this rank: what routes through them goes to
    wrong slots. Every step tries them again, and nothing is planned before they follow on all ranks."""
    slots_torn: tuple[tuple[int, int], ...] = ()
    """Layers and slots of this rank that may be half-written, since writing failed: they have to be loaded anew."""
    is_broken: bool = False
    """Whether steps send nothing more, since ranks could not be heard, hold different placements, or were interrupted:
    another balancer has to be made, in groups that are new."""
    layers_moved: int = 0
    """How many layers were moved, in all plans; those that a step moved before it failed count."""
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
    """What the last failure said; None where the last window went well on all ranks."""


class BalanceError(RuntimeError):
    """A step of a balancer that failed on some rank. Every rank that hears of it gives up the plan in that step.

    Where `state.is_broken` is true as well, ranks are no more at the same step.

    Args:
        message: what is wrong.
        reasons: by rank what it says.
    """

    reasons: dict[int, str]
    """What each rank says that failed, of those that were heard; empty where nothing failed but that some were not, or
    that ranks hold different placements or are in different steps."""

    def __init__(self, message: str, reasons: dict[int, str]) -> None:
        super().__init__(message)
        self.reasons = reasons

    def __reduce__(self) -> tuple[type[BalanceError], tuple[object, ...]]:
        return type(self), (str(self), self.reasons)


class Balancer:
    """Keeps the ranks of a group equally busy while an engine runs.

    Every rank makes one with the same arguments, but for its own weights and tables, and calls `step` equally often.
    Making one is a collective: ranks agree on the placement and on what else has to be the same. A rank that refuses
    its arguments takes no part in it, and the others wait for it until the timeout.

    Args:
        placement: where the experts are; its ranks are those of the group.
        weights: this rank's own slots, as for `migrate`. They are changed in place.
        tables: what routes ids, such as `RoutingTables` without weights: each layer that was moved is updated in them.
        on_layer: called with a layer and the new placement after it was moved and its tables are updated. Where it
            raises, or tables do, all are tried again for that layer in the next step.
        group: the process group that weights and loads travel through; torch's default group without other word. One
            that nothing else uses is better: after a rank was late, ranks are at different operations of it, and
            operations of others would be answered by those of the balancer.
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
        max_staged: how many experts a rank may have to keep beside its slots in a step, in 0..=2**31 - 1, as for
            `plan_migration`; as many as the layers of a step take without other word. The memory is allocated in each
            step that moves something, and freed after it; `migrate` says how much it is.
        max_node_transfers: how many transfers may leave and enter a node in a batch, in 1..=2**31 - 1, as for
            `plan_migration`.
        device: where loads are counted; the CPU without other word.
        verify: whether moved weights are compared by checksums, as for `migrate`.
        on_error: `"raise"`, or `"report"` for failures that are logged and stand in the state, and nothing else.
        timeout: seconds to wait for the other ranks in each message or batch, more than 0 and at most 86400. A rank
            that is lost keeps the others for one timeout in most steps, and three at most in one that moves layers.
        planning_timeout: seconds after which a plan that is not done is a failure, likewise. Its thread goes on, and
            nothing else is planned until it ends.

    Raises:
        ValueError: an argument out of range, weights of another size than the placement's slots of this rank, or
            ranks with different placements or options, or weights of different kinds.
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
        max_staged: SupportsIndex | None = None,
        max_node_transfers: SupportsIndex | None = None,
        device: Device | None = None,
        verify: bool = False,
        on_error: Literal["raise", "report"] = "raise",
        timeout: float = 60.0,
        planning_timeout: float = 60.0,
    ) -> None:
        expect_placement(placement)
        self._members = Members(group)
        self._control = self._members if control_group is None else Members(control_group, "control_group")
        expect_ranks(self._members, self._control, placement.num_ranks, "placement")
        self._placement = placement
        self._weights = weights
        self._tables = _followers(tables)
        if on_layer is not None and not callable(on_layer):
            raise TypeError(f"on_layer must be a function, got `{type(on_layer).__name__}`")
        self._on_layer = on_layer
        self._planner_rank = index_argument("planner_rank", planner_rank, placement.num_ranks)
        self._interval = number_argument("interval", interval, 1)
        self._windows = LoadWindows(placement.num_layers, placement.num_experts, num_windows, device=device)
        local = _local(weights, placement, self._members.rank)
        self._moving = Moving(
            number_argument("layers_per_step", layers_per_step, 1),
            None if max_staged is None else number_argument("max_staged", max_staged, 0),
            None if max_node_transfers is None else number_argument("max_node_transfers", max_node_transfers, 1),
            tuple(local.bytes_per_expert(layer) for layer in range(placement.num_layers)),
        )
        self._judge = Judge(_planner(planning), _part("balanced_enough", balanced_enough), _cost(cost), self._moving)
        self._verify = bool_argument("verify", verify)
        self._is_raising = choice_argument("on_error", on_error, ("raise", "report")) == "raise"
        self._timeout = seconds_argument("timeout", timeout)
        self._planning_timeout = seconds_argument("planning_timeout", planning_timeout)
        self._job: Job | None = None
        self._late_job: Job | None = None
        self._job_trouble: Exception | None = None
        self._target: Placement | None = None
        self._broken = ""
        self._state = BalancerState()
        agreed(placement, self._control, self._timeout, self._options(local))

    def _options(self, local: LocalWeights) -> dict[str, str]:
        """What has to be the same on every rank, by name."""
        numbers = {
            "planner_rank": self._planner_rank,
            "interval": self._interval,
            "num_windows": self._windows.num_windows,
            "layers_per_step": self._moving.layers_per_step,
            "max_staged": self._moving.max_staged,
            "max_node_transfers": self._moving.max_node_transfers,
            "balanced_enough": self._judge.balanced_enough,
            "verify": self._verify,
            "timeout": self._timeout,
            "planning_timeout": self._planning_timeout,
            "a control_group beside group": self._has_own_control,
        }
        told = {name: str(number) for name, number in numbers.items()}
        topology = {f"{name} of the topology": said for name, said in topology_words(self._placement.topology).items()}
        weights = {"weights (names, dtypes and shapes of an expert)": local.signature().hex()[:16]}
        return {**told, **topology, **weights}

    @property
    def _has_own_control(self) -> bool:
        return self._control.group is not self._members.group

    @property
    def _is_planner(self) -> bool:
        return self._members.rank == self._planner_rank

    @property
    def placement(self) -> Placement:
        """Where the experts are now: while a plan is carried out, layers that it has not moved yet are as they were.

        Whatever a step raises, it is what the slots of this rank hold, but for `state.slots_torn`. It is the same on
        all ranks, unless `state.is_broken`: then ranks have to compare it, as a new balancer does.
        """
        return self._placement

    @property
    def state(self) -> BalancerState:
        """What the balancer is doing and has done."""
        return self._state

    def step(self, load: torch.Tensor) -> BalancerState:
        """Goes on by one step; every rank calls it equally often.

        While nothing is planned or moved it sends nothing, but for one all-reduce of `L * (E + 1) + 1` int64 every
        `interval` steps. While something is planned it is one all-gather of 337 bytes a rank, and in the step in which
        the plan is there a broadcast of `L * P` int32 and a second all-gather. While layers are moved it is what
        `migrate` takes, and one all-gather.

        Args:
            load: integers of any width, at least 0: `[L, S]`, how often this rank chose each physical slot in the step,
                on the device that the balancer was made for. S is P or more. It belongs to the placement from before
                the call. While `state.layers_stale` is not empty it is not counted.

        Returns:
            What the balancer is doing and has done.

        Raises:
            BalanceError: a step that failed on some rank, raised on all of them with the same reasons, unless
                `on_error` is `"report"`. The placement and the tables are those of the layers that were moved before,
                but for `state.layers_stale`, for which it is raised in every step. Where `state.is_broken`, it is
                raised in every further step, which sends nothing: ranks were not heard, or do not hold the same. A new
                balancer in new groups goes on from `placement`, where the ranks agree on it.
            ValueError: a `load` that does not fit, on the rank that was given it: in a step without messages, else it
                is the reason of the above. On every rank, at the end of a window, loads whose sums cannot be: negative
                ones, or some in slots that hold no expert.
            TypeError: likewise.
        """
        self._state = replace(self._state, step=self._state.step + 1)
        if self._state.is_broken:
            return self._stay_broken()
        try:
            self._advance(load)
        except _Failure as failure:
            error, breaks = failure.error, failure.breaks
        except Exception as unexpected:
            # Other ranks do not hear of it, and go on.
            error, breaks = unexpected, True
        except BaseException as interrupt:
            self._give_up(interrupt, breaks=True)
            raise
        else:
            return self._state
        self._give_up(error, breaks)
        if self._is_raising:
            raise error
        return self._state

    def _advance(self, load: torch.Tensor) -> None:
        phase = self._state.phase
        if self._state.layers_stale:
            trouble = self._follow()
        else:
            trouble = _trouble(partial(self._windows.record, load, self._placement))
        if self._state.step % self._interval == 0:
            self._close_window(trouble)
        if phase == "planning":
            self._hear(trouble)
        elif phase == "moving":
            self._move(trouble)
        elif trouble is not None:
            raise _Failure(trouble, breaks=False)

    # --- recording ----------------------------------------------------------------------------------------------------

    def _close_window(self, trouble: Exception | None) -> None:
        """Adds the window up over the ranks and, where nothing else is going on, has a plan thought about."""
        deadline = Deadline(self._timeout)
        try:
            total, troubled = self._windows._take(self._members, deadline, int(trouble is not None))
        except RuntimeError as error:
            raise self._unheard(reason_of(error), trouble, error) from error
        if troubled:
            self._meet(_Word(), trouble)
        try:
            total = without_nowhere(total)
        except ValueError as error:
            # The sums are the same on all ranks, and so is what is wrong with them.
            raise _Failure(error, breaks=False) from error
        self._windows._keep(total)
        self._state = replace(self._state, windows=self._state.windows + 1, error=None)
        if self._state.phase == "recording":
            self._state = replace(self._state, phase="planning")
            if self._is_planner:
                self._job_trouble = _trouble(self._think)

    # --- planning -----------------------------------------------------------------------------------------------------

    def _think(self) -> None:
        """Begins to think about a plan, unless an earlier one still is."""
        if self._late_job is not None and self._late_job.is_done:
            self._late_job = None
        if self._late_job is None:
            self._job = Job(self._judge, self._windows.loads(), self._placement)
            self._say("a plan is thought about")

    def _hear(self, trouble: Exception | None) -> None:
        """Hears whether the planning rank is done, and takes over what it decided."""
        proposal: Proposal | None = None
        word = _Word()
        if self._is_planner and trouble is None:
            try:
                proposal, word = self._thought()
            except Exception as error:
                trouble = error
        heard = self._meet(word, trouble)[self._planner_rank]
        if heard.code == _WAIT:
            return
        self._job = None
        is_new = not math.isnan(heard.balancedness)
        self._state = replace(
            self._state,
            planning_seconds=heard.seconds if is_new else self._state.planning_seconds,
            balancedness=heard.balancedness if is_new else self._state.balancedness,
            expected=heard.expected if is_new else self._state.expected,
            decision=heard.text,
        )
        if heard.code == _STAY:
            self._state = replace(self._state, phase="recording", declined=self._state.declined + int(is_new))
            self._say(f"nothing is moved, {heard.text}")
            return
        self._begin(self._received(proposal))

    def _thought(self) -> tuple[Proposal | None, _Word]:
        """What the planning rank has come to."""
        if self._job_trouble is not None:
            raise self._job_trouble
        if self._job is None:
            late = self._late_job.seconds if self._late_job is not None else 0.0
            text = f"an earlier plan is still thought about, for {late:.1f} s, and no other is begun"
            return None, _Word(_STAY, balancedness=math.nan, expected=math.nan, text=text)
        proposal = self._job.result()
        if proposal is None and self._job.seconds > self._planning_timeout:
            raise RuntimeError(f"planning is not done after {self._planning_timeout:g} s")
        return proposal, _Word.of(proposal, self._job.seconds)

    def _received(self, proposal: Proposal | None) -> Placement:
        """The planned placement, on every rank, agreed on."""
        table = self._placement.physical_to_logical()
        if proposal is not None and proposal.placement is not None:
            table = proposal.placement.physical_to_logical()
        trouble: Exception | None = None
        try:
            table = self._control.broadcast(table, self._planner_rank, Deadline(self._timeout))
            here = self._placement
            self._target = Placement.from_physical_to_logical(table, here.num_experts, here.topology)
        except ValueError as error:
            trouble = error
        except RuntimeError as error:
            raise self._unheard(f"the plan did not reach all ranks: {reason_of(error)}", None, error) from error
        self._meet(_Word(), trouble)
        assert self._target is not None
        return self._target

    def _begin(self, planned: Placement) -> None:
        layers = differing(self._placement, planned)
        self._state = replace(
            self._state, phase="moving", plans=self._state.plans + 1, layers_left=layers, moving_seconds=0.0
        )
        before, expected = self._state.balancedness, self._state.expected
        self._say(f"{len(layers)} layers are moved, balancedness {before:.4f}, expected {expected:.4f}")

    # --- moving -------------------------------------------------------------------------------------------------------

    def _move(self, trouble: Exception | None) -> None:
        """Moves the next layers, and hears whether all ranks did."""
        start = time.perf_counter()
        layers = self._state.layers_left[: self._moving.layers_per_step]
        progress = Progress()
        failure = _trouble(partial(self._move_layers, layers, progress))
        breaks = not progress.is_heard or (isinstance(failure, MigrationError) and not failure.is_usable)
        if breaks and not (progress.is_heard and self._has_own_control):
            raise self._unheard("", failure, failure)
        self._meet(_Word(), failure or trouble, breaks=breaks)
        left = self._state.layers_left[len(layers) :]
        self._state = replace(
            self._state,
            layers_left=left,
            moving_seconds=self._state.moving_seconds + time.perf_counter() - start,
        )
        if not left:
            self._target = None
            self._state = replace(self._state, phase="recording", decision="moved")
            self._say(f"all layers are moved in {self._state.moving_seconds:.3f} s")

    def _move_layers(self, layers: tuple[int, ...], progress: Progress) -> None:
        """Migrates some layers, and switches their tables."""
        old = self._placement
        made: list[tuple[Placement, Migration]] = []
        failure = _trouble(lambda: made.append(self._next(layers)))
        plan = made[0][1] if made else failure or RuntimeError("there is no plan")
        groups = (self._members.group, self._control.group)
        try:
            carried_out(self._weights, plan, progress, *groups, self._verify, self._timeout)
        except Exception:
            # What was written is where it is, and tables that know of it are right.
            self._take_over(old, *made[0], progress) if made else None
            self._follow()
            raise
        except BaseException:
            # An engine's functions are not called while a process is interrupted, but in the next step, if there is.
            self._take_over(old, *made[0], progress) if made else None
            raise
        self._take_over(old, *made[0], progress)
        if (trouble := self._follow()) is not None:
            raise trouble

    def _next(self, layers: tuple[int, ...]) -> tuple[Placement, Migration]:
        """The placement after some layers of the plan, and the way to it."""
        if self._target is None:
            raise RuntimeError("there is no plan")
        old = self._placement
        table, wanted = old.physical_to_logical(), self._target.physical_to_logical()
        table[list(layers)] = wanted[list(layers)]
        new = Placement.from_physical_to_logical(table, old.num_experts, old.topology)
        return new, self._moving.plan(old, new)

    def _take_over(self, old: Placement, new: Placement, plan: Migration, progress: Progress) -> None:
        """Notes what a migration has written, all of it or some."""
        transfers = progress.transfers
        if transfers is None:
            return
        done, partly = layers_written(plan, progress.batches)
        is_whole = progress.batches == plan.num_batches
        self._placement = new if is_whole else placement_after(old, plan, progress.batches)
        changed = differing(old, self._placement)
        self._state = replace(
            self._state,
            bytes_sent=self._state.bytes_sent + transfers.bytes_sent,
            bytes_received=self._state.bytes_received + transfers.bytes_received,
            layers_moved=self._state.layers_moved + len(changed if is_whole else done),
            layers_stale=tuple(sorted({*self._state.layers_stale, *changed, *done, *partly})),
            slots_torn=(*self._state.slots_torn, *transfers.torn),
        )

    def _follow(self) -> Exception | None:
        """Has tables follow the layers that they do not; what went wrong with those that still do not."""
        reasons: dict[int, Exception] = {}
        for layer in self._state.layers_stale:
            trouble = _trouble(partial(self._switch_layer, layer))
            if trouble is not None:
                reasons[layer] = trouble
                continue
            left = tuple(each for each in self._state.layers_stale if each != layer)
            self._state = replace(self._state, layers_stale=left)
        if not reasons:
            return None
        first, *_ = reasons.values()
        several = len(reasons) > 1
        layers = f"layer{'s' if several else ''} {number_words(tuple(reasons))} {'are' if several else 'is'}"
        error = RuntimeError(f"{layers} moved, but the tables do not follow: {_said(first, 160)}")
        error.__cause__ = first
        return error

    def _switch_layer(self, layer: int) -> None:
        for tables in self._tables:
            if layer in tables.layers:
                tables.update(self._placement, layer=layer)
        if self._on_layer is not None:
            self._on_layer(layer, self._placement)

    # --- messages and failures ----------------------------------------------------------------------------------------

    def _meet(self, word: _Word, trouble: Exception | None, *, breaks: bool = False) -> list[_Word]:
        """What every rank says; a failure on all of them where one is in trouble."""
        if trouble is not None:
            word = _Word(_TROUBLE, text=_said(trouble, 200))
        word = word._replace(step=self._state.step, held=_digest(self._placement), planned=_digest(self._target))
        try:
            words = [_Word.unpacked(each) for each in self._control.exchange(word.packed(), Deadline(self._timeout))]
        except RuntimeError as error:
            late = f"no answer from every rank within {self._timeout:g} s: {reason_of(error)}"
            raise self._unheard(late, trouble, error) from error
        reasons = {rank: each.text for rank, each in enumerate(words) if each.code == _TROUBLE}
        said = merged(reasons)
        differ = _differ(words)
        if differ:
            said = f"{differ}; {said}" if said else differ
        if said:
            breaks = breaks or differ != ""
            raise self._failed(said, reasons, trouble, breaks=breaks)
        return words

    def _failed(self, said: str, reasons: dict[int, str], cause: BaseException | None, *, breaks: bool) -> _Failure:
        error = BalanceError(f"{self._where()}: {said}", reasons)
        error.__cause__ = cause
        return _Failure(error, breaks=breaks)

    def _unheard(self, late: str, trouble: Exception | None, cause: BaseException | None) -> _Failure:
        """The failure of a rank that does not hear the others."""
        reasons = {} if trouble is None else {self._members.rank: _said(trouble, 1000)}
        said = "; and ".join(part for part in (merged(reasons), late) if part)
        return self._failed(said, reasons, trouble or cause, breaks=True)

    def _where(self) -> str:
        """Which step failed, and what it leaves."""
        left = self._state.layers_left
        kept = f", layers {number_words(left)} were not moved before it" if left else ""
        return f"step {self._state.step} failed while {self._state.phase}{kept}"

    def _give_up(self, error: BaseException, breaks: bool) -> None:
        """Drops what was planned; what was moved stays where it is."""
        if self._job is not None and not self._job.is_done:
            self._late_job = self._job
        self._job = self._target = self._job_trouble = None
        said = _said(error)
        if isinstance(error.__cause__, MigrationError) and not isinstance(error, Exception):
            said = f"{said}; {error.__cause__}"
        self._state = replace(
            self._state,
            phase="recording",
            failures=self._state.failures + 1,
            layers_left=(),
            decision="given up" if self._state.phase != "recording" else self._state.decision,
            error=said,
            is_broken=breaks,
        )
        if breaks:
            self._broken = str(error) if isinstance(error, BalanceError) else said
            self._log(logging.ERROR, f"broken, and sends nothing more: {said}")
            return
        reasons = error.reasons if isinstance(error, BalanceError) else {self._members.rank: said}
        if self._is_planner or self._members.rank in reasons:
            self._log(logging.ERROR, said)
        else:
            self._log(logging.ERROR, f"{self._state.decision} in step {self._state.step}, as {_named(reasons)} said")

    def _stay_broken(self) -> BalancerState:
        """A step of a balancer that sends nothing more."""
        if self._state.layers_stale:
            self._follow()
        if self._is_raising:
            raise BalanceError(
                f"step {self._state.step} is not taken, expected another balancer in new groups after {self._broken}",
                {},
            )
        return self._state

    def _say(self, what: str) -> None:
        """One line in the log, by the rank that plans."""
        if self._is_planner:
            self._log(logging.INFO, f"step {self._state.step}: {what}")

    def _log(self, level: int, what: str) -> None:
        """A line in the log; what a handler raises does not keep this rank from doing as the others do."""
        _trouble(lambda: _LOG.log(level, "balancer of rank %d: %s", self._members.rank, what))

    def __repr__(self) -> str:
        phase = "broken" if self._state.is_broken else self._state.phase
        return f"<{type(self).__name__} {phase} in step {self._state.step}, {self._placement!r}>"


class _Failure(Exception):  # noqa: N818
    """What a step is to raise, and whether ranks are at different steps after it."""

    def __init__(self, error: Exception, *, breaks: bool) -> None:
        super().__init__(error)
        self.error = error
        self.breaks = breaks


_WAIT, _STAY, _GO, _TROUBLE = range(4)
_WORD = struct.Struct("<qq32s32s3d233s")
_MOST_TEXT = 233


class _Word(NamedTuple):
    """What a rank says in a message."""

    code: int = _WAIT
    step: int = 0
    held: bytes = b""
    planned: bytes = b""
    seconds: float = 0.0
    balancedness: float = 0.0
    expected: float = 0.0
    text: str = ""

    @classmethod
    def of(cls, proposal: Proposal | None, seconds: float) -> _Word:
        if proposal is None:
            return cls()
        return cls(
            _STAY if proposal.placement is None else _GO,
            seconds=seconds,
            balancedness=proposal.balancedness,
            expected=proposal.expected,
            text=proposal.decision,
        )

    def packed(self) -> bytes:
        return _WORD.pack(*self[:-1], self.text.encode()[:_MOST_TEXT])

    @classmethod
    def unpacked(cls, message: bytes) -> _Word:
        *content, text = _WORD.unpack(message)
        return cls._make((*content, text.rstrip(b"\0").decode(errors="ignore")))


def _digest(placement: Placement | None) -> bytes:
    """A placement in 32 bytes."""
    return b"" if placement is None else hashlib.sha256(placement.digest().encode()).digest()


def _differ(words: list[_Word]) -> str:
    """In what ranks differ that has to be the same, or nothing."""
    fine = [word for word in words if word.code != _TROUBLE]
    if len({word.step for word in words}) > 1:
        return f"ranks are in different steps: {', '.join(str(word.step) for word in words)} by rank"
    if len({word.held for word in words}) > 1:
        held = merged({rank: word.held.hex()[:16] for rank, word in enumerate(words)})
        return f"ranks hold different placements: {held}"
    return "ranks were told different plans" if len({word.planned for word in fine}) > 1 else ""


def _said(error: BaseException, most: int | None = None) -> str:
    """What an error says, and its type."""
    text = str(error) if most is None else reason_of(error, most)
    return f"{type(error).__name__}: {text}" if str(error) else type(error).__name__


def _named(reasons: dict[int, str]) -> str:
    return rank_words(tuple(sorted(reasons))) if reasons else "no rank"


def _trouble(act: Callable[[], object]) -> Exception | None:
    """What goes wrong, where something does."""
    try:
        act()
    except Exception as error:
        return error
    return None


# There are as many as layers at most, of which no model has so many.
_MOST_TABLES = 2**16


def _followers(tables: Iterable[Tables]) -> tuple[Tables, ...]:
    made: tuple[Tables, ...] = tuple(items_argument("tables", tables, "a sequence of tables", _MOST_TABLES, "tables"))
    for number, each in enumerate(made):
        if not (hasattr(each, "layers") and callable(getattr(each, "update", None))):
            expected = "something with `layers` and `update`, such as RoutingTables"
            raise TypeError(f"tables[{number}] must be {expected}, got `{type(each).__name__}`")
        if not hasattr(each.layers, "__contains__"):
            raise TypeError(f"tables[{number}] has layers of the type `{type(each.layers).__name__}`, expected a range")
    return made


def _local(weights: Weights, placement: Placement, rank: int) -> LocalWeights:
    """The weights, which have to be this rank's slots."""
    local = LocalWeights(weights, placement.num_layers)
    first, last = placement.slot_offsets().tolist()[rank : rank + 2]
    if local.num_local_slots != last - first:
        raise ValueError(
            f"weights have {local.num_local_slots} local slots, expected {last - first} as rank {rank} has"
        )
    return local


def _planner(planning: Planner | None) -> Planner:
    if planning is None:
        return Planning()
    if not callable(planning):
        raise TypeError(f"planning must be a Planning or a function, got `{type(planning).__name__}`")
    return planning


def _cost(cost: MovingCost | None) -> MovingCost | None:
    if cost is not None and not is_a(cost, MovingCost):
        raise TypeError(f"cost must be a MovingCost, got `{type(cost).__name__}`")
    return cost


def _part(name: str, value: float) -> float:
    return real_argument(name, value, lambda part: 0.0 <= part <= 1.0, "0.0..=1.0", "a number")
