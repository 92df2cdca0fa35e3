"""Named invariants of cases: one predicate for each, registered under its function's name.

An invariant is a function whose first parameter is a case as a checker sees it and whose other parameters are its
quantifiers. Its docstring is the law in one sentence. The partition's own registry is in `invariants.py`: its
predicates are read by a solver too, and over grids of partitions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Predicate = Callable[..., Any]


@dataclass(frozen=True)
class Law:
    """An invariant: its name, its sentence, the predicate, and where it applies."""

    name: str
    sentence: str
    predicate: Predicate
    subject: str
    """The name of the first parameter: what the law speaks of."""
    quantifiers: tuple[str, ...]
    requires: Predicate | None
    """The premise, with the same parameters. Points that fail it are no cases."""
    needs: tuple[str, ...]
    """What an implementation has to offer beside the least that its chapter asks for."""


class Laws(dict[str, Law]):
    """The invariants of one chapter, by name and in their order.

    Args:
        subject: the name of every predicate's first parameter.
        quantifiers: the names that the others may have.
    """

    def __init__(self, subject: str, quantifiers: tuple[str, ...]) -> None:
        super().__init__()
        self.subject = subject
        self.quantifiers = quantifiers

    def register(
        self, *, requires: Predicate | None = None, needs: tuple[str, ...] = ()
    ) -> Callable[[Predicate], Predicate]:
        """Registers a predicate under its function's name.

        Args:
            requires: the premise.
            needs: what an implementation has to offer, as `model.Model.offers` takes it.
        """

        def add(predicate: Predicate) -> Predicate:
            name, parameters = predicate.__name__, list(inspect.signature(predicate).parameters)
            if parameters[:1] != [self.subject] or not set(parameters[1:]) <= set(self.quantifiers):
                allowed = ", ".join(self.quantifiers)
                raise TypeError(f"the parameters of {name} must be {self.subject} and some of {allowed}")
            sentence = inspect.cleandoc(predicate.__doc__ or "")
            if not sentence:
                raise TypeError(f"{name} needs a docstring that states it")
            self[name] = Law(name, sentence, predicate, self.subject, tuple(parameters[1:]), requires, needs)
            return predicate

        return add
