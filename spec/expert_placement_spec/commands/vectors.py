"""`expert-placement-spec vectors`: test vectors for implementations in any language."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read by typer when the command is made
from typing import Annotated

import typer

from expert_placement_spec.commands.terminal import Command, Group
from expert_placement_spec.vectors.folder import MODULES, carried_folder, first_difference, write

vectors_app = typer.Typer(cls=Group, help="Test vectors: JSON files for implementations in any language.")

FOLDER = typer.Option("--folder", help="The folder of the vectors; that of this distribution without other word.")


@vectors_app.command(name="write", cls=Command)
def write_command(folder: Annotated[Path | None, FOLDER] = None) -> None:
    """Writes all vector files from the reference model."""
    for line in write(folder or carried_folder(), version()):
        print(line)


@vectors_app.command(name="check", cls=Command)
def check_command(folder: Annotated[Path | None, FOLDER] = None) -> None:
    """Makes the vectors anew and compares; the exit code is 1 where something differs, which is named."""
    difference = first_difference(folder or carried_folder(), version())
    print(difference or f"{len(MODULES)} files, all as the reference model answers")
    raise typer.Exit(1 if difference else 0)


def version() -> str:
    """The version of the specification."""
    # Not at the top: the package's first module is not done then.
    from expert_placement_spec import __version__

    return __version__
