"""`expert-placement simulate`: that it plays the windows as the library would, and what it says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="placements need torch")

from expert_placement import Placement, Topology, plan_migration, rebalance

from tests.cli.running import OLMOE, program, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.running import Shell

# Seven windows of two layers, whose heavy experts wander.
LOADS = np.random.default_rng(7).integers(1, 20, (7, 2, 12))
LOADS[np.arange(7), :, np.arange(7)] += 100
RANKS, SLOTS = 4, 16


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    return write(tmp_path / "windows.json", {"counts": LOADS.tolist()})


def linear() -> Placement:
    row = [3 * rank + slot if slot < 3 else -1 for rank in range(RANKS) for slot in range(SLOTS // RANKS)]
    return Placement.from_physical_to_logical([row] * 2, num_experts=12, topology=Topology(RANKS))


def arguments(windows: Path, *more: object) -> tuple[object, ...]:
    return ("simulate", "--loads", windows, "--ranks", RANKS, "--slots", SLOTS, *more)


@pytest.mark.parametrize("every", [1, 2, 3, 6])
@pytest.mark.parametrize("policy", ["balanced", "deepseek"])
def test_each_window_is_carried_by_the_plan_for_those_before(
    shell: Shell, windows: Path, policy: str, every: int
) -> None:
    shown = shell.fields(*arguments(windows, "--policy", policy, "--every", every))
    (run,) = shown["policies"]
    placement, mean, largest, moves = linear(), 0.0, 0.0, 0
    for step, window in zip(run["steps"], range(every, 7, every), strict=True):
        past, future = LOADS[window - every : window], LOADS[window : window + every]
        new = rebalance(past, SLOTS, Topology(RANKS), policy, previous=placement)  # type: ignore[arg-type]
        plan = plan_migration(placement, new)
        assert step == {
            "planned_for": list(range(window - every, window)),
            "used_in": list(range(window, min(7, window + every))),
            "balancedness_planned_for": pytest.approx(new.balancedness(past)),
            "balancedness_next": pytest.approx(new.balancedness(future)),
            "num_moves": sum(new.moves_from(placement)),
            "num_batches": plan.num_batches,
        }
        mean += sum(layer.mean for layer in new.report(future))
        largest += sum(layer.largest for layer in new.report(future))
        moves += sum(new.moves_from(placement))
        placement = new
    assert run["balancedness_next"] == pytest.approx(mean / largest)
    assert run["worst_next"] == min(step["balancedness_next"] for step in run["steps"])
    assert run["num_moves"] == moves
    assert run["balancedness_next"] <= shown["best_next"] <= 1


def test_policies_stand_side_by_side(shell: Shell, windows: Path) -> None:
    policies = ("--policy", "none", "--policy", "deepseek", "--policy", "balanced", "--max-moves", 2, "--max-moves", 5)
    shown = shell.fields(*arguments(windows, *policies))
    runs = {run["name"]: run for run in shown["policies"]}
    assert list(runs) == ["none", "deepseek", "balanced, 2 moves", "balanced, 5 moves"]
    kept = runs["none"]
    assert (kept["num_moves"], kept["num_batches"]) == (0, 0)
    assert [step["balancedness_next"] for step in kept["steps"]] == [
        pytest.approx(linear().balancedness(LOADS[window : window + 1])) for window in range(1, 7)
    ]
    for budget in (2, 5):
        assert all(step["num_moves"] <= budget for step in runs[f"balanced, {budget} moves"]["steps"])
    # Alone each does what it does beside the others.
    (alone,) = shell.fields(*arguments(windows, "--policy", "deepseek"))["policies"]
    assert alone == runs["deepseek"]

    lines = shell.lines(*arguments(windows, *policies))
    assert lines[0] == "2 layers of 12 experts in 16 slots on 4 ranks"
    assert lines[2] == "start: linear partition; 6 plans, each from the last 1 window and for the next"
    assert lines[4].split("   ")[0] == "policy"
    for name, line in zip(runs, lines[5:9], strict=True):
        run = runs[name]
        numbers = (f"{run['balancedness_planned_for']:.4f}", f"{run['balancedness_next']:.4f}")
        assert line.startswith(name)
        assert line.removeprefix(name).split()[:2] == list(numbers)
        assert line.split()[-3:] == [str(run["num_moves"]), f"{run['num_moves'] / 6:.1f}", str(run["num_batches"])]
    header = next(index for index, line in enumerate(lines) if line.startswith("windows"))
    assert len(lines) == header + 1 + 4 * 6
    assert [line.split()[0] for line in lines[header + 1 :: 4]] == list("123456")


def test_without_other_word_balanced_is_compared_with_keeping(shell: Shell, windows: Path) -> None:
    assert [run["name"] for run in shell.fields(*arguments(windows))["policies"]] == ["none", "balanced"]


def test_a_placement_to_start_from_is_kept_by_the_policy_none(shell: Shell, windows: Path, tmp_path: Path) -> None:
    file, start = tmp_path / "start.json", rebalance(LOADS[0], SLOTS, Topology(RANKS))
    start.save(file)
    shown = shell.fields("simulate", "--loads", windows, "--previous", file)
    kept, planned = shown["policies"]
    assert kept["steps"][2]["balancedness_next"] == start.balancedness(LOADS[3])
    new = rebalance(LOADS[0], SLOTS, Topology(RANKS), previous=start)
    assert planned["steps"][0]["num_moves"] == sum(new.moves_from(start))
    assert shown["start"] == str(file)


def test_ranks_that_are_lost_take_experts_with_them(shell: Shell, windows: Path, tmp_path: Path) -> None:
    file = tmp_path / "start.json"
    linear().save(file)
    lost = ("simulate", "--loads", windows, "--previous", file, "--inactive", 0, "--policy", "balanced")
    (run,) = shell.fields(*lost)["policies"]
    # What no rank holds can not be sent from anywhere, but comes to a rank all the same.
    assert run["steps"][0]["num_batches"] is None
    assert run["steps"][0]["num_moves"] >= 6
    assert run["steps"][1]["num_batches"] is not None
    assert run["num_batches"] is None
    assert shell.lines(*lost)[5].split()[-1] == "-"
    assert "rank" in shell.refused(*lost, "--policy", "none")


def test_a_long_simulation_says_what_it_leaves_out(shell: Shell, tmp_path: Path) -> None:
    file = write(tmp_path / "windows.json", [[[window % 5 + 1, 2, 3]] for window in range(80)])
    lines = shell.lines("simulate", "--loads", file, "--ranks", 2, "--slots", 4)
    (omitted,) = (line for line in lines if line.startswith("    ..."))
    assert omitted.endswith("55 more plans, all of them with --json")
    assert lines[-2].split()[0] == "79"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--every 0", "every=0 is out of range, expected 1..=6, fewer than the 7 windows of"),
        ("--every 7", "every=7 is out of range, expected 1..=6, fewer than the 7 windows of"),
        ("--policy x", "policy=`x` is unknown, expected one of `none`, `balanced`, `deepseek`"),
        ("--policy none --policy none", "policy=`none` is given twice"),
        (
            "--policy deepseek --max-moves 3",
            "--max-moves limits the policy `balanced`, which is not among those of --policy",
        ),
        (
            "--policy none --min-gain 0.1",
            "--min-gain limits the policy `balanced`, which is not among those of --policy",
        ),
        (
            "--policy none --max-off-node 0.1",
            "--max-off-node limits the policy `balanced`, which is not among those of --policy",
        ),
        ("--max-moves -3", "max_moves=-3 is out of range, expected 0..=2147483647"),
        ("--min-gain nan", "min_gain=NaN is out of range"),
        ("--groups 3 --nodes 3 --policy deepseek", "num_ranks=4 does not divide by num_nodes=3"),
    ],
)
def test_wrong_arguments_are_one_line(shell: Shell, windows: Path, more: str, message: str) -> None:
    assert shell.refused(*arguments(windows, *more.split())).startswith(message)


def test_loads_without_windows_are_one_line(shell: Shell) -> None:
    assert shell.refused("simulate", "--loads", OLMOE, "--ranks", 4, "--slots", 64) == (
        f"`{OLMOE}` has 1 window, expected at least 2, one to plan for and one to score it in: "
        "[windows][layers][experts]"
    )


def test_a_pipe_gets_plain_lines_of_any_length(windows: Path) -> None:
    result = program(*arguments(windows), COLUMNS="30", FORCE_COLOR="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "plan by plan: balancedness in the windows planned for and in the next, and what moves" in result.stdout
