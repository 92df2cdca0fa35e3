"""Routing on a GPU and on the CPU beside the engines' own kernels: `python -m tests.bench.routing`.

On a GPU a call is captured many times over in one CUDA graph, so that what is measured is what it adds to a graph of
a forward pass; the graph is replayed many times, and the figures are the median and the 10th and 90th percentile of the
replays, divided by the number of calls. Ids and tables stay in the second-level cache, as they do behind a router.
Clocks are left as they are. Calls outside of graphs are timed on the host one by one, each after some of the same.

Every answer is compared first: ours with the plain torch implementation, the engines' with the placement, whose slots
have to hold the experts that were asked for.

    python -m tests.bench.routing --json routing.json                     # on a GPU, or without one the CPU part alone
    python -m tests.bench.routing --peers FOLDER --moe-library FILE ...   # beside the engines
    python -m tests.bench.routing --read routing.json --png routing.png   # draws what was measured

`--peers` is a folder as CONTRIBUTING.md describes it, unpacked, and `--moe-library` vLLM's compiled library of MoE
kernels.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from expert_placement import Placement, Topology, rebalance
from expert_placement.torch import RoutingTables, route
from expert_placement.torch.routing.request import OUTPUTS

Call: TypeAlias = Callable[[], Any]

TOKENS = (1, 16, 64, 256, 1024, 2048, 4096, 16384, 65536)
SHAPES = {32: (40, 8, 1), 256: (288, 32, 4), 896: (1008, 72, 9)}
"""By E the slots, ranks and nodes."""
COLOURS = {
    "ours": "C0",
    "ours, exact": "C9",
    "vLLM": "C1",
    "vLLM moe_align_block_size": "C1",
    "vLLM moe_permute": "C3",
    "SGLang": "C2",
    "copy of the ids": "C7",
}
ORDERED = ("slots", "slot_counts", "slot_offsets", "order")
FOLDER = tempfile.TemporaryDirectory()
CALLS, REPLAYS = 50, 40
EAGER, WARM, TURN = 30, 10, 20
OVER = 300


@dataclass(frozen=True)
class Row:
    """One figure, in microseconds of a call."""

    what: str
    who: str
    experts: int
    top_k: int
    tokens: int
    dtype: str
    ids: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """What is routed."""

    experts: int
    top_k: int
    tokens: int
    dtype: torch.dtype
    ids: str

    def row(self, what: str, who: str, times: list[float]) -> Row:
        """The figures of some times."""
        cuts = statistics.quantiles(times, n=10)
        dtype = str(self.dtype).removeprefix("torch.")
        named = (self.experts, self.top_k, self.tokens, dtype, self.ids)
        return Row(what, who, *named, statistics.median(times), cuts[0], cuts[-1])

    def batch(self, device: str) -> torch.Tensor:
        """The ids: uniform, skewed as real loads are, or all of them one expert."""
        generator = torch.Generator().manual_seed(self.tokens)
        shape = (self.tokens, self.top_k)
        if self.ids == "one":
            ids = torch.zeros(shape, dtype=torch.int64)
        elif self.ids == "uniform":
            ids = torch.randint(0, self.experts, shape, generator=generator)
        else:
            weights = 1 / torch.arange(1, self.experts + 1, dtype=torch.float64)
            many = torch.multinomial(weights, self.tokens * self.top_k, replacement=True, generator=generator)
            ids = many.view(shape)
        return ids.to(self.dtype).to(device)


def placement_of(experts: int) -> Placement:
    """A plan of one layer for skewed loads."""
    slots, ranks, nodes = SHAPES[experts]
    loads = torch.rand(1, experts, generator=torch.Generator().manual_seed(experts), dtype=torch.float64) ** 4
    return rebalance(loads, slots, Topology(ranks, nodes))


def replayed(call: Call) -> list[float]:
    """Microseconds of a call in a CUDA graph, over the replays."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    times = []
    for replay in range(REPLAYS + 5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay >= 5:
            times.append(begin.elapsed_time(end) * 1000 / CALLS)
    return times


def on_host(calls: dict[str, Call], synchronize: Call) -> dict[str, list[float]]:
    """Microseconds of each call on the host: some of one, then some of the next, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(EAGER):
        for name, call in calls.items():
            # The device falls behind, and its queue must not be full.
            synchronize()
            for place in range(WARM + TURN):
                begin = time.perf_counter()
                call()
                if number and place >= WARM:
                    times[name].append((time.perf_counter() - begin) * 1e6)
    return times


def over_and_over(call: Call, synchronize: Call) -> list[float]:
    """Microseconds of a call on the host, where it alone is called."""
    times = []
    for number in range(REPLAYS + 5):
        synchronize()
        begin = time.perf_counter()
        for _ in range(OVER):
            call()
        if number >= 5:
            times.append((time.perf_counter() - begin) * 1e6 / OVER)
    return times


class Peers:
    """The engines' own functions, as far as they are here."""

    def __init__(self, folder: Path | None, library: Path | None) -> None:
        self.map_vllm = self.dispatch = self.info = self.moe = None
        if folder is not None:
            source = folder / "src"
            names = {"_eplb_map_and_record_i32_kernel", "_eplb_map_and_record_triton"}
            path = source / "vllm/vllm/model_executor/layers/fused_moe/router/base_router.py"
            head = "import torch\nimport triton\nimport triton.language as tl\n"
            self.map_vllm = extracted(path, names, head)._eplb_map_and_record_triton
            path = source / "sglang/sglang/srt/eplb/expert_location_dispatch.py"
            head = "from dataclasses import dataclass\nfrom typing import Literal, Optional\nimport torch\n"
            module = extracted(path, {"ExpertLocationDispatchInfo", "_topk_ids_logical_to_physical_dynamic"}, head)
            self.dispatch, self.info = module._topk_ids_logical_to_physical_dynamic, module.ExpertLocationDispatchInfo
        if library is not None:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            self.moe = torch.ops._moe_C

    def maps(self, placement: Placement, ids: torch.Tensor, load: torch.Tensor) -> Iterator[tuple[str, Call]]:
        """What maps ids to slots and records the load."""
        lists = placement.logical_to_physical(device=ids.device)[0]
        counts = placement.replica_counts(device=ids.device)[0]
        if self.map_vllm is not None:
            vllm, is_recorded = self.map_vllm, torch.ones(1, dtype=torch.bool, device=ids.device)
            yield "vLLM", lambda: vllm(ids, lists, counts, load, is_recorded, None)
        if self.dispatch is not None and self.info is not None:
            dispatch, info = self.dispatch, self.info("dynamic", None, lists, counts, len(load), True)

            def sglang(ids: torch.Tensor, load: torch.Tensor) -> torch.Tensor:
                slots: torch.Tensor = dispatch(ids, info)
                flat = slots.flatten()
                is_slot = (flat >= 0) & (flat < len(load))
                load.scatter_add_(0, flat.masked_fill(~is_slot, 0).long(), is_slot.to(load.dtype))
                return slots

            compiled = torch.compile(sglang, dynamic=True)
            yield "SGLang", lambda: compiled(ids, load)

    def orders(self, slots: torch.Tensor, num_slots: int) -> Iterator[tuple[str, Call]]:
        """What puts slots in order."""
        if self.moe is None or slots.dtype != torch.int32:
            return
        moe, (tokens, top_k), block = self.moe, slots.shape, 64
        made: dict[str, Any] = {"dtype": torch.int32, "device": slots.device}
        room = min(slots.numel() + num_slots * (block - 1), slots.numel() * block)
        order, experts = torch.empty(room, **made), torch.empty(-(-room // block), **made)
        total = torch.empty(1, **made)
        yield (
            "vLLM moe_align_block_size",
            lambda: moe.moe_align_block_size(slots, num_slots, block, order, experts, total, None, None),
        )
        rows = torch.empty(tokens, 8, dtype=torch.bfloat16, device=slots.device)
        numbers = torch.arange(slots.numel(), **made).view(tokens, top_k)
        permuted = torch.empty(slots.numel(), 8, dtype=torch.bfloat16, device=slots.device)
        offsets = torch.empty(num_slots + 1, dtype=torch.int64, device=slots.device)
        inverse, places = torch.empty(tokens, top_k, **made), torch.empty(slots.numel(), **made)
        arguments = (rows, slots, numbers, None, num_slots, num_slots, top_k, permuted, offsets, inverse, places)
        yield "vLLM moe_permute", lambda: moe.moe_permute(*arguments)


def extracted(path: Path, names: set[str], head: str) -> Any:
    """A module of some definitions of a file, which Triton can read again."""
    source = path.read_text(encoding="utf-8")
    lines, parts = source.splitlines(), [head]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            parts.append(textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno])))
    # Triton reads the file again when it compiles, so it stays for as long as the process does.
    made = Path(FOLDER.name) / f"{path.stem}.py"
    made.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", made)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def expect_same(ids: torch.Tensor, tables: RoutingTables, exact: bool = False) -> None:
    """Ours must be what plain torch answers."""
    # Twice, since the second call of a kind goes another way.
    for want in (("slots",), ("slots",), ORDERED, OUTPUTS):
        loads = [torch.zeros(tables.max_slots, dtype=torch.int32, device=ids.device) for _ in range(2)]
        ours = route(ids, tables, want=want, exact=exact, load=loads[0])
        plain = route(ids, tables, want=want, exact=exact, load=loads[1], implementation="torch")
        assert torch.equal(*loads), f"the load differs from plain torch's at {tuple(ids.shape)}"
        for name, one, other in zip(OUTPUTS, ours, plain, strict=True):
            is_same = one is other is None or (one is not None and other is not None and torch.equal(one, other))
            assert is_same, f"{name} differs from plain torch's at {tuple(ids.shape)}"


def expect_experts(who: str, slots: torch.Tensor, ids: torch.Tensor, placement: Placement) -> None:
    """The slots of an engine must hold the experts."""
    row = placement.physical_to_logical(device=ids.device)[0]
    assert torch.equal(row[slots.view(ids.shape).long()].to(ids.dtype), ids), f"{who} names slots of other experts"


def cases(quick: bool) -> Iterator[Case]:
    """The main shape at all sizes; the others at few."""
    for ids in ("uniform", "skewed", "one"):
        for tokens in TOKENS[::2] if quick else TOKENS:
            yield Case(256, 8, tokens, torch.int32, ids)
    if quick:
        return
    for tokens in (1, 256, 4096, 65536):
        yield Case(256, 8, tokens, torch.int64, "uniform")
        for top_k in (1, 4, 16):
            yield Case(256, top_k, tokens, torch.int32, "uniform")
        for experts in (32, 896):
            yield Case(experts, 8, tokens, torch.int32, "uniform")


def on_gpu(peers: Peers, quick: bool) -> Iterator[Row]:
    """Everything on the GPU."""
    made = {experts: placement_of(experts) for experts in SHAPES}
    tables = {experts: RoutingTables(placement, rank=0, device="cuda") for experts, placement in made.items()}
    case, calls = eager_calls(peers, made[256], tables[256])
    # Before anything is compiled by torch: from then on every call of Python takes longer. SGLang's is the last.
    for who, call in calls.items():
        yield case.row("eager call, over and over", who, over_and_over(call, torch.cuda.synchronize))
    for case in cases(quick):
        placement, own, ids = made[case.experts], tables[case.experts], case.batch("cuda")
        load = torch.zeros(placement.num_slots, dtype=torch.int32, device="cuda")
        copy = torch.empty_like(ids)
        is_main = (case.experts, case.top_k, case.dtype) == (256, 8, torch.int32)
        expect_same(ids, own)
        expect_same(ids, own, exact=True)
        what = "map and record"
        yield case.row(what, "copy of the ids", replayed(partial(copy.copy_, ids)))
        yield case.row(what, "ours", replayed(partial(route, ids, own, load=load)))
        for who, call in peers.maps(placement, ids, load) if is_main else ():
            expect_experts(who, call(), ids, placement)
            yield case.row(what, who, replayed(call))
        what = "map, counts, offsets and order"
        yield case.row(what, "ours", replayed(partial(route, ids, own, want=ORDERED)))
        if not is_main:
            continue
        yield case.row(what, "ours, exact", replayed(partial(route, ids, own, want=ORDERED, exact=True)))
        yield case.row("map, counts and offsets", "ours", replayed(partial(route, ids, own, want=ORDERED[:3])))
        slots = route(ids, own).slots
        assert slots is not None
        for who, call in peers.orders(slots, placement.num_slots):
            yield case.row("order of given slots", who, replayed(call))
    case, calls = eager_calls(peers, made[256], tables[256])
    for who, times in on_host(calls, torch.cuda.synchronize).items():
        yield case.row("eager call on the host", who, times)


def eager_calls(peers: Peers, placement: Placement, tables: RoutingTables) -> tuple[Case, dict[str, Call]]:
    """What is called outside of graphs, of 256 tokens."""
    case = Case(256, 8, 256, torch.int32, "uniform")
    ids = case.batch("cuda")
    load = torch.zeros(placement.num_slots, dtype=torch.int32, device="cuda")
    calls: dict[str, Call] = {
        "torch.empty_like": lambda: torch.empty_like(ids),
        "copy of the ids": lambda: ids.clone(),
        "ours": lambda: route(ids, tables, load=load),
        "ours, counts, offsets and order": lambda: route(ids, tables, want=ORDERED),
        **dict(peers.maps(placement, ids, load)),
    }
    return case, calls


def on_cpu() -> Iterator[Row]:
    """The compiled core beside plain torch, on one thread."""
    torch.set_num_threads(1)
    tables = RoutingTables(placement_of(256), rank=0)
    for ids_name in ("uniform", "one"):
        case = Case(256, 8, 4096, torch.int32, ids_name)
        ids, load = case.batch("cpu"), torch.zeros(288, dtype=torch.int32)
        expect_same(ids, tables)
        expect_same(ids, tables, exact=True)
        for what, options in (
            ("map and record", {"load": load}),
            ("map, counts, offsets and order", {"want": ORDERED}),
        ):
            calls: dict[str, Call] = {
                "ours, CPU": partial(route, ids, tables, **options),
                "plain torch, CPU": partial(route, ids, tables, implementation="torch", **options),
            }
            for who, times in on_host(calls, lambda: None).items():
                yield case.row(what, who, times)


def machine() -> dict[str, str]:
    """Where it was measured."""
    about = {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "cpu": platform.machine(),
        "method": f"{CALLS} calls in a CUDA graph, {REPLAYS} replays: median, 10th and 90th percentile",
    }
    if torch.cuda.is_available():
        import triton

        about |= {"gpu": torch.cuda.get_device_name(), "triton": triton.__version__, "cuda": str(torch.version.cuda)}
    return about


def draw(results: dict[str, Any], path: Path) -> None:
    """Time against tokens: mapping, and everything that a dispatch needs."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [Row(**row) for row in results["rows"]]
    main = [row for row in rows if (row.experts, row.top_k, row.dtype) == (256, 8, "int32")]
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    titles = ("map and record", "map, counts, offsets and order")
    for axis, what in zip(axes, titles, strict=True):
        shown = (what, "order of given slots") if what == titles[1] else (what,)
        for ids, style in (("uniform", "-"), ("one", ":")):
            names = dict.fromkeys(row.who for row in main if row.what in shown and "CPU" not in row.who)
            for who in names:
                own = [row for row in main if row.who == who and row.what in shown and row.ids == ids]
                label = f"{who} (without the map)" if own and own[0].what != what else who
                ticks = [row.tokens for row in own]
                axis.plot(ticks, [row.median for row in own], style, marker=".", color=COLOURS[who], label=label)
        axis.set(title=what, xlabel="tokens, of 8 ids", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
        handles, labels = axis.get_legend_handles_labels()
        few = dict(zip(reversed(labels), reversed(handles), strict=True))
        axis.legend(list(few.values())[::-1], list(few)[::-1], fontsize="small")
    axes[0].set_ylabel("microseconds in a CUDA graph")
    about = results["machine"]
    figure.suptitle(
        f"256 experts in 288 slots on {about.get('gpu', 'no GPU')}, torch {about['torch']}, {about['date']}; "
        "solid: uniform ids, dotted: one expert alone"
    )
    figure.savefig(path, dpi=110)


def table(results: dict[str, Any]) -> str:
    """The rows as text."""
    lines = [", ".join(f"{name} {value}" for name, value in results["machine"].items())]
    for row in (Row(**row) for row in results["rows"]):
        case = f"E={row.experts} k={row.top_k} T={row.tokens} {row.dtype} {row.ids}"
        figures = f"{row.median:9.2f} us  ({row.low:.2f} to {row.high:.2f})"
        lines.append(f"{case:40} {row.what:32} {row.who:32} {figures}")
    return "\n".join(lines)


def main() -> None:
    """Measures, or draws what was measured."""
    parser = argparse.ArgumentParser(description="routing beside the engines' own kernels")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--png", type=Path, help="where to draw them")
    parser.add_argument("--read", type=Path, help="figures to draw, instead of measuring")
    parser.add_argument("--peers", type=Path, help="a folder with the engines' sources in `src`")
    parser.add_argument("--moe-library", type=Path, help="vLLM's compiled library of MoE kernels")
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    options = parser.parse_args()
    if options.read is not None:
        results = json.loads(options.read.read_text(encoding="utf-8"))
    else:
        rows = list(on_cpu())
        if torch.cuda.is_available():
            rows += on_gpu(Peers(options.peers, options.moe_library), options.quick)
        else:
            print("no CUDA device: the CPU part alone")
        results = {
            "command": "python -m tests.bench.routing",
            "machine": machine(),
            "rows": [asdict(row) for row in rows],
        }
    print(table(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.png is not None:
        draw(results, options.png)


if __name__ == "__main__":
    main()
