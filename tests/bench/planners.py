"""How fast and how balanced plans and migrations are, against the engines' own: `python -m tests.bench.planners`.

Every section asserts what it compares before it gives a figure. Times are measured as `measuring.py` says, on one
thread. The environment variable PEERS names a folder with a `load.py` that loads the engines' functions; without it
they are said to be absent, and the field's algorithm is our own `"deepseek"`, which equals it.

Loads are lognormal, or read from every file of a folder. A trace has another number of experts than the 256 of
DeepSeek-V3, so that ranks scale with them: R of a shape is that of 256 experts times E / 256, rounded up, with as many
slots a rank. Shapes with a single rank are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from expert_placement import Migration, Placement, Topology, formats, plan_migration, rebalance

from tests.bench.measuring import Check, Comparison, Measurement, aligned, environment, load_peers, measure

Loads: TypeAlias = npt.NDArray[np.float64]
Row: TypeAlias = dict[str, str | int | float | None]

SHIPPED = Path(__file__).parents[2] / "examples" / "data"
SHAPES = ((32, 9), (64, 5), (72, 4), (144, 2))
"""(ranks, slots a rank) for 256 experts."""
TORCH_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Sizes:
    """How much is measured; tests make everything small."""

    layers: int = 58
    experts: int = 256
    sigmas: tuple[float, ...] = (0.6, 1.0)
    rounds: int = 9
    batch_seconds: float = 0.002
    window: int = 16
    """Sequences of a window of the walk."""
    walk_ranks: int = 8
    objective_window: int = 4
    """Sequences of a window that a plan is made for."""
    large: tuple[int, int, int, int] = (61, 896, 144, 1152)
    """Layers, experts, ranks and slots of the large model."""
    layer_curve: tuple[int, ...] = (10, 20, 40, 60, 80, 100)
    expert_curve: tuple[int, ...] = (64, 128, 256, 512, 1024)
    slot_curve: tuple[int, ...] = (9, 10, 12, 16, 24, 32)
    """Slots a rank, for the same experts and ranks."""
    nodes: tuple[int, ...] = (2, 4, 8)
    restarts: int = 300


@dataclass(frozen=True)
class Trace:
    """Recorded loads.

    Attributes:
        name: the file, without its folder and suffix.
        folder: the folder, which names the model.
        loads: `[L, E]`, or `[W, L, E]`.
        has_tasks: whether each window is a task of its own, which the file gives a name.
    """

    name: str
    folder: str
    loads: Loads = field(repr=False)
    has_tasks: bool = False

    def total(self) -> Loads:
        """Loads of the whole recording: `[L, E]`."""
        return self.loads.sum(0) if self.loads.ndim == 3 else self.loads

    def windows(self, length: int) -> list[Loads]:
        """The loads of so many sequences after one another, for as long as there are enough of them."""
        if self.loads.ndim != 3:
            return []
        starts = range(0, len(self.loads) - length + 1, length)
        return [self.loads[start : start + length].sum(0) for start in starts]


@dataclass(frozen=True)
class Setting:
    """What all sections are given."""

    sizes: Sizes
    traces: list[Trace]
    peers: Any | None


@dataclass(frozen=True)
class Section:
    """A table of figures.

    Attributes:
        title: what the figures are.
        rows: one dict a row, all with the same keys.
        words: how many of the first columns are words.
        notes: what has to be said of them.
    """

    title: str
    rows: list[Row]
    words: int
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Title, aligned table and notes."""
        if not self.rows:
            return "\n".join([self.title, *(self.notes or ["nothing to measure"])])
        cells = [list(self.rows[0]), *([_cell(value) for value in row.values()] for row in self.rows)]
        return "\n".join([self.title, aligned(cells, self.words), *self.notes])


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- loads ------------------------------------------------------------------------------------------------------------


def read_traces(folder: Path) -> tuple[list[Trace], list[str]]:
    """Every trace of a folder and those below it, and the JSON files that are none."""
    traces = []
    left_out = []
    for path in sorted(folder.rglob("*.json")):
        try:
            loads = np.asarray(formats.read_loads(path), dtype=np.float64)
        except ValueError:
            left_out.append(path.relative_to(folder).as_posix())
            continue
        named = loads.ndim == 3 and "windows" in json.loads(path.read_text())
        traces.append(Trace(path.stem, path.parent.name, loads, named))
    return traces, left_out


def lognormal(sizes: Sizes, sigma: float) -> Loads:
    """Loads of a model without its recording."""
    return np.random.default_rng(0).lognormal(0, sigma, (sizes.layers, sizes.experts))


def all_loads(setting: Setting) -> Iterator[tuple[str, Loads]]:
    """Lognormal loads and the whole of every trace, named."""
    for sigma in setting.sizes.sigmas:
        yield f"lognormal {sigma:g}", lognormal(setting.sizes, sigma)
    for trace in setting.traces:
        yield f"{trace.folder}/{trace.name}", trace.total()


def shapes(num_experts: int) -> list[tuple[int, int]]:
    """(ranks, slots a rank) of the four shapes for so many experts."""
    scaled = [(-(-ranks * num_experts // 256), slots) for ranks, slots in SHAPES]
    return [(ranks, slots) for ranks, slots in scaled if ranks > 1 and ranks * slots >= num_experts]


def placed(table: Any, num_experts: int, topology: Topology) -> Placement:
    """What an engine returned as a placement; some return the table with others beside it."""
    first = table[0] if isinstance(table, tuple) else table
    return Placement.from_physical_to_logical(first, num_experts=num_experts, topology=topology)


# --- time of a plan ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stable_sort() -> Iterator[None]:
    """Makes `torch.Tensor.sort` stable, so that ties are broken as stated; the engines leave that to chance."""
    unstable = torch.Tensor.sort
    torch.Tensor.sort = lambda self, dim=-1, descending=False: torch.sort(  # type: ignore[method-assign,assignment]
        self, dim=dim, descending=descending, stable=True
    )
    try:
        yield
    finally:
        torch.Tensor.sort = unstable  # type: ignore[method-assign]


def plan_comparisons(name: str, loads: Loads, ranks: int, slots: int, peers: Any) -> list[Comparison]:
    """Both policies against vLLM's, and `"deepseek"` against SGLang's, whose function also returns derived tables."""
    num_experts = loads.shape[1]
    topology = Topology(ranks)
    names: dict[str, Any] = {
        "loads": loads,
        "tensor": torch.from_numpy(loads),
        "P": ranks * slots,
        "R": ranks,
        "topology": topology,
        "rebalance": rebalance,
        "tables": tables,
        "threaded": threaded,
        "vllm": peers.vllm_eplb,
        "sglang": peers.sglang_eplb,
    }

    def balance(theirs: Any) -> float:
        return placed(theirs, num_experts, topology).balancedness(loads)

    def as_balanced(ours: Placement, theirs: Any) -> bool:
        """Ties are broken in other ways and shares divided in other precision; the balance is about the same."""
        return abs(ours.balancedness(loads) - balance(theirs)) < 2e-3

    def better_balanced(ours: Placement, theirs: Any) -> bool:
        return ours.balancedness(loads) >= balance(theirs) - 1e-9

    def equal_by_stable_sort(ours: Placement | tuple[torch.Tensor, ...], theirs: Any) -> bool:
        """Slot by slot, once ties are broken as stated; ours gives an expert's replicas in slot order."""
        with stable_sort():
            stable = peers.sglang_eplb(names["tensor"], ranks * slots, 1, 1, ranks, False)
        mine_all = tables(ours) if isinstance(ours, Placement) else ours
        return all(
            torch.equal(mine.sort(-1).values if mine.ndim == 3 else mine, other.to(mine.dtype))
            for mine, other in zip(mine_all, (stable[0], stable[1].sort(-1).values, stable[2]), strict=True)
        )

    subject = f"{name}, {loads.shape[0]} x {num_experts} on {ranks} x {slots}"
    field = 'rebalance(loads, P, topology, "deepseek")'
    rows: list[tuple[str, str, Check]] = [
        (field, "vllm(tensor, P, 1, 1, R)", as_balanced),
        (field, "sglang(tensor, P, 1, 1, R, False)", equal_by_stable_sort),
        (f"tables({field})", "sglang(tensor, P, 1, 1, R, False)", equal_by_stable_sort),
        (f"tables({field})", "threaded(sglang, tensor, P, 1, 1, R, False)", equal_by_stable_sort),
        ("rebalance(loads, P, topology)", "vllm(tensor, P, 1, 1, R)", better_balanced),
    ]
    return [Comparison(subject, ours, theirs, names, same) for ours, theirs, same in rows]


def tables(placement: Placement) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What SGLang's function returns."""
    return placement.physical_to_logical(), placement.logical_to_physical(), placement.replica_counts()


def threaded(call: Callable[..., Any], *arguments: object) -> Any:
    """A call with as many threads of torch as engines get without other word."""
    torch.set_num_threads(TORCH_THREADS)
    try:
        return call(*arguments)
    finally:
        torch.set_num_threads(1)


def plan_times(setting: Setting) -> Section:
    """Time of a plan, ours to theirs, in turns."""
    title = "time of a plan: ours / theirs"
    if setting.peers is None:
        return Section(title, [], 3, [_ABSENT])
    measured: list[Measurement] = []
    for name, loads in all_loads(setting):
        for ranks, slots in shapes(loads.shape[1])[:1]:
            compared = plan_comparisons(name, loads, ranks, slots, setting.peers)
            measured += [measure(each, setting.sizes.rounds, setting.sizes.batch_seconds) for each in compared]
    notes = []
    for ours, theirs in dict.fromkeys((each.ours, each.theirs) for each in measured):
        ratios = [each.processor_ratio for each in measured if (each.ours, each.theirs) == (ours, theirs)]
        notes.append(f"{ours} / {theirs}; processor time: {_span(ratios)}")
    return Section(title, [_timed(each) for each in measured], 3, notes)


_ABSENT = "the engines' functions are absent: set PEERS"


def _timed(measured: Measurement) -> Row:
    return {
        "subject": measured.subject,
        "ours": measured.ours,
        "theirs": measured.theirs,
        "ours ms": measured.ours_ns / 1e6,
        "theirs ms": measured.theirs_ns / 1e6,
        "ours/theirs": measured.ratio,
        "of processor time": measured.processor_ratio,
    }


def _span(ratios: Sequence[float]) -> str:
    return f"median {statistics.median(ratios):.4f}, largest {max(ratios):.4f} of {len(ratios)}"


# --- balance ----------------------------------------------------------------------------------------------------------


def gap(placement: Placement, loads: Loads) -> float:
    """How far the busiest ranks are above the lower bound, over all layers: the sum of both, divided."""
    report = placement.report(loads)
    assert all(row.largest >= row.lower_bound * (1 - 1e-12) for row in report), "a rank is below the lower bound"
    bound = sum(row.lower_bound for row in report)
    return sum(row.largest for row in report) / bound - 1 if bound else 0.0


def assert_nowhere_worse(ours: Placement, theirs: Placement, loads: Loads) -> None:
    """No layer's busiest rank may be busier than in the other placement."""
    for mine, other in zip(ours.report(loads), theirs.report(loads), strict=True):
        assert mine.largest <= other.largest * (1 + 1e-12), f"layer {mine.layer}: {mine.largest} > {other.largest}"


def gaps(setting: Setting) -> Section:
    """The gap to the lower bound of both policies."""
    rows: list[Row] = []
    ratios: dict[tuple[int, int], list[float]] = {}
    for name, loads in all_loads(setting):
        for ranks, slots in shapes(loads.shape[1]):
            topology = Topology(ranks)
            field, ours = (rebalance(loads, ranks * slots, topology, policy) for policy in ("deepseek", "balanced"))
            assert_nowhere_worse(ours, field, loads)
            theirs_gap, ours_gap = gap(field, loads), gap(ours, loads)
            ratio = ours_gap / theirs_gap if theirs_gap > 1e-12 else None
            if ratio is not None:
                ratios.setdefault((loads.shape[1], slots), []).append(ratio)
            plan = partial(rebalance, loads, ranks * slots, topology)
            rows.append(
                {
                    "loads": name,
                    "experts": loads.shape[1],
                    "ranks": ranks,
                    "slots a rank": slots,
                    "ours": ours_gap,
                    "the field's": theirs_gap,
                    "ours/theirs": ratio,
                    "balancedness": ours.balancedness(loads),
                    "its": field.balancedness(loads),
                    "least ms": min(timeit.repeat(plan, number=1, repeat=setting.sizes.rounds)) * 1e3,
                }
            )
    notes = [f"{of} experts, {slots} slots a rank: ours/theirs {_span(each)}" for (of, slots), each in ratios.items()]
    return Section("gap to the lower bound", rows, 1, notes)


JITTER = 3e-4
"""By how much loads are changed for a restart: the sigma of a lognormal factor."""
KNOWN_LAYERS = 6


def known(setting: Setting) -> Section:
    """How far plans in two slots a rank are from the best known, which restarts on jittered loads find."""
    sizes = setting.sizes
    rows: list[Row] = []
    ranks, slots = shapes(sizes.experts)[-1]
    topology = Topology(ranks)

    def largest(loads: Loads, planned_for: Loads) -> Loads:
        plan = rebalance(planned_for, ranks * slots, topology)
        return np.array([report.largest for report in plan.report(loads)])

    for sigma in sizes.sigmas:
        loads = np.random.default_rng(0).lognormal(0, sigma, (KNOWN_LAYERS, sizes.experts))
        ours = largest(loads, loads)
        rng = np.random.default_rng(1)
        jittered = (loads * rng.lognormal(0, JITTER, loads.shape) for _ in range(sizes.restarts))
        best = np.min([ours, *(largest(loads, other) for other in jittered)], axis=0)
        above = {"all layers": ours.sum() / best.sum() - 1, "the worst": (ours / best).max() - 1}
        rows.append({"sigma": sigma, "layers": KNOWN_LAYERS, "ranks": ranks, "slots a rank": slots, **above})
    return Section(f"above the best known, of {sizes.restarts} restarts", rows, 1)


# --- the walk ---------------------------------------------------------------------------------------------------------

Planner: TypeAlias = Callable[[Loads, Placement], Placement]


@dataclass
class Walker:
    """Somebody who plans window after window, from the placement that is there.

    Attributes:
        there: the placement of now.
        moves: experts that came to a rank, step by step.
        now: balancedness on the windows that were planned for.
        next: balancedness on the ones after, except where there is none.
    """

    there: Placement
    moves: list[int] = field(default_factory=list)
    now: list[float] = field(default_factory=list)
    next: list[float] = field(default_factory=list)

    def step(self, placement: Placement, window: Loads, after: Loads | None) -> int:
        """Goes to a placement; the moves that it took."""
        moved = sum(placement.moves_from(self.there))
        self.there = placement
        self.moves.append(moved)
        self.now.append(placement.balancedness(window))
        if after is not None:
            self.next.append(placement.balancedness(after))
        return moved


def walk(windows: Sequence[Loads], num_slots: int, num_ranks: int, part: int, peers: Any | None) -> dict[str, Walker]:
    """Everybody's walk through the windows: the engine, ours within 1 / `part` of its moves, and ours without a budget.

    Each begins with its own plan from nothing for the first window; every other window is planned for from there.
    """
    topology = Topology(num_ranks)
    num_experts = windows[0].shape[1]

    def engine(window: Loads, there: Placement | None) -> Placement:
        if peers is None:
            return rebalance(window, num_slots, topology, "deepseek")
        old = None if there is None else there.physical_to_logical()
        table = peers.vllm_eplb(torch.from_numpy(window), num_slots, 1, 1, num_ranks, old)
        return placed(table, num_experts, topology)

    first = rebalance(windows[0], num_slots, topology)
    theirs, limited, free = Walker(engine(windows[0], None)), Walker(first), Walker(first)
    for window, after in zip(windows[1:], [*windows[2:], None], strict=True):
        budget = theirs.step(engine(window, theirs.there), window, after) // part
        plan = partial(rebalance, window, num_slots, topology)
        moved = limited.step(plan(previous=limited.there, max_moves=budget), window, after)
        assert moved <= budget, f"{moved} moves, expected at most {budget}"
        free.step(plan(previous=free.there), window, after)
    name = '"deepseek"' if peers is None else "vLLM's policy"
    return {name: theirs, f"ours, 1/{part} of the moves": limited, "ours, no budget": free}


def walks(setting: Setting) -> Section:
    """Balance and moves from window to window."""
    rows: list[Row] = []
    for title, windows, part in itineraries(setting):
        experts = windows[0].shape[1]
        ranks = setting.sizes.walk_ranks
        for eighths in (9, 10):
            num_slots = -(-experts * eighths // (8 * ranks)) * ranks
            walkers = walk(windows, num_slots, ranks, part, setting.peers)
            theirs = next(iter(walkers.values()))
            for name, walker in walkers.items():
                rows.append(
                    {
                        "windows": title,
                        "who": name,
                        "slots": num_slots,
                        "steps": len(walker.moves),
                        "moves a step": statistics.mean(walker.moves),
                        "of theirs": sum(walker.moves) / sum(theirs.moves) if sum(theirs.moves) else None,
                        "on the window": statistics.mean(walker.now),
                        "on the next": statistics.mean(walker.next) if walker.next else None,
                    }
                )
    notes = [] if setting.peers is not None else [_ABSENT]
    return Section(f"walks through windows, {setting.sizes.walk_ranks} ranks: moves and balancedness", rows, 2, notes)


def itineraries(setting: Setting) -> Iterator[tuple[str, list[Loads], int]]:
    """Windows to walk through, named, and which part of the engine's moves is the budget.

    A recording of sequences is walked window after window. Where the windows of a file are tasks, and where a folder
    has several recordings of one model, the task changes at every step: of each recording its first window, or all of
    it where it is shorter, and last the second window of the first one.
    """
    length = setting.sizes.window
    recordings: dict[tuple[str, tuple[int, ...]], list[Trace]] = {}
    for trace in setting.traces:
        if trace.has_tasks:
            yield f"{trace.name}, tasks", list(trace.loads), 4
        elif trace.loads.ndim == 3:
            recordings.setdefault((trace.folder, trace.loads.shape[1:]), []).append(trace)
            windows = trace.windows(length)
            if len(windows) > 1:
                yield trace.name, windows, 8
    for (folder, _), traces in recordings.items():
        if len(traces) > 1:
            firsts = [trace.loads[:length].sum(0) for trace in traces]
            yield f"{folder}, tasks", [*firsts, *traces[0].windows(length)[1:2]], 4


# --- several windows at once ------------------------------------------------------------------------------------------


def objectives(setting: Setting) -> Section:
    """Plans for windows and for their sum, scored on the windows that they have seen and on later ones."""
    rows: list[Row] = []
    ranks = setting.sizes.walk_ranks
    for trace in setting.traces:
        windows = list(trace.loads) if trace.has_tasks else trace.windows(setting.sizes.objective_window)
        if len(windows) < 4:
            continue
        seen, later = (np.stack(part) for part in (windows[: len(windows) // 2], windows[len(windows) // 2 :]))
        num_slots = -(-seen.shape[2] * 9 // (8 * ranks)) * ranks
        plan = partial(rebalance, num_slots=num_slots, topology=Topology(ranks))
        plans = {
            "balanced, by windows": plan(seen),
            "balanced, for the sum": plan(seen.sum(0)),
            "deepseek": plan(seen.sum(0), policy="deepseek"),
        }
        assert_nowhere_worse(plans["balanced, by windows"], plan(seen, policy="deepseek"), seen)
        for name, placement in plans.items():
            rows.append(
                {
                    "recording": trace.name,
                    "plan": name,
                    "slots": num_slots,
                    "windows": len(windows),
                    "on those planned for": placement.balancedness(seen),
                    "on later ones": placement.balancedness(later),
                }
            )
    return Section(f"plans for the first half of the windows, {ranks} ranks: balancedness", rows, 2)


# --- migrations -------------------------------------------------------------------------------------------------------


def migration_comparisons(setting: Setting, peers: Any) -> list[Comparison]:
    """Migrations between plans of 32 ranks for loads that change by a factor of e to the 0.4 of a normal number."""
    sizes = setting.sizes
    ((ranks, slots), *_) = shapes(sizes.experts)
    num_slots = ranks * slots
    topology = Topology(ranks)
    loads = lognormal(sizes, sizes.sigmas[0])
    later = loads * np.random.default_rng(1).lognormal(0, 0.4, loads.shape)
    old = rebalance(loads, num_slots, topology)
    engine = peers.vllm_eplb(torch.from_numpy(later), num_slots, 1, 1, ranks, old.physical_to_logical())
    plans = {
        "from scratch": rebalance(later, num_slots, topology),
        "vLLM's new plan": placed(engine, sizes.experts, topology),
        "with previous": rebalance(later, num_slots, topology, previous=old),
        "with previous, a budget of 1/8 of the slots": rebalance(
            later, num_slots, topology, previous=old, max_moves=sizes.layers * num_slots // 8
        ),
    }
    return [migration_comparison(name, old, new, slots, peers.vllm_schedule) for name, new in plans.items()]


def migration_comparison(
    name: str, old: Placement, new: Placement, slots: int, schedule: Callable[..., Any]
) -> Comparison:
    """One migration, ours against the engine's schedule: what travels is the same, in no more batches, and arrives."""

    def travels(ours: Migration, theirs: list[list[Any]]) -> bool:
        before, after = old.physical_to_logical(), new.physical_to_logical()
        arrives = torch.equal(ours.apply(before[..., None].float())[..., 0].int(), after)
        comes = {
            (layer, expert, flow.dst_rank)
            for layer, batches in enumerate(theirs)
            for batch in batches
            for flow in batch
            for expert in flow.expert_ids
        }
        return arrives and transfers_of(ours) == comes and ours.num_batches <= batches_of(theirs)

    names: dict[str, Any] = {
        "old": old,
        "new": new,
        "slots": slots,
        "before": old.physical_to_logical().numpy().astype("int64"),
        "after": new.physical_to_logical().numpy().astype("int64"),
        "plan_migration": plan_migration,
        "schedule": schedule,
    }
    return Comparison(
        f"migration, {name}", "plan_migration(old, new)", "schedule(slots, before, after)", names, travels
    )


def transfers_of(plan: Migration) -> set[tuple[int, int, int]]:
    """Which (layer, expert) comes from another rank, and to which one."""
    ranks = zip(plan.moves.tolist(), plan.senders.tolist(), plan.receivers.tolist(), strict=True)
    return {(layer, expert, to) for (layer, expert, _, _), sender, to in ranks if sender != to}


def batches_of(schedule: list[list[Any]]) -> int:
    """All batches of an engine's schedule, which has them layer by layer."""
    return sum(map(len, schedule))


def migrations(setting: Setting) -> Section:
    """Time and batches of migrations."""
    title = "migrations: ours / vLLM's schedule"
    if setting.peers is None:
        return Section(title, [], 3, [_ABSENT])
    rows: list[Row] = []
    for comparison in migration_comparisons(setting, setting.peers):
        measured = measure(comparison, setting.sizes.rounds, setting.sizes.batch_seconds)
        ours, theirs = (eval(statement, comparison.names) for statement in (comparison.ours, comparison.theirs))
        counts: Row = {"transfers": ours.num_transfers, "batches": ours.num_batches, "theirs": batches_of(theirs)}
        timed = _timed(measured)
        rows.append({"subject": timed.pop("subject"), **counts, **{k: timed[k] for k in list(timed)[2:]}})
    return Section(title, rows, 1)


# --- scale ------------------------------------------------------------------------------------------------------------


def scale(setting: Setting) -> Section:
    """Time of a plan of a large model, on one thread and on two, and along layers and experts."""
    sizes = setting.sizes
    layers, experts, ranks, num_slots = sizes.large
    cases = [("large", layers, experts, ranks, num_slots)]
    ((base_ranks, slots), *_) = shapes(sizes.experts)
    cases += [("layers", each, sizes.experts, base_ranks, base_ranks * slots) for each in sizes.layer_curve]
    cases += [("slots", sizes.layers, sizes.experts, base_ranks, base_ranks * each) for each in sizes.slot_curve]
    for each in sizes.expert_curve:
        ((of_experts, per_rank), *_) = shapes(each)
        cases.append(("experts", sizes.layers, each, of_experts, of_experts * per_rank))
    rows: list[Row] = []
    for name, layers, experts, ranks, num_slots in cases:
        loads = np.random.default_rng(0).lognormal(0, sizes.sigmas[0], (layers, experts))
        measured = measure(threads_comparison(name, loads, num_slots, ranks), sizes.rounds, sizes.batch_seconds)
        rows.append(
            {
                "curve": name,
                "layers": layers,
                "experts": experts,
                "ranks": ranks,
                "slots": num_slots,
                "1 thread ms": measured.theirs_ns / 1e6,
                "2 threads ms": measured.ours_ns / 1e6,
                "2 / 1": measured.ratio,
                "us a layer": measured.theirs_ns / 1e3 / layers,
                "ns a slot": measured.theirs_ns / layers / num_slots,
            }
        )
    return Section("scale of a balanced plan; one thread and two give the same placement", rows, 1)


def threads_comparison(name: str, loads: Loads, num_slots: int, ranks: int) -> Comparison:
    """Two threads against one, whose placements must be the same."""
    names = {"loads": loads, "P": num_slots, "topology": Topology(ranks), "rebalance": rebalance}
    one, two = (f"rebalance(loads, P, topology, num_threads={threads})" for threads in (1, 2))
    return Comparison(f"threads, {name}", two, one, names, lambda ours, theirs: bool(ours == theirs))


# --- from a placement -------------------------------------------------------------------------------------------------

TOLERANCE = 2e-4
"""By how much a plan may be behind one from nothing, at most."""
DRIFT = 0.3
"""How far loads have moved since the placement that is there was planned: the sigma of a lognormal factor."""
BUDGET_PART = 8
"""A budget of an eighth of all slots."""


def warm(setting: Setting) -> Section:
    """Time of a plan from the placement that is there, with a budget and without, to vLLM's or one from nothing."""
    sizes = setting.sizes
    layers, experts, ranks, num_slots = sizes.large
    ((base_ranks, slots), *_) = shapes(sizes.experts)
    cases = [("base", sizes.layers, sizes.experts, base_ranks, base_ranks * slots)]
    cases.append(("large", layers, experts, ranks, num_slots))
    rows: list[Row] = []
    for name, layers, experts, ranks, num_slots in cases:
        rng = np.random.default_rng(0)
        before = rng.lognormal(0, sizes.sigmas[0], (layers, experts))
        loads = before * rng.lognormal(0, DRIFT, (layers, experts))
        topology = Topology(ranks)
        names: dict[str, Any] = {
            "loads": loads,
            "tensor": torch.from_numpy(loads),
            "P": num_slots,
            "R": ranks,
            "B": layers * num_slots // BUDGET_PART,
            "topology": topology,
            "rebalance": rebalance,
            "before": rebalance(before, num_slots, topology),
        }
        theirs = "rebalance(loads, P, topology)"
        if setting.peers is not None:
            names["vllm"] = setting.peers.vllm_eplb
            theirs = "vllm(tensor, P, 1, 1, R)"

        def better_balanced(
            ours: Placement, theirs: Any, loads: Loads = loads, experts: int = experts, topology: Topology = topology
        ) -> bool:
            other = theirs if isinstance(theirs, Placement) else placed(theirs, experts, topology)
            return ours.balancedness(loads) >= other.balancedness(loads) * (1 - TOLERANCE)

        def within_budget(ours: Placement, _: Any, names: dict[str, Any] = names) -> bool:
            return bool(sum(ours.moves_from(names["before"])) <= names["B"])

        free, bought = (f"rebalance(loads, P, topology, previous=before{more})" for more in ("", ", max_moves=B"))
        for ours, same in ((free, better_balanced), (bought, within_budget)):
            compared = Comparison(f"{name}, {layers} x {experts} in {num_slots}", ours, theirs, names, same)
            rows.append(_timed(measure(compared, sizes.rounds, sizes.batch_seconds)))
    return Section("time of a plan from the placement that is there", rows, 3)


# --- groups -----------------------------------------------------------------------------------------------------------

LIMITS = (0.0, 0.05, 0.1, 0.15)


def groups(setting: Setting) -> Section:
    """Balance within 8 groups on several nodes, by the load that may be served off the groups' homes."""
    sizes = setting.sizes
    rows: list[Row] = []
    ((ranks, slots), *_) = shapes(sizes.experts)
    for sigma in sizes.sigmas:
        loads = lognormal(sizes, sigma)
        for nodes in sizes.nodes:
            topology = Topology(ranks, nodes)
            plan = partial(rebalance, loads, ranks * slots, topology, num_groups=8)
            row: Row = {
                "loads": f"lognormal {sigma:g}",
                "nodes": nodes,
                "deepseek": plan(policy="deepseek").balancedness(loads),
            }
            for limit in LIMITS:
                placement = plan(max_off_node=limit)
                off = placement.off_node(loads, 8)
                assert max(off) <= limit + 1e-9, f"{max(off)} is served off node, expected at most {limit}"
                row |= {f"{limit:g}": placement.balancedness(loads), f"{limit:g} off": float(np.mean(off))}
            row["no groups"] = rebalance(loads, ranks * slots, Topology(ranks)).balancedness(loads)
            rows.append(row)
    title = f"balancedness within 8 groups, {ranks} x {slots}, by the limit off node, and what is served there"
    return Section(title, rows, 1)


# --- the report -------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Setting], Section]] = {
    "times": plan_times,
    "gaps": gaps,
    "known": known,
    "walks": walks,
    "windows": objectives,
    "migrations": migrations,
    "scale": scale,
    "warm": warm,
    "groups": groups,
}


def main(arguments: list[str] | None = None, sizes: Sizes | None = None) -> int:
    """Prints the sections, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description="How fast and how balanced plans are, against the engines' own.")
    parser.add_argument("--traces", type=Path, default=SHIPPED, metavar="FOLDER", help="recorded loads, JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; repeat it for several")
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="turns of each side (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be positive")
    if not options.traces.is_dir():
        parser.error(f"--traces: `{options.traces}` is not a folder")
    torch.set_num_threads(1)
    traces, left_out = read_traces(options.traces)
    sizes = sizes or Sizes(rounds=options.rounds)
    setting = Setting(sizes, traces, load_peers())
    about = environment()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    nothing = ", ".join(left_out) or "no file"
    print(f"{sizes.rounds} rounds in turns, medians; {len(traces)} traces; no loads in {nothing}")
    sections = {}
    for name in options.only or SECTIONS:
        sections[name] = SECTIONS[name](setting)
        print(f"\n{sections[name].as_text()}", flush=True)
    if options.json is not None:
        content = {"environment": about, "sections": {name: asdict(each) for name, each in sections.items()}}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
