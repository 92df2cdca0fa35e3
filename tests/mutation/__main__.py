"""Tests mutants of what has changed since it was recorded, and records what came of them; by hand as `make mutants`.

It takes hours for everything, file by file, and can be interrupted: each file is recorded when it is through.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

from tests.coverage.workplace import copy_tree
from tests.mutation import crate, python, record
from tests.mutation.targets import CRATE, ROOT, Target, targets

PLACE = ROOT / "target" / "mutation"
BINDING = Path("python", "expert_placement", "_core.abi3.so")


def copied(place: Path) -> Path:
    """The last commit in a folder of its own, with the binding that is built here."""
    tree = place / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    copy_tree("HEAD", tree)
    # A run that was stopped leaves what it built of its last mutant, from a file that has become older since.
    (tree / "rust" / "expert-placement" / "src" / "lib.rs").touch()
    shutil.copy(ROOT / BINDING, tree / BINDING)
    return tree


def is_due(target: Target, files: dict[str, record.Measured], patterns: list[str]) -> bool:
    """Whether a file is named by a pattern or, without patterns, has changed since it was recorded."""
    if patterns:
        return any(fnmatch(target.path, pattern) for pattern in patterns)
    known = files.get(target.path)
    return known is None or known.digest != record.digest_of(ROOT / target.path)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "patterns", nargs="*", help="files to be tested, such as `rust/*/coloring.rs`; what has changed"
    )
    parser.add_argument(
        "--share", default="1/1", help="which part of the files, such as 1/2 of two commands side by side"
    )
    parser.add_argument("--check", action="store_true", help="test nothing: write the page, and say what is wrong")
    arguments = parser.parse_args()

    known = record.read(record.DATA.read_text(encoding="utf-8")) if record.DATA.is_file() else {}
    due = [] if arguments.check else [target for target in targets() if is_due(target, known, arguments.patterns)]
    if arguments.patterns and not due:
        parser.error(f"none of the files that are mutated is named by {arguments.patterns}")
    share, _, shares = arguments.share.partition("/")
    if not (share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)):
        parser.error(f"--share={arguments.share!r} is no share, expected such as 1/2")
    due = due[int(share) - 1 :: int(shares)]
    if due:
        tree = copied(PLACE / share)
        for index, target in enumerate(due, 1):
            print(f"{index} of {len(due)}: {target.path}", flush=True)
            digest = record.digest_of(tree / target.path)
            came = (crate if target.part == CRATE else python).run(target, tree)
            # Another command may have recorded another file meanwhile.
            files = record.read(record.DATA.read_text(encoding="utf-8")) if record.DATA.is_file() else {}
            files[target.path] = record.Measured(target.part, digest, came)
            record.DATA.write_text(record.written(files), encoding="utf-8")
            print(f"{target.path}: {came.noticed} of {came.number} noticed", flush=True)
    files = record.read(record.DATA.read_text(encoding="utf-8")) if record.DATA.is_file() else {}
    reasons = record.reasons_of(record.REASONS.read_text(encoding="utf-8"))
    record.PAGE.write_text(record.page(files, reasons, targets(), ROOT), encoding="utf-8")
    wrong = record.problems(files, reasons, targets())
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
