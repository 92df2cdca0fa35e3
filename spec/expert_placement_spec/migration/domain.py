"""Pairs of placements to be looked at. SPEC.md, "How placements are checked"."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from expert_placement_spec.balance.domain import full_row
from expert_placement_spec.cases import Domain
from expert_placement_spec.migration.view import MigrationCase, most_arrivals
from expert_placement_spec.placement.domain import rows, spread, topologies
from expert_placement_spec.placement.reference import EMPTY
from expert_placement_spec.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from expert_placement_spec.migration.view import Rows

OLD_ROWS = 8
"""Old rows of one block, which a process checks at a time."""


LIMITS = tuple(product((None, 1, 2, 3), (None, 0, 1, 4)))
"""Limits of random cases: transfers between nodes, and staged experts beyond those that one layer may need."""


@dataclass(frozen=True)
class Block:
    """Pairs on ranks of these slots, from some of the old rows to every new one, or to every so many."""

    slots: tuple[int, ...]
    num_experts: int
    first: int
    stride: int = 1


def canonical_rows(num_experts: int, num_slots: int) -> list[list[int]]:
    """The rows in which experts first come in the order of their ids.

    Every other row is one of them with the experts renamed, and a pair of placements with its experts renamed alike is
    the same to every rule: none looks at an id except to tell experts apart.
    """
    order = list(range(num_experts))
    return [row for row in rows(num_experts, num_slots) if list(dict.fromkeys(e for e in row if e >= 0)) == order]


def blocks(slots: tuple[int, ...], most_experts: int, stride: int = 1) -> list[Block]:
    """All pairs of up to so many experts on these slots."""
    return [
        Block(slots, num_experts, first, stride)
        for num_experts in range(min(sum(slots), most_experts) + 1)
        for first in range(0, len(canonical_rows(num_experts, sum(slots))), OLD_ROWS)
    ]


def cases(block: Block) -> Iterator[MigrationCase]:
    """Every pair of the block, on 1 to R nodes in turn.

    Every fifth case has the pair before it as a second layer, and where a rank holds nothing in the new placement and
    nothing alone in the old one, it is out of service every other time. Limits are asked for in turn.
    """
    number, before = 0, None
    for old in canonical_rows(block.num_experts, sum(block.slots))[block.first : block.first + OLD_ROWS]:
        for place, new in enumerate(rows(block.num_experts, sum(block.slots))):
            if (place + number) % block.stride:
                continue
            number += 1
            olds, news = [old], [new]
            if before is not None and number % 5 == 0:
                olds, news = [old, before[0]], [new, before[1]]
            before = (old, new)
            topology = Topology(len(block.slots), 1 + number % len(block.slots), block.slots, None, None)
            case = MigrationCase(block.num_experts, olds, news, with_failures(topology, olds, news, number % 2 == 0))
            yield with_limits(case, number)


def with_limits(case: MigrationCase, number: int) -> MigrationCase:
    """The case, every other time with a limit on transfers between nodes, and every third time on staging.

    As many experts may be staged as one layer brings to one rank: that can always be kept, and is too few for some
    plans of several layers.
    """
    transfers = 1 + number // 4 % 2 if number % 2 else None
    staged = most_arrivals(case) if number % 3 == 1 or len(case.old) > 1 else None
    return replace(case, max_node_transfers=transfers, max_staged=staged)


def with_failures(topology: Topology, old: Rows, new: Rows, is_wanted: bool) -> Topology:
    """The same ranks, the first of those out of service that the plan can do without."""
    offsets = topology.slot_offsets(len(old[0]))
    for rank in range(topology.num_ranks):
        own = slice(offsets[rank], offsets[rank + 1])
        elsewhere = [[*row[: own.start], *row[own.stop :], EMPTY] for row in old]
        is_unused = all(set(row[own]) <= {EMPTY} for row in new)
        is_spare = is_unused and all(set(row) <= set(others) for row, others in zip(old, elsewhere, strict=True))
        if is_wanted and is_spare and topology.num_ranks > 1:
            active = [other != rank for other in range(topology.num_ranks)]
            return Topology(topology.num_ranks, topology.num_nodes, topology.slots_per_rank, None, active)
    return topology


def quick_blocks() -> list[Block]:
    """The smallest domain."""
    return [
        *blocks((1, 1), 2),
        *blocks((2, 1), 3),
        *blocks((1, 1, 1), 3),
        *blocks((2, 2), 3, 5),
        *blocks((1, 2, 1), 4, 7),
        *blocks((1, 1, 1, 1), 4, 5),
        *blocks((2, 2, 2), 4, 997),
    ]


def small_blocks() -> list[Block]:
    """A minute or so of work."""
    few = ((1, 1), (2, 1), (1, 1, 1), (2, 2), (1, 2, 1), (0, 2, 2), (1, 1, 1, 1))
    return [*(block for slots in few for block in blocks(slots, 4)), *blocks((2, 2, 2), 4, 29)]


def full_blocks() -> list[Block]:
    """Many minutes of work."""
    few = ((1, 1), (2, 1), (1, 1, 1), (2, 2), (1, 2, 1), (0, 2, 2), (1, 1, 1, 1), (2, 2, 1), (1, 2, 2))
    return [*(block for slots in few for block in blocks(slots, 4)), *blocks((2, 2, 2), 4)]


@st.composite
def drawn(draw: st.DrawFn) -> MigrationCase:
    """A pair on up to 6 ranks of up to 4 slots, of up to 3 layers, the new one often near the old one."""
    topology = draw(topologies(most_slots=4))
    given = topology.slots_per_rank
    assert given is not None
    num_slots = given * topology.num_ranks if isinstance(given, int) else sum(given)
    live = topology.usable_slots(num_slots)
    num_experts = draw(st.integers(0, len(live)))
    old: Rows = []
    new: Rows = []
    for _ in range(draw(st.integers(1, 3))):
        rest = draw(st.lists(st.integers(EMPTY, num_experts - 1), min_size=num_slots, max_size=num_slots))
        for rows_of, is_old in ((old, True), (new, False)):
            # Experts of the old placement are on active ranks at least, and on others where it likes.
            content = draw(full_row(num_experts, len(live)))
            row = list(rest) if is_old else [EMPTY] * num_slots
            for slot, entry in zip(live, content, strict=True):
                row[slot] = entry
            rows_of.append(row)
        if draw(st.booleans()):
            new[-1] = [old[-1][slot] if slot in live else EMPTY for slot in range(num_slots)]
            for _ in range(draw(st.integers(0, 2)) if live else 0):
                first, second = draw(st.sampled_from(live)), draw(st.sampled_from(live))
                new[-1][first], new[-1][second] = new[-1][second], new[-1][first]
    case = MigrationCase(num_experts, old, new, topology)
    transfers, more = draw(st.sampled_from(LIMITS))
    staged = None if more is None else most_arrivals(case) + more
    return replace(case, max_node_transfers=transfers, max_staged=staged)


def moved(
    num_experts: int, num_slots: int, topology: Topology, num_layers: int, exchanges: int, **limits: int
) -> MigrationCase:
    """From one placement of a model to another: some pairs of slots have exchanged what they hold."""
    chance = random.Random(num_experts)
    old = [spread(chance, num_experts, topology, num_slots) for _ in range(num_layers)]
    live = topology.usable_slots(num_slots)
    new = []
    for row in old:
        changed = list(row)
        for _ in range(exchanges):
            first, second = chance.sample(live, 2)
            changed[first], changed[second] = changed[second], changed[first]
        new.append(changed)
    # What ranks out of service held is there too, and is no source.
    dead = [slot for slot in range(num_slots) if slot not in live]
    for row in old:
        for slot in dead:
            row[slot] = chance.randrange(num_experts)
    return MigrationCase(num_experts, old, new, topology, **limits)


def exchanged(num_experts: int) -> MigrationCase:
    """Two ranks exchange all experts, of which each has one slot."""
    old = list(range(num_experts))
    half = num_experts // 2
    return MigrationCase(num_experts, [old], [[*old[half:], *old[:half]]], Topology(2))


def real() -> dict[str, Callable[[], MigrationCase]]:
    """Migrations of the sizes that models and deployments have."""
    uneven = Topology(72, 5, [rank % 6 for rank in range(72)], None, [rank % 16 != 7 for rank in range(72)])
    return {
        "256 experts on 288 slots of 32 ranks, 4 layers": partial(moved, 256, 288, Topology(32, 4), 4, 20),
        "300 experts on 320 ranks of one slot, all of them": partial(moved, 300, 320, Topology(320, 40), 1, 900),
        "64 experts on 72 slots of 8 ranks, 12 layers": partial(moved, 64, 72, Topology(8, 2), 12, 9),
        "520 experts of 2 ranks, which exchange all of them": partial(exchanged, 520),
        "200 experts on 600 slots of 2 ranks": partial(moved, 200, 600, Topology(2, 2), 1, 150, max_node_transfers=3),
        "130 experts on 72 unequal ranks of which 5 are out of service": partial(
            moved, 130, 180, uneven, 2, 40, max_staged=4
        ),
    }


def domains() -> dict[str, Domain]:
    """The domains by size."""
    pairs = "every pair, up to the names of experts"
    return {
        "quick": Domain(
            f"up to 4 slots of up to 3 ranks: {pairs}, or every few; and every 997th on 6 slots", quick_blocks, cases
        ),
        "small": Domain(
            f"E in 0..=4 on up to 4 slots of up to 3 ranks: {pairs}; every 29th on 6 slots of 3 ranks",
            small_blocks,
            cases,
        ),
        "full": Domain(f"E in 0..=4 on up to 6 slots of up to 3 ranks: {pairs}", full_blocks, cases),
    }
