"""Parts of a check shared among processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from typing import TYPE_CHECKING, Any, TypeVar

from expert_placement_spec.lines.program import TIMEOUT, set_timeout, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.process import BaseProcess

    from typing_extensions import Self

Task = TypeVar("Task")
Found = TypeVar("Found")

ENDED_BY_US = (-signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of workers that were ended because another one had died, unless they died of the same signal."""


class WorkerEndedError(ValueError):
    """A process that shared the work ended in the middle of it, as one does in which somebody calls `os._exit`."""


LINGER = 5.0
"""Seconds that a worker without work has to end in; whatever threads an implementation has left in it."""

ANEW = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
"""How a process for one task is started: from one that has imported and done nothing else, where that can be had."""

_notes: Any = None
"""Where this worker writes what it is doing: its process id, and the number of its task plus one."""


def start_worker(notes: Any, number_started: Any, timeout: float) -> None:
    """One thread for each worker process: the processes share the cores already, and end with the one that asked."""
    global _notes
    start_following()
    os.environ["OMP_NUM_THREADS"] = "1"
    set_timeout(timeout)
    # What an implementation prints must not come between the results, by whatever way it prints.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
    sys.stdout = sys.stderr
    try:
        os.dup2(2, 1)
    except OSError:
        # Nothing is open where errors go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with number_started.get_lock():
        place = 2 * number_started.value
        number_started.value += 1
    notes[place] = os.getpid()
    _notes = (notes, place + 1)


def follow() -> None:
    """Ends this process, and the programs that it has started, once the one that asked is gone without a word."""
    asking = parent_process()
    if asking is None:
        return
    connection.wait([asking.sentinel])
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def alone(run: Callable[[Task], Found], task: Task, modules: Sequence[str] = ()) -> Found:
    """What comes of a task in a process of its own, started for it, with the same hashes every time.

    A solver keeps terms and their order between questions, so that what was asked before can decide whether it finds
    an answer in time.

    Args:
        run: a function of a module.
        task: its argument.
        modules: what the process has imported before, which takes its time once.

    Raises:
        WorkerEndedError: the process died.
    """
    if modules and ANEW == "forkserver":
        get_context(ANEW).set_forkserver_preload(list(modules))
    seed = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        with ProcessPoolExecutor(1, get_context(ANEW), initializer=start_following) as pool:
            return pool.submit(run, task).result()
    except BrokenProcessPool:
        raise WorkerEndedError(f"a process of its own ended while it was asked for {task}") from None
    finally:
        del os.environ["PYTHONHASHSEED"]
        os.environ |= {} if seed is None else {"PYTHONHASHSEED": seed}


def start_following() -> None:
    """Lets this process end with the one that asked, and leaves Ctrl-C to it."""
    threading.Thread(target=follow, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; only the one that asked has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_noted(run: Callable[[Task], Found], number: int, task: Task) -> Found:
    """Runs one task, which stays noted if this process does not live to see its end."""
    notes, place = _notes
    notes[place] = number + 1
    try:
        with watched():
            found = run(task)
    except KeyboardInterrupt:
        # Ctrl-C does not reach this process, so that it is not the user's.
        raise ValueError(f"a KeyboardInterrupt was raised by {task}") from None
    notes[place] = 0
    return found


class Workers:
    """Processes that share the parts of a check, or with none this one, in a `with` block.

    What an implementation does to its process, such as to end it in the middle of an answer, is not seen by the one
    that reports only where there are others.
    """

    def __init__(self, processes: int = 0, timeout: float = TIMEOUT) -> None:
        """Args: processes: how many; 0 for this one alone. timeout: seconds for an answer of a program."""
        self.processes = processes
        self.timeout = timeout
        self._pool: ProcessPoolExecutor | None = None
        self._notes: Any = None

    def __enter__(self) -> Self:
        if self.processes:
            # Spawned, not forked: a library that has started threads does not survive a fork.
            context = get_context("spawn")
            self._notes = context.Array("q", 2 * self.processes, lock=False)
            initial = (self._notes, context.Value("i", 0), self.timeout)
            self._pool = ProcessPoolExecutor(
                self.processes, mp_context=context, initializer=start_worker, initargs=initial
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is None:
            return
        workers = list((self._pool._processes or {}).values())
        manager: Any = self._pool._executor_manager_thread
        self._pool.shutdown(wait=False, cancel_futures=True)
        lingering = {process.sentinel: process for process in workers}
        until = time.monotonic() + LINGER
        while lingering and (left := until - time.monotonic()) > 0:
            for ended in connection.wait(list(lingering), left):
                del lingering[ended]  # type: ignore[arg-type]
        # A thread of an implementation that never ends would keep its process, and so this one, for ever.
        for process in lingering.values():
            end(process)
        # The pool has forgotten it, and an error is printed where it closes its pipe while the interpreter ends.
        if manager is not None:
            manager.join(LINGER)

    def run_all(self, run: Callable[[Task], Found], work: Sequence[Task]) -> Generator[tuple[Task, Found], None, None]:
        """Every task with what came of it, in the order in which they end.

        Raises:
            WorkerEndedError: a worker process died; the message names what it was doing by the text of its task.
        """
        if self._pool is None:
            set_timeout(self.timeout)
            for task in work:
                with watched():
                    found = run(task)
                yield task, found
            return
        workers: list[BaseProcess] = []
        try:
            futures = {self._pool.submit(run_noted, run, number, task): task for number, task in enumerate(work)}
            workers.extend((self._pool._processes or {}).values())
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            # Whoever waits is gone: a worker in the middle of a long task is ended with it.
            for process in workers:
                end(process)
            if not isinstance(error, BrokenProcessPool):
                raise
            self._pool.shutdown(wait=True)
            places = range(0, 2 * self.processes, 2)
            tasks = {self._notes[at]: work[self._notes[at + 1] - 1] for at in places if self._notes[at + 1]}
            raise WorkerEndedError(obituary(workers, tasks)) from None


def end(process: BaseProcess) -> None:
    """Ends a worker, and the programs that it has started: they are in its group, where it has one of its own."""
    if process.pid is not None and hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


HERE = Workers()
"""No other process: everything is done in this one."""


def obituary(workers: Sequence[BaseProcess], tasks: dict[int, Any]) -> str:
    """Which worker died, of what, and what it was doing.

    Args:
        workers: all of them, none of which is alive any more.
        tasks: what each was doing, by its process id.
    """
    first = [one for one in workers if one.exitcode not in ENDED_BY_US] or workers
    codes = " or ".join(dict.fromkeys(str(one.exitcode) for one in first))
    doing = "; or ".join(str(tasks[one.pid]) for one in first if one.pid in tasks)
    return f"a worker process ended with exit code {codes} while it checked {doing or 'nothing yet'}"
