"""The folder of all vector files: written, and compared with what would be written. spec/vectors/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_placement_spec.vectors import deepseek, migration, partition, placement, routing
from expert_placement_spec.vectors.schema import SCHEMAS

if TYPE_CHECKING:
    from expert_placement_spec.vectors.file import VectorFile

README = "README.md"
SHARED_SCHEMA = "vectors.schema.json"
"""What the schemas of all files have in common."""

MODULES = (partition, placement, deepseek, migration, routing)
"""The writers, a module for each file."""


def carried_folder() -> Path:
    """The folder that this distribution carries: beside the package in a checkout, and inside it once installed."""
    installed = Path(__file__).parent / "files"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "vectors"


def all_files() -> list[VectorFile]:
    """What the reference model answers now."""
    return [module.vectors() for module in MODULES]


def contents(specification: str) -> dict[str, bytes]:
    """The files that are written, by their names.

    Args:
        specification: the version of the specification.
    """
    return {file.name: file.to_bytes(specification) for file in all_files()}


def write(folder: Path, specification: str) -> list[str]:
    """Writes every file, with the README and the schemas where the folder has none.

    Args:
        folder: it is made where it is absent.
        specification: the version of the specification.

    Returns:
        For each file its name, how many cases it has, and its size.

    Raises:
        OSError: the folder can not be written.
    """
    (folder / SCHEMAS).mkdir(parents=True, exist_ok=True)
    for path in by_hand(carried_folder()):
        target = folder / path.relative_to(carried_folder())
        if not target.exists():
            target.write_bytes(path.read_bytes())
    written = []
    for file in all_files():
        content = file.to_bytes(specification)
        (folder / file.name).write_bytes(content)
        written.append(f"{file.name}: {len(file.cases)} cases, {len(content):,} bytes")
    return written


def by_hand(folder: Path) -> list[Path]:
    """What of a folder no command writes: the README and the schemas."""
    return [folder / README, *sorted((folder / SCHEMAS).glob("*.json"))]


def first_difference(folder: Path, specification: str) -> str:
    """What in a folder is not as it would be written; empty where everything is.

    Args:
        folder: of vector files.
        specification: the version of the specification.

    Raises:
        ValueError: there is no such folder.
        OSError: a file can not be read.
    """
    if not folder.is_dir():
        raise ValueError(f"folder=`{folder}` is no folder, expected one of vector files")
    written = contents(specification)
    schemas = {f"{SCHEMAS}/{Path(name).stem}.schema.json" for name in written}
    expected = {README, f"{SCHEMAS}/{SHARED_SCHEMA}", *schemas, *written}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(expected - there):
        return f"{name} is missing"
    for name in sorted(there - expected):
        return f"{name} should not be there"
    for name, content in written.items():
        found = (folder / name).read_bytes()
        if found != content:
            return f"{name}: {difference(found, content)}"
    return ""


def difference(found: bytes, expected: bytes) -> str:
    """Where two files that are not the same differ, by the case and the place in it if they can be read."""
    try:
        given = json.loads(found)
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    wanted = json.loads(expected)
    place = first_place(without_cases(given), without_cases(wanted))
    if place:
        return place
    try:
        cases = {case["id"]: case for case in given["cases"]}
    except (KeyError, TypeError):
        return "its cases are no list of objects with an id each"
    for case in wanted["cases"]:
        if case["id"] not in cases:
            return f"case `{case['id']}` is missing"
        place = first_place(cases.pop(case["id"]), case)
        if place:
            return f"case `{case['id']}`: {place}"
    for name in cases:
        return f"case `{name}` should not be there"
    lines = zip(found.split(b"\n"), expected.split(b"\n"), strict=False)
    number = next((number for number, (one, other) in enumerate(lines, 1) if one != other), None)
    return "it ends elsewhere" if number is None else f"line {number} is spelt or placed otherwise"


def without_cases(file: Any) -> Any:
    """A file without its cases."""
    return {key: value for key, value in file.items() if key != "cases"} if isinstance(file, dict) else file


def first_place(found: Any, expected: Any, place: str = "") -> str:
    """The first place where two values differ, and the values there; empty where they are the same."""
    if type(found) is not type(expected):
        return f"{place or 'the file'} is {shortened(found)}, expected {shortened(expected)}"
    if isinstance(expected, dict):
        for key in [*expected, *found]:
            name = f"{place}.{key}" if place else str(key)
            if key not in found:
                return f"{name} is missing"
            if key not in expected:
                return f"{name} should not be there"
            inner = first_place(found[key], expected[key], name)
            if inner:
                return inner
        return ""
    if isinstance(expected, list):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            inner = first_place(one, other, f"{place}[{index}]")
            if inner:
                return inner
        return "" if len(found) == len(expected) else f"{place} has length {len(found)}, expected {len(expected)}"
    return "" if found == expected else f"{place} is {shortened(found)}, expected {shortened(expected)}"


def shortened(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
