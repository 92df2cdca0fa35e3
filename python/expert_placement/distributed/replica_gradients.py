"""Gradients of an expert's replicas, added up over the slots and ranks that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from expert_placement.distributed.exchange import exchange

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

    from expert_placement import Placement


class ReplicaSum:
    """Adds up, for every expert of a layer that several slots hold, what these slots have.

    Each rank sends its part of an expert's sum to the ranks that hold the expert too, and to no others. All of them add
    up the same parts in the order of the ranks, so that the replicas get the same sum to the last bit.

    Args:
        placement: which slots hold what.
        layer: in 0..L.
        rank: this rank, in 0..R.
        device: where the gradients are.

    Raises:
        IndexError: a layer or a rank out of range.
    """

    def __init__(self, placement: Placement, layer: int, rank: int, device: torch.device) -> None:
        is_replicated = (placement.replica_counts()[layer] > 1).tolist()
        # Every rank leaves the exchange out where nobody has anything to add up.
        self._is_needed = any(is_replicated)
        held = [
            [expert for expert in placement.experts_to_load(layer, each).tolist() if is_replicated[expert]]
            for each in range(placement.num_ranks)
        ]
        row_of = {expert: row for row, expert in enumerate(held[rank])}
        # Both ranks of a pair list what they share in the same order, so neither has to tell the other.
        shared = [[row_of[expert] for expert in experts if expert in row_of] for experts in held]
        experts = placement.local_experts(layer, rank).tolist()
        slots = [slot for slot, expert in enumerate(experts) if expert in row_of]
        self._counts = [len(rows) for rows in shared]
        self._num_rows = len(row_of)
        self._shared = torch.tensor([row for rows in shared for row in rows], dtype=torch.long, device=device)
        self._slots = torch.tensor(slots, dtype=torch.long, device=device)
        self._row_of_slot = torch.tensor([row_of[experts[slot]] for slot in slots], dtype=torch.long, device=device)

    @torch.no_grad()
    def __call__(self, slots: Tensor, group: dist.ProcessGroup | None = None) -> None:
        """Replaces in place what each slot has by the sum over all slots that hold the same expert.

        All ranks of the group have to call it, those without a slot as well.

        Args:
            slots: `[slots of the rank, ...]`, floating point.
            group: the ranks of the placement; all without other word.
        """
        if not self._is_needed:
            return
        own = slots.new_zeros(self._num_rows, *slots.shape[1:]).index_add_(0, self._row_of_slot, slots[self._slots])
        received = exchange(own[self._shared], self._counts, self._counts, group)
        total = torch.zeros_like(own)
        # Rank by rank, in which no row comes twice: on no device does the order of additions depend on chance.
        by_rank = (each.split_with_sizes(self._counts) for each in (self._shared, received))
        for rows, parts in zip(*by_rank, strict=True):
            total.index_add_(0, rows, parts)
        slots[self._slots] = total[self._row_of_slot]
