"""Groups of experts at home on nodes, and what is served elsewhere. SPEC.md, "Nodes and groups"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expert_placement_spec.floats import in_order

if TYPE_CHECKING:
    from expert_placement_spec.balance.problem import Problem
    from expert_placement_spec.placement.topology import Topology

MOST_OFF_NODE = 0.15
"""Which part of a layer's load may be served off node without other word."""


def are_kept_together(topology: Topology, num_groups: int) -> bool:
    """Whether groups have homes: there are several nodes, and they divide the groups."""
    return topology.num_nodes > 1 and num_groups % topology.num_nodes == 0


def groups_of(num_experts: int, num_groups: int) -> list[range]:
    """The experts of each group."""
    size = num_experts // num_groups
    return [range(group * size, (group + 1) * size) for group in range(num_groups)]


def served_by_nodes(row: list[int], loads: list[float], offsets: list[int], topology: Topology) -> list[list[float]]:
    """What each node serves of each expert's load."""
    served = [[0.0] * len(loads) for _ in range(topology.num_nodes)]
    for rank in range(topology.num_ranks):
        for expert in row[offsets[rank] : offsets[rank + 1]]:
            if expert >= 0:
                served[topology.node_of(rank)][expert] += loads[expert] / row.count(expert)
    return served


def busiest_homes(served: list[list[float]], num_groups: int) -> list[int]:
    """For each group the node that serves the most of its load, the lowest of equals."""
    of_groups = groups_of(len(served[0]), num_groups)
    return [
        max(range(len(served)), key=lambda node: (in_order(served[node][expert] for expert in group), -node))
        for group in of_groups
    ]


def part_off_homes(served: list[list[float]], homes: list[int]) -> float:
    """Which part of all load other nodes serve than the home of each expert; 0 where there is no load."""
    total = in_order(map(in_order, served))
    elsewhere = in_order(
        load for node, loads in enumerate(served) for expert, load in enumerate(loads) if homes[expert] != node
    )
    return elsewhere / total if total > 0 else 0.0


def off_node(row: list[int], loads: list[float], offsets: list[int], topology: Topology, num_groups: int) -> float:
    """Which part of a layer's load is served off node, where groups are at home with the nodes that serve them most."""
    if not loads:
        return 0.0
    served = served_by_nodes(row, loads, offsets, topology)
    return part_off_homes(served, of_experts(busiest_homes(served, num_groups), len(loads)))


def of_experts(homes: list[Any], num_experts: int) -> list[Any]:
    """The home of each expert, or what else is said of its group, from those of the groups."""
    return [home for home in homes for _ in range(num_experts // len(homes))]


@dataclass(frozen=True)
class Homes:
    """Where experts are at home, which of them are elsewhere all the same, and what may be served off node."""

    nodes: list[int]
    """The home of each expert."""
    guests: frozenset[int]
    """Experts without a replica at home."""
    most_off_node: float
    """What a step may lead to."""
    limit: float
    """What is allowed, however much was off node before."""

    def allow(self, problem: Problem, row: list[int]) -> bool:
        """Whether every expert but the guests has a replica at home, and no more than the limit is served elsewhere."""
        return self.guests >= away(problem, row, self.nodes) and self.off(problem, row) <= self.most_off_node

    def off(self, problem: Problem, row: list[int]) -> float:
        """The part of the load that the row serves off node."""
        return part_off_homes(served_by_nodes(row, problem.summed, problem.offsets, problem.topology), self.nodes)


@dataclass(frozen=True)
class PossibleHomes:
    """What is known of homes that somebody else chose: for each group the nodes that hold all of it."""

    nodes: list[list[int]]
    limit: float
    """What a step may lead to."""

    def allow(self, problem: Problem, row: list[int]) -> bool:
        """Whether every group is as much at home as it has to be, whichever of its nodes is its home."""
        whole = whole_on(problem, row, groups_of(problem.num_experts, len(self.nodes)))
        is_kept = all(set(before) <= set(now) for before, now in zip(self.nodes, whole, strict=True))
        return is_kept and self.off(problem, row) <= self.limit

    def off(self, problem: Problem, row: list[int]) -> float:
        """The part of the load that the row serves off node at most: each group is where the least of it is served."""
        served = served_by_nodes(row, problem.summed, problem.offsets, problem.topology)
        worst = [
            min(nodes, key=lambda node: in_order(served[node][expert] for expert in group), default=-1)
            for group, nodes in zip(groups_of(problem.num_experts, len(self.nodes)), self.nodes, strict=True)
        ]
        return part_off_homes(served, of_experts(worst, problem.num_experts))


def whole_on(problem: Problem, row: list[int], groups: list[range]) -> list[list[int]]:
    """For each group the nodes that have replicas of all its experts."""
    nodes = range(problem.topology.num_nodes)
    missing = [away(problem, row, [node] * problem.num_experts) for node in nodes]
    return [[node for node in nodes if missing[node].isdisjoint(group)] for group in groups]


def away(problem: Problem, row: list[int], nodes: list[int]) -> frozenset[int]:
    """The experts that have no replica on these nodes, one for each expert."""
    here = {(entry, problem.topology.node_of(problem.rank_of[slot])) for slot, entry in enumerate(row)}
    return frozenset(expert for expert, node in enumerate(nodes) if (expert, node) not in here)


def room_of_nodes(problem: Problem) -> dict[int, int]:
    """How many slots the usable ranks of each node have; nodes without any are left out."""
    room: dict[int, int] = {}
    for rank, slots in zip(problem.usable, problem.rooms, strict=True):
        node = problem.topology.node_of(rank)
        room[node] = room.get(node, 0) + slots
    return room


def have_room(problem: Problem, num_groups: int) -> bool:
    """Whether every group finds a node with room for all of it: how many are full is the same in whatever order."""
    size = problem.num_experts // num_groups
    return sum(room // size for room in room_of_nodes(problem).values()) >= num_groups


def settle(problem: Problem, num_groups: int, asked: float | None) -> tuple[Homes, list[int]]:
    """Homes from nothing, and the node on which each expert begins.

    The heaviest group comes first, to the node with room for all of it that is done first with it. Where no node has
    room for a whole group, as many of its heaviest experts as there is room for are on the node with the most room, and
    the others are guests on the nodes with the most room once all groups have been there.

    Raises:
        ValueError: guests that have more load than the limit that was asked for.
    """
    room, busy = room_of_nodes(problem), dict.fromkeys(room_of_nodes(problem), 0.0)
    speed = {
        node: in_order(problem.topology.speed(rank) for rank in of) for node, of in ranks_of_nodes(problem).items()
    }
    weight = problem.summed
    groups = groups_of(problem.num_experts, num_groups)
    homes, begins = [0] * problem.num_experts, [0] * problem.num_experts
    guests: list[int] = []
    for group in sorted(groups, key=lambda group: (-in_order(weight[expert] for expert in group), group.start)):
        load = in_order(weight[expert] for expert in group)
        fitting = [node for node in room if room[node] >= len(group)]
        if fitting:
            home = min(fitting, key=lambda node: ((busy[node] + load) / speed[node], node))
        else:
            home = min(room, key=lambda node: (-room[node], node))
        for expert in sorted(group, key=lambda expert: (-weight[expert], expert)):
            homes[expert] = begins[expert] = home
            if room[home] == 0:
                guests.append(expert)
                continue
            room[home] -= 1
            busy[home] += weight[expert]
    for expert in guests:
        begins[expert] = min(room, key=lambda node: (-room[node], node))
        room[begins[expert]] -= 1
    if not guests:
        homes = begins = exchanged(problem, groups, homes)
    total = in_order(weight)
    off = in_order(weight[expert] for expert in guests) / total if total > 0 else 0.0
    if asked is not None and off > asked:
        raise ValueError(
            f"max_off_node={asked} is out of reach: homes have too little room, and {off} of a layer is served off node"
        )
    limit = max(MOST_OFF_NODE if asked is None else asked, off)
    return Homes(homes, frozenset(guests), limit, limit), begins


def ranks_of_nodes(problem: Problem) -> dict[int, list[int]]:
    """The usable ranks of each node that has any."""
    ranks: dict[int, list[int]] = {}
    for rank in problem.usable:
        ranks.setdefault(problem.topology.node_of(rank), []).append(rank)
    return ranks


def exchanged(problem: Problem, groups: list[range], homes: list[int]) -> list[int]:
    """Homes after nodes exchanged groups, or gave one away, as long as that lets the busiest node be done earlier."""
    room = room_of_nodes(problem)
    speed = {
        node: in_order(problem.topology.speed(rank) for rank in of) for node, of in ranks_of_nodes(problem).items()
    }

    def largest(homes: list[int]) -> float:
        of_nodes = dict.fromkeys(speed, 0.0)
        for expert, home in enumerate(homes):
            of_nodes[home] += problem.summed[expert]
        return max(load / speed[node] for node, load in of_nodes.items())

    while True:
        others = []
        for first in groups:
            for second in groups:
                other = list(homes)
                other[first.start : first.stop] = homes[second.start : second.stop]
                other[second.start : second.stop] = homes[first.start : first.stop]
                others.append(other)
            for node in room:
                other = list(homes)
                other[first.start : first.stop] = [node] * len(first)
                if other.count(node) <= room[node]:
                    others.append(other)
        better = min(others, key=largest)
        if largest(better) >= largest(homes):
            return homes
        homes = better


def settled(problem: Problem, row: list[int], num_groups: int, asked: float | None) -> Problem:
    """The problem with the homes that a placement which is there has already, and what may be served off node then."""
    served = served_by_nodes(row, problem.summed, problem.offsets, problem.topology)
    nodes = of_experts(busiest_homes(served, num_groups), problem.num_experts)
    limit = MOST_OFF_NODE if asked is None else asked
    most_off_node = max(limit, part_off_homes(served, nodes))
    return replace(problem, homes=Homes(nodes, away(problem, row, nodes), most_off_node, limit))
