"""Steps of the model's refinement are those that SPEC.md states, by a look at rows before and after."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from expert_placement_spec.balance.homes import Homes
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.refinement import steps, worth
from expert_placement_spec.model import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADS = [4.0, 2.0, 1.0]


def stated(problem: Problem, row: list[int]) -> set[tuple[int, ...]]:
    """Rows that are one step away, by what the step does to each rank and node."""
    found = set()
    for after in one_change_away(row):
        changed = [problem.rank_of[slot] for slot in range(len(row)) if row[slot] != after[slot]]
        if is_one_on_a_rank(problem, after) and takes_from_the_busiest(problem, row, after, changed):
            kept = all(is_spread(problem, row, after, expert) for expert in range(len(LOADS)))
            if kept or problem.homes is not None:
                found.add(tuple(after))
    return found


def one_change_away(row: list[int]) -> Iterator[list[int]]:
    """Rows after an exchange of two slots, or after one slot came to hold another expert or nothing."""
    for slot in range(len(row)):
        for entry in range(-1, len(LOADS)):
            # Nobody loses the last replica.
            if entry != row[slot] and (row[slot] < 0 or row.count(row[slot]) > 1):
                yield [*row[:slot], entry, *row[slot + 1 :]]
        for other in range(slot):
            if row[slot] != row[other]:
                after = list(row)
                after[slot], after[other] = row[other], row[slot]
                yield after


def is_one_on_a_rank(problem: Problem, row: list[int]) -> bool:
    held = [(problem.rank_of[slot], entry) for slot, entry in enumerate(row) if entry >= 0]
    return len(held) == len(set(held))


def takes_from_the_busiest(problem: Problem, row: list[int], after: list[int], changed: list[int]) -> bool:
    """Whether a rank that is the busiest of a window gives an expert away, gives one up, or shares one further."""
    busy = [rank for times in problem.times(row) for rank in range(len(times)) if times[rank] == max(times) > 0]
    lost = [(rank, entry) for rank in busy for entry in set(held(problem, row, rank)) - set(held(problem, after, rank))]
    came = [
        (rank, entry) for rank in changed for entry in set(held(problem, after, rank)) - set(held(problem, row, rank))
    ]
    shared = any(entry in held(problem, row, rank) for _, entry in came for rank in busy)
    # What comes to a slot in the place of another is an expert of a busiest rank; what only goes was on one.
    is_exchange = len(changed) == 2
    is_inside = is_exchange and changed[0] == changed[1]
    return not is_inside and (bool(lost) if is_exchange or not came else shared)


def held(problem: Problem, row: list[int], rank: int) -> list[int]:
    return [entry for slot, entry in enumerate(row) if problem.rank_of[slot] == rank and entry >= 0]


def is_spread(problem: Problem, row: list[int], after: list[int], expert: int) -> bool:
    """Whether what a step does with an expert leaves its replicas as spread over nodes as "Nodes and groups" says."""
    before, then = problem.on_nodes(row, expert), problem.on_nodes(after, expert)
    nodes = range(len(before))
    fewer, more = ([n for n in nodes if way * (then[n] - before[n]) > 0] for way in (-1, 1))
    if fewer and more:
        return before[fewer[0]] > 1 or before[more[0]] == 0
    if fewer:
        return before[fewer[0]] > 1 or max(before) == 1
    node_of = problem.topology.node_of
    free = {node_of(rank) for rank in problem.usable if expert not in problem.held(row, rank)}
    return not more or before[more[0]] == min(before[node] for node in free)


RANKS = {
    "one node": Topology(3, 1, [1, 2, 1]),
    "two nodes": Topology(4, 2, [1, 1, 1, 2]),
    "a rank is out of service": Topology(4, 2, [1, 1, 2, 1], None, [True, True, True, False]),
    "three nodes and speeds": Topology(4, 3, [2, 1, 1, 1], [1.0, 2.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("has_homes", [False, True])
def test_steps_are_those_stated(ranks: str, has_homes: bool) -> None:
    """Domain: every row of 3 experts on up to 4 ranks, with one window, with two, and with one that has no load."""
    topology = RANKS[ranks]
    number = sum(topology.slots_per_rank)  # type: ignore[arg-type]
    homes = Homes([0] * len(LOADS), frozenset(range(len(LOADS))), 1.0, 1.0) if has_homes else None
    looked_at = 0
    for windows in ([LOADS], [LOADS, [0.0, 1.0, 5.0]], [LOADS, [0.0, 0.0, 0.0]]):
        problem = Problem(windows, number, topology, homes)
        entries = [range(-1, len(LOADS)) if slot in problem.usable_slots else (-1,) for slot in range(number)]
        for row in map(list, product(*entries)):
            if set(row) >= set(range(len(LOADS))) and is_one_on_a_rank(problem, row):
                usable = {step for step in stated(problem, row) if is_usable(problem, step)}
                assert {tuple(step) for step in steps(problem, row)} - {tuple(row)} == usable, (row, windows)
                looked_at += len(usable)
    assert looked_at > 100


def is_usable(problem: Problem, row: tuple[int, ...]) -> bool:
    return all(entry < 0 or slot in problem.usable_slots for slot, entry in enumerate(row))


def test_what_is_busiest_counts_first_and_then_the_sum_of_the_windows_from_the_busiest_rank_on() -> None:
    problem = Problem([[3.0, 1.0], [1.0, 2.0]], 3, Topology(3))
    time = 1 / problem.bound
    assert worth(problem, [0, 1, -1]) == pytest.approx((5 * time, 4 * time, 3 * time, 0.0))
    assert worth(problem, [-1, 1, 0]) == worth(problem, [0, 1, -1])
    assert worth(Problem([[0.0]], 1, Topology(1)), [0]) == (0.0, 0.0)
    # Rounding is no gain.
    assert worth(Problem([[0.1, 0.2, 0.3]], 3, Topology(1)), [0, 1, 2]) == worth(
        Problem([[0.3, 0.2, 0.1]], 3, Topology(1)), [0, 1, 2]
    )
