"""The Coq proofs pass, and what leaves something unproved, or differs from the reference model, is rejected."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from expert_placement_spec import INVARIANTS, reference
from expert_placement_spec.balance import replication
from expert_placement_spec.migration import batches

sys.path.insert(0, str(Path(__file__).parents[2] / "spec"))

from proofs import link, run
from proofs.theorems import FILES, THEOREMS

if TYPE_CHECKING:
    from collections.abc import Callable

PROOFS = Path(__file__).parents[2] / "spec/proofs"
needs_coq = pytest.mark.skipif(shutil.which("coqc") is None, reason="coqc is absent; spec/proofs/run.py installs it")


def changed(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the proofs with one text in one file replaced."""
    for each in FILES:
        text = (PROOFS / f"{each}.v").read_text(encoding="utf-8")
        if each == file:
            assert old in text
            text = text.replace(old, new, 1)
        (folder / f"{each}.v").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything but Link.v is compiled."""
    folder = tmp_path_factory.mktemp("proofs")
    for file in FILES:
        shutil.copy(PROOFS / f"{file}.v", folder)
        run.compile_file("coqc", folder, file)
    return folder


@needs_coq
def test_every_theorem_is_proved_and_reported(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run([sys.executable, PROOFS / "run.py", "--json", report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["tool"].startswith("Coq ")
    theorems = {theorem["name"]: theorem for theorem in content["theorems"]}
    assert len(theorems) == len(content["theorems"]) == len(THEOREMS) + len(link.tables(link.Model()))
    assert all(theorem["assumptions"] == "closed" for theorem in theorems.values())
    assert all(theorem["statement"].endswith(".") for theorem in theorems.values())
    for name, law in INVARIANTS.items():
        if law.is_provable:
            assert theorems[name]["invariant"] == name
            assert theorems[name]["strategies"] == list(law.strategies)
    assert all(f"{name} " in done.stdout for name in theorems)


WRONG: dict[str, link.Model] = {}


def wrong(name: str, field: str, model: Any, function: str, replacement: Callable[..., Any]) -> None:
    """Registers a model that is wrong in one function."""
    WRONG[name] = link.Model(**{field: SimpleNamespace(**{**vars(model), function: replacement})})


def off_in_one_place(function: Callable[..., Any], place: tuple[Any, ...]) -> Callable[..., Any]:
    """The function with one value that is one too large."""
    return lambda *arguments: function(*arguments) + (arguments == place)


MAX = reference.MAX
COUNT = off_in_one_place(reference.count, (23, 11, 5, "proportional"))
START = off_in_one_place(reference.start, (MAX, MAX, MAX - 1, "linear"))
OWNER = off_in_one_place(reference.owner, (24, 12, 23, "round_robin"))
LOCAL_INDEX = off_in_one_place(reference.local_index, (MAX, 2, MAX - 1, "proportional"))
ENTRY = off_in_one_place(reference.map_entry, ("mask", 5, 3, 2, 0, 7, "linear"))
wrong("count", "partition", reference, "count", COUNT)
wrong("start at the edge", "partition", reference, "start", START)
wrong("owner", "partition", reference, "owner", OWNER)
wrong("local index at the edge", "partition", reference, "local_index", LOCAL_INDEX)
wrong("mask", "partition", reference, "map_entry", ENTRY)
wrong(
    "replication",
    "replication",
    replication,
    "replica_counts",
    lambda loads, rooms: sorted(one_more_room(loads, rooms)),
)
wrong("batches", "batches", batches, "colour", lambda transfers: list(range(len(transfers))))
wrong("number of batches", "batches", batches, "fewest_batches", len)


def one_more_room(loads: list[float], rooms: list[int]) -> list[int]:
    """The replicas of a layer with one slot more."""
    return replication.replica_counts(loads, [rooms[0] + 1, *rooms[1:]])


@needs_coq
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_of_the_model_is_rejected(name: str, compiled: Path) -> None:
    right = {table.theorem: table.rows for table in link.tables(link.Model())}
    # What differs stands alone, so that it is seen in seconds; the whole table is compared where the proofs are run.
    tables = [table for table in link.tables(WRONG[name]) if table.rows != right[table.theorem]]
    assert tables
    for table in tables:
        differing = [row for row in table.rows if row not in right[table.theorem]]
        assert differing
        for rows, accepted in ((right[table.theorem][:20], True), (differing[:20], False)):
            text = link.written_tables([replace(table, rows=rows)])
            (compiled / "Link.v").write_text(text, encoding="utf-8")
            if accepted:
                run.compile_file("coqc", compiled, "Link")
            else:
                with pytest.raises(run.ProofError, match=r"does not accept Link\.v\n(?s:.*)Unable to unify"):
                    run.compile_file("coqc", compiled, "Link")


@needs_coq
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if r <? E mod R then 1 else 0", "if r <=? E mod R then 1 else 0"),
        ("least r (E mod R)", "r"),
        ("((e + 1) * R - 1)", "(e * R)"),
        ("| round_robin => e mod R", "| round_robin => e / R"),
        ("e <? boundary", "e <=? boundary"),
    ],
)
def test_a_wrong_formula_is_rejected_by_the_proofs(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(run.ProofError, match=r"does not accept (Partition|Machine)\.v"):
        run.check(changed(tmp_path, "Rule", old, new))


@needs_coq
@pytest.mark.parametrize(
    "planted",
    ["Hypothesis planted : False.", "Local Axiom planted : False.", "Lemma planted : False. Proof. Admitted."],
)
def test_an_axiom_is_found_by_what_coq_says(planted: str, tmp_path: Path) -> None:
    text = "Theorem honest : True. Proof. exact I. Qed.\nTheorem rests : 0 = 1. Proof. destruct planted. Qed.\n"
    text = f"{planted}\n{text}"
    (tmp_path / "Planted.v").write_text(text, encoding="utf-8")
    run.compile_file("coqc", tmp_path, "Planted")
    run.check_assumptions("coqc", tmp_path, ["Planted.honest"])
    with pytest.raises(run.ProofError, match=r"theorem `Planted.rests` is not closed\nAxioms:"):
        run.check_assumptions("coqc", tmp_path, ["Planted.honest", "Planted.rests"])


@needs_coq
def test_a_theorem_that_coq_does_not_know_is_rejected(compiled: Path) -> None:
    run.check_assumptions("coqc", compiled, ["Partition.ends_meet"])
    with pytest.raises(run.ProofError, match="was not found"):
        run.check_assumptions("coqc", compiled, ["Partition.ends_meet", "Partition.absent"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Proof. intros. now apply next_start. Qed.", "Admitted.", r"Partition\.v says `Admitted`"),
        ("Proof. intros. now apply next_start. Qed.", "Proof. admit. Qed.", r"Partition\.v says `admit`"),
        ("(** * Ranks *)", "Axiom planted : False.", r"Partition\.v says `Axiom`"),
        ("Theorem contiguous ", "Theorem adjacent ", "theorem `contiguous` is listed and absent"),
        ("Theorem contiguous ", "Lemma contiguous ", "theorem `contiguous` is listed and absent"),
        ("Theorem contiguous ", "(* Theorem contiguous *) Lemma contiguous ", "does not begin a line|absent"),
        ("Lemma first_start ", "Theorem first_start ", "theorem `first_start` of Partition.v is not listed"),
        ("starts where the one before", "starts before the one that", "does not say what the invariant says"),
        ("(** Each rank starts where the one before it ends. *)\n", "", "has no sentence above it"),
        ("(** * Growth *)", "(** * Growth", "a comment does not end"),
    ],
)
def test_what_is_not_proved_or_not_listed_is_rejected(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(run.ProofError, match=message):
        run.check(changed(tmp_path, "Partition", old, new))


def test_an_invariant_of_the_formulas_without_a_theorem_is_rejected(tmp_path: Path) -> None:
    sources = changed(tmp_path, "Partition", "Theorem contiguous ", "Lemma contiguous ")
    fewer = [theorem for theorem in THEOREMS if theorem.name != "contiguous"]
    with pytest.raises(run.ProofError, match="invariant `contiguous` speaks of the formulas and has no theorem"):
        run.check(sources, theorems=fewer)


def test_a_theorem_that_corresponds_to_no_invariant_is_rejected() -> None:
    with pytest.raises(run.ProofError, match="`koenigs`, which is no invariant"):
        run.check(theorems=[each if each.name != "koenig" else replace(each, invariant="koenigs") for each in THEOREMS])


def test_a_file_that_is_absent_or_not_listed_is_rejected(tmp_path: Path) -> None:
    sources = changed(tmp_path, "Rule", "", "")
    (sources / "Other.v").write_text("Axiom planted : False.\n", encoding="utf-8")
    with pytest.raises(run.ProofError, match="'Other'"):
        run.check(sources)
    (sources / "Other.v").unlink()
    (sources / "Maps.v").unlink()
    with pytest.raises(run.ProofError, match=r"expected .*'Maps'"):
        run.check(sources)


def test_a_missing_coq_that_cannot_be_installed_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("proofs failed: coqc is missing, ")
    assert said.count("\n") == 1
