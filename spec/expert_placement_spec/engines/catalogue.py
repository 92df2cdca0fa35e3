"""Which of the engines' functions are looked at, as what, and over which part of a chapter's domain.

A function is asked for what it has parameters for and documents to take, and for nothing else. A law that speaks of
more is reported as not offered, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from expert_placement_spec.balance import deepseek as rule
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.view import BalanceCase
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.engines import deepseek, sglang, vllm
from expert_placement_spec.engines.reading import is_uneven
from expert_placement_spec.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.engines.sources import EngineFunction
    from expert_placement_spec.law import Law

HERE = "expert_placement_spec.engines"

SHAPES = (64, 24)
"""Up to how many experts and ranks partitions are looked at, one and all."""
DOMAIN = "quick"
"""Which domain of a chapter about cases is looked at."""
CASES = 400
"""How many random cases beyond it are drawn for a function, before those are left out that it does not take."""

NO_FAILURES = "it takes no ranks out of service"
NO_BUDGET = "it takes a previous table, and no budget of moves"
NO_WINDOWS = "it takes one window"
NO_INACTIVE_RANKS = {"inactive_ranks_stay_empty": NO_FAILURES, "impossible_plans_are_refused": NO_FAILURES}

LEAST_LOAD, MOST_LOAD = 1e-30, 1e30
"""Loads other than 0 that are asked for: the functions reckon in float32, and are meant for counts of tokens."""

PLANNING, MOVING, REFUSING = "planning", "moving", "refusing"
"""Kinds of laws: about plans from nothing, from a previous table, and about numbers that do not divide."""
KINDS = (PLANNING, MOVING, REFUSING)


def kind_of(law: Law) -> str:
    """Of which kind a law is."""
    if law.name == "deepseek_refuses_what_it_can_not_plan":
        return REFUSING
    return MOVING if "rebalance(previous)" in law.needs else PLANNING


def indivisible() -> Iterator[BalanceCase]:
    """Small calls whose numbers do not divide, with every expert in at least one slot."""
    for experts, slots, ranks in product(range(1, 5), range(1, 9), range(1, 5)):
        loads = [[[1.0] * experts]]
        for nodes, groups in product(range(1, ranks + 1), range(1, experts + 1)):
            if slots >= experts and experts % groups == 0:
                yield BalanceCase(loads, slots, Topology(ranks, nodes), num_groups=groups)


@dataclass(frozen=True)
class Subject:
    """One function, and how it is looked at.

    Attributes:
        engine: the engine's name.
        function: the function.
        attribute: the adapter, after this package's name.
        chapter: the chapter whose laws are looked at.
        strategy: of partitions, the strategy that is asked for.
        not_offered: laws that the function can not be asked about, each with the reason.
        takes_windows: whether it takes more than one window of loads.
        takes_inactive: whether it takes ranks out of service.
    """

    engine: str
    function: EngineFunction
    attribute: str
    chapter: str
    strategy: str = ""
    not_offered: tuple[tuple[str, str], ...] = ()
    takes_windows: bool = False
    takes_inactive: bool = False

    @property
    def implementation(self) -> str:
        """The adapter as `check` is given it."""
        return f"{HERE}.{self.attribute}"

    @property
    def title(self) -> str:
        """What a report calls it."""
        asked = f", {self.strategy.replace('_', ' ')}" if self.strategy else ""
        reading = ", no answer read as all" if self.attribute.endswith("OrAll") else ""
        return f"{self.engine} `{self.function.module}.{self.function.name}`{asked}{reading}"

    @property
    def domain(self) -> str:
        """Which cases are looked at, in words."""
        if self.chapter == PARTITION:
            return f"E in 0..={SHAPES[0]}, R in 1..={SHAPES[1]}, {self.strategy}"
        described = CHAPTERS[self.chapter].domains[DOMAIN].description
        return f"{described}; and {CASES:,} random cases; of both those that the function takes"

    def taken(self, kind: str, case: BalanceCase) -> BalanceCase | None:
        """The case as the function takes it, where it does and laws of a kind are to be looked at for it.

        Equal slots of the ranks are left unsaid, since no function has a parameter for them.
        """
        topology = case.topology
        slots = topology.slots(case.num_slots)
        experts = len(case.loads[0][0])
        loads = [load for window in case.loads for layer in window for load in layer]
        is_told_slots = topology.slots_per_rank is not None and is_uneven(slots)
        if is_told_slots or is_uneven(topology.speeds) or not loads or case.max_off_node is not None:
            return None
        if not all(load == 0 or LEAST_LOAD <= load <= MOST_LOAD for load in loads):
            return None
        is_active = all(topology.is_active(rank) for rank in range(topology.num_ranks))
        if (not is_active and not self.takes_inactive) or (len(case.loads) > 1 and not self.takes_windows):
            return None
        ranks = replace(topology, slots_per_rank=None, speeds=None, active=None if is_active else topology.active)
        case = replace(case, topology=ranks)
        # The laws about moves need a previous table, and the others are asked without one.
        if (kind == MOVING) != (case.previous is not None) or case.max_moves is not None or case.min_gain is not None:
            return None
        lacks = rule.what_it_needs(experts, case.num_slots, replace(ranks, active=None), case.num_groups)
        if kind == REFUSING:
            return case if lacks and is_active else None
        has_room = len(Problem([], case.num_slots, ranks).usable_slots) >= experts
        return case if not lacks and has_room else None


def planner(
    engine: str,
    function: EngineFunction,
    attribute: str,
    *laws: dict[str, str],
    takes_windows: bool = False,
    takes_inactive: bool = False,
) -> Subject:
    """A function that plans: with a reason for each law that it can not be asked about."""
    reasons = tuple((law, why) for one in laws for law, why in one.items())
    return Subject(engine, function, attribute, "balance", "", reasons, takes_windows, takes_inactive)


WHOLE_RANKS = {
    "deepseek_refuses_what_it_can_not_plan": "it is told how many slots a rank has, and not how many ranks there are"
}
ONE_WINDOW = {"windows_are_planned_for": NO_WINDOWS}
BUDGETS = dict.fromkeys(
    (
        "budget_is_kept",
        "no_moves_change_nothing",
        "more_moves_never_hurt",
        "enough_moves_are_as_good_as_free_ones",
        "budgets_too_small_to_restore_are_refused",
    ),
    NO_BUDGET,
) | {"lost_experts_are_named": NO_FAILURES}

SUBJECTS = (
    *(
        Subject("vLLM", function, f"vllm:{name}", PARTITION, strategy)
        for function, names in (
            (vllm.DETERMINE_EXPERT_MAP, ("ExpertMap", "ExpertMapOrAll")),
            (vllm.COMPUTE_LOCAL_EXPERT_IDS, ("LocalExpertIds", "LocalExpertIdsOrAll")),
        )
        for name in names
        for strategy in ("linear", "round_robin")
    ),
    planner("vLLM", vllm.EPLB_POLICY, "vllm:EplbPolicy", NO_INACTIVE_RANKS, ONE_WINDOW, BUDGETS),
    planner("SGLang", sglang.EPLB, "sglang:Eplb", NO_INACTIVE_RANKS, ONE_WINDOW),
    planner("SGLang", sglang.EPLB_IN_CHUNKS, "sglang:EplbInChunks", NO_INACTIVE_RANKS, WHOLE_RANKS, takes_windows=True),
    planner("SGLang", sglang.EPLB_AFTER_FAILURES, "sglang:EplbAfterFailures", ONE_WINDOW, takes_inactive=True),
    planner("DeepSeek", deepseek.EPLB, "deepseek:Eplb", NO_INACTIVE_RANKS, ONE_WINDOW),
)
"""All functions, in the order of the report."""
