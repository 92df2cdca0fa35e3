"""When each move is written. SPEC.md, "Migration"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.migration.execution import lost_expert

if TYPE_CHECKING:
    from expert_placement_spec.migration.execution import Contents
    from expert_placement_spec.migration.sources import Move


def write_batches(moves: list[Move], reads: list[int], contents: Contents, num_experts: int) -> list[int]:
    """The batch at whose end each move is written.

    It is its own, unless what the destination holds is still to be read, or is the last replica of its expert: then the
    move waits for the first batch in which that has changed.
    """
    number = max(reads, default=-1) + 1
    writes = [number - 1] * len(moves)
    waiting: list[int] = []
    contents = [list(row) for row in contents]
    for batch in range(number):
        waiting += [index for index, read in enumerate(reads) if read == batch]
        to_read = {(move.layer, move.source) for move, read in zip(moves, reads, strict=True) if read > batch}
        due = [index for index in waiting if (moves[index].layer, moves[index].destination) not in to_read]
        while True:
            after = written([moves[index] for index in due], contents)
            lost = lost_expert(after, num_experts)
            if lost is None:
                break
            # All replicas of the expert are about to be overwritten: the last of them waits.
            layer, expert = lost
            due.remove(next(i for i in reversed(due) if overwrites(moves[i], contents, layer, expert)))
        for index in due:
            writes[index] = batch
            waiting.remove(index)
        contents = after
    return writes


def written(moves: list[Move], contents: Contents) -> Contents:
    """The contents once the moves are written."""
    after = [list(row) for row in contents]
    for move in moves:
        after[move.layer][move.destination] = move.expert
    return after


def overwrites(move: Move, contents: Contents, layer: int, expert: int) -> bool:
    """Whether the move is to a slot where an expert of a layer is."""
    return move.layer == layer and contents[layer][move.destination] == expert
