"""The best placement of a tiny layer, by looking at all of them. SPEC.md, "Balance".

It knows nothing of the rules by which others plan or bound, and is what those are checked against.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from math import comb, prod
from typing import Any

import numpy as np

MOST_LAYOUTS = 20_000
"""Beyond this many layouts a layer is not tiny."""

Layouts = np.ndarray[Any, Any]


def is_tiny(num_experts: int, rooms: list[int]) -> bool:
    """Whether all layouts can be looked at."""
    return prod(sum(comb(num_experts, held) for held in range(room + 1)) for room in rooms) <= MOST_LAYOUTS


@cache
def layouts(num_experts: int, rooms: tuple[int, ...]) -> Layouts:
    """Every choice of experts for each rank that leaves none out: the share of each expert's load on each rank."""
    held_by_rank = [
        [held for size in range(room + 1) for held in combinations(range(num_experts), size)] for room in rooms
    ]
    holds = [
        [[expert in held for expert in range(num_experts)] for held in layout]
        for layout in product(*held_by_rank)
        if len(set().union(*layout)) == num_experts
    ]
    matrix: Layouts = np.array(holds, dtype=np.float64).reshape(len(holds), len(rooms), num_experts)
    shares: Layouts = matrix / matrix.sum(axis=1, keepdims=True)
    return shares


def least_time(windows: list[list[float]], rooms: list[int], speeds: list[float]) -> float:
    """The least time of the busiest rank, added up over the windows, without two replicas of an expert on a rank."""
    shares = layouts(len(windows[0]), tuple(rooms))
    if not windows[0]:
        return 0.0
    times = [(shares @ np.array(loads) / np.array(speeds)).max(axis=1) for loads in windows]
    return float(np.sum(times, axis=0).min())


def least_share(loads: list[float], rooms: list[int]) -> float:
    """The least that the largest share of a load can be."""
    if not loads:
        return 0.0
    shares = layouts(len(loads), tuple(rooms))
    return float((shares * np.array(loads)).max(axis=(1, 2)).min())
