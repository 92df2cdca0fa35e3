"""Local search from one placement to better ones. SPEC.md, "Refinement"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.balance.problem import DIGITS
from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.balance.problem import Problem

Worth = tuple[float, ...]


def path(problem: Problem, row: list[int]) -> Iterator[list[int]]:
    """The rows that the search comes by, each better than the one before, until one is balanced or no step helps.

    Where experts have homes, each step keeps them there.
    """
    while not problem.is_balanced(row):
        allowed = (step for step in steps(problem, row) if problem.allows(step))
        better = min(allowed, key=lambda step: worth(problem, step), default=row)
        if worth(problem, better) >= worth(problem, row):
            return
        row = better
        yield row


def refine(problem: Problem, row: list[int]) -> list[int]:
    """The last row of the search."""
    for better in path(problem, row):
        row = better
    return row


def worth(problem: Problem, row: list[int]) -> Worth:
    """By which rows are compared, the smaller the better: the time to be made small, then all ranks' times, descending.

    The second part lets the search get past several ranks that are equally busy.
    """
    times = problem.times(row)
    largest = in_order(max(window) for window in times)
    summed = sorted((in_order(of_rank) for of_rank in zip(*times, strict=True)), reverse=True)
    return tuple(round(time / (problem.bound or 1.0), DIGITS) for time in (largest, *summed))


def steps(problem: Problem, row: list[int]) -> Iterator[list[int]]:
    """Every row that is one step away and takes something from a rank that is the busiest of some window.

    Two slots of different ranks exchange what they hold; or a slot that is empty, or holds one of several replicas,
    comes to hold an expert of the busiest rank; or the busiest rank gives up one of several replicas. No step puts an
    expert twice on a rank, and where experts have no homes, their replicas stay spread over the nodes.
    """
    busiest = {rank for window in problem.times(row) for rank, time in enumerate(window) if 0 < time == max(window)}
    for hot in problem.usable_slots:
        if problem.rank_of[hot] not in busiest or row[hot] < 0:
            continue
        if row.count(row[hot]) > 1 and may_end(problem, row, hot):
            yield [-1 if slot == hot else entry for slot, entry in enumerate(row)]
        for other in problem.usable_slots:
            rank = problem.rank_of[other]
            if row[hot] in problem.held(row, rank):
                continue
            exchanged, replaced = list(row), list(row)
            exchanged[hot], exchanged[other] = row[other], row[hot]
            replaced[other] = row[hot]
            may_return = row[other] < 0 or row[other] not in problem.held(row, problem.rank_of[hot])
            if may_return and may_go(problem, row, hot, other) and may_go(problem, row, other, hot):
                yield exchanged
            is_spare = row[other] < 0 or (row.count(row[other]) > 1 and may_end(problem, row, other))
            if is_spare and may_come(problem, row, row[hot], other):
                yield replaced


def may_go(problem: Problem, row: list[int], slot: int, to: int) -> bool:
    """Whether what a slot holds may go to another slot: not to a node that has it, where it is the last of its own."""
    start, end = (problem.topology.node_of(problem.rank_of[place]) for place in (slot, to))
    if problem.homes is not None or row[slot] < 0 or start == end:
        return True
    held = problem.on_nodes(row, row[slot])
    return held[start] > 1 or held[end] == 0


def may_end(problem: Problem, row: list[int], slot: int) -> bool:
    """Whether the replica of a slot may be given up: not the last of its node, where another node has several."""
    held = problem.on_nodes(row, row[slot])
    here = held[problem.topology.node_of(problem.rank_of[slot])]
    return problem.homes is not None or here > 1 or max(held) == 1


def may_come(problem: Problem, row: list[int], expert: int, slot: int) -> bool:
    """Whether a slot may have a further replica: on a node with the fewest, of those with a rank without any."""
    if problem.homes is not None:
        return True
    node_of, held = problem.topology.node_of, problem.on_nodes(row, expert)
    free = {node_of(rank) for rank in problem.usable if expert not in problem.held(row, rank)}
    return held[node_of(problem.rank_of[slot])] == min(held[node] for node in free)
