"""Makes all calls, and writes what came of them: `python -m tests.hostile`, some ten minutes."""

from __future__ import annotations

import argparse

from tests.hostile import record, running


def main() -> None:
    """Runs everything, or every so many cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--call-step", type=int, default=1, help="of all calls every so many is made")
    parser.add_argument("--file-step", type=int, default=1, help="of all places in files every so many is damaged")
    arguments = parser.parse_args()
    calls = running.run("tests.hostile.cases:of_calls", str(arguments.call_step))
    files = running.run("tests.hostile.cases:of_files", str(arguments.file_step))
    for outcome in (*calls, *files):
        if outcome.verdict.fault:
            print(f"{outcome.name}: {outcome.verdict.fault}")
    steps = {"calls": arguments.call_step, "files": arguments.file_step}
    record.write(record.summary(calls, files, steps))
    print(f"{len(calls)} calls, {len(files)} files; wrote {record.DATA} and {record.PAGE}")


if __name__ == "__main__":
    main()
