"""How many replicas each expert gets. SPEC.md, "Replication"."""

from __future__ import annotations


def can_be_held_apart(counts: list[int], rooms: list[int]) -> bool:
    """Whether ranks of these rooms can hold so many replicas of each expert, no two of one expert on a rank.

    The replicas of each expert beyond its k-th must find room outside the k ranks of the most room, for every k: the
    condition of Gale and Ryser.
    """
    rooms = sorted(rooms, reverse=True)
    # Beyond the largest count there are no replicas left, and so room for them.
    last = min(len(rooms), max(counts, default=0))
    return all(sum(max(count - k, 0) for count in counts) <= sum(rooms[k:]) for k in range(last + 1))


def replica_counts(loads: list[float], rooms: list[int]) -> list[int]:
    """The number of replicas of each expert, for ranks with so many slots each.

    One for each, and then one more to the expert of the largest share again and again, as long as replicas can be held
    apart. Ties go to the lower expert; among experts without load to the one with the fewest replicas first.

    Raises:
        ValueError: fewer slots than experts.
    """
    counts = [1] * len(loads)
    if not can_be_held_apart(counts, rooms):
        raise ValueError(f"{sum(rooms)} slots on active ranks are too few for {len(loads)} experts")
    # What can not be held apart can not be so with more replicas of others either.
    growing = set(range(len(loads)))
    while growing:
        expert = min(growing, key=lambda one: precedence(loads[one], counts[one], one))
        more = [count + (e == expert) for e, count in enumerate(counts)]
        if can_be_held_apart(more, rooms):
            counts = more
        else:
            growing.remove(expert)
    return counts


def precedence(load: float, count: int, expert: int) -> tuple[float, int, int]:
    """By which the next replica is given; the smallest is served."""
    return (-load / count, 0 if load > 0 else count, expert)


def least_largest_share(loads: list[float], rooms: list[int]) -> float:
    """The largest load of one replica, made as small as replicas held apart can make it."""
    counts = replica_counts(loads, rooms)
    return max((load / count for load, count in zip(loads, counts, strict=True)), default=0.0)
