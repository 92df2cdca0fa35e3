"""`expert-placement-spec prove`: theorems by the solver z3, and contracts on the model's source by CrossHair."""

from __future__ import annotations

import json
import os
from pathlib import Path  # noqa: TC003 - typer reads it where it annotates
from typing import Annotated, Any

import typer
from rich.table import Table

from expert_placement_spec.commands.terminal import JSON, output_console, progress_bar, whole
from expert_placement_spec.evidence import record_of_proofs, written
from expert_placement_spec.outcome import shown
from expert_placement_spec.processes import Workers
from expert_placement_spec.prove import prove_lemmas, prove_paired, work
from expert_placement_spec.symbolic_run import CONFIRMED, contracts, need_crosshair, run_contract_alone

TOOLS = ("z3", "crosshair")
PASSED = ("proved", CONFIRMED)


def prove_command(
    tool: Annotated[list[str] | None, typer.Option(help="z3 or crosshair; may be repeated; both by default.")] = None,
    invariant: Annotated[
        list[str] | None, typer.Option(help="An invariant; may be repeated; all that can be proved by default.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Where to write what was proved, with versions.")] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Processes; all cores by default.", parser=whole("processes", 1, 1024), metavar="N"),
    ] = None,
    json_output: Annotated[bool, JSON] = False,
) -> None:
    """Prove every invariant of the formulas for all E and R: the solver z3, and CrossHair on the model's own source."""
    tools = tool or list(TOOLS)
    for name in tools:
        if name not in TOOLS:
            raise ValueError(f"tool=`{shown(name, 100)}` is unknown, expected one of {', '.join(TOOLS)}")
    provable = dict.fromkeys(law.name for law, _ in (*work(), *contracts()))
    for name in invariant or ():
        if name not in provable:
            raise ValueError(f"invariant=`{shown(name, 100)}` is unknown, expected one of {', '.join(provable)}")
    if record is not None and (set(tools) != set(TOOLS) or invariant):
        raise ValueError(f"record=`{record}` is of everything, expected no --tool and no --invariant")
    if "crosshair" in tools:
        need_crosshair()
    rows = proved(tools, invariant or list(provable), processes or os.cpu_count() or 1)
    failed = [row for row in rows if row["result"] not in PASSED]
    if json_output:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
        print(f"{len(rows) - len(failed)} proved, {len(failed)} failed")
    if record is not None and not failed:
        record.write_text(written(record_of_proofs(rows)), encoding="utf-8")
    raise typer.Exit(1 if failed else 0)


def proved(tools: list[str], invariants: list[str], processes: int) -> list[dict[str, Any]]:
    """The theorems and contracts about invariants, in their order."""
    rows: list[dict[str, Any]] = []
    with Workers(processes) as workers:
        if "z3" in tools:
            tasks = [(law.name, strategy) for law, strategy in work() if law.name in invariants]
            rows += [{"tool": "z3", "over": "all numbers", **vars(lemma)} for lemma in prove_lemmas()]
            with progress_bar("z3") as progress:
                theorems = {}
                for task, theorem in workers.run_all(prove_paired, tasks):
                    theorems[task] = theorem
                    progress(len(theorems), len(tasks))
            rows += [{"tool": "z3", "over": "all E and R", **vars(theorems[task])} for task in tasks]
        if "crosshair" in tools:
            tasks = [(law.name, strategy) for law, strategy in contracts() if law.name in invariants]
            with progress_bar("CrossHair") as progress:
                answers = {}
                for task, answer in workers.run_all(run_contract_alone, tasks):
                    answers[task] = answer
                    progress(len(answers), len(tasks))
            rows += [{"tool": "crosshair", **vars(answers[task])} for task in tasks]
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the theorems and contracts as a table."""
    table = Table(title="theorems, each refuted for a mutant of the formulas", title_justify="left")
    for heading in ("tool", "invariant", "strategy", "over", "result", "time"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        words = [row[name] for name in ("tool", "invariant", "strategy", "over", "result")]
        table.add_row(*words, f"{row['seconds']:.2f} s")
    output_console().print(table)
    for row in rows:
        if row["result"] not in PASSED:
            found = f": {row['counterexample']}" if row.get("counterexample") else ""
            print(f"{row['tool']}, {row['invariant']}, {row['strategy']}: {row['result']}{found}")
