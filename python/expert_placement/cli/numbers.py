"""Numbers among the options, read here and not by typer, so that a refusal names parameter, value and range."""

from __future__ import annotations

from inspect import signature
from typing import Any, get_args, get_type_hints

from typer.models import ParameterInfo

from expert_placement.cli.errors import Refused
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXPECTED", "numbers_read"]

EXPECTED = {
    "balancedness": "a number in 0.0..=1.0",
    "bandwidth": "a finite number of GB/s above 0",
    "every": "an integer of 1 or more",
    "experts": "an integer of 0 or more",
    "groups": "an integer of 1 or more",
    "hidden_layers": "an integer of 1 or more",
    "layer": "an integer of 0 or more",
    "max_moves": "an integer of 0 or more",
    "max_node_transfers": "an integer of 1 or more",
    "max_off_node": "a number in 0.0..=1.0",
    "max_staged": "an integer of 0 or more",
    "min_gain": "a finite number of at least 0",
    "nodes": "an integer of 1 or more",
    "rank": "an integer of 0 or more",
    "ranks": "an integer of 1 or more",
    "redundant": "an integer of 0 or more",
    "slots": "an integer of 0 or more",
    "threads": "an integer of 1 or more",
}
"""What is said of a text that is no number. A number out of range is refused where the range is known exactly."""

_LONGEST = 100


def numbers_read(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose options of integers and floats are read by this module.

    Raises:
        KeyError: an option has no row in `EXPECTED`.
    """
    hints = get_type_hints(command)
    for name, parameter in signature(command).parameters.items():
        kinds = [kind for kind in (int, float) if kind in (hints[name], *get_args(hints[name]))]
        if kinds and isinstance(parameter.default, ParameterInfo):
            parameter.default.parser = _reader(name, kinds[0], EXPECTED[name])
    return command


def _reader(name: str, kind: type[int] | type[float], expected: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        # A default is a number already.
        if not isinstance(value, str):
            return value
        try:
            # Python reads `3_0`, full-width digits and blanks too, which no other program would take for this number.
            if not value.isascii() or "_" in value or value != value.strip():
                raise ValueError
            return kind(value)
        except ValueError:
            shown = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
            # An integer of thousands of digits is one that Python does not read.
            fewer = ", and fewer digits" if value.isascii() and value.lstrip("+-").isdecimal() else ""
            raise Refused(f"{name}=`{printable(shown)}` is out of range, expected {expected}{fewer}") from None

    return read
