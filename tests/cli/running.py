"""Ways to run the command line, and files for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_placement.cli import main

if TYPE_CHECKING:
    import pytest

DATA = Path(__file__).parents[2] / "examples" / "data"
GPT_OSS = DATA / "gpt-oss-20b" / "gpqa_diamond.json"
MIXTRAL = DATA / "mixtral-8x7b" / "mmlu_machine_learning.json"
OLMOE = DATA / "olmoe-1b-7b" / "c4.json"

# The program as a user starts it, whether or not the script is on the path.
PROGRAM = [sys.executable, "-m", "expert_placement.cli"]


class Shell:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self, *arguments: object) -> str:
        """What a run without a fault prints."""
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        assert (code, captured.err) == (0, ""), captured
        assert not [line for line in captured.out.splitlines() if line != line.rstrip()]
        return captured.out

    def lines(self, *arguments: object) -> list[str]:
        """The same line by line."""
        return self.text(*arguments).splitlines()

    def fields(self, *arguments: object) -> dict[str, Any]:
        """What a run prints with --json."""
        parsed: dict[str, Any] = json.loads(self.text(*arguments, "--json"))
        return parsed

    def refused(self, *arguments: object) -> str:
        """The one line on standard error for wrong input."""
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        assert (code, captured.out) == (2, ""), captured
        assert captured.err.startswith("error: ")
        assert captured.err.endswith("\n")
        assert captured.err.count("\n") == 1, captured.err
        return captured.err[len("error: ") : -1]


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the program with its output in a pipe."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
        timeout=120,
    )


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
