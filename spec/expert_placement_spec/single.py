"""One partition of any size, in plain ints, each answer asked by itself."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from expert_placement_spec.grid import POISON
from expert_placement_spec.implementation import SCALARS
from expert_placement_spec.reference import stride

if TYPE_CHECKING:
    from expert_placement_spec.implementation import Implementation
    from expert_placement_spec.invariants import Invariant


class One:
    """The view of one partition in plain ints, of any size, each answer asked by itself."""

    def __init__(self, implementation: Implementation, num_experts: int, num_ranks: int, strategy: str) -> None:
        self._implementation = implementation
        self.num_experts = num_experts
        self.num_ranks = num_ranks
        self.strategy = strategy
        self.stride = stride(num_ranks, strategy)
        self._scalars = implementation.offers(*SCALARS)
        self._partition = implementation.make(num_experts, num_ranks, strategy) if self._scalars else None

    def _ask(self, query: str, identifier: int, end: int) -> int:
        if not 0 <= identifier < end:
            return POISON
        if self._scalars:
            return operator.index(getattr(self._partition, query)(identifier))
        arrays = self._implementation.arrays
        shape = (arrays.array([self.num_experts]), arrays.array([self.num_ranks]))
        return int(self._implementation.ask(query, *shape, arrays.array([identifier]), self.strategy)[0])

    def count(self, rank: int) -> int:
        """The count of a rank."""
        return self._ask("count", rank, self.num_ranks)

    def start(self, rank: int) -> int:
        """The start of a rank."""
        return self._ask("start", rank, self.num_ranks)

    def owner(self, expert: int) -> int:
        """The owner of an expert."""
        return self._ask("owner", expert, self.num_experts)

    def local_index(self, expert: int) -> int:
        """The local index of an expert."""
        return self._ask("local_index", expert, self.num_experts)

    def grown(self) -> One:
        """The partition of E + 1 experts."""
        return One(self._implementation, self.num_experts + 1, self.num_ranks, self.strategy)


def can_sample(law: Invariant) -> bool:
    """Whether the law can be decided at one point without tables: the sum over all ranks cannot."""
    return law.subject == "rule" and law.name != "counts_total_num_experts"
