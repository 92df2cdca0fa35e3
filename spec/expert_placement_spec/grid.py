"""Invariants evaluated on whole grids: each element of an array is a point with a partition of its own.

A block holds the tables of some partitions of one strategy, one after the other in flat arrays. Points are a choice of
partition and of values for the quantifiers; they are the view that predicates see.
"""

from __future__ import annotations

import sys
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.arrays import integers
from expert_placement_spec.implementation import MAP_METHODS, SCALARS, TABLES, Implementation
from expert_placement_spec.logic import choose
from expert_placement_spec.reference import CONTIGUOUS, MAX, map_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from expert_placement_spec.invariants import Invariant

POISON = -(2**40)
"""What a table holds where it is asked beyond its end, as by a wrong owner: no law holds of it."""


def shared_experts(num_experts: int, num_ranks: int) -> int:
    """How many shared experts a partition is checked with: 0, 1 and 2 in turn over the domain."""
    return (num_experts + num_ranks) % 3


class Block:
    """The answers of one implementation for some partitions of one strategy.

    Args:
        implementation: what is asked.
        strategy: the strategy of all partitions.
        shapes: (E, R) of each partition.
        subjects: which subjects of invariants the answers are for.
    """

    def __init__(
        self, implementation: Implementation, strategy: str, shapes: list[tuple[int, int]], subjects: Iterable[str]
    ) -> None:
        self.implementation = implementation
        self.arrays = implementation.arrays
        self.strategy = strategy
        self.subjects = set(subjects)
        self.shapes = shapes
        self.experts = self.arrays.array([num_experts for num_experts, _ in shapes])
        self.ranks = self.arrays.array([num_ranks for _, num_ranks in shapes])
        self.shared = self.arrays.array([shared_experts(*shape) for shape in shapes])
        self.rank_base = self.arrays.before(self.ranks)
        self.expert_base = self.arrays.before(self.experts)

    @cached_property
    def partitions(self) -> list[Any]:
        """The implementation's partitions, one for each shape."""
        make = self.implementation.make
        return [make(num_experts, num_ranks, self.strategy) for num_experts, num_ranks in self.shapes]

    def grown(self) -> Block:
        """The block of the same partitions with one expert more."""
        return self._grown

    @cached_property
    def _grown(self) -> Block:
        larger = [(num_experts + 1, num_ranks) for num_experts, num_ranks in self.shapes]
        return Block(self.implementation, self.strategy, larger, {"rule"})

    def build(self) -> None:
        """Asks for everything that the subjects need; whatever the implementation raises is raised here."""
        _ = self.table("count"), self.table("start"), self.table("owner"), self.table("local_index")
        if "rule" in self.subjects:
            _ = self._grown.table("count"), self._grown.table("start")
        if "tables" in self.subjects:
            _ = self.well_formed
        if "elementwise" in self.subjects:
            _ = self.tables_match
        if "scalars" in self.subjects:
            _ = [self.scalars(name) for name in SCALARS], self.ranges_agree
        if "offsets" in self.subjects:
            _ = self.offsets
        if "lists" in self.subjects:
            _ = self.lists
        if "maps" in self.subjects:
            _ = [self.map(representation) for representation in MAP_METHODS]
        if "stacked" in self.subjects:
            _ = self.rows_match
        if "errors" in self.subjects:
            _ = self.refusals, self.uniform

    def extents(self, name: str) -> Any:
        """How many values a quantifier or a query's id takes in each partition."""
        return self.ranks if name in ("r", "s", "count", "start") else self.experts

    def base(self, name: str) -> Any:
        """Where each partition's part of a table begins."""
        return self.rank_base if name in ("r", "s", "count", "start") else self.expert_base

    def table(self, name: str) -> Any:
        """The flat table of a query over all its ids, of all partitions."""
        if name not in self._tables:
            self._tables[name] = self._ask(name)
        return self._tables[name]

    @cached_property
    def _tables(self) -> dict[str, Any]:
        return {}

    def _ask(self, name: str) -> Any:
        elementwise = self.implementation.elementwise
        if elementwise is not None:
            extents = self.extents(name)
            index = self.arrays.repeat(self.arrays.arange(len(self.shapes)), extents)
            ids = self.arrays.arange(len(index)) - self.base(name)[index]
            answers = getattr(elementwise, name)(self.experts[index], self.ranks[index], ids, self.strategy)
            if not is_integral(answers):
                raise TypeError(f"{name} answers with dtype {answers.dtype}, expected an integer")
            # An answer may leave out operands that do not matter to it, and then is of a smaller shape.
            return answers + 0 * ids
        method = dict(zip(SCALARS, TABLES, strict=True))[name]
        if self.implementation.offers(method):
            place = 1 if name in ("count", "start") else 0
            return self._flat(method, [shape[place] for shape in self.shapes])[0]
        return self.scalars(name)

    def _flags(self, values: list[bool]) -> Any:
        """Truth values of the partitions."""
        return self.arrays.array([int(value) for value in values]) == 1

    def _flat(self, method: str, lengths: list[int]) -> tuple[Any, bool]:
        """The tables of one method, of these lengths, one after the other, and whether all are int32."""
        flat, actual, is_int32 = joined([getattr(partition, method)() for partition in self.partitions])
        if actual != lengths:
            wrong = next(place for place, pair in enumerate(zip(actual, lengths, strict=True)) if pair[0] != pair[1])
            raise TypeError(f"{method} has length {actual[wrong]}, expected {lengths[wrong]}")
        return self.arrays.array(flat), is_int32

    def scalars(self, name: str) -> Any:
        """As `table`, with every id asked by itself."""
        if name not in self._scalars:
            values: list[int] = []
            ids = [num_ranks if name in ("count", "start") else num_experts for num_experts, num_ranks in self.shapes]
            for partition, end in zip(self.partitions, ids, strict=True):
                values.extend(map(getattr(partition, name), range(end)))
            self._scalars[name] = self.arrays.array(values)
        return self._scalars[name]

    @cached_property
    def _scalars(self) -> dict[str, Any]:
        return {}

    @cached_property
    def ranges_agree(self) -> Any:
        """For each rank: whether its range is the one that start, stride and count describe."""
        ranges = [
            partition.experts(rank)
            for partition, (_, num_ranks) in zip(self.partitions, self.shapes, strict=True)
            for rank in range(num_ranks)
        ]
        if not all(isinstance(one, range) for one in ranges):
            return self.ranks[self.points(("r",)).partition] < 0
        points = self.points(("r",))
        step = points.num_ranks if self.strategy == "round_robin" else 1
        counts = self.arrays.array([len(one) for one in ranges])
        starts = self.arrays.array([one.start for one in ranges])
        steps = self.arrays.array([one.step for one in ranges])
        return (counts == self.scalars("count")) & (starts == self.scalars("start")) & (steps == step)

    @cached_property
    def own_tables(self) -> list[list[Any]]:
        """For each partition: its four tables, as its methods give them."""
        return [[getattr(partition, name)() for name in TABLES] for partition in self.partitions]

    @cached_property
    def well_formed(self) -> Any:
        """For each partition: whether its tables are int32 and of their stated lengths."""
        fine = []
        for tables, (num_experts, num_ranks) in zip(self.own_tables, self.shapes, strict=True):
            _, lengths, is_int32 = joined(tables)
            fine.append(is_int32 and lengths == [num_ranks, num_ranks, num_experts, num_experts])
        return self._flags(fine)

    @cached_property
    def tables_match(self) -> Any:
        """For each partition: whether its own tables hold what its elementwise functions say."""
        expected = [self.arrays.numpy(self.table(name)) for name in SCALARS]
        fine = []
        rank, expert = 0, 0
        for tables, (num_experts, num_ranks) in zip(self.own_tables, self.shapes, strict=True):
            places = (slice(rank, rank + num_ranks), slice(expert, expert + num_experts))
            parts = [
                values[places[name in ("owner", "local_index")]] for name, values in zip(SCALARS, expected, strict=True)
            ]
            fine.append(np.array_equal(joined(tables)[0], np.concatenate(parts)))
            rank, expert = rank + num_ranks, expert + num_experts
        return self._flags(fine)

    @cached_property
    def offsets(self) -> tuple[Any, bool]:
        """The offsets of all partitions, R + 1 each, and whether all are int32."""
        return self._flat("offsets", [num_ranks + 1 for _, num_ranks in self.shapes])

    @cached_property
    def offset_base(self) -> Any:
        """Where each partition's offsets begin."""
        return self.arrays.before(self.ranks + 1)

    @cached_property
    def lists(self) -> tuple[Any, Any, bool]:
        """All lists of local experts one after the other, their lengths, and whether all are int32."""
        return self._joined(
            partition.local_experts(rank)
            for partition, (_, num_ranks) in zip(self.partitions, self.shapes, strict=True)
            for rank in range(num_ranks)
        )

    def _joined(self, parts: Iterable[Any]) -> tuple[Any, Any, bool]:
        """All parts one after the other, their lengths, and whether all are int32."""
        flat, lengths, is_int32 = joined(list(parts))
        return self.arrays.array(flat), self.arrays.array(lengths), is_int32

    @cached_property
    def list_base(self) -> Any:
        """Where each rank's list begins."""
        return self.arrays.before(self.lists[1])

    def map(self, representation: str) -> tuple[Any, Any, bool]:
        """All maps of one representation one after the other, their lengths, and whether all are int32."""
        if representation not in self._maps:
            self._maps[representation] = self._closed_form(representation) or self._listed(representation)
        return self._maps[representation]

    def _closed_form(self, representation: str) -> tuple[Any, Any, bool] | None:
        """All maps by an elementwise formula, where there is one."""
        entry = getattr(self.implementation.elementwise, "map_entry", None)
        if entry is None:
            return None
        ranks = self.points(("r",))
        lengths = map_length(representation, ranks.num_experts, ranks.num_shared_experts)
        index = self.arrays.repeat(self.arrays.arange(len(ranks)), lengths)
        position = self.arrays.arange(len(index)) - self.arrays.before(lengths)[index]
        shape = (ranks.num_experts[index], ranks.num_ranks[index], ranks.num_shared_experts[index])
        return entry(representation, *shape, ranks.values["r"][index], position, self.strategy), lengths, True

    def _listed(self, representation: str) -> tuple[Any, Any, bool]:
        """All maps, asked rank by rank, or partition by partition where the implementation gives all ranks at once."""
        method = MAP_METHODS[representation]
        maps: list[Any] = []
        for partition, shape in zip(self.partitions, self.shapes, strict=True):
            extra = (shared_experts(*shape),) if representation in ("index_map_with_shared", "mask") else ()
            stacked = getattr(partition, f"{method}s", None)
            if stacked is not None:
                maps.extend(stacked(*extra))
            else:
                one = getattr(partition, method)
                maps.extend(one(rank, *extra) for rank in range(shape[1]))
        return self._joined(maps)

    @cached_property
    def rows_match(self) -> Any:
        """For each partition: whether the map of one rank, asked by itself, is its row among those of all ranks."""
        fine = [True] * len(self.shapes)
        for representation, method in MAP_METHODS.items():
            maps, lengths, _ = self.map(representation)
            flat, bases = self.arrays.numpy(maps), self.arrays.numpy(self.map_base(representation))
            first = 0
            for place, (partition, shape) in enumerate(zip(self.partitions, self.shapes, strict=True)):
                extra = (shared_experts(*shape),) if representation in ("index_map_with_shared", "mask") else ()
                rank = shape[0] % shape[1]
                row, base = first + rank, int(bases[first + rank])
                alone, _, is_int32 = joined([getattr(partition, method)(rank, *extra)])
                fine[place] &= is_int32 and np.array_equal(alone, flat[base : base + int(lengths[row])])
                first += shape[1]
        return self._flags(fine)

    @cached_property
    def _maps(self) -> dict[str, tuple[Any, Any, bool]]:
        return {}

    def map_base(self, representation: str) -> Any:
        """Where each rank's map begins."""
        if representation not in self._map_bases:
            self._map_bases[representation] = self.arrays.before(self.map(representation)[1])
        return self._map_bases[representation]

    @cached_property
    def _map_bases(self) -> dict[str, Any]:
        return {}

    @cached_property
    def refusals(self) -> Any:
        """For each partition: whether every query refuses the ids next to its range."""
        fine = []
        for partition, (num_experts, num_ranks) in zip(self.partitions, self.shapes, strict=True):
            ranks = [
                (getattr(partition, name), bad)
                for name in ("count", "start", "experts", "local_experts", "expert_map", "expert_map_with_sentinel")
                for bad in (-1, num_ranks)
            ]
            with_shared = [partition.expert_map_with_shared, partition.expert_mask]
            ranks += [(partial(ask_with_shared, query), bad) for query in with_shared for bad in (-1, num_ranks)]
            experts = [
                (getattr(partition, name), bad) for name in ("owner", "local_index") for bad in (-1, num_experts)
            ]
            if self.strategy not in CONTIGUOUS:
                ranks.append((lambda _, partition=partition: partition.offsets(), 0))
            fine.append(all(refuses(query, bad) for query, bad in ranks + experts))
        return self._flags(fine)

    @cached_property
    def uniform(self) -> Any:
        """For each partition: what it says of being uniform."""
        return self._flags([bool(partition.is_uniform) for partition in self.partitions])

    def points(self, quantifiers: tuple[str, ...]) -> Points:
        """Every point of every partition for these quantifiers, in order; the same object each time."""
        if quantifiers not in self._points:
            self._points[quantifiers] = self._all_points(quantifiers)
        return self._points[quantifiers]

    @cached_property
    def _points(self) -> dict[tuple[str, ...], Points]:
        return {}

    def _all_points(self, quantifiers: tuple[str, ...]) -> Points:
        partition = self.arrays.arange(len(self.shapes))
        values: dict[str, Any] = {}
        for name in quantifiers:
            if name == "i":
                extent = Points(self, partition, values).count(values["r"])
                # However wrong a count may be, its points stay few.
                extent = choose(extent < 0, 0 * extent, extent)
                extent = choose(extent > self.experts[partition], self.experts[partition], extent)
            elif name == "h":
                extent = self.shared[partition]
            else:
                extent = self.extents(name)[partition]
            index = self.arrays.repeat(self.arrays.arange(len(partition)), extent)
            values = {known: value[index] for known, value in values.items()}
            values[name] = self.arrays.arange(len(index)) - self.arrays.before(extent)[index]
            partition = partition[index]
        return Points(self, partition, values)


class Points:
    """The view of a block at some points."""

    def __init__(self, block: Block, partition: Any, values: dict[str, Any]) -> None:
        self.block = block
        self.partition = partition
        self.values = values
        self.strategy = block.strategy
        # Answers for the quantifiers themselves, which one law after the other asks for.
        self._known: dict[tuple[str, str], Any] = {}

    def __len__(self) -> int:
        return len(self.partition)

    def where(self, mask: Any) -> Points:
        """The points at which the mask is true."""
        return Points(self.block, self.partition[mask], {name: value[mask] for name, value in self.values.items()})

    @cached_property
    def num_experts(self) -> Any:
        """E at each point."""
        return self.block.experts[self.partition]

    @cached_property
    def num_ranks(self) -> Any:
        """R at each point."""
        return self.block.ranks[self.partition]

    @cached_property
    def num_shared_experts(self) -> Any:
        """S at each point."""
        return self.block.shared[self.partition]

    @cached_property
    def stride(self) -> Any:
        """R for round robin, 1 otherwise."""
        return self.num_ranks if self.strategy == "round_robin" else 1

    def count(self, rank: Any) -> Any:
        """The count of each rank, from the table."""
        return self._look_up("count", self.block.table, "r", rank)

    def start(self, rank: Any) -> Any:
        """The start of each rank, from the table."""
        return self._look_up("start", self.block.table, "r", rank)

    def owner(self, expert: Any) -> Any:
        """The owner of each expert, from the table."""
        return self._look_up("owner", self.block.table, "e", expert)

    def local_index(self, expert: Any) -> Any:
        """The local index of each expert, from the table."""
        return self._look_up("local_index", self.block.table, "e", expert)

    def scalar_count(self, rank: Any) -> Any:
        """The count of each rank, asked one by one."""
        return self._look_up("count", self.block.scalars, "r", rank)

    def scalar_start(self, rank: Any) -> Any:
        """The start of each rank, asked one by one."""
        return self._look_up("start", self.block.scalars, "r", rank)

    def scalar_owner(self, expert: Any) -> Any:
        """The owner of each expert, asked one by one."""
        return self._look_up("owner", self.block.scalars, "e", expert)

    def scalar_local_index(self, expert: Any) -> Any:
        """The local index of each expert, asked one by one."""
        return self._look_up("local_index", self.block.scalars, "e", expert)

    def scalar_range_agrees(self, rank: Any) -> Any:
        """Whether the range of a rank's experts has its start, stride and count."""
        return self.block.ranges_agree[self._position("r", rank)]

    def sum_of_counts(self) -> Any:
        """The sum of the counts of all ranks."""
        block = self.block
        owner = block.arrays.repeat(block.arrays.arange(len(block.shapes)), block.ranks)
        return block.arrays.sum_segments(block.table("count"), owner, len(block.shapes))[self.partition]

    def grown(self) -> Points:
        """The same points in the partitions of E + 1 experts."""
        return Points(self.block.grown(), self.partition, self.values)

    def offset(self, rank: Any) -> Any:
        """The offset of each rank in 0..=R."""
        return guarded(self.block.offsets[0], self.block.offset_base[self.partition], rank, self.num_ranks + 1)

    @property
    def offsets_are_int32(self) -> Any:
        """Whether the offsets are int32 arrays."""
        return self.partition >= (0 if self.block.offsets[1] else MAX)

    def rows_match(self) -> Any:
        """Whether the map of one rank, asked by itself, is its row among those of all ranks."""
        return self.block.rows_match[self.partition]

    def listed(self, rank: Any, position: Any) -> Any:
        """The list of a rank's experts at a position."""
        lists, lengths, _ = self.block.lists
        flat_rank = self._position("r", rank)
        return guarded(lists, self.block.list_base[flat_rank], position, lengths[flat_rank])

    def list_length(self, rank: Any) -> Any:
        """The length of the list of a rank's experts."""
        return self.block.lists[1][self._position("r", rank)]

    @property
    def lists_are_int32(self) -> Any:
        """Whether the lists are int32 arrays."""
        return self.partition >= (0 if self.block.lists[2] else MAX)

    def index_map(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map."""
        return self._map_entry("index_map", rank, position)

    def index_map_with_shared(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with shared experts."""
        return self._map_entry("index_map_with_shared", rank, position)

    def index_map_with_sentinel(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with a sentinel."""
        return self._map_entry("index_map_with_sentinel", rank, position)

    def mask(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's mask."""
        return self._map_entry("mask", rank, position)

    def map_length(self, representation: str, rank: Any) -> Any:
        """The length of the rank's map in a representation."""
        return self.block.map(representation)[1][self._position("r", rank)]

    @property
    def maps_are_int32(self) -> Any:
        """Whether all maps are int32 arrays."""
        return self.partition >= (0 if all(self.block.map(name)[2] for name in MAP_METHODS) else MAX)

    def tables_are_well_formed(self) -> Any:
        """Whether the tables are int32 arrays of the stated lengths."""
        return self.block.well_formed[self.partition]

    def tables_match_rule(self) -> Any:
        """Whether the tables hold what the elementwise functions say."""
        return self.block.tables_match[self.partition]

    def is_answered(self) -> Any:
        """Whether every query was answered: a block is looked at only once it is built."""
        return self.partition >= 0

    def refuses_wrong_ids(self) -> Any:
        """Whether every query refuses the ids next to its range."""
        return self.block.refusals[self.partition]

    def says_uniform(self) -> Any:
        """What the partition says of being uniform."""
        return self.block.uniform[self.partition]

    def _map_entry(self, representation: str, rank: Any, position: Any) -> Any:
        key = (representation, f"{self._name(rank)} {self._name(position)}")
        if key in self._known:
            return self._known[key]
        maps, lengths, _ = self.block.map(representation)
        flat_rank = self._position("r", rank)
        entries = guarded(maps, self.block.map_base(representation)[flat_rank], position, lengths[flat_rank])
        if self._name(rank) and self._name(position):
            self._known[key] = entries
        return entries

    def _name(self, ids: Any) -> str:
        """The quantifier whose values these are, or nothing where they are computed."""
        return next((name for name, value in self.values.items() if value is ids), "")

    def _position(self, kind: str, ids: Any) -> Any:
        """The place of ids that are in range in a flat table."""
        name = self._name(ids)
        if not self._is_quantified(kind, name):
            return self.block.base(kind)[self.partition] + ids
        if ("position", name) not in self._known:
            self._known["position", name] = self.block.base(kind)[self.partition] + ids
        return self._known["position", name]

    def _is_quantified(self, kind: str, name: str) -> bool:
        """Whether these are all values of a quantifier over ranks, or over experts, and so in range."""
        return name in ("r", "s") if kind == "r" else name == "e"

    def _look_up(self, query: str, source: Callable[[str], Any], kind: str, ids: Any) -> Any:
        table, name = source(query), self._name(ids)
        if not self._is_quantified(kind, name):
            return guarded(table, self.block.base(kind)[self.partition], ids, self.block.extents(kind)[self.partition])
        key = (f"{source.__name__} {query}", name)
        if key not in self._known:
            self._known[key] = table[self._position(kind, ids)]
        return self._known[key]


def guarded(table: Any, base: Any, ids: Any, ends: Any) -> Any:
    """The table at base + id where 0 <= id < end, and POISON elsewhere."""
    if not len(ids):
        return 0 * base
    if int(ids.min()) >= 0 and int((ends - ids).min()) > 0:
        return table[base + ids]
    if not len(table):
        return 0 * base + POISON
    inside = (ids >= 0) & (ids < ends)
    return choose(inside, table[choose(inside, base + ids, 0 * base)], POISON)


def violations(law: Invariant, block: Block) -> tuple[int, dict[str, int] | None, int | None]:
    """How many points were evaluated, and the first that breaks the law with the place of its partition."""
    points = block.points(law.quantifiers)
    if law.requires is not None and len(points):
        met = law.requires(points, *points.values.values())
        if not bool(met.all()):
            points = points.where(met)
    if not len(points):
        return 0, None, None
    holds = law.predicate(points, *points.values.values())
    if bool(holds.all()):
        return len(points), None, None
    first = int(block.arrays.numpy(~holds).argmax())
    values = {name: int(value[first]) for name, value in points.values.items()}
    return len(points), values, int(points.partition[first])


def joined(parts: list[Any]) -> tuple[Any, list[int], bool]:
    """All arrays one after the other, their lengths, and whether each is int32; a list has no dtype to be wrong."""
    torch = sys.modules.get("torch")
    if torch is not None and parts and all(isinstance(part, torch.Tensor) and part.dim() == 1 for part in parts):
        is_int32 = {part.dtype for part in parts} == {torch.int32}
        return torch.cat(parts).cpu().numpy(), [part.numel() for part in parts], is_int32
    lengths = list(map(len, parts))
    is_int32 = all(isinstance(part, (list, tuple, range)) or part.dtype == np.dtype(np.int32) for part in parts)
    return np.concatenate([one_row(part) for part in parts]) if parts else [], lengths, is_int32


def one_row(values: Any) -> np.ndarray[Any, Any]:
    """One answer of one dimension as int64."""
    array = integers(values.cpu().numpy() if hasattr(values, "detach") else values)
    if array.ndim != 1:
        raise TypeError(f"an answer has {array.ndim} dimensions, expected 1")
    return array


def is_integral(values: Any) -> bool:
    """Whether an array, of numpy or of torch, holds integers."""
    return str(values.dtype).rpartition(".")[2].startswith(("int", "uint"))


def ask_with_shared(query: Callable[[int, int], Any], rank: int) -> Any:
    """A query that takes a number of shared experts, asked with one."""
    return query(rank, 1)


def refuses(query: Callable[[int], Any], bad: int) -> bool:
    """Whether a query raises an IndexError or a ValueError for an id out of range."""
    try:
        query(bad)
    except Exception as error:
        return isinstance(error, (IndexError, ValueError))
    return False
