"""`expert-placement check`: the specification's conformance run, which is a distribution of its own."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import typer

from expert_placement.cli.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELP", "check", "command"]

HELP = """
Check an implementation against the specification. Needs: pip install expert-placement-spec

Every argument is the conformance run's own: [bold]expert-placement check --help[/bold] lists them.
"""

REFERENCE = "expert_placement_spec.reference:Partition"
PACKAGE = "expert_placement"
COMPILED = "expert_placement:Partition"
TORCH = "expert_placement.conformance:TorchPartition"
ROUTING = tuple(f"expert_placement.conformance:{name}Routing" for name in ("Rust", "Torch"))


def command(context: typer.Context) -> None:
    """Hands every argument on."""
    raise typer.Exit(check(context.args))


def check(arguments: Sequence[str]) -> int:
    """Checks the reference model, the compiled core and, of partitions and routing, the torch implementation.

    The arguments may name others.

    Args:
        arguments: those of the specification's own `check`.

    Returns:
        0, or 1 where an invariant is broken.

    Raises:
        Refused: the specification or torch is not installed, or an argument is wrong.
    """
    try:
        command = import_module("expert_placement_spec.command")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "expert_placement_spec":
            raise
        raise Refused("`check` needs the specification: pip install expert-placement-spec") from None
    naming = ("--implementation", "--command", "--help")
    needs_none = any(argument.partition("=")[0] in naming for argument in arguments)
    if not needs_none and find_spec("torch") is None:
        raise Refused("`check` needs torch: pip install 'expert-placement[torch]'")
    try:
        chapters = import_module("expert_placement_spec.chapters")
        cases = import_module("expert_placement_spec.cases")
        ours = {chapter: [cases.Chapter.reference, PACKAGE] for chapter in chapters.CHAPTERS}
        ours[chapters.PARTITION] = [REFERENCE, COMPILED, TORCH]
        # The third of routing is for a GPU, or for who has time.
        ours["routing"] = [cases.Chapter.reference, *ROUTING]
        return int(command.run_arguments(arguments, ours, "expert-placement check"))
    except ValueError as error:
        # An error of the operating system is about the output, which the program ends for by itself.
        raise Refused(str(error)) from None
