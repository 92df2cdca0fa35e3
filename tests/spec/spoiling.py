"""A program that stands between another one and the check, and writes one text in the place of another in each answer.

`python spoiling.py BEFORE AFTER PROGRAM`; started by tests/spec/test_lines.py.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> None:
    before, after, *command = sys.argv[1:]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for line in sys.stdin:
            program.stdin.write(line)
            print(program.stdout.readline().rstrip("\n").replace(before, after), flush=True)
        program.stdin.close()


if __name__ == "__main__":
    main()
