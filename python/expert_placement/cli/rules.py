"""The partitions that `show` sets side by side: the strategies, and the rule that the linear one replaced."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

from expert_placement import STRATEGIES, Partition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OLD_RULE", "OldRule", "Row", "Rule", "every_strategy", "rows"]

# How the old rule is called wherever it stands beside the strategies.
OLD_RULE = "old rule (rest on the last rank)"


class Rule(Protocol):
    """What `show` asks of a partition."""

    @property
    def num_experts(self) -> int:
        """E."""

    @property
    def num_ranks(self) -> int:
        """R."""

    @property
    def is_contiguous(self) -> bool:
        """Whether every rank's experts are consecutive ids."""

    def count(self, rank: int, /) -> int:
        """How many experts a rank owns."""

    def start(self, rank: int, /) -> int:
        """The first expert of a rank."""

    def experts(self, rank: int, /) -> range:
        """The experts of a rank, in local order."""

    def owner(self, expert: int, /) -> int:
        """The rank that owns an expert."""


@dataclass(frozen=True, slots=True)
class OldRule:
    """E // R experts for every rank, and the rest for the last one too.

    Engines dealt experts in this way before the balanced remainder. It is no strategy of this package, and stands here
    for comparison only.
    """

    num_experts: int
    num_ranks: int

    @property
    def is_contiguous(self) -> bool:
        """Always."""
        return True

    def count(self, rank: int, /) -> int:
        """How many experts the rank owned."""
        return len(self.experts(rank))

    def start(self, rank: int, /) -> int:
        """The first expert of the rank."""
        return rank * (self.num_experts // self.num_ranks)

    def experts(self, rank: int, /) -> range:
        """The experts of the rank, in local order."""
        return range(self.start(rank), self.num_experts if rank == self.num_ranks - 1 else self.start(rank + 1))

    def owner(self, expert: int, /) -> int:
        """The rank that owned the expert."""
        share = self.num_experts // self.num_ranks
        return min(expert // share, self.num_ranks - 1) if share else self.num_ranks - 1


def every_strategy(num_experts: int, num_ranks: int) -> dict[str, Rule]:
    """The partition by each strategy, under its name."""
    return {strategy: Partition(num_experts, num_ranks, strategy) for strategy in STRATEGIES}


@dataclass(frozen=True, slots=True)
class Row:
    """Ranks `first..=last`, which one row of a table stands for. `omitted` rows hold ranks of differing counts."""

    first: int
    last: int
    omitted: bool = False

    @property
    def num_ranks(self) -> int:
        """How many ranks the row stands for."""
        return self.last - self.first + 1


def rows(rules: Sequence[Rule], limit: int) -> list[Row]:
    """The ranks of partitions of one size as at most `limit + 1` rows, for a limit of 2 or more.

    One row a rank where that fits. Otherwise consecutive ranks whose counts are equal under every rule share a row, and
    where even that is too long, the middle is one omitted row.
    """
    num_ranks = rules[0].num_ranks
    if num_ranks <= limit:
        return [Row(rank, rank) for rank in range(num_ranks)]
    head: list[Row] = []
    while len(head) < limit and (first := head[-1].last + 1 if head else 0) < num_ranks:
        head.append(Row(first, _last_of_run(rules, first)))
    if head[-1].last == num_ranks - 1:
        return head
    del head[(limit + 1) // 2 :]
    tail: list[Row] = []
    while len(tail) < limit // 2:
        last = tail[-1].first - 1 if tail else num_ranks - 1
        tail.append(Row(_first_of_run(rules, last), last))
    return [*head, Row(head[-1].last + 1, tail[-1].first - 1, omitted=True), *reversed(tail)]


def _last_of_run(rules: Sequence[Rule], first: int) -> int:
    def breaks(last: int) -> bool:
        return not _all_equal(rules, first, last)

    return first + bisect_left(range(first + 1, rules[0].num_ranks), True, key=breaks)


def _first_of_run(rules: Sequence[Rule], last: int) -> int:
    def holds(first: int) -> bool:
        return _all_equal(rules, first, last)

    return bisect_left(range(last), True, key=holds)


def _all_equal(rules: Sequence[Rule], first: int, last: int) -> bool:
    """Whether all ranks in `first..=last` own equally many experts, under each rule, in constant time.

    A contiguous rule uses two counts at most: c ranks of the smaller and none of the larger is the only way to reach c
    times the smaller, and the other way round. The counts of round robin never rise, so that its ends speak for all.
    """
    return all(
        rule.count(first) == rule.count(last)
        and (not rule.is_contiguous or rule.start(last) - rule.start(first) == rule.count(first) * (last - first))
        for rule in rules
    )
