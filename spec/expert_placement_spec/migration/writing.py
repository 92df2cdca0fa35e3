"""When each move is written. SPEC.md, "Batches"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expert_placement_spec.migration.sources import Move


def write_batches(moves: list[Move], reads: list[int]) -> list[int]:
    """The batch at whose end each move is written.

    It is its own, or the last one in which a copy of what its destination held is written. Moves that pass their slots
    on in a ring wait for one another, and are written together.
    """
    writes = list(reads)
    copies = [
        [k for k, other in enumerate(moves) if (other.layer, other.source) == (move.layer, move.destination)]
        for move in moves
    ]
    # What waits makes others wait, so that the batches are carried on until nothing changes.
    while True:
        after = [max([write, *(writes[k] for k in of)]) for write, of in zip(writes, copies, strict=True)]
        if after == writes:
            return writes
        writes = after
