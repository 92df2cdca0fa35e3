"""`route`: arguments checked, and given to an implementation. SPEC.md, "Routing"."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from expert_placement import _core
from expert_placement._arguments import is_a
from expert_placement._text import digits, excerpt, text_of
from expert_placement.torch._arguments import int_argument
from expert_placement.torch.routing import operators, reference, rust
from expert_placement.torch.routing.request import BITS, LOCAL_SLOTS, NUMBERS, OUTPUTS, SLOTS, Request
from expert_placement.torch.routing.tables import RoutingTables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Routed(NamedTuple):
    """What of a batch was asked for, int32 on the device of the ids; None for what was not.

    T tokens have k ids each, in P slots, the capacity of the tables, on R ranks.
    """

    slots: Tensor | None = None
    """`[T, k]`: the physical slot of each id; -1 where it is no expert, or its token is padding."""
    local_slots: Tensor | None = None
    """`[T, k]`: the same as a local slot on the rank of the tables; -1 also where another rank has it."""
    slot_counts: Tensor | None = None
    """`[P]`: how many ids each slot serves."""
    slot_offsets: Tensor | None = None
    """`[P + 1]`: where the ids of each slot begin in the order of slots; last the number of those that are served."""
    rank_counts: Tensor | None = None
    """`[R]`: how many ids each rank serves: the `input_split_sizes` of an uneven all-to-all."""
    rank_offsets: Tensor | None = None
    """`[R + 1]`: where the ids of each rank begin in the order of slots."""
    order: Tensor | None = None
    """`[T * k]`: the flat places of all ids in the order of their slots, equal ones as in the batch, unserved ids last.

    `topk_ids.flatten()[order[slot_offsets[s]:slot_offsets[s + 1]]]` are those that slot s serves.
    """
    positions: Tensor | None = None
    """`[T, k]`: where each id comes in that order: the inverse permutation."""


_PLAIN = (("slots",), 1)
_INTEGERS = (torch.int32, torch.int64)


def route(
    topk_ids: Tensor,
    tables: RoutingTables,
    *,
    layer: SupportsIndex | None = None,
    token_offset: SupportsIndex | Tensor = 0,
    seed: SupportsIndex | Tensor = 0,
    valid_tokens: SupportsIndex | Tensor | None = None,
    load: Tensor | None = None,
    want: Iterable[str] = ("slots",),
    exact: bool = False,
    implementation: str | None = None,
) -> Routed:
    """Which physical slot serves each of the router's top-k ids, and what a dispatch needs to know of it.

    The replica that serves an id is chosen by a hash of the expert, the token's number and the seed: a pure function,
    the same on every rank, that uses the replicas of an expert equally often over any tokens that were not chosen
    against it. With weighted tables it is chosen in proportion to the weights; with tables for a sender, among the
    nearest. Nothing waits for the device.

    Args:
        topk_ids: int32 or int64 `[T, k]`, at most 2**30, of any strides, on the device of the tables. -1 stands for no
            expert; so does any other id outside 0..E, which is never looked up.
        tables: from a placement or a partition.
        layer: the layer, which the tables have. Not needed where they have but one.
        token_offset: the number of the first token, the others being numbered on from it, in 0..2**63: for tokens that
            several ranks see the same on all of them. Its value modulo 2**32 counts. An int, or an int32 or int64
            tensor of one element on the device, whose value may change between replays of a CUDA graph, and of which
            negative numbers are taken modulo 2**32, too.
        seed: another seed is another choice; likewise. With the same seed a token's number has the same choice in every
            call: where numbers begin at 0 in every step and layer, give a counter of these, so that the luck of a few
            tokens is not the same each time.
        valid_tokens: how many tokens are not padding, in 0..=T, or such a tensor, of any value: tokens of that number
            on are -1, and are not counted.
        load: int32 or int64 `[P]`, P the capacity of the tables, contiguous, on the device and no memory of the ids or
            of numbers in tensors: what each slot serves is added to it in place. On CUDA several streams may add to
            the same one.
        want: the fields of `Routed` that are wanted; what is not costs nothing. On CUDA the order of many ids takes
            memory for P + 1 int32 for every 128 of them beside the answers, as long as the call runs.
        exact: use the replicas of each expert equally often in this batch, or some once more: its ids go to its
            replicas in turn, in the order of the batch. The same on all ranks that see the same batch.
        implementation: `"rust"` (on the CPU, and the default there), `"triton"` (on CUDA, and the default there for
            tables of fewer than 4096 experts, slots and ranks; its kernels are compiled when they are first needed, in
            about a second each) or `"torch"`, plain operations on any device. All give the same answer. Of the
            transforms of `torch.func` `vmap` and `functionalize` take `"torch"` alone.

    Raises:
        ValueError: a wrong shape or device, a number out of range, an unknown field or implementation, or one that is
            not for the device or the tables, local slots of tables without a rank, or `exact` with weighted tables.
        IndexError: a layer that the tables do not have.
        TypeError: another dtype, or an argument of another type.

    Example:
        >>> from expert_placement import Placement, Topology
        >>> placement = Placement.from_physical_to_logical([[0, 1, 2, 0]], num_experts=3, topology=Topology(2))
        >>> routed = route(torch.tensor([[1, 2], [2, -1]]), RoutingTables(placement), want=("slots", "rank_counts"))
        >>> routed.slots.tolist(), routed.rank_counts.tolist()
        ([[1, 2], [2, -1]], [1, 2])
    """
    is_default = want is _DEFAULT or _is_default(want)
    is_plain = not torch.compiler.is_compiling() and is_default and exact is False and implementation is None
    # What only says that it is one has no tables; asked of the type once, that is no slower than to believe it.
    is_tables = type(tables) is RoutingTables or issubclass(type(tables), RoutingTables)
    if is_plain and is_tables and tables.starts and not operators.is_watched():
        # Only kernels that ran are started again, so there are kernels.
        slots = operators.kernels().start_again(topk_ids, tables, layer, token_offset, seed, valid_tokens, load)
        if slots is not None:
            return Routed(slots)
    table = tables.row(layer) if is_tables else _no_tables(tables)
    names, wanted = _PLAIN if is_default else _wanted(want)
    _check_ids(topk_ids, tables)
    request = Request(
        topk_ids,
        table,
        tables.sizes,
        tables.parts,
        token_offset if token_offset is _ZERO else _number("token_offset", token_offset, table),
        seed if seed is _ZERO else _number("seed", seed, table),
        topk_ids.shape[0] if valid_tokens is None else valid_tokens_argument(valid_tokens, topk_ids, table),
        tables.rank or 0,
        exact if exact is False else _exact(exact, tables),
        wanted,
        load if load is None else _load(load, tables),
    )
    if wanted & LOCAL_SLOTS and tables.rank is None:
        raise ValueError("want=`local_slots` needs tables with a rank: RoutingTables(..., rank=...)")
    run = operators.run if implementation is None else _implementation(implementation, request, tables)
    answers = run(request)
    if wanted != SLOTS:
        return Routed(**dict(zip(names, answers, strict=True)))
    if is_plain and topk_ids.is_cuda and not operators.is_watched():
        launch = operators.kernels()
        if launch is not None:
            launch.remember(request, tables.starts)
    return Routed(answers[0])


def warm_up(
    tables: RoutingTables,
    top_k: SupportsIndex,
    max_tokens: SupportsIndex,
    *,
    dtype: torch.dtype = torch.int32,
    load_dtype: torch.dtype | None = None,
    want: Iterable[str] = ("slots",),
    exact: bool = False,
) -> None:
    """Has everything compiled that `route` will need of these tables, so that no batch waits for it.

    On CUDA that is up to some twenty kernels of about a second each, which Triton keeps on disk; elsewhere nothing.
    Ids in memory of their own and numbers that are ints are what is prepared for.

    Args:
        tables: what will be routed through; others of the same sizes are served as well.
        top_k: how many ids a token will have, at least 1.
        max_tokens: how many tokens a batch will have at most, at least 1.
        dtype: of the ids, int32 or int64.
        load_dtype: of the load, int32 or int64; None where there will be none.
        want: as for `route`.
        exact: as for `route`.

    Raises:
        ValueError: a number below 1, and what `route` refuses.
        TypeError: an argument of another type.
    """
    if not is_a(tables, RoutingTables):
        _no_tables(tables)
    for name, given in (("dtype", dtype), ("load_dtype", load_dtype)):
        if given not in _INTEGERS and not (given is None and name == "load_dtype"):
            raise TypeError(f"{name} must be torch.int32 or torch.int64, got `{excerpt(text_of(given))}`")
    width, most = int_argument("top_k", top_k), int_argument("max_tokens", max_tokens)
    for name, number in (("top_k", width), ("max_tokens", most)):
        if not 1 <= number <= _MOST_IDS:
            raise ValueError(f"{name}={digits(number)} is out of range, expected 1..={_MOST_IDS}")
    if width * most > _MOST_IDS:
        raise ValueError(f"max_tokens={most} is out of range, expected 1..={_MOST_IDS // width} for top_k={width}")
    load = None if load_dtype is None else torch.zeros(tables.max_slots, dtype=load_dtype, device=tables.device)
    launch = operators.kernels() if tables.data.is_cuda else None
    # Of no tokens nothing is compiled, but what is asked for is looked at.
    numbers = [] if launch is None else launch.ways(most * width)
    names = _wanted(want)[0]
    for tokens in sorted({max(number // width, 1) for number in numbers} or {0}):
        ids = torch.full((tokens, width), -1, dtype=dtype, device=tables.device)
        route(ids, tables, layer=tables.layers[0], load=load, want=names, exact=exact)


# The defaults themselves, of which nothing has to be checked.
_DEFAULT: Iterable[str] = (route.__kwdefaults__ or {})["want"]
_ZERO: int = 0


def _is_default(want: object) -> bool:
    """Whether this is what is wanted without other word, written out; elements may be anything."""
    return type(want) is tuple and len(want) == 1 and type(want[0]) is str and want[0] == "slots"


def _wanted(want: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The fields in their order, and their bits."""
    if isinstance(want, (str, bytes, dict)):
        raise TypeError(f"want must be a sequence of names, got `{type(want).__name__}`")
    try:
        # A generator may never end.
        given = want if isinstance(want, (tuple, list, set, frozenset)) else list(islice(want, _MOST_WANTED + 1))
        asked = set(given)
    except TypeError as error:
        raise TypeError(f"want must be a sequence of names: {error}") from None
    if len(given) > _MOST_WANTED:
        raise ValueError(f"want has more than {_MOST_WANTED} names, expected fewer")
    unknown = asked - set(OUTPUTS)
    if unknown:
        name = sorted(map(text_of, unknown))[0]
        expected = ", ".join(f"`{field}`" for field in OUTPUTS)
        raise ValueError(f"want=`{excerpt(name)}` is unknown, expected some of {expected}")
    names = tuple(name for name in OUTPUTS if name in asked)
    return names, sum(bit for name, bit in zip(OUTPUTS, BITS, strict=True) if name in asked)


# Far more than there are names, of which some may be said twice.
_MOST_WANTED = 2**10


def _no_tables(tables: object) -> Tensor:
    raise TypeError(f"tables must be a RoutingTables, got `{type(tables).__name__}`")


def _check_ids(topk_ids: Tensor, tables: RoutingTables) -> None:
    _expect_integers("topk_ids", topk_ids)
    if topk_ids.dim() != 2:
        raise ValueError(f"topk_ids has {topk_ids.dim()} dimensions, expected 2, [T, k]")
    _expect_there("topk_ids", topk_ids, tables.data)
    if topk_ids.numel() > _MOST_IDS:
        raise ValueError(f"topk_ids.numel()={topk_ids.numel()} is out of range, expected 0..={_MOST_IDS}")


_MOST_IDS = _core.MAX_ROUTED_IDS


def _expect_integers(parameter: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{parameter} must be a tensor, got `{type(value).__name__}`")
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{parameter} must have dtype int32 or int64, got {_name(value)}")
    _expect_dense(parameter, value)


def _expect_dense(parameter: str, value: Tensor) -> None:
    if value.layout is not torch.strided or value.is_nested:
        layout = "a nested one" if value.is_nested else f"the layout {value.layout}"
        raise TypeError(f"{parameter} must be a dense tensor, got {layout}")


def _expect_there(parameter: str, value: Tensor, table: Tensor) -> None:
    if value.device != table.device:
        raise ValueError(f"{parameter} is on {value.device}, expected {table.device} as the tables are")


def _number(parameter: str, value: SupportsIndex | Tensor, table: Tensor) -> int | Tensor:
    """A number of which the lower 32 bits count, or a tensor of one."""
    if isinstance(value, Tensor):
        return _one_element(parameter, value, table)
    number = int_argument(parameter, value, "an int or a tensor")
    if not 0 <= number < NUMBERS:
        raise ValueError(f"{parameter}={digits(number)} is out of range, expected 0..{NUMBERS}")
    return number & 0xFFFF_FFFF


def valid_tokens_argument(
    value: SupportsIndex | Tensor, tokens_of: Tensor, table: Tensor, whose: str = "topk_ids"
) -> int | Tensor:
    """How many tokens are not padding, or a tensor of that.

    Args:
        value: what was given for it.
        tokens_of: a tensor whose first dimension is the tokens.
        table: a tensor on the device.
        whose: what messages call the tensor of the tokens.

    Raises:
        ValueError: a number out of range, or a tensor of several elements or on another device.
        TypeError: something else.
    """
    if isinstance(value, Tensor):
        return _one_element("valid_tokens", value, table)
    number, tokens = int_argument("valid_tokens", value, "an int or a tensor"), tokens_of.shape[0]
    if not 0 <= number <= tokens:
        raise ValueError(
            f"valid_tokens={digits(number)} is out of range, expected 0..={tokens}: there are no more tokens in {whose}"
        )
    return number


def _one_element(parameter: str, value: Tensor, table: Tensor) -> Tensor:
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{parameter} must be an int or a tensor of dtype int32 or int64, got {_name(value)}")
    _expect_dense(parameter, value)
    if value.numel() != 1:
        raise ValueError(f"{parameter} has {value.numel()} elements, expected 1")
    _expect_there(parameter, value, table)
    # A number whatever its shape is: of more dimensions it would broadcast the answer to them.
    return value if value.dim() == 0 else value.reshape(())


def _exact(exact: object, tables: RoutingTables) -> bool:
    if not isinstance(exact, bool):
        raise TypeError(f"exact must be a bool, got `{type(exact).__module__}.{type(exact).__qualname__}`")
    if exact and tables.is_weighted:
        raise ValueError("exact can not be had together with weights, which the tables have")
    return exact


def _load(load: Tensor, tables: RoutingTables) -> Tensor:
    _expect_integers("load", load)
    if load.shape != (tables.max_slots,):
        raise ValueError(
            f"load has shape {list(load.shape)}, expected [{tables.max_slots}], the capacity of the tables"
        )
    _expect_there("load", load, tables.data)
    if not load.is_contiguous():
        raise ValueError("load must be contiguous: its elements are added to in place")
    return load


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _implementation(name: str, request: Request, tables: RoutingTables) -> Callable[[Request], list[Tensor]]:
    topk_ids = request.topk_ids
    if not isinstance(name, str):
        raise TypeError(f"implementation must be a str, got `{type(name).__name__}`")
    if name == "torch":
        return reference.route
    if name == "rust":
        if topk_ids.device.type != "cpu":
            raise ValueError(f"implementation=`rust` is for the CPU, and topk_ids is on {topk_ids.device}")
        # What is traced is the operator, which is this one there.
        return operators.run if operators.is_seen(request) else rust.route
    if name != "triton":
        raise ValueError(f"implementation=`{excerpt(name)}` is unknown, expected one of `torch`, `rust`, `triton`")
    if topk_ids.is_cuda and operators.is_seen(request):
        return operators.run
    return _kernels(topk_ids, tables)


def _kernels(topk_ids: Tensor, tables: RoutingTables) -> Callable[[Request], list[Tensor]]:
    """The kernels, where they can be run."""
    launch = operators.kernels()
    if launch is None:
        raise ValueError("implementation=`triton` needs Triton 3.4 or later, which is not here")
    if not topk_ids.is_cuda and not launch.is_interpreted():
        raise ValueError(
            f"implementation=`triton` is for CUDA, and topk_ids is on {topk_ids.device}; with the environment variable "
            "TRITON_INTERPRET=1 it is interpreted on the CPU"
        )
    for field, number in zip(("num_experts", "max_slots", "num_ranks"), tables.sizes[:3], strict=True):
        if number >= launch.MAX_BINS:
            raise ValueError(
                f"{field}={number} is out of range for implementation=`triton`, expected 0..{launch.MAX_BINS}: larger "
                "tables are for `torch`"
            )
    route: Callable[[Request], list[Tensor]] = launch.route
    return route
