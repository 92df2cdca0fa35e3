"""A routed batch as the laws see it. SPEC.md, "Routing"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.answers import Lookup, all_refused, as_array, at_most, close, field, is_table
from expert_placement_spec.cases import Case, View
from expert_placement_spec.fresh import kept, same, spoil
from expert_placement_spec.placement.reference import EMPTY, Placement
from expert_placement_spec.placement.view import made_topology
from expert_placement_spec.reference import STRATEGIES, Partition
from expert_placement_spec.routing import reference
from expert_placement_spec.routing.reference import FIELDS, UNROUTED
from expert_placement_spec.routing.weights import hosts_of, least_largest_time, time_of_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.placement.topology import Topology

MANY = 512
"""So many tokens show whether replicas are used as they should be."""
DEVIATIONS = 6
"""By how many standard deviations a count may be off; of fair choices one in five hundred million is."""
MORE_ROOM = 3
"""Slots that tables have room for beyond those that there are, where that must not matter."""

OF_EVERY_RANK = tuple(name for name in FIELDS if name != "local_slots")
"""What is the same for every rank."""

NUM_LAYERS = 5
"""Layers of tables that have several."""

FEW_RANKS = 12
"""Up to so many ranks all sets of them are looked at."""

NEGLIGIBLE = 1e-12
"""What rounding leaves of a rank's time in a slot, as a part of the largest."""


@dataclass(frozen=True)
class RoutingCase(Case):
    """One layer of a placement, and a batch of ids.

    Attributes:
        num_experts: E.
        row: the expert of each slot, or -1.
        topology: the ranks.
        ids: [T, k].
        token_offset: the number of the first token.
        seed: which choice.
        valid_tokens: how many tokens are not padding; all without other word.
        exact: whether replicas are used in turn.
        weights: the weight of each slot, where replicas are weighted.
        load: the load of each expert, for the best weights.
    """

    num_experts: int
    row: list[int]
    topology: Topology
    ids: list[list[int]]
    token_offset: int = 0
    seed: int = 0
    valid_tokens: int | None = None
    exact: bool = False
    weights: list[float] | None = None
    load: list[float] | None = None

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest case is chosen."""
        batch = (len(self.ids), len(self.ids[0]) if self.ids else 0)
        shape = (len(self.row), self.num_experts, *batch, self.topology.num_ranks, self.topology.num_nodes)
        options = (self.valid_tokens is not None, self.exact, self.weights is not None, self.load is not None)
        numbers = (self.token_offset, self.seed, self.valid_tokens or 0, self.weights or [], self.load or [])
        return (*shape, options, numbers, str(self.topology), self.row, self.ids)

    def check(self) -> None:
        """Raises ValueError where the definitions do not allow the case."""
        tables = reference.RoutingTables(self.placement(), weights=self.all_weights())
        reference.route(self.batch(), tables, **self.options())
        if self.load is not None:
            self.placement().rank_loads([self.load])

    def placement(self) -> Placement:
        """The placement, of the reference model."""
        return Placement([self.row], self.num_experts, self.topology)

    def all_weights(self) -> Any:
        """The weights of the only layer as of all."""
        return None if self.weights is None else [self.weights]

    def batch(self, dtype: str = "int64") -> Any:
        """The ids as an array."""
        # Without tokens nothing says how many ids each has.
        return np.array(self.ids, dtype=dtype).reshape(len(self.ids), len(self.ids[0]) if self.ids else 1)

    def options(self) -> dict[str, Any]:
        """What is said of the batch beside the layer."""
        plain = {"token_offset": self.token_offset, "seed": self.seed, "valid_tokens": self.valid_tokens}
        return {**plain, "exact": self.exact}


class RoutingView(View):
    """What an implementation makes of a batch, and what the definitions make of it."""

    case: RoutingCase

    def extent(self, name: str, given: dict[str, int]) -> int:  # noqa: ARG002
        """How many values a quantifier takes: of a token, a place among its ids, an expert, a slot or a rank."""
        return {
            "t": len(self.case.ids),
            "i": len(self.case.ids[0]) if self.case.ids else 0,
            "e": self.case.num_experts,
            "j": len(self.case.row),
            "r": self.case.topology.num_ranks,
        }[name]

    # What the case is.

    @property
    def num_slots(self) -> int:
        """P."""
        return len(self.case.row)

    @property
    def num_ranks(self) -> int:
        """R."""
        return self.case.topology.num_ranks

    @property
    def is_exact(self) -> bool:
        """Whether replicas are used in turn."""
        return self.case.exact

    @property
    def is_weighted(self) -> bool:
        """Whether replicas are weighted."""
        return self.case.weights is not None

    @property
    def has_load(self) -> bool:
        """Whether there is load to be split."""
        return self.case.load is not None

    @cached_property
    def id(self) -> Lookup:
        """The id of a token at a place."""
        return Lookup(self.case.batch(), 2)

    @cached_property
    def is_valid(self) -> Lookup:
        """Whether a token is no padding and its id an expert."""
        ids = self.case.batch()
        valid = len(ids) if self.case.valid_tokens is None else self.case.valid_tokens
        is_token = np.arange(len(ids))[:, np.newaxis] < valid
        return Lookup(is_token & (ids >= 0) & (ids < self.case.num_experts), 2)

    @cached_property
    def expert(self) -> Lookup:
        """The expert of a slot, or -1."""
        return Lookup(self.case.row, 1)

    @cached_property
    def offset(self) -> Lookup:
        """Where the slots of a rank begin."""
        return Lookup(self.case.placement().offsets, 1)

    @cached_property
    def stated_tables(self) -> reference.RoutingTables:
        """The tables of the reference model."""
        return reference.RoutingTables(self.case.placement(), rank=0, weights=self.case.all_weights())

    @cached_property
    def stated(self) -> Lookup:
        """The slot that the rule names."""
        return Lookup(reference.route(self.case.batch(), self.stated_tables, **self.case.options()).slots, 2)

    def stated_near(self, rank: int) -> Any:
        """The slots that the rule names where a rank sends, and how far they may be from it."""
        tables = reference.RoutingTables.for_sender(self.case.placement(), rank)
        return reference.route(self.case.batch(), tables, **self.case.options()).slots

    # What the implementation answers.

    @cached_property
    def made(self) -> Any:
        """The implementation's placement."""
        return self._made_of_rows([self.case.row])

    def tables(self, **options: Any) -> Any:
        """Tables of the implementation for the case, weighted where it is."""
        return self.names.RoutingTables(self.made, **self._own_weights, **options)

    @property
    def _weights(self) -> dict[str, Any]:
        return {"weights": np.array(self.case.all_weights(), dtype=np.float64)}

    def route(self, tables: Any, want: Any = ("slots",), ids: Any = None, **options: Any) -> Any:
        """The implementation's answer to the batch, or to other ids."""
        batch = self.case.batch() if ids is None else ids
        return self.names.route(batch, tables, want=want, **{"layer": 0, **self.case.options(), **options})

    @cached_property
    def answer(self) -> Any:
        """Everything that can be asked for, as rank 0 sees it."""
        return self.route(self.tables(rank=0), FIELDS)

    def answered(self, name: str, depth: int) -> Lookup:
        """One field of the answer."""
        return Lookup(as_array(field(self.answer, name)), depth)

    @cached_property
    def slot(self) -> Lookup:
        """The slot of a token's id."""
        return self.answered("slots", 2)

    @cached_property
    def slot_alone(self) -> Lookup:
        """The same where the token is a batch of its own, and the id alone."""
        ids, tables = self.case.batch(), self.tables()
        slots = np.full(ids.shape, UNROUTED)
        for token, place in np.ndindex(*ids.shape):
            number = (self.case.token_offset + token) % 2**63
            options = {"token_offset": number, "valid_tokens": None}
            own = self.route(tables, ids=ids[token : token + 1, place : place + 1], **options)
            slots[token, place] = as_array(field(own, "slots"))[0, 0]
        return Lookup(slots, 2)

    @cached_property
    def local(self) -> Lookup:
        """The local slot of a token's id, on a rank."""
        ranks = range(self.num_ranks)
        answers = [self.route(self.tables(rank=rank), ("local_slots",)) for rank in ranks]
        return Lookup(np.stack([as_array(field(one, "local_slots")) for one in answers]), 3)

    def ranks_that_have(self, token: Any, place: Any) -> Any:
        """How many ranks find an id to be local."""
        return Lookup((self.local.array >= 0).sum(0), 2)(token, place)

    @cached_property
    def count(self) -> Lookup:
        """How many ids a slot serves."""
        return self.answered("slot_counts", 1)

    @cached_property
    def histogram(self) -> Lookup:
        """The same, counted from the slots."""
        slots = self.slot.array
        return Lookup(np.bincount(slots[slots >= 0], minlength=self.num_slots), 1)

    @cached_property
    def slot_begin(self) -> Lookup:
        """Where the ids of a slot begin."""
        return self.answered("slot_offsets", 1)

    @cached_property
    def rank_count(self) -> Lookup:
        """How many ids a rank serves."""
        return self.answered("rank_counts", 1)

    @cached_property
    def rank_begin(self) -> Lookup:
        """Where the ids of a rank begin."""
        return self.answered("rank_offsets", 1)

    def counted_on(self, rank: Any) -> Any:
        """How many ids the slots of a rank serve."""
        offsets, sums = self.offset.array, np.concatenate([[0], np.cumsum(self.histogram.array)])
        return Lookup(sums[offsets[1:]] - sums[offsets[:-1]], 1)(rank)

    @cached_property
    def position(self) -> Lookup:
        """Where an id comes in the order of slots."""
        return self.answered("positions", 2)

    @cached_property
    def ordered(self) -> Lookup:
        """Which id comes at a place of the order."""
        return self.answered("order", 1)

    def is_stable_order(self) -> bool:
        """Whether the order is that of slots, unrouted ids last, and equal ones as they stand."""
        slots = self.slot.array.flatten()
        keys = np.where(slots < 0, self.num_slots, slots)
        return bool(np.array_equal(self.ordered.array, np.argsort(keys, kind="stable")))

    def tables_are_well_formed(self) -> bool:
        """Whether everything is int32 of the stated shape."""
        tokens, top_k = self.case.batch().shape
        ids, slots, ranks = (tokens, top_k), self.num_slots, self.num_ranks
        shapes = (ids, ids, (slots,), (slots + 1,), (ranks,), (ranks + 1,), (tokens * top_k,), ids)
        if not all(is_table(field(self.answer, name), shape) for name, shape in zip(FIELDS, shapes, strict=True)):
            return False
        return self._routes_nothing((0, top_k)) and self._routes_nothing((tokens, 0))

    def _routes_nothing(self, shape: tuple[int, int]) -> bool:
        """Whether of no tokens, or of no ids of each, everything is of its shape and every count 0."""
        routed = self.route(self.tables(rank=0), FIELDS, ids=np.zeros(shape, dtype=np.int64), valid_tokens=None)
        counts = {"slot_counts": 0, "slot_offsets": 1, "rank_counts": 0, "rank_offsets": 1}
        lengths = {"slot": self.num_slots, "rank": self.num_ranks}
        return all(
            is_table(field(routed, name), (lengths[name[:4]] + more,)) and not as_array(field(routed, name)).any()
            for name, more in counts.items()
        ) and all(as_array(field(routed, name)).size == 0 for name in FIELDS if name not in counts)

    def gives_what_is_wanted(self) -> bool:
        """Whether each field alone is what it is among all, and what is not wanted is None."""
        tables = self.tables(rank=0)
        for name in FIELDS:
            alone = self.route(tables, (name,))
            if not np.array_equal(as_array(field(alone, name)), as_array(field(self.answer, name))):
                return False
            if any(field(alone, other) is not None for other in FIELDS if other != name):
                return False
        return True

    def loads_are_added(self) -> bool:
        """Whether loads of both widths grow by the counts, with the slots or without anything wanted.

        Those that are apart in memory do so as well, or are refused and left.
        """
        for dtype, want, stride in product(("int32", "int64"), (("slots",), (), FIELDS), (1, 2)):
            before = np.arange(stride * self.num_slots, dtype=dtype) * 7 + 1
            load, grown = before.copy(), before.copy()
            grown[::stride] += (2 * self.histogram.array).astype(dtype)
            try:
                for _ in range(2):
                    self.route(self.tables(rank=0), want, load=load[::stride])
            except ValueError:
                if stride == 1:
                    raise
                grown = before
            if load.dtype != before.dtype or not np.array_equal(load, grown):
                return False
        return all(self._adds_what_it_serves(*one) for one in self._other_tables())

    def _other_tables(self) -> Iterator[tuple[Any, int, int]]:
        """Tables with room, of a second layer, and for a sender; the layer that is asked for, and the room."""
        if self.model.offers("RoutingTables(max_slots)"):
            room = self.num_slots + MORE_ROOM
            yield self.tables(rank=0, max_slots=room), 0, room
        two = self._made_of(self._two_layers)
        yield self.names.RoutingTables(two, rank=0, **self._weights_of(self._two_layers)), 1, self.num_slots
        if not self.is_weighted and self.model.offers("RoutingTables.for_sender"):
            yield self.names.RoutingTables.for_sender(self.made, self.num_ranks - 1), 0, self.num_slots

    def _adds_what_it_serves(self, tables: Any, layer: int, room: int) -> bool:
        """Whether a load grows by how many ids each slot of a layer serves."""
        load = np.arange(room, dtype=np.int64)
        slots = as_array(field(self.route(tables, layer=layer), "slots")).flatten()
        self.route(tables, layer=layer, load=load)
        return np.array_equal(load, np.arange(room) + np.bincount(slots[slots >= 0], minlength=room))

    def widths_of_ids_agree(self) -> bool:
        """Whether ids of 32 bits are routed as those of 64, and ids whose lower halves alone are experts are not."""
        narrow = self.route(self.tables(), ids=self.case.batch("int32"))
        lower = self.case.batch() % 2**32
        beyond = [self.route(self.tables(), ids=lower + above) for above in (2**32, -(2**32), -(2**63))]
        same = np.array_equal(as_array(field(narrow, "slots")), self.slot.array)
        return bool(same and all((as_array(field(one, "slots")) == UNROUTED).all() for one in beyond))

    def strides_change_nothing(self) -> bool:
        """Whether ids that do not follow each other in memory, or column by column, are routed like those that do."""
        ids = self.case.batch()
        wide = np.full((2 * ids.shape[0], 3 * ids.shape[1]), 10**6, dtype=ids.dtype)
        wide[::2, ::3] = ids
        forms = (wide[::2, ::3], np.asfortranarray(ids))
        return all(self.is_same(self.route(self.tables(rank=0), FIELDS, ids=form), self.answer) for form in forms)

    def answers_are_fresh(self) -> bool:
        """Whether ids, weights and earlier answers are neither written nor read by a call that follows."""
        ids, weights = self.case.batch(), self._own_weights
        given = {name: array.copy() for name, array in weights.items()}
        tables = self.names.RoutingTables(self.made, rank=0, **given)
        unchanged = all(np.array_equal(given[name], weights[name]) for name in weights)
        for array in given.values():
            spoil(array)
        first = self.route(tables, FIELDS, ids=ids)
        stated = {name: kept(field(first, name)) for name in FIELDS}
        for name in FIELDS:
            spoil(field(first, name))
        again = self.route(tables, FIELDS, ids=ids)
        # Written into once more, the first answer must not be the second one.
        for name in FIELDS:
            spoil(field(first, name))
        # Other ids in the same array are other ids.
        refilled = np.array(ids)
        self.route(tables, FIELDS, ids=refilled)
        refilled[...] = np.roll(ids, 1)
        if not self.is_same(self.route(tables, FIELDS, ids=refilled), self.route(tables, FIELDS, ids=np.roll(ids, 1))):
            return False
        is_same = all(same(kept(field(again, name)), stated[name]) for name in FIELDS)
        return unchanged and is_same and np.array_equal(ids, self.case.batch()) and self.is_same(again, self.answer)

    def is_same(self, left: Any, right: Any, names: Any = FIELDS) -> bool:
        """Whether two answers are equal, or some fields of them."""
        return all(np.array_equal(as_array(field(left, name)), as_array(field(right, name))) for name in names)

    def is_repeated(self) -> bool:
        """Whether tables made again give the same, and those of each rank, or of none, all but local slots."""
        for rank in (None, *range(self.num_ranks)):
            routed = self.route(self.tables(**({} if rank is None else {"rank": rank})), OF_EVERY_RANK)
            if not self.is_same(routed, self.answer, OF_EVERY_RANK):
                return False
        return self.is_same(self.route(self.tables(rank=0), FIELDS), self.answer)

    def layers_stand_alone(self) -> bool:
        """Whether tables of several layers, each with its experts elsewhere, route each layer like tables of it alone.

        As the first rank sees it, as the last one does, and where that one sends.
        """
        rows = [self._renamed(by) for by in range(NUM_LAYERS)]
        weights: dict[str, Any] = {}
        if self.case.weights is not None:
            even = [1.0] * self.num_slots
            weights["weights"] = np.array([even if layer % 2 else self.case.weights for layer in range(NUM_LAYERS)])
        together = self._made_of_rows(rows)
        alone = [self._made_of_rows([row]) for row in rows]
        own = [{name: one[layer : layer + 1] for name, one in weights.items()} for layer in range(NUM_LAYERS)]
        for rank in {0, self.num_ranks - 1}:
            tables = self.names.RoutingTables(together, rank=rank, **weights)
            of_one = [self.names.RoutingTables(one, rank=rank, **given) for one, given in zip(alone, own, strict=True)]
            if not self._are_routed_alike(tables, of_one):
                return False
        if self.is_weighted or not self.model.offers("RoutingTables.for_sender"):
            return True
        sender, made = self.num_ranks - 1, self.names.RoutingTables.for_sender
        return self._are_routed_alike(made(together, sender), [made(one, sender) for one in alone])

    def _are_routed_alike(self, together: Any, alone: list[Any]) -> bool:
        """Whether tables of several layers route each as its own tables do."""
        return all(
            self.is_same(self.route(together, FIELDS, layer=layer), self.route(tables, FIELDS))
            for layer, tables in enumerate(alone)
        )

    def _renamed(self, by: int) -> list[int]:
        """The row with every expert where the one `by` before it stood, with all of its slots."""
        return [entry if entry == EMPTY else (entry + by) % self.case.num_experts for entry in self.case.row]

    def _made_of_rows(self, rows: list[list[int]]) -> Any:
        return self._made_of(Placement(rows, self.case.num_experts, self.case.topology))

    def _with_more(self, row: list[int], more: list[int]) -> Placement:
        """A placement of more slots: a row and what the last rank holds beyond it, all ranks being active."""
        slots = [end - begin for begin, end in pairwise(self.case.placement().offsets)]
        topology = replace(self.case.topology, slots_per_rank=[*slots[:-1], slots[-1] + len(more)], active=None)
        return Placement([[*row, *more]], self.case.num_experts, topology)

    @property
    def _two_layers(self) -> Placement:
        """The case's layer, and a second in which every expert stands where the one before it stands."""
        return Placement([self.case.row, self._renamed(1)], self.case.num_experts, self.case.topology)

    @property
    def _others(self) -> list[Placement]:
        """Other placements of two layers: one larger, with more replicas; and two of as many slots.

        Of those one has no second replicas and other nodes, and one the slots of the ranks in reverse.
        """
        rows, experts = self._two_layers.table, self.case.num_experts
        everyone = replace(self.case.topology, active=None)
        slots = [end - begin for begin, end in pairwise(self.case.placement().offsets)]
        single = [[EMPTY if entry in row[:slot] else entry for slot, entry in enumerate(row)] for row in rows]
        nodes = self.num_ranks if everyone.num_nodes == 1 else 1
        more = [0, 0] if experts else [EMPTY, EMPTY]
        larger = replace(everyone, slots_per_rank=[*slots[:-1], slots[-1] + len(more)])
        return [
            Placement([[*row, *more] for row in reversed(rows)], experts, larger),
            Placement(single, experts, replace(everyone, num_nodes=nodes)),
            Placement(rows[::-1], experts, replace(everyone, slots_per_rank=slots[::-1])),
        ]

    @property
    def _some_ranks(self) -> list[int]:
        """The first rank, one in the middle and the last."""
        return sorted({0, self.num_ranks // 2, self.num_ranks - 1})

    def updates_like_made(self) -> bool:
        """Whether tables that held another placement route like those made for this one, with as much room.

        Where there is more room, from the larger placement and to it and back.
        """
        own, (larger, *others) = self._two_layers, self._others
        has_room = self.model.offers("RoutingTables(max_slots)")
        ways = [(other, own) for other in others] + ([(larger, own), (own, larger, own)] if has_room else [])
        return all(self._is_updated(way, rank) for way in ways for rank in self._some_ranks) and all(
            self._is_updated_for_sender(other, own, rank) for other in others for rank in self._some_ranks
        )

    def _weights_of(self, placement: Placement) -> dict[str, Any]:
        """Weights for two layers: those of the case where they fit, and even ones."""
        if self.case.weights is None:
            return {}
        weights = np.ones((2, placement.num_slots))
        if placement.table[0] == self.case.row:
            weights[0] = self.case.weights
        return {"weights": weights}

    def _is_updated(self, way: tuple[Placement, ...], rank: int) -> bool:
        """Whether tables that are taken from one placement to the next are at each of them as if made for it."""
        room = {"max_slots": max(one.num_slots for one in way)}
        if len({one.num_slots for one in way}) == 1:
            room = {}
        made = [self._made_of(one) for one in way]
        tables = self.names.RoutingTables(made[0], rank=rank, **self._weights_of(way[0]), **room)
        for placement, one in zip(way[1:], made[1:], strict=True):
            self.route(tables)
            tables.update(one, **self._weights_of(placement))
            anew = self.names.RoutingTables(one, rank=rank, **self._weights_of(placement), **room)
            if not self._are_alike(tables, anew):
                return False
        return True

    def _are_alike(self, left: Any, right: Any) -> bool:
        """Whether tables of two layers route both alike."""
        return all(
            self.is_same(self.route(left, FIELDS, layer=layer), self.route(right, FIELDS, layer=layer))
            for layer in (0, 1)
        )

    def _is_updated_for_sender(self, other: Placement, own: Placement, sender: int) -> bool:
        if self.is_weighted or not self.model.offers("RoutingTables.for_sender"):
            return True
        made, placement = self.names.RoutingTables.for_sender, self._made_of(own)
        tables = made(self._made_of(other), sender)
        self.route(tables)
        tables.update(placement)
        return self._are_alike(tables, made(placement, sender))

    @property
    def _own_weights(self) -> dict[str, Any]:
        """The weights of the case."""
        return {} if self.case.weights is None else self._weights

    def room_changes_nothing(self) -> bool:
        """Whether tables with room for more slots route alike, and count nothing in the slots beyond."""
        roomy = self.route(self.tables(rank=0, max_slots=self.num_slots + MORE_ROOM), FIELDS)
        counts, begins = (as_array(field(roomy, name)) for name in ("slot_counts", "slot_offsets"))
        total = self.histogram.array.sum()
        same = (
            np.array_equal(counts, np.pad(self.count.array, (0, MORE_ROOM)))
            and np.array_equal(begins, np.pad(self.slot_begin.array, (0, MORE_ROOM), constant_values=total))
            and len(counts) == self.num_slots + MORE_ROOM
        )
        others = [name for name in FIELDS if name not in ("slot_counts", "slot_offsets")]
        return same and all(
            np.array_equal(as_array(field(roomy, name)), as_array(field(self.answer, name))) for name in others
        )

    def routes_partitions(self) -> bool:
        """Whether a partition of the experts over the ranks, of each strategy, is routed as a placement."""
        experts, ranks, options = self.case.num_experts, self.num_ranks, self.case.options()
        for strategy in STRATEGIES:
            stated = reference.RoutingTables(Partition(experts, ranks, strategy), rank=0)
            tables = self.names.RoutingTables(self.names.Partition(experts, ranks, strategy), rank=0)
            names = ("slots", "local_slots")
            expected = reference.route(self.case.batch(), stated, want=names, **options)
            routed = self.route(tables, names)
            if not all(np.array_equal(as_array(field(routed, name)), getattr(expected, name)) for name in names):
                return False
        return True

    @cached_property
    def near(self) -> Lookup:
        """The slot of a token's id where a rank sends."""
        return Lookup(np.stack([self._sent_by(rank) for rank in range(self.num_ranks)]), 3)

    def _sent_by(self, rank: int) -> Any:
        tables = self.names.RoutingTables.for_sender(self.made, rank)
        return as_array(field(self.route(tables), "slots"))

    def tells_senders_everything(self) -> bool:
        """Whether all that can be asked for where some ranks send follows from the slots."""
        for rank in self._some_ranks:
            routed = self.route(self.names.RoutingTables.for_sender(self.made, rank), FIELDS)
            slots = self._sent_by(rank)
            tables = reference.RoutingTables.for_sender(self.case.placement(), rank)
            stated = reference.following(slots.flatten().tolist(), tables, slots.shape, set(FIELDS))
            for name, (numbers, shape) in stated.items():
                if not np.array_equal(as_array(field(routed, name)), np.array(numbers, dtype=np.int32).reshape(shape)):
                    return False
        return True

    @cached_property
    def stated_near_slot(self) -> Lookup:
        """The slot that the rule names where a rank sends."""
        return Lookup(np.stack([self.stated_near(rank) for rank in range(self.num_ranks)]), 3)

    def distance(self, rank: Any, slot: Any) -> Any:
        """How far a slot is from a rank: 0 on it, 1 on its node, 2 elsewhere; -1 for no slot."""
        return self._distances(rank, np.where(np.asarray(slot) < 0, self.num_slots, slot))

    @cached_property
    def _distances(self) -> Lookup:
        placement, rows = self.case.placement(), []
        for rank in range(self.num_ranks):
            tables = reference.RoutingTables.for_sender(placement, rank)
            rows.append([*(tables.distance(slot) for slot in range(self.num_slots)), -1])
        return Lookup(rows, 2)

    def least_distance(self, rank: Any, expert: Any) -> Any:
        """How far the nearest replica of an expert is from a rank."""
        return self._least_distances(rank, expert)

    @cached_property
    def _least_distances(self) -> Lookup:
        rows = [
            [
                min(self._distances(rank, slot) for slot, entry in enumerate(self.case.row) if entry == expert)
                for expert in range(self.case.num_experts)
            ]
            for rank in range(self.num_ranks)
        ]
        return Lookup(rows, 2)

    def replicas_used(self, expert: Any) -> Any:
        """By how much the uses of an expert's replicas differ in the batch."""
        return Lookup([self._spread(one) for one in range(self.case.num_experts)], 1)(expert)

    def _spread(self, expert: int) -> int:
        uses = [int(self.histogram(slot)) for slot, entry in enumerate(self.case.row) if entry == expert]
        return max(uses) - min(uses)

    def is_spread(self, expert: Any) -> Any:
        """Whether an expert's replicas serve their parts of many tokens, which are every other one."""
        return self._is_spread(expert)

    @cached_property
    def _is_spread(self) -> Lookup:
        tables, stated = self.tables(), []
        for expert in range(self.case.num_experts):
            slots = [slot for slot, entry in enumerate(self.case.row) if entry == expert]
            if len(slots) == 1:
                stated.append(True)
                continue
            ids = np.full((2 * MANY, 1), UNROUTED)
            ids[::2] = expert
            routed = as_array(field(self.route(tables, ids=ids, valid_tokens=None), "slots")).flatten()
            parts = [1.0 if self.case.weights is None else self.case.weights[slot] for slot in slots]
            total = sum(parts)
            stated.append(
                all(is_about((routed == slot).sum(), part / total) for slot, part in zip(slots, parts, strict=True))
            )
        return Lookup(np.array(stated, dtype=bool), 1)

    # The best weights.

    @cached_property
    def best(self) -> Any:
        """The implementation's weights, [P]."""
        return as_array(self.made.replica_weights(np.array([self.case.load], dtype=np.float64)))[0]

    def part(self, slot: Any) -> Any:
        """The part of its expert's load that a slot is to serve."""
        return Lookup(self.best, 1)(slot)

    def parts_of(self, expert: Any) -> Any:
        """The sum of the parts of an expert's slots."""
        row = np.array(self.case.row)
        return Lookup([float(self.best[row == one].sum()) for one in range(self.case.num_experts)], 1)(expert)

    def is_fastest(self) -> bool:
        """Whether the busiest rank is done as early as can be with the implementation's weights."""
        return self._is_fastest(self.case.row, self.case.load or [], self.best)

    def _is_fastest(self, row: list[int], load: list[float], parts: Any) -> bool:
        """Whether the busiest rank is done as early as can be with these parts: when the slowest set of ranks is.

        Of few ranks all sets are looked at. Of more of them it is those to which can be moved what the busiest ranks
        serve, or what is served there, and so on.
        """
        topology, offsets = self.case.topology, self.case.placement().offsets
        served = [0.0 if entry == EMPTY else load[entry] * part for entry, part in zip(row, parts, strict=True)]
        times = [sum(served[offsets[r] : offsets[r + 1]]) / topology.speed(r) for r in range(self.num_ranks)]
        if self.num_ranks <= FEW_RANKS:
            return bool(at_most(max(times), least_largest_time(row, load, offsets, topology)))
        hosts = hosts_of(row, self.case.num_experts, offsets)
        seen: set[int] = set()
        reached = {rank for rank, time in enumerate(times) if time == max(times)}
        while reached - seen:
            rank = min(reached - seen)
            seen.add(rank)
            for slot in range(offsets[rank], offsets[rank + 1]):
                # What rounding leaves is no part.
                if row[slot] != EMPTY and served[slot] > max(times) * topology.speed(rank) * NEGLIGIBLE:
                    reached |= hosts[row[slot]]
        return bool(at_most(max(times), time_of_set(reached, hosts, load, topology)))

    @cached_property
    def is_even(self) -> Lookup:
        """Whether a slot has the part of the first of its expert's on its rank, and without load that of every one."""
        offsets, row, load = self.case.placement().offsets, self.case.row, self.case.load or []
        even = []
        for rank in range(self.num_ranks):
            held = row[offsets[rank] : offsets[rank + 1]]
            for slot, entry in enumerate(held, offsets[rank]):
                stated = self.best[offsets[rank] + held.index(entry)]
                if entry != EMPTY and load[entry] == 0:
                    stated = 1 / row.count(entry)
                even.append(entry == EMPTY or bool(close(self.best[slot], stated)))
        return Lookup(np.array(even, dtype=bool), 1)

    def follows_loads(self) -> bool:
        """Whether each layer has best parts for its own loads, added up over the windows, whatever was asked before."""
        load = np.array(self.case.load, dtype=np.float64)
        first, second = (np.array([np.roll(load, by) + one + by for by in range(NUM_LAYERS)]) for one in (0.0, 2.0))
        rows = [self._renamed(by) for by in range(NUM_LAYERS)]
        together = self._made_of_rows(rows)
        for windows in (np.array([first, second]), second, np.array([first, second])):
            given = windows.copy()
            parts = as_array(together.replica_weights(given))
            loads = windows.sum(axis=0) if windows.ndim == 3 else windows
            if not np.array_equal(given, windows) or not all(map(self._is_fastest, rows, loads.tolist(), parts)):
                return False
        return True

    # What is refused.

    def refuses_wrong_requests(self) -> bool:
        """Whether numbers out of range, unknown fields, loads of another length and the like are errors."""
        tables, tokens, load = self.tables(), len(self.case.ids), np.zeros(self.num_slots, dtype=np.int64)
        wrong: list[tuple[type[Exception], partial[Any]]] = [
            (IndexError, partial(self._route_layer, tables, 1)),
            (IndexError, partial(self._route_layer, tables, -1)),
            (ValueError, partial(self.route, tables, valid_tokens=tokens + 1)),
            (ValueError, partial(self.route, tables, valid_tokens=-1)),
            (ValueError, partial(self.route, tables, token_offset=-1)),
            (ValueError, partial(self.route, tables, seed=2**63)),
            (ValueError, partial(self.route, tables, ("slots", "slot"))),
            (ValueError, partial(self.route, tables, ("local_slots",))),
            (ValueError, partial(self.route, tables, load=np.zeros(self.num_slots + 1, dtype=np.int64))),
            (ValueError, partial(self.route, tables, valid_tokens=-1, load=load)),
            (ValueError, partial(self.route, tables, ("slots", "slot"), load=load)),
            (IndexError, partial(self.tables, rank=self.num_ranks)),
            (IndexError, partial(self.tables, rank=-1)),
        ]
        if self.is_weighted:
            wrong.append((ValueError, partial(self.route, tables, exact=True)))
        if self.num_slots and self.model.offers("RoutingTables(max_slots)"):
            wrong.append((ValueError, partial(self.tables, max_slots=self.num_slots - 1)))
        if self.num_slots:
            wrong.append((ValueError, partial(self.route, tables, load=load[1:])))
        return all(all_refused(error, [call]) for error, call in wrong) and not load.any()

    def _route_layer(self, tables: Any, layer: int) -> Any:
        return self.names.route(self.case.batch(), tables, layer=layer)

    def refuses_wrong_updates(self) -> bool:
        """Whether placements that do not fit are errors that leave the tables, and one too large names its size."""
        tables = self.tables(rank=0)
        topology = self.case.topology
        slots = [end - begin for begin, end in pairwise(self.case.placement().offsets)]
        more = self._with_more(self.case.row, [EMPTY])
        two_layers = Placement([self.case.row, self.case.row], self.case.num_experts, topology)
        room = self.num_slots + 1
        one_more = replace(topology, num_ranks=self.num_ranks + 1, slots_per_rank=[*slots, 0], speeds=None, active=None)
        other_ranks = Placement([self.case.row], self.case.num_experts, replace(one_more, num_nodes=1))
        weights = {} if self.case.weights is None else {"weights": np.ones((1, room))}
        own = {} if self.case.weights is None else {"weights": np.ones((1, self.num_slots))}
        both = {} if self.case.weights is None else {"weights": np.ones((2, self.num_slots))}
        of_two = self.names.RoutingTables(self._made_of(two_layers), **both)
        calls = [
            partial(tables.update, self._made_of(more), **weights),
            partial(tables.update, self._made_of(other_ranks), **own),
            partial(tables.update, self._made_of(two_layers), **both),
            partial(of_two.update, self.made, **own),
            partial(tables.update, self.made, **({"weights": np.ones((1, self.num_slots))} if not own else {})),
        ]
        if self.case.num_experts > 1:
            fewer = [0 if entry == self.case.num_experts - 1 else entry for entry in self.case.row]
            calls.append(partial(tables.update, self._made_of(Placement([fewer], max(fewer) + 1, topology)), **own))
        if not all_refused(ValueError, calls) or not self.is_same(self.route(tables, FIELDS), self.answer):
            return False
        try:
            calls[0]()
        except ValueError as error:
            return f"max_slots={room}" in str(error)
        return False

    def _made_of(self, placement: Placement) -> Any:
        make = self.names.Placement.from_physical_to_logical
        topology = made_topology(self.names, placement.topology)
        return make(placement.table, num_experts=placement.num_experts, topology=topology)

    def refuses_wrong_weights(self) -> bool:
        """Whether weights that are none, those that are all 0 for an expert, and another number of them are errors.

        Also where a second layer has them, and in an update, which leaves the tables.
        """
        ones = np.ones((1, self.num_slots))
        wrong = [np.ones((1, self.num_slots + 1)), np.ones((2, self.num_slots))]
        values = []
        for bad in (-1.0, np.inf, np.nan):
            if self.num_slots:
                values.append(np.where(np.arange(self.num_slots) == self.num_slots - 1, bad, ones))
        if self.case.num_experts:
            values.append(np.where(np.array(self.case.row) == 0, 0.0, ones))
        if len(set(self.case.row) - {EMPTY}) < sum(entry != EMPTY for entry in self.case.row):
            # Two of them add up to no finite number.
            values.append(1.7e308 * ones)
        make, two = self.names.RoutingTables, self._made_of_rows([self.case.row] * 2)
        calls = [partial(make, self.made, weights=one) for one in wrong + values]
        calls += [partial(make, two, weights=np.concatenate([ones, one])) for one in values]
        if not self.model.offers("RoutingTables.update"):
            return all_refused(ValueError, calls)
        tables = make(self.made, weights=ones.copy())
        before = self.route(tables, OF_EVERY_RANK, exact=False)
        calls += [partial(tables.update, self.made, weights=one) for one in wrong + values]
        refused = all_refused(ValueError, calls)
        return refused and self.is_same(self.route(tables, OF_EVERY_RANK, exact=False), before, OF_EVERY_RANK)


def is_about(count: int, part: float) -> bool:
    """Whether a count of `MANY` fair choices is near what it should be."""
    deviation = (MANY * part * (1 - part)) ** 0.5
    return bool(abs(count - MANY * part) <= DEVIATIONS * deviation + 1)
