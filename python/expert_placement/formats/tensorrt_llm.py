"""TensorRT-LLM's file of `moe_config.load_balancer`: the experts of all slots of each layer, as YAML.

As `MoeLoadBalancerConfig` reads it (`tensorrt_llm/llmapi/llm_args.py`) and `generate_eplb_config.py` writes it:

    initial_global_assignments:
      3: [0, 1, 2, 3, 0, 1]
    layer_updates_per_iter: 0
    num_slots: 6

Keys are the model's layers, those with experts alone. Rank r of R holds the r-th of R equal parts of the slots. How
many ranks and experts there are it takes from elsewhere; it refuses other keys, an id that is no expert, and an expert
that a layer leaves out. Reading needs PyYAML, writing does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement._text import digits
from expert_placement.formats.contents import Contents, Layers
from expert_placement.formats.files import write_bytes
from expert_placement.formats.json_object import kind, printable, shown
from expert_placement.formats.tables import (
    MOST_ENTRIES,
    expect_experts,
    expect_layer_ids,
    expect_row,
    full_table,
    integer,
    integer_argument,
    placement_of,
    uniform,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import SupportsIndex

    from expert_placement._core import Topology
    from expert_placement.placement import Placement

KEY = "initial_global_assignments"
_KEYS = ("num_slots", KEY, "layer_updates_per_iter")
_EXPECTED = f"a mapping with `num_slots` and `{KEY}`"
# Reading YAML takes a minute for this much. 58 layers of 288 slots are 83 kB.
_MOST_BYTES = 2**24


def read(
    path: str | os.PathLike[str],
    num_experts: SupportsIndex | None = None,
    topology: Topology | None = None,
    *,
    layer_ids: Sequence[int] | None = None,
) -> Placement:
    """Reads a placement, its layers in the order of their ids.

    Args:
        path: the YAML file, at most 16 MiB.
        num_experts: number of logical experts, E. Without it the largest id says it, so that a file without the
            experts of the highest ids is taken for one of a smaller model.
        topology: the ranks, which the file does not say; each has equally many slots.
        layer_ids: the layers of the model to take, ascending; all of the file without it.

    Raises:
        OSError: the file cannot be read.
        ModuleNotFoundError: PyYAML is not installed.
        ValueError: a file that is damaged or not TensorRT-LLM's, an entry that is no expert, an expert that a layer
            leaves out, no topology, one that the slots do not divide by, or a layer that the file does not have. The
            message names the file, the field and the position.
    """
    return parse(Contents.of(path), num_experts, topology, layer_ids).placement


def parse(
    contents: Contents,
    num_experts: SupportsIndex | None,
    topology: Topology | None,
    layer_ids: Sequence[int] | None,
) -> Layers:
    """The placement of a file, and the layers of the model; arguments and errors are those of `read`."""
    name, root = contents.name, _parse_yaml(contents)
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the YAML is {kind(root)}, expected {_EXPECTED}")
    for key in root:
        if key not in _KEYS:
            raise ValueError(f"{name}: `{printable(str(key))}` is unknown, expected one of {', '.join(_KEYS)}")
    if root.get(KEY) is None:
        raise ValueError(f"{name}: `{KEY}` is missing: the file leaves the placement to TensorRT-LLM")
    if "num_slots" not in root:
        raise ValueError(f"{name}: `num_slots` is missing")
    num_slots = integer(name, "num_slots", root["num_slots"])
    updates = integer(name, "layer_updates_per_iter", root.get("layer_updates_per_iter", 0))
    if updates < 0:
        raise ValueError(f"{name}: `layer_updates_per_iter` is `{shown(updates)}`, expected an integer of 0 or more")
    found = _assignments(name, root[KEY], num_slots)
    ids = tuple(found) if layer_ids is None else expect_layer_ids(layer_ids)
    for layer in ids:
        if layer not in found:
            raise ValueError(f"{name}: `{KEY}` has no layer {digits(layer)}, which layer_ids asks for")
    rows = [found[layer] for layer in ids]
    experts = expect_experts(name, [f"{KEY}[{layer}]" for layer in ids], rows, num_experts)
    ranks = uniform(name, "TensorRT-LLM's file", num_slots, topology)
    return Layers(placement_of(name, KEY, rows, experts, ranks), ids)


def _assignments(name: str, value: object, num_slots: int) -> dict[int, list[int]]:
    """The experts of the slots of each layer, ascending by layer."""
    if not isinstance(value, dict) or not value:
        what = "empty" if value == {} else kind(value)
        raise ValueError(f"{name}: `{KEY}` is {what}, expected a mapping from layers to experts of slots")
    if len(value) * num_slots > MOST_ENTRIES:
        raise ValueError(
            f"{name}: {len(value)} layers of {num_slots} slots are more than {MOST_ENTRIES} entries in all"
        )
    found: dict[int, list[int]] = {}
    for key, row in value.items():
        # A file from a writer of JSON has strings for keys, which TensorRT-LLM takes for integers as well.
        is_number = isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10
        layer = int(key) if is_number else key
        if type(layer) is not int or layer < 0:
            raise ValueError(f"{name}: `{KEY}` has the key `{shown(key)}`, expected a layer of the model, 0 or more")
        if layer in found:
            raise ValueError(f"{name}: `{KEY}` has layer {layer} twice")
        found[layer] = expect_row(name, f"{KEY}[{layer}]", row)
        if len(found[layer]) != num_slots:
            raise ValueError(
                f"{name}: `{KEY}[{layer}]` has {len(found[layer])} slots, but `num_slots` is `{num_slots}`"
            )
    return dict(sorted(found.items()))


def _parse_yaml(contents: Contents) -> object:
    """The one value of a YAML document, of plain types, without duplicate keys."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        message = f"{contents.name}: YAML needs `{error.name}`: pip install 'expert-placement[yaml]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    name = contents.name
    text = contents.text(f"YAML with {_EXPECTED}")
    if len(contents.content) > _MOST_BYTES:
        raise ValueError(f"{name}: the file is larger than {_MOST_BYTES} bytes, expected YAML with {_EXPECTED}")
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            fault = _duplicate_key(loader, node)
            value: object = loader.construct_document(node) if node is not None and fault is None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: {_place(error)}broken YAML: {_reason(error)}") from None
    except RecursionError:
        raise ValueError(f"{name}: the YAML is nested too deeply, expected {_EXPECTED}") from None
    except Exception as error:
        # What the constructor of a tag makes of a value that is none of its type.
        raise ValueError(f"{name}: a value of the YAML is broken: {printable(str(error)[:160])}") from None
    if fault is not None:
        raise ValueError(f"{name}: {fault}")
    return value


def _duplicate_key(loader: Any, root: Any) -> str | None:
    """A key that stands twice in a mapping, however it is spelled, where PyYAML would keep the last."""
    import yaml

    seen: set[int] = set()
    nodes = [root]
    while nodes:
        node = nodes.pop()
        # An alias is the very node of its anchor.
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += [inner for inner in node.value if not isinstance(inner, yaml.ScalarNode)]
            continue
        keys: set[object] = set()
        for key, inner in node.value:
            nodes += [key, inner]
            if isinstance(key, yaml.ScalarNode):
                value = loader.construct_object(key)
                if value in keys:
                    mark = key.start_mark
                    key_shown = printable(key.value[:40])
                    return f"line {mark.line + 1}, column {mark.column + 1}: duplicate key `{key_shown}`"
                keys.add(value)
    return None


def _place(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""


def _reason(error: Any) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return printable(reason.partition("\n")[0][:160])


def write(
    placement: Placement,
    path: str | os.PathLike[str],
    *,
    layer_ids: Sequence[int] | None = None,
    layer_updates_per_iter: SupportsIndex = 0,
) -> None:
    """Writes a placement; the file appears whole or not at all.

    Args:
        placement: equally many slots on each rank, none empty.
        path: the YAML file.
        layer_ids: which layer of the model each layer of the placement is, ascending; 0, 1, 2, .. without it. The
            engine needs all of the model's layers with experts, those for multi-token prediction included, whose ids
            follow those of the hidden layers.
        layer_updates_per_iter: how many layers the engine may rebalance at each iteration; 0 keeps this placement.

    Raises:
        OSError: the file cannot be written.
        ValueError: empty slots, ranks with different numbers of slots, or `layer_ids` that do not fit.
        ImportError: torch is not installed.
    """
    table = full_table(placement, "TensorRT-LLM")
    ids = range(len(table)) if layer_ids is None else expect_layer_ids(layer_ids, len(table))
    updates = integer_argument("layer_updates_per_iter", layer_updates_per_iter)
    rows = "".join(f"  {layer}: {row}\n" for layer, row in zip(ids, table.tolist(), strict=True))
    text = f"{KEY}:\n{rows}layer_updates_per_iter: {updates}\nnum_slots: {table.shape[1]}\n"
    write_bytes(path, text.encode())
