"""The torch implementation in the shape that the specification's checkers ask for.

The checkers take any implementation by name: `expert_placement:Partition` is the compiled one, and
`expert_placement.conformance:TorchPartition` this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

import expert_placement.torch as implementation
from expert_placement.torch.partition import _shape

if TYPE_CHECKING:
    from types import ModuleType


class TorchPartition:
    """A partition whose every answer comes from `expert_placement.torch`."""

    arrays: ClassVar[str] = "torch"
    elementwise: ClassVar[ModuleType] = implementation

    def __init__(self, num_experts: int, num_ranks: int, strategy: str = "linear") -> None:
        self.shape = (num_experts, num_ranks)
        self.strategy = strategy
        # What the functions refuse is refused here, without a tensor.
        _shape(num_experts, num_ranks, strategy)

    def counts(self) -> Tensor:
        """The count of every rank."""
        return implementation.partition_counts(*self.shape, self.strategy)

    def starts(self) -> Tensor:
        """The start of every rank."""
        return implementation.partition_starts(*self.shape, self.strategy)

    def owners(self) -> Tensor:
        """The owner of every expert."""
        return implementation.partition_owners(*self.shape, self.strategy)

    def local_indices(self) -> Tensor:
        """The local index of every expert."""
        return implementation.partition_local_indices(*self.shape, self.strategy)

    def offsets(self) -> Tensor:
        """The exclusive prefix sums of the counts, E last."""
        return implementation.partition_offsets(*self.shape, self.strategy)

    def expert_map(self, rank: int) -> Tensor:
        """The index map of one rank."""
        return implementation.expert_map(*self.shape, rank, self.strategy)

    def expert_map_with_shared(self, rank: int, num_shared_experts: int) -> Tensor:
        """The index map of one rank with shared experts."""
        return implementation.expert_map_with_shared(*self.shape, rank, num_shared_experts, self.strategy)

    def expert_map_with_sentinel(self, rank: int) -> Tensor:
        """The index map of one rank with a sentinel."""
        return implementation.expert_map_with_sentinel(*self.shape, rank, self.strategy)

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> Tensor:
        """The mask of one rank."""
        return implementation.expert_mask(*self.shape, rank, num_shared_experts, self.strategy)

    def expert_maps(self) -> Tensor:
        """The index maps of all ranks, [R, E]."""
        return implementation.expert_map(*self.shape, self._ranks(), self.strategy)

    def expert_map_with_shareds(self, num_shared_experts: int) -> Tensor:
        """The index maps of all ranks with shared experts, [R, E + S]."""
        return implementation.expert_map_with_shared(*self.shape, self._ranks(), num_shared_experts, self.strategy)

    def expert_map_with_sentinels(self) -> Tensor:
        """The index maps of all ranks with a sentinel, [R, E + 1]."""
        return implementation.expert_map_with_sentinel(*self.shape, self._ranks(), self.strategy)

    def expert_masks(self, num_shared_experts: int = 0) -> Tensor:
        """The masks of all ranks, [R, E + S + 1]."""
        return implementation.expert_mask(*self.shape, self._ranks(), num_shared_experts, self.strategy)

    def _ranks(self) -> Tensor:
        return torch.arange(self.shape[1])
