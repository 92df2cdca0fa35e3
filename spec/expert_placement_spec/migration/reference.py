"""The reference model of a migration plan. SPEC.md, "Migration"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from expert_placement_spec.migration.batches import colour, split
from expert_placement_spec.migration.execution import Schedule, is_interruption_safe, live_contents, peak_staging
from expert_placement_spec.migration.sources import choose_sources, ranks_of_slots
from expert_placement_spec.migration.writing import write_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expert_placement_spec.migration.sources import Move
    from expert_placement_spec.placement.reference import Placement


class Traffic(NamedTuple):
    """The bytes that each rank sends, and those that it receives, in each batch."""

    sent: list[list[int]]
    received: list[list[int]]


class Migration:
    """The moves from one placement to another, in batches.

    Attributes:
        num_moves: how many slots change.
        moves: layer, expert, source slot and destination slot of each, batch by batch.
        senders: the rank of each source.
        receivers: the rank of each destination.
        batches: where each batch begins among the moves, and their number last.
        write_batches: the batch at whose end each move is written.
        num_staged: the most experts that a rank has read and not yet written, before a batch writes.
        is_interruption_safe: whether every expert has a replica after every batch.
    """

    def __init__(
        self, old: Placement, new: Placement, max_node_transfers: int | None = None, max_staged: int | None = None
    ) -> None:
        shapes = [(one.num_layers, one.num_experts, one.slot_offsets()) for one in (old, new)]
        if shapes[0] != shapes[1]:
            raise ValueError("new has another shape than old, expected the same layers, experts and slots of the ranks")
        for name, limit, least in (("max_node_transfers", max_node_transfers, 1), ("max_staged", max_staged, 0)):
            if limit is not None and limit < least:
                raise ValueError(f"{name}={limit} is out of range, expected at least {least}")
        chosen = choose_sources(old, new)
        rank_of = ranks_of_slots(new)
        node_of = [new.topology.node_of(rank) for rank in rank_of]
        parts = [in_batches(chosen, rank_of, node_of, max_node_transfers)]
        if max_staged is not None and peak_staging(parts[0], rank_of, parts[0].num_batches) > max_staged:
            parts = in_parts(chosen, rank_of, node_of, max_node_transfers, max_staged)
        schedule = one_after_the_other(parts)

        contents = live_contents(old, new)
        number = schedule.num_batches
        self.num_moves = len(schedule.moves)
        self.moves = [list(move) for move in schedule.moves]
        self.senders = [rank_of[move.source] for move in schedule.moves]
        self.receivers = [rank_of[move.destination] for move in schedule.moves]
        self.batches = [sum(read < batch for read in schedule.reads) for batch in range(number + 1)]
        self.write_batches = schedule.writes
        self.num_staged = peak_staging(schedule, rank_of, number)
        self.is_interruption_safe = is_interruption_safe(schedule, contents, new.num_experts, number)
        self._shape = (new.num_layers, new.num_ranks)

    def traffic(self, bytes_per_expert: int | Sequence[int]) -> Traffic:
        """How many bytes each rank sends and receives in each batch, copies inside a rank left out.

        Raises:
            ValueError: another number of sizes than layers, or a negative one.
        """
        layers, ranks = self._shape
        sizes = [bytes_per_expert] * layers if isinstance(bytes_per_expert, int) else list(bytes_per_expert)
        if len(sizes) != layers or min(sizes) < 0:
            raise ValueError(
                f"bytes_per_expert={bytes_per_expert}, expected a number of at least 0, or {layers} of them"
            )
        number = len(self.batches) - 1
        answer = Traffic(*([[0] * ranks for _ in range(number)] for _ in ("sent", "received")))
        for batch in range(number):
            for index in range(self.batches[batch], self.batches[batch + 1]):
                if self.senders[index] != self.receivers[index]:
                    answer.sent[batch][self.senders[index]] += sizes[self.moves[index][0]]
                    answer.received[batch][self.receivers[index]] += sizes[self.moves[index][0]]
        return answer

    def apply(self, weights: Any) -> Any:
        """The weights of all slots, [L, P, ...], after the migration; slots that no move writes keep theirs."""
        result = np.array(weights)
        for layer, _, source, destination in self.moves:
            result[layer, destination] = weights[layer][source]
        return result


def in_batches(moves: list[Move], rank_of: list[int], node_of: list[int], limit: int | None) -> Schedule:
    """The moves in as few batches as the busiest rank needs, or, where transfers between nodes are limited, in parts.

    Copies inside a rank are no transfers and belong to the first batch; so do, of a batch that is cut into parts,
    transfers inside a node.
    """
    ends = [(rank_of[move.source], rank_of[move.destination]) for move in moves]
    between_ranks = [index for index, (sender, receiver) in enumerate(ends) if sender != receiver]
    reads = [0] * len(moves)
    for index, batch in zip(between_ranks, colour([ends[index] for index in between_ranks]), strict=True):
        reads[index] = batch
    if limit is not None:
        reads = split(reads, [(node_of[move.source], node_of[move.destination]) for move in moves], limit)
    order = sorted(range(len(moves)), key=lambda index: (reads[index], index))
    moves, reads = [moves[index] for index in order], [reads[index] for index in order]
    return Schedule(moves, reads, write_batches(moves, reads))


def in_parts(
    moves: list[Move], rank_of: list[int], node_of: list[int], limit: int | None, max_staged: int
) -> list[Schedule]:
    """The moves in parts of whole layers, each of as many as it can be without a rank that stages more than it may.

    Raises:
        ValueError: the moves of a single layer stage more.
    """
    parts: list[Schedule] = []
    begun: list[Move] = []
    for layer in sorted({move.layer for move in moves}):
        of_layer = [move for move in moves if move.layer == layer]
        for together, is_new in (([*begun, *of_layer], False), (of_layer, True)):
            part = in_batches(together, rank_of, node_of, limit)
            staged = peak_staging(part, rank_of, part.num_batches)
            if staged <= max_staged:
                parts = [*(parts if is_new else parts[:-1]), part]
                begun = together
                break
        else:
            raise ValueError(
                f"max_staged={max_staged} is out of range, expected {staged} for the moves of layer {layer}"
            )
    return parts


def one_after_the_other(parts: list[Schedule]) -> Schedule:
    """The parts as one schedule."""
    whole = Schedule([], [], [])
    for part in parts:
        first = whole.num_batches
        reads, writes = ([batch + first for batch in batches] for batches in (part.reads, part.writes))
        whole = Schedule(whole.moves + part.moves, whole.reads + reads, whole.writes + writes)
    return whole


def plan_migration(
    old: Placement, new: Placement, max_node_transfers: int | None = None, max_staged: int | None = None
) -> Migration:
    """Plans how to get from one placement to another.

    Args:
        old: where the experts are.
        new: where they shall be.
        max_node_transfers: the most transfers in a batch that may leave a node for others, and that may enter it.
        max_staged: the most experts that a rank may keep beside its slots.

    Raises:
        ValueError: placements of different shapes, an expert that no active rank of `old` holds, limits that are none,
            or a staging that the moves of a single layer exceed.
    """
    return Migration(old, new, max_node_transfers, max_staged)
