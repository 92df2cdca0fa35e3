"""What a measurement says of each file: which lines there are to reach, and which of them were reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Lines:
    """The lines of one file that a measurement speaks of, by their numbers, which start at 1."""

    all: frozenset[int]
    reached: frozenset[int]

    @property
    def unreached(self) -> frozenset[int]:
        """The lines that nothing reached."""
        return self.all - self.reached


def from_lcov(text: str, root: str) -> dict[str, Lines]:
    """The lines of the files below `root`, by their paths from there, of what `llvm-cov export` writes as lcov."""
    found: dict[str, Lines] = {}
    file = ""
    counts: dict[int, int] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(":")
        if word == "SF":
            file, counts = rest, {}
        elif word == "DA":
            number, count, *_ = rest.split(",")
            counts[int(number)] = int(count)
        elif word == "end_of_record" and file.startswith(root + "/"):
            found[file.removeprefix(root + "/")] = Lines(
                frozenset(counts), frozenset(number for number, count in counts.items() if count)
            )
    return found


def narrowed(measured: Mapping[str, Lines], others: Mapping[str, Lines]) -> dict[str, Lines]:
    """What is measured of the lines that others speak of too: a build for tests has tests in the same files."""
    nothing = Lines(frozenset(), frozenset())
    return {file: Lines(other.all, measured.get(file, nothing).reached & other.all) for file, other in others.items()}


def ranges(unreached: Iterable[int], lines: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of the runs of unreached lines, which lines of no code do not interrupt."""
    found: list[tuple[int, int]] = []
    wanted = set(unreached)
    is_open = False
    for number in sorted(lines):
        if number not in wanted:
            is_open = False
        elif is_open:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
            is_open = True
    return found
