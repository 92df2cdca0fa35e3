"""How many slots a balance takes: against plans made one by one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from expert_placement import Capacity, Topology, capacity_curve, least_slots, rebalance

LOADS = np.exp(np.random.default_rng(5).normal(0, 0.9, (4, 32)))


def test_a_curve_says_what_plans_say() -> None:
    slots = [40, 32, 33, 64]
    seen: list[Capacity] = []
    curve = capacity_curve(LOADS, slots, Topology(8), looked=seen.append)
    assert seen == curve
    for point, number in zip(curve, slots, strict=True):
        plan = rebalance(LOADS, number, Topology(8))
        reports = plan.report(LOADS)
        most = sum(row.mean for row in reports) / sum(row.lower_bound for row in reports)
        assert point[:2] == (number, plan.balancedness(LOADS))
        assert point.most == pytest.approx(min(most, 1), rel=1e-12)
        assert point.balancedness <= point.most


@pytest.mark.parametrize("wanted", [0.0, 0.6, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("step", [None, 1, 5])
def test_the_least_slots_are_the_first_of_a_curve_that_are_enough(wanted: float, step: int | None) -> None:
    by = 8 if step is None else step
    curve = capacity_curve(LOADS, range(-(-32 // by) * by, 65, by), Topology(8))
    assert least_slots(LOADS, wanted, Topology(8), step=step) == next(
        point for point in curve if point.balancedness >= wanted
    )


def test_dead_ranks_need_slots_too() -> None:
    topology = Topology(4, active=[True, True, True, False])
    found = least_slots(np.ones((1, 6)), 0.0, topology)
    assert found.num_slots == 8
    assert least_slots(np.ones((1, 7)), 0.0, topology).num_slots == 12
    # Three slots are two on the first rank, and one on the dead one.
    assert least_slots(np.ones((1, 2)), 0.0, Topology(2, active=[True, False]), step=1).num_slots == 3


@pytest.mark.parametrize("experts", range(1, 12))
@pytest.mark.parametrize("active", [[True], [True, False], [False, True, True], [False, False, False, True]])
def test_too_few_slots_are_refused_with_a_number_that_would_do(experts: int, active: list[bool]) -> None:
    """Domain: up to 11 experts on up to 4 ranks, one of them in service at least."""
    topology, loads = Topology(len(active), active=active), np.ones((1, experts))
    for slots in range(400):
        try:
            rebalance(loads, slots, topology)
        except ValueError as error:
            enough = int(re.search(r": num_slots=(\d+) would do$", str(error))[1])  # type: ignore[index]
            assert enough > slots
        else:
            break
    assert least_slots(loads, 0.0, topology, step=1).num_slots == slots
    least = least_slots(loads, 0.0, topology).num_slots
    assert least - len(active) < slots <= least
    if experts > 1:
        assert enough == least


def test_the_least_slots_for_one_rank_of_many_in_service_are_soon_found() -> None:
    # One by one there would be two thousand million numbers of slots to look at.
    topology = Topology(65_535, active=[rank == 7 for rank in range(65_535)])
    with pytest.raises(ValueError, match=r"num_slots=4294836226 is out of range"):
        least_slots(np.ones((1, 65_536)), 0.0, topology, step=1)
    with pytest.raises(ValueError, match=r"expected at least 3: num_slots=196617 would do"):
        rebalance(np.ones((1, 3)), 4, Topology(65_539, active=[rank == 7 for rank in range(65_539)]))


def test_what_can_not_be_reached_is_refused_with_the_best() -> None:
    one = np.array([[1000.0, 1, 1, 1]])
    with pytest.raises(ValueError, match=r"balancedness=0.9 is out of reach with up to max_slots=4 slots, expected at"):
        least_slots(one, 0.9, Topology(4), max_slots=4)
    for options, message in (
        ({"max_slots": 3}, "max_slots=3 is out of range, expected 4..="),
        ({"step": 0}, "step=0 is out of range, expected 1..="),
        ({"balancedness": 1.5}, "balancedness=1.5 is out of range, expected a number in 0.0..=1.0"),
        ({"policy": "best"}, "policy=`best` is unknown"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            least_slots(one, **{"balancedness": 0.9, "topology": Topology(4), **options})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_slots=3 leaves room for 3 experts"):
        capacity_curve(one, [4, 3], Topology(4))


def test_what_are_no_numbers_of_slots_or_speeds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_slots is empty, expected one number of slots or more$"):
        capacity_curve([[1, 2]], [], Topology(2))
    with pytest.raises(TypeError, match=r"^num_slots must be an iterable of ints, got `dict`$"):
        capacity_curve([[1, 2]], {2: 1}, Topology(2))
    with pytest.raises(TypeError, match=r"^speeds must be a sequence of numbers, got `dict`$"):
        Topology(2, speeds={1: 2, 3: 4})
