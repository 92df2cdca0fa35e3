"""What an implementation answers, looked at by laws."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.grid import POISON as POISON
from expert_placement_spec.outcome import in_words, shown
from expert_placement_spec.refusing import refuses as refuses

if TYPE_CHECKING:
    from collections.abc import Iterable
    from functools import partial


class Lookup:
    """A table that is asked at ints, or at arrays of ints that broadcast, and holds `POISON` beyond its ends.

    Args:
        table: nested lists or an array of numbers.
        depth: how many dimensions it has; more than it shows where one of them is empty.
    """

    def __init__(self, table: Any, depth: int | None = None) -> None:
        self.array = np.asarray(table)
        if depth is not None and self.array.ndim != depth:
            if self.array.size or self.array.ndim > depth:
                raise ValueError(f"a table has {self.array.ndim} dimensions, expected {depth}")
            self.array = self.array.reshape(self.array.shape + (0,) * (depth - self.array.ndim))
        self._nested: Any = self.array.tolist()
        # Nothing is true of what is not there; and a table of truth values stays one.
        self._beyond: Any = False if self.array.dtype.kind == "b" else POISON

    def __call__(self, *ids: Any) -> Any:
        """The entry at each of these ids."""
        entry = self._nested
        for one in ids:
            if type(one) is not int:
                return self._at_arrays(ids)
            if not 0 <= one < len(entry):
                return self._beyond
            entry = entry[one]
        return entry

    def _at_arrays(self, ids: tuple[Any, ...]) -> Any:
        arrays = np.broadcast_arrays(*ids)
        if not self.array.size:
            return np.full(arrays[0].shape, self._beyond)
        ends = zip(arrays, self.array.shape, strict=True)
        inside = np.logical_and.reduce([(ids >= 0) & (ids < end) for ids, end in ends])
        return np.where(inside, self.array[tuple(np.where(inside, ids, 0) for ids in arrays)], self._beyond)


def ragged(rows: list[Any]) -> Any:
    """Nested lists of different lengths, filled up with `POISON` so that they are one table."""
    width = max((len(row) for row in rows), default=0)
    return [[*row, *[POISON] * (width - len(row))] for row in rows]


LONGEST_ARGUMENT = 100
"""So many characters of an argument are shown, so that what came of the call is, too."""


class NotRefusedError(Exception):
    """A call that has to be refused and was not: which one, and what came of it."""


def all_refused(error: type[Exception], calls: Iterable[partial[Any]], name: str = "") -> bool:
    """Whether each call raises an error of this type.

    Args:
        error: the type.
        calls: a function with its arguments each.
        name: what the function is called, where that is not its own name.

    Raises:
        NotRefusedError: the first call that does not.
    """
    for call in calls:
        try:
            call()
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            if issubclass(type(raised), error):
                continue
            came = in_words(raised)
        else:
            came = "an answer"
        raise NotRefusedError(f"{in_text(call, name)} gave {came}, expected {error.__name__}")
    return True


def in_text(call: partial[Any], name: str = "") -> str:
    """A call as it is written, with the kinds of objects that are no plain values."""
    given = [argument_in_text(one) for one in call.args]
    given += [f"{key}={argument_in_text(one)}" for key, one in call.keywords.items()]
    return f"{name or getattr(call.func, '__name__', type(call.func).__name__)}({', '.join(given)})"


def argument_in_text(argument: Any) -> str:
    """A plain value as it is written, cut where it is long, and of any other its type."""
    is_plain = isinstance(argument, (bool, int, float, str, list, tuple, dict)) or argument is None
    return shown(repr(argument), LONGEST_ARGUMENT) if is_plain else f"<{type(argument).__name__}>"


def as_array(answer: Any) -> Any:
    """An answer as a numpy array: from a list, an array, or a torch tensor on the CPU."""
    return np.asarray(answer)


def like(array: Any, answer: Any) -> Any:
    """A numpy array as a torch tensor, where an implementation answers with those."""
    torch = sys.modules.get("torch")
    return torch.from_numpy(array) if torch is not None and isinstance(answer, torch.Tensor) else array


def is_table(answer: Any, shape: tuple[int, ...], dtype: str = "int32") -> bool:
    """Whether an answer has a shape and a dtype. Lists are of no dtype, and are taken where they hold such numbers."""
    array = as_array(answer)
    # An empty list does not show what it has none of.
    is_shaped = array.shape == shape or (isinstance(answer, list) and not array.size and 0 in shape)
    if isinstance(answer, list):
        return is_shaped and (not array.size or array.dtype.kind in ("iu" if dtype.startswith("int") else "iuf"))
    return is_shaped and str(answer.dtype).rpartition(".")[2] == dtype


def close(left: Any, right: Any) -> Any:
    """Whether two numbers differ by rounding alone."""
    return abs(left - right) <= TOLERANCE * (abs(left) + abs(right)) + SMALLEST


def at_most(left: Any, right: Any) -> Any:
    """Whether one number is at most another, but for rounding."""
    return left <= right + TOLERANCE * (abs(left) + abs(right)) + SMALLEST


TOLERANCE = 1e-9
"""What rounding may make of a float64 by a part of itself; differences that matter are larger."""

SMALLEST = float(np.finfo(np.float64).tiny)
"""Below this a float64 has fewer digits, and rounding is no part of it."""


def field(answer: Any, name: str) -> Any:
    """A field of a record, however it is made: an attribute, or a key of a mapping."""
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


def value(answer: Any) -> Any:
    """What stands behind a name that may be a property or a method without arguments."""
    return answer() if callable(answer) else answer
