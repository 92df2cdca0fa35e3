"""The tensors of `Partition` and `ExpertMap`: values, memory, hand-over. Needs torch. SPEC.md, "Tables"."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest

pytest.importorskip("torch", reason="tensors need torch")

import numpy as np
import torch
from expert_placement import ExpertMap, Partition, Placement, build_info

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Strategy = Literal["linear", "round_robin", "proportional"]
ALL: tuple[Strategy, ...] = get_args(Strategy)
MAX = 2**31 - 1
SHAPES = [(0, 1), (0, 5), (1, 1), (1, 7), (3, 8), (8, 8), (30, 8), (256, 72), (255, 1), (97, 13)]
GRID = [(experts, ranks, strategy) for experts, ranks in SHAPES for strategy in ALL]
each_case = pytest.mark.parametrize(("experts", "ranks", "strategy"), GRID)


def tables(p: Partition, rank: int) -> dict[str, tuple[Callable[..., torch.Tensor], list[int]]]:
    """Every tensor method, and what the scalar answers say that it holds."""
    ranks, experts = range(p.num_ranks), range(p.num_experts)
    index_map = [p.local_index(expert) if p.owner(expert) == rank else -1 for expert in experts]
    mask = [int(p.owner(expert) == rank) for expert in experts]
    shared = [p.count(rank), p.count(rank) + 1]
    found: dict[str, tuple[Callable[..., torch.Tensor], list[int]]] = {
        "counts": (p.counts, [p.count(each) for each in ranks]),
        "starts": (p.starts, [p.start(each) for each in ranks]),
        "owners": (p.owners, [p.owner(each) for each in experts]),
        "local_indices": (p.local_indices, [p.local_index(each) for each in experts]),
        "local_experts": (lambda **options: p.local_experts(rank, **options), list(p.experts(rank))),
        "expert_map": (lambda **options: p.expert_map(rank, **options), index_map),
        "expert_map_with_shared": (
            lambda **options: p.expert_map_with_shared(rank, 2, **options),
            index_map + shared,
        ),
        "expert_map_with_sentinel": (
            lambda **options: p.expert_map_with_sentinel(rank, **options),
            [*index_map, -1],
        ),
        "expert_mask": (lambda **options: p.expert_mask(rank, **options), [*mask, 0]),
        "expert_mask with shared": (lambda **options: p.expert_mask(rank, 2, **options), [*mask, 1, 1, 0]),
    }
    if p.is_contiguous:
        found["offsets"] = (p.offsets, [*(p.start(each) for each in ranks), p.num_experts])
    e = ExpertMap.from_partition(p, rank)
    found |= {
        "ExpertMap.local_experts": (e.local_experts, list(p.experts(rank))),
        "ExpertMap.index_map": (e.index_map, index_map),
        "ExpertMap.index_map_with_shared": (
            lambda **options: e.index_map_with_shared(2, **options),
            index_map + shared,
        ),
        "ExpertMap.index_map_with_sentinel": (e.index_map_with_sentinel, [*index_map, -1]),
        "ExpertMap.mask": (e.mask, [*mask, 0]),
        "ExpertMap.mask with shared": (lambda **options: e.mask(2, **options), [*mask, 1, 1, 0]),
    }
    return found


NAMES = list(tables(Partition(30, 8), 7))
each_table = pytest.mark.parametrize("name", NAMES)


def seed_table(name: str) -> Callable[..., torch.Tensor]:
    return tables(Partition(30, 8), 7)[name][0]


def run_python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, with warnings as errors, away from the checkout's own folders."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The two ways by which memory becomes a tensor. The lines stand before the first tensor of a process.
HAND_OVERS = {
    "dlpack c exchange api": "import torch",
    "dlpack protocol": "import torch; del torch.Tensor.__dlpack_c_exchange_api__",
}
each_hand_over = pytest.mark.parametrize("hand_over", HAND_OVERS)


def skip_unless_offered(hand_over: str) -> None:
    if hand_over == "dlpack c exchange api" and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip(f"torch {torch.__version__} has no C exchange API")


# --- values -----------------------------------------------------------------------------------------------------------


@each_case
def test_every_table_holds_the_scalar_answers(experts: int, ranks: int, strategy: Strategy) -> None:
    p = Partition(experts, ranks, strategy)
    for rank in {0, ranks // 2, ranks - 1}:
        for name, (make, expected) in tables(p, rank).items():
            table = make()
            case = f"{name} of rank {rank} of {p!r}"
            assert type(table) is torch.Tensor, case
            assert table.dtype == torch.int32, case
            assert table.shape == (len(expected),), case
            assert table.is_contiguous(), case
            assert (table.device.type, table.storage_offset(), table.requires_grad) == ("cpu", 0, False), case
            assert table.untyped_storage().nbytes() == 4 * len(expected), case
            assert table.tolist() == expected, case


def test_a_large_table_holds_the_scalar_answers() -> None:
    # Large tables are filled without the interpreter's lock, in memory that the system cleared.
    for strategy in ALL:
        p = Partition(300_000, 7, strategy)
        owners, locals_ = p.owners(), p.local_indices()
        for expert in (0, 1, 42_856, 42_857, 42_858, 150_000, 299_998, 299_999):
            assert (int(owners[expert]), int(locals_[expert])) == (p.owner(expert), p.local_index(expert))
        assert torch.bincount(owners, minlength=7).tolist() == [p.count(rank) for rank in range(7)]
        assert int((p.expert_map(3) >= 0).sum()) == p.count(3)
        assert p.local_experts(3).tolist() == list(p.experts(3))


def test_offsets_of_round_robin_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^strategy=`round_robin` has no offsets, expected a contiguous strategy: "):
        Partition(30, 8, "round_robin").offsets()


@pytest.mark.parametrize("shared", [-1, 2**31, 2**64])
def test_shared_experts_out_of_range_are_named(shared: int) -> None:
    p = Partition(30, 8)
    message = rf"^num_shared_experts={shared} is out of range, expected 0\.\.=2147483647$"
    for call in (p.expert_map_with_shared, p.expert_mask):
        with pytest.raises(ValueError, match=message):
            call(0, shared)


def test_shared_and_routed_experts_stay_int32_together() -> None:
    message = (
        r"^num_shared_experts=2147483618 is out of range, expected 0\.\.=2147483617 beside num_experts=30: "
        r"ids are int32$"
    )
    p = Partition(30, 8)
    for call in (p.expert_map_with_shared, p.expert_mask):
        with pytest.raises(ValueError, match=message):
            call(0, MAX - 29)
    with pytest.raises(ValueError, match=message):
        ExpertMap.from_partition(p, 0).mask(MAX - 29)


@each_table
def test_only_keywords_say_the_device(name: str) -> None:
    make: Any = seed_table(name)
    assert make(device=None).tolist() == make().tolist()
    methods: Any = Partition(30, 8)
    with pytest.raises(TypeError):
        methods.counts("cpu")
    with pytest.raises(TypeError):
        methods.expert_map(0, "cpu")


def test_a_rank_out_of_range_is_an_index_error_before_any_memory() -> None:
    p = Partition(MAX, 2)
    calls = [p.local_experts, p.expert_map, p.expert_map_with_sentinel, p.expert_mask]
    for call in calls:
        with pytest.raises(IndexError, match=r"^rank=2 is out of range, expected 0\.\.2$"):
            call(2)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*Profiler clears events at the end of each cycle:UserWarning")
@each_table
def test_torch_allocates_nothing_for_a_table(name: str) -> None:
    make = seed_table(name)
    make()  # The first tensor of a process looks the hand-over up.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = [make() for _ in range(16)]
    assert len(kept) == 16
    allocated = sum(event.self_device_memory_usage + event.self_cpu_memory_usage for event in profile.key_averages())
    assert allocated == 0

    # The same measurement does see what torch allocates.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        copies = [table.clone() for table in kept]
    allocated = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    assert allocated >= sum(table.untyped_storage().nbytes() for table in copies)


@each_table
def test_the_storage_belongs_to_nobody_that_could_resize_it(name: str) -> None:
    storage = seed_table(name)().untyped_storage()
    assert not storage.resizable()
    with pytest.raises(RuntimeError, match="not resizable"):
        storage.resize_(4096)
    assert torch.empty(30).untyped_storage().resizable()


@each_table
def test_every_call_gives_fresh_memory(name: str) -> None:
    make = seed_table(name)
    tables_now = [make() for _ in range(5)]
    assert len({table.data_ptr() for table in tables_now}) == 5
    expected = tables_now[1].tolist()
    tables_now[0].fill_(-77)
    tables_now[2].add_(1000)
    assert tables_now[1].tolist() == tables_now[3].tolist() == expected
    assert make().tolist() == expected
    assert tables_now[0].tolist() == [-77] * len(expected)


@each_table
def test_memory_is_aligned_as_numpy_aligns_it(name: str) -> None:
    assert all(seed_table(name)().data_ptr() % 16 == 0 for _ in range(50))


def test_views_outlive_the_tensor_and_the_partition() -> None:
    p = Partition(256, 8)
    view = p.expert_map(3)[96:100]
    array = p.owners().numpy()
    exported = np.from_dlpack(p.starts())
    del p
    gc.collect()
    churn = [Partition(256, 8).expert_map(0) for _ in range(200)]
    assert view.tolist() == [0, 1, 2, 3]
    assert array[-1] == 7
    assert exported.tolist() == list(range(0, 256, 32))
    assert len(churn) == 200


def test_empty_tables_are_ordinary_tensors() -> None:
    for strategy in ALL:
        p = Partition(0, 3, strategy)
        empties = [p.owners(), p.local_indices(), p.expert_map(0), p.local_experts(2), Partition(1, 2).local_experts(1)]
        for empty in empties:
            assert (empty.shape, empty.dtype, empty.tolist()) == ((0,), torch.int32, [])
            assert torch.cat((empty, empty)).tolist() == []
            assert empty.clone().numel() == 0
            assert empty.numpy().size == 0


def test_tables_copy_and_pickle_like_any_tensor(tmp_path: Path) -> None:
    table = Partition(30, 8).expert_map(7)
    torch.save(table, tmp_path / "table.pt")
    for twin in (copy.deepcopy(table), torch.load(tmp_path / "table.pt", weights_only=True), table.clone()):
        assert torch.equal(twin, table)
        assert twin.data_ptr() != table.data_ptr()


def test_a_table_can_be_freed_on_another_thread() -> None:
    holders = [[Partition(256, 8).expert_map(rank % 8)] for rank in range(400)]
    threads = [threading.Thread(target=lambda part=holders[k::4]: [each.clear() for each in part]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(holders)
    assert Partition(256, 8).expert_map(0)[:3].tolist() == [0, 1, 2]


def test_many_threads_get_right_tables_at_once() -> None:
    cases = [(experts, ranks, strategy) for experts in (5, 256, 40_000) for ranks in (3, 8) for strategy in ALL]

    def wrong(turn: int) -> list[str]:
        experts, ranks, strategy = cases[turn % len(cases)]
        p = Partition(experts, ranks, strategy)
        owners, locals_ = p.owners(), p.local_indices()
        rank = turn % ranks
        expected = torch.where(owners == rank, locals_, -1)
        answers = {
            "expert_map": torch.equal(p.expert_map(rank), expected),
            "counts": int(p.counts().sum()) == experts,
            "owner_of": torch.equal(p.owner_of(p.local_experts(rank)), torch.full((p.count(rank),), rank).int()),
        }
        return [f"{name} of {p!r}" for name, right in answers.items() if not right]

    with ThreadPoolExecutor(16) as pool:
        assert [fault for faults in pool.map(wrong, range(800)) for fault in faults] == []


# --- both hand-overs --------------------------------------------------------------------------------------------------


@each_hand_over
def test_both_hand_overs_give_the_same_tables(hand_over: str, tmp_path: Path) -> None:
    skip_unless_offered(hand_over)
    code = f"""
        {HAND_OVERS[hand_over]}
        from expert_placement import Partition, build_info
        assert build_info()["tensor_hand_over"] is None
        for strategy in ("linear", "round_robin", "proportional"):
            for experts, ranks in {SHAPES!r}:
                p = Partition(experts, ranks, strategy)
                for table, expected in (
                    (p.counts(), [p.count(rank) for rank in range(ranks)]),
                    (p.owners(), [p.owner(expert) for expert in range(experts)]),
                    (p.local_experts(ranks - 1), list(p.experts(ranks - 1))),
                ):
                    assert type(table) is torch.Tensor and table.dtype == torch.int32 and table.tolist() == expected
                    assert table.shape == (len(expected),) and table.is_contiguous()
                    assert not table.untyped_storage().resizable()
        p = Partition(30, 8)
        first, second = p.counts(), p.counts()
        first.zero_()
        assert second.tolist() == [4, 4, 4, 4, 4, 4, 3, 3]
        with torch.device("meta"):
            assert p.counts().tolist() == second.tolist()
        assert p.counts(device="meta").device.type == "meta"
        print(build_info()["tensor_hand_over"])
    """
    assert run_python(code, tmp_path) == f"{hand_over}\n"


@each_hand_over
def test_a_million_tables_leave_no_memory_behind(hand_over: str, tmp_path: Path) -> None:
    skip_unless_offered(hand_over)
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    code = f"""
        {HAND_OVERS[hand_over]}
        import itertools, os
        from expert_placement import Partition
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        p, small = Partition(2048, 8), Partition(8, 8)
        def churn(times):
            for _ in itertools.repeat(None, times):
                p.expert_map(3); small.counts()
                try: small.expert_map(8)
                except IndexError: pass
        churn(20_000)
        before = resident()
        churn(500_000)
        print(resident() - before)
    """
    # A leak of one table a round would be more than 4 GB, of one header 80 MB.
    assert int(run_python(code, tmp_path)) < 8 * 2**20


@each_hand_over
def test_batches_and_exporters_leave_no_memory_behind(hand_over: str, tmp_path: Path) -> None:
    skip_unless_offered(hand_over)
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    code = f"""
        {HAND_OVERS[hand_over]}
        import os
        import numpy as np
        from expert_placement import ExpertMap, Partition
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        p = Partition(2048, 8)
        ids, array, wrong = torch.arange(2048), np.arange(2048), torch.full((2048,), 2048)
        expert_map = p.expert_map(3)
        def churn(times):
            for _ in range(times):
                p.owner_of(ids); p.owner_of(array); ExpertMap.from_index_map(expert_map, 2048)
                try: p.owner_of(wrong)
                except IndexError: pass
        churn(500)
        before = resident()
        churn(5_000)
        print(resident() - before)
    """
    # A leak of one batch a round would be 40 MB or more.
    assert int(run_python(code, tmp_path)) < 8 * 2**20


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_first_tensor", [False, True])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_process_makes_tables(after_first_tensor: bool, tmp_path: Path) -> None:
    # A process with one thread: a fork beside others is what CPython warns of, and torch has others once it computed.
    code = f"""
        import os, sys, torch
        from expert_placement import Partition
        p = Partition(30, 8)
        kept = p.counts() if {after_first_tensor} else None
        child = os.fork()
        assert p.owners().tolist() == [p.owner(expert) for expert in range(30)]
        assert kept is None or kept.tolist() == [4, 4, 4, 4, 4, 4, 3, 3]
        del kept
        if child == 0:
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_python(code, tmp_path) == "0\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_make_tables(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no start method {method}")
    (tmp_path / "worker.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            from expert_placement import Partition

            def answers(rank):
                p = Partition(30, 8)
                return p.expert_map(rank).tolist(), p

            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                Partition(30, 8).counts()
                with context.Pool(2) as pool:
                    results = pool.map(answers, range(8))
                for rank, (expert_map, p) in enumerate(results):
                    assert p == Partition(30, 8)
                    assert expert_map == p.expert_map(rank).tolist()
                print(len(results))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "worker.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


# --- the exporter -----------------------------------------------------------------------------------------------------

EXPORTERS = """
    import ctypes, os, sys, types
    import numpy as np
    import torch
    from expert_placement import Partition
    del torch.Tensor.__dlpack_c_exchange_api__
    kept = []
    torch.from_dlpack = lambda exporter: kept.append(exporter) or exporter
    def exporter(experts=30, ranks=8):
        Partition(experts, ranks).counts()
        return kept.pop()
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    expected = [4, 4, 4, 4, 4, 4, 3, 3]
    def refusal(call, kind):
        try:
            call()
        except kind as error:
            return str(error)
        raise AssertionError("nothing was refused")
"""


def run_with_exporters(code: str, folder: Path) -> str:
    return run_python(textwrap.dedent(EXPORTERS) + textwrap.dedent(code), folder)


def test_an_exporter_follows_the_protocol(tmp_path: Path) -> None:
    code = """
        assert type(exporter()).__name__ == "Int32Exporter"
        assert exporter().__dlpack_device__() == (1, 0)
        for options, name in [
            ({}, b"dltensor"),
            ({"max_version": None}, b"dltensor"),
            ({"max_version": (0, 8)}, b"dltensor"),
            ({"max_version": (1, 0)}, b"dltensor_versioned"),
            ({"max_version": (1, 3)}, b"dltensor_versioned"),
            ({"max_version": (2, 0)}, b"dltensor_versioned"),
            ({"dl_device": (1, 0), "stream": None, "copy": True}, b"dltensor"),
            ({"copy": False, "max_version": (1, 1)}, b"dltensor_versioned"),
        ]:
            assert name_of(exporter().__dlpack__(**options)) == name, options
        refusal(lambda: exporter().__dlpack__(None), TypeError)
        print("done")
    """
    assert run_with_exporters(code, tmp_path) == "done\n"


def test_either_capsule_is_consumed_once_and_renamed(tmp_path: Path) -> None:
    code = """
        from torch.utils.dlpack import from_dlpack as take
        class Only:
            '''An exporter of one capsule, for consumers of an exporter.'''
            def __init__(self, capsule): self.capsule = capsule
            def __dlpack__(self, **options): return self.capsule
            def __dlpack_device__(self): return (1, 0)
        for options in ({}, {"max_version": (1, 0)}):
            for consume in (np.from_dlpack, torch.utils.dlpack.from_dlpack):
                capsule = exporter().__dlpack__(**options)
                values = consume(Only(capsule))
                assert values.tolist() == expected, (options, consume)
                assert name_of(capsule).startswith(b"used_dltensor"), name_of(capsule)
                del capsule
                assert values.tolist() == expected
        values = np.from_dlpack(exporter())
        assert values.dtype == np.int32 and values.shape == (8,)
        print("done")
    """
    assert run_with_exporters(code, tmp_path) == "done\n"


def test_an_exporter_refuses_what_it_can_not_do(tmp_path: Path) -> None:
    code = """
        e = exporter()
        print(refusal(lambda: e.__dlpack__(dl_device=(2, 0)), BufferError))
        print(refusal(lambda: e.__dlpack__(dl_device=(1, 1)), BufferError))
        print(refusal(lambda: e.__dlpack__(stream=1), BufferError))
        assert np.from_dlpack(e).tolist() == expected  # A refusal does not use the memory up.
        print(refusal(lambda: e.__dlpack__(), BufferError))
        print(refusal(lambda: type(e)(), TypeError))
    """
    assert run_with_exporters(code, tmp_path).splitlines() == [
        "dl_device=(2, 0) is not available, expected (1, 0), the CPU",
        "dl_device=(1, 1) is not available, expected (1, 0), the CPU",
        "stream must be None for CPU memory, got 1",
        "the memory was exported before, and only once it can be",
        "cannot create 'expert_placement._core.Int32Exporter' instances",
    ]


def test_memory_that_nobody_takes_is_freed(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    code = """
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        def churn(times):
            for _ in range(times):
                exporter(1, 5000)                                     # never exported
                exporter(1, 5000).__dlpack__()                        # legacy capsule, never consumed
                exporter(1, 5000).__dlpack__(max_version=(1, 0))      # versioned capsule, never consumed
        churn(200)
        before = resident()
        churn(3000)
        print(resident() - before)
    """
    # A leak of one of the three would be 60 MB.
    assert int(run_with_exporters(code, tmp_path)) < 8 * 2**20


# --- batches ----------------------------------------------------------------------------------------------------------

QUERIES = ("owner_of", "local_index_of", "count_of", "start_of")
SCALARS = {"owner_of": "owner", "local_index_of": "local_index", "count_of": "count", "start_of": "start"}
each_query = pytest.mark.parametrize("query", QUERIES)


def parameter_of(query: str) -> str:
    return "experts" if query in ("owner_of", "local_index_of") else "ranks"


def ask(query: str, ids: Any, p: Partition | None = None) -> torch.Tensor:
    answer: torch.Tensor = getattr(p or Partition(30, 8), query)(ids)
    return answer


@each_query
@each_case
def test_batches_give_the_scalar_answers(query: str, experts: int, ranks: int, strategy: Strategy) -> None:
    p = Partition(experts, ranks, strategy)
    end = experts if parameter_of(query) == "experts" else ranks
    expected = [getattr(p, SCALARS[query])(each) for each in range(end)]
    for dtype in (torch.int32, torch.int64):
        answer = ask(query, torch.arange(end, dtype=dtype), p)
        assert (answer.dtype, answer.shape, answer.tolist()) == (torch.int32, (end,), expected)


@each_query
def test_batches_keep_the_shape_of_the_ids(query: str) -> None:
    scalar = getattr(Partition(30, 8), SCALARS[query])
    flat = torch.arange(24) % 8
    for shape in [(24,), (4, 6), (2, 3, 4), (1, 24), (24, 1), (2, 1, 12)]:
        answer = ask(query, flat.reshape(shape))
        assert answer.shape == shape
        assert answer.flatten().tolist() == [scalar(each) for each in flat.tolist()]
    for single in (torch.tensor(5), np.array(5), np.int64(5), np.int32(5), 5):
        answer = ask(query, single)
        assert (answer.shape, answer.dtype, answer.item()) == ((), torch.int32, scalar(5))


@each_query
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_empty_batches_have_empty_answers(query: str, shape: tuple[int, ...]) -> None:
    for ids in (
        torch.empty(shape, dtype=torch.int32),
        torch.empty(shape, dtype=torch.int64),
        np.empty(shape, dtype=np.int32),
        np.empty(shape, dtype=np.int64),
    ):
        answer = ask(query, ids)
        assert (answer.shape, answer.dtype) == (shape, torch.int32), type(ids)


@each_query
def test_lists_are_ids_too(query: str) -> None:
    scalar = getattr(Partition(30, 8), SCALARS[query])
    assert ask(query, [7, 0, 3]).tolist() == [scalar(7), scalar(0), scalar(3)]
    assert ask(query, (7, 0, 3)).tolist() == ask(query, [7, 0, 3]).tolist()
    assert ask(query, range(8)).tolist() == [scalar(each) for each in range(8)]
    assert ask(query, [[7, 0], [3, 1]]).tolist() == [[scalar(7), scalar(0)], [scalar(3), scalar(1)]]
    for empty, shape in (([], (0,)), ([[]], (1, 0)), ([[], []], (2, 0)), ((), (0,))):
        answer = ask(query, empty)
        assert (answer.shape, answer.dtype) == (shape, torch.int32)


@each_query
def test_ids_are_read_in_any_layout(query: str) -> None:
    scalar = getattr(Partition(30, 8), SCALARS[query])
    wide = torch.arange(16, dtype=torch.int32).reshape(4, 4) % 8
    read_only = np.arange(8)
    read_only.setflags(write=False)
    unaligned = np.frombuffer(b"\0" + np.arange(8, dtype=np.int32).tobytes(), np.uint8)[1:].view(np.int32)
    layouts = [
        wide.T,
        wide[:, ::2],
        wide[1:3, 1:3],
        wide[:, :1].expand(4, 3),
        wide[0, 2],
        torch.arange(8)[::3],
        np.arange(8)[::-1],
        np.arange(8, dtype=np.int32)[::-2],
        np.arange(16).reshape(4, 4).T % 8,
        np.asfortranarray(np.arange(16).reshape(4, 4) % 8),
        np.broadcast_to(np.arange(4), (3, 4)),
        read_only,
        unaligned,
    ]
    for ids in layouts:
        answer = ask(query, ids)
        assert answer.shape == tuple(ids.shape)
        assert answer.flatten().tolist() == [scalar(int(each)) for each in ids.flatten()], repr(ids)


def test_ids_are_only_read() -> None:
    ids = torch.arange(30)
    answer = Partition(30, 8).owner_of(ids)
    answer.fill_(-5)
    assert ids.tolist() == list(range(30))


@each_query
@pytest.mark.parametrize(("ids", "wrong", "position"), [([1, -1, 2], -1, 1), ([1, 2, 2**40], 2**40, 2), ([99], 99, 0)])
def test_an_id_out_of_range_is_named_with_its_position(query: str, ids: list[int], wrong: int, position: int) -> None:
    parameter, end = ("expert", 30) if parameter_of(query) == "experts" else ("rank", 8)
    message = f"{parameter}={wrong} is out of range, expected 0..{end} (at position {position})"
    for given in (ids, torch.tensor(ids), np.array(ids)):
        with pytest.raises(IndexError) as caught:
            ask(query, given)
        assert str(caught.value) == message


def test_positions_count_in_row_major_order() -> None:
    ids = torch.tensor([[0, 1], [2, 30]])
    with pytest.raises(IndexError, match=r"\(at position 3\)$"):
        Partition(30, 8).owner_of(ids)
    with pytest.raises(IndexError, match=r"\(at position 3\)$"):
        Partition(30, 8).owner_of(ids.T)
    with pytest.raises(IndexError, match=r"\(at position 0\)$"):
        Partition(30, 8).owner_of(torch.tensor(30))


@each_query
@pytest.mark.parametrize(
    ("dtype", "shown"),
    [
        (torch.float32, "float32"),
        (torch.float64, "float64"),
        (torch.bool, "bool"),
        (torch.uint8, "uint8"),
        (torch.int8, "int8"),
        (torch.int16, "int16"),
        (torch.float16, "float16"),
        (torch.bfloat16, "bfloat16"),
        (torch.complex64, "complex64"),
    ],
)
def test_other_dtypes_of_torch_are_type_errors(query: str, dtype: torch.dtype, shown: str) -> None:
    for ids in (torch.zeros(3, dtype=dtype), torch.zeros((), dtype=dtype), torch.zeros(0, dtype=dtype)):
        with pytest.raises(TypeError) as caught:
            ask(query, ids)
        assert str(caught.value) == f"{parameter_of(query)} must have dtype int32 or int64, got {shown}"


@each_query
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "uint8", "int16", "uint32", "uint64", "complex128"])
def test_other_dtypes_of_numpy_are_type_errors(query: str, dtype: str) -> None:
    for ids in (np.zeros(3, dtype), np.zeros((), dtype), np.zeros(0, dtype)):
        with pytest.raises(TypeError) as caught:
            ask(query, ids)
        assert str(caught.value) == f"{parameter_of(query)} must have dtype int32 or int64, got {dtype}"


@each_query
@pytest.mark.parametrize(
    "ids",
    [[1.0, 2.0], [True, False], 1.5, True, [2**63, 0.5], [1, 2.5], None, "1", ["1"], [None], b"1", {1, 2}, {1: 2}],
    ids=repr,
)
def test_what_holds_no_integers_is_a_type_error(query: str, ids: object) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter_of(query)} must "):
        ask(query, ids)


@each_query
@pytest.mark.parametrize(
    ("ids", "value", "position"),
    [
        (2**63, 2**63, 0),
        (-(2**70), -(2**70), 0),
        ([1, 2**63], 2**63, 1),
        ([-1, 2**64], 2**64, 1),
        ([[1, 2], [3, 10**40]], 10**40, 3),
        ([2**63, 2**70], 2**63, 0),
    ],
    ids=repr,
)
def test_ids_beyond_64_bits_are_out_of_range_like_others(query: str, ids: Any, value: int, position: int) -> None:
    parameter = parameter_of(query)
    end = {"experts": 30, "ranks": 8}[parameter]
    with pytest.raises(IndexError) as caught:
        ask(query, ids)
    expected = f"{parameter[:-1]}={value} is out of range, expected 0..{end} (at position {position})"
    assert str(caught.value) == expected


def test_integers_that_python_does_not_print_are_out_of_range_too() -> None:
    with pytest.raises(IndexError, match=r"^expert=a huge integer is out of range, expected 0\.\.30"):
        ask("owner_of", [10**5000])
    with pytest.raises(ValueError, match=r"^expert_map holds 18446744073709551616 at position 1, expected integers"):
        ExpertMap.from_index_map([0, 2**64], 2)


@each_query
@pytest.mark.filterwarnings("ignore:Sparse|The PyTorch API of nested tensors:UserWarning")
def test_a_tensor_without_dense_values_is_a_type_error(query: str) -> None:
    ids = torch.tensor([[1, 0], [0, 1]])
    nested = torch.nested.nested_tensor
    for wrong, reason in (
        (ids.to_sparse(), "its layout is torch.sparse_coo"),
        (ids.to_sparse_csr(), "its layout is torch.sparse_csr"),
        (ids.to("meta"), "on the device `meta` it has no values"),
        (nested([ids[0], ids[1]]), "it is nested"),
        (nested([ids[0], ids[1]], layout=torch.jagged), "it is nested"),
    ):
        with pytest.raises(TypeError) as caught:
            ask(query, wrong)
        assert str(caught.value) == f"{parameter_of(query)} must be a dense tensor of int32 or int64: {reason}"
    with pytest.raises(TypeError, match=rf"^{parameter_of(query)} must be a dense tensor of int32 or int64: "):
        torch.vmap(lambda row: ask(query, row))(ids)


@each_query
@pytest.mark.parametrize("step", [1, 2])
def test_a_tensor_that_reaches_beyond_its_storage_is_a_type_error(query: str, step: int) -> None:
    ids = torch.zeros(8, dtype=torch.int64)[::step]
    ids.untyped_storage().resize_(16)
    with pytest.raises(TypeError) as caught:
        ask(query, ids)
    reason = f"its storage has 16 bytes, and its shape needs {64 if step == 1 else 56}"
    assert str(caught.value) == f"{parameter_of(query)} must be a dense tensor of int32 or int64: {reason}"


@each_query
@pytest.mark.parametrize("dtype", [">i4", ">i8"])
def test_a_foreign_byte_order_is_a_type_error(query: str, dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter_of(query)} must "):
        ask(query, np.arange(8).astype(dtype))


def test_ragged_lists_are_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        ask("owner_of", [[1, 2], [3]])


def test_an_error_of_the_ids_own_export_is_kept() -> None:
    class Broken:
        dtype = np.dtype(np.int64)

        def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
            raise RuntimeError("no array today")

    with pytest.raises(RuntimeError, match="no array today"):
        ask("owner_of", Broken())


# --- expert maps ------------------------------------------------------------------------------------------------------


@each_case
def test_all_four_representations_are_read_back(experts: int, ranks: int, strategy: Strategy) -> None:
    p = Partition(experts, ranks, strategy)
    for rank in {0, ranks // 2, ranks - 1}:
        e = ExpertMap.from_partition(p, rank)
        assert (e.num_experts, e.num_local_experts) == (experts, p.count(rank))
        written = {
            "index map": ExpertMap.from_index_map(p.expert_map(rank), experts),
            "with sentinel": ExpertMap.from_index_map_with_sentinel(p.expert_map_with_sentinel(rank), experts),
            "mask": ExpertMap.from_mask(p.expert_mask(rank), experts),
            "own index map": ExpertMap.from_index_map(e.index_map(), experts),
            "own with sentinel": ExpertMap.from_index_map_with_sentinel(e.index_map_with_sentinel(), experts),
            "own mask": ExpertMap.from_mask(e.mask(), experts),
        }
        for shared in (0, 1, 3):
            mapped, masked = p.expert_map_with_shared(rank, shared), p.expert_mask(rank, shared)
            written[f"with {shared} shared"] = ExpertMap.from_index_map_with_shared(mapped, experts, shared)
            written[f"mask with {shared} shared"] = ExpertMap.from_mask(masked, experts, shared)
        for name, read in written.items():
            assert read == e, f"{name} of rank {rank} of {p!r}"
            assert hash(read) == hash(e), f"{name} of rank {rank} of {p!r}"


def test_maps_are_read_from_any_container() -> None:
    expected = ExpertMap.from_partition(Partition(30, 8), 7)
    table = Partition(30, 8).expert_map(7)
    wide = torch.stack((table, table), dim=1)
    for given in (table, table.long(), table.tolist(), tuple(table.tolist()), table.numpy(), wide[:, 0]):
        assert ExpertMap.from_index_map(given, 30) == expected


def test_a_map_of_any_subset_is_a_map() -> None:
    e = ExpertMap.from_index_map([-1, 0, -1, -1, 1, 2], 6)
    assert e.local_experts().tolist() == [1, 4, 5]
    assert e.mask(2).tolist() == [0, 1, 0, 0, 1, 1, 1, 1, 0]
    assert e == ExpertMap.from_mask([0, 1, 0, 0, 1, 1, 0], 6)
    assert e != ExpertMap.from_mask([0, 1, 0, 0, 1, 0, 0], 6)
    assert e != ExpertMap.from_index_map([-1, 0, -1, -1, 1, 2, -1], 7)
    other: object = [-1, 0, -1, -1, 1, 2]
    assert e != other
    assert e == ExpertMap.from_local_experts([1, 4, 5], 6)
    assert repr(e) == "<ExpertMap of 3 of 6 experts: [1, 4, 5]>"
    assert repr(ExpertMap.from_partition(Partition(30, 2), 1)) == (
        "<ExpertMap of 15 of 30 experts: [15, 16, 17, 18, 19, 20, 21, 22, ...]>"
    )


def index_map(given: Any, experts: int = 1, _: int = 0) -> ExpertMap:
    return ExpertMap.from_index_map(given, experts)


def with_shared(given: Any, experts: int = 1, shared: int = 0) -> ExpertMap:
    return ExpertMap.from_index_map_with_shared(given, experts, shared)


def with_sentinel(given: Any, experts: int = 1, _: int = 0) -> ExpertMap:
    return ExpertMap.from_index_map_with_sentinel(given, experts)


def mask(given: Any, experts: int = 1, shared: int = 0) -> ExpertMap:
    return ExpertMap.from_mask(given, experts, shared)


IS_MASK = "expert_map is not an index map but looks like a 0/1 expert mask, read it as a mask instead "
IS_CUT = (
    "expert_map is not an index map but looks like a 0/1 expert mask of other numbers of experts, or without the "
    "trailing 0 that `from_mask` expects "
)
CUT = "; it looks like a 0/1 expert mask without the trailing 0"
NO_MAP = "expert_map is not an index map: "
NO_MASK = "expert_mask is not a 0/1 mask with a trailing 0: "


IT_IS = "; it is the {} of {} experts{}, which `{}` reads"
SENTINEL = IT_IS.format("index map", 2, " with a sentinel", "from_index_map_with_sentinel")
BITS = "; it looks like a 0/1 expert mask of other numbers of experts"


def mask_of(experts: int, shared: int) -> str:
    return IT_IS.format("0/1 mask", experts, f" with num_shared_experts={shared}", "from_mask")


def map_of(experts: int, shared: int) -> str:
    return IT_IS.format("index map", experts, f" with num_shared_experts={shared}", "from_index_map_with_shared")


@pytest.mark.parametrize(
    ("read", "given", "experts", "shared", "message"),
    [
        (index_map, [0, 0, 1, 1, 0], 5, 0, IS_CUT + "(entry 1 is 0, expected -1 or the next local index 1)"),
        (index_map, [1, 0], 2, 0, IS_CUT + "(entry 0 is 1, expected -1 or the next local index 0)"),
        (index_map, [0, 1, 0], 3, 0, IS_CUT + "(entry 2 is 0, expected -1 or the next local index 2)"),
        (index_map, [-1, 0, 2], 3, 0, NO_MAP + "entry 2 is 2, expected -1 or the next local index 1"),
        (index_map, [-1, 1, 0], 3, 0, NO_MAP + "entry 1 is 1, expected -1 or the next local index 0"),
        (index_map, [-2, 0], 2, 0, NO_MAP + "entry 0 is -2, expected -1 or the next local index 0"),
        (index_map, [0, 0], 2, 0, IS_CUT + "(entry 1 is 0, expected -1 or the next local index 1)"),
        (index_map, [2**31], 1, 0, "expert_map[0]=2147483648 is no int32"),
        (index_map, [-1, -(2**40)], 2, 0, "expert_map[1]=-1099511627776 is no int32"),
        (index_map, [-1, 0], 3, 0, "expert_map has length 2, expected 3"),
        (index_map, [0, 0, 1, 0], 3, 0, "expert_map has length 4, expected 3" + mask_of(3, 0)),
        (index_map, [0, 0, 1], 9, 0, "expert_map has length 3, expected 9" + BITS),
        (index_map, [-1, 0], 2**31, 0, f"num_experts={2**31} is out of range, expected 0..={MAX}"),
        (index_map, [-1, 0], -1, 0, f"num_experts=-1 is out of range, expected 0..={MAX}"),
        (with_shared, [-1, 0, 1, 7], 2, 2, NO_MAP + "entry 3 is 7, expected 2"),
        (with_shared, [-1, 0, -1], 2, 1, NO_MAP + "entry 2 is -1, expected 1" + SENTINEL),
        (with_shared, [-1, 0, 1, 2], 2, 1, "expert_map has length 4, expected 3" + map_of(2, 2)),
        (
            with_shared,
            [0],
            1,
            4,
            "expert_map has length 1, expected 5" + IT_IS.format("index map", 1, "", "from_index_map"),
        ),
        (
            with_shared,
            [0, 1, 1, 0],
            3,
            1,
            IS_MASK + "(entry 2 is 1, expected -1 or the next local index 2)" + mask_of(3, 0),
        ),
        (
            with_shared,
            [0],
            1,
            MAX,
            f"num_shared_experts={MAX} is out of range, expected 0..={MAX - 1} beside num_experts=1: ids are int32",
        ),
        (
            with_sentinel,
            [],
            0,
            0,
            "expert_map has length 0, expected 1" + IT_IS.format("index map", 0, "", "from_index_map"),
        ),
        (with_sentinel, [-1, 0, 1], 2, 0, NO_MAP + "entry 2 is 1, expected -1" + map_of(2, 1)),
        (with_sentinel, [0, 0, 1, 0], 3, 0, IS_MASK + "(entry 3 is 0, expected -1)" + mask_of(3, 0)),
        (mask, [-1, 0, 1], 2, 0, NO_MASK + "entry 0 is -1, expected 0 or 1" + map_of(2, 1)),
        (mask, [0, 1, 2, 0], 3, 0, NO_MASK + "entry 2 is 2, expected 0 or 1"),
        (mask, [0, 1, 1], 2, 0, NO_MASK + "entry 2 is 1, expected 0"),
        (mask, [0, 1, 0, 0], 1, 2, NO_MASK + "entry 2 is 0, expected 1"),
        (mask, [], 3, 0, "expert_mask has length 0, expected 4"),
        (mask, [0, 1, 1], 3, 0, "expert_mask has length 3, expected 4" + CUT),
        (mask, [0, 1, 1, 1], 3, 1, "expert_mask has length 4, expected 5" + CUT),
        (mask, [0, 1, 1], 4, 0, "expert_mask has length 3, expected 5"),
        (mask, [1, 0], 1, 3, "expert_mask has length 2, expected 5" + mask_of(1, 0)),
    ],
)
def test_a_map_that_is_not_what_it_is_read_as_is_refused(
    read: Callable[[Any, int, int], ExpertMap], given: list[int], experts: int, shared: int, message: str
) -> None:
    for form in (given, torch.tensor(given, dtype=torch.int64), np.array(given, dtype=np.int64)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            read(form, experts, shared)
        assert str(caught.value) == message


# Ways to write a map of a rank of a partition, each with its reader; with S shared experts or without.
FORMS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., ExpertMap]]] = {
    "index map": (lambda p, rank, _: p.expert_map(rank), index_map),
    "with shared": (lambda p, rank, shared: p.expert_map_with_shared(rank, shared), with_shared),
    "with sentinel": (lambda p, rank, _: p.expert_map_with_sentinel(rank), with_sentinel),
    "mask": (lambda p, rank, shared: p.expert_mask(rank, shared), mask),
}


@pytest.mark.parametrize("read_as", FORMS)
@pytest.mark.parametrize("written_as", FORMS)
def test_a_map_is_read_as_what_it_was_written_as_and_refused_as_anything_else(written_as: str, read_as: str) -> None:
    # Domain: five E, four R, every strategy, first and last rank, S written and S read in 0..4.
    (write, _), (form, read) = FORMS[written_as], FORMS[read_as]
    shapes = [(e, r) for e in (1, 2, 5, 30, 31) for r in (1, 3, 8, 30)]
    for (experts, ranks), strategy in itertools.product(shapes, ALL):
        p = Partition(experts, ranks, strategy)
        for rank in (0, ranks - 1):
            for written, wanted in itertools.product(range(4), range(4)):
                given = write(p, rank, written)
                case = f"{written_as}, S={written}, read as {read_as}, S={wanted}: rank {rank} of {p!r}"
                if torch.equal(given, form(p, rank, wanted)):
                    assert read(given, experts, wanted) == ExpertMap.from_partition(p, rank), case
                    continue
                with pytest.raises(ValueError, match=r"^expert_(map|mask) (has length|is not)") as caught:
                    read(given, experts, wanted)
                assert f" of {experts} experts" in str(caught.value), f"{case}: {caught.value}"


def test_every_reader_wants_to_know_how_many_experts_there_are() -> None:
    readers: list[Any] = [ExpertMap.from_index_map, ExpertMap.from_index_map_with_sentinel, ExpertMap.from_mask]
    for reader in readers:
        with pytest.raises(TypeError, match="num_experts"):
            reader([-1, 0])
        with pytest.raises(TypeError, match=r"^num_experts must be an int, got `NoneType`$"):
            reader([-1, 0], None)


@pytest.mark.parametrize("read", [index_map, with_shared, with_sentinel, mask])
def test_a_map_has_one_dimension(read: Callable[[Any], ExpertMap]) -> None:
    parameter = "expert_mask" if read is mask else "expert_map"
    for given in ([[-1, -1]], torch.zeros(1, 1, dtype=torch.int32), np.zeros((2, 0), np.int32), torch.tensor(0), 0):
        with pytest.raises(ValueError, match=rf"^{parameter} has \d dimensions, expected 1$"):
            read(given)


@pytest.mark.parametrize("read", [index_map, with_shared, with_sentinel, mask])
def test_a_map_of_another_dtype_is_a_type_error(read: Callable[[Any], ExpertMap]) -> None:
    parameter = "expert_mask" if read is mask else "expert_map"
    for given in (torch.zeros(3), torch.zeros(3, dtype=torch.bool), np.zeros(3, np.uint8), [0.0, 1.0], [True, False]):
        with pytest.raises(TypeError, match=rf"^{parameter} must have dtype int32 or int64, got "):
            read(given)


def test_a_mask_with_shared_experts_is_not_read_without_them() -> None:
    for experts, ranks, shared in ((30, 8, 2), (30, 8, 1), (256, 72, 3), (1, 1, 1)):
        p = Partition(experts, ranks)
        masked, mapped = p.expert_mask(ranks - 1, shared), p.expert_map_with_shared(ranks - 1, shared)
        for fewer in range(shared):
            length = f"has length {experts + shared + 1}, expected {experts + fewer + 1}"
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
                ExpertMap.from_mask(masked, experts, fewer)
            assert str(caught.value) == f"expert_mask {length}{mask_of(experts, shared)}"
        with pytest.raises(ValueError, match=rf"^expert_map has length {experts + shared}, expected {experts}; it is"):
            ExpertMap.from_index_map(mapped, experts)
    with pytest.raises(ValueError, match=r"^num_shared_experts=-1 is out of range"):
        ExpertMap.from_mask(Partition(30, 8).expert_mask(7), 30, -1)


def test_a_map_of_a_partition_checks_both_arguments() -> None:
    p = Partition(30, 8)
    with pytest.raises(IndexError, match=r"^rank=8 is out of range, expected 0\.\.8$"):
        ExpertMap.from_partition(p, 8)
    wrong: Any = (30, 8)
    with pytest.raises(TypeError):
        ExpertMap.from_partition(wrong, 0)
    make: Any = ExpertMap
    with pytest.raises(TypeError, match="cannot create"):
        make(30)


def test_a_map_can_not_be_changed() -> None:
    e: Any = ExpertMap.from_partition(Partition(30, 8), 7)
    for name in ("num_experts", "num_local_experts", "brand_new"):
        with pytest.raises(AttributeError):
            setattr(e, name, 1)
    e.index_map().fill_(9)
    assert e == ExpertMap.from_partition(Partition(30, 8), 7)


# --- devices ----------------------------------------------------------------------------------------------------------


@each_table
def test_device_moves_a_table(name: str) -> None:
    make = seed_table(name)
    for device in ("cpu", torch.device("cpu"), torch.device("cpu", 0)):
        table = make(device=device)
        assert table.device.type == "cpu"
        assert torch.equal(table, make())
    for device in ("meta", torch.device("meta")):
        moved = make(device=device)
        assert (moved.device.type, moved.dtype, moved.shape) == ("meta", torch.int32, make().shape)


def test_a_default_device_does_not_change_a_table() -> None:
    with torch.device("meta"):
        table = Partition(30, 8).counts()
        owners = ask("owner_of", [0, 29])
    assert table.device.type == owners.device.type == "cpu"
    assert table.tolist() == [4, 4, 4, 4, 4, 4, 3, 3]
    assert owners.tolist() == [0, 7]


@each_table
@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("nowhere", "Expected one of cpu, cuda"),
        ("", "Device string must not be empty"),
        ("cuda:x", "Invalid device string: 'cuda:x'"),
        (-1, "Device index must not be negative"),
        (10**30, ""),
        ("xpu", ""),
        ("two\nlines", "Invalid device string: 'two"),
        ("\ud800", ""),
    ],
)
def test_a_device_that_torch_does_not_have_is_named_with_its_reason(name: str, device: Any, reason: str) -> None:
    if device == "xpu" and torch.xpu.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        seed_table(name)(device=device)
    shown = {"two\nlines": "two\\nlines", "\ud800": "\\ud800"}.get(device, device)
    expected = f"device=`{shown}` cannot be used, expected one that torch has here, such as `cpu` or `cuda:0`: {reason}"
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


def test_what_is_no_partition_is_a_type_error_that_names_it() -> None:
    wrong: Any
    for wrong in (5, "linear", None, Partition):
        for make in (lambda p: ExpertMap.from_partition(p, 0), Placement.from_partition):
            with pytest.raises(TypeError) as caught:
                make(wrong)
            assert str(caught.value) == f"partition must be a Partition, got `{type(wrong).__name__}`"


def test_what_names_no_device_is_a_type_error() -> None:
    wrong: Any
    for wrong in (3.5, True, object(), [], torch.int32):
        with pytest.raises(TypeError) as caught:
            Partition(30, 8).counts(device=wrong)
        assert str(caught.value) == f"device must be a torch.device, a str or an int, got `{type(wrong).__name__}`"


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@each_table
def test_a_table_goes_to_cuda_without_waiting_for_the_device(name: str) -> None:
    make = seed_table(name)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = [make(device=device) for device in ("cuda", "cuda:0", 0, torch.device("cuda"))]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for table in moved:
        assert table.device.type == "cuda"
        assert torch.equal(table.cpu(), make())


@pytest.mark.cuda
@needs_cuda
def test_memory_may_be_freed_while_it_is_copied_to_cuda() -> None:
    p = Partition(4096, 8)
    moved = [p.expert_map(turn % 8, device="cuda") for turn in range(2000)]
    for turn, table in enumerate(moved):
        assert torch.equal(table.cpu(), p.expert_map(turn % 8)), turn


@pytest.mark.cuda
@needs_cuda
@each_query
def test_batches_on_cuda_answer_on_cuda(query: str) -> None:
    ids = torch.arange(8, device="cuda")
    answer = ask(query, ids)
    assert answer.device == ids.device
    assert torch.equal(answer.cpu(), ask(query, ids.cpu()))
    assert torch.equal(ask(query, ids[::2]).cpu(), ask(query, ids.cpu()[::2]))


def test_the_hand_over_in_use_is_in_the_build_info() -> None:
    Partition(30, 8).counts()
    assert build_info()["tensor_hand_over"] in HAND_OVERS
