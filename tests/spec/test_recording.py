"""What the reference model answers, and what the laws ask of it, is what was recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from expert_placement_spec import CHAPTERS
from expert_placement_spec.answers import Lookup
from expert_placement_spec.balance import refinement

from tests.spec.recording import RECORD, recorded, written

KEPT: dict[str, dict[str, str]] = json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_answers_and_points_are_those_recorded(chapter: str) -> None:
    """Where the change is meant: `python -m tests.spec.recording`, and a look at the difference."""
    assert recorded(chapter) == KEPT[chapter]


def test_a_law_without_points_is_not_recorded() -> None:
    """A record of nothing would be kept for ever."""
    assert KEPT.keys() == CHAPTERS.keys()
    for chapter, lines in KEPT.items():
        points = {name: lines[f"points of {name}"] for name in CHAPTERS[chapter].laws}
        assert [name for name, number in points.items() if number == "0"] == [], chapter


def test_a_model_that_chooses_otherwise_among_equals_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No law is broken by it."""
    steps = refinement.steps
    monkeypatch.setattr(refinement, "steps", lambda problem, row: reversed(list(steps(problem, row))))
    lines = recorded("balance")
    changed = {name for name, line in lines.items() if line != KEPT["balance"][name]}
    assert "rows" in changed
    assert "cases" not in changed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Lookup([[1, 2], [3, -1]]), "i[[1, 2], [3, -1]]"),
        (np.array([True, False]), "b[True, False]"),
        (np.float64(0.1), "0.1"),
        ([1, (2.5, None), "a"], "[1, [2.5, None], 'a']"),
        (object(), None),
        ([1, object()], None),
    ],
)
def test_plain_values_are_written_and_others_are_not(value: Any, text: str | None) -> None:
    assert written(value) == text
