"""Replicas into ranks. SPEC.md, "Packing"."""

from __future__ import annotations

from dataclasses import replace

from expert_placement_spec.balance.homes import ranks_of_nodes
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.replication import can_be_held_apart, replica_counts


def pack(problem: Problem, counts: list[int]) -> list[int]:
    """A row with so many replicas of each expert, no two of one expert on a rank.

    The experts come in descending order of their shares, lower ids first; each replica goes to the node that has the
    fewest of its expert, and there to the rank that would be done first, the lowest of equals. A rank is passed over
    where what remains could no longer be held apart.
    """
    topology = problem.topology
    room = dict(zip(problem.usable, problem.rooms, strict=True))
    held: dict[int, list[int]] = {rank: [] for rank in problem.usable}
    load = dict.fromkeys(problem.usable, 0.0)
    shares = [total / count for total, count in zip(problem.summed, counts, strict=True)]
    order = sorted(range(problem.num_experts), key=lambda expert: (-shares[expert], expert))
    for position, expert in enumerate(order):
        rest = [counts[later] for later in order[position + 1 :]]
        chosen: list[int] = []
        for replica in range(counts[expert]):
            here = [topology.node_of(rank) for rank in chosen]
            free = [rank for rank in problem.usable if room[rank] and rank not in chosen]
            free.sort(
                key=lambda rank: (
                    here.count(topology.node_of(rank)),
                    (load[rank] + shares[expert]) / topology.speed(rank),
                    rank,
                )
            )
            missing = counts[expert] - replica - 1
            rank = next(rank for rank in free if leaves_room(rest, room, [*chosen, rank], missing))
            chosen.append(rank)
        for rank in chosen:
            held[rank].append(expert)
            room[rank] -= 1
            load[rank] += shares[expert]
    return written(problem, held)


def pack_nodes(problem: Problem, begins: list[int]) -> list[int]:
    """A row in which every node by itself replicates and packs the experts that begin there."""
    row = [-1] * problem.num_slots
    for node, ranks in ranks_of_nodes(problem).items():
        here = [expert for expert in range(problem.num_experts) if begins[expert] == node]
        active = [rank in ranks for rank in range(problem.topology.num_ranks)]
        loads = [problem.summed[expert] for expert in here]
        alone = Problem([loads], problem.num_slots, replace(problem.topology, active=active))
        for slot, entry in enumerate(pack(alone, replica_counts(loads, alone.rooms))):
            if entry >= 0:
                row[slot] = here[entry]
    return row


def leaves_room(rest: list[int], room: dict[int, int], chosen: list[int], missing: int) -> bool:
    """Whether the other experts can be held apart once this one is on the chosen ranks and as many more as it needs.

    Of those, the ranks with the most room are the best choice.
    """
    others = sorted((rank for rank in room if rank not in chosen), key=lambda rank: -room[rank])
    taken = [*chosen, *others[:missing]]
    left = [room[rank] - (rank in taken) for rank in room]
    return len(others) >= missing and min(left) >= 0 and can_be_held_apart(rest, left)


def written(problem: Problem, held: dict[int, list[int]]) -> list[int]:
    """The row of a placement from what each rank holds: the experts ascending, empty slots last."""
    row = [-1] * problem.num_slots
    for rank, experts in held.items():
        for slot, expert in enumerate(sorted(experts), problem.offsets[rank]):
            row[slot] = expert
    return row
