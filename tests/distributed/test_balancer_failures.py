"""Balancers where ranks are late, interrupted, or cannot follow: nobody routes by what is not so, and nobody stalls."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="weights are tensors")

import torch
from expert_placement import Placement, Topology, rebalance
from expert_placement.distributed import BalanceError, Balancer, DisagreementError, MigrationError
from expert_placement.distributed._groups import Members, merged
from expert_placement.distributed._transfers import Transfers

from tests.distributed.running import new_group, on_ranks
from tests.distributed.test_balancer import EXPERTS, LAYERS, Engine, skewed

if TYPE_CHECKING:
    from expert_placement.distributed import BalancerState

SECONDS = 0.5


def engine_in_new_groups(rank: int, **options: Any) -> Engine:
    """What went wrong before it is not to go on: operations of its groups are not those of others."""
    options = {"group": new_group(), "control_group": new_group(), "timeout": SECONDS, **options}
    return Engine(rank, [4, 4, 4], on_error="report", **options)


def steps_of_no_time(engine: Engine, steps: int = 10) -> None:
    """A broken balancer sends nothing, and so waits for nobody."""
    before = engine.balancer.state
    start = time.monotonic()
    for _ in range(steps):
        state = engine.step(skewed(0))
        assert state.is_broken
        assert (state.failures, state.error, state.phase) == (before.failures, before.error, "recording")
    assert state.step == before.step + steps
    assert time.monotonic() - start < SECONDS, "a broken balancer waits for others"


# --- late, and back again ---------------------------------------------------------------------------------------------


def late_in(rank: int, where: str) -> tuple[str, str, str]:
    engine = engine_in_new_groups(rank)
    balancer, was_late = engine.balancer, False
    exchange = Members.exchange
    while not balancer.state.is_broken:
        phase = balancer.state.phase

        def late(members: Members, message: bytes, deadline: Any) -> list[bytes]:
            nonlocal was_late
            if len(message) == 337 and not was_late:
                was_late = True
                time.sleep(2 * SECONDS)
            return exchange(members, message, deadline)

        if rank == 2 and not was_late and phase == where.removesuffix(", at its end"):
            if where == "moving, at its end":
                Members.exchange = late  # type: ignore[assignment,method-assign]
            elif phase != "recording" or balancer.state.step % 3 == 2:
                was_late = True
                time.sleep(2 * SECONDS)
        engine.step(skewed(0))
        Members.exchange = exchange  # type: ignore[method-assign]
        assert balancer.state.step < 300, "nobody was missed"
        time.sleep(0.002)
    steps_of_no_time(engine)
    error = balancer.state.error or ""
    assert repr(balancer).startswith("<Balancer broken in step ")
    # In new groups another goes on from where the experts are.
    balancer = Balancer(
        balancer.placement,
        engine.weights,
        tables=[engine.tables, engine.routing],
        interval=3,
        group=new_group(),
        control_group=new_group(),
        timeout=20,
    )
    engine.balancer = balancer
    engine.settle(skewed(0))
    assert balancer.placement.balancedness(skewed(0)) > 0.9
    return where, engine.balancer.placement.digest(), error


def late_everywhere(rank: int) -> list[tuple[str, str, str]]:
    return [late_in(rank, where) for where in ("recording", "planning", "moving", "moving, at its end")]


def test_a_rank_that_comes_back_late_in_any_phase_leaves_one_placement_and_balancers_that_wait_for_nobody() -> None:
    """Domain: 3 ranks, one of them late by two timeouts in each phase, and where layers are written already."""
    for results in zip(*on_ranks(3, late_everywhere), strict=True):
        where, *_ = results[0]
        assert len({digest for _, digest, _ in results}) == 1, f"late in {where}: ranks hold different placements"
        assert all("failed while" in error for *_, error in results), f"late in {where}"


# --- writing that fails, and interrupts -------------------------------------------------------------------------------


def ended_in_a_write(rank: int, kind: type[BaseException]) -> tuple[BalancerState, str]:
    engine = engine_in_new_groups(rank, layers_per_step=4)
    write = Transfers.write

    def refuse(layer: int, slot: int) -> Any:
        raise kind("not now")

    def fail(transfers: Transfers, batch: int) -> None:
        if batch > 1 and any(move.write_batch == batch for move, _, _ in transfers._held):
            transfers._local = refuse  # type: ignore[method-assign]
        write(transfers, batch)

    if rank == 2:
        Transfers.write = fail  # type: ignore[assignment,method-assign]
    raised: list[BaseException] = []
    while not engine.balancer.state.is_broken:
        try:
            engine.balancer.step(engine.counted(skewed(0)))
        except KeyboardInterrupt as interrupt:
            raised.append(interrupt)
        time.sleep(0.002)
    Transfers.write = write  # type: ignore[method-assign]
    state = engine.balancer.state
    assert state.phase == "recording"
    assert (len(raised) == 1) == (rank == 2 and kind is KeyboardInterrupt)
    if raised:
        assert isinstance(raised[0].__cause__, MigrationError)
        # What was moved is followed in the next step, not in the interrupt.
        assert state.layers_stale
    assert (state.slots_torn != ()) == (rank == 2)
    if rank == 2:
        assert "may be half-written" in (state.error or "")
        assert state.layers_moved > 0 or state.layers_stale or engine.balancer.placement != engine.start
        # What may be half-written is made whole again; all else is where the placement says.
        first = int(engine.start.slot_offsets()[rank])
        for layer, slot in state.slots_torn:
            for weight in engine.weights.values():
                wanted = engine.held(engine.balancer.placement, weight.dtype, *weight.shape[2:])
                weight[layer, slot - first] = wanted[layer, slot - first]
    steps_of_no_time(engine)
    assert engine.balancer.state.layers_stale == ()
    with pytest.raises(DisagreementError, match="placement differs between the ranks"):
        Balancer(engine.balancer.placement, engine.weights, group=new_group(), control_group=new_group(), timeout=20)
    return state, engine.balancer.placement.digest()


def ended_in_writes(rank: int) -> list[tuple[BalancerState, str]]:
    return [ended_in_a_write(rank, kind) for kind in (OSError, KeyboardInterrupt)]


def test_a_rank_that_cannot_write_or_is_interrupted_says_what_it_holds_and_no_other_balancer_is_made_of_it() -> None:
    for (first, here), (second, there), (third, _) in zip(*on_ranks(3, ended_in_writes), strict=True):
        assert here == there
        assert first.failures == second.failures == third.failures == 1
        assert first.bytes_sent + second.bytes_sent + third.bytes_sent > 0, "what a failed step sent is left out"


def unsent(rank: int) -> str:
    """A rank that cannot send: all hear why in a group for small messages, and the group of the weights is given up."""
    engine = engine_in_new_groups(rank)
    genuine = Transfers.read

    def fail(transfers: Transfers, batch: int, deadline: Any) -> int | None:
        if rank == 1:
            raise OSError("no memory to send from")
        return genuine(transfers, batch, deadline)

    Transfers.read = fail  # type: ignore[assignment,method-assign]
    while not engine.balancer.state.is_broken:
        engine.step(skewed(0))
        time.sleep(0.002)
    steps_of_no_time(engine)
    return engine.balancer.state.error or ""


def test_a_rank_that_cannot_send_is_heard_by_all_and_ends_the_use_of_the_group() -> None:
    errors = on_ranks(3, unsent)
    assert len(set(errors)) == 1
    assert "rank 1: MigrationError: migration stopped in batch 0 of " in errors[0]
    assert "no memory to send from" in errors[0]


def test_ranks_that_say_the_same_are_named_together() -> None:
    assert merged({0: "late", 2: "late", 1: "full", 3: "late"}) == "ranks 0, 2..=3: late; rank 1: full"
    assert merged({}) == ""


# --- tables that do not follow ----------------------------------------------------------------------------------------


def stale(rank: int) -> list[str]:
    engine = Engine(rank, [4, 4], on_error="report", timeout=20)
    update, failures = engine.tables.update, 0

    def fail(placement: Placement, *, layer: Any = None) -> None:
        nonlocal failures
        if rank == 1 and layer == 1 and failures < 8:
            failures += 1
            raise OSError("no room for a table")
        update(placement, layer=layer)

    engine.tables.update = fail  # type: ignore[method-assign]
    errors: list[str] = []
    was_stale = 0
    while engine.balancer.state.declined == 0:
        state = engine.balancer.step(engine.counted(skewed(0)))
        if state.error and state.error not in errors:
            errors.append(state.error)
        if state.layers_stale:
            was_stale += 1
            assert state.layers_stale == (1,)
            assert "layer 1 is moved, but the tables do not follow: OSError: no room for a table" in (state.error or "")
            assert state.phase == "recording", "a plan is made while tables do not follow"
            assert not state.is_broken
        else:
            engine.check()
        time.sleep(0.001)
    assert was_stale == (8 if rank == 1 else 0)
    assert engine.balancer.state.error is None
    return errors


def test_tables_that_do_not_follow_are_tried_in_every_step_and_nothing_is_planned_before() -> None:
    first, second = on_ranks(2, stale)
    assert any("rank 1: RuntimeError: layer 1 is moved" in error for error in first), "the other rank hears of it"
    assert any("failed while recording" in error for error in first), "it is told at the end of each window"
    assert second


# --- what is refused --------------------------------------------------------------------------------------------------


def differing(rank: int) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(DisagreementError, match=match):
            Engine(rank, [4, 4], **options)

    for name, here, there in (
        ("planner_rank", 0, 1),
        ("interval", 3, 4),
        ("num_windows", 1, 2),
        ("layers_per_step", 1, 2),
        ("max_staged", None, 2),
        ("max_node_transfers", None, 1),
        ("verify", False, True),
        ("balanced_enough", 1.0, 0.5),
        ("timeout", 20, 21),
        ("planning_timeout", 20, 21),
    ):
        match = f"{name} differs .*: rank 0 holds {here if name != 'timeout' else ''}.*; rank 1 holds {there}"
        refused(match, **{name: there if rank else here})
    table = [[0, 1, 0, 1]]
    for name, topology in (("speeds", Topology(2, speeds=[1, 2])), ("num_nodes", Topology(2, num_nodes=2))):
        placement = Placement.from_physical_to_logical(table, 2, topology if rank else Topology(2))
        with pytest.raises(DisagreementError, match=f"{name} of the topology differs"):
            Balancer(placement, torch.zeros(1, 2, 3), timeout=20)
    placement = Placement.from_physical_to_logical(table, 2, Topology(2))
    with pytest.raises(DisagreementError, match=r"^weights .* differs"):
        Balancer(placement, torch.zeros(1, 2, 3 + rank), timeout=20)
    for tables, match in (
        (5, "tables must be a sequence of tables, got `int`"),
        ([5], r"tables\[0\] must be something with `layers` and `update`, such as RoutingTables, got `int`"),
    ):
        with pytest.raises(TypeError, match=match):
            Balancer(placement, torch.zeros(1, 2, 3), tables=tables)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_layer must be a function, got `int`"):
        Balancer(placement, torch.zeros(1, 2, 3), on_layer=5)  # type: ignore[arg-type]


def test_options_that_differ_are_named_on_all_ranks() -> None:
    on_ranks(2, differing)


# --- planning ---------------------------------------------------------------------------------------------------------


def troubled_planning(rank: int) -> tuple[list[str], set[str]]:
    """A log that raises, a thread that cannot be started, and then plans that take longer than they may."""
    handler = logging.Handler()

    def refuse(record: logging.LogRecord) -> None:
        raise ValueError("no room for a line")

    handler.emit = refuse  # type: ignore[method-assign]
    logger = logging.getLogger("expert_placement")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    plans = 0

    def slow(loads: Any, placement: Placement) -> Placement:
        nonlocal plans
        plans += 1
        time.sleep(0.4)
        return placement

    start, refusals = threading.Thread.start, 0

    def refused(thread: threading.Thread) -> None:
        nonlocal refusals
        if thread.name == "expert-placement-planning" and not refusals:
            refusals += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = refused  # type: ignore[assignment,method-assign]
    engine = Engine(
        rank, [4, 4], planning=slow, planning_timeout=0.05, interval=1, on_error="report", balanced_enough=1.0
    )
    errors: list[str] = []
    decisions = set()
    most = 0
    while len(errors) < 3:
        state = engine.step(skewed(0))
        decisions.add(state.decision.partition(",")[0])
        if state.failures > len(errors):
            errors.append(state.error or "")
        most = max(most, sum(thread.name == "expert-placement-planning" for thread in threading.enumerate()))
        time.sleep(0.005)
    threading.Thread.start = start  # type: ignore[method-assign]
    logger.removeHandler(handler)
    assert state.declined == 0
    assert most == (1 if rank == 0 else 0), "threads pile up"
    assert plans == (2 if rank == 0 else 0)
    return errors, decisions


def test_what_fails_on_the_planning_rank_alone_is_heard_by_all_and_no_plan_is_begun_while_one_is_made() -> None:
    first, second = on_ranks(2, troubled_planning)
    assert first == second
    (unstarted, *late), decisions = first
    assert "failed while planning: rank 0: RuntimeError: can't start new thread" in unstarted
    assert all("planning is not done after 0.05 s" in error for error in late)
    assert "an earlier plan is still thought about" in decisions


def raising(rank: int) -> None:
    """In the other mode a broken balancer raises in every step."""
    engine = Engine(rank, [4, 4], timeout=SECONDS)

    def until_it_fails() -> None:
        for _ in range(100):
            if rank == 1 and engine.balancer.state.step == 2:
                time.sleep(2 * SECONDS)
            engine.step(skewed(0))

    with pytest.raises(BalanceError, match=r"^step \d+ failed while ") as caught:
        until_it_fails()
    assert engine.balancer.state.is_broken
    assert caught.value.reasons == {}
    for _ in range(3):
        step = engine.balancer.state.step + 1
        with pytest.raises(BalanceError, match=f"^step {step} is not taken, expected another balancer in new groups"):
            engine.step(skewed(0))


def test_a_broken_balancer_raises_in_every_step() -> None:
    on_ranks(2, raising)


# --- limits of a step -------------------------------------------------------------------------------------------------


def limited(rank: int) -> int:
    slots = [3, 3, 3, 3]
    table = [[slot % EXPERTS for slot in range(12)]] * LAYERS
    start = Placement.from_physical_to_logical(table, EXPERTS, Topology(4, num_nodes=2))
    engine = Engine(rank, slots, timeout=20)
    most = 0
    read = Transfers.read

    def counted(transfers: Transfers, batch: int, deadline: Any) -> int | None:
        nonlocal most
        most = max(most, transfers.num_staged)
        return read(transfers, batch, deadline)

    Transfers.read = counted  # type: ignore[assignment,method-assign]
    engine.start = start
    engine.balancer = Balancer(
        start,
        engine.weights,
        tables=[engine.tables, engine.routing],
        interval=3,
        layers_per_step=4,
        max_staged=2,
        max_node_transfers=1,
        timeout=20,
    )
    engine.settle(skewed(0))
    best = rebalance(skewed(0), 12, start.topology).balancedness(skewed(0))
    assert engine.balancer.placement.balancedness(skewed(0)) >= 0.98 * best
    return most


def test_a_balancer_stages_no_more_than_it_may() -> None:
    assert max(on_ranks(4, limited)) in (1, 2)
