"""`expert-placement-spec engines`: the engines' own functions, looked at and reported."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.commands.terminal import JSON, output_console, progress_bar
from expert_placement_spec.deviations import Declared, Deviation, read_deviations
from expert_placement_spec.engines import record, sources
from expert_placement_spec.engines.catalogue import SUBJECTS, Subject
from expert_placement_spec.engines.look import Finding, look
from expert_placement_spec.report import merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEVIATIONS = Path(__file__).parents[1] / "engines" / "deviations.toml"
"""What is known of the engines' functions."""


def engines_command(
    folder: Annotated[
        Path,
        typer.Option(
            "--sources", help="A folder with the engines' wheels unpacked, src/vllm and src/sglang.", show_default=False
        ),
    ],
    fetch: Annotated[bool, typer.Option("--fetch", help="Download with pip what is not there.")] = False,
    record_folder: Annotated[
        Path | None, typer.Option("--record", help="Write engines.json and the table of engines.md into this folder.")
    ] = None,
    json_output: Annotated[bool, JSON] = False,
) -> None:
    """Check the engines' own functions, and compare what they break with what is declared."""
    if fetch:
        sources.fetch(folder)
    os.environ[sources.ENVIRONMENT] = str(folder.resolve())
    # Before torch is loaded: more threads than one only slow down calls as small as these.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    at_hand, absent = split(SUBJECTS)
    if not at_hand:
        raise ValueError(f"sources=`{folder}` has no files of an engine, expected src/vllm or src/sglang, or --fetch")
    found: list[tuple[Subject, list[Finding]]] = []
    with progress_bar("engines") as progress:
        for subject in at_hand:
            found.append((subject, look(subject)))
            progress(len(found), len(at_hand))
    deviations = read_deviations(DEVIATIONS)
    date = datetime.now(timezone.utc).date().isoformat()
    entries = {subject.title: record.entry(subject, findings, date) for subject, findings in found}
    wrong = list(unexpected(found, deviations))
    if record_folder is not None:
        # What is not at hand stays as it was recorded, with its own date.
        recorded = {one["title"]: one for one in record.read_record(record_folder)} | entries
        shown = [recorded[subject.title] for subject in SUBJECTS if subject.title in recorded]
        record.write_record(record_folder, shown, record.reasons_of(deviations))
    if json_output:
        print(json.dumps({"functions": list(entries.values()), "unexpected": wrong}, indent=1))
        raise typer.Exit(1 if wrong else 0)
    console = output_console()
    for line in record.as_markdown(list(entries.values()), record.reasons_of(deviations)).splitlines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for subject in absent:
        console.print(f"not at hand: {subject.title}", markup=False, highlight=False, soft_wrap=True)
    for sentence in wrong:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(entries)} functions looked at, {len(wrong)} unexpected results", highlight=False)
    raise typer.Exit(1 if wrong else 0)


def split(subjects: Sequence[Subject]) -> tuple[list[Subject], list[Subject]]:
    """The functions whose files are at hand, and the others."""
    at_hand = [subject for subject in subjects if subject.function.is_at_hand()]
    return at_hand, [subject for subject in subjects if subject not in at_hand]


def unexpected(found: Sequence[tuple[Subject, list[Finding]]], deviations: Sequence[Deviation]) -> Iterator[str]:
    """Each law that is broken without being declared, and each declared deviation that no longer applies."""
    looked_at = {subject.implementation for subject, _ in found}
    for chapter in (PARTITION, *CHAPTERS):
        of_chapter = [(subject, findings) for subject, findings in found if subject.chapter == chapter]
        names = [subject.implementation for subject in SUBJECTS if subject.chapter == chapter]
        Declared(deviations, chapter, names)
        # What is not at hand can not show whether it still deviates.
        declared = Declared([one for one in deviations if one.implementation in looked_at], chapter, names)
        outcomes: list[Any] = merged([one.outcome for _, findings in of_chapter for one in findings])
        for outcome in outcomes:
            if outcome.result == "broken" and not declared.expects(outcome):
                call = outcome.counterexample.call()
                yield f"not declared: {outcome.implementation} breaks {outcome.invariant}: {call}"
        yield from declared.unmet(outcomes)
