"""The command line of the specification, `expert-placement-spec`: its commands together, and how a process ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from expert_placement_spec.chapters import PARTITION
from expert_placement_spec.commands.check import EXAMPLES, check_command
from expert_placement_spec.commands.engines import engines_command
from expert_placement_spec.commands.evidence import evidence_command
from expert_placement_spec.commands.laws import list_command
from expert_placement_spec.commands.prove import prove_command
from expert_placement_spec.commands.terminal import Command, Group
from expert_placement_spec.commands.vectors import vectors_app
from expert_placement_spec.outcome import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    cls=Group,
    help="The specification of expert placement, made executable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

PROGRAM = "expert-placement-spec"

app.command(name="check", cls=Command, epilog=EXAMPLES)(check_command)
app.command(name="prove", cls=Command)(prove_command)
app.command(name="list", cls=Command)(list_command)
app.command(name="evidence", cls=Command)(evidence_command)
app.command(name="engines", cls=Command)(engines_command)
app.add_typer(vectors_app, name="vectors")

USAGE = 2
# What a shell reports for a process that ends by the signal of the same cause.
INTERRUPTED = 130
OUTPUT_CLOSED = 141


def run_arguments(
    arguments: Sequence[str], implementations: Sequence[str] | Mapping[str, Sequence[str]], program: str
) -> int:
    """Runs `check` with the arguments of a command line that belongs to another program.

    Args:
        arguments: what stands behind the word `check`.
        implementations: what is checked where the arguments name nothing: partitions, or for each chapter its own.
        program: the name that usage and help show.

    Returns:
        The exit code of `run`.

    Raises:
        ValueError: as `run`; usage errors are raised as typer's own.
    """
    command: Any = typer.main.get_command(app)
    check_only = command.commands["check"]
    defaults = dict(implementations) if isinstance(implementations, Mapping) else {PARTITION: list(implementations)}
    code = check_only.main(list(arguments), prog_name=program, standalone_mode=False, obj=defaults)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point: ends the process with the exit code of the command line."""
    try:
        sys.exit(run_program())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def run_program() -> int:
    """Runs the command line of this process and gives its exit code.

    Returns:
        0; 1 where a check failed; 2 for bad usage or input and where the output can not be written, after one line on
        standard error; 130 after Ctrl-C; 141 where the reader of the output went away.
    """
    if sys.stdout is None:
        return refuse("standard output is closed")
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as end:
        # typer and rich end the process where a pipe breaks, each in its own way.
        cause = end.__context__ if isinstance(end, SystemExit) else end
        if not isinstance(cause, BrokenPipeError):
            raise
        discard_output()
        return OUTPUT_CLOSED
    except OSError as error:
        discard_output()
        return refuse(describe(error))
    except Exception as error:
        # Usage errors have this method in every version of typer.
        message = getattr(error, "format_message", None)
        if message is None and not isinstance(error, ValueError):
            raise
        text = str(message() if message else error)
        # Without arguments the help was printed, and there is nothing to add.
        return refuse(text) if text else USAGE
    return code if isinstance(code, int) else 0


LONGEST_ERROR = 2000
"""Characters of the one line that says what is wrong."""


def refuse(message: str) -> int:
    """Says on one line of standard error what is wrong, and gives the exit code for it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print("error:", shown(message, LONGEST_ERROR), file=sys.stderr, flush=True)
    return USAGE


def describe(error: OSError) -> str:
    """An operating system's error, after the file where it has one."""
    if error.strerror is None:
        return str(error)
    reason = error.strerror[:1].lower() + error.strerror[1:]
    return reason if error.filename is None else f"`{error.filename}`: {reason}"


def discard_output() -> None:
    """Sends what is still buffered nowhere, since the interpreter would fail to write it on its way out."""
    stream = sys.__stdout__
    if stream is not None and not stream.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
