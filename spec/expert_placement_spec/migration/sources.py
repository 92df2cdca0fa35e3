"""What moves, and from where. SPEC.md, "Migration"."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from expert_placement_spec.placement.reference import Placement


class Move(NamedTuple):
    """An expert's weights are copied from one slot of a layer to another."""

    layer: int
    expert: int
    source: int
    destination: int


def changed_slots(old: list[list[int]], new: list[list[int]]) -> list[tuple[int, int]]:
    """Each (layer, slot) that comes to hold an expert that it did not hold."""
    return [
        (layer, slot)
        for layer, row in enumerate(new)
        for slot, expert in enumerate(row)
        if expert >= 0 and expert != old[layer][slot]
    ]


def choose_sources(old: Placement, new: Placement) -> list[Move]:
    """A move for every changed slot, layer by layer and slot by slot.

    The source holds the expert in `old`, on a rank that is active in `new`. It is on the same rank if it can be, else
    on the same node, else anywhere; of ranks equally near, the one that has sent least until then, the lowest of
    equals; and of its slots the lowest. A copy inside a rank is not sent.

    Raises:
        ValueError: an expert that no active rank holds in `old`.
    """
    rank_of = ranks_of_slots(new)
    sent = [0] * new.num_ranks
    moves = []
    for layer, slot in changed_slots(old.table, new.table):
        expert, receiver = new.table[layer][slot], rank_of[slot]
        sources = live_slots(old, new, layer, expert)
        if not sources:
            raise ValueError(f"slot {slot} of layer {layer} is to hold expert {expert}, which no active rank held")
        senders = {rank_of[source] for source in sources}
        sender = min(senders, key=lambda rank: (distance(new, rank, receiver), sent[rank], rank))
        source = min(source for source in sources if rank_of[source] == sender)
        if sender != receiver:
            sent[sender] += 1
        moves.append(Move(layer, expert, source, slot))
    return moves


def live_slots(old: Placement, new: Placement, layer: int, expert: int) -> list[int]:
    """The slots of `old` that hold an expert and can be read: those of ranks that `new` still counts on."""
    rank_of = ranks_of_slots(new)
    row = old.table[layer]
    return [slot for slot, entry in enumerate(row) if entry == expert and new.topology.is_active(rank_of[slot])]


def distance(placement: Placement, sender: int, receiver: int) -> int:
    """0 on the same rank, 1 on the same node, 2 elsewhere."""
    node_of = placement.topology.node_of
    return 0 if sender == receiver else 1 if node_of(sender) == node_of(receiver) else 2


def ranks_of_slots(placement: Placement) -> list[int]:
    """The rank of each slot."""
    offsets = placement.slot_offsets()
    return [rank for rank in range(placement.num_ranks) for _ in range(offsets[rank], offsets[rank + 1])]
