"""vllm-ascend's expert map, the JSON of `expert_map_path`: the experts of each device, layer by layer.

As vllm-ascend reads and writes it (`eplb/core/eplb_utils.py`, `ops/expert_load_balancer.py`; one dialect from 0.9 on):

    {"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": [
        {"device_id": 0, "device_expert": [0, 1, 2]}, {"device_id": 1, "device_expert": [3, 2, 0]}]}]}

Layers are the layers with experts, counted from 0, and so are devices; the engine goes by their order and ignores
`layer_id`, `device_id` and keys that it does not know. Every device has equally many experts, and none twice: of two
slots with one expert on a device it would use the last alone. The number of experts it takes from elsewhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from expert_placement import Topology
from expert_placement.formats.contents import Contents
from expert_placement.formats.files import write_bytes
from expert_placement.formats.json_object import kind, shown
from expert_placement.formats.tables import (
    expect_experts,
    expect_row,
    expect_slots,
    first_repeated,
    full_table,
    integer,
    placement_of,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import SupportsIndex

    from expert_placement.placement import Placement

COUNT = "moe_layer_count"
LAYERS = "layer_list"
_ONE_SLOT = "vllm-ascend uses one slot of an expert on a device"
_EXPECTED = f"an object with `{COUNT}` and `{LAYERS}`"


def read(
    path: str | os.PathLike[str], num_experts: SupportsIndex | None = None, topology: Topology | None = None
) -> Placement:
    """Reads a placement.

    Args:
        path: the JSON file.
        num_experts: number of logical experts, E. Without it the largest id says it, so that a file without the
            experts of the highest ids is taken for one of a smaller model.
        topology: the ranks, one for each device of the file; that many ranks on one node without it.

    Raises:
        OSError: the file cannot be read.
        ValueError: a file that is damaged or not vllm-ascend's, an entry that is no expert, an expert that a layer
            leaves out or that a device has twice, devices with different numbers of slots, ids that contradict the
            order, or another number of ranks. The message names the file, the field and the position.
    """
    return parse(Contents.of(path), num_experts, topology)


def parse(contents: Contents, num_experts: SupportsIndex | None, topology: Topology | None) -> Placement:
    """The placement of a file; arguments and errors are those of `read`."""
    name, root = contents.name, contents.json(_EXPECTED)
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the JSON is {kind(root)}, expected {_EXPECTED}")
    layers = _objects(name, "", root, LAYERS)
    count = integer(name, COUNT, _field(name, "", root, COUNT))
    if count != len(layers):
        raise ValueError(f"{name}: `{COUNT}` is `{count}`, but `{LAYERS}` has {len(layers)} layers")
    devices = [_devices(name, index, layer) for index, layer in enumerate(layers)]
    num_ranks, per_rank = len(devices[0]), len(devices[0][0])
    for layer, held in enumerate(devices):
        if len(held) != num_ranks:
            raise ValueError(
                f"{name}: `{_list_of(layer)}` has {len(held)} devices, expected {num_ranks} as layer 0 has"
            )
        for rank, experts in enumerate(held):
            _expect_on_one_device(name, f"{_list_of(layer)}[{rank}].device_expert", experts, per_rank)
    rows = [[expert for experts in held for expert in experts] for held in devices]
    fields = [_list_of(layer) for layer in range(len(rows))]

    def entry(layer: int, slot: int) -> str:
        rank, local = divmod(slot, per_rank)
        return f"{_list_of(layer)}[{rank}].device_expert[{local}]"

    found = expect_experts(name, fields, rows, num_experts, entry=entry)
    if topology is None:
        topology = Topology(num_ranks)
    if topology.num_ranks != num_ranks:
        raise ValueError(f"{name}: topology has num_ranks={topology.num_ranks}, and the file {num_ranks} devices")
    expect_slots(name, "vllm-ascend", len(rows[0]), topology)
    return placement_of(name, LAYERS, rows, found, topology)


def _list_of(layer: int) -> str:
    return f"{LAYERS}[{layer}].device_list"


def _field(name: str, path: str, found: Mapping[str, object], key: str) -> object:
    if key not in found:
        raise ValueError(f"{name}: `{path}{key}` is missing")
    return found[key]


def _objects(name: str, path: str, found: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = _field(name, path, found, key)
    if not isinstance(value, list) or not value:
        what = "an empty array" if value == [] else kind(value)
        raise ValueError(f"{name}: `{path}{key}` is {what}, expected an array of objects")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise ValueError(f"{name}: `{path}{key}[{index}]` is {kind(entry)}, expected an object")
    return value


def _devices(name: str, index: int, layer: Mapping[str, object]) -> list[list[int]]:
    """The experts of each device of a layer."""
    path = f"{LAYERS}[{index}]."
    devices = _objects(name, path, layer, "device_list")
    _expect_if_there(name, path, layer, "layer_id", index, "its position, which vllm-ascend goes by")
    _expect_if_there(name, path, layer, "device_count", len(devices), "the length of its `device_list`")
    held = []
    for rank, device in enumerate(devices):
        inner = f"{path}device_list[{rank}]."
        _expect_if_there(name, inner, device, "device_id", rank, "its position, which vllm-ascend goes by")
        held.append(expect_row(name, f"{inner}device_expert", _field(name, inner, device, "device_expert")))
    return held


def _expect_if_there(name: str, path: str, found: Mapping[str, object], key: str, expected: int, meaning: str) -> None:
    if key in found and integer(name, f"{path}{key}", found[key]) != expected:
        raise ValueError(f"{name}: `{path}{key}` is `{shown(found[key])}`, expected {expected}, {meaning}")


def _expect_on_one_device(name: str, field: str, experts: Sequence[int], per_rank: int) -> None:
    if len(experts) != per_rank:
        reason = "vllm-ascend gives every device equally many"
        raise ValueError(f"{name}: `{field}` has {len(experts)} slots, expected {per_rank} as the first has: {reason}")
    slot = first_repeated(experts)
    if slot is not None:
        raise ValueError(f"{name}: `{field}[{slot}]` is expert {shown(experts[slot])} a second time, and {_ONE_SLOT}")


def write(placement: Placement, path: str | os.PathLike[str]) -> None:
    """Writes a placement; the file appears whole or not at all.

    Layer i of the placement is the i-th layer with experts of the model.

    Args:
        placement: equally many slots on each rank, none empty, and no expert twice on a rank.
        path: the JSON file.

    Raises:
        OSError: the file cannot be written.
        ValueError: empty slots, ranks with different numbers of slots, or two replicas of an expert on a rank.
        ImportError: torch is not installed.
    """
    table = full_table(placement, "vllm-ascend").reshape(placement.num_layers, placement.num_ranks, -1).tolist()
    for layer, held in enumerate(table):
        for rank, experts in enumerate(held):
            slot = first_repeated(experts)
            if slot is not None:
                raise ValueError(f"layer {layer} has expert {experts[slot]} twice on rank {rank}, and {_ONE_SLOT}")
    layers = [
        {
            "layer_id": layer,
            "device_count": len(held),
            "device_list": [{"device_id": rank, "device_expert": experts} for rank, experts in enumerate(held)],
        }
        for layer, held in enumerate(table)
    ]
    write_bytes(path, f"{json.dumps({COUNT: len(layers), LAYERS: layers}, indent=1)}\n".encode())
