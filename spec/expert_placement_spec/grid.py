"""Invariants evaluated on whole grids: each element of an array is a point with a partition of its own.

A block holds the tables of some partitions of one strategy, one after the other in flat arrays. Points are a choice of
partition and of values for the quantifiers; they are the view that predicates see.
"""

from __future__ import annotations

import math
import sys
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.arrays import integers
from expert_placement_spec.fresh import FEW, makes_fresh_maps
from expert_placement_spec.implementation import MAP_METHODS, SCALARS, TABLES, WITH_SHARED, Implementation
from expert_placement_spec.logic import choose
from expert_placement_spec.reference import CONTIGUOUS, MAX, map_length
from expert_placement_spec.refusing import (
    EVERY_WRONG_ID,
    has_stated_defaults,
    refuses,
    refuses_wrong_partitions,
    refuses_wrong_shared_experts,
    tells_divisors,
    wrong_ids,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from expert_placement_spec.invariants import Invariant

OF_RANKS = ("r", "s", "count", "start")
"""Quantifiers and queries over ranks; the others are over experts."""
GRIDS = {("r",), ("e",), ("r", "e"), ("r", "s")}
"""Quantifiers whose points may form a grid."""
POISON = -(2**40)
"""What a table holds where it is asked beyond its end, as by a wrong owner: no law holds of it."""
ALL_ALONE = 128
"""Up to how many experts and ranks every representation is asked alone; beyond it is one, since each is large."""
EVERY_RANK = 16
"""Up to how many experts and ranks every rank is asked alone; beyond it is one."""


def shared_experts(num_experts: int, num_ranks: int) -> int:
    """How many shared experts a partition is checked with: 0, 1, 2 and 5 in turn over the domain."""
    return (0, 1, 2, 5)[(num_experts + num_ranks) % 4]


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
        # Beyond the limit there is nothing to compare with, and no law does.
        larger = [(min(num_experts + 1, MAX), num_ranks) for num_experts, num_ranks in self.shapes]
        return Block(self.implementation, self.strategy, larger, {"rule"})

    def build(self) -> None:
        """Asks for everything that the subjects need; whatever the implementation raises is raised here."""
        _ = self.table("count"), self.table("start")
        if "rule" in self.subjects:
            _ = self._grown.table("count"), self._grown.table("start")
        if self.subjects != {"rule"}:
            _ = self.table("owner"), self.table("local_index")
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
        if "arguments" in self.subjects:
            _ = self.refused_partitions
        if "shared" in self.subjects:
            _ = self.refused_shared
        if "defaults" in self.subjects:
            _ = self.defaults
        if "fresh" in self.subjects:
            _ = self.fresh_maps
        if "uniform" in self.subjects:
            _ = self.divisors

    def extents(self, name: str) -> Any:
        """How many values a quantifier or a query's id takes in each partition."""
        return self.ranks if name in OF_RANKS else self.experts

    def base(self, name: str) -> Any:
        """Where each partition's part of a table begins."""
        return self.rank_base if name in OF_RANKS else self.expert_base

    def table(self, name: str) -> Any:
        """The flat table of a query over all its ids, of all partitions."""
        if name not in self._tables:
            self._tables[name] = self._ask(name)
        return self._tables[name]

    @cached_property
    def _tables(self) -> dict[str, Any]:
        return {}

    def _ask(self, name: str) -> Any:
        if self.implementation.elementwise is not None:
            return self._ask_elementwise(name)
        method = dict(zip(SCALARS, TABLES, strict=True))[name]
        if self.implementation.offers(method):
            place = 1 if name in ("count", "start") else 0
            return self._flat(method, [shape[place] for shape in self.shapes])[0]
        return self.scalars(name)

    def _ask_elementwise(self, name: str) -> Any:
        extents, most = self.extents(name), max((shape[name in OF_RANKS] for shape in self.shapes), default=0)
        if self.is_family and most and bool((2 * extents >= most).all()):
            column, row = (self.experts[:, None], self.ranks[:, None]), self.arrays.arange(most)[None, :]
            if bool((extents == most).all()):
                return self._answers(name, *column, row).reshape(-1)
            # An id too many is asked as the last one again, and left out.
            ids = choose(row < extents[:, None], row, extents[:, None] - 1)
            return self._answers(name, *column, ids)[row < extents[:, None]]
        index = self.arrays.repeat(self.arrays.arange(len(self.shapes)), extents)
        ids = self.arrays.arange(len(index)) - self.base(name)[index]
        return self._answers(name, self.experts[index], self.ranks[index], ids)

    def _answers(self, name: str, experts: Any, ranks: Any, ids: Any) -> Any:
        """What an elementwise function says, in the shape to which its arguments broadcast."""
        answers = self.implementation.ask(name, experts, ranks, ids, self.strategy)
        shape = (max(experts.shape[0], ids.shape[0]), *ids.shape[1:])
        return widened(name, answers, shape, (experts, ids))

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
            no_bools(values)
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
        if not hasattr(self.implementation.elementwise, "map_entry"):
            return None
        ranks = self.points(("r",))
        lengths = map_length(representation, ranks.num_experts, ranks.num_shared_experts)
        if len(self.shapes) == 1:
            rank = ranks.values["r"][:, None]
            position = self.arrays.arange(int(lengths[0]))[None, :]
            shape = (self.experts, self.ranks, self.shared)
        else:
            index = self.arrays.repeat(self.arrays.arange(len(ranks)), lengths)
            rank = ranks.values["r"][index]
            position = self.arrays.arange(len(index)) - self.arrays.before(lengths)[index]
            shape = (ranks.num_experts[index], ranks.num_ranks[index], ranks.num_shared_experts[index])
        entries = self.implementation.ask("map_entry", representation, *shape, rank, position, self.strategy)
        shape = np.broadcast_shapes(tuple(rank.shape), tuple(position.shape))
        return widened("map_entry", entries, shape, (rank, position)).reshape(-1), lengths, True

    def _listed(self, representation: str) -> tuple[Any, Any, bool]:
        """All maps, asked rank by rank, or partition by partition where the implementation gives all ranks at once."""
        method = MAP_METHODS[representation]
        maps: list[Any] = []
        rows_each: list[int] = []
        for partition, shape in zip(self.partitions, self.shapes, strict=True):
            extra = (shared_experts(*shape),) if representation in WITH_SHARED else ()
            stacked = getattr(partition, f"{method}s", None)
            one = getattr(partition, method)
            rows: Any = [one(rank, *extra) for rank in range(shape[1])] if stacked is None else stacked(*extra)
            if len(rows) != shape[1]:
                raise TypeError(f"{method}s has {len(rows)} rows, expected {shape[1]}")
            if getattr(rows, "ndim", 0) == 2:
                maps.append(rows.reshape(-1))
                rows_each.append(len(rows))
            else:
                maps.extend(rows)
                rows_each.extend([1] * len(rows))
        flat, sizes, is_int32 = joined(maps)
        lengths = np.repeat(np.asarray(sizes) // rows_each, rows_each)
        return self.arrays.array(flat), self.arrays.array(lengths), is_int32

    @cached_property
    def rows_match(self) -> Any:
        """For each partition: whether the map of one rank, asked by itself, is its row among those of all ranks."""
        held = {}
        for representation in MAP_METHODS:
            maps, lengths, _ = self.map(representation)
            flat, bases = self.arrays.numpy(maps), self.arrays.numpy(self.map_base(representation))
            held[representation] = flat, bases, self.arrays.numpy(lengths)
        fine = []
        first = 0
        for partition, shape in zip(self.partitions, self.shapes, strict=True):
            agree = True
            for representation, rank in self.asked_alone(shape):
                extra = (shared_experts(*shape),) if representation in WITH_SHARED else ()
                alone, _, is_int32 = joined([getattr(partition, MAP_METHODS[representation])(rank, *extra)])
                flat, bases, lengths = held[representation]
                base = int(bases[first + rank])
                agree &= is_int32 and np.array_equal(alone, flat[base : base + int(lengths[first + rank])])
            fine.append(agree)
            first += shape[1]
        return self._flags(fine)

    @staticmethod
    def asked_alone(shape: tuple[int, int]) -> list[tuple[str, int]]:
        """Which representations of which rank are asked by themselves: all, or one by turns where the maps are large.

        Every rank is, where there are few. The turn follows the quotient and the rank the remainder of E by R, so that
        each pair of them comes up.
        """
        num_experts, num_ranks = shape
        turn = (num_experts // num_ranks + num_ranks) % len(MAP_METHODS)
        names = list(MAP_METHODS)
        if max(shape) > ALL_ALONE:
            names = names[turn : turn + 1]
        ranks = range(num_ranks) if max(shape) <= EVERY_RANK else (65537 * num_experts % num_ranks,)
        return [(name, rank) for rank in ranks for name in names]

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
        """For each partition: whether queries refuse ids out of range, and offsets are refused without a meaning."""
        fine = []
        for partition, (num_experts, num_ranks) in zip(self.partitions, self.shapes, strict=True):
            with_shared = (partition.expert_map_with_shared, partition.expert_mask)
            of_ranks = [
                *(getattr(partition, name) for name in ("count", "start", "experts", "local_experts")),
                *(partition.expert_map, partition.expert_map_with_sentinel),
                *(partial(ask_with_shared, query) for query in with_shared),
            ]
            of_experts = [partition.owner, partition.local_index]
            is_small = max(num_experts, num_ranks) <= EVERY_WRONG_ID
            asked = [(query, bad) for query in of_ranks for bad in wrong_ids(num_ranks, is_small=is_small)]
            asked += [(query, bad) for query in of_experts for bad in wrong_ids(num_experts, is_small=is_small)]
            has_offsets = self.strategy in CONTIGUOUS
            fine.append(
                all(refuses(IndexError, query, bad) for query, bad in asked)
                and (has_offsets or refuses(ValueError, partition.offsets))
            )
        return self._flags(fine)

    @cached_property
    def refused_partitions(self) -> Any:
        """For each partition: whether those that differ from it by a wrong argument are refused."""
        make, strategy = self.implementation.make, self.strategy
        return self._flags([refuses_wrong_partitions(make, *shape, strategy) for shape in self.shapes])

    @cached_property
    def refused_shared(self) -> Any:
        """For each partition: whether maps with wrong numbers of shared experts are refused."""
        return self._flags(list(map(refuses_wrong_shared_experts, self.partitions)))

    @cached_property
    def defaults(self) -> Any:
        """For each partition: whether what may be left out is what is stated."""
        make = self.implementation.make
        return self._flags([has_stated_defaults(make, *shape) for shape in self.shapes])

    @cached_property
    def divisors(self) -> Any:
        """For each partition: whether it tells which numbers of ranks and of experts would make ranks equal."""
        of_shapes = zip(self.partitions, self.shapes, strict=True)
        return self._flags([tells_divisors(partition, *shape) for partition, shape in of_shapes])

    @cached_property
    def fresh_maps(self) -> Any:
        """For each partition of few experts and ranks: whether maps are their asker's own."""
        of_shapes = zip(self.partitions, self.shapes, strict=True)
        fresh = [
            max(shape) <= FEW and makes_fresh_maps(partition, shape[1], shared_experts(*shape))
            for partition, shape in of_shapes
        ]
        return self._flags(fresh)

    @cached_property
    def uniform(self) -> Any:
        """For each partition: what it says of being uniform."""
        answers = [partition.is_uniform for partition in self.partitions]
        if not {bool, np.bool_}.issuperset(map(type, answers)):
            raise TypeError("is_uniform is no bool")
        return self._flags(answers)

    def points(self, quantifiers: tuple[str, ...]) -> Points:
        """Every point of every partition for these quantifiers, in order; the same object each time."""
        if quantifiers not in self._points:
            self._points[quantifiers] = self._all_points(quantifiers)
        return self._points[quantifiers]

    @cached_property
    def is_family(self) -> bool:
        """Whether all partitions have the same number of experts, or all the same number of ranks."""
        return len({num_experts for num_experts, _ in self.shapes}) == 1 or len({r for _, r in self.shapes}) == 1

    def grid(self, quantifiers: tuple[str, ...]) -> Points | None:
        """The same points as a grid whose rows and columns broadcast, where they form one.

        They do for one quantifier that has the same range in every partition, and for the pairs of one partition.
        """
        if quantifiers not in self._grids:
            self._grids[quantifiers] = self._make_grid(quantifiers)
        return self._grids[quantifiers]

    @cached_property
    def _grids(self) -> dict[tuple[str, ...], Points | None]:
        return {}

    def _make_grid(self, quantifiers: tuple[str, ...]) -> Points | None:
        if quantifiers not in GRIDS:
            return None
        extents = [{shape[name in OF_RANKS] for shape in self.shapes} for name in quantifiers]
        if any(len(extent) != 1 or 0 in extent for extent in extents):
            return None
        (row, *others), (width, *heights) = reversed(quantifiers), [extent.pop() for extent in reversed(extents)]
        values = {row: self.arrays.arange(width)[None, :]}
        partition = self.arrays.arange(len(self.shapes))[:, None]
        if not others:
            return Points(self, partition, values, (len(self.shapes), width), slice(None), slice(None))
        if len(self.shapes) != 1:
            return None
        values = {others[0]: self.arrays.arange(heights[0])[:, None], **values}
        return Points(self, partition, values, (heights[0], width))

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
    """The view of a block at some points.

    The partition and the quantifiers' values are arrays of one length or, in a grid, arrays that broadcast to its
    shape.

    Args:
        block: whose points.
        partition: the place of each point's partition.
        values: the quantifiers' values.
        shape: the grid's shape; that of the partition without other word.
        rows: where the rows are partitions and the columns all values of the one quantifier, which partitions of the
            block they are; then what is asked of the quantifier is the table itself.
        columns: which values of the quantifier, likewise.
    """

    def __init__(
        self,
        block: Block,
        partition: Any,
        values: dict[str, Any],
        shape: tuple[int, ...] | None = None,
        rows: Any = None,
        columns: Any = None,
    ) -> None:
        self.block = block
        self.partition = partition
        self.values = values
        self.shape = (len(partition),) if shape is None else shape
        self.rows, self.columns = rows, columns
        self.strategy = block.strategy
        # Answers for the quantifiers themselves, which one law after the other asks for.
        self._known: dict[tuple[str, str], Any] = {}
        self._computed: tuple[Any, str, tuple[Any, Any]] | None = None

    def __len__(self) -> int:
        return math.prod(self.shape)

    def at(self, place: int) -> tuple[int, dict[str, int]]:
        """The partition's place and the quantifiers' values at one point, counted row by row."""
        index = np.unravel_index(place, self.shape)

        def one(values: Any) -> int:
            array = self.block.arrays.numpy(values)
            return int(np.broadcast_to(array, self.shape)[index])

        return one(self.partition), {name: one(value) for name, value in self.values.items()}

    def where(self, mask: Any) -> Points:
        """The points at which the mask is true."""
        if len(self.shape) == 1:
            return Points(self.block, self.partition[mask], {name: value[mask] for name, value in self.values.items()})
        everywhere = sum(self.values.values(), self.partition) >= 0
        mask = mask & everywhere
        if self.rows is not None:
            (name, row), columns, rows = next(iter(self.values.items())), mask.all(0), mask.all(1)
            if bool((columns == mask.any(0)).all()):
                kept = prefix(columns)
                row = row[:, kept]
                return Points(self.block, self.partition, {name: row}, (self.shape[0], row.shape[1]), self.rows, kept)
            if bool((rows == mask.any(1)).all()):
                kept = prefix(rows)
                partition = self.partition[kept]
                shape = (partition.shape[0], self.shape[1])
                return Points(self.block, partition, self.values, shape, kept, self.columns)
        values = {name: (value + 0 * everywhere)[mask] for name, value in self.values.items()}
        return Points(self.block, (self.partition + 0 * everywhere)[mask], values)

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

    def refuses_wrong_partitions(self) -> Any:
        """Whether partitions of wrong numbers of experts or ranks, or of no strategy, are refused."""
        return self.block.refused_partitions[self.partition]

    def refuses_wrong_shared_experts(self) -> Any:
        """Whether maps with wrong numbers of shared experts are refused."""
        return self.block.refused_shared[self.partition]

    def has_stated_defaults(self) -> Any:
        """Whether what may be left out is what is stated."""
        return self.block.defaults[self.partition]

    def tells_divisors(self) -> Any:
        """Whether it is told which numbers of ranks and of experts would make ranks equal."""
        return self.block.divisors[self.partition]

    def makes_fresh_maps(self) -> Any:
        """Whether maps are their asker's own."""
        return self.block.fresh_maps[self.partition]

    def says_uniform(self) -> Any:
        """What the partition says of being uniform."""
        return self.block.uniform[self.partition]

    def _map_entry(self, representation: str, rank: Any, position: Any) -> Any:
        key = (representation, f"{self._name(rank)} {self._name(position)}")
        if key in self._known:
            return self._known[key]
        maps, lengths, _ = self.block.map(representation)
        flat_rank = self._position("r", rank)
        if len(self.shape) == 2 and self._name(position) == "e" and bool((lengths == lengths[0]).all()):
            width = int(lengths[0])
            if width >= self.shape[1] and self._name(rank) == "r":
                return maps.reshape(-1, width)[:, : self.shape[1]]
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
            # Laws ask two tables about the same computed ids, one after the other.
            if self._computed is None or self._computed[0] is not ids or self._computed[1] != kind:
                ends = self.block.extents(kind)[self.partition]
                self._computed = (ids, kind, places(self.block.base(kind)[self.partition], ids, ends))
            return taken(table, self._computed[2])
        key = (f"{source.__name__} {query}", name)
        if key not in self._known:
            if self.rows is not None:
                self._known[key] = table.reshape(len(self.block.shapes), -1)[self.rows][:, self.columns]
            else:
                self._known[key] = table[self._position(kind, ids)]
        return self._known[key]


def guarded(table: Any, base: Any, ids: Any, ends: Any) -> Any:
    """The table at base + id where 0 <= id < end, and POISON elsewhere."""
    return taken(table, places(base, ids, ends))


def places(base: Any, ids: Any, ends: Any) -> tuple[Any, Any]:
    """Where each id stands in a flat table, and which of them are in range; None where all are."""
    if 0 in ids.shape:
        return 0 * base, None
    least, most = int(ids.min()), int(ids.max())
    if least >= 0 and (most < int(ends.min()) or int((ends - ids).min()) > 0):
        return base + ids, None
    inside = (ids >= 0) & (ids < ends)
    return choose(inside, base + ids, 0 * base), inside


def taken(table: Any, at: tuple[Any, Any]) -> Any:
    """The table at these places, and POISON where an id is out of range."""
    position, inside = at
    if not len(table):
        return 0 * position + (0 if inside is None else POISON)
    return table[position] if inside is None else choose(inside, table[position], POISON)


def widened(name: str, answers: Any, shape: tuple[int, ...], asked: tuple[Any, Any]) -> Any:
    """Answers in the shape of what was asked: one may leave out operands that do not matter, and then is smaller.

    Raises:
        TypeError: answers of a shape that does not broadcast to it.
    """
    actual = tuple(answers.shape)
    if actual == shape:
        return answers
    try:
        fits = np.broadcast_shapes(actual, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise TypeError(f"{name} answers with shape {actual}, expected {shape}")
    return answers + 0 * (asked[0] + asked[1])


def prefix(mask: Any) -> Any:
    """The same choice as a slice, where it is of the first places: slices are views."""
    number = int(mask.sum())
    return slice(number) if bool(mask[:number].all()) else mask


def violations(law: Invariant, block: Block) -> tuple[int, dict[str, int] | None, int | None]:
    """How many points were evaluated, and the first that breaks the law with the place of its partition."""
    points = block.grid(law.quantifiers) or block.points(law.quantifiers)
    if law.requires is not None and len(points):
        met = law.requires(points, *points.values.values())
        if not bool(met.all()):
            points = points.where(met)
    if not len(points):
        return 0, None, None
    holds = law.predicate(points, *points.values.values())
    if bool(holds.all()):
        return len(points), None, None
    first = int(np.broadcast_to(block.arrays.numpy(~holds), points.shape).argmax())
    place, values = points.at(first)
    return len(points), values, place


def joined(parts: list[Any]) -> tuple[Any, list[int], bool]:
    """All arrays one after the other, their lengths, and whether each is int32; a list has no dtype to be wrong."""
    torch = sys.modules.get("torch")
    if torch is not None and set(map(type, parts)) == {torch.Tensor} and {part.ndim for part in parts} == {1}:
        is_int32 = {part.dtype for part in parts} == {torch.int32}
        return torch.cat(parts).cpu().numpy(), list(map(torch.Tensor.numel, parts)), is_int32
    rows, lengths, is_int32 = [], [], True
    for part in parts:
        row, is_as_stated = one_row(part)
        rows.append(row)
        lengths.append(len(row))
        is_int32 &= is_as_stated
    return np.concatenate(rows) if rows else [], lengths, is_int32


def one_row(values: Any) -> tuple[np.ndarray[Any, Any], bool]:
    """One answer of one dimension as int64, and whether it is of int32, or of ints without a dtype."""
    if isinstance(values, (list, tuple, range)):
        if not isinstance(values, range):
            no_bools(values)
        array, is_int32 = integers(values), True
    else:
        # Of the base class of arrays, since a subclass may say of itself what it likes.
        plain = np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
        array, is_int32 = integers(plain), plain.dtype == np.dtype(np.int32)
    if array.ndim != 1:
        raise TypeError(f"an answer has {array.ndim} dimensions, expected 1")
    if len(values) != len(array):
        raise TypeError(f"an answer says that it has {len(values)} entries, and has {len(array)}")
    return array, is_int32


def no_bools(values: Iterable[Any]) -> None:
    """Refuses truth values among ints, which arrays of ints take for 0 and 1."""
    if not {bool, np.bool_}.isdisjoint(map(type, values)):
        raise TypeError("an answer is a bool, expected an integer")


def ask_with_shared(query: Callable[[int, int], Any], rank: int) -> Any:
    """A query that takes a number of shared experts, asked with one."""
    return query(rank, 1)
