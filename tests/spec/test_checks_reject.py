"""The checkers themselves: each invariant rejects, by name, an implementation that breaks it, and only then."""

from __future__ import annotations

import dataclasses
from typing import Any

import expert_placement_spec
import numpy as np
import pytest
from expert_placement_spec import INVARIANTS, Domain, Workers, check, conformance, evaluate, invariants, reference
from expert_placement_spec.commands import check as check_command
from expert_placement_spec.grid import EVERY_RANK, Block, violations
from expert_placement_spec.implementation import MAP_METHODS, REFERENCE, load
from expert_placement_spec.prove import Symbolic, Term, prove
from expert_placement_spec.reference import STRATEGIES
from expert_placement_spec.sampled import sample, sample_one, sample_tables

from tests.spec import mutants, odd

SMALL = Domain(range(10), range(1, 7), wide=9)


def broken_by(name: str, **options: Any) -> dict[str, expert_placement_spec.Counterexample]:
    outcomes = check([name], SMALL, **options)
    return {one.invariant: one.counterexample for one in outcomes if one.counterexample is not None}


EXHAUSTED = [mutant for mutant in mutants.MUTANTS if mutant.breaks]


@pytest.mark.parametrize("mutant", EXHAUSTED, ids=lambda mutant: mutant.__name__)
def test_a_broken_implementation_is_rejected_by_name(mutant: type[mutants.Mutant]) -> None:
    broken = broken_by(f"tests.spec.mutants:{mutant.__name__}")
    assert mutant.breaks <= set(broken)


def test_every_invariant_has_a_mutant_that_it_rejects() -> None:
    rejected = set().union(*(mutant.breaks for mutant in mutants.MUTANTS))
    assert rejected == set(INVARIANTS) - {"no_intermediate_out_of_range"}


def test_the_reference_model_is_rejected_by_nothing() -> None:
    assert broken_by(REFERENCE) == {}


def test_every_counterexample_can_be_pasted_and_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0
    for mutant in EXHAUSTED:
        for name, example in broken_by(f"tests.spec.mutants:{mutant.__name__}").items():
            assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False, (
                name,
                example.call(),
            )
            found += 1
    assert found > len(EXHAUSTED)
    assert evaluate(REFERENCE, "contiguous", num_experts=30, num_ranks=8, r=6) is True


def test_the_counterexample_is_the_smallest() -> None:
    example = broken_by("tests.spec.mutants:RestOnLastRank")["balanced_within_one"]
    # Two experts over three ranks leave both on the last.
    assert (example.num_experts, example.num_ranks, dict(example.values)) == (2, 3, {"r": 2, "s": 0})


def test_processes_do_not_change_the_outcome() -> None:
    name = "tests.spec.mutants:RestOnLastRank"
    with Workers(2) as workers:
        assert broken_by(name, workers=workers) == broken_by(name)


def test_an_exception_names_the_partition_and_its_message() -> None:
    example = broken_by("tests.spec.mutants:RaisesWhereEqual")["answers_every_query"]
    assert (example.num_experts, example.num_ranks, example.message) == (3, 3, "ZeroDivisionError: three by three")


@pytest.mark.parametrize(
    ("mutant", "invariant"),
    [
        ("RestOnLastRank", "balanced_within_one"),
        ("OffsetIsRankTimesCount", "contiguous"),
        ("StartsBefore", "start_in_range"),
        ("SmallerSharesFirst", "larger_shares_first"),
        ("HoardsOnTheFirst", "largest_possible_minimum"),
        ("OwnerBeyondTheLast", "owner_in_range"),
        ("LocalIndexFromTheEnd", "order_preserved"),
    ],
)
def test_sampling_finds_and_shrinks(mutant: str, invariant: str) -> None:
    example = sample_one(load(f"tests.spec.mutants:{mutant}"), INVARIANTS[invariant], STRATEGIES, 400).counterexample
    assert example is not None
    assert max(example.num_experts, example.num_ranks) <= 4, example.call()


def test_sampling_names_a_partition_that_does_not_answer() -> None:
    outcome = sample_one(load("tests.spec.mutants:RaisesWhereLarge"), INVARIANTS["owner_in_range"], STRATEGIES, 400)
    example = outcome.counterexample
    assert example is not None
    assert (example.num_experts, example.message) == (1001, "OverflowError: too many experts")


def test_sampling_refuses_an_answer_that_is_no_integer() -> None:
    outcome = sample_one(load("tests.spec.mutants:TrueDivision"), INVARIANTS["owner_inverts"], STRATEGIES, 400)
    assert outcome.counterexample is not None
    assert outcome.counterexample.message.startswith("TypeError: ")


def test_sampling_holds_for_the_reference_model_and_repeats_itself() -> None:
    first, second = sample([REFERENCE], 50), sample([REFERENCE], 50)
    assert [(one.invariant, one.result, one.cases) for one in first] == [
        (one.invariant, one.result, one.cases) for one in second
    ]
    assert all(one.result == "holds" for one in first)


def test_samples_take_the_time_that_they_say() -> None:
    held = sample_one(load(REFERENCE), INVARIANTS["owner_inverts"], STRATEGIES, 50)
    broken = sample_one(load("tests.spec.mutants:RestOnLastRank"), INVARIANTS["balanced_within_one"], STRATEGIES, 50)
    assert (held.result, broken.result) == ("holds", "broken")
    assert min(held.seconds, broken.seconds) > 0


def rest_on_last_rank_count(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    base = num_experts // num_ranks
    return expert_placement_spec.logic.choose(rank == num_ranks - 1, num_experts - base * (num_ranks - 1), base)


def product_start(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    return reference.start(num_experts, num_ranks, rank, strategy) + 0 * (rank * num_experts)


def overflowing_owner(num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
    return (num_ranks * expert * 2**40) // (num_ranks * 2**40) % num_ranks


def negative_dividend(num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
    return ((expert - num_ranks) // num_ranks + 1) * 0 + reference.owner(num_experts, num_ranks, expert, strategy)


def linear_start(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    return reference.start(num_experts, num_ranks, rank, "linear")


REFUTED = [
    ("starts_follow_the_rule", "proportional", {"start": linear_start}),
    ("starts_follow_the_rule", "round_robin", {"start": linear_start}),
    ("no_intermediate_out_of_range", "round_robin", {"owner": overflowing_owner}),
    ("no_intermediate_out_of_range", "linear", {"owner": negative_dividend}),
    ("balanced_within_one", "linear", {"count": rest_on_last_rank_count}),
    ("smallest_possible_maximum", "round_robin", {"count": rest_on_last_rank_count}),
    ("contiguous", "linear", {"count": rest_on_last_rank_count}),
    ("counts_total_num_experts", "linear", {"count": lambda e, r, k, s: reference.count(e, r, k, s) + 1}),
    ("ends_meet", "proportional", {"start": lambda e, r, k, s: reference.start(e, r, k, s) + 1}),
    ("owner_in_range", "linear", {"owner": lambda e, r, x, s: reference.owner(e, r, x, s) + 1}),
    ("owner_inverts", "round_robin", {"local_index": lambda e, r, x, s: reference.local_index(e, r, x, s) + 1}),
    ("covers_exactly_once", "linear", {"owner": lambda e, r, x, s: x // (e // r + 1)}),
    ("no_intermediate_out_of_range", "linear", {"start": product_start}),
    ("growth_changes_one_rank", "linear", {"count": rest_on_last_rank_count}),
]


@pytest.mark.parametrize(
    ("name", "strategy", "functions"), REFUTED, ids=lambda value: ", ".join(value) if isinstance(value, dict) else value
)
def test_the_prover_refutes_a_broken_model(name: str, strategy: str, functions: dict[str, Any]) -> None:
    theorem = prove(INVARIANTS[name], strategy, mutants.model(**functions))
    assert theorem.result == "refuted", theorem


def test_the_prover_notices_a_premise_that_nothing_meets() -> None:
    law = INVARIANTS["contiguous"]
    impossible = type(law)(**vars(law) | {"requires": lambda p, r: r < 0})
    assert prove(impossible, "linear").result == "unsatisfiable premise"


def test_a_term_divides_as_python_does() -> None:
    import z3
    from expert_placement_spec.prove import ask

    p = Symbolic("linear")
    seven, three = Term(z3.IntVal(7), p.facts), Term(z3.IntVal(3), p.facts)
    wrong = z3.Not(((seven // three == 2) & (seven % three == 1)).expression)
    assert ask([*p.facts.constraints(), wrong])[0] == "unsat"


TRUTH = [
    lambda p, r: 5 <= p.count(r) < 7,
    lambda p, r: (p.count(r) == 7) and (p.count(r) >= 0),
    lambda p, r: (p.count(r) == 7) or (p.count(r) >= 0),
    lambda p, r: not (p.count(r) + 0 >= 7),
    lambda p, r: p.count(r) if p.num_experts else p.start(r),
    lambda p, r: (p.count(r) >= 0) & p.count(r),
    lambda p, r: p.count(r) >= 0.5,
]


@pytest.mark.parametrize("predicate", TRUTH)
def test_a_term_has_no_truth_value(predicate: Any) -> None:
    law = INVARIANTS["contiguous"]
    with pytest.raises(TypeError, match=r"has no truth value|expected a"):
        prove(type(law)(**vars(law) | {"predicate": predicate}), "linear")


def test_ids_of_another_kind_are_looked_up_as_what_they_are() -> None:
    # The law is true: rank r owns expert r * E // R onwards, so expert r is owned by a rank of 0..=r where R <= E.
    law = INVARIANTS["contiguous"]
    about_experts = type(law)(**vars(law) | {"requires": None, "predicate": lambda p, r: p.owner(r) == p.owner(r + 0)})
    block = Block(load(REFERENCE), "linear", [(5, 3), (4, 4)], {"rule"})
    assert violations(about_experts, block) == (7, None, None)


def test_an_invariant_must_state_itself_and_its_quantifiers() -> None:
    with pytest.raises(TypeError, match="needs a docstring"):
        invariants.invariant()(lambda p: True)
    with pytest.raises(TypeError, match="the parameters of"):
        invariants.invariant()(lambda p, x: True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("expert_placement_spec.reference", "is not of the form `module:attribute`"),
        ("no_such_module:Partition", "there is no module `no_such_module`"),
        ("expert_placement_spec.reference:Missing", "has no attribute `Missing`"),
        ("builtins:len", "asked for 3 experts over 2 ranks, it raised TypeError"),
        ("builtins:slice", "offers neither"),
    ],
)
def test_an_implementation_that_cannot_be_had_is_named(name: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load(name)


def test_evaluate_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="invariant `nonsense` is unknown"):
        evaluate(REFERENCE, "nonsense", num_experts=1, num_ranks=1)
    with pytest.raises(ValueError, match="contiguous is about r"):
        evaluate(REFERENCE, "contiguous", num_experts=1, num_ranks=1, s=0)
    with pytest.raises(ValueError, match="there is no point"):
        evaluate(REFERENCE, "contiguous", num_experts=1, num_ranks=1, r=1)


def test_what_an_implementation_lacks_is_named_for_each_invariant() -> None:
    outcomes = {one.invariant: one for one in check(["tests.spec.odd:Misspelt"], SMALL)}
    of_maps = {law.name for law in INVARIANTS.values() if law.subject == "maps"}
    lacking = {name: one.missing for name, one in outcomes.items() if one.result == "not offered"}
    others = {"uniform_when_divisible", "wrong_ids_are_refused", "maps_are_fresh"}
    assert lacking == dict.fromkeys(of_maps | others, ("expert_map",))
    assert outcomes["offsets_are_prefix_sums"].result == "holds"


def outcomes_of(name: str, domain: Domain = SMALL, **options: Any) -> dict[str, expert_placement_spec.Counterexample]:
    return {one.invariant: one.counterexample for one in check([name], domain, **options) if one.counterexample}


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_torch_is_checked_alike_in_numpy_and_in_torch_itself(device: str) -> None:
    """`cpu:0` is evaluated as a GPU is: in torch, with another kind of arrays."""
    pytest.importorskip("torch", reason="tensors need torch")
    assert outcomes_of("expert_placement.conformance:TorchPartition", device=device) == {}


ODD = {
    "WrongButForOneRank": "map_asked_alone_agrees",
    "SilentAtFiveRanks": "answers_every_query",
    "OneAtATime": "answers_every_query",
    "WorksInPlace": "answers_every_query",
    "ExtraAxis": "answers_every_query",
    "TooFewRows": "answers_every_query",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_implementations_are_refused_and_crash_nothing(name: str) -> None:
    assert ODD[name] in outcomes_of(f"tests.spec.odd:{name}")


@pytest.mark.parametrize("experts", [range(10), range(129, 145)])
def test_a_single_wrong_map_is_found(experts: range) -> None:
    domain = Domain(experts, range(1, 5), wide=144)
    assert set(outcomes_of("tests.spec.odd:WrongMaskOfRankZero", domain)) == {"map_asked_alone_agrees"}


@pytest.mark.parametrize("experts", [range(129), range(129, 257)])
def test_every_map_of_a_rank_has_its_turn_to_be_asked_alone(experts: range) -> None:
    """Domain: R in 1..=32, E in 0..=128, where all of a rank are asked, and in 129..=256, where one is."""
    for num_ranks in range(1, 33):
        asked = [pair for num_experts in experts for pair in Block.asked_alone((num_experts, num_ranks))]
        assert set(asked) == {(name, rank) for name in MAP_METHODS for rank in range(num_ranks)}
        # Of small partitions every rank is asked.
        ranks = [num_ranks if max(num_experts, num_ranks) <= EVERY_RANK else 1 for num_experts in experts]
        assert len(asked) == sum(ranks) * (4 if experts.start == 0 else 1)


@pytest.mark.parametrize("name", ["NarrowAnswers", "UnsignedAnswers"])
def test_right_answers_of_other_integer_types_are_right(name: str) -> None:
    assert outcomes_of(f"tests.spec.odd:{name}") == {}


def test_an_implementation_that_exits_is_an_error() -> None:
    with pytest.raises(ValueError, match="it raised SystemExit: 0"):
        load("tests.spec.odd:Exits")


def pasted(example: expert_placement_spec.Counterexample) -> Any:
    return eval(example.call(), {"expert_placement_spec": expert_placement_spec})


ALL_ODD = [
    name for name, value in vars(odd).items() if isinstance(value, type) and issubclass(value, reference.Partition)
]


NOT_TO_BE_ASKED = {
    "Interrupts",
    # This process would wait for its threads at its end.
    "LeavesThreads",
    "OddArrays",
    "RaisesManyArguments",
    "EndsItsProcessAtOnce",
    "EndsItsProcessWhereLarge",
    "CountsCalls",
    "Raising",
    "WithoutNames",
}


@pytest.mark.parametrize("name", sorted({*ALL_ODD} - {"Odd", "Exits", "EndsWorkers", "WrongOnce", *NOT_TO_BE_ASKED}))
def test_every_counterexample_of_an_odd_implementation_can_be_pasted(name: str) -> None:
    domain = Domain(range(6), range(1, 6), wide=6)
    for outcome in [*check([f"tests.spec.odd:{name}"], domain), *sample([f"tests.spec.odd:{name}"], 5)]:
        if outcome.counterexample is not None:
            assert pasted(outcome.counterexample) is False, outcome.counterexample.call()


def test_what_is_wrong_only_together_is_pasted_with_the_fewest_others() -> None:
    example = outcomes_of("tests.spec.odd:WrongTogether")["counts_total_num_experts"]
    assert len(example.together) == 2
    assert (example.num_experts, example.num_ranks) in example.together
    assert f", together={list(example.together)})" in example.call()
    assert example.point()["together"] == list(example.together)
    assert pasted(example) is False
    assert pasted(dataclasses.replace(example, together=())) is True


def test_what_is_silent_only_together_is_pasted_with_the_fewest_others() -> None:
    example = outcomes_of("tests.spec.odd:SilentTogether")["answers_every_query"]
    assert (len(example.together), example.message.partition(":")[0]) == (3, "ZeroDivisionError")
    assert pasted(example) is False


def test_what_is_wrong_once_says_so() -> None:
    odd.WrongOnce.asked = 0
    example = outcomes_of("tests.spec.odd:WrongOnce", Domain(range(2, 3), range(3, 4), wide=9))[
        "starts_follow_the_rule"
    ]
    assert example.message == "seen once and not again, so that answers depend on what was asked before"


def test_what_is_wrong_on_a_device_is_pasted_with_it() -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    name = "tests.spec.odd:WrongOnDevices"
    assert outcomes_of(name) == {}
    example = outcomes_of(name, device="cpu:0")["counts_total_num_experts"]
    assert example.call().endswith('num_experts=0, num_ranks=1, strategy="linear", device="cpu:0")')
    assert example.point()["device"] == "cpu:0"
    assert pasted(example) is False
    sampled = sample_one(load(name, "cpu:0"), INVARIANTS["ends_meet"], STRATEGIES, 50).counterexample
    assert sampled is not None
    assert sampled.device == "cpu:0"
    assert pasted(sampled) is False


def test_what_is_no_exception_is_a_counterexample_too() -> None:
    example = outcomes_of("tests.spec.odd:RaisesBeyondException")["answers_every_query"]
    assert (example.num_experts, example.num_ranks) == (3, 3)
    assert example.message == "Silence: its text raised Fatal"
    assert set(outcomes_of("tests.spec.odd:RefusesWithMore")) == {"wrong_ids_are_refused"}
    assert outcomes_of("tests.spec.odd:UniformRaises")["answers_every_query"].message == "OSError: not today"


def test_a_worker_that_an_implementation_ends_is_named_with_what_it_did() -> None:
    with pytest.raises(ValueError) as caught, Workers(2) as workers:  # noqa: PT011 - the whole message is compared
        check(["tests.spec.odd:EndsWorkers"], dataclasses.replace(SMALL, strategies=("linear",)), workers=workers)
    assert str(caught.value) == (
        "a worker process ended with exit code 0 while it checked implementation `tests.spec.odd:EndsWorkers`, "
        "strategy linear, scope alone, E in 0..=9, R in 1..=6 (60 partitions)"
    )


@pytest.mark.parametrize("name", ["odd:EndsItsProcessAtOnce", "ends_at_import:Partition"])
def test_an_implementation_that_ends_its_process_at_once_is_an_error(name: str) -> None:
    with pytest.raises(ValueError) as caught, Workers(1) as workers:  # noqa: PT011 - the whole message is compared
        check([f"tests.spec.{name}"], SMALL, workers=workers)
    assert str(caught.value) == (
        f"a worker process ended with exit code 0 while it checked implementation `tests.spec.{name}`, at its import "
        "or its first partition"
    )


def test_one_that_ends_its_process_for_large_partitions_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"by samples of") as caught, Workers(1) as workers:
        sample(["tests.spec.odd:EndsItsProcessWhereLarge"], 20, workers=workers)
    assert str(caught.value).startswith(
        "a worker process ended with exit code 0 while it checked implementation `tests"
    )


def test_answers_that_depend_on_the_order_of_calls_break_laws_and_not_the_check() -> None:
    outcomes = sample(["tests.spec.odd:CountsCalls"], 50)
    broken = [one.counterexample for one in outcomes if one.counterexample is not None]
    assert broken
    assert all("ValueError" not in one.message for one in broken)


def test_an_implementation_whose_attributes_raise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"odd:Raising`: a look at its attributes raised ZeroDivisionError: no name$"):
        load("tests.spec.odd:Raising")


@pytest.mark.parametrize("device", ["bogus", "meta"])
def test_a_device_that_holds_no_values_is_refused_by_every_implementation(device: str) -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    with pytest.raises(ValueError, match=rf"^device=`{device}` cannot be used: "):
        check([REFERENCE], SMALL, device=device)


class LinearAlone(reference.Partition):
    """An implementation of one strategy."""

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        if strategy != "linear":
            raise ValueError("only linear")
        super().__init__(num_experts, num_ranks, strategy)


def test_strategies_that_are_not_asked_for_are_not_sampled() -> None:
    name = "tests.spec.test_checks_reject:LinearAlone"
    outcomes = [*sample([name], 20, strategies=("linear",)), *sample_tables([name], 200, 9, strategies=("linear",))]
    assert {one.result for one in outcomes} == {"holds"}
    assert any(one.counterexample is not None for one in sample([name], 20))


class WithoutLists(odd.Odd):
    """It lists nothing."""

    def __getattribute__(self, name: str) -> Any:
        if name == "local_experts":
            raise AttributeError(name)
        return super().__getattribute__(name)


class LiesOfMaps(odd.Odd):
    """Maps asked alone are of another length, but for the one rank of each partition that large ones are asked."""

    def expert_map(self, rank: int) -> Any:
        """The index map, for one rank alone."""
        right = rank == 65537 * self.num_experts % self.num_ranks
        return np.array(super().expert_map(rank), dtype=np.int32) if right else np.zeros(7, dtype=np.int32)


def test_every_rank_of_small_partitions_is_asked_by_itself() -> None:
    assert "map_asked_alone_agrees" in broken_by("tests.spec.test_checks_reject:LiesOfMaps")


def test_maps_beyond_the_exhaustive_ones_are_sampled_however_large_the_domain_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The rule is sampled elsewhere.
    monkeypatch.setattr(conformance, "sample", lambda *_, **__: [])
    code = check_command.run(
        ["tests.spec.test_sampled_tables:WrongWhereLarge"],
        experts="0..=2048",
        ranks="1..=1",
        wide=8,
        samples=1001,
        processes=1,
        require=["maps"],
    )
    assert code == 1


@pytest.mark.parametrize(
    ("name", "invariant", "message"),
    [
        (REFERENCE, "no_intermediate_out_of_range", r"is about the formulas, which no implementation shows"),
        ("tests.spec.test_checks_reject:WithoutLists", "listed_completely", r"does not offer local_experts$"),
    ],
)
def test_what_can_not_be_observed_is_neither_true_nor_false(name: str, invariant: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(name, invariant, num_experts=3, num_ranks=2)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("RaisesTheNameless", "answers_every_query"),
        ("LiesOfDtypes", "tables_are_int32_of_stated_length"),
        ("LiesOfLengths", "answers_every_query"),
        ("TruthValues", "answers_every_query"),
        ("NoTruthValue", "answers_every_query"),
    ],
)
def test_what_looks_right_and_is_not_is_seen(name: str, law: str) -> None:
    example = broken_by(f"tests.spec.odd:{name}")[law]
    assert pasted(example) is False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OddArrays", r"OddArrays`: arrays is no str, expected `numpy` or `torch`$"),
        ("RaisesManyArguments", r"a look at its attributes raised ManyArguments: one$"),
        ("Interrupts", r"^a KeyboardInterrupt was raised by implementation `tests\.spec\.odd:Interrupts`"),
    ],
)
def test_what_an_implementation_raises_reaches_the_user_as_one_error(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), Workers(1) as workers:
        check([f"tests.spec.odd:{name}"], SMALL, workers=workers)


def test_what_shows_in_large_tables_alone_is_pasted_with_them() -> None:
    domain = Domain(range(5001, 5002), range(2, 3), wide=5001, strategies=("linear",))
    for name, invariant in (("AlwaysUniform", "uniform_when_divisible"), ("Clamps", "wrong_ids_are_refused")):
        example = outcomes_of(f"tests.spec.mutants:{name}", domain)[invariant]
        assert example.together == ((5001, 2),)
        assert example.message == ""
        assert pasted(example) is False
    with pytest.raises(
        ValueError, match=r"needs tables, which are made up to 4096 .* expected together=\[\(5000, 2\)\]"
    ):
        evaluate(REFERENCE, "uniform_when_divisible", num_experts=5000, num_ranks=2)
    with pytest.raises(ValueError, match="contiguous needs tables"):
        evaluate(REFERENCE, "contiguous", num_experts=5000, num_ranks=2)


def test_without_values_every_point_is_looked_at() -> None:
    assert evaluate(REFERENCE, "contiguous", num_experts=30, num_ranks=8) is True
    assert evaluate("tests.spec.mutants:RestOnLastRank", "balanced_within_one", num_experts=30, num_ranks=8) is False
    from_json: Any = [[29, 8], [30, 8]]
    assert evaluate(REFERENCE, "contiguous", num_experts=30, num_ranks=8, together=from_json) is True
    with pytest.raises(ValueError, match=r"something else than pairs"):
        evaluate(REFERENCE, "contiguous", num_experts=30, num_ranks=8, together=[(30, 8), (3,)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^together=\[\(1, 1\)\] lacks \(30, 8\)"):
        evaluate(REFERENCE, "contiguous", num_experts=30, num_ranks=8, together=[(1, 1)])


def test_a_point_or_a_law_that_does_not_exist_is_an_error() -> None:
    for options in ({"num_experts": -1}, {"num_ranks": 0}, {"strategy": "x"}, {"strategy": "round_robin"}):
        with pytest.raises(ValueError, match=r"is out of range|strategy="):
            evaluate(REFERENCE, "ends_meet", **{"num_experts": 3, "num_ranks": 2, **options})  # type: ignore[arg-type]
