"""Nothing of the specification stands alone: headings, predicates, checks, broken implementations, proofs, vectors."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from expert_placement_spec import CHAPTERS, INVARIANTS
from expert_placement_spec.chapters import PARTITION
from expert_placement_spec.evidence import looked_at, read
from expert_placement_spec.exhaustive import SCOPES, laws_for
from expert_placement_spec.prove import LEMMA
from expert_placement_spec.reference import STRATEGIES

from tests.spec import broken_migrations, broken_placements, broken_plans, broken_routing, mutants
from tests.spec.orphans import Known, orphans

ROOT = Path(__file__).parents[2]
RECORD = read(ROOT / "spec/evidence.json")
SPEC = (ROOT / "spec/SPEC.md").read_text(encoding="utf-8")

BROKEN: list[Any] = [
    *mutants.MUTANTS,
    *broken_placements.BROKEN,
    *broken_plans.BROKEN,
    *broken_migrations.BROKEN,
    *broken_routing.BROKEN,
]
"""test_checks_reject.py and test_chapters.py show that each is rejected by the laws that it names."""


def checked() -> set[str]:
    """The laws that a checker runs, by its code, and that held in a run, by the record."""
    subjects = {law.subject for law in INVARIANTS.values()} - {"formulas"}
    run = {law.name for strategy in STRATEGIES for scope in SCOPES for law in laws_for(strategy, scope, subjects)}
    seen = looked_at(RECORD, PARTITION, "exhaustive") & run
    # No implementation shows its intermediates: the solver is the checker of that law.
    proved = {row["invariant"] for row in RECORD["z3"]["theorems"]}
    seen |= {law.name for law in INVARIANTS.values() if law.subject == "formulas"} & proved
    return seen.union(*(looked_at(RECORD, name, "exhaustive") & set(CHAPTERS[name].laws) for name in CHAPTERS))


def rejecting() -> set[str]:
    """The laws that reject something: a broken implementation, or, of formulas, a mutant of them."""
    formulas = {law.name for law in INVARIANTS.values() if law.subject == "formulas"}
    # The prover records no theorem for which it refutes no mutant, as test_proofs.py shows.
    refuted = {row["invariant"] for row in RECORD["z3"]["theorems"]}
    return set().union(*(broken.breaks for broken in BROKEN)) | (formulas & refuted)


def proofs() -> list[tuple[str, str]]:
    """What each tool proves of laws; lemmas, and Coq's theorems that say more than a law, have names of their own."""
    found = [("z3", row["invariant"]) for row in RECORD["z3"]["theorems"] if row["strategy"] != LEMMA]
    found += [("CrossHair", row["invariant"]) for row in RECORD["crosshair"]["contracts"]]
    return found + [("Coq", row["invariant"]) for row in RECORD["coq"]["theorems"] if row["invariant"]]


def python_readers() -> set[str]:
    """The files that the Python tests read: the keys of `READERS`, as they stand in the text."""
    tree = ast.parse((ROOT / "tests/vectors/reading.py").read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if any(isinstance(one, ast.Name) and one.id == "READERS" for one in targets) and isinstance(value, ast.Dict):
            return {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
    return set()


def rust_readers() -> set[str]:
    """The files that the crate's tests read: the names in `READERS`."""
    text = (ROOT / "rust/expert-placement/tests/it/vectors.rs").read_text(encoding="utf-8")
    block = re.search(r"^const READERS.*?^\];", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r'\("(\w+)", \w+\)', block[0])) if block else set()


def known() -> Known:
    """What there is."""
    return Known(
        headings=re.findall(r"^### (\w+)$", SPEC, flags=re.MULTILINE),
        predicates=[*INVARIANTS, *(law for chapter in CHAPTERS.values() for law in chapter.laws)],
        checked=checked(),
        rejecting=rejecting(),
        proofs=proofs(),
        vectors={path.stem for path in (ROOT / "spec/vectors").glob("*.json")},
        readers={"Python": python_readers(), "Rust": rust_readers()},
    )


def test_nothing_is_an_orphan() -> None:
    there = known()
    assert orphans(there) == []
    assert len(there.headings) > 170
    assert {tool for tool, _ in there.proofs} == {"z3", "CrossHair", "Coq"}
    assert {PARTITION, "placement", "migration", "routing"} <= there.vectors


PLANTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a heading alone": (
        {"headings": ["contiguous", "imagined"]},
        ["heading `imagined` has no predicate"],
    ),
    "a predicate alone": (
        {"predicates": ["contiguous", "unsaid"]},
        [
            "predicate `unsaid` has no heading",
            "predicate `unsaid` is run by no checker",
            "predicate `unsaid` rejects nothing",
        ],
    ),
    "a law that no checker runs": ({"checked": set()}, ["predicate `contiguous` is run by no checker"]),
    "a law that nothing breaks": ({"rejecting": set()}, ["predicate `contiguous` rejects nothing"]),
    "a broken implementation of no law": (
        {"rejecting": {"contiguous", "gone"}},
        ["something breaks `gone`, which is no predicate"],
    ),
    "a proof of nothing": ({"proofs": [("Coq", "renamed")]}, ["Coq proves `renamed`, which is no heading"]),
    "vectors that nobody reads": (
        {"vectors": {"partition", "forgotten"}},
        ["vectors `forgotten` have no reader in Python", "vectors `forgotten` have no reader in Rust"],
    ),
    "a reader of nothing": (
        {"readers": {"Python": {"partition"}, "Rust": {"partition", "gone"}}},
        ["Rust reads `gone`, which is no file of vectors"],
    ),
}
WHOLE = Known(
    headings=["contiguous"],
    predicates=["contiguous"],
    checked={"contiguous"},
    rejecting={"contiguous"},
    proofs=[("z3", "contiguous")],
    vectors={"partition"},
    readers={"Python": {"partition"}, "Rust": {"partition"}},
)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_orphan_is_found(name: str) -> None:
    changes, found = PLANTED[name]
    assert orphans(WHOLE) == []
    assert orphans(replace(WHOLE, **changes)) == found


def test_what_is_taken_away_from_the_real_specification_is_missed() -> None:
    there = known()
    for law in ("owner_inverts", next(iter(CHAPTERS["balance"].laws))):
        assert orphans(replace(there, headings=[name for name in there.headings if name != law]))
        assert orphans(replace(there, checked=there.checked - {law})) == [f"predicate `{law}` is run by no checker"]
        assert orphans(replace(there, rejecting=there.rejecting - {law})) == [f"predicate `{law}` rejects nothing"]
