"""Ratios between our calls and what people call instead, measured in one run: `python tests/bench/report.py`.

Each comparison is a pair of statements. Both run in the loop of `timeit.Timer`, where every name is a global of the
statement and the cost of the loop itself is included on both sides. The results are asserted to be equal first. Then
the two take turns (A B A B ...), each turn a batch of a few milliseconds; the figure is the median over the rounds of
the ratio of neighbours, so that a slow moment of the machine hits both. Figures below 1 mean that ours is faster.

The environment variable PEERS names a folder with a `load.py` that loads the engines' functions; without it those rows
are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import timeit
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import expert_placement.torch as ept
import numpy as np
import torch
from expert_placement import (
    Migration,
    Partition,
    Placement,
    Topology,
    build_info,
    plan_migration,
    rebalance,
)
from expert_placement.integrations.vllm import determine_expert_map

RANKS = 8
RANK = 5
SIZES = (8, 256, 4096)

Check: TypeAlias = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Comparison:
    """One statement of ours against one of somebody else, which answer the same question.

    Attributes:
        subject: what is asked, with its sizes.
        ours: our statement.
        theirs: the other statement.
        names: the globals of both.
        same: whether the two results agree.
    """

    subject: str
    ours: str
    theirs: str
    names: dict[str, Any] = field(repr=False)
    same: Check = field(repr=False)

    def assert_same(self) -> None:
        """Both statements, run once, must agree."""
        ours, theirs = (eval(statement, self.names) for statement in (self.ours, self.theirs))
        assert self.same(ours, theirs), f"{self.subject}: {self.ours} gives {ours}, {self.theirs} gives {theirs}"


@dataclass(frozen=True)
class Measurement:
    """Medians over the rounds: nanoseconds a call, and the ratio of neighbouring batches, ours / theirs."""

    subject: str
    ours: str
    theirs: str
    ours_ns: float
    theirs_ns: float
    ratio: float


def seed_expert_map(num_experts: int, num_ranks: int, rank: int) -> torch.Tensor:
    """The torch code that engines write for the linear strategy."""
    base, rem = divmod(num_experts, num_ranks)
    c = base + (rank < rem)
    s = rank * base + min(rank, rem)
    m = torch.full((num_experts,), -1, dtype=torch.int32)
    m[s : s + c] = torch.arange(c, dtype=torch.int32)
    return m


def seed_counts(num_experts: int, num_ranks: int) -> torch.Tensor:
    """Every rank's count in the same style."""
    base, rem = divmod(num_experts, num_ranks)
    counts = torch.full((num_ranks,), base, dtype=torch.int32)
    counts[:rem] += 1
    return counts


def seed_starts(num_experts: int, num_ranks: int) -> torch.Tensor:
    """Every rank's first expert in the same style."""
    base, rem = divmod(num_experts, num_ranks)
    ranks = torch.arange(num_ranks, dtype=torch.int32)
    return ranks * base + ranks.clamp(max=rem)


def load_peers() -> Any | None:
    """The module that loads the engines' own functions, or None where it is not at hand."""
    folder = os.environ.get("PEERS")
    path = Path(folder or "") / "load.py"
    if not folder or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("expert_placement_peers", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses of the peers look their own module up.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec.loader.exec_module(module)
        except FileNotFoundError:
            return None
    return module


def same_tensor(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def same_memory(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """The allocation alone: as much memory of the same kind, whose content is nobody's answer."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape


def same_answer(ours: tuple[int, torch.Tensor, None], theirs: tuple[int, torch.Tensor, None]) -> bool:
    return ours[0] == theirs[0] and same_tensor(ours[1], theirs[1]) and ours[2] is theirs[2] is None


def comparisons() -> list[Comparison]:
    """Every comparison of the report, in its order."""
    peers = load_peers()
    vllm = None if peers is None else peers.vllm_expert_map
    small = [row for experts in SIZES for row in (*tensor_comparisons(experts, vllm), *scalar_comparisons(experts))]
    return small + ([] if peers is None else planner_comparisons(peers))


def planner_comparisons(peers: Any) -> list[Comparison]:
    """Plans and migrations of 58 layers of 256 experts, as DeepSeek-V3 has, against the engines' own; one thread."""
    random = np.random.default_rng(0)
    loads = random.lognormal(0, 0.6, (58, 256))
    later = loads * random.lognormal(0, 0.4, loads.shape)
    topology = Topology(32)
    old = rebalance(loads, 288, topology)

    def placed(table: torch.Tensor) -> Placement:
        return Placement.from_physical_to_logical(table, num_experts=256, topology=topology)

    new = placed(peers.vllm_eplb(torch.from_numpy(later), 288, 1, 1, 32, old.physical_to_logical()))
    names: dict[str, Any] = {
        "loads": loads,
        "tensor": torch.from_numpy(loads),
        "topology": topology,
        "old": old,
        "new": new,
        "before": old.physical_to_logical().numpy().astype("int64"),
        "after": new.physical_to_logical().numpy().astype("int64"),
        "rebalance": rebalance,
        "plan_migration": plan_migration,
        "vllm_eplb": peers.vllm_eplb,
        "sglang_eplb": peers.sglang_eplb,
        "vllm_schedule": peers.vllm_schedule,
    }

    def as_balanced(ours: Placement, theirs: Any) -> bool:
        """Ties are broken in other ways; the balance is the same up to float32."""
        table = theirs[0] if isinstance(theirs, tuple) else theirs
        return abs(ours.balancedness(loads) - placed(table).balancedness(loads)) < 1e-4

    def better_balanced(ours: Placement, theirs: Any) -> bool:
        return ours.balancedness(loads) > placed(theirs).balancedness(loads)

    def as_few_batches(ours: Migration, theirs: list[list[Any]]) -> bool:
        return ours.num_batches <= sum(map(len, theirs))

    field = 'rebalance(loads, 288, topology, "deepseek")'
    sglang = "sglang_eplb(tensor, 288, 1, 1, 32, False)"
    return [
        Comparison("deepseek, 58 x 256 on 32 x 9", field, "vllm_eplb(tensor, 288, 1, 1, 32)", names, as_balanced),
        Comparison("deepseek, 58 x 256 on 32 x 9", field, sglang, names, as_balanced),
        Comparison(
            "balanced, 58 x 256 on 32 x 9",
            "rebalance(loads, 288, topology)",
            "vllm_eplb(tensor, 288, 1, 1, 32)",
            names,
            better_balanced,
        ),
        Comparison(
            "migration, vLLM's new plan",
            "plan_migration(old, new)",
            "vllm_schedule(9, before, after)",
            names,
            as_few_batches,
        ),
    ]


def tensor_comparisons(num_experts: int, vllm: Callable[..., Any] | None) -> list[Comparison]:
    """Maps, counts and starts against torch code, the engine's function and a bare allocation."""
    names: dict[str, Any] = {
        "E": num_experts,
        "R": RANKS,
        "r": RANK,
        "p": Partition(num_experts, RANKS),
        "Partition": Partition,
        "torch": torch,
        "ept": ept,
        "seed_expert_map": seed_expert_map,
        "seed_counts": seed_counts,
        "seed_starts": seed_starts,
        "determine_expert_map": determine_expert_map,
        "vllm_expert_map": vllm,
    }

    def against(subject: str, ours: str, theirs: str, same: Check) -> Comparison:
        return Comparison(f"{subject}, E={num_experts}", ours, theirs, names, same)

    engine = [
        against("expert_map", "p.expert_map(r)", "vllm_expert_map(R, r, E)[1]", same_tensor),
        against("expert_map", "determine_expert_map(R, r, E)", "vllm_expert_map(R, r, E)", same_answer),
    ]
    return [
        against("expert_map", "p.expert_map(r)", "seed_expert_map(E, R, r)", same_tensor),
        against("expert_map", "Partition(E, R).expert_map(r)", "seed_expert_map(E, R, r)", same_tensor),
        *(engine if vllm is not None else []),
        against("expert_map", "p.expert_map(r)", "torch.empty(E, dtype=torch.int32)", same_memory),
        against("expert_map", "p.expert_map(r)", "ept.expert_map(E, R, r)", same_tensor),
        against("counts", "p.counts()", "seed_counts(E, R)", same_tensor),
        against("counts", "p.counts()", "ept.partition_counts(E, R)", same_tensor),
        against("counts", "p.counts()", "torch.empty(R, dtype=torch.int32)", same_memory),
        against("starts", "p.starts()", "seed_starts(E, R)", same_tensor),
        against("starts", "p.starts()", "ept.partition_starts(E, R)", same_tensor),
        against("starts", "p.starts()", "torch.empty(R, dtype=torch.int32)", same_memory),
    ]


def scalar_comparisons(num_experts: int) -> list[Comparison]:
    """Scalar answers against one call of the builtin `divmod`, from whose result each answer can be had.

    `divmod(a, b)` looks the builtin up among the globals and then the builtins, and takes two arguments;
    `p.owner(e)` looks `p` up among the globals and then its method, and takes one.
    """
    p = Partition(num_experts, RANKS)
    expert = num_experts - 2
    base = num_experts // RANKS

    def of_rank(query: str, same: Check) -> Comparison:
        names = {"p": p, "r": RANK, "a": num_experts, "b": RANKS}
        return Comparison(f"{query}, E={num_experts}", f"p.{query}(r)", "divmod(a, b)", names, same)

    def of_expert(query: str, same: Check) -> Comparison:
        # R divides E here, so that one division of the expert by the share says both.
        names = {"p": p, "e": expert, "a": expert, "b": base}
        return Comparison(f"{query}, E={num_experts}", f"p.{query}(e)", "divmod(a, b)", names, same)

    return [
        of_expert("owner", lambda ours, theirs: bool(ours == theirs[0])),
        of_expert("local_index", lambda ours, theirs: bool(ours == theirs[1])),
        of_rank("start", lambda ours, theirs: bool(ours == RANK * theirs[0] + min(RANK, theirs[1]))),
        of_rank("count", lambda ours, theirs: bool(ours == theirs[0] + (theirs[1] > RANK))),
    ]


def measure(comparison: Comparison, rounds: int, batch_seconds: float) -> Measurement:
    """Times one comparison, the two statements taking turns."""
    comparison.assert_same()
    timers = [timeit.Timer(statement, globals=comparison.names) for statement in (comparison.ours, comparison.theirs)]
    calls = [calls_for(timer, batch_seconds) for timer in timers]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        for timer, number, seconds in zip(timers, calls, (ours, theirs), strict=True):
            seconds.append(timer.timeit(number) / number)
    return Measurement(
        subject=comparison.subject,
        ours=comparison.ours,
        theirs=comparison.theirs,
        ours_ns=statistics.median(ours) * 1e9,
        theirs_ns=statistics.median(theirs) * 1e9,
        ratio=statistics.median(one / other for one, other in zip(ours, theirs, strict=True)),
    )


def calls_for(timer: timeit.Timer, seconds: float) -> int:
    """How many calls take about as long as asked; running them warms the statement up."""
    number = 1
    while (taken := timer.timeit(number)) < seconds / 4:
        number *= 2
    return max(1, round(number * seconds / taken))


def as_table(measurements: list[Measurement]) -> str:
    """The measurements as aligned text, one a line."""
    rows = [("subject", "ours", "theirs", "ours ns", "theirs ns", "ours/theirs")]
    rows += [
        (each.subject, each.ours, each.theirs, f"{each.ours_ns:.0f}", f"{each.theirs_ns:.0f}", f"{each.ratio:.3f}")
        for each in measurements
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def environment() -> dict[str, object]:
    """What the figures depend on."""
    Partition(1, 1).counts()
    return {
        **build_info(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Prints the table of ratios, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description="Ratios of our calls to what people call instead.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=31, help="turns of each statement (default: %(default)s)")
    parser.add_argument("--batch-ms", type=float, default=2.0, help="length of a turn (default: %(default)s ms)")
    parser.add_argument("--only", default="", metavar="TEXT", help="comparisons whose subject contains TEXT")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not options.batch_ms > 0:
        parser.error("--rounds and --batch-ms must be positive")
    chosen = [each for each in comparisons() if options.only in each.subject]
    measurements = [measure(each, options.rounds, options.batch_ms / 1e3) for each in chosen]
    about = environment()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{options.rounds} rounds of {options.batch_ms:g} ms, in turns; medians; R={RANKS}")
    print(as_table(measurements))
    if options.json is not None:
        content = {"environment": about, "measurements": [vars(each) for each in measurements]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
