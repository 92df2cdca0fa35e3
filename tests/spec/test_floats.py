"""The model's sums of floats: rounded after every addition, on every version of Python."""

from __future__ import annotations

import ast
from pathlib import Path

from expert_placement_spec.floats import in_order

REFERENCE = Path(__file__).parents[2] / "spec/expert_placement_spec"
# What they add up are ints, by name of the file: experts, replicas, slots and moves are counted.
COUNTED = {"replication.py": 3, "warm_start.py": 2, "homes.py": 1, "topology.py": 3}


def test_sums_are_rounded_after_every_addition() -> None:
    tenths = [0.1] * 10
    assert in_order(tenths) == 0.9999999999999999
    assert in_order([1e16, 1.0, -1e16]) == 0.0
    assert in_order(iter([])) == 0.0


def test_the_model_adds_floats_up_in_no_other_way() -> None:
    """Python's `sum` gives 1.0 for ten tenths from 3.12 on, and a plan would depend on the version.

    Views and laws compare with a tolerance.
    """
    found = {}
    for path in (*(REFERENCE / "balance").glob("*.py"), *(REFERENCE / "placement").glob("*.py")):
        if path.name in ("view.py", "domain.py", "optimum.py", "invariants.py"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        number = sum(isinstance(call.func, ast.Name) and call.func.id in ("sum", "fsum") for call in calls)
        if number:
            found[path.name] = number
    assert found == COUNTED
