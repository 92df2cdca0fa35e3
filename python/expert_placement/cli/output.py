"""How results are written: tables and bars for people, a stream of JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from itertools import islice

from rich.console import Console
from rich.table import Table

from expert_placement.cli.errors import Refused, refusing
from expert_placement.formats.files import expect_writable
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Paper", "expect_output", "write_json"]

# Wider than any line that is written, so that a file or a pipe never gets a wrapped or shortened one.
_PIPE_WIDTH = 1 << 20
_BAR_WIDTHS = (10, 40)
_EIGHTHS = " ▏▎▍▌▋▊▉█"
# Items of an array that are written at a time, and pieces of text.
_BATCH = 1024
_PIECES = 64


def expect_output(option: str, path: str, inputs: Mapping[str, str | None]) -> None:
    """Checks, before work begins, that a file may be written where an option says.

    Args:
        option: what the user calls the path.
        path: the file to write.
        inputs: files that are read and must not be replaced, by what the user calls them.

    Raises:
        Refused: the path is that of an input, or of something that no file may replace.
    """
    with refusing():
        expect_writable(path)
    for other, source in inputs.items():
        if source is not None and _is_same_file(path, source):
            raise Refused(f"{option} and {other} are the same file, `{printable(path)}`, expected another one to write")


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        # What is not there is replaced by nothing; whoever reads it says what is wrong with it.
        return False


class Paper:
    """Standard output, as wide as it is: lines that are not wrapped, tables, and bars in what its encoding can show."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._console = Console(
            file=sys.stdout,
            width=None if self._is_terminal else _PIPE_WIDTH,
            # Whoever reads a pipe wants the text alone, even where the environment forces colours.
            force_terminal=None if self._is_terminal else False,
            markup=False,
            highlight=False,
            emoji=False,
        )
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        self._eighths = _EIGHTHS if encoding.startswith("utf") else None

    def heading(self, text: str = "") -> None:
        """A line that starts a part, after a blank one."""
        self._write("")
        self._write(text, style="bold")

    def line(self, text: str = "") -> None:
        """A line of text, broken between words where a terminal is too narrow for it."""
        self._write(text)

    def _write(self, text: str, style: str | None = None) -> None:
        with self._console.capture() as capture:
            self._console.print(text, style=style)
        sys.stdout.write(capture.get())

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = ()) -> None:
        """A table whose columns are aligned to the right, except those at the indices `left`."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for column, title in enumerate(header):
            table.add_column(title, justify="left" if column in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        with self._console.capture() as capture:
            self._console.print(table)
        for line in capture.get().splitlines():
            sys.stdout.write(line.rstrip() + "\n")

    def bar_width(self, taken: int, bars: int = 1) -> int:
        """How many columns each of some bars may have beside columns that take `taken`."""
        shortest, longest = _BAR_WIDTHS
        return max(shortest, min(longest, (self._console.width - taken) // bars))

    def bar(self, fraction: float, width: int) -> str:
        """A bar that fills `fraction` of `width`. A positive one is never empty."""
        if self._eighths is None:
            return "#" * max(round(fraction * width), int(fraction > 0))
        whole, part = divmod(max(round(fraction * width * 8), int(fraction > 0)), 8)
        return self._eighths[8] * whole + (self._eighths[part] if part else "")


def write_json(fields: Mapping[str, object]) -> None:
    """Writes an object to standard output, one field a line. Iterables become arrays and may be lazy and endless."""
    separator = "{\n"
    for key, value in fields.items():
        sys.stdout.write(f"{separator}  {json.dumps(key)}: ")
        pieces = _pieces(value)
        while text := "".join(islice(pieces, _PIECES)):
            sys.stdout.write(text)
        separator = ",\n"
    sys.stdout.write("\n}\n")


def _pieces(value: object) -> Iterator[str]:
    """The JSON of a value, in pieces of bounded length."""
    if isinstance(value, Mapping):
        separator = "{"
        for key, item in value.items():
            yield f"{separator}{json.dumps(key)}: "
            yield from _pieces(item)
            separator = ", "
        yield "}" if value else "{}"
    elif isinstance(value, Iterable) and not isinstance(value, str):
        items, separator = iter(value), ""
        yield "["
        while batch := list(islice(items, _BATCH)):
            try:
                yield separator + json.dumps(batch, allow_nan=False)[1:-1]
            except TypeError:
                # Something lazy is among them, which a failed attempt does not consume.
                for item in batch:
                    yield separator
                    yield from _pieces(item)
                    separator = ", "
            separator = ", "
        yield "]"
    else:
        yield json.dumps(value, allow_nan=False)
