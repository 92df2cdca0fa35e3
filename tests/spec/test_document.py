"""SPEC.md and the code say the same: no heading without a predicate, no predicate without a heading."""

from __future__ import annotations

import re
from pathlib import Path

from expert_placement_spec import CHAPTERS, INVARIANTS
from expert_placement_spec.evidence import read, rendered
from expert_placement_spec.exhaustive import SCOPES, laws_for
from expert_placement_spec.reference import STRATEGIES
from expert_placement_spec.single import can_sample

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "spec/SPEC.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", SPEC, flags=re.MULTILINE | re.DOTALL))
LAWS = {name: law for chapter in CHAPTERS.values() for name, law in chapter.laws.items()}


def test_headings_are_the_invariants_in_their_order() -> None:
    assert list(SECTIONS) == [*INVARIANTS, *LAWS]
    assert len(re.findall(r"^### ", SPEC, flags=re.MULTILINE)) == len(INVARIANTS) + len(LAWS)


def test_laws_about_cases_stand_in_their_chapter_with_sentence_quantifiers_and_status() -> None:
    chapters = dict(re.findall(r"^## (Invariants of \w+)\n(.*?)(?=^## )", SPEC, flags=re.MULTILINE | re.DOTALL))
    assert len(chapters) == len(CHAPTERS)
    for text, chapter in zip(chapters.values(), CHAPTERS.values(), strict=True):
        assert re.findall(r"^### (\w+)$", text, flags=re.MULTILINE) == list(chapter.laws)
    for law in LAWS.values():
        section = SECTIONS[law.name]
        assert section.startswith(f"\n{law.sentence}\n"), law.name
        assert f"    for every {', '.join((law.subject, *law.quantifiers))}: " in section, law.name
        assert len(re.findall(r"^Status: ", section, flags=re.MULTILINE)) == 1, law.name


def test_the_numbers_of_cases_are_those_of_the_domains() -> None:
    for name, chapter in CHAPTERS.items():
        (row,) = re.findall(rf"^\| {name} \|(.*)$", SPEC, flags=re.MULTILINE)
        quick = chapter.domains["quick"]
        cases = sum(1 for block in quick.blocks() for _ in quick.cases(block))
        assert f"{cases:,}" in row.split("|")[0], (name, cases)


def test_each_heading_repeats_the_sentence_the_quantifiers_and_the_strategies() -> None:
    for law in INVARIANTS.values():
        section = SECTIONS[law.name]
        assert section.startswith(f"\n{law.sentence}\n"), law.name
        strategies = "" if law.strategies == STRATEGIES else f" ({' and '.join(law.strategies)})"
        assert f"for every {', '.join(('p', *law.quantifiers))}{strategies}: " in section, law.name


def test_the_table_and_each_status_are_written_from_the_record_of_what_ran() -> None:
    """`test_evidence.py` compares the record with the code, and shows that other records give other words."""
    assert rendered(SPEC, read(ROOT / "spec/evidence.json")) == SPEC


def test_each_status_says_no_less_than_what_the_code_can_do() -> None:
    for law in INVARIANTS.values():
        status = re.search(r"^Status: (.*)\.$", SECTIONS[law.name], flags=re.MULTILINE)
        assert status is not None
        assert status[1].startswith("proved for all E and R") == (law.is_provable or "by Coq" in status[1]), law.name
        assert (", checked" in f", {status[1]}") == (law.subject != "formulas"), law.name
        assert ("sampled up to the limits" in status[1]) == can_sample(law), law.name


def test_every_invariant_is_run_by_some_checker() -> None:
    subjects = {law.subject for law in INVARIANTS.values()} - {"formulas"}
    checked = {law.name for strategy in STRATEGIES for scope in SCOPES for law in laws_for(strategy, scope, subjects)}
    proved = {law.name for law in INVARIANTS.values() if law.is_provable}
    assert checked | proved == set(INVARIANTS)
    assert all(any(laws_for(strategy, scope, subjects) for strategy in STRATEGIES) for scope in SCOPES)


def test_the_native_laws_are_all_those_of_the_rule_and_of_maps() -> None:
    source = (ROOT / "rust/expert-placement/src/laws.rs").read_text(encoding="utf-8")
    names = re.findall(r'[\[(]\s*"(\w+)",\s*\|(?!tables\|)', source)
    assert len(names) == len(set(names))
    spoken_of = {law.name for law in INVARIANTS.values() if law.subject in ("rule", "maps")}
    # A slice of i32 of the stated length is what the crate's functions take.
    tables = {"rank_tables_agree_with_scalars", "expert_tables_agree_with_scalars", "offsets_are_prefix_sums"}
    assert set(names) == spoken_of - {"maps_are_int32_of_stated_length"} | tables


def test_code_that_cites_a_chapter_cites_one_that_exists() -> None:
    chapters = set(re.findall(r"^## (.+)$", SPEC, flags=re.MULTILINE))
    cited = set()
    for folder in ("rust", "python", "spec/expert_placement_spec"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".rs", ".py") and "target" not in path.relative_to(ROOT).parts:
                text = re.sub(r"\n\s*(//!|///|#)?\s*", " ", path.read_text(encoding="utf-8"))
                cited |= set(re.findall(r'SPEC\.md, "([^"]+)"', text))
    assert cited
    assert cited <= chapters
