"""The model's account of the field's algorithm at its edges: the range of float32, packs of one, and nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from expert_placement_spec.balance.deepseek import contents, pack, singles

ABOVE = math.nextafter(2.0**127, math.inf)
BELOW = math.nextafter(2.0**-100, 0.0)


@pytest.mark.parametrize(
    ("loads", "scale"),
    [
        ([1.0, 0.5, 3.0], 0),
        ([0.0, 0.0], 0),
        ([2.0**127], 0),
        ([2.0**126, 2.0**126], 0),
        ([ABOVE], -128),
        ([2.0**126, 2.0**126, 2.0**125], -127),
        ([1e300, 1.0], -997),
        ([2.0**-100, 2.0**-140], 0),
        ([BELOW, 2.0**-101], 100),
        ([2.0**-900], 899),
        ([2.0**-998], 997),
        ([2.0**-1001, 2.0**-1002], 1000),
        ([2.0**-1000], 999),
        ([2.0**-1074], 1000),
    ],
)
def test_loads_are_scaled_by_a_power_of_two_where_float32_is_too_narrow(loads: list[float], scale: int) -> None:
    found = singles(loads)
    assert [float(one) for one in found] == [float(np.float32(math.ldexp(load, scale))) for load in loads]
    assert {type(one) for one in found} == {np.float32}


def test_packs_of_one_are_in_the_order_of_the_items() -> None:
    assert pack([np.float32(load) for load in (1.0, 3.0, 2.0)], 3) == [(0, 0), (1, 0), (2, 0)]


def test_each_item_goes_to_the_lightest_pack_with_room_the_heaviest_first() -> None:
    assert pack([np.float32(load) for load in (1.0, 4.0, 2.0, 3.0)], 2) == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert contents([(0, 1), (0, 0), (1, 1), (1, 0)]) == [[1, 0], [3, 2]]


def test_nothing_is_packed_into_nothing() -> None:
    assert pack([], 0) == []
    assert pack([], 2) == []
    assert contents([]) == []
