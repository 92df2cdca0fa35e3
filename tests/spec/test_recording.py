"""What the reference model answers, and what the laws ask of it, is what was recorded."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from expert_placement_spec import CHAPTERS
from expert_placement_spec.answers import Lookup
from expert_placement_spec.balance import refinement

from tests.spec.recording import RECORD, digests, written

KEPT: dict[str, list[str]] = json.loads(RECORD.read_text(encoding="utf-8"))


def first_change(chapter: str) -> Any:
    """The first case that is answered otherwise, or is another one, as plain values."""
    for (case, digest), kept in zip_longest(digests(chapter), KEPT[chapter], fillvalue=(None, "")):
        if digest != kept:
            return "a case too few" if case is None else case.values()
    return None


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_answers_and_points_are_those_recorded(chapter: str) -> None:
    """Where the change is meant: `python -m tests.spec.recording`."""
    assert first_change(chapter) is None


def test_every_chapter_is_recorded() -> None:
    assert KEPT.keys() == CHAPTERS.keys()
    assert all(len(lines) > 100 for lines in KEPT.values())


def test_a_model_that_chooses_otherwise_among_equals_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No law is broken by it."""
    steps = refinement.steps
    monkeypatch.setattr(refinement, "steps", lambda problem, row: reversed(list(steps(problem, row))))
    assert "loads" in first_change("balance")


def test_a_case_too_few_or_too_many_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KEPT, "placement", [*KEPT["placement"], "0"])
    assert first_change("placement") == "a case too few"
    monkeypatch.setitem(KEPT, "placement", KEPT["placement"][:-2])
    assert "table" in first_change("placement")


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
