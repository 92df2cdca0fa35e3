"""The tables of DeepSeek's EPLB: `phy2log`, `log2phy` and `logcnt`, as `rebalance_experts` gives them back.

EPLB itself reads and writes no file (`deepseek-ai/EPLB`, `eplb.py`), so that there is no layout to be true to but the
tables' own: int64 `phy2log` `[layers, slots]`, `log2phy` `[layers, experts, most replicas]` with -1 behind the last
replica, and `logcnt` `[layers, experts]`. What people save of them is read: a `.pt` of the triple or of a dict by these
names, JSON of an object by these names, and `phy2log` alone, as `.npy`, `.pt` or the object. EPLB lists the replicas in
`log2phy` in the order of their making and everybody else in the order of slots, so that the order is read as free, and
written by slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement.formats.contents import Contents
from expert_placement.formats.files import path_argument, write_bytes
from expert_placement.formats.json_object import kind, printable, shown
from expert_placement.formats.tables import (
    expect_experts,
    full_table,
    json_rows,
    placement_of,
    rows_of,
    uniform,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import SupportsIndex

    from expert_placement._core import Topology
    from expert_placement.placement import Placement

KEY = "phy2log"
_KEYS = (KEY, "log2phy", "logcnt")
_EXPECTED = f"`{KEY}`, alone or with `log2phy` and `logcnt`"


def read(
    path: str | os.PathLike[str], num_experts: SupportsIndex | None = None, topology: Topology | None = None
) -> Placement:
    """Reads a placement.

    Args:
        path: a `.pt`, `.npy` or JSON file, told apart by the content.
        num_experts: number of logical experts, E. Without it `logcnt` or `log2phy` says it, or else the largest id, so
            that a `phy2log` without the experts of the highest ids is taken for one of a smaller model.
        topology: the ranks, which the tables do not say; each has equally many slots.

    Raises:
        OSError: the file cannot be read.
        ModuleNotFoundError: a `.pt` without torch.
        ValueError: a file that is damaged or holds other tables, an entry that is no expert, an expert that a layer
            leaves out, tables that contradict each other, no topology, or one that the slots do not divide by. The
            message names the file, the table and the position.
    """
    return parse(Contents.of(path), num_experts, topology)


def parse(contents: Contents, num_experts: SupportsIndex | None, topology: Topology | None) -> Placement:
    """The placement of a file; arguments and errors are those of `read`."""
    name = contents.name
    tables = _tables(name, contents.value(_EXPECTED))
    rows = rows_of(name, KEY, tables[KEY])
    counts = rows_of(name, "logcnt", tables["logcnt"], ("layer", "expert")) if "logcnt" in tables else None
    replicas = _replicas(name, tables["log2phy"]) if "log2phy" in tables else None
    stated = counts or replicas
    if num_experts is None and stated is not None:
        num_experts = len(stated[0])
    experts = expect_experts(name, [f"{KEY}[{layer}]" for layer in range(len(rows))], rows, num_experts)
    slots = [_slots_of(row, experts) for row in rows]
    if counts is not None:
        _expect_counts(name, counts, slots)
    if replicas is not None:
        _expect_replicas(name, replicas, slots)
    return placement_of(name, KEY, rows, experts, uniform(name, "EPLB's table", len(rows[0]), topology))


def _tables(name: str, root: object) -> dict[str, Any]:
    """The tables of a file by their names; those that are there hold nothing that is not yet checked."""
    import numpy as np

    if isinstance(root, np.ndarray):
        return {KEY: root}
    if isinstance(root, list) and len(root) == len(_KEYS) and all(isinstance(t, np.ndarray) for t in root):
        return dict(zip(_KEYS, root, strict=True))
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the content is {kind(root)}, expected {_EXPECTED}")
    if KEY not in root:
        raise ValueError(f"{name}: `{KEY}` is missing, expected {_EXPECTED}")
    for key in root:
        if key not in _KEYS:
            raise ValueError(f"{name}: `{printable(str(key))}` is unknown, expected one of {', '.join(_KEYS)}")
    return root


def _slots_of(row: Sequence[int], num_experts: int) -> list[list[int]]:
    slots: list[list[int]] = [[] for _ in range(num_experts)]
    for slot, expert in enumerate(row):
        slots[expert].append(slot)
    return slots


def _replicas(name: str, value: object) -> list[list[list[int]]]:
    """`log2phy` as lists: [layers][experts][replicas]."""
    import numpy as np

    layers = list(value) if isinstance(value, np.ndarray) and value.ndim == 3 else value
    if not isinstance(layers, list) or not layers:
        raise ValueError(f"{name}: `log2phy` is {kind(value)}, expected [layers][experts][replicas]")
    return [rows_of(name, f"log2phy[{layer}]", table, ("expert", "replica")) for layer, table in enumerate(layers)]


def _expect_counts(name: str, counts: Sequence[Sequence[int]], slots: Sequence[Sequence[Sequence[int]]]) -> None:
    _expect_shape(name, "logcnt", counts, slots)
    for layer, row in enumerate(counts):
        for expert, count in enumerate(row):
            there = len(slots[layer][expert])
            if count != there:
                where = f"logcnt[{layer}][{expert}]"
                raise ValueError(f"{name}: `{where}` is `{shown(count)}`, but `{KEY}` has the expert in {there} slots")


def _expect_replicas(
    name: str, replicas: Sequence[Sequence[Sequence[int]]], slots: Sequence[Sequence[Sequence[int]]]
) -> None:
    _expect_shape(name, "log2phy", replicas, slots)
    for layer, table in enumerate(replicas):
        for expert, row in enumerate(table):
            there = slots[layer][expert]
            if sorted(row[: len(there)]) != there or set(row[len(there) :]) - {-1}:
                where = f"log2phy[{layer}][{expert}]"
                found = ", ".join(map(str, there[:8])) + (", .." if len(there) > 8 else "")
                raise ValueError(f"{name}: `{where}` contradicts `{KEY}`, which has the expert in the slots {found}")


def _expect_shape(name: str, field: str, found: Sequence[Sequence[object]], slots: Sequence[Sequence[object]]) -> None:
    if len(found) != len(slots):
        raise ValueError(f"{name}: `{field}` has {len(found)} layers, but `{KEY}` has {len(slots)}")
    for layer, table in enumerate(found):
        if len(table) != len(slots[layer]):
            raise ValueError(f"{name}: `{field}[{layer}]` has {len(table)} experts, expected {len(slots[layer])}")


def write(placement: Placement, path: str | os.PathLike[str]) -> None:
    """Writes the three tables, or into a `.npy` `phy2log` alone; the file appears whole or not at all.

    Args:
        placement: equally many slots on each rank, none empty.
        path: the file: `.pt` for a dict of int64 tensors, `.npy` for int64 `phy2log`, `.json` for an object.

    Raises:
        OSError: the file cannot be written.
        ValueError: empty slots, ranks with different numbers of slots, or another suffix.
        ImportError: torch is not installed.
    """
    import numpy as np

    from expert_placement.formats.tensors import as_npy, as_pt

    suffix = path_argument(path).suffix
    phy2log = full_table(placement, "EPLB")
    if suffix == ".npy":
        write_bytes(path, as_npy(phy2log.astype(np.int64)))
        return
    every = (phy2log, placement.logical_to_physical().numpy(), placement.replica_counts().numpy())
    if suffix == ".pt":
        write_bytes(path, as_pt({key: table.astype(np.int64) for key, table in zip(_KEYS, every, strict=True)}))
    elif suffix == ".json":
        fields = (f' "{key}": {json_rows(table.tolist())}' for key, table in zip(_KEYS, every, strict=True))
        write_bytes(path, ("{\n" + ",\n".join(fields) + "\n}\n").encode())
    else:
        raise ValueError(f"`{printable(str(path))}`: EPLB's tables are written as `.pt`, `.npy` or `.json`")
