"""Recorded expert loads: read from a JSON file, and summed by rank."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from expert_placement.cli.errors import Refused, describe, kind, printable
from expert_placement.formats.json_object import read_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from expert_placement.cli.rules import Rule

    _Refuse = Callable[[str], NoReturn]

__all__ = ["KEYS", "LoadTable", "RankLoads", "rank_loads", "read_loads"]

# Where an object holds the table, whoever wrote it.
KEYS = ("counts", "expert_popularity", "logical_count")

_MAX_FILE_BYTES = 64 * 2**20
# Far from the largest float64, so that no sum of a part of a table overflows whatever its order.
_MAX_TOTAL = 1e300


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
        """Sum over layers of the mean rank load / sum over layers of the largest rank load, in 1/R..=1.

        It is 1 without any load, since no rank then carries more than another.
        """
        if self.ranks.size == 0:
            return 1.0
        largest = float(_sum(self.loads.max(axis=1)))
        return float(_sum(_sum(self.loads) / self.num_ranks)) / largest if largest else 1.0

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
    """Reads loads [L][E] from a JSON file: the table itself, or an object that holds it under one of `KEYS`.

    Args:
        path: a regular file, or a link to one; a pipe is refused, also one that a shell makes for `<(...)`.
        num_experts: E, where it is known from elsewhere; `source` says from where.
        source: where `num_experts` came from, for a message.

    Raises:
        Refused: the file can not be read, is not of this shape, or holds a value that is no load. The message names
            the file, and the layer, the expert and the value where there are such.
    """
    name = f"`{printable(path)}`"

    def refuse(message: str) -> NoReturn:
        raise Refused(f"{name}: {message}")

    root = _parse(path, name, refuse)
    table, layer_ids = _table(root, refuse)
    if not table:
        refuse("there are no layers, expected a table [layers][experts]")
    width = num_experts
    values: list[list[float]] = []
    for layer, row in enumerate(table):
        if not isinstance(row, list):
            refuse(f"layer {layer} is {kind(row)}, expected an array with a load for each expert")
        if width is None:
            width, source = len(row), "as layer 0 has"
        if len(row) != width:
            refuse(f"layer {layer} has {len(row)} experts, expected {width}, {source}")
        values.append([_load(value, layer, expert, refuse) for expert, value in enumerate(row)])
    loads = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        total = float(_sum(loads.reshape(-1)))
    if not total <= _MAX_TOTAL:
        refuse(f"the loads sum to more than {_MAX_TOTAL:g}")
    return LoadTable(name, loads, layer_ids)


def _parse(path: str, name: str, refuse: _Refuse) -> object:
    try:
        file = Path(path)
        if stat.S_ISDIR(file.stat().st_mode):
            refuse("this is a directory, expected a JSON file of loads")
        return read_value(file, name, "a JSON file of loads", _MAX_FILE_BYTES)
    except OSError as error:
        raise Refused(describe(error)) from None
    except ValueError as error:
        text = str(error)
        raise Refused(text if text.startswith(name) else f"{name}: {text}") from None


def _table(root: object, refuse: _Refuse) -> tuple[list[object], tuple[int, ...] | None]:
    """The table of a file, and the `layers` that stand beside it."""
    keys = ", ".join(f"`{key}`" for key in KEYS)
    if isinstance(root, list):
        return root, None
    if not isinstance(root, dict):
        refuse(f"the JSON is {kind(root)}, expected a table [layers][experts], or an object with one of {keys}")
    found = [key for key in KEYS if key in root]
    if len(found) != 1:
        which = " and ".join(f"`{key}`" for key in found) if found else "none"
        refuse(f"the object has {which} of {keys}, expected exactly one")
    table = root[found[0]]
    if not isinstance(table, list):
        refuse(f"`{found[0]}` is {kind(table)}, expected a table [layers][experts]")
    ids = root.get("layers")
    named = isinstance(ids, list) and len(ids) == len(table) and all(type(layer) is int for layer in ids)
    return table, tuple(ids) if named and isinstance(ids, list) else None


def _load(value: object, layer: int, expert: int, refuse: _Refuse) -> float:
    """A load as a float64. Integers above 2**53 are rounded to the nearest one."""
    where = f"layer {layer}, expert {expert}"
    if isinstance(value, list):
        refuse(f"{where} is an array, expected a number: the table has more than the two levels [layers][experts]")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(f"{where} is {kind(value)}, expected a number")
    try:
        load = float(value)
    except OverflowError:
        refuse(f"{where} is an integer of {len(str(abs(value)))} digits, expected at most {_MAX_TOTAL:g}")
    if not (math.isfinite(load) and load >= 0):
        refuse(f"{where} is `{json.dumps(value)}`, expected a finite number that is 0 or more")
    return load
