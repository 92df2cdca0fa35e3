"""Files of placements and loads: our own format, one module for each foreign one, and what they share.

`read` and `write` go by the format's name:

| format | file | ranks | layers |
|---|---|---|---|
| `native` | our JSON, with the whole topology and a digest | in the file | rows |
| `sglang` | `physical_to_logical_map`, `.json` or `.pt` | not in the file | a row for each layer of the model |
| `deepseek` | `phy2log`, `log2phy`, `logcnt`, `.pt`, `.npy` or `.json` | not in the file | rows |
| `vllm_ascend` | expert map, `.json` | in the file | layers with experts, by position |
| `tensorrt_llm` | `initial_global_assignments`, `.yaml` | not in the file | ids of the model's layers |
"""

from __future__ import annotations

from expert_placement._arguments import choice_argument, is_a

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any, SupportsIndex

    from expert_placement._core import Topology
    from expert_placement.formats.contents import Contents, Layers
    from expert_placement.formats.loads import read_loads
    from expert_placement.placement import Placement

__all__ = [
    "FORMATS",
    "LAYERED",
    "RANKED",
    "Layers",
    "format_of",
    "read",
    "read_layers",
    "read_loads",
    "recognise",
    "write",
]

FORMATS = ("native", "sglang", "deepseek", "vllm_ascend", "tensorrt_llm")
LAYERED = ("sglang", "tensorrt_llm")
"""The formats that say which layer of the model each layer of a placement is."""
RANKED = ("native", "vllm_ascend")
"""The formats that say how many ranks there are."""

_SUFFIXES = {
    ".json": ("native", "sglang", "deepseek", "vllm_ascend"),
    ".pt": ("sglang", "deepseek"),
    ".npy": ("deepseek",),
    ".yaml": ("tensorrt_llm",),
    ".yml": ("tensorrt_llm",),
}


def read(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - what every reader of files calls it
    num_experts: SupportsIndex | None = None,
    topology: Topology | None = None,
    *,
    layer_ids: Sequence[int] | None = None,
) -> Placement:
    """Reads a placement from a file of ours or of an engine.

    Args:
        path: a regular file of at most 1 GiB, of YAML 16 MiB.
        format: one of `FORMATS`; by the content without it.
        num_experts: number of logical experts, E. Where it is given the file must agree. Only `native` always says it;
            the largest id does otherwise, so that a file without the experts of the highest ids is taken for one of a
            smaller model.
        topology: the ranks; needed where the file does not say them. Where it says them (`RANKED`) it must agree.
        layer_ids: which layers of the model to take, ascending, from formats that name them (`LAYERED`); for the
            others it says which layers those of the file are. All layers of the file without it.

    Raises:
        OSError: the file cannot be read.
        ModuleNotFoundError: an extra is not installed that the file needs: torch for `.pt`, PyYAML for `.yaml`.
        ValueError: a file that is damaged, of no known format, or at odds with an argument. The message names the
            file, the field and the position.
        TypeError: an argument of another type.

    Example:
        >>> from expert_placement import Topology
        >>> read("location.json", num_experts=256, topology=Topology(32, 4))  # doctest: +SKIP
    """
    return read_layers(path, format, num_experts, topology, layer_ids=layer_ids).placement


def read_layers(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002
    num_experts: SupportsIndex | None = None,
    topology: Topology | None = None,
    *,
    layer_ids: Sequence[int] | None = None,
) -> Layers:
    """Reads a placement, and which layers of the model it is of; arguments and errors are those of `read`."""
    from expert_placement.formats.contents import Contents

    chosen = None if format is None else choice_argument("format", format, FORMATS)
    _expect_topology(topology)
    contents = Contents.of(path)
    return _parse(contents, chosen or _recognised(contents), num_experts, topology, layer_ids)


def recognise(path: str | os.PathLike[str]) -> str:
    """Which of `FORMATS` a file is of, by its content.

    Raises:
        OSError: the file cannot be read.
        ModuleNotFoundError: a `.pt` without torch.
        ValueError: it is of none, or of several.
    """
    from expert_placement.formats.contents import Contents

    return _recognised(Contents.of(path))


def _recognised(contents: Contents) -> str:
    from expert_placement.formats import deepseek, loads, native, sglang, tensorrt_llm, vllm_ascend

    name = contents.name
    known = f"expected a file of one of {', '.join(FORMATS)}"
    if not contents.is_binary and _looks_like_yaml(contents):
        return "tensorrt_llm"
    root = contents.value(f"a placement of one of {', '.join(FORMATS)}")
    if not isinstance(root, dict):
        if contents.is_binary:
            return "deepseek"
        raise ValueError(f"{name}: the JSON is no object, {known}")
    marks = {
        "native": root.get("format") == native.FORMAT,
        "sglang": sglang.KEY in root,
        "deepseek": deepseek.KEY in root,
        "vllm_ascend": vllm_ascend.LAYERS in root,
        "tensorrt_llm": tensorrt_llm.KEY in root,
    }
    found = [candidate for candidate, is_there in marks.items() if is_there]
    if len(found) > 1:
        raise ValueError(f"{name}: the file has keys of {' and '.join(found)}, the format must be given")
    if found:
        return found[0]
    hint = "; these look like loads" if any(key in root for key in loads.KEYS) else ""
    raise ValueError(f"{name}: the format is unknown, {known}{hint}")


def _looks_like_yaml(contents: Contents) -> bool:
    """YAML by its name, or by its first character: the objects of JSON begin with a brace."""
    from expert_placement.formats.tensorrt_llm import KEY

    if contents.suffix in (".yaml", ".yml"):
        return True
    return not contents.content.lstrip().startswith((b"{", b"[")) and KEY.encode() in contents.content


def _parse(
    contents: Contents,
    format: str,  # noqa: A002
    num_experts: SupportsIndex | None,
    topology: Topology | None,
    layer_ids: Sequence[int] | None,
) -> Layers:
    from expert_placement.formats import deepseek, native, sglang, tensorrt_llm, vllm_ascend
    from expert_placement.formats.contents import Layers
    from expert_placement.formats.tables import expect_layer_ids

    if format == "sglang":
        return sglang.parse(contents, num_experts, topology, layer_ids)
    if format == "tensorrt_llm":
        return tensorrt_llm.parse(contents, num_experts, topology, layer_ids)
    parse = {"native": native.parse, "deepseek": deepseek.parse, "vllm_ascend": vllm_ascend.parse}[format]
    placement = parse(contents, num_experts, topology)
    ids = None if layer_ids is None else expect_layer_ids(layer_ids, placement.num_layers)
    return Layers(placement, ids)


def write(
    placement: Placement,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    layer_ids: Sequence[int] | None = None,
    num_hidden_layers: SupportsIndex | None = None,
) -> None:
    """Writes a placement to a file of ours or of an engine; the file appears whole or not at all.

    A link is followed, and stays one; a file that is replaced hands its permissions on.

    All but `native` hold the table alone: nodes, speeds and ranks out of service are the reader's to say.

    Args:
        placement: for every format but `native` with equally many slots on each rank and none empty.
        path: the file; a format that tells its files by their suffix refuses another.
        format: one of `FORMATS`; by the suffix without it, which only `.yaml` and `.npy` tell.
        layer_ids: which layer of the model each layer of the placement is, ascending; 0, 1, 2, .. without it. Only for
            the formats in `LAYERED`.
        num_hidden_layers: how many layers the model has, for `sglang`; up to the last of `layer_ids` without it.

    Raises:
        OSError: the file cannot be written.
        ValueError: an unknown format, a suffix that several have, what the format has no way to say: the message
            names what and where; or the path of a pipe, a device or a socket.
        TypeError: an argument of another type.
        ImportError: torch is not installed.
    """
    from expert_placement.formats import deepseek, native, sglang, tensorrt_llm, vllm_ascend
    from expert_placement.placement import Placement

    if not is_a(placement, Placement):
        raise TypeError(f"placement must be a Placement, got `{type(placement).__name__}`")
    chosen = format_of(path) if format is None else choice_argument("format", format, FORMATS)
    options: dict[str, Any] = {"layer_ids": layer_ids, "num_hidden_layers": num_hidden_layers}
    takes = {"sglang": ("layer_ids", "num_hidden_layers"), "tensorrt_llm": ("layer_ids",)}.get(chosen, ())
    for option, value in options.items():
        if value is not None and option not in takes:
            raise ValueError(f"{option} is given, and files of `{chosen}` do not hold it")
    writers: dict[str, Any] = {
        "native": native.write,
        "sglang": sglang.write,
        "deepseek": deepseek.write,
        "vllm_ascend": vllm_ascend.write,
        "tensorrt_llm": tensorrt_llm.write,
    }
    writers[chosen](placement, path, **{option: options[option] for option in takes})


def format_of(path: str | os.PathLike[str]) -> str:
    """Which of `FORMATS` is written to a file of this name.

    Raises:
        ValueError: the suffix is that of none, or of several.
    """
    from expert_placement.formats.files import path_argument
    from expert_placement.formats.json_object import printable

    found = _SUFFIXES.get(path_argument(path).suffix.lower(), ())
    if len(found) != 1:
        who = f"the suffix is that of {', '.join(found)}" if found else "the suffix says no format"
        raise ValueError(f"`{printable(str(path))}`: {who}, expected one of {', '.join(FORMATS)} to be given")
    return found[0]


def _expect_topology(topology: object) -> None:
    from expert_placement._core import Topology

    if topology is not None and not is_a(topology, Topology):
        raise TypeError(f"topology must be a Topology, got `{type(topology).__name__}`")


# What is loaded when it is first asked for.
_LATER = {"Layers": "contents", "read_loads": "loads"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
