"""Long work: results and errors come through, and an interrupt ends it."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

import pytest
from expert_placement.cli.progress import Progress


def test_results_and_errors_come_through() -> None:
    def fail() -> None:
        raise ValueError("no result")

    with Progress("counting", 3) as progress:
        assert [progress.step(partial(pow, number, 2)) for number in range(3)] == [0, 1, 4]
        with pytest.raises(ValueError, match="no result"):
            progress.step(fail)


@pytest.mark.parametrize(("work", "code"), [("time.sleep(60)", 130), ("time.sleep(0.5); time.sleep(0)", 7)])
def test_work_that_is_not_done_ends_with_the_process(work: str, code: int) -> None:
    program = f"""
import os, signal, sys, threading, time
from expert_placement.cli.progress import Progress

def work():
    {work}

threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with Progress("waiting", 1) as progress:
        progress.step(work)
except KeyboardInterrupt:
    # What comes later has its time; only a process that ends does not wait.
    time.sleep(1)
    print("interrupted")
    sys.exit(7)
"""
    began = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (code, "interrupted\n", "")
    assert time.monotonic() - began < 20
