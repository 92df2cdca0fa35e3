"""Invariants as contracts on the reference model's own source, run by CrossHair. SPEC.md, "How it is checked".

The solver of `prove.py` reads terms that the formulas build; CrossHair runs the interpreter over `reference.py` as it
is, its class, its checks of ids and its loops included, with ints that stand for all of their values, and follows every
path. The contracts stand here, outside of the functions, and ask the same predicates that the tests run.

PYTEST_DONT_REWRITE: the assertions below are contracts, which CrossHair reads as they stand.
"""

from __future__ import annotations

import importlib.util
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expert_placement_spec import reference
from expert_placement_spec.formula_mutants import formula_mutants
from expert_placement_spec.invariants import INVARIANTS, QUANTIFIERS, Invariant
from expert_placement_spec.plain import Plain, first_broken, is_case, obeys
from expert_placement_spec.processes import alone
from expert_placement_spec.reference import MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIRMED = "confirmed over all paths"
TIMEOUT_SECONDS = 120
"""Processor time for one contract. What is not decided by then counts as a failure."""

MUTANT_RANKS = 4
"""Up to which R a mutant is refuted: with a known R every division is by a number, and a counterexample found soon."""


@dataclass(frozen=True)
class Limits:
    """Up to which E, R and S a contract is run. Below its largest value a number is each of its values in turn."""

    experts: int = MAX
    ranks: int = MAX
    shared: int = MAX

    def __str__(self) -> str:
        few = {"E": self.experts, "R": self.ranks, "S": self.shared}
        return ", ".join(f"{name} <= {most}" for name, most in few.items() if most < MAX) or "all E and R"


LISTS = Limits(experts=3, ranks=3)
"""Where lists are made, one path for each length."""

MAPS = Limits(experts=2, ranks=2, shared=1)
"""Where whole maps are made."""

FEW = {
    ("counts_total_num_experts", ""): Limits(ranks=6),
    # A product of two unknowns, which the solver below CrossHair does not decide in time.
    ("covers_exactly_once", "round_robin"): Limits(ranks=12),
    ("offsets_are_prefix_sums", ""): Limits(ranks=3),
    ("listed_in_local_order", ""): LISTS,
    ("listed_completely", ""): LISTS,
    ("maps_are_int32_of_stated_length", ""): MAPS,
    # Errors write their numbers out, and an unknown one is written in as many ways as it has digits.
    ("wrong_ids_are_refused", ""): Limits(experts=5, ranks=4, shared=1),
}
"""The contracts that are not run for all E and R, by invariant, and by strategy where that matters."""

SUBJECTS = ("rule", "maps", "lists", "offsets", "errors")
ALSO = ("ranges_agree_with_scalars",)
"""The invariants that are contracts: those of these subjects, and what else the model's class can be asked."""


def limits_of(law: Invariant, strategy: str) -> Limits:
    """Up to which numbers a contract is run."""
    return FEW.get((law.name, strategy), FEW.get((law.name, ""), Limits()))


def contracts() -> list[tuple[Invariant, str]]:
    """Every invariant that is a contract with every strategy that it holds for."""
    laws = [law for law in INVARIANTS.values() if law.subject in SUBJECTS or law.name in ALSO]
    return [(law, strategy) for law in laws for strategy in law.strategies]


@dataclass(frozen=True)
class Answer:
    """What CrossHair says of one contract."""

    invariant: str
    strategy: str
    over: str
    """The numbers that the contract is about."""
    result: str
    """`confirmed over all paths`, or CrossHair's own words."""
    mutant: str
    """The mutant for which the same contract is refuted."""
    seconds: float


def contract(
    law: Invariant, strategy: str, model: Any = reference, limits: Limits | None = None
) -> Callable[..., None]:
    """The contract of an invariant: the first assertion is its premise, the second its claim.

    Args:
        law: the invariant.
        strategy: the strategy.
        model: the reference model, or a mutant of it.
        limits: up to which numbers; those of the invariant without other word.
    """
    limits = limits or limits_of(law, strategy)

    def case(num_experts: int, num_ranks: int, num_shared: int, r: int, s: int, e: int, i: int, h: int) -> None:
        """Holds the law at one case. What it does not speak of may be anything, and takes no part."""
        assert in_limits(
            law, strategy, limits, num_experts, num_ranks, num_shared, {"r": r, "s": s, "e": e, "i": i, "h": h}
        )
        shape = (each(num_experts, limits.experts), each(num_ranks, limits.ranks), each(num_shared, limits.shared))
        values = {"r": r, "s": s, "e": e, "i": i, "h": h}
        assert law.predicate(Plain(*shape, strategy, model), *(values[name] for name in law.quantifiers))

    return case


def in_limits(
    law: Invariant,
    strategy: str,
    limits: Limits,
    num_experts: int,
    num_ranks: int,
    num_shared: int,
    values: dict[str, int],
) -> bool:
    """Whether the numbers are a case of the law."""
    if not (0 <= num_experts <= limits.experts and 1 <= num_ranks <= limits.ranks):
        return False
    if not 0 <= num_shared <= min(limits.shared, MAX - num_experts):
        return False
    shape = (each(num_experts, limits.experts), each(num_ranks, limits.ranks), each(num_shared, limits.shared))
    return is_case(law, Plain(*shape, strategy), values)


def each(number: int, most: int) -> int:
    """The number, as an unknown where it may be anything, and as a known one on a path of its own where it is small."""
    if most == MAX:
        return number
    return next(known for known in range(most + 1) if known == number)


def words(case: Callable[..., None]) -> str:
    """What CrossHair says of a contract.

    Raises:
        ValueError: CrossHair is not installed.
    """
    need_crosshair()
    from crosshair.core_and_libs import analyze_function, run_checkables
    from crosshair.options import AnalysisKind, AnalysisOptionSet
    from crosshair.statespace import MessageType

    options = AnalysisOptionSet(
        analysis_kind=[AnalysisKind.asserts],
        per_condition_timeout=TIMEOUT_SECONDS,
        per_path_timeout=TIMEOUT_SECONDS,
        report_all=True,
    )
    messages = list(run_checkables(analyze_function(case, options)))
    if [message.state for message in messages] == [MessageType.CONFIRMED]:
        return CONFIRMED
    return "; ".join(message.message for message in messages) or "no contract was found"


def need_crosshair() -> None:
    """Does nothing where CrossHair is installed.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec("crosshair") is None:
        raise ValueError("contracts need CrossHair: pip install 'expert-placement-spec[proofs]', or choose --tool z3")


def run_contract(task: tuple[str, str]) -> Answer:
    """Runs the contract of an invariant on the model, and then on mutants until one is refuted.

    Args:
        task: the invariant's name and the strategy.
    """
    begin = time.perf_counter()
    law, strategy = INVARIANTS[task[0]], task[1]
    answer, mutant = words(contract(law, strategy)), ""
    if answer == CONFIRMED:
        mutant = next((name for name, model in breaking(law, strategy) if refutes(law, strategy, model)), "")
        answer = answer if mutant else "no mutant is refuted"
    return Answer(*task, str(limits_of(law, strategy)), answer, mutant, time.perf_counter() - begin)


def run_contract_alone(task: tuple[str, str]) -> Answer:
    """Runs the contract of an invariant in a process of its own, so that no other contract changes what comes of it.

    Args:
        task: the invariant's name and the strategy.
    """
    return alone(run_contract, task, modules=("expert_placement_spec.symbolic_start",))


def breaking(law: Invariant, strategy: str) -> Iterator[tuple[str, Any]]:
    """The mutants that break a law in small partitions."""
    for mutant in formula_mutants():
        if first_broken(law, strategy, mutant.model) is not None:
            yield mutant.name, mutant.model


def refutes(law: Invariant, strategy: str, model: Any) -> bool:
    """Whether CrossHair finds a counterexample for a model, which is one without CrossHair, too."""
    limits = limits_of(law, strategy)
    limits = replace(limits, ranks=min(limits.ranks, MUTANT_RANKS))
    found = re.search(r"when calling case\(([-0-9, ]+)\)", words(contract(law, strategy, model, limits)))
    if found is None:
        return False
    num_experts, num_ranks, num_shared, *ids = map(int, found[1].split(","))
    values = dict(zip(QUANTIFIERS, ids, strict=True))
    shape = (num_experts, num_ranks, num_shared, strategy)
    return is_case(law, Plain(*shape), values) and not obeys(law, Plain(*shape, model), values)
