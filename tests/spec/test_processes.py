"""Processes that share a check end with it, however it ends and whatever an implementation leaves in them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from expert_placement_spec.processes import WorkerEndedError, alone

ROOT = Path(__file__).parents[2]


def checking(*arguments: str) -> subprocess.Popen[str]:
    """A check of its own, over next to nothing."""
    few = ("--experts", "0..=2", "--ranks", "1..=2", "--wide", "2", "--samples", "1", "--processes", "2")
    command = [sys.executable, "-m", "expert_placement_spec", "check", *few, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)


def test_threads_that_do_not_end_keep_no_check_from_its_report() -> None:
    with checking("--implementation", "tests.spec.odd:LeavesThreads") as running:
        out, _ = running.communicate(timeout=120)
    assert running.returncode == 0
    assert "0 broken" in out


def descendants(parent: int) -> set[int]:
    """The processes that a process has started, and those that these have, by Linux's word."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    found = {parent}
    while more := {one for one, of in parents.items() if of in found} - found:
        found |= more
    return found - {parent}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks into /proc")
def test_a_check_that_is_ended_leaves_no_process(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hang = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"
    with checking("--command", shlex.join([sys.executable, "-c", hang])) as running:
        until = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < until:
            time.sleep(0.05)
        left = descendants(running.pid)
        assert len(left) >= 2
        running.terminate()
        running.wait(20)
    until = time.monotonic() + 20
    while left and time.monotonic() < until:
        left = {one for one in left if is_running(one)}
        time.sleep(0.1)
    assert not left


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hash_of(text: str) -> tuple[int, int]:
    """The hash of a text, and how often this process was asked."""
    ASKED.append(text)
    return hash(text), len(ASKED)


ASKED: list[str] = []


def end_with(code: int) -> None:
    os._exit(code)


def test_a_task_alone_that_ends_its_process_is_named() -> None:
    before = os.environ.get("PYTHONHASHSEED")
    with pytest.raises(WorkerEndedError, match="a process of its own ended while it was asked for 3"):
        alone(end_with, 3)
    assert os.environ.get("PYTHONHASHSEED") == before


def test_a_task_alone_knows_nothing_of_the_one_before() -> None:
    first, second = alone(hash_of, "expert"), alone(hash_of, "expert")
    assert first == second
    assert first[1] == 1
