"""Checks the proofs with Coq: `python spec/proofs/run.py`, with `--json FILE` for a report.

Everything is compiled anew in a folder that is thrown away. A theorem counts if Coq accepts it and says of it "Closed
under the global context": then it rests on no axiom and on nothing that was left unproved. The run fails on any other
word, on a theorem that is listed and absent, on one that is present and not listed, on an invariant of the formulas
that has no theorem, and where Coq's definitions and the reference model differ.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from expert_placement_spec.chapters import CHAPTERS
from expert_placement_spec.invariants import INVARIANTS
from proofs.link import Model, Table, tables, written_tables
from proofs.theorems import FILES, THEOREMS, Listed

HERE = Path(__file__).resolve().parent
LIBRARY = "ExpertPlacement"
CLOSED = "Closed under the global context"
FORBIDDEN = ("Admitted", "admit", "Abort", "Axiom", "Axioms", "Conjecture", "Parameter", "Parameters", "bypass_check")
"""Words that leave something unproved, or hide it; a section's variables and hypotheses are none of these."""


class ProofError(Exception):
    """What is wrong, in one line or with Coq's own words after it."""


@dataclass(frozen=True)
class Proved:
    """A theorem that was checked."""

    name: str
    file: str
    statement: str
    invariant: str | None
    strategies: tuple[str, ...]
    assumptions: str = "closed"


def find_coq() -> str:
    """The compiler `coqc`, after installing Debian's package where it is absent and that is possible.

    Raises:
        ProofError: it is absent and cannot be installed.
    """
    found = shutil.which("coqc")
    if found is None:
        install_coq()
        found = shutil.which("coqc")
    if found is None:
        raise ProofError("coqc is missing, install Coq 8.16 or later first: on Debian the package `coq`")
    return found


def install_coq() -> None:
    """Installs Debian's package as root, or with sudo where it asks for no password; else does nothing."""
    if shutil.which("apt-get") is None:
        return
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0:
            return
        prefix = ["sudo", "-n"]
    print("coqc is missing: installing the package `coq`", flush=True)
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "coq"]):
        subprocess.run([*prefix, "apt-get", "-q", *arguments], stdout=subprocess.DEVNULL, check=False)


def version_of(coqc: str) -> str:
    """The compiler's name and version, such as `Coq 8.16.1`.

    Raises:
        ProofError: it does not say.
    """
    said = subprocess.run([coqc, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"version (\S+)", said)
    if version is None:
        raise ProofError(f"`{coqc} --version` names no version")
    return f"Coq {version[1]}"


def without_comments(text: str) -> str:
    """The text of a file without its comments, which may stand inside one another.

    Raises:
        ProofError: a comment does not end.
    """
    depth, kept = 0, []
    for part in re.split(r"(\(\*|\*\))", text):
        if part == "(*":
            depth += 1
        elif part == "*)" and depth:
            depth -= 1
        elif depth == 0:
            kept.append(part)
    if depth:
        raise ProofError("a comment does not end")
    return "".join(kept)


def statements(text: str) -> dict[str, str]:
    """The names of a file's theorems, each with the sentence above it, empty where there is none."""
    found = re.findall(r"(?:\(\*\*((?:(?!\*\)).)*)\*\)\n)?^Theorem (\w+)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(sentence.split()) for sentence, name in found}


def check_sources(texts: dict[str, str], theorems: list[Listed]) -> dict[str, str]:
    """The sentence of each listed theorem.

    Raises:
        ProofError: files, theorems or invariants do not match the list, or something is left unproved.
    """
    said: dict[str, str] = {}
    for file, text in texts.items():
        code = without_comments(text)
        for word in FORBIDDEN:
            if re.search(rf"\b{word}\b", code):
                raise ProofError(f"{file}.v says `{word}`, which leaves something unproved")
        there, listed = statements(text), {theorem.name for theorem in theorems if theorem.file == file}
        if len(re.findall(r"\bTheorem\b", code)) != len(there):
            raise ProofError(f"{file}.v has a theorem that does not begin a line, or two of one name")
        for name in sorted(listed - set(there)):
            raise ProofError(f"theorem `{name}` is listed and absent from {file}.v")
        for name in sorted(set(there) - listed):
            raise ProofError(f"theorem `{name}` of {file}.v is not listed")
        said.update(there)
    for theorem in theorems:
        if theorem.file not in texts:
            raise ProofError(f"theorem `{theorem.name}` is listed for {theorem.file}.v, which is absent")
        check_sentence(theorem, said[theorem.name])
    for name, law in INVARIANTS.items():
        if law.is_provable and name not in said:
            raise ProofError(f"invariant `{name}` speaks of the formulas and has no theorem")
    return said


def check_sentence(theorem: Listed, sentence: str) -> None:
    """Refuses a theorem without a sentence, and one that has an invariant's name and another sentence or strategies.

    Raises:
        ProofError: it is so.
    """
    if not sentence:
        raise ProofError(f"theorem `{theorem.name}` has no sentence above it")
    known = {name for chapter in CHAPTERS.values() for name in chapter.laws}
    if theorem.invariant is not None and theorem.invariant not in known | set(INVARIANTS):
        raise ProofError(f"theorem `{theorem.name}` corresponds to `{theorem.invariant}`, which is no invariant")
    law = INVARIANTS.get(theorem.name)
    if law is not None and (sentence, theorem.strategies) != (law.sentence, law.strategies):
        raise ProofError(f"theorem `{theorem.name}` does not say what the invariant says: {law.sentence}")


def compile_file(coqc: str, folder: Path, file: str) -> None:
    """Compiles one file in the folder.

    Raises:
        ProofError: Coq does not accept it.
    """
    command = [coqc, "-q", "-Q", ".", LIBRARY, f"{file}.v"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip()
        raise ProofError(f"Coq does not accept {file}.v\n{said[:2000]}")


def check_assumptions(coqc: str, folder: Path, names: list[str]) -> None:
    """Asks Coq what the theorems, given as File.name, rest on: all together, and each where that is something.

    Raises:
        ProofError: one rests on something.
    """
    # Asking costs about as much for one as for all, because what they share is most of it.
    together = f"({', '.join(f'@{LIBRARY}.{name}' for name in names)})"
    if assumptions(coqc, folder, names, {"everything": together})["everything"] == CLOSED:
        return
    for name, said in assumptions(coqc, folder, names, {name: f"@{LIBRARY}.{name}" for name in names}).items():
        if said != CLOSED:
            raise ProofError(f"theorem `{name}` is not closed\n{said}")
    raise ProofError("the theorems are closed one by one, and not together")


def assumptions(coqc: str, folder: Path, names: list[str], terms: dict[str, str]) -> dict[str, str]:
    """What Coq says that each term rests on."""
    lines = [f"From {LIBRARY} Require {' '.join(sorted({name.partition('.')[0] for name in names}))}."]
    for number, term in enumerate(terms.values()):
        # Each answer has a file of its own, so that none can be taken for another's.
        lines += [f"Definition term{number} := {term}.", f'Redirect "answer{number}" Print Assumptions term{number}.']
    (folder / "Assumptions.v").write_text("\n".join(lines) + "\n", encoding="utf-8")
    compile_file(coqc, folder, "Assumptions")
    said = [(folder / f"answer{number}.out").read_text(encoding="utf-8").strip() for number in range(len(terms))]
    return dict(zip(terms, said, strict=True))


def check(sources: Path = HERE, model: Model | None = None, theorems: list[Listed] | None = None) -> dict[str, Any]:
    """Checks all proofs, and gives the report.

    Args:
        sources: the folder of the .v files.
        model: what Coq's definitions are compared with; the reference model without other word.
        theorems: which theorems there have to be.

    Raises:
        ProofError: something is not proved.
    """
    theorems = THEOREMS if theorems is None else theorems
    there = {path.stem for path in sources.glob("*.v")}
    if there != set(FILES):
        raise ProofError(f"the files are {sorted(there)}, expected {sorted(FILES)}")
    texts = {file: (sources / f"{file}.v").read_text(encoding="utf-8") for file in FILES}
    said = check_sources(texts, theorems)
    coqc = find_coq()
    linked = tables(model or Model())
    texts["Link"] = written_tables(linked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / f"{file}.v").write_text(text, encoding="utf-8")
            compile_file(coqc, folder, file)
        names = [f"{theorem.file}.{theorem.name}" for theorem in theorems]
        check_assumptions(coqc, folder, names + [f"Link.{table.theorem}" for table in linked])
    return {"tool": version_of(coqc), "theorems": [vars(proved) for proved in all_proved(theorems, said, linked)]}


def all_proved(theorems: list[Listed], said: dict[str, str], linked: list[Table]) -> list[Proved]:
    """The theorems of a run that did not fail, those of Link.v last."""
    proved = [Proved(one.name, f"{one.file}.v", said[one.name], one.invariant, one.strategies) for one in theorems]
    return proved + [Proved(table.theorem, "Link.v", table.statement, None, table.strategies) for table in linked]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command, and gives the exit code: 0 where all is proved, 1 elsewhere."""
    parser = argparse.ArgumentParser(description="Check the proofs with Coq.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here, too")
    options = parser.parse_args(arguments)
    try:
        report = check()
    except ProofError as error:
        print(f"proofs failed: {error}", file=sys.stderr)
        return 1
    for theorem in report["theorems"]:
        strategies = ", ".join(theorem["strategies"])
        print(f"{theorem['file']:<13} {theorem['name']:<47} {theorem['assumptions']:<7} {strategies}".rstrip())
    print(f"{len(report['theorems'])} theorems proved with {report['tool']}, none of which rests on an axiom")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
