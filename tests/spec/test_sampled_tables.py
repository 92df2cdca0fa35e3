"""Whole maps and tables of partitions larger than the exhaustive domain."""

from __future__ import annotations

from expert_placement_spec import reference
from expert_placement_spec.implementation import REFERENCE
from expert_placement_spec.sampled import MOST_EXPERTS, MOST_PAIRS, MOST_RANKS, large_shapes, sample_tables

FEW = 601
"""Points, for which four partitions are looked at."""


class WrongWhereLarge(reference.Partition):
    """A map whose last entry is wrong from 1500 experts on."""

    elementwise = None  # type: ignore[assignment]

    def expert_map(self, rank: int) -> list[int]:
        """The index map, or nearly."""
        entries = list(super().expert_map(rank))
        return [*entries[:-1], 0] if self.num_experts >= 1500 else entries


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
