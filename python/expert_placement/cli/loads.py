"""Recorded expert loads: read for a partition, and summed by rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expert_placement.cli.errors import Refused, refusing
from expert_placement.formats.json_object import printable
from expert_placement.formats.loads import read_recorded_loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from expert_placement.cli.rules import Rule

__all__ = ["LoadTable", "RankLoads", "rank_loads", "read_loads"]


@dataclass(frozen=True, slots=True)
class LoadTable:
    """Loads of the experts of each layer.

    Attributes:
        name: the file, for messages.
        loads: float64[L, E], finite and never negative, L >= 1.
        layer_ids: which layer of the model each row is, where the file's `layers` says so.
    """

    name: str
    loads: npt.NDArray[np.float64]
    layer_ids: tuple[int, ...] | None

    @property
    def num_layers(self) -> int:
        """L."""
        return int(self.loads.shape[0])

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self.loads.shape[1])


@dataclass(frozen=True, slots=True)
class RankLoads:
    """What each rank carries, layer by layer.

    Only ranks that own experts are stored: at most E of them, however many ranks there are.

    Attributes:
        num_ranks: R.
        ranks: the ranks that own experts, ascending: int64[N].
        loads: what they carry: float64[L, N].
    """

    num_ranks: int
    ranks: npt.NDArray[np.int64]
    loads: npt.NDArray[np.float64]

    def totals(self) -> npt.NDArray[np.float64]:
        """The loads of the stored ranks, summed over layers: float64[N]."""
        return _sum(self.loads.T)

    def mean_total(self) -> float:
        """The mean over all ranks of the load summed over layers."""
        return float(_sum(self.totals())) / self.num_ranks

    def balancedness(self) -> float:
        """That of the sum over layers of the mean rank load and of the largest, in 1/R..=1."""
        from expert_placement import Placement

        largest = float(_sum(self.loads.max(axis=1, initial=0.0)))
        return Placement.balancedness_of(float(_sum(_sum(self.loads) / self.num_ranks)), largest)

    def rows(self) -> Iterator[Iterator[float]]:
        """The loads of all ranks, a layer at a time: [L][R], never held in memory as a whole."""
        return map(self._row, self.loads.tolist())

    def _row(self, loads: list[float]) -> Iterator[float]:
        carried = dict(zip(self.ranks.tolist(), loads, strict=True))
        return (carried.get(rank, 0.0) for rank in range(self.num_ranks))

    def dense(self) -> npt.NDArray[np.float64]:
        """The loads of all ranks: float64[L, R]."""
        table = np.zeros((self.loads.shape[0], self.num_ranks))
        table[:, self.ranks] = self.loads
        return table


def rank_loads(rule: Rule, loads: npt.NDArray[np.float64]) -> RankLoads:
    """What each rank of a partition carries under loads float64[L, E], summed in the order of expert ids."""
    owners = np.fromiter((rule.owner(expert) for expert in range(rule.num_experts)), np.int64, rule.num_experts)
    ranks, column = np.unique(owners, return_inverse=True)
    carried = np.zeros((ranks.size, loads.shape[0]))
    np.add.at(carried, column, loads.T)
    return RankLoads(rule.num_ranks, ranks, np.ascontiguousarray(carried.T))


def _sum(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums along the last axis in index order, which numpy's own sum does not promise."""
    if values.shape[-1] == 0:
        return np.zeros(values.shape[:-1])
    sums: npt.NDArray[np.float64] = np.add.accumulate(values, axis=-1)[..., -1]
    return sums


def read_loads(path: str, *, num_experts: int | None = None, source: str = "") -> LoadTable:
    """Reads loads [L, E] from a file, as `expert_placement.formats.loads` does.

    Args:
        path: a regular file, or a link to one; a pipe is refused, also one that a shell makes for `<(...)`.
        num_experts: E, where it is known from elsewhere; `source` says from where.
        source: where `num_experts` came from, for a message.

    Raises:
        Refused: the file can not be read, is not of this shape, or holds a value that is no load. The message names
            the file, and the layer, the expert and the value where there are such.
    """
    name = f"`{printable(path)}`"
    with refusing():
        loads, layer_ids = read_recorded_loads(path)
    if loads.ndim != 2:
        raise Refused(f"{name}: the table is [windows][layers][experts], expected [layers][experts]")
    if num_experts is not None and loads.shape[1] != num_experts:
        raise Refused(f"{name}: layer 0 has {loads.shape[1]} experts, expected {num_experts}, {source}")
    return LoadTable(name, loads.astype(np.float64), layer_ids)
