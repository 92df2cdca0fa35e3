"""The same on gloo and on NCCL: agreement, loads, migrations, balancers and layers, on 2 ranks with a device each."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="ranks talk through torch")

import torch
from expert_placement import plan_migration
from expert_placement.distributed import DisagreementError, LoadWindows, MigrationError, agree, all_reduce_load, migrate

from tests.distributed import test_balancer, test_expert_parallel, test_loads, test_migration
from tests.distributed.running import backends, new_group, on_ranks

SECONDS = 150
"""NCCL takes some to begin."""


def agreed(rank: int, _: str) -> str:
    same, other = test_loads.placement(1, 2), test_loads.placement(2, 2)
    agree(same, timeout=60)
    with pytest.raises(DisagreementError) as caught:
        agree(other if rank else same, timeout=60)
    agree(other)
    return str(caught.value)


@backends(2)
def test_ranks_agree_or_all_say_who_holds_what(backend: str, device: str) -> None:
    said = on_ranks(2, agreed, device, backend=backend, timeout=SECONDS)
    assert said[0] == said[1]
    first, second = (test_loads.placement(seed, 2).digest() for seed in (1, 2))
    assert f"rank 0 holds {first}; rank 1 holds {second}" in said[0]


def summed(rank: int, device: str) -> None:
    here = test_loads.placement(2, 2)
    expected = test_loads.summed(here, 2, range(1))
    windows = LoadWindows(test_loads.LAYERS, test_loads.EXPERTS, num_windows=2, device=device)
    for dtype in (torch.int32, torch.int64):
        mine = test_loads.counted(here, rank, 0, dtype).to(device)
        total = all_reduce_load(mine, here, timeout=60)
        assert total.device == mine.device
        assert torch.equal(total.cpu(), expected)
        assert torch.equal(mine.cpu(), test_loads.counted(here, rank, 0, dtype)), "the counters are touched"
        windows.record(mine, here)
        assert torch.equal(windows.close(timeout=60).cpu(), expected)


@backends(2)
def test_loads_are_the_sums_over_ranks(backend: str, device: str) -> None:
    on_ranks(2, summed, device, backend=backend, timeout=SECONDS)


def moved(rank: int, device: str) -> tuple[int, int]:
    old, new = test_migration.placements(2, 7, (5, 4))
    plan = plan_migration(old, new)
    whole = test_migration.whole_weights(old)
    sent = received = 0
    for verify in (False, True):
        for control in (None, new_group()):
            mine: dict[str, Any] = {name: placed(each, old, rank, device) for name, each in whole.items()}
            result = migrate(mine, plan, verify=verify, control_group=control, timeout=60)
            for name, each in mine.items():
                expected = test_migration.local_part(test_migration.applied(plan, whole[name]), old, rank)
                assert test_migration.equal(back(each), expected), name
            sent, received = sent + result.bytes_sent, received + result.bytes_received
    return sent, received


def placed(whole: Any, placement: Any, rank: int, device: str) -> Any:
    part = test_migration.local_part(whole, placement, rank)
    return [each.to(device) for each in part] if isinstance(part, list) else part.to(device)


def back(weights: Any) -> Any:
    return [each.cpu() for each in weights] if isinstance(weights, list) else weights.cpu()


@backends(2)
def test_weights_become_what_apply_gives(backend: str, device: str) -> None:
    """With and without checksums, with and without a group for small messages."""
    sent, received = zip(*on_ranks(2, moved, device, backend=backend, timeout=SECONDS), strict=True)
    assert sum(sent) == sum(received) > 0


def refused(rank: int, device: str) -> str:
    old, new = test_migration.placements(2, 7, (5, 4))
    plan, slots = plan_migration(old, new), (5, 4)[rank]
    weights = torch.full((test_migration.LAYERS, slots, 3), rank, device=device)
    with pytest.raises((MigrationError, ValueError)) as caught:
        migrate(weights[:2] if rank else weights, plan, timeout=60)
    assert bool((weights == rank).all())
    # And the group still works: what each slot holds came from a rank.
    assert migrate(weights, plan, timeout=60).batches == plan.num_batches > 0
    whole = torch.cat([torch.full((test_migration.LAYERS, count, 3), each) for each, count in enumerate((5, 4))], dim=1)
    expected = test_migration.local_part(plan.apply(whole), old, rank)
    assert test_migration.equal(weights.cpu(), expected)
    return str(caught.value)


@backends(2)
def test_what_one_rank_refuses_moves_nothing_on_any(backend: str, device: str) -> None:
    said = on_ranks(2, refused, device, backend=backend, timeout=SECONDS)
    assert "nothing is moved: rank 1 refused: " in said[0]
    assert said[1].startswith("weights has the shape [2, 4, 3], expected [3, local slots")


@backends(2)
@pytest.mark.parametrize("separate", [False, True])
def test_a_balancer_follows_a_load_that_shifts(backend: str, device: str, separate: bool) -> None:
    results = on_ranks(2, test_balancer.converged, [6, 6], separate, device, backend=backend, timeout=SECONDS)
    test_balancer.assert_followed(results)


def computed(rank: int, device: str) -> None:
    for case in test_expert_parallel.CASES[2]:
        test_expert_parallel.compare_case(rank, case, device)


@backends(2)
def test_output_and_gradients_are_those_of_the_dense_layer(backend: str, device: str) -> None:
    on_ranks(2, computed, device, backend=backend, timeout=SECONDS)
