"""How long the package takes to import; run as `python -m tests.bench.imports`."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys

INTERPRETERS = 41
MODULE = "expert_placement"


def microseconds() -> int:
    """The time of one import, with all that it imports itself, in a fresh interpreter."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {MODULE}"]
    # As where it is installed: with the byte code that the first import writes.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = re.search(rf"\| *(\d+) \| {MODULE}$", ran.stderr, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f"python -X importtime says nothing of {MODULE}")
    return int(found[1])


def main() -> None:
    """Prints the median and both ends."""
    microseconds()
    times = sorted(microseconds() for _ in range(INTERPRETERS))
    median, least, most = (time / 1000 for time in (statistics.median(times), times[0], times[-1]))
    print(f"import {MODULE}: {median:.2f} ms, the median of {INTERPRETERS} ({least:.2f} to {most:.2f})")


if __name__ == "__main__":
    main()
