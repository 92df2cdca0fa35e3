"""Measures what the tests reach, records it, and compares it with the explanations; run by hand as `make coverage`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import coverage

from tests.coverage import explanations, lines, python, record, rust, workplace
from tests.coverage.workplace import PLACE, TREE

if TYPE_CHECKING:
    from pathlib import Path

PYTHON_FOLDERS = ("python/expert_placement", "spec/expert_placement_spec")
CONFIGURATION = PLACE / "configuration"
THROUGH_PYTHON, OWN, DATA = PLACE / "through-python", PLACE / "own-tests", PLACE / "data" / "coverage"
SAID = PLACE / "data" / "pytest"
"""What pytest said at last."""
EVERY = ["--numprocesses", "auto", "--maxprocesses", "8", "--dist", "worksteal", "--hypothesis-seed", "0"]


def say(text: str) -> None:
    """Says on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def build(commit: str) -> tuple[Path, list[Path]]:
    """Makes the place of the measurement; gives the binding and the programs of the crate's own tests.

    Args:
        commit: which commit to measure; the working tree without other word.
    """
    say("copying the tree and building it to be measured")
    PLACE.mkdir(parents=True, exist_ok=True)
    workplace.copy_tree(commit)
    library = rust.build_binding()
    shutil.copy(library, TREE / "python" / "expert_placement" / "_core.abi3.so")
    return library, rust.build_own_tests()


def run(programs: list[Path], tests: list[str], known: explanations.Explanations, *, is_added: bool) -> tuple[int, str]:
    """Runs the tests; gives pytest's exit code and its last line.

    Args:
        programs: the crate's own tests.
        tests: arguments of pytest.
        known: what is excluded.
        is_added: whether what an earlier run reached counts as well.
    """
    if not is_added:
        for folder in (THROUGH_PYTHON, OWN, DATA.parent):
            shutil.rmtree(folder, ignore_errors=True)
    DATA.parent.mkdir(exist_ok=True)
    interpreter = workplace.make_environment(PLACE / "environment", CONFIGURATION)
    workplace.link_environment(PLACE / "environment")
    python.check_measuring(interpreter, known.excluded)
    say("running the crate's own tests")
    rust.run_own_tests(programs, OWN)
    say("running the tests of Python")
    environment = os.environ | {
        "LLVM_PROFILE_FILE": str(THROUGH_PYTHON / rust.WRITTEN_AT_ONCE),
        # Programs that tests build are not measured. In the developer's own folder cargo would go on taking the tree's
        # sources for those of the crate.
        "CARGO_TARGET_DIR": str(workplace.PLACE / "programs"),
    }
    command = [str(interpreter), "-m", "pytest", "--benchmark-disable", "-p", "no:cacheprovider", *tests]
    with subprocess.Popen(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True) as running:
        last = ""
        for line in running.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return running.returncode, last


def main() -> int:
    """Measures, records and compares; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("--commit", default="", help="measure this commit, and not the working tree")
    parser.add_argument("--add", action="store_true", help="count what an earlier run reached as well")
    parser.add_argument("--compare", action="store_true", help="run no tests: compare what an earlier run reached")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, behind `--`; then nothing is recorded")
    chosen = parser.parse_args()
    known = explanations.parsed(explanations.FILE.read_text(encoding="utf-8"))
    tools = rust.llvm_tools()
    rust.check_tools(tools)
    library, programs = build(chosen.commit)
    python.configured(CONFIGURATION, DATA, [TREE / name for name in PYTHON_FOLDERS], known.excluded)
    code, said = 0, ""
    if not chosen.compare:
        left_out = [word for test in record.LEFT_OUT for word in ("--deselect", test)]
        code, said = run(programs, chosen.tests or [*EVERY, *left_out], known, is_added=chosen.add)
        SAID.write_text(said, encoding="utf-8")

    through_python = tools.lines(THROUGH_PYTHON, [library], TREE)
    through_python = {file: one for file, one in through_python.items() if file.startswith(rust.CRATES)}
    own = tools.lines(OWN, programs, TREE)
    in_python, branches = python.measured(CONFIGURATION, DATA, TREE)
    measured = through_python | in_python
    sources = {file: (TREE / file).read_text(encoding="utf-8").splitlines() for file in measured}
    measured = explanations.without(known.excluded, measured, sources)
    own = lines.narrowed(own, {file: one for file, one in measured.items() if file.startswith(rust.CRATES[0])})
    problems = explanations.problems(measured, sources, known.places, own)
    problems += explanations.unmatched(known.excluded, sources)
    for folder, title in record.PARTS.items():
        some = [one for file, one in measured.items() if file.startswith(folder)]
        print(f"{title}: {sum(len(one.reached) for one in some)} of {sum(len(one.all) for one in some)} lines")
    print(f"the crate, by cargo test: {sum(len(one.reached) for one in own.values())}")
    print(*(problems or ["every line is reached or explained"]), sep="\n")
    if code:
        say(f"error: the tests failed, so that nothing is recorded: {said}")
        return 1
    if not chosen.tests:
        about = rust.compiler()
        tests = re.search(r"\d+ passed(?:, \d+ skipped)?", SAID.read_text(encoding="utf-8"))
        result = {
            "made_by": "make coverage",
            "tests": tests[0] if tests else "",
            "without": list(record.LEFT_OUT),
            "with": f"CPython {platform.python_version()}, coverage.py {coverage.__version__}, "
            f"rustc {about['release']} with LLVM {about['LLVM version']}",
            "files": record.summary(measured, branches, own, sources, known.places),
        }
        record.DATA.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        record.PAGE.write_text(record.page(result, known.excluded), encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
