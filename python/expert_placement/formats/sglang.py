"""SGLang's file of `--init-expert-location`: a `physical_to_logical_map` as `.json` or `.pt`.

As SGLang 0.5.23 reads it (`srt/eplb/expert_location.py`): the name must end in `.json` or `.pt`, and the file holds an
object with this key alone, `[layers][slots]`. There is a row for each hidden layer of the model, the row of a dense
layer being unused; rank r of R holds the r-th of R equal parts of the slots. How many ranks and experts there are it
takes from elsewhere, and it checks no entry: an id of -1 would be the last expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement._text import digits
from expert_placement.formats.contents import Contents, Layers
from expert_placement.formats.files import path_argument, write_bytes
from expert_placement.formats.json_object import kind, printable
from expert_placement.formats.tables import (
    MOST_ENTRIES,
    MOST_LAYERS,
    expect_experts,
    expect_layer_ids,
    full_table,
    integer_argument,
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

KEY = "physical_to_logical_map"
_EXPECTED = f"an object with the one key `{KEY}`"


def read(
    path: str | os.PathLike[str],
    num_experts: SupportsIndex | None = None,
    topology: Topology | None = None,
    *,
    layer_ids: Sequence[int] | None = None,
) -> Placement:
    """Reads a placement.

    Args:
        path: a `.json` or a `.pt`, told apart by the content.
        num_experts: number of logical experts, E. Without it the largest id says it, so that a file without the
            experts of the highest ids is taken for one of a smaller model.
        topology: the ranks, which the file does not say; each has equally many slots.
        layer_ids: the rows to take, ascending: the layers of the model that have experts. All of them without it; the
            row of a dense layer must then hold every expert too, as those that are written here do.

    Raises:
        OSError: the file cannot be read.
        ModuleNotFoundError: a `.pt` without torch.
        ValueError: a file that is damaged or not SGLang's, an entry that is no expert, an expert that a row leaves
            out, no topology, one that the slots do not divide by, or a layer that the file does not have. The message
            names the file, the field and the position.
    """
    return parse(Contents.of(path), num_experts, topology, layer_ids).placement


def parse(
    contents: Contents,
    num_experts: SupportsIndex | None,
    topology: Topology | None,
    layer_ids: Sequence[int] | None,
) -> Layers:
    """The placement of a file, and the rows that it stood in; arguments and errors are those of `read`."""
    name, root = contents.name, contents.value(_EXPECTED)
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the content is {kind(root)}, expected {_EXPECTED}")
    if KEY not in root:
        raise ValueError(f"{name}: `{KEY}` is missing, expected {_EXPECTED}")
    for key in root:
        if key != KEY:
            raise ValueError(f"{name}: `{printable(str(key))}` is unknown, SGLang reads {_EXPECTED}")
    rows = rows_of(name, KEY, root[KEY])
    ids = tuple(range(len(rows))) if layer_ids is None else expect_layer_ids(layer_ids)
    if ids[-1] >= len(rows):
        raise ValueError(f"{name}: `{KEY}` has {len(rows)} rows, and none for layer {digits(ids[-1])} of layer_ids")
    fields = [f"{KEY}[{layer}]" for layer in ids]
    chosen = [rows[layer] for layer in ids]
    hint = "" if layer_ids is not None else "; layer ids leave the rows of dense layers out"
    found = expect_experts(name, fields, chosen, num_experts, hint=hint)
    ranks = uniform(name, "SGLang's file", len(rows[0]), topology)
    return Layers(placement_of(name, KEY, chosen, found, ranks), ids)


def write(
    placement: Placement,
    path: str | os.PathLike[str],
    *,
    layer_ids: Sequence[int] | None = None,
    num_hidden_layers: SupportsIndex | None = None,
) -> None:
    """Writes a placement; the file appears whole or not at all.

    Args:
        placement: equally many slots on each rank, none empty.
        path: the file, whose name ends in `.json` or `.pt`: SGLang takes any other name for the JSON itself.
        layer_ids: which layer of the model each layer of the placement is, ascending; 0, 1, 2, .. without it.
        num_hidden_layers: how many layers the model has, dense ones included; up to the last of `layer_ids` without
            it. A layer that is not among `layer_ids` gets the row that SGLang starts with, slot s holding expert s % E.

    Raises:
        OSError: the file cannot be written.
        ValueError: empty slots, ranks with different numbers of slots, `layer_ids` that do not fit the placement or
            the model, more than 2**20 layers or 2**26 entries in all, or another suffix.
        ImportError: torch is not installed.
    """
    import numpy as np

    suffix = path_argument(path).suffix
    if suffix not in (".json", ".pt"):
        raise ValueError(f"`{printable(str(path))}`: SGLang reads files whose name ends in `.json` or `.pt`")
    table = full_table(placement, "SGLang")
    ids = range(len(table)) if layer_ids is None else expect_layer_ids(layer_ids, len(table))
    least, most = ids[-1] + 1, min(MOST_LAYERS, MOST_ENTRIES // table.shape[1])
    if least > most:
        raise ValueError(
            f"layer_ids[{len(ids) - 1}]={digits(ids[-1])} is out of range, expected less than {most} for layers of "
            f"{table.shape[1]} slots"
        )
    num_rows = least if num_hidden_layers is None else integer_argument("num_hidden_layers", num_hidden_layers, None)
    if not least <= num_rows <= most:
        raise ValueError(
            f"num_hidden_layers={digits(num_rows)} is out of range, expected {least}..={most} for layer {ids[-1]} and "
            f"layers of {table.shape[1]} slots"
        )
    dense = np.arange(table.shape[1]) % placement.num_experts
    if suffix == ".pt":
        from expert_placement.formats.tensors import as_pt

        whole = np.empty((num_rows, table.shape[1]), dtype=np.int64)
        whole[:] = dense
        whole[list(ids)] = table
        write_bytes(path, as_pt({KEY: whole}))
    else:
        # Most rows of a large table are one row, which is made once.
        rows = [dense.tolist()] * num_rows
        for layer, row in zip(ids, table.tolist(), strict=True):
            rows[layer] = row
        write_bytes(path, f'{{"{KEY}": {json_rows(rows)}}}\n'.encode())
