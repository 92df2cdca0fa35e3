"""The model's packing at its edges: which choices leave room for what is still to come."""

from __future__ import annotations

import pytest
from expert_placement_spec.balance.packing import leaves_room, pack
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.placement.topology import Topology


@pytest.mark.parametrize(
    ("rest", "room", "chosen", "missing", "is_so"),
    [
        ([], {0: 1}, [0], 0, True),
        ([], {0: 1, 1: 0}, [0], 1, False),
        ([], {0: 6, 1: 0}, [0], 1, False),
        ([], {0: 1, 1: 1}, [0], 1, True),
        ([], {0: 1}, [0], 1, False),
        ([1], {0: 1, 1: 1}, [0], 0, True),
        ([2], {0: 1, 1: 1}, [0], 0, False),
        ([2], {0: 1, 1: 2, 2: 1}, [1], 0, True),
        ([2], {0: 1, 1: 1, 2: 1}, [1], 1, False),
        ([1, 1], {0: 2, 1: 1, 2: 1}, [0], 1, True),
    ],
)
def test_what_is_left_can_be_held_apart(
    rest: list[int], room: dict[int, int], chosen: list[int], missing: int, is_so: bool
) -> None:
    assert leaves_room(rest, room, chosen, missing) is is_so


def test_a_rank_is_passed_over_where_the_rest_would_not_be_held_apart() -> None:
    """Of expert 1 there are two replicas, which need both ranks: expert 0 can not take the only slot of the first."""
    assert pack(Problem([[4.0, 2.0]], 3, Topology(2, 1, [1, 2])), [1, 2]) == [1, 0, 1]
