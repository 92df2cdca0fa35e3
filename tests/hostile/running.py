"""Has cases judged in child processes, with limits of memory and time: no call can take the judge with it.

A child says which case it begins, and what came of it. Where it ends, or says nothing for too long, the case that it
had begun is at fault, and another child goes on behind it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hostile.judging import MOST_SECONDS, Subject, Value, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_MEMORY = 768 * 2**20
"""Bytes of address space that a child may take, beside what it has when it begins."""
MOST_FILE = 64 * 2**20
"""Bytes of a file that a child may write."""
_START_SECONDS = 300.0
# A call that takes longer is judged by the child itself, unless it does not come back.
_SILENCE_SECONDS = 2 * MOST_SECONDS
_GOING_SECONDS = 10.0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A call to be judged: one parameter of a subject is fed a hostile value."""

    subject: Subject
    parameter: str
    value: Value

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.subject.name}({self.parameter}: {self.value.name})"


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        subject: the public name.
        parameter: what was fed.
        value: with what.
        verdict: what came of it.
    """

    subject: str
    parameter: str
    value: str
    verdict: Verdict

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.subject}({self.parameter}: {self.value})"


def run(source: str, *arguments: str, silence: float = _SILENCE_SECONDS) -> list[Outcome]:
    """What came of every case.

    Args:
        source: `module:function`; the function takes the arguments and gives a list of cases, the same every time.
        arguments: words for it.
        silence: seconds without a word from a child after which the case that it began is at fault.
    """
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        while True:
            is_done = _in_child(source, arguments, folder, outcomes, silence)
            if is_done:
                return outcomes


def _in_child(source: str, arguments: Sequence[str], folder: str, outcomes: list[Outcome], silence: float) -> bool:
    """Goes on behind the outcomes that are there; says whether nothing is left."""
    reading, writing = os.pipe()
    said = Path(folder) / "said"
    with said.open("wb") as stream:
        command = [sys.executable, "-m", "tests.hostile.running", str(writing), str(len(outcomes)), source, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    os.close(writing)
    begun: list[str] = []
    began = 0.0
    reason = ""
    try:
        for line in _lines(reading, silence):
            if line is None:
                reason = f"did not come back within {silence:.0f} s"
                break
            word, *rest = json.loads(line)
            if word == "done":
                return True
            if word == "begin":
                begun, began = rest, time.monotonic()
            else:
                outcomes.append(Outcome(begun[0], begun[1], begun[2], Verdict(**rest[0])))
        if not reason:
            # It is on its way out, and has something to say about it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GOING_SECONDS)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(reading)
    tail = said.read_text(errors="replace")[-600:]
    if not begun or (outcomes and outcomes[-1].name == f"{begun[0]}({begun[1]}: {begun[2]})"):
        raise RuntimeError(f"a child ended between cases: {tail}")
    if not reason:
        reason = f"ended the process, with {child.returncode}: {tail!a}"
    outcomes.append(Outcome(begun[0], begun[1], begun[2], Verdict("ended", time.monotonic() - began, 0, reason)))
    return False


def _lines(reading: int, silence: float) -> Iterator[str | None]:
    """Lines as they come; None where none came in time, and nothing more where the other end is closed.

    The first one may take as long as importing does.
    """
    pending, patience = b"", _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if not selector.select(patience):
                yield None
                return
            content = os.read(reading, 2**16)
            if not content:
                return
            patience = silence
            *lines, pending = (pending + content).split(b"\n")
            yield from (line.decode() for line in lines)


def _child(writing: int, first: int, source: str, arguments: Sequence[str]) -> None:
    """Judges the cases from one on."""
    import warnings

    warnings.simplefilter("ignore")
    module, _, function = source.partition(":")
    cases: list[Case] = getattr(importlib.import_module(module), function)(*arguments)
    _limit()
    with os.fdopen(writing, "w") as journal:

        def say(*words: object) -> None:
            print(json.dumps(words), file=journal, flush=True)

        for case in cases[first:]:
            say("begin", case.subject.name, case.parameter, case.value.name)
            say("end", asdict(judge(case.subject, case.parameter, case.value)))
        say("done")
        # Threads of libraries and what hostile values left behind are nobody's business any more.
        os._exit(0)


def _limit() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The largest memory so far is from importing, and would hide what calls take.
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
