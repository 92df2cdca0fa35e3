"""Routing in plain torch operations, on any device: the implementation to read. SPEC.md, "Routing".

It is traceable and waits for no device. Arithmetic is int64, in which 32-bit products are exact or wrap harmlessly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from expert_placement.torch.routing import request as ask

if TYPE_CHECKING:
    from torch import Tensor

    from expert_placement.torch.routing.request import Request

_WORD = 0xFFFF_FFFF
# The numbers of the stated rule; SPEC.md, "Choice of a replica".
_TOKEN, _EXPERT, _SEED = 0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D
_FIRST, _SECOND = 0x7FEB_352D, 0x846C_A68B


def hashes(expert: Tensor, token: Tensor, seed: int | Tensor) -> Tensor:
    """The hash of each expert for each token, in 0..2**32: int64 tensors that broadcast."""
    mixed = (token * _TOKEN + expert * _EXPERT + seed * _SEED) & _WORD
    mixed = ((mixed ^ (mixed >> 16)) * _FIRST) & _WORD
    mixed = ((mixed ^ (mixed >> 15)) * _SECOND) & _WORD
    return mixed ^ (mixed >> 16)


@overload
def _word(number: Tensor) -> Tensor: ...


@overload
def _word(number: int | Tensor) -> int | Tensor: ...


def _word(number: int | Tensor) -> int | Tensor:
    """A number modulo 2^32; of a tensor as int64, in which that is not negative."""
    return number.long() & _WORD if isinstance(number, torch.Tensor) else number & _WORD


def route(request: Request) -> list[Tensor]:
    """What is wanted, in order; `load` is added to in place."""
    ids, sizes = request.topk_ids, request.sizes
    slots = torch.full(ids.shape, -1, dtype=torch.int32, device=ids.device)
    # Without an expert there is nothing to look up, and no id is one.
    if sizes.num_experts > 0 and sizes.max_slots > 0 and ids.numel() > 0:
        slots = _slots(request)
    answers = {ask.SLOTS: slots}
    if request.wanted & ask.LOCAL_SLOTS:
        answers[ask.LOCAL_SLOTS] = _local_slots(request, slots)
    if request.load is not None or request.wanted & ~(ask.SLOTS | ask.LOCAL_SLOTS):
        # Unrouted ids are counted in a slot of their own, after all others.
        keys = torch.where(slots < 0, sizes.max_slots, slots).flatten().long()
        counts = torch.zeros(sizes.max_slots + 1, dtype=torch.int32, device=ids.device)
        counts = counts.scatter_add(0, keys, torch.ones_like(keys, dtype=torch.int32))[:-1]
        if request.load is not None:
            request.load.add_(counts)
        answers |= _sums(request, keys, counts)
    return request.picked(answers)


def _slots(request: Request) -> Tensor:
    """The slot of every id, or -1."""
    ids, sizes = request.topk_ids.long(), request.sizes
    parts = request.parts
    tokens = torch.arange(ids.shape[0], device=ids.device).unsqueeze(1)
    is_valid = (ids >= 0) & (ids < sizes.num_experts) & (tokens < request.valid_tokens)
    experts = torch.where(is_valid, ids, 0)
    entries = _word(request.table[parts.entries + experts])
    upper, count = entries >> 16, entries & 0xFFFF
    first, seed = _word(request.token_offset), _word(request.seed)
    if request.is_exact:
        hashed = hashes(experts, torch.zeros_like(ids) + first, seed)
        turns = _occurrences(torch.where(is_valid, experts, sizes.num_experts), sizes.num_experts)
        # An expert that nothing serves has no replica to take turns.
        replica = ((hashed * count >> 32) + turns) % count.clamp(min=1)
        at: Tensor = upper + replica
        listed: int | Tensor = parts.slots
    else:
        product = hashes(experts, _word(tokens + first), seed) * count
        at, listed = upper + (product >> 32), parts.slots
        if sizes.is_weighted:
            cutoffs = _word(request.table[parts.cutoffs + at.clamp(max=sizes.max_slots - 1)])
            listed = torch.where(_word(product) < cutoffs, parts.slots, parts.aliases)
    # The upper number of an only replica is its slot, and may be beyond the list that others are looked up in.
    listed_slots = request.table[listed + at.clamp(max=sizes.max_slots - 1)]
    slots = torch.where(count == 1, upper.to(torch.int32), listed_slots)
    return torch.where(is_valid & (count > 0), slots, -1)


def _occurrences(keys: Tensor, num_keys: int) -> Tensor:
    """How many equal keys, in 0..=num_keys, stand before each one."""
    flat = keys.flatten()
    order = flat.argsort(stable=True)
    counts = torch.zeros(num_keys + 1, dtype=torch.long, device=keys.device).scatter_add(0, flat, torch.ones_like(flat))
    begins = counts.cumsum(0) - counts
    places = torch.arange(flat.shape[0], device=keys.device) - begins[flat[order]]
    return torch.empty_like(flat).scatter(0, order, places).view(keys.shape)


def _local_slots(request: Request, slots: Tensor) -> Tensor:
    """The local slot on the rank of the request, or -1."""
    ends = request.table[request.parts.rank_slots + request.rank :]
    begin, end = ends[0], ends[1]
    return torch.where((slots >= begin) & (slots < end), slots - begin, -1)


def _sums(request: Request, keys: Tensor, counts: Tensor) -> dict[int, Tensor]:
    """Everything that follows from the counts and from the order."""
    answers = {ask.SLOT_COUNTS: counts}
    if request.wanted & (ask.SLOT_OFFSETS | ask.RANK_COUNTS | ask.RANK_OFFSETS):
        offsets = torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
        begin = request.parts.rank_slots
        rank_offsets = offsets[request.table[begin : begin + request.sizes.num_ranks + 1].long()]
        answers[ask.SLOT_OFFSETS] = offsets
        answers[ask.RANK_OFFSETS] = rank_offsets
        answers[ask.RANK_COUNTS] = rank_offsets[1:] - rank_offsets[:-1]
    if request.wanted & (ask.ORDER | ask.POSITIONS):
        order = keys.argsort(stable=True)
        places = torch.arange(keys.shape[0], dtype=torch.int32, device=keys.device)
        positions = torch.empty_like(places).scatter(0, order, places)
        answers[ask.ORDER] = order.to(torch.int32)
        answers[ask.POSITIONS] = positions.view(request.topk_ids.shape)
    return answers
