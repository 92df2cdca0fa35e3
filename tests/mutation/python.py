"""Mutants of the reference model, the torch implementation and the checkers, by Cosmic Ray."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

from tests.mutation import outcome
from tests.mutation.targets import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cosmic_ray.work_item import MutationSpec

    from tests.mutation.targets import Target

MOST_SECONDS = 150
"""How long the tests of a file may take without a mutant; with one they have three times as long as they took."""

OPERATORS = {
    "Binary": "Add_Sub Sub_Add Mul_Add Div_Mul FloorDiv_Mod Mod_FloorDiv Pow_Mul "
    "BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd LShift_RShift RShift_LShift",
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is",
    "Unary": "Delete_USub Delete_Invert Delete_Not",
}
"""What each operator becomes: its neighbour at the boundary and its opposite, where the tool has every other one."""

ALONE = ("AddNot", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop", "ExceptionReplacer")
PAIRS = ("AndWithOr", "OrWithAnd", "TrueWithFalse", "FalseWithTrue", "BreakWithContinue", "ContinueWithBreak")
CHOSEN = {
    *(f"core/Replace{kind}Operator_{name}" for kind, names in OPERATORS.items() for name in names.split()),
    *(f"core/{name}" for name in ALONE),
    *(f"core/Replace{name}" for name in PAIRS),
}


def run(target: Target, tree: Path) -> outcome.Outcome:
    """Tests every mutant of a file in a copy of the tree, which is changed meanwhile.

    Raises:
        RuntimeError: The tests fail without a mutant.
        TimeoutExpired: They do not end without one.
    """
    place = tree.parent / "mutants-of" / target.path.replace("/", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(tree / name) for name in ("python", "spec", "."))}
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--benchmark-disable"]
    stages = [[*options, *stage] for stage in target.stages]
    # What is compiled here is read by every run after it, but for the file that is changed.
    collecting = [sys.executable, "-m", "pytest", "--collect-only"]
    for stage in stages:
        if subprocess.run([*collecting, *stage], cwd=tree, env=environment, check=False).returncode != 0:
            raise RuntimeError(f"without a mutant the tests of {target.path} can not be had")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "socket", tree, environment) as asking:
        begin = time.perf_counter()
        # Tests that pass and never end would notice every mutant.
        command = [*asking, json.dumps(stages)]
        if subprocess.run(command, cwd=tree, env=environment, check=False, timeout=MOST_SECONDS).returncode != 0:
            raise RuntimeError(f"without a mutant the tests of {target.path} fail")
        most_seconds = 10 + 3 * (time.perf_counter() - begin)
        (place / "settings.toml").write_text(
            f'[cosmic-ray]\nmodule-path = "{target.path}"\ntimeout = {most_seconds:.1f}\nexcluded-modules = []\n'
            f"test-command = {json.dumps(shlex.join(command))}\n"
            '[cosmic-ray.distributor]\nname = "local"\n',
            encoding="utf-8",
        )
        return judged(target, tree, place, environment)


@contextmanager
def running(place: Path, tree: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """The command that runs pytest in a copy of a process with other packages imported, which waits meanwhile."""
    program = str(ROOT / "tests" / "mutation" / "warm.py")
    command = [sys.executable, program, "serve", str(place)]
    pipe = subprocess.PIPE
    # Where this process dies, its end of the pipe is closed, and the other ends too.
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True) as server:
        if server.stdout is None or server.stdout.readline() != "ready\n":
            raise RuntimeError("the process that runs the tests of mutants ended before it was ready")
        yield [sys.executable, "-I", "-S", program, "ask", str(place)]


def judged(target: Target, tree: Path, place: Path, environment: dict[str, str]) -> outcome.Outcome:
    """Has the tool test the mutants of a file, with the settings in a folder.

    Raises:
        RuntimeError: A mutant was not judged.
    """
    session = place / "session.sqlite"
    tool = [sys.executable, "-m", "cosmic_ray.cli"]
    subprocess.run([*tool, "init", place / "settings.toml", session], cwd=tree, check=True, env=environment)
    text = (tree / target.path).read_text(encoding="utf-8")
    with use_db(str(session), WorkDB.Mode.open) as database:
        skip(database, text)
    subprocess.run([*tool, "exec", place / "settings.toml", session], cwd=tree, check=True, env=environment)
    with use_db(str(session), WorkDB.Mode.open) as database:
        return parsed(database, text)


def skip(database: WorkDB, text: str) -> None:
    """Takes out what is not chosen, and what stands where a change means nothing."""
    places = list(idle(text))
    unwanted = [
        item.job_id
        for item in database.pending_work_items
        if item.mutations[0].operator_name not in CHOSEN
        or any(first <= item.mutations[0].start_pos < last for first, last in places)
    ]
    database.set_multiple_results(unwanted, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def idle(text: str) -> Iterable[tuple[tuple[int, int], tuple[int, int]]]:
    """Where code begins and ends that decides nothing, by line and column.

    That is annotations and what is imported for them, which nothing evaluates, and `strict=True` of `zip`, which says
    that lengths are equal.
    """
    for node in ast.walk(ast.parse(text)):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found.append(node.test)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
            of_lengths = [word.value for word in node.keywords if word.arg == "strict"]
            found += [one for one in of_lengths if isinstance(one, ast.Constant) and one.value is True]
        for one in found:
            if isinstance(one, ast.expr) and one.end_lineno is not None and one.end_col_offset is not None:
                yield (one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)


def parsed(database: WorkDB, text: str) -> outcome.Outcome:
    """What came of the mutants that were not skipped.

    Raises:
        RuntimeError: A mutant was not judged: what ran was no test, or it did not fail as tests do.
    """
    mutations = {item.job_id: item.mutations[0] for item in database.work_items}
    fates = []
    for job, result in database.results:
        if result.worker_outcome == WorkerOutcome.SKIPPED:
            continue
        name = name_of(mutations[job], text)
        said = result.output or ""
        if result.worker_outcome != WorkerOutcome.NORMAL or result.test_outcome is None:
            raise RuntimeError(f"`{name}` was not judged: {result.worker_outcome} {said[-500:]}")
        if result.test_outcome == TestOutcome.SURVIVED:
            fate = outcome.SURVIVED
        elif said == "timeout":
            fate = outcome.TIMED_OUT
        elif re.search(r"^\d+ failed|\b\d+ errors? in|^ImportError|^E  ", said, re.MULTILINE):
            fate = outcome.KILLED
        else:
            raise RuntimeError(f"`{name}` was not judged: {said[-500:]}")
        fates.append((mutations[job].start_pos, name, fate))
    return outcome.gathered([(name, fate) for _, name, fate in sorted(fates)])


def name_of(mutation: MutationSpec, text: str) -> str:
    """The line with what is changed in it, and into what, without its number."""
    line, column = mutation.start_pos
    source = text.splitlines()[line - 1]
    place = column - len(source) + len(source.lstrip())
    changed = mutation.operator_name.removeprefix("core/")
    return f"{mutation.definition_name or 'module'}: `{source.strip()}` at {place}: {changed}"
