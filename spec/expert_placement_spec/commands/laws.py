"""`expert-placement-spec list`: the invariants."""

from __future__ import annotations

from rich.table import Table

from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.commands.terminal import output_console
from expert_placement_spec.invariants import INVARIANTS


def list_command() -> None:
    """List every invariant with its sentence."""
    table = Table()
    table.add_column("chapter", no_wrap=True)
    table.add_column("invariant", no_wrap=True)
    table.add_column("for every", no_wrap=True)
    table.add_column("the law")
    for law in INVARIANTS.values():
        table.add_row(PARTITION, law.name, ", ".join(("p", *law.quantifiers)), law.sentence)
    for name, chapter in CHAPTERS.items():
        for one in chapter.laws.values():
            table.add_row(name, one.name, ", ".join((one.subject, *one.quantifiers)), one.sentence)
    output_console().print(table)
