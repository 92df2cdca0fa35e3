"""What the command line says where it refuses an input."""

from __future__ import annotations

import json
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Refused", "describe", "kind", "printable", "refusing"]


class Refused(Exception):  # noqa: N818 - the input is at fault and not the program
    """An argument or a file that can not be used. The text is one line, without the word `error`."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what the package raises for a wrong value into `Refused`. Only for calls that are handed user input."""
    try:
        yield
    except OSError as error:
        raise Refused(describe(error)) from None
    except (ValueError, IndexError) as error:
        raise Refused(str(error)) from None


def describe(error: OSError) -> str:
    """An operating system's error as one line that begins with the file."""
    if error.strerror is None:
        return str(error)
    reason = error.strerror[:1].lower() + error.strerror[1:]
    if error.filename is None:
        return reason
    name = printable(str(error.filename))
    return f"`{name if len(name) <= 200 else name[:197] + '...'}`: {reason}"


def printable(text: str) -> str:
    """The text on one line, with escapes for what no terminal can show."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def kind(value: object) -> str:
    """What a JSON value is, in a few words, with the value itself where it is short."""
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return f'the string `"{printable(value if len(value) <= 40 else value[:37] + "...")}"`'
    # No long integer gets here: the reader counts its digits.
    return f"`{json.dumps(value)}`"
