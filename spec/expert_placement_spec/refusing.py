"""What is asked to see that it is refused, and whether it is. It needs nothing, so that solvers can run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_WRONG_ID = 8
"""E and R up to which more is asked than the neighbours of a range."""


def wrong_ids(end: int, *, is_small: bool) -> tuple[int, ...]:
    """Ids that are not in 0..end: its neighbours and, of small partitions, what lists or narrower ints would wrap."""
    wrapping = (-2, -end - 1, end + 1, 2**31, 2**32, 2**63 - 1) if is_small else ()
    return (-1, end, *wrapping)


def wrong_partitions(num_experts: int, num_ranks: int, strategy: str) -> list[tuple[int, int, str]]:
    """Partitions that there are not, each for one argument that is out of range, also by more than 32 bits."""
    experts = (-1, -num_experts - 1, -(2**31), 2**31, 2**32 + num_experts)
    ranks = (0, -num_ranks, 2**31, 2**32 + num_ranks)
    strategies = ("", strategy.upper(), f"{strategy} ", "contiguous")
    return [
        *((wrong, num_ranks, strategy) for wrong in experts),
        *((num_experts, wrong, strategy) for wrong in ranks),
        *((num_experts, num_ranks, wrong) for wrong in strategies),
    ]


def refuses_wrong_partitions(make: Callable[..., Any], num_experts: int, num_ranks: int, strategy: str) -> bool:
    """Whether wrong partitions are errors when they are made, or at the latest when they are asked for a count."""
    wrong = wrong_partitions(num_experts, num_ranks, strategy)
    return all(refuses(ValueError, lambda one=one: make(*one).count(0)) for one in wrong)


def refuses_wrong_shared_experts(partition: Any) -> bool:
    """Whether a negative number of shared experts, and one that nothing has room for, are errors."""
    asked = (partition.expert_map_with_shared, partition.expert_mask)
    # Half of 2**63 is 0 in 32 bits, and what takes it as it is can not make so long a map.
    wrong = (-1, -(2**31), 2**62)
    return all(refuses(ValueError, query, 0, number) for query in asked for number in wrong)


def has_stated_defaults(make: Callable[..., Any], num_experts: int, num_ranks: int) -> bool:
    """Whether a partition is linear without other word, and a mask without shared experts, if they may be left out."""
    linear = make(num_experts, num_ranks, "linear")

    def without_strategy(rank: int) -> Any:
        return make(num_experts, num_ranks).expert_mask(rank, 0)

    for rank in {0, num_ranks - 1}:
        for ask in (without_strategy, linear.expert_mask):
            try:
                answer = list(ask(rank))
            except TypeError:
                # Who has to be told everything says nothing wrong.
                continue
            if answer != list(linear.expert_mask(rank, 0)):
                return False
    return True


def tells_divisors(partition: Any, num_experts: int, num_ranks: int) -> bool:
    """Whether the listed numbers of ranks are those up to R that divide E, and n the least for R to divide E + n."""
    divisors = [ranks for ranks in range(1, num_ranks + 1) if num_experts % ranks == 0]
    redundant = next(number for number in range(num_ranks) if (num_experts + number) % num_ranks == 0)
    listed = list(partition.legal_ranks(num_experts, num_ranks))
    return listed == divisors and partition.min_redundant_experts == redundant


def refuses(error: type[Exception], query: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a query raises an error of this type, and not something else."""
    try:
        query(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        # By its type, since an object may say that it is of another class.
        return issubclass(type(raised), error)
    return False
