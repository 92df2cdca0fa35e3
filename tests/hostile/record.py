"""What came of a whole run, as a file of data and as a page; `python -m tests.hostile` writes both."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.hostile.judging import LONGEST_MESSAGE, MOST_GROWTH, MOST_SECONDS
from tests.hostile.running import MOST_MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.hostile.running import Outcome

_WIDTH = 120
DOCS = Path(__file__).parents[2] / "docs"
DATA, PAGE = DOCS / "hostile-input.json", DOCS / "hostile-input.md"

KINDS = {
    "answered": "answers where nothing can be meant, or not what the ordinary value gives",
    "raised what is not documented": "raises an error of a kind that is not documented",
    "the message names none of": "names no parameter in its message",
    "the message does not begin": "does not begin its message with the file",
    "the message has": "has a message that is too long",
    "memory grew": "takes too much memory",
    "left no memory": "leaves no memory behind it",
    "took": "takes too long",
    "did not come back": "does not come back",
    "ended the process": "ends the process",
    "panicked": "panics",
    "the case itself": "could not be made as a case",
}
"""How faults begin, and what they are called on the page."""


REASONS = {
    "expert_placement.torch.route(topk_ids: a lazily negated tensor)": (
        "of integers torch makes such a tensor by a private function alone, and to ask every batch of ids for it would "
        "take longer in every call of `route`; whatever else reads integers does ask"
    ),
}
"""Why a case falls short that is known and left so, whether it is among those of a run or not."""


def kind_of(fault: str) -> str:
    """Which of `KINDS` a fault is of."""
    return next(kind for kind in KINDS if fault.startswith(kind))


def summary(calls: Sequence[Outcome], files: Sequence[Outcome], steps: dict[str, int]) -> dict[str, Any]:
    """The figures of a run, in which of all cases every so many was judged."""
    return {
        "calls": {"step": steps["calls"], **_of(calls)},
        "files": {"step": steps["files"], **_of(files)},
    }


def _of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    largest = max(outcomes, key=lambda outcome: outcome.verdict.growth)
    longest = max(outcomes, key=lambda outcome: outcome.verdict.seconds)
    by_subject: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        by_subject.setdefault(outcome.subject, Counter())[outcome.verdict.outcome] += 1
    return {
        "number": len(outcomes),
        "outcomes": dict(Counter(outcome.verdict.outcome for outcome in outcomes).most_common()),
        "by_subject": {name: dict(sorted(found.items())) for name, found in by_subject.items()},
        "largest_growth": [largest.verdict.growth, largest.name],
        "longest_seconds": [round(longest.verdict.seconds, 3), longest.name],
        "short": sorted([one.name, kind_of(one.verdict.fault)] for one in outcomes if one.verdict.fault),
    }


def faults_unlike(recorded: Sequence[Sequence[str]], outcomes: Sequence[Outcome]) -> list[str]:
    """Faults that are not recorded, and recorded ones that are found no more."""
    expected = {(name, kind) for name, kind in recorded}
    made = {outcome.name for outcome in outcomes}
    found = {(one.name, kind_of(one.verdict.fault)): one.verdict.fault for one in outcomes if one.verdict.fault}
    new = [f"{name}: {fault}" for (name, kind), fault in found.items() if (name, kind) not in expected]
    gone = [
        f"{name} is recorded to fall short and does no more"
        for name, kind in sorted(expected - found.keys())
        if name in made
    ]
    return new + gone


def page(data: dict[str, Any]) -> str:
    """The page of the figures."""
    calls, files = data["calls"], data["files"]
    lines = [
        "# Hostile input",
        "",
        "<!-- Written by `python -m tests.hostile` from a run; a test compares it with docs/hostile-input.json. -->",
        "",
        *textwrap.wrap(
            "Everything public that takes something is fed what nobody should pass: wrong types, liars, huge and "
            "negative numbers, arrays of every dtype, byte order and stride, masked, read-only and unaligned ones, "
            "claims of terabytes, tensors that are sparse, nested, quantized, fake, on `meta` or in need of gradients, "
            "paths of pipes and devices, files that are cut off, damaged, deeply nested, or that claim gigabytes. Each "
            "call feeds one parameter, and the others are usual. `tests/hostile` holds the catalogue; a public name "
            "that it does not feed fails a test.",
            _WIDTH,
        ),
        "",
        *textwrap.wrap(
            "A call answers or refuses. Where something ordinary is meant, the answer is the ordinary value's; where "
            "nothing can be meant, it is refused by a `TypeError`, `ValueError`, `IndexError`, `OSError` or "
            "`MemoryError`, or by what the value's own methods raise. The message names the parameter, or the file, in "
            f"at most {LONGEST_MESSAGE} characters. A call may make the process grow by {MOST_GROWTH >> 20} MiB and "
            f"take {MOST_SECONDS:.0f} s; it runs in a process with {MOST_MEMORY >> 20} MiB of address space to spare. "
            "A panic, the end of the process and a call that does not come back are faults, and the run goes on behind "
            "them.",
            _WIDTH,
        ),
        "",
        "## Figures",
        "",
        "| | calls | files |",
        "|---|---:|---:|",
        f"| of all cases, or places in a file, one in | {calls['step']} | {files['step']} |",
        f"| number | {calls['number']} | {files['number']} |",
        f"| of | {len(calls['by_subject'])} names | {len(files['by_subject'])} kinds of files |",
    ]
    for outcome in sorted(
        {*calls["outcomes"], *files["outcomes"]}, key=lambda name: (-calls["outcomes"].get(name, 0), name)
    ):
        told = outcome if outcome in ("answered", "ended", "not made") else f"`{outcome}`"
        lines.append(f"| {told} | {calls['outcomes'].get(outcome, 0)} | {files['outcomes'].get(outcome, 0)} |")
    lines += [
        f"| largest growth | {calls['largest_growth'][0] >> 20} MiB | {files['largest_growth'][0] >> 20} MiB |",
        f"| longest time | {calls['longest_seconds'][0]} s | {files['longest_seconds'][0]} s |",
        f"| fall short | {len(calls['short'])} | {len(files['short'])} |",
        "",
        f"The largest growth is of {_code(calls['largest_growth'][1])} and {_code(files['largest_growth'][1])}.",
        f"The longest times are of {_code(calls['longest_seconds'][1])} and {_code(files['longest_seconds'][1])},",
        "on a machine that others used as well.",
        "`Unplugged` and `KeyError` are what hostile values raise themselves, and come through as they are.",
        "",
        "## What falls short",
        "",
    ]
    by_kind: Counter[tuple[str, str]] = Counter()
    for name, kind in (*calls["short"], *files["short"]):
        by_kind[kind, name.partition(":")[0] + ")"] += 1
    if by_kind:
        lines += [
            "By the kind of fault; the data have every case. A test fails where one is new, and where one is gone.",
            "",
            "| kind | what | cases |",
            "|---|---|---:|",
            *(f"| {KINDS[kind]} | `{name}` | {number} |" for (kind, name), number in sorted(by_kind.items())),
        ]
    else:
        lines.append("None of these cases. A test fails where one does.")
    lines += ["", "Of all cases there are, these are known to fall short, and left so:", ""]
    for name, reason in REASONS.items():
        lines += textwrap.wrap(f"- `{name}`: {reason}.", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    lines += [
        "",
        "## What is not said",
        "",
        "- An object whose own methods never end, or take all memory, is a program and no input.",
        "- Two hostile parameters at once are not fed, and neither is anything on a GPU.",
        "- Groups of several ranks are in `tests/distributed`; here the group is one process.",
        "- A text whose `__eq__` says that it is another may be taken for that one.",
        "- `None` is taken for the default number of nodes and of threads.",
        "",
    ]
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`"


def write(data: dict[str, Any]) -> None:
    """Writes the data and the page."""
    DATA.write_text(json.dumps(data, indent=1) + "\n")
    PAGE.write_text(page(data))


def read() -> dict[str, Any]:
    """The recorded data."""
    found: dict[str, Any] = json.loads(DATA.read_text())
    return found
