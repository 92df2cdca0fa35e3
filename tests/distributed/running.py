"""Starts n processes with a process group, runs a function on each rank, and gives back what each returned.

Every wait has an end: a process that is late is killed, and its test fails with what all ranks had to say.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

# Children are forked from a process that has imported torch and has no threads: each takes a few milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "pytest", "expert_placement.distributed"])

GROUP_SECONDS = 20.0
"""How long gloo waits in a process group of tests, where nothing else is said."""


def on_ranks(
    num_ranks: int,
    work: Callable[..., Any],
    *arguments: object,
    backend: str = "gloo",
    timeout: float = 60.0,
    dying: Iterable[int] = (),
) -> list[Any]:
    """What `work(rank, *arguments)` returned on each of n ranks, which share torch's default group.

    Args:
        num_ranks: number of processes, at least 1.
        work: a function of a module; it, its arguments and its results are pickled.
        arguments: what comes after the rank.
        backend: of the default group; for NCCL each rank has the GPU of its number.
        timeout: seconds after which the processes are killed and the test fails.
        dying: ranks that end without a result, which is None for them.

    Raises:
        AssertionError: a rank raised, was late, or ended without a result; with what each rank said.
    """
    with tempfile.TemporaryDirectory() as folder:
        ends: list[Connection] = []
        processes = []
        for rank in range(num_ranks):
            here, there = _CONTEXT.Pipe()
            parameters = (there, f"file://{Path(folder) / 'store'}", backend, rank, num_ranks, work, arguments)
            process = _CONTEXT.Process(target=_run, args=parameters, daemon=True)
            process.start()
            there.close()
            ends.append(here)
            processes.append(process)
        deadline = time.monotonic() + timeout
        outcomes = [_outcome(end, deadline) for end in ends]
        for end in ends:
            end.close()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()) + 1.0)
            if process.is_alive():
                process.kill()
                process.join()
    expected_dead = set(dying)
    wrong = [
        f"rank {rank}: {said}"
        for rank, (is_fine, said) in enumerate(outcomes)
        if not is_fine and not (rank in expected_dead and said == _NOTHING)
    ]
    assert not wrong, "\n".join(wrong)
    return [said if is_fine else None for is_fine, said in outcomes]


def backends(num_ranks: int) -> pytest.MarkDecorator:
    """For tests that are the same with every backend: parameters `backend` and `device`."""
    import torch

    few = torch.cuda.device_count() < num_ranks
    marks = (pytest.mark.cuda, pytest.mark.skipif(few, reason=f"there are no {num_ranks} CUDA devices"))
    on_gpus = [pytest.param(backend, "cuda", marks=marks) for backend in ("nccl", "cpu:gloo,cuda:nccl")]
    return pytest.mark.parametrize(("backend", "device"), [("gloo", "cpu"), *on_gpus])


def new_group(ranks: list[int] | None = None) -> Any:
    """Another group of these ranks, or of all; torch gives processes that are not in it a number."""
    import torch.distributed as dist

    return dist.new_group(ranks)


_MOST_SECONDS = 300.0
_NOTHING = "ended without a result"


def _outcome(end: Connection, deadline: float) -> tuple[bool, Any]:
    """Whether a rank returned something, and that or what it says instead."""
    if not end.poll(max(0.0, deadline - time.monotonic())):
        return False, "was late, and is killed"
    try:
        is_fine, said = pickle.loads(end.recv_bytes())
    except EOFError:
        return False, _NOTHING
    return bool(is_fine), said


def _run(
    end: Connection,
    store: str,
    backend: str,
    rank: int,
    num_ranks: int,
    work: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        if "nccl" in backend:
            torch.cuda.set_device(rank)
        dist.init_process_group(
            backend, init_method=store, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=GROUP_SECONDS)
        )
        result = pickle.dumps((True, work(rank, *arguments)))
    except BaseException:
        end.send_bytes(pickle.dumps((False, traceback.format_exc())))
        return
    end.send_bytes(result)
    # A rank that leaves first would break what others still wait for: all stay until the last has said its word.
    end.poll(_MOST_SECONDS)
    dist.destroy_process_group()
