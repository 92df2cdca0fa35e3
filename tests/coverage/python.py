"""Lines of the package and of the specification, by coverage.py in every process of the tests."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import coverage

from tests.coverage.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.coverage.explanations import Excluded

PLANTED = """
import multiprocessing, os, subprocess, sys

def in_a_fork():
    return 1

def in_a_process_that_is_left_at_once():
    return 2

def never():
    return 3

if __name__ == "__main__":
    if sys.argv[1:]:
        in_a_process_that_is_left_at_once()
        os._exit(0)
    process = multiprocessing.get_context("fork").Process(target=in_a_fork)
    process.start()
    process.join()
    subprocess.run([sys.executable, __file__, "again"], check=True)
"""
UNREACHED = {11}
"""Lines of the planted program."""


@dataclass(frozen=True)
class Branches:
    """How many ways there are to go on from lines that have several, and how many were gone."""

    all: int
    reached: int


def configured(file: Path, data: Path, folders: Iterable[Path], excluded: Iterable[Excluded]) -> None:
    """Writes the configuration by which every process measures."""

    def listed(values: Iterable[object]) -> str:
        return "".join(f"\n    {value}" for value in values)

    patterns = [one.pattern for one in excluded if one.suffix == ".py"]
    file.write_text(
        f"[run]\nbranch = true\nparallel = true\ndata_file = {data}\nsource ={listed(folders)}\n"
        "concurrency =\n    thread\n    multiprocessing\npatch =\n    _exit\n    execv\n    fork\n"
        # What has another name in each process is not warned of in the midst of what tests read.
        "disable_warnings =\n    no-data-collected\n    module-not-measured\n    module-not-imported\n"
        f"[report]\nignore_errors = false\nexclude_lines ={listed(patterns)}\n",
        encoding="utf-8",
    )


def measured(configuration: Path, data: Path, root: Path) -> tuple[dict[str, Lines], dict[str, Branches]]:
    """The lines and branches of the files below `root`, by their paths from there, of all processes together."""
    # In this process: another one might be measured itself, where it is a test that asks.
    looked_at = coverage.Coverage(config_file=str(configuration), messages=False)
    if data.is_file():
        looked_at.load()
    if any(data.parent.glob(f"{data.name}.*")):
        looked_at.combine([str(data.parent)], strict=True)
        looked_at.save()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        looked_at.json_report(outfile=str(report))
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    lines, branches = {}, {}
    for name, content in sorted(files.items()):
        path = Path(name).resolve().relative_to(root.resolve()).as_posix()
        reached = frozenset(content["executed_lines"])
        lines[path] = Lines(reached | frozenset(content["missing_lines"]), reached)
        summary = content["summary"]
        branches[path] = Branches(summary["num_branches"], summary["covered_branches"])
    return lines, branches


def check_measuring(python: Path, excluded: Sequence[Excluded]) -> None:
    """Sees that a planted program's lines are reached in a fork and in a program that is left at once, but for one.

    Args:
        python: an interpreter whose environment measures by the variable `COVERAGE_PROCESS_START`.
        excluded: the patterns that are not counted.

    Raises:
        RuntimeError: It is otherwise.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        program, configuration = folder / "planted.py", folder / "configuration"
        program.write_text(PLANTED, encoding="utf-8")
        configured(configuration, folder / "data", [folder], excluded)
        environment = {"COVERAGE_PROCESS_START": str(configuration)}
        subprocess.run([python, program], cwd=folder, env=environment, check=True)
        lines = measured(configuration, folder / "data", folder)[0]["planted.py"]
    if lines.unreached != UNREACHED:
        raise RuntimeError(f"of the planted program the lines {sorted(lines.unreached)} are unreached")
