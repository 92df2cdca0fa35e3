"""Functions with planted faults, each of which the judge must report, and one without."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.hostile.judging import Subject, Value
from tests.hostile.running import Case

if TYPE_CHECKING:
    from collections.abc import Callable


class PanicException(BaseException):
    """As the binding raises for a panic."""


PanicException.__module__ = "pyo3_runtime"


def sound(number: Any) -> int:
    """Refuses what is no int in 0..10."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"number must be an int, got `{type(number).__name__}`")
    if not 0 <= number < 10:
        raise ValueError("number is out of range, expected 0..10")
    return int.__index__(number)


def panics(number: Any) -> int:
    """As a panic of the core comes through."""
    raise PanicException("index out of bounds: the len is 3 but the index is 7")


def aborts(number: Any) -> int:
    """Takes the process with it."""
    os.abort()


def reads_nowhere(number: Any) -> int:
    """Follows an address that is none."""
    return ctypes.c_int.from_address(8).value


def leaves(number: Any) -> int:
    """Ends the process as if all were well."""
    os._exit(0)


def clamps(number: Any) -> int:
    """Makes do with the nearest number that is one."""
    return sound(min(max(number, 0), 9)) if type(number) is int else sound(number)


def ignores_strides(table: Any) -> list[int]:
    """Reads memory in its order, whatever the strides are."""
    whole = table if table.base is None else table.base
    return [int(number) for number in whole.reshape(-1)[: table.size]]


def ignores_byte_order(table: Any) -> list[int]:
    """Reads bytes as if they were in this machine's order."""
    return [int(number) for number in np.ascontiguousarray(table).view("<i8")]


def takes_memory(number: Any) -> int:
    """Makes room for what is claimed."""
    held = bytearray(400 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    return sound(number)


def believes_claims(number: Any) -> int:
    """Takes all the memory that there is, and is refused it."""
    held = []
    while True:
        held.append(bytearray(b"x" * 2**20))


def hangs(number: Any) -> int:
    """Never comes back, and hears no signal."""
    while True:
        time.sleep(1000)


def says_nothing_of_it(number: Any) -> int:
    """Names no parameter."""
    raise ValueError("wrong")


def says_too_much(number: Any) -> int:
    """Repeats all that it was given."""
    raise ValueError(f"number must be another: {'x' * 10**6}")


def keeps_what_it_is_given(table: Any) -> list[Any]:
    """Answers with an object that may be nothing that can be compared."""
    return [table]


def raises_another(number: Any) -> int:
    """Lets through what is no word of ours."""
    raise AttributeError("number has no attribute 'shape'")


def system_error(number: Any) -> int:
    """As the interpreter says that an extension broke its rules."""
    raise SystemError("number: error return without exception set")


FAULTS: dict[Callable[[Any], object], str] = {
    panics: "panicked",
    aborts: "ended the process",
    reads_nowhere: "ended the process",
    leaves: "ended the process",
    clamps: "where nothing can be meant",
    ignores_strides: "where the ordinary value gives",
    ignores_byte_order: "where the ordinary value gives",
    takes_memory: "memory grew by",
    believes_claims: "left no memory behind it",
    hangs: "did not come back",
    keeps_what_it_is_given: "which can not be compared",
    says_nothing_of_it: "the message names none of number",
    says_too_much: "the message has",
    raises_another: "raised what is not documented",
    system_error: "raised what is not documented",
}
"""What each is found out by."""


def cases() -> list[Case]:
    """One case for each planted fault, with a sound one before and behind it."""
    minus_one = Value("minus one", lambda: -1, is_refused=True)
    usual = np.array([1, 2, 3])
    backwards = Value("negative strides", lambda: np.flip(np.flip(usual).copy()), lambda: usual)
    other_order = Value("the other byte order", lambda: usual.astype(">i8"), lambda: usual)
    a_set = Value("a set", lambda: {1, 2, 3}, lambda: usual)
    fed: dict[Callable[[Any], object], Value] = {
        ignores_strides: backwards,
        ignores_byte_order: other_order,
        keeps_what_it_is_given: a_set,
    }
    good = Case(Subject("sound", sound, lambda: {"number": 3}), "number", minus_one)
    made = [good]
    for planted in FAULTS:
        value = fed.get(planted, minus_one)
        parameter = "table" if planted in fed else "number"
        subject = Subject(planted.__name__, planted, lambda p=parameter: {p: usual if p == "table" else 3})  # type: ignore[misc]
        made += [Case(subject, parameter, value), good]
    return made
