"""The reference model of the ranks that a placement is for. SPEC.md, "Topology"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expert_placement_spec.reference import MAX, Partition

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOWEST, FASTEST = 1e-6, 1e6
"""The relative speed of a rank."""


@dataclass(frozen=True)
class Topology:
    """R ranks: the nodes that they are on, their slots, their speeds, and which of them are active."""

    num_ranks: int
    num_nodes: int = 1
    slots_per_rank: int | Sequence[int] | None = None
    speeds: Sequence[float] | None = None
    active: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_ranks <= MAX:
            raise ValueError(f"num_ranks={self.num_ranks} is out of range, expected 1..={MAX}")
        if not 1 <= self.num_nodes <= self.num_ranks:
            raise ValueError(f"num_nodes={self.num_nodes} is out of range, expected 1..={self.num_ranks}")
        for name in ("slots_per_rank", "speeds", "active"):
            values = getattr(self, name)
            if values is None or isinstance(values, int):
                continue
            object.__setattr__(self, name, tuple(values))
            if len(values) != self.num_ranks:
                raise ValueError(f"{name} has length {len(values)}, expected {self.num_ranks}")
        for slots in [self.slots_per_rank] if isinstance(self.slots_per_rank, int) else self.slots_per_rank or ():
            if not 0 <= slots <= MAX:
                raise ValueError(f"slots_per_rank={slots} is out of range, expected 0..={MAX}")
        for speed in self.speeds or ():
            if not SLOWEST <= speed <= FASTEST:
                raise ValueError(f"speeds has {speed}, expected numbers in {SLOWEST}..={FASTEST}")
        if self.active is not None and not any(self.active):
            raise ValueError("active has no active rank, expected at least one")

    def node_of(self, rank: int) -> int:
        """The node of a rank: its owner where the ranks are a linear partition over the nodes."""
        if not 0 <= rank < self.num_ranks:
            raise IndexError(f"rank={rank} is out of range, expected 0..{self.num_ranks}")
        return Partition(self.num_ranks, self.num_nodes).owner(rank)

    def slots(self, num_slots: int) -> list[int]:
        """How many of P slots each rank has: what it was given, or a linear partition of the slots."""
        if self.slots_per_rank is None:
            return Partition(num_slots, self.num_ranks).counts()
        given = self.slots_per_rank
        slots = [given] * self.num_ranks if isinstance(given, int) else list(given)
        if sum(slots) != num_slots:
            raise ValueError(f"num_slots={num_slots} is out of range, expected {sum(slots)}, as the ranks have")
        return slots

    def slot_offsets(self, num_slots: int) -> list[int]:
        """Where each rank's slots begin, and P last."""
        slots = self.slots(num_slots)
        return [sum(slots[:rank]) for rank in range(self.num_ranks + 1)]

    def speed(self, rank: int) -> float:
        """How much load the rank carries in the time in which others carry 1."""
        return 1.0 if self.speeds is None else float(self.speeds[rank])

    def is_active(self, rank: int) -> bool:
        """Whether the rank is in service."""
        return True if self.active is None else bool(self.active[rank])

    def usable_ranks(self, num_slots: int) -> list[int]:
        """The ranks that can hold anything: active ones with slots."""
        slots = self.slots(num_slots)
        return [rank for rank in range(self.num_ranks) if self.is_active(rank) and slots[rank] > 0]

    def usable_slots(self, num_slots: int) -> list[int]:
        """The slots of those ranks."""
        offsets = self.slot_offsets(num_slots)
        return [slot for rank in self.usable_ranks(num_slots) for slot in range(offsets[rank], offsets[rank + 1])]
