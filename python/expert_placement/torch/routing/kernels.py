"""Triton kernels of routing. SPEC.md, "Routing"; `launch` says which are run, and with what.

Blocks of ids are independent of each other. What needs the order of the batch, the stable order and the exact variant,
is done in three steps: each block counts its keys, the counts are summed up over the blocks before, and each block
finds the places of its ids from there.
"""

# Arguments in capitals are known at compile time, as Triton's own are.
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _number(value, pointer):
    """A number of 32 bits: as it was given, or from a tensor, modulo 2^32."""
    if pointer is not None:
        return tl.load(pointer).to(tl.uint32)
    return value.to(tl.uint32)


@triton.jit
def _hash(expert, token, seed):
    mixed = token * 0x9E3779B1 + expert.to(tl.uint32) * 0x85EBCA77 + seed * 0xC2B2AE3D
    mixed = (mixed ^ (mixed >> 16)) * 0x7FEB352D
    mixed = (mixed ^ (mixed >> 15)) * 0x846CA68B
    return mixed ^ (mixed >> 16)


@triton.jit
def _experts(ids, i, num_ids, row_stride, column_stride, valid_tokens, valid_pointer, E, K, IS_CONTIGUOUS):
    """The rows of some ids, their experts, and whether they are experts of tokens that are not padding."""
    row = i // K
    is_there = i < num_ids
    if IS_CONTIGUOUS:  # noqa: SIM108
        at = ids + i
    else:
        at = ids + row.to(tl.int64) * row_stride + (i - row * K).to(tl.int64) * column_stride
    given = tl.load(at, mask=is_there, other=-1)
    if valid_pointer is not None:
        is_valid = is_there & (row < tl.load(valid_pointer))
    else:
        is_valid = is_there & (row < valid_tokens)
    # Compared as they are given: an id of 64 bits may look like an expert by its lower half.
    is_valid = is_valid & (given >= 0) & (given < E)
    return row, tl.where(is_valid, given, 0).to(tl.int32), is_valid


@triton.jit
def _replicas(table, expert, is_valid):
    """The only slot of each expert, or where its slots begin; and how many there are."""
    entry = tl.load(table + expert, mask=is_valid, other=0).to(tl.uint32, bitcast=True)
    return (entry >> 16).to(tl.int32), (entry & 0xFFFF).to(tl.int32)


@triton.jit
def _chosen(table, upper, count, hashed, SLOTS, CUTOFFS, ALIASES, IS_WEIGHTED):
    """The slot of the replica that a hash names, by weight where there are weights; -1 where there is none."""
    at = upper + tl.umulhi(hashed, count.to(tl.uint32)).to(tl.int32)
    has_several = count > 1
    if IS_WEIGHTED:
        cutoff = tl.load(table + CUTOFFS + at, mask=has_several, other=0).to(tl.uint32, bitcast=True)
        at += tl.where(hashed * count.to(tl.uint32) < cutoff, SLOTS, ALIASES)
    else:
        at += SLOTS
    # Most experts have one replica, and need no second look.
    return tl.load(table + at, mask=has_several, other=tl.where(count == 1, upper, -1))


@triton.jit
def _in_turn(table, upper, count, turn, SLOTS):
    """The slot of the replica whose turn it is; -1 where there is none."""
    at = upper + turn % tl.where(count > 0, count, 1)
    return tl.load(table + SLOTS + at, mask=count > 1, other=tl.where(count == 1, upper, -1))


@triton.jit
def _store_slots(slots, local_slots, table, i, slot, is_there, rank, RANK_SLOTS):
    """Stores slots, and local slots on a rank, where they are wanted."""
    if slots is not None:
        tl.store(slots + i, slot, mask=is_there)
    if local_slots is not None:
        begin = tl.load(table + RANK_SLOTS + rank)
        end = tl.load(table + RANK_SLOTS + rank + 1)
        is_local = (slot >= begin) & (slot < end)
        tl.store(local_slots + i, tl.where(is_local, slot - begin, -1), mask=is_there)


@triton.jit
def _store_places(order, positions, i, place, is_there):
    """Stores where ids come in the order, and the order, where they are wanted."""
    if positions is not None:
        tl.store(positions + i, place, mask=is_there)
    if order is not None:
        tl.store(order + place, i, mask=is_there)


@triton.jit
def _store_counts(row, key, is_there, NUM_BINS, FIRST, SECOND):
    """Stores how often each key is there."""
    bins = tl.arange(0, FIRST)
    tl.store(row + bins, tl.histogram(key, FIRST, mask=is_there & (key < FIRST)), mask=bins < NUM_BINS)
    if SECOND > 0:
        more = tl.arange(0, SECOND)
        counts = tl.histogram(key - FIRST, SECOND, mask=is_there & (key >= FIRST))
        tl.store(row + FIRST + more, counts, mask=FIRST + more < NUM_BINS)


@triton.jit
def _add_counts(counters, key, is_there, NUM_BINS, FIRST, SECOND):
    """Adds how often each key is there to counters that other blocks add to, too."""
    bins = tl.arange(0, FIRST)
    counts = tl.histogram(key, FIRST, mask=is_there & (key < FIRST))
    to = counters.dtype.element_ty
    tl.atomic_add(counters + bins, counts.to(to), mask=(bins < NUM_BINS) & (counts > 0), sem="relaxed")
    if SECOND > 0:
        more = tl.arange(0, SECOND)
        counts = tl.histogram(key - FIRST, SECOND, mask=is_there & (key >= FIRST))
        tl.atomic_add(
            counters + FIRST + more, counts.to(to), mask=(FIRST + more < NUM_BINS) & (counts > 0), sem="relaxed"
        )


@triton.jit(
    do_not_specialize=["num_ids", "row_stride", "column_stride", "token_offset", "seed", "valid_tokens", "rank"]
)
def map_kernel(
    ids,
    table,
    slots,
    local_slots,
    counters,
    rows,
    num_ids,
    row_stride,
    column_stride,
    token_offset,
    seed,
    valid_tokens,
    rank,
    offset_pointer,
    seed_pointer,
    valid_pointer,
    E: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    SLOTS: tl.constexpr,
    RANK_SLOTS: tl.constexpr,
    CUTOFFS: tl.constexpr,
    ALIASES: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_CONTIGUOUS: tl.constexpr,
    IS_HISTOGRAM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The slot of every id; counts of slots into `counters`, or block by block into `rows`, unrouted ids last."""
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    row, expert, is_valid = _experts(
        ids, i, num_ids, row_stride, column_stride, valid_tokens, valid_pointer, E, K, IS_CONTIGUOUS
    )
    upper, count = _replicas(table, expert, is_valid)
    token = row.to(tl.uint32) + _number(token_offset, offset_pointer)
    hashed = _hash(expert, token, _number(seed, seed_pointer))
    slot = _chosen(table, upper, count, hashed, SLOTS, CUTOFFS, ALIASES, IS_WEIGHTED)
    is_there = i < num_ids
    _store_slots(slots, local_slots, table, i, slot, is_there, rank, RANK_SLOTS)
    if counters is not None:
        if IS_HISTOGRAM:
            _add_counts(counters, slot, slot >= 0, P, FIRST, SECOND)
        else:
            tl.atomic_add(counters + slot, 1, mask=slot >= 0, sem="relaxed")
    if rows is not None:
        key = tl.where(slot < 0, P, slot)
        _store_counts(rows + block.to(tl.int64) * (P + 1), key, is_there, P + 1, FIRST, SECOND)


@triton.jit(do_not_specialize=["num_ids", "row_stride", "column_stride", "valid_tokens"])
def count_experts_kernel(
    ids,
    rows,
    num_ids,
    row_stride,
    column_stride,
    valid_tokens,
    valid_pointer,
    E: tl.constexpr,
    K: tl.constexpr,
    IS_CONTIGUOUS: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """How often each expert is asked for, block by block; ids that are none last."""
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    _, expert, is_valid = _experts(
        ids, i, num_ids, row_stride, column_stride, valid_tokens, valid_pointer, E, K, IS_CONTIGUOUS
    )
    key = tl.where(is_valid, expert, E)
    _store_counts(rows + block.to(tl.int64) * (E + 1), key, i < num_ids, E + 1, FIRST, SECOND)


@triton.jit(do_not_specialize=["num_blocks"])
def scan_kernel(rows, totals, num_blocks, NUM_BINS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Replaces counts of blocks by those of all blocks before; the totals apart."""
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    before = tl.zeros([WIDTH], tl.int32)
    for first in range(0, num_blocks, HEIGHT):
        block = first + tl.arange(0, HEIGHT)
        at = rows + block.to(tl.int64)[:, None] * NUM_BINS + column[None, :]
        is_there = (block < num_blocks)[:, None] & (column < NUM_BINS)[None, :]
        counts = tl.load(at, mask=is_there, other=0)
        sums = tl.cumsum(counts, 0)
        tl.store(at, before[None, :] + sums - counts, mask=is_there)
        before += tl.sum(counts, 0)
    tl.store(totals + column, before, mask=column < NUM_BINS)


@triton.jit
def _first_turn(expert, count, token_offset, seed, offset_pointer, seed_pointer):
    """The replica that the first id of each expert goes to."""
    token = tl.zeros_like(expert).to(tl.uint32) + _number(token_offset, offset_pointer)
    hashed = _hash(expert, token, _number(seed, seed_pointer))
    return tl.umulhi(hashed, count.to(tl.uint32)).to(tl.int32)


@triton.jit
def _store_sums(
    counts,
    table,
    counts_out,
    slot_offsets,
    rank_counts,
    rank_offsets,
    load,
    P,
    R,
    RANK_SLOTS,
    WIDTH: tl.constexpr,
    RANKS: tl.constexpr,
):
    """Stores what follows from the counts of all slots, in one block."""
    slot = tl.arange(0, WIDTH)
    if counts_out is not None:
        tl.store(counts_out + slot, counts, mask=slot < P)
    if load is not None:
        # Other streams may add to it at the same time.
        to = load.dtype.element_ty
        tl.atomic_add(load + slot, counts.to(to), mask=(slot < P) & (counts > 0), sem="relaxed")
    if slot_offsets is not None:
        tl.store(slot_offsets + slot, tl.cumsum(counts, 0) - counts, mask=slot <= P)
    if rank_offsets is not None:
        tl.debug_barrier()
        rank = tl.arange(0, RANKS)
        begin = tl.load(table + RANK_SLOTS + rank, mask=rank <= R, other=0)
        first = tl.load(slot_offsets + begin, mask=rank <= R, other=0)
        tl.store(rank_offsets + rank, first, mask=rank <= R)
        if rank_counts is not None:
            end = tl.load(table + RANK_SLOTS + rank + 1, mask=rank < R, other=0)
            tl.store(rank_counts + rank, tl.load(slot_offsets + end, mask=rank < R, other=0) - first, mask=rank < R)


@triton.jit(do_not_specialize=["num_blocks", "token_offset", "seed"])
def finish_kernel(
    rows,
    totals,
    table,
    counts_out,
    slot_offsets,
    rank_counts,
    rank_offsets,
    load,
    num_blocks,
    token_offset,
    seed,
    offset_pointer,
    seed_pointer,
    P: tl.constexpr,
    R: tl.constexpr,
    HOMES: tl.constexpr,
    RANK_SLOTS: tl.constexpr,
    IS_EXACT: tl.constexpr,
    NUM_BINS: tl.constexpr,
    BINS: tl.constexpr,
    WIDTH: tl.constexpr,
    RANKS: tl.constexpr,
):
    """Counts and offsets of slots and ranks, in one block, from totals or from the rows of few blocks."""
    if rows is not None:
        bins = tl.arange(0, BINS)
        before = tl.zeros([BINS], tl.int32)
        for block in range(num_blocks):
            at = rows + block * NUM_BINS + bins
            counts = tl.load(at, mask=bins < NUM_BINS, other=0)
            tl.debug_barrier()
            tl.store(at, before, mask=bins < NUM_BINS)
            before += counts
        tl.store(totals + bins, before, mask=bins < NUM_BINS)
        tl.debug_barrier()
    slot = tl.arange(0, WIDTH)
    if IS_EXACT:
        # Each expert's ids in turn: every replica has as many, and those from the first turn on the rest.
        expert = tl.load(table + HOMES + 2 * slot, mask=slot < P, other=-1)
        place = tl.load(table + HOMES + 2 * slot + 1, mask=slot < P, other=0)
        is_used = expert >= 0
        expert = tl.where(is_used, expert, 0)
        _, count = _replicas(table, expert, is_used)
        number = tl.load(totals + expert, mask=is_used, other=0)
        turn = _first_turn(expert, count, token_offset, seed, offset_pointer, seed_pointer)
        least = tl.where(is_used, count, 1)
        has_more = (place - turn + least) % least < number % least
        counts = tl.where(is_used, number // least + has_more.to(tl.int32), 0)
    else:
        counts = tl.load(totals + slot, mask=slot < P, other=0)
    _store_sums(
        counts, table, counts_out, slot_offsets, rank_counts, rank_offsets, load, P, R, RANK_SLOTS, WIDTH, RANKS
    )


@triton.jit
def _earlier(key, BLOCK: tl.constexpr):
    """How many keys of the block before each one are the same."""
    # Summed up along the first axis, so that each thread adds up for itself.
    before = tl.arange(0, BLOCK)[:, None] < tl.arange(0, BLOCK)[None, :]
    is_same = (key[:, None] == key[None, :]) & before
    return tl.sum(is_same.to(tl.int32), 0)


@triton.jit(do_not_specialize=["num_ids"])
def place_kernel(
    slots,
    rows,
    slot_offsets,
    order,
    positions,
    num_ids,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The place of every id in the stable order of slots, and the order."""
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    is_there = i < num_ids
    slot = tl.load(slots + i, mask=is_there, other=-1)
    key = tl.where(slot < 0, P, slot)
    place = tl.load(slot_offsets + key, mask=is_there, other=0)
    place += tl.load(rows + block.to(tl.int64) * (P + 1) + key, mask=is_there, other=0)
    place += _earlier(key, BLOCK)
    _store_places(order, positions, i, place, is_there)


@triton.jit(do_not_specialize=["num_ids", "num_blocks"])
def place_few_kernel(
    slots,
    rows,
    bases,
    table,
    counts_out,
    slot_offsets,
    rank_counts,
    rank_offsets,
    load,
    order,
    positions,
    num_ids,
    num_blocks,
    P: tl.constexpr,
    R: tl.constexpr,
    RANK_SLOTS: tl.constexpr,
    BLOCKS: tl.constexpr,
    WIDTH: tl.constexpr,
    RANKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """As `place_kernel`, where blocks are so few that each sums up the counts of all itself; the first stores sums."""
    block = tl.program_id(0)
    of_block, bins = tl.arange(0, BLOCKS), tl.arange(0, WIDTH)
    is_there = (of_block < num_blocks)[:, None] & (bins <= P)[None, :]
    counts = tl.load(rows + of_block[:, None] * (P + 1) + bins[None, :], mask=is_there, other=0)
    totals = tl.sum(counts, 0)
    base = tl.sum(tl.where((of_block < block)[:, None], counts, 0), 0) + tl.cumsum(totals, 0) - totals
    tl.store(bases + block * (P + 1) + bins, base, mask=bins <= P)
    tl.debug_barrier()
    i = block * BLOCK + tl.arange(0, BLOCK)
    is_id = i < num_ids
    slot = tl.load(slots + i, mask=is_id, other=-1)
    key = tl.where(slot < 0, P, slot)
    place = tl.load(bases + block * (P + 1) + key) + _earlier(key, BLOCK)
    _store_places(order, positions, i, place, is_id)
    if block == 0:
        _store_sums(
            totals, table, counts_out, slot_offsets, rank_counts, rank_offsets, load, P, R, RANK_SLOTS, WIDTH, RANKS
        )


@triton.jit(
    do_not_specialize=["num_ids", "row_stride", "column_stride", "token_offset", "seed", "valid_tokens", "rank"]
)
def take_turns_kernel(
    ids,
    table,
    rows,
    slot_offsets,
    slots,
    local_slots,
    order,
    positions,
    num_ids,
    row_stride,
    column_stride,
    token_offset,
    seed,
    valid_tokens,
    rank,
    offset_pointer,
    seed_pointer,
    valid_pointer,
    E: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    SLOTS: tl.constexpr,
    RANK_SLOTS: tl.constexpr,
    IS_CONTIGUOUS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The exact variant: the slot of every id by its turn among those of its expert, and its place in their order."""
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    is_there = i < num_ids
    _, expert, is_valid = _experts(
        ids, i, num_ids, row_stride, column_stride, valid_tokens, valid_pointer, E, K, IS_CONTIGUOUS
    )
    upper, count = _replicas(table, expert, is_valid)
    key = tl.where(is_valid, expert, E)
    turn = tl.load(rows + block.to(tl.int64) * (E + 1) + key, mask=is_there, other=0)
    turn += _earlier(key, BLOCK)
    least = tl.where(count > 0, count, 1)
    first = _first_turn(expert, count, token_offset, seed, offset_pointer, seed_pointer)
    slot = _in_turn(table, upper, count, first + turn, SLOTS)
    _store_slots(slots, local_slots, table, i, slot, is_there, rank, RANK_SLOTS)
    if slot_offsets is not None:
        place = tl.load(slot_offsets + tl.where(slot < 0, P, slot), mask=is_there, other=0)
        place += tl.where(slot < 0, turn, turn // least)
        _store_places(order, positions, i, place, is_there)


@triton.jit(
    do_not_specialize=["num_ids", "row_stride", "column_stride", "token_offset", "seed", "valid_tokens", "rank"]
)
def whole_kernel(
    ids,
    table,
    slots,
    local_slots,
    counts_out,
    slot_offsets,
    rank_counts,
    rank_offsets,
    order,
    positions,
    load,
    num_ids,
    row_stride,
    column_stride,
    token_offset,
    seed,
    valid_tokens,
    rank,
    offset_pointer,
    seed_pointer,
    valid_pointer,
    E: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    K: tl.constexpr,
    SLOTS: tl.constexpr,
    RANK_SLOTS: tl.constexpr,
    CUTOFFS: tl.constexpr,
    ALIASES: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_CONTIGUOUS: tl.constexpr,
    IS_EXACT: tl.constexpr,
    WIDTH: tl.constexpr,
    RANKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Everything at once, for as few ids as one block compares with each other."""
    i = tl.arange(0, BLOCK)
    is_there = i < num_ids
    row, expert, is_valid = _experts(
        ids, i, num_ids, row_stride, column_stride, valid_tokens, valid_pointer, E, K, IS_CONTIGUOUS
    )
    upper, count = _replicas(table, expert, is_valid)
    if IS_EXACT:
        first = _first_turn(expert, count, token_offset, seed, offset_pointer, seed_pointer)
        turn = first + _earlier(tl.where(is_valid, expert, E), BLOCK)
        slot = _in_turn(table, upper, count, turn, SLOTS)
    else:
        token = row.to(tl.uint32) + _number(token_offset, offset_pointer)
        hashed = _hash(expert, token, _number(seed, seed_pointer))
        slot = _chosen(table, upper, count, hashed, SLOTS, CUTOFFS, ALIASES, IS_WEIGHTED)
    _store_slots(slots, local_slots, table, i, slot, is_there, rank, RANK_SLOTS)
    key = tl.where(slot < 0, P, slot)
    # What is beyond the last id is counted with the unrouted ones, and written nowhere.
    counts = tl.histogram(key, WIDTH)
    _store_sums(
        counts, table, counts_out, slot_offsets, rank_counts, rank_offsets, load, P, R, RANK_SLOTS, WIDTH, RANKS
    )
    if order is not None or positions is not None:
        tl.debug_barrier()
        place = tl.load(slot_offsets + key) + _earlier(key, BLOCK)
        _store_places(order, positions, i, place, is_there)
