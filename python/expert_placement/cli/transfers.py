"""What a migration sends: between which ranks, in which batch, and how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expert_placement import plan_migration
from expert_placement.cli.errors import refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import numpy.typing as npt

    from expert_placement import Migration, Placement

    _Integers = npt.NDArray[np.int64]

__all__ = ["Traffic", "Transfers", "count_moves", "traffic", "transfers"]


def count_moves(old: Placement, new: Placement) -> list[int]:
    """How many experts come to a rank that did not hold them, in each layer.

    Unlike a migration this also counts experts that no rank in service holds any more, which have to be loaded again.
    """
    first_slots = new.slot_offsets().numpy()
    rank_of_slot = np.repeat(np.arange(new.num_ranks), np.diff(first_slots))
    rows = zip(old.physical_to_logical().numpy(), new.physical_to_logical().numpy(), strict=True)

    def held(row: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """How often each rank holds each expert: int64[R * E]."""
        pairs = (rank_of_slot * new.num_experts + row)[row >= 0]
        return np.bincount(pairs, minlength=new.num_ranks * new.num_experts)

    return [int(np.maximum(held(after) - held(before), 0).sum()) for before, after in rows]


@dataclass(frozen=True, slots=True)
class Transfers:
    """The moves of a migration, as the ranks see them. A move inside a rank is a copy; any other is a transfer.

    Attributes:
        migration: the plan.
        moves: int64[M, 4]: layer, expert, source slot, destination slot.
        batch: int64[M]: the batch of each move.
        sender: int64[M]: the rank of its source.
        receiver: int64[M]: the rank of its destination.
        is_transfer: bool[M]: whether it goes from one rank to another.
        num_ranks: R.
        node: int64[R]: the node of each rank.
    """

    migration: Migration
    moves: _Integers
    batch: _Integers
    sender: _Integers
    receiver: _Integers
    is_transfer: npt.NDArray[np.bool_]
    num_ranks: int
    node: _Integers

    @property
    def num_transfers(self) -> int:
        """How many experts come to a rank from another one."""
        return int(self.is_transfer.sum())

    @property
    def num_between_nodes(self) -> int:
        """How many of the transfers go from one node to another."""
        return int((self.node[self.sender] != self.node[self.receiver]).sum())


def transfers(old: Placement, new: Placement) -> Transfers:
    """Plans the migration from one placement to the next.

    Raises:
        Refused: placements of different shapes, or an expert that `old` holds nowhere that is in service.
    """
    with refusing():
        migration = plan_migration(old, new)
    moves = migration.moves.numpy().astype(np.int64)
    batches = migration.batches.numpy().astype(np.int64)
    rank_of_slot = np.repeat(np.arange(new.num_ranks), np.diff(new.slot_offsets().numpy()))
    sender, receiver = rank_of_slot[moves[:, 2]], rank_of_slot[moves[:, 3]]
    return Transfers(
        migration=migration,
        moves=moves,
        batch=np.repeat(np.arange(batches.size - 1), np.diff(batches)),
        sender=sender,
        receiver=receiver,
        is_transfer=sender != receiver,
        num_ranks=new.num_ranks,
        node=np.array([new.topology.node_of(rank) for rank in range(new.num_ranks)]),
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much is sent, in experts or in bytes.

    Attributes:
        sent: what each rank sends: int64[R].
        received: what each rank receives: int64[R].
        by_batch: the most that a rank sends or receives in each batch: int64[B].
    """

    sent: _Integers
    received: _Integers
    by_batch: _Integers

    def seconds(self, bytes_per_second: float) -> float:
        """How long the batches take, one after the other, where each is as long as its busiest rank needs."""
        return float(self.by_batch.sum()) / bytes_per_second


def traffic(plan: Transfers, unit: int = 1) -> Traffic:
    """What ranks send and receive, where a transfer is worth `unit`: 1, or the bytes of an expert of a layer."""
    sender, receiver = plan.sender[plan.is_transfer], plan.receiver[plan.is_transfer]
    # In a batch no rank sends twice or receives twice.
    busy = np.bincount(plan.batch[plan.is_transfer], minlength=plan.migration.num_batches) > 0
    return Traffic(
        sent=np.bincount(sender, minlength=plan.num_ranks) * unit,
        received=np.bincount(receiver, minlength=plan.num_ranks) * unit,
        by_batch=busy * unit,
    )
