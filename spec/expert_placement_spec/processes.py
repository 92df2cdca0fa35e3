"""Parts of a check shared among processes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

Task = TypeVar("Task")
Found = TypeVar("Found")


def quiet_worker() -> None:
    """One thread for each worker process: the processes share the cores already, and end with the one that asked."""
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ctrl-C reaches every process of a terminal; only the one that asked has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_all(
    run: Callable[[Task], Found], work: Sequence[Task], processes: int
) -> Generator[tuple[Task, Found], None, None]:
    """Every task with what came of it, in the order in which they end; with one process in this one."""
    if processes <= 1:
        for task in work:
            yield task, run(task)
        return
    # Spawned, not forked: a library that has started threads does not survive a fork.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=quiet_worker)
    futures = {pool.submit(run, task): task for task in work}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        # Whoever waits is gone: a worker in the middle of a long task is ended with it.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
