"""What SPEC.md's table says of the laws: those that are named leave no choice of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pytest
from expert_placement_spec import reference
from expert_placement_spec.evidence import BY_HAND
from expert_placement_spec.invariants import INVARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_COUNTS = ("starts_follow_the_rule", "contiguous", "counts_total_num_experts")
OF_INDICES = ("owner_inverts",)


@dataclass
class Answers:
    """Any answers at all, as the laws look at them."""

    num_experts: int
    num_ranks: int
    strategy: str
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    owners: tuple[int, ...] = ()
    local_indices: tuple[int, ...] = ()

    @property
    def stride(self) -> int:
        return self.num_ranks if self.strategy == "round_robin" else 1

    def start(self, rank: int) -> int:
        return self.starts[rank]

    def count(self, rank: int) -> int:
        return self.counts[rank]

    def owner(self, expert: int) -> int:
        return self.owners[expert]

    def local_index(self, expert: int) -> int:
        return self.local_indices[expert]

    def sum_of_counts(self) -> int:
        return sum(self.counts)


def obeys(p: Answers, names: tuple[str, ...]) -> bool:
    ranges = {"r": range(p.num_ranks), "e": range(p.num_experts)}
    for law in (INVARIANTS[name] for name in names):
        if p.strategy not in law.strategies:
            continue
        for values in product(*(ranges[quantifier] for quantifier in law.quantifiers)):
            if law.requires is not None and not law.requires(p, *values):
                continue
            if not law.predicate(p, *values):
                return False
    return True


def obedient(experts: int, ranks: int, strategy: str, *, without: str = "") -> Iterator[Answers]:
    """All answers that obey the laws, but for the one that is left out."""

    def laws(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name != without)

    some, all_starts = range(experts + 2), range(max(experts, ranks) + 1)
    for starts, counts in product(product(all_starts, repeat=ranks), product(some, repeat=ranks)):
        made = Answers(experts, ranks, strategy, starts, counts)
        if not obeys(made, laws(OF_COUNTS)):
            continue
        for owners, indices in product(product(range(ranks), repeat=experts), product(some, repeat=experts)):
            made.owners, made.local_indices = owners, indices
            if obeys(made, laws(OF_INDICES)):
                yield Answers(experts, ranks, strategy, starts, counts, owners, indices)


@pytest.mark.parametrize("strategy", reference.STRATEGIES)
def test_the_named_laws_leave_the_model_alone(strategy: str) -> None:
    """Domain: E in 0..=3 and R in 1..=3, and all answers of up to E + 1."""
    assert all(f"`{name}`" in BY_HAND[2] for name in (*OF_COUNTS, *OF_INDICES))
    for experts, ranks in product(range(4), range(1, 4)):
        (only,) = obedient(experts, ranks, strategy)
        model = reference.Partition(experts, ranks, strategy)
        assert list(only.counts) == model.counts()
        assert list(only.starts) == model.starts()
        assert list(only.owners) == model.owners()
        assert list(only.local_indices) == model.local_indices()


@pytest.mark.parametrize("law", [*OF_COUNTS, *OF_INDICES])
def test_without_any_of_them_there_is_a_choice(law: str) -> None:
    """Domain: E in 0..=2 and R in 1..=3, all strategies: some case has two answers that obey the others."""
    shapes = product(range(3), range(1, 4), reference.STRATEGIES)
    assert any(sum(1 for _ in obedient(*shape, without=law)) > 1 for shape in shapes)
