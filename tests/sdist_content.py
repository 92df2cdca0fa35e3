"""Builds the source distribution and checks what is in it: everything needed to build, and nothing of this machine."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NEEDED = (
    "Cargo.toml",
    "Cargo.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rust/expert-placement/src/lib.rs",
    "rust/expert-placement-py/src/lib.rs",
    "python/expert_placement/__init__.py",
    "python/expert_placement/_core.pyi",
    "python/expert_placement/py.typed",
)
UNWANTED = (".venv", "target/", ".so", "__pycache__", ".git/", "dist/", ".hypothesis")


def problems(names: list[str]) -> list[str]:
    """What is missing from, or should not be in, a source distribution with these files."""
    inside = {name.partition("/")[2] for name in names}
    missing = [f"{name} is missing" for name in NEEDED if name not in inside]
    return missing + [f"{name} should not be there" for name in inside if any(part in name for part in UNWANTED)]


def main() -> int:
    """Builds, lists the problems, and gives the exit code."""
    assert problems(["p-1/.venv/x", "p-1/Cargo.toml"])[-1] == ".venv/x should not be there"
    with tempfile.TemporaryDirectory() as folder:
        maturin = Path(sys.executable).with_name("maturin")
        subprocess.run([maturin, "sdist", "--out", folder], check=True, capture_output=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as content:
            names = content.getnames()
    found = problems(names)
    print(*(found or [f"the source distribution holds {len(names)} files, all that it needs"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
