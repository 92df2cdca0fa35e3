"""`expert-placement-spec prove`: theorems by the solver."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from expert_placement_spec.commands.terminal import JSON, output_console, progress_bar
from expert_placement_spec.prove import prove_all


def prove_command(json_output: Annotated[bool, JSON] = False) -> None:
    """Prove every invariant of the formulas for all E and R, with the solver z3."""
    with progress_bar("proving") as progress:
        theorems = prove_all(progress)
    failed = [theorem for theorem in theorems if theorem.result != "proved"]
    if json_output:
        print(json.dumps([vars(theorem) for theorem in theorems], indent=2))
    else:
        table = Table(title="theorems for every E and R")
        for heading in ("invariant", "strategy", "result", "time"):
            table.add_column(heading, no_wrap=True)
        for theorem in theorems:
            table.add_row(theorem.invariant, theorem.strategy, theorem.result, f"{theorem.seconds:.2f} s")
        output_console().print(table)
        print(f"{len(theorems) - len(failed)} proved, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)
