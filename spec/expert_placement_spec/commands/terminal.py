"""What the commands share: options, consoles and a progress bar."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand, TyperGroup

from expert_placement_spec.outcome import shown
from expert_placement_spec.reference import MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def flags_without_a_type(parameters: list[Any]) -> list[Any]:
    """The parameters of a command as its help shows them: typer would write that a flag is a bool."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command with a help that says nothing of types of flags."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters."""
        return flags_without_a_type(super().get_params(ctx))


class Group(TyperGroup):
    """The commands, with such a help."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters."""
        return flags_without_a_type(super().get_params(ctx))


class WrongNumber(Exception):  # noqa: N818 - the input is at fault and not the program
    """A text that is no number for an option. It is no `ValueError`, which typer would put in its own words."""

    def format_message(self) -> str:
        """What is said of it, under the name that typer's usage errors have for it."""
        return str(self)


def whole(name: str, least: int, most: int = MAX) -> Callable[[str | int], int]:
    """What reads an option's integer.

    Raises:
        WrongNumber: a text that is no integer, or one that is out of range.
    """

    def read(value: str | int) -> int:
        text = str(value)
        with suppress(ValueError):
            if text.isascii() and "_" not in text and text == text.strip() and least <= int(text) <= most:
                return int(text)
        raise WrongNumber(f"{name}=`{shown(text, 100)}` is out of range, expected an integer in {least}..={most}")

    return read


def error_console() -> Console:
    """Where progress and errors go, so that results can be piped."""
    return Console(stderr=True)


def output_console() -> Console:
    """Where results go; as wide as they need where nobody looks at a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=10_000, force_terminal=False, no_color=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, and a function that moves it. Where errors go elsewhere, nothing stands between them."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    console = error_console()
    # By the file itself: an environment may ask rich for colours where no terminal is.
    hidden = sys.stderr is None or not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


JSON = typer.Option("--json", help="Print JSON.")
