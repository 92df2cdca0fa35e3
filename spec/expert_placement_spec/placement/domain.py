"""Placements to be looked at: all of a small world, and random ones beyond. SPEC.md, "How placements are checked"."""

from __future__ import annotations

import random
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from expert_placement_spec.cases import Domain
from expert_placement_spec.placement.reference import EMPTY
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.placement.view import PlacementCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_EXPERTS = 4
MOST_SLOTS = 6
SPEEDS = (None, [1.0, 2.0, 0.5], [2.0, 2.0, 2.0], [3.0, 1.0, 1.0])
LOADS = (0.0, 1.0, 2.0, 3.0, 5.0)

Block = tuple[tuple[int, ...], int]
"""The slots of the ranks, and E."""


def rows(num_experts: int, num_slots: int) -> Iterator[list[int]]:
    """Every row of slots that leaves no expert out, empty slots included."""
    for row in product(range(EMPTY, num_experts), repeat=num_slots):
        if len({*row, EMPTY}) == num_experts + 1:
            yield list(row)


def quick_blocks() -> list[Block]:
    """Up to four experts on up to 4 slots of 1 to 3 ranks, as equal as can be, and with a rank of none."""
    equal = [tuple(Topology(ranks).slots(slots)) for slots in range(5) for ranks in range(1, 4)]
    return with_experts([*equal, (3, 0, 1)])


def small_blocks() -> list[Block]:
    """Those, and up to four experts on 6 slots of 3 ranks."""
    return [*quick_blocks(), *with_experts([(2, 2, 2)])]


def full_blocks() -> list[Block]:
    """Up to four experts on up to 6 slots of 1 to 3 ranks, shared out among the ranks in every way."""
    shares = [slots for ranks in range(1, 4) for slots in product(range(MOST_SLOTS + 1), repeat=ranks)]
    few = [slots for slots in shares if sum(slots) <= MOST_SLOTS]
    return with_experts(sorted(few, key=lambda slots: (sum(slots), slots)))


def with_experts(shares: list[tuple[int, ...]]) -> list[Block]:
    """The blocks of every number of experts that these slots can hold."""
    return [(slots, num_experts) for slots in shares for num_experts in range(min(sum(slots), MOST_EXPERTS) + 1)]


def cases(block: Block) -> Iterator[PlacementCase]:
    """Every row of the block, with nodes, speeds, activity, windows and loads varied from one to the next.

    Every third case has the row before it as a second layer.
    """
    slots, num_experts = block
    before: list[int] = []
    for number, row in enumerate(rows(num_experts, sum(slots))):
        table = [row, before] if number % 3 == 2 else [row]
        before = row
        loads = [
            [[LOADS[(number // 5**e + 2 * w + 3 * of) % 5] for e in range(num_experts)] for of in range(len(table))]
            for w in range(1 + number % 2)
        ]
        yield PlacementCase(num_experts, table, topology(slots, table, number), loads)


def topology(slots: tuple[int, ...], table: list[list[int]], number: int) -> Topology:
    """Ranks with these slots; every other time those that hold nothing are not active."""
    ranks = len(slots)
    empty = [
        all(entry == EMPTY for row in table for entry in row[sum(slots[:rank]) : sum(slots[: rank + 1])])
        for rank in range(ranks)
    ]
    active = None if all(empty) or number % 2 else [not one for one in empty]
    speeds = SPEEDS[number % len(SPEEDS)]
    return Topology(ranks, 1 + number % ranks, slots, speeds if speeds is None else speeds[:ranks], active)


NUMBERS = st.one_of(
    st.just(0.0),
    st.integers(0, 20).map(float),
    st.integers(0, 2**70).map(float),
    st.floats(0, 1e12, allow_nan=False),
    st.floats(0, 1e-300),
    st.floats(1e30, 1e297),
)


@st.composite
def topologies(draw: st.DrawFn, most_ranks: int = 6, most_slots: int = 5) -> Topology:
    """Ranks of all kinds."""
    ranks = draw(st.integers(1, most_ranks))
    each = st.integers(0, most_slots)
    slots: Any = draw(st.one_of(each, st.lists(each, min_size=ranks, max_size=ranks)))
    speeds = draw(st.none() | st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=ranks, max_size=ranks))
    active = draw(st.none() | st.lists(st.booleans(), min_size=ranks, max_size=ranks).filter(any))
    return Topology(ranks, draw(st.integers(1, ranks)), slots, speeds, active)


@st.composite
def drawn(draw: st.DrawFn) -> PlacementCase:
    """A placement on up to 6 ranks of up to 5 slots, of up to 3 layers, with loads of up to 3 windows."""
    ranks = draw(topologies())
    given = ranks.slots_per_rank
    assert given is not None
    num_slots = given * ranks.num_ranks if isinstance(given, int) else sum(given)
    usable = ranks.usable_slots(num_slots)
    num_experts = draw(st.integers(0, len(usable)))
    num_layers = draw(st.integers(1, 3))
    table = []
    for _ in range(num_layers):
        # The experts stand somewhere, and other slots hold whatever they like.
        content = draw(st.lists(st.integers(EMPTY, num_experts - 1), min_size=len(usable), max_size=len(usable)))
        content[:num_experts] = range(num_experts)
        row = [EMPTY] * num_slots
        for slot, entry in zip(draw(st.permutations(usable)), content, strict=True):
            row[slot] = entry
        table.append(row)
    layer = st.lists(NUMBERS, min_size=num_experts, max_size=num_experts)
    window = st.lists(layer, min_size=num_layers, max_size=num_layers)
    return PlacementCase(num_experts, table, ranks, draw(st.lists(window, min_size=1, max_size=3)))


def skewed(chance: random.Random, num_experts: int) -> list[float]:
    """A load of each expert, of anything between one and 10^5 tokens, as a router's are."""
    return [float(chance.randrange(10 ** chance.randrange(6)) + 1) for _ in range(num_experts)]


def spread(chance: random.Random, num_experts: int, topology: Topology, num_slots: int) -> list[int]:
    """A row with every expert somewhere, and of the slots that are left every eighth empty."""
    live = topology.usable_slots(num_slots)
    content = list(range(num_experts))
    content += [EMPTY if chance.randrange(8) == 0 else chance.randrange(num_experts) for _ in live[num_experts:]]
    chance.shuffle(content)
    row = [EMPTY] * num_slots
    for slot, entry in zip(live, content, strict=True):
        row[slot] = entry
    return row


def deployed(num_experts: int, num_slots: int, topology: Topology, num_layers: int, num_windows: int) -> PlacementCase:
    """A placement of a model, with every expert somewhere in each layer."""
    chance = random.Random(num_experts)
    table = [spread(chance, num_experts, topology, num_slots) for _ in range(num_layers)]
    loads = [[skewed(chance, num_experts) for _ in range(num_layers)] for _ in range(num_windows)]
    return PlacementCase(num_experts, table, topology, loads)


def replicated() -> PlacementCase:
    """One expert in every third slot of many ranks."""
    row = [0 if slot % 3 == 1 else 1 + slot % 59 for slot in range(960)]
    return PlacementCase(60, [row], Topology(320, 40), [[skewed(random.Random(60), 60)]])


def real() -> dict[str, Callable[[], PlacementCase]]:
    """Placements of the sizes that models and deployments have."""
    uneven = Topology(
        72,
        5,
        [rank % 6 for rank in range(72)],
        [1.0 + rank % 3 / 2 for rank in range(72)],
        [rank % 16 != 7 for rank in range(72)],
    )
    return {
        "256 experts on 288 slots of 32 ranks, 58 layers": partial(deployed, 256, 288, Topology(32, 4), 58, 1),
        "288 experts on 320 ranks of one slot": partial(deployed, 288, 320, Topology(320, 40), 2, 1),
        "512 experts on 900 slots of 3 ranks, 2 windows": partial(deployed, 512, 900, Topology(3), 1, 2),
        "60 experts on 960 slots of 320 ranks, one of them on each": replicated,
        "130 experts on 72 unequal ranks of which 5 are out of service, 3 windows": partial(
            deployed, 130, 180, uneven, 2, 3
        ),
    }


def domains() -> dict[str, Domain]:
    """The domains by size."""
    return {
        "quick": Domain("E in 0..=4 on up to 4 slots of 1 to 3 ranks: every table", quick_blocks, cases),
        "small": Domain("those, and E in 0..=4 on 6 slots of 3 ranks: every table", small_blocks, cases),
        "full": Domain(
            "E in 0..=4 on up to 6 slots of 1 to 3 ranks, shared out in every way: every table", full_blocks, cases
        ),
    }
