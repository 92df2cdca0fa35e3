"""Whole maps and tables of partitions larger than the exhaustive domain."""

from __future__ import annotations

import pytest
from expert_placement_spec import reference
from expert_placement_spec.implementation import REFERENCE
from expert_placement_spec.sampled import (
    MANY_RANKS,
    MOST_EXPERTS,
    MOST_PAIRS,
    MOST_RANKS,
    WHOLE,
    large_shapes,
    sample_tables,
)

FEW = 601
"""Points, for which four partitions are looked at."""


class WrongWhereLarge(reference.Partition):
    """A map whose last entry is wrong from 1500 experts on."""

    elementwise = None  # type: ignore[assignment]

    def expert_map(self, rank: int) -> list[int]:
        """The index map, or nearly."""
        entries = list(super().expert_map(rank))
        return [*entries[:-1], 0] if self.num_experts >= 1500 else entries


class SixteenBitIndices(reference.Partition):
    """Local indices in 16 bits."""

    elementwise = None  # type: ignore[assignment]

    def local_indices(self) -> list[int]:
        """The local indices, or nearly."""
        return [index & 0xFFFF for index in super().local_indices()]


class SixteenBitRanks(reference.Partition):
    """Ranks in 16 bits."""

    elementwise = None  # type: ignore[assignment]

    def owners(self) -> list[int]:
        """The owners, or nearly."""
        return [owner & 0xFFFF for owner in super().owners()]


def test_the_partitions_are_beyond_the_domain_within_bounds_and_always_the_same() -> None:
    shapes = large_shapes(20_000, 128)
    assert shapes == large_shapes(20_000, 128)
    assert len(shapes) == 100
    assert all(max(shape) > 128 and shape[0] * shape[1] <= MOST_PAIRS for shape in shapes)
    assert all(experts <= MOST_EXPERTS and ranks <= MOST_RANKS for experts, ranks in shapes)
    assert max(experts for experts, _ in shapes) > 30_000
    assert max(ranks for _, ranks in shapes) > 1000
    assert large_shapes(0, 128) == []
    # Where every number of ranks was looked at, more experts are left, up to the bound of the samples.
    beyond = large_shapes(601, MOST_RANKS)
    assert beyond
    assert all(experts > MOST_RANKS for experts, _ in beyond)
    assert large_shapes(601, MOST_EXPERTS) == []


def test_the_reference_model_obeys_every_law_in_large_partitions() -> None:
    """Domain: four partitions of up to 65,536 experts and 2,048 ranks, three strategies. Cost: a few seconds."""
    outcomes = sample_tables([REFERENCE], FEW, 256)
    assert {one.result for one in outcomes} == {"holds"}
    assert {"map_agrees_with_local_index", "offsets_are_prefix_sums", "ranges_agree_with_scalars"} <= {
        one.invariant for one in outcomes
    }


def test_what_is_wrong_in_large_partitions_alone_is_found() -> None:
    assert any(experts >= 1500 for experts, _ in large_shapes(FEW, 256))
    outcomes = sample_tables(["tests.spec.test_sampled_tables:WrongWhereLarge"], FEW, 256)
    broken = {one.invariant: one.counterexample for one in outcomes if one.counterexample is not None}
    assert {"map_agrees_with_local_index", "representations_agree"} <= set(broken)
    example = broken["map_agrees_with_local_index"]
    assert example is not None
    assert example.num_experts >= 1500


@pytest.mark.parametrize(
    ("broken", "law", "ranks"),
    [
        (SixteenBitIndices, "map_agrees_with_local_index", WHOLE[1]),
        (SixteenBitRanks, "owner_inverts", MANY_RANKS[1]),
    ],
)
def test_sixteen_bits_are_too_few(broken: type, law: str, ranks: int) -> None:
    """In the one partition that has more, and in no smaller one."""
    outcomes = sample_tables([f"{__name__}:{broken.__name__}"], 1, MOST_RANKS)
    broken_laws = {one.invariant: one.counterexample for one in outcomes if one.counterexample is not None}
    example = broken_laws[law]
    assert example is not None
    assert (example.num_experts, example.num_ranks) == (WHOLE[0], ranks)
