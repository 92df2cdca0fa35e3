"""The comparisons of `report.py` under pytest-benchmark. Nothing here asserts a time; the results must be equal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="the comparisons make tensors")
pytest.importorskip("pytest_benchmark", reason="benchmarks need pytest-benchmark")

from tests.bench import measuring, report

if TYPE_CHECKING:
    from pathlib import Path

COMPARISONS = report.comparisons()
NAMES = [f"{each.subject}: {each.ours} against {each.theirs}" for each in COMPARISONS]
# A statement is timed once in its group, however many comparisons it takes part in.
CONTENDERS = {(each.subject, statement): each.names for each in COMPARISONS for statement in (each.ours, each.theirs)}


@pytest.mark.parametrize("comparison", COMPARISONS, ids=NAMES)
def test_both_sides_of_a_comparison_agree(comparison: measuring.Comparison) -> None:
    comparison.assert_same()


@pytest.mark.parametrize(("subject", "statement"), CONTENDERS, ids=lambda value: value)
def test_speed(benchmark: Any, subject: str, statement: str) -> None:
    benchmark.group = subject
    call = eval(f"lambda: {statement}", CONTENDERS[subject, statement])
    benchmark.pedantic(call, rounds=30, iterations=200, warmup_rounds=2)


def test_the_report_has_a_row_for_every_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert report.main(["--rounds", "1", "--batch-ms", "0.01", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["measurements"]
    assert [(row["subject"], row["ours"], row["theirs"]) for row in rows] == [
        (each.subject, each.ours, each.theirs) for each in COMPARISONS
    ]
    assert all(row["ratio"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(each.subject in printed for each in COMPARISONS)


def test_a_wrong_result_is_reported_and_not_timed() -> None:
    wrong = measuring.Comparison("sum", "1 + 1", "3", {}, lambda ours, theirs: bool(ours == theirs))
    with pytest.raises(AssertionError, match=r"^sum: 1 \+ 1 gives 2, 3 gives 3"):
        measuring.measure(wrong, rounds=1, batch_seconds=0.001)


def test_without_the_peers_their_rows_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (None, "", str(tmp_path)):
        if folder is None:
            monkeypatch.delenv("PEERS", raising=False)
        else:
            monkeypatch.setenv("PEERS", folder)
        assert measuring.load_peers() is None
        assert not any("vllm_expert_map" in each.theirs for each in report.comparisons())
