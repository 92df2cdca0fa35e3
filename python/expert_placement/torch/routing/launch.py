"""Which kernels a request needs, and how they are launched. SPEC.md, "Routing".

Sizes of blocks and numbers of warps are those that were fastest on an H100; `tests/bench/routing.py` measures them.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import torch

from expert_placement.torch.routing import kernels
from expert_placement.torch.routing import request as ask
from expert_placement.torch.routing.launcher import IS_INTERPRETED, Compiled, Launcher, may_start
from expert_placement.torch.routing.layout import parts_of

if TYPE_CHECKING:
    from torch import Tensor

    from expert_placement.torch.routing.request import Request, Sizes
    from expert_placement.torch.routing.tables import RoutingTables

MAX_BINS = 4096
"""So many experts, slots or ranks and one more fit a block of a kernel; beyond, `route` takes the plain operations."""

FEW_BLOCKS = 8
"""Up to so many blocks one block sums up their counts itself."""

FEW_ROWS, MOST_COUNTS = 32, 1 << 14
"""Up to so many blocks, of so many counts together, each block sums up those of all blocks before itself."""

FEW_IDS = 256
"""Up to so many ids one block does everything that needs their order."""


class Bins(NamedTuple):
    """A histogram's bins, in one or two powers of two: 289 are counted as 256 and 64, and not as 512."""

    first: int
    second: int


class Grain(NamedTuple):
    """How much one block of `map_kernel` does, and by what it counts."""

    block: int
    num_warps: int
    is_histogram: bool


def fits(sizes: Sizes) -> bool:
    """Whether the kernels can take tables of these sizes."""
    return max(sizes[:3]) < MAX_BINS


@lru_cache(maxsize=256)
def bins_of(number: int) -> Bins:
    """The smallest bins for so many keys; a histogram has at least as many as a warp has threads."""
    whole = _power(number)
    rest = _power(number - whole // 2)
    return Bins(whole // 2, rest) if whole > 32 and rest < whole // 2 else Bins(whole, 0)


def _power(number: int, least: int = 32) -> int:
    return max(least, 1 << max(number - 1, 0).bit_length())


def _signed(number: int) -> int:
    """A number modulo 2^32 as an int32 that has the same bits, so that its type is the same whatever its value."""
    return (number + 2**31) % 2**32 - 2**31


# Up to so many ids each: for few an atomic addition for each is faster, for many a histogram of each block, which takes
# no longer where all ids are the same.
_GRAINS = (
    (64, Grain(32, 1, False)),
    (1 << 10, Grain(64, 2, False)),
    (1 << 11, Grain(128, 4, True)),
    (1 << 12, Grain(256, 4, True)),
    (1 << 14, Grain(256, 8, True)),
    (1 << 15, Grain(512, 8, True)),
    (1 << 17, Grain(1024, 8, True)),
    (1 << 30, Grain(2048, 8, True)),
)
_MOST = [most for most, _ in _GRAINS]


def grain_of(num_ids: int) -> Grain:
    """The grain that is fastest for so many ids."""
    return _GRAINS[bisect_left(_MOST, num_ids)][1]


ORDERED = 128
"""Ids of one block where each is compared with those of its block before it."""


def ways(most_ids: int) -> list[int]:
    """Numbers of ids, up to one, of which each needs kernels that no other does."""
    powers = [1 << exponent for exponent in range(5, 20)]
    return sorted({min(number, most_ids) for number in powers})


def route(request: Request) -> list[Tensor]:
    """What is wanted, in order, of tables that fit; `load` is added to in place."""
    num_ids = request.topk_ids.numel()
    if not num_ids:
        return _nothing(request)
    if not (request.is_exact or request.wanted & ~(ask.SLOTS | ask.LOCAL_SLOTS)):
        return _mapped(_Call(request))
    if num_ids <= FEW_IDS:
        return _whole(_Call(request))
    return (_in_turns if request.is_exact else _with_sums)(_Call(request))


def is_interpreted() -> bool:
    """Whether Triton interprets kernels, on the CPU."""
    return IS_INTERPRETED


def _nothing(request: Request) -> list[Tensor]:
    """Of no ids: counts and offsets are 0."""
    device = request.topk_ids.device
    return [torch.zeros(shape, dtype=torch.int32, device=device) for shape in request.shapes()]


@lru_cache(maxsize=1024)
def _launcher(
    kernel: str,
    types: tuple[object, ...],  # noqa: ARG001
    constants: tuple[object, ...],
    num_warps: int,
) -> Launcher:
    """The launcher of a kernel, for arguments of some types."""
    return Launcher(getattr(kernels, kernel), constants, num_warps)


class _Call:
    """Arguments that the kernels of one request share."""

    __slots__ = ("addresses", "device", "ids", "num_ids", "numbers", "pointers", "request", "shape", "strides", "types")

    def __init__(self, request: Request) -> None:
        ids, load = request.topk_ids, request.load
        self.request = request
        self.ids = ids
        self.shape = tuple(ids.shape)
        self.num_ids = self.shape[0] * self.shape[1]
        self.device = ids.device
        offset, seed, valid = request.token_offset, request.seed, request.valid_tokens
        if type(offset) is int and type(seed) is int and type(valid) is int:
            self.numbers: tuple[int, ...] = (_signed(offset), _signed(seed), valid)
            self.pointers: tuple[Tensor | None, ...] = _NO_POINTERS
            kinds: tuple[object, ...] = _NO_POINTERS
            self.addresses = 0
        else:
            given = (offset, seed, valid)
            self.numbers = tuple(0 if isinstance(one, torch.Tensor) else _signed(one) for one in given)
            self.pointers = tuple(one if isinstance(one, torch.Tensor) else None for one in given)
            kinds = tuple(None if one is None else one.dtype for one in self.pointers)
            self.addresses = 1
        # What was allocated here is aligned, and a row of the tables is.
        self.addresses |= ids.data_ptr()
        if load is not None:
            self.addresses |= load.data_ptr()
        if ids.is_contiguous():
            self.strides: tuple[int, ...] = _NO_STRIDES
        else:
            self.strides, self.addresses = ids.stride(), 1
        is_contiguous = self.strides is _NO_STRIDES
        self.types = (ids.dtype, load if load is None else load.dtype, *kinds, is_contiguous, request.wanted)

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=self.device)

    def empty_if(self, bits: int, *shape: int) -> Tensor | None:
        return torch.empty(shape, dtype=torch.int32, device=self.device) if self.request.wanted & bits else None

    def ids_like(self) -> Tensor:
        """Room of the shape of the ids, contiguous."""
        return torch.empty_like(self.ids, dtype=torch.int32, memory_format=torch.contiguous_format)

    def ids_like_if(self, bits: int) -> Tensor | None:
        return self.ids_like() if self.request.wanted & bits else None

    def launch(
        self, kernel: str, num_blocks: int, arguments: tuple[object, ...], constants: tuple[object, ...], num_warps: int
    ) -> None:
        launcher = _launcher(kernel, self.types, constants, num_warps)
        launcher.start(self.ids, num_blocks, arguments, self.addresses)

    def given(self) -> tuple[object, ...]:
        """The ids and what is said of them, as several kernels take them last."""
        return (self.num_ids, *self.strides, *self.numbers, self.request.rank, *self.pointers)

    def map(
        self,
        slots: Tensor | None,
        local_slots: Tensor | None,
        counters: Tensor | None,
        rows: Tensor | None,
        grain: Grain,
    ) -> None:
        """Launches `map_kernel`."""
        arguments = (self.ids, self.request.table, slots, local_slots, counters, rows, *self.given())
        launcher = self.map_launcher(counters, rows, grain)
        launcher.start(self.ids, -(-self.num_ids // grain.block), arguments, self.addresses)

    def map_launcher(self, counters: Tensor | None, rows: Tensor | None, grain: Grain) -> Launcher:
        """The launcher of `map_kernel`, by what it counts into."""
        num_keys = self.request.sizes.max_slots + (rows is not None)
        constants = _map_constants(self.request.sizes, self.shape[1], self.strides is _NO_STRIDES, num_keys, grain)
        kinds = (counters if counters is None else counters.dtype, rows is None)
        return _launcher("map_kernel", (self.types, kinds), constants, grain.num_warps)

    def finish(self, rows: Tensor | None, totals: Tensor, num_keys: int, out: _Sums) -> None:
        """Launches `finish_kernel`: with the rows of few blocks, or with totals."""
        request = self.request
        sizes, parts = request.sizes, request.parts
        num_blocks = 0 if rows is None else len(rows)
        numbers, pointers = self.numbers[:2], self.pointers[:2]
        arguments = (rows, totals, request.table, *out, request.load, num_blocks, *numbers, *pointers)
        constants = (
            *sizes[1:3],
            parts.homes,
            parts.rank_slots,
            request.is_exact,
            num_keys,
            *_widths(num_keys, sizes.max_slots + 1, sizes.num_ranks + 1),
        )
        launcher = _launcher("finish_kernel", (self.types, rows is None), constants, 8)
        launcher.start(self.ids, 1, arguments, self.addresses)

    def sum_up(self, rows: Tensor, num_keys: int, out: _Sums) -> None:
        """Turns counts of blocks into those before each, and those of all into what is wanted of them."""
        num_blocks, totals = len(rows), self.empty(num_keys)
        if num_blocks <= FEW_BLOCKS:
            self.finish(rows, totals, num_keys, out)
        else:
            height, width = (128, 8) if num_blocks <= 128 else (256 if num_blocks <= 512 else 512, 4)
            self.launch("scan_kernel", -(-num_keys // width), (rows, totals, num_blocks), (num_keys, height, width), 8)
            self.finish(None, totals, num_keys, out)

    def sums(self) -> _Sums:
        """Room for counts and offsets, as far as they are wanted or something wanted follows from them."""
        slots, ranks = self.request.sizes.max_slots, self.request.sizes.num_ranks
        of_ranks = ask.RANK_COUNTS | ask.RANK_OFFSETS
        return _Sums(
            self.empty_if(ask.SLOT_COUNTS, slots),
            self.empty_if(of_ranks | ask.SLOT_OFFSETS | ask.ORDER | ask.POSITIONS, slots + 1),
            self.empty_if(ask.RANK_COUNTS, ranks),
            self.empty_if(of_ranks, ranks + 1),
        )

    def picked(
        self,
        slots: Tensor | None,
        local_slots: Tensor | None,
        sums: _Sums,
        order: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> list[Tensor]:
        """What is wanted, in order."""
        answers: tuple[Any, ...] = (slots, local_slots, *sums, order, positions)
        return self.request.picked(dict(zip(ask.BITS, answers, strict=True)))


class _Sums(NamedTuple):
    """Counts and offsets, in the order in which kernels take them."""

    slot_counts: Tensor | None = None
    slot_offsets: Tensor | None = None
    rank_counts: Tensor | None = None
    rank_offsets: Tensor | None = None


_NO_POINTERS = (None, None, None)
_NO_STRIDES = (0, 0)


@lru_cache(maxsize=1024)
def _map_constants(sizes: Sizes, top_k: int, is_contiguous: bool, num_keys: int, grain: Grain) -> tuple[object, ...]:
    parts = parts_of(sizes)
    places = (parts.slots, parts.rank_slots, parts.cutoffs, parts.aliases)
    how = (sizes.is_weighted, is_contiguous, grain.is_histogram, *bins_of(num_keys), grain.block)
    return (sizes.num_experts, sizes.max_slots, top_k, *places, *how)


@lru_cache(maxsize=256)
def _widths(*numbers: int) -> tuple[int, ...]:
    return tuple(map(_power, numbers))


class Start(NamedTuple):
    """What it takes to start `map_kernel` once more for another batch of the same kind."""

    compiled: Compiled
    block: int
    constants: tuple[object, ...]


def remember(request: Request, starts: dict[tuple[object, ...], Start]) -> None:
    """Keeps what `start_again` needs, of a request that was served, where it is of the commonest kind."""
    ids, load = request.topk_ids, request.load
    numbers = (request.token_offset, request.seed, request.valid_tokens)
    if type(ids) is not torch.Tensor or any(type(number) is not int for number in numbers):
        return
    if request.wanted != ask.SLOTS or request.is_exact or not ids.numel() or not ids.is_contiguous():
        return
    if (load is not None and type(load) is not torch.Tensor) or not fits(request.sizes):
        return
    kind = _kind(ids.dtype, ids.shape[1], ids.numel(), ids.device, None if load is None else load.dtype)
    if kind in starts:
        return
    grain = grain_of(ids.numel())
    launcher = _Call(request).map_launcher(load, None, grain)
    compiled = launcher.compiled.get(ids.get_device())
    if compiled is not None:
        starts[kind] = Start(compiled, grain.block, launcher.constants)


def _kind(
    of_ids: torch.dtype, top_k: int, num_ids: int, device: torch.device, of_load: torch.dtype | None
) -> tuple[object, ...]:
    """What the compiled code depends on, for tables of some sizes."""
    return (of_ids, top_k, bisect_left(_MOST, num_ids), device, of_load)


def start_again(
    ids: Tensor,
    tables: RoutingTables,
    layer: SupportsIndex | None,
    token_offset: object,
    seed: object,
    valid_tokens: object,
    load: Tensor | None,
) -> Tensor | None:
    """The slots of contiguous ids of a kind that was served before, with as little as possible done on the host.

    None, and nothing done, where there is anything else about the arguments: `route` serves, or refuses, those.

    Raises:
        IndexError, TypeError: the layer, as for `RoutingTables.row`.
    """
    if type(ids) is not torch.Tensor or ids.layout is not torch.strided or ids.is_nested or not ids.is_contiguous():
        return None
    shape, device, address = ids.shape, ids.device, ids.data_ptr()
    if len(shape) != 2:
        return None
    tokens, top_k = shape
    num_ids = tokens * top_k
    if load is None:
        kind, load_address, addresses = _kind(ids.dtype, top_k, num_ids, device, None), None, address
    else:
        if type(load) is not torch.Tensor or load.layout is not torch.strided or load.is_nested:
            return None
        if load.shape != (tables.sizes.max_slots,) or not load.is_contiguous() or load.device != device:
            return None
        kind, load_address = _kind(ids.dtype, top_k, num_ids, device, load.dtype), load.data_ptr()
        addresses = address | load_address
    found, valid = tables.starts.get(kind), tokens if valid_tokens is None else valid_tokens
    if found is None or not (num_ids and address) or not (type(token_offset) is type(seed) is type(valid) is int):
        return None
    number = ids.get_device()
    if not (0 <= token_offset < ask.NUMBERS and 0 <= seed < ask.NUMBERS and 0 <= valid <= tokens):
        return None
    if not may_start(number, addresses):
        return None
    (run, function, metadata, _), block, constants = found
    row = tables.row(layer)
    slots = torch.empty_like(ids, dtype=torch.int32, memory_format=torch.contiguous_format)
    # As `Compiled.start` does, without the microsecond that it takes to pass so many arguments on.
    # fmt: off
    run(
        -(-num_ids // block), 1, 1, torch._C._cuda_getCurrentRawStream(number), function, metadata, None, None, None,
        address, row.data_ptr(), slots.data_ptr(), None, load_address, None, num_ids, 0, 0,
        token_offset if token_offset < 2**31 else _signed(token_offset), seed if seed < 2**31 else _signed(seed),
        valid, tables.rank or 0, None, None, None, *constants,
    )
    # fmt: on
    return slots


def _mapped(call: _Call) -> list[Tensor]:
    """Slots, and their load: one kernel."""
    wanted = call.request.wanted
    slots, local_slots = call.ids_like_if(ask.SLOTS), call.ids_like_if(ask.LOCAL_SLOTS)
    call.map(slots, local_slots, call.request.load, None, grain_of(call.num_ids))
    return [one for one in (slots, local_slots) if one is not None] if wanted else []


def _whole(call: _Call) -> list[Tensor]:
    """Everything for few ids: one kernel."""
    request = call.request
    sizes, parts = request.sizes, request.parts
    slots, local_slots = call.ids_like_if(ask.SLOTS), call.ids_like_if(ask.LOCAL_SLOTS)
    sums = call.sums()
    order, positions = call.empty_if(ask.ORDER, call.num_ids), call.ids_like_if(ask.POSITIONS)
    block = _power(call.num_ids)
    arguments = (call.ids, request.table, slots, local_slots, *sums, order, positions, request.load, *call.given())
    constants = (
        *sizes[:3],
        call.shape[1],
        parts.slots,
        parts.rank_slots,
        parts.cutoffs,
        parts.aliases,
        sizes.is_weighted,
        call.strides is _NO_STRIDES,
        request.is_exact,
        *_widths(sizes.max_slots + 1, sizes.num_ranks + 1),
        block,
    )
    call.launch("whole_kernel", 1, arguments, constants, max(block // 32, 4))
    return call.picked(slots, local_slots, sums, order, positions)


def _with_sums(call: _Call) -> list[Tensor]:
    """Counts and offsets, and the stable order where it is wanted."""
    request, keys = call.request, call.request.sizes.max_slots + 1
    needs_order = request.wanted & (ask.ORDER | ask.POSITIONS)
    local_slots, sums = call.ids_like_if(ask.LOCAL_SLOTS), call.sums()
    if not needs_order:
        slots = call.ids_like_if(ask.SLOTS)
        totals = torch.zeros(keys, dtype=torch.int32, device=call.device)
        call.map(slots, local_slots, totals, None, grain_of(call.num_ids))
        call.finish(None, totals, keys, sums)
        return call.picked(slots, local_slots, sums)
    slots = call.ids_like()
    # Larger blocks where that keeps them few.
    block = 2 * ORDERED if FEW_ROWS < call.num_ids / ORDERED <= 2 * FEW_ROWS else ORDERED
    rows = call.empty(-(-call.num_ids // block), keys)
    call.map(slots, local_slots, None, rows, Grain(block, 4, True))
    order, positions = call.empty_if(ask.ORDER, call.num_ids), call.ids_like_if(ask.POSITIONS)
    blocks, (width, ranks) = _power(len(rows), 1), _widths(keys, request.sizes.num_ranks + 1)
    if blocks <= FEW_ROWS and blocks * width <= MOST_COUNTS:
        bases = torch.empty_like(rows)
        arguments: tuple[object, ...] = (slots, rows, bases, request.table, *sums, request.load, order, positions)
        sizes = (request.sizes.max_slots, request.sizes.num_ranks, request.parts.rank_slots)
        constants = (*sizes, blocks, width, ranks, block)
        call.launch("place_few_kernel", len(rows), (*arguments, call.num_ids, len(rows)), constants, 4)
    else:
        call.sum_up(rows, keys, sums)
        arguments = (slots, rows, sums.slot_offsets, order, positions, call.num_ids)
        call.launch("place_kernel", len(rows), arguments, (request.sizes.max_slots, block), 4)
    return call.picked(slots, local_slots, sums, order, positions)


def _in_turns(call: _Call) -> list[Tensor]:
    """The exact variant."""
    request, sizes = call.request, call.request.sizes
    parts, keys, top_k, is_contiguous = (
        request.parts,
        sizes.num_experts + 1,
        call.shape[1],
        call.strides is _NO_STRIDES,
    )
    rows = call.empty(-(-call.num_ids // ORDERED), keys)
    arguments: tuple[object, ...] = (call.ids, rows, call.num_ids, *call.strides, call.numbers[2], call.pointers[2])
    constants: tuple[object, ...] = (sizes.num_experts, top_k, is_contiguous, *bins_of(keys), ORDERED)
    call.launch("count_experts_kernel", len(rows), arguments, constants, 4)
    sums = call.sums()
    call.sum_up(rows, keys, sums)
    slots, local_slots = call.ids_like_if(ask.SLOTS), call.ids_like_if(ask.LOCAL_SLOTS)
    order, positions = call.empty_if(ask.ORDER, call.num_ids), call.ids_like_if(ask.POSITIONS)
    out = (slots, local_slots, order, positions)
    arguments = (call.ids, request.table, rows, sums.slot_offsets, *out, *call.given())
    constants = (sizes.num_experts, sizes.max_slots, top_k, parts.slots, parts.rank_slots, is_contiguous, ORDERED)
    call.launch("take_turns_kernel", len(rows), arguments, constants, 4)
    return call.picked(slots, local_slots, sums, order, positions)
