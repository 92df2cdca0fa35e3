"""The main job on recorded loads of real models: who owns which expert, and what a plan does to the load of the ranks.

    python examples/demo.py [PICTURE]

Writes one picture, `demo.png` where no other name is given. Needs the extras `[torch,cli,plot]`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from expert_placement import Partition, Topology, build_info, rebalance
from expert_placement.cli import main as command_line
from expert_placement.cli.loads import read_loads
from expert_placement.cli.panels import comparison, placed
from expert_placement.plot import plot_ranks

# From where the demo is started, so that the commands that it prints are short and can be typed.
DATA = Path(os.path.relpath(Path(__file__).resolve().parent / "data"))


class Case(NamedTuple):
    """A model, a recorded load, and a number of ranks that does not divide the model's experts."""

    model: str
    loads: str
    num_ranks: int
    why: str


CASES = (
    Case("mixtral-8x7b", "mmlu_machine_learning.json", 3, "three GPUs"),
    Case("olmoe-1b-7b", "c4.json", 6, "six GPUs"),
    Case("gpt-oss-20b", "gpqa_diamond.json", 7, "a node of eight GPUs that lost one"),
)
PICTURED = CASES[-1]
# Redundant slots of the pictured case: five slots for each of the seven ranks.
REDUNDANT = 3


def run(*arguments: str) -> None:
    """Runs a command of the command line, and says which."""
    print(f"$ expert-placement {shlex.join(arguments)}", flush=True)
    code = command_line(arguments)
    if code:
        sys.exit(code)


def show(case: Case) -> None:
    """Ownership, and the load of each rank."""
    folder = DATA / case.model
    print(f"\n=== {case.model} on {case.num_ranks} ranks: {case.why} ===\n")
    loads = str(folder / case.loads)
    run("show", "--config", str(folder), "--ranks", str(case.num_ranks), "--loads", loads, "--compare")


def plan(case: Case) -> None:
    """Replicas where the measured load asks for them: before and after."""
    print(f"\n=== {case.model}: before and after a plan with {REDUNDANT} redundant slots ===\n")
    loads = str(DATA / case.model / case.loads)
    run("plan", "--loads", loads, "--ranks", str(case.num_ranks), "--redundant", str(REDUNDANT))


def simulate() -> None:
    """Six corpora one after another, each planned for by what came before it."""
    print("\n=== olmoe-1b-7b on 8 ranks: six corpora, one after another ===\n")
    policies = ("--policy", "none", "--policy", "deepseek", "--policy", "balanced")
    loads = str(DATA / "olmoe-1b-7b" / "corpora.json")
    run("simulate", "--loads", loads, "--ranks", "8", "--redundant", "8", *policies)


def hand_out_tensors(case: Case, rank: int) -> None:
    """What an engine takes from the same object: tensors in the memory that Rust filled."""
    partition = Partition.from_config(DATA / case.model, case.num_ranks)
    expert_map = partition.expert_map(rank)
    hand_over = build_info()["tensor_hand_over"]
    print(f"\n=== the tensors of rank {rank} ===\n")
    print(partition)
    print(f"expert_map({rank})    {expert_map.tolist()}")
    print(f"                 {expert_map.dtype}, shape {tuple(expert_map.shape)}, device {expert_map.device}")
    print(f"local_experts({rank}) {partition.local_experts(rank).tolist()}")
    print(f"counts()         {partition.counts().tolist()}")
    print(f"offsets()        {partition.offsets().tolist()}")
    print(f"handed over by   {hand_over}: no copy, the tensor's storage is the memory that Rust filled")
    print(f"build            {build_info()}")


def draw(case: Case, picture: Path) -> None:
    """The same loads as a picture: the old rule, the linear partition, and two plans."""
    table = read_loads(str(DATA / case.model / case.loads))
    topology, num_slots = Topology(case.num_ranks), table.num_experts + REDUNDANT
    panels = comparison(table, case.num_ranks)[:2]
    for policy in ("deepseek", "balanced"):
        planned = rebalance(table.loads, num_slots, topology, policy)
        panels.append(placed(f"{policy}, {REDUNDANT} redundant slots", planned, table.loads))
    title = f"{case.model}: {table.num_experts} experts on {case.num_ranks} ranks ({case.why}), load of GPQA Diamond"
    plot_ranks(panels, picture, title=title, rows=("counts", "loads", "layers"))


def main() -> None:
    """Runs the demo."""
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png")
    for case in CASES:
        show(case)
    plan(PICTURED)
    simulate()
    hand_out_tensors(PICTURED, rank=PICTURED.num_ranks - 1)
    draw(PICTURED, picture)
    print(f"\nThe picture is in {picture.resolve()}")


if __name__ == "__main__":
    main()
