"""Known deviations of implementations, declared in a file so that a check may expect them.

A file is TOML, with a table for each law that an implementation is known to break:

    [[deviation]]
    implementation = "my_engine.moe:Partition"
    chapter = "partition"
    invariant = "answers_every_query"
    reason = "one rank needs no map, and is given none"
    until = "2.0"

`until` is the version with which the deviation is to end, for the reader; all else is needed. A declared deviation
that no longer applies fails the check as a law does that is broken without being declared.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from expert_placement_spec.outcome import Outcome

TABLE = "deviation"
"""The name of the file's tables."""
OPTIONAL = "until"


@dataclass(frozen=True)
class Deviation:
    """A law that an implementation is known to break, and why."""

    implementation: str
    chapter: str
    invariant: str
    reason: str
    until: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """By which an outcome finds its deviation: the implementation and the law, whose name tells its chapter."""
        return self.implementation, self.invariant

    def __str__(self) -> str:
        until = f", until {self.until}" if self.until else ""
        return f"{self.reason}{until}"


def laws_of(chapter: str) -> Collection[str]:
    """The names of the laws of a chapter.

    Raises:
        ValueError: there is no such chapter.
    """
    if chapter == PARTITION:
        return INVARIANTS
    if chapter not in CHAPTERS:
        raise ValueError(f"chapter=`{shown(chapter, 100)}` is unknown, expected {', '.join((PARTITION, *CHAPTERS))}")
    return CHAPTERS[chapter].laws


def read_deviations(path: str | Path) -> list[Deviation]:
    """The deviations that a file declares, in its order.

    Raises:
        ValueError: there is no such file, it is no TOML, or one of its tables lacks a field, has another one, names an
            unknown chapter or law, or says what an earlier one says. The message names the file and the table.
    """
    file = f"deviations `{shown(str(path), 200)}`"
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{file} is no TOML in UTF-8: {shown(str(error), 200)}") from error
    tables = content.pop(TABLE, [])
    if content:
        raise ValueError(f"{file} has `{shown(next(iter(content)), 100)}`, expected tables [[{TABLE}]] alone")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{file} has a `{TABLE}` that is no list of tables, expected [[{TABLE}]]")
    found: dict[tuple[str, str], Deviation] = {}
    for number, table in enumerate(tables, 1):
        one = deviation_of(table, f"{file}, [[{TABLE}]] {number}")
        if one.key in found:
            raise ValueError(f"{file}, [[{TABLE}]] {number} declares {one.invariant} of {one.implementation} again")
        found[one.key] = one
    return list(found.values())


def deviation_of(table: Mapping[str, Any], place: str) -> Deviation:
    """The deviation that one table declares.

    Raises:
        ValueError: a field that is missing, unknown or no text, or a name that there is not.
    """
    names = [field.name for field in fields(Deviation)]
    for name in names:
        if name not in table and name != OPTIONAL:
            raise ValueError(f"{place} has no `{name}`")
    for name, value in table.items():
        if name not in names:
            raise ValueError(f"{place} has `{shown(name, 100)}`, expected {', '.join(names)}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place} has {name}=`{shown(str(value), 100)}`, expected a text")
    one = Deviation(**table)
    try:
        known = laws_of(one.chapter)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if one.invariant not in known:
        name = shown(one.invariant, 100)
        raise ValueError(f"{place}: invariant `{name}` is unknown, expected one of {', '.join(known)}")
    return one


class Declared:
    """The deviations of one chapter that a check of some implementations has to find, and no others.

    Args:
        deviations: all that are declared; those of other chapters are left to the checks of those.
        chapter: the chapter that is checked.
        implementations: what is checked.

    Raises:
        ValueError: a deviation of an implementation that is not checked.
    """

    def __init__(self, deviations: Iterable[Deviation], chapter: str, implementations: Collection[str]) -> None:
        self._by_key = {one.key: one for one in deviations if one.chapter == chapter}
        for name, law in self._by_key:
            if name not in implementations:
                raise ValueError(
                    f"a deviation from {law} is declared of `{shown(name, 100)}`, which is not checked in the chapter "
                    f"{chapter}, expected one of {', '.join(implementations)}"
                )

    def of(self, outcome: Outcome[Any]) -> Deviation | None:
        """What is declared of the law and the implementation of an outcome."""
        return self._by_key.get((outcome.implementation, outcome.invariant))

    def expects(self, outcome: Outcome[Any]) -> bool:
        """Whether a law is broken and declared to be."""
        return outcome.result == "broken" and self.of(outcome) is not None

    def no_longer_applies(self, outcome: Outcome[Any]) -> str:
        """What to say where a law is declared to be broken and was not found to be; empty elsewhere."""
        declared = self.of(outcome)
        if declared is None or outcome.result == "broken":
            return ""
        law = f"{outcome.invariant} of {outcome.implementation}"
        reason = f"declared because {declared}"
        if outcome.result == "holds":
            return f"a declared deviation no longer applies: {law} holds over {outcome.cases:,} cases ({reason})"
        return f"a declared deviation was not looked at: {law}, {outcome.result} ({reason})"

    def unmet(self, outcomes: Sequence[Outcome[Any]]) -> Iterator[str]:
        """Each declared deviation that the outcomes of a whole check do not show, in a sentence."""
        seen = {(one.implementation, one.invariant): one for one in outcomes}
        for key, declared in self._by_key.items():
            sentence = (
                self.no_longer_applies(seen[key])
                if key in seen
                else f"a declared deviation was not looked at: {key[1]} of {key[0]} (declared because {declared})"
            )
            if sentence:
                yield sentence
