"""Balancers: ranks do the same in each step, weights are where the placement says, and all hear of failures."""

from __future__ import annotations

import itertools
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="weights are tensors")

import torch
import torch.distributed as dist
from expert_placement import Partition, Placement, Topology, plan_migration, rebalance
from expert_placement.distributed import BalanceError, Balancer, BalancerState, MovingCost, Planning
from expert_placement.distributed._planning import Judge, Moving, differing
from expert_placement.torch.routing import RoutingTables

from tests.distributed.running import new_group, on_ranks

if TYPE_CHECKING:
    from torch import Tensor

LAYERS, EXPERTS = 4, 8


class Followed:
    """Tables that remember what they were told."""

    def __init__(self, placement: Placement) -> None:
        self.layers = range(placement.num_layers)
        self.rows = placement.physical_to_logical()

    def update(self, placement: Placement, *, layer: Any = None) -> None:
        self.rows[layer] = placement.physical_to_logical()[layer]


class Engine:
    """Weights, tables and counters of one rank, as an engine has them."""

    def __init__(self, rank: int, slots: list[int], *, device: str = "cpu", **options: Any) -> None:
        self.device = device
        topology = Topology(len(slots), slots_per_rank=slots)
        spread = Partition(EXPERTS, 1)
        row = [slot % spread.num_experts for slot in range(sum(slots))]
        self.start = Placement.from_physical_to_logical([row] * LAYERS, EXPERTS, topology)
        self.rank, self.ranks = rank, len(slots)
        self.weights = {"w": self.held(self.start, torch.bfloat16, 6), "scale": self.held(self.start, torch.float32)}
        self.tables, self.routing = Followed(self.start), RoutingTables(self.start, device=device)
        options = {"interval": 3, "timeout": 20, "tables": [self.tables, self.routing], "device": device, **options}
        self.balancer = Balancer(self.start, self.weights, **options)
        self.phases: list[str] = []

    def held(self, placement: Placement, dtype: torch.dtype, *inner: int) -> Tensor:
        """What this rank's slots are to hold."""
        first, last = placement.slot_offsets().tolist()[self.rank : self.rank + 2]
        table = placement.physical_to_logical()[:, first:last] + 20 * torch.arange(LAYERS).view(-1, 1)
        return table.view(*table.shape, *[1] * len(inner)).repeat(1, 1, *inner).to(self.device, dtype)

    def counted(self, loads: Tensor) -> Tensor:
        """This rank's share of an expert's load, spread over its replicas; 60 divides by all their numbers."""
        table = self.balancer.placement.physical_to_logical().long()
        counts = self.balancer.placement.replica_counts().long()
        share = 60 * loads * (self.rank + 1) // counts
        return (share.gather(1, table.clamp(min=0)) * (table >= 0)).to(self.device)

    def step(self, loads: Tensor) -> BalancerState:
        before = self.balancer.placement
        try:
            state = self.balancer.step(self.counted(loads))
        finally:
            self.phases.append(self.balancer.state.phase)
            self.check()
        changed = self.balancer.placement.physical_to_logical() != before.physical_to_logical()
        self.most_layers = max(getattr(self, "most_layers", 0), int(changed.any(dim=1).sum()))
        return state

    def settle(self, loads: Tensor) -> BalancerState:
        """Steps until a plan finds nothing to do; ranks decide alike, and so take as many steps."""
        declined = self.balancer.state.declined
        for _ in range(5000):
            state = self.step(loads)
            if state.declined > declined:
                return state
            time.sleep(0.001)
        raise AssertionError(f"the balancer does not come to rest: {state}")

    def check(self) -> None:
        """Weights and tables are what the placement says."""
        here = self.balancer.placement
        assert torch.equal(self.tables.rows, here.physical_to_logical()), "tables are not those of the placement"
        assert torch.equal(self.routing.data.cpu(), RoutingTables(here).data), "routing is not that of the placement"
        first, last = here.slot_offsets().tolist()[self.rank : self.rank + 2]
        filled = here.physical_to_logical()[:, first:last] >= 0
        for name, weight in self.weights.items():
            wanted = self.held(here, weight.dtype, *weight.shape[2:])
            assert torch.equal(weight.cpu()[filled], wanted.cpu()[filled]), f"{name} is not where the placement says"


def skewed(hot: int) -> Tensor:
    """Loads of which a few experts have most, other ones in each layer."""
    row = torch.tensor([400, 200, 100, 40, 20, 20, 10, 10])
    return torch.stack([row.roll(hot + layer) for layer in range(LAYERS)])


def against(placement: Placement) -> Tensor:
    """Loads of which rank 0 has most: those of the experts that it has most of the replicas of."""
    table, counts = placement.physical_to_logical(), placement.replica_counts()
    loads = torch.ones(LAYERS, EXPERTS, dtype=torch.int64)
    for layer, row in enumerate(table[:, : int(placement.slot_offsets()[1])].tolist()):
        for expert in row:
            loads[layer, expert] += 300 // int(counts[layer, expert])
    return loads


def converged(rank: int, slots: list[int], separate: bool, device: str = "cpu") -> Any:
    options: dict[str, Any] = {"control_group": new_group()} if separate else {}
    options |= {"layers_per_step": 3, "balanced_enough": 0.97, "num_windows": 1, "device": device}
    engine = Engine(rank, slots, **options)
    reached = []
    for _ in range(3):
        loads = against(engine.balancer.placement)
        before = engine.balancer.placement.balancedness(loads)
        state = engine.settle(loads)
        best = rebalance(loads, sum(slots), engine.start.topology).balancedness(loads)
        reached.append((before, engine.balancer.placement.balancedness(loads), best))
        assert state.failures == 0
        assert state.error is None
    assert 0 < engine.most_layers <= 3
    assert state.plans >= 3
    assert state.declined == 3
    assert state.decision.startswith(("balanced enough", "the plan moves nothing"))
    assert state.windows == state.step // 3
    return (
        engine.phases,
        reached,
        engine.balancer.placement.digest(),
        state.bytes_sent,
        state.bytes_received,
        state.plans,
    )


@pytest.mark.parametrize(("slots", "separate"), [([6, 6], False), ([5, 4, 3], True), ([3, 3, 3, 3], False)], ids=str)
def test_a_balancer_follows_a_load_that_shifts(slots: list[int], separate: bool) -> None:
    """Domain: 2, 3 and 4 ranks, uneven slots, with and without a group for small messages."""
    assert_followed(on_ranks(len(slots), converged, slots, separate))


def assert_followed(results: list[Any]) -> None:
    phases, reached, digests, sent, received, plans = zip(*results, strict=True)
    assert all(each == phases[0] for each in phases), "ranks are in different phases in the same step"
    assert {"recording", "planning", "moving"} == set(phases[0])
    assert len(set(digests)) == len(set(plans)) == 1
    for before, after, best in reached[0]:
        assert before < 0.9 * best, "there is nothing to do"
        assert after >= 0.98 * best, "the balancer did not follow"
    assert sum(sent) == sum(received) > 0


def followed_by_many(rank: int) -> tuple[str, int, int, int]:
    engine = Engine(rank, [2] * 8, layers_per_step=2, control_group=new_group(), verify=True)
    for hot in (0, 3):
        engine.settle(skewed(hot))
        best = rebalance(skewed(hot), 16, engine.start.topology).balancedness(skewed(hot))
        assert engine.balancer.placement.balancedness(skewed(hot)) >= 0.98 * best
    state = engine.balancer.state
    assert state.failures == 0
    return engine.balancer.placement.digest(), state.plans, state.step, state.layers_moved


def test_eight_ranks_follow_a_load_that_shifts() -> None:
    results = on_ranks(8, followed_by_many)
    assert len(set(results)) == 1
    assert results[0][1] >= 2
    assert results[0][3] >= LAYERS


# --- failures ---------------------------------------------------------------------------------------------------------


class Moody:
    """A planner that fails a number of times before it plans."""

    def __init__(self, failures: int, how: str) -> None:
        self.left, self.how = failures, how

    def __call__(self, loads: Tensor, placement: Placement) -> Any:
        if self.left:
            self.left -= 1
            if self.how == "raises":
                raise ZeroDivisionError("no luck with this plan")
            if self.how == "sleeps":
                time.sleep(0.5)
            if self.how == "gives a number":
                return 5
            if self.how == "gives another size":
                return rebalance(loads, placement.num_slots + 2, Topology(placement.num_ranks))
            if self.how == "gives other ranks":
                return rebalance(loads, placement.num_slots, Topology(3, active=[True, True, False]))
            if self.how == "exits":
                raise SystemExit(3)
        return Planning()(loads, placement)


def failing_plan(rank: int, how: str, on_error: Any) -> Any:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("expert_placement").addHandler(handler)
    logging.getLogger("expert_placement").setLevel(logging.INFO)
    engine = Engine(
        rank, [4, 4, 4], planning=Moody(1, how), planner_rank=1, on_error=on_error, planning_timeout=0.2, interval=2
    )
    failed_in: list[int] = []
    text, ranks = "", [1]
    state = engine.balancer.state
    while not state.declined:
        try:
            state = engine.step(skewed(0))
        except BalanceError as error:
            state, text, ranks = engine.balancer.state, str(error), list(error.reasons)
        if state.failures > len(failed_in):
            failed_in.append(state.step)
            assert state.phase == "recording"
            assert state.error is not None
            assert state.decision == "given up"
            assert engine.balancer.placement == engine.start, "a plan that failed changed something"
            text = text or state.error
        time.sleep(0.002)
    assert (text != "" and not text.startswith("BalanceError")) == (on_error == "raise")
    assert ranks == [1]
    assert len(failed_in) == 1, "it is a failure once"
    assert state.failures == 1
    # What went wrong is not the end: the next window is planned for.
    assert engine.balancer.placement.balancedness(skewed(0)) > 0.9
    assert state.plans >= 1
    if rank == 1:
        assert any("failed while planning: rank 1: " in line for line in lines)
    else:
        assert any(f"balancer of rank {rank}: given up in step" in line and "as rank 1 said" in line for line in lines)
    assert any("a plan is thought about" in line for line in lines) == (rank == 1)
    assert any("layers are moved, balancedness" in line for line in lines) == (rank == 1)
    return failed_in, text.removeprefix("BalanceError: ")


@pytest.mark.parametrize("on_error", ["raise", "report"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "rank 1: ZeroDivisionError: no luck with this plan"),
        ("sleeps", "rank 1: RuntimeError: planning is not done after 0.2 s"),
        ("gives a number", "rank 1: TypeError: planning must give a Placement, got `int`"),
        ("exits", "rank 1: RuntimeError: planning ended with SystemExit: 3"),
        ("gives other ranks", "rank 1: ValueError: planning gave a placement with active=[0..=1], expected [0..=2]"),
        ("gives another size", "rank 1: ValueError: planning gave a placement with num_slots=14, expected 12"),
    ],
)
def test_planning_that_fails_is_heard_by_all_in_the_same_step_and_changes_nothing(
    how: str, reason: str, on_error: str
) -> None:
    results = on_ranks(3, failing_plan, how, on_error)
    assert all(result == results[0] for result in results)
    failed_in, text = results[0]
    assert text.startswith(f"step {failed_in[0]} failed while planning: ")
    assert reason in text


def failing_layer(rank: int) -> Any:
    told: list[int] = []

    def on_layer(layer: int, placement: Placement) -> None:
        told.append(layer)
        if rank == 2 and len(told) == 2:
            raise OSError("no room for a table")

    engine = Engine(rank, [4, 4, 4], on_layer=on_layer)
    with pytest.raises(BalanceError) as raised:
        engine.settle(skewed(0))
    caught, state = raised.value, engine.balancer.state
    failed_in = state.step
    assert state.phase == "recording"
    assert state.layers_left == ()
    assert state.layers_stale == ((told[1],) if rank == 2 else ())
    moved = (engine.balancer.placement.physical_to_logical() != engine.start.physical_to_logical()).any(dim=1)
    assert moved.nonzero().flatten().tolist() == told[:2], "other layers than those that were told"
    # The next window goes on from there.
    engine.settle(skewed(0))
    assert engine.balancer.placement.balancedness(skewed(0)) > 0.9
    return failed_in, str(caught), caught.reasons, engine.balancer.placement.digest()


def test_a_layer_that_fails_on_one_rank_is_heard_by_all_and_moved_layers_stay() -> None:
    results = on_ranks(3, failing_layer)
    assert all(result == results[0] for result in results)
    _, text, reasons, _ = results[0]
    (reason,) = reasons.values()
    assert reason.startswith("RuntimeError: layer ")
    assert reason.endswith(" is moved, but the tables do not follow: OSError: no room for a table")
    assert "failed while moving, layers " in text


def corrupted(rank: int) -> Any:
    engine = Engine(rank, [4, 4, 4], verify=True, layers_per_step=2, on_error="report")
    genuine = dist.batch_isend_irecv
    sent = 0

    def flip(operations: Any) -> Any:
        nonlocal sent
        for each in operations:
            if each.op is dist.isend and each.tensor.numel() > 8:
                sent += 1
                if sent == 3:
                    each.tensor = each.tensor ^ 1
        return genuine(operations)

    if rank == 1:
        dist.batch_isend_irecv = flip  # type: ignore[assignment]
    errors = []
    while not (state := engine.step(skewed(0))).declined:
        errors += [state.error] if state.error and state.error not in errors else []
        time.sleep(0.002)
    assert engine.balancer.placement.balancedness(skewed(0)) > 0.9
    return errors, engine.balancer.placement.digest()


def test_a_corrupted_transfer_is_heard_by_all_and_the_next_plan_goes_on() -> None:
    results = on_ranks(3, corrupted)
    assert all(result == results[0] for result in results)
    (error,), _ = results[0]
    assert "MigrationError: migration stopped in batch" in error
    assert "its checksum differs" in error or "as something else than rank 1 sent" in error


def bad_load(rank: int) -> list[str]:
    engine = Engine(rank, [4, 4], interval=4)
    said = []
    for number in range(1, 9):
        load = engine.counted(skewed(0))
        try:
            engine.balancer.step(load.double() if rank == 1 and number in (2, 4) else load)
        except (BalanceError, TypeError) as error:
            said.append(f"{number} {type(error).__name__} {error}")
    return said


def test_a_wrong_load_is_an_error_of_its_rank_and_of_all_where_they_meet() -> None:
    first, second = on_ranks(2, bad_load)
    reason = "TypeError: load has the dtype torch.float64, expected integers"
    assert first == [f"4 BalanceError step 4 failed while recording: rank 1: {reason}"]
    assert second == [f"2 TypeError {reason.removeprefix('TypeError: ')}", *first]


def declined(rank: int) -> None:
    def decided(**options: Any) -> BalancerState:
        engine = Engine(rank, [4, 4], interval=2, **options)
        return engine.settle(skewed(0))

    state = decided(balanced_enough=0.1)
    assert state.decision.startswith("balanced enough: 0.")
    assert state.plans == 0
    assert state.declined == 1
    state = decided(planning=Planning(max_moves=0))
    assert state.decision == "the plan moves nothing"
    assert state.plans == 0
    state = decided(cost=MovingCost(step_seconds=1e-6, num_steps=2, bytes_per_second=1.0))
    assert state.decision.startswith("not worth it: ")
    assert state.plans == 0
    state = decided(cost=MovingCost(step_seconds=1.0, num_steps=100, bytes_per_second=1e9))
    assert state.plans > 0
    state = decided(planning=Planning("deepseek"))
    assert state.plans > 0


def test_what_does_not_pay_is_not_moved() -> None:
    on_ranks(2, declined)


def left_alone(rank: int) -> tuple[str, float]:
    engine = Engine(rank, [4, 4, 4], timeout=1)
    text = ""
    while not text:
        if rank == 1 and engine.balancer.state.phase == "moving":
            os._exit(9)
        start = time.monotonic()
        try:
            engine.step(skewed(0))
        except BalanceError as error:
            text = str(error)
        time.sleep(0.001)
    return text, time.monotonic() - start


def test_a_rank_that_dies_is_an_error_on_the_others() -> None:
    first, _, third = on_ranks(3, left_alone, dying=(1,))
    for text, elapsed in (first, third):
        assert "failed while moving, layers " in text
        assert elapsed < 6


def unmade(rank: int) -> None:
    here = Placement.from_partition(Partition(4, 2))
    weights = torch.zeros(1, 2, 3)

    def refused(
        error: type[Exception], match: str, placement: Any = here, given: Any = weights, **options: Any
    ) -> None:
        with pytest.raises(error, match=match):
            Balancer(placement, given, timeout=20, **options)

    refused(TypeError, "placement must be a Placement", 5)
    refused(ValueError, "group has 2 ranks, expected 3 as the placement has", Placement.from_partition(Partition(4, 3)))
    refused(ValueError, "weights have 3 local slots, expected 2", given=torch.zeros(1, 3, 3))
    refused(IndexError, r"planner_rank=2 is out of range, expected 0\.\.2", planner_rank=2)
    refused(ValueError, "interval=0 is out of range", interval=0)
    refused(ValueError, "layers_per_step=0 is out of range", layers_per_step=0)
    refused(ValueError, r"balanced_enough=1.5 is out of range, expected 0.0\.\.=1.0", balanced_enough=1.5)
    refused(TypeError, "planning must be a Planning or a function", planning=5)
    refused(TypeError, "cost must be a MovingCost", cost=5)
    refused(ValueError, "max_staged=-1 is out of range", max_staged=-1)
    refused(ValueError, "max_node_transfers=0 is out of range", max_node_transfers=0)
    refused(ValueError, "on_error=`ignore` is unknown, expected one of `raise`, `report`", on_error="ignore")
    refused(ValueError, r"^on_error=`x{40}\.\.\.` is unknown", on_error="x" * 10**6)
    refused(TypeError, "on_error must be a str, got `list`", on_error=["raise"])
    refused(TypeError, "verify must be a bool, got `int`", verify=1)
    refused(TypeError, "control_group must be a torch.distributed.ProcessGroup, got `str`", control_group="gloo")
    refused(TypeError, "tables must be a sequence of tables, got `dict`", tables={})
    refused(ValueError, "tables has more than 65536 tables, expected fewer", tables=itertools.repeat(None))
    refused(ValueError, "planning_timeout=10+... is out of range, expected more than 0", planning_timeout=10**400)
    refused(
        ValueError,
        "placement differs",
        here if rank else Placement.from_physical_to_logical([3, 1, 2, 0], 4, Topology(2)),
    )


def test_a_plan_costs_what_the_steps_take_that_carry_it_out_and_not_what_it_would_take_at_once() -> None:
    topology = Topology(4)
    old, new = (rebalance(skewed(hot), 12, topology) for hot in (3, 0))
    loads = skewed(0)
    layers = differing(old, new)
    assert len(layers) == LAYERS
    costs = {}
    for layers_per_step in (1, 3, LAYERS):
        moving = Moving(layers_per_step, None, None, (10, 20, 30, 40))
        parts = moving.plans(old, new)
        assert tuple(layer for part in parts for layer in part.layers) == layers
        here, expected = old.physical_to_logical(), 0
        for part in parts:
            # As the balancer does it: all other layers as they are.
            table = here.clone()
            table[list(part.layers)] = new.physical_to_logical()[list(part.layers)]
            before, after = (Placement.from_physical_to_logical(each, EXPERTS, topology) for each in (here, table))
            plan = plan_migration(before, after)
            assert plan.num_batches == part.migration.num_batches
            sent, received = plan.traffic((10, 20, 30, 40))
            expected += int(sent.maximum(received).amax(dim=1).sum())
            here = table
        costs[layers_per_step] = sum(moving.most_bytes(part) for part in parts)
        assert costs[layers_per_step] == expected
        # The cost that is just not paid is that of all steps.
        for bytes_per_second, is_worth_it in ((expected * 0.99, False), (expected * 1.01, True)):
            gain = 1 - sum(part.largest for part in new.report(loads)) / sum(part.largest for part in old.report(loads))
            cost = MovingCost(step_seconds=1 / gain, num_steps=1, bytes_per_second=bytes_per_second)
            proposal = Judge(lambda *_: new, 1.0, cost, moving).propose(loads.unsqueeze(0), old)
            assert (proposal.placement == new) == is_worth_it, proposal.decision
    assert len(set(costs.values())) > 1, "all at once costs as much: there is nothing to tell apart"


def test_options_of_a_plan_are_refused_when_they_are_given() -> None:
    for error, match, options in (
        (ValueError, "policy=`best` is unknown", {"policy": "best"}),
        (ValueError, "num_groups=0 is out of range", {"num_groups": 0}),
        (TypeError, "num_groups must be an int", {"num_groups": 1.5}),
        (ValueError, "max_moves=-1 is out of range", {"max_moves": -1}),
        (ValueError, "min_gain", {"min_gain": -1.0}),
        (ValueError, "max_off_node=2", {"max_off_node": 2}),
        (ValueError, "num_threads=0", {"num_threads": 0}),
        (ValueError, r"num_threads=8192 is out of range, expected 1\.\.=4096", {"num_threads": 8192}),
        (ValueError, "policy `deepseek` needs no max_moves", {"policy": "deepseek", "max_moves": 1}),
    ):
        with pytest.raises(error, match=match):
            Planning(**options)
    Planning("deepseek", num_groups=8)
    Planning(num_groups=8, max_moves=3, min_gain=0.01, max_off_node=0.2, num_threads=2)
    with pytest.raises(TypeError, match="placement must be a Placement, got `str`"):
        Planning()(torch.ones(1, 1, 4), "p")  # type: ignore[arg-type]


def test_a_planning_keeps_numbers_and_not_the_objects_that_said_them() -> None:
    given: dict[str, Any] = {"max_moves": np.array(3), "min_gain": np.float64(0.5), "num_threads": np.int8(2)}
    planning = Planning(**given)
    assert planning == Planning(max_moves=3, min_gain=0.5, num_threads=2)
    assert [type(value) for value in (planning.max_moves, planning.min_gain, planning.num_threads)] == [int, float, int]
    assert hash(planning) == hash(Planning(max_moves=3, min_gain=0.5, num_threads=2))


@pytest.mark.parametrize("name", ["step_seconds", "num_steps", "bytes_per_second"])
def test_what_moving_costs_is_a_finite_float_above_nothing(name: str) -> None:
    usual: dict[str, Any] = {"step_seconds": 1.0, "num_steps": 1.0, "bytes_per_second": 1.0}
    for wrong in (0, -1.5, float("inf"), float("nan"), 10**400, -(10**400)):
        with pytest.raises(ValueError, match=rf"^{name}=.* is out of range, expected a finite number more than 0$"):
            MovingCost(**{**usual, name: wrong})
    for other in (True, "1", None, [1.0]):
        with pytest.raises(TypeError, match=rf"^{name} must be a number, got `{type(other).__name__}`$"):
            MovingCost(**{**usual, name: other})
    assert type(getattr(MovingCost(**{**usual, name: np.float64(2)}), name)) is float


def test_arguments_that_do_not_fit_are_refused() -> None:
    on_ranks(2, unmade)
    with pytest.raises(ValueError, match="step_seconds=0 is out of range"):
        MovingCost(0, 1, 1)
    with pytest.raises(TypeError, match="num_steps must be a number, got `str`"):
        MovingCost(1, "1", 1)  # type: ignore[arg-type]
