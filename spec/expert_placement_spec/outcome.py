"""What came of one invariant for one implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

RAISED = (Exception, SystemExit, GeneratorExit)
"""Whatever an implementation may raise, also to make the run look finished; only Ctrl-C is the user's."""


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
    offered: bool = True
    counterexample: AnyExample | None = None

    @property
    def result(self) -> str:
        """`holds`, `broken`, `not offered` or, where the domain has no such point, `no cases`."""
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
