"""The partition in torch operations: a second implementation, independent of the compiled core. SPEC.md, "Formulas".

Arithmetic is int64, since r * E of the proportional strategy leaves int32; results are int32.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

Count: TypeAlias = "int | Tensor"
"""A number of experts or ranks: an int, or an integer tensor that broadcasts against the ids."""

_MAX = 2**31 - 1
_STRATEGIES = ("linear", "round_robin", "proportional")
_INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


def count(num_experts: Count, num_ranks: Count, rank: Count, strategy: str = "linear") -> Tensor:
    """How many experts each rank owns.

    Args:
        num_experts: E, in 0..=2**31 - 1; an int, or an integer tensor that broadcasts against `rank`. What a tensor
            holds is trusted to be in range, R above 0 in particular.
        num_ranks: R, in 1..=2**31 - 1; likewise.
        rank: an int in 0..R, or an integer tensor of any shape, on any device.
        strategy: `"linear"`, `"round_robin"` or `"proportional"`.

    Returns:
        int32 tensor of the broadcast shape, on the arguments' device. 0 for a rank in a tensor that is out of range.

    Raises:
        ValueError: a count given as an int out of range, or an unknown strategy.
        IndexError: a rank given as an int out of range.
        TypeError: a tensor that holds no integers, or an argument that is neither int nor tensor.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, rank, strategy, "rank")
    return torch.where(_within(ids, ranks), _count(experts, ranks, ids, strategy), 0).to(torch.int32)


def start(num_experts: Count, num_ranks: Count, rank: Count, strategy: str = "linear") -> Tensor:
    """The first expert of each rank's arithmetic progression; -1 for a rank in a tensor that is out of range.

    Arguments and errors are those of `count`.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, rank, strategy, "rank")
    return torch.where(_within(ids, ranks), _start(experts, ranks, ids, strategy), -1).to(torch.int32)


def owner(num_experts: Count, num_ranks: Count, expert: Count, strategy: str = "linear") -> Tensor:
    """The rank that owns each expert; -1 for an expert in a tensor that is out of range.

    Arguments and errors are those of `count`, with experts in 0..E in the place of ranks.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, expert, strategy, "expert")
    return torch.where(_within(ids, experts), _owner(experts, ranks, ids, strategy), -1).to(torch.int32)


def local_index(num_experts: Count, num_ranks: Count, expert: Count, strategy: str = "linear") -> Tensor:
    """Each expert's position among its owner's experts; -1 for an expert in a tensor that is out of range.

    Arguments and errors are those of `owner`.
    """
    experts, ranks, ids = _arguments(num_experts, num_ranks, expert, strategy, "expert")
    return torch.where(_within(ids, experts), _local_index(experts, ranks, ids, strategy), -1).to(torch.int32)


def partition_counts(
    num_experts: int, num_ranks: int, strategy: str = "linear", *, device: torch.device | str | None = None
) -> Tensor:
    """count(r) for every rank: int32[R] on `device`. Errors are those of `count`."""
    _check_lengths(num_experts, num_ranks)
    return count(num_experts, num_ranks, torch.arange(num_ranks, device=device), strategy)


def partition_starts(
    num_experts: int, num_ranks: int, strategy: str = "linear", *, device: torch.device | str | None = None
) -> Tensor:
    """start(r) for every rank: int32[R] on `device`. Errors are those of `count`."""
    _check_lengths(num_experts, num_ranks)
    return start(num_experts, num_ranks, torch.arange(num_ranks, device=device), strategy)


def partition_offsets(
    num_experts: int, num_ranks: int, strategy: str = "linear", *, device: torch.device | str | None = None
) -> Tensor:
    """The exclusive prefix sums of the counts, E last: int32[R + 1] on `device`. ValueError for round robin."""
    _check_lengths(num_experts, num_ranks)
    if strategy == "round_robin":
        raise ValueError(
            "strategy=`round_robin` has no offsets, expected a contiguous strategy: `linear` or `proportional`"
        )
    counts = partition_counts(num_experts, num_ranks, strategy, device=device)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def partition_owners(
    num_experts: int, num_ranks: int, strategy: str = "linear", *, device: torch.device | str | None = None
) -> Tensor:
    """owner(e) for every expert: int32[E] on `device`. Errors are those of `count`."""
    _check_lengths(num_experts, num_ranks)
    return owner(num_experts, num_ranks, torch.arange(num_experts, device=device), strategy)


def partition_local_indices(
    num_experts: int, num_ranks: int, strategy: str = "linear", *, device: torch.device | str | None = None
) -> Tensor:
    """local_index(e) for every expert: int32[E] on `device`. Errors are those of `count`."""
    _check_lengths(num_experts, num_ranks)
    return local_index(num_experts, num_ranks, torch.arange(num_experts, device=device), strategy)


def expert_map(
    num_experts: int,
    num_ranks: int,
    rank: Count,
    strategy: str = "linear",
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """The index map of each rank: local_index(e) where the rank owns e, and -1 elsewhere.

    Args:
        num_experts: E, in 0..=2**31 - 1.
        num_ranks: R, in 1..=2**31 - 1.
        rank: an int in 0..R, or an integer tensor of 0 or 1 dimensions, [] or [N].
        strategy: `"linear"`, `"round_robin"` or `"proportional"`.
        device: where to work; a tensor's own device without other word.

    Returns:
        int32[E], or int32[N, E] for N ranks. All -1 for a rank in a tensor that is out of range.

    Raises:
        ValueError, IndexError, TypeError: as `count`; ValueError also for a tensor of more than one dimension.
    """
    owners, locals_, ranks = _owned(num_experts, num_ranks, rank, strategy, device)
    return torch.where(owners == ranks, locals_, -1)


def expert_map_with_shared(
    num_experts: int,
    num_ranks: int,
    rank: Count,
    num_shared_experts: int,
    strategy: str = "linear",
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """The index map with S fused shared experts appended, int32[E + S] or int32[N, E + S].

    Every rank holds the shared experts, in local slots after its routed ones; they are -1 for a rank in a tensor that
    is out of range. Arguments and errors are those of `expert_map`; S is in 0..=2**31 - 1 - E.
    """
    _check_shared(num_experts, num_shared_experts)
    routed = expert_map(num_experts, num_ranks, rank, strategy, device=device)
    ids = _rank_ids(num_ranks, rank, device)
    slots = count(num_experts, num_ranks, ids, strategy) + torch.arange(
        num_shared_experts, dtype=torch.int32, device=ids.device
    )
    shared = torch.where(_within(ids, num_ranks), slots, -1)
    return torch.cat((routed, shared), dim=-1)


def expert_map_with_sentinel(
    num_experts: int,
    num_ranks: int,
    rank: Count,
    strategy: str = "linear",
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """The index map with one more entry, -1, for ids that stand for "no expert": int32[E + 1] or int32[N, E + 1].

    Arguments and errors are those of `expert_map`.
    """
    routed = expert_map(num_experts, num_ranks, rank, strategy, device=device)
    return torch.nn.functional.pad(routed, (0, 1), value=-1)


def expert_mask(
    num_experts: int,
    num_ranks: int,
    rank: Count,
    num_shared_experts: int = 0,
    strategy: str = "linear",
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """The 0/1 mask, int32[E + S + 1] or int32[N, E + S + 1]: 1 where the rank owns the expert, and a trailing 0.

    The S shared experts are 1 on every rank, and 0 for a rank in a tensor that is out of range. Arguments and errors
    are those of `expert_map_with_shared`.
    """
    held = expert_map_with_shared(num_experts, num_ranks, rank, num_shared_experts, strategy, device=device)
    return torch.nn.functional.pad((held >= 0).to(torch.int32), (0, 1))


def _count(experts: Count, ranks: Count, rank: Tensor, strategy: str) -> Tensor:
    if strategy == "proportional":
        return _start(experts, ranks, rank + 1, strategy) - _start(experts, ranks, rank, strategy)
    return _floor(experts, ranks) + (rank < experts % ranks)


def _start(experts: Count, ranks: Count, rank: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        # Broadcast, since neither E nor R takes part.
        return rank + 0 * experts + 0 * ranks
    if strategy == "proportional":
        return _floor(rank * experts, ranks)
    remainder = experts % ranks
    extra = torch.where(rank < remainder, rank, remainder)
    return rank * _floor(experts, ranks) + extra


def _owner(experts: Count, ranks: Count, expert: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        return expert % ranks + 0 * experts
    if strategy == "proportional":
        return _floor((expert + 1) * ranks - 1, _at_least_one(experts))
    base, remainder = _floor(experts, ranks), experts % ranks
    boundary = remainder * (base + 1)
    larger = _floor(expert, base + 1)
    smaller = remainder + _floor(expert - boundary, _at_least_one(base))
    return torch.where(expert < boundary, larger, smaller)


def _local_index(experts: Count, ranks: Count, expert: Tensor, strategy: str) -> Tensor:
    if strategy == "round_robin":
        return _floor(expert, ranks) + 0 * experts
    return expert - _start(experts, ranks, _owner(experts, ranks, expert, strategy), strategy)


def _floor(dividend: Count, divisor: Count) -> Tensor:
    """Floor division; typed as a tensor, and an int only where both operands are."""
    return dividend // divisor  # type: ignore[return-value]


def _at_least_one(value: Count) -> Count:
    """A divisor for answers that no id in range takes, without dividing by zero."""
    return value.clamp(min=1) if isinstance(value, Tensor) else max(value, 1)


def _within(ids: Tensor, end: Count) -> Tensor:
    return (ids >= 0) & (ids < end)


def _owned(
    num_experts: int, num_ranks: int, rank: Count, strategy: str, device: torch.device | str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Owner and local index of every expert, and the ranks asked for as a column against them."""
    _check_int("num_experts", num_experts, 0)
    ranks = _rank_ids(num_ranks, rank, device)
    experts = torch.arange(num_experts, device=ranks.device)
    owners = owner(num_experts, num_ranks, experts, strategy)
    return owners, local_index(num_experts, num_ranks, experts, strategy), ranks


def _rank_ids(num_ranks: int, rank: Count, device: torch.device | str | None) -> Tensor:
    """The ranks as int64 of shape [1] or [N, 1], on the device to work on."""
    _check_int("num_ranks", num_ranks, 1)
    if isinstance(rank, Tensor) and rank.dim() > 1:
        raise ValueError(f"rank has {rank.dim()} dimensions, expected 0 or 1")
    ids = _ids("rank", rank, num_ranks, device)
    return ids.unsqueeze(-1)


def _arguments(
    num_experts: Count, num_ranks: Count, ids: Count, strategy: str, parameter: str
) -> tuple[Count, Count, Tensor]:
    """Checked arguments: counts as ints or int64 tensors, ids as an int64 tensor on the counts' device."""
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a str, got `{type(strategy).__name__}`")
    if strategy not in _STRATEGIES:
        names = ", ".join(f"`{name}`" for name in _STRATEGIES)
        raise ValueError(f"strategy=`{strategy}` is unknown, expected one of {names}")
    experts = _check_count("num_experts", num_experts, 0)
    ranks = _check_count("num_ranks", num_ranks, 1)
    end = ranks if parameter == "rank" else experts
    device = next((value.device for value in (experts, ranks) if isinstance(value, Tensor)), None)
    return experts, ranks, _ids(parameter, ids, end, device)


def _check_count(parameter: str, value: Count, minimum: int) -> Count:
    """A count that takes part in arithmetic alone; one in a tensor is trusted, since looking would wait."""
    if isinstance(value, Tensor):
        return _integers(parameter, value)
    _check_int(parameter, value, minimum, "an int or a tensor")
    return value


def _check_int(parameter: str, value: object, minimum: int, expected: str = "an int") -> None:
    """A count that sets a length, and so must be known to the host."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be {expected}, got `{type(value).__name__}`")
    if not minimum <= value <= _MAX:
        raise ValueError(f"{parameter}={value} is out of range, expected {minimum}..={_MAX}")


def _check_lengths(num_experts: int, num_ranks: int) -> None:
    """The counts of a call that makes tables."""
    _check_int("num_experts", num_experts, 0)
    _check_int("num_ranks", num_ranks, 1)


def _check_shared(num_experts: int, num_shared_experts: int) -> None:
    _check_int("num_experts", num_experts, 0)
    _check_int("num_shared_experts", num_shared_experts, 0)
    if num_experts + num_shared_experts > _MAX:
        raise ValueError(
            f"num_shared_experts={num_shared_experts} is out of range, expected 0..={_MAX - num_experts} beside "
            f"num_experts={num_experts}: ids are int32"
        )


def _ids(parameter: str, value: Count, end: Count, device: torch.device | str | None) -> Tensor:
    if isinstance(value, Tensor):
        ids = _integers(parameter, value)
        return ids if device is None or isinstance(end, Tensor) else ids.to(device)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be an int or a tensor, got `{type(value).__name__}`")
    if value < 0 or (not isinstance(end, Tensor) and value >= end):
        raise IndexError(f"{parameter}={value} is out of range, expected 0..{end}")
    # A fill, not a copy from the host, so that it can be captured in a CUDA graph.
    return torch.full((), value, dtype=torch.int64, device=device)


def _integers(parameter: str, value: Tensor) -> Tensor:
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{parameter} must have an integer dtype, got {value.dtype}")
    return value.to(torch.int64)
