"""The commands and their options. What they do stands in a module each."""

from __future__ import annotations

from typing import Annotated

import typer

from expert_placement import STRATEGIES, __version__
from expert_placement.cli.errors import Refused, describe

__all__ = ["Refused", "app", "describe", "run"]

_INTERRUPTED = 130

app = typer.Typer(
    help="Which rank owns which expert of a mixture-of-experts model.",
    epilog="Exit codes: 0; 1 a check failed; 2 bad usage or input.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# A paragraph a line: typer keeps line breaks.
_SHOW_HELP = "\n\n".join(
    (
        "Which rank owns which experts, and what load each rank carries.",
        "Loads are JSON in a regular file, not a pipe: a table \\[layers]\\[experts], or an object that holds one as "
        "`counts`, `expert_popularity` or `logical_count`. Balancedness is the sum over layers of the mean rank load, "
        "divided by the sum over layers of the largest rank load: 1 where all ranks carry the same.",
        "[bold]Examples[/bold]",
        "  expert-placement show --experts 30 --ranks 8",
        "  expert-placement show --config config.json --ranks 8 --rank 3",
        "  expert-placement show --ranks 6 --loads counts.json --compare",
        "  expert-placement show --experts 30 --ranks 8 --json | jq .counts",
    )
)
_CHECK_HELP = """
Check an implementation against the specification. Needs: pip install expert-placement-spec

Every argument is the conformance run's own: [bold]expert-placement check --help[/bold] lists them.
"""


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
        return _INTERRUPTED
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


def _complete_strategy(incomplete: str) -> list[str]:
    return [strategy for strategy in STRATEGIES if strategy.startswith(incomplete)]


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


@app.command("show", help=_SHOW_HELP, no_args_is_help=False)
def _show(
    ranks: Annotated[int, typer.Option("--ranks", help="Number of ranks, R.", metavar="R")],
    experts: Annotated[
        int | None, typer.Option("--experts", help="Number of routed experts of a layer, E.", metavar="E")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", help="A model's config.json, or its directory, in place of --experts.", metavar="FILE"
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help=f"How experts are dealt to ranks: {', '.join(STRATEGIES)}.",
            metavar="NAME",
            autocompletion=_complete_strategy,
        ),
    ] = STRATEGIES[0],
    loads: Annotated[
        str | None,
        typer.Option("--loads", help="Recorded loads, for the load of each rank by each strategy.", metavar="FILE"),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="One row of the loads, from 0. Without it: all layers.", metavar="INDEX"),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Show this rank's experts and its index map.", metavar="RANK")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Every strategy beside the old rule, which left the rest to the last rank.", metavar=""
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, always whole.", metavar="")] = False,
) -> None:
    from expert_placement.cli.show import Request, show

    request = Request(
        num_ranks=ranks,
        num_experts=experts,
        config=config,
        strategy=strategy,
        loads=loads,
        layer=layer,
        rank=rank,
        compare=compare,
    )
    show(request, as_json=as_json)


@app.command(
    "check",
    help=_CHECK_HELP,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def _check(context: typer.Context) -> None:
    from expert_placement.cli.check import check

    raise typer.Exit(check(context.args))
