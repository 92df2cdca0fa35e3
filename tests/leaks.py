"""Counts what is lost under valgrind by handing memory out and taking it in; run by hand as `make leaks`.

The same work is done a few and many times: what the interpreter itself loses stays equal, and a leak of ours grows. As
torch does not run under valgrind in reasonable time, a stand-in of that name hands the memory to numpy by the public
DLPack protocol; capsules that nobody takes and refused arguments are covered too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

FEW, MANY = 20, 420
ALLOWED_BYTES_A_ROUND = 8

WORK = """
import sys, types
import numpy as np
torch = types.ModuleType("torch")
torch.Tensor, torch.from_dlpack = type("Tensor", (), {}), np.from_dlpack
sys.modules["torch"] = torch
from expert_placement import ExpertMap, Partition
kept, asked = [], None
def from_dlpack(exporter):
    # The package asks for this name once, so that what it does changes within.
    if asked is None:
        kept.append(exporter)
        return np.from_dlpack(exporter)
    capsule = exporter.__dlpack__(**asked)
    assert type(capsule).__name__ == "PyCapsule"
    return capsule
torch.from_dlpack = from_dlpack
for size in [30] * ROUNDS:
    p = Partition(size, 8)
    arrays = [p.counts(), p.starts(), p.offsets(), p.owners(), p.local_indices(), p.expert_map(3), p.expert_mask(3, 2)]
    assert ExpertMap.from_mask(arrays[-1], size, 2) == ExpertMap.from_partition(p, 3)
    for wrong in (lambda: p.count(8), lambda: p.expert_map(-1), lambda: ExpertMap.from_index_map(arrays[-1], size)):
        try:
            wrong()
        except (IndexError, ValueError):
            pass
    p._owner_of(np.arange(size))
    kept.clear()
    # Capsules of either kind that nobody takes.
    for asked in ({}, {"max_version": (1, 0)}):
        p.counts(), p.expert_map(3)
    asked = None
    if LEAK:
        kept_for_ever = __import__("ctypes").CDLL(None).malloc(64)
"""


def lost(rounds: int, *, leak: bool = False) -> int:
    """Bytes definitely lost after so many rounds."""
    code = WORK.replace("ROUNDS", str(rounds)).replace("LEAK", str(leak))
    command = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite", sys.executable, "-c", code]
    environment = os.environ | {"PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"error: the work under valgrind failed\n{result.stderr[-2000:]}")
    found = re.search(r"definitely lost: ([\d,]+) bytes", result.stderr)
    return int(found[1].replace(",", "")) if found else 0


def main() -> int:
    """Compares few rounds with many, and a planted leak with both; gives the exit code."""
    if shutil.which("valgrind") is None:
        print("error: valgrind is not installed", file=sys.stderr)
        return 2
    few, many, planted = lost(FEW), lost(MANY), lost(MANY, leak=True)
    print(f"definitely lost: {few:,} bytes in {FEW} rounds, {many:,} in {MANY}, {planted:,} with a planted leak")
    allowed = ALLOWED_BYTES_A_ROUND * (MANY - FEW)
    if planted - few <= allowed:
        print("error: the planted leak was not seen")
        return 1
    return 1 if many - few > allowed else 0


if __name__ == "__main__":
    sys.exit(main())
