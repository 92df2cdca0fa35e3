"""Implementations that are right in every small world and wrong from a size on, with the invariants that must tell.

All are real: entries of eight bits, a buffer of fixed length, a block whose number is forgotten, a shortcut for many.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import expert_placement
import numpy as np
from expert_placement.conformance import RustRouting
from expert_placement_spec import model

from tests.spec.broken_routing import BrokenRouting, changed


class _EightBits(model.Placement):
    def logical_to_physical(self, *arguments: Any) -> Any:
        return [
            [[slot & 255 if slot >= 0 else slot for slot in row] for row in rows]
            for rows in super().logical_to_physical(*arguments)
        ]


class EightBitSlots:
    """Slots in eight bits: right up to 256 of them."""

    Partition, Topology, Placement = model.Partition, model.Topology, _EightBits
    chapter = "placement"
    breaks: ClassVar = {"listed_slots_hold_the_expert", "slots_are_listed_for_their_expert"}


class _FirstLayers(model.Placement):
    def local_experts(self, layer: int, rank: int) -> list[int]:
        return super().local_experts(layer if layer < 4 else 3, rank)


class FourLayers:
    """A list of experts for four layers, the last of which stands for all after it."""

    Partition, Topology, Placement = model.Partition, model.Topology, _FirstLayers
    chapter = "placement"
    breaks: ClassVar = {"local_experts_are_the_slots"}


class _ManyRanks(model.Placement):
    def rank_loads(self, loads: Any) -> Any:
        answer = super().rank_loads(loads)
        return answer if self.num_ranks <= 16 else np.array(answer).astype(np.float32).astype(np.float64).tolist()


class SinglePrecisionOfManyRanks:
    """Loads of more than 16 ranks in float32."""

    Partition, Topology, Placement = model.Partition, model.Topology, _ManyRanks
    chapter = "placement"
    breaks: ClassVar = {"shares_add_up_in_slot_order"}


class _MisreadsLoads:
    """A planner that plans for other loads than those it is given, once it has taken those, under `balanced`."""

    Partition, Topology, Placement = expert_placement.Partition, expert_placement.Topology, expert_placement.Placement
    chapter = "balance"

    @staticmethod
    def read(loads: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def rebalance(cls, loads: Any, num_slots: int, topology: Any, policy: Any = "balanced", **options: Any) -> Any:
        plan = expert_placement.rebalance(loads, num_slots, topology, policy, **options)
        if policy != "balanced":
            return plan
        return expert_placement.rebalance(
            cls.read(np.array(loads, dtype=np.float64)), num_slots, topology, policy, **options
        )


class ForgetsLoadsOfMany(_MisreadsLoads):
    """More than 32 experts are taken for equally loaded."""

    breaks: ClassVar = {"never_worse_than_deepseek"}

    @staticmethod
    def read(loads: Any) -> Any:
        return np.ones_like(loads) if loads.shape[-1] > 32 else loads


class EightBitExperts(_MisreadsLoads):
    """Experts in eight bits: those from 256 on are taken for equally loaded."""

    breaks: ClassVar = {"never_worse_than_deepseek"}

    @staticmethod
    def read(loads: Any) -> Any:
        loads[..., 256:] = 1.0
        return loads


class TwoWindows(_MisreadsLoads):
    """Two windows are read, and none after them."""

    breaks: ClassVar = {"no_step_helps"}

    @staticmethod
    def read(loads: Any) -> Any:
        return loads[:2] if loads.ndim == 3 else loads


class WritesEarlyWhereMuchMoves:
    """Where more than 64 slots change, every move is written with its own batch."""

    Partition, Topology, Placement = model.Partition, model.Topology, model.Placement
    chapter = "migration"
    breaks: ClassVar = {"writes_wait_for_copies", "interruptions_lose_nothing"}

    @staticmethod
    def plan_migration(*arguments: Any, **options: Any) -> Any:
        plan = model.plan_migration(*arguments, **options)
        if plan.num_moves <= 64:
            return plan
        batches = np.searchsorted(plan.batches, np.arange(plan.num_moves), side="right") - 1
        return _told(plan, write_batches=batches.tolist())


def _told(plan: Any, **changes: Any) -> Any:
    """A migration plan that says all that another one does, but for these."""
    told = {name: getattr(plan, name) for name in dir(plan) if not name.startswith("_")}
    return SimpleNamespace(**{**told, **changes})


class EightLayersOfMoves:
    """Three bits for the layer of a move."""

    Partition, Topology, Placement = model.Partition, model.Topology, model.Placement
    chapter = "migration"
    breaks: ClassVar = {"changed_slots_are_moved_to", "plan_ends_in_the_new_placement"}

    @staticmethod
    def plan_migration(*arguments: Any, **options: Any) -> Any:
        plan = model.plan_migration(*arguments, **options)
        return _told(plan, moves=[[layer & 7, *move] for layer, *move in plan.moves])


class EightBitBatches:
    """Eight bits for the number of a batch."""

    Partition, Topology, Placement = model.Partition, model.Topology, model.Placement
    chapter = "migration"
    breaks: ClassVar = {"writes_follow_reads", "writes_wait_for_copies"}

    @staticmethod
    def plan_migration(*arguments: Any, **options: Any) -> Any:
        plan = model.plan_migration(*arguments, **options)
        return _told(plan, write_batches=[batch & 255 for batch in plan.write_batches])


class RoutesSomeIds(BrokenRouting):
    """16,384 ids are routed, and no more."""

    chapter = "routing"
    breaks: ClassVar = {"replicas_are_chosen_by_the_rule"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(
            routed, "slots", lambda slots: np.where(np.arange(ids.size).reshape(ids.shape) < 2**14, slots, -1)
        )


class RoutesEightOfEach(BrokenRouting):
    """Of each token eight ids are routed."""

    chapter = "routing"
    breaks: ClassVar = {"replicas_are_chosen_by_the_rule"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(routed, "slots", lambda slots: np.where(np.arange(ids.shape[1]) < 8, slots, -1))


class TenBitSlots(BrokenRouting):
    """Ten bits for a slot."""

    chapter = "routing"
    breaks: ClassVar = {"replicas_are_chosen_by_the_rule", "slots_hold_the_expert"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(routed, "slots", lambda slots: np.where(slots < 0, slots, slots & 1023))


class _EvenOnMany(expert_placement.Placement):
    __slots__ = ()

    def replica_weights(self, loads: Any) -> Any:
        return super().replica_weights(loads if self.num_ranks <= 16 else np.ones_like(loads))


class EqualLoadsOnManyRanks:
    """On more than 16 ranks the parts for equal loads."""

    Partition, Topology, Placement = expert_placement.Partition, expert_placement.Topology, _EvenOnMany
    RoutingTables, route = RustRouting.RoutingTables, RustRouting.route
    chapter = "routing"
    breaks: ClassVar = {"best_parts_make_the_busiest_rank_fastest"}


class ForgetsTheBlock(BrokenRouting):
    """Tokens in blocks of 1,024, each of which counts from the first token again."""

    chapter = "routing"
    breaks: ClassVar = {"replicas_are_chosen_by_the_rule"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), exact: bool = False, **options: Any) -> Any:
        routed = model.route(topk_ids, tables, want=want, exact=exact, **options)
        if exact or routed.slots is None or len(topk_ids) <= 1024:
            return routed
        again = model.route(topk_ids[1024:], tables, want=("slots",), **options | {"valid_tokens": None})
        return changed(routed, "slots", lambda slots: np.concatenate([slots[:1024], again.slots]))


BROKEN = [
    EightBitSlots,
    FourLayers,
    SinglePrecisionOfManyRanks,
    ForgetsLoadsOfMany,
    EightBitExperts,
    TwoWindows,
    WritesEarlyWhereMuchMoves,
    EightLayersOfMoves,
    EightBitBatches,
    RoutesSomeIds,
    RoutesEightOfEach,
    TenBitSlots,
    EqualLoadsOnManyRanks,
    ForgetsTheBlock,
]
