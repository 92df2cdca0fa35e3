"""How well a placement carries loads, and how well any could. SPEC.md, "Loads" and "Balance"."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from expert_placement_spec.balance.replication import least_largest_share
from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from expert_placement_spec.placement.topology import Topology


@dataclass(frozen=True)
class LayerReport:
    """One layer under measured loads; times are loads divided by speeds, added up over the windows."""

    layer: int
    mean: float
    largest: float
    busiest_rank: int
    lower_bound: float

    @property
    def balancedness(self) -> float:
        """Mean over largest."""
        return ratio(self.mean, self.largest)

    @property
    def gap(self) -> float:
        """How far the busiest rank is above the lower bound, as a fraction of it."""
        return self.largest / self.lower_bound - 1 if self.lower_bound > 0 else 0.0


def ratio(mean: float, largest: float) -> float:
    """Mean over largest, at most 1, and 1 where there is no load."""
    # The mean is rounded on its own, and must not seem to exceed the largest.
    return min(mean / largest, 1.0) if largest > 0 else 1.0


def rank_loads(row: list[int], loads: list[float], offsets: list[int]) -> list[float]:
    """The load of every rank: an expert's is split evenly over its replicas, and the shares added up in slot order."""
    shares = {expert: loads[expert] / row.count(expert) for expert in set(row) if expert >= 0}
    shares[-1] = 0.0
    return [in_order(shares[entry] for entry in row[start:end]) for start, end in pairwise(offsets)]


def rank_times(row: list[int], loads: list[float], offsets: list[int], topology: Topology) -> list[float]:
    """How long every rank takes: its load divided by its speed."""
    return [load / topology.speed(rank) for rank, load in enumerate(rank_loads(row, loads, offsets))]


def mean_time(loads: list[float], topology: Topology) -> float:
    """The time that all active ranks would take if they were equally busy."""
    active = [rank for rank in range(topology.num_ranks) if topology.is_active(rank)]
    return in_order(loads) / in_order(map(topology.speed, active))


def lower_bound(loads: list[float], num_slots: int, topology: Topology) -> float:
    """What the busiest rank takes at least, whatever the placement in these slots.

    All load has to be carried by the ranks with slots; and the largest share, made as small as replicas can make it, by
    the fastest of them.
    """
    slots, usable = topology.slots(num_slots), topology.usable_ranks(num_slots)
    if not in_order(loads):
        return 0.0
    speeds = [topology.speed(rank) for rank in usable]
    largest_share = least_largest_share(loads, [slots[rank] for rank in usable])
    return max(in_order(loads) / in_order(speeds), largest_share / max(speeds))


def report(layer: int, row: list[int], windows: list[list[float]], topology: Topology) -> LayerReport:
    """The report of one layer; the busiest rank is the one that takes longest in any window, the lowest of equals."""
    offsets = topology.slot_offsets(len(row))
    times = [rank_times(row, loads, offsets, topology) for loads in windows]
    _, busiest = max((time, -rank) for window in times for rank, time in enumerate(window))
    return LayerReport(
        layer=layer,
        mean=in_order(mean_time(loads, topology) for loads in windows),
        largest=in_order(max(window) for window in times),
        busiest_rank=-busiest,
        lower_bound=in_order(lower_bound(loads, len(row), topology) for loads in windows),
    )
