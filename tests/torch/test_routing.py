"""Routing, of three implementations: they obey the specification and torch's own rules. SPEC.md, "Routing"."""

from __future__ import annotations

import copy
import ctypes
import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="this is the torch implementation")

import numpy as np
import torch
from expert_placement import Partition, Placement, Topology, rebalance
from expert_placement.torch import Routed, RoutingTables, route, warm_up
from expert_placement.torch.routing import operators
from expert_placement.torch.routing.request import OUTPUTS, Request
from expert_placement_spec import CHAPTERS
from expert_placement_spec.adapter import load_model
from expert_placement_spec.case_check import check_cases, drawn_cases, offered_laws
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
OLMOE = ROOT / "examples/data/olmoe-1b-7b"
CONFORMANCE = "expert_placement.conformance"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
each_implementation = pytest.mark.parametrize("implementation", ["torch", "rust", "triton"])


def placement_of(experts: int, slots: int, ranks: int, nodes: int = 1, layers: int = 2) -> Placement:
    """A plan for skewed loads, so that some experts have replicas."""
    generator = torch.Generator().manual_seed(experts + slots)
    loads = torch.rand(layers, experts, generator=generator, dtype=torch.float64) ** 4
    return rebalance(loads, slots, Topology(ranks, nodes))


def ids_of(tokens: int, top_k: int, experts: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Ids of which some are no expert."""
    generator = torch.Generator().manual_seed(tokens)
    return torch.randint(-2, experts + 2, (tokens, top_k), generator=generator, dtype=dtype)


def same(left: Routed, right: Routed) -> list[str]:
    """The fields in which two answers differ."""
    fields = zip(OUTPUTS, left, right, strict=True)
    return [name for name, one, other in fields if not (one is other is None or is_equal(one, other))]


def is_equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def violations(name: str, cases: list[Any]) -> list[str]:
    chapter, model = CHAPTERS["routing"], load_model(f"{CONFORMANCE}:{name}")
    laws = offered_laws(chapter, model)
    assert laws == list(chapter.laws.values())
    outcomes = check_cases(chapter, model, laws, cases)
    return [one.counterexample.call() for one in outcomes if one.counterexample is not None]


def quick_cases(every: int) -> list[Any]:
    domain = CHAPTERS["routing"].domains["quick"]
    return [case for block in domain.blocks() for case in domain.cases(block)][::every]


# The interpreter takes a hundred times as long; the kernels themselves are looked at on a GPU.
@pytest.mark.parametrize(
    ("name", "every", "samples"), [("RustRouting", 1, 60), ("TorchRouting", 2, 40), ("TritonRouting", 24, 4)]
)
def test_each_implementation_obeys_every_law(name: str, every: int, samples: int) -> None:
    """Domain: that of SPEC.md, "How placements are checked", in part, and random cases."""
    if name == "TritonRouting" and torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    assert violations(name, quick_cases(every)) == []
    assert violations(name, drawn_cases("routing", samples)) == []


@pytest.mark.cuda
@needs_cuda
def test_the_kernels_obey_every_law_on_a_gpu() -> None:
    """Every size compiles kernels of its own, of a second each: so these are few."""
    cases = [case for case in quick_cases(1) if case.num_experts == 2 and len(case.row) == 4 and len(case.ids[0]) == 2]
    assert len(cases) >= 40
    assert violations("CudaRouting", cases) == []


@each_implementation
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("tokens", [3, 40, 150])
def test_implementations_agree_where_one_block_does_not_do(implementation: str, exact: bool, tokens: int) -> None:
    """Several blocks of ids, and more slots than a histogram of a power of two has."""
    if implementation == "triton" and torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    tables = RoutingTables(placement_of(56, 68, 4), rank=2, max_slots=70)
    ids = ids_of(tokens, 8, 56, torch.int64)
    options: dict[str, Any] = {"layer": 1, "want": OUTPUTS, "exact": exact, "token_offset": 2**32 - 7, "seed": 11}
    loads = [torch.ones(70, dtype=torch.int64) for _ in range(2)]
    routed = route(ids, tables, load=loads[0], implementation=implementation, **options)
    stated = route(ids, tables, load=loads[1], implementation="torch", **options)
    assert same(routed, stated) == []
    assert torch.equal(*loads)


# By how many ids another number of kernels, or of blocks in each, begins.
BLOCKS = (20, 260, 4160, 8320)
KINDS = ("plain", "weighted", "sender")


def tables_of(kind: str, placement: Placement, **options: Any) -> RoutingTables:
    if kind == "sender":
        return RoutingTables.for_sender(placement, 1, **options)
    weights = torch.rand(2, placement.num_slots, dtype=torch.float64) if kind == "weighted" else None
    return RoutingTables(placement, rank=1, weights=weights, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", BLOCKS)
@pytest.mark.parametrize("implementation", ["rust", "triton"])
def test_kinds_of_tables_options_and_strides_go_together(kind: str, ids: int, implementation: str) -> None:
    """Every path of the kernels, each with weights, a sender, padding, numbers in tensors and ids that are apart."""
    if implementation == "triton" and torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    tables = tables_of(kind, placement_of(10, 16, 4, 2), max_slots=17)
    given = ids_of(ids // 4, 8, 10, torch.int64)
    apart = torch.stack((given, given + 3), dim=2).transpose(0, 1)[:, :, 0].transpose(0, 1)[:, ::2]
    assert not apart.is_contiguous()
    wants = (OUTPUTS, ("slots", "local_slots"), ("rank_offsets",))
    for exact in (False, True) if kind != "weighted" else (False,):
        for want in wants:
            loads = [torch.ones(17, dtype=torch.int32) for _ in range(2)]
            numbers: dict[str, Any] = {"token_offset": torch.tensor(-5), "valid_tokens": torch.tensor(len(apart) - 2)}
            options: dict[str, Any] = {"layer": 1, "want": want, "exact": exact, "seed": 2**40 + 3, **numbers}
            routed = route(apart, tables, load=loads[0], implementation=implementation, **options)
            stated = route(apart, tables, load=loads[1], implementation="torch", **options)
            assert same(routed, stated) == []
            assert torch.equal(*loads)


@each_implementation
def test_tokens_without_ids_have_nothing(implementation: str) -> None:
    if implementation == "triton" and torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    tables = RoutingTables(placement_of(10, 16, 4), rank=1)
    for shape in ((5, 0), (0, 4), (0, 0)):
        for exact in (False, True):
            ids = torch.empty(shape, dtype=torch.int32)
            routed = route(ids, tables, layer=0, want=OUTPUTS, exact=exact, implementation=implementation)
            assert routed.slots is not None
            assert routed.slots.shape == shape
            assert [int(field.sum()) for field in routed if field is not None] == [0] * len(OUTPUTS)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_tables_go_together_on_a_gpu(kind: str) -> None:
    tables = tables_of(kind, placement_of(256, 288, 32, 4), device="cuda")
    for tokens in (5, 300, 700, 3000):
        ids = ids_of(tokens, 16, 256, torch.int64).cuda()[:, ::2]
        for exact in (False, True) if kind != "weighted" else (False,):
            options: dict[str, Any] = {"layer": 1, "want": OUTPUTS, "exact": exact, "valid_tokens": tokens - 1}
            assert same(route(ids, tables, **options), route(ids, tables, implementation="torch", **options)) == []


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("exact", [False, True])
def test_the_kernels_agree_with_plain_operations(exact: bool) -> None:
    """Sizes at which another grain, another number of kernels or another way to launch begins; one shape of tables."""
    tables = RoutingTables(placement_of(256, 288, 32, 4), rank=3, device="cuda")
    for tokens in (1, 4, 32, 33, 128, 129, 256, 300, 512, 513, 1024, 2048, 4096, 16384, 40000, 65536):
        for dtype in (torch.int32, torch.int64):
            ids = ids_of(tokens, 8, 256, dtype).cuda()
            for want in (OUTPUTS, ("slots",), ("slot_offsets", "rank_counts")):
                loads = [torch.ones(288, dtype=torch.int64, device="cuda") for _ in range(2)]
                # Twice: the second launch goes another way.
                for _ in range(2):
                    options: dict[str, Any] = {"layer": 1, "want": want, "exact": exact, "seed": 5}
                    routed = route(ids, tables, load=loads[0], **options)
                    stated = route(ids, tables, load=loads[1], implementation="torch", **options)
                    assert same(routed, stated) == [], (tokens, dtype)
                    assert torch.equal(*loads)


def test_replicas_share_recorded_ids_evenly() -> None:
    """Ids of a batch drawn from recorded counts, over the plan for these: each replica within six deviations."""
    batch = torch.tensor(json.loads((OLMOE / "topk_ids.json").read_text())["topk_ids"]).repeat(40, 1)
    loads = torch.bincount(batch.flatten(), minlength=64)[None]
    placement = rebalance(loads, 96, Topology(8))
    counts = route(batch, RoutingTables(placement), want=("slot_counts",)).slot_counts
    assert counts is not None
    for expert in range(64):
        uses = counts[placement.physical_to_logical()[0] == expert].double()
        fair = float(loads[0, expert]) / len(uses)
        assert (uses - fair).abs().max() <= 6 * (fair * (1 - 1 / len(uses))) ** 0.5 + 1, expert


@pytest.mark.parametrize("stride", [2, 3, 8, 64])
def test_no_stride_of_tokens_finds_one_replica_alone(stride: int) -> None:
    """What defeats the token's number modulo the replicas: every so many tokens."""
    placement = Placement.from_physical_to_logical([[0] * 8], num_experts=1, topology=Topology(8))
    ids = torch.full((4096 * stride, 1), -1)
    ids[::stride] = 0
    counts = route(ids, RoutingTables(placement), want=("slot_counts",)).slot_counts
    assert counts is not None
    assert (counts - 512).abs().max() <= 6 * (4096 * 7 / 64) ** 0.5


def test_parts_that_ranks_serve_add_up_to_the_whole() -> None:
    """Every rank works out by itself what it serves; over all ranks each id is served once, by its expert."""
    placement, ids = placement_of(32, 44, 5), ids_of(64, 4, 32)
    served = torch.zeros_like(ids)
    for rank in range(5):
        local = route(ids, RoutingTables(placement, rank=rank), layer=0, want=("local_slots",)).local_slots
        assert local is not None
        experts = placement.local_experts(0, rank)
        served += local >= 0
        assert torch.equal(experts[local[local >= 0].long()], ids[local >= 0])
    assert torch.equal(served, ((ids >= 0) & (ids < 32)).int())


def test_partitions_route_to_their_owners() -> None:
    partition = Partition(30, 8)
    ids = torch.arange(30)[:, None]
    counts = route(ids, RoutingTables(partition), want=("slots", "rank_counts"))
    assert counts.slots is not None
    assert torch.equal(counts.slots, ids.int())
    assert counts.rank_counts is not None
    assert counts.rank_counts.tolist() == partition.counts().tolist()


# Tables.


def test_an_update_keeps_the_address() -> None:
    first, second = placement_of(16, 24, 4), rebalance(torch.rand(2, 16), 20, Topology(4))
    tables = RoutingTables(first, rank=0)
    address, row = tables.data.data_ptr(), tables.row(1)
    tables.update(second)
    assert tables.data.data_ptr() == address
    assert tables.row(1) is row
    assert tables.max_slots == 24
    ids = ids_of(50, 4, 16)
    for layer in range(2):
        made = route(ids, RoutingTables(second, max_slots=24, rank=0), layer=layer, want=OUTPUTS)
        assert same(route(ids, tables, layer=layer, want=OUTPUTS), made) == []


def test_one_layer_is_updated_alone() -> None:
    first, second = placement_of(16, 24, 4), rebalance(torch.rand(2, 16), 24, Topology(4))
    tables = RoutingTables(first)
    tables.update(second, layer=1)
    ids = ids_of(50, 4, 16)
    for layer, source in enumerate((first, second)):
        assert torch.equal(slots(ids, tables, layer), slots(ids, RoutingTables(source), layer))


def slots(
    ids: torch.Tensor, tables: RoutingTables, layer: int | None = None, implementation: str | None = None
) -> torch.Tensor:
    answer = route(ids, tables, layer=layer, implementation=implementation).slots
    assert answer is not None
    return answer


def test_tables_of_one_layer_know_its_number() -> None:
    placement = placement_of(16, 24, 4)
    tables = RoutingTables(placement, layer=1)
    assert tables.layers == range(1, 2)
    ids = ids_of(20, 4, 16)
    assert torch.equal(slots(ids, tables), slots(ids, RoutingTables(placement), 1))
    assert torch.equal(slots(ids, tables, 1), slots(ids, tables))
    with pytest.raises(IndexError, match=r"layer=0 is out of range, expected 1\.\.2 as the tables have"):
        route(ids, tables, layer=0)


@pytest.mark.parametrize("made_again", [copy.deepcopy, copy.copy, lambda tables: pickle.loads(pickle.dumps(tables))])
def test_copies_of_tables_have_rows_of_their_own_content(made_again: Any) -> None:
    tables = RoutingTables(placement_of(16, 24, 4), rank=1)
    again = made_again(tables)
    assert (again.rank, again.sizes, again.layers) == (tables.rank, tables.sizes, tables.layers)
    again.update(rebalance(torch.rand(2, 16), 24, Topology(4)))
    assert again.row(0).data_ptr() == again.data.data_ptr()


def test_tables_are_compact() -> None:
    """58 layers of 256 experts in 288 slots on 32 ranks: a third of a mebibyte."""
    tables = RoutingTables(Placement.from_partition(Partition(256, 32), 58), max_slots=288)
    assert tables.data.dtype == torch.int32
    assert tables.data.nbytes < 360_000


WRONG_TABLES: list[tuple[Any, type[Exception], str]] = [
    (lambda p: RoutingTables(p.topology), TypeError, "placement must be a Placement or a Partition, got `Topology`"),
    (lambda p: RoutingTables(p, layer=2), IndexError, "layer=2 is out of range, expected 0..2"),
    (lambda p: RoutingTables(p, rank=4), IndexError, "rank=4 is out of range, expected 0..4"),
    (lambda p: RoutingTables(p, rank=True), TypeError, "rank must be an int, got `bool`"),
    (lambda p: RoutingTables(p, max_slots=23), ValueError, "max_slots=23 is out of range, expected 24..=65535"),
    (lambda p: RoutingTables(p, max_slots=65536), ValueError, "max_slots=65536 is out of range, expected 24..=65535"),
    (lambda p: RoutingTables(p, device="nonsense"), ValueError, "device=`nonsense` cannot be used"),
    (lambda p: RoutingTables(p, weights=[[1.0] * 24]), ValueError, r"weights has shape \[1, 24\], expected \[2, 24\]"),
    (lambda p: RoutingTables(p, weights=[["a"] * 24] * 2), TypeError, "weights must be"),
    (
        lambda p: RoutingTables(Partition(65536, 2)),
        ValueError,
        "num_slots=65536, expected at most 65535 in routing tables",
    ),
    (lambda p: RoutingTables.for_sender(p, -1), IndexError, "rank=-1 is out of range, expected 0..4"),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG_TABLES)
def test_wrong_tables_are_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(placement_of(16, 24, 4))


def test_updates_that_do_not_fit_change_nothing() -> None:
    tables = RoutingTables(placement_of(16, 24, 4))
    before = tables.data.clone()
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (placement_of(16, 28, 4), {}, "max_slots=28 would do"),
        (placement_of(16, 24, 4, layers=3), {}, "num_layers=3, expected 2"),
        (placement_of(16, 24, 8), {}, "num_ranks"),
        (placement_of(12, 24, 4), {}, "num_experts"),
        (placement_of(16, 24, 4), {"weights": torch.ones(2, 24)}, "takes no weights"),
    ]
    for placement, options, text in wrong:
        with pytest.raises(ValueError, match=text):
            tables.update(placement, **options)
    assert torch.equal(tables.data, before)


# What is refused.

IDS = ids_of(4, 2, 16)
WRONG_CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([[0, 1]], {}, TypeError, "topk_ids must be a tensor, got `list`"),
    (IDS.float(), {}, TypeError, "topk_ids must have dtype int32 or int64, got float32"),
    (IDS.to(torch.int16), {}, TypeError, "topk_ids must have dtype int32 or int64, got int16"),
    (IDS.flatten(), {}, ValueError, r"topk_ids has 1 dimensions, expected 2, \[T, k\]"),
    (IDS.to_sparse(), {}, TypeError, "topk_ids must be a dense tensor"),
    (torch.empty(2, 2, dtype=torch.int32, device="meta"), {}, ValueError, "topk_ids is on meta, expected cpu"),
    (torch.empty(1, 2, dtype=torch.int32).expand(2**30, 2), {}, ValueError, r"topk_ids.numel\(\)=2147483648 is out of"),
    (IDS, {"layer": 2}, IndexError, r"layer=2 is out of range, expected 0\.\.2"),
    (IDS, {"layer": None}, TypeError, "layer must be an int where the tables have 2 layers"),
    (IDS, {"layer": True}, TypeError, "layer must be an int, got `bool`"),
    (IDS, {"token_offset": -1}, ValueError, "token_offset=-1 is out of range"),
    (IDS, {"token_offset": 1.5}, TypeError, "token_offset must be an int or a tensor, got `float`"),
    (
        IDS,
        {"seed": torch.tensor(1.0)},
        TypeError,
        "seed must be an int or a tensor of dtype int32 or int64, got float32",
    ),
    (IDS, {"seed": torch.tensor([1, 2])}, ValueError, "seed has 2 elements, expected 1"),
    (IDS, {"seed": torch.empty((), dtype=torch.int32, device="meta")}, ValueError, "seed is on meta, expected cpu"),
    (
        IDS,
        {"valid_tokens": 5},
        ValueError,
        r"valid_tokens=5 is out of range, expected 0\.\.=4: there are no more tokens",
    ),
    (IDS, {"valid_tokens": -1}, ValueError, "valid_tokens=-1 is out of range"),
    (IDS, {"want": "slots"}, TypeError, "want must be a sequence of names, got `str`"),
    (IDS, {"want": b"slots"}, TypeError, "want must be a sequence of names, got `bytes`"),
    (IDS, {"want": None}, TypeError, "want must be a sequence of names: "),
    (IDS, {"want": [["slots"]]}, TypeError, "want must be a sequence of names: "),
    (IDS, {"seed": torch.tensor([3]).to_sparse()}, TypeError, "seed must be a dense tensor"),
    (IDS, {"want": ("slots", "slot")}, ValueError, "want=`slot` is unknown, expected some of `slots`"),
    (IDS, {"want": ("local_slots",)}, ValueError, "want=`local_slots` needs tables with a rank"),
    (IDS, {"exact": 1}, TypeError, "exact must be a bool, got `builtins.int`"),
    (IDS, {"exact": np.bool_(True)}, TypeError, "exact must be a bool, got `numpy.bool"),
    (IDS, {"implementation": "cuda"}, ValueError, "implementation=`cuda` is unknown"),
    (IDS, {"implementation": 3}, TypeError, "implementation must be a str, got `int`"),
    (IDS, {"load": [0] * 24}, TypeError, "load must be a tensor, got `list`"),
    (IDS, {"load": torch.zeros(24)}, TypeError, "load must have dtype int32 or int64, got float32"),
    (IDS, {"load": torch.zeros(23, dtype=torch.int32)}, ValueError, r"load has shape \[23\], expected \[24\]"),
    (IDS, {"load": torch.zeros(1, dtype=torch.int32).expand(24)}, ValueError, "load must be contiguous"),
    (IDS, {"load": torch.zeros(24, dtype=torch.int32, device="meta")}, ValueError, "load is on meta, expected cpu"),
]


@pytest.mark.parametrize(("ids", "options", "error", "text"), WRONG_CALLS)
def test_wrong_calls_are_refused(ids: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    tables = RoutingTables(placement_of(16, 24, 4))
    with pytest.raises(error, match=text):
        route(ids, tables, **{"layer": 0, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here, and not interpreted")
def test_tables_too_large_for_the_kernels_are_for_plain_operations() -> None:
    tables = RoutingTables(Partition(5000, 2))
    with pytest.raises(
        ValueError, match=r"num_experts=5000 is out of range for implementation=`triton`, expected 0\.\.4096"
    ):
        route(IDS, tables, implementation="triton")
    assert torch.equal(slots(IDS, tables), torch.where(IDS < 0, -1, IDS))


def test_the_kernels_are_refused_on_the_cpu_unless_they_are_interpreted() -> None:
    code = (
        "import torch\nfrom expert_placement import Partition\n"
        "from expert_placement.torch import RoutingTables, route\n"
        "try: route(torch.zeros(1, 1, dtype=torch.int32), RoutingTables(Partition(2, 1)), implementation='triton')\n"
        "except ValueError as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("implementation=`triton` is for CUDA, and topk_ids is on cpu; with the environment"), (
        ran
    )


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("want", [("slots",), OUTPUTS])
def test_after_a_warm_up_nothing_is_compiled(
    want: tuple[str, ...], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher stands for one compiled kernel; the interpreter shows which are asked for, without compiling them."""
    launch = operators.kernels()
    if launch is None or torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    tables, load = RoutingTables(placement_of(10, 16, 4), rank=1), torch.zeros(16, dtype=torch.int32)
    made = []

    class Counted(launch.Launcher):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    launch._launcher.cache_clear()
    monkeypatch.setattr(launch, "Launcher", Counted)

    def ask(tokens: int) -> None:
        ids = ids_of(tokens, 8, 10)
        route(ids, tables, layer=0, want=want, exact=exact, load=load, implementation="triton")

    for number in launch.ways(600 * 8):
        ask(max(number // 8, 1))
    prepared = len(made)
    for tokens in (1, 3, 5, 9, 17, 31, 33, 60, 65, 100, 129, 200, 257, 400, 513, 600):
        ask(tokens)
    assert len(made) == prepared >= 3


def by_address(address: int | None, number: int, dtype: torch.dtype) -> torch.Tensor | None:
    """A tensor over memory that stands somewhere."""
    if address is None:
        return None
    memory = (ctypes.c_char * (number * dtype.itemsize)).from_address(address)
    return torch.frombuffer(memory, dtype=dtype)


class AsCompiled:
    """The kernel that maps ids, by the interpreter; it takes addresses and a stream, as compiled code does."""

    def __init__(self, tables: RoutingTables, dtypes: tuple[torch.dtype, torch.dtype | None]) -> None:
        self.width, self.dtypes, self.runs = tables.data.shape[1], dtypes, 0

    def __call__(self, num_blocks: int, *given: Any) -> None:
        self.runs += 1
        assert given[:2] == (1, 1)
        ids, table, slots, local_slots, counters, rows, num_ids, *rest = given[8:]
        assert local_slots is rows is None
        of_ids, of_load = self.dtypes
        tensors = [
            by_address(ids, num_ids, of_ids),
            by_address(table, self.width, torch.int32),
            by_address(slots, num_ids, torch.int32),
            None,
            by_address(counters, 24, of_load or torch.int32),
            None,
        ]
        launch = operators.kernels()
        launch.kernels.map_kernel[(num_blocks,)](*tensors, num_ids, *rest, num_warps=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here, and not interpreted")
@pytest.mark.parametrize("of_load", [None, torch.int32, torch.int64])
@pytest.mark.parametrize("of_ids", [torch.int32, torch.int64])
def test_calls_like_an_earlier_one_start_at_once(
    monkeypatch: pytest.MonkeyPatch, of_ids: torch.dtype, of_load: torch.dtype | None
) -> None:
    """What stands between an eager call and compiled code; a graph or a GPU sees the same."""
    launch = operators.kernels()
    if launch is None:
        pytest.skip("Triton is not here")
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: -1, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: 0, raising=False)
    launch._launcher.cache_clear()
    tables = RoutingTables(placement_of(16, 24, 4), rank=1)
    run = AsCompiled(tables, (of_ids, of_load))

    def load() -> torch.Tensor | None:
        return None if of_load is None else torch.ones(24, dtype=of_load)

    first = ids_of(9, 8, 16, of_ids)
    request = request_of(tables, first, wanted=1, load=load())
    launch.route(request)
    launch.remember(request, tables.starts)
    assert not tables.starts, "nothing was compiled"
    launcher = launch._Call(request).map_launcher(request.load, None, launch.grain_of(72))
    launcher.compiled[-1] = sys.modules[launch.Launcher.__module__].Compiled(run, 0, 0, None)
    apart = ids_of(9, 16, 16, of_ids)[:, ::2]
    for other in (
        {"wanted": 3},
        {"is_exact": True},
        {"seed": torch.tensor(1)},
        {"topk_ids": first[:0]},
        {"topk_ids": apart},
        {"topk_ids": Tagged(first)},
    ):
        launch.remember(request._replace(**other), tables.starts)
        assert not tables.starts, other
    launch.remember(request, tables.starts)
    assert len(tables.starts) == 1
    launch.remember(request, tables.starts)
    assert len(tables.starts) == 1

    def runs(ids: torch.Tensor, **options: Any) -> int:
        """How often compiled code was started for a call, which must give what plain operations give."""
        before, loads = run.runs, [load(), load()]
        if "load" in options:
            loads = [None if options["load"] is None else options["load"].clone() for _ in range(2)]
        ours = route(ids, tables, **{**options, "load": loads[0]})
        stated = route(ids, tables, **{**options, "load": loads[1], "implementation": "torch"})
        assert same(ours, stated) == []
        assert loads[0] is loads[1] is None or is_equal(*loads)
        assert ours.slots is not None
        assert ours.slots.is_contiguous()
        return run.runs - before

    for options in (
        {"layer": 0},
        {"layer": 1, "seed": 2**40 + 2**31 + 5, "token_offset": 2**32 - 3},
        {"layer": 1, "seed": 2**31 - 1, "token_offset": 2**31},
        {"layer": 0, "seed": 2**63 - 1, "token_offset": 2**63 - 1},
        {"layer": 0, "valid_tokens": 4},
        {"layer": 1, "valid_tokens": 0},
        {"layer": 1, "want": ("slots",)},
    ):
        assert runs(first, **options) == 1, options
        assert runs(ids_of(12, 8, 16, of_ids), **options) == 1, options
    assert runs(first, layer=1, implementation="triton") == 1, "not by what was remembered, but by the launcher itself"
    # One row of a wider tensor is contiguous, and strides of the answer are its own.
    assert runs(ids_of(9, 96, 16, of_ids)[:1, :72].view(9, 8), layer=0) == 1

    # One thing is other than it was: served as well, in another way.
    room = torch.zeros(27, dtype=of_load or torch.int32)
    another = torch.int64 if of_ids == torch.int32 else torch.int32
    aligned = torch.empty(80, dtype=of_ids)
    aligned[1:73] = first.flatten()
    others: Any = (
        ("more ids", ids_of(200, 8, 16, of_ids), {}),
        ("no ids", first[:0], {}),
        ("k", first.view(18, 4), {}),
        ("the dtype", first.to(another), {}),
        ("strides", apart, {}),
        ("the address", aligned[1:73].view(9, 8), {}),
        ("the class", Tagged(first), {}),
        ("the seed", first, {"seed": torch.tensor(3)}),
        ("what is wanted", first, {"want": ("slots", "local_slots")}),
        ("the choice", first, {"exact": True}),
        ("the load", first, {"load": torch.zeros(24, dtype=torch.int32) if of_load is None else None}),
        (
            "the load's dtype",
            first,
            {"load": torch.zeros(24, dtype=torch.int64 if of_load != torch.int64 else torch.int32)},
        ),
    )
    for what, ids, options in others:
        assert runs(ids, layer=0, **options) == 0, what
    if of_load is not None:
        before = run.runs
        route(first, tables, layer=0, load=room[1:25])
        assert run.runs == before, "the load is not aligned"
    for place in ("launch_enter_hook", "launch_exit_hook"):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["triton"].knobs.runtime, place, lambda *_: None)
            assert runs(first, layer=0) == 0, "a profiler looks"
    with monkeypatch.context() as patch:
        patch.setattr(torch._C, "_cuda_getDevice", lambda: 1)
        assert runs(first, layer=0) == 0, "another device is the current one"
    with Silent():  # type: ignore[no-untyped-call]
        assert runs(first, layer=0) == 0, "a mode looks"
    assert runs(first, layer=0) == 1
    refusals: Any = (
        (first, {"layer": 2}, IndexError),
        (first, {"layer": None}, TypeError),
        (first, {"seed": -1}, ValueError),
        (first, {"seed": 2**63}, ValueError),
        (first, {"token_offset": 1.0}, TypeError),
        (first, {"valid_tokens": 10}, ValueError),
        (first, {"valid_tokens": -1}, ValueError),
        (first, {"load": torch.zeros(23, dtype=of_load or torch.int32)}, ValueError),
        (first, {"load": torch.zeros(48, dtype=of_load or torch.int32)[::2]}, ValueError),
        (first, {"load": torch.zeros(24, dtype=of_load or torch.int32, device="meta")}, ValueError),
        (first, {"load": torch.zeros(24, dtype=of_load or torch.int32).to_sparse()}, TypeError),
        (first, {"load": [0]}, TypeError),
        (first[0], {}, ValueError),
        (first[None], {}, ValueError),
        (first.to_sparse(), {}, TypeError),
        (first.tolist(), {}, TypeError),
    )
    for ids, wrong, error in refusals:
        before = run.runs
        with pytest.raises(error):
            route(ids, tables, **{"layer": 0, "load": load(), **wrong})
        assert run.runs == before
    assert copy.copy(tables).starts == copy.deepcopy(tables).starts == pickle.loads(pickle.dumps(tables)).starts == {}


class Tagged(torch.Tensor):
    """A subclass, which may do anything with what is done to it."""


class Silent(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that does nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("kind", ["plain", "weighted"])
def test_calls_like_an_earlier_one_start_at_once_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Every grain, on another stream and in a graph, too; weighted tables at some."""
    launch = operators.kernels()
    first, second = placement_of(256, 288, 32, 4), rebalance(torch.rand(2, 256), 288, Topology(32, 4))
    tables, started = tables_of(kind, first, device="cuda"), []
    start_again = launch.start_again

    def spied(*arguments: Any) -> Any:
        slots = start_again(*arguments)
        started.append(slots is not None)
        return slots

    monkeypatch.setattr(launch, "start_again", spied)
    dtypes: list[tuple[torch.dtype, torch.dtype | None]] = [(torch.int32, None), (torch.int32, torch.int32)]
    dtypes += [(torch.int64, torch.int64)]
    for tokens in (1, 20, 200, 400, 1000, 3000, 10000, 40000) if kind == "plain" else (20, 400):
        for of_ids, of_load in dtypes:
            ids = ids_of(tokens, 8, 256, of_ids).cuda()
            for seed in (0, 2**31 + 7, 2**63 - 1):
                loads = [None if of_load is None else torch.ones(288, dtype=of_load, device="cuda") for _ in range(2)]
                numbers: dict[str, Any] = {
                    "layer": 1,
                    "seed": seed,
                    "token_offset": seed // 2,
                    "valid_tokens": tokens - 1,
                }
                stated = route(ids, tables, load=loads[0], implementation="torch", **numbers)
                ours = route(ids, tables, load=loads[1], **numbers)
                assert same(ours, stated) == [], (tokens, of_ids, of_load, seed)
                assert started[-1:] == [bool(seed)] or not (seed or started), "only the first of a kind is looked at"
                assert loads[0] is loads[1] is None or is_equal(*loads)
    started.clear()
    ids = ids_of(20, 8, 256).cuda()
    load = torch.zeros(288, dtype=torch.int32, device="cuda")
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        routed = route(ids, tables, layer=0, load=load)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = route(ids, tables, layer=0, load=load)
    assert started == [True, True]
    assert same(routed, route(ids, tables, layer=0, implementation="torch")) == []
    weights = torch.rand(2, 288, dtype=torch.float64) + 0.1 if kind == "weighted" else None
    tables.update(second, weights=weights)
    load.zero_()
    graph.replay()
    assert same(captured, route(ids, tables, layer=0, implementation="torch")) == []
    assert captured.slots is not None
    assert int(load.sum()) == int(captured.slots.ge(0).sum())

    def summed(weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        slots = route(ids, tables, layer=0).slots
        assert slots is not None
        return (weight * slots).sum()

    # Tensors of transforms have no storage, and look like any other.
    torch.func.grad(summed)(torch.ones((), device="cuda"), ids)
    assert torch.func.grad(summed, argnums=0)(torch.ones((), device="cuda"), ids).isfinite()


def test_a_warm_up_is_a_call_of_route() -> None:
    tables = RoutingTables(placement_of(10, 16, 4), rank=1)
    warm_up(tables, 8, 100, dtype=torch.int64, load_dtype=torch.int32, want=iter(OUTPUTS), exact=True)
    for wrong, text in (((0, 100), "top_k=0 is out of range"), ((8, 0), "max_tokens=0 is out of range")):
        with pytest.raises(ValueError, match=text):
            warm_up(tables, *wrong)
    with pytest.raises(ValueError, match=r"max_tokens=5 is out of range, expected 1\.\.=4 for top_k=268435456"):
        warm_up(tables, 2**28, 5)
    warm_up(tables, 2**28, 4)
    for options, text in (
        ({"dtype": torch.int16}, "dtype must be torch.int32 or torch.int64, got `torch.int16`"),
        ({"dtype": None}, "dtype must be torch.int32 or torch.int64, got `None`"),
        ({"load_dtype": "int32"}, "load_dtype must be torch.int32 or torch.int64, got `int32`"),
        ({"want": 5}, "want must be a sequence of names"),
    ):
        wrong_options: dict[str, Any] = {**options}
        with pytest.raises(TypeError, match=text):
            warm_up(tables, 8, 100, **wrong_options)


def test_tables_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match="tables must be a RoutingTables, got `Tensor`"):
        route(IDS, torch.zeros(3), layer=0)  # type: ignore[arg-type]
    for want in (("slots",), ("slots", "order")):
        with pytest.raises(TypeError, match="tables must be a RoutingTables, got `Disguised`"):
            route(IDS, Disguised(RoutingTables), layer=0, want=want)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="placement must be a Placement or a Partition, got `Disguised`"):
        RoutingTables(Disguised(Placement))  # type: ignore[arg-type]


class Disguised:
    """What says that it is of another class."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self.kind


def test_what_is_wanted_is_a_short_sequence_of_names() -> None:
    tables = RoutingTables(placement_of(16, 24, 4))
    wrong: Any = {"slots": 1}
    with pytest.raises(TypeError, match=r"^want must be a sequence of names, got `dict`$"):
        route(IDS, tables, layer=0, want=wrong)
    with pytest.raises(ValueError, match=r"^want has more than 1024 names, expected fewer$"):
        route(IDS, tables, layer=0, want=itertools.repeat("slots"))
    wrong = [10**5000]
    with pytest.raises(ValueError, match=r"^want=`a huge integer` is unknown, expected some of `slots`"):
        route(IDS, tables, layer=0, want=wrong)
    nested: Any = []
    for _ in range(10**4):
        nested = [nested]
    with pytest.raises(TypeError, match=r"^dtype must be torch.int32 or torch.int64, got `a value of the type list`$"):
        warm_up(tables, 2, 4, dtype=nested)


def test_tensors_without_values_beside_tables_are_refused_by_their_names() -> None:
    tables = RoutingTables(placement_of(16, 24, 4))
    with FakeTensorMode() as mode:
        ids, load = mode.from_tensor(IDS), mode.from_tensor(torch.zeros(24, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^topk_ids must be a dense tensor whose values are known"):
        route(ids, tables, layer=0)
    with pytest.raises(TypeError, match=r"^load must be a dense tensor whose values are known"):
        route(IDS, tables, layer=0, load=load)


def test_a_load_of_inference_mode_is_added_to_inside_of_it_alone() -> None:
    tables = RoutingTables(placement_of(16, 24, 4))
    with torch.inference_mode():
        load = torch.zeros(24, dtype=torch.int64)
        route(IDS, tables, layer=0, load=load)
    with pytest.raises(ValueError, match=r"^load must be a tensor that can be added to in place: Inplace"):
        route(IDS, tables, layer=0, load=load, implementation="rust")


def test_exact_and_weights_exclude_each_other() -> None:
    placement = placement_of(16, 24, 4)
    tables = RoutingTables(placement, weights=torch.ones(2, 24))
    with pytest.raises(ValueError, match="exact can not be had together with weights"):
        route(IDS, tables, layer=0, exact=True)


# Numbers in tensors.


@each_implementation
def test_numbers_in_tensors_are_as_good_as_ints(implementation: str) -> None:
    """Also negative ones, which are numbers modulo 2^32, and valid tokens of any value."""
    if implementation == "triton" and torch.cuda.is_available():
        pytest.skip("the kernels are compiled here, and not interpreted")
    tables, ids = RoutingTables(placement_of(16, 24, 4)), ids_of(9, 2, 16)
    for dtype in (torch.int32, torch.int64):
        for offset, seed, valid in ((5, 3, 4), (-1, -2, 9), (0, 0, 0), (7, 1, 100), (7, 1, -3)):
            given = [torch.tensor(number, dtype=dtype) for number in (offset, seed, valid)]
            options: dict[str, Any] = {"layer": 0, "want": ("slots", "slot_counts"), "implementation": implementation}
            # A number is one in whatever shape.
            given[1] = given[1].reshape(1, 1, 1)
            names = ("token_offset", "seed", "valid_tokens")
            numbers: dict[str, Any] = dict(zip(names, given, strict=True))
            ints: dict[str, Any] = dict(zip(names, (offset % 2**32, seed % 2**32, min(max(valid, 0), 9)), strict=True))
            assert same(route(ids, tables, **numbers, **options), route(ids, tables, **ints, **options)) == []


# The operator.


def request_of(tables: RoutingTables, ids: torch.Tensor, **options: Any) -> Request:
    numbers = (0, 0, len(ids))
    plain = Request(ids, tables.row(0), tables.sizes, tables.parts, *numbers, tables.rank or 0, False, 255, None)
    return plain._replace(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wanted": 1},
        {"is_exact": True},
        {"load": torch.zeros(24, dtype=torch.int32)},
        {"token_offset": torch.tensor(3), "seed": torch.tensor(4), "valid_tokens": torch.tensor(2)},
    ],
)
def test_the_operator_keeps_the_rules_of_operators(options: dict[str, Any]) -> None:
    tables = RoutingTables(placement_of(16, 24, 4), rank=1)
    arguments = operators.taken_apart(request_of(tables, ids_of(6, 2, 16), **options))
    assert set(torch.library.opcheck(operators.operator, arguments).values()) == {"SUCCESS"}


@pytest.mark.parametrize("implementation", ["torch", "rust"])
def test_each_implementation_compiles_whole(implementation: str) -> None:
    tables, ids = RoutingTables(placement_of(16, 24, 4), rank=1), ids_of(6, 2, 16)

    def step(ids: torch.Tensor) -> Routed:
        return route(ids, tables, layer=0, want=OUTPUTS, implementation=implementation)

    assert same(torch.compile(step, fullgraph=True, backend="aot_eager")(ids), step(ids)) == []


def test_layers_do_not_compile_one_by_one() -> None:
    """Modules of all layers share one function: what is compiled must not depend on the layer's number."""
    tables, ids = RoutingTables(Placement.from_partition(Partition(16, 4), 20)), ids_of(6, 2, 16)
    compiled = torch.compile(lambda ids, layer: route(ids, tables, layer=layer).slots, fullgraph=True, backend="eager")
    for layer in range(20):
        assert is_equal(compiled(ids, layer), slots(ids, tables, layer))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_traces_hold_the_operator_and_not_its_answer() -> None:
    tables, ids = RoutingTables(placement_of(16, 24, 4), layer=0), ids_of(6, 2, 16)
    traced: Any = torch.jit.trace(lambda ids: slots(ids, tables), (ids,), check_trace=False)  # type: ignore[no-untyped-call]
    assert torch.equal(traced(ids.flip(0)), slots(ids.flip(0), tables))


def test_tables_made_in_inference_mode_are_updated_outside() -> None:
    with torch.inference_mode():
        tables = RoutingTables(placement_of(16, 24, 4))
        copied = copy.deepcopy(tables)
    second = rebalance(torch.rand(2, 16), 24, Topology(4))
    tables.update(second)
    copied.update(second)
    with torch.inference_mode():
        tables.update(second)
        assert torch.equal(slots(IDS, tables, 1), slots(IDS, RoutingTables(second), 1))


def test_attributes_of_subclasses_go_with_copies() -> None:
    class Named(RoutingTables):
        name = "none"

    tables = Named(placement_of(16, 24, 4))
    tables.name = "mine"
    assert copy.deepcopy(tables).name == copy.copy(tables).name == "mine"


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_routing_compiles_whole_and_sees_updates(backend: str) -> None:
    """One graph for all numbers of tokens, offsets and paddings; the load is added to in place."""
    first, second = placement_of(16, 24, 4), rebalance(torch.rand(2, 16), 24, Topology(4))
    tables = RoutingTables(first, rank=1)

    def step(ids: torch.Tensor, load: torch.Tensor, number: torch.Tensor) -> tuple[torch.Tensor, ...]:
        routed = route(ids + 0, tables, layer=1, load=load, want=OUTPUTS, token_offset=number, valid_tokens=number)
        return tuple(field + 1 for field in routed if field is not None)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=backend)
    loads = [torch.zeros(24, dtype=torch.int64) for _ in range(2)]
    for tokens in (5, 9, 12):
        ids, number = ids_of(tokens, 4, 16), torch.tensor(tokens - 1)
        assert all(map(torch.equal, compiled(ids, loads[0], number), step(ids, loads[1], number)))
        tables.update(second)
    assert torch.equal(*loads)
    assert loads[0].sum() > 0


def test_modes_see_the_operator() -> None:
    """What a mode would not see it could not trace: the direct way is for calls that nobody watches."""

    class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    tables, ids = RoutingTables(placement_of(16, 24, 4)), ids_of(6, 2, 16)
    with Seen():  # type: ignore[no-untyped-call]
        seen = slots(ids, tables, 0)
    assert "expert_placement::route" in names
    assert torch.equal(seen, slots(ids, tables, 0))


@pytest.mark.parametrize("implementation", [None, "rust", "torch"])
@pytest.mark.filterwarnings("ignore:`torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_what_is_traced_is_no_constant(implementation: str | None) -> None:
    tables, ids = RoutingTables(placement_of(16, 24, 4), layer=0), ids_of(6, 2, 16)

    def routed(ids: torch.Tensor) -> torch.Tensor:
        return slots(ids, tables, implementation=implementation)

    traced: Any = make_fx(routed)(ids)
    other = ids.flip(0)
    assert torch.equal(traced(other), routed(other))


def test_tensors_of_other_classes_go_through_the_operator() -> None:
    """They may have no memory where a tensor has it."""
    names: list[str] = []

    class Seen(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(getattr(func, "__name__", str(func)))
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]

    tables, ids = RoutingTables(placement_of(16, 24, 4)), ids_of(6, 2, 16)
    plain = slots(ids, tables, 0)
    load: Any = torch.zeros(24, dtype=torch.int32).as_subclass(Seen)
    seed: Any = torch.tensor(0).as_subclass(Seen)
    options: tuple[dict[str, Any], ...] = ({"load": load}, {"seed": seed}, {"load": load, "implementation": "rust"})
    for given in options:
        names.clear()
        routed = route(ids, tables, layer=0, **given)
        assert any("route" in name for name in names), given
        assert is_equal(routed.slots, plain)


def test_fake_tensors_have_shapes_alone() -> None:
    tables = RoutingTables(placement_of(16, 24, 4), rank=0)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        routed = route(mode.from_tensor(ids_of(6, 2, 16)), tables, layer=0, want=OUTPUTS)
    shapes = [tuple(field.shape) for field in routed if field is not None]
    assert shapes == [(6, 2), (6, 2), (24,), (25,), (4,), (5,), (12,), (6, 2)]


def test_what_is_asked_for_is_named() -> None:
    tables = RoutingTables(placement_of(16, 24, 4), rank=0)
    assert Routed._fields == OUTPUTS
    assert route(IDS, tables, layer=0, want=[]) == Routed()
    routed = route(IDS, tables, layer=0, want={"order", "rank_counts"})
    assert [name for name, field in zip(OUTPUTS, routed, strict=True) if field is not None] == ["rank_counts", "order"]


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("want", [("slots",), OUTPUTS])
def test_replayed_graphs_see_updates_and_numbers(want: tuple[str, ...]) -> None:
    first, second = placement_of(256, 288, 32, 4), rebalance(torch.rand(2, 256), 256, Topology(32, 4))
    tables = RoutingTables(first, rank=1, device="cuda")
    ids = ids_of(64, 8, 256).cuda()
    load, number = torch.zeros(288, dtype=torch.int32, device="cuda"), torch.zeros((), dtype=torch.int64, device="cuda")

    def step() -> Routed:
        return route(ids, tables, layer=1, load=load, want=want, token_offset=number, valid_tokens=number)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        routed = step()
        with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
            tables.update(second)
    for placement, tokens in ((first, 64), (second, 50), (first, 0)):
        tables.update(placement)
        number.fill_(tokens)
        ids.copy_(ids_of(64, 8, 256) if tokens else torch.full((64, 8), 2**31 - 1))
        load.zero_()
        graph.replay()
        captured = [None if field is None else field.clone() for field in routed]
        counted = load.clone()
        load.zero_()
        assert same(Routed(*captured), step()) == []
        assert torch.equal(counted, load)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_routing_waits_for_no_device() -> None:
    tables = RoutingTables(placement_of(256, 288, 32, 4), rank=1, device="cuda")
    ids = ids_of(64, 8, 256).cuda()
    for implementation in (None, "torch"):
        for exact in (False, True):
            route(ids, tables, layer=0, want=OUTPUTS, exact=exact, implementation=implementation)
            torch.cuda.set_sync_debug_mode("error")
            try:
                route(ids, tables, layer=0, want=OUTPUTS, exact=exact, implementation=implementation)
            finally:
                torch.cuda.set_sync_debug_mode("default")


# The best weights.


def least_time(placement: Placement, loads: Any, layer: int) -> float:
    """By the linear programme: parts of each expert's load on its slots, and the time of the busiest rank."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy solves the linear programme")
    row, offsets = placement.physical_to_logical()[layer].tolist(), placement.slot_offsets().tolist()
    slots, ranks = len(row), placement.num_ranks
    speeds = placement.topology.speeds or [1.0] * ranks
    served = np.zeros((placement.num_experts, slots + 1))
    busy = np.zeros((ranks, slots + 1))
    for rank in range(ranks):
        for slot in range(offsets[rank], offsets[rank + 1]):
            if row[slot] >= 0:
                served[row[slot], slot] = 1
                busy[rank, slot] = 1
        busy[rank, slots] = -speeds[rank]
    cost = np.zeros(slots + 1)
    cost[slots] = 1
    solved = optimize.linprog(cost, busy, np.zeros(ranks), served, loads, method="highs")
    assert solved.success
    return float(solved.fun)


@pytest.mark.parametrize("seed", range(12))
def test_no_split_makes_the_busiest_rank_faster(seed: int) -> None:
    """Against HiGHS, with unequal speeds and slots, experts without load, and empty slots; within a part in 10^8."""
    random = np.random.default_rng(seed)
    ranks, experts = int(random.integers(2, 9)), int(random.integers(3, 30))
    slots_per_rank = random.integers(1, 8, ranks)
    slots_per_rank[0] += experts
    total = int(slots_per_rank.sum())
    table = np.concatenate([np.arange(experts), random.integers(-1, experts, total - experts)])
    random.shuffle(table)
    topology = Topology(
        ranks, 1, slots_per_rank.tolist(), random.uniform(0.5, 2.0, ranks).tolist() if seed % 2 else None
    )
    placement = Placement.from_physical_to_logical(table[None], num_experts=experts, topology=topology)
    loads = random.pareto(1.0, (1, experts)) * (random.random((1, experts)) > 0.2)
    weights = placement.replica_weights(loads)[0]
    offsets, row = placement.slot_offsets().tolist(), placement.physical_to_logical()[0]
    load = torch.where(row >= 0, torch.tensor(loads[0])[row.clamp(min=0).long()], 0.0) * weights
    speeds = topology.speeds or [1.0] * ranks
    largest = max(float(load[offsets[rank] : offsets[rank + 1]].sum()) / speeds[rank] for rank in range(ranks))
    assert largest <= least_time(placement, loads[0], 0) * (1 + 1e-8) + 1e-12
    for expert in range(experts):
        assert float(weights[row == expert].sum()) == pytest.approx(1, abs=1e-9)


def test_leftovers_of_slow_ranks_and_tiny_loads_are_placed_well() -> None:
    """Numbers so far apart that float64 leaves some load without room: it goes where it delays least."""
    topology = Topology(2, slots_per_rank=[2, 2], speeds=[1e6, 1e-6])
    placement = Placement.from_physical_to_logical([[0, 2, 1, 2]], num_experts=3, topology=topology)
    weights = placement.replica_weights([[1e12, 1.0, 0.09]])[0]
    assert float(weights[2] + weights[3] * 0.09) == pytest.approx(1.0, rel=1e-9)
    alike = Placement.from_physical_to_logical([[0, 0]], num_experts=1, topology=Topology(2, speeds=[1.0, 3.0]))
    assert alike.replica_weights([[1e-320]])[0].tolist() == pytest.approx([0.25, 0.75], abs=1e-3)
    assert alike.replica_weights([[1e300]])[0].tolist() == pytest.approx([0.25, 0.75], abs=1e-12)


def test_weighted_routing_serves_what_the_best_weights_say() -> None:
    """The whole way: recorded counts, the plan for them, the best weights, and many tokens."""
    placement = placement_of(32, 44, 4, layers=1)
    loads = torch.rand(1, 32, dtype=torch.float64) ** 6
    weights = placement.replica_weights(loads)
    ids = torch.multinomial(loads[0], 200_000, replacement=True, generator=torch.Generator().manual_seed(7))[:, None]
    counts = route(ids, RoutingTables(placement, weights=weights), want=("slot_counts", "rank_counts"))
    assert counts.slot_counts is not None
    row = placement.physical_to_logical()[0].long()
    expected = (loads[0] / loads.sum() * 200_000)[row] * weights[0]
    assert ((counts.slot_counts - expected).abs() <= 6 * expected.sqrt() + 1).all()
