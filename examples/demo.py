"""The main job on recorded loads of real models: who owns which expert, what each rank carries, and the tensors.

    python examples/demo.py [PICTURE]

Writes one picture, `demo.png` where no other name is given. Needs the extras `[torch,cli,plot]`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from expert_placement import Partition, build_info
from expert_placement.cli import main as command_line
from expert_placement.cli.loads import read_loads
from expert_placement.cli.panels import comparison
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


def show(case: Case) -> None:
    """Ownership, and the load of each rank, by the command line itself."""
    folder = DATA / case.model
    arguments = ["show", "--config", str(folder), "--ranks", str(case.num_ranks)]
    arguments += ["--loads", str(folder / case.loads), "--compare"]
    print(f"\n=== {case.model} on {case.num_ranks} ranks: {case.why} ===\n")
    print(f"$ expert-placement {shlex.join(arguments)}", flush=True)
    code = command_line(arguments)
    if code:
        sys.exit(code)


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
    """The same loads as a picture."""
    table = read_loads(str(DATA / case.model / case.loads))
    title = f"{case.model}: {table.num_experts} experts on {case.num_ranks} ranks ({case.why}), load of GPQA Diamond"
    plot_ranks(comparison(table, case.num_ranks), picture, title=title)


def main() -> None:
    """Runs the demo."""
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png")
    for case in CASES:
        show(case)
    hand_out_tensors(PICTURED, rank=PICTURED.num_ranks - 1)
    draw(PICTURED, picture)
    print(f"\nThe picture is in {picture.resolve()}")


if __name__ == "__main__":
    main()
