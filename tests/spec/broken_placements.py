"""Broken placements, each with the invariants that must reject it by name.

Several are real: weights filtered by another rule than the layer's, tables as wide as there are slots, a padded list
that repeats a replica.
"""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from expert_placement_spec import model
from expert_placement_spec.balance import homes
from expert_placement_spec.placement.loads import checked_loads, summed_windows
from expert_placement_spec.placement.reference import EMPTY
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.reference import Partition


class Broken:
    """The reference model under the public names, with some of them replaced."""

    Partition = model.Partition
    Topology = model.Topology
    Placement = model.Placement
    breaks: ClassVar[set[str]]


class NodesInTurn(Broken):
    """Ranks dealt to the nodes in turn."""

    breaks: ClassVar = {"nodes_are_blocks_of_ranks", "off_node_is_what_it_says"}

    class Topology(model.Topology):
        def node_of(self, rank: int) -> int:
            super().node_of(rank)
            return rank % self.num_nodes


class AnyTopology(Broken):
    """Ranks of whatever numbers are given."""

    breaks: ClassVar = {"wrong_topologies_are_refused"}

    class Topology(model.Topology):
        def __post_init__(self) -> None:
            pass


class AnySpeed(Broken):
    """Ranks as slow and as fast as anyone says."""

    breaks: ClassVar = {"wrong_topologies_are_refused"}

    class Topology(model.Topology):
        def __post_init__(self) -> None:
            given, speeds = self.speeds, None
            if given is not None:
                finite = all(0 < speed < float("inf") for speed in given)
                speeds = [min(max(speed, 1e-6), 1e6) if finite else speed for speed in given]
            object.__setattr__(self, "speeds", speeds)
            super().__post_init__()
            object.__setattr__(self, "speeds", given)


class InclusiveOffsets(Broken):
    """Offsets that begin with the slots of the first rank."""

    breaks: ClassVar = {"slots_follow_one_another"}

    class Placement(model.Placement):
        def slot_offsets(self) -> list[int]:
            return [*self.offsets[1:], self.num_slots]


class KeepsTheTable(Broken):
    """The table that was given is read whenever it is asked for."""

    breaks: ClassVar = {"placement_answers_are_fresh"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            super().__init__(table, num_experts, topology)
            self.given = table

        def physical_to_logical(self) -> Any:
            return np.array(self.given, dtype=np.int32)


class KeepsAList(Broken):
    """A table in lists is kept, and not copied."""

    breaks: ClassVar = {"placement_answers_are_fresh"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            super().__init__(table, num_experts, topology)
            self.table = table if isinstance(table, list) and isinstance(table[0], list) else self.table


class KeepsTheSlots(Broken):
    """The slots of the ranks are read whenever they are asked for."""

    breaks: ClassVar = {"placement_answers_are_fresh"}

    class Topology(model.Topology):
        def __post_init__(self) -> None:
            given = self.slots_per_rank
            super().__post_init__()
            object.__setattr__(self, "slots_per_rank", given)


class ReadsHalves(Broken):
    """A table is taken for one of 32 bits."""

    breaks: ClassVar = {"tables_are_read_in_every_form"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            if isinstance(table, np.ndarray) and table.dtype == np.int64:
                table = np.ascontiguousarray(table).view(np.int32)[:, : table.shape[1]]
            super().__init__(table, num_experts, topology)


class ReadsInARow(Broken):
    """Entries are read one after the other from where the first of them is."""

    breaks: ClassVar = {"tables_are_read_in_every_form"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            if isinstance(table, np.ndarray) and table.base is not None and min(table.strides) >= 0:
                table = table.base.flatten(order="K")[: table.size].reshape(table.shape)
            super().__init__(table, num_experts, topology)


class CountsOnce(Broken):
    """Replicas are counted once, and everyone is given the same list of them."""

    breaks: ClassVar = {"placement_answers_are_fresh"}

    class Placement(model.Placement):
        def replica_counts(self) -> Any:
            if not hasattr(self, "counted"):
                self.counted = super().replica_counts()
            return self.counted


class FillsOneTable(Broken):
    """One table of replicas, which is filled anew for every answer."""

    breaks: ClassVar = {"placement_answers_are_fresh"}

    class Placement(model.Placement):
        def logical_to_physical(self, max_replicas: int | None = None) -> Any:
            table = np.array(super().logical_to_physical(max_replicas), dtype=np.int32)
            filled = self.__dict__.setdefault("filled", {}).setdefault(table.shape, np.empty_like(table))
            filled[...] = table
            return filled


class NodesForRanks(Broken):
    """The number of nodes for that of ranks."""

    breaks: ClassVar = {"sizes_are_those_of_the_table"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            super().__init__(table, num_experts, topology)
            self.num_layers += 1


class ZeroForEmpty(Broken):
    """Expert 0 in every empty slot."""

    breaks: ClassVar = {"table_is_kept"}

    class Placement(model.Placement):
        def physical_to_logical(self) -> list[list[int]]:
            return [[max(entry, 0) for entry in row] for row in self.table]


class RedundantReplicas(Broken):
    """The replicas beyond the first, as some engines count them."""

    breaks: ClassVar = {"no_expert_is_left_out", "counts_are_of_slots", "lists_end_with_minus_one"}

    class Placement(model.Placement):
        def replica_counts(self) -> list[list[int]]:
            return [[count - 1 for count in counts] for counts in super().replica_counts()]

        @property
        def most_replicas(self) -> int:
            return max((count + 1 for counts in self.replica_counts() for count in counts), default=0)


class SlotsOfTheNext(Broken):
    """Every listed slot one too high."""

    breaks: ClassVar = {"listed_slots_hold_the_expert", "slots_are_listed_for_their_expert"}

    class Placement(model.Placement):
        def logical_to_physical(self, width: int | None = None) -> Any:
            lists = super().logical_to_physical(width)
            return [[[(s + 1) % self.num_slots if s >= 0 else s for s in one] for one in of] for of in lists]


class OneSlotEach(Broken):
    """The first slot of each expert, in the place of all."""

    breaks: ClassVar = {"slots_are_listed_for_their_expert", "lists_end_with_minus_one"}

    class Placement(model.Placement):
        def logical_to_physical(self, width: int | None = None) -> Any:
            lists = super().logical_to_physical(width)
            return [[[*one[:1], *[EMPTY] * (len(one) - 1)] for one in of] for of in lists]


class RepeatsTheLast(Broken):
    """Lists filled up with their last slot."""

    breaks: ClassVar = {"lists_end_with_minus_one"}

    class Placement(model.Placement):
        def logical_to_physical(self, width: int | None = None) -> Any:
            lists = super().logical_to_physical(width)
            return [[[s if s >= 0 else max(one) for s in one] for one in of] for of in lists]


class AsWideAsSlots(Broken):
    """Lists as wide as there are slots."""

    breaks: ClassVar = {"lists_are_as_wide_as_needed"}

    class Placement(model.Placement):
        def logical_to_physical(self, width: int | None = None) -> Any:
            return super().logical_to_physical(self.num_slots if width is None else width)


class WidthIgnored(Broken):
    """Lists of the least width, whatever is asked."""

    breaks: ClassVar = {"wider_lists_say_the_same", "wrong_placements_are_refused"}

    class Placement(model.Placement):
        def logical_to_physical(self, width: int | None = None) -> Any:
            return super().logical_to_physical()


class LastLocalSlot(Broken):
    """The last local slot that holds an expert, as a loop that overwrites leaves it."""

    breaks: ClassVar = {"map_holds_the_first_local_slot"}

    class Placement(model.Placement):
        def expert_map(self, layer: int, rank: int) -> list[int]:
            entries = [-1] * self.num_experts
            for slot, expert in enumerate(self.local_experts(layer, rank)):
                if expert >= 0:
                    entries[expert] = slot
            return entries


class MaskOfEveryRank(Broken):
    """A mask of what any rank holds."""

    breaks: ClassVar = {"placement_maps_agree"}

    class Placement(model.Placement):
        def expert_mask(self, layer: int, rank: int, num_shared_experts: int = 0) -> list[int]:
            super().expert_mask(layer, rank)
            return [1] * (self.num_experts + num_shared_experts) + [0]


class SharedAfterHeld(Broken):
    """Shared experts after the slots that hold something."""

    breaks: ClassVar = {"shared_experts_follow_all_slots"}

    class Placement(model.Placement):
        def expert_map_with_shared(self, layer: int, rank: int, num_shared_experts: int) -> list[int]:
            held = len([entry for entry in self.local_experts(layer, rank) if entry >= 0])
            return [*self.expert_map(layer, rank), *range(held, held + num_shared_experts)]


class ZeroSentinel(Broken):
    """An index map that ends with 0."""

    breaks: ClassVar = {"placement_maps_close"}

    class Placement(model.Placement):
        def expert_map_with_sentinel(self, layer: int, rank: int) -> list[int]:
            return [*self.expert_map(layer, rank), 0]


class LocalExpertsSorted(Broken):
    """Local experts in the order of their ids."""

    breaks: ClassVar = {"local_experts_are_the_slots"}

    class Placement(model.Placement):
        def local_experts(self, layer: int, rank: int) -> list[int]:
            return sorted(super().local_experts(layer, rank))


class WeightsOfThePartition(Broken):
    """A weight filter that partitions the logical experts, whatever the placement is."""

    breaks: ClassVar = {"weights_to_load_are_those_held"}

    class Placement(model.Placement):
        def experts_to_load(self, layer: int, rank: int) -> list[int]:
            self.local_experts(layer, rank)
            return list(Partition(self.num_experts, self.num_ranks).experts(rank))


class WeightsInSlotOrder(Broken):
    """Weights to load in the order of the slots."""

    breaks: ClassVar = {"weights_to_load_ascend"}

    class Placement(model.Placement):
        def experts_to_load(self, layer: int, rank: int) -> list[int]:
            return [expert for expert in dict.fromkeys(self.local_experts(layer, rank)) if expert >= 0]


class WideCounts(Broken):
    """Counts of int64."""

    breaks: ClassVar = {"placement_tables_are_int32_of_stated_shape"}

    class Placement(model.Placement):
        def replica_counts(self) -> Any:
            return np.array(super().replica_counts(), dtype=np.int64).reshape(self.num_layers, self.num_experts)

        @property
        def most_replicas(self) -> int:
            return int(self.replica_counts().max(initial=0))


class AnyTable(Broken):
    """Tables with experts left out."""

    breaks: ClassVar = {"wrong_placements_are_refused"}

    class Placement(model.Placement):
        def _check(self, layer: int, row: list[int]) -> None:
            pass


class ClampedRanks(Broken):
    """Ranks out of range answered as the nearest one."""

    breaks: ClassVar = {"wrong_layers_and_ranks_are_refused"}

    class Placement(model.Placement):
        def local_experts(self, layer: int, rank: int) -> list[int]:
            return super().local_experts(layer, min(max(rank, 0), self.num_ranks - 1))


class PartitionsAreLinear(Broken):
    """The linear partition in the place of every other."""

    breaks: ClassVar = {"partitions_are_placements"}

    class Placement(model.Placement):
        @classmethod
        def from_partition(cls, partition: Partition, num_layers: int = 1) -> Any:
            return super().from_partition(Partition(partition.num_experts, partition.num_ranks), num_layers)


class DigestWithoutVersion(Broken):
    """A digest that does not say of which version it is."""

    breaks: ClassVar = {"digest_is_the_stated_hash"}

    class Placement(model.Placement):
        def digest(self) -> str:
            return super().digest()[2:]


class DigestOfContents(Broken):
    """A digest of what the slots hold together, in any order."""

    breaks: ClassVar = {"digest_tells_contents_apart", "digest_is_the_stated_hash"}

    class Placement(model.Placement):
        def digest(self) -> str:
            return str([sorted(row) for row in self.table])


class DigestOfTheTable(Broken):
    """A digest of the table without the slots of the ranks."""

    breaks: ClassVar = {"digest_tells_sizes_apart"}

    class Placement(model.Placement):
        def digest(self) -> str:
            return str(self.table)


class DigestOfEverything(Broken):
    """A digest of the ranks, too."""

    breaks: ClassVar = {"digest_is_of_slots_alone"}

    class Placement(model.Placement):
        def digest(self) -> str:
            return super().digest() + str(self.topology)


class WholeLoads(Broken):
    """The whole load of an expert on every replica, as partial sums counted twice."""

    breaks: ClassVar = {"load_is_conserved", "shares_add_up_in_slot_order"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            split = np.asarray(super().rank_loads(loads))
            return split + 1.0


class SumsBackwards(Broken):
    """The shares of a rank added up from its last slot on."""

    breaks: ClassVar = {"shares_add_up_in_slot_order"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            topology = Topology(self.num_ranks, slots_per_rank=self.topology.slots(self.num_slots)[::-1])
            backwards = model.Placement([row[::-1] for row in self.table], self.num_experts, topology)
            return np.asarray(backwards.rank_loads(loads))[..., ::-1]


class WindowsAdded(Broken):
    """The sum of all windows in each."""

    breaks: ClassVar = {"windows_stand_by_themselves"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            answer = np.asarray(super().rank_loads(loads))
            return answer if answer.ndim == 2 else np.broadcast_to(answer.sum(axis=0), answer.shape)


class SpreadsLoads(Broken):
    """The loads of one layer for all of them."""

    breaks: ClassVar = {"wrong_loads_are_refused"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            if np.shape(loads)[:-1] == (1,):
                loads = [list(loads[0]) for _ in range(self.num_layers)]
            return super().rank_loads(loads)


class KnowsItsLoads(Broken):
    """Loads in the array of the last call are those of the last call."""

    breaks: ClassVar = {"loads_are_read_each_time"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            known = self.__dict__.setdefault("known", (None, None))
            if known[0] is not loads:
                known = self.__dict__["known"] = (loads, np.array(loads))
            return super().rank_loads(known[1])


class EntriesOfTheFirstLayer(Broken):
    """Entries of later layers that are no experts taken for empty slots."""

    breaks: ClassVar = {"wrong_placements_are_refused"}

    class Placement(model.Placement):
        def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
            rows = np.array(table)
            if rows.ndim == 2:
                rows[1:][(rows[1:] < 0) | (rows[1:] >= num_experts)] = EMPTY
            super().__init__(rows, num_experts, topology)


class RemembersLoads(Broken):
    """The balance is found once."""

    breaks: ClassVar = {"loads_are_read_each_time"}

    class Placement(model.Placement):
        def balancedness(self, loads: Any) -> float:
            found: float = self.__dict__.setdefault("found", super().balancedness(loads))
            return found


class DividesLoads(Broken):
    """Loads are made shares where they stand."""

    breaks: ClassVar = {"loads_are_read_each_time"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            answer = super().rank_loads(loads)
            if isinstance(loads, np.ndarray):
                loads /= np.maximum(self.replica_counts(), 1)
            return answer


class ClampedLoads(Broken):
    """Whatever is no load taken as none."""

    breaks: ClassVar = {"wrong_loads_are_refused"}

    class Placement(model.Placement):
        def rank_loads(self, loads: Any) -> Any:
            return super().rank_loads(np.clip(np.nan_to_num(np.asarray(loads, dtype=float)), 0.0, 1e300))


class MeanOfRatios(Broken):
    """The mean of the layers' balancedness."""

    breaks: ClassVar = {"balancedness_is_mean_over_largest"}

    class Placement(model.Placement):
        def balancedness(self, loads: Any) -> float:
            return float(np.mean([report.balancedness for report in self.report(loads)]))


def reports(placement: model.Placement, loads: Any, **changes: Any) -> list[Any]:
    """The reports with some fields replaced; a field's function is given the report."""
    made = []
    for report in model.Placement.report(placement, loads):
        fields = asdict(report) | {"gap": report.gap, "balancedness": report.balancedness}
        made.append(SimpleNamespace(**(fields | {name: change(report) for name, change in changes.items()})))
    return made


class SpeedsIgnored(Broken):
    """Loads for times."""

    breaks: ClassVar = {"reports_are_measured"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            slow = model.Placement(self.table, self.num_experts, Topology(self.num_ranks, slots_per_rank=self.slots))
            return reports(slow, loads)

        @property
        def slots(self) -> list[int]:
            return self.topology.slots(self.num_slots)


class LastBusiestRank(Broken):
    """The busiest rank by its number from the end."""

    breaks: ClassVar = {"busiest_rank_is_named"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            return reports(self, loads, busiest_rank=lambda report: self.num_ranks - 1 - report.busiest_rank)


class BoundIsTheMean(Broken):
    """The mean for the lower bound."""

    breaks: ClassVar = {"bound_is_the_stated_one"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            return reports(self, loads, lower_bound=lambda report: report.mean)


class BoundTooHigh(Broken):
    """A bound that no placement reaches."""

    breaks: ClassVar = {"bound_is_respected", "bound_is_the_stated_one"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            return reports(self, loads, lower_bound=lambda report: report.lower_bound * 1.01)


class GapAboveTheMean(Broken):
    """The gap to the mean."""

    breaks: ClassVar = {"gap_is_largest_over_bound"}

    class Placement(model.Placement):
        def report(self, loads: Any) -> Any:
            return reports(self, loads, gap=lambda report: report.largest / report.mean - 1 if report.mean else 0.0)


class NodesByTheirFirstRank(Broken):
    """The home of a group where its first expert is served most."""

    breaks: ClassVar = {"off_node_is_what_it_says"}

    class Placement(model.Placement):
        def off_node(self, loads: Any, num_groups: int) -> list[float]:
            super().off_node(loads, num_groups)
            parts = []
            for row, layer in zip(self.table, summed_windows(checked_loads(loads)), strict=True):
                served = homes.served_by_nodes(row, layer, self.offsets, self.topology)
                size = max(self.num_experts // num_groups, 1)
                first = [
                    max(range(len(served)), key=lambda node: (served[node][expert], -node))
                    for expert in range(0, self.num_experts, size)
                ]
                of_experts = [home for home in first for _ in range(size)]
                parts.append(homes.part_off_homes(served, of_experts))
            return parts


class AnyGroups(Broken):
    """One group in the place of groups that do not divide the experts."""

    breaks: ClassVar = {"wrong_groups_are_refused"}

    class Placement(model.Placement):
        def off_node(self, loads: Any, num_groups: int) -> list[float]:
            divides = num_groups >= 1 and self.num_experts % num_groups == 0
            return super().off_node(loads, num_groups if divides else 1)


class NodesOfAnyRank(Broken):
    """The node of the last rank for every rank beyond it, as of a list that is asked for its end."""

    breaks: ClassVar = {"wrong_layers_and_ranks_are_refused"}

    class Topology(model.Topology):
        def node_of(self, rank: int) -> int:
            return super().node_of(rank % self.num_ranks)


BROKEN: list[type[Broken]] = Broken.__subclasses__()
