"""Placements, plans, migrations: the reference model obeys every law, and each law rejects by name what breaks it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import expert_placement_spec
import pytest
from expert_placement_spec import CHAPTERS, Workers, evaluate_case
from expert_placement_spec.adapter import Model, load_model
from expert_placement_spec.answers import NotRefusedError, all_refused
from expert_placement_spec.balance import homes, optimum, replication
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.case_check import check_cases, exhaust, sample, shrunk
from expert_placement_spec.cases import Chapter
from expert_placement_spec.command import run_arguments
from expert_placement_spec.law import Laws
from expert_placement_spec.migration.batches import colour, fewest_batches, split
from expert_placement_spec.model import Placement, Topology, plan_migration, rebalance

from tests.spec import broken_migrations, broken_placements, broken_plans, broken_routing

if TYPE_CHECKING:
    from expert_placement_spec.case_check import CaseCounterexample

ROOT = Path(__file__).parents[2]
BROKEN: dict[str, list[Any]] = {
    "placement": broken_placements.BROKEN,
    "balance": broken_plans.BROKEN,
    "migration": broken_migrations.BROKEN,
    "routing": broken_routing.BROKEN,
}
EVERY = [
    pytest.param(chapter, broken, id=f"{chapter}-{broken.__name__}") for chapter in BROKEN for broken in BROKEN[chapter]
]


def name_of(broken: Any) -> str:
    return f"{broken.__module__}:{broken.__name__}"


def rejections(chapter: str, broken: Any) -> dict[str, CaseCounterexample]:
    """A counterexample to each law that must reject a broken implementation, as far as there is one."""
    about, model = CHAPTERS[chapter], load_model(name_of(broken))
    left = {name: about.laws[name] for name in sorted(broken.breaks)}
    found: dict[str, CaseCounterexample] = {}
    domain = about.domains["quick"]
    for case in (case for block in domain.blocks() for case in domain.cases(block)):
        for outcome in check_cases(about, model, list(left.values()), [case]):
            if outcome.counterexample is not None:
                found[outcome.invariant] = outcome.counterexample
                del left[outcome.invariant]
        if not left:
            break
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_reference_model_obeys_every_law(chapter: str) -> None:
    """Domain: the quick one of SPEC.md, "How placements are checked", and 100 random cases. Cost: some seconds."""
    with Workers(2) as workers:
        outcomes = exhaust(chapter, [Chapter.reference], "quick", workers=workers)
        sampled = sample(chapter, [Chapter.reference], 100, workers=workers)
    assert [one.counterexample.call() for one in outcomes + sampled if one.counterexample is not None] == []
    assert {one.result for one in outcomes} == {"holds"}
    # Premises as narrow as a single slot on every rank may be met by none of the few random cases.
    assert {one.result for one in sampled} <= {"holds", "no cases"}


@pytest.mark.parametrize(("chapter", "broken"), EVERY)
def test_a_broken_implementation_is_rejected_by_name(chapter: str, broken: Any) -> None:
    found = rejections(chapter, broken)
    assert set(found) == broken.breaks
    for law, example in found.items():
        assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False, (law, example.call())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_law_rejects_something(chapter: str) -> None:
    assert set().union(*(broken.breaks for broken in BROKEN[chapter])) == set(CHAPTERS[chapter].laws)


def test_names_of_laws_are_told_apart() -> None:
    names = [*expert_placement_spec.INVARIANTS, *(law for chapter in CHAPTERS.values() for law in chapter.laws)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("chapter", "broken", "law", "most"),
    [
        ("placement", broken_placements.RepeatsTheLast, "lists_end_with_minus_one", (3, 2)),
        ("balance", broken_plans.LosesAnExpert, "plan_leaves_no_expert_out", (1, 1)),
        ("migration", broken_migrations.WritesAtOnce, "interruptions_lose_nothing", (8, 4)),
    ],
)
def test_sampling_finds_and_shrinks(chapter: str, broken: Any, law: str, most: tuple[int, int]) -> None:
    found = shrunk(CHAPTERS[chapter], load_model(name_of(broken)), CHAPTERS[chapter].laws[law], 200)
    assert found is not None
    assert found.case.size[:2] <= most, found.call()


def test_the_counterexample_is_the_smallest_and_does_not_depend_on_processes() -> None:
    name = name_of(broken_placements.NodesInTurn)
    alone = exhaust("placement", [name], "quick")[0]
    with Workers(2) as workers:
        shared = exhaust("placement", [name], "quick", workers=workers)[0]
    assert alone.counterexample == shared.counterexample
    assert alone.counterexample is not None
    assert alone.counterexample.call() == (
        f'expert_placement_spec.evaluate_case("{name}", "nodes_are_blocks_of_ranks", num_experts=1, table=[[0, -1]], '
        "topology={'num_ranks': 3, 'num_nodes': 2, 'slots_per_rank': [1, 1, 0], 'speeds': [1.0, 2.0, 0.5]}, "
        "loads=[[[1.0]], [[3.0]]], at={'r': 1})"
    )


def test_what_an_implementation_lacks_is_not_offered() -> None:
    outcomes = exhaust("placement", ["tests.spec.test_chapters:OnlyTables"], "quick")
    results = {one.invariant: one.result for one in outcomes}
    assert results["table_is_kept"] == "holds"
    assert results["load_is_conserved"] == results["digest_is_the_stated_hash"] == "not offered"
    with pytest.raises(ValueError, match="offers no rebalance"):
        exhaust("balance", ["tests.spec.test_chapters:OnlyTables"], "quick")


class OnlyTables:
    """A placement that gives its table and nothing else."""

    Topology = Topology

    class Placement:
        def __init__(self, placement: Placement) -> None:
            self.physical_to_logical = placement.physical_to_logical
            self.num_layers, self.num_experts = placement.num_layers, placement.num_experts
            self.num_slots, self.num_ranks = placement.num_slots, placement.num_ranks

        @classmethod
        def from_physical_to_logical(cls, table: Any, num_experts: int, topology: Topology) -> Any:
            return cls(Placement(table, num_experts, topology))


@pytest.mark.parametrize("chapter", ["balance", "migration"])
def test_limits_are_asked_of_those_that_have_them(chapter: str) -> None:
    """Domain: 150 random cases, limits among them."""
    outcomes = sample(chapter, ["tests.spec.test_chapters:WithoutLimits"], 150)
    if chapter == "balance":
        # It plans with the limit that everybody has who is asked for none.
        domain, model = CHAPTERS[chapter].domains["quick"], load_model("tests.spec.test_chapters:WithoutLimits")
        cases = [case for block in domain.blocks() if block.kind == "groups" for case in domain.cases(block)]
        outcomes += check_cases(CHAPTERS[chapter], model, [CHAPTERS[chapter].laws["no_step_helps"]], cases[::3])
    limits = ("(max_off_node)", "(min_gain)", "(max_node_transfers)", "(max_staged)", "capacity_curve", "least_slots")
    laws = CHAPTERS[chapter].laws
    lacking = {name for name, law in laws.items() if any(need.endswith(limits) for need in law.needs)}
    assert {one.invariant for one in outcomes if one.result == "not offered"} == lacking
    assert {one.result for one in outcomes} <= {"holds", "not offered", "no cases"}
    assert len(lacking) >= 6


class WithoutLimits:
    """The reference model as it is without limits and curves."""

    Topology, Placement = Topology, Placement

    @staticmethod
    def rebalance(
        loads: Any,
        num_slots: int,
        topology: Any,
        policy: str = "balanced",
        num_groups: int = 1,
        previous: Any = None,
        max_moves: int | None = None,
        num_threads: int = 1,
    ) -> Any:
        return rebalance(loads, num_slots, topology, policy, num_groups, previous, max_moves, num_threads)

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return plan_migration(old, new)


def test_who_knows_no_previous_placement_is_given_none() -> None:
    """Domain: 150 random cases, some of them warm starts."""
    outcomes = {one.invariant: one for one in sample("balance", ["tests.spec.test_chapters:FromNothing"], 150)}
    assert {one.result for one in outcomes.values()} <= {"holds", "not offered", "no cases"}
    assert outcomes["budget_is_kept"].result == "not offered"
    assert outcomes["plan_leaves_no_expert_out"].cases > 50


class FromNothing:
    """The reference model without warm starts."""

    Topology, Placement = Topology, Placement

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Any, policy: str = "balanced", num_groups: int = 1) -> Any:
        return rebalance(loads, num_slots, topology, policy, num_groups)


def test_an_exception_is_a_counterexample_with_its_message() -> None:
    migration = CHAPTERS["migration"]
    case = migration.case.of(num_experts=1, old=[[0, -1]], new=[[-1, 0]], topology={"num_ranks": 2})
    law = migration.laws["batches_cut_the_moves"]
    (outcome,) = check_cases(migration, load_model("tests.spec.test_chapters:Raises"), [law], [case])
    example = outcome.counterexample
    assert example is not None
    assert example.message == "ZeroDivisionError: no plan"
    assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            broken_migrations.ClampsLimits,
            "(<Placement>, <Placement>, max_node_transfers=0) gave an answer",
        ),
        (broken_plans.TakesAnyCapacity, "least_slots(-0.1) gave an answer"),
        (broken_placements.NodesOfAnyRank, "node_of(-1) gave an answer"),
    ],
)
def test_what_was_not_refused_is_said(broken: Any, message: str) -> None:
    chapter = next(name for name, those in BROKEN.items() if broken in those)
    (example,) = rejections(chapter, broken).values()
    assert message in example.message


def test_a_call_that_was_not_refused_is_written_with_what_came_of_it() -> None:
    def halve(*numbers: Any, by: Any = 2) -> Any:
        return numbers[0] // by

    assert all_refused(ZeroDivisionError, [partial(halve, 1, by=0)])
    with pytest.raises(NotRefusedError, match=re.escape("halve(1, by=0) gave ZeroDivisionError: ")):
        all_refused(ValueError, [partial(halve, 1, by=0)])
    with pytest.raises(NotRefusedError, match=re.escape("half([1, 'a'], <object>) gave TypeError: ")):
        all_refused(ValueError, [partial(halve, [1, "a"], object())], "half")
    with pytest.raises(NotRefusedError, match=re.escape("halve(4, by=2) gave an answer, expected ValueError")):
        all_refused(ValueError, [partial(halve, 4, by=2)])
    with pytest.raises(
        NotRefusedError, match=r"halve\(\[0, 1, .{0,100}\.\.\.\) gave TypeError: .*, expected ValueError$"
    ):
        all_refused(ValueError, [partial(halve, list(range(1000)))])


class Raises:
    """A planner that never answers."""

    Topology, Placement = Topology, Placement

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        raise ZeroDivisionError("no plan")


def test_a_law_must_state_itself_and_its_quantifiers() -> None:
    laws = Laws("pl", ("l", "e"))
    with pytest.raises(TypeError, match="needs a docstring"):
        laws.register()(lambda pl: True)
    with pytest.raises(TypeError, match="the parameters of"):
        laws.register()(lambda pl, x: True)
    with pytest.raises(TypeError, match="the parameters of"):
        laws.register()(lambda c: True)


def test_a_predicate_must_say_true_or_false() -> None:
    laws = Laws("pl", ("l", "e"))

    @laws.register()
    def counts(pl: Any, l: Any, e: Any) -> Any:  # noqa: E741
        """An expert has replicas."""
        return pl.count(l, e)

    placement = CHAPTERS["placement"]
    case = placement.case.of(num_experts=1, table=[[0]], topology={"num_ranks": 1}, loads=[[[1.0]]])
    (outcome,) = check_cases(placement, load_model(Chapter.reference), [laws["counts"]], [case])
    assert outcome.counterexample is not None
    assert outcome.counterexample.message == "TypeError: counts is neither true nor false but 1"


def test_evaluate_case_refuses_what_it_does_not_know() -> None:
    case: dict[str, Any] = {"num_experts": 1, "table": [[0]], "topology": {"num_ranks": 1}, "loads": [[[1.0]]]}
    assert evaluate_case(Chapter.reference, "table_is_kept", **case, at={"l": 0, "j": 0}) is True
    assert evaluate_case(Chapter.reference, "table_is_kept", **case) is True
    with pytest.raises(ValueError, match="invariant `nonsense` is unknown"):
        evaluate_case(Chapter.reference, "nonsense")
    with pytest.raises(ValueError, match="table_is_kept is about l, j"):
        evaluate_case(Chapter.reference, "table_is_kept", **case, at={"l": 0})
    with pytest.raises(ValueError, match="there is no point"):
        evaluate_case(Chapter.reference, "table_is_kept", **case, at={"l": 0, "j": 1})
    with pytest.raises(ValueError, match="expert 1 has no slot"):
        evaluate_case(Chapter.reference, "table_is_kept", **(case | {"num_experts": 2, "loads": [[[1.0, 1.0]]]}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module", "there is no module `no_such_module`"),
        ("expert_placement_spec.model:Missing", "has no attribute `Missing`"),
        ("expert_placement_spec.reference", "offers no Topology and no Placement"),
        (":x", "is not of the form"),
        ("math:pi.foo", r"`math\.pi` has no attribute `foo`"),
        ("tests.spec.test_chapters:HIDING", "a look at its attributes raised OSError: not today"),
    ],
)
def test_an_implementation_that_cannot_be_had_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(name)


class Hiding:
    """Names that can not be looked at."""

    @property
    def Topology(self) -> Any:  # noqa: N802 - the name that is asked for
        raise OSError("not today")


HIDING = Hiding()


class Compiled:
    """Functions that do not say what they take, as compiled ones do."""

    Topology, Placement = Topology, Placement
    rebalance = type


def test_a_function_without_a_signature_is_taken_to_take_everything() -> None:
    """Whether it does shows when it is asked."""
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(Compiled.rebalance)
    asked = Model("compiled", Compiled)
    assert asked.offers("rebalance(max_moves)")
    assert not asked.offers("plan_migration(limits)")


def spec(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "expert_placement_spec", *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def test_the_command_line_checks_a_chapter() -> None:
    name = name_of(broken_placements.NodesInTurn)
    domain = ("--chapter", "placement", "--domain", "quick", "--samples", "20", "--processes", "1")
    arguments = ("check", *domain, "--implementation", name)
    table, found = spec(*arguments), spec(*arguments, "--json")
    assert table.returncode == found.returncode == 1
    call = f'counterexample: expert_placement_spec.evaluate_case("{name}", "nodes_are_blocks_of_ranks", num_experts='
    assert call in table.stdout
    result = json.loads(found.stdout)
    assert (result["chapter"], result["domain"]["name"], result["broken"]) == ("placement", "quick", 2)
    rows = {row["invariant"]: row for row in result["exhaustive"]}
    assert set(rows) == set(CHAPTERS["placement"].laws)
    assert {law for law, row in rows.items() if row["result"] != "holds"} == broken_placements.NodesInTurn.breaks
    # Both parts found one, and the smaller is printed.
    law = "nodes_are_blocks_of_ranks"
    calls = {
        row["counterexample"]["call"]
        for part in ("exhaustive", "sampled")
        for row in result[part]
        if row["invariant"] == law
    }
    printed = {line for line in table.stdout.splitlines() if line.startswith("counterexample: ") and f'"{law}"' in line}
    assert len(printed) == 1
    assert {line.removeprefix("counterexample: ") for line in printed} < calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--chapter", "serving"), "chapter=`serving` is unknown, expected one of partition, placement, "),
        (("--chapter", "balance", "--domain", "huge"), "domain=`huge` is unknown, expected one of quick, small, full"),
        (("--chapter", "balance", "--wide", "3"), "chapter=`balance` has no --experts, --ranks, "),
        (("--domain", "full"), "domain=`full` is for the chapters placement, balance, migration, "),
        (("--chapter", "placement", "--implementation", "nowhere"), "implementation `nowhere`: there is no module"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run_arguments(arguments, [], "check")


def test_another_program_has_its_own_defaults(capfd: pytest.CaptureFixture[str]) -> None:
    name = name_of(broken_migrations.AnyShapes)
    arguments = ("--chapter", "migration", "--domain", "quick", "--samples", "0", "--processes", "1", "--json")
    assert run_arguments(arguments, {"migration": [name]}, "check") == 1
    assert {row["implementation"] for row in json.loads(capfd.readouterr().out)["exhaustive"]} == {name}


def test_laws_of_every_chapter_are_listed() -> None:
    output = spec("list").stdout
    laws = [law for chapter in CHAPTERS.values() for law in chapter.laws.values()]
    assert all(f" {law.name} " in output and law.sentence in output for law in laws)


# The models by themselves, where a law speaks of an implementation's answers alone.


def test_replication_makes_the_largest_share_least() -> None:
    """Domain: every integer load up to 3 of up to 4 experts, on ranks of 1 to 3 slots, up to 3 ranks, in any order."""
    for rooms in [rooms for ranks in (1, 2, 3) for rooms in product((1, 2, 3), repeat=ranks)]:
        for num_experts in range(1, min(sum(rooms), 4) + 1):
            for loads in (
                product((0.0, 1.0, 2.0, 3.0), repeat=num_experts) if len(rooms) < 3 else [(3.0,) * num_experts]
            ):
                by_rule = replication.least_largest_share(list(loads), list(rooms))
                assert by_rule == optimum.least_share(list(loads), list(rooms)), (loads, rooms)


def test_replicas_can_be_held_apart_exactly_where_a_layout_does() -> None:
    """Domain: up to 3 experts of up to 4 replicas, on 1 to 3 ranks of 0 to 3 slots."""
    for rooms in [rooms for ranks in (1, 2, 3) for rooms in product(range(4), repeat=ranks)]:
        for num_experts in (1, 2, 3):
            found = {tuple((layout > 0).sum(axis=0).tolist()) for layout in optimum.layouts(num_experts, rooms)}
            for counts in product(range(1, 5), repeat=num_experts):
                assert replication.can_be_held_apart(list(counts), list(rooms)) == (counts in found), (counts, rooms)


def test_transfers_need_no_more_batches_than_the_busiest_rank() -> None:
    """Domain: every choice of up to 4 transfers among 3 senders and 3 receivers, equal ones included."""
    pairs = [(sender, receiver) for sender in range(3) for receiver in range(3)]
    for number in range(5):
        for transfers in map(list, product(pairs, repeat=number)):
            batches = colour(transfers)
            assert max(batches, default=-1) + 1 == fewest_batches(transfers)
            for side in (0, 1):
                ends = [(batch, transfer[side]) for batch, transfer in zip(batches, transfers, strict=True)]
                assert len(ends) == len(set(ends)), (transfers, batches)


def test_a_batch_becomes_no_more_than_its_busiest_node_needs() -> None:
    """Domain: every choice of up to 4 transfers among 3 nodes, those inside a node included; limits of 1 to 3."""
    pairs = [(sender, receiver) for sender in range(3) for receiver in range(3)]
    for number in range(5):
        for ends in map(list, product(pairs, repeat=number)):
            most = fewest_batches([pair for pair in ends if pair[0] != pair[1]])
            for limit in (1, 2, 3):
                batches = split([0] * number, ends, limit)
                assert max(batches, default=0) + 1 == max(-(-most // limit), 1)
                for batch in set(batches):
                    here = [
                        pair for pair, one in zip(ends, batches, strict=True) if one == batch and pair[0] != pair[1]
                    ]
                    assert fewest_batches(here) <= limit, (ends, batches)


def test_every_group_finds_room_exactly_where_that_is_said() -> None:
    """Domain: 2 and 3 nodes of up to 5 slots each, up to 6 experts in groups that divide them, two loads."""
    for slots in [slots for nodes in (2, 3) for slots in product(range(6), repeat=nodes)]:
        topology = Topology(len(slots), len(slots), slots)
        for num_experts, num_groups in product(range(1, min(sum(slots), 6) + 1), range(1, 7)):
            if num_experts % num_groups == 0:
                for loads in ([1.0] * num_experts, [float(expert) for expert in range(num_experts)]):
                    problem = Problem([loads], sum(slots), topology)
                    found, begins = homes.settle(problem, num_groups, None)
                    assert bool(found.guests) != homes.have_room(problem, num_groups)
                    assert all(begins.count(node) <= slots[node] for node in range(len(slots)))
                    assert all(size <= 1 for size in map(len, map(set, groups_at(found.nodes, num_groups))))


def groups_at(nodes: list[int], num_groups: int) -> list[list[int]]:
    """The homes of the experts of each group."""
    return [[nodes[expert] for expert in group] for group in homes.groups_of(len(nodes), num_groups)]


GOLDEN_LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
GOLDEN_TABLE = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def test_the_policy_deepseek_gives_the_case_of_its_authors() -> None:
    plan = rebalance(GOLDEN_LOADS, 16, Topology(8, 2), policy="deepseek", num_groups=4)
    assert plan.physical_to_logical() == GOLDEN_TABLE


def test_huge_counts_are_rounded_to_float64() -> None:
    placement = Placement([[0, 1]], 2, Topology(2))
    assert placement.rank_loads([[2**53 + 1, 2**100]]) == [[2.0**53, 2.0**100]]


def test_an_exchange_is_one_batch() -> None:
    topology = Topology(2)
    plan = plan_migration(Placement([[0, 1]], 2, topology), Placement([[1, 0]], 2, topology))
    assert plan.moves == [[0, 1, 1, 0], [0, 0, 0, 1]]
    assert (plan.batches, plan.write_batches, plan.num_staged, plan.is_interruption_safe) == ([0, 2], [0, 0], 1, True)
