"""Implementations that are wrong, or right, in ways that a checker may trip over."""

from __future__ import annotations

import os
import threading
from pathlib import Path
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


class Misspelt(Odd):
    """Its index map has another name than the checkers ask for."""

    def __getattribute__(self, name: str) -> Any:
        if name == "expert_map":
            raise AttributeError(name)
        return super().__getattribute__("expert_map" if name == "expertmap" else name)


class WrongButForOneRank(Odd):
    """Every map asked alone is wrong, but for one rank of each partition."""

    def expert_map(self, rank: int) -> list[int]:
        """The index map, of rank E % R alone."""
        return super().expert_map(rank) if rank == self.num_experts % self.num_ranks else [0] * (self.num_experts + 5)


class WrongMaskOfRankZero(Odd):
    """One rank's mask asked alone is wrong, where the number of ranks is a multiple of four."""

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[int]:
        """The mask, but all ones for rank 0."""
        mask = super().expert_mask(rank, num_shared_experts)
        return [1] * len(mask) if rank == 0 and self.num_ranks % 4 == 0 else mask

    def expert_masks(self, num_shared_experts: int = 0) -> list[list[int]]:
        """The masks of all ranks, as the model has them."""
        return [
            super(WrongMaskOfRankZero, self).expert_mask(rank, num_shared_experts) for rank in range(self.num_ranks)
        ]


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


class Fatal(BaseException):
    """What most handlers let pass."""


class RaisesBeyondException(Odd):
    """Raises what is no `Exception` where E = R = 3, and has no text."""

    def owner(self, expert: int) -> int:
        """The owner, from `Silence` where E = R = 3."""
        if self.num_experts == self.num_ranks == 3:
            raise Silence
        return super().owner(expert)


class Silence(Fatal):
    """An exception that fails to say what it is about."""

    def __str__(self) -> str:
        raise Fatal("no words")


class RefusesWithMore(Odd):
    """Refuses wrong ids with what is no `Exception`."""

    def count(self, rank: int) -> int:
        """The count, or `Fatal` for a wrong rank."""
        if not 0 <= rank < self.num_ranks:
            raise Fatal("wrong rank")
        return super().count(rank)


class UniformRaises(Odd):
    """A property that raises."""

    @property
    def is_uniform(self) -> bool:
        """Not to be had."""
        raise OSError("not today")


class EndsWorkers(Odd):
    """Ends the process that asks for the experts of a rank where five experts are over three ranks."""

    def local_experts(self, rank: int) -> list[int]:
        if (self.num_experts, self.num_ranks) == (5, 3):
            os._exit(0)
        return super().local_experts(rank)


def together_wrong(answers: Any) -> Any:
    """Wrong for the last of several partitions, among which are two of three experts or more."""

    def count(experts: Any, ranks: Any, rank: Any, strategy: str) -> Any:
        right = reference.count(experts, ranks, rank, strategy)
        known = np.unique(np.broadcast_to(np.asarray(experts), np.shape(right)))
        return right + (np.asarray(experts) == known[-1]) * int((known >= 3).sum() >= 2) * answers

    return functions(count=count)


class WrongTogether(Odd):
    """Right for each partition that is asked alone, and wrong in company."""

    elementwise = together_wrong(1)


class SilentTogether(Odd):
    """Answers each partition that is asked alone, and none in company."""

    elementwise = functions(
        owner=lambda experts, ranks, expert, strategy: (
            1 // 0 if len(np.unique(np.asarray(experts))) > 2 else reference.owner(experts, ranks, expert, strategy)
        )
    )


class WrongOnce(Odd):
    """Wrong for the first partition of two experts over three ranks that is asked for, and never again."""

    elementwise = None
    asked: ClassVar[int] = 0

    def starts(self) -> list[int]:
        """The starts, once wrong."""
        right = super().starts()
        if (self.num_experts, self.num_ranks) == (2, 3):
            WrongOnce.asked += 1
            return [right[0] + (WrongOnce.asked == 1), *right[1:]]
        return right


class WrongOnDevices:
    """Nothing but functions in torch, wrong on tensors that torch has made itself, as on a named device."""

    def __init__(self, num_experts: int, num_ranks: int, strategy: str) -> None:
        """Keeps nothing."""

    arrays: ClassVar[str] = "torch"

    class Elementwise:
        """The model's functions in torch."""

        @staticmethod
        def count(experts: Any, ranks: Any, rank: Any, strategy: str) -> Any:
            """The count, off by one where the memory is not numpy's."""
            return reference.count(experts, ranks, rank, strategy) + int(experts.untyped_storage().resizable())

        start = staticmethod(reference.start)
        owner = staticmethod(reference.owner)
        local_index = staticmethod(reference.local_index)

    elementwise: ClassVar[Any] = Elementwise


class Noisy(Odd):
    """Prints, as engines do, and raises a text that no stream can take."""

    def __post_init__(self) -> None:
        print("a line on standard output")
        super().__post_init__()

    def owner(self, expert: int) -> int:
        """The owner, from nobody where E = R = 3."""
        if self.num_experts == self.num_ranks == 3:
            raise RuntimeError("half a pair: \ud800, and\nan escape: \x1b[31m" + "!" * 2000)
        return super().owner(expert)


class EndsItsProcessAtOnce:
    """It ends the process of whoever makes it."""

    def __init__(self, num_experts: int, num_ranks: int, strategy: str) -> None:
        os._exit(0)


class EndsItsProcessWhereLarge(Odd):
    """It ends the process of whoever asks for partitions that no table holds."""

    def count(self, rank: int) -> int:
        """The count, where there are few experts."""
        if self.num_experts > 2**20:
            os._exit(0)
        return super().count(rank)


class CountsCalls(Odd):
    """Every seventh count is one more."""

    calls = 0

    def count(self, rank: int) -> int:
        """The count, or one more."""
        CountsCalls.calls += 1
        return super().count(rank) + (CountsCalls.calls % 7 == 0)


class WithoutNames(type):
    """A type whose attributes raise."""

    def __getattr__(cls, name: str) -> Any:
        raise ZeroDivisionError("no name")


class Raising(metaclass=WithoutNames):
    """Asking for what it has raises what nobody expects."""


class NameRaises(type):
    """A type whose name can not be had."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ZeroDivisionError("name")


class Nameless(Exception, metaclass=NameRaises):  # noqa: N818
    """An exception of such a type."""


class RaisesTheNameless(Odd):
    """What it raises has no name."""

    elementwise = None

    def count(self, rank: int) -> int:
        """Nothing."""
        raise Nameless


class LyingArray(np.ndarray):
    """It says that it is int32."""

    dtype = property(lambda self: np.dtype("int32"))


class LiesOfDtypes(Odd):
    """Tables of int64 that say that they are int32."""

    def counts(self) -> Any:
        """The counts."""
        return np.array(super().counts(), dtype=np.int64).view(LyingArray)


class ShortList(list):  # type: ignore[type-arg]
    """It says that it is shorter than it is."""

    def __len__(self) -> int:
        return super().__len__() - 1


class LiesOfLengths(Odd):
    """Counts of which one too many says that it is not there."""

    elementwise = None

    def counts(self) -> Any:
        """The counts, and one more."""
        return ShortList([*super().counts(), 7])


class TruthValues(Odd):
    """Counts of 0 and 1 are truth values."""

    elementwise = None

    def count(self, rank: int) -> int:
        """The count, as a truth value where it is one of both."""
        number = super().count(rank)
        return bool(number) if number in (0, 1) else number


class NoTruthValue(Odd):
    """It says that it is uniform by a list."""

    @property
    def is_uniform(self) -> Any:
        """Whether all ranks own equally many, as a list."""
        return [0] if super().is_uniform else []


class Interrupts(Odd):
    """It raises what Ctrl-C raises."""

    def counts(self) -> Any:
        """Nothing."""
        raise KeyboardInterrupt


class OddArrays(Odd):
    """Its arrays are of no library."""

    arrays = np.array([1, 2])


class ManyArguments(ValueError):  # noqa: N818
    """An error that can not be made again from what it holds."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


class AttributesRaise(type):
    """A type of which one attribute raises such an error."""

    def __getattr__(cls, name: str) -> Any:
        if name == "arrays":
            raise ManyArguments("one", "two")
        raise AttributeError(name)


class RaisesManyArguments(Odd, metaclass=AttributesRaise):
    """A look at its arrays raises it."""


class LeavesThreads(Odd):
    """Every partition starts a thread that does not end, and that its process waits for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        threading.Thread(target=threading.Event().wait).start()


class Marking(Odd):
    """Right; every process that asks it leaves its number in the folder `MARKS`, where that is named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if folder := os.environ.get("MARKS"):
            (Path(folder) / str(os.getpid())).touch()
