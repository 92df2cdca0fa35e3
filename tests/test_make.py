"""The targets of the Makefile that could be green with nothing done: they fail, and say what they need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a target without what it would build first."""
    command = ["make", "--no-print-directory", "-o", "setup", "-o", "wheel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)


def test_a_matrix_without_interpreters_fails() -> None:
    result = make("wheel-matrix", "MATRIX=9.8 9.9")
    assert result.returncode != 0
    assert result.stdout == (
        "CPython 9.8: not on this machine\n"
        "CPython 9.9: not on this machine\n"
        "tested on no CPython: none of 9.8 9.9 is on this machine\n"
    )


@pytest.mark.parametrize("given", [(), ("PEERS=nowhere",)])
def test_comparisons_with_peers_need_to_be_told_where_they_are(given: tuple[str, ...]) -> None:
    result = make("test-peers", "PEERS=", *given)
    assert result.returncode != 0
    assert result.stdout == (
        "PEERS names no folder with a load.py: make test-peers PEERS=folder, as CONTRIBUTING.md says\n"
    )


def test_comparisons_with_peers_fail_where_the_sources_are_absent(tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text("raise FileNotFoundError('the engines')")
    result = make("test-peers", f"PEERS={tmp_path}")
    assert result.returncode != 0
    assert "FileNotFoundError: the engines" in result.stderr
    assert "--benchmark-disable" not in result.stdout


def test_every_test_file_named_exists() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("WITHOUT_TORCH := ")]
    assert all((ROOT / name).is_file() for name in line.partition(":=")[2].split())
