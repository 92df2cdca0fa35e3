"""The judge is judged: it reports every planted fault, goes on behind it, and lets pass what is sound."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the values are tensors as well")

from tests.hostile import planted, running
from tests.hostile.judging import Verdict, fingerprint
from tests.hostile.record import faults_unlike, kind_of
from tests.hostile.running import Outcome


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return running.run("tests.hostile.planted:cases", silence=5.0)


def test_every_planted_fault_is_reported_by_its_kind(outcomes: list[Outcome]) -> None:
    found = {outcome.subject: outcome.verdict.fault for outcome in outcomes if outcome.subject != "sound"}
    assert list(found) == [planted_.__name__ for planted_ in planted.FAULTS]
    for function, expected in planted.FAULTS.items():
        assert expected in found[function.__name__], (function.__name__, found[function.__name__])


def test_what_is_sound_is_found_so_between_all_of_them(outcomes: list[Outcome]) -> None:
    sound = [outcome.verdict for outcome in outcomes if outcome.subject == "sound"]
    assert len(sound) == len(planted.FAULTS) + 1
    assert {(verdict.outcome, verdict.fault) for verdict in sound} == {("ValueError", "")}


def _outcome(value: str, fault: str) -> Outcome:
    return Outcome("f", "x", value, Verdict("answered", 0.0, 0, fault))


def test_what_is_recorded_is_no_news_until_it_is_gone() -> None:
    recorded = [["f(x: a)", "answered"], ["f(x: not run)", "panicked"]]
    assert faults_unlike(recorded, [_outcome("a", "answered 3")]) == []
    assert faults_unlike(recorded, [_outcome("a", "answered 3"), _outcome("b", "took 30 s")]) == ["f(x: b): took 30 s"]
    assert faults_unlike(recorded, [_outcome("a", "")]) == ["f(x: a) is recorded to fall short and does no more"]
    assert faults_unlike(recorded, [_outcome("a", "panicked: x")]) == [
        "f(x: a): panicked: x",
        "f(x: a) is recorded to fall short and does no more",
    ]


def test_every_kind_of_planted_fault_has_a_row_on_the_page() -> None:
    assert {
        kind_of(fault) for fault in ("panicked: x", "ended the process, with 1", "did not come back within 5 s")
    } == {
        "panicked",
        "ended the process",
        "did not come back",
    }


def test_how_long_a_call_took_is_no_answer() -> None:
    from expert_placement.distributed import Moved

    moved = Moved(1, 2, 3, 4, 5, 6, 7, 8, 0.5)
    assert fingerprint(moved) == fingerprint(moved._replace(seconds=0.25))
    assert fingerprint(moved) != fingerprint(moved._replace(sent=0))


def test_answers_are_told_apart_by_dtype_shape_and_content() -> None:
    import numpy as np
    import torch

    one = torch.tensor([1, 2])
    others = [one.int(), one.reshape(1, 2), torch.tensor([2, 1]), one.tolist(), one.numpy(), None, float("nan")]
    prints = [fingerprint(one), *map(fingerprint, others)]
    assert len({repr(each) for each in prints}) == len(prints)
    assert fingerprint(torch.tensor([3, 2, 1]).flip(0)) == fingerprint(torch.tensor([1, 2, 3]))
    assert fingerprint(np.array([1, 2], dtype=">i8")) != fingerprint(np.array([1, 2]))
