"""Named sets of the options that say how much `check` looks at."""

from __future__ import annotations

from dataclasses import dataclass

from expert_placement_spec.exhaustive import LARGEST
from expert_placement_spec.outcome import shown


@dataclass(frozen=True)
class Profile:
    """How much is looked at, of partitions and of the other chapters.

    Attributes:
        experts: the range of E.
        ranks: the range of R.
        wide: E and R up to which pairs, whole maps and tables are checked.
        alone: E and R up to which every id is asked by itself.
        points: random points for each invariant of partitions.
        domain: the domain of the other chapters.
        cases: random cases of the other chapters.
    """

    experts: str
    ranks: str
    wide: int
    alone: int
    points: int
    domain: str
    cases: int

    def __str__(self) -> str:
        of_partitions = f"--experts {self.experts} --ranks {self.ranks} --wide {self.wide} --alone {self.alone}"
        return f"{of_partitions} --samples {self.points}, or --domain {self.domain} --samples {self.cases}"


PROFILES = {
    "small": Profile("0..=96", "1..=96", wide=64, alone=32, points=500, domain="quick", cases=200),
    "full": Profile("0..=1024", "1..=1024", wide=256, alone=64, points=2000, domain="full", cases=3000),
}
"""By name: `small` is for every change, `full` for a release."""


def parse_range(parameter: str, text: str, least: int) -> range:
    """`0..=128` as a range that ends with 128.

    Raises:
        ValueError: another form, or bounds outside `least ..= LARGEST`.
    """
    first, dots, last = text.partition("..=")
    what = f"{parameter}=`{shown(text, 100)}`"
    if not dots or not (first + last).isascii() or not first.isdecimal() or not last.isdecimal():
        raise ValueError(f"{what} is no range, expected the form `{least}..=128`")
    if max(len(first), len(last)) > 10 or not least <= int(first) <= int(last) <= LARGEST:
        raise ValueError(f"{what} is out of range, expected bounds in {least}..={LARGEST}, the smaller first")
    return range(int(first), int(last) + 1)


def profile_of(name: str) -> Profile:
    """The profile of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in PROFILES:
        raise ValueError(f"profile=`{shown(name, 100)}` is unknown, expected one of {', '.join(PROFILES)}")
    return PROFILES[name]
