"""Partitions that a program answers for. PROTOCOL.md, "Partitions"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.implementation import SCALARS
from expert_placement_spec.lines.offered import needs, offered_class
from expert_placement_spec.lines.program import program_of
from expert_placement_spec.lines.protocol import PARTITION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_POINTS = 1 << 13
"""Points of one line: enough that a line costs little, and few enough that it is short."""


class Asked:
    """One partition, every answer of which is a line of the program.

    Nothing is asked when it is made: each request says which partition it is about.
    """

    program_command: str

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        self.num_experts, self.num_ranks, self.strategy = num_experts, num_ranks, strategy

    def _ask(self, method: str, **fields: Any) -> Any:
        shape = {"num_experts": self.num_experts, "num_ranks": self.num_ranks, "strategy": self.strategy}
        return program_of(self.program_command).ask(f"{PARTITION}.{method}", **shape, **fields)

    def _one(self, method: str, name: str, identifier: int) -> Any:
        """The answer about one rank or one expert, where the question may be about several."""
        point = {"num_experts": [self.num_experts], "num_ranks": [self.num_ranks], "strategy": self.strategy}
        call = f"{PARTITION}.{method}"
        return rows(call, program_of(self.program_command).ask(call, **point, **{name: [identifier]}), 1)[0]

    def _table(self, method: str) -> list[Any]:
        answer = self._ask(method)
        return rows(f"{PARTITION}.{method}", answer, len(answer) if isinstance(answer, list) else 0)

    def _of_ranks(self, method: str, ranks: Sequence[int], **fields: Any) -> list[Any]:
        answer = rows(f"{PARTITION}.{method}", self._ask(method, ranks=list(ranks), **fields), len(ranks))
        return [rows(f"{PARTITION}.{method}", one, len(one) if isinstance(one, list) else 0) for one in answer]

    @property
    @needs("partition.is_uniform")
    def is_uniform(self) -> Any:
        """Whether every rank owns equally many experts."""
        return self._ask("is_uniform")

    @property
    @needs("partition.min_redundant_experts")
    def min_redundant_experts(self) -> Any:
        """How many experts more, at least, make all ranks equal."""
        return self._ask("min_redundant_experts")

    @classmethod
    @needs("partition.legal_ranks")
    def legal_ranks(cls, num_experts: int, max_ranks: int) -> list[Any]:
        """The rank counts up to `max_ranks` over which so many experts divide equally."""
        call = f"{PARTITION}.legal_ranks"
        answer = program_of(cls.program_command).ask(call, num_experts=num_experts, max_ranks=max_ranks)
        return rows(call, answer, len(answer) if isinstance(answer, list) else 0)

    @needs("partition.count")
    def count(self, rank: int) -> Any:
        """How many experts the rank owns."""
        return self._one("count", "ranks", rank)

    @needs("partition.start")
    def start(self, rank: int) -> Any:
        """The first expert of the rank's arithmetic progression."""
        return self._one("start", "ranks", rank)

    @needs("partition.owner")
    def owner(self, expert: int) -> Any:
        """The rank that owns the expert."""
        return self._one("owner", "experts", expert)

    @needs("partition.local_index")
    def local_index(self, expert: int) -> Any:
        """The expert's position among its owner's experts."""
        return self._one("local_index", "experts", expert)

    @needs("partition.experts")
    def experts(self, rank: int) -> range:
        """The experts of the rank, in local order."""
        call = f"{PARTITION}.experts"
        first, stride, count = rows(call, self._of_ranks("experts", [rank])[0], 3)
        return range(first, first + stride * count, stride)

    @needs("partition.counts")
    def counts(self) -> list[Any]:
        """The count of every rank."""
        return self._table("counts")

    @needs("partition.starts")
    def starts(self) -> list[Any]:
        """The start of every rank."""
        return self._table("starts")

    @needs("partition.owners")
    def owners(self) -> list[Any]:
        """The owner of every expert."""
        return self._table("owners")

    @needs("partition.local_indices")
    def local_indices(self) -> list[Any]:
        """The local index of every expert."""
        return self._table("local_indices")

    @needs("partition.offsets")
    def offsets(self) -> list[Any]:
        """The exclusive prefix sums of the counts, E last."""
        return self._table("offsets")

    @needs("partition.local_experts")
    def local_experts(self, rank: int) -> list[Any]:
        """The global ids of the rank's experts, in local order."""
        return list(self._of_ranks("local_experts", [rank])[0])

    @needs("partition.expert_map")
    def expert_map(self, rank: int) -> list[Any]:
        """The index map of one rank."""
        return list(self._of_ranks("expert_map", [rank])[0])

    @needs("partition.expert_map_with_shared")
    def expert_map_with_shared(self, rank: int, num_shared_experts: int) -> list[Any]:
        """The index map of one rank with shared experts."""
        answer = self._of_ranks("expert_map_with_shared", [rank], num_shared_experts=num_shared_experts)
        return list(answer[0])

    @needs("partition.expert_map_with_sentinel")
    def expert_map_with_sentinel(self, rank: int) -> list[Any]:
        """The index map of one rank with a sentinel."""
        return list(self._of_ranks("expert_map_with_sentinel", [rank])[0])

    @needs("partition.expert_mask")
    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> list[Any]:
        """The mask of one rank."""
        return list(self._of_ranks("expert_mask", [rank], num_shared_experts=num_shared_experts)[0])

    @needs("partition.expert_map")
    def expert_maps(self) -> list[Any]:
        """The index maps of all ranks."""
        return self._of_ranks("expert_map", range(self.num_ranks))

    @needs("partition.expert_map_with_shared")
    def expert_map_with_shareds(self, num_shared_experts: int) -> list[Any]:
        """The index maps of all ranks with shared experts."""
        ranks = range(self.num_ranks)
        return self._of_ranks("expert_map_with_shared", ranks, num_shared_experts=num_shared_experts)

    @needs("partition.expert_map_with_sentinel")
    def expert_map_with_sentinels(self) -> list[Any]:
        """The index maps of all ranks with a sentinel."""
        return self._of_ranks("expert_map_with_sentinel", range(self.num_ranks))

    @needs("partition.expert_mask")
    def expert_masks(self, num_shared_experts: int = 0) -> list[Any]:
        """The masks of all ranks."""
        return self._of_ranks("expert_mask", range(self.num_ranks), num_shared_experts=num_shared_experts)


class Elementwise:
    """The functions over arrays: many points are one line."""

    def __init__(self, command: str) -> None:
        self._command = command

    def count(self, num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
        """The count of each rank."""
        return self._ask("count", "ranks", num_experts, num_ranks, rank, strategy)

    def start(self, num_experts: Any, num_ranks: Any, rank: Any, strategy: str) -> Any:
        """The start of each rank."""
        return self._ask("start", "ranks", num_experts, num_ranks, rank, strategy)

    def owner(self, num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
        """The owner of each expert."""
        return self._ask("owner", "experts", num_experts, num_ranks, expert, strategy)

    def local_index(self, num_experts: Any, num_ranks: Any, expert: Any, strategy: str) -> Any:
        """The local index of each expert."""
        return self._ask("local_index", "experts", num_experts, num_ranks, expert, strategy)

    def _ask(self, method: str, name: str, num_experts: Any, num_ranks: Any, ids: Any, strategy: str) -> Any:
        points = np.broadcast_arrays(num_experts, num_ranks, ids)
        flat = [one.reshape(-1) for one in points]
        call, program = f"{PARTITION}.{method}", program_of(self._command)
        answers: list[int] = []
        for first in range(0, len(flat[0]), MOST_POINTS):
            experts, ranks, asked = (one[first : first + MOST_POINTS].tolist() for one in flat)
            answer = program.ask(call, num_experts=experts, num_ranks=ranks, strategy=strategy, **{name: asked})
            answers += rows(call, answer, len(asked))
        if not set(map(type, answers)) <= {int}:
            raise TypeError(f"{call} answers with something else than integers")
        return np.array(answers, dtype=np.int64).reshape(points[0].shape)


def rows(call: str, answer: Any, length: int) -> list[Any]:
    """An answer that is a list of this length.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(answer, list):
        raise TypeError(f"{call} answers with a {type(answer).__name__}, expected a list")
    if len(answer) != length:
        raise TypeError(f"{call} answers with {len(answer)} entries, expected {length}")
    return answer


def partitions_of(command: str) -> tuple[Callable[[int, int, str], Any], Elementwise | None]:
    """The partitions that a program answers for, and its functions over arrays where it has all four.

    Raises:
        ValueError: a command that cannot be started, or a program that speaks another protocol.
        BrokenProgramError: a program that broke the protocol.
    """
    offers = program_of(command).offers
    has_all = {f"{PARTITION}.{name}" for name in SCALARS} <= offers
    made = offered_class(Asked, offers, program_command=command)
    return made, Elementwise(command) if has_all else None
