"""The record of mutation testing is what it should be, and what reads tools and records rejects what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome as Judgement
from cosmic_ray.work_item import WorkerOutcome, WorkResult

from tests.mutation import crate, outcome, python, record
from tests.mutation.targets import CRATE, MODEL, PARTS, ROOT, Target, targets

if TYPE_CHECKING:
    from pathlib import Path

FILES = record.read(record.DATA.read_text(encoding="utf-8"))
WRITTEN_REASONS = record.REASONS.read_text(encoding="utf-8")


def test_what_is_mutated_is_there_and_is_tested() -> None:
    for target in targets():
        assert (ROOT / target.path).is_file(), target
        if target.part != CRATE:
            files = [test for stage in target.stages for test in stage if test.endswith(".py")]
            assert files, target
            assert all((ROOT / file).exists() for file in files), target
    assert {target.part for target in targets()} == set(PARTS)


def test_the_record_is_as_it_should_be_and_the_page_says_so() -> None:
    reasons = record.reasons_of(WRITTEN_REASONS)
    assert record.problems(FILES, reasons, targets()) == []
    assert record.written(FILES) == record.DATA.read_text(encoding="utf-8")
    # Which files have changed since is said when the page is written.
    said = record.PAGE.read_text(encoding="utf-8")
    for path, one in FILES.items():
        assert f"| {path} | {one.outcome.number:,} | {one.outcome.noticed:,} |" in said


PATH = "rust/expert-placement/src/coloring.rs"
FEW = {PATH: record.Measured(CRATE, "0", outcome.Outcome({"killed": 96, "timed out": 2, "survived": 2}, ["a", "b"]))}
REASONS = {(PATH, "a"): "it is so", (PATH, "b"): "it is so"}


def test_records_that_are_wrong_are_told() -> None:
    assert record.problems(FEW, REASONS, targets()) == []
    (unexplained,) = record.problems(FEW, {(PATH, "a"): "it is so"}, targets())
    assert unexplained == f"{PATH}: `b` survives, and no reason is given"
    (gone,) = record.problems(FEW, REASONS | {(PATH, "c"): "it is so"}, targets())
    assert gone == f"{PATH}: `c` has a reason, and does not survive"
    worse = {PATH: replace(FEW[PATH], outcome=outcome.Outcome({"killed": 30, "survived": 2}, ["a", "b"]))}
    (little,) = record.problems(worse, REASONS, targets())
    assert little == "of the crate the tests notice 30 of 32 mutants, expected 95% at least"
    (stranger,) = record.problems({"x.rs": replace(FEW[PATH], outcome=outcome.Outcome({}))}, {}, targets())
    assert stranger == "x.rs is recorded, and is none of the files that are mutated"


def test_the_page_says_what_was_not_tested_or_has_changed() -> None:
    page = record.page(FEW, REASONS, targets(), ROOT)
    assert "| the crate | 1 of " in page
    assert "| 98 (98.0%) | 2 | 2 |" in page
    assert f"## Changed since they were tested\n\n- {PATH}\n" in page
    assert "- python/expert_placement/torch/partition.py\n" in page.partition("## Not tested yet")[2]
    assert record.read(record.written(FEW)) == FEW


@pytest.mark.parametrize(
    "text",
    [
        'file = "a"\nmutants = ["b"]',
        'file = "a"\nmutants = ["b"]\nreason = " "',
        'file = "a"\nmutants = []\nreason = "c"',
        'file = "a"\nmutants = ["b", "b"]\nreason = "c"',
    ],
)
def test_reasons_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"survivors\.toml"):
        record.reasons_of(f"[[survivors]]\n{text}\n")


def test_equal_names_are_numbered() -> None:
    fates = [("a", outcome.KILLED), ("a", outcome.SURVIVED), ("b", outcome.SURVIVED), ("c", outcome.UNVIABLE)]
    came = outcome.gathered(fates)
    assert came.survivors == ["a (2)", "b"]
    assert (came.number, came.noticed) == (3, 1)
    with pytest.raises(ValueError, match="unknown fates"):
        outcome.gathered([("a", "lost")])


def of_the_tool(summary: str, phase: str = "Test", status: Any = None) -> dict[str, Any]:
    """A line of cargo-mutants."""
    name = "rust/a.rs:38:9: replace f -> u32 with 0"
    return {
        "scenario": {"Mutant": {"name": name}},
        "summary": summary,
        "phase_results": [{"phase": phase, "process_status": status}],
    }


def test_the_words_of_cargo_mutants_are_read() -> None:
    came = crate.parsed(
        [
            {"scenario": "Baseline", "summary": "Success", "phase_results": []},
            of_the_tool("CaughtMutant", status={"Failure": 101}),
            of_the_tool("MissedMutant", status="Success"),
            of_the_tool("Timeout", status="Timeout"),
            of_the_tool("Unviable", "Build", {"Failure": 101}),
        ]
    )
    assert came.fates == {"killed": 1, "survived": 1, "timed out": 1, "not viable": 1}
    assert came.survivors == ["replace f -> u32 with 0 (2)"]


@pytest.mark.parametrize(
    "said",
    [
        {"scenario": "Baseline", "summary": "Failure", "phase_results": []},
        # As programs end that are given an option which they do not know.
        of_the_tool("CaughtMutant", status={"Failure": 1}),
        of_the_tool("CaughtMutant", "Build", {"Failure": 101}),
        of_the_tool("Odd"),
    ],
)
def test_mutants_that_no_test_judged_are_told(said: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        crate.parsed([said])


SOURCE = '''
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

def largest(values: list[int] | None, least: int) -> int | None:
    """The largest value, or `least`."""
    found = least
    for value, _ in zip(values or (), values or (), strict=True):
        if value > found:
            found = value
    return found
'''
TESTS = """
from measured import largest

def test_largest():
    assert largest([1, 3, 2], 0) == 3
    assert largest(None, 5) == 5
"""


def test_mutants_of_python_are_told_from_one_another(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "test_measured.py").write_text(TESTS, encoding="utf-8")
    came = python.run(Target(MODEL, "measured.py", (("test_measured.py",),)), tmp_path)
    # With equal values it makes no difference which of them is found. Annotations are no code, nor is what they import.
    assert came.survivors == ["largest: `if value > found:` at 9: ReplaceComparisonOperator_Gt_GtE"]
    assert came.fates == {"killed": 5, "survived": 1}


def test_a_file_whose_tests_fail_anyway_is_refused(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "test_measured.py").write_text("def test():\n    assert False\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"without a mutant the tests of measured\.py fail"):
        python.run(Target(MODEL, "measured.py", (("test_measured.py",),)), tmp_path)


@pytest.mark.parametrize(
    "result",
    [
        WorkResult(WorkerOutcome.EXCEPTION, "Traceback"),
        WorkResult(WorkerOutcome.NORMAL, "ERROR: file or directory not found", Judgement.KILLED),
        WorkResult(WorkerOutcome.NORMAL, "", Judgement.INCOMPETENT),
    ],
)
def test_mutants_of_python_that_no_test_judged_are_told(tmp_path: Path, result: WorkResult) -> None:
    (tmp_path / "measured.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "settings.toml").write_text(
        '[cosmic-ray]\nmodule-path = "measured.py"\ntimeout = 1.0\nexcluded-modules = []\ntest-command = "true"\n'
        '[cosmic-ray.distributor]\nname = "local"\n',
        encoding="utf-8",
    )
    tool = [sys.executable, "-m", "cosmic_ray.cli", "init", "settings.toml", "session.sqlite"]
    subprocess.run(tool, cwd=tmp_path, check=True)
    with use_db(str(tmp_path / "session.sqlite"), WorkDB.Mode.open) as database:
        python.skip(database, SOURCE)
        database.set_result(next(iter(database.pending_work_items)).job_id, result)
        with pytest.raises(RuntimeError, match="was not judged"):
            python.parsed(database, SOURCE)


def test_a_copy_of_a_process_runs_pytest_says_what_it_says_and_ends_with_who_asks(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    # Files of equal sizes are written within a second.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with python.running(tmp_path / "socket", tmp_path, environment) as asking:
        stages = [["-q", "-p", "no:cacheprovider", file] for file in ("test_first.py", "test_it.py")]
        (tmp_path / "test_first.py").write_text("def test_first(): pass", encoding="utf-8")
        command = [*asking, json.dumps(stages)]

        def asked(text: str) -> tuple[int, str]:
            file.write_text(text, encoding="utf-8")
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            return ended.returncode, ended.stdout

        for _ in range(2):
            code, said = asked("def test_a(): assert 1 + 1 == 2")
            assert (code, "1 passed" in said) == (0, True), said
            code, said = asked("def test_a(): assert 1 + 1 == 3")
            assert (code, "1 failed" in said) == (1, True), said
        code, said = asked("import os; os._exit(7)")
        assert code == 7, said
        pid = tmp_path / "pid"
        file.write_text(f"import os, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n", "utf-8")
        with file.open("a", encoding="utf-8") as more:
            # It lets no other thread of its process do anything.
            more.write("def test_a(): sum(range(10**11))\n")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as endless:
            while not (pid.is_file() and pid.read_text()):
                time.sleep(0.01)
            endless.kill()
        # The one that ran is gone before the next is answered.
        assert asked("def test_a(): pass")[0] == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
