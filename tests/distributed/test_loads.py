"""Loads over ranks: sums of what each counted, by logical expert, in the windows of time that `rebalance` takes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="counters are tensors")

import torch
from expert_placement import Placement, Topology, rebalance
from expert_placement.distributed import LoadWindows, all_reduce_load

from tests.distributed.running import on_ranks

LAYERS, EXPERTS, SLOTS = 2, 5, 8


def placement(seed: int, ranks: int) -> Placement:
    loads = torch.rand(LAYERS, EXPERTS, generator=torch.Generator().manual_seed(seed)) + 0.01
    table = rebalance(loads, SLOTS, Topology(ranks)).physical_to_logical()
    for row in table:
        # An empty slot where the layer can do without one.
        spare = [slot for slot, expert in enumerate(row.tolist()) if row.tolist().count(expert) > 1]
        row[spare[0]] = -1
    return Placement.from_physical_to_logical(table, EXPERTS, Topology(ranks))


def counted(placement: Placement, rank: int, step: int, dtype: torch.dtype, room: int = 0) -> torch.Tensor:
    """What a rank counts in a step, nothing in slots without an expert."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    load = torch.randint(0, 100, (LAYERS, SLOTS), generator=generator).to(dtype)
    load[placement.physical_to_logical() < 0] = 0
    return torch.nn.functional.pad(load, (0, room))


def by_expert(placement: Placement, load: torch.Tensor) -> list[list[int]]:
    """One counter after the other."""
    sums = [[0] * EXPERTS for _ in range(LAYERS)]
    for layer, row in enumerate(placement.physical_to_logical().tolist()):
        for slot, expert in enumerate(row):
            if expert >= 0:
                sums[layer][expert] += int(load[layer, slot])
    return sums


def summed(placement: Placement, ranks: int, steps: range) -> torch.Tensor:
    each = [
        by_expert(placement, counted(placement, rank, step, torch.int64)) for rank in range(ranks) for step in steps
    ]
    return torch.tensor(each).sum(0)


def reduced(rank: int, ranks: int) -> None:
    here = placement(ranks, ranks)
    expected = summed(here, ranks, range(1))
    for dtype in (torch.uint8, torch.int32, torch.int64):
        for room in (0, 3):
            mine = counted(here, rank, 0, dtype, room)
            total = all_reduce_load(mine, here, timeout=20)
            assert total.dtype == torch.int64
            assert torch.equal(total, expected)
            assert torch.equal(mine, counted(here, rank, 0, dtype, room)), "the counters are touched"
            windows = all_reduce_load(torch.stack((mine, mine * 0, mine)), here)
            assert torch.equal(windows, torch.stack((expected, expected * 0, expected)))
    logical = torch.full((LAYERS, EXPERTS), rank, dtype=torch.int32)
    assert torch.equal(all_reduce_load(logical), torch.full((LAYERS, EXPERTS), sum(range(ranks))))
    # Sums are of 64 bits, whatever the counters are.
    large = torch.full((1, 1), 2**31 - 1, dtype=torch.int32)
    assert int(all_reduce_load(large)) == ranks * (2**31 - 1)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_loads_are_the_sums_over_ranks_and_replicas(ranks: int) -> None:
    """Domain: 1, 2, 3 and 8 ranks, counters of three widths, with and without room for more slots."""
    on_ranks(ranks, reduced, ranks)


def windowed(rank: int, ranks: int) -> None:
    first, second = placement(1, ranks), placement(2, ranks)
    windows = LoadWindows(LAYERS, EXPERTS, num_windows=2)
    assert windows.loads().shape == (0, LAYERS, EXPERTS)
    expected: list[torch.Tensor] = []
    step = 0
    for length, here in ((1, first), (3, second), (0, second), (2, first)):
        for now in range(step, step + length):
            windows.record(counted(here, rank, now, torch.int32), here)
        closed = windows.close(timeout=20)
        wanted = summed(here, ranks, range(step, step + length)) if length else torch.zeros(LAYERS, EXPERTS).long()
        assert torch.equal(closed, wanted)
        expected = [*expected, wanted][-2:]
        assert torch.equal(windows.loads(), torch.stack(expected))
        assert len(windows) == len(expected)
        step += length
    # Within a window experts may have moved.
    windows.record(counted(first, rank, 0, torch.int32), first)
    windows.record(counted(second, rank, 1, torch.int32), second)
    wanted = summed(first, ranks, range(1)) + summed(second, ranks, range(1, 2))
    assert torch.equal(windows.close(), wanted)
    rebalance(windows.loads(), SLOTS, Topology(ranks))


@pytest.mark.parametrize("ranks", [2, 3])
def test_windows_hold_the_last_sums_the_oldest_first(ranks: int) -> None:
    """Domain: 2 and 3 ranks, windows of 0 to 3 steps, under placements that change."""
    on_ranks(ranks, windowed, ranks)


def wrong(rank: int) -> None:
    here = placement(1, 2)
    empty = int((here.physical_to_logical()[1] < 0).nonzero()[0])
    bad = torch.zeros(LAYERS, SLOTS, dtype=torch.int32)
    bad[1, empty] = 1 - rank
    with pytest.raises(ValueError, match="layer 1 counted 1 in slots that hold no expert"):
        all_reduce_load(bad, here, timeout=20)
    with pytest.raises(ValueError, match="layer 0 counted 2 in slots that hold no expert"):
        all_reduce_load(torch.nn.functional.pad(bad * 0, (0, 1), value=1), here, timeout=20)
    negative = torch.zeros(LAYERS, EXPERTS, dtype=torch.int32)
    negative[1, 3] = -rank
    with pytest.raises(ValueError, match="load of layer 1 and expert 3 is -1, expected at least 0"):
        all_reduce_load(negative)
    windows = LoadWindows(LAYERS, EXPERTS)
    windows.record(bad, here)
    with pytest.raises(ValueError, match="layer 1 counted 1 in slots that hold no expert"):
        windows.close()
    # What was wrong is not counted again.
    assert not windows.close().any()


def test_a_load_that_cannot_be_is_an_error_on_every_rank() -> None:
    on_ranks(2, wrong)


@pytest.mark.parametrize(
    ("error", "match", "load"),
    [
        (TypeError, "load must be a torch.Tensor, got `list`", [[1]]),
        (TypeError, "dtype torch.float32, expected integers", torch.zeros(LAYERS, SLOTS)),
        (TypeError, "dtype torch.bool, expected integers", torch.zeros(LAYERS, SLOTS, dtype=torch.bool)),
        (ValueError, r"shape \[2, 7\], expected \[2, 8\] or more", torch.zeros(LAYERS, SLOTS - 1, dtype=torch.int32)),
        (ValueError, r"shape \[3, 8\], expected \[2, 8\]", torch.zeros(LAYERS + 1, SLOTS, dtype=torch.int32)),
        (ValueError, "load has 1 dimensions, expected 2", torch.zeros(SLOTS, dtype=torch.int32)),
        (
            TypeError,
            "meta",
            torch.zeros(LAYERS, SLOTS, dtype=torch.int32).to("meta"),
        ),
    ],
)
def test_counters_of_another_kind_are_refused(error: type[Exception], match: str, load: Any) -> None:
    windows = LoadWindows(LAYERS, EXPERTS)
    with pytest.raises(error, match=match):
        windows.record(load, placement(1, 2))
    assert not windows.open_load().any()


def test_windows_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_windows=0 is out of range, expected 1\.\.="):
        LoadWindows(LAYERS, EXPERTS, 0)
    with pytest.raises(TypeError, match="num_layers must be an int"):
        LoadWindows(1.5, EXPERTS)  # type: ignore[arg-type]
    windows = LoadWindows(LAYERS, EXPERTS + 1)
    with pytest.raises(ValueError, match="placement has num_experts=5, expected 6 as the windows have"):
        windows.record(torch.zeros(LAYERS, SLOTS, dtype=torch.int32), placement(1, 2))
    with pytest.raises(TypeError, match="placement must be a Placement, got `NoneType`"):
        windows.record(torch.zeros(LAYERS, SLOTS, dtype=torch.int32), None)  # type: ignore[arg-type]
