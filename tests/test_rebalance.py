"""Plans: the field's algorithm bit by bit, and what every plan must keep, from nothing and from a placement."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from expert_placement import Placement, Topology, capacity_curve, rebalance
from expert_placement_spec.balance import deepseek
from expert_placement_spec.placement.topology import Topology as SpecTopology
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="tensors need torch")

Loads = npt.NDArray[np.float64]


def random_loads(rng: np.random.Generator, kind: int, *shape: int) -> Loads:
    """Loads with many ties, few ties, none, and none at all but zeros."""
    if kind == 0:
        return rng.integers(0, 5, shape).astype(float)
    if kind == 1:
        return rng.integers(0, 1000, shape).astype(float)
    return rng.lognormal(0, 1, shape) if kind == 2 else np.zeros(shape)


def table(placement: Placement) -> npt.NDArray[np.int32]:
    array: npt.NDArray[np.int32] = placement.physical_to_logical().numpy()
    return array


def moves(old: Placement, new: Placement) -> int:
    """How many experts come to a rank that did not hold as many of them."""
    offsets = old.slot_offsets().tolist()
    moved = 0
    for before, after in zip(table(old), table(new), strict=True):
        for start, end in pairwise(offsets):
            came = Counter(after[start:end].tolist()) - Counter(before[start:end].tolist())
            moved += sum(came.values()) - came[-1]
    return moved


def largest(placement: Placement, loads: Any) -> list[float]:
    return [report.largest for report in placement.report(loads)]


@st.composite
def even_cases(draw: st.DrawFn) -> tuple[Loads, int, int, int, int]:
    """Loads, slots, ranks, nodes and groups to which the field's algorithm applies."""
    nodes = draw(st.sampled_from([1, 2, 4]))
    ranks = nodes * draw(st.integers(1, 4))
    groups = draw(st.sampled_from([1, nodes, 2 * nodes, 3]))
    experts = groups * draw(st.integers(1, 5))
    slots = ranks * (-(-experts // ranks) + draw(st.integers(0, 2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_loads(rng, draw(st.integers(0, 3)), 2, experts), slots, ranks, nodes, groups


@given(even_cases())
@settings(max_examples=300)
def test_the_policy_deepseek_is_the_specifications(case: tuple[Loads, int, int, int, int]) -> None:
    loads, slots, ranks, nodes, groups = case
    placement = rebalance(loads, slots, Topology(ranks, nodes), "deepseek", groups)
    expected = [deepseek.place(row.tolist(), slots, SpecTopology(ranks, nodes), groups) for row in loads]
    assert table(placement).tolist() == expected


def peers() -> Any:
    """The engines' own functions, where the environment variable PEERS names the folder that loads them."""
    folder = os.environ.get("PEERS")
    if not folder:
        pytest.skip("PEERS names no folder with the engines' functions")
    spec = importlib.util.spec_from_file_location("expert_placement_peers_of_balance", Path(folder) / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_policy_deepseek_is_the_engines_with_a_stable_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Domain: 2,000 pseudo-random cases, hierarchical and global, with and without ties."""
    sglang = peers().sglang_eplb

    def stable(self: Any, dim: int = -1, descending: bool = False) -> Any:
        return torch.sort(self, dim=dim, descending=descending, stable=True)

    monkeypatch.setattr(torch.Tensor, "sort", stable)
    rng = np.random.default_rng(11)
    for case in range(2000):
        nodes = int(rng.choice([1, 2, 4]))
        ranks = nodes * int(rng.integers(1, 5))
        groups = int(rng.choice([1, nodes, 2 * nodes, 3]))
        experts = groups * int(rng.integers(1, 6))
        slots = ranks * (-(-experts // ranks) + int(rng.integers(0, 3)))
        loads = random_loads(rng, case % 4, 2, experts)
        theirs = sglang(torch.from_numpy(loads), slots, groups, nodes, ranks, groups % nodes == 0)[0]
        ours = rebalance(loads, slots, Topology(ranks, nodes), "deepseek", groups)
        assert table(ours).tolist() == theirs.tolist(), (loads, slots, ranks, nodes, groups)


@given(even_cases())
@settings(max_examples=200)
def test_the_balanced_policy_is_never_worse(case: tuple[Loads, int, int, int, int]) -> None:
    loads, slots, ranks, nodes, groups = case
    topology = Topology(ranks, nodes)
    ours = rebalance(loads, slots, topology, num_groups=groups)
    theirs = rebalance(loads, slots, topology, "deepseek", groups)
    # Up to the order in which floats are added, where a rank could hold more than every expert once.
    for one, other in zip(largest(ours, loads), largest(theirs, loads), strict=True):
        assert one <= other * (1 + 1e-14)


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.1, None, 1.0])
@pytest.mark.parametrize(("nodes", "ranks", "slots"), [(2, 8, 40), (4, 8, 40), (4, 32, 288), (8, 16, 48)])
def test_load_off_node_is_limited(nodes: int, ranks: int, slots: int, limit: float | None) -> None:
    rng = np.random.default_rng(nodes)
    loads = np.exp(rng.normal(0, 0.8, (6, 32)))
    topology = Topology(ranks, nodes)
    plan = rebalance(loads, slots, topology, num_groups=8, max_off_node=limit)
    most = 0.15 if limit is None else limit
    assert all(off <= most + 1e-9 for off in plan.off_node(loads, 8))
    # A loose limit lets more balance in, and none is worse than whole groups on nodes.
    field = rebalance(loads, slots, topology, "deepseek", 8)
    assert field.off_node(loads, 8) == [0.0] * 6
    for one, other in zip(largest(plan, loads), largest(field, loads), strict=True):
        assert one <= other * (1 + 1e-14)


@pytest.mark.parametrize("num_groups", [2, 4, 8])
def test_every_expert_has_a_replica_at_home(num_groups: int) -> None:
    rng = np.random.default_rng(num_groups)
    loads = rng.random((5, 64))
    plan = rebalance(loads, 80, Topology(8, 2), num_groups=num_groups)
    nodes = torch.from_numpy(table(plan)).long().view(5, 2, 40)
    shares = torch.from_numpy(loads) / plan.replica_counts()
    for layer in range(5):
        served = torch.stack([torch.bincount(node, shares[layer][node], 64) for node in nodes[layer]])
        homes = served.view(2, num_groups, -1).sum(2).argmax(0)
        for expert in range(64):
            assert expert in nodes[layer, homes[expert // (64 // num_groups)]]


def test_groups_stay_whole_on_nodes_of_different_room_and_speed() -> None:
    """Domain: 300 random topologies of up to 7 ranks on up to 7 nodes, with up to 3 groups a node of 3 experts."""
    planned = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        ranks = int(rng.integers(2, 8))
        nodes = int(rng.integers(2, ranks + 1))
        groups, size = nodes * int(rng.integers(1, 4)), int(rng.integers(1, 4))
        slots = rng.integers(0, 2 * groups * size, ranks).tolist()
        speeds = rng.choice([0.5, 1.0, 2.0], ranks).tolist()
        loads = rng.lognormal(0, 1.5, (1, groups * size))
        topology = Topology(ranks, nodes, slots_per_rank=slots, speeds=speeds)
        try:
            plan = rebalance(loads, sum(slots), topology, num_groups=groups, max_off_node=0.0)
        except ValueError as error:
            assert re.search("max_off_node=0 is out of reach|leaves room for", str(error))  # noqa: PT017
            continue
        planned += 1
        assert plan.off_node(loads, groups) == [0.0]
        assert set(table(plan).ravel().tolist()) - {-1} == set(range(groups * size))
    assert planned > 200


def test_groups_stay_at_home_from_one_placement_to_the_next() -> None:
    rng = np.random.default_rng(3)
    loads = np.exp(rng.normal(0, 0.8, (6, 64)))
    plan = rebalance(loads, 80, Topology(16, 4), num_groups=8)
    for _ in range(5):
        loads *= np.exp(rng.normal(0, 0.2, loads.shape))
        for moves in (0, 10, 40, None):
            after = rebalance(loads, 80, Topology(16, 4), num_groups=8, previous=plan, max_moves=moves)
            for off, before in zip(after.off_node(loads, 8), plan.off_node(loads, 8), strict=True):
                assert off <= max(0.15, before if moves is not None else 0) + 1e-9
        plan = after


@pytest.mark.parametrize(
    ("loads", "slots", "ranks"),
    [
        ([0.0, 9, 8, 8, 8, 0, 7, 7], 24, 8),
        ([8.0, 2, 2, 2, 0, 0, 0, 8], 12, 4),
        ([0.42314611248853845, 0.6467001393879872, 0.8954354265575972, 0.6348797235255271], 9, 3),
    ],
)
def test_separated_replicas_do_not_come_together_again(loads: list[float], slots: int, ranks: int) -> None:
    # The field's plan has two replicas on several ranks here; exchanging one must not make another be forgotten.
    plan, field = (rebalance([loads], slots, Topology(ranks), policy) for policy in ("balanced", "deepseek"))
    assert plan.report([loads])[0].largest <= field.report([loads])[0].largest
    for held in table(plan).reshape(ranks, -1):
        assert len(set(held.tolist())) == len(held)


def test_second_copies_that_change_nothing_are_given_up() -> None:
    for loads, slots, topology, groups in (
        ([[1.0, 2.0]], 6, Topology(3), 1),
        ([[0.0, 1.0, 2.0, 2.0]], 6, Topology(2), 1),
        ([[2.0, 1.0, 1.0, 2.0]], 8, Topology(2, 2), 4),
        ([[[0.0, 0, 0, 1, 1, 0]], [[0.0, 1, 1, 0, 0, 0]]], 8, Topology(4, 2), 2),
    ):
        rows = table(rebalance(loads, slots, topology, num_groups=groups)).reshape(topology.num_ranks, -1)
        for held in rows:
            assert len(set(held[held >= 0])) == len(held[held >= 0]), rows


def test_giving_a_second_copy_up_lifts_no_load_off_node() -> None:
    topology = Topology(2, 2)
    old = Placement.from_physical_to_logical([0, 0, 0, 1], 2, topology)
    before = old.off_node([[2.0, 0.0]], 2)[0]
    for budget in (0, 1, 2):
        plan = rebalance([[2.0, 0.0]], 4, topology, num_groups=2, previous=old, max_moves=budget, max_off_node=0.0)
        assert plan.off_node([[2.0, 0.0]], 2)[0] <= before


def test_groups_without_room_at_home_are_split_or_refused() -> None:
    loads = np.ones((1, 16))
    # One of four ranks is out of service: the second node has room for 6 of the 8 experts of its group.
    options: dict[str, Any] = {"num_groups": 2, "active": [True, True, True, False]}
    plan = rebalance(loads, 24, Topology(4, 2), **options)
    assert sorted(set(table(plan)[0].tolist())) == [-1, *range(16)]
    with pytest.raises(ValueError, match=r"max_off_node=0.1 is out of reach.*off node"):
        rebalance(loads, 24, Topology(4, 2), max_off_node=0.1, **options)


@pytest.mark.parametrize("first", range(0, 4000, 500))
def test_no_budget_is_exceeded(first: int) -> None:
    # Plans with a replica twice on a rank, which the field's algorithm makes of such loads, count each of the two.
    for seed in range(first, first + 500):
        rng = np.random.default_rng(seed)
        loads = rng.integers(1, 20, (2, 1, 12))
        loads[0, :, rng.integers(12)] += 100
        loads[1, :, rng.integers(12)] += 100
        old = rebalance(loads[0], 16, Topology(4))
        for budget in (3, 9, None):
            new = rebalance(loads[1], 16, Topology(4), previous=old, max_moves=budget)
            assert sum(new.moves_from(old)) == moves(old, new)
            assert budget is None or moves(old, new) <= budget, (seed, budget)


def test_moves_are_from_placements_of_the_same_shape() -> None:
    old = rebalance([[1, 2, 3, 4]], 4, Topology(2))
    with pytest.raises(ValueError, match="placement has num_slots=6, expected 4 as previous has"):
        rebalance([[1, 2, 3, 4]], 6, Topology(2)).moves_from(old)
    with pytest.raises(TypeError, match="previous must be a Placement"):
        old.moves_from(1)  # type: ignore[arg-type]


@st.composite
def uneven_cases(draw: st.DrawFn) -> tuple[Loads, int, Topology]:
    """Loads, slots and any topology with room for every expert."""
    slots = draw(st.lists(st.integers(0, 6), min_size=1, max_size=6))
    active = [True, *(draw(st.booleans()) for _ in slots[1:])]
    speeds = [draw(st.sampled_from([0.5, 1.0, 1.0, 3.0])) for _ in slots]
    experts = draw(st.integers(0, 12))
    room = sum(min(number, experts) for number, live in zip(slots, active, strict=True) if live)
    if room < experts:
        slots[0] = experts
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    topology = Topology(len(slots), draw(st.integers(1, len(slots))), slots, speeds, active)
    return random_loads(rng, draw(st.integers(0, 3)), 2, experts), sum(slots), topology


@given(uneven_cases())
@settings(max_examples=300)
def test_a_plan_holds_every_expert_apart_on_live_ranks(case: tuple[Loads, int, Topology]) -> None:
    loads, slots, topology = case
    placement = rebalance(loads, slots, topology)
    assert placement.topology == topology
    assert placement.num_slots == slots
    # Construction itself refuses an expert left out and content on a dead rank.
    for layer in range(placement.num_layers):
        for rank in range(placement.num_ranks):
            slots_of_rank = placement.local_experts(layer, rank).tolist()
            held = [e for e in slots_of_rank if e >= 0]
            live = topology.active is None or topology.active[rank]
            assert len(held) <= (min(len(slots_of_rank), loads.shape[1]) if live else 0)
            if len(held) != len(set(held)):
                # Two replicas on a rank only where the field's plan has them and nothing better was found.
                theirs = rebalance(loads, slots, topology, "deepseek")
                assert table(theirs)[layer].tolist() == table(placement)[layer].tolist()
    for report in placement.report(loads):
        assert report.largest >= report.lower_bound
    assert rebalance(loads, slots, topology, num_threads=2) == placement


@pytest.mark.parametrize(("ranks", "slots"), [(8, 33), (32, 9), (64, 5), (72, 4), (144, 2)])
def test_real_sizes_are_filled_and_near_the_bound(ranks: int, slots: int) -> None:
    loads = np.random.default_rng(5).lognormal(0, 0.6, (4, 256))
    placement = rebalance(loads, ranks * slots, Topology(ranks))
    assert (table(placement) >= 0).all()
    theirs = rebalance(loads, ranks * slots, Topology(ranks), "deepseek")
    # With two slots a rank the numbers of replicas leave little to choose; with more the gap all but closes.
    part = 1.0 if slots == 2 else 0.25
    assert sum(report.gap for report in placement.report(loads)) < part * sum(
        report.gap for report in theirs.report(loads)
    )


@given(uneven_cases(), st.integers(0, 2**32))
@settings(max_examples=100)
def test_windows_are_planned_for(case: tuple[Loads, int, Topology], seed: int) -> None:
    loads, slots, topology = case
    windows = np.stack([loads, random_loads(np.random.default_rng(seed), 2, *loads.shape), loads[::-1]])
    ours = largest(rebalance(windows, slots, topology), windows)
    theirs = largest(rebalance(windows.sum(0), slots, topology), windows)
    for one, other in zip(ours, theirs, strict=True):
        assert one <= other * (1 + 1e-12)


def test_windows_bring_something() -> None:
    rng = np.random.default_rng(4)
    windows = rng.lognormal(0, 0.6, (1, 6, 64)) * rng.lognormal(0, 0.5, (8, 6, 64))
    ours = rebalance(windows, 80, Topology(8))
    assert ours.balancedness(windows) > rebalance(windows.sum(0), 80, Topology(8)).balancedness(windows) + 0.005


@given(uneven_cases(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_moves_are_kept_to_the_budget_and_pay(case: tuple[Loads, int, Topology], seed: int) -> None:
    loads, slots, topology = case
    old = rebalance(random_loads(np.random.default_rng(seed), 1, *loads.shape), slots, topology)
    assert rebalance(loads, slots, topology, previous=old, max_moves=0) == old
    best = sum(largest(old, loads))
    for budget in (0, 1, 2, 3, 5, 8, 100):
        new = rebalance(loads, slots, topology, previous=old, max_moves=budget)
        assert moves(old, new) <= budget
        now = sum(largest(new, loads))
        assert now <= best * (1 + 1e-12)
        best = now
    free = rebalance(loads, slots, topology, previous=old)
    scratch = rebalance(loads, slots, topology)
    assert sum(largest(free, loads)) <= sum(largest(scratch, loads)) * (1 + 1e-9)
    for before, after in zip(table(old), table(free), strict=True):
        offsets = old.slot_offsets().tolist()
        for start, end in pairwise(offsets):
            held, holds = before[start:end].tolist(), after[start:end].tolist()
            # What stays on a rank stays in its slot, as many times as it stays.
            kept = Counter(one for one, other in zip(held, holds, strict=True) if one == other >= 0)
            stays = Counter(held) & Counter(holds)
            del stays[-1]
            assert kept == stays


def test_a_rank_that_fails_and_returns_loses_no_expert() -> None:
    loads = np.random.default_rng(2).lognormal(0, 1, (3, 16))
    topology = Topology(4, 2)
    old = rebalance(loads, 24, topology)
    down = rebalance(loads, 24, topology, previous=old, active=[True, False, True, True])
    assert table(down)[:, 6:12].tolist() == [[-1] * 6] * 3
    assert down.topology.active == (True, False, True, True)
    back = rebalance(loads, 24, topology, previous=down)
    assert back.balancedness(loads) >= rebalance(loads, 24, topology).balancedness(loads) - 1e-9
    lost = int((np.array([len(set(row.tolist()) - {-1}) for row in table(down)]) < 16).sum())
    assert lost == 0
    few = rebalance(loads, 16, topology)
    with pytest.raises(ValueError, match=r"expert \d+ has no live replica in layer 0"):
        rebalance(loads, 16, topology, previous=few, active=[True, False, True, True])
    alone = [set(row[6:12]) - set(row[:6]) - set(row[12:]) for row in table(old).tolist()]
    needed = sum(map(len, alone))
    assert needed > 1
    with pytest.raises(ValueError, match=f"max_moves=1 is out of range, expected {needed}"):
        rebalance(loads, 24, topology, previous=old, active=[True, False, True, True], max_moves=1)


def test_second_replicas_on_a_rank_are_legal_input() -> None:
    old = Placement.from_physical_to_logical([[0, 0, 1, 2]], num_experts=3, topology=Topology(2))
    assert rebalance([[4, 2, 1]], 4, Topology(2), previous=old, max_moves=0) == old
    new = rebalance([[4, 2, 1]], 4, Topology(2), previous=old)
    assert new.rank_loads([[4, 2, 1]]).tolist() == [[4.0, 3.0]]


@pytest.mark.parametrize(
    "loads",
    [np.zeros((2, 8)), np.eye(8)[:2], np.full((2, 8), 2**60), np.array([[1e300] * 8, [1e-300] * 8])],
    ids=["none", "one expert with everything", "huge", "extreme"],
)
def test_unusual_loads_are_planned(loads: Loads) -> None:
    placement = rebalance(loads, 16, Topology(4))
    counts = placement.replica_counts().numpy()
    assert counts.sum() == 32
    assert counts.max() <= 4
    if not loads.any():
        assert (counts == 2).all()


def test_one_expert_with_everything_is_on_every_rank() -> None:
    placement = rebalance([[0, 0, 7, 0]], 8, Topology(4))
    assert placement.replica_counts().tolist()[0][2] == 4
    assert placement.balancedness([[0, 0, 7, 0]]) == 1.0


def test_integers_and_tensors_are_loads_too() -> None:
    rows = [[3, 1, 2**60], [0, 5, 5]]
    expected = rebalance(np.array(rows, dtype=float), 6, Topology(3))
    for loads in (rows, np.array(rows), torch.tensor(rows), torch.tensor(rows).double()):
        assert rebalance(loads, 6, Topology(3)) == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_slots": 3}, "num_slots=3 leaves room for 3 experts on active ranks, expected at least 4"),
    ({"num_slots": -1}, "num_slots=-1 is out of range"),
    ({"policy": "best"}, "policy=`best` is unknown, expected one of `balanced`, `deepseek`"),
    (
        {"policy": "deepseek", "num_slots": 5},
        r"num_slots=5 does not divide by num_ranks=2 \(next multiple: 6\)",
    ),
    ({"policy": "deepseek", "num_groups": 3}, "num_experts=4 does not divide by num_groups=3"),
    ({"policy": "deepseek", "num_slots": 8, "active": [True, False]}, "policy `deepseek` needs equal slots"),
    ({"num_groups": 3}, "num_experts=4 does not divide by num_groups=3"),
    ({"max_off_node": 0.1}, "num_groups=1 is out of range, expected 2..=4: without groups max_off_node limits nothing"),
    (
        {"max_off_node": 0.1, "num_groups": 2, "topology": Topology(4, 4)},
        r"num_groups=2 does not divide by num_nodes=4 \(next multiple: 4\)",
    ),
    ({"num_groups": -1}, r"num_groups=-1 is out of range, expected 1\.\.=4$"),
    ({"num_groups": 2**70}, rf"num_groups={2**70} is out of range, expected 1\.\.=4$"),
    ({"max_off_node": 1.5, "num_groups": 2}, r"max_off_node=1.5 is out of range, expected a number in 0.0..=1.0"),
    ({"max_off_node": float("nan"), "num_groups": 2}, r"max_off_node=NaN is out of range"),
    (
        {"loads": [[]], "max_off_node": 0.1, "num_slots": 4},
        "policy `balanced` needs no max_off_node for fewer than two experts, which make no groups",
    ),
    (
        {"loads": [[3]], "max_off_node": 0.1, "num_slots": 4},
        "policy `balanced` needs no max_off_node for fewer than two experts, which make no groups",
    ),
    (
        {"max_off_node": 0.1, "num_groups": 2, "policy": "deepseek"},
        "policy `deepseek` needs no max_off_node",
    ),
    ({"num_groups": 0}, "num_groups=0 is out of range, expected 1..=4"),
    ({"max_moves": 1}, "max_moves needs the placement to start from, previous"),
    ({"loads": [[1, 2, float("nan"), 4]]}, r"loads\[0, 2\]=NaN"),
    ({"loads": [[1, 2], [3]]}, "loads must be numbers in rows of equal length"),
    ({"num_slots": 2**31 - 1}, "num_slots=2147483647 is out of range, expected 0..=268435456: a plan has at most 2"),
    ({"num_threads": 0}, r"num_threads=0 is out of range, expected 1\.\.=4096$"),
    ({"active": [False, False]}, "active has no active rank"),
]


def test_loads_that_nobody_can_read_are_refused_by_name() -> None:
    objects = np.array([[np.int64(4), np.float32(3), 2, 2**70]], dtype=object)
    assert (
        table(rebalance(objects, 4, Topology(2))).tolist()
        == table(rebalance([[4, 3, 2, 2**70]], 4, Topology(2))).tolist()
    )
    for unreadable in (torch.ones(1, 4, device="meta"), torch.ones(1, 4).to_sparse()):
        with pytest.raises(TypeError, match="loads must be a dense tensor whose values are known: "):
            rebalance(unreadable, 4, Topology(2))
    with pytest.raises(ValueError, match=r"loads\[0, 1\]=-1e-320 is out of range"):
        rebalance([[1, -1e-320]], 2, Topology(2))
    with pytest.raises(TypeError, match="num_slots must be an iterable of ints, got `int`"):
        capacity_curve([[1, 2]], 2, Topology(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_wrong_calls_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"loads": [[1, 2, 3, 4]], "num_slots": 4, "topology": Topology(2), **options}
    with pytest.raises(ValueError, match=message):
        rebalance(**arguments)


def test_a_previous_placement_of_another_shape_is_refused() -> None:
    old = rebalance([[1, 2, 3, 4]], 4, Topology(2))
    with pytest.raises(ValueError, match="previous has num_slots=4, expected 6 as the plan has"):
        rebalance([[1, 2, 3, 4]], 6, Topology(2), previous=old)
    with pytest.raises(ValueError, match="previous has the start of a rank's slots=2, expected 1"):
        rebalance([[1, 2, 3, 4]], 4, Topology(2, slots_per_rank=[1, 3]), previous=old)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_complex_and_nested_loads_are_refused_by_name() -> None:
    values = torch.tensor([[5, 1, 1, 1j]])
    for loads in (values, values.conj()):
        with pytest.raises(TypeError, match=r"^loads must be integers or floats, got complex64$"):
            rebalance(loads, 6, Topology(2))
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(TypeError, match=r"^loads must be a dense tensor whose values are known: it is nested$"):
        rebalance(nested, 6, Topology(2))


# --- several windows --------------------------------------------------------------------------------------------------


def windowed(placement: Placement, loads: Any) -> float:
    """The sum over windows and layers of the busiest rank's load."""
    return float(placement.rank_loads(loads).amax(-1).sum())


@st.composite
def windows(draw: st.DrawFn) -> tuple[Loads, int, Topology, int]:
    """Loads of several windows, slots, even ranks and groups, ranks with more slots than experts among them."""
    nodes = draw(st.sampled_from([1, 2]))
    ranks = nodes * draw(st.integers(1, 3))
    groups = nodes * draw(st.integers(1, 2))
    experts = groups * draw(st.integers(1, 3))
    each = draw(st.integers(-(-experts // ranks), -(-experts // ranks) + 4))
    shape = (draw(st.integers(2, 3)), 1, experts)
    values = draw(st.lists(st.integers(0, 9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(values, dtype=float).reshape(shape), each * ranks, Topology(ranks, nodes), groups


@given(windows())
@settings(max_examples=400, deadline=None)
def test_a_plan_for_windows_is_no_worse_than_one_for_their_sum_or_the_field_s(
    case: tuple[Loads, int, Topology, int],
) -> None:
    """Domain: random; also where the ranks have more slots than there are experts."""
    loads, slots, topology, groups = case
    plan = rebalance(loads, slots, topology, num_groups=groups)
    time = windowed(plan, loads)
    for other in (
        rebalance(loads.sum(0), slots, topology, num_groups=groups),
        rebalance(loads, slots, topology, "deepseek", num_groups=groups),
    ):
        assert time <= windowed(other, loads) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("loads", "slots", "topology", "groups", "most"),
    [
        ([[[5, 1, 0, 6]], [[0, 8, 2, 3]]], 10, Topology(2, 2, slots_per_rank=5), 4, 14.0),
        ([[[0, 5, 1, 2]], [[0, 0, 0, 3]]], 12, Topology(2, 2), 2, 8.0),
        ([[[3, 0, 2, 2]], [[2, 0, 7, 5]]], 6, Topology(2), 1, 11.5),
    ],
)
def test_windows_with_few_choices(loads: Any, slots: int, topology: Topology, groups: int, most: float) -> None:
    assert windowed(rebalance(loads, slots, topology, num_groups=groups), loads) <= most


def test_many_windows_are_balanced_by_exchanges() -> None:
    loads = np.random.default_rng(0).lognormal(0, 1, (16, 1, 256))
    plan = rebalance(loads, 288, Topology(32))
    assert plan.balancedness(loads) > 0.75
    assert rebalance(loads.sum(0), 288, Topology(32)).balancedness(loads) < 0.6


def test_a_small_budget_is_spent_by_the_windows() -> None:
    loads = np.random.default_rng(1).lognormal(0, 1, (4, 2, 64))
    start = Placement.from_physical_to_logical([[*range(64), *range(8)]] * 2, num_experts=64, topology=Topology(8))
    times = [windowed(start, loads)]
    for budget in (1, 2, 4, 8, 16):
        plan = rebalance(loads, 72, Topology(8), previous=start, max_moves=budget)
        assert moves(start, plan) <= budget
        times.append(windowed(plan, loads))
    assert times[1] < times[0]
    assert times == sorted(times, reverse=True)


# --- the unit of the loads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["balanced", "deepseek"])
@pytest.mark.parametrize("exponent", [-1000, -200, -140, -100, -1, 1, 64, 120, 127, 200, 900])
def test_the_unit_of_the_loads_does_not_matter(policy: Any, exponent: int) -> None:
    loads = np.random.default_rng(2).lognormal(0, 1, (3, 24))
    plan = rebalance(loads, 32, Topology(8), policy)
    assert rebalance(loads * 2.0**exponent, 32, Topology(8), policy) == plan


@pytest.mark.parametrize("exponent", [-1040, -160, -101, 0, 125, 127, 128, 990])
def test_loads_out_of_the_range_of_float32_are_planned_as_the_model_plans_them(exponent: int) -> None:
    loads = (np.random.default_rng(3).integers(0, 50, 24) * 2.0**exponent).tolist()
    plan = rebalance([loads], 32, Topology(8), "deepseek")
    assert table(plan)[0].tolist() == deepseek.place(loads, 32, SpecTopology(8), 1)


def test_equal_slots_are_one_topology_however_they_are_said() -> None:
    assert Topology(3, slots_per_rank=[4, 4, 4]) == Topology(3, slots_per_rank=4)
    assert Topology(3, slots_per_rank=[4, 4, 4]).slots_per_rank == 4
    assert Topology(3, slots_per_rank=[4, 4, 5]).slots_per_rank == (4, 4, 5)


# --- long work --------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, threading
import numpy as np
from expert_placement import Topology, rebalance
loads = np.random.default_rng(0).lognormal(0, 1, (16, 200, 256))
rebalance(loads[:, :1], 288, Topology(32))
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    rebalance(loads, 288, Topology(32), num_threads={threads})
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_plan_is_interrupted(threads: int) -> None:
    code = INTERRUPTED.format(threads=threads)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n"), ran.stderr


def test_others_work_while_a_long_plan_is_made() -> None:
    loads = np.random.default_rng(0).lognormal(0, 1, (4, 20, 256))
    counted = 0
    is_done = threading.Event()

    def plan() -> None:
        rebalance(loads, 288, Topology(32))
        is_done.set()

    worker = threading.Thread(target=plan)
    worker.start()
    while not is_done.is_set():
        # Without the interpreter this thread would not come here before the plan is there.
        counted += 1
        time.sleep(0.001)
    worker.join()
    assert counted > 10


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: rebalance([[1, True]], 2, Topology(2)), TypeError, "loads[0, 1] must be a number, got `bool`"),
        (lambda: rebalance([[[1, 2]], [[3, np.True_]]], 2, Topology(2)), TypeError, "loads[1, 0, 1] must be a number"),
        (lambda: Topology(2, slots_per_rank=[1, True]), TypeError, "slots_per_rank[1] must be an int, got `bool`"),
        (
            lambda: Topology(2, slots_per_rank=[-1, 2]),
            ValueError,
            "slots_per_rank[0]=-1 is out of range, expected 0..=",
        ),
        (lambda: Topology(2, speeds=np.array([1 + 1j, 1])), TypeError, "speeds must be a number, got `complex128`"),
        (lambda: Topology(2, speeds=[10**400, 1]), ValueError, "speeds=1000000000"),
        (
            lambda: rebalance(np.zeros((1, 2**16)), 2**17, Topology(2**17)),
            ValueError,
            "num_ranks=131072 is out of range, expected 1..=32768: a plan has at most 2^31 pairs",
        ),
    ],
)
def test_what_is_no_plan_s_input_is_refused_by_its_name(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_a_node_out_of_service_changes_nothing() -> None:
    loads = np.random.default_rng(4).lognormal(0, 1, (4, 48))
    active = [True] * 16 + [False] * 16
    one_node, two_nodes = (Topology(32, nodes, slots_per_rank=4, active=active) for nodes in (1, 2))
    assert table(rebalance(loads, 128, one_node)).tolist() == table(rebalance(loads, 128, two_nodes)).tolist()
    start = np.pad(np.tile(np.arange(64) % 48, (4, 1)), ((0, 0), (0, 64)), constant_values=-1)
    for budget in (5, 20, 60):
        one, other = (
            rebalance(
                loads,
                128,
                topology,
                previous=Placement.from_physical_to_logical(start, 48, topology),
                max_moves=budget,
            )
            for topology in (one_node, two_nodes)
        )
        assert table(one).tolist() == table(other).tolist()


def test_a_gain_of_nothing_asks_for_nothing() -> None:
    rng = np.random.default_rng(6)
    loads = rng.lognormal(0, 1, (6, 32))
    old = rebalance(rng.lognormal(0, 1, (6, 32)), 48, Topology(8))
    for budget in (2, 6, 20):
        one = rebalance(loads, 48, Topology(8), previous=old, max_moves=budget)
        assert rebalance(loads, 48, Topology(8), previous=old, max_moves=budget, min_gain=0.0) == one


def test_every_move_brings_the_gain_that_is_asked_for() -> None:
    rng = np.random.default_rng(7)
    loads = rng.lognormal(0, 1, (6, 32))
    old = rebalance(rng.lognormal(0, 1, (6, 32)), 48, Topology(8))
    means = sum(report.mean for report in old.report(loads))
    before = sum(largest(old, loads))
    bought = []
    for gain in (0.001, 0.01, 0.05, 10.0):
        plan = rebalance(loads, 48, Topology(8), previous=old, min_gain=gain)
        bought.append(moves(old, plan))
        assert before - sum(largest(plan, loads)) >= bought[-1] * gain * means * (1 - 1e-9)
    assert bought == sorted(bought, reverse=True)
    assert bought[0] > 0 == bought[-1]
