"""The plans that the crate's record names are those that Python gets, on every CPython. It needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from expert_placement import Topology, rebalance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement import Placement

RECORD = Path(__file__).parents[1] / "rust/expert-placement/tests/it/recorded/answers.txt"
CASES = [(32, 1, 288, 256, 1), (64, 1, 320, 256, 1), (144, 1, 288, 256, 1), (32, 4, 320, 256, 8), (7, 1, 70, 64, 1)]
"""Ranks, nodes, slots, experts and groups, as in the record's source."""


class Numbers:
    """The numbers of the record's source: they look random and are the same everywhere."""

    def __init__(self) -> None:
        self.state = 1

    def heavy(self) -> float:
        self.state = (self.state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        return float(self.state >> 44) ** 2

    def loads(self, windows: int, layers: int, experts: int) -> list[list[list[float]]]:
        return [[[self.heavy() for _ in range(experts)] for _ in range(layers)] for _ in range(windows)]


def plans(numbers: Numbers, case: tuple[int, int, int, int, int], num_threads: int) -> dict[str, Placement]:
    """The plans of a case by what the record calls them."""
    ranks, nodes, slots, experts, groups = case
    even = Topology(ranks, nodes)

    def plan(loads: list[list[list[float]]], topology: Topology = even, **options: Any) -> Placement:
        return rebalance(loads, slots, topology, num_groups=groups, num_threads=num_threads, **options)

    loads = numbers.loads(1, 6, experts)
    first = plan(loads)
    made = {"balanced": first, "windows": plan(numbers.loads(3, 2, experts))}
    later = numbers.loads(1, 6, experts)
    made["again"] = plan(later, previous=first)
    made["twenty moves"] = plan(later, previous=first, max_moves=20)
    speeds = [1.25 if rank % 3 else 0.75 for rank in range(ranks)]
    active = [rank != 1 or ranks < 8 for rank in range(ranks)]
    made["uneven ranks"] = plan(loads, Topology(ranks, nodes, speeds=speeds, active=active))
    if slots % ranks == 0:
        made["deepseek"] = plan(loads, policy="deepseek")
    return made


def lines(num_threads: int) -> Iterator[str]:
    """The record's lines that are digests of plans."""
    numbers = Numbers()
    for case in CASES:
        for what, placement in plans(numbers, case, num_threads).items():
            yield f"{case[0]} ranks, {case[2]} slots, {what} {placement.digest()}"


@pytest.mark.parametrize("num_threads", [1, 2])
def test_plans_are_those_recorded(num_threads: int) -> None:
    """Domain: the large plans of the record, with 1 and 2 threads."""
    recorded = [line for line in RECORD.read_text(encoding="utf-8").splitlines() if line[0].isdigit()]
    digests = [line for line in recorded if "the way there" not in line]
    assert len(digests) == 6 * len(CASES)
    assert list(lines(num_threads)) == digests
