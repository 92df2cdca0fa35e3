"""Outcomes as a table for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expert_placement_spec.outcome import Outcome


def as_table(outcomes: Sequence[Outcome[Any]], title: str) -> Table:
    """Invariants down, implementations across: cases and time where the law holds, and the word where it does not."""
    names = list(dict.fromkeys(outcome.implementation for outcome in outcomes))
    found = {(outcome.invariant, outcome.implementation): outcome for outcome in outcomes}
    table = Table(title=title, title_justify="left")
    table.add_column("invariant", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for law in dict.fromkeys(outcome.invariant for outcome in outcomes):
        table.add_row(law, *(cell(found[law, name]) for name in names))
    return table


def cell(outcome: Outcome[Any]) -> str:
    """One outcome in a few words."""
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
        example = outcome.counterexample
        if example is not None:
            row["counterexample"] = {**example.point(), "call": example.call(), "message": example.message}
        rows.append(row)
    return rows
