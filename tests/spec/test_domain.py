"""The cases of the domains are those recorded, and random ones are as large and as varied as is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from expert_placement_spec import CHAPTERS
from expert_placement_spec.case_check import drawn_cases
from expert_placement_spec.migration.view import most_arrivals

from tests.spec.recording import CASES, cases_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from expert_placement_spec.placement.topology import Topology

KEPT: dict[str, dict[str, str]] = json.loads(CASES.read_text(encoding="utf-8"))
DRAWN = {"placement": 2000, "balance": 2000, "migration": 2000, "routing": 1000}
"""So many random cases have everything that any may have; homes with limits are rare."""


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_cases_are_those_recorded(chapter: str) -> None:
    """Where the change is meant: `python -m tests.spec.recording`."""
    assert cases_of(chapter) == KEPT[chapter]


def test_every_chapter_is_recorded() -> None:
    assert KEPT.keys() == CHAPTERS.keys()


def slots_of(topology: Topology) -> set[int]:
    """The numbers of slots that ranks are given."""
    given = topology.slots_per_rank
    return {given} if isinstance(given, int) else set(given or ())


def loads_in(case: Any) -> list[float]:
    """Every load of a case."""
    return [load for window in case.loads for layer in window for load in layer]


def entries_in(table: list[list[int]]) -> set[int]:
    """Everything that slots hold."""
    return {entry for row in table for entry in row}


RANKS: dict[str, Callable[[Any], set[Any]]] = {
    "ranks": lambda case: {case.topology.num_ranks},
    "slots of a rank": lambda case: slots_of(case.topology),
    "nodes": lambda case: {case.topology.num_nodes},
    "speeds": lambda case: set(case.topology.speeds or [None]),
    "active": lambda case: set(case.topology.active or [None]),
}
ASKED: dict[str, dict[str, Callable[[Any], set[Any]]]] = {
    "placement": RANKS
    | {
        "layers": lambda case: {len(case.table)},
        "experts, up to 9 or more": lambda case: {min(case.num_experts, 9)},
        "windows": lambda case: {len(case.loads)},
        "has empty slots": lambda case: {-1 in entries_in(case.table)},
        "loads that are none": lambda case: {min(loads_in(case), default=0.0) == 0.0},
        "loads beyond 2^53": lambda case: {max(loads_in(case), default=0.0) > 2**53},
        "tiny loads": lambda case: {any(0 < load < 1e-299 for load in loads_in(case))},
    },
    "balance": RANKS
    | {
        "layers": lambda case: {len(case.loads[0])},
        "windows": lambda case: {len(case.loads)},
        "policy": lambda case: {(case.policy, case.previous is not None)},
        "has groups": lambda case: {case.num_groups > 1},
        "budget": lambda case: {None if case.max_moves is None else min((case.max_moves - case.num_lost) // 5, 1)},
        "gain": lambda case: {case.min_gain},
        "limit": lambda case: {case.max_off_node if case.max_off_node in (None, 0.0, 1.0) else "some"},
        "experts, up to 8 or more": lambda case: {min(len(case.loads[0][0]), 8)},
        "loads that are none": lambda case: {min(loads_in(case), default=0.0) == 0.0},
        "loads beyond 2^53": lambda case: {max(loads_in(case), default=0.0) > 2**53},
        "tiny loads": lambda case: {any(0 < load < 1e-299 for load in loads_in(case))},
    },
    "migration": RANKS
    | {
        "layers": lambda case: {len(case.old)},
        "transfers": lambda case: {case.max_node_transfers},
        "staged": lambda case: {None if case.max_staged is None else case.max_staged - most_arrivals(case)},
        "experts, up to 9 or more": lambda case: {min(case.num_experts, 9)},
        "moves nothing": lambda case: {case.old == case.new},
        "had empty slots": lambda case: {-1 in entries_in(case.old)},
        "has empty slots": lambda case: {-1 in entries_in(case.new)},
    },
    "routing": RANKS
    | {
        "experts": lambda case: {case.num_experts},
        "tokens": lambda case: {len(case.ids)},
        "ids of a token": lambda case: {len(ids) for ids in case.ids},
        "ids": lambda case: {one for ids in case.ids for one in ids},
        "in turn or weighted": lambda case: {(case.exact, case.weights is not None)},
        "load": lambda case: {case.load is not None},
        "padding": lambda case: {case.valid_tokens is not None and case.valid_tokens < len(case.ids)},
        "offsets of 63 bits": lambda case: {case.token_offset // 2**62},
        "seeds of 63 bits": lambda case: {case.seed // 2**62},
    },
}
SPEEDS = {None, 0.5, 1.0, 1.5, 2.0, 3.0}
ACTIVE = {None, True, False}
EXPECTED: dict[str, dict[str, set[Any]]] = {
    "placement": {
        "ranks": {*range(1, 7)},
        "slots of a rank": {*range(6)},
        "nodes": {*range(1, 7)},
        "speeds": SPEEDS,
        "active": ACTIVE,
        "layers": {1, 2, 3},
        "experts, up to 9 or more": {*range(10)},
        "windows": {1, 2, 3},
        "has empty slots": {True, False},
        "loads that are none": {True, False},
        "loads beyond 2^53": {True, False},
        "tiny loads": {True, False},
    },
    "balance": {
        "ranks": {1, 2, 3, 4, 6},
        "slots of a rank": {*range(4)},
        "nodes": {1, 2, 3, 4},
        "speeds": SPEEDS,
        "active": ACTIVE,
        "layers": {1, 2},
        "windows": {1, 2},
        "policy": {(policy, is_warm) for policy in ("balanced", "deepseek") for is_warm in (True, False)},
        "has groups": {True, False},
        "budget": {None, 0, 1},
        "gain": {None, 0.0, 0.01, 0.1, 0.5},
        "limit": {None, 0.0, 1.0, "some"},
        "experts, up to 8 or more": {*range(9)},
        "loads that are none": {True, False},
        "loads beyond 2^53": {True, False},
        "tiny loads": {True, False},
    },
    "migration": {
        "ranks": {*range(1, 7)},
        "slots of a rank": {*range(5)},
        "nodes": {*range(1, 7)},
        "speeds": SPEEDS,
        "active": ACTIVE,
        "layers": {1, 2, 3},
        "transfers": {None, 1, 2, 3},
        "staged": {None, 0, 1, 4},
        "experts, up to 9 or more": {*range(10)},
        "moves nothing": {True, False},
        "had empty slots": {True, False},
        "has empty slots": {True, False},
    },
    "routing": {
        "ranks": {*range(1, 6)},
        "slots of a rank": {*range(5)},
        "nodes": {*range(1, 6)},
        "speeds": SPEEDS,
        "active": ACTIVE,
        "experts": {*range(7)},
        "tokens": {*range(13)},
        "ids of a token": {1, 2, 3, 4},
        "ids": {-(2**31), -2, *range(-1, 7), 2**31 - 1},
        "in turn or weighted": {(True, False), (False, True), (False, False)},
        "load": {True, False},
        "padding": {True, False},
        "offsets of 63 bits": {0, 1},
        "seeds of 63 bits": {0, 1},
    },
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_random_cases_have_everything_that_they_may(chapter: str) -> None:
    """The sizes and the choices that are listed here, which are those that SPEC.md states, and no others."""
    cases = drawn_cases(chapter, DRAWN[chapter])
    found = {name: set().union(*map(ask, cases)) for name, ask in ASKED[chapter].items()}
    assert found == EXPECTED[chapter]
