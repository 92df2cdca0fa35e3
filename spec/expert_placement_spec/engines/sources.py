"""The engines' functions, cut by their names out of the engines' own files, without an import of the engines.

The environment variable `EXPERT_PLACEMENT_ENGINES` names a folder with the unpacked wheels, as `fetch` leaves them:
`src/vllm/vllm/...` and `src/sglang/sglang/...`. DeepSeek's `eplb.py` is in no wheel; it is looked for as
`src/deepseek/eplb.py`. A function is cut out with what it calls, because an engine's import needs a GPU's libraries.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ENVIRONMENT = "EXPERT_PLACEMENT_ENGINES"
"""The environment variable that names the folder."""
WHEELS = {"vllm": "0.33.0", "sglang": "0.5.23"}
"""The engines that are published as wheels, and the versions that the report is about."""


@dataclass(frozen=True)
class EngineFunction:
    """A function of an engine, which is loaded when it is first called.

    Attributes:
        engine: the folder of the engine's files.
        name: the function's name, after its class where it has one.
        parts: files of the engine, and the names of the definitions to be cut out of each, in the order of need.
    """

    engine: str
    name: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def file(self) -> str:
        """The file that defines it."""
        return self.parts[-1][0]

    @property
    def module(self) -> str:
        """The name of that file as a module."""
        return Path(self.file).stem

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the engine answers."""
        return loaded(self, folder())(*arguments, **options)

    def is_at_hand(self) -> bool:
        """Whether the engine's files are in the folder."""
        return all((folder() / self.engine / file).is_file() for file, _ in self.parts)

    def version(self) -> str:
        """The version of the wheel, or the beginning of the file's SHA-256 where it is of none."""
        file = folder() / self.engine / self.engine / "_version.py"
        found = re.search(r"\bversion = '([^']+)'", file.read_text(encoding="utf-8")) if file.is_file() else None
        if found is not None:
            return found[1]
        return f"SHA-256 {hashlib.sha256((folder() / self.engine / self.file).read_bytes()).hexdigest()[:16]}"


def folder() -> Path:
    """The folder `src` with a folder for each engine.

    Raises:
        ValueError: the environment names none.
    """
    named = os.environ.get(ENVIRONMENT)
    if not named:
        raise ValueError(f"the environment variable {ENVIRONMENT} names no folder with the engines' sources")
    return Path(named) / "src"


@cache
def loaded(function: EngineFunction, sources: Path) -> Any:
    """The function, from the files under a folder.

    Raises:
        ValueError: torch is not installed, or a file or a definition is missing.
    """
    namespace = names_in_use()
    for file, names in function.parts:
        path = sources / function.engine / file
        if not path.is_file():
            raise ValueError(f"the source of {function.name} is not at hand: there is no file `{path}`")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node for node in tree.body if getattr(node, "name", None) in names]
        missing = set(names) - {str(getattr(node, "name", None)) for node in found}
        if missing:
            raise ValueError(f"`{path}` defines no {' and no '.join(sorted(missing))}")
        # Annotations name types of the engine that are not loaded.
        future = ast.parse("from __future__ import annotations").body
        code = compile(ast.Module(body=[*future, *found], type_ignores=[]), str(path), "exec")
        exec(code, namespace)
    first, *rest = function.name.split(".")
    answer = namespace[first]
    for name in rest:
        answer = getattr(answer, name)
    return answer


def names_in_use() -> dict[str, Any]:
    """The names that the engines' files import and their functions use."""
    from abc import ABC, abstractmethod
    from typing import Literal

    import numpy as np

    try:
        import torch
    except ModuleNotFoundError as error:
        raise ValueError("the engines' functions need torch, which is not installed") from error
    strategies = Literal["linear", "round_robin"]
    names: dict[str, Any] = {"torch": torch, "np": np, "ABC": ABC, "abstractmethod": abstractmethod}
    return names | {"ExpertPlacementStrategy": strategies}


def fetch(target: Path) -> None:
    """Downloads the wheels with pip, as far as they are not there, and unpacks their Python files under `src`.

    Args:
        target: the folder, which is made.

    Raises:
        ValueError: pip could not get one of them.
    """
    for engine, version in WHEELS.items():
        if (target / "src" / engine).is_dir():
            continue
        wanted = f"{engine}=={version}"
        with tempfile.TemporaryDirectory() as downloads:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            result = subprocess.run(
                [*command, "--dest", downloads, wanted], capture_output=True, text=True, check=False
            )
            if result.returncode:
                last = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
                raise ValueError(f"pip did not download {wanted}: {last}")
            (wheel,) = Path(downloads).glob("*.whl")
            unpack(wheel, target / "src" / engine)


def unpack(wheel: Path, target: Path) -> None:
    """Unpacks the Python files of a wheel into a folder, which appears only once they are all there."""
    partial = target.with_name(f"{target.name}.part-{os.getpid()}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.endswith(".py")])
    partial.rename(target)
