"""Rows from every rank to every rank, in uneven parts, with gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def exchange(
    rows: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int], group: dist.ProcessGroup | None = None
) -> Tensor:
    """Sends each rank of the group its part of the rows, and receives the parts that the others have for this one.

    Its gradient goes the way back: the same exchange with the counts changed over. So the backward pass, too, has to be
    run by all ranks of the group, in the same order.

    Args:
        rows: `[N, ...]` of any dtype, for rank 0 first; what follows the first dimension is the same on all ranks.
        send_counts: R numbers of rows that add up to N, one for each rank of the group.
        receive_counts: R numbers of rows; entry r is what rank r has for this rank among its `send_counts`.
        group: the ranks; all of them without other word.

    Returns:
        The rows that were received, those of rank 0 first, in the order in which each rank had them.

    Raises:
        ValueError: another number of counts than the group has ranks, or `send_counts` that do not add up to N.
    """
    num_ranks = dist.get_world_size(group)
    for parameter, counts in (("send_counts", send_counts), ("receive_counts", receive_counts)):
        if len(counts) != num_ranks:
            raise ValueError(f"{parameter} has {len(counts)} entries, expected {num_ranks} as the group has ranks")
    if sum(send_counts) != rows.shape[0]:
        raise ValueError(f"send_counts add up to {sum(send_counts)}, expected {rows.shape[0]}: there are so many rows")
    received: Tensor = _Exchange.apply(rows, list(send_counts), list(receive_counts), group)
    return received


class _Exchange(torch.autograd.Function):
    """The exchange as autograd knows it; its backward is one itself, and can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, send_counts: list[int], receive_counts: list[int], group: dist.ProcessGroup | None
    ) -> Tensor:
        ctx.way_back = (receive_counts, send_counts, group)
        received = rows.new_empty(sum(receive_counts), *rows.shape[1:])
        dist.all_to_all_single(received, rows.contiguous(), receive_counts, send_counts, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(gradients[0], *ctx.way_back), None, None, None
