"""The partition in torch operations: a second implementation, independent of the compiled core. SPEC.md, "Formulas".

Arithmetic is int64, since r * E of the proportional strategy leaves int32; results are int32. Inside of `torch.compile`
an error is raised while the function is traced, and reaches the caller as torch's own, which quotes it.
"""

from __future__ import annotations

import itertools
from typing import SupportsIndex, TypeAlias

import torch
from torch import Tensor

from expert_placement._text import digits, excerpt
from expert_placement.torch._arguments import Device, int_argument, made_on, torch_device

Integers: TypeAlias = SupportsIndex | Tensor
"""One number or id, or an integer tensor of them that broadcasts against the other arguments."""

# What the formulas work on: a number that the host knows, or int64 ones in a tensor.
_Number: TypeAlias = int | Tensor

_MAX = 2**31 - 1
_STRATEGIES = ("linear", "round_robin", "proportional")
_INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


def count(num_experts: Integers, num_ranks: Integers, rank: Integers, strategy: str = "linear") -> Tensor:
    """How many experts each rank owns.

    The answer is on the device of the first tensor that is not on the CPU. Tensors on the CPU are moved there without
    waiting for the device; in a CUDA graph, where nothing can be moved from the CPU, all should be there already.

    Args:
        num_experts: E, in 0..=2**31 - 1; an int, or an integer tensor that broadcasts against `rank`. What a tensor
            holds is trusted to be in range. Integer tensors are int64, int32, int16, int8 or uint8, and dense.
        num_ranks: R, in 1..=2**31 - 1; likewise. An R in a tensor that is no number of ranks, being 0 or less, has no
            rank in range, and owns nothing.
        rank: an int in 0..R, or an integer tensor of any shape.
        strategy: `"linear"`, `"round_robin"` or `"proportional"`.

    Returns:
        int32 tensor of the broadcast shape. 0 for a rank that is out of range and in a tensor, or an int beside an R in
        a tensor.

    Raises:
        ValueError: a count given as an int out of range, an unknown strategy, or tensors that do not broadcast.
        IndexError: a rank given as an int outside 0..R. Where R is in a tensor, whose value is not looked at, outside
            0..2**31 - 1.
        TypeError: a tensor that holds no integers or is not dense, or an argument that is neither int nor tensor.

    Example:
        >>> count(30, 8, torch.tensor([0, 7, 8]))
        tensor([4, 3, 0], dtype=torch.int32)
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, rank, strategy, "rank")
    return torch.where(_within(ids, ranks), _count(experts, _divisor(ranks), ids, strategy), 0).to(torch.int32)


def start(num_experts: Integers, num_ranks: Integers, rank: Integers, strategy: str = "linear") -> Tensor:
    """The first expert of each rank's arithmetic progression; -1 where `count` says 0 for a rank out of range.

    Arguments, device and errors are those of `count`.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, rank, strategy, "rank")
    return torch.where(_within(ids, ranks), _start(experts, _divisor(ranks), ids, strategy), -1).to(torch.int32)


def owner(num_experts: Integers, num_ranks: Integers, expert: Integers, strategy: str = "linear") -> Tensor:
    """The rank that owns each expert; -1 for an expert that is out of range and in a tensor, or beside an E in one.

    Arguments, device and errors are those of `count`, with experts in 0..E in the place of ranks in 0..R.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, expert, strategy, "expert")
    found = _owner(experts, _divisor(ranks), ids, strategy)
    return torch.where(_has_owner(ids, experts, ranks), found, -1).to(torch.int32)


def local_index(num_experts: Integers, num_ranks: Integers, expert: Integers, strategy: str = "linear") -> Tensor:
    """Each expert's position among its owner's experts; -1 where `owner` says -1.

    Arguments, device and errors are those of `owner`.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, expert, strategy, "expert")
    found = _local_index(experts, _divisor(ranks), ids, strategy)
    return torch.where(_has_owner(ids, experts, ranks), found, -1).to(torch.int32)


def partition_counts(
    num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str = "linear", *, device: Device | None = None
) -> Tensor:
    """count(r) for every rank: int32[R].

    Args:
        num_experts: number of experts, E, in 0..=2**31 - 1.
        num_ranks: number of ranks, R, in 1..=2**31 - 1.
        strategy: `"linear"`, `"round_robin"` or `"proportional"`.
        device: where the tensor is made; torch's default device without other word.

    Raises:
        ValueError: a count out of range, an unknown strategy, or a device that cannot be used.
        TypeError: a count that is no int (no tensor either, since it sets a length), a strategy that is no str, or a
            device that is none.
    """
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    return count(experts, ranks, _up_to(ranks, device), strategy)


def partition_starts(
    num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str = "linear", *, device: Device | None = None
) -> Tensor:
    """start(r) for every rank: int32[R]. Arguments and errors are those of `partition_counts`."""
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    return start(experts, ranks, _up_to(ranks, device), strategy)


def partition_offsets(
    num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str = "linear", *, device: Device | None = None
) -> Tensor:
    """The exclusive prefix sums of the counts, E last: int32[R + 1].

    Arguments and errors are those of `partition_counts`; ValueError also for round robin, whose ranks own no
    consecutive experts.
    """
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    if strategy == "round_robin":
        raise ValueError(
            "strategy=`round_robin` has no offsets, expected a contiguous strategy: `linear` or `proportional`"
        )
    counts = count(experts, ranks, _up_to(ranks, device), strategy)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def partition_owners(
    num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str = "linear", *, device: Device | None = None
) -> Tensor:
    """owner(e) for every expert: int32[E]. Arguments and errors are those of `partition_counts`."""
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    return owner(experts, ranks, _up_to(experts, device), strategy)


def partition_local_indices(
    num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str = "linear", *, device: Device | None = None
) -> Tensor:
    """local_index(e) for every expert: int32[E]. Arguments and errors are those of `partition_counts`."""
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    return local_index(experts, ranks, _up_to(experts, device), strategy)


def expert_map(
    num_experts: SupportsIndex,
    num_ranks: SupportsIndex,
    rank: Integers,
    strategy: str = "linear",
    *,
    device: Device | None = None,
) -> Tensor:
    """The index map of each rank: local_index(e) where the rank owns e, and -1 elsewhere.

    Args:
        num_experts: number of experts, E, in 0..=2**31 - 1.
        num_ranks: number of ranks, R, in 1..=2**31 - 1.
        rank: an int in 0..R, or an integer tensor of 0 or 1 dimensions, [] or [N].
        strategy: `"linear"`, `"round_robin"` or `"proportional"`.
        device: where to work; without other word the device of a rank in a tensor, or torch's default device. A rank in
            a tensor is moved to CUDA without waiting for it; to take one from there to the CPU has to wait.

    Returns:
        int32[E], or int32[N, E] for N ranks. All -1 for a rank in a tensor that is out of range.

    Raises:
        ValueError: a count out of range, an unknown strategy, a device that cannot be used, or a tensor of more than
            one dimension.
        IndexError: a rank given as an int outside 0..R.
        TypeError: a count that is no int (no tensor either, since it sets a length), a rank that is neither int nor
            integer tensor, a strategy that is no str, or a device that is none.
    """
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    ids = _column(_rank(rank, ranks), device)
    return _expert_map(experts, ranks, ids, strategy)


def expert_map_with_shared(
    num_experts: SupportsIndex,
    num_ranks: SupportsIndex,
    rank: Integers,
    num_shared_experts: SupportsIndex,
    strategy: str = "linear",
    *,
    device: Device | None = None,
) -> Tensor:
    """The index map with S fused shared experts appended, int32[E + S] or int32[N, E + S].

    Every rank holds the shared experts, in local slots after its routed ones; they are -1 for a rank in a tensor that
    is out of range. Arguments and errors are those of `expert_map`; S is an int in 0..=2**31 - 1 - E.
    """
    experts, ranks = _shape(num_experts, num_ranks, strategy)
    asked = _rank(rank, ranks)
    shared = _shared(experts, num_shared_experts)
    return _with_shared(experts, ranks, _column(asked, device), shared, strategy)


def expert_map_with_sentinel(
    num_experts: SupportsIndex,
    num_ranks: SupportsIndex,
    rank: Integers,
    strategy: str = "linear",
    *,
    device: Device | None = None,
) -> Tensor:
    """The index map with one more entry, -1, for ids that stand for "no expert": int32[E + 1] or int32[N, E + 1].

    Arguments and errors are those of `expert_map`.
    """
    routed = expert_map(num_experts, num_ranks, rank, strategy, device=device)
    return torch.nn.functional.pad(routed, (0, 1), value=-1)


def expert_mask(
    num_experts: SupportsIndex,
    num_ranks: SupportsIndex,
    rank: Integers,
    num_shared_experts: SupportsIndex | None = None,
    strategy: str = "linear",
    *,
    device: Device | None = None,
) -> Tensor:
    """The 0/1 mask, int32[E + S + 1] or int32[N, E + S + 1]: 1 where the rank owns the expert, and a trailing 0.

    The S shared experts, 0 without other word, are 1 on every rank, and 0 for a rank in a tensor that is out of range.
    Arguments and errors are those of `expert_map_with_shared`.
    """
    shared = 0 if num_shared_experts is None else num_shared_experts
    held = expert_map_with_shared(num_experts, num_ranks, rank, shared, strategy, device=device)
    return torch.nn.functional.pad((held >= 0).to(torch.int32), (0, 1))


def _expert_map(experts: int, ranks: int, ids: Tensor, strategy: str) -> Tensor:
    each = torch.arange(experts, device=ids.device)
    owners = _owner(experts, ranks, each, strategy)
    indices = _index_within(owners, experts, ranks, each, strategy).to(torch.int32)
    return torch.where(owners == ids, indices, -1)


def _with_shared(experts: int, ranks: int, ids: Tensor, shared: int, strategy: str) -> Tensor:
    slots = _count(experts, ranks, ids, strategy).to(torch.int32) + torch.arange(
        shared, dtype=torch.int32, device=ids.device
    )
    tail = torch.where(_within(ids, ranks), slots, -1)
    return torch.cat((_expert_map(experts, ranks, ids, strategy), tail), dim=-1)


def _count(experts: _Number, ranks: _Number, rank: Tensor, strategy: str) -> Tensor:
    if strategy == "proportional":
        return _start(experts, ranks, rank + 1, strategy) - _start(experts, ranks, rank, strategy)
    return _floor(experts, ranks) + (rank < experts % ranks)


def _start(experts: _Number, ranks: _Number, rank: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        # Broadcast, since neither E nor R takes part.
        return rank + 0 * experts + 0 * ranks
    if strategy == "proportional":
        return _floor(rank * experts, ranks)
    remainder = experts % ranks
    extra = torch.where(rank < remainder, rank, remainder)
    return rank * _floor(experts, ranks) + extra


def _owner(experts: _Number, ranks: _Number, expert: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        return expert % ranks + 0 * experts
    if strategy == "proportional":
        return _floor((expert + 1) * ranks - 1, _at_least_one(experts))
    base, remainder = _floor(experts, ranks), experts % ranks
    boundary = remainder * (base + 1)
    larger = _floor(expert, base + 1)
    smaller = remainder + _floor(expert - boundary, _at_least_one(base))
    return torch.where(expert < boundary, larger, smaller)


def _local_index(experts: _Number, ranks: _Number, expert: Tensor, strategy: str) -> Tensor:
    return _index_within(_owner(experts, ranks, expert, strategy), experts, ranks, expert, strategy)


def _index_within(owners: Tensor, experts: _Number, ranks: _Number, expert: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        return _floor(expert, ranks) + 0 * experts
    return expert - _start(experts, ranks, owners, strategy)


def _floor(dividend: _Number, divisor: _Number) -> Tensor:
    """Floor division; typed as a tensor, and an int only where both operands are."""
    return dividend // divisor  # type: ignore[return-value]


def _at_least_one(value: _Number) -> _Number:
    """A divisor for answers that no id in range takes, without dividing by zero."""
    return value.clamp(min=1) if isinstance(value, Tensor) else max(value, 1)


def _divisor(ranks: _Number) -> _Number:
    """R to divide by; of one in a tensor that is 0 or less the answer is masked."""
    return ranks.clamp(min=1) if isinstance(ranks, Tensor) else ranks


def _has_owner(experts: Tensor, end: _Number, ranks: _Number) -> Tensor:
    """Whether an expert is in range, and there is a rank to own it; an int R was looked at before."""
    is_there = _within(experts, end)
    return is_there & (ranks > 0) if isinstance(ranks, Tensor) else is_there


def _within(ids: Tensor, end: _Number) -> Tensor:
    return (ids >= 0) & (ids < end)


def _arguments(
    num_experts: Integers, num_ranks: Integers, ids: Integers, strategy: str, parameter: str
) -> tuple[_Number, _Number, Tensor]:
    """Checked arguments: counts as ints or int64 tensors, ids as an int64 tensor, all tensors on one device."""
    experts = _count_or_tensor("num_experts", num_experts, 0)
    ranks = _count_or_tensor("num_ranks", num_ranks, 1)
    _check_strategy(strategy)
    end = ranks if parameter == "rank" else experts
    asked = _id(parameter, ids, end)
    # While a graph is traced, looking at the shapes would tie it to them.
    if not torch.compiler.is_compiling():
        _check_shapes({"num_experts": experts, "num_ranks": ranks, parameter: asked})
    devices = [value.device for value in (experts, ranks, asked) if isinstance(value, Tensor)]
    device = next((each for each in devices if each.type != "cpu"), devices[0] if devices else None)
    return _moved(experts, device), _moved(ranks, device), _tensor(asked, device)


def _shape(num_experts: SupportsIndex, num_ranks: SupportsIndex, strategy: str) -> tuple[int, int]:
    """E and R where they set lengths, and so must be known to the host."""
    experts = _count_within("num_experts", int_argument("num_experts", num_experts), 0)
    ranks = _count_within("num_ranks", int_argument("num_ranks", num_ranks), 1)
    _check_strategy(strategy)
    return experts, ranks


def _check_shapes(arguments: dict[str, _Number]) -> None:
    """Refuses tensors that do not broadcast; torch's own words would not say which they are."""
    shapes = [value.shape for value in arguments.values() if isinstance(value, Tensor)]
    for left, right in itertools.combinations(shapes, 2):
        # Sizes are compared from the last one; shapes that go together by twos do so all at once.
        if any(one != other and one != 1 and other != 1 for one, other in zip(left[::-1], right[::-1], strict=False)):
            given = ", ".join(
                f"{name} of shape {tuple(value.shape)}"
                for name, value in arguments.items()
                if isinstance(value, Tensor)
            )
            raise ValueError(f"{given} do not broadcast, expected shapes that do")


def _check_strategy(strategy: object) -> None:
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a str, got `{type(strategy).__name__}`")
    if strategy not in _STRATEGIES:
        names = ", ".join(f"`{name}`" for name in _STRATEGIES)
        raise ValueError(f"strategy=`{excerpt(strategy)}` is unknown, expected one of {names}")


def _count_or_tensor(parameter: str, value: Integers, minimum: int) -> _Number:
    """A count that takes part in arithmetic alone; one in a tensor is trusted, since looking would wait."""
    if isinstance(value, Tensor):
        return _integers(parameter, value)
    return _count_within(parameter, int_argument(parameter, value, "an int or a tensor"), minimum)


def _count_within(parameter: str, value: int, minimum: int) -> int:
    if not minimum <= value <= _MAX:
        raise ValueError(f"{parameter}={digits(value)} is out of range, expected {minimum}..={_MAX}")
    return value


def _shared(experts: int, num_shared_experts: SupportsIndex) -> int:
    shared = _count_within("num_shared_experts", int_argument("num_shared_experts", num_shared_experts), 0)
    if experts + shared > _MAX:
        raise ValueError(
            f"num_shared_experts={shared} is out of range, expected 0..={_MAX - experts} beside "
            f"num_experts={experts}: ids are int32"
        )
    return shared


def _rank(rank: Integers, ranks: int) -> _Number:
    """One rank, or a tensor of them, for which there are maps."""
    if isinstance(rank, Tensor) and rank.dim() > 1:
        raise ValueError(f"rank has {rank.dim()} dimensions, expected 0 or 1")
    return _id("rank", rank, ranks)


def _id(parameter: str, value: Integers, end: _Number) -> _Number:
    """An id: one in a tensor has a stated answer wherever it is, and an int is in range as far as that is known."""
    if isinstance(value, Tensor):
        return _integers(parameter, value)
    number = int_argument(parameter, value, "an int or a tensor")
    known = _MAX if isinstance(end, Tensor) else end
    if not 0 <= number < known:
        raise IndexError(f"{parameter}={digits(number)} is out of range, expected 0..{known}")
    return number


def _integers(parameter: str, value: Tensor) -> Tensor:
    if value.dtype not in _INTEGERS:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _INTEGERS)
        raise TypeError(
            f"{parameter} must have one of the dtypes {names}, got {str(value.dtype).removeprefix('torch.')}"
        )
    if value.is_nested or value.layout != torch.strided:
        kind = "a nested one" if value.is_nested else f"the layout {value.layout}"
        raise TypeError(f"{parameter} must be a dense tensor, got {kind}")
    return value.to(torch.int64)


def _column(ids: _Number, device: Device | None) -> Tensor:
    """The ranks of maps as int64 of shape [1] or [N, 1], on the device to work on."""
    place = torch_device(device)
    return made_on(lambda: _tensor(ids, place), device).unsqueeze(-1)


def _up_to(length: int, device: Device | None) -> Tensor:
    """All ids below a number, on a device."""
    place = torch_device(device)
    return made_on(lambda: torch.arange(length, device=place), device)


def _tensor(value: _Number, device: torch.device | None) -> Tensor:
    """An int64 tensor on a device; where none is given a tensor's own, or torch's default."""
    if isinstance(value, Tensor):
        return _on(value, device)
    # A fill, not a copy from the host, so that it can be captured in a CUDA graph.
    return torch.full((), value, dtype=torch.int64, device=device)


def _moved(value: _Number, device: torch.device | None) -> _Number:
    return _on(value, device) if isinstance(value, Tensor) else value


def _on(tensor: Tensor, device: torch.device | None) -> Tensor:
    """The tensor on a device. Only towards CUDA is it safe not to wait: pageable memory is staged before the return."""
    return tensor if device is None else tensor.to(device, non_blocking=device.type == "cuda")
