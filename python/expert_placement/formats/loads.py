"""Recorded loads of experts, as our traces, numpy and SGLang keep them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from expert_placement.formats.files import path_argument, read_existing
from expert_placement.formats.json_object import kind, parse, printable, shown
from expert_placement.formats.tables import first_repeated
from expert_placement.formats.tensors import is_binary, parse_tensors

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    _Refuse: TypeAlias = "Callable[[str], NoReturn]"

KEYS = ("counts", "counts_total", "expert_popularity", "logical_count")
"""Where an object holds the table, whoever wrote it."""

_EXPECTED = "a file of loads"
_MAX_TEXT_BYTES = 64 * 2**20
# The recorder of SGLang keeps 1000 passes of 61 layers of 256 experts in 62 MB.
_MAX_BINARY_BYTES = 2**30
# Far from the largest float64, so that no sum of a part of a table overflows whatever its order.
_MAX_TOTAL = 1e300
_AXES = ("window", "layer", "expert")


class RecordedLoads(NamedTuple):
    """Loads of experts, and what the file says of them."""

    loads: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    """`[L, E]`, or `[W, L, E]` for W windows; finite, at least 0; W and L at least 1."""
    layer_ids: tuple[int, ...] | None
    """Which layer of the model each row is, where the file has `layers`: ids of 0 or more, each of them once."""


def read_loads(path: str | os.PathLike[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Reads loads of experts from a file.

    The file is JSON, a `.npy` array, or a `.pt` of torch, told apart by its content. It holds the table itself, or an
    object with the table as `counts`, `counts_total`, `expert_popularity` or `logical_count`; SGLang's recorder writes
    the last, `[passes, L, E]`, and its modes `stat` and `stat_approx` fill up with passes of zeros. Every row and
    every window of the file is there in the result, those without any load too.

    Args:
        path: a regular file, or a link to one; at most 64 MiB of JSON, or 1 GiB of an array or tensor.

    Returns:
        `[L, E]`, or `[W, L, E]` where the table has three levels: int64 where all loads are integers in its range,
        else float64. Integers beyond it are rounded to the nearest float64.

    Raises:
        OSError: the file can not be read.
        ModuleNotFoundError: a `.pt` without torch.
        ValueError: the file is damaged, is not of this shape, or holds a value that is no load: it is negative, not
            finite or no number. The message names the file, and the window, the layer, the expert and the value.
    """
    return read_recorded_loads(path).loads


def read_recorded_loads(path: str | os.PathLike[str]) -> RecordedLoads:
    """Reads loads of experts with what the file says of them; arguments and errors are those of `read_loads`."""
    file = path_argument(path)
    name = f"`{printable(str(path))}`"

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{name}: {message}")

    content = read_existing(path, name, _EXPECTED, _MAX_BINARY_BYTES)
    if is_binary(content, file.suffix, name):
        root = parse_tensors(name, content)
    elif len(content) > _MAX_TEXT_BYTES:
        refuse(f"the file is larger than {_MAX_TEXT_BYTES} bytes, expected {_EXPECTED}")
    else:
        root = parse(name, content, _EXPECTED)
    table, ids = _table(root, refuse)
    loads = _from_lists(table, refuse) if isinstance(table, list) else _from_array(table, refuse)
    if not _total(loads) <= _MAX_TOTAL:
        refuse(f"the loads sum to more than {_MAX_TOTAL:g}")
    return RecordedLoads(loads, None if ids is None else _layer_ids(ids, loads.shape[-2], refuse))


def _layer_ids(ids: object, num_layers: int, refuse: _Refuse) -> tuple[int, ...]:
    """The layers of the model that the rows are of, each of them once."""
    if not isinstance(ids, list) or len(ids) != num_layers:
        found = f"an array of {len(ids)}" if isinstance(ids, list) else kind(ids)
        refuse(f"`layers` is {found}, expected an array with the layer of each of {num_layers} rows")
    for row, layer in enumerate(ids):
        if type(layer) is not int or layer < 0:
            refuse(f"`layers[{row}]` is {kind(layer)}, expected the id of a layer, an integer of 0 or more")
    repeated = first_repeated(ids)
    if repeated is not None:
        refuse(f"`layers[{repeated}]` is {shown(ids[repeated])}, which stands earlier too, expected each layer once")
    return tuple(ids)


def _table(root: object, refuse: _Refuse) -> tuple[list[Any] | npt.NDArray[Any], object]:
    """The table of a file, and the `layers` that stand beside it."""
    import numpy as np

    keys = ", ".join(f"`{key}`" for key in KEYS)
    if isinstance(root, (list, np.ndarray)):
        return root, None
    if not isinstance(root, dict):
        refuse(f"the JSON is {kind(root)}, expected a table [layers][experts], or an object with one of {keys}")
    found = [key for key in KEYS if key in root]
    if len(found) != 1:
        which = " and ".join(f"`{key}`" for key in found) if found else "none"
        refuse(f"the object has {which} of {keys}, expected exactly one")
    table = root[found[0]]
    if not isinstance(table, (list, np.ndarray)):
        refuse(f"`{found[0]}` is {kind(table)}, expected a table [layers][experts]")
    return table, root.get("layers")


def _total(loads: npt.NDArray[Any]) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        return float(loads.sum(dtype=np.float64))


def _from_array(table: npt.NDArray[Any], refuse: _Refuse) -> npt.NDArray[Any]:
    import numpy as np

    if table.dtype.kind not in "iuf":
        refuse(f"the array is of {table.dtype}, expected integers or floats")
    if table.ndim not in (2, 3):
        refuse(
            f"the array has {table.ndim} dimensions, expected 2, [layers, experts], or 3, [windows, layers, experts]"
        )
    for size, axis in zip(table.shape[:-1], _AXES[-table.ndim :], strict=False):
        if size == 0:
            refuse(f"there are no {axis}s, expected a table [layers][experts]")
    wrong = ~(np.isfinite(table) & (table >= 0))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        refuse(f"{_where(index)} is `{shown(table[index].item())}`, expected a finite number that is 0 or more")
    is_integer = table.dtype.kind != "f" and (table.dtype != np.uint64 or not table.size or table.max() < 2**63)
    return np.ascontiguousarray(table, dtype=np.int64 if is_integer else np.float64)


def _from_lists(table: list[Any], refuse: _Refuse) -> npt.NDArray[Any]:
    """The array of nested lists, each as long as the first of its level."""
    import numpy as np

    first = table[0] if table else None
    num_levels = 3 if isinstance(first, list) and first and isinstance(first[0], list) else 2
    shape, rows = _rows(table, (), num_levels, refuse)
    flat = [value for row in rows for value in row]
    try:
        array = np.array(flat, dtype=np.int64 if all(type(value) is int for value in flat) else np.float64)
    except OverflowError:
        array = np.array(flat, dtype=np.float64)
    return array.reshape(shape)


def _rows(
    table: Sequence[object], at: tuple[int, ...], num_levels: int, refuse: _Refuse
) -> tuple[tuple[int, ...], list[list[Any]]]:
    """The shape of a table, and its rows of loads in order."""
    axis = _AXES[-num_levels:][len(at)]
    if len(at) == num_levels - 1:
        return (len(table),), [_checked_row(table, at, num_levels, refuse)]
    if not table:
        refuse(f"{_inside(at)}there are no {axis}s, expected a table [layers][experts]")
    inner = _AXES[-num_levels:][len(at) + 1]
    shape: tuple[int, ...] = ()
    rows: list[list[Any]] = []
    for index, part in enumerate(table):
        here = (*at, index)
        if not isinstance(part, list):
            holds = "a load for each expert" if inner == "expert" else "a row for each layer"
            refuse(f"{_where(here, num_levels)} is {kind(part)}, expected an array with {holds}")
        if index and len(part) != shape[0]:
            alike = _where((*at, 0), num_levels)
            refuse(f"{_where(here, num_levels)} has {len(part)} {inner}s, expected {shape[0]}, as {alike} has")
        shape_of_part, rows_of_part = _rows(part, here, num_levels, refuse)
        if index and shape_of_part != shape:
            # Deeper rows differ, and each window alone is even.
            alike = _where((*at, 0), num_levels)
            refuse(f"{_where(here, num_levels)} has {shape_of_part[-1]} experts, expected {shape[-1]}, as {alike} has")
        shape = shape_of_part
        rows += rows_of_part
    return (len(table), *shape), rows


def _checked_row(row: Sequence[object], at: tuple[int, ...], num_levels: int, refuse: _Refuse) -> list[Any]:
    for expert, value in enumerate(row):
        # A bool is no load, and neither is NaN, which no comparison holds for.
        if not (type(value) in (int, float) and 0 <= value <= sys.float_info.max):  # type: ignore[operator]
            refuse(f"{_where((*at, expert), num_levels)} is {_fault(value, num_levels)}")
    return list(row)


def _fault(value: object, num_levels: int) -> str:
    """What is wrong with a value that is no load."""
    if isinstance(value, list):
        levels = "two levels [layers][experts]" if num_levels == 2 else "three levels [windows][layers][experts]"
        return f"an array, expected a number: the table has more than the {levels}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{kind(value)}, expected a number"
    if isinstance(value, int) and value > 0:
        return f"an integer of {len(str(value))} digits, expected at most {_MAX_TOTAL:g}"
    return f"`{shown(value)}`, expected a finite number that is 0 or more"


def _where(index: tuple[int, ...], num_levels: int | None = None) -> str:
    axes = _AXES[-(num_levels or len(index)) :]
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=False))


def _inside(at: tuple[int, ...]) -> str:
    return f"in window {at[0]} " if at else ""
