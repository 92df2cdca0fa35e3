"""What must hold of one call that is fed something hostile, and whether it does.

A call answers or refuses. Where something ordinary is meant by the hostile value, an answer is the ordinary value's.
Where nothing can be meant by it, the call refuses: with an error of a kind that is documented, whose message names the
parameter and is short. It takes neither much memory nor much time. What ends the process, or never ends, is seen from
outside of it.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import re
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_MESSAGE = 1000
"""Characters of an error's message."""
MOST_GROWTH = 256 * 2**20
"""Bytes by which the largest resident memory of the process may grow in a call."""
MOST_SECONDS = 20.0
"""How long a call may take, on a machine that others use as well."""
REFUSALS: tuple[type[BaseException], ...] = (TypeError, ValueError, IndexError, OSError, MemoryError)
"""What a wrong value raises, whatever is called; what a subject may raise beside it, it says itself."""


@dataclass(frozen=True)
class Value:
    """Something hostile.

    Attributes:
        name: what it is, in a few words.
        make: makes it, anew for each call.
        plain: makes the ordinary value that is meant by it, where one is.
        is_refused: whether nothing can be meant by it.
        raised: what its own methods raise, which may come through as it is.
        is_path: whether it is a path, which messages call by its text.
    """

    name: str
    make: Callable[[], Any]
    plain: Callable[[], Any] | None = None
    is_refused: bool = False
    raised: type[BaseException] | None = None
    is_path: bool = False


@dataclass(frozen=True)
class Subject:
    """Something public that is called.

    Attributes:
        name: its public name.
        call: takes the arguments by name.
        usual: makes arguments that are answered, anew for each call.
        words: what messages call a parameter beside its name.
        raises: errors that it documents beside `REFUSALS`.
        begins: how every message begins, where that is said.
    """

    name: str
    call: Callable[..., Any]
    usual: Callable[[], dict[str, Any]]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    raises: tuple[type[BaseException], ...] = ()
    begins: Callable[[], str] | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a call.

    Attributes:
        outcome: `answered`, or the name of the error.
        seconds: how long it took.
        growth: bytes by which the largest resident memory of the process grew.
        fault: what is wrong with it, or an empty text.
    """

    outcome: str
    seconds: float
    growth: int
    fault: str = ""


def judge(subject: Subject, parameter: str, value: Value) -> Verdict:
    """Makes one call, with a hostile value for one parameter and usual ones for the others."""
    try:
        expected = _expected(subject, parameter, value)
        arguments = {**subject.usual(), parameter: value.make()}
    except Exception as trouble:
        reason = f"{type(trouble).__name__}: {_short(trouble)}"
        return Verdict("not made", 0.0, 0, f"the case itself can not be made: {reason}")
    before, began = _peak(), time.perf_counter()
    error: BaseException | None = None
    answer: Any = None
    try:
        answer = subject.call(**arguments)
    except BaseException as caught:  # noqa: BLE001, RUF100 - a panic is no Exception, and neither is what values raise
        error = caught
    seconds, growth = time.perf_counter() - began, _peak() - before
    if error is None:
        try:
            fault = _fault_of_answer(value, answer, expected)
        except Exception as trouble:
            # An answer that holds what it was given may be nothing that can be compared; the run goes on behind it.
            fault = f"answered {_short(answer)}, which can not be compared: {type(trouble).__name__}: {_short(trouble)}"
    else:
        # What could be meant may be at odds with the other arguments, and any of them may be the one that is named.
        others = () if value.is_refused else tuple(arguments)
        words = (word for name in (parameter, *others) for word in subject.words.get(name, ()))
        names = tuple(dict.fromkeys((parameter, *others, *words)))
        fault = _fault_of_error(subject, names, value, arguments[parameter], error)
    if not fault and growth > MOST_GROWTH:
        fault = f"memory grew by {growth >> 20} MiB, expected at most {MOST_GROWTH >> 20}"
    if not fault and seconds > MOST_SECONDS:
        fault = f"took {seconds:.0f} s, expected at most {MOST_SECONDS:.0f}"
    outcome = "answered" if error is None else type(error).__name__
    # It holds this frame, which holds it: what the call has taken would be there as long, and missing to later calls.
    error = None
    return Verdict(outcome, seconds, growth, fault)


def _expected(subject: Subject, parameter: str, value: Value) -> tuple[Any, BaseException | None] | None:
    """The answer for what is meant by a value, or the error; None where nothing is said of it."""
    if value.plain is None:
        return None
    arguments = {**subject.usual(), parameter: value.plain()}
    try:
        return fingerprint(subject.call(**arguments)), None
    except MemoryError:
        # Nothing ordinary takes much memory.
        raise
    except Exception as error:
        return None, error


def _fault_of_answer(value: Value, answer: Any, expected: tuple[Any, BaseException | None] | None) -> str:
    if value.is_refused:
        return f"answered {_short(answer)}, where nothing can be meant"
    if expected is None:
        return ""
    plain, refused = expected
    if refused is not None:
        return f"answered {_short(answer)}, where the ordinary value is refused: {_short(refused)}"
    found = fingerprint(answer)
    return "" if found == plain else f"answered {_short(found)}, where the ordinary value gives {_short(plain)}"


def _fault_of_error(subject: Subject, names: tuple[str, ...], value: Value, given: object, error: BaseException) -> str:
    if value.raised is not None and type(error) is value.raised:
        return ""
    kind, text = type(error).__name__, _text(error)
    if isinstance(error, MemoryError) and not _has_memory():
        return f"left no memory behind it: {kind}: {text[:300]!a}"
    if type(error) is RuntimeError and "allocate memory" in text:
        # So torch says that there is no memory.
        return ""
    said = f"{kind}: {text[:300]!a}"
    if type(error).__module__.startswith("pyo3") or not isinstance(error, Exception):
        return f"panicked: {said}"
    if not isinstance(error, (*REFUSALS, *subject.raises)):
        return f"raised what is not documented: {said}"
    if len(text) > LONGEST_MESSAGE:
        return f"the message has {len(text)} characters, expected at most {LONGEST_MESSAGE}: {said}"
    # The interpreter may be the one that has no memory left, and has no words of ours.
    if not isinstance(error, MemoryError):
        is_told = any(re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z])", text) for name in names)
        if not is_told and not (value.is_path and any(shown in text for shown in _of_path(given))):
            return f"the message names none of {', '.join(names)}: {said}"
        if subject.begins is not None and not text.startswith(subject.begins()):
            return f"the message does not begin with {subject.begins()}: {said}"
    return ""


def _of_path(path: object) -> tuple[str, ...]:
    """What messages show of a path, and Python's word for what gives one."""
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]
    except Exception:
        return ("__fspath__",)
    return (ascii(text[:20])[1:-1], text[:20]) if text else ()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as trouble:
        return f"no message, since {type(trouble).__name__} is raised for it"


def _has_memory() -> bool:
    """Whether there still is as much memory as a call may take; without it every other call would be refused."""
    try:
        mmap.mmap(-1, MOST_GROWTH).close()
    except OSError:
        return False
    return True


def _peak() -> int:
    """The largest resident memory so far, in bytes."""
    # What `getrusage` says begins with that of the process which started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _short(value: object) -> str:
    try:
        text = ascii(value)
    except Exception as error:
        return f"something whose text cannot be had ({type(error).__name__})"
    return text if len(text) <= 200 else f"{text[:200]}..."


def fingerprint(value: Any) -> Any:
    """Something that is equal where answers are: of arrays dtype, shape and content, and of objects what they hold."""
    import numpy as np

    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if value is None or isinstance(value, (bool, int, float, str, bytes, complex, range, Enum)):
        return type(value).__name__, value
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes()
    if isinstance(value, dict):
        return tuple((fingerprint(key), fingerprint(inner)) for key, inner in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        # How long something took is no answer.
        named = {name: each for name, each in zip(value._fields, value, strict=True) if "seconds" not in name}
        return type(value).__name__, fingerprint(named)
    if isinstance(value, (tuple, list)):
        return type(value).__name__, tuple(map(fingerprint, value))
    if hasattr(value, "detach"):
        return _of_tensor(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {row.name: getattr(value, row.name) for row in dataclasses.fields(value) if "seconds" not in row.name}
        return type(value).__name__, fingerprint(named)
    return _of_object(value)


def _of_tensor(tensor: Any) -> Any:
    import torch

    if tensor.device.type == "meta":
        return "meta", str(tensor.dtype), tuple(tensor.shape)
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return "tensor", str(tensor.dtype), tuple(tensor.shape), bytes(whole.reshape(-1).view(torch.uint8).numpy())


# What is compared of objects that are no plain values, by the name of their class.
_HELD = {
    "Migration": ("moves", "batches", "write_batches"),
    "RoutingTables": ("data", "layers", "rank", "sender", "max_slots"),
    "LoadWindows": ("num_layers", "num_experts", "num_windows", "open_load", "loads"),
    "Balancer": ("placement", "state"),
    "ExpertParallel": ("local_experts", "top_k", "layer", "renormalize"),
}


def _of_object(value: Any) -> Any:
    for cls in type(value).__mro__:
        if cls.__name__ in _HELD:
            held = (getattr(value, name) for name in _HELD[cls.__name__])
            return cls.__name__, tuple(fingerprint(each() if callable(each) else each) for each in held)
    # Values compare by what they are.
    hash(value)
    return value
