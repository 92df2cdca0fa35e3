"""Long work: a bar on standard error while it goes on, and an end as soon as Ctrl-C is pressed."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from threading import Event, Thread

from expert_placement.cli import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    from typing_extensions import Self

    _Result = TypeVar("_Result")

__all__ = ["Progress"]


class Progress:
    """Counts steps of work on standard error, where that is a terminal, and leaves nothing there.

    Example:
        with Progress("planning", 3) as progress:
            plans = [progress.step(lambda loads=loads: rebalance(loads, 72, topology)) for loads in windows]
    """

    def __init__(self, what: str, num_steps: int) -> None:
        self._bar = None
        if sys.stderr is not None and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            # A single step says nothing about how far it is: its bar only moves, and nothing is counted.
            counted = (progress.MofNCompleteColumn(),) if num_steps > 1 else ()
            columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), *counted)
            console = Console(stderr=True)
            self._bar = progress.Progress(*columns, progress.TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task(what, total=num_steps if num_steps > 1 else None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            try:
                self._bar.start()
            except BaseException:
                # The terminal has no cursor from the first line that is drawn.
                self._bar.stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, work: Callable[[], _Result]) -> _Result:
        """Does one step of the work, and gives back its result.

        The compiled core does not look for signals. So it works in a thread of its own, which does not keep the
        process from ending, and an interrupt is raised here at once.
        """
        results: list[_Result] = []
        errors: list[BaseException] = []
        # Of a thread whose `join` was interrupted some versions of Python say that it has ended.
        is_done = Event()

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            finally:
                is_done.set()

        try:
            Thread(target=run, daemon=True).start()
            is_done.wait()
        except KeyboardInterrupt:
            atexit.register(_end_without, is_done)
            raise
        if self._bar is not None:
            self._bar.advance(self._task)
        if errors:
            raise errors[0]
        return results[0]


def _end_without(is_done: Event) -> None:
    """Ends the process at once where work is not done: the core must not come back to an interpreter that is gone."""
    if not is_done.is_set():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(INTERRUPTED)
