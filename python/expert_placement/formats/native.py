"""The project's own file of a placement: JSON with a format, a version and a digest that is verified."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from expert_placement._core import Topology
from expert_placement.formats.json_object import printable, read_object, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from expert_placement.placement import Placement

_Placement = TypeVar("_Placement", bound="Placement")

FORMAT = "expert-placement"
VERSION = 1
"""Of the file's layout; the digest has a version of its own."""
_EXPECTED = "a placement that expert_placement saved"
# 100 layers of 10,000 slots of six characters are 6 MB.
_MOST_BYTES = 1 << 30
_KEYS = ("format", "version", "num_experts", "topology", "physical_to_logical", "digest")
_TOPOLOGY_KEYS = ("num_ranks", "num_nodes", "slots_per_rank", "speeds", "active")


def write(placement: Placement, path: str | os.PathLike[str]) -> None:
    """Writes a placement; the file appears whole or not at all."""
    topology = placement.topology
    content = {
        "format": FORMAT,
        "version": VERSION,
        "num_experts": placement.num_experts,
        "topology": {key: getattr(topology, key) for key in _TOPOLOGY_KEYS},
        "physical_to_logical": placement.physical_to_logical().tolist(),
        "digest": placement.digest(),
    }
    target = Path(path)
    beside = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        beside.write_text(_as_text(content), encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _as_text(content: Mapping[str, object]) -> str:
    """JSON with a line for each field, and one for each layer."""
    lines = []
    for key, value in content.items():
        if key == "physical_to_logical" and isinstance(value, list):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            lines.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(cls: type[_Placement], path: str | os.PathLike[str]) -> _Placement:
    """Reads and verifies a placement.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another format or of an unknown version; the message names the place.
    """
    file = Path(path)
    name = f"`{printable(str(file))}`"
    if not file.exists():
        raise FileNotFoundError(f"{name}: no such file, expected {_EXPECTED}")
    root = read_object(file, name, _EXPECTED, _MOST_BYTES)
    if root.get("format") != FORMAT:
        raise ValueError(f"{name}: `format` is `{shown(root.get('format'))}`, expected {_EXPECTED}")
    if root.get("version") != VERSION or isinstance(root.get("version"), bool):
        raise ValueError(f"{name}: `version` is `{shown(root.get('version'))}`, expected {VERSION}")
    _expect_keys(name, "", root, _KEYS)
    topology = _topology(name, root["topology"])
    table = _table(name, root["physical_to_logical"])
    try:
        placement = cls.from_physical_to_logical(
            table, num_experts=_integer(name, root, "num_experts"), topology=topology
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: `physical_to_logical`: {error}") from None
    if placement.digest() != root["digest"]:
        found = f"`digest` is `{shown(root['digest'])}`, but the content has `{placement.digest()}`"
        raise ValueError(f"{name}: {found}: the file was damaged or edited")
    return placement


def _expect_keys(name: str, path: str, found: Mapping[str, object], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in found:
            raise ValueError(f"{name}: `{path}{key}` is missing")
    for key in found:
        if key not in keys:
            raise ValueError(f"{name}: `{path}{printable(key)}` is unknown, expected one of {', '.join(keys)}")


def _integer(name: str, found: Mapping[str, object], key: str) -> int:
    value = found[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: `{key}` is `{shown(value)}`, expected an integer")
    return value


def _topology(name: str, value: object) -> Topology:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: `topology` is `{shown(value)}`, expected an object")
    _expect_keys(name, "topology.", value, _TOPOLOGY_KEYS)
    try:
        return Topology(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: `topology`: {error}") from None


def _table(name: str, value: object) -> list[list[int]]:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"{name}: `physical_to_logical` is `{shown(value)}`, expected an array with a row for each layer"
        )
    for layer, row in enumerate(value):
        if not isinstance(row, list) or len(row) != len(value[0]):
            what = f"{len(row)} slots" if isinstance(row, list) else f"`{shown(row)}`"
            raise ValueError(
                f"{name}: `physical_to_logical[{layer}]` is {what}, expected an array as long as the first"
            )
        for slot, entry in enumerate(row):
            if not isinstance(entry, int) or isinstance(entry, bool):
                where = f"physical_to_logical[{layer}][{slot}]"
                raise ValueError(f"{name}: `{where}` is `{shown(entry)}`, expected an expert or -1")
    return value
