"""Vectors of routing. SPEC.md, "Routing", "Choice of a replica" and "Weighted choice"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.placement.reference import Placement
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.routing.reference import FIELDS, RoutingTables, route
from expert_placement_spec.routing.rule import WORD, hashed
from expert_placement_spec.vectors.file import FLOATS, Case, VectorFile, refused
from expert_placement_spec.vectors.inputs import placement_input
from expert_placement_spec.vectors.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.routing.reference import Routed

ABOUT = (
    "`topk_ids` are the ids of T tokens, k each, as decimal strings, since an id may have 64 bits: where "
    "`id_type` is `int32` all of them fit 32 bits, and both widths have to give the answer. So are `token_offset` "
    "and `seed`, of up to 63 bits.",
    "`layer` is the layer that is routed over. `rank` is whose slots are local. `sender` is the rank that sends, "
    "where tables for a sender are asked for, and is `rank` then; null elsewhere. `max_slots` is the slots that "
    "there is room for, or null for those of the placement; `weights` are by layer and slot, or null; "
    "`valid_tokens` null where no token is padding. Where `exact` is true the exact variant is asked for.",
    '`hashes` are hash(e, t, s) of every id that is served, as in "Choice of a replica", and null for others; the '
    "exact variant has none, since it takes one hash for each expert. They are given to find an error by.",
    FLOATS,
)
NOTES = {
    "OneReplica": "Every expert has one slot.",
    "Replicas": "Experts have several slots.",
    "EmptySlots": "Some slots hold nothing, and serve nothing.",
    "TwiceOnARank": "A rank holds an expert in two slots, each a replica of its own.",
    "UnevenSlots": "Ranks have unequal numbers of slots.",
    "Layers": "One of several layers.",
    "Exact": "The exact variant: replicas in turn.",
    "Weighted": "Replicas serve in proportion to weights.",
    "Sender": "The replicas nearest to the rank that sends.",
    "Padding": "The last tokens are padding.",
    "NotAnExpert": "Some ids are -1 or another number that is no expert.",
    "WideIds": "Some ids need 64 bits, and their lower half is an expert.",
    "WrapsAround": "The numbers of the tokens pass 2^32 and go on from 0.",
    "Modulo": "The offset or the seed is 2^32 or more, and is taken modulo 2^32.",
    "Room": "There is room for more slots than the placement has.",
    "NoTokens": "No tokens, or no ids of each.",
    "NoExperts": "E = 0: every id is unrouted.",
    "Large": "A size like those in use.",
    "NoSuchId": "A layer outside 0 .. L, or a rank outside 0 .. R.",
    "WrongWeights": "Weights that are none.",
    "WrongCall": "Numbers out of range, or what excludes each other.",
}


@dataclass(frozen=True)
class Call:
    """A batch, and the tables that it is routed over."""

    table: list[list[int]]
    num_experts: int
    topology: Topology
    ids: list[list[int]]
    layer: int = 0
    rank: int = 0
    is_for_sender: bool = False
    max_slots: int | None = None
    weights: list[list[float]] | None = None
    token_offset: int = 0
    seed: int = 0
    valid_tokens: int | None = None
    exact: bool = False

    def as_input(self) -> dict[str, Any]:
        """The call as a case has it."""
        fits = all(-(2**31) <= one < 2**31 for row in self.ids for one in row)
        return {
            "placement": placement_input(self.table, self.num_experts, self.topology),
            "layer": self.layer,
            "rank": self.rank,
            "sender": self.rank if self.is_for_sender else None,
            "max_slots": self.max_slots,
            "weights": self.weights,
            "id_type": "int32" if fits else "int64",
            "topk_ids": [list(map(str, row)) for row in self.ids],
            "token_offset": str(self.token_offset),
            "seed": str(self.seed),
            "valid_tokens": self.valid_tokens,
            "exact": self.exact,
        }

    @property
    def placement(self) -> Placement:
        """The placement."""
        return Placement(self.table, self.num_experts, self.topology)

    def route(self) -> Routed:
        """What the model answers."""
        if self.is_for_sender:
            tables = RoutingTables.for_sender(self.placement, self.rank)
        else:
            tables = RoutingTables(self.placement, rank=self.rank, max_slots=self.max_slots, weights=self.weights)
        # Without tokens there is still a number of ids of each: none.
        ids = np.array(self.ids, dtype=np.int64).reshape(len(self.ids), -1 if self.ids and self.ids[0] else 0)
        return route(
            ids,
            tables,
            layer=self.layer,
            token_offset=self.token_offset,
            seed=self.seed,
            valid_tokens=self.valid_tokens,
            want=FIELDS,
            exact=self.exact,
        )

    def hashes(self) -> list[list[int | None]]:
        """The hash of every id that is served."""
        valid = len(self.ids) if self.valid_tokens is None else self.valid_tokens
        return [
            [
                hashed(one, (self.token_offset + token) % WORD, self.seed % WORD)
                if token < valid and 0 <= one < self.num_experts
                else None
                for one in row
            ]
            for token, row in enumerate(self.ids)
        ]


def vectors() -> VectorFile:
    """The file of the chapter."""
    return VectorFile("routing", ABOUT, NOTES, [*by_hand(), *drawn(), large(), *wrong()])


def case(identity: str, comment: str, call: Call, flags: tuple[str, ...] = ()) -> Case:
    """A call with its answer."""
    routed = call.route()
    expected: dict[str, Any] = {name: getattr(routed, name) for name in FIELDS}
    if not call.exact:
        expected["hashes"] = call.hashes()
    return Case(identity, comment, (*flags, *kinds(call)), call.as_input(), expected)


def kinds(call: Call) -> tuple[str, ...]:
    """The flags that say what sort of call it is."""
    placement = call.placement
    row, ranks = placement.table[call.layer], range(placement.num_ranks)
    most = max((row.count(expert) for expert in range(call.num_experts)), default=0)
    held = [[one for one in placement.local_experts(call.layer, rank) if one >= 0] for rank in ranks]
    ids = [one for line in call.ids for one in line]
    last = call.token_offset % WORD + len(call.ids) - 1
    flags = {
        "OneReplica": most == 1,
        "Replicas": most > 1,
        "EmptySlots": -1 in row,
        "TwiceOnARank": any(len(set(one)) < len(one) for one in held),
        "UnevenSlots": len(set(placement.topology.slots(placement.num_slots))) > 1,
        "Layers": placement.num_layers > 1,
        "Exact": call.exact,
        "Weighted": call.weights is not None,
        "Sender": call.is_for_sender,
        "Padding": call.valid_tokens is not None and call.valid_tokens < len(call.ids),
        "NotAnExpert": any(not 0 <= one < call.num_experts for one in ids),
        "WideIds": any(not -(2**31) <= one < 2**31 for one in ids),
        "WrapsAround": last >= WORD,
        "Modulo": max(call.token_offset, call.seed) >= WORD,
        "Room": call.max_slots is not None,
        "NoTokens": not ids,
        "NoExperts": call.num_experts == 0,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


TWO = Topology(2)
TABLE = [[0, 1, 2, 0]]
IDS = [[0, 1], [0, 2], [1, 0], [2, 0], [0, 1], [0, 2]]
"""Three experts, of which expert 0 is on both ranks, and six tokens that all ask for it."""

BY_HAND: dict[str, tuple[str, Call]] = {
    "plain": ("one expert on both ranks", Call(TABLE, 3, TWO, IDS)),
    "other-rank": ("the same for rank 1", Call(TABLE, 3, TWO, IDS, rank=1)),
    "partition": ("one slot for each expert", Call([[0, 1, 2, 3]], 4, TWO, [[3, 0], [2, 1]], rank=1)),
    "seed": ("another seed, another choice", Call(TABLE, 3, TWO, IDS, seed=1)),
    "offset": ("tokens numbered from 5 on", Call(TABLE, 3, TWO, IDS, token_offset=5)),
    "wraps": ("tokens numbered from 2^32 - 2 on", Call(TABLE, 3, TWO, IDS, token_offset=2**32 - 2)),
    "modulo": ("as `plain`, with 2^32 added to both numbers", Call(TABLE, 3, TWO, IDS, token_offset=2**32, seed=2**32)),
    "largest": ("63 bits of offset and seed", Call(TABLE, 3, TWO, IDS, token_offset=2**63 - 1, seed=2**63 - 1)),
    "padding": ("the last two tokens are padding", Call(TABLE, 3, TWO, IDS, valid_tokens=4)),
    "all-padding": ("every token is padding", Call(TABLE, 3, TWO, IDS, valid_tokens=0)),
    "no-padding": ("as many valid tokens as there are", Call(TABLE, 3, TWO, IDS, valid_tokens=6)),
    "none": ("-1 stands for no expert", Call(TABLE, 3, TWO, [[-1, 0], [1, -1], [-1, -1]])),
    "out-of-range": (
        "ids that are no experts, of 32 bits",
        Call(TABLE, 3, TWO, [[3, 0], [-2, 1], [2**31 - 1, -(2**31)], [1_000_000, 2]]),
    ),
    "wide": (
        "ids of 64 bits whose lower half is an expert",
        Call(TABLE, 3, TWO, [[2**32, 0], [2**32 + 1, 1], [-(2**32), 2], [2**63 - 1, -(2**63)]]),
    ),
    "exact": ("replicas in turn", Call(TABLE, 3, TWO, IDS, exact=True)),
    "exact-padding": (
        "replicas in turn, with padding and -1",
        Call(TABLE, 3, TWO, [[0, -1], *IDS], valid_tokens=5, exact=True),
    ),
    "exact-offset": ("replicas in turn from another one", Call(TABLE, 3, TWO, IDS, token_offset=9, seed=3, exact=True)),
    "room": ("room for three slots more, which count nothing", Call(TABLE, 3, TWO, IDS, max_slots=7)),
    "empty-slots": ("slots between that hold nothing", Call([[0, -1, 1, -1, 0, 0]], 2, TWO, [[0, 1]] * 6, rank=1)),
    "uneven": ("one slot and three", Call([[0, 1, 2, 0]], 3, Topology(2, 1, [1, 3]), IDS, rank=1)),
    "twice": ("expert 0 twice on rank 0, once on rank 1", Call([[0, 0, 1, 0]], 2, TWO, [[0, 1]] * 8)),
    "layer": ("the second of two layers", Call([[0, 1, 2, 0], [2, 2, 1, 0]], 3, TWO, IDS, layer=1)),
    "no-tokens": ("no tokens", Call(TABLE, 3, TWO, [])),
    "no-ids": ("two tokens without ids", Call(TABLE, 3, TWO, [[], []])),
    "no-experts": ("no experts", Call([[-1, -1]], 0, TWO, [[0, -1], [1, 5]])),
    "repeated": ("one expert twice for a token", Call(TABLE, 3, TWO, [[0, 0], [0, 0]])),
    "repeated-exact": (
        "one expert twice for a token, in turn",
        Call(TABLE, 3, TWO, [[0, 0, 0], [0, 1, 0]], exact=True),
    ),
    "weighted": ("one to three", Call(TABLE, 3, TWO, IDS, weights=[[1.0, 1.0, 1.0, 3.0]])),
    "weighted-one": (
        "a replica without weight serves nothing",
        Call(TABLE, 3, TWO, IDS, weights=[[0.0, 1.0, 1.0, 2.0]]),
    ),
    "weighted-tiny": ("weights far apart", Call(TABLE, 3, TWO, IDS, weights=[[1e-9, 5.0, 1e-300, 1e12]])),
    "weighted-five": (
        "five replicas with thirds and tenths",
        Call([[0, 0, 1, 0, 0, 0]], 2, Topology(3), [[0, 1]] * 10, weights=[[0.1, 1 / 3, 1.0, 0.7, 2 / 3, 0.2]]),
    ),
    "sender-near": (
        "a replica on the sender",
        Call([[0, -1, 1, -1, 1, -1, 0, 2]], 3, Topology(4, 2), [[0, 1, 2]] * 4, rank=0, is_for_sender=True),
    ),
    "sender-node": (
        "a replica on the sender's node",
        Call([[0, -1, 1, -1, 1, -1, 0, 2]], 3, Topology(4, 2), [[0, 1, 2]] * 4, rank=2, is_for_sender=True),
    ),
    "sender-far": (
        "expert 0 on the other node alone, in three slots",
        Call([[1, -1, 1, 2, 0, 0, 0, 1]], 3, Topology(4, 2), [[0, 1, 2]] * 6, rank=1, is_for_sender=True),
    ),
    "sender-exact": (
        "the nearest replicas, in turn",
        Call([[1, -1, 1, 2, 0, 0, 0, 1]], 3, Topology(4, 2), [[0, 1, 2]] * 6, rank=1, is_for_sender=True, exact=True),
    ),
}


def by_hand() -> Iterator[Case]:
    """Small batches, each for a reason of its own."""
    for identity, (comment, call) in BY_HAND.items():
        yield case(identity, comment, call)


def drawn() -> Iterator[Case]:
    """Random batches, of all variants in turn."""
    for number in range(24):
        numbers = Numbers(700 + number)
        num_ranks, per_rank, num_layers = 2 + number % 4, 2 + number % 3, 1 + number % 2
        num_slots = num_ranks * per_rank
        num_experts = num_slots - per_rank - numbers.below(per_rank)
        table = [numbers.row(num_experts, num_slots) for _ in range(num_layers)]
        top_k, tokens = 1 + number % 4, 6 + numbers.below(6)
        ids = [[numbers.below(num_experts + 2) - 1 for _ in range(top_k)] for _ in range(tokens)]
        weights = [[float(1 + numbers.below(1000)) for _ in row] for row in table] if number % 4 == 1 else None
        call = Call(
            table,
            num_experts,
            Topology(num_ranks, 1 + number % num_ranks),
            ids,
            layer=num_layers - 1,
            rank=numbers.below(num_ranks),
            is_for_sender=number % 4 == 3,
            weights=weights,
            token_offset=numbers.below(2**63),
            seed=numbers.below(2**63),
            valid_tokens=tokens - numbers.below(3) if number % 3 == 0 else None,
            exact=number % 4 == 2,
        )
        comment = f"{num_experts} experts in {num_slots} slots of {num_ranks} ranks, {tokens} tokens of {top_k} ids"
        yield case(f"random-{number}", comment, call)


def large() -> Case:
    """A batch over 128 experts in 144 slots."""
    numbers = Numbers(800)
    table = [numbers.row(128, 144)]
    ids = [[numbers.below(128) for _ in range(8)] for _ in range(32)]
    call = Call(table, 128, Topology(16, 2), ids, rank=5, token_offset=4096, seed=17)
    return case("large", "128 experts in 144 slots of 16 ranks, 32 tokens of 8 ids", call, ("Large",))


def wrong() -> Iterator[Case]:
    """Calls that are refused."""
    two_layers = [[0, 1, 2, 0], [2, 2, 1, 0]]
    calls: dict[str, tuple[str, str, Call]] = {
        "layer": ("NoSuchId", "layer 1 of one", Call(TABLE, 3, TWO, IDS, layer=1)),
        "negative-layer": ("NoSuchId", "layer -1", Call(two_layers, 3, TWO, IDS, layer=-1)),
        "rank": ("NoSuchId", "rank 2 of two", Call(TABLE, 3, TWO, IDS, rank=2)),
        "negative-rank": ("NoSuchId", "rank -1", Call(TABLE, 3, TWO, IDS, rank=-1)),
        "valid-tokens": ("WrongCall", "seven valid tokens of six", Call(TABLE, 3, TWO, IDS, valid_tokens=7)),
        "negative-valid": ("WrongCall", "-1 valid tokens", Call(TABLE, 3, TWO, IDS, valid_tokens=-1)),
        "negative-seed": ("WrongCall", "the seed -1", Call(TABLE, 3, TWO, IDS, seed=-1)),
        "negative-offset": ("WrongCall", "the offset -1", Call(TABLE, 3, TWO, IDS, token_offset=-1)),
        "room": ("WrongCall", "room for three slots of four", Call(TABLE, 3, TWO, IDS, max_slots=3)),
        "too-much-room": ("WrongCall", "room for 2^16 slots", Call(TABLE, 3, TWO, IDS, max_slots=2**16)),
        "exact-weighted": (
            "WrongCall",
            "the exact variant beside weights",
            Call(TABLE, 3, TWO, IDS, weights=[[1.0] * 4], exact=True),
        ),
        "negative-weight": (
            "WrongWeights",
            "a weight of -1",
            Call(TABLE, 3, TWO, IDS, weights=[[1.0, 1.0, -1.0, 1.0]]),
        ),
        "no-weight": (
            "WrongWeights",
            "expert 1 has no weight",
            Call(TABLE, 3, TWO, IDS, weights=[[1.0, 0.0, 1.0, 1.0]]),
        ),
        "endless": (
            "WrongWeights",
            "weights whose sum is infinite",
            Call(TABLE, 3, TWO, IDS, weights=[[1e308, 1.0, 1.0, 1e308]]),
        ),
        "few-weights": ("WrongWeights", "three weights of four slots", Call(TABLE, 3, TWO, IDS, weights=[[1.0] * 3])),
    }
    for identity, (flag, comment, call) in calls.items():
        yield refused(f"refused-{identity}", comment, (flag,), call.as_input(), call.route)
