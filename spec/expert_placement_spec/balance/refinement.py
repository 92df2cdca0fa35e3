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
    expert twice on a rank, and none but the last takes a node from an expert.
    """
    busiest = {rank for window in problem.times(row) for rank, time in enumerate(window) if 0 < time == max(window)}
    spread = problem.spread(row)
    for hot in problem.usable_slots:
        if problem.rank_of[hot] not in busiest or row[hot] < 0:
            continue
        if row.count(row[hot]) > 1:
            yield [-1 if slot == hot else entry for slot, entry in enumerate(row)]
        for other in problem.usable_slots:
            rank = problem.rank_of[other]
            if row[hot] in problem.held(row, rank):
                continue
            exchanged, replaced = list(row), list(row)
            exchanged[hot], exchanged[other] = row[other], row[hot]
            replaced[other] = row[hot]
            may_return = row[other] < 0 or row[other] not in problem.held(row, problem.rank_of[hot])
            if may_return and problem.spread(exchanged) >= spread:
                yield exchanged
            is_spare = row[other] < 0 or row.count(row[other]) > 1
            if is_spare and problem.spread(replaced) >= spread:
                yield replaced
