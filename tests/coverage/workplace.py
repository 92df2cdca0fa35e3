"""Where a measurement happens: a copy of the tree and an environment that takes the packages from there.

The copy keeps one state of the sources for the whole run, and the developer's own build out of it. Programs that tests
start find the copy whatever they set `PYTHONPATH` to, as the environment itself names it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "target" / "coverage"
TREE = PLACE / "tree"


def copy_tree(commit: str = "", tree: Path = TREE) -> None:
    """Makes the copy; a file that is the same stays, so that nothing is built again for it.

    Args:
        commit: which commit to copy; what git knows of the working tree, or would add, without other word.
        tree: where the copy is.
    """
    with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
        source = ROOT
        if commit:
            source = Path(folder)
            archive = ["git", "archive", commit]
            packed = subprocess.run(archive, cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=source, input=packed, check=True)
            names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
        else:
            listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            said = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            names = {name for name in said.split("\0") if name and (ROOT / name).is_file()}
        for name in names:
            target = tree / name
            if not target.is_file() or target.read_bytes() != (source / name).read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, target)
    for inside, _, files in os.walk(tree):
        for file in files:
            path = Path(inside) / file
            if path.relative_to(tree).as_posix() not in names and path.suffix not in (".so", ".pyc"):
                path.unlink()


def make_environment(folder: Path, configuration: Path) -> Path:
    """An environment with the packages of this one, except for those that are measured; gives its interpreter.

    Args:
        folder: where it is made.
        configuration: the file that every Python process measures by, unless its environment names another.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # This one may take its own from another, as it does where it is made so itself.
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    paths = [str(TREE / "python"), str(TREE / "spec"), *installed]
    named = f"import os; os.environ.setdefault('COVERAGE_PROCESS_START', {str(configuration)!r})"
    begun = "import coverage; coverage.process_startup()"
    (packages / "measured.pth").write_text("\n".join((*paths, named, begun, "")), encoding="utf-8")
    return folder / "bin" / "python"


def link_environment(folder: Path) -> None:
    """Puts the environment where the Makefile looks for it, which tests run in the tree."""
    link = TREE / ".venv"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
