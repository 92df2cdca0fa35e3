"""`expert-placement-spec evidence`: the record of proofs and checks, and the words of SPEC.md that follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expert_placement_spec.evidence import (
    DOCUMENT,
    RECORD,
    Record,
    differences,
    read,
    read_as,
    record_in,
    record_of_coq,
    records_of_check,
    rendered,
    with_checks,
    written,
)


def evidence_command(
    folder: Annotated[Path, typer.Option(help=f"Where {DOCUMENT} and {RECORD} are.")] = Path("spec"),
    proofs: Annotated[Path | None, typer.Option(help="What `prove --record` wrote.")] = None,
    coq: Annotated[Path | None, typer.Option(help="What `spec/proofs/run.py --json` wrote.")] = None,
    check: Annotated[list[Path] | None, typer.Option(help="What `check --json` printed; may be repeated.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write both files, where they differ.")] = False,
) -> None:
    """Compare runs of provers and checkers with the record, and the record with SPEC.md; or write both."""
    old = read(folder / RECORD) if (folder / RECORD).exists() or not write else {}
    new = taken_in(old, proofs, coq, check or [])
    text = (folder / DOCUMENT).read_text(encoding="utf-8")
    lines = [f"{folder / RECORD}{line}" for line in differences(old, new)]
    # A run with another version of a tool is compared; what the document says is of the versions that are recorded.
    after = rendered(text, new if write else old)
    if after != text:
        lines.append(f"{folder / DOCUMENT}: not what is written from {RECORD}")
    if write:
        (folder / RECORD).write_text(written(new), encoding="utf-8")
        (folder / DOCUMENT).write_text(after, encoding="utf-8")
        print(f"{len(lines)} differences written")
        return
    for line in lines:
        print(line)
    print(f"{len(lines)} differences" if lines else "the record, the document and the runs agree")
    raise typer.Exit(1 if lines else 0)


def taken_in(old: Record, proofs: Path | None, coq: Path | None, check: list[Path]) -> Record:
    """The record with what runs gave in the place of what it had of them."""
    new = dict(old)
    if proofs is not None:
        new.update(read_as(proofs, "prove --record", record_in))
    if coq is not None:
        new.update(read_as(coq, "spec/proofs/run.py --json", record_of_coq))
    for path in check:
        new = with_checks(new, read_as(path, "check --json", records_of_check))
    for part in ("z3", "crosshair", "coq", "checks"):
        if part not in new:
            raise ValueError(f"the record has no `{part}`, expected --proofs, --coq and --check to give it")
    return {name: new[name] for name in ("command", "z3", "crosshair", "coq", "checks")}
