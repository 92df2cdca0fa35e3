"""Completion is installed where a shell looks for it, and completes what it should."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("typer", reason="the command line needs typer")

from tests.cli.running import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"bash": ".bash_completions/expert-placement.sh", "zsh": ".zfunc/_expert-placement"}


@pytest.mark.parametrize("shell", FILES)
def test_completion_is_installed_in_the_home_of_the_user_alone(tmp_path: Path, shell: str) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ran = subprocess.run(
        [*PROGRAM, "--install-completion", shell],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "expert-placement" in (tmp_path / FILES[shell]).read_text()


def test_a_strategy_is_completed(tmp_path: Path) -> None:
    words = "expert-placement show --experts 3 --ranks 2 --strategy r"
    environment = os.environ | {
        "HOME": str(tmp_path),
        "_EXPERT_PLACEMENT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    ran = subprocess.run([*PROGRAM], capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert ran.stdout.split() == ["round_robin"], ran
