"""One partition as the model's own class and functions answer for it, in plain ints. SPEC.md, "How it is checked".

It is what CrossHair runs with ints that stand for all of their values, and what says of a counterexample, by no solver,
whether it is one. `single.One` asks an implementation under its names; this view asks a model or a mutant of it.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from expert_placement_spec import reference
from expert_placement_spec.fresh import makes_fresh_maps
from expert_placement_spec.implementation import MAP_METHODS, WITH_SHARED
from expert_placement_spec.reference import CONTIGUOUS, MAX, STRATEGIES
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
    from collections.abc import Iterator, Mapping

    from expert_placement_spec.invariants import Invariant

UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1


def widest(strategy: str) -> int:
    """The largest intermediate that a strategy's formulas may have."""
    return UINT64_MAX if strategy == "proportional" else UINT32_MAX


class Plain:
    """The view of one partition in plain ints.

    Args:
        num_experts: E.
        num_ranks: R.
        num_shared_experts: S.
        strategy: the strategy.
        model: the module with the formulas and the class `Partition`; the reference model, or a mutant of it.
    """

    def __init__(
        self, num_experts: int, num_ranks: int, num_shared_experts: int, strategy: str, model: Any = reference
    ) -> None:
        self.num_experts = num_experts
        self.num_ranks = num_ranks
        self.num_shared_experts = num_shared_experts
        self.strategy = strategy
        self.stride = reference.stride(num_ranks, strategy)
        self._model = model
        self._partition = model.Partition(num_experts, num_ranks, strategy)

    def count(self, rank: int) -> Any:
        """The count of a rank."""
        return self._partition.count(rank)

    def start(self, rank: int) -> Any:
        """The start of a rank."""
        return self._partition.start(rank)

    def owner(self, expert: int) -> Any:
        """The owner of an expert."""
        return self._partition.owner(expert)

    def local_index(self, expert: int) -> Any:
        """The local index of an expert."""
        return self._partition.local_index(expert)

    def grown(self) -> Plain:
        """The partition of E + 1 experts."""
        return Plain(self.num_experts + 1, self.num_ranks, self.num_shared_experts, self.strategy, self._model)

    def sum_of_counts(self) -> Any:
        """The sum over all ranks, one by one."""
        return sum(self._partition.counts())

    def offset(self, rank: int) -> Any:
        """An entry of the offsets."""
        return self._partition.offsets()[rank]

    @property
    def offsets_are_int32(self) -> Any:
        """Whether there is one offset more than ranks, and each fits an int32."""
        offsets = self._partition.offsets()
        return len(offsets) == self.num_ranks + 1 and all(0 <= one <= MAX for one in offsets)

    def listed(self, rank: int, position: int) -> Any:
        """The list of a rank's experts at a position."""
        return self._partition.local_experts(rank)[position]

    def list_length(self, rank: int) -> Any:
        """The length of the list of a rank's experts."""
        return len(self._partition.local_experts(rank))

    @property
    def lists_are_int32(self) -> Any:
        """Whether each entry of every list fits an int32."""
        return all(0 <= one <= MAX for rank in range(self.num_ranks) for one in self._partition.local_experts(rank))

    def index_map(self, rank: int, position: int) -> Any:
        """An entry of the rank's index map."""
        return self._entry("index_map", rank, position)

    def index_map_with_shared(self, rank: int, position: int) -> Any:
        """An entry of the rank's index map with shared experts."""
        return self._entry("index_map_with_shared", rank, position)

    def index_map_with_sentinel(self, rank: int, position: int) -> Any:
        """An entry of the rank's index map with a sentinel."""
        return self._entry("index_map_with_sentinel", rank, position)

    def mask(self, rank: int, position: int) -> Any:
        """An entry of the rank's mask."""
        return self._entry("mask", rank, position)

    def _entry(self, representation: str, rank: int, position: int) -> Any:
        shape = (self.num_experts, self.num_ranks, self.num_shared_experts, rank)
        return self._model.map_entry(representation, *shape, position, self.strategy)

    def _map(self, representation: str, rank: int) -> list[int]:
        shared = (self.num_shared_experts,) if representation in WITH_SHARED else ()
        return getattr(self._partition, MAP_METHODS[representation])(rank, *shared)  # type: ignore[no-any-return]

    def map_length(self, representation: str, rank: int) -> Any:
        """The length of the rank's map in a representation."""
        return len(self._map(representation, rank))

    @property
    def maps_are_int32(self) -> Any:
        """Whether each entry of every map fits an int32."""
        maps = (self._map(name, rank) for name in MAP_METHODS for rank in range(self.num_ranks))
        return all(-1 <= entry <= MAX for one in maps for entry in one)

    def scalar_range_agrees(self, rank: int) -> Any:
        """Whether the range of a rank's experts has its start, stride and count."""
        held = self._partition.experts(rank)
        return (
            held.start == self.start(rank)
            and held.step == self.stride
            and held.stop == held.start + held.step * self.count(rank)
        )

    def refuses_wrong_ids(self) -> Any:
        """Whether every query refuses the ids next to its range, and offsets are refused without a meaning."""
        partition = self._partition
        of_ranks = [partition.count, partition.start, partition.experts, partition.local_experts]
        of_ranks += [lambda rank, name=name: self._map(name, rank) for name in MAP_METHODS]
        of_experts = [partition.owner, partition.local_index]
        is_small = max(self.num_experts, self.num_ranks) <= EVERY_WRONG_ID
        wrong = [(query, rank) for query in of_ranks for rank in wrong_ids(self.num_ranks, is_small=is_small)]
        wrong += [(query, expert) for query in of_experts for expert in wrong_ids(self.num_experts, is_small=is_small)]
        has_offsets = self.strategy in CONTIGUOUS
        return all(refuses(IndexError, *one) for one in wrong) and (
            has_offsets or refuses(ValueError, partition.offsets)
        )

    def refuses_wrong_partitions(self) -> Any:
        """Whether partitions of wrong numbers of experts or ranks, or of no strategy, are refused."""
        return refuses_wrong_partitions(self._model.Partition, self.num_experts, self.num_ranks, self.strategy)

    def refuses_wrong_shared_experts(self) -> Any:
        """Whether maps with wrong numbers of shared experts are refused."""
        return refuses_wrong_shared_experts(self._partition)

    def has_stated_defaults(self) -> Any:
        """Whether what may be left out is what is stated."""
        return has_stated_defaults(self._model.Partition, self.num_experts, self.num_ranks)

    def tells_divisors(self) -> Any:
        """Whether it is told which numbers of ranks and of experts would make ranks equal."""
        return tells_divisors(self._partition, self.num_experts, self.num_ranks)

    def makes_fresh_maps(self) -> Any:
        """Whether maps are their asker's own."""
        return makes_fresh_maps(self._partition, self.num_ranks, self.num_shared_experts)

    def says_uniform(self) -> Any:
        """What the partition says of being uniform."""
        return self._partition.is_uniform

    def intermediates_in_range(self, rank: int, expert: int) -> bool:
        """Whether each number that takes part in any answer is at least 0 and within its type."""
        shape = (Traced(self.num_experts), Traced(self.num_ranks))
        asked: list[tuple[Any, int]] = [(self._model.count, rank), (self._model.start, rank)]
        asked += ((self._model.owner, expert), (self._model.local_index, expert))
        for query, identifier in asked:
            answer = query(*shape, Traced(identifier), self.strategy)
            if not 0 <= answer.value <= MAX or not all(0 <= one <= widest(self.strategy) for one in answer.computed):
                return False
        return True


class Traced:
    """An int that knows every number which it was computed from, in the branches that were taken."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: int, computed: frozenset[int] = frozenset()) -> None:
        self.value = value
        self.computed = computed

    def _with(self, other: Any, value: Any) -> Any:
        theirs = other.computed if isinstance(other, Traced) else frozenset()
        own = frozenset() if isinstance(value, bool) else frozenset({value})
        kind = TracedTruth if isinstance(value, bool) else Traced
        return kind(value, self.computed | theirs | own)

    def __add__(self, other: Any) -> Any:
        return self._with(other, self.value + plain(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._with(other, self.value - plain(other))

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, plain(other) - self.value)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, self.value * plain(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, self.value // plain(other))

    def __mod__(self, other: Any) -> Any:
        return self._with(other, self.value % plain(other))

    def __lt__(self, other: Any) -> Any:
        return self._with(other, self.value < plain(other))

    def __le__(self, other: Any) -> Any:
        return self._with(other, self.value <= plain(other))

    def __gt__(self, other: Any) -> Any:
        return self._with(other, self.value > plain(other))

    def __ge__(self, other: Any) -> Any:
        return self._with(other, self.value >= plain(other))

    def __eq__(self, other: object) -> Any:
        return self._with(other, self.value == plain(other))

    def __ne__(self, other: object) -> Any:
        return self._with(other, self.value != plain(other))


class TracedTruth(Traced):
    """A truth value that knows the same, and chooses a branch."""

    def choose(self, then: Any, otherwise: Any) -> Any:
        """`then` where this is true, `otherwise` elsewhere; the other one took no part."""
        taken = then if self.value else otherwise
        theirs = taken.computed if isinstance(taken, Traced) else frozenset()
        return Traced(plain(taken), self.computed | theirs)


def plain(number: Any) -> Any:
    """The number of a traced one, or the number."""
    return number.value if isinstance(number, Traced) else number


def end_of(name: str, view: Plain, values: Mapping[str, int]) -> Any:
    """Where the range of a quantifier ends; that of a local index `i` is for the rank `r`."""
    if name == "i":
        return view.count(values["r"])
    return {"r": view.num_ranks, "s": view.num_ranks, "e": view.num_experts, "h": view.num_shared_experts}[name]


def is_case(law: Invariant, view: Plain, values: Mapping[str, int]) -> bool:
    """Whether values of a law's quantifiers are in range and meet its premise."""
    for name in law.quantifiers:
        if not 0 <= values[name] < end_of(name, view, values):
            return False
    return law.requires is None or bool(law.requires(view, *(values[name] for name in law.quantifiers)))


def obeys(law: Invariant, view: Plain, values: Mapping[str, int]) -> bool:
    """Whether the law holds at a case. An answer that is an error breaks it."""
    try:
        return bool(law.predicate(view, *(values[name] for name in law.quantifiers)))
    except (ArithmeticError, LookupError, ValueError):
        return False


def small_cases(law: Invariant, strategy: str, model: Any = reference) -> Iterator[tuple[Plain, dict[str, int]]]:
    """Every case of a law in partitions of up to 5 experts, 4 ranks and 1 shared expert, by the reference's counts."""
    for num_experts, num_ranks, num_shared in product(range(6), range(1, 5), range(2)):
        known = Plain(num_experts, num_ranks, num_shared, strategy)
        most = max(num_experts, num_ranks)
        for point in product(range(most), repeat=len(law.quantifiers)):
            values = dict(zip(law.quantifiers, point, strict=True))
            if is_case(law, known, values):
                yield Plain(num_experts, num_ranks, num_shared, strategy, model), values


def first_broken(law: Invariant, strategy: str, model: Any) -> dict[str, int] | None:
    """A small case at which a model breaks the law, or None."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy=`{strategy}` is unknown, expected one of {STRATEGIES}")
    for view, values in small_cases(law, strategy, model):
        if not obeys(law, view, values):
            return {"E": view.num_experts, "R": view.num_ranks, "S": view.num_shared_experts, **values}
    return None
