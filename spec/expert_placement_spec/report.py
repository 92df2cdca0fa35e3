"""Outcomes as a table for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from expert_placement_spec.outcome import AS_DECLARED, Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


REPORT_PARTS = ("exhaustive", "sampled", "real_sizes")
"""What JSON calls the parts of a check: a whole domain, random cases and, where there are any, cases of real sizes."""


def as_table(outcomes: Sequence[Outcome[Any]], title: str, expected: Sequence[Outcome[Any]] = ()) -> Table:
    """Invariants down, implementations across: cases and time where the law holds, and the word where it does not.

    Args:
        outcomes: what is shown.
        title: what stands above.
        expected: outcomes of laws that are declared to be broken.
    """
    declared = {(one.implementation, one.invariant) for one in expected}
    names = list(dict.fromkeys(outcome.implementation for outcome in outcomes))
    found = {(outcome.invariant, outcome.implementation): outcome for outcome in outcomes}
    table = Table(title=title, title_justify="left")
    table.add_column("invariant", no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for law in dict.fromkeys(outcome.invariant for outcome in outcomes):
        cells = (
            cell(found[law, name], (name, law) in declared) if (law, name) in found else "not sampled" for name in names
        )
        table.add_row(law, *cells)
    return table


def cell(outcome: Outcome[Any], is_declared: bool = False) -> str:
    """One outcome in a few words."""
    if outcome.result == "broken" and is_declared:
        return AS_DECLARED
    if outcome.result == "holds":
        return f"{outcome.cases:,} cases, {outcome.seconds:.1f} s"
    return f"[bold red]{outcome.result}[/]" if outcome.result == "broken" else outcome.result


def as_json(outcomes: Sequence[Outcome[Any]]) -> list[dict[str, Any]]:
    """One object for each outcome."""
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {
            "implementation": outcome.implementation,
            "invariant": outcome.invariant,
            "result": outcome.result,
            "cases": outcome.cases,
            "seconds": round(outcome.seconds, 3),
        }
        if outcome.missing:
            row["missing"] = list(outcome.missing)
        example = outcome.counterexample
        if example is not None:
            row["counterexample"] = {**example.point(), "call": example.call(), "message": example.message}
        rows.append(row)
    return rows


def merged(outcomes: Sequence[Outcome[Any]]) -> list[Outcome[Any]]:
    """One outcome for each invariant and implementation, with the smallest counterexample of all parts."""
    found: dict[tuple[str, str], Outcome[Any]] = {}
    for one in outcomes:
        key = (one.implementation, one.invariant)
        found.setdefault(key, Outcome(*key, missing=one.missing)).add(one)
    return list(found.values())


@dataclass(frozen=True)
class Lacking:
    """What one implementation does not offer, and the invariants that can not be looked at for it."""

    implementation: str
    missing: tuple[str, ...]
    invariants: tuple[str, ...]
    required: tuple[str, ...]
    """Those of the invariants that the run requires."""

    def __str__(self) -> str:
        number = len(self.invariants)
        required = f", {len(self.required)} required" if self.required else ""
        about = f"{number} invariant{'s' if number != 1 else ''} of {self.implementation}{required}"
        return f"not offered: {', '.join(self.missing)} ({about})"


def lacking(outcomes: Sequence[Outcome[Any]], required: Collection[str]) -> Iterator[Lacking]:
    """What each implementation lacks, in the order in which the invariants ask for it."""
    for name in dict.fromkeys(one.implementation for one in outcomes):
        unseen = [one for one in outcomes if one.implementation == name and one.missing]
        if unseen:
            missing = tuple(dict.fromkeys(need for one in unseen for need in one.missing))
            laws = tuple(one.invariant for one in unseen)
            yield Lacking(name, missing, laws, tuple(law for law in laws if law in required))


@dataclass(frozen=True)
class WithoutCases:
    """Invariants that a run requires, and that hold of one implementation for want of anything that they speak of."""

    implementation: str
    invariants: tuple[str, ...]

    def __str__(self) -> str:
        return f"required, and no case to look at: {', '.join(self.invariants)} of {self.implementation}"


def without_cases(outcomes: Sequence[Outcome[Any]], required: Collection[str]) -> Iterator[WithoutCases]:
    """The required invariants of each implementation for which nothing was looked at."""
    for name in dict.fromkeys(one.implementation for one in outcomes):
        idle = [
            one.invariant
            for one in outcomes
            if one.implementation == name and one.result == "no cases" and one.invariant in required
        ]
        if idle:
            yield WithoutCases(name, tuple(idle))
