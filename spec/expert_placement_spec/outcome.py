"""What came of one invariant for one implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

LONGEST = 1000
"""Characters of a text of others that are shown."""
LONGEST_NAME = 100

AS_DECLARED = "deviates as declared"
"""What a report says of a law that is broken and declared to be."""


def in_words(error: BaseException) -> str:
    """What an implementation raised, on one line.

    An implementation may raise anything, also what makes a run look finished, or what is no `Exception` and passes by
    most handlers. Checkers catch all of it: only `KeyboardInterrupt` is the user's.
    """
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as other:
        text = f"its text raised {name_of(other)}"
    return f"{name_of(error)}: {shown(text)}"


def name_of(error: BaseException) -> str:
    """The name of an exception's type, whatever the type says of itself."""
    return shown(str(type.__dict__["__name__"].__get__(type(error))), LONGEST_NAME)


def shown(text: str, most: int = LONGEST) -> str:
    """A text of others on one line, with escapes for what no terminal can show, cut where it is long."""
    line = " ".join(text[: most + 1].split())
    cut = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line[:most])
    return f"{cut}{'...' if len(text) > most else ''}"


class Example(Protocol):
    """A point at which an implementation breaks an invariant."""

    @property
    def message(self) -> str:
        """What the implementation raised; empty where it answered."""

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest is chosen."""

    def call(self) -> str:
        """An expression that evaluates the invariant at this point, to be pasted."""

    def point(self) -> dict[str, Any]:
        """The point as plain values, for JSON."""


AnyExample = TypeVar("AnyExample", bound=Example)


@dataclass
class Outcome(Generic[AnyExample]):
    """What came of one invariant for one implementation."""

    implementation: str
    invariant: str
    cases: int = 0
    seconds: float = 0.0
    missing: tuple[str, ...] = ()
    """What the invariant speaks of and the implementation does not offer."""
    counterexample: AnyExample | None = None

    @property
    def offered(self) -> bool:
        """Whether the implementation offers what the invariant speaks of."""
        return not self.missing

    @property
    def result(self) -> str:
        """`holds`, `broken`, `not offered` or, where there is nothing to look at, `no cases`."""
        if not self.offered:
            return "not offered"
        if self.counterexample is not None:
            return "broken"
        return "holds" if self.cases else "no cases"

    def add(self, other: Outcome[AnyExample]) -> None:
        """Takes in the outcome of another part of the domain."""
        self.cases += other.cases
        self.seconds += other.seconds
        found = [one for one in (self.counterexample, other.counterexample) if one is not None]
        self.counterexample = min(found, key=lambda one: one.size, default=None)
