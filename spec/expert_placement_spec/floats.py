"""Arithmetic in float64 whose result depends on nothing but its numbers."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def in_order(numbers: Iterable[float]) -> float:
    """The sum, rounded after every addition, in the order of the numbers.

    Python's own `sum` does that up to 3.11 alone: later versions carry what was rounded off along.
    """
    return reduce(add, numbers, 0.0)
