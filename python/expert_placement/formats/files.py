"""Files as bytes: read up to a limit, and written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_bytes(file: Path, name: str, expected: str, most_bytes: int) -> bytes:
    """The content of a regular file.

    Args:
        file: the file, or a link to it.
        name: what messages call it.
        expected: what it should be, for messages.
        most_bytes: how large it may be.

    Raises:
        OSError: the file cannot be read.
        ValueError: no regular file, or one that is too large.
    """
    # Opening a pipe would wait for a writer, and opening a device may act on it.
    if not file.is_file():
        raise ValueError(f"{name}: this is no regular file, expected {expected}")
    with file.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{name}: the file is larger than {most_bytes} bytes, expected {expected}")
    return content


def read_existing(path: str | os.PathLike[str], name: str, expected: str, most_bytes: int) -> bytes:
    """The content of a file that a person named; arguments are those of `read_bytes`, and so are its other errors.

    Raises:
        OSError: the file cannot be read, or there is none.
        ValueError: a path that no file can have, or a directory.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name}: this is a directory, expected {expected}")
    return read_bytes(file, name, expected, most_bytes)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file that appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        # A person knows the file that is wanted, and not the one beside it.
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        beside.unlink(missing_ok=True)
