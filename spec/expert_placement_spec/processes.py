"""Parts of a check shared among processes."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.process import BaseProcess

Task = TypeVar("Task")
Found = TypeVar("Found")

ENDED_BY_US = (-signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of workers that were ended because another one had died, unless they died of the same signal."""


class WorkerEndedError(ValueError):
    """A process that shared the work ended in the middle of it, as one does in which somebody calls `os._exit`."""


_notes: Any = None
"""Where this worker writes what it is doing: its process id, and the number of its task plus one."""


def start_worker(notes: Any, number_started: Any) -> None:
    """One thread for each worker process: the processes share the cores already, and end with the one that asked."""
    global _notes
    os.environ["OMP_NUM_THREADS"] = "1"
    # What an implementation prints must not come between the results.
    sys.stdout = sys.stderr
    # Ctrl-C reaches every process of a terminal; only the one that asked has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with number_started.get_lock():
        place = 2 * number_started.value
        number_started.value += 1
    notes[place] = os.getpid()
    _notes = (notes, place + 1)


def run_noted(run: Callable[[Task], Found], number: int, task: Task) -> Found:
    """Runs one task, which stays noted if this process does not live to see its end."""
    notes, place = _notes
    notes[place] = number + 1
    found = run(task)
    notes[place] = 0
    return found


def run_all(
    run: Callable[[Task], Found], work: Sequence[Task], processes: int
) -> Generator[tuple[Task, Found], None, None]:
    """Every task with what came of it, in the order in which they end; with one process in this one.

    Raises:
        WorkerEndedError: a worker process died; the message names what it was doing by the text of its task.
    """
    if processes <= 1:
        for task in work:
            yield task, run(task)
        return
    # Spawned, not forked: a library that has started threads does not survive a fork.
    context = get_context("spawn")
    notes = context.Array("q", 2 * processes, lock=False)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=start_worker, initargs=(notes, context.Value("i", 0))
    )
    workers: list[BaseProcess] = []
    try:
        futures = {pool.submit(run_noted, run, number, task): task for number, task in enumerate(work)}
        workers.extend((pool._processes or {}).values())
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException as error:
        # Whoever waits is gone: a worker in the middle of a long task is ended with it.
        for process in workers:
            process.kill()
        if not isinstance(error, BrokenProcessPool):
            raise
        pool.shutdown(wait=True)
        tasks = {notes[place]: work[notes[place + 1] - 1] for place in range(0, len(notes), 2) if notes[place + 1]}
        raise WorkerEndedError(obituary(workers, tasks)) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
