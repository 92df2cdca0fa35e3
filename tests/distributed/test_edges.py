"""What the parts of the distributed layer refuse, and say, by themselves: no other rank is needed for it."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the distributed layer needs torch")

import torch
import torch.distributed as dist
from expert_placement import Placement, Topology, plan_migration, rebalance
from expert_placement.distributed import BalanceError, LoadWindows, _groups, all_reduce_load, placement_after
from expert_placement.distributed._planning import Moving, Part, _expect_like
from expert_placement.distributed._weights import LocalWeights
from expert_placement.distributed.agreement import _told
from expert_placement.distributed.balancer import _differ, _followers

OLD = Placement.from_physical_to_logical([[0, 1, 2, 3]], num_experts=4, topology=Topology(2))
NEW = Placement.from_physical_to_logical([[2, 3, 0, 1]], num_experts=4, topology=Topology(2))


@pytest.mark.parametrize(
    ("weights", "kind", "said"),
    [
        ({"w": 3}, TypeError, "must be a torch.Tensor or a sequence of 2 of them, got `int`"),
        ([[torch.zeros(()), torch.zeros(())]], ValueError, "has no dimensions, expected"),
        ([torch.zeros(2, 3), torch.zeros(2, 3, device="meta")], (ValueError, TypeError), "meta"),
    ],
)
def test_weights_that_are_no_slots_are_refused(weights: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        LocalWeights(weights, 2)


def test_a_plan_of_other_slots_is_refused() -> None:
    other = rebalance([[1.0] * 4], 4, Topology(2, slots_per_rank=[1, 3]))
    with pytest.raises(ValueError, match="planning gave a placement with other slots of the ranks, expected the same"):
        _expect_like(other, OLD)


def test_a_placement_of_another_size_is_no_beginning_of_a_plan() -> None:
    two = Placement.from_physical_to_logical([[0, 1, 2, 3]] * 2, num_experts=4, topology=Topology(2))
    with pytest.raises(ValueError, match=r"old has \[2, 4\] layers and slots, expected \[1, 4\] as the plan"):
        placement_after(two, plan_migration(OLD, NEW), 0)


def test_a_long_text_is_told_by_its_digest() -> None:
    assert _told("short").rstrip(b"\0") == b"short"
    assert len(_told("x" * 1000)) == len(_told("short"))
    assert _told("x" * 1000) != _told("y" * 1000)


def test_an_error_of_a_balancer_is_pickled_with_its_reasons() -> None:
    error = pickle.loads(pickle.dumps(BalanceError("rank 1 failed", {1: "why"})))
    assert (str(error), error.reasons) == ("rank 1 failed", {1: "why"})


def test_ranks_that_differ_are_told_apart() -> None:
    def said(*words: tuple[int, bytes, bytes]) -> str:
        named = [SimpleNamespace(code=0, step=step, held=held, planned=planned) for step, held, planned in words]
        return _differ(named)  # type: ignore[arg-type]

    a, b = b"a" * 32, b"b" * 32
    assert said((1, a, a), (1, a, a)) == ""
    assert said((1, a, a), (2, a, a)) == "ranks are in different steps: 1, 2 by rank"
    held = f"rank 0: {a.hex()[:16]}; rank 1: {b.hex()[:16]}"
    assert said((1, a, a), (1, b, a)) == f"ranks hold different placements: {held}"
    assert said((1, a, a), (1, a, b)) == "ranks were told different plans"


def test_tables_without_a_range_of_layers_are_refused() -> None:
    tables: Any = [SimpleNamespace(layers=3, update=print)]
    with pytest.raises(TypeError, match=r"tables\[0\] has layers of the type `int`, expected a range"):
        _followers(tables)


def test_loads_on_another_device_and_of_other_dimensions_are_refused() -> None:
    windows = LoadWindows(1, 4, 2)
    assert repr(windows) == "<LoadWindows with 0 of 2 windows of 1 x 4 loads>"
    with pytest.raises(ValueError, match=r"load has 3 dimensions, expected 2, \[L, S\]"):
        windows.record(torch.zeros(1, 1, 4, dtype=torch.int64), OLD)
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"load has 1 dimensions, expected 2, \[L, S\], or 3, \[W, L, S\]"):
            all_reduce_load(torch.zeros(4, dtype=torch.int64), OLD)
    finally:
        dist.destroy_process_group()


def test_a_migration_without_batches_sends_nothing() -> None:
    moving = Moving.__new__(Moving)
    assert moving.most_bytes(Part((), plan_migration(OLD, OLD))) == 0


def work_that(*, is_done: bool) -> Any:
    """An operation that is over, rightly or not."""
    return SimpleNamespace(is_completed=lambda: True, wait=lambda left: is_done)


def test_an_operation_is_waited_for_on_every_device() -> None:
    for device in (torch.device("cpu"), torch.device("meta")):
        _groups.waited_for(None, _groups.Deadline(1), device)
        _groups.waited_for(work_that(is_done=True), _groups.Deadline(1), device)
        with pytest.raises(RuntimeError, match=r"^not done within 3 s$"):
            _groups.waited_for(work_that(is_done=False), _groups.Deadline(3), device)


def test_a_control_group_of_other_ranks_is_refused() -> None:
    members, control = SimpleNamespace(rank=0, size=2), SimpleNamespace(rank=1, size=2)
    said = "control_group has this process as rank 1 of 2, expected 0 of 2 as in group"
    with pytest.raises(ValueError, match=f"^{said}$"):
        _groups.expect_ranks(members, control, 2, "plan")  # type: ignore[arg-type]


def test_messages_go_from_where_the_group_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    for backends, device in (("cpu:gloo,xpu:xccl", "cpu"), ("xpu:xccl", "xpu")):
        monkeypatch.setattr(dist, "get_backend_config", lambda _, backends=backends: backends)
        assert _groups._message_device(None).type == device
        members: Any = SimpleNamespace(group=None, device=torch.device(device))
        assert _groups.transfer_device(members, torch.device("xpu")).type == "xpu"
        assert _groups.transfer_device(members, torch.device("meta")).type == device


def test_a_store_that_can_not_be_asked_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    members = _groups.Members.__new__(_groups.Members)
    monkeypatch.setattr(_groups.Members, "_whole", lambda _: 1 / 0)
    assert members.decide("key", "write", 10) is None

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    assert members.decide("key", "write", 10) is None
