"""What the weights in every slot are while a plan is carried out, batch by batch. SPEC.md, "Batches"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expert_placement_spec.migration.sources import ranks_of_slots

if TYPE_CHECKING:
    from expert_placement_spec.migration.sources import Move
    from expert_placement_spec.placement.reference import Placement

Contents = list[list[int]]
"""For each layer and slot the expert whose weights are there, or -1."""


@dataclass(frozen=True)
class Schedule:
    """Each move with the batch in which it is read, and the one at whose end it is written."""

    moves: list[Move]
    reads: list[int]
    writes: list[int]

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return max((batch + 1 for batch in (*self.reads, *self.writes)), default=0)


def live_contents(old: Placement, new: Placement) -> Contents:
    """What can be read before anything moves: the slots of ranks that are active in both."""
    rank_of = ranks_of_slots(new)
    is_live = new.topology.is_active
    return [[entry if is_live(rank_of[slot]) else -1 for slot, entry in enumerate(row)] for row in old.table]


def execute(schedule: Schedule, contents: Contents, num_batches: int) -> list[Contents]:
    """The contents after each batch: all that it reads is read first, and then all that is due is written."""
    history = []
    staged: dict[int, int] = {}
    contents = [list(row) for row in contents]
    for batch in range(num_batches):
        for index, move in enumerate(schedule.moves):
            if schedule.reads[index] == batch:
                staged[index] = contents[move.layer][move.source]
        for index, move in enumerate(schedule.moves):
            if schedule.writes[index] == batch and index in staged:
                contents[move.layer][move.destination] = staged.pop(index)
        history.append([list(row) for row in contents])
    return history


def lost_expert(contents: Contents, num_experts: int) -> tuple[int, int] | None:
    """The first (layer, expert) without a replica."""
    missing = ((layer, e) for layer, row in enumerate(contents) for e in range(num_experts) if e not in row)
    return next(missing, None)


def is_interruption_safe(schedule: Schedule, contents: Contents, num_experts: int, num_batches: int) -> bool:
    """Whether every expert has a replica after every batch."""
    return not any(lost_expert(after, num_experts) for after in execute(schedule, contents, num_batches))


def peak_staging(schedule: Schedule, rank_of: list[int], num_batches: int) -> int:
    """The most experts that one rank has read and not yet written, between the reads and the writes of a batch."""
    receivers = [rank_of[move.destination] for move in schedule.moves]
    spans = list(zip(receivers, schedule.reads, schedule.writes, strict=True))
    return max(
        (
            sum(receiver == rank and read <= batch <= write for receiver, read, write in spans)
            for batch in range(num_batches)
            for rank in set(receivers)
        ),
        default=0,
    )
