"""Broken migration planners, each with the invariants that must reject it by name.

Several are real: a missing source that is skipped, batches by first fit, weights overwritten before they are read.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from expert_placement_spec import model
from expert_placement_spec.migration import reference, sources
from expert_placement_spec.migration.reference import Migration
from expert_placement_spec.migration.sources import distance, live_slots, ranks_of_slots


class BrokenMigration:
    """The reference model under the public names, with `plan_migration` replaced."""

    Partition = model.Partition
    Topology = model.Topology
    Placement = model.Placement
    breaks: ClassVar[set[str]]

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        raise NotImplementedError


class WideMoves(BrokenMigration):
    """Moves of int64."""

    breaks: ClassVar = {"migration_tables_are_int32_of_stated_shape"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.moves = np.array(plan.moves, dtype=np.int64).reshape(-1, 4)  # type: ignore[assignment]
        return plan


class ForgetsTheLast(BrokenMigration):
    """One move too few."""

    breaks: ClassVar = {"changed_slots_are_moved_to", "plan_ends_in_the_new_placement"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        if plan.num_moves:
            plan.moves.pop()
            plan.write_batches.pop()
            plan.num_moves -= 1
            plan.batches = [min(first, plan.num_moves) for first in plan.batches]
        return plan


class BringsWhatWasThere(BrokenMigration):
    """The expert of the old placement in every move."""

    breaks: ClassVar = {"moves_bring_what_is_wanted"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.moves = [[layer, old.table[layer][to], source, to] for layer, _, source, to in plan.moves]
        return plan


class SourceInNew(BrokenMigration):
    """A source where the new placement, not the old one, has the expert."""

    breaks: ClassVar = {"sources_hold_the_expert", "plan_ends_in_the_new_placement"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.moves = [[layer, e, new.table[layer].index(e), to] for layer, e, _, to in plan.moves]
        return plan


def with_sources(old: Any, new: Any, key: Any, *limits: int | None) -> Any:
    """A plan whose sources are chosen by a key of (slot, sender, receiver)."""
    rank_of = ranks_of_slots(new)

    def choose(old: Any, new: Any) -> Any:
        return [
            move._replace(
                source=min(
                    live_slots(old, new, move.layer, move.expert),
                    key=lambda slot: key(slot, rank_of[slot], rank_of[move.destination]),
                )
            )
            for move in sources.choose_sources(old, new)
        ]

    with patch("expert_placement_spec.migration.reference.choose_sources", choose):
        return Migration(old, new, *limits)


class LowestSlot(BrokenMigration):
    """The lowest slot of any rank."""

    breaks: ClassVar = {"sources_are_as_near_as_can_be", "senders_are_spared"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return with_sources(old, new, lambda slot, sender, receiver: slot)


class LowestNearRank(BrokenMigration):
    """The lowest of the nearest ranks, however much it sends."""

    breaks: ClassVar = {"senders_are_spared"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return with_sources(old, new, lambda slot, sender, receiver: (distance(new, sender, receiver), slot))


class BatchesWithoutEnd(BrokenMigration):
    """Offsets that do not end with the number of moves."""

    breaks: ClassVar = {"batches_cut_the_moves"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.batches = [first + 1 for first in plan.batches]
        return plan


def in_batches(plan: Migration, of_moves: list[int]) -> Migration:
    """The plan with other batches, each move written at the end of its own."""
    number = max(of_moves, default=-1) + 1
    plan.batches = [sum(batch < last for batch in of_moves) for last in range(number + 1)]
    plan.write_batches = of_moves
    return plan


class EverythingAtOnce(BrokenMigration):
    """One batch for all moves."""

    breaks: ClassVar = {"no_rank_sends_or_receives_twice", "batches_are_as_few_as_can_be"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        return in_batches(plan, [0] * plan.num_moves)


class OneByOne(BrokenMigration):
    """A batch for every move, written at once."""

    breaks: ClassVar = {"batches_are_as_few_as_can_be", "nothing_is_read_too_late", "plan_ends_in_the_new_placement"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        return in_batches(plan, list(range(plan.num_moves)))


class WritesBeforeItReads(BrokenMigration):
    """Every move written a batch too early."""

    breaks: ClassVar = {"writes_follow_reads"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.write_batches = [write - 1 for write in plan.write_batches]
        return plan


class WritesAtOnce(BrokenMigration):
    """Every move written at the end of its own batch."""

    breaks: ClassVar = {
        "nothing_is_read_too_late",
        "interruptions_lose_nothing",
        "safety_is_told_truly",
        "writes_wait_for_copies",
    }

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        reads = [sum(first <= index for first in plan.batches[1:]) for index in range(plan.num_moves)]
        return in_batches(plan, reads)


class WritesAtTheEnd(BrokenMigration):
    """Every move written at the end of the last batch."""

    breaks: ClassVar = {"writes_wait_for_copies"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.write_batches = [len(plan.batches) - 2] * plan.num_moves
        return plan


class CountsWhatWaits(BrokenMigration):
    """Staging of what waits beyond its batch, without what the batch itself reads."""

    breaks: ClassVar = {"staging_is_the_stated_peak"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.num_staged = max(plan.num_staged - 1, 0)
        return plan


class CopiesInPlace(BrokenMigration):
    """Weights copied slot by slot, from what is there by then."""

    breaks: ClassVar = {"weights_follow_the_moves"}

    class Plan(Migration):
        def apply(self, weights: Any) -> Any:
            for layer, _, source, destination in self.moves:
                weights[layer, destination] = weights[layer, source]

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return CopiesInPlace.Plan(old, new)


class MovesEverything(BrokenMigration):
    """A move for every slot of a placement that stays as it is."""

    breaks: ClassVar = {"nothing_moves_where_nothing_changes"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        if not plan.moves:
            plan.moves = [[0, entry, slot, slot] for slot, entry in enumerate(new.table[0]) if entry >= 0]
            plan.num_moves = len(plan.moves)
            plan.batches, plan.write_batches = [0, plan.num_moves], [0] * plan.num_moves
        return plan


class Remembers(BrokenMigration):
    """Moves in another order every other time."""

    breaks: ClassVar = {"migrations_repeat_themselves"}
    calls = count()

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        if next(Remembers.calls) % 2 and len(plan.batches) == 2:
            plan.moves.reverse()
            plan.write_batches.reverse()
        return plan


class SkipsMissingSources(BrokenMigration):
    """No move where there is no source."""

    breaks: ClassVar = {"missing_sources_are_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        try:
            return Migration(old, new)
        except ValueError as error:
            if "no active rank" not in str(error):
                raise
            return Migration(new, new)


class AnyShapes(BrokenMigration):
    """Placements of other shapes taken as if they were the same."""

    breaks: ClassVar = {"other_shapes_are_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        try:
            return Migration(old, new)
        except ValueError as error:
            if "another shape" not in str(error):
                raise
            return Migration(old, old)


class RanksOfNothing(BrokenMigration):
    """Slots for the ranks that they are on."""

    breaks: ClassVar = {"senders_and_receivers_are_told"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        plan.senders = [source for _, _, source, _ in plan.moves]
        return plan


class SendsCopies(BrokenMigration):
    """Copies inside a rank counted as sent."""

    breaks: ClassVar = {"traffic_is_of_transfers", "traffic_is_conserved"}

    class Plan(Migration):
        def traffic(self, bytes_per_expert: Any) -> Any:
            traffic = super().traffic(bytes_per_expert)
            layers = max((move[0] for move in self.moves), default=0) + 1
            sizes = [bytes_per_expert] * layers if isinstance(bytes_per_expert, int) else bytes_per_expert
            for index, (layer, *_) in enumerate(self.moves):
                if self.senders[index] == self.receivers[index]:
                    traffic.sent[0][self.senders[index]] += sizes[layer]
            return traffic

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return SendsCopies.Plan(old, new)


class OneSizeForAll(BrokenMigration):
    """The size of the first layer in all."""

    breaks: ClassVar = {"traffic_is_of_transfers"}

    class Plan(Migration):
        def traffic(self, bytes_per_expert: Any) -> Any:
            super().traffic(bytes_per_expert)
            return super().traffic(bytes_per_expert if isinstance(bytes_per_expert, int) else bytes_per_expert[0])

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return OneSizeForAll.Plan(old, new)


class AnySizes(BrokenMigration):
    """Nothing for sizes that are none."""

    breaks: ClassVar = {"wrong_sizes_are_refused"}

    class Plan(Migration):
        def traffic(self, bytes_per_expert: Any) -> Any:
            try:
                return super().traffic(bytes_per_expert)
            except ValueError:
                return super().traffic(0)

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        return AnySizes.Plan(old, new)


class OneTransferTooMany(BrokenMigration):
    """One transfer more than may leave or enter a node."""

    breaks: ClassVar = {"node_transfers_are_limited", "batches_are_split_as_little_as_can_be"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        return Migration(old, new, None if max_node_transfers is None else max_node_transfers + 1, max_staged)


class OneTransferANode(BrokenMigration):
    """One transfer into a node and one out of it, where more are allowed."""

    breaks: ClassVar = {"batches_are_split_as_little_as_can_be", "loose_limits_change_nothing"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        return Migration(old, new, None if max_node_transfers is None else min(max_node_transfers, 1), max_staged)


class StagesFreely(BrokenMigration):
    """No limit on staging."""

    breaks: ClassVar = {"staging_is_limited", "staging_out_of_reach_is_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        return Migration(old, new, max_node_transfers)


class LayerByLayer(BrokenMigration):
    """The layers one after the other, wherever staging is limited."""

    breaks: ClassVar = {"loose_limits_change_nothing"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        whole = reference.in_batches

        def in_batches(moves: Any, *arguments: Any) -> Any:
            of_layers = [[move for move in moves if move.layer == layer] for layer in range(old.num_layers)]
            parts = [whole(of_layer, *arguments) for of_layer in of_layers]
            return reference.one_after_the_other(parts)

        if max_staged is None:
            return Migration(old, new, max_node_transfers)
        with patch("expert_placement_spec.migration.reference.in_batches", in_batches):
            return Migration(old, new, max_node_transfers, max_staged)


class OtherSourcesWithLimits(BrokenMigration):
    """The lowest slot as the source where there are limits."""

    breaks: ClassVar = {"limits_change_no_moves", "sources_are_as_near_as_can_be", "senders_are_spared"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        limits = (max_node_transfers, max_staged)
        if limits == (None, None):
            return Migration(old, new)
        return with_sources(old, new, lambda slot, sender, receiver: slot, *limits)


class NamesNoNumber(BrokenMigration):
    """An error that does not say how many experts are staged."""

    breaks: ClassVar = {"staging_out_of_reach_is_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        try:
            return Migration(old, new, max_node_transfers, max_staged)
        except ValueError as error:
            raise ValueError("it can not be done") from error


class NodesAsTheyWere(BrokenMigration):
    """The nodes of the old placement in the place of the new one's."""

    breaks: ClassVar = {"ranks_of_the_old_placement_change_nothing"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        topology = replace(new.topology, num_nodes=old.topology.num_nodes)
        there = model.Placement(new.table, new.num_experts, topology)
        return Migration(old, there, max_node_transfers, max_staged)


class LeavesOutTheReturned(BrokenMigration):
    """Nothing moves where a rank was out of service before."""

    breaks: ClassVar = {"ranks_of_the_old_placement_change_nothing"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        plan = Migration(old, new, max_node_transfers, max_staged)
        return plan if old.topology.active is None or all(old.topology.active) else Migration(old, old)


class AppliesToACopy(BrokenMigration):
    """Weights are rearranged where they stand, or in a copy if they are apart."""

    breaks: ClassVar = {"weights_follow_the_moves"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        rearranged = plan.apply

        def apply(weights: Any) -> None:
            np.ascontiguousarray(weights)[...] = rearranged(weights)

        plan.apply = apply  # type: ignore[method-assign]
        return plan


class SinglePrecisionTraffic(BrokenMigration):
    """Bytes counted in float32."""

    breaks: ClassVar = {"traffic_is_of_transfers", "traffic_is_conserved"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        counted = plan.traffic

        def traffic(bytes_per_expert: Any) -> Any:
            tables = (np.array(one, dtype=np.float32).astype(np.int64) for one in counted(bytes_per_expert))
            return reference.Traffic(*tables)  # type: ignore[arg-type]

        plan.traffic = traffic  # type: ignore[method-assign]
        return plan


class OneByOneWhereItStages(BrokenMigration):
    """Where staging is limited every move is a batch."""

    breaks: ClassVar = {"staging_costs_no_more_than_layer_by_layer"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        plan = Migration(old, new, max_node_transfers, max_staged)
        if max_staged is not None:
            plan.batches = list(range(plan.num_moves + 1))
        return plan


class OtherExperts(BrokenMigration):
    """Placements of other experts are not told apart."""

    breaks: ClassVar = {"other_shapes_are_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        if new.num_experts < old.num_experts:
            return Migration(old, old)
        return Migration(old, new, max_node_transfers, max_staged)


class SinglePrecisionWeights(BrokenMigration):
    """Weights go through float32."""

    breaks: ClassVar = {"weights_follow_the_moves"}

    @staticmethod
    def plan_migration(old: Any, new: Any) -> Any:
        plan = Migration(old, new)
        rearranged = plan.apply

        def apply(weights: Any) -> Any:
            return rearranged(np.asarray(weights).astype(np.float32)).astype(np.asarray(weights).dtype)

        plan.apply = apply  # type: ignore[method-assign]
        return plan


class ClampsLimits(BrokenMigration):
    """The least limit in the place of those below it."""

    breaks: ClassVar = {"wrong_limits_of_batches_are_refused"}

    @staticmethod
    def plan_migration(old: Any, new: Any, max_node_transfers: int | None = None, max_staged: int | None = None) -> Any:
        transfers = None if max_node_transfers is None else max(max_node_transfers, 1)
        return Migration(old, new, transfers, None if max_staged is None else max(max_staged, 0))


BROKEN: list[type[BrokenMigration]] = BrokenMigration.__subclasses__()
