"""Runs the tests of each mutant in a copy of a process that has imported other people's packages already.

Most of a short run of pytest goes into importing torch, numpy and hypothesis. A process does it once and waits at a
socket; whoever asks sends arguments of pytest, a list for each run until one fails, and the process forks, so that what
is run begins the same every time and leaves nothing behind. It imports nothing of this project: what is mutated is read
anew every time.

    python tests/mutation/warm.py serve SOCKET     prints a line when it is ready
    python tests/mutation/warm.py ask SOCKET STAGES   pytest's output and its exit code; STAGES are JSON
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback

PACKAGES = (
    "numpy",
    "torch",
    "hypothesis",
    "hypothesis.strategies",
    "pytest",
    "_pytest.assertion.rewrite",
    "z3",
    "rich",
)
LONGEST = 1 << 16
"""Bytes of the arguments, as JSON."""


def serve(place: str) -> None:
    """Answers one that asks after another, until standard input ends."""
    for name in PACKAGES:
        __import__(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            asked, _ = listening.accept()
            with asked:
                said, ancillary, _, _ = asked.recvmsg(LONGEST, socket.CMSG_SPACE(2 * array.array("i").itemsize))
                outputs = array.array("i")
                outputs.frombytes(ancillary[0][2])
                child = os.fork()
                if not child:
                    listening.close()
                    run(json.loads(said), outputs, asked)
                for output in outputs:
                    os.close(output)
                _, status = os.waitpid(child, 0)
                try:
                    asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                except BrokenPipeError:
                    # Who asked did not wait for the end.
                    continue


def run(stages: list[list[str]], outputs: array.array[int], asked: socket.socket) -> None:
    """Runs pytest, once for each list of arguments, and ends this process, also when the one that asked is gone."""
    import pytest

    os.setsid()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)

    def follow() -> None:
        asked.recv(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
    code = 3
    try:
        # hypothesis, with a plugin of its own, is there already.
        for arguments in stages:
            code = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))
            if code:
                break
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ask(place: str, stages: str) -> int:
    """The exit code of pytest in a copy of the process at a socket; its output comes out here."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(place)
        outputs = array.array("i", [1, 2])
        asking.sendmsg([stages.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
        said = asking.recv(16)
    return int(said) if said else 3


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        # The folder of this file, which Python puts there, holds a module `python`.
        sys.path[0] = ""
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[2], sys.argv[3]))
