"""Migrations between processes: what `apply` gives in one process, and nothing half-written where something fails."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="weights are tensors")

import torch
import torch.distributed as dist
from expert_placement import Migration, Placement, Topology, plan_migration, rebalance
from expert_placement.distributed import DisagreementError, MigrationError, migrate, placement_after
from expert_placement.distributed._groups import _WARM, Members

from tests.distributed.running import new_group, on_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LAYERS = 3
Slots = tuple[int, ...]


def placements(seed: int, experts: int, slots: Slots) -> tuple[Placement, Placement]:
    """Two placements that have replicas, and the first of them empty slots, from loads that have nothing in common."""
    topology = Topology(len(slots), slots_per_rank=list(slots))
    generator = torch.Generator().manual_seed(seed)
    loads = torch.rand(2, LAYERS, experts, generator=generator, dtype=torch.float64) ** 3 + 0.001
    old, new = (rebalance(each, sum(slots), topology) for each in loads)
    table = old.physical_to_logical()
    for layer, row in enumerate(table.tolist()):
        spare = [slot for slot, expert in enumerate(row) if row.count(expert) > 1]
        # One replica less, where a layer has one to spare.
        table[layer, spare[:1]] = -1
    return Placement.from_physical_to_logical(table, experts, topology), new


def whole_weights(old: Placement) -> dict[str, Any]:
    """Weights of several dtypes and shapes for all slots; NaN payloads and negative zeros among them."""
    generator = torch.Generator().manual_seed(7)
    shape = (old.num_layers, old.num_slots)

    def random(*inner: int) -> Tensor:
        return torch.randint(0, 256, (*shape, *inner), generator=generator, dtype=torch.uint8)

    return {
        "bfloat16": random(3, 10).view(torch.bfloat16),
        "float8": random(7).view(torch.float8_e4m3fn),
        "scale": random(4).view(torch.float32).squeeze(-1),
        "bool": random(2, 3) > 127,
        "int64": random(16).view(torch.int64),
        "complex": random(8).view(torch.complex64),
        "empty": random(0, 4),
        "layers": [random(layer + 1)[layer] for layer in range(old.num_layers)],
    }


def local_part(whole: Any, placement: Placement, rank: int) -> Any:
    first, last = placement.slot_offsets().tolist()[rank : rank + 2]
    if isinstance(whole, list):
        return [each[first:last].clone() for each in whole]
    return whole[:, first:last].clone()


def applied(plan: Migration, whole: Any) -> Any:
    """What the reference gives; layers that differ in shape go one by one in a tensor of all."""
    if not isinstance(whole, list):
        return plan.apply(whole)
    return [plan.apply(each.expand(plan.num_layers, *each.shape))[layer] for layer, each in enumerate(whole)]


def equal(left: Any, right: Any) -> bool:
    """Bit by bit."""
    if isinstance(left, list):
        return all(equal(*pair) for pair in zip(left, right, strict=True))
    return left.dtype == right.dtype and bool(torch.equal(bits(left), bits(right)))


def bits(tensor: Tensor) -> Tensor:
    flat: Tensor = tensor.contiguous().view(-1)
    return flat.view(torch.uint8) if flat.numel() else flat.to(torch.uint8)


def moved_as_applied(rank: int, seed: int, experts: int, slots: Slots, verify: bool) -> tuple[Any, ...]:
    old, new = placements(seed, experts, slots)
    plan = plan_migration(old, new)
    assert plan.num_transfers > 0
    assert plan.is_interruption_safe
    whole = whole_weights(old)
    mine = {name: local_part(each, old, rank) for name, each in whole.items()}
    moved = migrate(mine, plan, verify=verify, timeout=20)
    for name, each in whole.items():
        assert equal(mine[name], local_part(applied(plan, each), old, rank)), name
    return (*moved, plan.num_staged)


@pytest.mark.parametrize(
    ("experts", "slots"),
    [
        (7, (5, 4)),
        (10, (6, 3, 4)),
        (9, (4, 4, 4, 4)),
        (5, (3, 0, 4)),
        (16, (3, 3, 3, 3, 3, 3, 3, 2)),
    ],
    ids=str,
)
def test_weights_become_what_apply_gives(experts: int, slots: Slots) -> None:
    """Domain: 2, 3, 4 and 8 ranks, uneven slots and a rank without any, with and without checksums."""
    for verify in (False, True):
        results = on_ranks(len(slots), moved_as_applied, len(slots), experts, slots, verify)
        batches, written, sent, received, bytes_sent, bytes_received, staged, _, _, planned = zip(*results, strict=True)
        plan = plan_migration(*placements(len(slots), experts, slots))
        assert set(batches) == {plan.num_batches}
        assert sum(written) == plan.num_moves
        assert sum(sent) == sum(received) == plan.num_transfers
        assert sum(bytes_sent) == sum(bytes_received) > 0
        assert max(staged) == planned[0], "ranks stage what the plan says"


def moved_within_limits(rank: int) -> list[tuple[int, int]]:
    """Random placements on two nodes, and the strictest limits that each can be moved within."""
    old_slots = (4, 3, 0, 5)
    limits = []
    for seed in range(8):
        draw = random.Random(seed)
        topology = Topology(4, num_nodes=2, slots_per_rank=old_slots)
        tables = []
        for _ in range(2):
            rows = [[*range(8), *(draw.randint(-1, 7) for _ in range(4))] for _ in range(LAYERS)]
            for row in rows:
                draw.shuffle(row)
            tables.append(rows)
        # A ring, of which all have to be read before any is written.
        tables[1][1] = tables[0][1][1:] + tables[0][1][:1]
        old, new = (Placement.from_physical_to_logical(rows, 8, topology) for rows in tables)
        options = {"max_node_transfers": 1 + seed % 2}
        max_staged = 0
        while True:
            try:
                plan = plan_migration(old, new, max_staged=max_staged, **options)
                break
            except ValueError:
                max_staged += 1
        whole = whole_weights(old)
        mine = {name: local_part(each, old, rank) for name, each in whole.items()}
        moved = migrate(mine, plan, verify=seed % 2 == 1, timeout=20)
        for name, each in whole.items():
            assert equal(mine[name], local_part(applied(plan, each), old, rank)), (seed, name)
        limits.append((moved.staged, max_staged))
        assert placement_after(old, plan, plan.num_batches).physical_to_logical().shape == (LAYERS, 12)
    return limits


def test_within_limits_weights_become_what_apply_gives_and_no_more_is_staged() -> None:
    """Domain: 4 ranks on 2 nodes, one of them without slots, and 8 pairs of random placements with empty slots."""
    for limits in zip(*on_ranks(4, moved_within_limits), strict=True):
        assert max(staged for staged, _ in limits) == limits[0][1], "other than the plan's"


def moved_in_groups(rank: int) -> None:
    """The ranks of a group are the plan's; here they are the even ranks, backwards in no way but numbered anew."""
    even = new_group([0, 2, 4])
    control = new_group([0, 2, 4])
    old, new = placements(1, 6, (3, 4, 3))
    plan = plan_migration(old, new)
    weights = torch.randn(LAYERS, 10, 5)
    dist.broadcast(weights, 0)
    expected = plan.apply(weights)
    if rank % 2:
        with pytest.raises(ValueError, match="group: this process does not belong to it"):
            migrate(weights, plan, even)
        return
    mine = local_part(weights, old, rank // 2)
    migrate(mine, plan, even, control_group=control, timeout=20)
    assert equal(mine, local_part(expected, old, rank // 2))


def test_ranks_are_those_of_the_group() -> None:
    on_ranks(5, moved_in_groups)


def moved_views(rank: int) -> None:
    """Parameters, slices of something larger, inference tensors, and a plan that moves nothing."""
    old, new = placements(3, 5, (4, 3))
    plan = plan_migration(old, new)
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(LAYERS, 7, 6, generator=generator)
    expected = local_part(plan.apply(whole), old, rank)
    parameter = torch.nn.Parameter(local_part(whole, old, rank))
    larger = torch.zeros(LAYERS, expected.shape[1] + 2, 2, 6)
    larger[:, 1:-1, 1] = local_part(whole, old, rank)
    with torch.inference_mode():
        inference = local_part(whole, old, rank)
    migrate([parameter, larger[:, 1:-1, 1], inference], plan, timeout=20)
    assert equal(parameter.detach(), expected)
    assert parameter.is_leaf
    assert equal(larger[:, 1:-1, 1], expected)
    assert not larger[:, :, 0].any(), "memory beside the slots is touched"
    assert not larger[:, [0, -1]].any(), "memory beside the slots is touched"
    assert equal(inference, expected)
    # Two columns of one tensor cross each other without a byte in common; and torch has lists and mappings of its own.
    both = torch.stack((local_part(whole, old, rank), local_part(whole, old, rank)), dim=2)
    layers = torch.nn.ParameterList(local_part(whole, old, rank).unbind())
    named = torch.nn.ParameterDict({"w": local_part(whole, old, rank)})
    migrate({"gate": both[:, :, 0], "up": both[:, :, 1], "layers": layers}, plan, timeout=20)
    migrate(named, plan, timeout=20)
    for each in (both[:, :, 0], both[:, :, 1], torch.stack(tuple(layers)).detach(), named["w"].detach()):
        assert equal(each, expected)
    moved = migrate(parameter, plan_migration(new, new), timeout=20)
    assert moved[:8] == (0, 0, 0, 0, 0, 0, 0, 0)


def test_views_parameters_and_inference_tensors_are_moved_in_place() -> None:
    on_ranks(2, moved_views)


# --- errors before anything moves -------------------------------------------------------------------------------------


def refused(rank: int) -> None:
    old, new = placements(3, 5, (4, 3, 2))
    plan = plan_migration(old, new)
    good = [torch.zeros(LAYERS, slots, 4) for slots in (4, 3, 2)][rank]
    slots = good.shape[1]

    def expect(error: type[Exception], match: str, weights: Any, given: Any = plan, **options: Any) -> None:
        """Rank 1 gives something wrong, and is told what; the others give what is right, and are told of rank 1."""
        if rank == 1:
            with pytest.raises(error, match=match):
                migrate(weights, given, timeout=20, **options)
        else:
            with pytest.raises(MigrationError, match=r"nothing is moved: rank 1 refused: ") as caught:
                migrate(good, plan, timeout=20)
            assert caught.value.batch == 0
            assert caught.value.is_agreed

    expect(TypeError, "plan must be a Migration, got `int`", good, 5)
    expect(TypeError, "weights must be a torch.Tensor, or a sequence", 5)
    expect(TypeError, "verify must be a bool, got `str`", good, verify="yes")
    expect(ValueError, "weights holds no tensor", [])
    expect(TypeError, r"weights\[0\]\[1\] must be a torch.Tensor, got `int`", [[good[0], 5, good[2]]])
    expect(ValueError, r"weights\['a'\] is a sequence of 2, expected 3", {"a": [good[0]] * 2})
    expect(TypeError, "weights has a name of the type `int`", {5: good})
    expect(ValueError, r"weights has the shape \[2, 3, 4\], expected \[3, local slots", good[:2])
    expect(ValueError, r"weights\[1\] has 2 local slots, expected 3 as weights", [good, good[:, 1:]])
    expect(ValueError, "contiguous", torch.zeros(LAYERS, slots, 4, 4).transpose(2, 3))
    expect(ValueError, "^weights has layers that share memory", torch.zeros(1, slots, 4).expand(LAYERS, slots, 4))
    expect(ValueError, r"weights\[0\]\[1\] shares memory with weights\[0\]\[0\]", [[good[0]] * 3])
    shifted = torch.zeros(LAYERS * (slots + 1) * 4)
    expect(ValueError, "share memory", shifted.as_strided((LAYERS, slots, 4), (4, 4, 1)))
    expect(ValueError, r"weights\['b'\] shares memory with weights\['a'\]", {"a": good, "b": good[:, :, :2]})
    by_layer = [[torch.zeros(slots, 4) for _ in range(LAYERS)] for _ in range(3)]
    expect(ValueError, "a list of 3 lists of 3, which may be by tensor or by layer, expected a mapping", by_layer)
    expect(ValueError, "overlap", torch.zeros(LAYERS, 1, 4).expand(LAYERS, slots, 4))
    expect(TypeError, "sparse", good.to_sparse())
    expect(TypeError, "meta", good.to("meta"))
    expect(ValueError, "conjugate", torch.zeros(LAYERS, slots, 4, dtype=torch.complex64).conj())
    other = plan_migration(
        Placement.from_physical_to_logical([0, 1], 2, Topology(2)), rebalance([[1, 2]], 2, Topology(2))
    )
    expect(ValueError, "group has 3 ranks, expected 2 as the plan has", good, other)
    assert not good.any()

    def all_expect(error: type[Exception], match: str, weights: Any, given: Any = plan, **options: Any) -> None:
        with pytest.raises(error, match=match):
            migrate(weights, given, timeout=20, **options)

    mine = plan if rank != 2 else plan_migration(new, old)
    all_expect(DisagreementError, r"^plan differs .* ranks 0..=1 hold [0-9a-f]+; rank 2 holds [0-9a-f]+", good, mine)
    all_expect(DisagreementError, r"^weights .* differs .* rank 0 holds", good.half() if rank == 0 else good)
    all_expect(DisagreementError, "^verify differs", good, verify=rank == 0)
    all_expect(
        ValueError,
        r"have \[4, 3, 3\] local slots by rank, 10 together, expected 9",
        torch.zeros(LAYERS, max(slots, 3), 4),
    )
    all_expect(
        ValueError, r"have \[3, 4, 2\] local slots by rank, which puts slot", torch.zeros(LAYERS, (3, 4, 2)[rank], 4)
    )
    for wrong, kind in ((0, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError)):
        with pytest.raises(kind, match="timeout"):
            migrate(good, plan, timeout=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"group must be a torch.distributed.ProcessGroup, got `str`"):
        migrate(good, plan, "gloo")  # type: ignore[arg-type]


def test_whatever_one_rank_refuses_moves_nothing_on_any() -> None:
    on_ranks(3, refused)


def warmed(rank: int) -> None:
    """As on a GPU beside gloo: the group was not used before on the device that sends."""
    old, new = placements(3, 5, (4, 3, 2))
    plan = plan_migration(old, new)
    mine = [torch.zeros(LAYERS, slots, 4) for slots in (4, 3, 2)][rank]

    def is_warm(members: Members, device: torch.device) -> bool:
        return members._whole() in _WARM.get(device.type, ())

    Members.is_warm = is_warm  # type: ignore[assignment,method-assign]
    genuine, calls = Members.warm, 0

    def counted(members: Members, device: torch.device, deadline: Any) -> None:
        nonlocal calls
        calls += 1
        genuine(members, device, deadline)

    Members.warm = counted  # type: ignore[assignment,method-assign]
    first, second = new_group(), new_group()
    for group, expected in ((first, 1), (first, 1), (second, 2), (second, 2), (first, 2)):
        migrate(mine, plan, group, timeout=20)
        assert calls == expected
    # Where one rank does not know it, all take part.
    if rank == 1:
        _WARM["cpu"].discard(first)
    migrate(mine, plan, first, timeout=20)
    assert calls == 3


def test_before_its_first_transfers_all_ranks_of_a_group_meet_once_on_the_device_that_sends() -> None:
    on_ranks(3, warmed)


def test_a_process_without_a_group_is_told_so() -> None:
    old, new = placements(3, 5, (4, 3))
    with pytest.raises(ValueError, match="group: there is no process group"):
        migrate(torch.zeros(LAYERS, 4, 4), plan_migration(old, new))


# --- errors on the way ------------------------------------------------------------------------------------------------


def interfere(number: int, act: Callable[[list[Any]], None]) -> None:
    """Does something to the transfers of the n-th batch in which this rank sends or receives."""
    genuine = dist.batch_isend_irecv
    calls = 0

    def wrapped(operations: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act(operations)
        return genuine(operations)

    dist.batch_isend_irecv = wrapped  # type: ignore[assignment]


def expect_state(
    old: Placement, plan: Migration, whole: Tensor, mine: Tensor, rank: int, error: MigrationError
) -> None:
    """What a rank holds is exactly what the batches before the one that failed wrote."""
    held = placement_after(old, plan, error.batch)
    table, before = held.physical_to_logical(), old.physical_to_logical()
    expected = whole.clone()
    for layer, row in enumerate(table.tolist()):
        for slot, expert in enumerate(row):
            if expert != int(before[layer, slot]):
                expected[layer, slot] = whole[layer, before[layer].tolist().index(expert)]
    assert equal(mine, local_part(expected, old, rank)), "something else is written than the error says"
    written = plan.write_batches < error.batch
    for layer in range(plan.num_layers):
        of_layer = written[plan.moves[:, 0] == layer]
        state = "done" if of_layer.all() else "partly" if of_layer.any() else "untouched"
        assert (layer in error.layers_done) == (state == "done" and len(of_layer) > 0)
        assert (layer in error.layers_partly_done) == (state == "partly")


def of_experts(old: Placement) -> Tensor:
    """Weights that say in each number which expert they are of; replicas are equal."""
    table = old.physical_to_logical().double()
    layers = torch.arange(old.num_layers, dtype=torch.float64).view(-1, 1) * 1000
    return (table + layers).unsqueeze(-1).repeat(1, 1, 50)


def corrupted(rank: int, batch: int, verify: bool) -> tuple[int, int | None, str] | None:
    old, new = placements(5, 8, (5, 4, 3))
    plan = plan_migration(old, new)
    whole = of_experts(old)
    mine = local_part(whole, old, rank)

    def flip(operations: list[Any]) -> None:
        sends = [each for each in operations if each.op is dist.isend]
        sends[0].tensor = sends[0].tensor.clone()
        sends[0].tensor[123] ^= 4

    if rank == 0:
        interfere(batch, flip)
    if not verify:
        migrate(mine, plan, timeout=20)
        return None
    with pytest.raises(MigrationError) as caught:
        migrate(mine, plan, verify=True, timeout=20)
    assert caught.value.is_agreed
    expect_state(old, plan, whole, mine, rank, caught.value)
    return caught.value.batch, caught.value.move, str(caught.value)


def test_a_corrupted_transfer_is_named_on_all_ranks_and_not_written() -> None:
    plan = plan_migration(*placements(5, 8, (5, 4, 3)))
    for number in (1, 2):
        first, *others = on_ranks(3, corrupted, number, True)
        assert all(other == first for other in others), "ranks say different things"
        batch, move, text = first
        layer, expert, source, to = plan.moves[move].tolist()
        assert int(plan.senders[move]) == 0
        assert plan.batches[batch] <= move < plan.batches[batch + 1]
        assert f"move {move}, expert {expert} of layer {layer} from slot {source} to slot {to}" in text
    # The checker has something to find: without checksums it goes unnoticed.
    on_ranks(3, corrupted, 1, False)


def left_alone(rank: int, way: str) -> tuple[int, bool, str, float]:
    old, new = placements(5, 16, (5, 5, 5, 5))
    plan = plan_migration(old, new)
    whole = of_experts(old)
    mine = local_part(whole, old, rank)

    def act(operations: list[Any]) -> None:
        if way == "hangs":
            time.sleep(4)
        if way != "raises":
            os._exit(9)
        raise RuntimeError("out of luck")

    if rank == 2:
        interfere(3, act)
    control = new_group()
    start = time.monotonic()
    with pytest.raises(MigrationError) as caught:
        migrate(mine, plan, control_group=control, timeout=1.5)
    elapsed = time.monotonic() - start
    expect_state(old, plan, whole, mine, rank, caught.value)
    return caught.value.batch, caught.value.is_agreed, str(caught.value), elapsed


@pytest.mark.parametrize("way", ["dies", "hangs", "raises"])
def test_a_rank_that_is_lost_is_an_error_on_all_others_within_twice_the_timeout(way: str) -> None:
    is_alive = way == "raises"
    results = on_ranks(4, left_alone, way, dying=() if is_alive else (2,))
    survivors = [result for rank, result in enumerate(results) if rank != 2 or is_alive]
    assert len({batch for batch, *_ in survivors}) == 1, "ranks stop in different batches"
    for batch, is_agreed, text, elapsed in survivors:
        assert batch > 0
        assert text.startswith(f"migration stopped in batch {batch} of ")
        assert "batches before it are written on every rank: layers" in text
        assert elapsed < 2 * 1.5 + 2
        # That a rank is gone does not keep the others from knowing where they stop: the store says so.
        assert is_agreed
    if not is_alive:
        assert any("rank 2 within 1.5 s" in text for _, _, text, _ in survivors), "nobody names the rank"


def gone_on(rank: int) -> None:
    """After an error the rest is planned from where things are, and ends where it was to."""
    old, new = placements(5, 8, (5, 4, 3))
    plan = plan_migration(old, new)
    whole = of_experts(old)
    mine = local_part(whole, old, rank)
    genuine = dist.batch_isend_irecv

    def fail(operations: list[Any]) -> None:
        raise RuntimeError("out of luck")

    if rank == 1:
        interfere(2, fail)
    with pytest.raises(MigrationError) as caught:
        migrate(mine, plan, timeout=1)
    dist.batch_isend_irecv = genuine
    here = placement_after(old, plan, caught.value.batch)
    # Others wait for what rank 1 did not send, and gloo takes a wait that ended for the end of the group.
    again = new_group()
    migrate(mine, plan_migration(here, new), again, timeout=10)
    wanted = of_experts(new)
    after = new.physical_to_logical()
    mask = local_part(after >= 0, new, rank)
    assert torch.equal(mine[mask], local_part(wanted, new, rank)[mask])


def test_after_an_error_the_rest_can_be_planned_and_moved() -> None:
    on_ranks(3, gone_on)


def test_a_placement_after_some_batches_is_that_of_the_writes() -> None:
    old, new = placements(5, 8, (5, 4, 3))
    plan = plan_migration(old, new)
    assert placement_after(old, plan, 0) == old
    after, end = new.physical_to_logical(), placement_after(old, plan, plan.num_batches).physical_to_logical()
    assert torch.equal(end[after >= 0], after[after >= 0])
    with pytest.raises(ValueError, match=f"num_batches=-1 is out of range, expected 0..={plan.num_batches}"):
        placement_after(old, plan, -1)
    with pytest.raises(ValueError, match="old holds other experts"):
        placement_after(new, plan, 0)
    with pytest.raises(TypeError, match="old must be a Placement, got `int`"):
        placement_after(5, plan, 0)  # type: ignore[arg-type]
