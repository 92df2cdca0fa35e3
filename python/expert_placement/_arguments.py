"""Arguments of the Python layer that are no integers: what is taken, and how the rest is refused.

The compiled core has the same rules for what it takes itself, and `expert_placement.torch._arguments` those for ints,
tensors and devices.
"""

from __future__ import annotations

import itertools
import math

from expert_placement._text import digits, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, TypeVar

    from typing_extensions import TypeIs

    _T = TypeVar("_T")
    _Name = TypeVar("_Name", bound=str)


def is_a(value: object, *classes: type[_T]) -> TypeIs[_T]:
    """Whether a value is of one of some classes; `isinstance` believes what an object says of its class."""
    return issubclass(type(value), classes)


def bool_argument(parameter: str, value: object) -> bool:
    """A bool of Python's own.

    Raises:
        TypeError: something else; numbers and what numpy calls bools included, as for `exact` of `route`.
    """
    if is_a(value, bool):
        return value
    raise TypeError(f"{parameter} must be a bool, got `{type(value).__name__}`")


def real_argument(parameter: str, value: object, is_within: Callable[[float], bool], expected: str, unit: str) -> float:
    """An int or a float in a range.

    Args:
        parameter: the parameter's name.
        value: what was given for it.
        is_within: whether a float is in the range.
        expected: the range, in words.
        unit: what the number is of, for what is none.

    Raises:
        ValueError: a number that is out of range, or beyond all floats.
        TypeError: no int or float; a bool is none.
    """
    # What a subclass says of itself may be anything.
    if is_a(value, float):
        number, shown = float.__float__(value), float.__repr__(value)
    elif is_a(value, int) and not is_a(value, bool):
        shown = digits(value)
        try:
            number = float(int.__index__(value))
        except OverflowError:
            number = math.nan
    else:
        raise TypeError(f"{parameter} must be {unit}, got `{type(value).__name__}`")
    if not is_within(number):
        raise ValueError(f"{parameter}={shown} is out of range, expected {expected}")
    return number


def choice_argument(parameter: str, value: object, choices: Collection[_Name]) -> _Name:
    """One of a few names.

    Raises:
        ValueError: another text.
        TypeError: no text.
    """
    text = str_argument(parameter, value)
    for choice in choices:
        if choice == text:
            return choice
    expected = ", ".join(f"`{choice}`" for choice in choices)
    raise ValueError(f"{parameter}=`{excerpt(text)}` is unknown, expected one of {expected}")


def str_argument(parameter: str, value: object) -> str:
    """A text, whatever a subclass would say that it is.

    Raises:
        TypeError: no text.
    """
    if not is_a(value, str):
        raise TypeError(f"{parameter} must be a str, got `{type(value).__name__}`")
    return str.__str__(value)


def items_argument(parameter: str, values: object, expected: str, most: int, words: str) -> list[Any]:
    """What can be gone through, as a list.

    Args:
        parameter: the parameter's name.
        values: what was given for it; a generator may never end.
        expected: what it should be, for messages.
        most: how many there may be.
        words: what they are, for messages.

    Raises:
        ValueError: more than `most`.
        TypeError: a text, bytes, a mapping, or what cannot be gone through.
    """
    # Bytes are numbers to Python, and the keys of a mapping are no values.
    is_other = is_a(values, str, bytes, bytearray) or hasattr(values, "keys")
    given: Any = values
    try:
        found = None if is_other else iter(given)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{parameter} must be {expected}, got `{type(values).__name__}`")
    items = list(itertools.islice(found, most + 1))
    if len(items) > most:
        raise ValueError(f"{parameter} has more than {most} {words}, expected fewer")
    return items
