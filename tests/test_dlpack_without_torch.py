"""The public DLPack hand-over, with numpy in torch's place. Needs no torch, so it runs wherever the wheel does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# A module named torch whose tensors have no C exchange API, so that the exporter goes through `from_dlpack`.
STUB = """
    import sys, types
    import numpy as np
    stub = types.ModuleType("torch")
    stub.Tensor = type("Tensor", (), {})
    stub.from_dlpack = np.from_dlpack
    sys.modules["torch"] = stub
    from expert_placement import ExpertMap, Partition, build_info
    strategies = ("linear", "round_robin", "proportional")
"""


def run_with_stub(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(STUB) + textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _numpy_can_import() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy stands in for torch")
    if int(numpy.__version__.split(".")[0]) < 2:
        pytest.skip(f"numpy {numpy.__version__} takes arrays read-only and in one way alone")


def test_tables_come_through_the_public_protocol(tmp_path: Path) -> None:
    code = """
        for strategy in strategies:
            for experts in range(12):
                for ranks in range(1, 12):
                    p = Partition(experts, ranks, strategy)
                    tables = [
                        (p.counts(), [p.count(rank) for rank in range(ranks)]),
                        (p.starts(), [p.start(rank) for rank in range(ranks)]),
                        (p.owners(), [p.owner(expert) for expert in range(experts)]),
                        (p.local_indices(), [p.local_index(expert) for expert in range(experts)]),
                    ]
                    if p.is_contiguous:
                        tables.append((p.offsets(), [p.start(rank) for rank in range(ranks)] + [experts]))
                    for rank in range(ranks):
                        index_map = [p.local_index(e) if p.owner(e) == rank else -1 for e in range(experts)]
                        mask = [int(p.owner(e) == rank) for e in range(experts)]
                        e = ExpertMap.from_partition(p, rank)
                        tables += [
                            (p.local_experts(rank), list(p.experts(rank))),
                            (p.expert_map(rank), index_map),
                            (p.expert_map_with_sentinel(rank), index_map + [-1]),
                            (p.expert_map_with_shared(rank, 1), index_map + [p.count(rank)]),
                            (p.expert_mask(rank, 1), mask + [1, 0]),
                            (e.index_map(), index_map),
                            (e.mask(), mask + [0]),
                        ]
                        assert ExpertMap.from_index_map(p.expert_map(rank), experts) == e
                        assert ExpertMap.from_mask(p.expert_mask(rank), experts) == e
                    for table, expected in tables:
                        assert type(table) is np.ndarray and table.dtype == np.int32
                        assert table.shape == (len(expected),) and table.flags.c_contiguous
                        assert table.tolist() == expected, (p, table, expected)
        print(build_info()["tensor_hand_over"])
    """
    assert run_with_stub(code, tmp_path) == "dlpack protocol\n"


def test_batches_come_through_the_public_protocol(tmp_path: Path) -> None:
    code = """
        p = Partition(30, 8)
        for ids in (np.arange(30), np.arange(30, dtype=np.int32), np.arange(30)[::-1], list(range(30))):
            assert p.owner_of(ids).tolist() == [p.owner(int(e)) for e in ids]
            assert p.local_index_of(ids).tolist() == [p.local_index(int(e)) for e in ids]
        assert p.count_of([[0, 7]]).tolist() == [[4, 3]]
        assert p.start_of(np.array(7)).tolist() == 27
        try:
            p.owner_of([0, 30])
        except IndexError as error:
            print(error)
    """
    assert run_with_stub(code, tmp_path) == "expert=30 is out of range, expected 0..30 (at position 1)\n"


def test_memory_is_fresh_writable_and_outlives_the_partition(tmp_path: Path) -> None:
    code = """
        import gc, threading
        p = Partition(30, 8)
        first, second = p.counts(), p.counts()
        assert first.ctypes.data != second.ctypes.data and first.ctypes.data % 16 == 0
        assert first.base is not None and not first.flags.owndata
        if first.flags.writeable:
            first[:] = 9
        view = second[6:]
        del p, second
        gc.collect()
        assert view.tolist() == [3, 3]
        holder = [Partition(4096, 8).expert_map(0)]
        thread = threading.Thread(target=holder.clear)
        thread.start(); thread.join()
        assert view.tolist() == [3, 3]
        print(first.flags.writeable)
    """
    assert run_with_stub(code, tmp_path) == "True\n"


def test_tables_leave_no_memory_behind(tmp_path: Path) -> None:
    code = """
        import os
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        p = Partition(4096, 8)
        def churn(times):
            for _ in range(times):
                p.expert_map(3); p.owner_of([5, 6])
                try: p.expert_map(8)
                except IndexError: pass
        churn(1000)
        before = resident() if os.path.exists("/proc/self/statm") else None
        churn(20_000)
        print(0 if before is None else resident() - before)
    """
    # A leak of one table a round would be 320 MB.
    assert int(run_with_stub(code, tmp_path)) < 8 * 2**20
