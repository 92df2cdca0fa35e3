"""Ratios between our calls of a partition and what people call instead: `python -m tests.bench.report`.

How they are measured stands in `measuring.py`. The environment variable PEERS names a folder with a `load.py` that
loads the engines' functions; without it those rows are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import expert_placement.torch as ept
import torch
from expert_placement import Partition
from expert_placement.integrations.vllm import determine_expert_map

from tests.bench.measuring import Check, Comparison, Measurement, aligned, environment, load_peers, measure

if TYPE_CHECKING:
    from collections.abc import Callable

RANKS = 8
RANK = 5
SIZES = (8, 256, 4096)


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
    return [row for experts in SIZES for row in (*tensor_comparisons(experts, vllm), *scalar_comparisons(experts))]


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


def as_table(measurements: list[Measurement]) -> str:
    """The measurements as aligned text, one a line."""
    header = ("subject", "ours", "theirs", "ours ns", "theirs ns", "ours/theirs")
    rows = [
        (each.subject, each.ours, each.theirs, f"{each.ours_ns:.0f}", f"{each.theirs_ns:.0f}", f"{each.ratio:.3f}")
        for each in measurements
    ]
    return aligned([header, *rows], left=3)


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
