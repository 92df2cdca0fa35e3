"""What came of a measurement, as a file of data and as a page; `make coverage` writes both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.coverage.explanations import explained
from tests.coverage.lines import ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.coverage.explanations import Excluded, Place
    from tests.coverage.lines import Lines
    from tests.coverage.python import Branches

DOCS = Path(__file__).parents[2] / "docs"
DATA, PAGE = DOCS / "coverage.json", DOCS / "coverage.md"
LEFT_OUT = ("tests/spec/test_conformance.py::test_every_invariant_holds_up_to_128",)
"""Tests that check over larger domains what others check, and take longest by far where each line is counted."""
PARTS = {
    "rust/expert-placement/src/": "the crate, through Python",
    "rust/expert-placement-py/src/": "the binding, through Python",
    "python/expert_placement/": "the package",
    "spec/expert_placement_spec/": "the specification",
}


def summary(
    lines: Mapping[str, Lines],
    branches: Mapping[str, Branches],
    own: Mapping[str, Lines],
    sources: Mapping[str, Sequence[str]],
    places: Collection[Place],
) -> dict[str, Any]:
    """The figures of each file, in order, with what is unreached and why."""
    by_file = explained(places, sources)
    files = {}
    for file, one in sorted(lines.items()):
        content: dict[str, Any] = {"lines": len(one.all), "reached": len(one.reached)}
        if file in own:
            content["reached_by_cargo_test"] = len(own[file].reached)
        if file in branches:
            content["branches"] = [branches[file].all, branches[file].reached]
        known = by_file.get(file, {})
        rows: list[dict[str, str]] = []
        for first, last in ranges(one.unreached, one.all):
            reasons = dict.fromkeys(known[number].reason for number in range(first, last + 1) if number in known)
            rows.append(
                {
                    "at": str(first) if first == last else f"{first}-{last}",
                    "reason": "; ".join(reasons) or "unexplained",
                }
            )
        if rows:
            content["unreached"] = rows
        files[file] = content
    return files


def total(record: Mapping[str, Any], folder: str, name: str) -> int:
    """The sum of a figure over the files below a folder."""
    return sum(int(content.get(name, 0)) for file, content in record["files"].items() if file.startswith(folder))


def page(record: Mapping[str, Any], excluded: Sequence[Excluded]) -> str:
    """The page about a recorded summary."""
    text = [
        "# What the tests reach",
        "",
        "<!-- Written by `make coverage` from a run; a test compares it with docs/coverage.json. -->",
        "",
        "Lines that `pytest` reaches in any process: of the crate and its binding through Python, in a build that",
        "counts, and of the package and the specification. Beside them the lines of the crate that its own",
        "`cargo test` reaches. What is unreached is explained in tests/coverage/unreached.toml; `make coverage` fails",
        "where a line is neither reached nor explained, and where an explanation is of a line that is reached or gone.",
        "",
        f"{record['tests']}; {record['with']}. Not run is what checks larger domains of laws that other tests check:",
        "",
        *(f"- `{test}`" for test in record["without"]),
        "",
        "| part | lines | reached | unreached, explained below |",
        "|---|---:|---:|---:|",
    ]
    for folder, title in PARTS.items():
        counted, reached = total(record, folder, "lines"), total(record, folder, "reached")
        text.append(f"| {title} | {counted:,} | {reached:,} | {counted - reached:,} |")
    crate = next(iter(PARTS))
    counted, reached = total(record, crate, "lines"), total(record, crate, "reached_by_cargo_test")
    text.append(f"| the crate, by `cargo test` | {counted:,} | {reached:,} | |")
    ways = [content["branches"] for content in record["files"].values() if "branches" in content]
    text += [
        "",
        f"Of the {sum(way[0] for way in ways):,} ways on from the lines of Python that have several, "
        f"{sum(way[1] for way in ways):,} were gone.",
        "",
        "Not counted are lines with",
        "",
        *(f"- `{one.pattern}` in `{one.suffix}`: {one.reason}" for one in excluded),
        "",
        "## Unreached lines",
        "",
        "| file | lines | why |",
        "|---|---|---|",
    ]
    for file, content in record["files"].items():
        by_reason: dict[str, list[str]] = {}
        for row in content.get("unreached", []):
            by_reason.setdefault(row["reason"], []).append(row["at"])
        text += [f"| `{file}` | {', '.join(places)} | {reason} |" for reason, places in by_reason.items()]
    text += ["", "## Files", ""]
    text += ["| file | lines | reached | by `cargo test` |", "|---|---:|---:|---:|"]
    for file, content in record["files"].items():
        text.append(
            f"| `{file}` | {content['lines']} | {content['reached']} | {content.get('reached_by_cargo_test', '')} |"
        )
    return "\n".join(text) + "\n"
