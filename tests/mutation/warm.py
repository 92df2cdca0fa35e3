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
import traceback
from contextlib import suppress

PACKAGES = ("numpy", "torch", "hypothesis", "hypothesis.strategies", "pytest", "z3", "rich")
POLL = 0.02
"""Seconds between two looks at a process that runs."""
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
                    asked.close()
                    run(json.loads(said), outputs)
                for output in outputs:
                    os.close(output)
                code = end_of(child, asked)
                try:
                    asked.sendall(str(code).encode())
                except BrokenPipeError:
                    # Who asked did not wait for the end.
                    continue


def end_of(child: int, asked: socket.socket) -> int:
    """The exit code of a process, which is killed with all that it started when the one that asked is gone."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([asked], [], [], POLL)[0]:
            # It has a group of its own, or is about to make one.
            for kill in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(stages: list[list[str]], outputs: array.array[int]) -> None:
    """Runs pytest, once for each list of arguments until one fails, and ends this process."""
    import pytest

    os.setsid()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
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
