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
            A new tensor of the same shape: what each slot holds under the new one. A slot that the new placement leaves
            empty keeps what it had.

        Raises:
            ValueError: weights of fewer layers or slots than the moves speak of, or of fewer than two dimensions.
            TypeError: weights that are no tensor, or a sparse, nested or meta one, or one whose storage is smaller than
                its shape.
        """
        from itertools import pairwise

        import torch

        if not isinstance(weights, torch.Tensor):
            raise TypeError(f"weights must be a torch.Tensor, got {type(weights).__name__}")
        _core._expect_dense("weights", weights)
        if weights.ndim < 2:
            raise ValueError(f"weights has {weights.ndim} dimensions, expected at least 2, [L, P, ...]")
        if not self.num_moves:
            return weights.clone()
        moves = self.moves.to(weights.device, torch.int64)
        for axis, (name, columns) in enumerate((("layers", moves[:, :1]), ("slots", moves[:, 2:]))):
            if moves.numel() and int(columns.max()) >= weights.shape[axis]:
                needed = int(columns.max()) + 1
                raise ValueError(f"weights has {weights.shape[axis]} {name}, expected at least {needed}")
        result = weights.clone()
        writes = self.write_batches.to(weights.device)
        staged = torch.empty_like(weights[:0, 0]).expand(0, *weights.shape[2:])
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
        return result


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
