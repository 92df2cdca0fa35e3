"""The proofs: what is not proved is called so, and each tool refutes what is wrong. `make prove` proves everything."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from expert_placement_spec import INVARIANTS, prove, reference, symbolic_run
from expert_placement_spec.command import run_program
from expert_placement_spec.commands import prove as prove_command
from expert_placement_spec.formula_mutants import FORMULAS, formula_mutants
from expert_placement_spec.plain import Plain, Traced, first_broken, is_case, obeys, small_cases
from expert_placement_spec.prove import Symbolic, paired, prove_lemmas, same_formulas, work
from expert_placement_spec.reference import MAX, STRATEGIES
from expert_placement_spec.symbolic_run import CONFIRMED, Limits, contract, contracts, run_contract, words

pytest.importorskip("crosshair", reason="contracts need CrossHair")

CONTIGUOUS_LAW = INVARIANTS["contiguous"]
ASKED = [(law, strategy) for law, strategy in contracts()]


def mutant(name: str) -> Any:
    (found,) = [one for one in formula_mutants() if one.name == name]
    return found.model


WRONG_COUNT = mutant("count: `rank < num_experts % num_ranks` becomes `rank <= num_experts % num_ranks`")


# Mutants


def test_mutants_change_every_function_and_are_told_apart() -> None:
    mutants = formula_mutants()
    assert len({one.name for one in mutants}) == len(mutants) >= 90
    assert {one.function for one in mutants} >= {*FORMULAS, "is_uniform", "_rank", "_expert", "experts", "map_length"}
    assert reference.count(30, 8, 0, "linear") == 4


def test_every_mutant_of_the_formulas_breaks_a_law_or_is_proved_to_be_the_same() -> None:
    """Domain: up to 5 experts, 4 ranks and 1 shared expert for laws; all E and R for what is the same."""
    laws = [(law, strategy) for law, strategy in ASKED + work()]
    same, by_lemma = [], []
    for one in formula_mutants():
        if any(first_broken(law, strategy, one.model) for law, strategy in laws):
            continue
        if all(same_formulas(one.model, strategy) == "proved" for strategy in STRATEGIES):
            same.append(one.name)
            continue
        # No implementation answers what all smaller ranks own together; the sum over ranks rests on it.
        total = INVARIANTS["counts_total_num_experts"]
        assert "refuted" in {prove.prove(total, strategy, one.model).result for strategy in STRATEGIES}, one.name
        by_lemma.append(one.function)
    assert set(by_lemma) == {"before"}
    assert all("becomes `2`" in name or "`0` becomes" in name or "expert <= boundary" in name for name in same), same


def test_the_model_takes_as_many_shared_experts_as_there_is_room_for() -> None:
    partition = reference.Partition(3, 2)
    for number in (-1, reference.MAX - 2):
        with pytest.raises(ValueError, match=f"num_shared_experts={number} is out of range, expected 0..=2147483644"):
            partition.expert_mask(0, number)
    partition._check_shared(reference.MAX - 3)
    partition._check_shared(0)


def test_a_formula_that_differs_is_not_called_the_same() -> None:
    assert same_formulas(WRONG_COUNT, "linear") == "refuted"
    assert same_formulas(WRONG_COUNT, "proportional") == same_formulas(reference, "linear") == "proved"


# Plain ints


def test_the_model_breaks_no_law_in_plain_ints() -> None:
    """Domain: up to 5 experts, 4 ranks and 1 shared expert."""
    for law, strategy in ASKED + work():
        assert first_broken(law, strategy, reference) is None, (law.name, strategy)
        assert any(True for _ in small_cases(law, strategy)), (law.name, strategy)


def test_numbers_of_branches_that_are_not_taken_take_no_part() -> None:
    taken = (Traced(3) < 4).choose(Traced(2) * 5, Traced(0) - 7)
    assert (taken.value, taken.computed) == (10, frozenset({10}))
    left = (Traced(4) < 4).choose(Traced(2) * 5, Traced(0) - 7)
    assert (left.value, left.computed) == (-7, frozenset({-7}))


def test_what_leaves_its_type_is_seen_in_plain_ints() -> None:
    law = INVARIANTS["no_intermediate_out_of_range"]
    values = {"r": 0, "e": MAX - 1}
    assert obeys(law, Plain(MAX, MAX, 0, "proportional"), values)
    wide = mutant("owner: `remainder * (base + 1)` becomes `remainder + (base + 1)`")
    assert obeys(law, Plain(MAX, 1, 0, "linear", wide), values)
    below_zero = mutant("local_index: `expert // num_ranks` becomes `expert % num_ranks`")
    assert obeys(law, Plain(MAX, 2, 0, "round_robin", below_zero), values)
    product_model = type(sys)("products")
    vars(product_model).update(vars(reference))
    product_model.start = lambda e, r, k, s: k * e * 0 + reference.start(e, r, k, s)  # type: ignore[attr-defined]
    assert not obeys(law, Plain(MAX, MAX, 0, "linear", product_model), {"r": MAX - 1, "e": 0})


# z3


def test_a_lemma_is_proved_and_stronger_ones_are_refuted() -> None:
    lemmas = prove_lemmas()
    assert len(lemmas) == 2
    assert all(lemma.result == "proved" and lemma.mutant for lemma in lemmas)


def test_what_the_solver_cannot_decide_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "TIMEOUT_SECONDS", 1)

    def fermat(p: Any, r: Any, s: Any, e: Any) -> Any:
        cubes = (r + 1) * (r + 1) * (r + 1) + (s + 1) * (s + 1) * (s + 1)
        return cubes != (e + 1) * (e + 1) * (e + 1)

    law = replace(CONTIGUOUS_LAW, predicate=fermat, quantifiers=("r", "s", "e"), requires=None)
    theorem = prove.prove(law, "linear")
    assert theorem.result == "unknown"
    assert paired(theorem, law) is theorem
    # A premise that cannot be decided is not called unsatisfiable.
    premise = replace(law, predicate=lambda p, r, s, e: r == r, requires=lambda p, r, s, e: ~fermat(p, r, s, e))
    assert prove.prove(premise, "linear").result == "unknown"


def test_a_theorem_that_no_mutant_is_refuted_for_is_none() -> None:
    law = replace(CONTIGUOUS_LAW, predicate=lambda p, r: p.count(r) == p.count(r), requires=None)
    theorem = prove.prove(law, "linear")
    assert theorem.result == "proved"
    assert paired(theorem, law).result == "no mutant"


def test_a_counterexample_of_the_solver_is_one_without_it() -> None:
    law = INVARIANTS["counts_total_num_experts"]
    example = prove.refutes(law, "linear", WRONG_COUNT)
    assert example is not None
    num_experts, num_ranks = example["E"], example["R"]
    counts = [WRONG_COUNT.count(num_experts, num_ranks, rank, "linear") for rank in range(num_ranks)]
    assert sum(counts) != num_experts
    assert prove.refutes(law, "linear", reference) is None


def test_symbolic_formulas_are_the_formulas() -> None:
    """Domain: up to 6 experts and 4 ranks: what the solver makes of a count is the count."""
    import z3

    for strategy, num_experts, num_ranks in product(STRATEGIES, range(7), range(1, 5)):
        p = Symbolic(strategy)
        count = p.count(prove.Term(z3.IntVal(num_ranks - 1), p.facts))
        fixed = [p.num_experts.expression == num_experts, p.num_ranks.expression == num_ranks]
        right = reference.count(num_experts, num_ranks, num_ranks - 1, strategy)
        known = [*fixed, *p.facts.constraints()]
        assert prove.ask([*known, count.expression != right])[0] == "unsat"
        assert prove.ask([*known, count.expression == right])[0] == "sat"


# CrossHair


def test_a_contract_is_confirmed_and_refuted_for_a_mutant() -> None:
    answer = run_contract(("contiguous", "linear"))
    assert (answer.result, answer.over) == (CONFIRMED, "all E and R")
    assert answer.mutant


def test_a_planted_wrong_model_is_refuted() -> None:
    law = INVARIANTS["counts_total_num_experts"]
    assert symbolic_run.refutes(law, "linear", WRONG_COUNT)
    assert not symbolic_run.refutes(law, "linear", reference)


def test_contracts_ask_the_class_of_the_model() -> None:
    lenient = mutant("_rank: `0 <= rank < self.num_ranks` becomes `0 <= rank <= self.num_ranks`")
    assert symbolic_run.refutes(INVARIANTS["wrong_ids_are_refused"], "round_robin", lenient)
    silent = mutant(
        "is_uniform: `self.num_experts % self.num_ranks == 0` becomes `self.num_experts % self.num_ranks != 0`"
    )
    assert symbolic_run.refutes(INVARIANTS["uniform_when_divisible"], "linear", silent)


def test_a_law_that_is_false_far_away_is_refuted() -> None:
    """No enumeration of small partitions finds it: the law is false for one E alone."""
    law = replace(CONTIGUOUS_LAW, predicate=lambda p, r: p.count(0) != 123_456_789, requires=None)
    said = words(contract(law, "linear", limits=Limits(ranks=2)))
    assert "when calling case(" in said
    assert first_broken(law, "linear", reference) is None


def test_a_contract_that_nothing_meets_or_nothing_breaks_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    for predicate, requires in (
        (lambda p, r: p.count(r) == 7, lambda p, r: r < 0),
        (lambda p, r: r == r, None),
    ):
        law = replace(CONTIGUOUS_LAW, predicate=predicate, requires=requires)
        monkeypatch.setitem(INVARIANTS, "contiguous", law)
        assert run_contract(("contiguous", "linear")).result == "no mutant is refuted"


def test_what_crosshair_cannot_decide_in_time_is_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic_run, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(symbolic_run, "FEW", {})
    answer = run_contract(("covers_exactly_once", "round_robin"))
    assert (answer.result, answer.mutant) == ("Not confirmed.", "")


def test_cases_of_contracts_are_those_of_the_law() -> None:
    law = INVARIANTS["local_index_inverts"]
    view = Plain(5, 3, 0, "linear")
    cases = [(r, i) for r, i in product(range(-1, 5), range(-1, 5)) if is_case(law, view, {"r": r, "i": i})]
    assert cases == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_without_crosshair_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"contracts need CrossHair: pip install 'expert-placement-spec\[proofs\]'"):
        symbolic_run.need_crosshair()


# The command


ROW = {
    "tool": "z3",
    "invariant": "contiguous",
    "strategy": "linear",
    "over": "all E and R",
    "seconds": 0.1,
    "mutant": "x",
}


@pytest.mark.parametrize("result", ["unknown", "refuted", "unsatisfiable premise", "no mutant", "Not confirmed."])
def test_anything_but_a_proof_fails_the_command_and_leaves_no_record(
    result: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(prove_command, "proved", lambda *_: [ROW | {"result": "proved"}, ROW | {"result": result}])
    record = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", ["expert-placement-spec", "prove", "--record", str(record)])
    assert run_program() == 1
    assert not record.exists()
    monkeypatch.setattr(prove_command, "proved", lambda *_: [ROW | {"result": "proved"}])
    assert run_program() == 0
    assert record.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tool", "isabelle"], "tool=`isabelle` is unknown, expected one of z3, crosshair"),
        (["--invariant", "nonsense"], "invariant=`nonsense` is unknown, expected one of ends_meet, "),
        (["--tool", "z3", "--record", "x"], "record=`x` is of everything, expected no --tool and no --invariant"),
    ],
)
def test_wrong_usage_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["expert-placement-spec", "prove", *arguments])
    assert run_program() == 2
    assert message in capsys.readouterr().err
