"""Broken planners, each with the invariants that must reject it by name.

Several are real: ties by an unstable order, spare replicas that heap up on one expert, plans that ignore failed ranks.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from unittest.mock import patch

import numpy as np
from expert_placement_spec import model
from expert_placement_spec.balance import capacity, deepseek, reference, warm_start
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.placement.reference import EMPTY

from tests.spec.broken_placements import reports

if TYPE_CHECKING:
    from expert_placement_spec.placement.topology import Topology


rebalance: Any = reference.rebalance


class Unchecked(model.Placement):
    """A placement of any table, such as a broken planner makes."""

    def _check(self, layer: int, row: list[int]) -> None:
        pass


class BrokenPlanner:
    """The reference model under the public names, with `rebalance` replaced."""

    Partition = model.Partition
    Topology = model.Topology
    Placement: ClassVar[Any] = model.Placement
    breaks: ClassVar[set[str]]

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


def changed(plan: model.Placement, rows: Any) -> model.Placement:
    """The plan with another table."""
    return Unchecked(rows, plan.num_experts, plan.topology)


def by_rank(plan: model.Placement, row: list[int]) -> list[list[int]]:
    """What each rank holds."""
    return [row[start:end] for start, end in zip(plan.offsets, plan.offsets[1:], strict=False)]


def reordered(plan: model.Placement, order: Any) -> model.Placement:
    """The plan with each rank's slots in another order."""
    return changed(plan, [[entry for held in by_rank(plan, row) for entry in order(held)] for row in plan.table])


class RestoresAlone(BrokenPlanner):
    """With a budget what was lost is restored, and nothing made better."""

    breaks: ClassVar = {"enough_moves_are_as_good_as_free_ones"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, previous: Any = None, **options: Any) -> Any:
        for budget in range(max_moves or 0):
            try:
                return rebalance(*arguments, previous=previous, max_moves=budget, **options)
            except ValueError:
                continue
        return rebalance(*arguments, previous=previous, max_moves=max_moves, **options)


class ForgetsGains(BrokenPlanner):
    """As many moves as help, whatever they must bring."""

    breaks: ClassVar = {"moves_save_what_they_must", "wrong_gains_are_refused"}

    @staticmethod
    def rebalance(*arguments: Any, min_gain: float | None = None, **options: Any) -> Any:
        return rebalance(*arguments, **options)


class ChargesForGivingUp(BrokenPlanner):
    """A replica that is given up costs as much as a move."""

    breaks: ClassVar = {"moves_save_what_they_must"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        gain = warm_start.gain_a_move

        def charged(problem: Any, previous: Any, row: Any, better: Any) -> float:
            saved: float = problem.largest(row) - problem.largest(better)
            return min(gain(problem, previous, row, better), saved)

        with patch.object(warm_start, "gain_a_move", charged):
            return rebalance(*arguments, **options)


class LeavesHomesForAGain(BrokenPlanner):
    """Where moves must bring a gain, they mind no homes."""

    breaks: ClassVar = {"gains_lift_no_load_off_node"}

    @staticmethod
    def rebalance(
        *arguments: Any,
        num_groups: int = 1,
        max_off_node: float | None = None,
        min_gain: float | None = None,
        **options: Any,
    ) -> Any:
        if min_gain is None:
            return rebalance(*arguments, num_groups=num_groups, max_off_node=max_off_node, **options)
        return rebalance(*arguments, min_gain=min_gain, **options)


class LosesForAGain(BrokenPlanner):
    """Where moves must bring a gain, experts that lost their last replica stay lost."""

    breaks: ClassVar = {"plan_leaves_no_expert_out"}

    @staticmethod
    def rebalance(*arguments: Any, min_gain: float | None = None, previous: Any = None, **options: Any) -> Any:
        plan = rebalance(*arguments, min_gain=min_gain, previous=previous, **options)
        if min_gain is None:
            return plan
        problem = Problem([], plan.num_slots, plan.topology)
        live = [{row[slot] for slot in problem.usable_slots} for row in previous.table]
        rows = zip(plan.table, live, strict=True)
        return changed(plan, [[entry if entry in known else EMPTY for entry in row] for row, known in rows])


class SortsForAGain(BrokenPlanner):
    """Where moves must bring a gain, each rank's slots are in order."""

    breaks: ClassVar = {"staying_experts_keep_their_slots"}

    @staticmethod
    def rebalance(*arguments: Any, min_gain: float | None = None, **options: Any) -> Any:
        plan = rebalance(*arguments, min_gain=min_gain, **options)
        return plan if min_gain is None else reordered(plan, sorted)


class RestoresBesideAGain(BrokenPlanner):
    """With a budget beside a gain lost experts are restored, and nothing is bought."""

    breaks: ClassVar = {"moves_save_what_they_must"}

    @staticmethod
    def rebalance(*arguments: Any, min_gain: float | None = None, max_moves: int | None = None, **options: Any) -> Any:
        for budget in range(max_moves or 0) if min_gain is not None else ():
            try:
                return rebalance(*arguments, min_gain=min_gain, max_moves=budget, **options)
            except ValueError:
                continue
        return rebalance(*arguments, min_gain=min_gain, max_moves=max_moves, **options)


class OneNodeForAll(BrokenPlanner):
    """The plan's ranks are on one node."""

    breaks: ClassVar = {"plan_has_the_asked_shape"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return Unchecked(plan.table, plan.num_experts, replace(plan.topology, num_nodes=1))


class GroupsOfTheLiving(BrokenPlanner):
    """After a failure there are no groups."""

    breaks: ClassVar = {"moves_lift_no_load_off_node"}

    @staticmethod
    def rebalance(*arguments: Any, previous: Any = None, **options: Any) -> Any:
        topology = arguments[2]
        if previous is not None and topology.active is not None and options.get("policy") == "balanced":
            problem = Problem([], previous.num_slots, topology)
            dead = set(range(previous.num_slots)) - set(problem.usable_slots)
            if any(row[slot] != EMPTY for row in previous.table for slot in dead):
                options = {**options, "num_groups": 1}
                options.pop("max_off_node", None)
        return rebalance(*arguments, previous=previous, **options)


class KnowsItsLoads(BrokenPlanner):
    """Loads in the array of the last call are those of the last call."""

    breaks: ClassVar = {"loads_are_left_alone"}
    known: ClassVar[Any] = (None, None)

    @classmethod
    def rebalance(cls, loads: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(loads, np.ndarray):
            if cls.known[0] is not loads:
                cls.known = (loads, loads.copy())
            loads = cls.known[1]
        return rebalance(loads, *arguments, **options)


class EqualRanksUnsaid(BrokenPlanner):
    """The policy `deepseek` takes no speeds, though they be alike."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        if policy == "deepseek" and topology.speeds is not None:
            raise ValueError("speeds are for other policies")
        return rebalance(loads, num_slots, topology, policy, **options)


class StaysForAGain(BrokenPlanner):
    """No move, where moves must bring anything."""

    breaks: ClassVar = {"moves_save_what_they_must"}

    @staticmethod
    def rebalance(*arguments: Any, min_gain: float | None = None, **options: Any) -> Any:
        gain = None if min_gain is None else max(min_gain, 1e9) if 0 < min_gain < 2 else min_gain
        return rebalance(*arguments, min_gain=gain, **options)


class SpendsGains(BrokenPlanner):
    """A budget beside a gain is none."""

    breaks: ClassVar = {"moves_save_what_they_must"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, min_gain: Any = None, **options: Any) -> Any:
        budget = max_moves if min_gain is None else None
        return rebalance(*arguments, max_moves=budget, min_gain=min_gain, **options)


class AlignsThePlanFromNothing(BrokenPlanner):
    """Without a budget the plan from nothing, each rank's slots in the order in which they were."""

    breaks: ClassVar = {"nothing_moves_in_vain"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, previous: Any = None, **options: Any) -> Any:
        # Everybody's errors, and budgets.
        plan = rebalance(*arguments, previous=previous, max_moves=max_moves, **options)
        if previous is None or max_moves is not None or options.get("policy") == "deepseek":
            return plan
        try:
            free = rebalance(*arguments, **options)
        except ValueError:
            return plan
        problem = Problem([], free.num_slots, free.topology)
        rows = [warm_start.aligned(problem, *rows) for rows in zip(previous.table, free.table, strict=True)]
        return changed(free, rows)


class BalancesAfterMoves(BrokenPlanner):
    """With a previous placement another policy in the place of `deepseek`."""

    breaks: ClassVar = {"deepseek_knows_nothing_of_moves"}

    @staticmethod
    def rebalance(
        loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", previous: Any = None, **options: Any
    ) -> Any:
        plan = rebalance(loads, num_slots, topology, policy, previous=previous, **options)
        if policy != "deepseek" or previous is None:
            return plan
        return rebalance(loads, num_slots, topology, previous=previous, **options)


class RanksOfThePrevious(BrokenPlanner):
    """The speeds that ranks had before."""

    breaks: ClassVar = {"previous_ranks_change_nothing"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        if options.get("previous") is not None:
            topology = replace(topology, speeds=options["previous"].topology.speeds)
        return rebalance(loads, num_slots, topology, policy=policy, **options)


class NothingForTheReturned(BrokenPlanner):
    """A rank that was out of service before stays so, where the others have room."""

    breaks: ClassVar = {"previous_ranks_change_nothing"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        before = options.get("previous")
        if before is not None and policy == "balanced" and topology.active is None:
            try:
                return rebalance(loads, num_slots, replace(topology, active=before.topology.active), policy, **options)
            except ValueError:
                pass
        return rebalance(loads, num_slots, topology, policy=policy, **options)


class AnyPrevious(BrokenPlanner):
    """A previous placement of other ranks is none."""

    breaks: ClassVar = {"other_previous_shapes_are_refused"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        before = options.get("previous")
        if before is not None and before.num_ranks != topology.num_ranks:
            del options["previous"]
        return rebalance(loads, num_slots, topology, policy=policy, **options)


class OneLayerTooMany(BrokenPlanner):
    """The first layer twice."""

    breaks: ClassVar = {"plan_has_the_asked_shape"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return changed(plan, [*plan.table, plan.table[0]])


class LosesAnExpert(BrokenPlanner):
    """The last expert nowhere: what the others carry is less than there is."""

    breaks: ClassVar = {"plan_leaves_no_expert_out", "plans_respect_the_bound", "plans_respect_the_optimum"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        last = plan.num_experts - 1
        return changed(plan, [[EMPTY if entry == last else entry for entry in row] for row in plan.table])


class ForgetsFailures(BrokenPlanner):
    """Plans for all ranks, in service or not."""

    breaks: ClassVar = {"inactive_ranks_stay_empty", "impossible_plans_are_refused"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, **options: Any) -> Any:
        return rebalance(loads, num_slots, replace(topology, active=None), **options)


class FillsEverySlot(BrokenPlanner):
    """A second copy of a rank's first expert in each of its empty slots."""

    breaks: ClassVar = {"replicas_are_kept_apart"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return reordered(plan, lambda held: [max(held) if entry < 0 else entry for entry in held])


class BoundsByOneReplica(BrokenPlanner):
    """A bound by the largest load, as if replicas did not share it."""

    breaks: ClassVar = {"replication_is_optimal"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            largest = float(np.asarray(loads).max(initial=0.0))
            return reports(self, loads, lower_bound=lambda report: max(report.lower_bound, largest))

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return BoundsByOneReplica.Placement(plan.table, plan.num_experts, plan.topology)


class NoReplicas(BrokenPlanner):
    """One replica of each expert, rank by rank."""

    breaks: ClassVar = {"never_worse_than_deepseek", "single_slots_are_used_best"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, **options: Any) -> Any:
        plan = rebalance(loads, num_slots, topology, **options)
        row = [EMPTY] * num_slots
        usable = [slot for slot in range(num_slots) if any(entries[slot] >= 0 for entries in plan.table)]
        for expert, slot in zip(range(plan.num_experts), usable, strict=False):
            row[slot] = expert
        return changed(plan, [row] * plan.num_layers)


class TiesFromTheEnd(BrokenPlanner):
    """Ties to the higher expert, as an unstable sort may leave them."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, **options: Any) -> Any:
        plan = rebalance(np.asarray(loads, dtype=float)[..., ::-1], *arguments, **options)
        last = plan.num_experts - 1
        return changed(plan, [[last - entry if entry >= 0 else entry for entry in row] for row in plan.table])


class PacksInSinglePrecision(BrokenPlanner):
    """The sums of packs in float32."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def pack(weights: list[Any], num_packs: int) -> list[tuple[int, int]]:
        room = len(weights) // num_packs if num_packs else 0
        if room == 1:
            return [(index, 0) for index in range(num_packs)]
        packs: list[list[int]] = [[] for _ in range(num_packs)]
        sums = [np.float32(0)] * num_packs
        for index in sorted(range(len(weights)), key=lambda index: -weights[index]):
            lightest = min((one for one in range(num_packs) if len(packs[one]) < room), key=lambda one: sums[one])
            packs[lightest].append(index)
            sums[lightest] += weights[index]
        places = {index: (number, place) for number, own in enumerate(packs) for place, index in enumerate(own)}
        return [places[index] for index in range(len(weights))]

    @classmethod
    def rebalance(cls, *arguments: Any, **options: Any) -> Any:
        with patch.object(deepseek, "pack", cls.pack):
            return rebalance(*arguments, **options)


class GroupsInSinglePrecision(BrokenPlanner):
    """The loads of a group added up in float32."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        def summed(loads: Any) -> Any:
            total = np.float32(0)
            for load in loads:
                total += np.float32(load)
            return total

        with patch.object(deepseek, "in_order", summed):
            return rebalance(*arguments, **options)


class QuotientsInDoublePrecision(BrokenPlanner):
    """The loads of replicas compared in float64."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        def replicate(weights: list[Any], num_slots: int) -> tuple[list[int], list[int]]:
            items, counts = list(range(len(weights))), [1] * len(weights)
            while len(items) < num_slots:
                items.append(max(range(len(weights)), key=lambda item: (float(weights[item]) / counts[item], -item)))
                counts[items[-1]] += 1
            return items, counts

        with patch.object(deepseek, "replicate", replicate):
            return rebalance(*arguments, **options)


class WindowsInSinglePrecision(BrokenPlanner):
    """Windows added up in float32 for the policy `deepseek`."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        if policy == "deepseek" and np.ndim(loads) == 3:
            loads = np.asarray(loads, dtype=np.float32).sum(axis=0)
        return rebalance(loads, num_slots, topology, policy, **options)


class MeanOfWindows(BrokenPlanner):
    """The mean of the windows in the place of their sum for the policy `deepseek`."""

    breaks: ClassVar = {"deepseek_is_followed_exactly"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        if policy == "deepseek" and np.ndim(loads) == 3:
            loads = np.asarray(loads, dtype=np.float64).mean(axis=0)
        return rebalance(loads, num_slots, topology, policy, **options)


class AnythingForDeepseek(BrokenPlanner):
    """Another policy where the one that was asked for does not apply."""

    breaks: ClassVar = {"deepseek_refuses_what_it_can_not_plan"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, policy: str = "balanced", **options: Any) -> Any:
        try:
            return rebalance(loads, num_slots, topology, policy=policy, **options)
        except ValueError:
            if policy != "deepseek":
                raise
            return rebalance(loads, num_slots, topology, **options)


class Remembers(BrokenPlanner):
    """Slots in another order every other time."""

    breaks: ClassVar = {"plans_repeat_themselves"}
    calls = count()

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return reordered(plan, lambda held: held[::-1]) if next(Remembers.calls) % 2 else plan


class EachThreadItsOwn(BrokenPlanner):
    """Slots in another order where there are two threads."""

    breaks: ClassVar = {"threads_change_nothing"}

    @staticmethod
    def rebalance(*arguments: Any, num_threads: int = 1, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return reordered(plan, lambda held: held[::-1]) if num_threads > 1 else plan


class OddThreadsTheirOwn(BrokenPlanner):
    """Slots in another order where there are three threads."""

    breaks: ClassVar = {"threads_change_nothing"}

    @staticmethod
    def rebalance(*arguments: Any, num_threads: int = 1, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return reordered(plan, lambda held: held[::-1]) if num_threads == 3 else plan


class SmallLoadsAreNone(BrokenPlanner):
    """Loads below 2 taken as none."""

    breaks: ClassVar = {"only_ratios_of_loads_matter"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, **options: Any) -> Any:
        loads = np.asarray(loads, dtype=float)
        return rebalance(np.where(loads < 2, 0.0, loads), *arguments, **options)


class FirstLayerForAll(BrokenPlanner):
    """The plan of the first layer in every layer."""

    breaks: ClassVar = {"layers_are_planned_alone"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        plan = rebalance(*arguments, **options)
        return changed(plan, [plan.table[0]] * plan.num_layers)


class TakesUnequalRanksForEqualLoads(BrokenPlanner):
    """Where ranks are not all alike, every expert counts as equally loaded."""

    breaks: ClassVar = {"no_step_helps"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Any, *arguments: Any, **options: Any) -> Any:
        is_alike = topology.speeds is None and len(set(topology.slots(num_slots))) == 1
        flat = loads if is_alike else np.ones_like(np.array(loads, dtype=np.float64)).tolist()
        return rebalance(flat, num_slots, topology, *arguments, **options)


class ScalesLoadsInPlace(BrokenPlanner):
    """Loads are divided by the largest of them where they stand."""

    breaks: ClassVar = {"loads_are_left_alone"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(loads, np.ndarray) and loads.size and loads.max() > 0:
            loads /= 2 * loads.max()
        return rebalance(loads, *arguments, **options)


class FirstWindowForAll(BrokenPlanner):
    """A plan for the first window."""

    breaks: ClassVar = {"windows_are_planned_for"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, **options: Any) -> Any:
        return rebalance(loads[0] if np.ndim(loads) == 3 else loads, *arguments, **options)


class MovesFreely(BrokenPlanner):
    """No budget, whatever it is."""

    breaks: ClassVar = {"budget_is_kept", "no_moves_change_nothing"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, **options: Any) -> Any:
        return rebalance(*arguments, **options)


class SortsItsSlots(BrokenPlanner):
    """Each rank's experts in order, wherever they were."""

    breaks: ClassVar = {"no_moves_change_nothing", "staying_experts_keep_their_slots"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        return reordered(rebalance(*arguments, **options), sorted)


class LikesEvenBudgets(BrokenPlanner):
    """Nothing moves where the budget is odd."""

    breaks: ClassVar = {"more_moves_never_hurt"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, **options: Any) -> Any:
        if max_moves is not None and max_moves % 2:
            try:
                return rebalance(*arguments, max_moves=0, **options)
            except ValueError:
                pass
        return rebalance(*arguments, max_moves=max_moves, **options)


class StaysWhereItIs(BrokenPlanner):
    """No more moves than it takes to restore what was lost, even without a budget."""

    breaks: ClassVar = {"free_moves_balance_as_from_nothing"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, previous: Any = None, **options: Any) -> Any:
        for budget in range(20) if previous is not None and max_moves is None else ():
            try:
                return rebalance(*arguments, previous=previous, max_moves=budget, **options)
            except ValueError:
                continue
        return rebalance(*arguments, previous=previous, max_moves=max_moves, **options)


class LeavesOut(BrokenPlanner):
    """Plans for as many experts as there is room for."""

    breaks: ClassVar = {"impossible_plans_are_refused"}

    @staticmethod
    def rebalance(loads: Any, num_slots: int, topology: Topology, **options: Any) -> Any:
        try:
            return rebalance(loads, num_slots, topology, **options)
        except ValueError as error:
            if "active ranks" not in str(error):
                raise
            return None


class SaysLittle(BrokenPlanner):
    """Errors that do not say of which expert."""

    breaks: ClassVar = {"lost_experts_are_named"}

    @staticmethod
    def rebalance(*arguments: Any, **options: Any) -> Any:
        try:
            return rebalance(*arguments, **options)
        except ValueError as error:
            raise ValueError("it can not be done") from error


class SpendsMoreWhereItMust(BrokenPlanner):
    """Lost experts restored beyond the budget."""

    breaks: ClassVar = {"budgets_too_small_to_restore_are_refused"}

    @staticmethod
    def rebalance(*arguments: Any, max_moves: int | None = None, **options: Any) -> Any:
        try:
            return rebalance(*arguments, max_moves=max_moves, **options)
        except ValueError as error:
            if "too few" not in str(error):
                raise
            return rebalance(*arguments, **options)


class TakesAnyLoad(BrokenPlanner):
    """Whatever is no load taken as none."""

    breaks: ClassVar = {"wrong_calls_are_refused"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, **options: Any) -> Any:
        return rebalance(np.clip(np.nan_to_num(np.asarray(loads, dtype=float)), 0.0, 1e300), *arguments, **options)


class KnowsNoHomes(BrokenPlanner):
    """Plans as if there were no groups."""

    breaks: ClassVar = {"experts_keep_a_replica_at_home", "load_off_node_is_limited"}

    @staticmethod
    def rebalance(
        *arguments: Any, num_groups: int = 1, max_off_node: float | None = None, previous: Any = None, **options: Any
    ) -> Any:
        try:
            return rebalance(*arguments, previous=previous, **options)
        except ValueError:
            return rebalance(*arguments, num_groups=num_groups, previous=previous, **options)


class NoLimitOffNode(BrokenPlanner):
    """All load may be served off node."""

    breaks: ClassVar = {"load_off_node_is_limited"}

    @staticmethod
    def rebalance(*arguments: Any, max_off_node: float | None = None, **options: Any) -> Any:
        try:
            return rebalance(*arguments, max_off_node=1.0, **options)
        except ValueError:
            return rebalance(*arguments, max_off_node=max_off_node, **options)


class MovesHomes(BrokenPlanner):
    """Moves as if there were no homes to be left."""

    breaks: ClassVar = {"moves_lift_no_load_off_node", "moves_leave_groups_at_home"}

    @staticmethod
    def rebalance(
        *arguments: Any, num_groups: int = 1, max_off_node: float | None = None, previous: Any = None, **options: Any
    ) -> Any:
        if previous is None:
            return rebalance(*arguments, num_groups=num_groups, max_off_node=max_off_node, **options)
        return rebalance(*arguments, previous=previous, **options)


class LimitsAreWishes(BrokenPlanner):
    """A limit that is out of reach given up."""

    breaks: ClassVar = {"limits_out_of_reach_are_refused"}

    @staticmethod
    def rebalance(*arguments: Any, max_off_node: float | None = None, **options: Any) -> Any:
        try:
            return rebalance(*arguments, max_off_node=max_off_node, **options)
        except ValueError as error:
            if "out of reach" not in str(error):
                raise
            return rebalance(*arguments, **options)


class ClampsLimits(BrokenPlanner):
    """The next number in 0 ..= 1 for a limit that is none."""

    breaks: ClassVar = {"wrong_limits_off_node_are_refused"}

    @staticmethod
    def rebalance(*arguments: Any, max_off_node: float | None = None, **options: Any) -> Any:
        clamped = None if max_off_node is None else min(max(max_off_node, 0.0), 1.0)
        return rebalance(*arguments, max_off_node=clamped, **options)


class LimitsForEveryone(BrokenPlanner):
    """A limit taken, and not looked at, where there are no homes."""

    breaks: ClassVar = {"wrong_limits_off_node_are_refused"}

    @staticmethod
    def rebalance(*arguments: Any, max_off_node: float | None = None, **options: Any) -> Any:
        try:
            return rebalance(*arguments, max_off_node=max_off_node, **options)
        except ValueError as error:
            if "other policies" not in str(error) and "nodes divide" not in str(error):
                raise
            return rebalance(*arguments, **options)


class OneGroupForUneven(BrokenPlanner):
    """Groups that do not divide the experts taken as one."""

    breaks: ClassVar = {"uneven_groups_are_refused"}

    @staticmethod
    def rebalance(loads: Any, *arguments: Any, num_groups: int = 1, **options: Any) -> Any:
        is_even = num_groups < 1 or np.shape(loads)[-1] % num_groups == 0
        return rebalance(loads, *arguments, num_groups=num_groups if is_even else 1, **options)


class BrokenCapacity:
    """The reference model under the public names, with what is said of capacity replaced."""

    Partition = model.Partition
    Topology = model.Topology
    Placement: ClassVar[Any] = model.Placement
    rebalance = staticmethod(rebalance)
    capacity_curve: ClassVar[Any] = staticmethod(capacity.capacity_curve)
    least_slots: ClassVar[Any] = staticmethod(capacity.least_slots)
    breaks: ClassVar[set[str]]


class AlwaysPerfect(BrokenCapacity):
    """Every number of slots said to be enough."""

    breaks: ClassVar = {
        "curve_says_what_plans_say",
        "curve_stays_below_what_can_be",
        "least_slots_are_the_first_that_are_enough",
    }

    @staticmethod
    def capacity_curve(*arguments: Any, **options: Any) -> Any:
        return [replace(point, balancedness=1.0) for point in capacity.capacity_curve(*arguments, **options)]


class OneCurveForAll(BrokenCapacity):
    """The curve of `balanced`, whatever the policy."""

    breaks: ClassVar = {"curve_says_what_plans_say", "least_slots_are_the_first_that_are_enough"}

    @staticmethod
    def capacity_curve(loads: Any, num_slots: Any, topology: Any, policy: Any = "balanced", **options: Any) -> Any:
        return capacity.capacity_curve(loads, num_slots, topology, **options)


class SortsTheCurve(BrokenCapacity):
    """The points in the order of their slots."""

    breaks: ClassVar = {"curve_says_what_plans_say", "curve_stays_below_what_can_be"}

    @staticmethod
    def capacity_curve(*arguments: Any, **options: Any) -> Any:
        return sorted(capacity.capacity_curve(*arguments, **options), key=lambda point: point.num_slots)


class OnePointANumber(BrokenCapacity):
    """Each number once, however often it is asked for."""

    breaks: ClassVar = {"curve_says_what_plans_say", "curve_stays_below_what_can_be"}

    @staticmethod
    def capacity_curve(*arguments: Any, **options: Any) -> Any:
        return list({point.num_slots: point for point in capacity.capacity_curve(*arguments, **options)}.values())


class NothingIsExceeded(BrokenCapacity):
    """Whatever the plan has as the most that there can be."""

    breaks: ClassVar = {"curve_stays_below_what_can_be"}

    @staticmethod
    def capacity_curve(*arguments: Any, **options: Any) -> Any:
        return [replace(point, most=point.balancedness) for point in capacity.capacity_curve(*arguments, **options)]


class SlotsOfAllRanks(BrokenCapacity):
    """Numbers of slots from one for each rank on."""

    breaks: ClassVar = {"least_slots_are_the_first_that_are_enough"}

    @staticmethod
    def least_slots(loads: Any, balancedness: float, topology: Any, **options: Any) -> Any:
        first = capacity.fewest_slots(np.shape(loads)[-1], topology, topology.num_ranks)
        for number in range(first, options["max_slots"] + 1, options["step"]):
            (point,) = capacity.capacity_curve(loads, [number], topology, options["policy"], options["num_groups"])
            if point.balancedness >= balancedness:
                return point
        raise ValueError("out of reach")


class TakesAnyCapacity(BrokenCapacity):
    """The next step and balance for those that are none."""

    breaks: ClassVar = {"wrong_capacities_are_refused"}

    @staticmethod
    def least_slots(loads: Any, balancedness: float, *arguments: Any, **options: Any) -> Any:
        if "step" in options:
            options["step"] = max(options["step"], 1)
        return capacity.least_slots(loads, min(max(balancedness, 0.0), 1.0), *arguments, **options)


BROKEN: list[type[Any]] = [*BrokenPlanner.__subclasses__(), *BrokenCapacity.__subclasses__()]
