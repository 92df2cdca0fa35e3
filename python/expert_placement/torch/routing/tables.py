"""The tables that ids are routed through, at fixed addresses on one device. SPEC.md, "Routing tables"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import torch

from expert_placement import _core
from expert_placement._loads import float_bits
from expert_placement._text import digits
from expert_placement.torch._arguments import (
    Device,
    index_argument,
    int_argument,
    made_on,
    placement_argument,
    torch_device,
)
from expert_placement.torch.routing.layout import parts_of, width_of
from expert_placement.torch.routing.request import Parts, Sizes

if TYPE_CHECKING:
    from typing_extensions import Self

    from expert_placement import Partition, Placement
    from expert_placement._loads import LoadsLike

    Source: TypeAlias = Placement | Partition


class RoutingTables:
    """Which slots serve each expert, for one layer or all of a placement, as int32 on one device.

    The tables are one tensor that is made once: `update` replaces its content in place, so that captured CUDA graphs
    and compiled functions go on working with a new placement.

    Args:
        placement: a `Placement`, or a `Partition`, which is one of one layer.
        layer: in 0..L for the tables of one layer; all of them without other word.
        rank: the rank whose slots are local, in 0..R, where `local_slots` will be asked for.
        device: where the tables are; the CPU without other word.
        max_slots: slots that there is room for, P..=2**16 - 1, which a later placement may have; P without other word.
        weights: how much of its expert each slot is to serve, `[L, P]`, in any unit; evenly without other word. What
            `Placement.replica_weights` gives makes the busiest rank as fast as can be.

    Raises:
        ValueError: `max_slots` below P, a weight that is negative or not finite, an expert without weight, experts,
            slots or ranks beyond 2**16 - 1, or a device that cannot be used.
        IndexError: a layer or a rank out of range.
        TypeError: an argument of another type.

    Example:
        >>> from expert_placement import Partition
        >>> tables = RoutingTables(Partition(6, 2), rank=1)
        >>> tables
        <RoutingTables of 6 experts in up to 6 slots on 2 ranks, 1 x 28 int32 on cpu>
    """

    __slots__ = ("__weakref__", "_data", "_is_whole", "_layers", "_rows", "_sender", "parts", "rank", "sizes", "starts")

    _rows: list[torch.Tensor]
    rank: int | None
    """Whose slots are local."""
    sizes: Sizes
    """E, the most slots, R, and whether replicas are weighted."""
    starts: dict[tuple[object, ...], Any]
    """What `route` keeps for calls that differ from earlier ones in their numbers alone, by the kind of call."""
    parts: Parts
    """Where what stands in a row of `data`."""

    def __init__(
        self,
        placement: Source,
        *,
        layer: SupportsIndex | None = None,
        rank: SupportsIndex | None = None,
        device: Device | None = None,
        max_slots: SupportsIndex | None = None,
        weights: LoadsLike | None = None,
    ) -> None:
        self._make(placement_argument(placement), layer, rank, None, device, max_slots, weights)

    @classmethod
    def for_sender(
        cls,
        placement: Source,
        rank: SupportsIndex,
        *,
        layer: SupportsIndex | None = None,
        device: Device | None = None,
        max_slots: SupportsIndex | None = None,
    ) -> Self:
        """Tables that serve a token as near to the rank that sends it as can be.

        Only the replicas of an expert that are on `rank` are chosen among; where there are none, those on its node;
        where there are none either, all. So ranks choose differently: these tables are right for a dispatch in which
        the sender alone decides, and wrong where every rank works out for itself what it has to do.

        Args:
            placement: as for the class.
            rank: the sender, in 0..R, whose slots are the local ones.
            layer: as for the class.
            device: as for the class.
            max_slots: as for the class.

        Raises:
            ValueError, IndexError, TypeError: as for the class.
        """
        tables = cls.__new__(cls)
        made = placement_argument(placement)
        sender = index_argument("rank", rank, made.num_ranks)
        tables._make(made, layer, sender, sender, device, max_slots, None)
        return tables

    def _make(
        self,
        placement: Placement,
        layer: SupportsIndex | None,
        rank: SupportsIndex | None,
        sender: int | None,
        device: Device | None,
        max_slots: SupportsIndex | None,
        weights: LoadsLike | None,
    ) -> None:
        self._is_whole = layer is None
        if layer is None:
            self._layers = range(placement.num_layers)
        else:
            only = index_argument("layer", layer, placement.num_layers)
            self._layers = range(only, only + 1)
        self.rank = None if rank is None else index_argument("rank", rank, placement.num_ranks)
        self._sender = sender
        if placement.num_slots > _core.MAX_ROUTED_SLOTS:
            most = f"{_core.MAX_ROUTED_SLOTS} in routing tables"
            raise ValueError(f"placement has num_slots={placement.num_slots}, expected at most {most}")
        room = placement.num_slots if max_slots is None else int_argument("max_slots", max_slots)
        if not placement.num_slots <= room <= _core.MAX_ROUTED_SLOTS:
            raise ValueError(
                f"max_slots={digits(room)} is out of range, expected {placement.num_slots}..={_core.MAX_ROUTED_SLOTS}: "
                f"the placement has num_slots={placement.num_slots}"
            )
        self.sizes = Sizes(placement.num_experts, room, placement.num_ranks, weights is not None)
        place = torch_device(device)
        # Tables outlive the mode that they are made in: a tensor of inference mode could not be updated outside of it.
        with torch.inference_mode(False):
            made = self._tables(placement, self._layers, weights)
            self._data = made if place is None else made_on(lambda: made.to(place), place)
            self._rows = list(self._data)
        self.starts = {}
        self.parts = parts_of(self.sizes)

    def update(
        self, placement: Source, *, layer: SupportsIndex | None = None, weights: LoadsLike | None = None
    ) -> None:
        """Replaces the content in place; what is refused changes nothing.

        On CUDA the copy is ordered on the current stream: replays of graphs that are queued there after it see the new
        placement, and those before it the old one. It is from pageable memory, for which the host may wait until the
        stream has come that far. On the CPU other threads must not route at the same time. With a `layer` that one
        alone is replaced, and may have another number of slots.

        Args:
            placement: of as many layers, experts and ranks, and of at most `max_slots` slots.
            layer: the one layer to replace, as where a migration goes layer by layer; all of them without other word.
            weights: as for the class; wanted exactly where the tables were made with weights.

        Raises:
            ValueError: a placement that does not fit, whose error names the capacity that would, or wrong weights.
            IndexError: a layer that the tables do not have.
            TypeError: an argument of another type.
            RuntimeError: during the capture of a CUDA graph, which would keep what is copied now.
        """
        made = placement_argument(placement)
        layers = self._layers if layer is None else range(*self._place_and_next(layer))
        # Tables of one layer of several need that layer, and no other.
        if made.num_layers != len(self._layers) if self._is_whole else made.num_layers <= self._layers[-1]:
            expected = f"{len(self._layers)}" if self._is_whole else f"more than {self._layers[-1]}"
            raise ValueError(f"placement has num_layers={made.num_layers}, expected {expected} as the tables have")
        if (weights is not None) != self.sizes.is_weighted:
            wanted = "needs weights" if self.sizes.is_weighted else "takes no weights"
            raise ValueError(f"weights: the update {wanted}, since the tables were made so")
        tables = self._tables(made, layers, weights)
        if self.data.is_cuda:
            with torch.cuda.device(self.data.device):
                if torch.cuda.is_current_stream_capturing():
                    raise RuntimeError(
                        "tables can not be updated while a CUDA graph is captured: update between replays"
                    )
        first = layers.start - self._layers.start
        self.data[first : first + len(layers)].copy_(tables, non_blocking=self.data.is_cuda)

    def _tables(self, placement: Placement, layers: range, weights: LoadsLike | None) -> torch.Tensor:
        """The tables of some layers, on the CPU."""
        bits = None
        if weights is not None:
            shape = (placement.num_layers, placement.num_slots)
            bits = float_bits("weights", weights, {2: "[L, P]"})
            if bits.shape != shape:
                raise ValueError(f"weights has shape {list(bits.shape)}, expected {list(shape)} as the placement has")
            bits = bits.reshape(-1)
        width = width_of(self.sizes)
        made = _core._routing_tables(placement, (layers.start, len(layers)), self.sizes, self._sender, bits)
        return made.view(len(layers), width)

    def row(self, layer: SupportsIndex | None) -> torch.Tensor:
        """The table of one layer: int32 of one dimension, always the same tensor.

        Args:
            layer: which one, of those that the tables have; not needed where there is one.

        Raises:
            IndexError: a layer that the tables do not have.
            TypeError: a layer that is no int, or none where the tables have several.
        """
        if torch.compiler.is_compiling() and layer is not None:
            # A list would tie what is compiled to the number of the layer.
            return self._data[self._place_and_next(layer)[0] - self._layers.start]
        if layer is None:
            if len(self._rows) != 1:
                raise TypeError(f"layer must be an int where the tables have {len(self._rows)} layers, got `NoneType`")
            return self._rows[0]
        # The common case first: this is called for every layer of every forward pass.
        if type(layer) is int and self._layers.start <= layer < self._layers.stop:
            return self._rows[layer - self._layers.start]
        return self._rows[self._place_and_next(layer)[0] - self._layers.start]

    def _place_and_next(self, layer: SupportsIndex) -> tuple[int, int]:
        number = int_argument("layer", layer)
        # Compared one by one, which can be traced.
        if not self._layers.start <= number < self._layers.stop:
            expected = f"{self._layers.start}..{self._layers.stop}"
            raise IndexError(f"layer={digits(number)} is out of range, expected {expected} as the tables have")
        return number, number + 1

    @property
    def data(self) -> torch.Tensor:
        """int32, `[number of layers, width]`: all that there is; `RoutingShape` of the crate says what stands where."""
        return self._data

    @property
    def layers(self) -> range:
        """The layers that the tables are for."""
        return self._layers

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.data.device

    @property
    def num_experts(self) -> int:
        """E."""
        return self.sizes.num_experts

    @property
    def max_slots(self) -> int:
        """The capacity, and the length of counts and loads."""
        return self.sizes.max_slots

    @property
    def num_ranks(self) -> int:
        """R."""
        return self.sizes.num_ranks

    @property
    def is_weighted(self) -> bool:
        """Whether replicas are chosen by weight."""
        return self.sizes.is_weighted

    @property
    def sender(self) -> int | None:
        """The rank for whose own tokens alone the tables are right, if they are so."""
        return self._sender

    def __repr__(self) -> str:
        rows, width = self.data.shape
        return (
            f"<RoutingTables of {self.num_experts} experts in up to {self.max_slots} slots on "
            f"{self.num_ranks} ranks, {rows} x {width} int32 on {self.device}>"
        )

    # Rows are views, and starts are of one process: what is copied or pickled has its own. A subclass may have
    # attributes, which go with it.

    def __getstate__(self) -> dict[str, Any]:
        names = [name for name in RoutingTables.__slots__ if name not in ("__weakref__", "_rows", "starts")]
        return {**{name: getattr(self, name) for name in names}, **getattr(self, "__dict__", {})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        with torch.inference_mode(False):
            if self._data.is_inference():
                self._data = self._data.clone()
            self._rows = list(self._data)
        self.starts = {}
