"""The connectives that the reference model and the invariants are written with.

A predicate is one text with several readings: on ints it is a test, on arrays of whole grids an exhaustive check, on
solver terms a theorem. Python's `and`, `or`, `not`, `if` and chained comparisons exist for the first reading alone, so
a predicate uses `&`, `|` and these functions instead.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def negate(proposition: Any) -> Any:
    """Whether the proposition is false."""
    return not proposition if isinstance(proposition, bool) else ~proposition


def implies(premise: Any, conclusion: Any) -> Any:
    """Whether the conclusion holds wherever the premise does."""
    return negate(premise) | conclusion


def choose(condition: Any, then: Any, otherwise: Any) -> Any:
    """`then` where the condition holds, `otherwise` elsewhere."""
    if condition is True or condition is False or isinstance(condition, np.bool_):
        return then if condition else otherwise
    if isinstance(condition, np.ndarray):
        return np.where(condition, then, otherwise)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(condition, torch.Tensor):
        return torch.where(condition, then, otherwise)
    return condition.choose(then, otherwise)


def divides(divisor: Any, number: Any) -> Any:
    """Whether a number is a multiple of another; of 1 each is, and no array has to be divided to know it."""
    if isinstance(divisor, int) and divisor == 1:
        # True, in the shape or the sort of the number.
        return number == number
    return number % divisor == 0


def least(left: Any, right: Any) -> Any:
    """The smaller of two numbers."""
    return choose(left < right, left, right)
