"""Calls of `rebalance` to be looked at. SPEC.md, "How placements are checked"."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from expert_placement_spec.balance import deepseek, homes
from expert_placement_spec.balance.problem import Problem
from expert_placement_spec.balance.view import BalanceCase
from expert_placement_spec.cases import Domain
from expert_placement_spec.placement.domain import NUMBERS, rows, skewed, spread, topologies
from expert_placement_spec.placement.reference import EMPTY
from expert_placement_spec.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPEEDS = (1.0, 2.0, 0.5)
GAINS = (None, None, 0.05, None, None, 0.3, None)
"""What a move must bring, from one case with a previous placement to the next."""
LIMITS = (None, 0.0, 0.2, 0.5, 1.0)
"""Which part may be served off node, from one case with homes to the next."""


ROUNDED = (
    ([[16777217, 8388609, 1, 16777216]], 6, Topology(2), 1),
    ([[16777218, 8388609, 16777216, 1, 5, 16777215, 16777215, 8388609]], 12, Topology(4, 2), 1),
    ([[1, 0.3, 0.3, 0.3, 0.3, 1]], 8, Topology(4), 2),
    ([[0.1, 0.3]], 8, Topology(2), 1),
    ([[1, 0.2, 0.6, 0.2]], 8, Topology(2), 2),
    ([[5, 5], [16777216, 16777217]], 2, Topology(2), 2),
    ([[16777215, 16777217], [8388609, 8388609], [16777215, 16777216]], 2, Topology(1), 1),
)
"""Loads of one layer, in one or several windows, of which what float32 rounds, and where, decides what is planned.

With them the slots, the ranks and the groups.
"""


@dataclass(frozen=True)
class Block:
    """Calls of one kind on ranks of these slots: every integer load up to a bound, for every previous row if any."""

    kind: str
    slots: tuple[int, ...]
    num_experts: int
    largest_load: int
    stride: int = 1
    """Of previous rows, only every so many are taken."""


def loads_up_to(num_experts: int, largest: int) -> Iterator[list[float]]:
    """Every load of integers up to a bound."""
    for load in product(range(largest + 1), repeat=num_experts):
        yield list(map(float, load))


def cases(block: Block) -> Iterator[BalanceCase]:
    """Every call of the block."""
    yield from {
        "nothing": from_nothing,
        "nodes": over_nodes,
        "layers": of_two_layers,
        "windows": of_two_windows,
        "deepseek": as_deepseek,
        "rounded": where_rounding_decides,
        "previous": from_previous,
        "failure": after_a_failure,
        "groups": with_homes,
        "homes": from_homes,
        "capacity": without_slots,
    }[block.kind](block)


def from_nothing(block: Block) -> Iterator[BalanceCase]:
    """Each load on equal ranks, on ranks of other speeds, and where the others suffice without the last rank."""
    ranks, total = len(block.slots), sum(block.slots)
    others = [Topology(ranks, 1, block.slots), Topology(ranks, ranks, block.slots, SPEEDS[:ranks])]
    if sum(block.slots[:-1]) >= block.num_experts and ranks > 1:
        others.append(Topology(ranks, 1, block.slots, None, [True] * (ranks - 1) + [False]))
    for load in loads_up_to(block.num_experts, block.largest_load):
        for topology in others:
            yield BalanceCase([[load]], total, topology)


def over_nodes(block: Block) -> Iterator[BalanceCase]:
    """Each load on ranks of other speeds and of one, of one node and of two."""
    ranks, total = len(block.slots), sum(block.slots)
    speeds = [SPEEDS[rank % len(SPEEDS)] for rank in range(ranks)]
    for load in loads_up_to(block.num_experts, block.largest_load):
        for nodes, of_ranks in product((1, 2), (speeds, None)):
            yield BalanceCase([[load]], total, Topology(ranks, nodes, block.slots, of_ranks))


def of_two_layers(block: Block) -> Iterator[BalanceCase]:
    """Each load and the next one as two layers."""
    topology = Topology(len(block.slots), 1, block.slots)
    for pair in pairwise(loads_up_to(block.num_experts, block.largest_load)):
        yield BalanceCase([list(pair)], sum(block.slots), topology)


def of_two_windows(block: Block) -> Iterator[BalanceCase]:
    """Each pair of loads as two windows."""
    topology = Topology(len(block.slots), 1, block.slots)
    loads = list(loads_up_to(block.num_experts, block.largest_load))
    for first, second in product(loads, loads):
        yield BalanceCase([[first], [second]], sum(block.slots), topology)


def as_deepseek(block: Block) -> Iterator[BalanceCase]:
    """Each load under both policies, with every number of nodes and of groups that the experts divide by."""
    ranks, total, number = len(block.slots), sum(block.slots), 0
    for load in loads_up_to(block.num_experts, block.largest_load):
        for nodes, groups in product(range(1, ranks + 1), range(1, block.num_experts + 1)):
            topology = Topology(ranks, nodes)
            if not deepseek.what_it_needs(block.num_experts, total, topology, groups):
                for policy in ("deepseek", "balanced"):
                    number += 1
                    # That ranks are equal may also be spelled out.
                    spelled = Topology(ranks, nodes, [total // ranks] * ranks, [2.0] * ranks, [True] * ranks)
                    yield BalanceCase([[load]], total, topology if number % 5 else spelled, policy, groups)


def where_rounding_decides(block: Block) -> Iterator[BalanceCase]:  # noqa: ARG001
    """Each of `ROUNDED` under both policies, from nothing and from the plan of `deepseek` a slot further on."""
    for windows, num_slots, topology, groups in ROUNDED:
        loads = [[list(map(float, window))] for window in windows]
        row = deepseek.place(Problem([window for (window,) in loads], 0, topology).summed, num_slots, topology, groups)
        for policy in ("deepseek", "balanced"):
            yield BalanceCase(loads, num_slots, topology, policy, groups)
            yield BalanceCase(loads, num_slots, topology, policy, groups, previous=[[*row[-1:], *row[:-1]]])


def previous_rows(block: Block) -> Iterator[list[int]]:
    """The previous rows of a block."""
    for number, row in enumerate(rows(block.num_experts, sum(block.slots))):
        if number % block.stride == 0:
            yield row


def from_previous(block: Block) -> Iterator[BalanceCase]:
    """Each previous row with each load, without a budget and with budgets of 1 to 3 in turn."""
    topology = Topology(len(block.slots), 1, block.slots)
    for number, row in enumerate(previous_rows(block)):
        for load in loads_up_to(block.num_experts, block.largest_load):
            budget = (None, 1, None, 2, 3)[number % 5]
            gain = GAINS[number % len(GAINS)]
            number += 1
            yield BalanceCase([[load]], sum(block.slots), topology, previous=[row], max_moves=budget, min_gain=gain)


def after_a_failure(block: Block) -> Iterator[BalanceCase]:
    """Each previous row with each choice of active ranks that can hold all experts; loads grow with the expert's id.

    On one node, and in groups on nodes.
    """
    ranks, total, number = len(block.slots), sum(block.slots), 0
    load = [float(expert) for expert in range(block.num_experts)]
    for nodes, groups in [(1, 1), *hierarchies(ranks, block.num_experts)]:
        for row in previous_rows(block):
            for active in product([True, False], repeat=ranks):
                topology = Topology(ranks, nodes, block.slots, None, active if any(active) else None)
                problem = Problem([load], total, topology)
                if all(active) or not any(active) or len(problem.usable_slots) < block.num_experts:
                    continue
                number += 1
                gain = GAINS[number % len(GAINS)]
                yield BalanceCase([[load]], total, topology, "balanced", groups, [row], min_gain=gain)


def hierarchies(num_ranks: int, num_experts: int) -> list[tuple[int, int]]:
    """Every number of nodes and of groups of which groups have homes."""
    numbers = product(range(2, num_ranks + 1), range(2, num_experts + 1))
    return [(nodes, groups) for nodes, groups in numbers if groups % nodes == 0 and num_experts % groups == 0]


def with_homes(block: Block) -> Iterator[BalanceCase]:
    """Each load in groups on nodes, on equal ranks, on ranks of other speeds, and without the last rank, if that does.

    Every other load has a second window, and where nodes have room for whole groups, limits are asked for in turn.
    """
    ranks, total = len(block.slots), sum(block.slots)
    number = 0
    for nodes, groups in hierarchies(ranks, block.num_experts):
        for load in loads_up_to(block.num_experts, block.largest_load):
            for speeds, active in product((None, SPEEDS[:ranks]), (None, [True] * (ranks - 1) + [False])):
                number += 1
                if speeds is not None and (ranks > len(SPEEDS) or number % 3):
                    continue
                topology = Topology(ranks, nodes, block.slots, speeds, active)
                problem = Problem([load], total, topology)
                if len(problem.usable_slots) >= block.num_experts:
                    limit = LIMITS[number % len(LIMITS)] if homes.have_room(problem, groups) else None
                    windows = [[load], [load[::-1]]] if number % 2 else [[load]]
                    yield BalanceCase(windows, total, topology, num_groups=groups, max_off_node=limit)


def from_homes(block: Block) -> Iterator[BalanceCase]:
    """Each previous row with each load in groups on nodes, with budgets and limits in turn."""
    ranks, total = len(block.slots), sum(block.slots)
    number = 0
    for nodes, groups in hierarchies(ranks, block.num_experts):
        topology = Topology(ranks, nodes, block.slots)
        for row in previous_rows(block):
            for load in loads_up_to(block.num_experts, block.largest_load):
                number += 1
                limit = LIMITS[number % len(LIMITS)]
                if limit is not None and not homes.have_room(Problem([load], total, topology), groups):
                    continue
                budget, gain = (None, 1, 2)[number % 3], GAINS[number % len(GAINS)]
                yield BalanceCase([[load]], total, topology, "balanced", groups, [row], budget, limit, gain)


def without_slots(block: Block) -> Iterator[BalanceCase]:
    """Each load on ranks that are given no slots of their own, of other speeds, and without the last or the first."""
    ranks, total = len(block.slots), sum(block.slots)
    others = [
        Topology(ranks, speeds=SPEEDS[:ranks]),
        Topology(ranks, active=[True] * (ranks - 1) + [False]),
        Topology(ranks, active=[False] + [True] * (ranks - 1)),
    ]
    fitting = [one for one in others if len(Problem([], total, one).usable_slots) >= block.num_experts]
    for load in loads_up_to(block.num_experts, block.largest_load):
        for topology in fitting:
            yield BalanceCase([[load]], total, topology)


def quick_blocks() -> list[Block]:
    """The smallest domain."""
    shapes = ((1, 1), (2, 2), (2, 2, 2), (0, 1, 3))
    return [
        *(Block("nothing", slots, e, 2) for slots in shapes for e in range(min(sum(slots), 3) + 1)),
        Block("nothing", (3, 3), 4, 2),
        Block("nothing", (2, 2, 2), 4, 1),
        Block("nodes", (1, 1, 1, 1, 1), 2, 7),
        Block("nodes", (2, 1, 2, 1), 3, 2),
        Block("nodes", (1, 2, 3), 3, 2),
        Block("layers", (2, 2), 3, 2),
        Block("windows", (2, 2), 3, 1),
        Block("deepseek", (2, 2), 4, 2),
        Block("deepseek", (3, 3), 4, 1),
        Block("deepseek", (1, 1, 1, 1), 4, 1),
        Block("rounded", (), 0, 0),
        Block("previous", (2, 2), 2, 2, 3),
        Block("previous", (2, 2), 3, 1, 3),
        Block("previous", (1, 1, 2), 3, 1, 5),
        Block("failure", (2, 2), 2, 0),
        Block("failure", (2, 1, 2), 3, 0, 3),
        Block("groups", (1, 1, 1, 1), 2, 3),
        Block("groups", (2, 2), 2, 2),
        Block("groups", (3, 3), 4, 2),
        Block("groups", (2, 3), 4, 2),
        Block("groups", (1, 3), 4, 1),
        Block("groups", (2, 1, 1, 2), 4, 1),
        Block("groups", (3, 3, 1), 4, 1),
        Block("groups", (2, 1, 2), 2, 2),
        Block("homes", (2, 2), 2, 2, 3),
        Block("homes", (1, 1, 2), 2, 2, 3),
        Block("homes", (2, 3), 4, 1, 29),
        Block("capacity", (2, 2), 2, 2),
        Block("capacity", (3, 2, 2), 3, 1),
    ]


def small_blocks() -> list[Block]:
    """A minute or so of work."""
    shapes = ((1, 1), (2, 2), (1, 1, 1), (2, 2, 2), (0, 1, 3), (3, 1), (3, 3), (1, 2, 3))
    return [
        *(Block("nothing", slots, e, 3) for slots in shapes for e in range(min(sum(slots), 4) + 1)),
        Block("nodes", (1, 1, 1, 1, 1), 2, 20),
        Block("nodes", (1, 1, 1, 1, 1), 3, 6),
        Block("nodes", (2, 1, 2, 1), 3, 5),
        Block("nodes", (2, 3, 1, 2), 4, 2),
        Block("layers", (2, 2), 3, 3),
        Block("layers", (2, 2, 2), 4, 1),
        Block("windows", (2, 2), 3, 2),
        Block("windows", (2, 2, 2), 4, 1),
        Block("deepseek", (2, 2), 4, 4),
        Block("deepseek", (3, 3), 4, 3),
        Block("deepseek", (2, 2, 2), 4, 3),
        Block("deepseek", (1, 1, 1, 1), 4, 3),
        Block("deepseek", (2, 2, 2, 2), 4, 2),
        Block("rounded", (), 0, 0),
        *(Block("previous", (2, 2), e, 2) for e in range(1, 4)),
        Block("previous", (1, 1, 2), 3, 2),
        Block("previous", (2, 2, 2), 4, 1, 29),
        *(Block("failure", (2, 2), e, 0) for e in range(1, 4)),
        Block("failure", (2, 1, 2), 3, 0),
        Block("failure", (2, 2, 2), 4, 0, 7),
        Block("groups", (1, 1, 1, 1), 2, 4),
        Block("groups", (1, 1, 1, 1), 4, 2),
        *(Block("groups", slots, 2, 3) for slots in ((2, 2), (2, 2, 2), (1, 2, 1), (0, 2, 2, 1))),
        *(Block("groups", slots, 4, 3) for slots in ((2, 3), (1, 3), (3, 3), (2, 2, 2), (3, 3, 1))),
        Block("groups", (2, 1, 1, 2), 4, 2),
        Block("groups", (2, 2, 2, 2), 6, 1),
        Block("groups", (2, 2, 2), 3, 3),
        *(Block("homes", slots, 2, 3) for slots in ((2, 2), (1, 1, 2))),
        Block("homes", (1, 2, 2), 2, 2),
        Block("homes", (2, 3), 4, 1, 5),
        Block("homes", (2, 2, 2), 3, 1, 11),
        *(Block("capacity", slots, 3, 3) for slots in ((3, 3), (3, 2, 2))),
        Block("capacity", (3, 3), 4, 2),
    ]


def full_blocks() -> list[Block]:
    """Many minutes of work."""
    return [
        *small_blocks(),
        *(Block("nothing", slots, 4, 6) for slots in ((2, 2), (2, 2, 2), (3, 3), (1, 2, 3))),
        Block("nothing", (2, 2, 2), 5, 3),
        Block("nothing", (2, 2, 2), 6, 2),
        Block("windows", (2, 2), 4, 2),
        Block("deepseek", (2, 2, 2), 6, 3),
        Block("deepseek", (2, 2, 2, 2), 4, 5),
        Block("previous", (2, 2, 2), 4, 1),
        Block("previous", (2, 2, 2), 3, 2),
        Block("failure", (2, 2, 2), 4, 0),
        Block("groups", (2, 2, 2), 6, 2),
        Block("groups", (2, 2, 1, 1), 4, 3),
        Block("groups", (2, 2, 2, 2), 4, 2),
        Block("homes", (2, 3), 4, 1),
        Block("homes", (2, 2, 2), 4, 1, 5),
        Block("capacity", (4, 4), 6, 2),
    ]


@st.composite
def drawn(draw: st.DrawFn) -> BalanceCase:
    """A call with up to 4 ranks of up to 3 slots, 2 layers and 2 windows; warm starts, groups and both policies too."""
    if draw(st.integers(0, 3)) == 0:
        return draw(equal_ranks())
    topology = draw(topologies(most_ranks=4, most_slots=3))
    given = topology.slots_per_rank
    assert given is not None
    num_slots = given * topology.num_ranks if isinstance(given, int) else sum(given)
    slots = topology.slots(num_slots)
    num_experts = draw(st.integers(0, sum(slots[rank] for rank in topology.usable_ranks(num_slots))))
    loads = draw(all_loads(num_experts))
    groups = draw(st.sampled_from([groups for groups in range(1, num_experts + 1) if num_experts % groups == 0] or [1]))
    case = with_limit(draw, BalanceCase(loads, num_slots, topology, num_groups=groups))
    if num_experts and draw(st.booleans()):
        previous = [draw(full_row(num_experts, num_slots)) for _ in loads[0]]
        case = replace(case, previous=previous)
        budget = draw(st.none() | st.integers(0, 4) | st.integers(5, 40))
        # Experts that lost their last replica have to be restored within the budget.
        case = replace(case, max_moves=None if budget is None else budget + case.num_lost)
        case = replace(case, min_gain=draw(st.none() | st.sampled_from([0.0, 0.01, 0.1, 0.5])))
    return case


def with_limit(draw: st.DrawFn, case: BalanceCase) -> BalanceCase:
    """The case, often with a limit on what is served off node, where nodes have room for whole groups."""
    has_homes = case.policy == "balanced" and homes.are_kept_together(case.topology, case.num_groups)
    problem = Problem([case.loads[0][0]], case.num_slots, case.topology)
    if not has_homes or not homes.have_room(problem, case.num_groups):
        return case
    return replace(case, max_off_node=draw(st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1)))


@st.composite
def full_row(draw: st.DrawFn, num_experts: int, num_slots: int) -> list[int]:
    """A row of slots with every expert somewhere."""
    content = draw(st.lists(st.integers(EMPTY, num_experts - 1), min_size=num_slots, max_size=num_slots))
    content[:num_experts] = range(num_experts)
    return list(draw(st.permutations(content)))


@st.composite
def all_loads(draw: st.DrawFn, num_experts: int) -> Any:
    """Loads of up to 2 windows and 2 layers."""
    layer = st.lists(NUMBERS, min_size=num_experts, max_size=num_experts)
    num_layers = draw(st.integers(1, 2))
    return draw(st.lists(st.lists(layer, min_size=num_layers, max_size=num_layers), min_size=1, max_size=2))


@st.composite
def equal_ranks(draw: st.DrawFn) -> BalanceCase:
    """A call that the policy `deepseek` can answer, under either policy."""
    nodes, ranks_a_node = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    groups_a_node, group_size = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    num_ranks, num_groups = nodes * ranks_a_node, nodes * groups_a_node
    num_experts = num_groups * group_size
    num_slots = num_ranks * (-(-num_experts // num_ranks) + draw(st.integers(0, 2)))
    policy = draw(st.sampled_from(["deepseek", "balanced"]))
    case = BalanceCase(draw(all_loads(num_experts)), num_slots, Topology(num_ranks, nodes), policy, num_groups)
    case = with_limit(draw, case)
    if draw(st.integers(0, 3)) == 0:
        previous = [draw(full_row(num_experts, num_slots)) for _ in case.loads[0]]
        if policy == "deepseek":
            return replace(case, previous=previous)
        budget = draw(st.none() | st.integers(0, 4) | st.integers(5, 40))
        gain = draw(st.none() | st.sampled_from([0.0, 0.01, 0.1, 0.5]))
        return replace(case, previous=previous, max_moves=budget, min_gain=gain)
    return case


def measured(
    num_experts: int, num_slots: int, topology: Topology, num_layers: int = 1, num_windows: int = 1, **options: Any
) -> BalanceCase:
    """A call for loads like those of a model."""
    chance = random.Random(num_experts)
    loads = [[skewed(chance, num_experts) for _ in range(num_layers)] for _ in range(num_windows)]
    if options.pop("is_warm", False):
        everyone = replace(topology, active=None)
        options["previous"] = [spread(chance, num_experts, everyone, num_slots) for _ in range(num_layers)]
    return BalanceCase(loads, num_slots, topology, **options)


def alike(num_experts: int, topology: Topology) -> BalanceCase:
    """Experts of the same load, each in a slot somewhere, with nothing to be made better."""
    row = list(range(num_experts))
    random.Random(num_experts).shuffle(row)
    return BalanceCase([[[7.0] * num_experts]], num_experts, topology, previous=[row])


def real() -> dict[str, Callable[[], BalanceCase]]:
    """Calls of the sizes that models and deployments have."""
    unequal = Topology(12, 2, [8, 20, 12] * 4, [1.0, 2.0, 1.5] * 4, [rank != 4 for rank in range(12)])
    return {
        "256 experts on 288 slots of 32 ranks by `deepseek`, 8 groups, 5 layers": partial(
            measured, 256, 288, Topology(32, 4), 5, policy="deepseek", num_groups=8
        ),
        "128 experts on 144 slots of 16 ranks, 2 layers, 2 windows": partial(measured, 128, 144, Topology(16), 2, 2),
        "96 experts on 112 slots of 16 ranks, 3 windows": partial(measured, 96, 112, Topology(16), 1, 3),
        "72 experts on 96 slots of 12 ranks by `deepseek`, 2 layers, 2 windows": partial(
            measured, 72, 96, Topology(12), 2, 2, policy="deepseek"
        ),
        "300 experts on 320 slots of 32 ranks": partial(measured, 300, 320, Topology(32)),
        "130 experts on 160 slots of 12 unequal ranks of which one is out of service": partial(
            measured, 130, 160, unequal
        ),
        "256 experts in 8 groups on 320 slots of 32 ranks on 4 nodes": partial(
            measured, 256, 320, Topology(32, 4), num_groups=8
        ),
        "40 experts on 84 slots of 14 unequal ranks on 3 nodes": partial(
            measured, 40, 84, Topology(14, 3, speeds=[1.0, 3.0, 0.5, 2.0, 4.0, 1.5, 1.0] * 2)
        ),
        "60 experts on 320 ranks of one slot": partial(measured, 60, 320, Topology(320)),
        "64 experts on 90 slots of 9 ranks, from a previous placement with 17 moves": partial(
            measured, 64, 90, Topology(9, 3), is_warm=True, max_moves=17
        ),
        "64 experts in 3 layers on 90 slots of 9 ranks of which one is out of service now": partial(
            measured, 64, 90, Topology(9, 1, active=[rank != 5 for rank in range(9)]), 3, is_warm=True
        ),
        "72 experts on 96 slots of 8 ranks by `deepseek`, 2 layers, from a previous placement": partial(
            measured, 72, 96, Topology(8), 2, policy="deepseek", is_warm=True
        ),
        "288 experts of the same load on 288 slots of 24 ranks, where they are": partial(alike, 288, Topology(24)),
        "96 experts in 6 groups on 144 slots of 12 ranks on 3 nodes, from a previous placement": partial(
            measured, 96, 144, Topology(12, 3), num_groups=6, is_warm=True, max_moves=30
        ),
    }


def domains() -> dict[str, Domain]:
    """The domains by size."""
    tail = "two layers, two windows, both policies, groups, previous tables and failed ranks"
    return {
        "quick": Domain(
            f"every integer load up to 1 or 2 of up to 4 experts on 2 to 6 slots; {tail}", quick_blocks, cases
        ),
        "small": Domain(f"every integer load up to 3 of up to 4 experts on 2 to 6 slots; {tail}", small_blocks, cases),
        "full": Domain(f"every integer load up to 6 of 4 experts, 3 of 5, 2 of 6; {tail}", full_blocks, cases),
    }
