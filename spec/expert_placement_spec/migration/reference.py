"""The reference model of a migration plan. SPEC.md, "Migration"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.migration.batches import colour
from expert_placement_spec.migration.execution import Schedule, is_interruption_safe, live_contents, peak_staging
from expert_placement_spec.migration.sources import choose_sources, ranks_of_slots
from expert_placement_spec.migration.writing import write_batches

if TYPE_CHECKING:
    from expert_placement_spec.placement.reference import Placement


class Migration:
    """The moves from one placement to another, in batches.

    Attributes:
        num_moves: how many slots change.
        moves: layer, expert, source slot and destination slot of each, batch by batch.
        batches: where each batch begins among the moves, and their number last.
        write_batches: the batch at whose end each move is written.
        num_staged: the most experts that a rank has read and not yet written, before a batch writes.
        is_interruption_safe: whether every expert has a replica after every batch.
    """

    def __init__(self, old: Placement, new: Placement) -> None:
        shapes = [(one.num_layers, one.num_experts, one.slot_offsets()) for one in (old, new)]
        if shapes[0] != shapes[1]:
            raise ValueError("new has another shape than old, expected the same layers, experts and slots of the ranks")
        moves = choose_sources(old, new)
        rank_of = ranks_of_slots(new)
        ends = [(rank_of[move.source], rank_of[move.destination]) for move in moves]
        between_ranks = [index for index, (sender, receiver) in enumerate(ends) if sender != receiver]
        # Copies inside a rank are no transfers and belong to the first batch.
        reads = [0] * len(moves)
        for index, batch in zip(between_ranks, colour([ends[index] for index in between_ranks]), strict=True):
            reads[index] = batch
        order = sorted(range(len(moves)), key=lambda index: (reads[index], index))
        moves, reads = [moves[index] for index in order], [reads[index] for index in order]

        contents = live_contents(old, new)
        writes = write_batches(moves, reads)
        schedule = Schedule(moves, reads, writes)
        number = schedule.num_batches
        self.num_moves = len(moves)
        self.moves = [list(move) for move in moves]
        self.batches = [sum(read < batch for read in reads) for batch in range(number + 1)]
        self.write_batches = writes
        self.num_staged = peak_staging(schedule, rank_of, number)
        self.is_interruption_safe = is_interruption_safe(schedule, contents, new.num_experts, number)

    def apply(self, weights: Any) -> Any:
        """The weights of all slots, [L, P, ...], after the migration; slots that no move writes keep theirs."""
        result = np.array(weights)
        for layer, _, source, destination in self.moves:
            result[layer, destination] = weights[layer][source]
        return result


def plan_migration(old: Placement, new: Placement) -> Migration:
    """Plans how to get from one placement to another.

    Raises:
        ValueError: placements of different shapes, or an expert that no active rank of `old` holds.
    """
    return Migration(old, new)
