"""Why some lines are unreached: `unreached.toml`, and what is wrong between it and a measurement.

A place is quoted from the source: each line of the quotation starts with `! ` where nothing reaches it and with two
blanks where it only shows the place. The quotation has to stand in the file once, whatever its indentation, and its
marks have to be the lines of it that are unreached, each of them and no other.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.coverage.lines import Lines, ranges

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

FILE = Path(__file__).with_name("unreached.toml")
UNREACHED, SHOWN = "! ", "  "
BY_CARGO_TEST = "cargo test"


@dataclass(frozen=True)
class Place:
    """Lines of a file that nothing reaches, and why."""

    file: str
    text: str
    reason: str
    by: str = ""
    """`cargo test` where the crate's own tests reach the lines, which is looked at as well."""
    is_sometimes_reached: bool = False
    """Whether it depends on the run, such as on which thread is first."""

    @property
    def quoted(self) -> list[str]:
        """The lines without their marks and indentation."""
        return [line[2:].strip() for line in self.text.strip("\n").splitlines()]

    @property
    def marked(self) -> list[int]:
        """Which of the quoted lines nothing reaches, from 0."""
        lines = self.text.strip("\n").splitlines()
        return [offset for offset, line in enumerate(lines) if line.startswith(UNREACHED)]

    @property
    def title(self) -> str:
        """The place on one line."""
        first = self.quoted[self.marked[0]] if self.marked else ""
        return f"{self.file}: `{first}`"


@dataclass(frozen=True)
class Excluded:
    """Lines that are not counted, such as those that only a checker of types reads."""

    suffix: str
    """Of the files in which it is looked for."""
    pattern: str
    reason: str


@dataclass(frozen=True)
class Explanations:
    """All that the file says."""

    excluded: list[Excluded]
    places: list[Place]


def parsed(text: str) -> Explanations:
    """What a file with this content says.

    Raises:
        ValueError: Something is missing, unknown, without a mark, or marked otherwise.
    """
    content = tomllib.loads(text)
    _expect(content.keys() <= {"excluded", "unreached"}, f"unknown tables among {sorted(content)}")
    excluded = []
    for table in content.get("excluded", []):
        _expect(table.keys() == {"suffix", "pattern", "reason"}, f"an excluded pattern has {sorted(table)}")
        excluded.append(Excluded(table["suffix"], table["pattern"], _reason(table)))
    places = []
    for table in content.get("unreached", []):
        _expect(table.keys() <= {"reason", "by", "sometimes", "at"}, f"an explanation has {sorted(table)}")
        by, sometimes = table.get("by", ""), table.get("sometimes", False)
        _expect(by in ("", BY_CARGO_TEST), f"by={by!r} is unknown, expected `{BY_CARGO_TEST}`")
        _expect(isinstance(sometimes, bool), f"sometimes={sometimes!r} is not true or false")
        _expect(bool(table.get("at")), f"`{_reason(table)}` explains no place")
        for at in table["at"]:
            _expect(at.keys() == {"file", "text"}, f"a place has {sorted(at)}")
            place = Place(at["file"], at["text"], _reason(table), by, sometimes)
            for line in place.text.strip("\n").splitlines():
                _expect(line[:2] in (UNREACHED, SHOWN, "", " "), f"{place.file}: `{line}` has no mark")
            _expect(bool(place.marked), f"{place.file}: nothing is marked with `{UNREACHED.strip()}` in {place.quoted}")
            places.append(place)
    return Explanations(excluded, places)


def _reason(table: Mapping[str, object]) -> str:
    reason = table.get("reason")
    _expect(isinstance(reason, str) and bool(reason.strip()), f"no reason is given in {dict(table)}")
    return " ".join(str(reason).split())


def _expect(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(f"{FILE.name}: {message}")


def found_at(place: Place, source: Sequence[str]) -> list[int]:
    """Where the quotation starts in the lines of a file, from 0; one place if it is right."""
    stripped = [line.strip() for line in source]
    quoted = place.quoted
    return [
        start for start in range(len(stripped) - len(quoted) + 1) if stripped[start : start + len(quoted)] == quoted
    ]


def misquoted(places: Iterable[Place], sources: Mapping[str, Sequence[str]]) -> list[str]:
    """What does not stand once in its file."""
    problems = []
    for place in places:
        if place.file not in sources:
            problems.append(f"{place.title} is explained, and no such file is measured")
            continue
        times = len(found_at(place, sources[place.file]))
        if times == 0:
            problems.append(f"{place.title} is explained, and does not stand there any more")
        elif times > 1:
            problems.append(f"{place.title} stands there {times} times: quote more lines around it")
    return problems


def explained(places: Iterable[Place], sources: Mapping[str, Sequence[str]]) -> dict[str, dict[int, Place]]:
    """For each file the marked lines with what explains them, of places that stand once in their files."""
    found: dict[str, dict[int, Place]] = {}
    for place in places:
        starts = found_at(place, sources.get(place.file, ()))
        if len(starts) == 1:
            lines = found.setdefault(place.file, {})
            lines.update({starts[0] + 1 + offset: place for offset in place.marked})
    return found


def problems(
    measured: Mapping[str, Lines],
    sources: Mapping[str, Sequence[str]],
    places: Collection[Place],
    own: Mapping[str, Lines],
) -> list[str]:
    """What a measurement and the explanations say otherwise than each other, one thing a line.

    Args:
        measured: the lines of each file.
        sources: the text of each file, in lines.
        places: the explanations of these files.
        own: what the crate's own tests reach.
    """
    wrong = misquoted(places, sources)
    by_file = explained(places, sources)
    for file, lines in measured.items():
        known = by_file.get(file, {})
        for first, last in ranges(lines.unreached - known.keys(), lines.all):
            said = proposed(lines, sources[file], first, last)
            wrong.append(f"{file}:{first}-{last} is unreached and not explained:\n{said}")
        for number, place in sorted(known.items()):
            at = f"{file}:{number} `{sources[file][number - 1].strip()}`"
            if number not in lines.all:
                wrong.append(f"{at} is explained, and is no line that is counted")
            elif number in lines.reached and not place.is_sometimes_reached:
                wrong.append(f"{at} is explained, and was reached")
            elif place.by == BY_CARGO_TEST and (file not in own or number not in own[file].reached):
                wrong.append(f"{at} is said to be reached by `cargo test`, and was not")
    return wrong


def unmatched(excluded: Iterable[Excluded], sources: Mapping[str, Sequence[str]]) -> list[str]:
    """Excluded patterns that no line has."""
    return [
        f"the excluded pattern `{one.pattern}` matches no line"
        for one in excluded
        if not any(_matching(one, file, source) for file, source in sources.items())
    ]


def without(
    excluded: Iterable[Excluded], measured: Mapping[str, Lines], sources: Mapping[str, Sequence[str]]
) -> dict[str, Lines]:
    """What is measured but for the lines that have an excluded pattern."""
    found = {}
    for file, lines in measured.items():
        left_out = frozenset(number for one in excluded for number in _matching(one, file, sources[file]))
        found[file] = Lines(lines.all - left_out, lines.reached - left_out)
    return found


def _matching(one: Excluded, file: str, source: Sequence[str]) -> list[int]:
    if not file.endswith(one.suffix):
        return []
    # As coverage.py reads patterns, which may span lines.
    text = "\n".join(source)
    found: list[int] = []
    for match in re.finditer(one.pattern, text, re.MULTILINE):
        first = 1 + text.count("\n", 0, match.start())
        found += range(first, first + 1 + match[0].count("\n"))
    return found


def proposed(lines: Lines, source: Sequence[str], first: int, last: int) -> str:
    """The quotation of a range, with as many lines above it as make it stand there once."""
    above = first - 1
    while True:
        shown = range(above + 1, last + 1)
        text = "\n".join(
            ((UNREACHED if number in lines.unreached else SHOWN) + source[number - 1]).rstrip() for number in shown
        )
        if above == 0 or len(found_at(Place("", text, ""), source)) == 1:
            return text
        above -= 1
