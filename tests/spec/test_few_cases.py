"""The reference model and the package obey every law in a few cases of each domain, soon and in one process.

The whole of the domains is the work of `test_chapters.py` and of `make chapters`.
"""

from __future__ import annotations

import pytest
from expert_placement_spec import CHAPTERS
from expert_placement_spec.adapter import load_model
from expert_placement_spec.case_check import check_cases
from expert_placement_spec.cases import Chapter

from tests.spec.recording import some_of

EVERY = {"placement": 5, "balance": 7, "migration": 13, "routing": 5}
"""Of so many cases of the quick domain one is looked at; a prime, so that no part of a domain is always left out."""


PACKAGE = dict.fromkeys(("placement", "balance", "migration"), "expert_placement")
PACKAGE["routing"] = "expert_placement.conformance:RustRouting"


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("who", ["model", "package"])
def test_every_law_holds(chapter: str, who: str) -> None:
    """Domain: some hundred cases of the quick one. Cost: some seconds."""
    if who == "package":
        pytest.importorskip("torch", reason="tensors need torch")
    model = load_model(Chapter.reference if who == "model" else PACKAGE[chapter])
    about, cases = CHAPTERS[chapter], some_of(chapter, EVERY[chapter])
    outcomes = check_cases(about, model, list(about.laws.values()), cases)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert {one.result for one in outcomes} == {"holds"}
    assert len(cases) >= 100
