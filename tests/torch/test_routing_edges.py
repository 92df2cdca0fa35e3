"""Routing at its edges: where there is no Triton, where there are more slots than one histogram has bins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="this is the torch implementation")

import torch
from expert_placement.torch import RoutingTables, route, warm_up
from expert_placement.torch.routing import operators

from tests.torch.test_routing import ids_of, placement_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = placement_of(8, 12, 2)


@pytest.fixture
def looked_up_anew() -> Iterator[None]:
    operators.kernels.cache_clear()
    yield
    operators.kernels.cache_clear()


@pytest.mark.usefixtures("looked_up_anew")
def test_without_triton_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton.language", None)
    assert operators.kernels() is None
    with pytest.raises(ValueError, match=r"^implementation=`triton` needs Triton 3\.4 or later, which is not here$"):
        route(ids_of(4, 2, 8), RoutingTables(PLAN), layer=0, implementation="triton")


@pytest.mark.usefixtures("looked_up_anew")
def test_an_older_triton_has_no_kernels_for_this(monkeypatch: pytest.MonkeyPatch) -> None:
    language = pytest.importorskip("triton.language")
    monkeypatch.setattr(language, "histogram", lambda values, num_bins: None)
    assert operators.kernels() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here, and not interpreted")
@pytest.mark.parametrize("tokens", [3, 300])
def test_a_load_of_more_slots_than_a_histogram_has_bins_is_counted(tokens: int) -> None:
    """Domain: 300 experts in 330 slots, which take 256 bins and 128 more."""
    plan = placement_of(300, 330, 3)
    loads = [torch.zeros(330, dtype=torch.int64) for _ in range(2)]
    ids = ids_of(tokens, 4, 300)
    for load, implementation in zip(loads, ("triton", "rust"), strict=True):
        route(ids, RoutingTables(plan), layer=1, load=load, implementation=implementation)
    assert torch.equal(*loads)
    assert loads[0][256:].sum() > 0


def test_tables_of_one_sender_say_whose_they_are() -> None:
    assert RoutingTables(PLAN).sender is None
    assert RoutingTables.for_sender(PLAN, 1).sender == 1


def test_only_tables_are_warmed_up() -> None:
    with pytest.raises(TypeError, match=r"^tables must be a RoutingTables, got `int`$"):
        warm_up(3, 1, 1)  # type: ignore[arg-type]
