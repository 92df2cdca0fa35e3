"""The model's packing at its edges: which choices leave room for what is still to come."""

from __future__ import annotations

import pytest
from expert_placement_spec.balance.packing import leaves_room, pack, pack_nodes
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


@pytest.mark.parametrize(
    ("loads", "topology", "counts", "row"),
    [
        # The heaviest first, equal ones by id; each to the rank that is done first, the lowest of equals.
        ([1.0, 1.0, 3.0, 2.0], Topology(2), [1, 1, 1, 1], [1, 2, 0, 3]),
        # To the fast rank as long as that is done first with it.
        ([4.0, 3.0, 1.0], Topology(2, speeds=[1.0, 2.0], slots_per_rank=[2, 2]), [1, 1, 1], [1, -1, 0, 2]),
        # The second replica to the node that has none, though its ranks have more to do.
        ([6.0, 5.0, 4.5, 4.0], Topology(4, 2), [2, 1, 1, 1], [1, -1, 0, 2, 3, -1, 0, -1]),
        # Nothing on a rank out of service.
        ([2.0, 1.0], Topology(3, active=[True, False, True], slots_per_rank=1), [1, 1], [0, -1, 1]),
    ],
)
def test_replicas_go_where_the_chapter_says(
    loads: list[float], topology: Topology, counts: list[int], row: list[int]
) -> None:
    assert pack(Problem([loads], len(row), topology), counts) == row


def test_nodes_pack_what_begins_there() -> None:
    """Each node replicates the heavier of its own experts, and holds none of the other's."""
    problem = Problem([[4.0, 1.0, 1.0, 2.0]], 6, Topology(4, 2, [2, 1, 2, 1]))
    assert pack_nodes(problem, [0, 0, 1, 1]) == [0, 1, 0, 2, 3, 3]
