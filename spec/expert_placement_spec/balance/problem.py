"""One layer that is to be planned, and what a row of its table is worth. SPEC.md, "Rebalancing" and "Windows"."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from expert_placement_spec.balance import measure
from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from expert_placement_spec.balance.homes import Homes, PossibleHomes
    from expert_placement_spec.placement.topology import Topology

TOLERANCE = 2e-4
"""A layer counts as balanced where its busiest rank takes at most this fraction more than the lower bound."""

DIGITS = 12
"""Times are compared to so many digits of the largest: what rounding feigns is no gain."""


@dataclass(frozen=True)
class Problem:
    """The loads of one layer in each window, and the ranks and slots that carry them."""

    windows: list[list[float]]
    num_slots: int
    topology: Topology
    homes: Homes | PossibleHomes | None = None
    """Where groups are at home, if they are."""

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.windows[0])

    @cached_property
    def summed(self) -> list[float]:
        """The load of each expert added up over the windows."""
        return [in_order(loads) for loads in zip(*self.windows, strict=True)]

    @cached_property
    def offsets(self) -> list[int]:
        """Where each rank's slots begin, and P last."""
        return self.topology.slot_offsets(self.num_slots)

    @cached_property
    def usable(self) -> list[int]:
        """The ranks that can hold anything."""
        return self.topology.usable_ranks(self.num_slots)

    @cached_property
    def rank_of(self) -> list[int]:
        """The rank of each slot."""
        return [rank for rank, (start, end) in enumerate(pairwise(self.offsets)) for _ in range(start, end)]

    @cached_property
    def usable_slots(self) -> list[int]:
        """The slots of the usable ranks."""
        return self.topology.usable_slots(self.num_slots)

    @property
    def rooms(self) -> list[int]:
        """How many slots each usable rank has."""
        return [self.offsets[rank + 1] - self.offsets[rank] for rank in self.usable]

    def times(self, row: list[int]) -> list[list[float]]:
        """The time of each rank in each window."""
        return [measure.rank_times(row, loads, self.offsets, self.topology) for loads in self.windows]

    def largest(self, row: list[int]) -> float:
        """The time of the busiest rank, added up over the windows: what a plan makes small."""
        return in_order(max(window) for window in self.times(row))

    @cached_property
    def bound(self) -> float:
        """What that time is at least."""
        return in_order(measure.lower_bound(loads, self.num_slots, self.topology) for loads in self.windows)

    def is_balanced(self, row: list[int]) -> bool:
        """Whether the row is within the tolerance of the bound, where the search for something better ends."""
        return self.largest(row) <= self.bound * (1 + TOLERANCE)

    def without_duplicates(self, row: list[int]) -> list[int]:
        """The row with one copy of each expert on each rank that holds it, and the slots of the others empty."""
        starts = [self.offsets[rank] for rank in self.rank_of]
        return [-1 if entry in row[starts[slot] : slot] else entry for slot, entry in enumerate(row)]

    def allows(self, row: list[int]) -> bool:
        """Whether experts are as much at home as they have to be."""
        return self.homes is None or self.homes.allow(self, row)

    def on_nodes(self, row: list[int], expert: int) -> list[int]:
        """How many replicas of an expert each node has."""
        nodes = [self.topology.node_of(self.rank_of[slot]) for slot, entry in enumerate(row) if entry == expert]
        return [nodes.count(node) for node in range(self.topology.num_nodes)]

    def held(self, row: list[int], rank: int) -> list[int]:
        """What the rank's slots hold."""
        return row[self.offsets[rank] : self.offsets[rank + 1]]
