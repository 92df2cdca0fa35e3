"""The harness of `planners.py`: what it compares must be right before it gives a figure. No test asserts a time."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="placements make tensors")

import numpy as np
import torch
from expert_placement import Placement, Topology, plan_migration, rebalance

from tests.bench import measuring, planners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = planners.Sizes(
    restarts=2,
    layers=2,
    experts=16,
    sigmas=(0.6,),
    rounds=1,
    batch_seconds=1e-5,
    window=2,
    walk_ranks=2,
    objective_window=1,
    large=(2, 16, 4, 20),
    layer_curve=(1, 2),
    expert_curve=(16,),
    slot_curve=(9,),
    nodes=(2,),
)
LOADS = planners.lognormal(SMALL, 0.6)
TOPOLOGY = Topology(4)
OLD = rebalance(LOADS, 20, TOPOLOGY)
NEW = rebalance(LOADS[:, ::-1], 20, TOPOLOGY)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def engines(first: str = "deepseek", second: str = "deepseek") -> SimpleNamespace:
    """Functions like those of the engines, by our own policies."""

    def vllm(loads: torch.Tensor, slots: int, groups: int, nodes: int, ranks: int, old: Any = None) -> torch.Tensor:
        return rebalance(loads, slots, Topology(ranks, nodes), first, groups).physical_to_logical()  # type: ignore[arg-type]

    def sglang(
        loads: torch.Tensor, slots: int, groups: int, nodes: int, ranks: int, hierarchical: bool
    ) -> tuple[torch.Tensor, ...]:
        return planners.tables(rebalance(loads, slots, Topology(ranks, nodes), second, groups))  # type: ignore[arg-type]

    return SimpleNamespace(vllm_eplb=vllm, sglang_eplb=sglang, vllm_schedule=one_by_one)


def one_by_one(slots: int, before: Any, after: Any) -> list[list[list[SimpleNamespace]]]:
    """A schedule with a batch for every transfer."""
    num_experts = int(before.max()) + 1
    topology = Topology(before.shape[1] // slots)
    old, new = (Placement.from_physical_to_logical(each, num_experts, topology) for each in (before, after))
    return [
        [
            [SimpleNamespace(dst_rank=to, expert_ids=(expert,))]
            for layer, expert, to in sorted(planners.transfers_of(plan_migration(old, new)))
            if layer == of
        ]
        for of in range(old.num_layers)
    ]


def test_shapes_are_those_of_256_experts_scaled_with_room_for_every_expert_for_1_to_1024() -> None:
    assert planners.shapes(256) == list(planners.SHAPES)
    assert planners.shapes(64) == [(8, 9), (16, 5), (18, 4), (36, 2)]
    assert planners.shapes(8) == [(2, 5), (3, 4), (5, 2)]
    for experts in range(1, 1025):
        assert all(ranks > 1 and ranks * slots >= experts for ranks, slots in planners.shapes(experts))


def test_plans_of_engines_that_agree_are_accepted() -> None:
    for each in planners.plan_comparisons("small", LOADS, 4, 5, engines()):
        each.assert_same()


def test_a_plan_of_another_balance_is_rejected() -> None:
    comparisons = planners.plan_comparisons("small", LOADS, 4, 5, engines("balanced", "balanced"))
    for each in comparisons[:4]:
        with pytest.raises(AssertionError, match=r"^small, 2 x 16 on 4 x 5: "):
            measuring.measure(each, rounds=1, batch_seconds=1e-5)


def test_a_plan_of_ours_that_is_less_balanced_is_rejected() -> None:
    balanced = planners.plan_comparisons("small", LOADS, 4, 5, engines("balanced"))[-1]
    balanced.assert_same()
    balanced.names["rebalance"] = lambda loads, slots, topology: rebalance(loads, slots, topology, "deepseek")
    with pytest.raises(AssertionError, match="on 4 x 5"):
        balanced.assert_same()


def test_a_layer_that_is_worse_is_rejected() -> None:
    field = rebalance(LOADS, 20, TOPOLOGY, "deepseek")
    planners.assert_nowhere_worse(OLD, field, LOADS)
    with pytest.raises(AssertionError, match=r"^layer 0: "):
        planners.assert_nowhere_worse(field, OLD, LOADS)


def test_a_migration_with_the_same_transfers_in_no_more_batches_is_accepted() -> None:
    planners.migration_comparison("small", OLD, NEW, 5, one_by_one).assert_same()


def test_a_migration_is_rejected_where_a_transfer_is_missing_or_the_engine_has_fewer_batches() -> None:
    def without_the_last(slots: int, before: Any, after: Any) -> list[list[list[SimpleNamespace]]]:
        *others, last = one_by_one(slots, before, after)
        return [*others, last[:-1]]

    def in_one_batch(slots: int, before: Any, after: Any) -> list[list[list[SimpleNamespace]]]:
        layers = one_by_one(slots, before, after)
        return [[[flow for layer in layers for batch in layer for flow in batch]]]

    for schedule in (without_the_last, in_one_batch):
        with pytest.raises(AssertionError, match=r"^migration, small"):
            planners.migration_comparison("small", OLD, NEW, 5, schedule).assert_same()


def test_another_placement_by_two_threads_is_rejected() -> None:
    comparison = planners.threads_comparison("small", LOADS, 20, 4)
    comparison.assert_same()
    comparison.names["rebalance"] = lambda *arguments, num_threads: (OLD, NEW)[num_threads - 1]
    with pytest.raises(AssertionError, match=r"^threads, small"):
        comparison.assert_same()


def test_a_walk_counts_the_moves_of_everybody_and_keeps_the_budget() -> None:
    windows = [LOADS, LOADS[:, ::-1].copy(), LOADS]
    for peers in (None, engines()):
        theirs, limited, free = planners.walk(windows, 20, 4, 4, peers).values()
        assert len(theirs.moves) == len(limited.moves) == len(free.moves) == 2
        assert all(0 < ours <= other // 4 for ours, other in zip(limited.moves, theirs.moves, strict=True))
        assert len(theirs.now) == 2
        assert len(theirs.next) == 1
        start, there = (rebalance(window, 20, TOPOLOGY, "deepseek") for window in windows[:2])
        assert theirs.moves[0] == sum(there.moves_from(start))


def test_traces_are_read_with_their_tasks_and_other_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    sequences = [[[1, 2], [3, 4]]] * 5
    for name, content in {
        "config": {"num_experts": 2},
        "first": {"counts": sequences},
        "second": {"counts": sequences[:1]},
        "tasks": {"counts": sequences[:3], "windows": ["a", "b", "c"]},
        "total": {"counts_total": sequences[0]},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    traces, left_out = planners.read_traces(tmp_path)
    assert left_out == ["model/config.json"]
    assert [(each.name, each.has_tasks) for each in traces] == [
        ("first", False),
        ("second", False),
        ("tasks", True),
        ("total", False),
    ]
    assert [each.total().tolist() for each in traces[:2]] == [[[5, 10], [15, 20]], [[1, 2], [3, 4]]]
    setting = planners.Setting(SMALL, traces, None)
    walks = [
        (name, [int(each[0, 0]) for each in windows], part) for name, windows, part in planners.itineraries(setting)
    ]
    assert walks == [("first", [2, 2], 8), ("tasks, tasks", [1, 1, 1], 4), ("model, tasks", [2, 1, 2], 4)]


@pytest.mark.parametrize("peers", [None, engines()], ids=["no engines", "engines"])
def test_every_section_is_printed_and_written(
    peers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planners, "load_peers", lambda: peers)
    file = tmp_path / "planners.json"
    assert planners.main(["--json", str(file)], SMALL) == 0
    printed = capsys.readouterr().out
    sections = json.loads(file.read_text())["sections"]
    assert list(sections) == list(planners.SECTIONS)
    for name, section in sections.items():
        assert section["title"] in printed
        assert section["rows"] or (peers is None and name in ("times", "migrations"))
        assert len({tuple(row) for row in section["rows"]}) <= 1
    assert ("the engines' functions are absent" in printed) == (peers is None)


def test_wrong_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--rounds", "0"], ["--traces", str(tmp_path / "none")], ["--only", "none"]):
        with pytest.raises(SystemExit, match="2"):
            planners.main(arguments, SMALL)
    assert "--rounds must be positive" in capsys.readouterr().err


def test_the_stable_sort_is_put_back() -> None:
    unstable = torch.Tensor.sort
    ties = torch.zeros(100)
    with planners.stable_sort():
        assert ties.sort(-1, descending=True).indices.tolist() == list(range(100))
    assert torch.Tensor.sort is unstable
    assert np.isfinite(planners.gap(OLD, LOADS))
