"""The reference model of the partition. SPEC.md, "Formulas" and "Representations".

It is written to be read: every answer is one closed form in E, R and an id. The functions take ints, arrays or solver
terms alike; `Partition` asks them on plain ints and is the model as an implementation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from expert_placement_spec.logic import choose, least

if TYPE_CHECKING:
    from types import ModuleType

STRATEGIES = ("linear", "round_robin", "proportional")
CONTIGUOUS = ("linear", "proportional")
MAX = 2**31 - 1
"""The largest E and R, and the largest value of an int32."""


def count(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    """How many experts the rank owns."""
    if strategy == "proportional":
        after = start(num_experts, num_ranks, rank + 1, strategy)
        return after - start(num_experts, num_ranks, rank, strategy)
    return num_experts // num_ranks + choose(rank < num_experts % num_ranks, 1, 0)


def start(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    """The first expert of the arithmetic progression that the rank owns."""
    if strategy == "round_robin":
        return rank
    if strategy == "proportional":
        return rank * num_experts // num_ranks
    return rank * (num_experts // num_ranks) + least(rank, num_experts % num_ranks)


def owner(num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
    """The rank that owns the expert."""
    if strategy == "round_robin":
        return expert % num_ranks
    if strategy == "proportional":
        return ((expert + 1) * num_ranks - 1) // choose(num_experts == 0, 1, num_experts)
    base, remainder = num_experts // num_ranks, num_experts % num_ranks
    boundary = remainder * (base + 1)
    # Beyond the boundary base is at least 1; the other branch must not divide by zero while it is not taken.
    beyond = remainder + (expert - boundary) // choose(base == 0, 1, base)
    return choose(expert < boundary, expert // (base + 1), beyond)


def local_index(num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
    """The expert's position among its owner's experts."""
    if strategy == "round_robin":
        return expert // num_ranks
    return expert - start(num_experts, num_ranks, owner(num_experts, num_ranks, expert, strategy), strategy)


def before(num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
    """How many experts all smaller ranks own together; defined for rank = R too, where it is E."""
    if strategy == "proportional":
        return start(num_experts, num_ranks, rank, strategy)
    return rank * (num_experts // num_ranks) + least(rank, num_experts % num_ranks)


def stride(num_ranks: Any, strategy: str) -> Any:
    """The distance between neighbouring experts of one rank."""
    return num_ranks if strategy == "round_robin" else 1


MAPS = ("index_map", "index_map_with_shared", "index_map_with_sentinel", "mask")
"""The four representations, by the names that they have here."""


def map_entry(
    representation: str, num_experts: Any, num_ranks: Any, num_shared: Any, rank: Any, position: Any, strategy: str
) -> Any:
    """The entry of the rank's map at a position of 0..length, in one of the four representations."""
    routed = position < num_experts
    # Beyond the routed experts the formulas are asked of expert 0, and the answer is not taken.
    expert = choose(routed, position, 0)
    owned = routed & (owner(num_experts, num_ranks, expert, strategy) == rank)
    if representation == "mask":
        shared = (position >= num_experts) & (position < num_experts + num_shared)
        return choose(owned | shared, 1, 0)
    index = choose(owned, local_index(num_experts, num_ranks, expert, strategy), -1)
    if representation != "index_map_with_shared":
        return index
    slot = count(num_experts, num_ranks, rank, strategy) + position - num_experts
    return choose(routed, index, slot)


def map_length(representation: str, num_experts: Any, num_shared: Any) -> Any:
    """The length of a map in one of the four representations."""
    shared = num_shared if representation in ("index_map_with_shared", "mask") else 0
    sentinel = 1 if representation in ("index_map_with_sentinel", "mask") else 0
    return num_experts + shared + sentinel


@dataclass(frozen=True)
class Partition:
    """The model as an implementation: plain ints in, plain ints and lists out."""

    num_experts: int
    num_ranks: int
    strategy: str = "linear"

    elementwise: ClassVar[ModuleType] = sys.modules[__name__]
    """This module: its functions take arrays too."""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy=`{self.strategy}` is unknown, expected one of {STRATEGIES}")
        if not 0 <= self.num_experts <= MAX:
            raise ValueError(f"num_experts={self.num_experts} is out of range, expected 0..={MAX}")
        if not 1 <= self.num_ranks <= MAX:
            raise ValueError(f"num_ranks={self.num_ranks} is out of range, expected 1..={MAX}")

    @property
    def is_uniform(self) -> bool:
        """Whether every rank owns equally many experts."""
        return self.num_experts % self.num_ranks == 0

    @property
    def min_redundant_experts(self) -> int:
        """How many experts more, at least, make all ranks equal."""
        return -self.num_experts % self.num_ranks

    @staticmethod
    def legal_ranks(num_experts: int, max_ranks: int) -> list[int]:
        """The rank counts up to `max_ranks` over which so many experts divide equally, ascending."""
        return [ranks for ranks in range(1, max_ranks + 1) if num_experts % ranks == 0]

    def count(self, rank: int) -> int:
        """How many experts the rank owns."""
        return int(count(self.num_experts, self.num_ranks, self._rank(rank), self.strategy))

    def start(self, rank: int) -> int:
        """The first expert of the rank's arithmetic progression."""
        return int(start(self.num_experts, self.num_ranks, self._rank(rank), self.strategy))

    def owner(self, expert: int) -> int:
        """The rank that owns the expert."""
        return int(owner(self.num_experts, self.num_ranks, self._expert(expert), self.strategy))

    def local_index(self, expert: int) -> int:
        """The expert's position among its owner's experts."""
        return int(local_index(self.num_experts, self.num_ranks, self._expert(expert), self.strategy))

    def experts(self, rank: int) -> range:
        """The experts of the rank, in local order."""
        first, step = self.start(rank), stride(self.num_ranks, self.strategy)
        return range(first, first + step * self.count(rank), step)

    def counts(self) -> list[int]:
        """The count of every rank."""
        return [self.count(rank) for rank in range(self.num_ranks)]

    def starts(self) -> list[int]:
        """The start of every rank."""
        return [self.start(rank) for rank in range(self.num_ranks)]

    def offsets(self) -> list[int]:
        """The exclusive prefix sums of the counts, E last."""
        if self.strategy not in CONTIGUOUS:
            raise ValueError(f"strategy=`{self.strategy}` has no offsets")
        return [*self.starts(), self.num_experts]

    def owners(self) -> list[int]:
        """The owner of every expert."""
        return [self.owner(expert) for expert in range(self.num_experts)]

    def local_indices(self) -> list[int]:
        """The local index of every expert."""
        return [self.local_index(expert) for expert in range(self.num_experts)]

    def local_experts(self, rank: int) -> list[int]:
        """The global ids of the rank's experts, in local order."""
        return list(self.experts(rank))

    def expert_map(self, rank: int) -> list[int]:
        """The index map: -1 where the expert is not the rank's."""
        return self._map("index_map", rank, 0)

    def expert_map_with_shared(self, rank: int, num_shared_experts: int) -> list[int]:
        """The index map, and the shared experts in the local slots after the routed ones."""
        return self._map("index_map_with_shared", rank, num_shared_experts)

    def expert_map_with_sentinel(self, rank: int) -> list[int]:
        """The index map and one more entry, -1."""
        return self._map("index_map_with_sentinel", rank, 0)

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        """1 for each expert that the rank holds, shared ones included, and a trailing 0."""
        return self._map("mask", rank, num_shared_experts)

    def _map(self, representation: str, rank: int, num_shared: int) -> list[int]:
        self._check_shared(num_shared)
        shape = (self.num_experts, self.num_ranks, num_shared, self._rank(rank))
        length = map_length(representation, self.num_experts, num_shared)
        return [int(map_entry(representation, *shape, position, self.strategy)) for position in range(length)]

    def _check_shared(self, num_shared: int) -> None:
        if not 0 <= num_shared <= MAX - self.num_experts:
            raise ValueError(
                f"num_shared_experts={num_shared} is out of range, expected 0..={MAX - self.num_experts} beside "
                f"{self.num_experts} experts"
            )

    def _rank(self, rank: int) -> int:
        if not 0 <= rank < self.num_ranks:
            raise IndexError(f"rank={rank} is out of range, expected 0..{self.num_ranks}")
        return rank

    def _expert(self, expert: int) -> int:
        if not 0 <= expert < self.num_experts:
            raise IndexError(f"expert={expert} is out of range, expected 0..{self.num_experts}")
        return expert
