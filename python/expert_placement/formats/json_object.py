"""JSON from files, read strictly: every refusal names the file, and where in it the fault is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from expert_placement._text import excerpt
from expert_placement._text import printable as printable
from expert_placement.formats.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_object(file: Path, name: str, expected: str, most_bytes: int) -> Mapping[str, object]:
    """The one JSON object of a regular file; arguments and errors are those of `read_value`."""
    root = read_value(file, name, expected, most_bytes)
    if not isinstance(root, dict):
        raise ValueError(f"{name}: the JSON is {kind(root)}, expected an object")
    return root


def read_value(file: Path, name: str, expected: str, most_bytes: int) -> object:
    """The one JSON value of a regular file.

    Args:
        file: the file, or a link to it.
        name: what messages call it.
        expected: what it should be, for messages.
        most_bytes: how large it may be.

    Raises:
        ValueError: no regular file, one that is too large, or no JSON in UTF-8, without duplicate keys.
    """
    return parse(name, read_bytes(file, name, expected, most_bytes), expected)


def parse(name: str, content: bytes, expected: str) -> object:
    """The one JSON value of a text; arguments and errors are those of `read_value`."""
    text = decode(name, content)
    if text.startswith("\ufeff"):
        raise ValueError(
            f"{name}: line 1, column 1: the file begins with a byte order mark, expected UTF-8 without one"
        )
    try:
        root: object = json.loads(text)
    except json.JSONDecodeError as error:
        reason = printable(error.msg[:1].lower() + error.msg[1:])
        raise ValueError(f"{name}: line {error.lineno}, column {error.colno}: broken JSON: {reason}") from None
    except RecursionError:
        raise ValueError(f"{name}: the JSON is nested too deeply, expected {expected}") from None
    except ValueError:
        # What is left is the limit of the interpreter on the digits of an integer.
        raise ValueError(f"{name}: an integer has too many digits, expected {expected}") from None
    fault = find_fault(text)
    if fault is not None:
        offset, reason = fault
        line, column = line_and_column(text[:offset])
        raise ValueError(f"{name}: line {line}, column {column}: {reason}")
    return root


def decode(name: str, content: bytes) -> str:
    """The text of a file in UTF-8.

    Raises:
        ValueError: it is none; the message names the first wrong byte and its place.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line, column = line_and_column(content[: error.start].decode())
        raise ValueError(
            f"{name}: line {line}, column {column}: byte `0x{content[error.start]:02x}` is no valid UTF-8"
        ) from None


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]|NaN')


def find_fault(text: str) -> tuple[int, str] | None:
    """The first fault that `json` accepts in silence: a duplicate key, or a NaN.

    Infinities pass, because published files of models with Mamba layers hold them (`time_step_limit`); as a count they
    are refused like any other float.
    """
    keys: list[set[str] | None] = []  # one entry an open bracket: the keys of an object so far, None for an array
    at_key = False
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            keys.append(set() if token == "{" else None)
            at_key = token == "{"
        elif token in "}]":
            keys.pop()
            at_key = False
        elif token == ",":
            at_key = keys[-1] is not None
        elif token == "NaN":
            return match.start(), "`NaN` is no JSON number"
        elif at_key:
            key, seen = json.loads(token), keys[-1]
            if seen is not None and key in seen:
                return match.start(), f"duplicate key `{excerpt(key, 80)}`"
            if seen is not None:
                seen.add(key)
            at_key = False
    return None


def line_and_column(before: str) -> tuple[int, int]:
    """Where a text ends, counted from 1."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def kind(value: object) -> str:
    """What a value is, in a few words, with the value itself where it is short."""
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return f'the string `"{printable(value if len(value) <= 40 else value[:37] + "...")}"`'
    return f"`{shown(value)}`"


def shown(value: object) -> str:
    """A value as JSON, short and on one line."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        # No JSON value, or an integer with too many digits to print.
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
