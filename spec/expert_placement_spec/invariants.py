"""The named invariants of the partition; each stands under its own name in SPEC.md.

An invariant is a function whose parameters are its quantifiers: `p` is every partition, `r` and `s` every rank, `e`
every expert, `i` every local index of rank `r`, `h` every shared expert. Its docstring is the law in one sentence. What
`p` offers is described by `view.View`; whoever checks binds it to an implementation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expert_placement_spec.fresh import FEW
from expert_placement_spec.logic import choose, divides
from expert_placement_spec.reference import CONTIGUOUS, MAX, STRATEGIES

if TYPE_CHECKING:
    from expert_placement_spec.view import View

Predicate = Callable[..., Any]

QUANTIFIERS = ("r", "s", "e", "i", "h")


@dataclass(frozen=True)
class Invariant:
    """A law: its name, its sentence, the predicate, and where it applies."""

    name: str
    sentence: str
    predicate: Predicate
    quantifiers: tuple[str, ...]
    requires: Predicate | None
    strategies: tuple[str, ...]
    subject: str
    """What is spoken of: `rule`, `elementwise`, `tables`, `scalars`, `maps`, `stacked`, `lists`, `offsets`, `errors`,
    `arguments`, `shared`, `fresh`, `uniform`, `defaults`, `answers` or `formulas`."""

    @property
    def is_provable(self) -> bool:
        """Whether the law speaks of the formulas alone, so that a solver can read it."""
        return self.subject in ("rule", "maps", "formulas") and self.name not in _CONCRETE


INVARIANTS: dict[str, Invariant] = {}

_CONCRETE: set[str] = set()


def invariant(
    *,
    subject: str = "rule",
    strategies: tuple[str, ...] = STRATEGIES,
    requires: Predicate | None = None,
    concrete: bool = False,
) -> Callable[[Predicate], Predicate]:
    """Registers a predicate under its function's name.

    Args:
        subject: what the law speaks of; a checker that cannot observe it says so.
        strategies: the strategies that the law holds for.
        requires: the premise, a predicate with the same parameters. Points that fail it are not evaluated.
        concrete: the law needs real arrays (a dtype, a length), so that it is no theorem.
    """

    def register(predicate: Predicate) -> Predicate:
        parameters = list(inspect.signature(predicate).parameters)
        if parameters[:1] != ["p"] or not set(parameters[1:]) <= set(QUANTIFIERS):
            raise TypeError(f"the parameters of {predicate.__name__} must be p and some of {', '.join(QUANTIFIERS)}")
        sentence = inspect.cleandoc(predicate.__doc__ or "")
        if not sentence:
            raise TypeError(f"{predicate.__name__} needs a docstring that states it")
        if concrete:
            _CONCRETE.add(predicate.__name__)
        INVARIANTS[predicate.__name__] = Invariant(
            predicate.__name__, sentence, predicate, tuple(parameters[1:]), requires, strategies, subject
        )
        return predicate

    return register


@invariant(strategies=CONTIGUOUS)
def ends_meet(p: View) -> Any:
    """The first rank starts at expert 0, and the last rank ends with expert E - 1."""
    last = p.num_ranks - 1
    return (p.start(0 * last) == 0) & (p.start(last) + p.count(last) == p.num_experts)


@invariant(strategies=CONTIGUOUS, requires=lambda p, r: r + 1 < p.num_ranks)
def contiguous(p: View, r: Any) -> Any:
    """Each rank starts where the one before it ends."""
    return p.start(r + 1) == p.start(r) + p.count(r)


@invariant()
def start_in_range(p: View, r: Any) -> Any:
    """No start is negative, and none lies beyond the last expert or, for round robin, the last rank."""
    end = p.num_ranks - 1 if p.strategy == "round_robin" else p.num_experts
    return (p.start(r) >= 0) & (p.start(r) <= end)


@invariant()
def starts_follow_the_rule(p: View, r: Any) -> Any:
    """The start is r * (E // R) + min(r, E % R), or r for round robin, or the floor of r * E / R for proportional."""
    if p.strategy == "linear":
        remainder = p.num_experts % p.num_ranks
        return p.start(r) == r * (p.num_experts // p.num_ranks) + choose(r < remainder, r, remainder)
    if p.strategy == "round_robin":
        return p.start(r) == r
    # The floor by what it means, not by the division that the formulas use.
    return (p.start(r) * p.num_ranks <= r * p.num_experts) & (r * p.num_experts < (p.start(r) + 1) * p.num_ranks)


@invariant()
def counts_total_num_experts(p: View) -> Any:
    """The counts of all ranks add up to E."""
    return p.sum_of_counts() == p.num_experts


@invariant()
def balanced_within_one(p: View, r: Any, s: Any) -> Any:
    """No rank owns more than one expert more than another."""
    return p.count(r) <= p.count(s) + 1


@invariant(strategies=("linear", "round_robin"), requires=lambda p, r: r + 1 < p.num_ranks)
def larger_shares_first(p: View, r: Any) -> Any:
    """A rank owns at least as many experts as the next one."""
    return p.count(r) >= p.count(r + 1)


@invariant(requires=lambda p, r: (p.num_experts % p.num_ranks == 0) & (r >= 0))
def equal_when_divisible(p: View, r: Any) -> Any:
    """Where R divides E, every rank owns exactly E // R experts."""
    return p.count(r) == p.num_experts // p.num_ranks


@invariant()
def smallest_possible_maximum(p: View, r: Any) -> Any:
    """No rank owns more than c, the ceiling of E / R: c on every rank are enough for E experts, and c - 1 are not."""
    most = (p.num_experts + p.num_ranks - 1) // p.num_ranks
    is_least = (most * p.num_ranks >= p.num_experts) & ((most - 1) * p.num_ranks < p.num_experts)
    return (p.count(r) <= most) & is_least


@invariant()
def largest_possible_minimum(p: View, r: Any) -> Any:
    """No rank owns fewer than f, the floor of E / R, and f + 1 on every rank are more than E experts."""
    fewest = p.num_experts // p.num_ranks
    return (p.count(r) >= fewest) & ((fewest + 1) * p.num_ranks > p.num_experts)


@invariant()
def empty_only_when_scarce(p: View, r: Any) -> Any:
    """A rank is empty only where experts are fewer than ranks, and then no rank owns two."""
    scarce = p.num_experts < p.num_ranks
    return choose(scarce, p.count(r), 1) <= choose(scarce, 1, p.count(r))


@invariant()
def owner_in_range(p: View, e: Any) -> Any:
    """Every expert's owner is a rank."""
    return (p.owner(e) >= 0) & (p.owner(e) < p.num_ranks)


@invariant()
def owner_inverts(p: View, e: Any) -> Any:
    """An expert stands at its local index among the experts of its owner."""
    rank, local = p.owner(e), p.local_index(e)
    return (local >= 0) & (local < p.count(rank)) & (p.start(rank) + local * p.stride == e)


@invariant()
def local_index_inverts(p: View, r: Any, i: Any) -> Any:
    """The expert at local index i of rank r is owned by r and has local index i."""
    expert = p.start(r) + i * p.stride
    return (p.owner(expert) == r) & (p.local_index(expert) == i)


@invariant()
def covers_exactly_once(p: View, r: Any, e: Any) -> Any:
    """A rank's range holds an expert exactly where that rank is the expert's owner, so one rank holds each."""
    distance = e - p.start(r)
    held = (distance >= 0) & (distance < p.count(r) * p.stride) & divides(p.stride, distance)
    return held == (p.owner(e) == r)


@invariant(requires=lambda p, e: e + p.stride < p.num_experts)
def order_preserved(p: View, e: Any) -> Any:
    """The next expert of the same rank has the next local index, and the next rank's first one has 0."""
    following = e + p.stride
    same = p.owner(following) == p.owner(e)
    return p.local_index(following) == choose(same, p.local_index(e) + 1, 0)


@invariant(strategies=("linear",))
def agrees_with_seed(p: View, r: Any) -> Any:
    """The count is E // R + (r < E % R), and the start r * (E // R) + min(r, E % R)."""
    base, remainder = p.num_experts // p.num_ranks, p.num_experts % p.num_ranks
    larger = r < remainder
    return (p.count(r) == base + choose(larger, 1, 0)) & (p.start(r) == r * base + choose(larger, r, remainder))


@invariant(strategies=("linear", "round_robin"), requires=lambda p, r: (p.num_experts < MAX) & (r >= 0))
def growth_changes_one_rank(p: View, r: Any) -> Any:
    """With one expert more, rank E % R owns one more, and every other rank as many as before."""
    return p.grown().count(r) == p.count(r) + choose(r == p.num_experts % p.num_ranks, 1, 0)


@invariant(strategies=CONTIGUOUS, requires=lambda p, r: (p.num_experts < MAX) & (r >= 0))
def growth_moves_starts_by_at_most_one(p: View, r: Any) -> Any:
    """With one expert more, every start stays or moves by one."""
    moved = p.grown().start(r) - p.start(r)
    return (moved >= 0) & (moved <= 1)


@invariant(subject="formulas")
def no_intermediate_out_of_range(p: View, r: Any, e: Any) -> Any:
    """Every intermediate is at least 0 and fits uint32 (uint64 under the proportional strategy), each answer int32."""
    return p.intermediates_in_range(r, e)


@invariant(subject="offsets", strategies=CONTIGUOUS)
def offsets_are_prefix_sums(p: View, r: Any) -> Any:
    """The offsets are int32, begin with 0, end with E, and grow by each rank's count from its start."""
    ends = (p.offset(0 * r) == 0) & (p.offset(p.num_ranks + 0 * r) == p.num_experts)
    grows = (p.offset(r) == p.start(r)) & (p.offset(r + 1) == p.offset(r) + p.count(r))
    return ends & grows & p.offsets_are_int32


@invariant(subject="lists", requires=lambda p, r, i: p.list_length(r) == p.count(r))
def listed_in_local_order(p: View, r: Any, i: Any) -> Any:
    """The list of a rank's experts has at local index i the expert with that local index."""
    return p.listed(r, i) == p.start(r) + i * p.stride


@invariant(subject="lists")
def listed_completely(p: View, r: Any) -> Any:
    """The list of a rank's experts is int32 and as long as its count."""
    return (p.list_length(r) == p.count(r)) & p.lists_are_int32


@invariant(subject="maps")
def map_has_one_owner(p: View, r: Any, e: Any) -> Any:
    """A rank's map has an entry other than -1 exactly for the experts it owns, so one map does for each expert."""
    return (p.index_map(r, e) != -1) == (p.owner(e) == r)


@invariant(subject="maps")
def map_agrees_with_local_index(p: View, r: Any, e: Any) -> Any:
    """A rank's map holds the local index of each expert that it owns, and -1 elsewhere."""
    return p.index_map(r, e) == choose(p.owner(e) == r, p.local_index(e), -1)


@invariant(subject="maps")
def representations_agree(p: View, r: Any, e: Any) -> Any:
    """All four representations say the same of every routed expert."""
    entry = p.index_map(r, e)
    same = (p.index_map_with_shared(r, e) == entry) & (p.index_map_with_sentinel(r, e) == entry)
    return same & (p.mask(r, e) == choose(entry >= 0, 1, 0))


@invariant(subject="maps")
def shared_experts_follow(p: View, r: Any, h: Any) -> Any:
    """Every rank holds shared expert h in the local slot h after its routed experts, and the mask has 1 for it."""
    position = p.num_experts + h
    return (p.index_map_with_shared(r, position) == p.count(r) + h) & (p.mask(r, position) == 1)


@invariant(subject="maps")
def sentinels_close(p: View, r: Any) -> Any:
    """The mask ends with 0, and the index map of length E + 1 with -1."""
    trailing = p.mask(r, p.num_experts + p.num_shared_experts)
    return (trailing == 0) & (p.index_map_with_sentinel(r, p.num_experts) == -1)


@invariant(subject="maps", concrete=True)
def maps_are_int32_of_stated_length(p: View, r: Any) -> Any:
    """The representations are int32 of length E, E + S, E + S + 1 and E + 1."""
    total = p.num_experts + p.num_shared_experts
    lengths = (p.map_length("index_map", r) == p.num_experts) & (p.map_length("index_map_with_shared", r) == total)
    lengths = lengths & (p.map_length("mask", r) == total + 1)
    return lengths & (p.map_length("index_map_with_sentinel", r) == p.num_experts + 1) & p.maps_are_int32


@invariant(subject="stacked")
def map_asked_alone_agrees(p: View) -> Any:
    """Where the maps of all ranks are had at once, the one of a certain rank asked by itself is its row among them."""
    return p.rows_match()


@invariant(subject="tables")
def tables_are_int32_of_stated_length(p: View) -> Any:
    """The tables are int32; counts and starts have length R, owners and local indices length E."""
    return p.tables_are_well_formed()


@invariant(subject="elementwise")
def tables_hold_the_rule(p: View) -> Any:
    """Each table holds at every id what the implementation's functions answer for it."""
    return p.tables_match_rule()


@invariant(subject="scalars")
def rank_tables_agree_with_scalars(p: View, r: Any) -> Any:
    """The tables of counts and starts hold what is answered for each rank alone."""
    return (p.count(r) == p.scalar_count(r)) & (p.start(r) == p.scalar_start(r))


@invariant(subject="scalars")
def expert_tables_agree_with_scalars(p: View, e: Any) -> Any:
    """The tables of owners and local indices hold what is answered for each expert alone."""
    return (p.owner(e) == p.scalar_owner(e)) & (p.local_index(e) == p.scalar_local_index(e))


@invariant(subject="scalars")
def ranges_agree_with_scalars(p: View, r: Any) -> Any:
    """The range of a rank's experts has its start, its stride and its count."""
    return p.scalar_range_agrees(r)


@invariant(subject="answers")
def answers_every_query(p: View) -> Any:
    """Every query within its range is answered, without an exception."""
    return p.is_answered()


@invariant(subject="errors")
def wrong_ids_are_refused(p: View) -> Any:
    """Ids out of range are refused by every query with an IndexError, and offsets of round robin with a ValueError."""
    return p.refuses_wrong_ids()


@invariant(subject="arguments")
def wrong_partitions_are_refused(p: View) -> Any:
    """E and R out of range and unknown strategies are refused with a ValueError, by `count(0)` at the latest."""
    return p.refuses_wrong_partitions()


@invariant(subject="shared")
def wrong_shared_experts_are_refused(p: View) -> Any:
    """Negative numbers of shared experts, and those that nothing has room for, are refused with a ValueError."""
    return p.refuses_wrong_shared_experts()


@invariant(subject="defaults", strategies=("linear",))
def defaults_are_stated(p: View) -> Any:
    """Without other word a partition is linear and a mask has no shared experts, where either may be left out."""
    return p.has_stated_defaults()


@invariant(subject="fresh", requires=lambda p: (p.num_experts <= FEW) & (p.num_ranks <= FEW))
def maps_are_fresh(p: View) -> Any:
    """What is written into a map or a table changes none that is asked for later."""
    return p.makes_fresh_maps()


@invariant(subject="uniform")
def divisors_are_told(p: View) -> Any:
    """Legal numbers of ranks up to R are those that divide E; redundant experts are the fewest that make R legal."""
    return p.tells_divisors()


@invariant(subject="errors")
def uniform_when_divisible(p: View) -> Any:
    """The partition says that it is uniform exactly where R divides E."""
    return p.says_uniform() == (p.num_experts % p.num_ranks == 0)
