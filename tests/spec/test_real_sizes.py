"""Cases of the sizes that models and deployments have tell what is right in every small world and wrong beyond."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import expert_placement_spec
import pytest
from expert_placement_spec import CHAPTERS, Workers, evaluate_case
from expert_placement_spec.adapter import load_model
from expert_placement_spec.case_check import check_cases, look_at_real, sample
from expert_placement_spec.cases import MOST_POINTS, Chapter

from tests.spec.broken_at_size import BROKEN

REAL = [(chapter, name) for chapter in CHAPTERS for name in CHAPTERS[chapter].real]
OURS = {
    "placement": ["expert_placement"],
    "balance": ["expert_placement"],
    "migration": ["expert_placement"],
    "routing": ["expert_placement.conformance:RustRouting", "expert_placement.conformance:TorchRouting"],
}
NOT_MET: dict[str, set[str]] = {
    "placement": set(),
    # Too many layouts to look at all, and room for every group.
    "balance": {
        "replication_is_optimal",
        "plans_respect_the_optimum",
        "limits_out_of_reach_are_refused",
    },
    "migration": set(),
    "routing": set(),
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_ours_obey_every_law_in_real_sizes(chapter: str) -> None:
    """Domain: the cases of real sizes of SPEC.md, "How placements are checked". Cost: some seconds a chapter."""
    with Workers(2) as workers:
        outcomes = look_at_real(chapter, OURS[chapter], workers=workers)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert {one.invariant for one in outcomes if not one.cases} == NOT_MET[chapter]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_what_is_wrong_from_a_size_on_is_rejected_by_name(broken: Any) -> None:
    """Domain: the cases of real sizes, and 40 random ones, in which nothing is wrong."""
    about, model = CHAPTERS[broken.chapter], load_model(f"{broken.__module__}:{broken.__name__}")
    small = sample(broken.chapter, [model.name], 40)
    assert [one.counterexample.call() for one in small if one.counterexample is not None] == []
    laws = {law: about.laws[law] for law in sorted(broken.breaks)}
    for name, case in about.real.items():
        for outcome in check_cases(about, model, list(laws.values()), [case()], name):
            example = outcome.counterexample
            if example is not None:
                assert f"real={name!r}" in example.call()
                assert example.point()["real"] == name
                assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False, (
                    outcome.invariant
                )
                del laws[outcome.invariant]
    assert not laws


@pytest.mark.parametrize(("chapter", "name"), REAL)
def test_cases_of_real_sizes_are_allowed_and_the_same_every_time(chapter: str, name: str) -> None:
    case = CHAPTERS[chapter].real[name]()
    case.check()
    assert case == CHAPTERS[chapter].real[name]()


def test_the_reference_model_is_not_asked() -> None:
    assert look_at_real("migration", [Chapter.reference]) == []


def test_of_many_points_some_are_looked_at() -> None:
    placement = CHAPTERS["placement"]
    view = placement.view(
        load_model(Chapter.reference), placement.real["256 experts on 288 slots of 32 ranks, 58 layers"]()
    )
    points = view.points(("l", "r", "e"))
    assert MOST_POINTS // 2 < len(points) == len(set(points)) <= MOST_POINTS
    assert all(view.has_point(("l", "r", "e"), point) for point in points)
    for place, extent in enumerate((58, 32, 256)):
        assert {0, extent - 1} <= {point[place] for point in points}
    assert len({point[2] for point in points}) == 256
    assert len(view.points(("l", "j"))) == 58 * 288
    assert not view.has_point(("l", "e"), (0, 256))
    assert not view.has_point(("l", "e"), (-1, 0))


def test_enough_points_are_looked_at() -> None:
    """Of every law with more than 2^15 points in a case at least half as many, from the first to the last."""
    seen = 0
    for chapter, name in REAL:
        about = CHAPTERS[chapter]
        view = about.view(load_model(Chapter.reference), about.real[name]())
        for quantifiers in {law.quantifiers for law in about.laws.values()}:
            # What a plan or a table of an implementation has is not known before it is asked for.
            if chapter == "routing" or (chapter == "placement" and not {"i", "k"} & set(quantifiers)):
                number = prod(view.extent(one, {}) for one in quantifiers)
                points = view.points(quantifiers)
                assert len(points) == len(set(points)) <= MOST_POINTS
                assert all(view.has_point(quantifiers, point) for point in points)
                assert len(points) == number <= MOST_POINTS or MOST_POINTS // 2 <= len(points) < number
                for place, one in enumerate(quantifiers if points else ()):
                    assert {0, view.extent(one, {}) - 1} <= {point[place] for point in points}
                seen += number > MOST_POINTS
    assert seen >= 4


def test_cases_of_real_sizes_are_asked_for_by_name() -> None:
    name = "300 experts on 320 ranks of one slot, all of them"
    assert evaluate_case(Chapter.reference, "batches_cut_the_moves", real=name) is True
    with pytest.raises(
        ValueError, match=re.escape("real=`a million experts` is unknown, expected one of 256 experts on")
    ):
        evaluate_case(Chapter.reference, "batches_cut_the_moves", real="a million experts")
    with pytest.raises(ValueError, match="real=`3` is unknown"):
        evaluate_case(Chapter.reference, "batches_cut_the_moves", real=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"real=`{name}` says the whole case, got old as well"):
        evaluate_case(Chapter.reference, "batches_cut_the_moves", real=name, old=[[0]])
