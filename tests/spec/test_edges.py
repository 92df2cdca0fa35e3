"""What the checkers say at their edges: what cannot be had, is of another shape, or is out of range, each once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import expert_placement_spec
import numpy as np
import pytest
import typer
import z3
from expert_placement_spec import case_check, command, processes, prove
from expert_placement_spec.adapter import Model, load_model
from expert_placement_spec.answers import POISON, Lookup
from expert_placement_spec.arrays import integers
from expert_placement_spec.balance.reference import rebalance
from expert_placement_spec.chapters import CHAPTERS
from expert_placement_spec.commands.prove import show
from expert_placement_spec.engines import look, record
from expert_placement_spec.engines.catalogue import SUBJECTS
from expert_placement_spec.engines.look import Finding
from expert_placement_spec.exhaustive import Counterexample, Domain
from expert_placement_spec.implementation import load
from expert_placement_spec.lines.command import named
from expert_placement_spec.lines.model import part, shaped
from expert_placement_spec.lines.protocol import encoded, plain
from expert_placement_spec.outcome import Outcome
from expert_placement_spec.placement.reference import Placement
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.plain import first_broken
from expert_placement_spec.reference import Partition
from expert_placement_spec.report import without_cases
from expert_placement_spec.routing.rule import buckets_of
from expert_placement_spec.vectors.folder import first_place
from expert_placement_spec.vectors.migration import ring

ANY_LAW: Any = next(iter(expert_placement_spec.INVARIANTS.values()))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_larger_domains_have_at_least_the_cases_of_smaller_ones(chapter: str) -> None:
    domains = CHAPTERS[chapter].domains
    numbers = [sum(1 for _ in domains[name].blocks()) for name in ("quick", "small", "full") if name in domains]
    assert numbers == sorted(numbers)
    assert numbers[0] > 0


@pytest.mark.parametrize("loading", [load, load_model])
def test_an_implementation_that_ends_the_program_is_refused(loading: Any) -> None:
    with pytest.raises(ValueError, match=r"raises_at_import:X`: its import raised .*not today"):
        loading("tests.spec.raises_at_import:X")


class OddArrays(Partition):
    """A model that says of its answers what nobody knows."""

    arrays: Any = "tensors"


class NoText(Partition):
    """A model that says nothing of its answers in words."""

    arrays: Any = 3


def test_arrays_of_no_known_library_are_refused() -> None:
    with pytest.raises(ValueError, match="arrays is `tensors`, expected `numpy` or `torch`"):
        load("tests.spec.test_edges:OddArrays")
    with pytest.raises(ValueError, match="arrays is no str, expected"):
        load("tests.spec.test_edges:NoText")


def raising(*_: Any, **__: Any) -> Any:
    raise SystemExit


def test_what_can_not_be_had_is_offered_or_not() -> None:
    placement = SimpleNamespace(from_physical_to_logical=raising)
    model = Model("odd", SimpleNamespace(Topology=raising, Placement=placement, plan_migration=raising))
    assert model.offers("plan.num_staged")
    assert not model.offers("Placement.digest")
    assert not model.offers("rebalance(max_moves)")


def test_tables_of_another_depth_are_refused_and_empty_ones_hold_nothing() -> None:
    with pytest.raises(ValueError, match="a table has 1 dimensions, expected 2"):
        Lookup([1, 2], 2)
    assert Lookup([], 2)(np.array([0, 1]), np.array([0, 0])).tolist() == [POISON, POISON]
    with pytest.raises(TypeError, match="9223372036854775808, expected an integer of at most 63 bits"):
        integers(np.array([2**63], dtype=np.uint64))


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: rebalance([[1.0]], 1, Topology(1), num_threads=0), ValueError, "num_threads=0 is out of range"),
        (lambda: rebalance([[1.0]], 1, Topology(1), max_moves=1), ValueError, "max_moves=1 needs a previous placement"),
        (lambda: Placement([[0]], -1, Topology(1)), ValueError, "num_experts=-1 is out of range"),
        (lambda: Placement([[[0]]], 1, Topology(1)), ValueError, "physical_to_logical has shape"),
        (lambda: Topology(2).node_of(2), IndexError, r"rank=2 is out of range, expected 0\.\.2"),
        (lambda: buckets_of([1.0, -1.0]), ValueError, r"weights=\[1.0, -1.0\], expected finite numbers"),
        (lambda: Domain(range(2**13), range(1, 2**13), 1), ValueError, "partitions, expected at most"),
        (lambda: Domain(range(2**40), range(1, 2), 1), ValueError, "expected at most .*: larger ones are sampled"),
        (lambda: first_broken(ANY_LAW, "ring", None), ValueError, "strategy=`ring`"),
        (lambda: plain(object()), TypeError, "a object is nothing that a line can hold"),
        (lambda: part("route", [], "load"), TypeError, "route answers without `load`"),
        (lambda: shaped([[1], [1, 2]], (2, 2), "i", np.int32), TypeError, "rows of different lengths"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(call: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        call()


def test_a_table_of_one_dimension_is_one_layer() -> None:
    assert Placement([0, 1], 2, Topology(1)).table == [[0, 1]]


def test_numbers_that_json_lacks_are_texts_in_arrays_too() -> None:
    assert encoded({"loads": np.array([1.0, np.inf])}) == b'{"loads":[1.0,"Infinity"]}\n'


def test_terms_are_taken_from_numbers_and_truths_from_bools() -> None:
    facts = prove.Facts()
    x = z3.Int("x")
    term, truth = prove.Term(x, facts), prove.Proposition(x > 0, facts)
    assert (5 - term).expression.eq(5 - x)
    assert prove.ask([(truth & True).expression, x < 1])[0] == "unsat"


def test_a_refuted_theorem_is_shown_with_its_counterexample(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"tool": "z3", "invariant": "contiguous", "strategy": "linear", "over": "all", "result": "refuted"}
    show([row | {"seconds": 1.0, "counterexample": "E = 3"}])
    assert capsys.readouterr().out.endswith("z3, contiguous, linear: refuted: E = 3\n")


def test_required_laws_without_cases_are_told() -> None:
    outcomes: list[Outcome[Any]] = [Outcome("a:B", "contiguous"), Outcome("a:B", "owner_inverts", cases=1)]
    (idle,) = without_cases(outcomes, {"contiguous", "owner_inverts"})
    assert str(idle) == "required, and no case to look at: contiguous of a:B"


def test_a_missing_field_is_named_with_its_place() -> None:
    assert first_place({"a": {}}, {"a": {"b": 1}}) == "a.b is missing"


def test_a_chain_that_does_not_come_back_is_no_ring() -> None:
    a, b, c = (0, 0), (0, 1), (0, 2)
    assert ring({a: b, b: a}, a) == 2
    assert ring({a: b, b: c}, a) == 0
    assert ring({a: b, b: c, c: b}, a) == 0


def test_tasks_say_what_they_were_about() -> None:
    tasks = (
        case_check.Task("placement", "x:Y", "quick", ("a", "block")),
        case_check.Loading("placement", "x:Y"),
        case_check.Sampling("placement", "x:Y", 60, 2),
        case_check.Shrinking("placement", "x:Y", "counts_are_counts", 60),
    )
    assert all(str(task).startswith("implementation `x:Y`") for task in tasks)
    assert len({str(task) for task in tasks}) == 4
    assert str(Counterexample("x:Y", "contiguous", 3, 2, "linear")).startswith("the counterexample ")


def test_ctrl_c_within_a_worker_is_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_notes", ([0, 0], 1))
    with pytest.raises(ValueError, match="a KeyboardInterrupt was raised by this"):
        processes.run_noted(interrupted, 0, "this")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, typer.Abort])
def test_an_interrupted_command_ends_with_130(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr(
        "expert_placement_spec.command.typer.main.get_command", lambda _: SimpleNamespace(main=interrupted)
    )
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130


def test_an_error_of_the_system_without_words_of_its_own_is_said_as_it_is() -> None:
    assert command.describe(OSError("no answer")) == "no answer"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"protocol": 1}, "its hello has not both `protocol` and `offers`"),
        ({"protocol": 1, "offers": [3]}, "its `offers` are no list of texts"),
    ],
)
def test_a_hello_that_says_too_little_is_refused(answer: dict[str, Any], said: str) -> None:
    line = json.dumps({"id": 0, "answer": answer})
    with pytest.raises(ValueError, match=said):
        load(named(f"sh -c 'read question; echo '\\''{line}'\\''; read question'"))


def test_what_came_of_a_function_is_recorded_and_shown() -> None:
    broken = Counterexample("x:Y", "contiguous", 3, 2, "linear", message="it raised")
    findings = [
        Finding(Outcome("x:Y", "covers", cases=7)),
        Finding(Outcome("x:Y", "contiguous", cases=2, counterexample=broken)),
        Finding(Outcome("x:Y", "owner", missing=("owner",)), "it has no owners"),
        Finding(Outcome("x:Y", "idle")),
    ]
    function = SimpleNamespace(version=lambda: "1.0", file="f.py", name="f")
    subject: Any = SimpleNamespace(
        title="engine `f`", engine="engine", function=function, implementation="x:Y", chapter="partition", domain="all"
    )
    entry = record.entry(subject, findings, "2026-01-01")
    assert entry["laws"] == {
        "covers": {"result": "holds", "cases": 7},
        "contiguous": {"result": "broken", "cases": 2, "counterexample": broken.call(), "raised": "it raised"},
        "owner": {"result": "not offered", "why_not": "it has no owners"},
        "idle": {"result": "no cases", "cases": 0},
    }
    page = record.as_markdown([entry], {("x:Y", "contiguous"): "a gap"})
    assert "| engine `f` | 1.0 | 2026-01-01 | 1 | 1 | 1 | 1 |" in page
    for words in ("Deviates from `contiguous`: a gap.", "since it has no owners: `owner`.", "that it takes: `idle`."):
        assert words in page


def test_every_function_says_which_cases_are_looked_at() -> None:
    assert all(subject.domain and subject.title for subject in SUBJECTS)


def test_no_law_is_no_outcome_and_a_random_counterexample_is_made_small() -> None:
    model = load_model("tests.spec.broken_placements:RepeatsTheLast")
    chapter = CHAPTERS["placement"]
    law = chapter.laws["lists_end_with_minus_one"]
    assert look.outcomes_of(SUBJECTS[0], "", model, [], 1) == []

    def small(case: Any) -> Any:
        return case if case.num_experts < 3 else None

    found = look.shrunk(chapter, model, law, small)
    assert found is not None
    assert small(found.case) is found.case
