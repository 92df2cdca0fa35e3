"""Mutants of the crate, by cargo-mutants."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from tests.mutation import outcome
from tests.mutation.targets import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mutation.targets import Target

VERSION = "27.1.0"
TOOLS = ROOT / "target" / "tools"
FATES = {
    "CaughtMutant": outcome.KILLED,
    "MissedMutant": outcome.SURVIVED,
    "Timeout": outcome.TIMED_OUT,
    "Unviable": outcome.UNVIABLE,
}
"""By the words of cargo-mutants."""
CASES = "48"
"""Of each property: what proptest makes more of takes longer than building."""


def environment(built: Path) -> dict[str, str]:
    """The environment in which `cargo mutants` is found, and builds in a folder."""
    path = os.pathsep.join((str(TOOLS / "bin"), os.environ.get("PATH", "")))
    if shutil.which("cargo-mutants", path=path) is None:
        print("installing cargo-mutants into target/tools", flush=True)
        install = ["cargo", "install", "cargo-mutants", "--version", VERSION, "--locked", "--quiet"]
        subprocess.run([*install, "--root", str(TOOLS)], cwd=ROOT, check=True)
    return os.environ | {
        "PATH": path,
        "PROPTEST_CASES": CASES,
        "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1",
        "CARGO_TARGET_DIR": str(built),
    }


def run(target: Target, tree: Path) -> outcome.Outcome:
    """Tests every mutant of a file in a copy of the tree, which is changed meanwhile.

    Raises:
        RuntimeError: The tests fail without a mutant, or the tool does.
    """
    written = tree.parent / "mutants-of" / target.path.replace("/", "-")
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    command = [
        *("cargo", "mutants", "--in-place", "--package", "expert-placement", "--file", target.path, "--no-shuffle"),
        *("--profile", "mutants", "--cap-lints", "true", "--colors", "never"),
        *("--minimum-test-timeout", "10", "--timeout-multiplier", "5", "--no-config", "--output", str(written)),
        *(f"--cargo-arg={test}" for stage in target.stages for test in stage),
        *(("--", "--", *target.options) if target.options else ()),
    ]
    ended = subprocess.run(command, cwd=tree, env=environment(tree.parent / "built"), check=False)
    file = written / "mutants.out" / "outcomes.json"
    # 0: all were caught, 2: some were missed, 3: some ran out of time.
    if ended.returncode not in (0, 2, 3):
        raise RuntimeError(f"cargo mutants ended with exit code {ended.returncode} for {target.path}")
    return parsed(json.loads(file.read_text(encoding="utf-8"))["outcomes"]) if file.is_file() else outcome.gathered([])


def parsed(outcomes: list[dict[str, Any]]) -> outcome.Outcome:
    """What the tool says, without the lines on which mutants stand, which every change above them moves.

    Raises:
        RuntimeError: A build or a test of a mutant was not one, such as of a program with unknown options.
        ValueError: The tool says something that is unknown here.
    """
    fates = []
    for one in outcomes:
        if one["scenario"] == "Baseline":
            if one["summary"] != "Success":
                raise RuntimeError(f"without a mutant the tests end with {one['summary']}")
            continue
        if one["summary"] not in FATES:
            raise ValueError(f"`{one['summary']}` is no word of cargo-mutants that is known here")
        last = one["phase_results"][-1]
        # Tests that fail end with 101; anything else, such as an option that they do not know, is no judgement.
        failure = last["process_status"]
        if one["summary"] == "CaughtMutant" and (last["phase"], failure) != ("Test", {"Failure": 101}):
            raise RuntimeError(f"a mutant was caught by {last['phase']} with {failure}")
        name = one["scenario"]["Mutant"]["name"].split(": ", 1)[1]
        fates.append((name, FATES[one["summary"]]))
    return outcome.gathered(fates)
