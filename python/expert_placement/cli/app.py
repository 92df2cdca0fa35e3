"""The commands. Each stands in a module of its own, which declares its options as those of `command`.

All of these modules are imported to list the commands, so what is slow to import they import when they are called.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from expert_placement import __version__
from expert_placement.cli import INTERRUPTED, check, convert, migrate, plan, plot, show, simulate
from expert_placement.cli.errors import Refused, describe
from expert_placement.cli.numbers import numbers_read

__all__ = ["Refused", "app", "describe", "run"]


def _flags_without_a_type(parameters: list[Any]) -> list[Any]:
    # typer would write that a flag is a bool.
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> Any:
        return _flags_without_a_type(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _flags_without_a_type(super().get_params(ctx))


app = typer.Typer(
    cls=_Group,
    help="Which rank owns which expert of a mixture-of-experts model.",
    epilog="Exit codes: 0; 1 a check failed; 2 bad usage or input.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: list[str]) -> int:
    """Runs the command line and gives back its exit code.

    Raises:
        Refused: wrong usage or input.
        BrokenPipeError: the reader of standard output went away.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="expert-placement", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as stop:
        # typer and rich end the process where a pipe breaks, each in its own way.
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        raise
    except Exception as error:
        # Each version of typer keeps the base of its usage errors elsewhere; this method is what they have in common.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        raise Refused(" ".join(str(message()).split())) from None
    return code if isinstance(code, int) else 0


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"expert-placement {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - the callback of the option acts on it
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True, metavar=""
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        text = context.get_help()
        if text:
            typer.echo(text)
        raise typer.Exit(2)


app.command("show", cls=_Command, help=show.HELP)(numbers_read(show.command))
app.command("plan", cls=_Command, help=plan.HELP)(numbers_read(plan.command))
app.command("simulate", cls=_Command, help=simulate.HELP)(numbers_read(simulate.command))
app.command("migrate", cls=_Command, help=migrate.HELP)(numbers_read(migrate.command))
app.command("convert", cls=_Command, help=convert.HELP)(numbers_read(convert.command))
app.command("plot", cls=_Command, help=plot.HELP)(numbers_read(plot.command))
app.command(
    "check",
    help=check.HELP,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(check.command)
