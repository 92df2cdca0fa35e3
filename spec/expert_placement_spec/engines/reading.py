"""What can be read off an engine's answers that it does not say in so many words."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from expert_placement_spec.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PartitionOfRanks:
    """A partition of which an engine tells, rank by rank, which experts are local and at which index.

    The owner of an expert is the first rank that names it, and the start of a rank the expert with local index 0. An
    empty rank names none: its start is no answer of the engine's, and is where the experts of the ranks before it end.
    """

    def __init__(self, num_experts: int, num_ranks: int, strategy: str) -> None:
        self.num_experts = num_experts
        self.num_ranks = num_ranks
        self.strategy = strategy

    def locals_of(self, rank: int) -> Mapping[int, int]:
        """The local index of each expert that the rank names."""
        raise NotImplementedError

    @cached_property
    def _locals(self) -> list[Mapping[int, int]]:
        return [self.locals_of(rank) for rank in range(self.num_ranks)]

    def count(self, rank: int) -> int:
        """How many experts the rank names."""
        return len(self._locals[rank])

    def start(self, rank: int) -> int:
        """The expert with local index 0."""
        for expert, index in self._locals[rank].items():
            if index == 0:
                return expert
        return rank if self.strategy == "round_robin" else sum(self.count(each) for each in range(rank))

    def owner(self, expert: int) -> int:
        """The first rank that names the expert."""
        for rank, held in enumerate(self._locals):
            if expert in held:
                return rank
        raise LookupError(f"no rank names expert {expert}")

    def local_index(self, expert: int) -> int:
        """The local index that this rank gives it."""
        return self._locals[self.owner(expert)][expert]


class Table:
    """A table of slots, as an engine gives it and takes it: nothing of it is checked."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @classmethod
    def from_physical_to_logical(cls, table: Any, num_experts: int, topology: Topology) -> Table:
        """A table that is to be given to an engine, which is told no more of it."""
        return cls(table)

    def physical_to_logical(self) -> Any:
        """The expert of each slot."""
        return self.rows


class Planner:
    """The names that the chapter of plans asks for, around a function that is told numbers of slots, nodes and ranks.

    `Topology` carries what the case says; what the function has no parameter for is refused with a `TypeError`, which
    no law takes for the engine's refusal.
    """

    Topology = Topology
    Placement = Table


POLICIES = ("balanced", "deepseek")
"""A function with one policy is asked under either name, since it plans by its own in any case."""


def equal_ranks(topology: Topology, policy: str) -> None:
    """Refuses what a function has no parameter for that is told the numbers of nodes and ranks alone.

    Raises:
        TypeError: unequal slots or speeds, or ranks out of service.
        ValueError: a policy that there is not.
    """
    every_rank_is_active(topology)
    ranks_of_equal_slots(topology, policy)


def every_rank_is_active(topology: Topology) -> None:
    """Refuses ranks out of service.

    Raises:
        TypeError: there is one.
    """
    if topology.active is not None and not all(topology.active):
        raise TypeError("the engine's function takes no ranks out of service")


def ranks_of_equal_slots(topology: Topology, policy: str) -> None:
    """Refuses ranks of unequal slots or speeds.

    Raises:
        TypeError: there are such.
        ValueError: a policy that there is not.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy=`{policy}` is unknown, expected one of {', '.join(POLICIES)}")
    if topology.slots_per_rank is not None or is_uneven(topology.speeds):
        raise TypeError("the engine's function takes no slots and no speeds of ranks")


def is_uneven(values: Sequence[float] | None) -> bool:
    """Whether ranks differ."""
    return values is not None and len(set(values)) > 1


def tensor(loads: Any) -> Any:
    """Loads as a tensor of float64, which the engines narrow themselves."""
    import torch

    return torch.tensor(loads, dtype=torch.float64)
