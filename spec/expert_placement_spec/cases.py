"""A chapter of laws about cases, and one law evaluated on one case. SPEC.md, "How placements are checked".

A case is everything that an implementation is given: a table, or loads and ranks. A view is a case with what the
implementation answers; it is what a law's first parameter is bound to. A law holds of a case where its predicate holds
at every point: every choice of values for the quantifiers.
"""

from __future__ import annotations

import random
from dataclasses import MISSING, dataclass, fields
from itertools import islice, product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from expert_placement_spec.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hypothesis.strategies import SearchStrategy
    from typing_extensions import Self

    from expert_placement_spec.adapter import Model
    from expert_placement_spec.law import Law, Laws

ONE_BY_ONE = 12
"""So many points at most are evaluated on ints; on more of them arrays are faster."""

MOST_POINTS = 2**15
"""So many points are drawn in cases that have more. No case of the domains does."""

Point = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """What an implementation is given, as plain values."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The case with these values; a topology may be given as a dict of its arguments."""
        if isinstance(values.get("topology"), dict):
            values["topology"] = Topology(**values["topology"])
        return cls(**values)

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest case is chosen."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[str, ...]:
        """What an implementation has to offer to be given the case, as `Model.offers` takes it."""
        return ()

    def check(self) -> None:
        """Raises ValueError where the definitions do not allow the case."""
        raise NotImplementedError

    def values(self) -> dict[str, Any]:
        """The values that differ from the defaults, plain enough to be written down and read again."""
        values = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.default is MISSING or value != one.default:
                values[one.name] = plain(value)
        return values


def plain(value: Any) -> Any:
    """A topology as a dict of what it was given."""
    if not isinstance(value, Topology):
        return value
    given = {one.name: getattr(value, one.name) for one in fields(value) if getattr(value, one.name) != one.default}
    return {name: list(one) if isinstance(one, tuple) else one for name, one in given.items()}


class View:
    """A case with what an implementation answers."""

    def __init__(self, model: Model, case: Any) -> None:
        self.model = model
        self.names = model.names
        self.case = case
        self._points: dict[tuple[str, ...], list[Point]] = {}

    def extent(self, name: str, given: dict[str, int]) -> int:
        """How many values a quantifier takes, where those before it have these."""
        raise NotImplementedError

    def points(self, quantifiers: tuple[str, ...]) -> list[Point]:
        """Every choice of values for the quantifiers or, where there are more than `MOST_POINTS`, so many random draws.

        Those are the same every time. Some coincide, and every quantifier's first and last value are among them.
        """
        if quantifiers not in self._points:
            points = list(islice(self._all_points(quantifiers), MOST_POINTS + 1))
            if len(points) > MOST_POINTS:
                points = self._some_points(quantifiers)
            self._points[quantifiers] = points
        return self._points[quantifiers]

    def _all_points(self, quantifiers: tuple[str, ...]) -> Iterator[Point]:
        if not quantifiers:
            yield ()
            return
        for point in self._all_points(quantifiers[:-1]):
            for number in range(self.extent(quantifiers[-1], dict(zip(quantifiers, point, strict=False)))):
                yield (*point, number)

    def _some_points(self, quantifiers: tuple[str, ...]) -> list[Point]:
        chance, points = random.Random(len(quantifiers)), set()
        # The first draws take a quantifier's first or last value each, all others any.
        ends = list(product(range(len(quantifiers)), (0, -1)))
        for number in range(MOST_POINTS):
            place, end = ends[number] if number < len(ends) else (-1, 0)
            given: dict[str, int] = {}
            for at, name in enumerate(quantifiers):
                extent = self.extent(name, given)
                if not extent:
                    break
                given[name] = end % extent if at == place else chance.randrange(extent)
            else:
                points.add(tuple(given.values()))
        return sorted(points)

    def has_point(self, quantifiers: tuple[str, ...], point: Point) -> bool:
        """Whether a quantifier can have each of these values, where those before it have theirs."""
        given: dict[str, int] = {}
        for name, number in zip(quantifiers, point, strict=True):
            if not 0 <= number < self.extent(name, given):
                return False
            given[name] = number
        return True


def first_violation(law: Law, view: View) -> tuple[int, Point | None]:
    """How many points of a case the law speaks of, and the first at which it is broken."""
    points = view.points(law.quantifiers)
    if len(points) > ONE_BY_ONE:
        return first_violation_in_arrays(law, view, points)
    cases = 0
    for point in points:
        if law.requires is None or truth(law, law.requires(view, *point)):
            cases += 1
            if not truth(law, law.predicate(view, *point)):
                return cases, point
    return cases, None


def truth(law: Law, answer: Any) -> Any:
    """What a predicate says, once it is clear that it says true or false: `~` of an integer is neither."""
    if np.asarray(answer).dtype.kind != "b":
        raise TypeError(f"{law.name} is neither true nor false but {answer!r}")
    return answer


def first_violation_in_arrays(law: Law, view: View, points: list[Point]) -> tuple[int, Point | None]:
    """The same for many points at once."""
    arrays = tuple(np.array(points).T)
    chosen = np.ones(len(points), dtype=bool)
    if law.requires is not None:
        chosen &= np.broadcast_to(truth(law, law.requires(view, *arrays)), len(points))
        arrays = tuple(array[chosen] for array in arrays)
    cases = int(chosen.sum())
    if not cases:
        return 0, None
    holds = np.broadcast_to(truth(law, law.predicate(view, *arrays)), cases)
    if holds.all():
        return cases, None
    first = int(np.argmin(holds))
    return cases, tuple(int(array[first]) for array in arrays)


@dataclass(frozen=True)
class Domain:
    """Cases to be looked at one and all, in blocks that processes share."""

    description: str
    blocks: Callable[[], list[Any]]
    cases: Callable[[Any], Iterator[Case]]


@dataclass(frozen=True)
class Chapter:
    """Laws, the cases that they are about, and where cases come from."""

    laws: Laws
    case: type[Case]
    view: type[View]
    needs: tuple[str, ...]
    """What an implementation has to offer to be checked at all."""
    domains: dict[str, Domain]
    """By size: `quick`, `small` and `full`; the README says how many cases that is."""
    drawn: Callable[[], SearchStrategy[Any]]
    """Random cases beyond the domains."""
    real: Mapping[str, Callable[[], Case]]
    """Cases of the sizes that models and deployments have, by name."""
    reference: ClassVar[str] = "expert_placement_spec.model"
