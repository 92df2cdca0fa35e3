"""From one placement to the next: which slot is filled from which, in which order. SPEC.md, "Migration"."""

from __future__ import annotations

from typing import NamedTuple

from expert_placement import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import SupportsIndex

    import torch

    from expert_placement.placement import Placement


class Traffic(NamedTuple):
    """What a migration sends, in bytes; copies inside a rank are not sent."""

    sent: torch.Tensor
    """int64[B, R]: what each rank sends in each batch."""
    received: torch.Tensor
    """int64[B, R]: what each rank receives in each batch."""


class Migration(_core.Migration):
    """Moves in batches, from an old placement to a new one.

    Inside a batch no rank sends twice or receives twice; copies inside a rank are no transfers. A batch is executed by
    reading all its sources first; then the destinations whose turn it is are written, which `write_batches` says.
    Between two batches every expert of every layer is in at least one slot.
    """

    __slots__ = ()

    @property
    def moves(self) -> torch.Tensor:
        """int32[M, 4]: layer, expert, source slot, destination slot (slots of the layer), batch by batch."""
        return self._moves(None).view(self.num_moves, 4)

    @property
    def senders(self) -> torch.Tensor:
        """int32[M]: the rank that each move's source is on."""
        return self._senders(None)

    @property
    def receivers(self) -> torch.Tensor:
        """int32[M]: the rank that each move's destination is on; a move inside a rank is a copy, and not sent."""
        return self._receivers(None)

    @property
    def batches(self) -> torch.Tensor:
        """int32[B + 1]: where each batch begins among the moves, and M last."""
        return self._batches(None)

    @property
    def write_batches(self) -> torch.Tensor:
        """int32[M]: the batch at whose end each destination is written.

        Its own batch, unless what the destination holds is still to be read, or is its expert's last valid replica.
        """
        return self._write_batches(None)

    def traffic(self, bytes_per_expert: SupportsIndex | Sequence[SupportsIndex]) -> Traffic:
        """How many bytes each rank sends and receives in each batch.

        Args:
            bytes_per_expert: the size of an expert's weights, scales included: one number, or L of them; at least 0.

        Raises:
            ValueError: another number of sizes, a negative one, or sums beyond 64 bits.
        """
        shape = (self.num_batches, self.num_ranks)
        sent, received = self._traffic(bytes_per_expert)
        return Traffic(sent.view(shape), received.view(shape))

    def apply(self, weights: torch.Tensor) -> torch.Tensor:
        """Rearranges weights in one process, batch by batch: the reference for the distributed execution.

        Args:
            weights: `[L, P, ...]`, any dtype, on any device: what each slot holds under the old placement.

        Returns:
            A new tensor of the same shape, without a history of gradients: what each slot holds under the new one. A
            slot that the new placement leaves empty keeps what it had.

        Raises:
            ValueError: weights of another number of layers or slots.
            TypeError: weights that are no tensor, or a sparse, nested, quantized or meta one, or one whose storage is
                smaller than its shape.
        """
        from itertools import pairwise

        import torch

        if not isinstance(weights, torch.Tensor):
            raise TypeError(f"weights must be a torch.Tensor, got {type(weights).__name__}")
        _core._expect_dense("weights", weights)
        if weights.is_quantized:
            raise TypeError("weights must not be quantized, expected the integers and the scales, each by themselves")
        if weights.ndim < 2:
            raise ValueError(f"weights has {weights.ndim} dimensions, expected at least 2, [L, P, ...]")
        shape = (self.num_layers, self.num_slots)
        if tuple(weights.shape[:2]) != shape:
            raise ValueError(f"weights has the shape {tuple(weights.shape)}, expected [{shape[0]}, {shape[1]}, ...]")
        # Bytes are moved, since some dtypes can do nothing else.
        whole = weights.detach().resolve_conj().resolve_neg().contiguous()
        if not whole.numel():
            return whole.clone()
        result = whole.view(*shape, -1).view(torch.uint8).clone()
        moves = self.moves.to(weights.device, torch.int64)
        writes = self.write_batches.to(weights.device)
        staged = result.new_empty(0, result.shape[-1])
        staged_moves = moves[:0]
        staged_writes = writes[:0]
        bounds = self.batches.tolist()
        for batch, (first, last) in enumerate(pairwise(bounds)):
            layer, source = moves[first:last, 0], moves[first:last, 2]
            staged = torch.cat((staged, result[layer, source]))
            staged_moves = torch.cat((staged_moves, moves[first:last]))
            staged_writes = torch.cat((staged_writes, writes[first:last]))
            due = staged_writes == batch
            result[staged_moves[due, 0], staged_moves[due, 3]] = staged[due]
            staged, staged_moves, staged_writes = staged[~due], staged_moves[~due], staged_writes[~due]
        return result.view(weights.dtype).view(weights.shape)

    def __repr__(self) -> str:
        counts = f"{self.num_moves} moves, {self.num_transfers} of them transfers, in {self.num_batches} batches"
        return f"<{type(self).__name__} of {counts}, over {self.num_layers} x {self.num_slots} slots>"


def plan_migration(
    old: Placement,
    new: Placement,
    *,
    max_node_transfers: SupportsIndex | None = None,
    max_staged: SupportsIndex | None = None,
) -> Migration:
    """Plans the way from one placement to the next.

    Every slot that comes to hold another expert is filled from a slot that holds that expert in `old`, on a rank that
    is in service in `new`: the nearest (on the same rank, else on the same node, else any), of ranks equally near the
    one that sends least so far, then the lower rank and slot. The number of batches is the most that any rank sends or
    receives, and no plan has fewer.

    Args:
        old: where the experts are.
        new: where they shall be; of the same layers, experts, ranks and slots.
        max_node_transfers: how many transfers between nodes may leave a node, and how many may enter it, in one batch,
            at least 1. Batches with more are split, each into as few as it can be.
        max_staged: how many experts a rank may have to keep beside its slots. Where the whole plan stages more, layers
            are planned one part after the other, which takes more batches.

    Raises:
        ValueError: placements of different shapes, an expert that `old` holds nowhere, or a `max_staged` that the moves
            of a single layer exceed; the error names the least.
        TypeError: an argument of another type.
    """
    return Migration(_core._plan_migration(old, new, max_node_transfers, max_staged))
