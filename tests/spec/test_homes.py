"""The model's homes of groups at their edges: guests, exchanges, and homes that somebody else chose."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from expert_placement_spec.balance.homes import (
    Homes,
    PossibleHomes,
    busiest_homes,
    exchanged,
    groups_of,
    off_node,
    settle,
)
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.placement.topology import Topology


def on_nodes(loads: list[float], slots: list[int]) -> Problem:
    """A layer on as many nodes of one rank each."""
    return Problem([loads], sum(slots), Topology(len(slots), len(slots), slots))


@pytest.mark.parametrize(
    ("loads", "slots", "groups", "homes", "begins", "limit"),
    [
        # Every group has room, and the heavier comes first.
        ([1.0, 1.0, 2.0, 2.0], [2, 2], 2, [1, 1, 0, 0], [1, 1, 0, 0], 0.15),
        # The lightest of a group without room is a guest on the other node.
        ([4.0, 3.0, 2.0, 1.0], [3, 1], 2, [0, 0, 0, 0], [0, 0, 0, 1], 0.15),
        ([4.0, 3.0, 2.0, 3.0], [3, 1], 2, [0, 0, 0, 0], [0, 0, 1, 0], 2 / 12),
        ([0.04, 0.03, 0.02, 0.03], [3, 1], 2, [0, 0, 0, 0], [0, 0, 1, 0], 2 / 12),
        # A group without room is where most of it has room.
        ([3.0, 3.0, 3.0, 1.0, 1.0, 1.0], [2, 4], 2, [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1], 0.15),
        # Guests go one after the other to the node with the most room, the lowest of equals.
        (
            [4.0] * 4 + [3.0] * 4 + [1.0] * 4,
            [5, 2, 5],
            3,
            [0] * 4 + [2] * 4 + [1] * 4,
            [0] * 4 + [2] * 4 + [1, 1, 0, 2],
            0.15,
        ),
        # Nothing is off node where there is no load.
        ([0.0, 0.0, 0.0, 0.0], [3, 1], 2, [0, 0, 0, 0], [0, 0, 0, 1], 0.15),
    ],
)
def test_groups_settle_where_they_have_room(
    loads: list[float], slots: list[int], groups: int, homes: list[int], begins: list[int], limit: float
) -> None:
    found, started = settle(on_nodes(loads, slots), groups, None)
    assert (found.nodes, started) == (homes, begins)
    assert found.guests == {expert for expert, home in enumerate(homes) if begins[expert] != home}
    assert found.limit == found.most_off_node == pytest.approx(limit)


def test_guests_above_the_limit_are_an_error() -> None:
    problem = on_nodes([4.0, 3.0, 2.0, 1.0], [3, 1])
    assert settle(problem, 2, 0.1)[0].limit == 0.1
    with pytest.raises(ValueError, match=r"max_off_node=0\.05 is out of reach.*0\.1 of a layer"):
        settle(problem, 2, 0.05)


@pytest.mark.parametrize(
    ("loads", "slots", "homes", "better"),
    [
        ([5.0, 4.0, 3.0, 2.0], [2, 2], [0, 0, 1, 1], [1, 0, 0, 1]),
        ([5.0, 4.0, 0.5, 0.5], [2, 3], [0, 0, 1, 1], [0, 1, 1, 1]),
        ([5.0, 4.0, 0.5, 0.5], [2, 2], [0, 0, 1, 1], [1, 0, 0, 1]),
        ([5.0, 4.0, 3.0, 2.0], [2, 2], [0, 1, 1, 0], [0, 1, 1, 0]),
    ],
)
def test_nodes_exchange_groups_or_give_one_away_where_there_is_room(
    loads: list[float], slots: list[int], homes: list[int], better: list[int]
) -> None:
    assert exchanged(on_nodes(loads, slots), groups_of(4, 4), homes) == better


ROW = [0, 1, -1, 0, -1, -1]
"""Expert 0 on both nodes and expert 1 on the first, each a group."""


@pytest.mark.parametrize(
    ("row", "nodes", "off"),
    [
        (ROW, [[0, 1], [0]], 2 / 6),
        ([0, 1, 0, 0, -1, -1], [[0, 1], [0]], 8 / 3 / 6),
        (ROW, [[], [0]], 4 / 6),
        (ROW, [[0, 1], [1]], 4 / 6),
    ],
)
def test_of_possible_homes_the_worst_counts(row: list[int], nodes: list[list[int]], off: float) -> None:
    assert PossibleHomes(nodes, 1.0).off(on_nodes([4.0, 2.0], [3, 3]), row) == pytest.approx(off)


def test_a_row_is_allowed_with_all_homes_that_were_whole_and_no_more_off_node_than_may_be() -> None:
    problem = on_nodes([4.0, 2.0], [3, 3])
    off = PossibleHomes([[0, 1], [0]], 1.0).off(problem, ROW)
    assert PossibleHomes([[0, 1], [0]], off).allow(problem, ROW)
    assert PossibleHomes([[0], [0]], 1.0).allow(problem, ROW)
    assert not PossibleHomes([[0, 1], [0, 1]], 1.0).allow(problem, ROW)
    assert not PossibleHomes([[0, 1], [0]], off / 2).allow(problem, ROW)


def test_homes_are_not_written_into() -> None:
    for homes in (PossibleHomes([[0]], 1.0), Homes([0], frozenset(), 1.0, 1.0)):
        with pytest.raises(FrozenInstanceError):
            homes.limit = 0.5  # type: ignore[misc]


def test_nothing_is_off_node_without_experts_or_other_nodes() -> None:
    assert off_node([-1], [], [0, 1], Topology(1), 1) == 0.0
    assert off_node([0, 1], [2.0, 1.0], [0, 2], Topology(1), 2) == 0.0
    assert busiest_homes([[2.0, 1.0]], 2) == [0, 0]
