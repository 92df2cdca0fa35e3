"""A migration carried out between processes, batch by batch, so that it can fail without harm. SPEC.md, "Batches".

`Migration.apply` does the same in one process and is the reference.

What holds: a batch is written when every rank has confirmed that all it was to receive has arrived whole, and not
before. What is written then is local memory.

A batch is confirmed in two steps, each an all-reduce, whose result nobody has before all ranks have come to it:

1. Every rank votes. One that votes that something failed stops the batch on all.
2. Every rank says that it heard no such vote. A rank that has heard all of them writes.

Where the others cannot be heard in time, or an interrupt comes, a rank asks the store of the group, which keeps the
first thing that is proposed and gives it to all that ask. In the first step it proposes to stop: nobody can have
written then, nor can anybody, since this rank has not said that it heard. In the second it proposes to write: all ranks
have voted for it, and some may have written already, but only if all are past the first step, so that nobody proposes
to stop. So ranks that are late by any time, or come back when others have given up, do the same; and where the store is
gone as well, a rank does not write and says that it does not know what the others do.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from expert_placement import Migration, Placement, Topology
from expert_placement._arguments import bool_argument, is_a
from expert_placement._text import digits
from expert_placement.distributed._groups import (
    Deadline,
    Members,
    expect_ranks,
    number_words,
    rank_words,
    reason_of,
    seconds_argument,
)
from expert_placement.distributed._transfers import Transfers
from expert_placement.distributed.agreement import expect_same
from expert_placement.torch._arguments import expect_placement, int_argument

if TYPE_CHECKING:
    from typing import SupportsIndex

    from expert_placement.distributed._groups import Group
    from expert_placement.distributed._weights import Weights


class Moved(NamedTuple):
    """What a rank did in a migration."""

    batches: int
    """How many batches there were, on all ranks."""
    slots: int
    """How many slots of this rank were written."""
    sent: int
    """How many experts this rank sent."""
    received: int
    """How many experts this rank received; what was written and not received was copied inside the rank."""
    bytes_sent: int
    """What it sent, in bytes, checksums not counted."""
    bytes_received: int
    """What it received, in bytes, checksums not counted."""
    staged: int
    """How many experts this rank kept beside its slots at most."""
    bytes_staged: int
    """How much memory that took, in bytes."""
    seconds: float
    """How long it took, from the call on."""


class MigrationError(RuntimeError):
    """A migration that stopped on its way.

    Batches before `batch` are written on every rank, and of `batch` nothing is, unless `is_agreed` is false. Where it
    is true every expert of every layer is in at least one slot: `placement_after(old, plan, error.batch)` says where.
    Where it is false that is what this rank's own slots hold, but for `slots_torn`.

    Args:
        message: what is wrong.
        batch: the batch in which it stopped.
        move: the move that failed.
        is_agreed: whether all ranks stopped there.
        layers_done: layers whose moves are all written.
        layers_partly_done: layers of which some moves are written.
        is_usable: whether the groups can be used again.
        slots_torn: slots that may be half-written.
    """

    batch: int
    """The batch in which it stopped: how many batches are written."""
    move: int | None
    """The move, as the plan counts them, whose content arrived as something else; None where something else failed."""
    is_agreed: bool
    """Whether all ranks that live are known to stop in this batch; if not, others may have written it, and no more.

    It is false where neither the other ranks nor the store of the control group answered, and where writing failed.
    """
    layers_done: tuple[int, ...]
    """Layers that the plan moves something in, and whose moves are all written."""
    layers_partly_done: tuple[int, ...]
    """Layers of which some moves are written, and others are not."""
    is_usable: bool
    """Whether the groups can be used again; if not, ranks are at different operations, which would take each other's
    messages for their own, and a new group has to be made."""
    slots_torn: tuple[tuple[int, int], ...]
    """Layers and slots of this rank that were being written when that failed: each may hold what it held, what it was
    to hold, or half of both, and has to be loaded anew."""

    def __init__(
        self,
        message: str,
        batch: int,
        move: int | None = None,
        is_agreed: bool = False,
        layers_done: tuple[int, ...] = (),
        layers_partly_done: tuple[int, ...] = (),
        is_usable: bool = False,
        slots_torn: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(message)
        self.batch = batch
        self.move = move
        self.is_agreed = is_agreed
        self.layers_done = layers_done
        self.layers_partly_done = layers_partly_done
        self.is_usable = is_usable
        self.slots_torn = slots_torn

    def __reduce__(self) -> tuple[type[MigrationError], tuple[object, ...]]:
        content = (self.batch, self.move, self.is_agreed, self.layers_done, self.layers_partly_done)
        return type(self), (str(self), *content, self.is_usable, self.slots_torn)


@dataclass
class Progress:
    """How far a migration came on this rank, for those that have to know it whatever ends it."""

    batches: int = 0
    """How many batches are written on this rank."""
    is_heard: bool = True
    """Whether ranks are at the same operation of the control group."""
    transfers: Transfers | None = None
    """This rank's part, with what it sent and received; None before there is one."""


def migrate(
    weights: Weights,
    plan: Migration,
    group: Group = None,
    *,
    control_group: Group = None,
    verify: bool = False,
    timeout: float = 60.0,
) -> Moved:
    """Moves weights between the ranks of a group as a plan says, in place.

    Every rank of the group has to call it. Before anything moves one all-gather of 299 bytes a rank compares what ranks
    were called with; a rank that refuses its arguments takes part in it and raises after, and so do all others. Every
    batch ends with two all-reduces of 8 bytes, by which ranks confirm it; where they cannot be heard, the key-value
    store that the control group was made with decides. Copies inside a rank are not sent.

    A rank needs memory for the experts that it stages, at most `plan.num_staged` of the largest that it stages, each
    tensor rounded up to 16 bytes; it is allocated before anything moves. Checksums take up to 100 MiB
    more while they are worked out, for experts that are so large. Where the group cannot send from the device of
    the weights (gloo, and weights on a GPU), it is on the CPU, with one more expert that is sent. On a GPU, work that
    reads the weights has to be on the current stream, or be waited for. Some time after a failure torch's watchdog over
    NCCL may end the process, unless the environment variable `TORCH_NCCL_ASYNC_ERROR_HANDLING` is 2.

    Args:
        weights: what this rank's own slots hold: a tensor `[L, local slots, ...]`, or a sequence or a mapping of them,
            such as weights and their scales, which move together. Instead of a tensor there may be a sequence of L
            tensors `[local slots, ...]`, whose experts may differ from layer to layer: a sequence that is given for
            `weights` is one of tensors, and `[layers]` one of layers. Any dtype of whole bytes; what a slot holds has
            to be contiguous, and no two of them may share memory. Lists of lists that may go by tensor or by layer are
            refused, since a mapping from names to lists says which. `torch.nn.ParameterList` and `ParameterDict` are
            taken as list and mapping.
        plan: the same on every rank; its ranks are those of the group.
        group: the process group that weights travel through; torch's default group without other word.
        control_group: a group of the same ranks for the confirmations; `group` without other word. Where a transfer
            fails, backends end the group that it went through: in a group of their own, such as one of gloo beside one
            of NCCL, the ranks that live can still agree where they stop.
        verify: whether 64-bit checksums are compared of what is sent and what arrives.
        timeout: seconds in which a batch has to arrive, more than 0 and at most 86400. A rank that dies or hangs is an
            error on all others within twice that, and within three times where the store does not answer either.

    Returns:
        What this rank did, when all ranks have confirmed the last batch.

    Raises:
        ValueError: weights that are not the plan's or the rank's, or that have slots of another layout; no process
            group, or one of another number of ranks; a timeout out of range.
        DisagreementError: a `ValueError` on every rank, where ranks were called with different plans or weights.
        MigrationError: a `RuntimeError` that says how far all ranks came, and what is where: another rank refused its
            arguments, did not answer in time, something arrived as something else, or could not be written. What ends
            this process, such as a `KeyboardInterrupt`, is raised as it is, and has such an error as its `__cause__`.
        TypeError: an argument of another type.
    """
    return carried_out(weights, plan, Progress(), group, control_group, verify, timeout)


def carried_out(
    weights: Weights,
    plan: Migration | Exception,
    progress: Progress,
    group: Group,
    control_group: Group,
    verify: bool,
    timeout: float,
) -> Moved:
    """As `migrate`; how far it came stands in `progress`, whatever it raises.

    A plan that could not be made is given as what was raised then, so that the other ranks hear of it.
    """
    start = time.perf_counter()
    waiting = seconds_argument("timeout", timeout)
    members = Members(group)
    control = members if control_group is None else Members(control_group, "control_group")
    prepared = _prepared(weights, plan, members, control, verify)
    answers, name = _answers(prepared, members, waiting, progress)
    if isinstance(prepared, Exception):
        raise prepared
    plan = prepared.plan
    _compare(answers, plan)
    sizes = [answer.num_local_slots for answer in answers]
    prepared.first_slot = sum(sizes[: members.rank])
    progress.transfers = prepared
    try:
        if not all(answer.is_warm for answer in answers):
            _warm(prepared, waiting, progress)
        _Run(prepared, control, waiting, name, progress).all()
    except Exception:
        raise
    except BaseException as interrupt:
        progress.is_heard = False
        if isinstance(interrupt.__cause__, MigrationError):
            raise
        raise interrupt from _stopped(plan, progress, _said(interrupt), is_agreed=False)
    return _moved(prepared, plan, time.perf_counter() - start)


def placement_after(
    old: Placement, plan: Migration, num_batches: SupportsIndex, *, topology: Topology | None = None
) -> Placement:
    """Where experts are after the first batches of a migration, as after one that stopped.

    Args:
        old: the placement that the plan begins with.
        plan: the migration.
        num_batches: how many batches were written, in 0..=B.
        topology: of the result; that of `old` without other word, with the ranks in service that were written to.

    Returns:
        The placement. Slots that the plan's end leaves empty hold what they held.

    Raises:
        ValueError: a number out of range, a placement that the plan does not begin with, or a topology in which ranks
            are not active that hold something.
        TypeError: an argument of another type.
    """
    expect_placement(old, "old")
    _expect_plan(plan)
    number = int_argument("num_batches", num_batches)
    if not 0 <= number <= plan.num_batches:
        raise ValueError(f"num_batches={digits(number)} is out of range, expected 0..={plan.num_batches}")
    table = old.physical_to_logical()
    if tuple(table.shape) != (plan.num_layers, plan.num_slots):
        raise ValueError(
            f"old has {list(table.shape)} layers and slots, expected {[plan.num_layers, plan.num_slots]} as the plan"
        )
    layer, expert, source, destination = plan.moves.long().unbind(1)
    if not torch.equal(table[layer, source].long(), expert):
        raise ValueError("old holds other experts in the slots that are read, expected the placement of the plan")
    written = plan.write_batches < number
    table[layer[written], destination[written]] = expert[written].to(table.dtype)
    if topology is None:
        topology = _with_active(old.topology, set(plan.receivers[written].tolist()))
    return Placement.from_physical_to_logical(table, old.num_experts, topology)


def _with_active(topology: Topology, ranks: set[int]) -> Topology:
    if topology.active is None:
        return topology
    active = [is_active or rank in ranks for rank, is_active in enumerate(topology.active)]
    return Topology(topology.num_ranks, topology.num_nodes, topology.slots_per_rank, topology.speeds, active)


# Whether the arguments are fine, whether checksums are wanted, and whether the group was used for weights before; the
# plan; the weights; the kind of device that sends; the local slots; what makes this migration's name; a reason.
_QUESTION = struct.Struct("<???32s32s8sq16s200s")
# A rank's vote: 0, or 1 + the move that arrived as something else, or this + its rank if it failed.
_FAILED = 2**62
# What a rank says with the number of the batch when it has heard that all votes are 0.
_HEARD = 2**61


class _Answer(NamedTuple):
    """What a rank was called with."""

    is_fine: bool
    verify: bool
    is_warm: bool
    plan: bytes
    weights: bytes
    device: bytes
    num_local_slots: int
    nonce: bytes
    reason: bytes


def _expect_plan(plan: object) -> None:
    if not is_a(plan, Migration):
        raise TypeError(f"plan must be a Migration, got `{type(plan).__name__}`")


def _prepared(
    weights: Weights, plan: Migration | Exception, members: Members, control: Members, verify: bool
) -> Transfers | Exception:
    """This rank's part, with its memory allocated; or why there is none, which the others are to hear of first."""
    if isinstance(plan, Exception):
        return plan
    try:
        _expect_plan(plan)
        expect_ranks(members, control, plan.num_ranks, "plan")
        return Transfers(weights, plan, members, bool_argument("verify", verify))
    except Exception as error:
        return error


def _answers(
    prepared: Transfers | Exception, members: Members, seconds: float, progress: Progress
) -> tuple[list[_Answer], str]:
    """What every rank was called with, in one collective; and a name for this migration."""
    nonce = os.urandom(16)
    if isinstance(prepared, Exception):
        question = _Answer(False, False, True, b"", b"", b"", 0, nonce, reason_of(prepared, 200).encode())
    else:
        content = (_plan_digest(prepared.plan), prepared.weights.signature(), prepared.device.type.encode()[:8])
        is_warm = members.is_warm(prepared.device)
        question = _Answer(True, prepared.verify, is_warm, *content, prepared.weights.num_local_slots, nonce, b"")
    try:
        answers = members.exchange(_QUESTION.pack(*question), Deadline(seconds))
    except RuntimeError as error:
        progress.is_heard = False
        if isinstance(prepared, Exception):
            raise prepared from error
        late = f"no answer from every rank within {seconds:g} s: {reason_of(error)}"
        # Without this rank nothing is written, whoever comes later.
        raise MigrationError(f"migration did not begin, and nothing is moved: {late}", 0, is_agreed=True) from error
    name = f"expert_placement/{hashlib.sha256(b''.join(answers)).hexdigest()}"
    return [_Answer(*_QUESTION.unpack(answer)) for answer in answers], name


def _plan_digest(plan: Migration) -> bytes:
    hashed = hashlib.sha256(struct.pack("<3q", plan.num_layers, plan.num_slots, plan.num_ranks))
    for tensor in (plan.moves, plan.batches, plan.write_batches, plan.senders, plan.receivers):
        hashed.update(struct.pack("<q", tensor.numel()))
        hashed.update(tensor.numpy().tobytes())
    return hashed.digest()


def _compare(answers: list[_Answer], plan: Migration) -> None:
    """Raises on every rank unless all can do the same."""
    refused = tuple(rank for rank, answer in enumerate(answers) if not answer.is_fine)
    if refused:
        reason = answers[refused[0]].reason.rstrip(b"\0").decode(errors="ignore")
        raise MigrationError(
            f"migration did not begin, and nothing is moved: {rank_words(refused)} refused: {reason}",
            0,
            is_agreed=True,
            is_usable=True,
        )
    expect_same("plan", [answer.plan.hex()[:16] for answer in answers])
    expect_same("weights (names, dtypes and shapes of an expert)", [answer.weights.hex()[:16] for answer in answers])
    expect_same("the kind of device that sends", [answer.device.rstrip(b"\0").decode() for answer in answers])
    expect_same("verify", [str(answer.verify) for answer in answers])
    _expect_layout([answer.num_local_slots for answer in answers], plan)


def _expect_layout(sizes: list[int], plan: Migration) -> None:
    """Refuses local slots that are not those that the plan counts with."""
    if sum(sizes) != plan.num_slots:
        raise ValueError(
            f"weights have {sizes} local slots by rank, {sum(sizes)} together, expected {plan.num_slots} as the plan"
        )
    ends = torch.tensor(sizes).cumsum(0)
    moves = plan.moves
    for column, ranks in ((2, plan.senders), (3, plan.receivers)):
        owners = torch.bucketize(moves[:, column].contiguous(), ends, right=True)
        wrong = torch.nonzero(owners != ranks)
        if len(wrong):
            move = int(wrong[0])
            raise ValueError(
                f"weights have {sizes} local slots by rank, which puts slot {int(moves[move, column])} on rank "
                f"{int(owners[move])}, expected rank {int(ranks[move])} as the plan"
            )


def _warm(transfers: Transfers, seconds: float, progress: Progress) -> None:
    try:
        transfers.members.warm(transfers.device, Deadline(seconds))
    except RuntimeError as error:
        progress.is_heard = False
        late = f"no answer from every rank within {seconds:g} s: {reason_of(error)}"
        raise MigrationError(f"migration did not begin, and nothing is moved: {late}", 0, is_agreed=True) from error


class _Outcome(NamedTuple):
    """What came of the confirmation of a batch."""

    is_written: bool | None
    """Whether it is to be written; None where that is not known, and it is not written."""
    verdict: int = 0
    """The worst vote."""
    error: BaseException | None = None
    """Why ranks are not at the same operation any more."""


class _Run:
    """The batches of a migration, one after the other.

    Args:
        transfers: this rank's part.
        control: the group of the confirmations.
        seconds: to wait for a batch.
        name: of this migration, the same on every rank and used for no other.
        progress: where is noted what is done.
    """

    __slots__ = ("control", "name", "plan", "progress", "seconds", "transfers")

    def __init__(
        self,
        transfers: Transfers,
        control: Members,
        seconds: float,
        name: str,
        progress: Progress,
    ) -> None:
        self.transfers, self.plan, self.control = transfers, transfers.plan, control
        self.seconds, self.name, self.progress = seconds, name, progress

    def all(self) -> None:
        """Carries out all batches; raises a `MigrationError` where it stops."""
        vote, heard = self._deadlines()
        for batch in range(self.plan.num_batches):
            word, failure = self._read(batch, vote)
            outcome = self._confirmed(batch, word, vote, heard)
            # What the next batch may take begins here, at what is the same moment for all, and not after this write.
            vote, heard = self._deadlines()
            if outcome.is_written:
                self._write(batch)
            if outcome.error is not None or not outcome.is_written:
                self._stop(outcome, failure)

    def _deadlines(self) -> tuple[Deadline, Deadline]:
        """Until when is waited for the votes on a batch, and until when for what ranks heard of them.

        A rank that gave up after its own time has half as much again to tell those that were done with it at once.
        """
        return Deadline(1.5 * self.seconds), Deadline(2 * self.seconds)

    def _read(self, batch: int, vote: Deadline) -> tuple[int, Exception | None]:
        """Reads a batch: this rank's vote on it, and what failed."""
        try:
            bad = self.transfers.read(batch, Deadline(self.seconds))
            if vote.is_over:
                raise RuntimeError(f"rank {self.control.rank} was late by {1.5 * self.seconds:g} s or more")
        except Exception as error:
            return _FAILED + self.control.rank, error
        return (0 if bad is None else 1 + bad), None

    def _confirmed(self, batch: int, word: int, vote: Deadline, heard: Deadline) -> _Outcome:
        proposed = "stop"
        try:
            # One that is late is listened to all the same: perhaps the others still wait.
            verdict = self.control.largest(word, Deadline(self.seconds) if vote.is_over else vote)
            if verdict:
                return _Outcome(False, verdict)
            proposed = "write"
            if self.control.largest(_HEARD + batch, heard) != _HEARD + batch:
                raise RuntimeError("ranks confirmed different batches")
            return _Outcome(True)
        except BaseException as error:
            self.progress.is_heard = False
            if word:
                # With this vote nobody writes.
                return _Outcome(False, word, error)
            decided = self.control.decide(f"{self.name}/{batch}", proposed, self.seconds)
            return _Outcome({"stop": False, "write": True}.get(decided or ""), 0, error)

    def _write(self, batch: int) -> None:
        try:
            self.transfers.write(batch)
        except BaseException as error:
            self.progress.is_heard = False
            stopped = _stopped(self.plan, self.progress, f"it could not be written: {_said(error)}", is_agreed=False)
            if isinstance(error, Exception):
                raise stopped from error
            raise error from stopped
        self.progress.batches = batch + 1

    def _stop(self, outcome: _Outcome, failure: Exception | None) -> None:
        """Raises the error that says how far all ranks came."""
        error, verdict = outcome.error, outcome.verdict
        is_agreed = outcome.is_written is not None
        if failure is not None:
            reason = reason_of(failure, 400)
        elif 0 < verdict < _FAILED:
            reason = _corrupted(self.plan, verdict - 1)
        elif verdict:
            reason = f"rank {verdict - _FAILED} failed"
        else:
            reason = f"not every rank confirmed: {_said(error)}"
        move = verdict - 1 if 0 < verdict < _FAILED else None
        # Where something did not arrive in time, what is on its way would be taken for something else.
        is_usable = error is None and move is not None
        stopped = _stopped(self.plan, self.progress, reason, is_agreed=is_agreed, move=move, is_usable=is_usable)
        if error is not None and not isinstance(error, Exception):
            raise error from stopped
        raise stopped from failure or error


def _said(error: BaseException | None) -> str:
    """What an error says, with its type where it is none that says something."""
    if error is None or isinstance(error, RuntimeError):
        return "" if error is None else reason_of(error)
    return f"{type(error).__name__}: {reason_of(error)}" if str(error) else type(error).__name__


def _corrupted(plan: Migration, move: int) -> str:
    layer, expert, source, destination = plan.moves[move].tolist()
    sender, receiver = int(plan.senders[move]), int(plan.receivers[move])
    what = f"move {move}, expert {expert} of layer {layer} from slot {source} to slot {destination}"
    return f"{what}, arrived on rank {receiver} as something else than rank {sender} sent: its checksum differs"


def _stopped(
    plan: Migration,
    progress: Progress,
    reason: str,
    *,
    is_agreed: bool,
    is_usable: bool = False,
    move: int | None = None,
) -> MigrationError:
    """The error that says how far all ranks came."""
    batch = progress.batches
    torn = progress.transfers.torn if progress.transfers is not None else ()
    done, partly = layers_written(plan, batch)
    others = len(done) + len(partly) < len(set(plan.moves[:, 0].tolist()))
    parts = [f"layers {number_words(done)} are done"] if done else []
    parts += [f"layers {number_words(partly)} are partly moved"] if partly else []
    parts += ["the others hold what they held"] if others else []
    where = f"in batch {batch} of {plan.num_batches}" if batch < plan.num_batches else "after its last batch"
    before = f"batches before it are written on every rank: {', '.join(parts)}" if batch else "nothing is moved"
    unknown = "" if is_agreed else "; whether others have written that batch is not known"
    halves = "; ".join(f"slot {slot} of layer {layer}" for layer, slot in torn)
    halved = f"; what is in these may be half-written, and has to be loaded anew: {halves}" if torn else ""
    text = f"migration stopped {where}: {reason}; {before}{unknown}{halved}"
    return MigrationError(text, batch, move, is_agreed, done, partly, is_usable, torn)


def layers_written(plan: Migration, batches: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The layers of which so many batches have written all moves, and those of which they have written some."""
    moves, is_written = plan.moves[:, 0], plan.write_batches < batches
    written, left = set(moves[is_written].tolist()), set(moves[~is_written].tolist())
    return tuple(sorted(written - left)), tuple(sorted(written & left))


def _moved(transfers: Transfers, plan: Migration, seconds: float) -> Moved:
    return Moved(
        batches=plan.num_batches,
        slots=transfers.num_written,
        sent=transfers.num_sent,
        received=transfers.num_received,
        bytes_sent=transfers.bytes_sent,
        bytes_received=transfers.bytes_received,
        staged=transfers.num_staged,
        bytes_staged=transfers.buffer.numel(),
        seconds=seconds,
    )
