"""Runs the fuzz targets of `rust/fuzz` for a bounded time each; run by hand as `make fuzz`, and as `make fuzz-planted`.

cargo-fuzz is installed under `target` where it is absent. It needs no nightly compiler without a sanitizer: the crate
has no unsafe code for one to look at, and memory is counted by the targets themselves. What a run finds beside the
corpus of the repository is kept in `target/fuzz/corpus`, and what breaks a target in `rust/fuzz/artifacts`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rust" / "fuzz"
BUILT = ROOT / "target" / "fuzz"
TOOLS = ROOT / "target" / "tools"
MOST_MEGABYTES = 1024
MOST_SECONDS_A_CASE = 20
LONGEST_INPUT = 256


@dataclass(frozen=True)
class Run:
    """What one target did."""

    cases: int
    seconds: int
    megabytes: int
    finding: str
    """What was found, on one line; empty where nothing was."""


def targets() -> list[str]:
    """The targets by their names, in the order of the package's manifest."""
    manifest = (PACKAGE / "Cargo.toml").read_text(encoding="utf-8")
    return re.findall(r'^path = "fuzz_targets/(\w+)\.rs"$', manifest, re.MULTILINE)


def environment() -> dict[str, str]:
    """The environment in which `cargo fuzz` is found."""
    path = os.pathsep.join((str(TOOLS / "bin"), os.environ.get("PATH", "")))
    if shutil.which("cargo-fuzz", path=path) is None:
        print("installing cargo-fuzz into target/tools", flush=True)
        install = ["cargo", "install", "cargo-fuzz", "--version", "^0.13", "--locked", "--quiet", "--root", str(TOOLS)]
        subprocess.run(install, cwd=ROOT, check=True)
    return os.environ | {"PATH": path}


def parsed(log: str, code: int, seconds: int) -> Run:
    """What a log of libFuzzer says; a run that ended otherwise than it should is a finding."""

    def number(name: str) -> int:
        found = re.search(rf"^stat::{name}:\s+(\d+)$", log, re.MULTILINE)
        return int(found[1]) if found else 0

    cases = number("number_of_executed_units")
    finding = ""
    if code != 0:
        said = re.search(r"panicked at [^\n]*\n(.*)", log) or re.search(r"ERROR: (libFuzzer: .*)", log)
        finding = said[1] if said else f"ended with exit code {code}: {' '.join(log.split())[-300:]}"
    elif cases == 0:
        finding = "no case was run"
    return Run(cases, seconds, number("peak_rss_mb"), finding)


def run(target: str, seconds: int, features: str) -> Run:
    """Runs one target for so many seconds, or until it finds something."""
    found = BUILT / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    command = [
        *("cargo", "fuzz", "run", target, str(found), str(PACKAGE / "corpus" / target)),
        *("--fuzz-dir", str(PACKAGE), "--target-dir", str(BUILT), "--sanitizer", "none", "--features", features),
        *("--", f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MEGABYTES}", f"-timeout={MOST_SECONDS_A_CASE}"),
        *(f"-max_len={LONGEST_INPUT}", "-print_final_stats=1"),
    ]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    return parsed(ended.stdout + ended.stderr, ended.returncode, seconds)


def described(done: Run) -> str:
    """A run on one line."""
    if done.finding:
        return f"after {done.cases:,} cases, {done.megabytes} MB: found `{done.finding[:500]}`"
    rate = done.cases // done.seconds
    return f"{done.cases:,} cases in {done.seconds} s, {rate:,} a second, {done.megabytes} MB, nothing found"


def is_failure(done: Run, *, is_planted: bool) -> bool:
    """Whether a run is one that it should not be: a finding, or with a planted bug none, or one before any case."""
    if is_planted:
        return not done.finding or done.cases == 0
    return bool(done.finding)


def main(arguments: list[str] | None = None) -> int:
    """Runs the targets one after the other, and gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="which targets; all of them without other word")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs")
    parser.add_argument("--planted", action="store_true", help="plant a rare bug in each, which has to be found")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.targets if name not in targets()]
    if unknown:
        parser.error(f"targets={unknown}, expected some of {targets()}")
    if chosen.seconds < 1:
        parser.error(f"--seconds={chosen.seconds} is out of range, expected at least 1")
    features = "libfuzzer,planted" if chosen.planted else "libfuzzer"
    failed = []
    for target in chosen.targets or targets():
        done = run(target, chosen.seconds, features)
        print(f"{target}: {described(done)}", flush=True)
        if is_failure(done, is_planted=chosen.planted):
            failed.append(target)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
