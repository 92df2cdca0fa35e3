"""Hostile paths, and the small sound files that ordinary ones lead to."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import expert_placement as ep
import numpy as np

from tests.hostile.judging import Value
from tests.hostile.values import OBJECTS, Unplugged, giving

CONFIG = {"model_type": "mixtral", "num_local_experts": 8, "num_hidden_layers": 2}


@functools.cache
def folder() -> Path:
    """A folder of this process, which is removed when it ends."""
    made = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def placement_file() -> Path:
    """A placement in our own format."""
    file = folder() / "placement.json"
    if not file.exists():
        ep.Placement.from_physical_to_logical([[0, 1, 2, 3, 4, 5, 0, 1]] * 2, 6, ep.Topology(2)).save(file)
    return file


def config_file() -> Path:
    """A model's configuration."""
    file = folder() / "model" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(CONFIG))
    return file


def loads_file() -> Path:
    """Loads of experts."""
    file = folder() / "loads.json"
    file.write_text(json.dumps({"counts": [[8, 4, 2], [1, 1, 1]]}))
    return file


def new_file(suffix: str) -> Path:
    """A file that is not there yet."""
    new = folder() / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    return new / f"file{suffix}"


class Path3:
    """A path whose text is what it is told to be."""

    def __init__(self, told: Any) -> None:
        self.told = told

    def __fspath__(self) -> Any:
        if isinstance(self.told, type):
            raise self.told("from __fspath__")
        return self.told


_ESCAPES = "\x1b[2J\r\n"


def _nowhere() -> dict[str, Any]:
    """Paths that lead nowhere, for readers and writers alike."""
    return {
        "an empty path": "",
        "a null in it": "a\0b",
        "half a surrogate pair": "\ud800",
        "bytes that are no UTF-8": b"\xff\xfe",
        "a name of 5000 letters": "x" * 5000,
        "a path of 5000 folders": "x/" * 5000,
        "a million letters": "x" * 10**6,
        "escapes": _ESCAPES,
        "a number": 3,
        "zero, which is standard input": 0,
        "a bool": True,
        "a float": 1.5,
        "a list": ["p"],
        "a tuple of parts": ("a", "b"),
        "a __fspath__ that is a number": Path3(3),
    }


def _common(usual: Path) -> list[Value]:
    def loop() -> Path:
        made = folder() / "loop"
        if not made.is_symlink():
            made.symlink_to(made)
        return made

    def below_a_file() -> Path:
        return placement_file() / "below"

    def fifo() -> Path:
        made = folder() / "fifo.json"
        if not made.exists():
            os.mkfifo(made)
        return made

    given = {
        **{name: giving(path) for name, path in _nowhere().items()},
        "a link that leads to itself": loop,
        "below a file": below_a_file,
        "a pipe": fifo,
        "an endless device": lambda: "/dev/zero",
        "a terminal": lambda: "/dev/tty",
        "memory of the kernel": lambda: "/dev/full",
    }
    return [
        *(value for value in OBJECTS if value.name not in ("a dict",)),
        *(Value(name, make, is_refused=True) for name, make in given.items()),
        Value("a __fspath__ that raises", lambda: Path3(KeyError), is_refused=True, raised=KeyError),
        Value("a __fspath__ that raises a BaseException", lambda: Path3(Unplugged), is_refused=True, raised=Unplugged),
        Value("a text", lambda: str(usual), lambda: usual),
        Value("an object with __fspath__", lambda: Path3(str(usual)), lambda: usual),
        Value("a numpy text", lambda: np.str_(usual), lambda: usual),
        Value("bytes", lambda: os.fsencode(usual), lambda: usual),
    ]


def readable(usual: Path) -> list[Value]:
    """For a file that is read."""

    def dangling() -> Path:
        made = folder() / "dangling"
        if not made.is_symlink():
            made.symlink_to(folder() / "nowhere")
        return made

    def link() -> Path:
        # There are several sound files with one suffix.
        made = folder() / f"link-{usual.name}"
        if not made.is_symlink():
            made.symlink_to(usual)
        return made

    def sparse() -> Path:
        """A file that claims two gigabytes and takes none."""
        made = folder() / "large.json"
        if not made.exists():
            with made.open("wb") as stream:
                stream.truncate(2**31)
        return made

    def empty() -> Path:
        made = folder() / "empty.json"
        made.touch()
        return made

    given = {
        "not there": lambda: folder() / "nowhere",
        "a link that leads nowhere": dangling,
        "an empty file": empty,
        "a file of two gigabytes": sparse,
        "an empty folder": lambda: new_file("").parent,
        "a file of the kernel that never ends": lambda: "/proc/self/mem",
    }
    sparse()
    return _as_paths(
        [
            *_common(usual),
            *(Value(name, make, is_refused=True) for name, make in given.items()),
            Value("a link", link, lambda: usual),
        ]
    )


def writable(usual: Path) -> list[Value]:
    """For a file that is written."""
    given = {
        "a folder": lambda: new_file("").parent,
        "in a folder that is not there": lambda: folder() / "nowhere" / "file.json",
        "a folder of the kernel": lambda: "/proc/self/file.json",
    }
    common = [
        Value(value.name, value.make) if value.name == "bytes that are no UTF-8" else value
        for value in _common(usual)
        if value.name != "escapes"
    ]
    # Names that nobody should give a file are names; written where the process is, it would be there to be read after.
    common.append(Value("escapes", lambda: new_file("").parent / _ESCAPES))
    return _as_paths([*common, *(Value(name, make, is_refused=True) for name, make in given.items())])


def names(usual: str) -> list[Value]:
    """For a path of which the name alone is looked at."""
    refused = {name: path for name, path in _nowhere().items() if not isinstance(path, str)}
    return _as_paths(
        [
            *OBJECTS,
            *(Value(name, giving(path), is_refused=True) for name, path in refused.items()),
            Value("a path", lambda: Path(usual), lambda: usual),
            Value("a million letters", lambda: "x" * 10**6, is_refused=True),
        ]
    )


def _as_paths(values: list[Value]) -> list[Value]:
    return [dataclasses.replace(value, is_path=True) for value in values]
