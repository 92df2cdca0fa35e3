"""The record of what was proved and checked agrees with the code and with SPEC.md, and anything else is noticed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from expert_placement_spec import CHAPTERS, INVARIANTS
from expert_placement_spec.cases import Chapter
from expert_placement_spec.chapters import PARTITION
from expert_placement_spec.command import run_program
from expert_placement_spec.evidence import (
    BEGIN,
    differences,
    read,
    record_of_coq,
    records_of_check,
    rendered,
    statuses,
    with_checks,
    written,
)
from expert_placement_spec.formula_mutants import formula_mutants
from expert_placement_spec.implementation import REFERENCE
from expert_placement_spec.prove import LEMMA, work
from expert_placement_spec.symbolic_run import contracts, limits_of

sys.path.insert(0, str(Path(__file__).parents[2] / "spec"))

from proofs.theorems import THEOREMS

FOLDER = Path(__file__).parents[2] / "spec"
SPEC = (FOLDER / "SPEC.md").read_text(encoding="utf-8")
RECORD = read(FOLDER / "evidence.json")


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RECORD), **parts}


def test_the_record_is_as_it_was_written() -> None:
    assert (FOLDER / "evidence.json").read_text(encoding="utf-8") == written(RECORD)


def test_the_record_has_the_theorems_of_the_code_and_no_others() -> None:
    theorems = RECORD["z3"]["theorems"]
    of_laws = [(row["invariant"], row["strategy"]) for row in theorems if row["strategy"] != LEMMA]
    assert of_laws == [(law.name, strategy) for law, strategy in work()]
    assert RECORD["z3"]["mutants"] == sum(one.is_formula for one in formula_mutants())


def test_the_record_has_the_contracts_of_the_code_and_their_domains() -> None:
    found = [(row["invariant"], row["strategy"], row["over"]) for row in RECORD["crosshair"]["contracts"]]
    assert found == [(law.name, strategy, str(limits_of(law, strategy))) for law, strategy in contracts()]


def test_the_record_has_the_theorems_of_coq_and_none_of_them_rests_on_an_axiom() -> None:
    rows = RECORD["coq"]["theorems"]
    found = [(row["name"], row["invariant"], tuple(row["strategies"])) for row in rows if row["file"] != "Link.v"]
    assert found == [(one.name, one.invariant, one.strategies) for one in THEOREMS]
    assert {row["assumptions"] for row in rows} == {"closed"}
    assert any(row["file"] == "Link.v" for row in rows)


def test_the_record_has_every_law_that_a_checker_can_look_at() -> None:
    laws = {PARTITION: [law.name for law in INVARIANTS.values() if law.subject != "formulas"]}
    laws |= {name: list(chapter.laws) for name, chapter in CHAPTERS.items()}
    for chapter, names in laws.items():
        entries = [entry for entry in RECORD["checks"] if entry["chapter"] == chapter]
        assert len(entries) >= 2, chapter
        assert set(names) == {law for entry in entries for law in entry["exhaustive"]}, chapter
        assert all(set(entry["real_sizes"]) <= set(names) for entry in entries)
        is_asked = [entry["implementation"] not in (REFERENCE, Chapter.reference) for entry in entries]
        assert [bool(entry["real_sizes"]) for entry in entries] == [one and chapter != PARTITION for one in is_asked]
        assert all(set(entry["sampled"]) <= set(names) and entry["cases"] > 0 for entry in entries)


def test_a_law_that_no_prover_reports_is_not_called_proved() -> None:
    fewer = changed()
    fewer["z3"]["theorems"] = [row for row in RECORD["z3"]["theorems"] if row["invariant"] != "contiguous"]
    assert statuses(RECORD)["contiguous"].startswith("proved for all E and R by z3 and Coq, ")
    assert statuses(fewer)["contiguous"].startswith("proved for all E and R by Coq, ")
    fewer["coq"]["theorems"] = [row for row in RECORD["coq"]["theorems"] if row["invariant"] != "contiguous"]
    assert not statuses(fewer)["contiguous"].startswith("proved")
    # One strategy of two is no proof of the law.
    half = changed()
    half["z3"]["theorems"].remove(
        next(row for row in half["z3"]["theorems"] if (row["invariant"], row["strategy"]) == ("contiguous", "linear"))
    )
    assert "z3" not in statuses(half)["contiguous"]
    assert rendered(SPEC, half) != SPEC


def test_a_law_for_which_nothing_was_done_is_refused() -> None:
    name = next(iter(CHAPTERS["placement"].laws))
    nothing = changed(checks=[entry for entry in RECORD["checks"] if entry["chapter"] != "placement"])
    with pytest.raises(ValueError, match=f"`{name}` is neither proved nor checked"):
        rendered(SPEC, nothing)


def test_a_document_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="the document has no part from"):
        rendered(SPEC.replace(BEGIN, ""), RECORD)
    with pytest.raises(ValueError, match="`contiguous` has 0 headings"):
        rendered(SPEC.replace("### contiguous\n", "### adjoining\n"), RECORD)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["expert-placement-spec", "evidence", *arguments])
    return run_program()


def copied(folder: Path) -> tuple[str, ...]:
    for name in ("SPEC.md", "evidence.json"):
        (folder / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    return ("--folder", str(folder))


def test_a_status_that_somebody_wrote_is_noticed_and_written_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = copied(tmp_path)
    assert run(monkeypatch, *where) == 0
    spoilt = SPEC.replace("### listed_completely", "### listed_completely", 1).replace(
        f"Status: {statuses(RECORD)['listed_completely']}.", "Status: proved for all E and R by z3."
    )
    assert spoilt != SPEC
    (tmp_path / "SPEC.md").write_text(spoilt, encoding="utf-8")
    assert run(monkeypatch, *where) == 1
    assert "SPEC.md: not what is written from evidence.json" in capsys.readouterr().out
    assert run(monkeypatch, *where, "--write") == 0
    assert (tmp_path / "SPEC.md").read_text(encoding="utf-8") == SPEC
    assert (tmp_path / "evidence.json").read_text(encoding="utf-8") == written(RECORD)


def test_a_run_that_proves_less_than_the_record_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = copied(tmp_path)
    proofs = tmp_path / "proofs.json"
    parts = {name: copy.deepcopy(RECORD[name]) for name in ("z3", "crosshair")}
    parts["z3"]["tool"] = "z3 99"
    proofs.write_text(written(parts), encoding="utf-8")
    # Another version that proves the same is no difference.
    assert run(monkeypatch, *where, "--proofs", str(proofs)) == 0
    parts["crosshair"]["contracts"][0]["over"] = "R <= 2"
    parts["z3"]["theorems"].pop()
    proofs.write_text(written(parts), encoding="utf-8")
    assert run(monkeypatch, *where, "--proofs", str(proofs)) == 1
    said = capsys.readouterr().out
    assert 'evidence.json/crosshair/contracts/0/over: "all E and R" in the record, "R <= 2" in the run' in said
    number = len(RECORD["z3"]["theorems"])
    assert f"evidence.json/z3/theorems: {number} entries in the record, {number - 1} in the run" in said


def test_reports_of_coq_and_of_checks_are_taken_in(tmp_path: Path) -> None:
    theorem: dict[str, Any] = {
        "name": "koenig",
        "file": "Batches.v",
        "statement": "s",
        "invariant": None,
        "strategies": [],
        "assumptions": "closed",
    }
    assert record_of_coq({"tool": "Coq 8", "theorems": [theorem]})["coq"]["theorems"] == [theorem]
    row = {"implementation": "a:B", "invariant": "contiguous", "result": "holds", "cases": 7}
    domain = {"experts": "0..=4", "ranks": "1..=4", "wide": 4, "alone": 4}
    report = {
        "domain": domain,
        "broken": 0,
        "exhaustive": [row, row | {"invariant": "x", "result": "not offered"}],
        "sampled": [],
    }
    (entry,) = records_of_check(report)
    assert (entry["exhaustive"], entry["sampled"], entry["cases"]) == (["contiguous"], [], 14)
    assert entry["domain"] == "E in 0..=4, R in 1..=4, pairs, maps and tables up to 4"
    again = with_checks({"checks": [entry]}, [entry | {"cases": 8}])
    assert [one["cases"] for one in again["checks"]] == [8]
    with pytest.raises(ValueError, match="has broken=1, expected 0"):
        records_of_check(report | {"broken": 1})


def test_differences_name_the_place() -> None:
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["/a/1/b: 2 in the record, 3 in the run"]
    assert differences({"a": 1}, {}) == ["/a: 1 in the record, null in the run"]
    assert differences(RECORD, json.loads(written(RECORD))) == []


DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", "holds a list, expected an object"), (DEEP, "is nested too deeply")],
)
def test_a_record_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(path)


@pytest.mark.parametrize("option", ["--proofs", "--coq", "--check"])
@pytest.mark.parametrize("text", ["{}", '{"a": 1}', '{"broken": 0, "exhaustive": 5, "theorems": 5, "z3": 1}'])
def test_what_another_command_wrote_is_refused(option: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "expert_placement_spec", "evidence", "--folder", str(FOLDER), option, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: `{path}` is not what `")
    assert ended.stderr.count("\n") == 1


def test_a_check_of_an_unknown_chapter_is_refused() -> None:
    with pytest.raises(ValueError, match="chapter=`nope` is unknown, expected partition, placement"):
        records_of_check({"chapter": "nope", "broken": 0, "exhaustive": [], "sampled": []})
