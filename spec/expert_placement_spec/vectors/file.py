"""A file of test vectors: its cases, and its bytes. `spec/vectors/README.md` says how it is read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COMMAND = "expert-placement-spec vectors write"
"""What writes the files, and is named in their first line."""

VALID, REFUSED = "valid", "refused"
"""The two results of a case."""

KINDS: Mapping[type[Exception], str] = {IndexError: "no_such_id", ValueError: "wrong_value"}
"""The kind of error by what the model raises."""

EXACT = 2**53 - 1
"""The largest integer that is written as a number: JavaScript holds every one up to it."""

ABOUT = (
    "Every case has an `id` that stays the same, its `flags`, which `notes` explains, a `comment`, and its `input`.",
    "Where `result` is `valid`, `expected` holds what the model answers, each answer under its name in the "
    "specification; where it is `refused`, `error` is the kind: `no_such_id` for a rank, an expert or a layer out "
    "of range, and `wrong_value` for everything else.",
    "Integers that JavaScript does not hold exactly are decimal strings.",
)
"""What holds for every file."""

FLOATS = (
    "Numbers with a point or an exponent are float64, written with the fewest digits that read back as the same "
    "number (Python's `repr`): read them with a parser that rounds correctly, and compare them bit by bit."
)
"""What holds for the files with floats."""


@dataclass(frozen=True)
class Case:
    """One case: what is asked, and what the model answers, or the kind of error with which it refuses."""

    name: str
    comment: str
    flags: tuple[str, ...]
    input: Mapping[str, Any]
    expected: Mapping[str, Any] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The case as it stands in the file."""
        head = {"id": self.name, "flags": list(self.flags), "comment": self.comment, "input": plain(self.input)}
        if self.expected is None:
            return {**head, "result": REFUSED, "error": self.error}
        return {**head, "result": VALID, "expected": plain(self.expected)}


def refused(name: str, comment: str, flags: tuple[str, ...], asked: Mapping[str, Any], ask: Callable[[], Any]) -> Case:
    """A case that the model refuses, with the kind of error with which it does.

    Raises:
        AssertionError: the model answers.
    """
    try:
        answer = ask()
    except tuple(KINDS) as error:
        return Case(name, comment, flags, asked, error=KINDS[type(error)])
    raise AssertionError(f"case `{name}` is answered with {answer!r}, expected an error")


@dataclass(frozen=True)
class VectorFile:
    """A chapter's cases, and what has to be known to read them."""

    chapter: str
    about: tuple[str, ...]
    notes: Mapping[str, str]
    """What each flag means."""
    cases: Sequence[Case]
    title: str = ""
    """The name of the file where that is not the chapter's."""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.title or self.chapter}.json"

    @property
    def schema(self) -> str:
        """The name of its schema."""
        return f"{self.title or self.chapter}.schema.json"

    def to_bytes(self, specification: str) -> bytes:
        """The file's content, a line for each case.

        Args:
            specification: the version of the specification.

        Raises:
            ValueError: two cases of one id, a flag that no note explains, a note on no flag, or a number that not every
                reader holds exactly.
        """
        repeated = [name for name, times in Counter(case.name for case in self.cases).items() if times > 1]
        if repeated:
            raise ValueError(f"{self.name} has several cases of the id `{repeated[0]}`, expected one")
        used = {flag for case in self.cases for flag in case.flags}
        if used != set(self.notes):
            raise ValueError(f"{self.name} has notes on {sorted(self.notes)}, expected notes on {sorted(used)}")
        head = {
            "written_by": COMMAND,
            "schema": self.schema,
            "specification": specification,
            "chapter": self.chapter,
            "number_of_cases": len(self.cases),
        }
        lines = [f"{one_line(key)}:{one_line(value)}," for key, value in head.items()]
        lines += ['"about":[', joined([one_line(text) for text in (*ABOUT, *self.about)]), "],"]
        lines += ['"notes":{', joined([f"{one_line(key)}:{one_line(text)}" for key, text in self.notes.items()]), "},"]
        lines += ['"cases":[', joined([one_line(case.as_json()) for case in self.cases]), "]"]
        return "\n".join(["{", *lines, "}", ""]).encode("ascii")


def joined(lines: Sequence[str]) -> str:
    """Members of a list or an object, a line each."""
    return ",\n".join(lines)


def one_line(value: Any) -> str:
    """JSON without line breaks, and without the numbers that it has no word for."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def integer(number: int) -> int | str:
    """An integer of any size: as a number where every reader holds it exactly, and as decimal digits elsewhere."""
    return number if -EXACT <= number <= EXACT else str(number)


def plain(value: Any) -> Any:
    """The value with lists in the place of tuples and arrays.

    Raises:
        ValueError: an integer that has to be written as a string.
    """
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, int) and not -EXACT <= value <= EXACT:
        raise ValueError(f"{value} is out of range, expected integers of at most {EXACT}, or their digits")
    return value
