"""What the reports of this folder share: comparisons in turns, aligned tables, the engines' functions.

A comparison is a pair of statements. Both run in the loop of `timeit.Timer`, where every name is a global of the
statement and the cost of the loop itself is included on both sides. The results are asserted to agree first. Then the
two take turns (A B A B ...), each turn a batch of a few milliseconds; the figure is the median over the rounds of the
ratio of neighbours, so that a slow moment of the machine hits both. Figures below 1 mean that ours is faster.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import statistics
import sys
import time
import timeit
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from expert_placement import Partition, build_info

Check: TypeAlias = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Comparison:
    """One statement of ours against one of somebody else, which answer the same question.

    Attributes:
        subject: what is asked, with its sizes.
        ours: our statement.
        theirs: the other statement.
        names: the globals of both.
        same: whether the two results agree.
    """

    subject: str
    ours: str
    theirs: str
    names: dict[str, Any] = field(repr=False)
    same: Check = field(repr=False)

    def assert_same(self) -> None:
        """Both statements, run once, must agree."""
        ours, theirs = (eval(statement, self.names) for statement in (self.ours, self.theirs))
        assert self.same(ours, theirs), (
            f"{self.subject}: {self.ours} gives {_short(ours)}, {self.theirs} gives {_short(theirs)}"
        )


def _short(result: object) -> str:
    """A result in a message: whole plans are too long."""
    text = str(result)
    return text if len(text) <= 400 else f"{text[:400]} ..."


@dataclass(frozen=True)
class Measurement:
    """Medians over the rounds: nanoseconds a call, and the ratio of neighbouring batches, ours / theirs.

    `processor_ratio` is that of the time that a processor worked for this process, which leaves out when it worked for
    others: they interrupt a call that is longer than a time slice in most rounds, and a shorter one in few.
    """

    subject: str
    ours: str
    theirs: str
    ours_ns: float
    theirs_ns: float
    ratio: float
    processor_ratio: float


def load_peers() -> Any | None:
    """The module that loads the engines' own functions, or None where it is not at hand."""
    folder = os.environ.get("PEERS")
    path = Path(folder or "") / "load.py"
    if not folder or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("expert_placement_peers", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses of the peers look their own module up.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec.loader.exec_module(module)
        except FileNotFoundError:
            return None
    return module


def measure(comparison: Comparison, rounds: int, batch_seconds: float) -> Measurement:
    """Times one comparison, the two statements taking turns."""
    comparison.assert_same()
    timers = [timeit.Timer(statement, globals=comparison.names) for statement in (comparison.ours, comparison.theirs)]
    calls = [calls_for(timer, batch_seconds) for timer in timers]
    passed: tuple[list[float], list[float]] = ([], [])
    worked: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, (timer, number) in enumerate(zip(timers, calls, strict=True)):
            before = time.process_time()
            passed[side].append(timer.timeit(number) / number)
            worked[side].append((time.process_time() - before) / number)
    ours, theirs = passed
    return Measurement(
        subject=comparison.subject,
        ours=comparison.ours,
        theirs=comparison.theirs,
        ours_ns=statistics.median(ours) * 1e9,
        theirs_ns=statistics.median(theirs) * 1e9,
        ratio=statistics.median(one / other for one, other in zip(ours, theirs, strict=True)),
        processor_ratio=statistics.median(one / other for one, other in zip(*worked, strict=True)),
    )


def calls_for(timer: timeit.Timer, seconds: float) -> int:
    """How many calls take about as long as asked; running them warms the statement up."""
    number = 1
    while (taken := timer.timeit(number)) < seconds / 4:
        number *= 2
    return max(1, round(number * seconds / taken))


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Rows of cells as aligned text, one a line; the first `left` columns are words and the others figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def environment() -> dict[str, object]:
    """What the figures depend on."""
    Partition(1, 1).counts()
    return {
        **build_info(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
