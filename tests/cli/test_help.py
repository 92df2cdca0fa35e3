"""The examples in the help of the commands that plan: they run as they stand, one after the other."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="placements need torch")

from expert_placement import Topology, rebalance
from expert_placement.cli import migrate, plan, plot, simulate

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.cli.running import Shell

RANDOM = np.random.default_rng(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name, for 256 experts on 32 ranks."""
    monkeypatch.chdir(tmp_path)
    for name, shape in (("loads", (2, 256)), ("later", (2, 2, 256)), ("windows", (6, 2, 256))):
        (tmp_path / f"{name}.json").write_text(str(RANDOM.integers(1, 1000, shape).tolist()))
    for name in ("placement", "old", "new"):
        rebalance(RANDOM.integers(1, 1000, (2, 256)), 288, Topology(32)).save(f"{name}.json")
    return tmp_path


@pytest.mark.parametrize("command", [plan, simulate, migrate, plot], ids=lambda module: module.__name__.split(".")[-1])
def test_the_examples_of_the_help_run(shell: Shell, folder: Path, command: ModuleType) -> None:
    examples = [line.strip() for line in command.HELP.splitlines() if line.strip().startswith("expert-placement ")]
    assert len(examples) >= 3
    for example in examples:
        words = shlex.split(example.partition(" | ")[0])[1:]
        assert shell.text(*words), example
        if "--output" in words:
            assert (folder / words[words.index("--output") + 1]).stat().st_size > 1000
