"""One call of `route`, checked, as every implementation takes it. SPEC.md, "Routing"."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OUTPUTS = (
    "slots",
    "local_slots",
    "slot_counts",
    "slot_offsets",
    "rank_counts",
    "rank_offsets",
    "order",
    "positions",
)
"""What can be asked for. The place in this list is the bit in `Request.wanted`, and the order of the answers."""

BITS = tuple(1 << place for place in range(len(OUTPUTS)))
SLOTS, LOCAL_SLOTS, SLOT_COUNTS, SLOT_OFFSETS, RANK_COUNTS, RANK_OFFSETS, ORDER, POSITIONS = BITS


NUMBERS = 2**63
"""Token offsets and seeds are below; their values modulo 2^32 count."""


class Sizes(NamedTuple):
    """What a routing table is made for."""

    num_experts: int
    max_slots: int
    num_ranks: int
    is_weighted: bool


class Parts(NamedTuple):
    """Where the parts of a routing table begin: `RoutingShape` of the crate says what they are."""

    entries: int
    slots: int
    homes: int
    rank_slots: int
    cutoffs: int
    aliases: int


class Request(NamedTuple):
    """Ids and how they are to be routed; numbers are in range, and tensors are of the right kind."""

    topk_ids: Tensor
    """int32 or int64, `[T, k]`, of any strides."""
    table: Tensor
    """int32, the routing table of one layer, contiguous."""
    sizes: Sizes
    parts: Parts
    """Where the parts of the table begin; they follow from the sizes."""
    token_offset: int | Tensor
    seed: int | Tensor
    valid_tokens: int | Tensor
    rank: int
    """Whose slots are local; 0 where nobody asks."""
    is_exact: bool
    wanted: int
    """Bits of `OUTPUTS`."""
    load: Tensor | None
    """int32 or int64, `[P]`, contiguous; what each slot serves is added to it."""

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of what is wanted, in order."""
        tokens, top_k = self.topk_ids.shape
        slots, ranks = self.sizes.max_slots, self.sizes.num_ranks
        ids = (tokens, top_k)
        all_shapes = (ids, ids, (slots,), (slots + 1,), (ranks,), (ranks + 1,), (tokens * top_k,), ids)
        return [shape for bit, shape in zip(BITS, all_shapes, strict=True) if self.wanted & bit]

    def picked(self, answers: dict[int, Tensor]) -> list[Tensor]:
        """What is wanted, in order, out of answers by their bits."""
        return [answers[bit] for bit in BITS if self.wanted & bit]
