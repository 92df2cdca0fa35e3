"""Whether files of vectors are as their schemas say: JSON Schema, draft 2020-12."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCHEMAS = "schemas"
"""The folder of the schemas, beside the files."""


def validator(name: str, folder: Path) -> Any:
    """What tells whether a file is as its schema says, of the library `jsonschema`.

    Args:
        name: of the schema.
        folder: where the files are, with their schemas in a folder of it.

    Raises:
        ModuleNotFoundError: the library is absent.
        FileNotFoundError: there is no such schema.
        jsonschema.SchemaError: one of the schemas is none itself.
    """
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    schemas = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (folder / SCHEMAS).glob("*.json")}
    if name not in schemas:
        raise FileNotFoundError(f"{folder / SCHEMAS / name}")
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    registry: Any = Registry().with_resources((one, Resource.from_contents(schemas[one])) for one in schemas)
    return Draft202012Validator(schemas[name], registry=registry)


def violations(document: Any, folder: Path) -> list[str]:
    """What of a file's content its schema does not allow.

    Args:
        document: the content; `schema` names its schema.
        folder: as for `validator`.

    Returns:
        For each violation the place in the file and what is wrong there.

    Raises:
        ModuleNotFoundError, FileNotFoundError, jsonschema.SchemaError: as `validator`.
    """
    found = validator(document["schema"], folder).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message[:300]}" for error in found]
