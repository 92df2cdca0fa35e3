"""What a run over the engines' functions found, as JSON, and the part of the page that shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from expert_placement_spec.deviations import Deviation
    from expert_placement_spec.engines.catalogue import Subject
    from expert_placement_spec.engines.look import Finding

COMMAND = "expert-placement-spec engines --sources FOLDER --fetch --record docs"
"""The command that writes the record and the page."""
JSON_FILE, PAGE = "engines.json", "engines.md"
BEGIN, END = f"<!-- from here on written by: {COMMAND} -->", "<!-- written until here -->"
SHOWN = ("holds", "broken", "not offered", "no cases")
"""The results, in the order of the table."""
HEADINGS = ("holds", "deviates", "not offered", "no case")


def entry(subject: Subject, findings: Sequence[Finding], date: str) -> dict[str, Any]:
    """What came of one function, as plain values."""
    return {
        "title": subject.title,
        "engine": subject.engine,
        "version": subject.function.version(),
        "date": date,
        "file": subject.function.file,
        "function": subject.function.name,
        "implementation": subject.implementation,
        "chapter": subject.chapter,
        "domain": subject.domain,
        "laws": {one.outcome.invariant: of_law(one) for one in findings},
    }


def of_law(finding: Finding) -> dict[str, Any]:
    """What came of one law."""
    outcome = finding.outcome
    row: dict[str, Any] = {"result": outcome.result}
    if finding.why_not:
        row["why_not"] = finding.why_not
    else:
        row["cases"] = outcome.cases
    example = outcome.counterexample
    if example is not None:
        row |= {"counterexample": example.call(), "raised": example.message}
    return row


def read_record(folder: Path) -> list[dict[str, Any]]:
    """The functions of the record in a folder, or none where there is no record.

    Raises:
        ValueError: the record is none.
    """
    path = folder / JSON_FILE
    if not path.is_file():
        return []
    try:
        functions: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["functions"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is no record of engines: {error}") from error
    return functions


def write_record(folder: Path, functions: Sequence[Mapping[str, Any]], reasons: Mapping[tuple[str, str], str]) -> None:
    """Writes the record and the part of the page that shows it.

    Raises:
        ValueError: the page lacks the lines between which that part stands.
    """
    page = folder / PAGE
    text = with_part(page.read_text(encoding="utf-8"), as_markdown(functions, reasons))
    record = {"command": COMMAND, "functions": functions}
    (folder / JSON_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page.write_text(text, encoding="utf-8")


def with_part(page: str, part: str) -> str:
    """The page with another part between its two lines.

    Raises:
        ValueError: it lacks them.
    """
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the lines `{BEGIN}` and `{END}`")
    return f"{before}{begin}\n{part}\n{end}{after}"


def part_of(page: str) -> str:
    """What stands between the two lines of a page."""
    return page.partition(f"{BEGIN}\n\n")[2].partition(f"\n{END}")[0]


def reasons_of(deviations: Sequence[Deviation]) -> dict[tuple[str, str], str]:
    """Why each implementation breaks a law, by both."""
    return {one.key: str(one) for one in deviations}


def as_markdown(functions: Sequence[Mapping[str, Any]], reasons: Mapping[tuple[str, str], str]) -> str:
    """The table of all functions, and a section for each."""
    lines = [
        f"| function | version | looked at | {' | '.join(HEADINGS)} |",
        f"|---|---|---|{'---|' * len(HEADINGS)}",
    ]
    for one in functions:
        results = [law["result"] for law in one["laws"].values()]
        numbers = " | ".join(str(results.count(result)) for result in SHOWN)
        lines.append(f"| {one['title']} | {one['version']} | {one['date']} | {numbers} |")
    for one in functions:
        lines += ["", *section(one, reasons)]
    return "\n".join(lines)


def section(one: Mapping[str, Any], reasons: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """One function: what it meets, what not and why, and what it is not asked about."""
    laws: Mapping[str, Mapping[str, Any]] = one["laws"]
    yield f"### {one['title']}"
    yield ""
    yield f"`{one['file']}` of {one['engine']} {one['version']}, as `{one['implementation']}`."
    yield f"Looked at: {one['domain']}."
    holds = {name: law for name, law in laws.items() if law["result"] == "holds"}
    if holds:
        most = max(law["cases"] for law in holds.values())
        yield ""
        yield f"Holds, over up to {most:,} cases each: {', '.join(f'`{name}`' for name in holds)}."
    for name, law in laws.items():
        if law["result"] == "broken":
            yield ""
            yield f"Deviates from `{name}`: {reasons.get((one['implementation'], name), 'not declared')}."
            yield ""
            yield "```python"
            yield f"{law['counterexample']}{'  # ' + law['raised'] if law['raised'] else ''}"
            yield "```"
    for why in dict.fromkeys(law["why_not"] for law in laws.values() if "why_not" in law):
        names = [f"`{name}`" for name, law in laws.items() if law.get("why_not") == why]
        yield ""
        yield f"Not offered, since {why}: {', '.join(names)}."
    idle = [f"`{name}`" for name, law in laws.items() if law["result"] == "no cases"]
    if idle:
        yield ""
        yield f"No case among those that it takes: {', '.join(idle)}."
