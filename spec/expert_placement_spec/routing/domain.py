"""Batches to be looked at: all of a small world, and random ones beyond. SPEC.md, "How placements are checked"."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from expert_placement_spec.balance.domain import full_row
from expert_placement_spec.cases import Domain
from expert_placement_spec.placement.domain import rows, skewed, spread, topologies, topology
from expert_placement_spec.placement.reference import EMPTY
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.routing.view import RoutingCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1))
"""T and k."""
NUMBERS = (0, 1, 5, 2**31 - 1, 2**32 - 1, 2**32 + 3, 2**63 - 1)
"""Offsets and seeds, also where 31, 32 and 63 bits end."""
WEIGHTS = (1.0, 0.0, 3.0, 0.25, 1e-9, 1e12)
LOADS = (0.0, 1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Block:
    """Rows on ranks of these slots with all batches of a shape, or every so many."""

    slots: tuple[int, ...]
    num_experts: int
    shape: tuple[int, int]
    stride: int


def blocks(shares: tuple[tuple[int, ...], ...], stride: int) -> list[Block]:
    """Every number of experts that the slots can hold, up to 3, and every shape."""
    return [
        Block(slots, num_experts, shape, stride)
        for slots in shares
        for num_experts in range(min(sum(slots), 3) + 1)
        for shape in SHAPES
    ]


FEW = ((1,), (1, 1), (2, 1), (0, 2, 1), (2, 2))
MORE = (*FEW, (1, 1, 1), (3, 1), (2, 1, 1))


def batches(num_experts: int, shape: tuple[int, int]) -> Iterator[list[list[int]]]:
    """Every batch of ids from -1, which is none, to E, which is none either."""
    tokens, top_k = shape
    for ids in product(range(-1, num_experts + 1), repeat=tokens * top_k):
        yield [list(ids[token * top_k : (token + 1) * top_k]) for token in range(tokens)]


def cases(block: Block) -> Iterator[RoutingCase]:
    """Every row and batch of the block, with nodes, numbers, padding, turns, weights and loads varied.

    Of every three cases one takes turns and one has weights; of every two one has loads to split.
    """
    number = 0
    for row in rows(block.num_experts, sum(block.slots)):
        for ids in batches(block.num_experts, block.shape):
            number += 1
            if number % block.stride:
                continue
            turn = number // block.stride
            yield case(block, row, ids, turn)


def case(block: Block, row: list[int], ids: list[list[int]], turn: int) -> RoutingCase:
    """One of them."""
    weights = None
    if turn % 3 == 1:
        weights = [WEIGHTS[(turn // 6**slot + slot) % 6] for slot in range(len(row))]
        weights = with_weight(row, weights, block.num_experts)
    load = [LOADS[(turn // 5**e + 3 * e) % 5] for e in range(block.num_experts)] if turn % 2 else None
    return RoutingCase(
        block.num_experts,
        row,
        topology(block.slots, [row], turn),
        ids,
        NUMBERS[turn % len(NUMBERS)],
        NUMBERS[turn // 3 % len(NUMBERS)],
        turn // 2 % (len(ids) + 1) if turn % 4 == 2 else None,
        turn % 3 == 0,
        weights,
        load,
    )


def with_weight(row: list[int], weights: list[float], num_experts: int) -> list[float]:
    """The weights, with 1 for the first slot of every expert that would have none."""
    given = list(weights)
    for expert in range(num_experts):
        own = [slot for slot, entry in enumerate(row) if entry == expert]
        if not any(given[slot] for slot in own):
            given[own[0]] = 1.0
    return given


@st.composite
def drawn(draw: st.DrawFn) -> RoutingCase:
    """A layer on up to 5 ranks of up to 4 slots, and up to 12 tokens of up to 4 ids, of which some are far out."""
    ranks = draw(topologies(5, 4))
    given = ranks.slots_per_rank
    assert given is not None
    num_slots = given * ranks.num_ranks if isinstance(given, int) else sum(given)
    live = ranks.usable_slots(num_slots)
    num_experts = draw(st.integers(0, min(len(live), 6)))
    row = [EMPTY] * num_slots
    for slot, entry in zip(live, draw(full_row(num_experts, len(live))), strict=True):
        row[slot] = entry
    tokens, top_k = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    one = st.one_of(st.integers(-1, num_experts), st.sampled_from([-(2**31), -2, 2**31 - 1]))
    ids = draw(st.lists(st.lists(one, min_size=top_k, max_size=top_k), min_size=tokens, max_size=tokens))
    exact = draw(st.booleans())
    number = st.integers(0, 2**63 - 1)
    any_weights = st.lists(st.floats(0, 1e6), min_size=num_slots, max_size=num_slots)
    weights = None if exact or draw(st.booleans()) else with_weight(row, draw(any_weights), num_experts)
    loads = st.lists(st.integers(0, 100).map(float), min_size=num_experts, max_size=num_experts)
    valid = draw(st.none() | st.integers(0, tokens))
    load = draw(st.none() | loads)
    return RoutingCase(num_experts, row, ranks, ids, draw(number), draw(number), valid, exact, weights, load)


def served(num_experts: int, num_slots: int, topology: Topology, shape: tuple[int, int], **options: Any) -> RoutingCase:
    """A batch of a shape for a layer of a model: nine of ten ids are experts, most of them of the lower half."""
    chance = random.Random(num_experts)
    row = spread(chance, num_experts, topology, num_slots)
    tokens, top_k = shape
    ids = [
        [chance.randrange(-num_experts // 9, num_experts) // (1 + chance.randrange(2)) for _ in range(top_k)]
        for _ in range(tokens)
    ]
    if options.pop("has_load", False):
        options["load"] = skewed(chance, num_experts)
    if options.pop("is_weighted", False):
        options["weights"] = with_weight(row, [float(1 + chance.randrange(1000)) for _ in row], num_experts)
    return RoutingCase(num_experts, row, topology, ids, **options)


def real() -> dict[str, Callable[[], RoutingCase]]:
    """Batches of the sizes that models and deployments have."""
    return {
        "1,025 tokens of 2 ids, 256 experts on 288 slots of 32 ranks": partial(
            served, 256, 288, Topology(32, 4), (1025, 2), seed=2**40 + 7, valid_tokens=1024
        ),
        "1,023 tokens of 3 ids in turn, 160 experts on 640 slots of 8 ranks": partial(
            served, 160, 640, Topology(8, 2), (1023, 3), token_offset=2**33, exact=True
        ),
        "257 tokens of 8 ids, 384 experts weighted on 576 slots of 72 ranks": partial(
            served, 384, 576, Topology(72, 9), (257, 8), seed=3, is_weighted=True
        ),
        "1,700 tokens of 10 ids, 200 experts on 1,100 slots of 4 ranks": partial(
            served, 200, 1100, Topology(4, 4), (1700, 10), seed=11, has_load=True
        ),
        "64 tokens of 6 ids, 96 experts on 160 slots of 32 ranks": partial(
            served, 96, 160, Topology(32, 4, speeds=[1.0, 2.0] * 16), (64, 6), has_load=True
        ),
        "16,384 tokens of one id, 60 experts on 512 slots of 2 ranks": partial(
            served, 60, 512, Topology(2), (16384, 1), token_offset=2**63 - 5
        ),
    }


def domains() -> dict[str, Domain]:
    """The domains by size."""
    batches_of = "every batch of up to 3 tokens with up to 2 ids"
    return {
        "quick": Domain(
            f"E in 0..=3 on up to 4 slots of up to 3 ranks: {batches_of}, every 127th",
            lambda: blocks(FEW, 127),
            cases,
        ),
        "small": Domain(
            f"E in 0..=3 on up to 4 slots of up to 3 ranks: {batches_of}, every 29th", lambda: blocks(MORE, 29), cases
        ),
        "full": Domain(f"E in 0..=3 on up to 4 slots of up to 3 ranks: {batches_of}", lambda: blocks(MORE, 1), cases),
    }
