"""The tools tell lines that run from lines that do not, and a planted program that runs otherwise is told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.coverage import python, rust, workplace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tools() -> rust.Tools:
    found = rust.found_tools() if shutil.which("rustc") else None
    if found is None:
        pytest.skip("there are no LLVM tools of the compiler's version; `make coverage` fetches them")
    return found


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    return workplace.make_environment(folder / "environment", folder / "configuration")


def test_a_function_that_is_called_is_reached_and_another_is_not(tools: rust.Tools) -> None:
    rust.check_tools(tools)


@pytest.mark.parametrize(("old", "new"), [("called(std", "usize::from(std"), ("> 100", "> 0")])
def test_a_planted_program_that_runs_otherwise_is_told(
    tools: rust.Tools, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    assert old in rust.PLANTED
    monkeypatch.setattr(rust, "PLANTED", rust.PLANTED.replace(old, new))
    with pytest.raises(RuntimeError, match="planted program's lines"):
        rust.check_tools(tools)


def test_forks_and_processes_that_are_left_at_once_are_measured(interpreter: Path) -> None:
    python.check_measuring(interpreter, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        in_a_process_that_is_left_at_once()\n", ""),
        ("target=in_a_fork", "target=print"),
        ("sys.argv[1:]:", "sys.argv[1:] and never():"),
    ],
)
def test_a_planted_program_in_python_that_runs_otherwise_is_told(
    interpreter: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    assert old in python.PLANTED
    monkeypatch.setattr(python, "PLANTED", python.PLANTED.replace(old, new))
    with pytest.raises(RuntimeError, match="planted program"):
        python.check_measuring(interpreter, [])
