"""Implementations that are wrong, or right, in ways that a checker may trip over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from expert_placement_spec import reference


class Odd(reference.Partition):
    """The model, to be bent."""

    elementwise: ClassVar[Any] = reference


def functions(**changed: Any) -> SimpleNamespace:
    """The model's functions with others in the place of some."""
    names = ("count", "start", "owner", "local_index", "map_entry")
    return SimpleNamespace(**{name: getattr(reference, name) for name in names} | changed)


class WrongButForOneRank(Odd):
    """Every map asked alone is wrong, but for one rank of each partition."""

    def expert_map(self, rank: int) -> list[int]:
        """The index map, of rank E % R alone."""
        return super().expert_map(rank) if rank == self.num_experts % self.num_ranks else [0] * (self.num_experts + 5)


class SilentAtFiveRanks(Odd):
    """Whole blocks of partitions do not answer."""

    elementwise = functions(
        count=lambda experts, ranks, rank, strategy: (
            1 // 0 if (np.asarray(ranks) == 5).all() else reference.count(experts, ranks, rank, strategy)
        )
    )


class OneAtATime(Odd):
    """Written for one partition; arrays of several have no truth value."""

    elementwise = functions(
        count=lambda experts, ranks, rank, strategy: (
            reference.count(experts, ranks, rank, strategy) if experts >= 0 else 0
        )
    )


def in_place(experts: Any, ranks: Any, rank: Any, strategy: str) -> Any:
    """Changes the numbers that it was given."""
    experts %= ranks
    return 0 * rank + 0 * ranks + (rank < experts)


class WorksInPlace(Odd):
    """Would change what its answers are compared with."""

    elementwise = functions(count=in_place)


class ExtraAxis(Odd):
    """Answers of one dimension more than was asked."""

    elementwise = functions(count=lambda *arguments: reference.count(*arguments)[None])


class TooFewRows(Odd):
    """Gives the maps of all ranks but one."""

    elementwise = functions()
    del elementwise.map_entry

    def expert_maps(self) -> list[list[int]]:
        """The maps, without the last."""
        return [self.expert_map(rank) for rank in range(self.num_ranks - 1)]


def narrowed(dtype: Any) -> SimpleNamespace:
    """The model's functions with answers of another type."""

    def narrow(name: str) -> Any:
        return lambda *arguments: np.asarray(getattr(reference, name)(*arguments)).astype(dtype)

    return functions(**{name: narrow(name) for name in ("count", "start", "owner", "local_index")})


class NarrowAnswers(Odd):
    """Right answers in one byte each."""

    elementwise = narrowed(np.uint8)


class UnsignedAnswers(Odd):
    """Right answers in unsigned words."""

    elementwise = narrowed(np.uint64)


class Exits(Odd):
    """Ends the process that asks."""

    def __post_init__(self) -> None:
        raise SystemExit(0)
