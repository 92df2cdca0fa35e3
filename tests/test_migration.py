"""Migrations, executed step by step: nothing is read after it was overwritten, no expert is ever in no slot."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from expert_placement import Migration, Placement, Topology, plan_migration, rebalance
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="tensors need torch")

Table = npt.NDArray[np.int32]


def execute(
    old: Placement, new: Placement, moves: Any, batches: Any, write_batches: Any, *, is_limited: bool = False
) -> int:
    """Plays a plan on the table itself, refuses whatever a plan must not do, and counts what a rank stages at most."""
    before: Table = old.physical_to_logical().numpy()
    after: Table = new.physical_to_logical().numpy()
    rank_of = np.repeat(np.arange(old.num_ranks), np.diff(old.slot_offsets().numpy()))
    changed = {
        (int(layer), int(slot)) for layer, slot in zip(*np.nonzero((before != after) & (after >= 0)), strict=True)
    }
    assert {(int(layer), int(to)) for layer, _, _, to in moves} == changed, "other slots than those that change"
    assert len(moves) == len(changed), "a slot is filled twice"
    now, staged = before.copy(), []
    sends, receives = np.zeros(old.num_ranks, int), np.zeros(old.num_ranks, int)
    most_staged = 0
    for batch, (first, last) in enumerate(pairwise(batches)):
        senders, receivers = set(), set()
        for index in range(first, last):
            layer, expert, source, to = moves[index]
            assert before[layer, source] == expert, "the source does not hold the expert"
            assert now[layer, source] == expert, "the source was overwritten"
            sender, receiver = rank_of[source], rank_of[to]
            if sender != receiver:
                assert sender not in senders, "a rank sends twice"
                assert receiver not in receivers, "a rank receives twice"
                senders.add(sender)
                receivers.add(receiver)
                sends[sender] += 1
                receives[receiver] += 1
            staged.append(index)
        held = np.bincount([rank_of[moves[index][3]] for index in staged], minlength=1)
        most_staged = max(most_staged, int(held.max()))
        for index in [index for index in staged if write_batches[index] == batch]:
            layer, expert, _, to = moves[index]
            now[layer, to] = expert
            staged.remove(index)
        for row in now:
            assert set(range(old.num_experts)) <= set(row.tolist()), "an expert is in no slot"
    assert not staged, "something was never written"
    assert (now[after >= 0] == after[after >= 0]).all(), "another placement came out"
    most = max(int(sends.max(initial=0)), int(receives.max(initial=0)))
    least = max(most, 1 if len(moves) else 0)
    assert len(batches) - 1 == least or (is_limited and len(batches) - 1 > least), "not the least number of batches"
    return most_staged


def executed(old: Placement, new: Placement) -> Migration:
    plan = plan_migration(old, new)
    execute(old, new, plan.moves.tolist(), plan.batches.tolist(), plan.write_batches.tolist())
    before = old.physical_to_logical()
    weights = torch.stack((before, before * 10), dim=-1).to(torch.bfloat16)
    result = plan.apply(weights)
    after = new.physical_to_logical()
    assert torch.equal(result[after >= 0], torch.stack((after, after * 10), dim=-1).to(torch.bfloat16)[after >= 0])
    assert plan.num_moves == len(plan.moves)
    assert plan.num_batches == len(plan.batches) - 1
    assert plan.is_interruption_safe
    assert (plan.num_staged > 0) == (plan.num_moves > 0)
    return plan


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Placement, Placement]:
    """Two placements of up to 3 layers and 4 x 4 slots, empty slots included."""
    ranks, each = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    slots = ranks * each
    experts, layers = draw(st.integers(1, slots)), draw(st.integers(1, 3))
    topology = Topology(ranks, draw(st.integers(1, ranks)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def one() -> Placement:
        rows = rng.integers(-1 if rng.random() < 0.3 else 0, experts, (layers, slots))
        for row in rows:
            row[rng.permutation(slots)[:experts]] = np.arange(experts)
        return Placement.from_physical_to_logical(rows, num_experts=experts, topology=topology)

    return one(), one()


@given(pairs())
@settings(max_examples=400)
def test_a_plan_executes_to_the_new_placement(pair: tuple[Placement, Placement]) -> None:
    executed(*pair)


def test_a_real_size_executes() -> None:
    loads = np.random.default_rng(1).lognormal(0, 0.8, (12, 64))
    later = loads * np.random.default_rng(2).lognormal(0, 0.4, (12, 64))
    old = rebalance(loads, 80, Topology(8, 2))
    for new in (rebalance(later, 80, Topology(8, 2)), rebalance(later, 80, Topology(8, 2), previous=old, max_moves=40)):
        executed(old, new)


def test_no_change_is_no_move() -> None:
    old = rebalance([[1, 2, 3, 4]], 6, Topology(2))
    plan = executed(old, old)
    assert (plan.num_moves, plan.num_batches, plan.batches.tolist()) == (0, 0, [0])


def test_the_nearest_source_is_taken() -> None:
    topology = Topology(4, 2)
    old = Placement.from_physical_to_logical([[0, 1, 2, 0, 3, 0, 4, 5]], num_experts=6, topology=topology)
    new = Placement.from_physical_to_logical([[0, 0, 2, 1, 3, 0, 4, 5]], num_experts=6, topology=topology)
    # Slot 1 is filled from the same rank, and slot 3 from the one place where expert 1 is.
    assert executed(old, new).moves.tolist() == [[0, 0, 0, 1], [0, 1, 1, 3]]
    # Rank 3 gets expert 0 from rank 2, which is on its node, though rank 0 has sent nothing either.
    old = Placement.from_physical_to_logical([[0, 1, 2, 3, 0, 4, 4, 5]], num_experts=6, topology=topology)
    new = Placement.from_physical_to_logical([[0, 1, 2, 3, 0, 4, 0, 5]], num_experts=6, topology=topology)
    assert executed(old, new).moves.tolist() == [[0, 0, 4, 6]]


def test_a_rank_out_of_service_sends_nothing() -> None:
    def one(row: list[int], **options: Any) -> Placement:
        return Placement.from_physical_to_logical([row], num_experts=3, topology=Topology(2, **options))

    lost, down = one([0, 1, -1, 2, -1, -1]), one([2, 1, 0, -1, -1, -1], active=[True, False])
    with pytest.raises(ValueError, match="slot 0 of layer 0 is to hold expert 2, which no rank in service"):
        plan_migration(lost, down)
    # Rank 0 holds expert 0 too, and sends it to itself.
    plan = executed(one([0, 1, 2, 0, -1, -1]), one([0, 1, 2, -1, -1, -1], active=[True, False]))
    assert plan.num_moves == 0


def test_a_ring_shares_a_batch() -> None:
    old = Placement.from_physical_to_logical([[0, 1, 2]], num_experts=3, topology=Topology(3))
    new = Placement.from_physical_to_logical([[1, 2, 0]], num_experts=3, topology=Topology(3))
    plan = executed(old, new)
    assert (plan.num_batches, plan.num_staged) == (1, 1)


def test_a_broken_plan_is_refused_by_the_execution() -> None:
    old = Placement.from_physical_to_logical([[0, 1, 2, 3]], num_experts=4, topology=Topology(2))
    new = Placement.from_physical_to_logical([[2, 1, 0, 3]], num_experts=4, topology=Topology(2))
    good = [[0, 2, 2, 0], [0, 0, 0, 2]]
    execute(old, new, good, [0, 2], [0, 0])
    broken: list[tuple[Any, str]] = [
        ((good, [0, 1, 2], [0, 1]), "in no slot"),
        ((good, [0, 1, 2], [1, 1]), "least number"),
        (([[0, 2, 3, 0], [0, 0, 0, 2]], [0, 2], [0, 0]), "does not hold"),
        ((good[:1], [0, 1], [0]), "other slots"),
        ((good, [0, 2], [0, 1]), "never written|no slot"),
    ]
    for plan, message in broken:
        with pytest.raises(AssertionError, match=message):
            execute(old, new, *plan)


def test_placements_that_do_not_fit_are_refused() -> None:
    old = rebalance([[1, 2, 3, 4]], 6, Topology(2))
    for new, message in (
        (rebalance([[1, 2, 3, 4]] * 2, 6, Topology(2)), "new has num_layers=2, expected 1 as old has"),
        (rebalance([[1, 2, 3, 4]], 8, Topology(2)), "new has num_slots=8, expected 6"),
        (rebalance([[1, 2, 3]], 6, Topology(2)), "new has num_experts=3, expected 4"),
        (rebalance([[1, 2, 3, 4]], 6, Topology(3)), "new has num_ranks=3, expected 2"),
        (rebalance([[1, 2, 3, 4]], 6, Topology(2, slots_per_rank=[2, 4])), "start of a rank's slots=2, expected 3"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_migration(old, new)


def test_weights_that_do_not_fit_are_refused() -> None:
    old = Placement.from_physical_to_logical([[0, 1, 2]], num_experts=3, topology=Topology(3))
    new = Placement.from_physical_to_logical([[1, 2, 0]], num_experts=3, topology=Topology(3))
    plan = plan_migration(old, new)
    with pytest.raises(ValueError, match=r"^weights has 1 dimensions, expected at least 2"):
        plan.apply(torch.zeros(3))
    for shape in ((1, 2), (0, 3), (2, 3), (1, 4, 5)):
        message = rf"^weights has the shape {re.escape(str(shape))}, expected \[1, 3, \.\.\.\]$"
        with pytest.raises(ValueError, match=message):
            plan.apply(torch.zeros(shape))
    assert repr(plan) == "<Migration of 3 moves, 3 of them transfers, in 1 batches, over 1 x 3 slots>"


DTYPES = [
    value
    for name, value in sorted(vars(torch).items())
    if isinstance(value, torch.dtype) and not name.startswith("q") and "bits" not in name
]


@pytest.mark.filterwarnings("ignore:.*support is experimental:UserWarning")
@pytest.mark.parametrize("dtype", sorted(set(DTYPES), key=str), ids=str)
def test_weights_of_every_dtype_are_moved(dtype: Any) -> None:
    old = Placement.from_physical_to_logical([[0, 1, 2]], num_experts=3, topology=Topology(3))
    new = Placement.from_physical_to_logical([[1, 2, 0]], num_experts=3, topology=Topology(3))
    try:
        size = torch.empty(0, dtype=dtype).element_size()
    except RuntimeError as error:
        pytest.skip(f"torch has no tensors of {dtype} here: {error}")
    held = torch.arange(1 * 3 * 2 * size, dtype=torch.uint8).view(1, 3, 2 * size)
    weights = held.view(dtype)
    result = plan_migration(old, new).apply(weights)
    assert result.dtype == dtype
    assert result.shape == weights.shape
    assert torch.equal(result.view(torch.uint8), held[:, [1, 2, 0]])


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore:.*uantiz")
def test_weights_in_any_layout_are_moved() -> None:
    old = Placement.from_physical_to_logical([[0, 1, 2]], num_experts=3, topology=Topology(3))
    new = Placement.from_physical_to_logical([[1, 2, 0]], num_experts=3, topology=Topology(3))
    plan = plan_migration(old, new)
    whole = torch.randn(1, 3, 4, 5, dtype=torch.complex64)
    for weights in (
        whole.transpose(2, 3),
        whole.conj(),
        whole[..., ::2],
        whole.imag,
        whole[:, :, 0, 0],
        whole[..., :0],
    ):
        assert torch.equal(plan.apply(weights), weights[:, [1, 2, 0]])
    trained = torch.randn(1, 3, requires_grad=True)
    assert not plan.apply(trained).requires_grad
    with pytest.raises(TypeError, match=r"^weights must not be quantized"):
        plan.apply(torch.quantize_per_tensor(torch.randn(1, 3), 0.1, 0, torch.qint8))


def test_the_nodes_are_those_of_the_new_placement() -> None:
    table, later = [[0, 1, 2, 0]], [[0, 1, 2, 2]]
    for num_nodes, source in ((1, 2), (2, 2), (4, 2)):
        old = Placement.from_physical_to_logical(table, num_experts=3, topology=Topology(4))
        new = Placement.from_physical_to_logical(later, num_experts=3, topology=Topology(4, num_nodes))
        assert plan_migration(old, new).moves.tolist() == [[0, 2, source, 3]]
    # Expert 0 is on rank 0 of the first node and on rank 2, which is of the second only in the new placement.
    old = Placement.from_physical_to_logical([[0, 1, 0, 2]], num_experts=3, topology=Topology(4))
    new = Placement.from_physical_to_logical([[0, 1, 2, 0]], num_experts=3, topology=Topology(4, 2))
    assert [0, 0, 2, 3] in plan_migration(old, new).moves.tolist()


@given(pairs(), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_transfers_between_nodes_are_limited(placements: tuple[Placement, Placement], most: int) -> None:
    old, new = placements
    plan = plan_migration(old, new, max_node_transfers=most)
    moves, batches = plan.moves.tolist(), plan.batches.tolist()
    execute(old, new, moves, batches, plan.write_batches.tolist(), is_limited=True)
    node_of = [old.topology.node_of(rank) for rank in range(old.num_ranks)]
    between = [(node_of[a], node_of[b]) for a, b in zip(plan.senders.tolist(), plan.receivers.tolist(), strict=True)]
    for first, last in pairwise(batches):
        for side in (0, 1):
            nodes = [pair[side] for pair in between[first:last] if pair[0] != pair[1]]
            assert max(np.bincount(nodes), default=0) <= most
    # A batch of d crossings at a node becomes d / most, rounded up, and no more.
    free = plan_migration(old, new)
    crossing = 0
    for first, last in pairwise(free.batches.tolist()):
        pairs_of = zip(free.senders.tolist()[first:last], free.receivers.tolist()[first:last], strict=True)
        ends = [(node_of[a], node_of[b]) for a, b in pairs_of if node_of[a] != node_of[b]]
        degree = max((max(np.bincount(side)) for side in zip(*ends, strict=True)), default=0)
        crossing += max(1, -(-degree // most))
    assert plan.num_batches == crossing


def least_staged(old: Placement, new: Placement, most: int) -> int:
    """How many experts the first layer stages that stages more than `most`, as the error says; 0 where none does."""
    try:
        plan_migration(old, new, max_staged=most)
    except ValueError as error:
        found = re.match(rf"max_staged={most} is out of range, expected (\d+)\.\.=", str(error))
        return int(found[1]) if found else -1
    return 0


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_staging_is_limited(placements: tuple[Placement, Placement]) -> None:
    old, new = placements
    free = plan_migration(old, new)
    for most in range(free.num_staged + 1):
        named = least_staged(old, new, most)
        if named:
            assert most < named <= free.num_staged + old.num_slots
            # What is named is enough for that layer; a later one may need more.
            assert least_staged(old, new, named) in (0, *range(named + 1, old.num_slots + 1))
            continue
        plan = plan_migration(old, new, max_staged=most)
        staged = execute(
            old, new, plan.moves.tolist(), plan.batches.tolist(), plan.write_batches.tolist(), is_limited=True
        )
        assert staged == plan.num_staged <= most
        assert plan.is_interruption_safe


def test_a_dense_reshuffle_stages_no_more_than_its_limit() -> None:
    rng = np.random.default_rng(0)
    first, second = (rebalance(rng.random((20, 64)), 80, Topology(8, 2)) for _ in range(2))
    free = plan_migration(first, second)
    assert free.num_staged > 10
    plan = plan_migration(first, second, max_staged=10)
    assert plan.num_staged <= 10
    assert plan.num_batches > free.num_batches
    assert sorted(plan.moves.tolist()) == sorted(free.moves.tolist())


def test_traffic_is_counted_in_bytes() -> None:
    old, new = (
        Placement.from_physical_to_logical(rows, num_experts=4, topology=Topology(2))
        for rows in ([[0, 1, 2, 3], [0, 1, 2, 3]], [[2, 1, 0, 3], [1, 0, 2, 3]])
    )
    plan = plan_migration(old, new)
    assert plan.senders.tolist() == [1, 0, 0, 0]
    assert plan.receivers.tolist() == [0, 1, 0, 0]
    # Layer 1 moves inside a rank alone, which costs nothing.
    sent, received = plan.traffic([100, 7])
    assert sent.tolist() == [[100, 100]]
    assert received.tolist() == [[100, 100]]
    assert sent.dtype == received.dtype == torch.int64
    assert plan.traffic(2**40).sent.sum() == 2**41
    for sizes, message in (
        ([1], "bytes_per_expert has length 1, expected 2, one for each layer"),
        (-1, "bytes_per_expert=-1 is out of range, expected 0..="),
        ([1, 2**64], "bytes_per_expert=18446744073709551616 is out of range"),
        (2**63 - 1, "bytes_per_expert add up to too much, expected at most"),
    ):
        with pytest.raises(ValueError, match=message):
            plan.traffic(sizes)
    with pytest.raises(TypeError, match="bytes_per_expert must be an int or a sequence of them"):
        plan.traffic(1.5)  # type: ignore[arg-type]


def test_wrong_limits_are_refused() -> None:
    old = rebalance([[1, 2, 3, 4]], 4, Topology(2))
    for limits, message in (
        ({"max_node_transfers": 0}, "max_node_transfers=0 is out of range, expected 1..="),
        ({"max_node_transfers": -1}, "max_node_transfers=-1 is out of range"),
        ({"max_staged": -1}, "max_staged=-1 is out of range"),
        ({"max_node_transfers": 2**31}, "max_node_transfers=2147483648 is out of range, expected 1..=2147483647"),
        ({"max_staged": 2**31}, "max_staged=2147483648 is out of range, expected 0..=2147483647"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_migration(old, old, **limits)
    with pytest.raises(TypeError, match="old must be a Placement"):
        plan_migration("old", old)  # type: ignore[arg-type]


def test_what_moves_nothing_gives_the_same_weights() -> None:
    nothing = Placement.from_physical_to_logical([[]], num_experts=0, topology=Topology(2))
    assert plan_migration(nothing, nothing).apply(torch.zeros(1, 0, 3)).shape == (1, 0, 3)
    weights = torch.arange(4.0).view(1, 4)
    old = rebalance([[1, 2, 3, 4]], 4, Topology(2))
    same = plan_migration(old, old).apply(weights)
    assert torch.equal(same, weights)
    assert same.data_ptr() != weights.data_ptr()
    for wrong in (weights.numpy(), weights.tolist(), None):
        with pytest.raises(TypeError, match=r"weights must be a torch\.Tensor, got"):
            plan_migration(old, old).apply(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [[0, 1, 2, 0], [0, 1, 2, 1]], ids=["no moves", "one move"])
def test_weights_that_cannot_be_moved_are_refused_by_name(target: list[int]) -> None:
    old, new = (
        Placement.from_physical_to_logical(table, num_experts=3, topology=Topology(2))
        for table in ([0, 1, 2, 0], target)
    )
    plan = plan_migration(old, new)
    cut = torch.ones(1, 4)
    cut.untyped_storage().resize_(8)
    for weights, reason in (
        (torch.empty(1, 4, device="meta"), "on the device `meta` it has no values"),
        (torch.ones(1, 4).to_sparse(), "its layout is torch.sparse_coo"),
        (cut, "its storage has 8 bytes, and its shape needs 16"),
    ):
        with pytest.raises(TypeError, match=rf"^weights must be a dense tensor whose values are known: {reason}$"):
            plan.apply(weights)
    with pytest.raises(ValueError, match=r"^weights has 1 dimensions, expected at least 2"):
        plan.apply(torch.ones(4))
