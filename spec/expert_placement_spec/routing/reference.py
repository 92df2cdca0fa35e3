"""The reference model of routing. SPEC.md, "Routing"."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.placement.reference import Placement, slots_of
from expert_placement_spec.routing.rule import WORD, buckets_of, chosen, chosen_by_weight, hashed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from expert_placement_spec.reference import Partition

UNROUTED = -1
MOST = 2**16 - 1
"""The most experts, slots and ranks of routing tables."""
FIELDS = (
    "slots",
    "local_slots",
    "slot_counts",
    "slot_offsets",
    "rank_counts",
    "rank_offsets",
    "order",
    "positions",
)


class RoutingTables:
    """Which slots serve each expert of a placement.

    Args:
        placement: a placement, or a partition, which is one of one layer.
        rank: whose slots are local.
        max_slots: how many slots there is room for.
        weights: how much of its expert each slot is to serve, [L, P].

    Raises:
        ValueError: too little room, too many experts, slots or ranks, or weights that are none.
        IndexError: a rank out of range.
    """

    def __init__(
        self,
        placement: Placement | Partition,
        *,
        rank: int | None = None,
        max_slots: int | None = None,
        weights: Any = None,
    ) -> None:
        placement = _placement(placement)
        self.rank = rank
        if rank is not None and not 0 <= rank < placement.num_ranks:
            raise IndexError(f"rank={rank} is out of range, expected 0..{placement.num_ranks}")
        self.sender: int | None = None
        self.max_slots = placement.num_slots if max_slots is None else max_slots
        if not placement.num_slots <= self.max_slots <= MOST or max(placement.num_experts, placement.num_ranks) > MOST:
            raise ValueError(f"max_slots={self.max_slots} is out of range, expected {placement.num_slots}..={MOST}")
        self.is_weighted = weights is not None
        self._fill(placement, weights)

    @classmethod
    def for_sender(cls, placement: Placement | Partition, rank: int) -> RoutingTables:
        """Tables that choose among the replicas nearest to the rank that sends."""
        tables = cls(placement, rank=rank)
        tables.sender = rank
        return tables

    def update(self, placement: Placement | Partition, *, weights: Any = None) -> None:
        """Replaces the content.

        Raises:
            ValueError: a placement that does not fit, or weights where there were none or the other way round.
        """
        placement = _placement(placement)
        for name in ("num_layers", "num_experts", "num_ranks"):
            new, old = getattr(placement, name), getattr(self.placement, name)
            if new != old:
                raise ValueError(f"placement has {name}={new}, expected {old} as the tables have")
        if placement.num_slots > self.max_slots:
            raise ValueError(
                f"placement has num_slots={placement.num_slots}, expected at most {self.max_slots}: "
                f"tables made with max_slots={placement.num_slots} would do"
            )
        if (weights is not None) != self.is_weighted:
            raise ValueError("weights are needed exactly where the tables were made with some")
        self._fill(placement, weights)

    def _fill(self, placement: Placement, weights: Any) -> None:
        given = None if weights is None else np.asarray(weights, dtype=float)
        shape = (placement.num_layers, placement.num_slots)
        if given is not None and given.shape != shape:
            raise ValueError(f"weights has shape {given.shape}, expected {shape}")
        if given is not None and not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError("weights must be finite numbers of at least 0")
        buckets = None
        if given is not None:
            buckets = [
                [
                    buckets_of([float(own[slot]) for slot in slots_of(row, expert)])
                    for expert in range(placement.num_experts)
                ]
                for row, own in zip(placement.table, given, strict=True)
            ]
        self.placement, self._buckets = placement, buckets

    def replicas(self, layer: int, expert: int) -> list[int]:
        """The slots that serve an expert: all, or those nearest to the sender."""
        slots = slots_of(self.placement.table[layer], expert)
        if self.sender is None:
            return slots
        least = min(self.distance(slot) for slot in slots)
        return [slot for slot in slots if self.distance(slot) == least]

    def distance(self, slot: int) -> int:
        """How far a slot is from the sender: 0 on it, 1 on its node, 2 elsewhere."""
        assert self.sender is not None
        topology, rank = self.placement.topology, rank_of(self.placement, slot)
        if rank == self.sender:
            return 0
        return 1 if topology.node_of(rank) == topology.node_of(self.sender) else 2

    def choice(self, layer: int, expert: int, token: int, seed: int) -> int:
        """The slot that serves an expert for a token."""
        slots, value = self.replicas(layer, expert), hashed(expert, token % WORD, seed % WORD)
        if self._buckets is None:
            return slots[chosen(len(slots), value)]
        return slots[chosen_by_weight(self._buckets[layer][expert], value)]


def rank_of(placement: Placement, slot: int) -> int:
    """The rank of a slot."""
    return next(rank for rank in range(placement.num_ranks) if slot < placement.offsets[rank + 1])


def _placement(source: Placement | Partition) -> Placement:
    return source if isinstance(source, Placement) else Placement.from_partition(source)


@dataclass(frozen=True)
class Routed:
    """What was asked for; None for what was not."""

    slots: Any = None
    local_slots: Any = None
    slot_counts: Any = None
    slot_offsets: Any = None
    rank_counts: Any = None
    rank_offsets: Any = None
    order: Any = None
    positions: Any = None


def route(
    topk_ids: Any,
    tables: RoutingTables,
    *,
    layer: int | None = None,
    token_offset: int = 0,
    seed: int = 0,
    valid_tokens: int | None = None,
    load: Any = None,
    want: Iterable[str] = ("slots",),
    exact: bool = False,
) -> Routed:
    """The slot that serves each id, and what follows from that.

    Args:
        topk_ids: integers, [T, k].
        tables: from a placement.
        layer: one of its layers; not needed where there is one.
        token_offset: the number of the first token, modulo 2^32.
        seed: another seed is another choice, modulo 2^32.
        valid_tokens: how many tokens are not padding.
        load: integers, [P], to which it is added what each slot serves.
        want: fields of the answer.
        exact: use the replicas of each expert in turn.

    Raises:
        ValueError: a number out of range, an unknown field, a load of another length, local slots without a rank, or
            `exact` beside weights.
        IndexError: a layer out of range.
    """
    ids, names = np.asarray(topk_ids), set(want)
    tokens, top_k = ids.shape
    valid = tokens if valid_tokens is None else valid_tokens
    layer = _checked_layer(layer, tables.placement.num_layers)
    if not 0 <= valid <= tokens:
        raise ValueError(f"valid_tokens={valid} is out of range, expected 0..={tokens}")
    for name, number in (("token_offset", token_offset), ("seed", seed)):
        if not 0 <= number < 2**63:
            raise ValueError(f"{name}={number} is out of range, expected 0..{2**63}")
    if names - set(FIELDS):
        raise ValueError(f"want={sorted(names - set(FIELDS))} is unknown, expected some of {FIELDS}")
    if exact and tables.is_weighted:
        raise ValueError("exact can not be had together with weights")
    if "local_slots" in names and tables.rank is None:
        raise ValueError("local_slots need tables with a rank")
    if load is not None and len(load) != tables.max_slots:
        raise ValueError(f"load has length {len(load)}, expected {tables.max_slots}")
    padded = [[int(one) if token < valid else UNROUTED for one in row] for token, row in enumerate(ids)]
    flat = [one for row in padded for one in row]
    choose = _in_turns if exact else _by_hash
    slots = choose(flat, tables, layer, token_offset, seed, max(top_k, 1))
    answer = following(slots, tables, (tokens, top_k), names)
    if load is not None:
        load += np.asarray(_counts(slots, tables.max_slots), dtype=load.dtype)
    return Routed(**{name: np.array(one, dtype=np.int32).reshape(shape) for name, (one, shape) in answer.items()})


def _checked_layer(layer: int | None, num_layers: int) -> int:
    if layer is None and num_layers == 1:
        return 0
    if layer is None:
        raise TypeError(f"layer must be an int where there are {num_layers} layers")
    if not 0 <= layer < num_layers:
        raise IndexError(f"layer={layer} is out of range, expected 0..{num_layers}")
    return layer


def _by_hash(ids: list[int], tables: RoutingTables, layer: int, offset: int, seed: int, top_k: int) -> list[int]:
    experts = range(tables.placement.num_experts)
    return [
        tables.choice(layer, one, offset + place // top_k, seed) if one in experts else UNROUTED
        for place, one in enumerate(ids)
    ]


def _in_turns(
    ids: list[int],
    tables: RoutingTables,
    layer: int,
    offset: int,
    seed: int,
    top_k: int,  # noqa: ARG001
) -> list[int]:
    slots = []
    for place, one in enumerate(ids):
        if one not in range(tables.placement.num_experts):
            slots.append(UNROUTED)
            continue
        replicas = tables.replicas(layer, one)
        first = chosen(len(replicas), hashed(one, offset % WORD, seed % WORD))
        slots.append(replicas[(first + ids[:place].count(one)) % len(replicas)])
    return slots


def _counts(slots: Sequence[int], length: int) -> list[int]:
    return [slots.count(slot) for slot in range(length)]


def following(
    slots: list[int], tables: RoutingTables, shape: tuple[int, int], names: set[str]
) -> dict[str, tuple[list[int], tuple[int, ...]]]:
    """What is wanted of what follows from the slots, flat, and its shape."""
    offsets, ids = tables.placement.offsets, len(slots)
    answers: dict[str, tuple[list[int], tuple[int, ...]]] = {"slots": (slots, shape)}
    if "local_slots" in names and tables.rank is not None:
        begin, end = offsets[tables.rank], offsets[tables.rank + 1]
        local = [slot - begin if begin <= slot < end else UNROUTED for slot in slots]
        answers["local_slots"] = (local, shape)
    # What is not wanted of the rest is not looked for: a batch has many ids.
    if names & {"slot_counts", "slot_offsets", "rank_counts", "rank_offsets"}:
        counts = _counts(slots, tables.max_slots)
        begins = [sum(counts[:slot]) for slot in range(tables.max_slots + 1)]
        of_ranks = [begins[slot] for slot in offsets]
        answers["slot_counts"] = (counts, (tables.max_slots,))
        answers["slot_offsets"] = (begins, (tables.max_slots + 1,))
        answers["rank_counts"] = ([end - begin for begin, end in itertools.pairwise(of_ranks)], (-1,))
        answers["rank_offsets"] = (of_ranks, (-1,))
    if names & {"order", "positions"}:
        # Unrouted ids come last, and equal slots as they stand.
        order = sorted(range(ids), key=lambda place: (slots[place] == UNROUTED, slots[place]))
        answers["order"] = (order, (ids,))
        answers["positions"] = ([order.index(place) for place in range(ids)], shape)
    return {name: answers[name] for name in FIELDS if name in names}
