"""A migration plan as the laws see it. SPEC.md, "Migration"."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.answers import Lookup, all_refused, as_array, field, is_table, like, value
from expert_placement_spec.cases import Case, View
from expert_placement_spec.migration import execution
from expert_placement_spec.migration.batches import fewest_batches
from expert_placement_spec.migration.execution import Schedule
from expert_placement_spec.migration.reference import plan_migration
from expert_placement_spec.migration.sources import (
    Move,
    changed_slots,
    choose_sources,
    distance,
    live_slots,
    ranks_of_slots,
)
from expert_placement_spec.migration.writing import write_batches
from expert_placement_spec.placement.reference import EMPTY, Placement
from expert_placement_spec.placement.view import made_topology, of_other_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from expert_placement_spec.placement.topology import Topology

Rows = list[list[int]]

BYTES = 2**33 + 3
"""The bytes of an expert of the first layer: more than 32 bits tell, and than the 24 digits of a float32 do."""


@dataclass(frozen=True)
class MigrationCase(Case):
    """Two placements of the same layers, experts and slots.

    Attributes:
        num_experts: E.
        old: the table of the old placement, made when all ranks were active.
        new: the table of the new one.
        topology: the ranks that the new one is for.
        max_node_transfers: the limit on transfers between nodes, if there is one.
        max_staged: the limit on staged experts, if there is one.
    """

    num_experts: int
    old: Rows
    new: Rows
    topology: Topology
    max_node_transfers: int | None = None
    max_staged: int | None = None

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest case is chosen."""
        shape = (len(self.old[0]), self.num_experts, len(self.old), self.topology.num_ranks, self.topology.num_nodes)
        changed = sum(
            old != new for rows in zip(self.old, self.new, strict=True) for old, new in zip(*rows, strict=True)
        )
        limits = (-1 if limit is None else limit for limit in (self.max_node_transfers, self.max_staged))
        return (*shape, changed, *limits, str(self.topology), self.old, self.new)

    def placements(self) -> tuple[Placement, Placement]:
        """The two placements, of the reference model."""
        old = Placement(self.old, self.num_experts, replace(self.topology, active=None))
        return old, Placement(self.new, self.num_experts, self.topology)

    def check(self) -> None:
        """Raises ValueError where the definitions do not allow the case."""
        plan_migration(*self.placements(), self.max_node_transfers, self.max_staged)


def most_arrivals(case: MigrationCase) -> int:
    """The most moves of one layer to one rank."""
    old, new = case.placements()
    rank_of = ranks_of_slots(new)
    arrivals = [(layer, rank_of[slot]) for layer, slot in changed_slots(old.table, new.table)]
    return max(map(arrivals.count, arrivals), default=0)


class MigrationView(View):
    """What an implementation plans, and what comes of it."""

    case: MigrationCase

    def extent(self, name: str, given: dict[str, int]) -> int:  # noqa: ARG002
        """How many values a quantifier takes: of a move, batch, layer, expert, slot, rank, node or staging."""
        if name in ("i", "b"):
            return self.num_moves if name == "i" else self.num_batches
        return {
            "l": len(self.case.old),
            "e": self.case.num_experts,
            "j": len(self.case.old[0]),
            "r": self.case.topology.num_ranks,
            "n": self.case.topology.num_nodes,
            "s": self.most_arrivals + 1,
        }[name]

    # What the case is.

    @cached_property
    def stated(self) -> tuple[Placement, Placement]:
        """The two placements, of the reference model."""
        return self.case.placements()

    @cached_property
    def rank(self) -> Lookup:
        """The rank of a slot."""
        return Lookup(ranks_of_slots(self.stated[1]))

    @cached_property
    def old(self) -> Lookup:
        """The expert of a slot of a layer in the old placement."""
        return Lookup(self.case.old, 2)

    @cached_property
    def new(self) -> Lookup:
        """The expert of a slot of a layer in the new placement."""
        return Lookup(self.case.new, 2)

    @cached_property
    def is_active(self) -> Lookup:
        """Whether a rank is active in the new placement."""
        ranks = range(self.case.topology.num_ranks)
        return Lookup([self.case.topology.is_active(rank) for rank in ranks])

    @cached_property
    def stated_source(self) -> Lookup:
        """The source that the rule names for a slot of a layer, or -1."""
        sources = [[EMPTY] * len(row) for row in self.case.new]
        for move in choose_sources(*self.stated):
            sources[move.layer][move.destination] = move.source
        return Lookup(sources, 2)

    @property
    def has_node_limit(self) -> bool:
        """Whether transfers between nodes are limited."""
        return self.case.max_node_transfers is not None

    @property
    def has_staging_limit(self) -> bool:
        """Whether staging is limited."""
        return self.case.max_staged is not None

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit, and one that the implementation takes."""
        return bool(self._limits)

    @property
    def _limits(self) -> dict[str, int]:
        # An implementation without limits is asked for nothing that it does not have.
        limits = {"max_node_transfers": self.case.max_node_transfers, "max_staged": self.case.max_staged}
        is_offered = self.model.offers
        return {
            name: limit for name, limit in limits.items() if limit is not None and is_offered(f"plan_migration({name})")
        }

    @property
    def node_limit(self) -> float:
        """How many transfers may leave a node, or enter it, in a batch."""
        return float("inf") if self.case.max_node_transfers is None else self.case.max_node_transfers

    @property
    def staging_limit(self) -> float:
        """How many experts a rank may keep beside its slots."""
        return float("inf") if self.case.max_staged is None else self.case.max_staged

    @cached_property
    def most_arrivals(self) -> int:
        """The most moves of one layer to one rank: so many may have to be staged, and no more if layers take turns."""
        return most_arrivals(self.case)

    # What the implementation answers.

    def make(self, table: Rows, topology: Topology, num_experts: int | None = None) -> Any:
        """The implementation's placement."""
        made = made_topology(self.names, topology)
        experts = self.case.num_experts if num_experts is None else num_experts
        return self.names.Placement.from_physical_to_logical(deepcopy(table), num_experts=experts, topology=made)

    @cached_property
    def made(self) -> tuple[Any, Any]:
        """The implementation's two placements."""
        everyone = replace(self.case.topology, active=None)
        return self.make(self.case.old, everyone), self.make(self.case.new, self.case.topology)

    @cached_property
    def plan(self) -> Any:
        """The implementation's plan."""
        return self.names.plan_migration(*self.made, **self._limits)

    @cached_property
    def unlimited(self) -> MigrationView:
        """The same case without limits."""
        if not self.is_limited:
            return self
        return MigrationView(self.model, replace(self.case, max_node_transfers=None, max_staged=None))

    @property
    def unlimited_moves(self) -> list[Move]:
        """The moves of the plan without limits, in order."""
        return sorted(self.unlimited.moves)

    def tables_are_well_formed(self) -> bool:
        """Whether the tables are int32 of the stated shapes, and the numbers what the tables say."""
        moves, batches = value(self.plan.moves), value(self.plan.batches)
        number = len(as_array(moves))
        return (
            is_table(moves, (number, 4))
            and is_table(batches, as_array(batches).shape[:1])
            and is_table(value(self.plan.write_batches), (number,))
            and int(value(self.plan.num_moves)) == number
        )

    @cached_property
    def moves(self) -> list[Move]:
        """The moves."""
        return [Move(*move) for move in as_array(value(self.plan.moves)).reshape(-1, 4).tolist()]

    @property
    def num_moves(self) -> int:
        """M."""
        return len(self.moves)

    @cached_property
    def batches(self) -> list[int]:
        """Where each batch begins among the moves, and M last."""
        batches: list[int] = as_array(value(self.plan.batches)).tolist()
        return batches

    @property
    def num_batches(self) -> int:
        """B."""
        return len(self.batches) - 1

    @cached_property
    def reads(self) -> list[int]:
        """The batch of each move."""
        return [sum(first <= index for first in self.batches[1:]) for index in range(self.num_moves)]

    @cached_property
    def writes(self) -> list[int]:
        """The batch at whose end each move is written."""
        writes: list[int] = as_array(value(self.plan.write_batches)).tolist()
        return writes

    @cached_property
    def schedule(self) -> Schedule:
        """When each move is read and written."""
        return Schedule(self.moves, self.reads, self.writes)

    @cached_property
    def layer(self) -> Lookup:
        """The layer of a move."""
        return Lookup([move.layer for move in self.moves])

    @cached_property
    def expert(self) -> Lookup:
        """The expert of a move."""
        return Lookup([move.expert for move in self.moves])

    @cached_property
    def source(self) -> Lookup:
        """The source of a move."""
        return Lookup([move.source for move in self.moves])

    @cached_property
    def destination(self) -> Lookup:
        """The destination of a move."""
        return Lookup([move.destination for move in self.moves])

    @cached_property
    def read(self) -> Lookup:
        """The batch of a move."""
        return Lookup(self.reads)

    @cached_property
    def write(self) -> Lookup:
        """The batch at whose end a move is written."""
        return Lookup(self.writes)

    @cached_property
    def arrivals(self) -> Lookup:
        """How many moves go to a slot of a layer."""
        ends = [(move.layer, move.destination) for move in self.moves]
        return Lookup([[ends.count((l, j)) for j in range(len(row))] for l, row in enumerate(self.case.new)], 2)  # noqa: E741

    @cached_property
    def overwritten_at(self) -> Lookup:
        """The batch at whose end a slot of a layer is first written; B where none is."""
        first = [[self.num_batches] * len(row) for row in self.case.new]
        for move, write in zip(self.moves, self.writes, strict=True):
            first[move.layer][move.destination] = min(first[move.layer][move.destination], write)
        return Lookup(first, 2)

    @cached_property
    def _ends(self) -> list[tuple[int, int]]:
        return [(self.rank(move.source), self.rank(move.destination)) for move in self.moves]

    @cached_property
    def transfers(self) -> list[tuple[int, int, int]]:
        """The batch, sender and receiver of each move between ranks."""
        ends = zip(self.reads, self._ends, strict=True)
        return [(batch, sender, receiver) for batch, (sender, receiver) in ends if sender != receiver]

    @cached_property
    def sends(self) -> Lookup:
        """How often a rank sends in a batch."""
        return self._transfers_of(1)

    @cached_property
    def receives(self) -> Lookup:
        """How often a rank receives in a batch."""
        return self._transfers_of(2)

    def _transfers_of(self, side: int) -> Lookup:
        ends = [(transfer[0], transfer[side]) for transfer in self.transfers]
        ranks = range(self.case.topology.num_ranks)
        return Lookup([[ends.count((batch, rank)) for rank in ranks] for batch in range(self.num_batches)], 2)

    @property
    def fewest_batches(self) -> int:
        """The most that a rank sends or receives, and 1 where all moves are inside ranks."""
        between = fewest_batches([(sender, receiver) for _, sender, receiver in self.transfers])
        return max(between, 1 if self.moves else 0)

    @property
    def batches_by_layer(self) -> int:
        """How many batches it takes if the moves of a layer wait for those of the layers before."""
        ends = list(zip(self.moves, self._ends, strict=True))
        number = 0
        for layer in {move.layer for move in self.moves}:
            between = [pair for move, pair in ends if move.layer == layer and pair[0] != pair[1]]
            number += max(fewest_batches(between), 1)
        return number

    # What is sent.

    @cached_property
    def sender(self) -> Lookup:
        """The rank that the plan names as the sender of a move; nowhere where the table is none of int32."""
        return self._rank_of_moves("senders")

    @cached_property
    def receiver(self) -> Lookup:
        """The rank that the plan names as the receiver of a move."""
        return self._rank_of_moves("receivers")

    def _rank_of_moves(self, name: str) -> Lookup:
        table = value(getattr(self.plan, name))
        return Lookup(as_array(table) if is_table(table, (self.num_moves,)) else [], 1)

    @property
    def size(self) -> int:
        """The bytes of an expert, where they are the same in all layers."""
        return BYTES

    @property
    def _sizes(self) -> list[int]:
        return [BYTES + 4 * layer for layer in range(len(self.case.old))]

    @cached_property
    def _traffic(self) -> Any:
        return self.plan.traffic(self._sizes)

    def _bytes(self, traffic: Any, name: str) -> Lookup:
        shape = (self.num_batches, self.case.topology.num_ranks)
        table = field(traffic, name)
        return Lookup(as_array(table) if is_table(table, shape, "int64") else [], 2)

    @cached_property
    def sent(self) -> Lookup:
        """The bytes that a rank sends in a batch."""
        return self._bytes(self._traffic, "sent")

    @cached_property
    def received(self) -> Lookup:
        """The bytes that a rank receives in a batch."""
        return self._bytes(self._traffic, "received")

    def _stated_bytes(self, side: int) -> Lookup:
        ranks = range(self.case.topology.num_ranks)
        table = [[0 for _ in ranks] for _ in range(self.num_batches)]
        for move, batch, ends in zip(self.moves, self.reads, self._ends, strict=True):
            if ends[0] != ends[1]:
                table[batch][ends[side]] += self._sizes[move.layer]
        return Lookup(table, 2)

    @cached_property
    def stated_sent(self) -> Lookup:
        """The bytes of the transfers that a rank sends in a batch."""
        return self._stated_bytes(0)

    @cached_property
    def stated_received(self) -> Lookup:
        """The bytes of the transfers that a rank receives in a batch."""
        return self._stated_bytes(1)

    @cached_property
    def _even_traffic(self) -> Any:
        return self.plan.traffic(self.size)

    def _of_all(self, name: str) -> Lookup:
        return Lookup(as_array(field(self._even_traffic, name)).reshape(self.num_batches, -1).sum(axis=1))

    @cached_property
    def sent_by_all(self) -> Lookup:
        """The bytes that all ranks send in a batch."""
        return self._of_all("sent")

    @cached_property
    def received_by_all(self) -> Lookup:
        """The bytes that all ranks receive in a batch."""
        return self._of_all("received")

    @cached_property
    def transfers_in(self) -> Lookup:
        """How many transfers a batch has."""
        return Lookup([sum(batch == one for batch, _, _ in self.transfers) for one in range(self.num_batches)])

    # Transfers between nodes.

    @cached_property
    def _between_nodes(self) -> list[tuple[int, int, int]]:
        node_of = self.case.topology.node_of
        ends = [(batch, node_of(sender), node_of(receiver)) for batch, sender, receiver in self.transfers]
        return [one for one in ends if one[1] != one[2]]

    def _at_nodes(self, side: int) -> Lookup:
        ends = [(one[0], one[side]) for one in self._between_nodes]
        nodes = range(self.case.topology.num_nodes)
        return Lookup([[ends.count((batch, node)) for node in nodes] for batch in range(self.num_batches)], 2)

    @cached_property
    def leaving(self) -> Lookup:
        """How many transfers leave a node for others in a batch."""
        return self._at_nodes(1)

    @cached_property
    def entering(self) -> Lookup:
        """How many transfers from others enter a node in a batch."""
        return self._at_nodes(2)

    @cached_property
    def busiest_nodes(self) -> list[int]:
        """The most that leave, or that enter, a node in each batch."""
        tables = np.concatenate([self.leaving.array, self.entering.array], axis=1)
        busiest: list[int] = tables.max(axis=1).tolist() if tables.size else []
        return busiest

    @property
    def stated_batches(self) -> int:
        """How many batches those without limits become."""
        limit = self.case.max_node_transfers or 1
        return sum(max(-(-busiest // limit), 1) for busiest in self.unlimited.busiest_nodes)

    # Batches.

    def batches_cut_the_moves(self) -> bool:
        """Whether the batches begin with 0, end with M, and hold a move each."""
        batches = self.batches
        ascends = all(first < last for first, last in pairwise(batches))
        return batches[0] == 0 and batches[-1] == self.num_moves and ascends

    # Sources.

    def _distance_of(self, source: int, destination: int) -> int:
        return distance(self.stated[1], self.rank(source), self.rank(destination))

    @cached_property
    def distance(self) -> Lookup:
        """How far the source of a move is."""
        return Lookup([self._distance_of(move.source, move.destination) for move in self.moves])

    @cached_property
    def least_distance(self) -> Lookup:
        """How far the nearest slot is that holds the expert of a move."""
        return Lookup(
            [
                min(
                    self._distance_of(slot, move.destination)
                    for slot in live_slots(*self.stated, move.layer, move.expert)
                )
                for move in self.moves
            ]
        )

    # What comes of it.

    @cached_property
    def contents(self) -> execution.Contents:
        """What can be read before anything moves."""
        return execution.live_contents(*self.stated)

    @cached_property
    def history(self) -> list[execution.Contents]:
        """The contents after each batch."""
        return execution.execute(self.schedule, self.contents, self.num_batches)

    @cached_property
    def final(self) -> Lookup:
        """The expert whose weights are in a slot of a layer in the end."""
        return Lookup(self.history[-1] if self.history else self.contents, 2)

    @cached_property
    def replicas_after(self) -> Lookup:
        """How many replicas an expert of a layer has after a batch."""
        experts = range(self.case.num_experts)
        return Lookup([[[row.count(e) for e in experts] for row in after] for after in self.history], 3)

    @property
    def is_said_to_be_safe(self) -> bool:
        """What the plan says of interruptions."""
        return bool(value(self.plan.is_interruption_safe))

    @property
    def is_safe(self) -> bool:
        """Whether every expert has a replica after every batch."""
        return not any(execution.lost_expert(after, self.case.num_experts) for after in self.history)

    @cached_property
    def stated_write(self) -> Lookup:
        """The batch at whose end a move is written, by the rule."""
        return Lookup(write_batches(self.moves, self.reads))

    @property
    def num_staged(self) -> int:
        """How many experts the plan says that a rank stages."""
        return int(value(self.plan.num_staged))

    @property
    def peak_staging(self) -> int:
        """How many it does."""
        return execution.peak_staging(self.schedule, ranks_of_slots(self.stated[1]), self.num_batches)

    @cached_property
    def applied(self) -> Lookup:
        """The number that `apply` leaves in a slot of a layer, of weights that tell every slot apart."""
        return self._applied_to((2,), "float32", 0, np.array)

    @cached_property
    def applied_otherwise(self) -> Lookup:
        """Whether it leaves the same in weights that are apart in memory, of other shapes, and wider ones."""

        def apart(weights: Any) -> Any:
            wide = np.zeros((weights.shape[0], 2 * weights.shape[1], 3 * weights.shape[2]), dtype=weights.dtype)
            wide[:, ::2, ::3] = weights
            return wide[:, ::2, ::3]

        others = [
            self._applied_to((2,), "float32", 0, apart),
            self._applied_to((2, 3), "float32", 0, np.array),
            self._applied_to((), "int64", 2**40, np.array),
        ]
        return Lookup(np.logical_and.reduce([self.applied.array == other.array for other in others]), 2)

    def _applied_to(self, inner: tuple[int, ...], dtype: str, least: int, form: Callable[[Any], Any]) -> Lookup:
        """The number of the slot whose weights, of a shape and from a number on, are in each slot of a layer then."""
        shape = (len(self.case.old), len(self.case.old[0]))
        size = int(np.prod(inner, dtype=int))
        weights = (np.arange(size * shape[0] * shape[1]) + least).astype(dtype).reshape(*shape, *inner)
        given = like(form(weights), value(self.plan.moves))
        answer = self.plan.apply(given)
        result = as_array(given if answer is None else answer)
        if result.shape != weights.shape:
            return Lookup(np.full(shape, -1))
        flat = result.reshape(*shape, size)
        # All numbers of a slot stay together.
        together = (flat == flat[..., :1] + np.arange(size)).all(axis=-1)
        return Lookup(np.where(together, (flat[..., 0] - least) // size, -1).astype(int), 2)

    @cached_property
    def expected(self) -> Lookup:
        """The number that belongs there: that of the source that the plan names, or of the slot itself."""
        slots = len(self.case.old[0])
        numbers = [[layer * slots + slot for slot in range(slots)] for layer in range(len(self.case.old))]
        for move in self.moves:
            numbers[move.layer][move.destination] = move.layer * slots + move.source
        return Lookup(numbers, 2)

    # Other calls.

    def is_empty_where_nothing_changes(self) -> bool:
        """Whether nothing moves from the new placement to itself."""
        plan = self.names.plan_migration(self.made[1], self.made[1])
        return int(value(plan.num_moves)) == 0 and as_array(value(plan.batches)).tolist() == [0]

    def is_repeated(self, **changes: Any) -> bool:
        """Whether the same placements, made anew, give the same plan, also where the old one's ranks are others."""
        before = replace(self.case.topology, **{"active": None, **changes})
        made = self.make(self.case.old, before), self.make(self.case.new, self.case.topology)
        again = self.names.plan_migration(*made, **self._limits)
        names = ("moves", "batches", "write_batches")
        return all(
            as_array(value(getattr(again, name))).tolist() == as_array(value(getattr(self.plan, name))).tolist()
            for name in names
            if hasattr(again, name)
        )

    def is_the_same_from_other_ranks(self) -> bool:
        """Whether the plan is the same from a placement on one node and on a node for each rank, at other speeds.

        Also where ranks that held nothing were out of service.
        """
        ranks, slots = range(self.case.topology.num_ranks), range(len(self.case.old[0]))
        held = [any(row[j] != EMPTY for row in self.case.old for j in slots if self.rank(j) == rank) for rank in ranks]
        others: list[dict[str, Any]] = [
            {"num_nodes": nodes, "speeds": [1.0 + rank for rank in ranks]} for nodes in (1, len(ranks))
        ]
        if any(held):
            others.append({"active": held})
        return all(self.is_repeated(**changes) for changes in others)

    def is_kept_by_loose_limits(self) -> bool:
        """Whether limits of what the plan without any needs give that plan."""
        free = self.unlimited
        limits = {"max_node_transfers": max([1, *free.busiest_nodes]), "max_staged": free.peak_staging}
        plan = self.names.plan_migration(*self.made, **limits)
        return all(
            as_array(value(getattr(plan, name))).tolist() == as_array(value(getattr(free.plan, name))).tolist()
            for name in ("moves", "batches", "write_batches")
        )

    @cached_property
    def stages_or_refuses(self) -> Lookup:
        """Whether with a limit on staging there is a plan that keeps it, or an error that names what it would take."""
        return Lookup([self._stages_or_refuses(limit) for limit in range(self.most_arrivals + 1)])

    def _stages_or_refuses(self, limit: int) -> bool:
        try:
            view = MigrationView(self.model, replace(self.case, max_node_transfers=None, max_staged=limit))
            return view.peak_staging <= limit
        except ValueError as error:
            names_more = any(int(number) > limit for number in re.findall(r"\d+", str(error)))
            return names_more and limit < self.most_arrivals

    def refuses_wrong_limits(self) -> bool:
        """Whether limits are refused that are none."""
        wrong = [{"max_node_transfers": 0}, {"max_node_transfers": -1}, {"max_staged": -1}]
        return all_refused(ValueError, (partial(self.names.plan_migration, *self.made, **one) for one in wrong))

    def refuses_wrong_sizes(self) -> bool:
        """Whether sizes are refused that are negative, or of another number of layers."""
        wrong = (-1, [*self._sizes, 1], self._sizes[:-1], [*self._sizes[:-1], -1])
        return all_refused(ValueError, (partial(self.plan.traffic, sizes) for sizes in wrong))

    def refuses_missing_sources(self) -> bool:
        """Whether a plan is refused where the only rank that holds an expert is no longer active."""
        slots, ranks = self.case.topology.slots(len(self.case.old[0])), range(self.case.topology.num_ranks)
        calls: list[partial[Any]] = []
        for lost in ranks:
            left = [slot for slot in range(len(self.case.old[0])) if self.rank(slot) != lost]
            missing = [e for row in self.case.old for e in set(row) - {EMPTY} if e not in [row[slot] for slot in left]]
            if missing and self.case.num_experts <= sum(slots) - slots[lost]:
                topology = replace(self.case.topology, active=[rank != lost for rank in ranks])
                row = [left.index(slot) if slot in left else EMPTY for slot in range(len(self.case.old[0]))]
                moved = [entry if entry < self.case.num_experts else EMPTY for entry in row]
                new = self.make([moved] * len(self.case.old), topology)
                calls.append(partial(self.names.plan_migration, self.made[0], new))
        return all_refused(ValueError, calls)

    def refuses_other_shapes(self) -> bool:
        """Whether a plan is refused between placements of other layers, experts, slots or ranks."""
        everyone = replace(self.case.topology, active=None)
        shapes = of_other_shapes(self.case.old, self.case.num_experts, everyone)
        others = (self.make(table, topology, experts) for table, experts, topology in shapes)
        calls = [partial(self.names.plan_migration, self.made[0], other) for other in others]
        return all_refused(ValueError, calls)
