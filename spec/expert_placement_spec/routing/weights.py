"""How much of its expert each replica should serve. SPEC.md, "Weights of replicas"."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expert_placement_spec.placement.topology import Topology


NEGLIGIBLE = 1e-14
"""What rounding leaves of a load, or of a rank's room, as a part of it."""


def least_largest_time(row: Sequence[int], load: Sequence[float], offsets: Sequence[int], topology: Topology) -> float:
    """The least time of the busiest rank, whatever parts of its expert each replica serves.

    What some ranks alone can serve they have to serve: so no split is done before the slowest set of ranks, and by
    Hall's theorem for flows there is one that is done then.
    """
    hosts = hosts_of(row, len(load), offsets)
    holding = sorted(set().union(*hosts)) if hosts else []
    times = [0.0]
    for number in range(1, len(holding) + 1):
        for ranks in combinations(holding, number):
            times.append(time_of_set(set(ranks), hosts, load, topology))
    return max(times)


def time_of_set(ranks: set[int], hosts: list[set[int]], load: Sequence[float], topology: Topology) -> float:
    """The time that some ranks take together for the load that they alone hold."""
    alone = sum(load[expert] for expert, own in enumerate(hosts) if own <= ranks)
    return alone / sum(topology.speed(rank) for rank in ranks)


def hosts_of(row: Sequence[int], num_experts: int, offsets: Sequence[int]) -> list[set[int]]:
    """The ranks that hold each expert."""
    ranks = [rank for rank in range(len(offsets) - 1) for _ in range(offsets[rank], offsets[rank + 1])]
    return [{rank for rank, entry in zip(ranks, row, strict=True) if entry == expert} for expert in range(num_experts)]


def replica_weights(
    row: Sequence[int], load: Sequence[float], offsets: Sequence[int], topology: Topology
) -> list[float]:
    """Parts with which the busiest rank is done as early as can be: a flow of all load within that time.

    Each expert's load is served in whole by whoever has room, over replicas and back over what others could serve
    elsewhere, as long as there is a way.
    """
    hosts = hosts_of(row, len(load), offsets)
    time = least_largest_time(row, load, offsets, topology)
    room = [time * topology.speed(rank) for rank in range(len(offsets) - 1)]
    served = [dict.fromkeys(sorted(own), 0.0) for own in hosts]
    capacity = list(room)
    for expert, rest in enumerate(load):
        while rest > load[expert] * NEGLIGIBLE and (way := _way(expert, served, room, capacity, load)) is not None:
            amount = min(rest, room[way[-1][1]], *(served[of][rank] for of, rank in _backwards(way)))
            rest -= amount
            room[way[-1][1]] -= amount
            for of, rank in way:
                served[of][rank] += amount
            for of, rank in _backwards(way):
                served[of][rank] -= amount
        if rest > 0:
            # What rounding has left without room: where it takes least.
            times = {rank: (capacity[rank] - room[rank] + rest) / topology.speed(rank) for rank in served[expert]}
            rank = min(times, key=lambda one: (times[one], one))
            served[expert][rank] += rest
            room[rank] -= rest
    return [_part(entry, slot, row, served, offsets) for slot, entry in enumerate(row)]


Way = list[tuple[int, int]]
"""Experts and the rank that each of them is served more by; what it takes there is taken from the next expert."""


def _way(
    expert: int, served: list[dict[int, float]], room: list[float], capacity: list[float], load: Sequence[float]
) -> Way | None:
    """A shortest way from an expert to a rank with room."""
    ways: list[Way] = [[(expert, rank)] for rank in served[expert]]
    seen = set(served[expert])
    for way in ways:
        rank = way[-1][1]
        if room[rank] > capacity[rank] * NEGLIGIBLE:
            return way
        for other, own in enumerate(served):
            if own.get(rank, 0.0) > load[other] * NEGLIGIBLE:
                for beyond in own:
                    if beyond not in seen:
                        seen.add(beyond)
                        ways.append([*way, (other, beyond)])
    return None


def _backwards(way: Way) -> Way:
    """What each expert on the way is served less, and by whom: by the rank that the one before it takes."""
    return [(other, rank) for (_, rank), (other, _) in pairwise(way)]


def _part(entry: int, slot: int, row: Sequence[int], served: list[dict[int, float]], offsets: Sequence[int]) -> float:
    """The part of a slot: of its rank's flow an equal one for each replica there, and without any load of all."""
    if entry < 0:
        return 0.0
    total = sum(served[entry].values())
    if total <= 0:
        return 1 / list(row).count(entry)
    rank = next(rank for rank in range(len(offsets) - 1) if slot < offsets[rank + 1])
    alike = list(row[offsets[rank] : offsets[rank + 1]]).count(entry)
    return served[entry][rank] / total / alike
