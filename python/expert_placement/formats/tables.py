"""Tables of experts in slots: read strictly from files, and taken from placements for engines that hold less."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any

from expert_placement._arguments import items_argument
from expert_placement._text import digits
from expert_placement.formats.json_object import kind, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import SupportsIndex

    import numpy as np
    import numpy.typing as npt

    from expert_placement._core import Topology
    from expert_placement.placement import Placement

# A table that little stands for, as aliases of YAML or the id of a layer, is no larger than this.
MOST_ENTRIES = 2**26
MOST_LAYERS = 2**20


def integer(name: str, field: str, value: object) -> int:
    """A value that must be an integer.

    Raises:
        ValueError: it is anything else, a bool or a float of an integer's value included.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: `{field}` is {kind(value)}, expected an integer")
    return value


def integer_argument(parameter: str, value: object, least: int | None = 0) -> int:
    """An argument that must be an integer.

    Raises:
        TypeError: it is none; a bool is none either.
        ValueError: it is below `least`, where that is given.
    """
    if not isinstance(value, bool) and str(getattr(value, "dtype", "")) not in ("bool", "torch.bool"):
        number: Any = value
        try:
            found = operator.index(number)
        except TypeError:
            pass
        except RuntimeError:
            # So a tensor says that it has no values; of others it is their own matter.
            if not hasattr(number, "detach"):
                raise
        else:
            if least is not None and found < least:
                raise ValueError(f"{parameter}={digits(found)} is out of range, expected {least} or more")
            return found
    raise TypeError(f"{parameter} must be an int, got `{type(value).__name__}`")


def rows_of(name: str, field: str, value: object, axes: tuple[str, str] = ("layer", "slot")) -> list[list[int]]:
    """The rows of a table: equally long arrays of integers, at least one.

    Args:
        name: what messages call the file.
        field: what messages call the table.
        value: nested lists, or a numpy array of integers.
        axes: what a row is for, and an entry.

    Raises:
        ValueError: a value of another shape or type; the message names the position.
    """
    import numpy as np

    outer, inner = axes
    if isinstance(value, np.ndarray):
        if value.ndim != 2 or value.dtype.kind not in "iu":
            found = f"{value.dtype} of shape {value.shape}"
            raise ValueError(f"{name}: `{field}` is {found}, expected integers of shape [{outer}s, {inner}s]")
        value = value.tolist()
    if not isinstance(value, list) or not value:
        what = "an empty array" if isinstance(value, list) else kind(value)
        raise ValueError(f"{name}: `{field}` is {what}, expected an array with a row for each {outer}")
    for index, row in enumerate(value):
        expect_row(name, f"{field}[{index}]", row, inner)
        if len(row) != len(value[0]):
            raise ValueError(
                f"{name}: `{field}[{index}]` has {len(row)} {inner}s, expected {len(value[0])} as the first"
            )
    return value


def expect_row(name: str, field: str, row: object, axis: str = "slot") -> list[int]:
    """A row of a table: an array of integers, one for each slot, or along another axis."""
    if not isinstance(row, list):
        raise ValueError(f"{name}: `{field}` is {kind(row)}, expected an array with an integer for each {axis}")
    if not set(map(type, row)) <= {int}:
        index = next(index for index, entry in enumerate(row) if type(entry) is not int)
        raise ValueError(f"{name}: `{field}[{index}]` is {kind(row[index])}, expected an integer")
    return row


def expect_experts(
    name: str,
    fields: Sequence[str],
    rows: Sequence[Sequence[int]],
    num_experts: SupportsIndex | None,
    *,
    entry: Callable[[int, int], str] | None = None,
    hint: str = "",
) -> int:
    """Checks that each row has every expert and nothing else.

    Args:
        name: what messages call the file.
        fields: what messages call each row.
        rows: experts of slots.
        num_experts: E; without it the largest entry says it.
        entry: what messages call a slot of a row; an index into the row's field without it.
        hint: what may be done, behind what is wrong with a row.

    Returns:
        E.

    Raises:
        ValueError: an entry that is no expert, or an expert that a row leaves out.
    """
    most = max((max(row, default=-1) for row in rows), default=-1) + 1
    if num_experts is not None:
        most = integer_argument("num_experts", num_experts)
    every = set(range(most)) if most <= max(map(len, rows), default=0) else None
    for index, (field, row) in enumerate(zip(fields, rows, strict=True)):
        if every is not None and set(row) == every:
            continue
        for slot, expert in enumerate(row):
            if not 0 <= expert < most:
                where = f"{field}[{slot}]" if entry is None else entry(index, slot)
                raise ValueError(f"{name}: `{where}` is `{shown(expert)}`, expected an expert in 0..{most}{hint}")
        there = set(row)
        missing = next((expert for expert in range(most) if expert not in there), None)
        if missing is not None:
            raise ValueError(f"{name}: `{field}` leaves expert {missing} out, of {most} in {len(row)} slots{hint}")
    return most


def first_repeated(values: Sequence[int]) -> int | None:
    """The position of the first value that stands earlier too, or None."""
    seen: set[int] = set()
    for position, value in enumerate(values):
        if value in seen:
            return position
        seen.add(value)
    return None


def uniform(name: str, engine: str, num_slots: int, topology: Topology | None) -> Topology:
    """The topology of a file that gives every rank equally many slots and does not say how many ranks there are.

    Raises:
        ValueError: no topology, or one whose ranks do not have equally many slots of all.
    """
    if topology is None:
        raise ValueError(f"{name}: {engine} does not say how many ranks there are, expected a topology")
    expect_slots(name, engine, num_slots, topology)
    return topology


def expect_slots(name: str, engine: str, num_slots: int, topology: Topology) -> None:
    """Checks that a topology gives each rank the same number of the slots of a file.

    Raises:
        ValueError: it does not.
    """
    if not num_slots:
        raise ValueError(f"{name}: there are no slots, expected at least one")
    per_rank, rest = divmod(num_slots, topology.num_ranks)
    if rest:
        raise ValueError(
            f"{name}: {num_slots} slots do not divide by num_ranks={topology.num_ranks}, and {engine} gives every rank "
            "equally many"
        )
    asked = topology.slots_per_rank
    if asked is not None and set(asked if isinstance(asked, tuple) else [asked]) != {per_rank}:
        raise ValueError(
            f"{name}: topology has slots_per_rank={shown(asked)}, and {engine} gives every rank {per_rank} of the "
            f"{num_slots} slots"
        )


def placement_of(
    name: str, field: str, rows: Sequence[Sequence[int]], num_experts: int, topology: Topology
) -> Placement:
    """The placement of a table that was read.

    Raises:
        ValueError: the table holds what a placement on these ranks cannot.
    """
    import numpy as np

    from expert_placement.placement import Placement

    try:
        table = np.array(rows, dtype=np.int64)
        return Placement.from_physical_to_logical(table, num_experts=num_experts, topology=topology)
    except ValueError as error:
        raise ValueError(f"{name}: `{field}`: {error}") from None


def full_table(placement: Placement, engine: str) -> npt.NDArray[np.int32]:
    """The table of a placement, int32[L, P], for an engine with equally many slots on each rank and none empty.

    Raises:
        ValueError: the placement has what the engine has no way to say; the message names the place.
        ImportError: torch is not installed.
    """
    import numpy as np

    slots = np.diff(placement.slot_offsets().numpy())
    uneven = np.flatnonzero(slots != slots[0])
    if uneven.size:
        rank = int(uneven[0])
        raise ValueError(
            f"rank {rank} has {slots[rank]} slots and rank 0 has {slots[0]}, and {engine} gives every rank equally many"
        )
    table: npt.NDArray[np.int32] = placement.physical_to_logical().numpy()
    if not table.size:
        raise ValueError(f"the placement has no slots, expected at least one for {engine}")
    empty = np.argwhere(table < 0)
    if empty.size:
        layer, slot = map(int, empty[0])
        raise ValueError(f"slot {slot} of layer {layer} is empty, and {engine} has no empty slots")
    return table


def expect_layer_ids(layer_ids: Sequence[int], num_layers: int | None = None) -> tuple[int, ...]:
    """Which layer of the model each row of a placement is.

    Args:
        layer_ids: ascending, from 0.
        num_layers: L, where it is known.

    Raises:
        ValueError: they do not ascend, one is negative, or there are none or not `num_layers` of them.
        TypeError: one is no integer.
    """
    # No model has as many, and a range may have more than memory has room for.
    given = items_argument("layer_ids", layer_ids, "a sequence of ints", MOST_LAYERS, "layers")
    ids = tuple(integer_argument("layer_ids", layer, None) for layer in given)
    for index, (before, layer) in enumerate(zip((-1, *ids), ids, strict=False)):
        if layer <= before:
            expected = f"more than the {digits(before)} before it" if index else "0 or more"
            raise ValueError(f"layer_ids[{index}]={digits(layer)} is out of range, expected {expected}")
    if not ids:
        raise ValueError("layer_ids is empty, expected at least one layer")
    if num_layers is not None and len(ids) != num_layers:
        raise ValueError(f"layer_ids has {len(ids)} layers, expected {num_layers} as the placement has")
    return ids


def json_rows(rows: Sequence[object]) -> str:
    """A table as JSON with a line for each row."""
    said: dict[int, str] = {}
    for row in rows:
        # A row that is there many times is written many times, and made once.
        if id(row) not in said:
            said[id(row)] = f"  {json.dumps(row)}"
    inside = ",\n".join(said[id(row)] for row in rows)
    return f"[\n{inside}\n ]"
