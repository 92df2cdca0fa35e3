"""The project's own file of a placement: JSON with a format, a version and digests that are verified."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, TypeVar

from expert_placement import Topology
from expert_placement._text import digits
from expert_placement.formats.contents import MOST_BYTES
from expert_placement.formats.files import path_argument, write_bytes
from expert_placement.formats.json_object import kind, printable, read_value, shown
from expert_placement.formats.tables import integer, integer_argument, json_rows, rows_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import SupportsIndex

    from expert_placement.formats.contents import Contents
    from expert_placement.placement import Placement

_Placement = TypeVar("_Placement", bound="Placement")

FORMAT = "expert-placement"
VERSION = 1
"""Of the file's layout; the digest has a version of its own."""
_EXPECTED = "a placement that expert_placement saved"
_KEYS = ("format", "version", "num_experts", "topology", "topology_digest", "physical_to_logical", "digest")
_MOST_RANKS = 2**20
"""Of a file; each rank has a row of numbers in memory, whether it has slots or not."""
_TOPOLOGY_KEYS = ("num_ranks", "num_nodes", "slots_per_rank", "speeds", "active")


def write(placement: Placement, path: str | os.PathLike[str]) -> None:
    """Writes a placement; the file appears whole or not at all."""
    topology = placement.topology
    content = {
        "format": FORMAT,
        "version": VERSION,
        "num_experts": placement.num_experts,
        "topology": _fields(topology),
        "topology_digest": _topology_digest(_fields(topology)),
        "physical_to_logical": placement.physical_to_logical().tolist(),
        "digest": placement.digest(),
    }
    write_bytes(path, _as_text(content).encode())


def _fields(topology: Topology) -> dict[str, object]:
    return {key: getattr(topology, key) for key in _TOPOLOGY_KEYS}


def _topology_digest(fields: Mapping[str, object]) -> str:
    """The SHA-256 of what the placement's own digest leaves out: nodes, speeds and which ranks are active."""
    ordered = {key: fields[key] for key in _TOPOLOGY_KEYS}
    return hashlib.sha256(json.dumps(ordered, separators=(",", ":")).encode()).hexdigest()


def _as_text(content: Mapping[str, object]) -> str:
    """JSON with a line for each field, and one for each layer."""
    lines = []
    for key, value in content.items():
        text = json_rows(value) if key == "physical_to_logical" and isinstance(value, list) else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(cls: type[_Placement], path: str | os.PathLike[str]) -> _Placement:
    """Reads and verifies a placement.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another format or of an unknown version; the message names the place.
    """
    file = path_argument(path)
    name = f"`{printable(str(file))}`"
    if not file.exists():
        raise FileNotFoundError(f"{name}: no such file, expected {_EXPECTED}")
    return _verified(cls, name, read_value(file, name, _EXPECTED, MOST_BYTES))


def parse(contents: Contents, num_experts: SupportsIndex | None, topology: Topology | None) -> Placement:
    """The placement of a file that was read; where `num_experts` or `topology` is given, the file must agree.

    Raises:
        ValueError: as for `read`, or the file is at odds with an argument.
    """
    from expert_placement.placement import Placement

    name = contents.name
    placement = _verified(Placement, name, contents.json(_EXPECTED))
    if num_experts is not None:
        expected = integer_argument("num_experts", num_experts)
        if expected != placement.num_experts:
            raise ValueError(f"{name}: `num_experts` is `{placement.num_experts}`, expected {digits(expected)}")
    for key in _TOPOLOGY_KEYS if topology is not None else ():
        asked, found = getattr(topology, key), getattr(placement.topology, key)
        if asked is not None and asked != found:
            raise ValueError(f"{name}: `topology.{key}` is `{shown(found)}`, expected {shown(asked)}")
    return placement


def _verified(cls: type[_Placement], name: str, root: object) -> _Placement:
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the JSON is {kind(root)}, expected an object")
    if root.get("format") != FORMAT:
        raise ValueError(f"{name}: `format` is `{shown(root.get('format'))}`, expected {_EXPECTED}")
    if root.get("version") != VERSION or isinstance(root.get("version"), bool):
        raise ValueError(f"{name}: `version` is `{shown(root.get('version'))}`, expected {VERSION}")
    _expect_keys(name, "", root, _KEYS)
    topology = _topology(name, root["topology"], root["topology_digest"])
    table = rows_of(name, "physical_to_logical", root["physical_to_logical"])
    num_experts = integer(name, "num_experts", root["num_experts"])
    try:
        placement = cls.from_physical_to_logical(table, num_experts=num_experts, topology=topology)
    except (TypeError, ValueError) as error:
        # An error about the number of experts says so, and others are about the table.
        field = "num_experts" if str(error).startswith("num_experts=") else "physical_to_logical"
        raise ValueError(f"{name}: `{field}`: {error}") from None
    _expect_digest(name, "digest", root["digest"], placement.digest())
    return placement


def _expect_digest(name: str, field: str, found: object, actual: str) -> None:
    if actual != found:
        what = f"`{field}` is `{shown(found)}`, but the content has `{actual}`"
        raise ValueError(f"{name}: {what}: the file was damaged or edited")


def _expect_keys(name: str, path: str, found: Mapping[str, object], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in found:
            raise ValueError(f"{name}: `{path}{key}` is missing")
    for key in found:
        if key not in keys:
            raise ValueError(f"{name}: `{path}{printable(key)}` is unknown, expected one of {', '.join(keys)}")


def _topology(name: str, value: object, digest: object) -> Topology:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: `topology` is `{shown(value)}`, expected an object")
    _expect_keys(name, "topology.", value, _TOPOLOGY_KEYS)
    # A damaged number of ranks could be one that takes all memory.
    num_ranks = integer(name, "topology.num_ranks", value["num_ranks"])
    if num_ranks > _MOST_RANKS:
        raise ValueError(f"{name}: `topology.num_ranks` is `{shown(num_ranks)}`, expected 1..={_MOST_RANKS}")
    try:
        topology = Topology(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: `topology`: {error}") from None
    _expect_digest(name, "topology_digest", digest, _topology_digest(value))
    return topology
