"""Which theorems there are: each must be proved in the file that is named, and no file has another.

What a theorem says stands above it in its file. Where it has the name of an invariant of partitions, the sentence and
the strategies are the invariant's.
"""

from __future__ import annotations

from dataclasses import dataclass

from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.reference import CONTIGUOUS, STRATEGIES

FILES = ("Rule", "Partition", "Totals", "Maps", "Machine", "Replication", "Batches", "Layouts")
"""The files in the order in which they need one another; Link comes after them."""


@dataclass(frozen=True)
class Listed:
    """A theorem that has to be there."""

    name: str
    file: str
    invariant: str | None = None
    """The invariant that it corresponds to."""
    strategies: tuple[str, ...] = ()
    """The strategies that it is about, where it is about partitions."""


def of_invariants(file: str, *names: str) -> list[Listed]:
    """Theorems that say what the invariants of partitions of the same names say."""
    return [Listed(name, file, name, INVARIANTS[name].strategies) for name in names]


THEOREMS = [
    *of_invariants("Partition", "ends_meet", "contiguous", "start_in_range", "starts_follow_the_rule"),
    *of_invariants("Partition", "balanced_within_one", "larger_shares_first", "equal_when_divisible"),
    *of_invariants("Partition", "smallest_possible_maximum", "largest_possible_minimum", "empty_only_when_scarce"),
    *of_invariants("Partition", "agrees_with_seed", "owner_in_range", "owner_inverts", "local_index_inverts"),
    *of_invariants("Partition", "covers_exactly_once", "order_preserved"),
    *of_invariants("Partition", "growth_changes_one_rank", "growth_moves_starts_by_at_most_one"),
    Listed("experts_and_places_are_in_bijection", "Partition", strategies=STRATEGIES),
    Listed("least_redundant_experts", "Partition", strategies=STRATEGIES),
    *of_invariants("Totals", "counts_total_num_experts", "listed_in_local_order"),
    Listed("offsets_are_sums_of_counts", "Totals", strategies=CONTIGUOUS),
    Listed("uniform_exactly_when_divisible", "Totals", strategies=STRATEGIES),
    Listed("counts_are_of_owned_experts", "Totals", strategies=STRATEGIES),
    Listed("largest_count_is_reached", "Totals", strategies=STRATEGIES),
    Listed("smallest_count_is_reached", "Totals", strategies=STRATEGIES),
    Listed("no_assignment_has_a_smaller_maximum", "Totals", strategies=STRATEGIES),
    Listed("no_assignment_has_a_larger_minimum", "Totals", strategies=STRATEGIES),
    *of_invariants("Maps", "map_has_one_owner", "map_agrees_with_local_index", "representations_agree"),
    *of_invariants("Maps", "shared_experts_follow", "sentinels_close"),
    Listed("local_slots_are_held_once", "Maps", strategies=STRATEGIES),
    *of_invariants("Machine", "no_intermediate_out_of_range"),
    Listed("greedy_replication_is_optimal", "Replication"),
    Listed("greedy_replication_of_slots_is_optimal", "Replication"),
    Listed("replication_is_optimal", "Replication", "replication_is_optimal"),
    Listed("layouts_meet_the_condition", "Replication"),
    Listed("no_layout_has_a_smaller_largest_share", "Replication"),
    Listed("koenig", "Batches"),
    Listed("no_fewer_batches", "Batches"),
    Listed("no_rank_sends_or_receives_twice", "Batches", "no_rank_sends_or_receives_twice"),
    Listed("batches_are_as_few_as_can_be", "Batches", "batches_are_as_few_as_can_be"),
    Listed("batches_are_split_as_little_as_can_be", "Batches", "batches_are_split_as_little_as_can_be"),
    Listed("equal_ranks_hold_apart_what_meets_the_condition", "Layouts"),
]
