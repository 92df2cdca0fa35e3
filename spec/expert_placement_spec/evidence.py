"""What is proved and checked, as a record of runs and as the words of SPEC.md that are written from it.

The record, `evidence.json`, holds what provers and checkers said when they ran, with versions of tools and no times, so
that another run gives the same. SPEC.md has it in a line at each invariant and in the table of "What is proved, checked
and trusted". Nobody edits these: `expert-placement-spec evidence --write` does.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.formula_mutants import formula_mutants
from expert_placement_spec.invariants import INVARIANTS, Invariant
from expert_placement_spec.outcome import shown
from expert_placement_spec.prove import LEMMA, TYPES
from expert_placement_spec.report import REPORT_PARTS
from expert_placement_spec.single import can_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Record = dict[str, Any]
T = TypeVar("T")

COMMAND = "make evidence"
DOCUMENT, RECORD = "SPEC.md", "evidence.json"
BEGIN = "<!-- Written by `expert-placement-spec evidence --write` from evidence.json; not by hand. -->"
END = "<!-- Here ends what is written from evidence.json. -->"

ALL_NUMBERS = "all E and R"

BY_HAND = (
    "| the compiled core obeys the invariants of the rule, of tables and offsets, of pairs and of maps | the crate's "
    "own tests | u8 in full, and larger squares (`make exhaustive`) |",
    "| the torch implementation obeys the invariants on CUDA | the tests marked `cuda`, where there is a device | E in "
    "0..=128, R in 1..=128 |",
    "| an implementation that obeys the laws agrees with the model | `starts_follow_the_rule`, `contiguous`, "
    "`counts_total_num_experts` and `owner_inverts` leave no choice of a start, count, owner or local index: all "
    "answers for E, R <= 3 were looked at | where these are checked |",
)
"""Rows that follow from no run of a tool that is recorded."""

TRUSTED = (
    "| z3, Coq's kernel, CrossHair's model of Python, CPython, numpy, hypothesis | trusted | |",
    "| what rustc and LLVM make of the crate, and Triton and the CUDA compiler of the kernels | reached by no tool "
    "here, but by running the result on the domains above | |",
    "| torch, the driver, the GPU, the CPU and its memory | reached by no tool here | |",
    "| that the rule and the laws are those that are wanted | trusted | |",
)
"""What no proof and no check here reaches."""


def record_of_proofs(rows: list[dict[str, Any]]) -> Record:
    """The part of the record that a run of `prove` gives, all of whose theorems were proved and have a mutant.

    Which mutant is refuted first depends on where a solver happens to look, so that its name is not recorded.
    """
    theorems = [row for row in rows if row["tool"] == "z3"]
    contracts = [row for row in rows if row["tool"] == "crosshair"]
    return {
        "z3": {
            "tool": f"z3 {version('z3-solver')}",
            "mutants": sum(one.is_formula for one in formula_mutants()),
            "theorems": [{name: row[name] for name in ("invariant", "strategy")} for row in theorems],
        },
        "crosshair": {
            "tool": f"CrossHair {version('crosshair-tool')}",
            "contracts": [
                {name: row[name] for name in ("invariant", "strategy", "over", "result")} for row in contracts
            ],
        },
    }


def record_in(content: Record) -> Record:
    """The part of the record that `prove --record` wrote."""
    return {name: content[name] for name in ("command", "z3", "crosshair")}


def record_of_coq(report: dict[str, Any]) -> Record:
    """The part of the record that a run of `spec/proofs/run.py --json` gives."""
    names = ("name", "file", "statement", "invariant", "strategies", "assumptions")
    return {
        "coq": {
            "tool": report["tool"],
            "theorems": [{name: theorem[name] for name in names} for theorem in report["theorems"]],
        }
    }


def records_of_check(report: dict[str, Any]) -> list[Record]:
    """The entries of the record that a run of `check --json` gives, one for each implementation.

    Raises:
        ValueError: a law was broken in it.
    """
    chapter = report.get("chapter", PARTITION)
    if chapter not in (PARTITION, *CHAPTERS):
        raise ValueError(
            f"chapter=`{shown(str(chapter), 100)}` is unknown, expected {', '.join((PARTITION, *CHAPTERS))}"
        )
    if report["broken"]:
        raise ValueError(f"a check of chapter=`{chapter}` has broken={report['broken']}, expected 0")
    # A check of partitions has no cases of real sizes.
    parts = {part: held(report.get(part, [])) for part in REPORT_PARTS}
    cases: dict[str, int] = {}
    for row in report["exhaustive"]:
        cases[row["implementation"]] = cases.get(row["implementation"], 0) + row["cases"]
    return [
        {
            "chapter": chapter,
            "implementation": name,
            "domain": domain_in_words(chapter, report["domain"]),
            "cases": number,
            **{part: laws.get(name, []) for part, laws in parts.items()},
        }
        for name, number in cases.items()
    ]


def held(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The laws that hold of each implementation."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["result"] == "holds":
            found.setdefault(row["implementation"], []).append(row["invariant"])
    return found


def domain_in_words(chapter: str, domain: dict[str, Any]) -> str:
    """The domain of a check, as the table has it."""
    if chapter != PARTITION:
        return f"the domain `{domain['name']}` of the chapter {chapter}"
    wide = "" if domain["wide"] == domain["alone"] else f", asked one by one up to {domain['alone']}"
    return f"E in {domain['experts']}, R in {domain['ranks']}, pairs, maps and tables up to {domain['wide']}{wide}"


def written(record: Record) -> str:
    """A record as text."""
    return json.dumps({"command": COMMAND, **record}, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"`{path}` is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"`{path}` holds a {type(found).__name__}, expected an object")
    return found


def read_as(path: Path, what: str, taken: Callable[[dict[str, Any]], T]) -> T:
    """What a JSON file of some command is taken for.

    Args:
        path: the file.
        what: the command that writes such files.
        taken: what makes something of the content.

    Raises:
        ValueError: it is no JSON, or none that the command writes.
    """
    content = read(path)
    try:
        return taken(content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"`{path}` is not what `{what}` writes: {type(error).__name__}: {error}") from None


def provers_of(record: Record, law: Invariant) -> list[str]:
    """The tools that prove a law of the partition for all of its strategies."""
    strategies = set(law.strategies)
    by_z3 = {row["strategy"] for row in record["z3"]["theorems"] if row["invariant"] == law.name}
    by_coq = {name for row in record["coq"]["theorems"] if row["invariant"] == law.name for name in row["strategies"]}
    return [tool for tool, found in (("z3", by_z3), ("Coq", by_coq)) if strategies <= found]


def confirmed(record: Record, law: Invariant) -> str:
    """What CrossHair says of a law, empty where it is no contract for all of its strategies."""
    rows = {row["strategy"]: row["over"] for row in record["crosshair"]["contracts"] if row["invariant"] == law.name}
    if set(rows) != set(law.strategies):
        return ""
    few = {strategy: over for strategy, over in rows.items() if over != ALL_NUMBERS}
    said = "confirmed by CrossHair"
    if not few:
        return said
    if len(few) == len(rows) and len(set(few.values())) == 1:
        return f"{said} for {next(iter(few.values()))}"
    return f"{said} ({'; '.join(f'{strategy} for {over}' for strategy, over in few.items())})"


def looked_at(record: Record, chapter: str, part: str) -> set[str]:
    """The laws that were seen to hold of some implementation: `exhaustive`, `sampled` or `real_sizes`."""
    return {law for entry in record["checks"] if entry["chapter"] == chapter for law in entry[part]}


def statuses(record: Record) -> dict[str, str]:
    """The line of each law in SPEC.md that says what is done about it."""
    found = {}
    for law in INVARIANTS.values():
        provers = provers_of(record, law)
        limits = " within their limits" if law.name == TYPES else ""
        parts = [f"proved for {ALL_NUMBERS}{limits} by {' and '.join(provers)}"] if provers else []
        parts += [confirmed(record, law)] if confirmed(record, law) else []
        parts += ["checked"] if law.name in looked_at(record, PARTITION, "exhaustive") else []
        if law.name in looked_at(record, PARTITION, "sampled"):
            parts.append("sampled up to the limits" if can_sample(law) else "sampled")
        found[law.name] = ", ".join(parts)
    for name, chapter in CHAPTERS.items():
        coq = {row["invariant"] for row in record["coq"]["theorems"]}
        for one in chapter.laws:
            parts = ["the model's rule proved by Coq"] if one in coq else []
            parts += ["checked"] if one in looked_at(record, name, "exhaustive") else []
            parts += ["sampled"] if one in looked_at(record, name, "sampled") else []
            parts += ["in real sizes"] if one in looked_at(record, name, "real_sizes") else []
            found[one] = ", ".join(parts)
    return found


def table(record: Record) -> str:
    """The table of what is proved, checked and trusted."""
    rows = ["| what | how | over |", "|---|---|---|", *rows_of_proofs(record), *rows_of_checks(record)]
    return "\n".join([*rows, *BY_HAND, *TRUSTED])


def rows_of_proofs(record: Record) -> list[str]:
    """The rows of the three provers."""
    z3, crosshair, coq = record["z3"], record["crosshair"], record["coq"]
    laws = {row["invariant"] for row in z3["theorems"]} & set(INVARIANTS)
    theorems = [row for row in z3["theorems"] if row["strategy"] != LEMMA]
    sources = [row for row in crosshair["contracts"] if row["over"] == ALL_NUMBERS]
    few = dict.fromkeys(row["over"] for row in crosshair["contracts"] if row["over"] != ALL_NUMBERS)
    of_laws = {row["invariant"] for row in coq["theorems"] if row["invariant"]}
    links = [row for row in coq["theorems"] if row["file"] == "Link.v"]
    return [
        f"| the formulas obey {len(laws)} invariants | {z3['tool']}, from the predicates and the model above: "
        f"{len(theorems)} theorems, one for each strategy, each refuted for one of {z3['mutants']} mutants of the "
        "formulas | all E >= 0, R >= 1 and ids; for types E and R within their limits |",
        f"| the source of the model obeys {len({row['invariant'] for row in crosshair['contracts']})} invariants | "
        f"{crosshair['tool']}: {len(crosshair['contracts'])} contracts confirmed over all paths, each refuted for a "
        f"mutant | {len(sources)} for all E and R within their limits, {len(crosshair['contracts']) - len(sources)} "
        f"for few ({'; '.join(few)}) |",
        f"| definitions of the same formulas, and the theory of replicas and batches, with {len(of_laws)} laws among "
        f"it | {coq['tool']}: {len(coq['theorems'])} theorems, without axioms | all natural numbers; that the "
        f"definitions are the model's by evaluation, {len(links)} theorems |",
    ]


def rows_of_checks(record: Record) -> list[str]:
    """A row for each implementation and chapter that was checked."""
    rows = []
    for entry in record["checks"]:
        number, sampled = len(entry["exhaustive"]), len(entry["sampled"])
        real = f", {len(entry['real_sizes'])} in real sizes" if entry["real_sizes"] else ""
        rows.append(
            f"| `{entry['implementation']}` obeys {number} laws of the chapter {entry['chapter']} | checked, "
            f"{entry['cases']:,} cases, and {sampled} sampled{real} | {entry['domain']} |"
        )
    return rows


def rendered(document: str, record: Record) -> str:
    """SPEC.md with the lines and the table that follow from the record.

    Raises:
        ValueError: a law has nothing to say for it, or the document has no place for what is said.
    """
    for name, status in statuses(record).items():
        if not status:
            raise ValueError(f"`{name}` is neither proved nor checked in the record")
        pattern = rf"(^### {name}\n(?:(?!^##).)*?^Status: )([^\n]*)$"
        found = re.findall(pattern, document, flags=re.MULTILINE | re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"`{name}` has {len(found)} headings with a line `Status: `, expected 1")
        head, line = found[0]
        document = document.replace(head + line, f"{head}{status}.", 1)
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no part from `{BEGIN}` to `{END}`")
    return f"{before}{BEGIN}\n\n{table(record)}\n\n{END}{after}"


def with_checks(record: Record, entries: list[Record]) -> Record:
    """The record with entries in the place of those of the same chapter and implementation."""
    checks = {(one["chapter"], one["implementation"]): one for one in record.get("checks", [])}
    checks |= {(one["chapter"], one["implementation"]): one for one in entries}
    order = {chapter: place for place, chapter in enumerate((PARTITION, *CHAPTERS))}
    return {**record, "checks": sorted(checks.values(), key=lambda one: order[one["chapter"]])}


VERSION = "tool"
"""The name under which a record has the version of a tool; another one may well prove the same."""


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two records differ in something else than versions, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys(name for name in (*old, *new) if name != VERSION)
        return [line for name in names for line in differences(old.get(name), new.get(name), f"{where}/{name}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for place, pair in pairs for line in differences(*pair, f"{where}/{place}")]
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list):
        return [f"{where}: {len(old)} entries in the record, {len(new)} in the run"]
    return [f"{where}: {json.dumps(old)} in the record, {json.dumps(new)} in the run"]
