"""Broken partitions, each with the invariants that must reject it by name.

Several are real: the remainder on the last rank, offsets of rank * local count, a mask where an index map is wanted.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from expert_placement_spec import reference


class Mutant(reference.Partition):
    """The reference model, asked through its methods alone."""

    elementwise: ClassVar[Any] = None
    breaks: ClassVar[set[str]]


class RestOnLastRank(Mutant):
    """Every rank E // R experts, and the last one the rest too."""

    breaks: ClassVar = {
        "balanced_within_one",
        "smallest_possible_maximum",
        "larger_shares_first",
        "agrees_with_seed",
        "growth_moves_starts_by_at_most_one",
        "growth_changes_one_rank",
    }

    def count(self, rank: int) -> int:
        base = self.num_experts // self.num_ranks
        return self.num_experts - base * (self.num_ranks - 1) if self._rank(rank) == self.num_ranks - 1 else base

    def start(self, rank: int) -> int:
        return self._rank(rank) * (self.num_experts // self.num_ranks)


class OffsetIsRankTimesCount(Mutant):
    """The start as rank * count(rank), as kernels compute it that assume equal slabs."""

    breaks: ClassVar = {"contiguous", "agrees_with_seed", "owner_inverts", "local_index_inverts", "covers_exactly_once"}

    def start(self, rank: int) -> int:
        return rank * self.count(rank)


class LosesTheLast(Mutant):
    """The last rank owns one expert fewer."""

    breaks: ClassVar = {"ends_meet", "counts_total_num_experts"}

    def count(self, rank: int) -> int:
        count = super().count(rank)
        return max(count - 1, 0) if rank == self.num_ranks - 1 else count


class StartsBefore(Mutant):
    """Every start one too early."""

    breaks: ClassVar = {"start_in_range", "ends_meet"}

    def start(self, rank: int) -> int:
        return super().start(rank) - 1


class SmallerSharesFirst(Mutant):
    """The larger shares on the last ranks."""

    breaks: ClassVar = {"larger_shares_first", "growth_changes_one_rank", "agrees_with_seed"}

    def count(self, rank: int) -> int:
        base, remainder = divmod(self.num_experts, self.num_ranks)
        return base + (self._rank(rank) >= self.num_ranks - remainder)


class HoardsOnTheFirst(Mutant):
    """The first rank owns everything."""

    breaks: ClassVar = {"largest_possible_minimum", "empty_only_when_scarce", "equal_when_divisible"}

    def count(self, rank: int) -> int:
        return self.num_experts if self._rank(rank) == 0 else 0


class LinearForProportional(Mutant):
    """The linear rule under the name of the proportional one."""

    breaks: ClassVar = {"starts_follow_the_rule"}

    def _linear(self) -> reference.Partition:
        strategy = "linear" if self.strategy == "proportional" else self.strategy
        return reference.Partition(self.num_experts, self.num_ranks, strategy)

    def count(self, rank: int) -> int:
        return self._linear().count(rank)

    def start(self, rank: int) -> int:
        return self._linear().start(rank)

    def owner(self, expert: int) -> int:
        return self._linear().owner(expert)

    def local_index(self, expert: int) -> int:
        return self._linear().local_index(expert)


class RoundRobinBackwards(Mutant):
    """Round robin that begins with the last of the ranks with equal shares."""

    breaks: ClassVar = {"starts_follow_the_rule"}

    def _mirrored(self, rank: int) -> int:
        remainder = self.num_experts % self.num_ranks
        if self.strategy != "round_robin" or not 0 <= rank < self.num_ranks:
            return rank
        return remainder - 1 - rank if rank < remainder else self.num_ranks - 1 - rank + remainder

    def start(self, rank: int) -> int:
        return super().start(self._mirrored(rank))

    def owner(self, expert: int) -> int:
        return self._mirrored(super().owner(expert))


class TrueDivision(Mutant):
    """A local index of floats, as `/` gives in the place of `//`."""

    breaks: ClassVar = {"answers_every_query"}

    def local_index(self, expert: int) -> Any:
        return super().local_index(expert) + 0.5 * (self.num_experts > 4)


class ColumnForRow(Mutant):
    """A table of two dimensions."""

    breaks: ClassVar = {"answers_every_query"}

    def counts(self) -> Any:
        return np.array([super().counts()], dtype=np.int32)


class OwnerBeyondTheLast(Mutant):
    """Every owner one too large."""

    breaks: ClassVar = {"owner_in_range", "owner_inverts", "covers_exactly_once", "local_index_inverts"}

    def owner(self, expert: int) -> int:
        return super().owner(expert) + 1


class LocalIndexFromTheEnd(Mutant):
    """Local indices that descend."""

    breaks: ClassVar = {"order_preserved", "owner_inverts", "local_index_inverts"}

    def local_index(self, expert: int) -> int:
        return self.count(self.owner(expert)) - 1 - super().local_index(expert)


class InclusivePrefixSums(Mutant):
    """Offsets that begin with the first count."""

    breaks: ClassVar = {"offsets_are_prefix_sums"}

    def offsets(self) -> list[int]:
        return [*super().offsets()[1:], self.num_experts]


class ListsBackwards(Mutant):
    """Lists of local experts that descend."""

    breaks: ClassVar = {"listed_in_local_order"}

    def local_experts(self, rank: int) -> list[int]:
        return super().local_experts(rank)[::-1]


class ListsTooLittle(Mutant):
    """Lists without their last expert."""

    breaks: ClassVar = {"listed_completely"}

    def local_experts(self, rank: int) -> list[int]:
        return super().local_experts(rank)[:-1]


class MapOfTheNextRank(Mutant):
    """The map of rank 1 for rank 0 too."""

    breaks: ClassVar = {"map_has_one_owner", "map_agrees_with_local_index"}

    def expert_map(self, rank: int) -> list[int]:
        return super().expert_map(max(self._rank(rank), min(1, self.num_ranks - 1)))


class MaskForMap(Mutant):
    """A 0/1 mask where an index map is wanted."""

    breaks: ClassVar = {"map_has_one_owner", "map_agrees_with_local_index", "representations_agree"}

    def expert_map(self, rank: int) -> list[int]:
        return super().expert_mask(rank)[:-1]


class SharedExpertsFirst(Mutant):
    """Shared experts in the first local slots."""

    breaks: ClassVar = {"shared_experts_follow"}

    def expert_map_with_shared(self, rank: int, num_shared_experts: int) -> list[int]:
        return [*super().expert_map(rank), *range(num_shared_experts)]


class OpenEnd(Mutant):
    """A mask that ends with 1."""

    breaks: ClassVar = {"sentinels_close"}

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        return [*super().expert_mask(rank, num_shared_experts)[:-1], 1]


class WideMaps(Mutant):
    """Maps of int64."""

    breaks: ClassVar = {"maps_are_int32_of_stated_length"}

    def expert_map(self, rank: int) -> Any:
        return np.array(super().expert_map(rank), dtype=np.int64)


class WideTables(Mutant):
    """Tables of int64."""

    breaks: ClassVar = {"tables_are_int32_of_stated_length"}

    def owners(self) -> Any:
        return np.array(super().owners(), dtype=np.int64)


class WideLists(Mutant):
    """Lists of int64."""

    breaks: ClassVar = {"listed_completely"}

    def local_experts(self, rank: int) -> Any:
        return np.array(super().local_experts(rank), dtype=np.int64)


class ClampsMasks(Mutant):
    """Ranks out of range answered by masks alone."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        return super().expert_mask(min(max(rank, 0), self.num_ranks - 1), num_shared_experts)


class RaisesWhereLarge(Mutant):
    """No answer beyond a thousand experts; for the sampler, since small domains do not reach it."""

    breaks: ClassVar = set()

    def owner(self, expert: int) -> int:
        if self.num_experts > 1000:
            raise OverflowError("too many experts")
        return super().owner(expert)


class StackedOfAnotherRank(Mutant):
    """The maps of all ranks right, the map of one rank empty."""

    breaks: ClassVar = {"map_asked_alone_agrees"}

    def expert_map(self, rank: int) -> list[int]:
        self._rank(rank)
        return [-1] * self.num_experts

    def expert_maps(self) -> list[list[int]]:
        return [super(StackedOfAnotherRank, self).expert_map(rank) for rank in range(self.num_ranks)]


class WideOffsets(Mutant):
    """Offsets of int64."""

    breaks: ClassVar = {"offsets_are_prefix_sums"}

    def offsets(self) -> Any:
        return np.array(super().offsets(), dtype=np.int64)


class OffsetsOfRoundRobin(Mutant):
    """Offsets where a rank's experts are not consecutive."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def offsets(self) -> list[int]:
        return [*super().starts(), self.num_experts]


class TooLongATable(Mutant):
    """A table with one entry too many."""

    breaks: ClassVar = {"answers_every_query"}

    def counts(self) -> list[int]:
        return [*super().counts(), 0]


class RefusesWithTheWrongType(Mutant):
    """Ids out of range refused as if they were no ints."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def _rank(self, rank: int) -> int:
        if not 0 <= rank < self.num_ranks:
            raise TypeError("no rank")
        return rank


class RefusesWithAnotherError(Mutant):
    """Ranks out of range refused as a wrong argument is, not as a wrong index."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def _rank(self, rank: int) -> int:
        if not 0 <= rank < self.num_ranks:
            raise ValueError("no rank")
        return rank


class TakesAnyPartition(Mutant):
    """Numbers as they come, and for an unknown strategy the usual one."""

    breaks: ClassVar = {"wrong_partitions_are_refused"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        try:
            super().__init__(num_experts, num_ranks, strategy)
        except ValueError:
            super().__init__(max(num_experts, 0) % 2**31, max(num_ranks, 1) % 2**31 or 1, "linear")


class TakesAnyStrategy(Mutant):
    """The name of a strategy in any case."""

    breaks: ClassVar = {"wrong_partitions_are_refused"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        super().__init__(num_experts, num_ranks, strategy.lower())


class FewerThanNoSharedExperts(Mutant):
    """A negative number of shared experts taken for none."""

    breaks: ClassVar = {"wrong_shared_experts_are_refused"}

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        return super().expert_mask(rank, max(num_shared_experts, 0))


class ThreeSharedExperts(Mutant):
    """No more than three shared experts, whatever is asked for."""

    breaks: ClassVar = {"shared_experts_follow"}

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        mask = super().expert_mask(rank, num_shared_experts)
        return [*mask[: self.num_experts + 3], *[0] * (len(mask) - self.num_experts - 3)]


class OneSharedWithoutWord(Mutant):
    """One shared expert, unless there is another word."""

    breaks: ClassVar = {"defaults_are_stated"}

    def expert_mask(self, rank: int, num_shared_experts: int = 1) -> list[int]:
        return super().expert_mask(rank, num_shared_experts)


class RoundRobinWithoutWord(Mutant):
    """Round robin, unless there is another word."""

    breaks: ClassVar = {"defaults_are_stated"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "round_robin") -> None:
        super().__init__(num_experts, num_ranks, strategy)


class ForgetsOneRank(Mutant):
    """Numbers of ranks from two on."""

    breaks: ClassVar = {"divisors_are_told"}

    @staticmethod
    def legal_ranks(num_experts: int, max_ranks: int) -> list[int]:
        return [ranks for ranks in range(2, max_ranks + 1) if num_experts % ranks == 0]


class WhatIsLeft(Mutant):
    """The experts that are left over for those that are missing."""

    breaks: ClassVar = {"divisors_are_told"}

    @property
    def min_redundant_experts(self) -> int:
        return self.num_experts % self.num_ranks


class KeepsItsMaps(Mutant):
    """Maps that are made once, and handed out again and again."""

    breaks: ClassVar = {"maps_are_fresh"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        super().__init__(num_experts, num_ranks, strategy)
        self._made: dict[int, list[int]] = {}

    def expert_map(self, rank: int) -> list[int]:
        if rank not in self._made:
            self._made[rank] = super().expert_map(rank)
        return self._made[rank]


class KeepsItsCounts(Mutant):
    """Counts that are made once, and handed out again and again."""

    breaks: ClassVar = {"maps_are_fresh"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        super().__init__(num_experts, num_ranks, strategy)
        self._made = super().counts()

    def counts(self) -> list[int]:
        return self._made


class FillsOneList(Mutant):
    """One list for all maps, which is filled anew for every answer."""

    breaks: ClassVar = {"maps_are_fresh"}

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        super().__init__(num_experts, num_ranks, strategy)
        self._filled: list[int] = []

    def expert_map(self, rank: int) -> list[int]:
        self._filled[:] = super().expert_map(rank)
        return self._filled


class WrapsIds(Mutant):
    """Experts out of range but for the neighbours of the range taken modulo 2**32, as narrow integers are."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def _expert(self, expert: int) -> int:
        return super()._expert(expert if expert == -1 else expert % 2**32)


class CountsFromTheEnd(Mutant):
    """Ranks below -1 counted from the end, as lists do."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def _rank(self, rank: int) -> int:
        return super()._rank(rank + self.num_ranks if rank < -1 else rank)


class Exits(Mutant):
    """Ends the run as if it were finished."""

    breaks: ClassVar = {"answers_every_query"}

    def count(self, rank: int) -> int:
        if self.num_experts == 4:
            raise SystemExit(0)
        return super().count(rank)


class TablesOfAnotherRule(Mutant):
    """Elementwise functions of one rule and tables of another."""

    breaks: ClassVar = {"tables_hold_the_rule", "rank_tables_agree_with_scalars"}
    elementwise: ClassVar[Any] = reference

    def count(self, rank: int) -> int:
        return self.num_experts if self._rank(rank) == 0 else 0


class OwnersOfAnotherRule(Mutant):
    """A table of owners that its scalar query contradicts."""

    breaks: ClassVar = {"expert_tables_agree_with_scalars"}

    def owners(self) -> list[int]:
        return [0] * self.num_experts


class RangesTooLong(Mutant):
    """Ranges with one expert more."""

    breaks: ClassVar = {"ranges_agree_with_scalars"}

    def experts(self, rank: int) -> range:
        held = super().experts(rank)
        return range(held.start, held.stop + held.step, held.step)


class RaisesWhereEqual(Mutant):
    """No answer where E = R = 3."""

    breaks: ClassVar = {"answers_every_query"}

    def count(self, rank: int) -> int:
        if self.num_experts == self.num_ranks == 3:
            raise ZeroDivisionError("three by three")
        return super().count(rank)


class Clamps(Mutant):
    """Ranks out of range answered as the nearest one."""

    breaks: ClassVar = {"wrong_ids_are_refused"}

    def _rank(self, rank: int) -> int:
        return min(max(rank, 0), self.num_ranks - 1)


class AlwaysUniform(Mutant):
    """Uniform, whatever E and R are."""

    breaks: ClassVar = {"uniform_when_divisible"}

    @property
    def is_uniform(self) -> bool:
        return True


MUTANTS: list[type[Mutant]] = Mutant.__subclasses__()


def model(**functions: Any) -> SimpleNamespace:
    """The reference model's functions with some replaced, for the prover."""
    names = ("count", "start", "owner", "local_index", "before", "map_entry")
    return SimpleNamespace(**{name: getattr(reference, name) for name in names} | functions)
