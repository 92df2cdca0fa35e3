"""What moves from one placement to the next, as the ranks see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    import numpy.typing as npt

    from expert_placement import Migration, Placement

    _Integers = npt.NDArray[np.int64]

__all__ = ["Sent", "count_transfers_between_nodes", "sent"]


def count_transfers_between_nodes(migration: Migration, new: Placement) -> int:
    """How many of the transfers go from one node to another."""
    node = np.array([new.topology.node_of(rank) for rank in range(new.num_ranks)])
    return int((node[migration.senders.numpy()] != node[migration.receivers.numpy()]).sum())


@dataclass(frozen=True, slots=True)
class Sent:
    """How much is sent, in experts or in bytes.

    Attributes:
        sent: what each rank sends: int64[R].
        received: what each rank receives: int64[R].
        by_batch: the most that a rank sends or receives in each batch: int64[B].
    """

    sent: _Integers
    received: _Integers
    by_batch: _Integers

    @property
    def total(self) -> int:
        """What all ranks send."""
        return int(self.sent.sum())

    def seconds(self, bytes_per_second: float) -> float:
        """How long the batches take, one after the other, where each is as long as its busiest rank needs."""
        return float(self.by_batch.sum()) / bytes_per_second


def sent(migration: Migration, unit: int | list[int] = 1) -> Sent:
    """What ranks send and receive, where an expert is worth `unit`: 1, its bytes, or those of each layer.

    Raises:
        ValueError: another number of sizes than layers.
    """
    sends, receives = (table.numpy() for table in migration.traffic(unit))
    busiest = np.maximum(sends.max(axis=1, initial=0), receives.max(axis=1, initial=0))
    return Sent(sends.sum(axis=0), receives.sum(axis=0), busiest)
