"""The reference model, the compiled core and the torch implementation obey every invariant."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from expert_placement_spec import INVARIANTS, Domain, Workers, case_check, check
from expert_placement_spec.implementation import REFERENCE
from expert_placement_spec.sampled import sample
from expert_placement_spec.single import can_sample

COMPILED = "expert_placement:Partition"
TORCH = "expert_placement.conformance:TorchPartition"
IMPLEMENTATIONS = [REFERENCE, COMPILED, TORCH]

FORMULAS = {"no_intermediate_out_of_range"}
"""Proved of the formulas; an implementation does not show its intermediates."""
FASTER = {"tables_hold_the_rule", "map_asked_alone_agrees"}
"""About ways to ask many questions at once, which the compiled core does not have."""
ONE_BY_ONE = {
    "listed_in_local_order",
    "listed_completely",
    "rank_tables_agree_with_scalars",
    "expert_tables_agree_with_scalars",
    "ranges_agree_with_scalars",
    "wrong_ids_are_refused",
    "wrong_partitions_are_refused",
    "divisors_are_told",
    "uniform_when_divisible",
}
"""The torch implementation has no scalar queries: what they would say is checked in tests/torch."""


def hold(domain: Domain, implementations: list[str]) -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    with Workers(os.cpu_count() or 1) as workers:
        outcomes = check(implementations, domain, workers=workers)
    broken = [one.counterexample.call() for one in outcomes if one.counterexample is not None]
    assert broken == []
    for one in outcomes:
        result = "no cases" if one.invariant in FORMULAS else "holds"
        if one.implementation == COMPILED and one.invariant in FASTER:
            result = "no cases"
        if one.implementation == TORCH and one.invariant in ONE_BY_ONE:
            result = "not offered"
        assert one.result == result, one


def test_every_invariant_holds_up_to_128() -> None:
    """Domain: E in 0..=128, R in 1..=128, every rank, expert and pair; three strategies. Cost: about two minutes."""
    hold(Domain(range(129), range(1, 129), wide=128), IMPLEMENTATIONS)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_rule_holds_up_to_the_limits(implementation: str) -> None:
    """Domain: E and R up to 2^31 - 1, 400 points for each invariant."""
    pytest.importorskip("torch", reason="tensors need torch")
    outcomes = sample([implementation], 400)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert {one.invariant for one in outcomes if one.result == "holds"} == {
        law.name for law in INVARIANTS.values() if can_sample(law)
    }


@pytest.mark.parametrize("chapter", ["placement", "balance", "migration"])
def test_the_package_obeys_the_chapters_on_placements(chapter: str) -> None:
    """Domain: 150 random cases of each chapter, the same in every run; `make chapters` takes whole domains."""
    pytest.importorskip("torch", reason="tensors need torch")
    outcomes = case_check.sample(chapter, ["expert_placement"], 150)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert [one.invariant for one in outcomes if not one.offered] == []
    assert sum(one.cases for one in outcomes) > 1000


def test_prove_proves_every_theorem() -> None:
    """Domain: all E >= 0 and R >= 1, all three strategies. Cost: some half a minute, mutants included."""
    command = [sys.executable, "-m", "expert_placement_spec", "prove", "--tool", "z3", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    theorems = json.loads(result.stdout)
    assert [theorem for theorem in theorems if theorem["result"] != "proved" or not theorem["mutant"]] == []
    assert (result.returncode, result.stderr) == (0, "")
    provable = {(law.name, strategy) for law in INVARIANTS.values() if law.is_provable for strategy in law.strategies}
    assert {(one["invariant"], one["strategy"]) for one in theorems if one["strategy"] != "any"} == provable


@pytest.mark.cuda
def test_the_torch_implementation_holds_on_cuda() -> None:
    """Domain: E in 0..=128, R in 1..=128, every rank, expert and pair; three strategies; on a GPU."""
    torch = pytest.importorskip("torch", reason="tensors need torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    with Workers(os.cpu_count() or 1) as workers:
        outcomes = check([TORCH], Domain(range(129), range(1, 129), wide=128), device="cuda", workers=workers)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert {one.invariant for one in outcomes if one.result != "holds"} == FORMULAS | ONE_BY_ONE
