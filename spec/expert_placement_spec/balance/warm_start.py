"""From a placement that is there to a better one, with few moves. SPEC.md, "Warm start"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.balance import measure, refinement
from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from expert_placement_spec.balance.problem import Problem

Rows = list[list[int]]


def moves(problem: Problem, old: list[int], new: list[int]) -> int:
    """How many slots of ranks come to hold an expert that the rank did not hold, or held fewer times."""
    return sum(
        max(problem.held(new, rank).count(expert) - problem.held(old, rank).count(expert), 0)
        for rank in problem.usable
        for expert in set(problem.held(new, rank)) - {-1}
    )


def repaired(problem: Problem, previous: list[int]) -> list[int]:
    """The previous row without what was on inactive ranks, and with a replica again of every expert that this lost.

    Lost experts come in descending order of their loads, lower ids first; each takes the slot, empty or of one of
    several replicas, that leaves the busiest rank done first, the lowest of equals.
    """
    row = [entry if slot in problem.usable_slots else -1 for slot, entry in enumerate(previous)]
    lost = [expert for expert in range(problem.num_experts) if expert not in row]
    for expert in sorted(lost, key=lambda expert: (-problem.summed[expert], expert)):
        spare = [slot for slot in problem.usable_slots if row[slot] < 0 or row.count(row[slot]) > 1]
        if not spare:
            raise ValueError(
                f"expert {expert} has no live replica and no slot is free or redundant for one: "
                f"{len(problem.usable_slots)} slots on active ranks for {problem.num_experts} experts"
            )
        restored = [[expert if slot == taken else entry for slot, entry in enumerate(row)] for taken in spare]
        row = min(restored, key=problem.largest)
    return row


def restored(problems: list[Problem], previous: Rows, max_moves: int | None) -> Rows:
    """The previous rows of all layers, with a live replica of every expert.

    Raises:
        ValueError: no slot is free for one, or the budget does not restore all of them.
    """
    start = [repaired(problem, row) for problem, row in zip(problems, previous, strict=True)]
    if max_moves is not None and cost(problems, previous, start) > max_moves:
        lost = first_lost(problems, previous)
        raise ValueError(f"expert {lost} has no live replica, and max_moves={max_moves} is too few to restore one")
    return start


def aligned(problem: Problem, previous: list[int], row: list[int]) -> list[int]:
    """The same content of every rank: an expert that was there keeps its slot, the others ascend in those left."""
    result = [-1] * len(row)
    for rank in problem.usable:
        new = sorted(entry for entry in problem.held(row, rank) if entry >= 0)
        slots = range(problem.offsets[rank], problem.offsets[rank + 1])
        for slot in slots:
            if previous[slot] in new:
                result[slot] = previous[slot]
                new.remove(previous[slot])
        for slot in slots:
            if result[slot] < 0 and new:
                result[slot] = new.pop(0)
    return result


def plan(
    problems: list[Problem], previous: Rows, from_nothing: Rows, max_moves: int | None, min_gain: float | None = None
) -> Rows:
    """The rows of all layers, at most `max_moves` moves away from the previous ones.

    There are two ways. One is the search from the previous rows, as far as the budget goes. The other takes for each
    layer the better end: that of the search, or the plan from nothing, put where the previous experts are. Without a
    budget that is the plan; with one, the better of the two that it allows. Both only get better as the budget grows.
    Where moves have to bring a least gain, any of these rows may be the end of its layer.

    Raises:
        ValueError: a budget that does not restore every expert without a live replica.
    """
    start = restored(problems, previous, max_moves)
    budget = float("inf") if max_moves is None else max_moves
    stations = walk(problems, previous, start)
    if budget == cost(problems, previous, start):
        # A replica could still be given up, but nothing changes that need not.
        return start
    near = [rows for rows in stations if cost(problems, previous, rows) <= budget][-1]
    far = [
        aligned(problem, old, better_end(problem, *ends))
        for problem, old, *ends in zip(problems, previous, stations[-1], from_nothing, strict=True)
    ]
    if min_gain is not None:
        return bought(problems, previous, [*stations, far], budget, min_gain * sum_of_means(problems))
    if max_moves is None:
        return far
    if cost(problems, previous, far) <= budget and total(problems, far) < total(problems, near):
        return far
    return near


def bought(problems: list[Problem], previous: Rows, offers: list[Rows], budget: float, least: float) -> Rows:
    """The rows of all layers where what saves most for each move is taken first, as long as it saves enough.

    That begins with the first offer. Of equals the lowest layer comes first, and of its rows the earliest offer; the
    first for which the budget has no room ends it.
    """
    rows = list(offers[0])
    for_sale = {(layer, tuple(row)): None for offer in offers for layer, row in enumerate(offer)}
    while True:
        gains = {
            (layer, row): gain_a_move(problems[layer], previous[layer], rows[layer], list(row))
            for layer, row in sorted(for_sale, key=lambda one: one[0])
        }
        layer, row = max(gains, key=lambda one: gains[one])
        after = [*rows[:layer], list(row), *rows[layer + 1 :]]
        if gains[layer, row] <= 0 or gains[layer, row] < least or cost(problems, previous, after) > budget:
            return rows
        rows = after


def better_end(problem: Problem, near: list[int], from_nothing: list[int]) -> list[int]:
    """The better of the two; that from nothing where the search leaves more off node than is allowed."""
    if problem.homes is not None and problem.homes.off(problem, near) > problem.homes.limit:
        return from_nothing
    return min(near, from_nothing, key=problem.largest)


def walk(problems: list[Problem], previous: Rows, start: Rows) -> list[Rows]:
    """The stations of the search over all layers: the next step is that of the layer where a move gains most."""
    ahead = [
        [aligned(problem, old, row) for row in refinement.path(problem, first)]
        for problem, old, first in zip(problems, previous, start, strict=True)
    ]
    rows, stations = list(start), [list(start)]
    while any(ahead):
        layer = max(
            (layer for layer, steps in enumerate(ahead) if steps),
            key=lambda layer: (gain_a_move(problems[layer], previous[layer], rows[layer], ahead[layer][0]), -layer),
        )
        rows[layer] = ahead[layer].pop(0)
        stations.append(list(rows))
    return stations


def gain_a_move(problem: Problem, previous: list[int], row: list[int], better: list[int]) -> float:
    """How much earlier the busiest rank is done, for each additional move; without end where none is needed for it."""
    added = moves(problem, previous, better) - moves(problem, previous, row)
    saved = problem.largest(row) - problem.largest(better)
    return float("inf") if saved > 0 and added <= 0 else saved / max(added, 1)


def sum_of_means(problems: list[Problem]) -> float:
    """The mean times of all layers and windows."""
    return in_order(measure.mean_time(loads, problem.topology) for problem in problems for loads in problem.windows)


def cost(problems: list[Problem], previous: Rows, rows: Rows) -> int:
    """The moves of all layers together."""
    return sum(moves(*layer) for layer in zip(problems, previous, rows, strict=True))


def total(problems: list[Problem], rows: Rows) -> float:
    """The times of the busiest ranks of all layers together."""
    return in_order(problem.largest(row) for problem, row in zip(problems, rows, strict=True))


def first_lost(problems: list[Problem], previous: Rows) -> int:
    """An expert without a live replica."""
    return next(
        expert
        for problem, row in zip(problems, previous, strict=True)
        for expert in range(problem.num_experts)
        if expert not in [row[slot] for slot in problem.usable_slots]
    )
