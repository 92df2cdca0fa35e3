"""The reference model of the field's own algorithm, DeepSeek's EPLB. SPEC.md, "The policy `deepseek`".

Shares and sums of groups are float32, sums of packs float64 sums of float32 items; sorts are stable and descending, and
ties go to the lower index. That is the algorithm as SGLang runs it, with a stable sort.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from expert_placement_spec.placement.topology import Topology


def what_it_needs(num_experts: int, num_slots: int, topology: Topology, num_groups: int) -> str:
    """Why the algorithm does not apply; empty where it does."""
    _, nodes = hierarchy(num_groups, topology.num_nodes)
    if num_slots % topology.num_ranks:
        return f"num_slots={num_slots} does not divide by num_ranks={topology.num_ranks}"
    if num_experts % num_groups:
        return f"num_experts={num_experts} does not divide by num_groups={num_groups}"
    if topology.num_ranks % nodes:
        return f"num_ranks={topology.num_ranks} does not divide by num_nodes={nodes}"
    if num_slots < num_experts:
        return f"num_slots={num_slots} is below num_experts={num_experts}"
    ranks = range(topology.num_ranks)
    is_even = len(set(topology.slots(num_slots))) == 1 and len({topology.speed(rank) for rank in ranks}) == 1
    if not (is_even and all(topology.is_active(rank) for rank in ranks)):
        return "the ranks have unequal slots or speeds, or are not all active"
    return ""


def hierarchy(num_groups: int, num_nodes: int) -> tuple[int, int]:
    """Groups and nodes as the algorithm takes them: one of each where the nodes do not divide the groups."""
    return (num_groups, num_nodes) if num_groups % num_nodes == 0 else (1, 1)


def place(loads: list[float], num_slots: int, topology: Topology, num_groups: int) -> list[int]:
    """The expert of each slot of one layer."""
    if not loads:
        return [-1] * num_slots
    weights = singles(loads)
    groups, nodes = hierarchy(num_groups, topology.num_nodes)
    size = len(weights) // groups

    # Groups of experts are packed into nodes.
    sums = [np.float32(in_order(map(float, weights[group * size : (group + 1) * size]))) for group in range(groups)]
    groups_of_node = contents(pack(sums, nodes))
    row = []
    for node in range(nodes):
        experts = [group * size + member for group in groups_of_node[node] for member in range(size)]

        # Inside a node experts are replicated, and replicas packed into its ranks.
        here = [weights[expert] for expert in experts]
        items, counts = replicate(here, num_slots // nodes)
        shares = [here[item] / np.float32(counts[item]) for item in items]
        for rank in contents(pack(shares, topology.num_ranks // nodes)):
            row += [experts[items[index]] for index in rank]
    return row


MOST, LEAST, MOST_EXPONENT = 2.0**127, 2.0**-100, 1000
"""The largest sum, and the smallest largest load, in the range of float32; and the largest power of a scale."""


def singles(loads: list[float]) -> list[np.float32]:
    """The loads as float32: as they are, or times a power of two where they are out of its range."""
    largest = max(loads)
    scale = 0
    # In order: newer versions of Python add up floats in another way.
    total = in_order(loads)
    if largest > 0 and not (total <= MOST and largest >= LEAST):
        scale = min(-math.frexp(largest)[1], MOST_EXPONENT)
    return [np.float32(math.ldexp(load, scale)) for load in loads]


def replicate(weights: list[np.float32], num_slots: int) -> tuple[list[int], list[int]]:
    """The item of each slot, each item once and then replicas as they are given, and the replicas of each item."""
    items, counts = list(range(len(weights))), [1] * len(weights)
    while len(items) < num_slots:
        largest = max(range(len(weights)), key=lambda item: (weights[item] / np.float32(counts[item]), -item))
        items.append(largest)
        counts[largest] += 1
    return items, counts


def pack(weights: list[np.float32], num_packs: int) -> list[tuple[int, int]]:
    """For each weight its pack and its position there: the heaviest first, each to the lightest pack with room."""
    room = len(weights) // num_packs if num_packs else 0
    if room == 1:
        return [(index, 0) for index in range(num_packs)]
    places = [(0, 0)] * len(weights)
    sums, sizes = [0.0] * num_packs, [0] * num_packs
    for index in sorted(range(len(weights)), key=lambda index: -weights[index]):
        lightest = min((number for number in range(num_packs) if sizes[number] < room), key=lambda number: sums[number])
        places[index] = (lightest, sizes[lightest])
        sums[lightest] += float(weights[index])
        sizes[lightest] += 1
    return places


def contents(places: list[tuple[int, int]]) -> list[list[int]]:
    """The items of each pack by their positions, from the place of each item."""
    packs: list[list[int]] = [[] for _ in range(max((pack for pack, _ in places), default=-1) + 1)]
    for _, index in sorted((place, index) for index, place in enumerate(places)):
        packs[places[index][0]].append(index)
    return packs
