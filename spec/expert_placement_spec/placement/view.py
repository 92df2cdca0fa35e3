"""A placement as the laws see it. SPEC.md, "Placement", "Loads" and "Balance"."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from expert_placement_spec.answers import (
    POISON,
    SMALLEST,
    TOLERANCE,
    Lookup,
    all_refused,
    as_array,
    close,
    field,
    is_table,
    ragged,
)
from expert_placement_spec.balance import measure
from expert_placement_spec.cases import Case, View
from expert_placement_spec.fresh import is_fresh, spoil
from expert_placement_spec.placement.loads import checked_loads, summed_windows
from expert_placement_spec.placement.reference import EMPTY, Placement
from expert_placement_spec.placement.topology import FASTEST, SLOWEST, Topology
from expert_placement_spec.reference import STRATEGIES, Partition

WRONG_SPEEDS = (0.0, -1.0, SLOWEST * (1 - 1e-9), FASTEST * (1 + 1e-9), float("nan"), float("inf"))
"""Speeds that no rank has."""

OF_LOADS = ("rank_loads", "balancedness", "report", "off_node")
"""The methods of a placement that are about loads."""
REPORTED = ("layer", "mean", "largest", "busiest_rank", "lower_bound", "gap")

REPRESENTATIONS = ("expert_map", "expert_map_with_shared", "expert_map_with_sentinel", "expert_mask")
WITH_SHARED = ("expert_map_with_shared", "expert_mask")
"""Those that take a number of shared experts."""


@dataclass(frozen=True)
class PlacementCase(Case):
    """A table, the ranks that it is for, and loads that it carries.

    Attributes:
        num_experts: E.
        table: [L, P].
        topology: the ranks.
        loads: [W, L, E].
    """

    num_experts: int
    table: list[list[int]]
    topology: Topology
    loads: list[list[list[float]]]

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest case is chosen."""
        slots, nodes = len(self.table[0]), self.topology.num_nodes
        shape = (slots, self.num_experts, len(self.table), self.topology.num_ranks, len(self.loads), nodes)
        return (*shape, str(self.topology), self.table, self.loads)

    def check(self) -> None:
        """Raises ValueError where the definitions do not allow the case."""
        Placement(self.table, self.num_experts, self.topology)
        checked_loads(self.loads, self.num_experts, len(self.table))


class PlacementView(View):
    """What an implementation makes of a table, and what the definitions make of it."""

    case: PlacementCase

    def extent(self, name: str, given: dict[str, int]) -> int:
        """How many values a quantifier takes: of a layer, expert, slot, rank, replica, local slot, window or groups."""
        if name == "i":
            return int(self.slots(given["r"]))
        if name == "k":
            return self.width
        return {
            "l": self.num_layers,
            "e": self.num_experts,
            "j": self.num_slots,
            "r": self.num_ranks,
            "h": self.num_shared_experts,
            "w": len(self.case.loads),
            "g": max(self.num_experts, 1) + 1,
        }[name]

    # What the case is.

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.case.table)

    @property
    def num_experts(self) -> int:
        """E."""
        return self.case.num_experts

    @property
    def num_slots(self) -> int:
        """P."""
        return len(self.case.table[0])

    @property
    def num_ranks(self) -> int:
        """R."""
        return self.case.topology.num_ranks

    @property
    def num_shared_experts(self) -> int:
        """S, varied with the placement."""
        return (self.num_slots + self.num_experts) % 3

    @cached_property
    def given(self) -> Lookup:
        """The expert of a slot of a layer, as it was given."""
        return Lookup(self.case.table, 2)

    @cached_property
    def slots(self) -> Lookup:
        """How many slots a rank has."""
        return Lookup(self.case.topology.slots(self.num_slots))

    @cached_property
    def node(self) -> Lookup:
        """The owner of a rank in the linear partition of the ranks over the nodes."""
        return Lookup(Partition(self.num_ranks, self.case.topology.num_nodes).owners())

    @cached_property
    def _offsets(self) -> list[int]:
        return self.case.topology.slot_offsets(self.num_slots)

    @cached_property
    def replicas(self) -> Lookup:
        """How many slots of a layer hold an expert."""
        return Lookup([[row.count(e) for e in range(self.num_experts)] for row in self.case.table], 2)

    @cached_property
    def most_replicas(self) -> int:
        """K."""
        return max((row.count(entry) for row in self.case.table for entry in row if entry != EMPTY), default=0)

    @cached_property
    def place(self) -> Lookup:
        """How many earlier slots of the layer hold the same expert as a slot."""
        return Lookup([[row[:slot].count(entry) for slot, entry in enumerate(row)] for row in self.case.table], 2)

    @cached_property
    def first_local_slot(self) -> Lookup:
        """The first local slot of a rank that holds an expert, or -1."""
        held = [[self._held(row, rank) for rank in range(self.num_ranks)] for row in self.case.table]
        entries = [
            [[slots.index(e) if e in slots else -1 for e in range(self.num_experts)] for slots in of_layer]
            for of_layer in held
        ]
        return Lookup(entries, 3)

    def _held(self, row: list[int], rank: int) -> list[int]:
        return row[self._offsets[rank] : self._offsets[rank + 1]]

    # What the implementation answers.

    def make(self, table: Any = None, topology: Topology | None = None, num_experts: int | None = None) -> Any:
        """The implementation's placement, of the case or with other arguments."""
        return self.names.Placement.from_physical_to_logical(
            deepcopy(self.case.table if table is None else table),
            num_experts=self.num_experts if num_experts is None else num_experts,
            topology=self.make_topology(self.case.topology if topology is None else topology),
        )

    def make_of(self, table: Any) -> Any:
        """The implementation's placement of a table, which it is given itself and in its own form."""
        return self.names.Placement.from_physical_to_logical(
            table, num_experts=self.num_experts, topology=self.make_topology(self.case.topology)
        )

    def make_topology(self, topology: Topology) -> Any:
        """The implementation's topology of these ranks."""
        return made_topology(self.names, topology)

    @cached_property
    def made(self) -> Any:
        """The implementation's placement."""
        return self.make()

    @cached_property
    def sizes(self) -> tuple[Any, ...]:
        """What the implementation says of L, E, P and R."""
        return self.made.num_layers, self.made.num_experts, self.made.num_slots, self.made.num_ranks

    @cached_property
    def node_of(self) -> Lookup:
        """The node of a rank."""
        topology = self.make_topology(self.case.topology)
        return Lookup([topology.node_of(rank) for rank in range(self.num_ranks)])

    @cached_property
    def table(self) -> Lookup:
        """The expert of a slot of a layer."""
        return Lookup(as_array(self.made.physical_to_logical()), 2)

    @cached_property
    def offset(self) -> Lookup:
        """The offset of each rank in 0 ..= R."""
        return Lookup(as_array(self.made.slot_offsets()), 1)

    @cached_property
    def count(self) -> Lookup:
        """The replicas of an expert of a layer."""
        return Lookup(as_array(self.made.replica_counts()), 2)

    @cached_property
    def slot(self) -> Lookup:
        """The slot of an expert's replica in a layer, or -1."""
        return Lookup(as_array(self.made.logical_to_physical()), 3)

    @property
    def width(self) -> int:
        """How many slots the table of replicas lists for each expert."""
        return int(self.slot.array.shape[2])

    def is_as_wide_as_asked(self) -> bool:
        """Whether the table is the same where its own width is asked for."""
        own = Lookup(as_array(self.made.logical_to_physical(self.most_replicas)), 3)
        return np.array_equal(own.array, self.slot.array)

    @cached_property
    def slot_in_wider(self) -> Lookup:
        """The slot of an expert's replica in the table that was asked to be two wider."""
        return Lookup(as_array(self.made.logical_to_physical(self.most_replicas + 2)), 3)

    @property
    def wider_width(self) -> int:
        """How many slots that table lists for each expert."""
        return int(self.slot_in_wider.array.shape[2])

    def _of_ranks(self, method: str, *arguments: Any) -> list[list[Any]]:
        ask = getattr(self.made, method)
        ranks = range(self.num_ranks)
        return [[ask(layer, rank, *arguments) for rank in ranks] for layer in range(self.num_layers)]

    @cached_property
    def _maps(self) -> dict[str, list[list[Any]]]:
        return {name: self._of_ranks(name, *self._shared_of(name)) for name in REPRESENTATIONS}

    def _shared_of(self, method: str) -> tuple[int, ...]:
        """The number of shared experts, for the methods that take it."""
        return (self.num_shared_experts,) if method in WITH_SHARED else ()

    def _map(self, name: str) -> Lookup:
        return Lookup([[as_array(entries) for entries in of_layer] for of_layer in self._maps[name]], 3)

    @cached_property
    def map(self) -> Lookup:
        """An entry of the index map of a rank in a layer."""
        return self._map("expert_map")

    @cached_property
    def map_with_shared(self) -> Lookup:
        """An entry of the index map with shared experts."""
        return self._map("expert_map_with_shared")

    @cached_property
    def map_with_sentinel(self) -> Lookup:
        """An entry of the index map with a sentinel."""
        return self._map("expert_map_with_sentinel")

    @cached_property
    def mask(self) -> Lookup:
        """An entry of the mask."""
        return self._map("expert_mask")

    @cached_property
    def _local_experts(self) -> list[list[Any]]:
        return self._of_ranks("local_experts")

    @cached_property
    def local(self) -> Lookup:
        """What a local slot of a rank in a layer holds."""
        width = max(len(of_rank) for of_layer in self._local_experts for of_rank in of_layer)
        filled = [ragged([*map(list, map(as_array, ranks)), [POISON] * width]) for ranks in self._local_experts]
        return Lookup(filled, 3)

    @cached_property
    def _to_load(self) -> list[list[Any]]:
        return self._of_ranks("experts_to_load")

    @cached_property
    def is_loaded(self) -> Lookup:
        """How often the list of weights to load names an expert."""
        lists = [[as_array(of_rank).tolist() for of_rank in ranks] for ranks in self._to_load]
        return Lookup([[[of.count(e) for e in range(self.num_experts)] for of in ranks] for ranks in lists], 3)

    @cached_property
    def lists_to_load_ascend(self) -> Lookup:
        """Whether the list of weights to load holds experts alone, in ascending order."""
        lists = [[as_array(of_rank).tolist() for of_rank in ranks] for ranks in self._to_load]
        every = set(range(self.num_experts))
        return Lookup([[of == sorted(of) and every.issuperset(of) for of in ranks] for ranks in lists])

    def tables_are_well_formed(self) -> bool:
        """Whether every table is int32, and every load float64, of the shape that is stated."""
        layers, experts, slots, ranks = self.num_layers, self.num_experts, self.num_slots, self.num_ranks
        shared = self.num_shared_experts
        tables = [
            (self.made.physical_to_logical(), (layers, slots)),
            (self.made.logical_to_physical(), (layers, experts, self.most_replicas)),
            (self.made.replica_counts(), (layers, experts)),
            (self.made.slot_offsets(), (ranks + 1,)),
        ]
        stated = (experts, experts + shared, experts + 1, experts + shared + 1)
        lengths = dict(zip(REPRESENTATIONS, stated, strict=True))
        tables += [(one, (lengths[name],)) for name in REPRESENTATIONS for of in self._maps[name] for one in of]
        local = [(one, (self.slots(rank),)) for of in self._local_experts for rank, one in enumerate(of)]
        lists = [(one, as_array(one).shape[:1]) for of in self._to_load for one in of]
        loads = [(self.rank_loads_of(0), (layers, ranks)), (self._rank_loads, (len(self.case.loads), layers, ranks))]
        return all(is_table(*one) for one in tables + local + lists) and all(is_table(*one, "float64") for one in loads)

    def answers_are_fresh(self) -> bool:
        """Whether nothing that is written into an answer, or into the table that was given, changes a later answer."""
        table = np.array(self.case.table, dtype=np.int32)
        made = self.make_of(table)
        spoil(table)
        if not self._keeps_lists_to_itself():
            return False
        asked = [made.physical_to_logical]
        whole = ("logical_to_physical", "replica_counts", "slot_offsets")
        asked += [getattr(made, name) for name in whole if self.model.offers(f"Placement.{name}")]
        for name in (*REPRESENTATIONS, "local_experts", "experts_to_load"):
            if self.model.offers(f"Placement.{name}"):
                ends = {(0, 0), (self.num_layers - 1, self.num_ranks - 1)}
                asked += [partial(getattr(made, name), *end, *self._shared_of(name)) for end in sorted(ends)]
        return as_array(made.physical_to_logical()).tolist() == self.case.table and all(map(is_fresh, asked))

    def _keeps_lists_to_itself(self) -> bool:
        """Whether lists of which a placement and its ranks were made may be written into afterwards."""
        rows, ranks = deepcopy(self.case.table), lists_of(self.case.topology)
        topology = self.names.Topology(self.num_ranks, self.case.topology.num_nodes, *ranks)
        spoil(ranks)
        made = self.names.Placement.from_physical_to_logical(rows, num_experts=self.num_experts, topology=topology)
        spoil(rows)
        stated: list[tuple[Any, Any]] = [(made.physical_to_logical(), self.case.table)]
        if self.model.offers("Placement.slot_offsets"):
            stated.append((made.slot_offsets(), self._offsets))
        if self.model.offers("Placement.balancedness"):
            stated.append((made.balancedness(self._plain_loads), self.stated_balancedness))
        return all(is_close(answer, expected) for answer, expected in stated)

    def reads_every_form(self) -> bool:
        """Whether a table is the same in either width, and however its entries lie in memory."""
        for dtype in ("int32", "int64"):
            table = np.array(self.case.table, dtype=dtype)
            wide = np.full((2 * self.num_layers, 3 * self.num_slots), EMPTY, dtype=dtype)
            wide[::2, ::3] = table
            for form in (table, wide[::2, ::3], np.asfortranarray(table)):
                if as_array(self.make_of(form).physical_to_logical()).tolist() != self.case.table:
                    return False
        return True

    # Digests.

    @cached_property
    def digest(self) -> Any:
        """The implementation's digest."""
        return self.made.digest()

    @cached_property
    def stated_digest(self) -> str:
        """The digest by its definition."""
        return Placement(self.case.table, self.num_experts, self.case.topology).digest()

    @cached_property
    def differs_from_next(self) -> Lookup:
        """Whether a slot and the next one hold different experts in the first layer, the last slot's next the first."""
        row = self.case.table[0]
        return Lookup([row[slot] != row[(slot + 1) % len(row)] for slot in range(len(row))])

    @cached_property
    def digest_tells_exchange(self) -> Lookup:
        """Whether another digest comes of a table in which a slot of the first layer and the next one are exchanged."""
        everyone = replace(self.case.topology, active=None)
        differs = []
        for slot in range(self.num_slots):
            row = list(self.case.table[0])
            following = (slot + 1) % len(row)
            row[slot], row[following] = row[following], row[slot]
            differs.append(self.make([row, *self.case.table[1:]], everyone).digest() != self.digest)
        return Lookup(differs)

    def digest_of_others(self) -> list[Any]:
        """The digests of the same table where nodes, speeds and activity are others, or slots are spelled out."""
        slots = self.case.topology.slots(self.num_slots)
        speeds = [1.0 + rank for rank in range(self.num_ranks)]
        others = [
            Topology(self.num_ranks, slots_per_rank=slots),
            Topology(self.num_ranks, num_nodes=self.num_ranks, slots_per_rank=slots, speeds=speeds),
            replace(self.case.topology, active=None),
        ]
        return [self.make(topology=other).digest() for other in others]

    def digest_of_larger(self) -> list[Any]:
        """The digests of placements with a layer or an expert more, or with the slots of the ranks in reverse."""
        topology = replace(self.case.topology, active=None)
        larger = [self.make([*self.case.table, self.case.table[0]], topology)]
        if all(EMPTY in row for row in self.case.table):
            places = [row.index(EMPTY) for row in self.case.table]
            filled = [
                [*row[:place], self.num_experts, *row[place + 1 :]]
                for row, place in zip(self.case.table, places, strict=True)
            ]
            larger.append(self.make(filled, topology, self.num_experts + 1))
        slots = topology.slots(self.num_slots)
        if slots != slots[::-1]:
            larger.append(self.make(topology=replace(topology, slots_per_rank=slots[::-1])))
        return [placement.digest() for placement in larger]

    # Partitions.

    @cached_property
    def partitions_agree(self) -> Lookup:
        """Whether the placement of the partition of E experts over R ranks has on a rank what the partition says."""
        agree = [True] * self.num_ranks
        for strategy in STRATEGIES:
            stated = Partition(self.num_experts, self.num_ranks, strategy)
            partition = self.names.Partition(self.num_experts, self.num_ranks, strategy)
            made = self.names.Placement.from_partition(partition, self.num_layers)
            for layer in range(self.num_layers):
                for rank in range(self.num_ranks):
                    held = as_array(made.local_experts(layer, rank)).tolist()
                    agree[rank] &= held == stated.local_experts(rank) and made.num_layers == self.num_layers
        return Lookup(agree)

    # Loads and balance.

    def rank_loads_of(self, window: int) -> Any:
        """The load of every rank for the loads of one window."""
        return self.made.rank_loads(deepcopy(self.case.loads[window]))

    @cached_property
    def _rank_loads(self) -> Any:
        return self.made.rank_loads(deepcopy(self.case.loads))

    @cached_property
    def rank_load(self) -> Lookup:
        """The load of a rank in a layer and a window."""
        return Lookup(as_array(self._rank_loads), 3)

    @cached_property
    def rank_load_alone(self) -> Lookup:
        """The same where each window is asked for by itself."""
        return Lookup([as_array(self.rank_loads_of(window)) for window in range(len(self.case.loads))], 3)

    @cached_property
    def shares_in_slot_order(self) -> Lookup:
        """The shares of what a rank's slots hold, added up in slot order."""
        return Lookup(
            [
                [measure.rank_loads(*layer, self._offsets) for layer in zip(self.case.table, window, strict=True)]
                for window in self.case.loads
            ],
            3,
        )

    @cached_property
    def total_load(self) -> Lookup:
        """The load of all experts of a layer in a window."""
        return Lookup([[sum(layer) for layer in window] for window in self.case.loads], 2)

    @cached_property
    def total_of_ranks(self) -> Lookup:
        """The load of all ranks in a layer and a window."""
        return Lookup(self.rank_load.array.sum(axis=2), 2)

    @cached_property
    def balancedness(self) -> float:
        """The implementation's balancedness."""
        return float(self.made.balancedness(self._plain_loads))

    def reads_loads_each_time(self) -> bool:
        """Whether loads are read alone, from arrays as from lists, and whatever was asked before."""
        own = np.array(self._plain_loads, dtype=np.float64)
        # Each expert's load is that of the one before it, and one more.
        other = np.roll(own, 1, axis=-1) + 1.0
        refilled = own.copy()
        for name in OF_LOADS:
            if self.model.offers(f"Placement.{name}"):
                refilled[...] = own
                self._answer_to(name, self.made, refilled)
                refilled[...] = other
                if not is_close(self._answer_to(name, self.made, refilled), self._answer_to(name, self.make(), other)):
                    return False
        return all(
            is_close(self._answer_to(name, self.made, loads), self._answer_to(name, self.make(), loads.tolist()))
            for name in OF_LOADS
            if self.model.offers(f"Placement.{name}")
            for loads in (own, other, own)
        )

    def _answer_to(self, name: str, placement: Any, loads: Any) -> Any:
        """What a placement says of loads; what is close to nothing where it writes into an array of them."""
        before = np.array(loads)
        answer = getattr(placement, name)(loads, *((1,) if name == "off_node" else ()))
        if not np.array_equal(loads, before):
            return float("nan")
        if name == "report":
            return [[field(report, entry) for entry in REPORTED] for report in answer]
        return answer

    @property
    def _plain_loads(self) -> Any:
        # One window is asked for without its axis, so that both forms are.
        return deepcopy(self.case.loads if len(self.case.loads) > 1 else self.case.loads[0])

    @property
    def stated_balancedness(self) -> float:
        """The balancedness by its definition."""
        means, largest = (sum(self.stated(name).array) for name in ("mean", "largest"))
        return float(means / largest) if largest > 0 else 1.0

    @cached_property
    def stated_reports(self) -> list[measure.LayerReport]:
        """The reports by their definitions."""
        return Placement(self.case.table, self.num_experts, self.case.topology).report(self.case.loads)

    @cached_property
    def _reports(self) -> list[Any]:
        return list(self.made.report(self._plain_loads))

    def reported(self, name: str) -> Lookup:
        """A field of a layer's report."""
        return Lookup([field(report, name) for report in self._reports])

    def stated(self, name: str) -> Lookup:
        """A field of a layer's report by its definition."""
        return Lookup([getattr(report, name) for report in self.stated_reports])

    # Nodes and groups.

    @cached_property
    def can_be_grouped(self) -> Lookup:
        """Whether there can be so many groups of experts."""
        return Lookup([groups in self._groups for groups in range(max(self.num_experts, 1) + 1)])

    @property
    def _groups(self) -> list[int]:
        return [groups for groups in range(1, max(self.num_experts, 1) + 1) if self.num_experts % groups == 0]

    @cached_property
    def is_measurable(self) -> Lookup:
        """Whether the load of a layer is none, or large enough for parts of it to be told."""
        totals = [sum(layer) for layer in summed_windows(self.case.loads)]
        return Lookup([total == 0 or total >= SMALLEST / TOLERANCE for total in totals])

    def _by_groups(self, placement: Any, loads: Any) -> Lookup:
        parts = {groups: list(placement.off_node(loads, groups)) for groups in self._groups}
        missing = [POISON] * self.num_layers
        return Lookup(np.array([parts.get(g, missing) for g in range(max(self.num_experts, 1) + 1)]).T, 2)

    @cached_property
    def off_node(self) -> Lookup:
        """The part of a layer's load off node for so many groups, as the implementation says it."""
        return self._by_groups(self.made, self._plain_loads)

    @cached_property
    def stated_off_node(self) -> Lookup:
        """The same by its definition."""
        return self._by_groups(Placement(self.case.table, self.num_experts, self.case.topology), self.case.loads)

    # Errors.

    def refuses_wrong_groups(self) -> bool:
        """Whether groups are refused that there can not be."""
        wrong = {-1, 0, self.num_experts + 1 + (self.num_experts == 0), *range(2, self.num_experts)} - {*self._groups}
        calls = [partial(self.made.off_node, self._plain_loads, groups) for groups in sorted(wrong)]
        return all_refused(ValueError, calls)

    def refuses_wrong_placements(self) -> bool:
        """Whether no placement is made of a table with a wrong entry, a missing expert, or another number of slots."""
        calls: list[partial[Any]] = []
        if self.num_slots:
            entries = (self.num_experts, -2, 2**31, -(2**40))
            calls += [
                partial(self.make, self._with(entry, *place)) for entry in entries for place in ((0, 0), (-1, -1))
            ]
        if self.num_experts:
            first, last = self.case.table[0], self.case.table[-1]
            without = [[EMPTY if entry == 0 else entry for entry in row] for row in (first, last)]
            calls.append(partial(self.make, [*self.case.table[:-1], without[1]]))
            calls.append(partial(self.make, [without[0], *self.case.table[1:]]))
            calls += [partial(self.make, num_experts=self.num_experts + more) for more in (1, 2**32)]
            holder = next(rank for rank in range(self.num_ranks) if set(self._held(last, rank)) - {EMPTY})
            active = [rank != holder for rank in range(self.num_ranks)]
            if any(active):
                calls.append(partial(self.make, topology=replace(self.case.topology, active=active)))
        slots = replace(self.case.topology, slots_per_rank=self.case.topology.slots(self.num_slots), active=None)
        calls.append(partial(self.make, [[*row, EMPTY] for row in self.case.table], slots))
        if all(row[-1:] == [EMPTY] for row in self.case.table):
            calls.append(partial(self.make, [row[:-1] for row in self.case.table], slots))
        shared = [getattr(self.made, name) for name in WITH_SHARED if hasattr(self.made, name)]
        calls += [partial(ask, 0, 0, number) for ask in shared for number in (-1, 2**62)]
        if hasattr(self.made, "logical_to_physical"):
            calls.append(partial(self.made.logical_to_physical, self.most_replicas - 1))
        return all_refused(ValueError, calls)

    def _with(self, entry: int, layer: int, slot: int) -> list[list[int]]:
        table = deepcopy(self.case.table)
        table[layer][slot] = entry
        return table

    def refuses_wrong_topologies(self) -> bool:
        """Whether no topology is made of wrong numbers, or of lists of another length than R."""
        ranks = self.num_ranks
        wrong: list[dict[str, Any]] = [
            {"num_ranks": 0},
            {"num_ranks": ranks + 2**32},
            {"num_nodes": 0},
            {"num_nodes": ranks + 1},
            {"slots_per_rank": -1},
            {"slots_per_rank": [1] * (ranks + 1)},
            {"slots_per_rank": [1] * (ranks - 1) + [-1]},
            {"speeds": [1.0] * (ranks + 1)},
            *({"speeds": [1.0] * (ranks - 1) + [speed]} for speed in WRONG_SPEEDS),
            {"active": [True] * (ranks + 1)},
            {"active": [False] * ranks},
        ]
        return all_refused(ValueError, (partial(self.names.Topology, **({"num_ranks": ranks} | one)) for one in wrong))

    def refuses_wrong_ids(self) -> bool:
        """Whether layers and ranks next to their ranges are refused as such."""
        methods = [name for name in (*REPRESENTATIONS, "local_experts", "experts_to_load") if hasattr(self.made, name)]
        shared = {"expert_map_with_shared": (1,)}
        ids = [(-1, 0), (self.num_layers, 0), (0, -1), (0, self.num_ranks)]
        calls = [partial(getattr(self.made, name), *at, *shared.get(name, ())) for name in methods for at in ids]
        if self.model.offers("Topology.node_of"):
            node_of = self.make_topology(self.case.topology).node_of
            calls += [partial(node_of, rank) for rank in (-1, self.num_ranks)]
        return all_refused(IndexError, calls)

    def refuses_wrong_loads(self) -> bool:
        """Whether loads are refused that are negative or not finite, add up to too much, or have another shape."""
        layers = self.case.loads[0]
        wrong: list[Any] = [[*layers, layers[0]], [[*layer, 1.0] for layer in layers], [], layers[0]]
        if self.num_layers > 1:
            wrong.append(layers[:1])
        if self.num_experts > 1:
            wrong += [[layer[:width] for layer in layers] for width in {1, self.num_experts - 1}]
        if self.num_experts:
            numbers = (float("nan"), float("inf"), -float("inf"), -1.0, -1e-300, 1.7e308)
            changed = [[*layers[:-1], [*layers[-1][:-1], number]] for number in numbers]
            # The last number is a load, but not in two windows.
            wrong += [*changed[:-1], [changed[-1], changed[-1]]]
        about = ("rank_loads", "balancedness", "report", "replica_weights")
        methods = [method for method in about if hasattr(self.made, method)]
        calls = [partial(getattr(self.made, method), loads) for method in methods for loads in wrong]
        if hasattr(self.made, "off_node"):
            calls += [partial(self.made.off_node, loads, 1) for loads in wrong]
        return all_refused(ValueError, calls)


def is_close(answer: Any, expected: Any) -> bool:
    """Whether two answers are of one shape, and their numbers differ by rounding alone."""
    left, right = (np.asarray(as_array(one), dtype=np.float64) for one in (answer, expected))
    return left.shape == right.shape and bool(np.all(close(left, right)))


def of_other_shapes(table: list[list[int]], num_experts: int, topology: Topology) -> list[tuple[Any, int, Topology]]:
    """Tables with their experts and ranks that differ in shape from one that is there.

    They have a layer more or fewer, an expert fewer, a slot more, the slots of the ranks in reverse, or one rank more,
    without slots.
    """
    slots, last = topology.slots(len(table[0])), num_experts - 1
    more = replace(topology, slots_per_rank=[*slots[:-1], slots[-1] + 1])
    speeds = None if topology.speeds is None else [*topology.speeds, 1.0]
    wider = replace(topology, num_ranks=len(slots) + 1, slots_per_rank=[*slots, 0], speeds=speeds)
    others: list[tuple[Any, int, Topology]] = [
        ([*table, table[0]], num_experts, topology),
        ([[*row, EMPTY] for row in table], num_experts, more),
        (table, num_experts, wider),
    ]
    if len(table) > 1:
        others.append((table[1:], num_experts, topology))
    if last > 0:
        others.append(([[0 if entry == last else entry for entry in row] for row in table], last, topology))
    if slots != slots[::-1]:
        others.append((table, num_experts, replace(topology, slots_per_rank=slots[::-1])))
    return others


def made_topology(names: Any, topology: Topology) -> Any:
    """An implementation's topology of these ranks."""
    return names.Topology(topology.num_ranks, topology.num_nodes, *lists_of(topology))


def lists_of(topology: Topology) -> list[Any]:
    """The slots, speeds and activity of ranks as they are given: lists, a number of slots, or None."""
    given = (topology.slots_per_rank, topology.speeds, topology.active)
    return [list(one) if isinstance(one, tuple) else one for one in given]
