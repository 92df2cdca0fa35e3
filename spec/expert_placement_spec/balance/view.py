"""A call of `rebalance` as the laws see it. SPEC.md, "Rebalancing"."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.answers import (
    SMALLEST,
    Lookup,
    all_refused,
    as_array,
    at_most,
    close,
    field,
    is_table,
    refuses,
)
from expert_placement_spec.answers import TOLERANCE as ROUNDING
from expert_placement_spec.balance import deepseek, homes, measure, optimum, refinement, warm_start
from expert_placement_spec.balance.capacity import fewest_slots
from expert_placement_spec.balance.problem import TOLERANCE, Problem
from expert_placement_spec.balance.reference import checked_problems
from expert_placement_spec.cases import Case, View
from expert_placement_spec.placement.loads import checked_loads
from expert_placement_spec.placement.reference import EMPTY, Placement
from expert_placement_spec.placement.view import made_topology, of_other_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from expert_placement_spec.placement.topology import Topology

BUDGETS = 5
"""How many budgets, from 0 on, a case with a previous placement is planned for."""

CURVE = (1, 0, 3, 2, 1)
"""What numbers of slots are beyond the fewest, in the order in which a curve of capacity is asked for."""

THREADS = (1, 2, 3, 5)
"""With how many threads a plan is made."""

GAINS = (0.0, 0.01, 0.3, 1e9)
"""What a move has to save, as a part of the sum of the mean times: anything, some, much, and more than there is."""

STEPS = (1, 2)
"""In what steps the least slots are looked for."""

Rows = list[list[int]]


@dataclass(frozen=True)
class BalanceCase(Case):
    """The arguments of a call that has an answer.

    Attributes:
        loads: [W, L, E].
        num_slots: P.
        topology: the ranks.
        policy: the policy.
        num_groups: G.
        previous: the table of the previous placement, made when all ranks were active.
        max_moves: the budget.
        max_off_node: the limit on what is served off node, where one is asked for.
        min_gain: what a move must bring, where that is asked for.
    """

    loads: list[list[list[float]]]
    num_slots: int
    topology: Topology
    policy: str = "balanced"
    num_groups: int = 1
    previous: Rows | None = None
    max_moves: int | None = None
    max_off_node: float | None = None
    min_gain: float | None = None

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest case is chosen."""
        windows, layers, experts = len(self.loads), len(self.loads[0]), len(self.loads[0][0])
        limits = (-1 if limit is None else limit for limit in (self.max_moves, self.max_off_node, self.min_gain))
        plan = (self.previous is not None, *limits)
        shape = (self.num_slots, experts, layers, self.topology.num_ranks, windows, *plan, self.num_groups)
        return (*shape, str(self.topology), self.policy, self.previous or [], self.loads)

    @property
    def needs(self) -> tuple[str, ...]:
        """Parameters for the previous placement, the budget and the gain, where there are any."""
        names = ("previous", "max_moves", "min_gain")
        return tuple(f"rebalance({name})" for name in names if getattr(self, name) is not None)

    @property
    def live_rows(self) -> Rows:
        """The previous table without what is on inactive ranks."""
        usable = Problem([], self.num_slots, self.topology).usable_slots
        rows = self.previous or []
        return [[entry if slot in usable else EMPTY for slot, entry in enumerate(row)] for row in rows]

    @property
    def num_lost(self) -> int:
        """How many experts, of all layers together, have no live replica."""
        return sum(expert not in row for row in self.live_rows for expert in range(len(self.loads[0][0])))

    def check(self) -> None:
        """Raises ValueError where the definitions do not allow the case."""
        loads = checked_loads(self.loads)
        everyone = replace(self.topology, active=None)
        previous = None if self.previous is None else Placement(self.previous, len(loads[0][0]), everyone)
        arguments = (self.policy, self.num_groups, previous, self.max_moves, self.max_off_node, self.min_gain)
        checked_problems(loads, self.num_slots, self.topology, *arguments)


class BalanceView(View):
    """What an implementation plans, and what the definitions make of it."""

    case: BalanceCase

    def extent(self, name: str, given: dict[str, int]) -> int:  # noqa: ARG002
        """How many values a quantifier takes: of a layer, expert, slot, rank, budget or number of slots."""
        return {
            "l": self.num_layers,
            "e": self.num_experts,
            "j": self.case.num_slots,
            "r": self.num_ranks,
            "b": BUDGETS,
            "s": len(CURVE),
        }[name]

    # What the case is.

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.case.loads[0])

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.case.loads[0][0])

    @property
    def num_ranks(self) -> int:
        """R."""
        return self.case.topology.num_ranks

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.case.loads)

    @property
    def own_loads(self) -> Any:
        """The loads as they are given: of the only window, or of all."""
        return self.case.loads if self.num_windows > 1 else self.case.loads[0]

    @property
    def is_from_nothing(self) -> bool:
        """Whether the policy is `balanced` and there is no previous placement."""
        return self.case.policy == "balanced" and self.case.previous is None

    @property
    def has_previous(self) -> bool:
        """Whether there is a previous placement."""
        return self.case.previous is not None

    @property
    def budget(self) -> float:
        """The budget; infinite where there is none."""
        return float("inf") if self.case.max_moves is None else self.case.max_moves

    @property
    def is_warm(self) -> bool:
        """Whether there is a previous placement, and the policy one that knows of moves."""
        return self.has_previous and self.case.policy == "balanced"

    @property
    def has_budget(self) -> bool:
        """Whether there is a budget."""
        return self.case.max_moves is not None

    @property
    def moves_freely(self) -> bool:
        """Whether there is neither a budget nor a gain that moves must bring."""
        return not self.has_budget and self.case.min_gain is None

    @property
    def needs_of_deepseek(self) -> str:
        """Why the policy `deepseek` does not apply; empty where it does."""
        case = self.case
        return deepseek.what_it_needs(self.num_experts, case.num_slots, case.topology, case.num_groups)

    @cached_property
    def problems(self) -> list[Problem]:
        """The layers to be planned."""
        layers = zip(*self.case.loads, strict=True)
        return [Problem(list(layer), self.case.num_slots, self.case.topology) for layer in layers]

    @cached_property
    def is_tiny(self) -> bool:
        """Whether all layouts of a layer can be looked at."""
        return bool(self.problems[0].rooms) and optimum.is_tiny(self.num_experts, self.problems[0].rooms)

    @cached_property
    def speeds(self) -> list[float]:
        """The speeds of the usable ranks."""
        return [self.case.topology.speed(rank) for rank in self.problems[0].usable]

    @property
    def has_single_slots(self) -> bool:
        """Whether every usable rank has one slot, and all are equally fast."""
        return set(self.problems[0].rooms) == {1} and len(set(self.speeds)) == 1

    @property
    def scales(self) -> bool:
        """Whether no load is so small or large that four times as much would be rounded otherwise."""
        loads = (load for window in self.case.loads for layer in window for load in layer)
        return all(load == 0 or 1e-30 <= load <= 1e30 for load in loads)

    @property
    def previous_rows(self) -> Rows:
        """The previous table; empty slots where there is none."""
        return self.case.previous or [[EMPTY] * self.case.num_slots] * self.num_layers

    @cached_property
    def num_lost(self) -> int:
        """How many experts, of all layers together, have no live replica."""
        return self.case.num_lost

    @property
    def is_previous_live(self) -> bool:
        """Whether there is a previous placement, with nothing on inactive ranks, and a policy that knows of moves."""
        return self.is_warm and self.case.live_rows == self.case.previous

    @property
    def has_homes(self) -> bool:
        """Whether groups have homes."""
        return homes.are_kept_together(self.case.topology, self.case.num_groups)

    @property
    def has_roomy_homes(self) -> bool:
        """Whether groups have homes with room for all of each."""
        return self.has_homes and homes.have_room(self.problems[0], self.case.num_groups)

    @property
    def has_narrow_homes(self) -> bool:
        """Whether some group finds no node with room for all of it, and no expert is without a part of the load."""
        have_load = all(min(p.summed, default=0.0) > ROUNDING * sum(p.summed) for p in self.problems)
        return self.has_homes and not self.has_roomy_homes and have_load

    @property
    def has_curve(self) -> bool:
        """Whether there are experts to be planned from nothing, on ranks without slots of their own.

        A limit that fewer slots might not reach is none for a curve.
        """
        is_planned = not self.has_previous and self.num_experts > 0 and self.case.max_off_node in (None, 1.0)
        return is_planned and self.case.topology.slots_per_rank is None

    @cached_property
    def is_measurable(self) -> Lookup:
        """Whether the load of a layer is none, or large enough for parts of it to be told."""
        totals = [sum(problem.summed) for problem in self.problems]
        return Lookup([total == 0 or total >= SMALLEST / ROUNDING for total in totals])

    # What the implementation answers.

    def make_previous(
        self, table: Rows | None = None, topology: Topology | None = None, num_experts: int | None = None
    ) -> Any:
        """The implementation's previous placement, made when all ranks were active, or another one."""
        table = self.case.previous if table is None else table
        if table is None:
            return None
        made = made_topology(self.names, self._everyone if topology is None else topology)
        return self.names.Placement.from_physical_to_logical(
            deepcopy(table), num_experts=self.num_experts if num_experts is None else num_experts, topology=made
        )

    @property
    def _everyone(self) -> Topology:
        """The ranks with all of them active."""
        return replace(self.case.topology, active=None)

    def call(self, **changes: Any) -> Any:
        """The implementation's plan, of the case or with other arguments."""
        case = self.case
        arguments: dict[str, Any] = {
            "loads": self.own_loads,
            "num_slots": case.num_slots,
            "topology": case.topology,
            "policy": case.policy,
            "num_groups": case.num_groups,
        } | changes
        topology = made_topology(self.names, arguments.pop("topology"))
        loads, num_slots = arguments.pop("loads"), arguments.pop("num_slots")
        # A copy of lists, so that an implementation that writes into what it is given spoils no other call.
        loads = deepcopy(loads) if isinstance(loads, list) else loads
        # An implementation without warm start is asked for nothing that it does not have.
        if case.previous is not None:
            arguments = {"previous": self.previous} | arguments
        given = {"max_moves": case.max_moves, "min_gain": case.min_gain}
        arguments = {name: limit for name, limit in given.items() if limit is not None} | arguments
        # The policy `deepseek` takes no limit at all.
        is_limited = case.max_off_node is not None and arguments["policy"] == "balanced"
        if is_limited and self.model.offers("rebalance(max_off_node)"):
            arguments = {"max_off_node": case.max_off_node} | arguments
        if arguments.get("previous", self) is None:
            del arguments["previous"]
            arguments.pop("max_moves", None)
            if "min_gain" not in changes:
                arguments.pop("min_gain", None)
        if arguments.get("min_gain", self) is None:
            del arguments["min_gain"]
        return self.names.rebalance(loads, num_slots, topology, **arguments)

    @cached_property
    def previous(self) -> Any:
        """The implementation's previous placement."""
        return self.make_previous()

    @cached_property
    def plan(self) -> Any:
        """The implementation's plan."""
        return self.call()

    def rows_of(self, plan: Any) -> Rows:
        """The table of a plan."""
        rows: Rows = as_array(plan.physical_to_logical()).tolist()
        return rows

    @cached_property
    def rows(self) -> Rows:
        """The table of the plan."""
        return self.rows_of(self.plan)

    def is_shaped_as_asked(self) -> bool:
        """Whether the plan has the layers, experts and slots that it was asked for, in int32."""
        offsets = as_array(self.plan.slot_offsets()).tolist()
        sizes = (self.plan.num_layers, self.plan.num_experts, self.plan.num_slots, self.plan.num_ranks)
        return (
            is_table(self.plan.physical_to_logical(), (self.num_layers, self.case.num_slots))
            and offsets == self.case.topology.slot_offsets(self.case.num_slots)
            and sizes == (self.num_layers, self.num_experts, self.case.num_slots, self.num_ranks)
            and self._has_nodes_as_asked()
        )

    def _has_nodes_as_asked(self) -> bool:
        """Whether the plan says of its own load off node what its nodes make of its table."""
        if not self.model.offers("Placement.off_node") or not self.num_experts:
            return True
        told = np.array(self.plan.off_node(self.own_loads, self.case.num_groups), dtype=np.float64)
        stated, counts = self._off_node(self.rows).array, self.is_measurable.array
        return bool(np.all(close(1 - told, 1 - stated) | ~counts))

    def is_repeated(self, **changes: Any) -> bool:
        """Whether a call that must not differ plans the same."""
        return self.rows_of(self.call(**changes)) == self.rows

    def is_the_same_with_threads(self) -> bool:
        """Whether the plan is the same with each number of threads."""
        return all(self.is_repeated(num_threads=number) for number in THREADS)

    def multiplied(self, factor: float) -> Any:
        """The loads in another unit."""
        loads = [[[load * factor for load in layer] for layer in window] for window in self.case.loads]
        return loads if self.num_windows > 1 else loads[0]

    @cached_property
    def table(self) -> Lookup:
        """The expert of a slot of a layer."""
        return Lookup(self.rows, 2)

    @cached_property
    def replicas(self) -> Lookup:
        """The replicas of an expert in a layer."""
        return Lookup([[row.count(expert) for expert in range(self.num_experts)] for row in self.rows], 2)

    def _copies(self, rows: Rows) -> Lookup:
        ranks, experts = range(self.num_ranks), range(self.num_experts)
        layers = list(zip(self.problems, rows, strict=True))
        return Lookup([[[p.held(row, rank).count(e) for e in experts] for rank in ranks] for p, row in layers], 3)

    @cached_property
    def copies(self) -> Lookup:
        """How many slots of a rank hold an expert of a layer."""
        return self._copies(self.rows)

    @cached_property
    def copies_before(self) -> Lookup:
        """How many held it in the previous placement."""
        return self._copies(self.previous_rows)

    @cached_property
    def copies_in_place(self) -> Lookup:
        """How many slots of a rank hold an expert as in the previous placement."""
        pairs = zip(self.rows, self.previous_rows, strict=True)
        return self._copies([[new if new == old else EMPTY for new, old in zip(*pair, strict=True)] for pair in pairs])

    @cached_property
    def is_empty(self) -> Lookup:
        """Whether a rank's slots hold nothing in a layer."""
        layers = list(zip(self.problems, self.rows, strict=True))
        return Lookup([[set(p.held(row, r)) <= {EMPTY} for r in range(self.num_ranks)] for p, row in layers], 2)

    @cached_property
    def is_active(self) -> Lookup:
        """Whether a rank is active."""
        return Lookup([self.case.topology.is_active(rank) for rank in range(self.num_ranks)])

    # What plans are worth.

    def _largest(self, rows: Rows) -> Lookup:
        return Lookup([problem.largest(row) for problem, row in zip(self.problems, rows, strict=True)])

    @cached_property
    def largest(self) -> Lookup:
        """The largest time of a layer, added up over the windows."""
        return self._largest(self.rows)

    @cached_property
    def bound(self) -> Lookup:
        """The lower bound of a layer."""
        return Lookup([problem.bound for problem in self.problems])

    @cached_property
    def rows_of_deepseek(self) -> Rows:
        """What the policy `deepseek` plans."""
        case = self.case
        return [
            deepseek.place(problem.summed, case.num_slots, case.topology, case.num_groups) for problem in self.problems
        ]

    @cached_property
    def copies_of_deepseek(self) -> Lookup:
        """How many slots of a rank hold an expert of a layer under the policy `deepseek`."""
        return self._copies(self.rows_of_deepseek)

    @cached_property
    def largest_of_deepseek(self) -> Lookup:
        """The largest time of a layer under the policy `deepseek`."""
        return self._largest(self.rows_of_deepseek)

    @cached_property
    def table_of_deepseek(self) -> Lookup:
        """The expert of a slot of a layer under the policy `deepseek`."""
        return Lookup(self.rows_of_deepseek, 2)

    def _beside_deepseek(self, is_so: Callable[[Problem, list[int], list[int]], bool]) -> Lookup:
        """Whether something is so of a layer, its row and that under `deepseek`; of none where that does not apply."""
        if self.needs_of_deepseek:
            return Lookup([False] * self.num_layers)
        return Lookup(list(map(is_so, self.problems, self.rows, self.rows_of_deepseek)))

    @cached_property
    def is_taken_over(self) -> Lookup:
        """Whether a layer is that of `deepseek`, and would be done later with one replica on each rank for two."""

        def is_so(problem: Problem, row: list[int], other: list[int]) -> bool:
            if row != other:
                return False
            return not at_most(problem.largest(problem.without_duplicates(row)), problem.largest(row))

        return self._beside_deepseek(is_so)

    @cached_property
    def is_of_the_field(self) -> Lookup:
        """Whether every rank holds the experts of a layer that it holds under `deepseek`."""

        def is_so(problem: Problem, row: list[int], other: list[int]) -> bool:
            held = ((set(problem.held(one, rank)) - {EMPTY} for one in (row, other)) for rank in problem.usable)
            return all(ours == theirs for ours, theirs in held)

        return self._beside_deepseek(is_so)

    @cached_property
    def is_helped_by_a_step(self) -> Lookup:
        """Whether the largest time of a layer, planned from nothing, would be less after a step of refinement."""
        return Lookup([is_helped(problem, row) for problem, row in zip(self._at_home, self.rows, strict=True)])

    @property
    def _at_home(self) -> list[Problem]:
        """The layers with the homes that groups have, where they have any."""
        if not self.has_homes:
            return self.problems
        nodes = (self._whole_homes(layer, self.rows) for layer in range(self.num_layers))
        # Those that take no limit have everybody's, and whoever adds up otherwise may be above it by rounding.
        takes_limit = self.model.offers("rebalance(max_off_node)")
        limit = (self.most_off_node if takes_limit else homes.MOST_OFF_NODE) * (1 - ROUNDING)
        found = (homes.PossibleHomes(of_layer, limit) for of_layer in nodes)
        return [replace(problem, homes=one) for problem, one in zip(self.problems, found, strict=True)]

    @cached_property
    def has_duplicates(self) -> Lookup:
        """Whether some rank holds two replicas of an expert in a layer."""
        return Lookup([p.without_duplicates(row) != row for p, row in zip(self.problems, self.rows, strict=True)])

    @cached_property
    def optimum(self) -> Lookup:
        """The least that the largest time of a layer can be without two replicas of an expert on a rank."""
        rooms = self.problems[0].rooms
        return Lookup([optimum.least_time(problem.windows, rooms, self.speeds) for problem in self.problems])

    @cached_property
    def reported_bound(self) -> Lookup:
        """The lower bound that the plan's own report gives for a layer."""
        return Lookup([field(report, "lower_bound") for report in self.plan.report(self.own_loads)])

    @cached_property
    def bound_by_exhaustion(self) -> Lookup:
        """The lower bound, where the least largest share is found by looking at all layouts."""
        rooms = self.problems[0].rooms
        bounds = []
        for problem in self.problems:
            of_windows = [
                max(sum(loads) / sum(self.speeds), optimum.least_share(loads, rooms) / max(self.speeds))
                for loads in problem.windows
            ]
            bounds.append(sum(of_windows))
        return Lookup(bounds)

    @cached_property
    def largest_for_sum(self) -> Lookup:
        """The largest time, in its windows, of a layer that was planned for their sum."""
        return self._largest(self.rows_of(self.call(loads=[problem.summed for problem in self.problems])))

    @cached_property
    def largest_from_nothing(self) -> Lookup:
        """The largest time of a layer that was planned without a previous placement."""
        return self._largest(self.rows_of(self.call(previous=None)))

    def is_balanced(self, layer: Any) -> Any:
        """Whether a layer is within the tolerance of its lower bound."""
        return at_most(self.largest(layer), self.bound(layer) * (1 + TOLERANCE))

    @cached_property
    def rows_alone(self) -> Rows:
        """The table where each layer is planned by itself."""
        rows = []
        for layer in range(self.num_layers):
            loads: Any = [[window[layer]] for window in self.case.loads]
            rows += self.rows_of(self.call(loads=loads if self.num_windows > 1 else loads[0]))
        return rows

    @cached_property
    def table_alone(self) -> Lookup:
        """The expert of a slot of a layer that is planned by itself."""
        return Lookup(self.rows_alone, 2)

    # Nodes and groups.

    def _served(self, rows: Rows) -> list[list[list[float]]]:
        layers = zip(self.problems, rows, strict=True)
        return [homes.served_by_nodes(row, p.summed, p.offsets, self.case.topology) for p, row in layers]

    def _off_node(self, rows: Rows) -> Lookup:
        layers = zip(self.problems, rows, strict=True)
        groups = self.case.num_groups
        return Lookup([homes.off_node(row, p.summed, p.offsets, self.case.topology, groups) for p, row in layers])

    @cached_property
    def off_node(self) -> Lookup:
        """The part of a layer's load that is served off node."""
        return self._off_node(self.rows)

    @property
    def most_off_node(self) -> float:
        """Which part may be."""
        return homes.MOST_OFF_NODE if self.case.max_off_node is None else self.case.max_off_node

    @cached_property
    def most_off_node_now(self) -> Lookup:
        """Which part of a layer may be where there is a previous placement: with a budget what was before, if more."""
        return Lookup([self.most_off_node] * self.num_layers) if self.moves_freely else self.most_off_node_for_gains

    def _whole_homes(self, layer: int, rows: Rows) -> list[list[int]]:
        """For each group the nodes that have replicas of all its experts."""
        groups = homes.groups_of(self.num_experts, self.case.num_groups)
        return homes.whole_on(self.problems[layer], rows[layer], groups)

    @cached_property
    def is_at_home(self) -> Lookup:
        """Whether some node has replicas of all experts of the group of an expert."""
        layers = [[bool(nodes) for nodes in self._whole_homes(layer, self.rows)] for layer in range(self.num_layers)]
        return Lookup([homes.of_experts(layer, self.num_experts) for layer in layers], 2)

    @cached_property
    def was_at_home(self) -> Lookup:
        """Whether the node that served most of the group of an expert before had replicas of all of it."""
        layers = []
        for layer, served in enumerate(self._served(self.previous_rows)):
            busiest = homes.busiest_homes(served, self.case.num_groups)
            whole = self._whole_homes(layer, self.previous_rows)
            layers.append([home in nodes for home, nodes in zip(busiest, whole, strict=True)])
        return Lookup([homes.of_experts(layer, self.num_experts) for layer in layers], 2)

    @cached_property
    def off_home(self) -> Lookup:
        """The least part of a layer's load that is off node where homes are nodes with all experts of a group."""
        groups = homes.groups_of(self.num_experts, self.case.num_groups)
        parts = []
        for layer, served in enumerate(self._served(self.rows)):
            nodes_of = self._whole_homes(layer, self.rows)
            # A group that is whole nowhere is off node wherever its home is.
            best = [
                max(nodes, key=lambda node: sum(served[node][expert] for expert in group), default=-1)
                for group, nodes in zip(groups, nodes_of, strict=True)
            ]
            parts.append(homes.part_off_homes(served, homes.of_experts(best, self.num_experts)))
        return Lookup(parts)

    # Capacity.

    @cached_property
    def fewest_slots(self) -> int:
        """The least number of slots that hold every expert on active ranks, of those that the policy takes."""
        return fewest_slots(self.num_experts, self.case.topology, self._unit)

    @property
    def _unit(self) -> int:
        """What numbers of slots are counted in: `deepseek` takes as many for every rank."""
        return self.num_ranks if self.case.policy == "deepseek" else 1

    @property
    def _numbers_of_slots(self) -> list[int]:
        return [self.fewest_slots + beyond * self._unit for beyond in CURVE]

    def _capacity(self, function: str, argument: Any, **options: Any) -> Any:
        case = self.case
        loads = deepcopy(case.loads if self.num_windows > 1 else case.loads[0])
        if case.max_off_node is not None and self.model.offers(f"{function}(max_off_node)"):
            options["max_off_node"] = case.max_off_node
        ask = getattr(self.names, function)
        topology = made_topology(self.names, case.topology)
        return ask(loads, argument, topology, policy=case.policy, num_groups=case.num_groups, **options)

    @cached_property
    def _points_of_curve(self) -> list[Any]:
        return list(self._capacity("capacity_curve", self._numbers_of_slots))

    def _of_points(self, name: str) -> Lookup:
        return Lookup([field(point, name) for point in self._points_of_curve])

    @cached_property
    def slots_on_curve(self) -> Lookup:
        """The number of slots at a place on the curve."""
        return self._of_points("num_slots")

    @cached_property
    def slots_asked_for(self) -> Lookup:
        """The number of slots that is asked for at a place on the curve."""
        return Lookup(self._numbers_of_slots)

    @cached_property
    def curve(self) -> Lookup:
        """The balancedness at a place on the curve."""
        return self._of_points("balancedness")

    @cached_property
    def most_on_curve(self) -> Lookup:
        """What no placement exceeds at a place on the curve."""
        return self._of_points("most")

    def _mean_over(self, totals: list[float]) -> Lookup:
        return Lookup([measure.ratio(warm_start.sum_of_means(self.problems), total) for total in totals])

    def _problems_of(self, num_slots: int) -> list[Problem]:
        return [replace(problem, num_slots=num_slots) for problem in self.problems]

    @cached_property
    def balancedness_of_plan(self) -> Lookup:
        """The balancedness of the implementation's plan for the number of slots at a place on the curve."""
        numbers = self._numbers_of_slots
        plans = {number: self.rows_of(self.call(num_slots=number)) for number in set(numbers)}
        return self._mean_over([warm_start.total(self._problems_of(number), plans[number]) for number in numbers])

    @cached_property
    def stated_most(self) -> Lookup:
        """What no placement exceeds there, by its definition."""
        return self._mean_over([sum(p.bound for p in self._problems_of(number)) for number in self._numbers_of_slots])

    @cached_property
    def finds_least_slots(self) -> Lookup:
        """Whether the least slots for the balancedness at a place on the curve are the first that are enough."""
        curve = self.curve.array.tolist()
        steps = [step * self._unit for step in STEPS]
        found = {wanted: all(self._is_first(wanted, step) for step in steps) for wanted in set(curve)}
        return Lookup([found[wanted] for wanted in curve])

    def _is_first(self, wanted: float, step: int) -> bool:
        numbers = self._numbers_of_slots
        enough = [n for n, found in zip(numbers, self.curve.array, strict=True) if n % step == 0 and found >= wanted]
        ask = partial(self._least_slots, wanted, step=step, max_slots=max(numbers))
        return field(ask(), "num_slots") == min(enough) if enough else refuses(ValueError, ask)

    def _least_slots(self, wanted: float, **options: int) -> Any:
        return self._capacity("least_slots", wanted, **options)

    def refuses_wrong_capacities(self) -> bool:
        """Whether no slots are found for a balance or a step that is none, or among numbers that hold too little."""
        wrong: list[tuple[float, dict[str, int]]] = [(number, {}) for number in (-0.1, 1.1, float("nan"))]
        wrong += [(0.0, {"step": 0}), (0.0, {"step": -1})]
        wrong.append((0.0, {"step": self._unit, "max_slots": self.fewest_slots - 1}))
        calls = (partial(self._least_slots, wanted, **options) for wanted, options in wrong)
        return all_refused(ValueError, calls, "least_slots")

    # Moves.

    @cached_property
    def num_moves(self) -> int:
        """How many moves the plan is away from the previous placement."""
        return warm_start.cost(self.problems, self.previous_rows, self.rows)

    @cached_property
    def rows_without_moves(self) -> Rows:
        """The table that a budget of nothing leads to."""
        return self.rows_of(self.call(max_moves=0))

    @property
    def live_rows(self) -> Rows:
        """The previous table without what is on inactive ranks."""
        return self.case.live_rows

    @cached_property
    def _rows_at(self) -> dict[int, Rows]:
        """The tables under the budgets from 0 on that restore every lost expert, and under a move for every slot."""
        enough = self.num_layers * self.case.num_slots
        budgets = {budget for budget in (*range(BUDGETS + 1), self.num_lost, enough) if budget >= self.num_lost}
        return {budget: self.rows_of(self.call(max_moves=budget, min_gain=None)) for budget in sorted(budgets)}

    @cached_property
    def total_at(self) -> Lookup:
        """The sum of the layers' largest times under a budget; infinite where it restores too few experts."""
        rows = (self._rows_at.get(budget) for budget in range(BUDGETS + 1))
        return Lookup([float("inf") if one is None else warm_start.total(self.problems, one) for one in rows])

    @cached_property
    def total_with_every_move(self) -> float:
        """The sum of the layers' largest times under a budget for every slot of every layer."""
        return warm_start.total(self.problems, self._rows_at[self.num_layers * self.case.num_slots])

    def moves_save_what_they_must(self) -> bool:
        """Whether the price of the plan with each of some gains is at most that of plans for budgets.

        With a budget beside the gain, of that which restores lost experts alone, and the budget is kept.
        """
        return all(self._is_worth_its_moves(gain) for gain in GAINS)

    def _is_worth_its_moves(self, gain: float) -> bool:
        price = gain * warm_start.sum_of_means(self.problems)
        if not all(self._costs_at_most(self._rows_for[gain], rows, price) for rows in self._rows_at.values()):
            return False
        for budget in (self.num_lost, self.num_lost + 2):
            rows = self.rows_of(self.call(max_moves=budget, min_gain=gain))
            is_kept = warm_start.cost(self.problems, self.previous_rows, rows) <= budget
            if not is_kept or not self._costs_at_most(rows, self._rows_at[self.num_lost], price):
                return False
        ample = self.call(max_moves=self.num_layers * self.case.num_slots, min_gain=gain)
        return self._costs_at_most(self.rows_of(ample), self._rows_for[gain], price)

    @cached_property
    def _rows_for(self) -> dict[float, Rows]:
        """The tables where moves must bring each of some gains, and nothing else limits them."""
        return {gain: self.rows_of(self.call(max_moves=None, min_gain=gain)) for gain in GAINS}

    def _costs_at_most(self, rows: Rows, others: Rows, price: float) -> bool:
        """Whether a table's largest times and the price of its moves are together at most those of another table."""
        totals = [warm_start.total(self.problems, one) for one in (rows, others)]
        moves = [warm_start.cost(self.problems, self.previous_rows, one) for one in (rows, others)]
        # The price may be so high that what it is added to is lost beside it.
        saved = 0.0 if moves[0] == moves[1] else price * (moves[1] - moves[0])
        return totals[0] - totals[1] <= saved + ROUNDING * sum(totals) + SMALLEST

    @cached_property
    def off_node_for_gains(self) -> Lookup:
        """The most of a layer's load that is off node where moves must bring one of some gains."""
        return Lookup(np.max([self._off_node(rows).array for rows in self._rows_for.values()], axis=0))

    @cached_property
    def most_off_node_for_gains(self) -> Lookup:
        """Which part of a layer may be then: what was before, if that is more than is allowed."""
        return Lookup(np.maximum(self._off_node(self.previous_rows).array, self.most_off_node))

    @cached_property
    def total_of_free_moves(self) -> float:
        """The sum of the layers' largest times without a budget."""
        return warm_start.total(self.problems, self.rows_of(self.call(max_moves=None, min_gain=None)))

    @cached_property
    def is_best_already(self) -> Lookup:
        """Whether a layer was within the tolerance of its bound before, and as good as from nothing."""
        before = self._largest(self.previous_rows).array
        is_balanced = at_most(before, self.bound.array * (1 + TOLERANCE))
        return Lookup(is_balanced & (before <= self.largest_from_nothing.array))

    @cached_property
    def moves(self) -> Lookup:
        """How many moves a layer is away from the previous placement."""
        return Lookup(list(map(warm_start.moves, self.problems, self.previous_rows, self.rows)))

    def is_the_same_from_other_ranks(self) -> bool:
        """Whether the plan is the same where the previous placement has other nodes, speeds and active ranks."""
        return all(self.is_repeated(previous=self.make_previous(topology=other)) for other in self._others_before)

    @property
    def _others_before(self) -> list[Topology]:
        ranks, rows = range(self.num_ranks), self.previous_rows
        held = [
            any(set(p.held(row, rank)) - {EMPTY} for p, row in zip(self.problems, rows, strict=True)) for rank in ranks
        ]
        others = [
            replace(self._everyone, num_nodes=1, speeds=[1.0 + rank for rank in ranks]),
            replace(self._everyone, num_nodes=self.num_ranks, speeds=[1.0 + (rank == 0) for rank in ranks]),
        ]
        return [*others, replace(self._everyone, active=held)] if any(held) else others

    def leaves_loads_alone(self) -> bool:
        """Whether loads in an array are planned as those in lists are, and are afterwards what they were before."""
        loads = np.array(self.own_loads, dtype=np.float64)
        given = loads.copy()
        rows = self.rows_of(self.call(loads=given))
        if rows != self.rows or not np.array_equal(given, loads):
            return False
        # Other loads in the same array are other loads.
        given[...] = np.roll(loads, 1, axis=-1)
        return self.rows_of(self.call(loads=given)) == self.rows_of(self.call(loads=given.tolist()))

    # Errors.

    def refuses_impossible_plans(self) -> bool:
        """Whether every choice of a single active rank that has fewer slots than there are experts is refused."""
        return all_refused(ValueError, (partial(self.call, topology=only) for only in self._too_few()), "rebalance")

    def _too_few(self) -> list[Topology]:
        slots, ranks = self.case.topology.slots(self.case.num_slots), range(self.num_ranks)
        alone = [[rank == active for rank in ranks] for active in ranks if slots[active] < self.num_experts]
        return [replace(self.case.topology, active=active) for active in alone]

    def names_lost_experts(self) -> bool:
        """Whether an error for that names an expert without a live replica."""
        return all(self._is_lost(self._message(topology=only), only) for only in self._too_few())

    def refuses_too_small_a_budget(self) -> bool:
        """Whether a budget too small to restore every lost expert is refused."""
        return all_refused(ValueError, [partial(self.call, max_moves=self.num_lost - 1)], "rebalance")

    def _message(self, **changes: Any) -> str:
        try:
            self.call(**changes)
        except ValueError as error:
            return str(error)
        return ""

    def _is_lost(self, message: str, topology: Topology) -> bool:
        named = re.search(r"expert (\d+)", message)
        if named is None:
            return False
        problem = Problem([], self.case.num_slots, topology)
        live = [[row[slot] for slot in problem.usable_slots] for row in self.previous_rows]
        return int(named[1]) < self.num_experts and any(int(named[1]) not in row for row in live)

    def refuses_wrong_calls(self) -> bool:
        """Whether wrong loads, names and numbers are refused."""
        layers, one = self.case.loads[0], [1.0] * self.num_experts
        calls: list[partial[Any]] = [
            partial(self.call, policy="nonsense"),
            partial(self.call, num_groups=0),
            partial(self.call, num_groups=self.num_experts + 1 + (self.num_experts == 0)),
            partial(self.call, loads=one),
            partial(self.call, loads=[]),
        ]
        if self.num_experts:
            numbers = (float("nan"), float("inf"), -1.0)
            calls += [partial(self.call, loads=[*layers[:-1], [*layers[-1][:-1], number]]) for number in numbers]
        if self.case.topology.slots_per_rank is not None:
            calls += [partial(self.call, num_slots=self.case.num_slots + more) for more in (1, -1)]
        if self.has_previous:
            # The policy `deepseek` takes no budget at all.
            budget = -1 if self.case.policy == "balanced" else 1
            calls.append(partial(self.call, max_moves=budget))
            calls.append(partial(self.call, loads=[*layers, one]))
        return all_refused(ValueError, calls, "rebalance")

    def refuses_wrong_gains(self) -> bool:
        """Whether gains are refused that are none, and any with `deepseek` or without a previous placement."""
        numbers = (-1.0, -1e-9, float("nan"), float("inf"))
        calls = [partial(self.call, policy="balanced", max_moves=None, min_gain=number) for number in numbers]
        calls.append(partial(self.call, previous=None, min_gain=0.1))
        if not self.needs_of_deepseek:
            calls.append(partial(self.call, policy="deepseek", max_moves=None, min_gain=0.1))
        return all_refused(ValueError, calls, "rebalance")

    def refuses_other_shapes(self) -> bool:
        """Whether a previous placement of other layers, experts, slots or ranks is refused."""
        shapes = of_other_shapes(self.previous_rows, self.num_experts, self._everyone)
        others = (self.make_previous(table, topology, experts) for table, experts, topology in shapes)
        return all_refused(ValueError, (partial(self.call, previous=other) for other in others), "rebalance")

    def refuses_limits_out_of_reach(self) -> bool:
        """Whether it is refused to serve nothing off node."""
        return all_refused(ValueError, [partial(self.call, max_off_node=0.0)], "rebalance")

    def refuses_wrong_limits(self) -> bool:
        """Whether limits are refused that are none, and those where there are no homes."""
        numbers = (-0.1, -1e-9, 1.0 + 1e-9, float("nan"), float("inf"), -float("inf"))
        calls = [partial(self.call, policy="balanced", max_off_node=number) for number in numbers]
        calls.append(partial(self.call, policy="deepseek", previous=None, max_off_node=0.5))
        if self.case.topology.num_nodes > 1:
            calls.append(partial(self.call, policy="balanced", num_groups=1, max_off_node=0.5))
        return all_refused(ValueError, calls, "rebalance")

    def refuses_uneven_groups(self) -> bool:
        """Whether groups that do not divide the experts are refused under both policies."""
        uneven = [groups for groups in range(2, self.num_experts) if self.num_experts % groups]
        calls = [
            partial(self.call, policy=policy, num_groups=groups, previous=None)
            for groups in uneven
            for policy in ("balanced", "deepseek")
        ]
        return all_refused(ValueError, calls, "rebalance")

    def refuses_what_deepseek_lacks(self) -> bool:
        """Whether the policy `deepseek` is refused."""
        return all_refused(ValueError, [partial(self.call, policy="deepseek", previous=None)], "rebalance")


def is_helped(problem: Problem, row: list[int]) -> bool:
    """Whether a step of refinement lowers the largest time, with experts as much at home as they have to be."""
    least = problem.largest(row) * (1 - ROUNDING)
    return any(problem.largest(after) < least and problem.allows(after) for after in refinement.steps(problem, row))
