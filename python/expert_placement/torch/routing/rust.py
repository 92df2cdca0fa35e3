"""Routing on the CPU by the compiled core. SPEC.md, "Routing"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement import _core
from expert_placement._text import excerpt
from expert_placement.torch.routing import request as ask

if TYPE_CHECKING:
    from torch import Tensor

    from expert_placement.torch.routing.request import Request

_LONGEST = 2**63 - 1


def _add(load: Tensor, counts: Tensor) -> None:
    try:
        load.add_(counts)
    except RuntimeError as error:
        # As of a tensor of inference mode outside of it, of which torch says so when it has added.
        reason = excerpt(str(error), 240)
        raise ValueError(f"load must be a tensor that can be added to in place: {reason}") from error


def route(request: Request) -> list[Tensor]:
    """What is wanted, in order; `load` is added to in place."""
    tokens, top_k = request.topk_ids.shape
    wanted = request.wanted | (ask.SLOT_COUNTS if request.load is not None else 0)
    answers = _core._route(
        request.topk_ids.contiguous(),
        request.table,
        request.sizes,
        top_k,
        int(request.token_offset) & _LONGEST,
        int(request.seed) & _LONGEST,
        min(max(int(request.valid_tokens), 0), tokens),
        request.rank,
        request.is_exact,
        wanted,
    )
    by_bit = dict(zip((bit for bit in ask.BITS if wanted & bit), answers, strict=True))
    if request.load is not None:
        _add(request.load, by_bit[ask.SLOT_COUNTS])
    for bit in (ask.SLOTS, ask.LOCAL_SLOTS, ask.POSITIONS):
        if bit in by_bit:
            by_bit[bit] = by_bit[bit].view(tokens, top_k)
    return request.picked(by_bit)
