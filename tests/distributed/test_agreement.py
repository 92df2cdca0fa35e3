"""Agreement: silence where all ranks hold one placement, and the same error on every rank where they do not."""

from __future__ import annotations

import pickle
import re
import time

import pytest

pytest.importorskip("torch", reason="ranks talk through torch")

from expert_placement import Partition, Placement, Topology
from expert_placement.distributed import DisagreementError, agree

from tests.distributed.running import new_group, on_ranks


def placement(experts: int, ranks: int) -> Placement:
    return Placement.from_partition(Partition(experts, ranks))


def other_topology(experts: int, ranks: int) -> Placement:
    table = placement(experts, ranks).physical_to_logical()
    return Placement.from_physical_to_logical(table, experts, Topology(ranks, speeds=[2.0] * ranks))


def agreed(rank: int, ranks: int) -> None:
    for experts in (0, 1, 7, 64):
        agree(placement(experts, ranks), timeout=20)
    # Speeds are none of the digest's.
    agree(placement(7, ranks) if rank else other_topology(7, ranks))
    # The placement may be for other ranks than the group has.
    agree(placement(9, 5))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_that_hold_one_placement_agree(ranks: int) -> None:
    """Domain: 1, 2, 3 and 8 ranks; also without experts."""
    on_ranks(ranks, agreed, ranks)


def disagreed(rank: int) -> list[str]:
    said = []
    for mine in ([7, 8, 7, 7][rank], [7, 8, 9, 7][rank]):
        with pytest.raises(DisagreementError) as caught:
            agree(placement(mine, 4), timeout=20)
        assert caught.value.refused == ()
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.ranks_by_digest) == (str(caught.value), caught.value.ranks_by_digest)
        said.append(str(caught.value))
    swapped = Placement.from_physical_to_logical([1, 0, 2, 3] if rank == 3 else [0, 1, 2, 3], 4, Topology(4))
    with pytest.raises(ValueError, match=r"their sizes are the same$"):
        agree(swapped)
    # And the group still works.
    agree(placement(3, 4))
    return said


def test_ranks_that_disagree_all_say_who_holds_what() -> None:
    results = on_ranks(4, disagreed)
    assert all(result == results[0] for result in results)
    first, second = results[0]
    seven, eight, nine = (placement(experts, 4).digest() for experts in (7, 8, 9))
    assert f"ranks 0, 2..=3 hold {seven}; rank 1 holds {eight}" in first
    assert "num_experts is 7 on ranks 0, 2..=3, 8 on rank 1; num_slots is 7 on" in first
    assert "num_layers" not in first
    assert f"ranks 0, 3 hold {seven}; rank 1 holds {eight}; rank 2 holds {nine}" in second


def refused(rank: int) -> None:
    if rank == 1:
        with pytest.raises(TypeError, match="placement must be a Placement, got `str`"):
            agree("placement", timeout=20)  # type: ignore[arg-type]
    else:
        with pytest.raises(DisagreementError, match="rank 1 holds no placement") as caught:
            agree(placement(3, 3), timeout=20)
        assert caught.value.refused == (1,)


def test_a_rank_with_something_else_leaves_no_other_waiting() -> None:
    on_ranks(3, refused)


def in_groups(rank: int) -> None:
    groups = [new_group(ranks) for ranks in ([0, 2], [1])]
    mine = groups[rank % 2]
    agree(placement(5 + rank % 2, 2), mine)
    with pytest.raises(ValueError, match="this process does not belong to it"):
        agree(placement(5, 2), groups[1 - rank % 2])


def test_ranks_of_a_group_agree_among_themselves() -> None:
    on_ranks(3, in_groups)


def alone(rank: int) -> None:
    if rank == 0:
        start = time.monotonic()
        with pytest.raises(RuntimeError, match=re.escape("no answer from every rank within 0.5 s")):
            agree(placement(3, 2), timeout=0.5)
        assert time.monotonic() - start < 5
    else:
        with pytest.raises(ValueError, match="timeout=-1 is out of range"):
            agree(placement(3, 2), timeout=-1)
        for huge in (10**400, -(10**400)):
            with pytest.raises(
                ValueError, match=r"timeout=-?10+\.\.\. is out of range, expected more than 0 and at most 864"
            ):
                agree(placement(3, 2), timeout=huge)


def test_a_rank_that_does_not_come_is_an_error_after_the_timeout() -> None:
    on_ranks(2, alone)
