"""A program that is asked line by line, and what happens where it does not keep to the protocol.

A fault is a program that ends, hangs, or writes something else than one answer to each request. After one nothing that
it says is worth anything, so that a check ends with it: `watched` is the block in which the first fault is kept, all
later questions fail at once, and the fault is raised at the end, whatever the checkers made of it meanwhile.
"""

from __future__ import annotations

import atexit
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from multiprocessing import parent_process, util
from typing import TYPE_CHECKING, Any

from expert_placement_spec.lines.command import BrokenProgramError
from expert_placement_spec.lines.protocol import (
    LONGEST_LINE,
    OFFERS,
    VERSION,
    NotOfTheProtocolError,
    decoded,
    encoded,
)
from expert_placement_spec.outcome import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 10
"""Seconds that an answer may take without other word."""
GRACE = 1.0
"""Seconds that a program has to end in, once nothing is asked any more."""
PART = 1 << 16
"""Bytes that are read at once."""
LONGEST_REQUEST = 300
"""Characters of a request that a message shows."""


class Program:
    """A running program.

    Args:
        command: what a shell would start, without the shell's own signs: words, and quotes around them.
        timeout: how many seconds an answer may take.

    Raises:
        ValueError: a command that cannot be started.
        BrokenProgramError: a program that does not say what it offers.
    """

    def __init__(self, command: str, timeout: float) -> None:
        self.command = command
        self.timeout = timeout
        self._next = 0
        self._fault = ""
        self._process = started(command)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._in, self._out = stdin.fileno(), stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._readable, self._either = select.poll(), select.poll()
        self._readable.register(self._out, select.POLLIN)
        self._either.register(self._out, select.POLLIN)
        self._either.register(self._in, select.POLLOUT)
        try:
            self.offers = self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> frozenset[str]:
        """What the program offers, once it is clear that it speaks this protocol."""
        answer = self.ask("hello", protocol=VERSION)
        if not isinstance(answer, dict) or not {"protocol", "offers"} <= set(answer):
            raise ValueError(f"command `{self.command}`: its hello has not both `protocol` and `offers`")
        if type(answer["protocol"]) is not int or answer["protocol"] != VERSION:
            version = shown(str(answer["protocol"]), 40)
            raise ValueError(f"command `{self.command}`: it speaks protocol `{version}`, expected {VERSION}")
        offers = answer["offers"]
        if not isinstance(offers, list) or not all(isinstance(one, str) for one in offers):
            raise ValueError(f"command `{self.command}`: its `offers` are no list of texts")
        unknown = [one for one in offers if one not in OFFERS]
        if unknown:
            known = ", ".join(OFFERS)
            raise ValueError(f"command `{self.command}`: offers `{shown(unknown[0], 100)}`, expected some of {known}")
        return frozenset(offers)

    @property
    def is_broken(self) -> bool:
        """Whether it broke the protocol or ended, so that it can be asked nothing more."""
        return bool(self._fault)

    def ask(self, call: str, **fields: Any) -> Any:
        """What the program answers to a call.

        Raises:
            ValueError, IndexError, TypeError: what it refused with.
            BrokenProgramError: it did not keep to the protocol; it is ended then.
        """
        if self._fault:
            raise BrokenProgramError(self._fault)
        identifier, self._next = self._next, self._next + 1
        request = encoded({"id": identifier, "call": call, **fields})
        try:
            answer = decoded(self._exchange(request), identifier)
        except NotOfTheProtocolError as error:
            raise self._broken(str(error), request) from None
        return answer()

    def expect_silence(self) -> None:
        """Looks whether the program says more than it was asked.

        Raises:
            BrokenProgramError: it does, or it has ended.
        """
        if self._fault:
            return
        try:
            self._expect_silence()
        except NotOfTheProtocolError as error:
            raise self._broken(str(error), b"") from None

    def _expect_silence(self) -> None:
        if self._readable.poll(0):
            part = os.read(self._out, PART)
            self._expect_more(part)
            text = shown(part[:400].decode("utf-8", "replace"), 100)
            raise NotOfTheProtocolError(f"it said `{text}` before it was asked")

    def _exchange(self, request: bytes) -> bytes:
        """Writes a line and reads one, each as far as it goes, so that neither side waits for the other for ever."""
        self._expect_silence()
        deadline = time.monotonic() + self.timeout
        unsent, received = memoryview(request), bytearray()
        while True:
            if unsent:
                unsent = unsent[self._write(unsent) :]
            left = deadline - time.monotonic()
            ready = (self._either if unsent else self._readable).poll(max(left, 0) * 1000)
            if not ready and left <= 0:
                raise NotOfTheProtocolError(f"it gave no answer within {self.timeout:g} seconds")
            if all(descriptor != self._out for descriptor, _ in ready):
                continue
            part = os.read(self._out, PART)
            self._expect_more(part)
            end = part.find(b"\n")
            received += part
            if len(received) > LONGEST_LINE:
                raise NotOfTheProtocolError(f"its answer is longer than {LONGEST_LINE} bytes")
            if end >= 0:
                if unsent:
                    raise NotOfTheProtocolError("it answered before it had read the request")
                if end + 1 < len(part):
                    raise NotOfTheProtocolError("it wrote more than one line")
                return bytes(received[:-1])

    def _write(self, unsent: memoryview) -> int:
        try:
            return os.write(self._in, unsent)
        except BlockingIOError:
            return 0
        except OSError:
            raise NotOfTheProtocolError(self._end("standard input")) from None

    def _expect_more(self, part: bytes) -> None:
        if not part:
            raise NotOfTheProtocolError(self._end("standard output"))

    def _end(self, closed: str) -> str:
        """How a program ended that has closed one of its ends."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return f"it closed its {closed}"
        if code >= 0:
            return f"it ended with exit code {code}"
        names = {one.value: one.name for one in signal.Signals}
        return f"it was ended by {names.get(-code, f'signal {-code}')}"

    def _broken(self, what: str, request: bytes) -> BrokenProgramError:
        """Keeps the fault, ends the program, and gives the error to raise."""
        asked = f", asked `{shown(request[:4000].decode(), LONGEST_REQUEST)}`" if request else ""
        self._fault = f"command `{self.command}`: {what}{asked}"
        self.close(grace=0)
        _watch.note(self._fault)
        return BrokenProgramError(self._fault)

    def close(self, grace: float = GRACE) -> None:
        """Ends the program: its standard input is closed, which it should take as its end, or it is killed."""
        self._fault = self._fault or f"command `{self.command}`: it was closed"
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                with suppress(OSError):
                    end.close()
        try:
            if grace:
                self._process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        with suppress(OSError):
            # In a worker the group is the worker's own, which is ended by who started it.
            if not is_worker():
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def is_worker() -> bool:
    """Whether this process was started by another one to share its work."""
    return parent_process() is not None


def started(command: str) -> subprocess.Popen[bytes]:
    """The process of a command, with pipes to it; what it writes to standard error goes where ours goes.

    Raises:
        ValueError: a command that cannot be started.
    """
    if sys.platform == "win32":
        raise ValueError(f"command `{command}`: programs are asked on POSIX systems only")
    what = f"command `{shown(command, 200)}`"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{what} cannot be split into words: {str(error).lower()}") from None
    if not words:
        raise ValueError(f"{what} is empty, expected a program and its arguments")
    if is_worker():
        # What this worker starts is in its group, and is ended with it even where it hangs.
        with suppress(OSError):
            os.setpgid(0, 0)
    try:
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=not is_worker()
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{what} cannot be started: {reason.lower()}") from None


class Watch:
    """What was noted in a `watched` block."""

    def __init__(self) -> None:
        self.timeout: float = TIMEOUT
        self.is_on = False
        self.fault = ""

    def note(self, fault: str) -> None:
        """Keeps the first fault of a block."""
        if self.is_on:
            self.fault = self.fault or fault


_watch = Watch()
_programs: dict[str, Program] = {}


def program_of(command: str) -> Program:
    """The program of a command, which runs once in this process; one that broke is started again.

    Raises:
        ValueError: a command that cannot be started, or a program that speaks another protocol.
        BrokenProgramError: a program that broke the protocol, in this block if there is one.
    """
    if _watch.fault:
        raise BrokenProgramError(_watch.fault)
    if command not in _programs or _programs[command].is_broken:
        if not _programs:
            # A process that shares the work ends without its `atexit` functions, and with these.
            util.Finalize(None, close_all, exitpriority=10)
            atexit.register(close_all)
        _programs[command] = Program(command, _watch.timeout)
    return _programs[command]


def close_all() -> None:
    """Ends every program of this process."""
    while _programs:
        _programs.popitem()[1].close()


def set_timeout(seconds: float) -> None:
    """Sets how many seconds an answer of a program that is started from now on may take, in this process."""
    _watch.timeout = seconds


@contextmanager
def watched() -> Iterator[None]:
    """A block that ends with the first fault of a program in it.

    Raises:
        ValueError: the fault.
    """
    before = _watch.is_on
    _watch.is_on = True
    try:
        yield
        for program in _programs.values():
            with suppress(BrokenProgramError):
                program.expect_silence()
    except Exception:
        if not _watch.fault:
            raise
    finally:
        fault, _watch.is_on = _watch.fault, before
        if not before:
            _watch.fault = ""
    if fault:
        raise ValueError(fault)
