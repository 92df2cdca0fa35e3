"""What one rank does in a migration: it reads, sends and receives a batch, keeps it, and writes what is due."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist

from expert_placement.distributed._groups import Deadline, Members, reason_of, transfer_device, waited_for
from expert_placement.distributed._weights import LocalWeights, checksum

if TYPE_CHECKING:
    from expert_placement import Migration
    from expert_placement.distributed._weights import Weights


class Move(NamedTuple):
    """One move that a rank takes part in."""

    number: int
    """Which of the plan's moves it is."""
    layer: int
    expert: int
    source: int
    destination: int
    sender: int
    receiver: int
    write_batch: int

    @property
    def is_transfer(self) -> bool:
        """Whether it goes from one rank to another."""
        return self.sender != self.receiver


class ArrivalError(RuntimeError):
    """Something did not arrive, or was not taken, in time."""


class Transfers:
    """A rank's part of a migration. What is staged is allocated here, before anything moves.

    Args:
        weights: as for `migrate`.
        plan: the migration.
        members: the group that weights travel through.
        verify: whether checksums are sent along.

    Raises:
        ValueError: weights that are not the plan's, or on another device than the group can send from.
        TypeError: weights of another type.
    """

    def __init__(self, weights: Weights, plan: Migration, members: Members, verify: bool) -> None:
        self.weights = LocalWeights(weights, plan.num_layers)
        self.plan = plan
        self.members = members
        self.verify = verify
        self.device = transfer_device(members, self.weights.device)
        # Gloo sends from the CPU, whatever the weights are on; NCCL only from where it is.
        if self.device not in (self.weights.device, torch.device("cpu")):
            raise ValueError(f"weights are on `{self.weights.device}`, expected `{self.device}` as the group is")
        self.batches = moves_of(plan, members.rank)
        # Global slots become local ones with it, which is known when all ranks have said how many they have.
        self.first_slot = 0
        incoming = [move for batch in self.batches for move in batch if move.receiver == members.rank]
        self.num_staged = _most_staged(self.batches, members.rank)
        size = max((self.weights.staged_bytes(move.layer) for move in incoming), default=0)
        self.buffer = torch.empty((self.num_staged, size), dtype=torch.uint8, device=self.device)
        self._free = list(range(self.num_staged))
        self._held: list[tuple[Move, list[torch.Tensor], int]] = []
        self.torn: tuple[tuple[int, int], ...] = ()
        self.num_written = self.num_sent = self.num_received = 0
        self.bytes_sent = self.bytes_received = 0

    def read(self, batch: int, deadline: Deadline) -> int | None:
        """Sends, receives and copies what a batch reads, until all of it is staged.

        Returns:
            The move whose checksum is another one here than where it came from, if there is one.

        Raises:
            ArrivalError: a transfer that failed or was late; it names the move.
        """
        with torch.inference_mode():
            return self._read(batch, deadline)

    def _read(self, batch: int, deadline: Deadline) -> int | None:
        rank = self.members.rank
        operations: list[tuple[Move, dist.P2POp]] = []
        sums: list[tuple[Move, torch.Tensor, list[torch.Tensor]]] = []
        for move in self.batches[batch]:
            staged = self._stage(move) if move.receiver == rank else []
            if not move.is_transfer:
                for to, held in zip(staged, self._local(move.layer, move.source), strict=True):
                    to.copy_(held)
                continue
            parts = staged
            if move.sender == rank:
                parts = [part.to(self.device) for part in self._local(move.layer, move.source)]
            if self.verify and parts:
                told = _bytes_of(checksum(parts)) if move.sender == rank else parts[0].new_empty(8)
                if move.receiver == rank:
                    sums.append((move, told, staged))
                parts = [*parts, told]
            operations += [(move, self._operation(move, part)) for part in parts]
        self._wait(operations, deadline)
        self._note(batch)
        for move, told, staged in sums:
            if not torch.equal(told, _bytes_of(checksum(staged))):
                return move.number
        return None

    def write(self, batch: int) -> None:
        """Writes the staged experts whose turn it is at the end of a batch.

        While it does, and where it does not come to its end, `torn` has their layers and slots.
        """
        due = [each for each in self._held if each[0].write_batch == batch]
        self.torn = tuple((move.layer, move.destination) for move, _, _ in due)
        self._held = [each for each in self._held if each[0].write_batch != batch]
        # Inference mode, since weights may have been made in it, and are written to nowhere else.
        with torch.inference_mode():
            for move, staged, place in due:
                for to, held in zip(self._local(move.layer, move.destination), staged, strict=True):
                    to.copy_(held)
                self._free.append(place)
        self.num_written += len(due)
        self.torn = ()

    def _stage(self, move: Move) -> list[torch.Tensor]:
        """Room for an expert, tensor by tensor."""
        place = self._free.pop()
        row = self.buffer[place]
        parts = [row[begin : begin + length] for begin, length in self.weights.segments(move.layer)]
        self._held.append((move, parts, place))
        return parts

    def _local(self, layer: int, slot: int) -> list[torch.Tensor]:
        return self.weights.expert(layer, slot - self.first_slot)

    def _operation(self, move: Move, part: torch.Tensor) -> dist.P2POp:
        is_sender = move.sender == self.members.rank
        peer = self.members.global_rank(move.receiver if is_sender else move.sender)
        return dist.P2POp(dist.isend if is_sender else dist.irecv, part, peer, self.members.group)

    def _wait(self, operations: list[tuple[Move, dist.P2POp]], deadline: Deadline) -> None:
        if not operations:
            return
        moves = [move for move, _ in operations]
        pending = moves
        try:
            works = dist.batch_isend_irecv([operation for _, operation in operations])
            for number, work in enumerate(works):
                # NCCL gives one work for all of them, and does not say which of them it waits for.
                if len(works) == len(moves):
                    later = zip(moves[number + 1 :], works[number + 1 :], strict=True)
                    pending = [moves[number], *(move for move, other in later if not other.is_completed())]
                waited_for(work, deadline, self.device)
        except RuntimeError as error:
            raise ArrivalError(self._failed(pending, deadline, error)) from error

    def _failed(self, pending: list[Move], deadline: Deadline, error: RuntimeError) -> str:
        """What is not there; a rank sends and receives one expert in a batch at most."""
        parts = []
        for move in dict.fromkeys(pending):
            is_sender = move.sender == self.members.rank
            way = f"was not taken by rank {move.receiver}" if is_sender else f"did not arrive from rank {move.sender}"
            parts.append(f"expert {move.expert} of layer {move.layer} {way}")
        return f"{', or '.join(parts)} within {deadline.seconds:g} s: {reason_of(error)}"

    def _note(self, batch: int) -> None:
        for move in self.batches[batch]:
            if not move.is_transfer:
                continue
            num_bytes = self.weights.bytes_per_expert(move.layer)
            if move.sender == self.members.rank:
                self.num_sent += 1
                self.bytes_sent += num_bytes
            else:
                self.num_received += 1
                self.bytes_received += num_bytes


def moves_of(plan: Migration, rank: int) -> list[list[Move]]:
    """Batch by batch the moves that a rank sends, receives or copies."""
    numbers = torch.arange(plan.num_moves, dtype=torch.int32)
    columns = (numbers, *plan.moves.unbind(1), plan.senders, plan.receivers, plan.write_batches)
    rows = torch.stack(columns, dim=1)
    is_mine = (plan.senders == rank) | (plan.receivers == rank)
    return [
        [Move._make(row) for row in rows[first:last][is_mine[first:last]].tolist()]
        for first, last in pairwise(plan.batches.tolist())
    ]


def _most_staged(batches: list[list[Move]], rank: int) -> int:
    """How many experts a rank has read and not yet written at most, between the reads and the writes of a batch."""
    due = [0] * len(batches)
    held = most = 0
    for batch, moves in enumerate(batches):
        for move in moves:
            if move.receiver == rank:
                held += 1
                due[move.write_batch] += 1
        most = max(most, held)
        held -= due[batch]
    return most


def _bytes_of(checksum: torch.Tensor) -> torch.Tensor:
    return checksum.view(torch.uint8)
