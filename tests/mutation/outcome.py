"""What came of the mutants of one file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

KILLED, SURVIVED, TIMED_OUT, UNVIABLE = "killed", "survived", "timed out", "not viable"
NOTICED = (KILLED, TIMED_OUT)
"""A change after which the tests go on for ever is noticed as well."""


@dataclass(frozen=True)
class Outcome:
    """How many mutants had which fate, and the names of those that nothing noticed."""

    fates: dict[str, int]
    survivors: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many mutants could be tested."""
        return sum(number for fate, number in self.fates.items() if fate != UNVIABLE)

    @property
    def noticed(self) -> int:
        """How many of them the tests noticed."""
        return sum(self.fates.get(fate, 0) for fate in NOTICED)


def gathered(fates: list[tuple[str, str]]) -> Outcome:
    """The outcome of mutants by their names and fates; equal names of survivors are numbered.

    Raises:
        ValueError: There is an unknown fate.
    """
    known = (KILLED, SURVIVED, TIMED_OUT, UNVIABLE)
    unknown = sorted({fate for _, fate in fates} - set(known))
    if unknown:
        raise ValueError(f"unknown fates {unknown}, expected some of {known}")
    survivors: list[str] = []
    seen: Counter[str] = Counter()
    for name, fate in fates:
        seen[name] += 1
        if fate == SURVIVED:
            survivors.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    counted = Counter(fate for _, fate in fates)
    return Outcome({fate: counted[fate] for fate in known if counted[fate]}, survivors)
