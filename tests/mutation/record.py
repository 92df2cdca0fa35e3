"""What the tests noticed, as a file of data and as a page; and what is wrong between it and the reasons."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutation.outcome import SURVIVED, TIMED_OUT, UNVIABLE, Outcome
from tests.mutation.targets import CRATE, PARTS, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.mutation.targets import Target

DATA, PAGE = ROOT / "docs" / "mutation.json", ROOT / "docs" / "mutation.md"
REASONS = Path(__file__).with_name("survivors.toml")
LEAST = 0.95
"""Which part of the mutants the tests have to notice, in every part of the project."""


@dataclass(frozen=True)
class Measured:
    """The outcome for a file, and the file that it is of."""

    part: str
    digest: str
    outcome: Outcome


def digest_of(path: Path) -> str:
    """A digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read(text: str) -> dict[str, Measured]:
    """The record, by the files' paths."""
    return {
        path: Measured(one["part"], one["digest"], Outcome(one["mutants"], one["survivors"]))
        for path, one in json.loads(text)["files"].items()
    }


def written(files: Mapping[str, Measured]) -> str:
    """The record as text."""
    content: dict[str, Any] = {
        path: {
            "part": one.part,
            "digest": one.digest,
            "mutants": one.outcome.fates,
            "survivors": one.outcome.survivors,
        }
        for path, one in sorted(files.items())
    }
    return json.dumps({"files": content}, indent=1) + "\n"


def reasons_of(text: str) -> dict[tuple[str, str], str]:
    """Why each survivor changes nothing that can be seen, by file and name.

    Raises:
        ValueError: A table has other keys, no reason, or names a survivor a second time.
    """
    found: dict[tuple[str, str], str] = {}
    for table in tomllib.loads(text).get("survivors", []):
        if table.keys() != {"file", "mutants", "reason"} or not table["reason"].strip() or not table["mutants"]:
            raise ValueError(
                f"a table of {REASONS.name} has {sorted(table)}, expected file, mutants and reason, not empty"
            )
        for name in table["mutants"]:
            if (table["file"], name) in found:
                raise ValueError(f"{REASONS.name} gives two reasons for `{name}` of {table['file']}")
            found[table["file"], name] = " ".join(table["reason"].split())
    return found


def problems(
    files: Mapping[str, Measured], reasons: Mapping[tuple[str, str], str], targets: Iterable[Target]
) -> list[str]:
    """What is wrong, one thing a line: too little noticed, a survivor without a reason, a reason without a survivor."""
    wrong = []
    known = {target.path for target in targets}
    wrong += [f"{path} is recorded, and is none of the files that are mutated" for path in sorted(files.keys() - known)]
    for part in PARTS:
        number, noticed = totals(files, part)
        if noticed < LEAST * number:
            wrong.append(f"of {part} the tests notice {noticed} of {number} mutants, expected {LEAST:.0%} at least")
    survivors = {(path, name) for path, one in files.items() for name in one.outcome.survivors}
    wrong += [f"{path}: `{name}` survives, and no reason is given" for path, name in sorted(survivors - reasons.keys())]
    wrong += [
        f"{path}: `{name}` has a reason, and does not survive" for path, name in sorted(reasons.keys() - survivors)
    ]
    return wrong


def totals(files: Mapping[str, Measured], part: str) -> tuple[int, int]:
    """How many mutants of a part were tested, and how many of them were noticed."""
    of_part = [one.outcome for one in files.values() if one.part == part]
    return sum(one.number for one in of_part), sum(one.noticed for one in of_part)


def page(
    files: Mapping[str, Measured], reasons: Mapping[tuple[str, str], str], targets: list[Target], root: Path
) -> str:
    """The page that people read."""
    lines = [
        "# Mutation testing",
        "",
        "The code is changed in one place at a time: an operator, a comparison, a number, a function's answer.",
        "Tests that fail then, or go on for ever, notice the change. What they do not notice is listed with the reason",
        "why nobody could. The crate is mutated by cargo-mutants, and Python by Cosmic Ray, where an operator becomes",
        "its neighbour at the boundary and its opposite; annotations, what is imported for them, and `strict=True` of",
        "`zip` are left as they are. `make mutants` tests what has changed since it was recorded,",
        f"and writes this page. So far {len(files)} of {len(targets)} files were tested; the others are listed below.",
        "",
        "| part | files | mutants | noticed | of them by time | survivors |",
        "|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        of_part = [one.outcome for one in files.values() if one.part == part]
        number, noticed = totals(files, part)
        late, left = (sum(one.fates.get(fate, 0) for one in of_part) for fate in (TIMED_OUT, SURVIVED))
        all_files = sum(target.part == part for target in targets)
        share = f"{noticed:,} ({noticed / number:.1%})" if number else "none yet"
        lines.append(f"| {part} | {len(of_part)} of {all_files} | {number:,} | {share} | {late:,} | {left:,} |")
    missing = [target.path for target in targets if target.path not in files]
    stale = [path for path, one in files.items() if (root / path).is_file() and digest_of(root / path) != one.digest]
    for title, paths in (("Not tested yet", missing), ("Changed since they were tested", stale)):
        if paths:
            lines += ["", f"## {title}", "", *(f"- {path}" for path in sorted(paths))]
    lines += [
        "",
        "## Files",
        "",
        "Mutants of the crate that do not compile are not counted. What macros make is not mutated: the formulas of",
        "`arithmetic.rs` are held by the exhaustion of `u8`, and by the proofs.",
        "",
        "| file | mutants | noticed | not viable |",
        "|---|---|---|---|",
    ]
    for path, one in sorted(files.items(), key=lambda item: (PARTS.index(item[1].part), item[0])):
        unviable = one.outcome.fates.get(UNVIABLE, 0) if one.part == CRATE else ""
        lines.append(f"| {path} | {one.outcome.number:,} | {one.outcome.noticed:,} | {unviable} |")
    lines += ["", "## Survivors", ""]
    for path, one in sorted(files.items()):
        if one.outcome.survivors:
            lines += [f"### {path}", ""]
            lines += [f"- {name}: {reasons.get((path, name), 'no reason yet')}." for name in one.outcome.survivors]
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"
