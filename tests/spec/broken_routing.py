"""Broken implementations of routing, each with the invariants that must reject it by name.

Several are real: replicas chosen by the token's number, ids of 64 bits read as 32, a list of replicas that each rank
cuts to its own and then sums up, padded tokens that are counted.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from expert_placement_spec import model
from expert_placement_spec.placement.reference import slots_of
from expert_placement_spec.reference import Partition
from expert_placement_spec.routing import reference
from expert_placement_spec.routing.reference import FIELDS


class BrokenRouting:
    """The reference model under the public names, with what it answers spoilt."""

    Partition = model.Partition
    Topology = model.Topology
    Placement: Any = model.Placement
    RoutingTables: Any = model.RoutingTables
    breaks: ClassVar[set[str]]

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), **options: Any) -> Any:
        routed = model.route(topk_ids, tables, want=want, **options)
        return cls.spoilt(routed, topk_ids, tables)

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return routed


def changed(routed: Any, name: str, change: Any) -> Any:
    """The answer with one field changed, where it was asked for."""
    given = getattr(routed, name)
    return routed if given is None else replace(routed, **{name: change(given)})


class WideSlots(BrokenRouting):
    """Slots of int64."""

    breaks: ClassVar = {"routed_tables_are_int32_of_stated_shape"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(routed, "slots", lambda slots: slots.astype(np.int64))


class _ByNumber(reference.RoutingTables):
    def choice(self, layer: int, expert: int, token: int, seed: int) -> int:
        slots = self.replicas(layer, expert)
        return slots[token % len(slots)]


class ChoosesByNumber(BrokenRouting):
    """The token's number modulo the replicas: every other token has one replica alone."""

    RoutingTables = _ByNumber
    breaks: ClassVar = {
        "replicas_are_chosen_by_the_rule",
        "replicas_serve_their_parts",
        "near_replicas_are_chosen_by_the_rule",
    }


class _NextExpert(reference.RoutingTables):
    def replicas(self, layer: int, expert: int) -> list[int]:
        return super().replicas(layer, (expert + 1) % self.placement.num_experts)


class MarksPadding(BrokenRouting):
    """Ids that are no experts become -1 where they stand."""

    breaks: ClassVar = {"routed_answers_are_fresh"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        routed = model.route(topk_ids, tables, **options)
        topk_ids[(topk_ids < 0) | (topk_ids >= tables.placement.num_experts)] = -1
        return routed


class AnswersOnce(BrokenRouting):
    """An answer like an earlier one of the same tables is that one."""

    breaks: ClassVar = {"routed_answers_are_fresh"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, load: Any = None, **options: Any) -> Any:
        if load is not None:
            return model.route(topk_ids, tables, load=load, **options)
        known = tables.__dict__.setdefault("known", {})
        key = (topk_ids.tobytes(), str(topk_ids.dtype), topk_ids.shape, repr(sorted(options.items())))
        if key not in known:
            known[key] = model.route(topk_ids, tables, **options)
        return known[key]


class FillsOneAnswer(BrokenRouting):
    """Slots stand in one array, which is filled anew for every answer of the same tables."""

    breaks: ClassVar = {"routed_answers_are_fresh"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        def filled(slots: Any) -> Any:
            kept = tables.__dict__.setdefault("filled", {}).setdefault(slots.shape, np.empty_like(slots))
            kept[...] = slots
            return kept

        return changed(routed, "slots", filled)


class ServesAnotherExpert(BrokenRouting):
    """The slots of the expert after."""

    RoutingTables = _NextExpert
    breaks: ClassVar = {"slots_hold_the_expert", "senders_are_served_near"}


class CountsPadding(BrokenRouting):
    """Padded tokens are routed, and counted."""

    breaks: ClassVar = {"other_ids_have_no_slot", "each_id_is_local_on_one_rank"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, valid_tokens: Any = None, **options: Any) -> Any:
        if valid_tokens is not None and not 0 <= valid_tokens <= len(topk_ids):
            raise ValueError(f"valid_tokens={valid_tokens} is out of range")
        return model.route(topk_ids, tables, **options)


class ChoosesByPlace(BrokenRouting):
    """A token is numbered by its place in the batch, wherever the batch begins."""

    breaks: ClassVar = {"choice_is_of_expert_token_and_seed_alone"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, token_offset: int = 0, **options: Any) -> Any:
        if not 0 <= token_offset < 2**63:
            raise ValueError(f"token_offset={token_offset} is out of range")
        return model.route(topk_ids, tables, **options)


class AlwaysTheFirst(BrokenRouting):
    """In the exact variant each id goes to its expert's first replica."""

    breaks: ClassVar = {"turns_are_even_within_one"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, exact: bool = False, **options: Any) -> Any:
        routed = model.route(topk_ids, tables, exact=exact, **{**options, "want": FIELDS if exact else options["want"]})
        if not exact:
            return routed
        row = tables.placement.table[0]
        first = [slots_of(row, expert)[0] for expert in range(tables.placement.num_experts)]
        slots = np.array([[first[row[slot]] if slot >= 0 else -1 for slot in token] for token in routed.slots])
        counts = np.bincount(slots[slots >= 0].astype(int), minlength=tables.max_slots)
        return replace(routed, slots=slots.astype(np.int32), slot_counts=counts.astype(np.int32))


class ForgetsTheSeed(BrokenRouting):
    """Every call has a seed of its own."""

    breaks: ClassVar = {"routing_repeats_itself"}
    calls: ClassVar[list[int]] = [0]

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, seed: int = 0, **options: Any) -> Any:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed} is out of range")
        cls.calls[0] += 1
        return model.route(topk_ids, tables, seed=cls.calls[0], **options)


class EveryRankHasIt(BrokenRouting):
    """Each rank serves what it holds a replica of: with several replicas a part is counted twice."""

    breaks: ClassVar = {"each_id_is_local_on_one_rank", "local_slots_are_those_of_the_rank"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        if routed.local_slots is None:
            return routed
        own = tables.placement.local_experts(0, tables.rank)
        slots = [[own.index(one) if one in own and one >= 0 else -1 for one in token] for token in ids.tolist()]
        return replace(routed, local_slots=np.array(slots, dtype=np.int32).reshape(ids.shape))


class LocalFromZero(BrokenRouting):
    """Local slots as if every rank's began at 0."""

    breaks: ClassVar = {"local_slots_are_those_of_the_rank"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        if routed.local_slots is None:
            return routed
        begin = tables.placement.offsets[tables.rank]
        return changed(routed, "local_slots", lambda local: np.where(local >= 0, local + begin, -1).astype(np.int32))


class CountsOneMore(BrokenRouting):
    """The first slot serves one id more, it says."""

    breaks: ClassVar = {"slot_counts_are_a_histogram"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(routed, "slot_counts", lambda counts: counts + (np.arange(len(counts)) == 0).astype(np.int32))


class InclusiveOffsets(BrokenRouting):
    """Offsets that have what they begin with."""

    breaks: ClassVar = {"slot_offsets_sum_up_counts", "rank_offsets_sum_up_counts"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        def later(offsets: Any) -> Any:
            return np.append(offsets[1:], offsets[-1:])

        return changed(changed(routed, "slot_offsets", later), "rank_offsets", later)


class EqualRanks(BrokenRouting):
    """Counts of ranks as if all had as many slots."""

    breaks: ClassVar = {"rank_counts_are_those_of_their_slots"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        return changed(routed, "rank_counts", lambda counts: np.full_like(counts, counts.sum() // len(counts)))


class UnstableOrder(BrokenRouting):
    """Ids of one slot in the reverse of their order."""

    breaks: ClassVar = {"order_is_stable"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), **options: Any) -> Any:
        routed = model.route(topk_ids, tables, want=FIELDS if "order" in want else want, **options)
        if routed.order is None:
            return routed
        keys = np.where(routed.slots < 0, len(routed.slot_counts), routed.slots).flatten()
        order = np.lexsort((-np.arange(keys.size), keys)).astype(np.int32)
        return replace(routed, order=order, positions=np.argsort(order).astype(np.int32).reshape(routed.slots.shape))


class OrderAsPositions(BrokenRouting):
    """The order in the place of its inverse."""

    breaks: ClassVar = {"positions_invert_the_order"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), **options: Any) -> Any:
        wanted = {*want, "order"} if "positions" in want else want
        routed = model.route(topk_ids, tables, want=wanted, **options)
        if "positions" not in want:
            return routed
        order = routed.order.reshape(topk_ids.shape)
        return replace(routed, positions=order, order=routed.order if "order" in want else None)


class OverwritesTheLoad(BrokenRouting):
    """The load is what this batch had, and not added to."""

    breaks: ClassVar = {"load_is_added_in_place"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, load: Any = None, **options: Any) -> Any:
        routed = model.route(topk_ids, tables, load=load, **options)
        if load is not None:
            load[:] = 0
            model.route(topk_ids, tables, load=load, **options)
        return routed


class GivesEverything(BrokenRouting):
    """All fields, whatever is wanted."""

    breaks: ClassVar = {"what_is_not_wanted_is_not_given"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), **options: Any) -> Any:
        everything = FIELDS if tables.rank is not None else set(FIELDS) - {"local_slots"}
        model.route(topk_ids, tables, want=want, **{**options, "load": None})
        return model.route(topk_ids, tables, want=everything, **options)


class FirstLayerForAll(BrokenRouting):
    """The tables of the first layer for every layer."""

    breaks: ClassVar = {"layers_are_routed_by_their_own"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, layer: int = 0, **options: Any) -> Any:
        model.route(topk_ids, tables, layer=layer, **options)
        return model.route(topk_ids, tables, layer=0, **options)


class _FirstWeights(reference.RoutingTables):
    def __init__(self, placement: Any, *, weights: Any = None, **options: Any) -> None:
        first = weights if weights is None else np.array([np.asarray(weights)[0]] * placement.num_layers)
        super().__init__(placement, weights=first, **options)


class FirstWeightsForAll(BrokenRouting):
    """The weights of the first layer for every layer."""

    RoutingTables = _FirstWeights
    breaks: ClassVar = {"layers_are_routed_by_their_own"}


class LowerHalves(BrokenRouting):
    """Ids of 64 bits by their lower halves."""

    breaks: ClassVar = {"widths_of_ids_change_nothing"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        return model.route(topk_ids.astype(np.int32), tables, **options)


class IgnoresStrides(BrokenRouting):
    """Ids as they stand in memory from the first on."""

    breaks: ClassVar = {"strides_of_ids_change_nothing"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        base = topk_ids if topk_ids.base is None or topk_ids.flags.c_contiguous else topk_ids.base
        packed = base.flatten()[: topk_ids.size].reshape(topk_ids.shape)
        return model.route(packed, tables, **options)


class CountsSpareRoom(BrokenRouting):
    """Unrouted ids are counted in the last slot that there is room for."""

    breaks: ClassVar = {"room_for_more_slots_changes_nothing"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        if tables.max_slots == tables.placement.num_slots:
            return routed
        return changed(routed, "slot_counts", lambda counts: np.append(counts[:-1], counts[-1:] + 1).astype(np.int32))


class _Stale(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        before = self.placement.table
        super().update(placement, weights=weights)
        # The ranks' slots are new, and the experts' old.
        self.placement.table = before


class KeepsTheOld(BrokenRouting):
    """An update that leaves the slots of experts as they were."""

    RoutingTables = _Stale
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _Growing(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        self.max_slots = max(self.max_slots, placement.num_slots)
        super().update(placement, weights=weights)


class GrowsInSilence(BrokenRouting):
    """Tables that become as large as the placement."""

    RoutingTables = _Growing
    breaks: ClassVar = {"wrong_updates_are_refused"}


class _Anywhere(reference.RoutingTables):
    @classmethod
    def for_sender(cls, placement: Any, rank: int) -> Any:
        return cls(placement, rank=rank)


class SendersChooseAnywhere(BrokenRouting):
    """Tables for a sender that list all replicas."""

    RoutingTables = _Anywhere
    breaks: ClassVar = {"senders_are_served_near", "near_replicas_are_chosen_by_the_rule"}


class _AnyWeights(reference.RoutingTables):
    def _fill(self, placement: Any, weights: Any) -> None:
        if weights is not None:
            given = np.resize(np.nan_to_num(np.abs(np.asarray(weights, dtype=float)), posinf=1), placement.num_slots)
            weights = [np.where(given > 0, given, 1e-300)] * placement.num_layers
        super()._fill(placement, weights)


class TakesAnyWeights(BrokenRouting):
    """Weights that are none are made some."""

    RoutingTables = _AnyWeights
    breaks: ClassVar = {"wrong_weights_of_replicas_are_refused"}


class ClampsPadding(BrokenRouting):
    """More valid tokens than there are become all of them."""

    breaks: ClassVar = {"wrong_requests_are_refused"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, valid_tokens: Any = None, **options: Any) -> Any:
        valid = None if valid_tokens is None else min(max(valid_tokens, 0), len(topk_ids))
        return model.route(topk_ids, tables, valid_tokens=valid, **options)


class _Halves(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        return [[part / 2 for part in layer] for layer in super().replica_weights(loads)]


class HalfOfEverything(BrokenRouting):
    """Parts of which half is missing."""

    Placement = _Halves
    breaks: ClassVar = {"parts_of_an_expert_are_one"}


class _Everywhere(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        parts = super().replica_weights(loads)
        return [
            [1.0 if entry < 0 else part for entry, part in zip(row, layer, strict=True)]
            for row, layer in zip(self.table, parts, strict=True)
        ]


class WeighsEmptySlots(BrokenRouting):
    """Empty slots with parts."""

    Placement = _Everywhere
    breaks: ClassVar = {"parts_are_of_slots_that_serve"}


class _Even(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        super().replica_weights(loads)
        return [[0.0 if entry < 0 else 1 / row.count(entry) for entry in row] for row in self.table]


class SplitsEvenly(BrokenRouting):
    """Every replica of an expert the same part, whatever its rank has else to do."""

    Placement = _Even
    breaks: ClassVar = {"best_parts_make_the_busiest_rank_fastest"}


class _KeptWidth(reference.RoutingTables):
    def __init__(self, placement: Any, **options: Any) -> None:
        super().__init__(placement, **options)
        self.width = self.placement.most_replicas

    def replicas(self, layer: int, expert: int) -> list[int]:
        return super().replicas(layer, expert)[: max(self.width, 1)]


class KeepsTheWidth(BrokenRouting):
    """Tables that list as many replicas as the first placement had."""

    RoutingTables = _KeptWidth
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _KeptOffsets(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        offsets = self.placement.offsets
        super().update(placement, weights=weights)
        there = copy(self.placement)
        there.offsets = offsets
        self.placement = there


class KeepsTheOffsets(BrokenRouting):
    """The slots of the ranks as they were before an update."""

    RoutingTables = _KeptOffsets
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _LostSender(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        super().update(placement, weights=weights)
        self.sender = None


class ForgetsTheSender(BrokenRouting):
    """Tables for a sender that are for everybody after an update."""

    RoutingTables = _LostSender
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _AnyContent(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        if placement.num_layers < self.placement.num_layers or placement.num_experts < self.placement.num_experts:
            self._fill(placement, weights)
        else:
            super().update(placement, weights=weights)


class TakesLess(BrokenRouting):
    """A placement of fewer layers, or of fewer experts, in the place of one with more."""

    RoutingTables = _AnyContent
    breaks: ClassVar = {"wrong_updates_are_refused"}


class _Roomy(reference.RoutingTables):
    def __init__(self, placement: Any, *, max_slots: int | None = None, **options: Any) -> None:
        room = max_slots if max_slots is None else max(max_slots, placement.num_slots)
        super().__init__(placement, max_slots=room, **options)


class MakesRoom(BrokenRouting):
    """As much room as is needed where less was asked for."""

    RoutingTables = _Roomy
    breaks: ClassVar = {"wrong_requests_are_refused"}


class _FirstLayerNew(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        before = self.placement
        super().update(placement, weights=weights)
        if before.num_layers > 1 and before.num_slots == self.placement.num_slots:
            there = copy(self.placement)
            there.table = [self.placement.table[0], *before.table[1:]]
            self.placement = there


class UpdatesTheFirstLayer(BrokenRouting):
    """An update of the first layer alone."""

    RoutingTables = _FirstLayerNew
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _Shrinking(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        super().update(placement, weights=weights)
        self.max_slots = placement.num_slots


class GivesRoomAway(BrokenRouting):
    """Room that a placement does not need is no longer there after it."""

    RoutingTables = _Shrinking
    breaks: ClassVar = {"updates_equal_tables_made_anew"}


class _AnyUpdate(reference.RoutingTables):
    def update(self, placement: Any, *, weights: Any = None) -> None:
        given = None if weights is None else np.abs(np.nan_to_num(np.asarray(weights, dtype=float), posinf=1.0)) + 1e-9
        super().update(placement, weights=given)


class UpdatesWithAnyWeights(BrokenRouting):
    """Weights of an update are not looked at."""

    RoutingTables = _AnyUpdate
    breaks: ClassVar = {"wrong_weights_of_replicas_are_refused"}


class OwnSlotsFirst(BrokenRouting):
    """The order begins with the slots of the rank that the tables are for."""

    breaks: ClassVar = {"routing_repeats_itself"}

    @staticmethod
    def spoilt(routed: Any, ids: Any, tables: Any) -> Any:
        first = tables.placement.offsets[tables.rank or 0]
        return changed(routed, "order", lambda order: order if not first else np.roll(order, 1))


class SendersSeeTheFirstLayer(BrokenRouting):
    """Where one rank sends, every layer is routed as the first."""

    breaks: ClassVar = {"layers_are_routed_by_their_own"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, layer: Any = None, **options: Any) -> Any:
        is_known = layer is not None and 0 <= layer < tables.placement.num_layers
        return model.route(topk_ids, tables, layer=0 if tables.sender is not None and is_known else layer, **options)


class CountsForEverybody(BrokenRouting):
    """A load beside a sender's tables is that of all replicas."""

    breaks: ClassVar = {"load_is_added_in_place"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, load: Any = None, **options: Any) -> Any:
        if load is None or tables.sender is None:
            return model.route(topk_ids, tables, load=load, **options)
        model.route(topk_ids, model.RoutingTables(tables.placement, rank=tables.rank), load=load, **options)
        return model.route(topk_ids, tables, **options)


class NeedsAnId(BrokenRouting):
    """Batches without ids are errors."""

    breaks: ClassVar = {"routed_tables_are_int32_of_stated_shape"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        if topk_ids.shape[1] == 0:
            raise ValueError("no ids")
        return model.route(topk_ids, tables, **options)


class KnowsItsIds(BrokenRouting):
    """Ids in the array of the last batch of tables are those of the last batch."""

    breaks: ClassVar = {"routed_answers_are_fresh"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        known = tables.__dict__.setdefault("known", (None, None))
        if known[0] is not topk_ids:
            known = tables.__dict__["known"] = (topk_ids, topk_ids.copy())
        return model.route(known[1], tables, **options)


class _FirstTakesAll(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        answer = []
        for row, parts in zip(self.table, super().replica_weights(loads), strict=True):
            moved = list(parts)
            for rank in range(self.num_ranks):
                held = row[self.offsets[rank] : self.offsets[rank + 1]]
                for place, entry in enumerate(held):
                    first, slot = self.offsets[rank] + held.index(entry), self.offsets[rank] + place
                    if entry >= 0 and slot > first:
                        moved[first], moved[slot] = moved[first] + moved[slot], 0.0
            answer.append(moved)
        return answer


class FirstOfTheRank(BrokenRouting):
    """Of an expert's replicas on a rank the first serves what all do."""

    Placement = _FirstTakesAll
    breaks: ClassVar = {"parts_on_a_rank_are_equal"}


class _Linear(reference.RoutingTables):
    def __init__(self, placement: Any, **options: Any) -> None:
        if isinstance(placement, Partition):
            placement = Partition(placement.num_experts, placement.num_ranks)
        super().__init__(placement, **options)


class PartitionsAreLinear(BrokenRouting):
    """Every partition routed as a linear one."""

    RoutingTables = _Linear
    breaks: ClassVar = {"partitions_are_routed_as_placements"}


class FourLayers(BrokenRouting):
    """Two bits for the layer."""

    breaks: ClassVar = {"layers_are_routed_by_their_own"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, layer: Any = None, **options: Any) -> Any:
        known = layer is not None and 0 <= layer < tables.placement.num_layers
        return model.route(topk_ids, tables, layer=layer & 3 if known else layer, **options)


class SendersSeeEverybody(BrokenRouting):
    """What follows from the slots is counted over all replicas, also where one rank sends."""

    breaks: ClassVar = {"senders_are_told_what_follows"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, want: Any = ("slots",), **options: Any) -> Any:
        routed = model.route(topk_ids, tables, want=want, **options)
        if tables.sender is None:
            return routed
        plain = model.RoutingTables(tables.placement, rank=tables.rank)
        return replace(model.route(topk_ids, plain, want=want, **options | {"load": None}), slots=routed.slots)


class AddsToACopy(BrokenRouting):
    """A load that is apart in memory is copied, and the copy added to."""

    breaks: ClassVar = {"load_is_added_in_place"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, *, load: Any = None, **options: Any) -> Any:
        there = None if load is None else np.ascontiguousarray(load)
        return model.route(topk_ids, tables, load=there, **options)


class ReadsColumns(BrokenRouting):
    """Ids are read as they come in memory."""

    breaks: ClassVar = {"strides_of_ids_change_nothing"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        return model.route(topk_ids.ravel(order="K").reshape(topk_ids.shape), tables, **options)


class WrapsBelowZero(BrokenRouting):
    """Negative ids modulo 2^32."""

    breaks: ClassVar = {"widths_of_ids_change_nothing"}

    @classmethod
    def route(cls, topk_ids: Any, tables: Any, **options: Any) -> Any:
        wrapped = topk_ids
        if topk_ids.dtype == np.int64:
            wrapped = np.where(topk_ids < -(2**31), topk_ids % 2**32, topk_ids)
        return model.route(wrapped, tables, **options)


class _FirstParts(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        first = model.Placement(self.table[:1], self.num_experts, self.topology)
        return first.replica_weights(np.asarray(loads)[..., :1, :]) * self.num_layers


class FirstPartsForAll(BrokenRouting):
    """The parts of the first layer in every layer."""

    Placement = _FirstParts
    breaks: ClassVar = {"parts_follow_their_loads"}


class _FirstWindow(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        return super().replica_weights(loads[0] if np.ndim(loads) == 3 else loads)


class FirstWindowForAll(BrokenRouting):
    """The parts for the first window."""

    Placement = _FirstWindow
    breaks: ClassVar = {"parts_follow_their_loads"}


class _Remembering(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        return self.__dict__.setdefault("parts", super().replica_weights(loads))


class RemembersParts(BrokenRouting):
    """Parts are found once."""

    Placement = _Remembering
    breaks: ClassVar = {"parts_follow_their_loads"}


class _Dividing(model.Placement):
    def replica_weights(self, loads: Any) -> Any:
        parts = super().replica_weights(loads)
        loads /= 2
        return parts


class HalvesLoads(BrokenRouting):
    """Loads are divided where they stand."""

    Placement = _Dividing
    breaks: ClassVar = {"parts_follow_their_loads"}


BROKEN = [
    WideSlots,
    ChoosesByNumber,
    MarksPadding,
    AnswersOnce,
    FillsOneAnswer,
    ServesAnotherExpert,
    CountsPadding,
    ChoosesByPlace,
    AlwaysTheFirst,
    ForgetsTheSeed,
    EveryRankHasIt,
    LocalFromZero,
    CountsOneMore,
    InclusiveOffsets,
    EqualRanks,
    UnstableOrder,
    OrderAsPositions,
    OverwritesTheLoad,
    GivesEverything,
    FirstLayerForAll,
    FirstWeightsForAll,
    LowerHalves,
    IgnoresStrides,
    CountsSpareRoom,
    KeepsTheOld,
    GrowsInSilence,
    SendersChooseAnywhere,
    TakesAnyWeights,
    ClampsPadding,
    HalfOfEverything,
    WeighsEmptySlots,
    SplitsEvenly,
    KeepsTheWidth,
    KeepsTheOffsets,
    ForgetsTheSender,
    TakesLess,
    MakesRoom,
    PartitionsAreLinear,
    FourLayers,
    SendersSeeEverybody,
    AddsToACopy,
    ReadsColumns,
    WrapsBelowZero,
    FirstPartsForAll,
    FirstWindowForAll,
    RemembersParts,
    HalvesLoads,
    UpdatesTheFirstLayer,
    GivesRoomAway,
    UpdatesWithAnyWeights,
    OwnSlotsFirst,
    SendersSeeTheFirstLayer,
    CountsForEverybody,
    NeedsAnId,
    KnowsItsIds,
    FirstOfTheRank,
]
