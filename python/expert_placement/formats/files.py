"""Files as bytes: read up to a limit, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from expert_placement._text import excerpt, printable

if TYPE_CHECKING:
    from typing import BinaryIO

# Bytes that are read at once of a file that does not say how large it is.
_PART = 2**20
# Longer paths than any that there is: a message that shows one is no longer read by anyone.
LONGEST_PATH = 4096


def path_argument(path: object, parameter: str = "path") -> Path:
    """A path that a person named.

    Args:
        path: a str, or an object that gives one as its path.
        parameter: what it is an argument for.

    Raises:
        TypeError: neither; bytes are no path here, and neither is the number of an open file.
        ValueError: an empty path, or a longer one than any that there is.
    """
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{parameter} must be a str or a path, got `{type(path).__name__}`")
    if not text:
        raise ValueError("``: the path is empty, expected that of a file")
    if len(text) > LONGEST_PATH:
        raise ValueError(f"{parameter}=`{excerpt(text)}` has {len(text)} characters, expected at most {LONGEST_PATH}")
    return Path(text)


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
    too_large = ValueError(f"{name}: the file is larger than {most_bytes} bytes, expected {expected}")
    with file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > most_bytes:
            raise too_large
        try:
            content = _at_most(stream, most_bytes + 1)
        except OSError as error:
            # What can be opened and not be read, as some files of the kernel, has an error without the file.
            raise OSError(error.errno, error.strerror, str(file)) from None
    if len(content) > most_bytes:
        raise too_large
    return content


def _at_most(stream: BinaryIO, most_bytes: int) -> bytes:
    """The beginning of a file; no more memory is asked for than the file says that it takes."""
    parts = [stream.read(min(os.fstat(stream.fileno()).st_size + 1, most_bytes))]
    left = most_bytes - len(parts[0])
    # A file that grows, or does not say how large it is.
    while left and (part := stream.read(min(left, _PART))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_existing(path: str | os.PathLike[str], name: str, expected: str, most_bytes: int) -> bytes:
    """The content of a file that a person named; arguments are those of `read_bytes`, and so are its other errors.

    Raises:
        OSError: the file cannot be read, or there is none.
        ValueError: a path that no file can have, or a directory.
    """
    file = path_argument(path)
    try:
        mode = file.stat().st_mode
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name}: this is a directory, expected {expected}")
    return read_bytes(file, name, expected, most_bytes)


def expect_writable(path: str | os.PathLike[str]) -> None:
    """Checks that what is there under a path, if anything, may be replaced by a file.

    Raises:
        OSError: a directory, or a path that can not be looked at.
        ValueError: no path, or a pipe, a device or a socket, which replacing would destroy.
    """
    _replaced(path)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file that appears whole or not at all.

    A link is followed, and stays one. A file that was there hands its permissions on to the one that replaces it.

    Raises:
        OSError: the file cannot be written.
        ValueError: no path, or one of a pipe, a device or a socket.
    """
    replaced = _replaced(path)
    target = Path(os.path.realpath(path))
    # The name of a file may be as long as the file system allows, and this one has to have room behind it.
    beside = target.with_name(f"{target.name[:40]}.{os.urandom(8).hex()}.part")
    try:
        try:
            with open(beside, "xb", opener=None if replaced is None else _private) as stream:
                if replaced is not None:
                    beside.chmod(stat.S_IMODE(replaced.st_mode) & 0o777)
                stream.write(content)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        # A person knows the file that is wanted, and not the one beside it.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _private(path: str, flags: int) -> int:
    """Opens a file that nobody else may read until it has the permissions of the one that it replaces."""
    return os.open(path, flags, 0o600)


def _replaced(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The regular file that writing to a path would replace, or None; errors are those of `expect_writable`."""
    path_argument(path)
    name = f"`{printable(str(path))}`"
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(there.st_mode):
        raise ValueError(f"{name}: this is no regular file, expected one, or a new path")
    return there
