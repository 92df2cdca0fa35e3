"""The model's numbers of replicas at their edges: nothing, no load, and ranks that hold too little apart."""

from __future__ import annotations

import pytest
from expert_placement_spec.balance.replication import (
    can_be_held_apart,
    least_largest_share,
    precedence,
    replica_counts,
)


@pytest.mark.parametrize(
    ("counts", "rooms", "is_so"),
    [
        ([], [], True),
        ([], [2], True),
        ([1], [], False),
        ([1], [1], True),
        ([2], [2], False),
        ([2], [1, 1], True),
        ([3], [1, 1], False),
        ([2, 2], [2, 2], True),
        ([2, 2], [3, 1], False),
        ([3, 3, 1], [3, 3, 1], False),
        ([2, 2, 1], [3, 2], True),
        ([2, 2, 2], [3, 2], False),
    ],
)
def test_replicas_find_room_on_different_ranks(counts: list[int], rooms: list[int], is_so: bool) -> None:
    assert can_be_held_apart(counts, rooms) is is_so


@pytest.mark.parametrize(
    ("loads", "rooms", "counts"),
    [
        ([], [], []),
        ([0.0, 0.0], [1, 1, 1, 1], [2, 2]),
        ([0.0, 0.0, 0.0], [1] * 5, [2, 2, 1]),
        ([1.0, 0.0], [1, 1, 1], [2, 1]),
        ([0.0, 1.0], [1, 1, 1, 1], [1, 3]),
        ([2.0, 1.0], [1, 1, 1, 1], [3, 1]),
        ([1.0, 1.0], [1, 1, 1], [2, 1]),
        ([3.0, 1.0], [2, 2], [2, 2]),
    ],
)
def test_the_largest_share_is_replicated_and_among_none_the_fewest(
    loads: list[float], rooms: list[int], counts: list[int]
) -> None:
    assert replica_counts(loads, rooms) == counts


def test_experts_without_load_come_by_their_replicas_and_others_by_their_shares() -> None:
    assert precedence(4.0, 2, 7) == (-2.0, 0, 7)
    assert precedence(0.0, 2, 7) == (0.0, 2, 7)


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 slots on active ranks are too few for 2 experts"):
        replica_counts([1.0, 1.0], [1])


def test_the_least_largest_share_is_none_without_experts() -> None:
    assert least_largest_share([], [1]) == 0.0


@pytest.mark.parametrize(
    ("rooms", "share"),
    [([1, 1, 1], 3.0), ([1, 1, 1, 1], 2.0), ([3, 1], 3.0), ([4], 6.0)],
)
def test_the_least_largest_share_is_of_replicas_that_ranks_can_hold_apart(rooms: list[int], share: float) -> None:
    assert least_largest_share([6.0, 1.0], rooms) == share
