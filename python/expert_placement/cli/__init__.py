"""The command line, `expert-placement`. It uses the public API only.

Importing this package imports neither typer nor rich, so that a script may use its parts without the extra `[cli]`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["INTERRUPTED", "main"]

_USAGE = 2
# What a shell reports for a process that ends by the signal of the same cause.
INTERRUPTED = 130
_OUTPUT_CLOSED = 141
# Bytes of the one line that says what is wrong.
_LONGEST = 960
# More words than any system hands to a program by hand.
_MOST_WORDS = 2**16


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives back its exit code.

    Args:
        arguments: the words after the program's name, those of the process without other word.

    Returns:
        0; 1 where a check failed; 2 for bad usage or input, after one line on standard error; 130 after Ctrl-C; 141
        where the reader of the output went away.

    Raises:
        ValueError: more than 2**16 words.
        TypeError: words that are no texts.
    """
    try:
        return _run(sys.argv[1:] if arguments is None else _words(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED


def _words(arguments: Sequence[str]) -> list[str]:
    from expert_placement._arguments import items_argument, str_argument

    given = items_argument("arguments", arguments, "a sequence of texts", _MOST_WORDS, "words")
    return [str_argument(f"arguments[{place}]", word) for place, word in enumerate(given)]


def _run(arguments: list[str]) -> int:
    try:
        import rich  # noqa: F401 - what writes tables and help imports it, but later than this

        from expert_placement.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"expert_placement", "numpy"}:
            raise
        return _refuse(f"the command line needs `{error.name}`: pip install 'expert-placement[cli]'")
    if sys.stdout is None:
        return _refuse("standard output is closed")
    if hasattr(sys.stdout, "reconfigure"):
        # A path may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app.run(arguments)
        sys.stdout.flush()
    except app.Refused as error:
        return _refuse(str(error))
    except BrokenPipeError:
        _discard_output()
        return _OUTPUT_CLOSED
    except OSError as error:
        _discard_output()
        return _refuse(app.describe(error))
    return code


def _refuse(message: str) -> int:
    if sys.stderr is not None:
        from expert_placement._text import excerpt

        with suppress(OSError):
            print(f"error: {excerpt(message, _LONGEST)}", file=sys.stderr, flush=True)
    return _USAGE


def _discard_output() -> None:
    """Sends what is still buffered nowhere, since the interpreter would fail to write it on its way out."""
    stream = sys.__stdout__
    if stream is not None and not stream.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
