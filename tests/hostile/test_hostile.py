"""Everything public is fed, and a part of all cases is judged; `python -m tests.hostile` judges all of them."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch", reason="much of what is public is for tensors")
pytest.importorskip("yaml", reason="TensorRT-LLM's files are YAML")
pytest.importorskip("typer", reason="the command line is public")
pytest.importorskip("matplotlib", reason="the plots are public")

from tests.hostile import record, running, surface
from tests.hostile.subjects import FED, subjects

CALL_STEP, FILE_STEP = 11, 97
"""Of all cases every so many is judged here."""


def test_every_parameter_of_everything_public_is_fed() -> None:
    fed = {name: set(parameters) for name, parameters in FED.items()}
    public = {name: set(parameters) for name, parameters in surface.surface().items()}
    assert fed == public


def test_a_new_public_name_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    import expert_placement

    def new(count: int) -> int:
        return count

    monkeypatch.setattr(expert_placement, "new", new, raising=False)
    monkeypatch.setattr(expert_placement, "__all__", [*expert_placement.__all__, "new"])
    assert set(surface.surface()) - set(FED) == {"expert_placement.new"}


def test_classes_that_are_fed_nothing_are_public_still() -> None:
    names = {f"{module.__name__}.{name}" for module in surface.modules() for name in module.__all__}
    assert names >= set(surface.HOLDS_WHAT_IT_IS_GIVEN)


def test_usual_arguments_are_answered() -> None:
    for name, subject in subjects().items():
        for _ in range(2):
            try:
                subject.call(**subject.usual())
            except Exception as error:
                pytest.fail(f"{name}: {type(error).__name__}: {error}")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured as Linux has it")
@pytest.mark.parametrize(
    ("source", "step", "part"), [("of_calls", CALL_STEP, "calls"), ("of_files", FILE_STEP, "files")]
)
def test_hostile_input_is_answered_rightly_or_refused(source: str, step: int, part: str) -> None:
    outcomes = running.run(f"tests.hostile.cases:{source}", str(step))
    assert len(outcomes) > 500
    assert {outcome.verdict.outcome for outcome in outcomes} > {"ValueError"}
    unlike = record.faults_unlike(record.read()[part]["short"], outcomes)
    assert not unlike, "\n".join(unlike)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured as Linux has it")
def test_what_is_left_to_fall_short_has_a_reason_and_does_fall_short() -> None:
    recorded = [name for part in record.read().values() for name, _ in part["short"]]
    assert set(recorded) <= record.REASONS.keys()
    outcomes = running.run("tests.hostile.cases:of_names", *record.REASONS)
    assert [outcome.name for outcome in outcomes if outcome.verdict.fault] == list(record.REASONS)


def test_the_page_is_that_of_the_data() -> None:
    assert record.PAGE.read_text() == record.page(record.read())


def test_the_data_are_of_everything_public() -> None:
    data = record.read()
    assert set(data["calls"]["by_subject"]) == set(surface.surface())
    for part in data.values():
        assert part["number"] == sum(part["outcomes"].values())
        assert part["number"] == sum(sum(found.values()) for found in part["by_subject"].values())
