"""The torch implementations in the shape that the specification's checkers ask for.

The checkers take any implementation by name: `expert_placement:Partition` is the compiled partition, and
`expert_placement.conformance:TorchPartition` that of torch operations. `RustRouting`, `TorchRouting` and
`TritonRouting` are the three of routing, and `CudaRouting` is what a GPU does without other word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

import expert_placement.torch as implementation
from expert_placement import _core
from expert_placement.partition import Partition as _Partition
from expert_placement.placement import Placement as _Placement
from expert_placement.torch.partition import _shape
from expert_placement.torch.routing import RoutingTables as _RoutingTables
from expert_placement.torch.routing import route as _route

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

    from expert_placement.torch.routing import Routed


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


class _Tables(_RoutingTables):
    """Tables on the device of the implementation under check."""

    __slots__ = ()
    device_name: ClassVar[str] = "cpu"

    def __init__(
        self, placement: Any, *, rank: int | None = None, max_slots: int | None = None, weights: Any = None
    ) -> None:
        super().__init__(placement, rank=rank, device=self.device_name, max_slots=max_slots, weights=weights)

    @classmethod
    def for_sender(cls, placement: Any, rank: int) -> Self:  # type: ignore[override]
        return super().for_sender(placement, rank, device=cls.device_name)


class _CudaTables(_Tables):
    __slots__ = ()
    device_name: ClassVar[str] = "cuda"


class _Routing:
    """The public names, with ids and loads as numpy arrays."""

    Partition = _Partition
    Placement = _Placement
    Topology = _core.Topology
    RoutingTables: ClassVar[type[_Tables]] = _Tables
    implementation: ClassVar[str | None]

    @classmethod
    def route(
        cls,
        topk_ids: npt.NDArray[Any],
        tables: _RoutingTables,
        *,
        load: npt.NDArray[np.integer[Any]] | None = None,
        **options: Any,
    ) -> Routed:
        """Routes a batch; a load is added to in place."""
        device = tables.device
        counters = None if load is None else torch.from_numpy(load).to(device)
        routed = cls.call(torch.from_numpy(topk_ids).to(device), tables, load=counters, **options)
        if load is not None and counters is not None:
            load[:] = counters.cpu().numpy()
        return type(routed)(*(field if field is None else field.cpu() for field in routed))

    @classmethod
    def call(cls, topk_ids: Tensor, tables: _RoutingTables, **options: Any) -> Routed:
        """The function under check."""
        return _route(topk_ids, tables, implementation=cls.implementation, **options)


class RustRouting(_Routing):
    """Routing by the compiled core."""

    implementation = "rust"


class TorchRouting(_Routing):
    """Routing by plain torch operations."""

    implementation = "torch"


class TritonRouting(_Routing):
    """Routing by the Triton kernels, on the CPU under Triton's interpreter."""

    implementation = "triton"


class CudaRouting(_Routing):
    """Routing on a GPU, by what is chosen there without other word."""

    RoutingTables = _CudaTables
    implementation = None
