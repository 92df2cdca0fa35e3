"""What an invariant may ask of a partition, whatever numbers are made of.

A view binds one implementation. Numbers are ints for one partition, arrays for whole grids (each element a point with
its own partition), or solver terms.
"""

from __future__ import annotations

from typing import Any, Protocol


class View(Protocol):
    """A partition, seen by the invariants."""

    strategy: str

    @property
    def num_experts(self) -> Any:
        """E."""

    @property
    def num_ranks(self) -> Any:
        """R."""

    @property
    def num_shared_experts(self) -> Any:
        """S, which a checker varies with the partition."""

    @property
    def stride(self) -> Any:
        """R for round robin, 1 otherwise."""

    def count(self, rank: Any) -> Any:
        """The count of each rank, from the table."""

    def start(self, rank: Any) -> Any:
        """The start of each rank, from the table."""

    def owner(self, expert: Any) -> Any:
        """The owner of each expert, from the table."""

    def local_index(self, expert: Any) -> Any:
        """The local index of each expert, from the table."""

    def sum_of_counts(self) -> Any:
        """The sum of the counts of all ranks."""

    def grown(self) -> View:
        """The partition of E + 1 experts."""

    def offset(self, rank: Any) -> Any:
        """The offset of each rank in 0..=R."""

    @property
    def offsets_are_int32(self) -> Any:
        """Whether the offsets are int32 arrays."""

    def rows_match(self) -> Any:
        """Whether the map of one rank, asked by itself, is its row among those of all ranks."""

    def listed(self, rank: Any, position: Any) -> Any:
        """The list of a rank's experts at a position."""

    def list_length(self, rank: Any) -> Any:
        """The length of the list of a rank's experts."""

    @property
    def lists_are_int32(self) -> Any:
        """Whether the lists are int32 arrays."""

    def index_map(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map."""

    def index_map_with_shared(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with shared experts."""

    def index_map_with_sentinel(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with a sentinel."""

    def mask(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's mask."""

    def map_length(self, representation: str, rank: Any) -> Any:
        """The length of the rank's map in a representation."""

    @property
    def maps_are_int32(self) -> Any:
        """Whether all maps are int32 arrays."""

    def tables_are_well_formed(self) -> Any:
        """Whether the tables are int32 arrays of the stated lengths."""

    def tables_match_rule(self) -> Any:
        """Whether the tables hold what the elementwise functions say."""

    def scalar_count(self, rank: Any) -> Any:
        """The count of each rank, asked one by one."""

    def scalar_start(self, rank: Any) -> Any:
        """The start of each rank, asked one by one."""

    def scalar_owner(self, expert: Any) -> Any:
        """The owner of each expert, asked one by one."""

    def scalar_local_index(self, expert: Any) -> Any:
        """The local index of each expert, asked one by one."""

    def scalar_range_agrees(self, rank: Any) -> Any:
        """Whether the range of a rank's experts has its start, stride and count."""

    def is_answered(self) -> Any:
        """Whether every query within its range was answered."""

    def refuses_wrong_ids(self) -> Any:
        """Whether every query refuses the ids next to its range."""

    def refuses_wrong_partitions(self) -> Any:
        """Whether partitions of wrong numbers of experts or ranks, or of no strategy, are refused."""

    def refuses_wrong_shared_experts(self) -> Any:
        """Whether maps with wrong numbers of shared experts are refused."""

    def has_stated_defaults(self) -> Any:
        """Whether what may be left out is what is stated."""

    def tells_divisors(self) -> Any:
        """Whether it is told which numbers of ranks and of experts would make ranks equal."""

    def makes_fresh_maps(self) -> Any:
        """Whether maps are their asker's own."""

    def says_uniform(self) -> Any:
        """What the partition says of being uniform."""

    def intermediates_in_range(self, rank: Any, expert: Any) -> Any:
        """Whether every intermediate of the formulas stays within its type."""
