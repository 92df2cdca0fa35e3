"""A migration carried out between processes, batch by batch, so that it can fail without harm. SPEC.md, "Batches".

`Migration.apply` does the same in one process and is the reference.

What holds, whatever fails: a batch is written when every rank has confirmed that all it was to receive has arrived
whole, and not before. What is written then is local memory. So ranks stop at the same batch, with every expert of every
layer in at least one slot, and no slot ever holds half of an expert.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from expert_placement import Migration, Placement
from expert_placement._text import digits
from expert_placement.distributed._groups import (
    Deadline,
    Members,
    holds_words,
    number_words,
    rank_words,
    reason_of,
    seconds_argument,
)
from expert_placement.distributed._transfers import Transfers
from expert_placement.distributed.agreement import DisagreementError
from expert_placement.torch._arguments import int_argument

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

    Batches before `batch` are written on every rank, and of `batch` nothing is, unless `is_agreed` is false. Every
    expert of every layer is in at least one slot: `placement_after(old, plan, error.batch)` says where.

    Args:
        message: what is wrong.
        batch: the batch in which it stopped.
        move: the move that failed.
        is_agreed: whether all ranks stopped there.
        layers_done: layers whose moves are all written.
        layers_partly_done: layers of which some moves are written.
    """

    batch: int
    """The batch in which it stopped: how many batches are written."""
    move: int | None
    """The move, as the plan counts them, whose content arrived as something else; None where something else failed."""
    is_agreed: bool
    """Whether all ranks that live are known to stop in this batch; if not, others may have written it, and no more."""
    layers_done: tuple[int, ...]
    """Layers that the plan moves something in, and whose moves are all written."""
    layers_partly_done: tuple[int, ...]
    """Layers of which some moves are written, and others are not."""

    def __init__(
        self,
        message: str,
        batch: int,
        move: int | None = None,
        is_agreed: bool = False,
        layers_done: tuple[int, ...] = (),
        layers_partly_done: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.batch = batch
        self.move = move
        self.is_agreed = is_agreed
        self.layers_done = layers_done
        self.layers_partly_done = layers_partly_done

    def __reduce__(self) -> tuple[type[MigrationError], tuple[object, ...]]:
        content = (self.batch, self.move, self.is_agreed, self.layers_done, self.layers_partly_done)
        return type(self), (str(self), *content)


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

    Every rank of the group has to call it. Before anything moves one all-gather of 274 bytes a rank compares what ranks
    were called with; a rank that refuses its arguments takes part in it and raises after, and so do all others. Every
    batch ends with an all-reduce of 8 bytes, by which ranks confirm it. Copies inside a rank are not sent.

    A rank needs memory for the experts that it stages, at most `plan.num_staged` of the largest that it stages, each
    tensor rounded up to 16 bytes; it is allocated before anything moves. Where the group cannot send from the device of
    the weights (gloo, and weights on a GPU), it is on the CPU, with one more expert that is sent. On a GPU, work that
    reads the weights has to be on the current stream, or be waited for. Some time after a failure torch's watchdog over
    NCCL may end the process, unless the environment variable `TORCH_NCCL_ASYNC_ERROR_HANDLING` is 2.

    Args:
        weights: what this rank's own slots hold: a tensor `[L, local slots, ...]`, or a sequence or a mapping of them,
            such as weights and their scales, which move together. Instead of a tensor there may be a sequence of L
            tensors `[local slots, ...]`, whose experts may differ from layer to layer: a sequence that is given for
            `weights` is one of tensors, and `[layers]` one of layers. Any dtype of whole bytes; what a slot holds has
            to be contiguous.
        plan: the same on every rank; its ranks are those of the group.
        group: the process group that weights travel through; torch's default group without other word.
        control_group: a group of the same ranks for the confirmations; `group` without other word. Where a transfer
            fails, backends end the group that it went through: in a group of their own, such as one of gloo beside one
            of NCCL, the ranks that live can still agree where they stop.
        verify: whether 64-bit checksums are compared of what is sent and what arrives.
        timeout: seconds in which a batch has to arrive, more than 0 and at most 86400. A rank that dies or hangs is an
            error on all others within twice that.

    Returns:
        What this rank did, when all ranks have confirmed the last batch.

    Raises:
        ValueError: weights that are not the plan's or the rank's, or that have slots of another layout; no process
            group, or one of another number of ranks; a timeout out of range.
        DisagreementError: a `ValueError` on every rank, where ranks were called with different plans or weights.
        MigrationError: a `RuntimeError` that says how far all ranks came, and what is where: another rank refused its
            arguments, did not answer in time, or something arrived as something else.
        TypeError: an argument of another type.
    """
    start = time.perf_counter()
    waiting = seconds_argument("timeout", timeout)
    members = Members(group)
    control = members if control_group is None else Members(control_group)
    prepared = _prepared(weights, plan, members, control, bool(verify))
    answers = _answers(prepared, plan, members, waiting)
    if isinstance(prepared, Exception):
        raise prepared
    _compare(answers, plan)
    sizes = [answer.num_local_slots for answer in answers]
    prepared.first_slot = sum(sizes[: members.rank])
    for batch in range(plan.num_batches):
        _run(prepared, plan, batch, control, waiting)
    return _moved(prepared, plan, time.perf_counter() - start)


def placement_after(old: Placement, plan: Migration, num_batches: SupportsIndex) -> Placement:
    """Where experts are after the first batches of a migration, as after one that stopped.

    Args:
        old: the placement that the plan begins with.
        plan: the migration.
        num_batches: how many batches were written, in 0..=B.

    Returns:
        A placement with the topology of `old`. Slots that the plan's end leaves empty hold what they held.

    Raises:
        ValueError: a number out of range, or a placement that the plan does not begin with.
        TypeError: an argument of another type.
    """
    if not isinstance(old, Placement):
        raise TypeError(f"old must be a Placement, got `{type(old).__name__}`")
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
    return Placement.from_physical_to_logical(table, old.num_experts, old.topology)


# Whether the arguments are fine, and whether checksums are wanted; the plan; the weights; the local slots; a reason.
_QUESTION = struct.Struct("<??32s32sq200s")
# What a rank confirms a batch with: 0, or 1 + the move that arrived as something else, or this + its rank if it failed.
_FAILED = 2**62


class _Answer(NamedTuple):
    """What a rank was called with."""

    is_fine: bool
    verify: bool
    plan: bytes
    weights: bytes
    num_local_slots: int
    reason: bytes


def _expect_plan(plan: object) -> None:
    if not isinstance(plan, Migration):
        raise TypeError(f"plan must be a Migration, got `{type(plan).__name__}`")


def _prepared(
    weights: Weights, plan: Migration, members: Members, control: Members, verify: bool
) -> Transfers | Exception:
    """This rank's part, with its memory allocated; or why there is none, which the others are to hear of first."""
    try:
        _expect_plan(plan)
        if members.size != plan.num_ranks:
            raise ValueError(f"group has {members.size} ranks, expected {plan.num_ranks} as the plan has")
        if (control.rank, control.size) != (members.rank, members.size):
            mine, expected = f"rank {control.rank} of {control.size}", f"{members.rank} of {members.size} as in group"
            raise ValueError(f"control_group has this process as {mine}, expected {expected}")
        return Transfers(weights, plan, members, verify)
    except Exception as error:
        return error


def _answers(prepared: Transfers | Exception, plan: Migration, members: Members, seconds: float) -> list[_Answer]:
    """What every rank was called with, in one collective."""
    if isinstance(prepared, Exception):
        question = _Answer(False, False, b"", b"", 0, reason_of(prepared, 200).encode())
    else:
        content = (_plan_digest(plan), prepared.weights.signature(), prepared.weights.num_local_slots)
        question = _Answer(True, prepared.verify, *content, b"")
    try:
        answers = members.exchange(_QUESTION.pack(*question), Deadline(seconds))
    except RuntimeError as error:
        if isinstance(prepared, Exception):
            raise prepared from error
        late = f"no answer from every rank within {seconds:g} s: {reason_of(error)}"
        raise MigrationError(f"migration did not begin, and nothing is moved: {late}", 0) from error
    return [_Answer(*_QUESTION.unpack(answer)) for answer in answers]


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
        )
    _expect_same("plan", [answer.plan.hex() for answer in answers])
    _expect_same("weights (names, dtypes and shapes of an expert)", [answer.weights.hex() for answer in answers])
    _expect_same("verify", [str(answer.verify) for answer in answers])
    _expect_layout([answer.num_local_slots for answer in answers], plan)


def _expect_same(name: str, said: list[str]) -> None:
    ranks: dict[str, tuple[int, ...]] = {}
    for rank, each in enumerate(said):
        ranks[each] = (*ranks.get(each, ()), rank)
    if len(ranks) > 1:
        parts = "; ".join(f"{rank_words(those)} {holds_words(those)} {each[:16]}" for each, those in ranks.items())
        raise DisagreementError(f"{name} differs between the ranks of the group, expected one: {parts}", ranks, ())


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


def _run(transfers: Transfers, plan: Migration, batch: int, control: Members, seconds: float) -> None:
    """Reads a batch, hears that all ranks did, and writes it."""
    # A rank that gave up after its own time has as much again to tell those that were done with the batch at once.
    until = Deadline(2 * seconds)
    failure: Exception | None = None
    word = 0
    try:
        bad = transfers.read(batch, Deadline(seconds))
        word = 0 if bad is None else 1 + bad
    except Exception as error:
        failure, word = error, _FAILED + control.rank
    try:
        verdict = control.largest(word, until)
    except RuntimeError as error:
        reason = reason_of(failure) if failure is not None else f"not every rank confirmed: {reason_of(error)}"
        raise _stopped(plan, batch, reason, is_agreed=False) from failure or error
    if verdict == 0:
        transfers.write(batch)
    elif verdict < _FAILED:
        raise _corrupted(plan, batch, verdict - 1)
    else:
        reason = reason_of(failure) if failure is not None else f"rank {verdict - _FAILED} failed"
        raise _stopped(plan, batch, reason, is_agreed=True) from failure


def _corrupted(plan: Migration, batch: int, move: int) -> MigrationError:
    layer, expert, source, destination = plan.moves[move].tolist()
    sender, receiver = int(plan.senders[move]), int(plan.receivers[move])
    what = f"move {move}, expert {expert} of layer {layer} from slot {source} to slot {destination}"
    ways = f"arrived on rank {receiver} as something else than rank {sender} sent"
    return _stopped(plan, batch, f"{what}, {ways}: its checksum differs", move=move, is_agreed=True)


def _stopped(plan: Migration, batch: int, reason: str, *, is_agreed: bool, move: int | None = None) -> MigrationError:
    """The error that says how far all ranks came."""
    moves, is_written = plan.moves[:, 0], plan.write_batches < batch
    written, left = set(moves[is_written].tolist()), set(moves[~is_written].tolist())
    done, partly = tuple(sorted(written - left)), tuple(sorted(written & left))
    parts = [f"layers {number_words(done)} are done"] if done else []
    parts += [f"layers {number_words(partly)} are partly moved"] if partly else []
    parts += ["the others hold what they held"] if left - written else []
    before = f"batches before it are written on every rank: {', '.join(parts)}" if batch else "nothing is moved"
    text = f"migration stopped in batch {batch} of {plan.num_batches}: {reason}; {before}"
    return MigrationError(text, batch, move, is_agreed, done, partly)


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
