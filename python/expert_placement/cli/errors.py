"""What the command line says where it refuses an input."""

from __future__ import annotations

from contextlib import contextmanager

from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Refused", "describe", "refusing"]


class Refused(Exception):  # noqa: N818 - the input is at fault and not the program
    """An argument or a file that can not be used. The text is one line, without the word `error`."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what the package raises for a wrong value into `Refused`. Only for calls that are handed user input."""
    try:
        yield
    except OSError as error:
        raise Refused(describe(error)) from None
    except ModuleNotFoundError as error:
        # An extra that is not installed is named in the message; a missing part of the package is a fault of ours.
        if "pip install" not in str(error):
            raise
        raise Refused(str(error)) from None
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
