"""The named invariants of placements; each stands under its own name in SPEC.md.

`pl` is every placement with its loads; `l` every layer, `e` every expert, `j` every slot of a layer, `r` every rank,
`i` every local slot of rank `r`, `k` every replica up to the width, `h` every shared expert, `w` every window, `g`
every number of groups.
"""

# The letters are those of SPEC.md, where l is a layer.
# ruff: noqa: E741

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.answers import TOLERANCE, at_most, close
from expert_placement_spec.law import Laws
from expert_placement_spec.logic import choose, implies

if TYPE_CHECKING:
    from expert_placement_spec.placement.view import PlacementView

PLACEMENT = Laws("pl", ("w", "l", "e", "j", "r", "i", "k", "h", "g"))

MAPS = tuple(
    f"Placement.{name}" for name in ("expert_map", "expert_map_with_shared", "expert_map_with_sentinel", "expert_mask")
)
LISTS = tuple(f"Placement.{name}" for name in ("logical_to_physical", "replica_counts", "slot_offsets"))
WEIGHTS = ("Placement.local_experts", "Placement.experts_to_load")
LOADS = ("Placement.rank_loads",)
REPORT = ("Placement.report",)
GROUPS = ("Placement.off_node",)


@PLACEMENT.register(needs=("Topology.node_of",))
def nodes_are_blocks_of_ranks(pl: PlacementView, r: Any) -> Any:
    """A rank is on the node that owns it in the linear partition of the ranks over the nodes."""
    return pl.node_of(r) == pl.node(r)


@PLACEMENT.register()
def wrong_topologies_are_refused(pl: PlacementView) -> Any:
    """Counts out of range, lists of another length than R, speeds that are none, and no active rank are errors."""
    return pl.refuses_wrong_topologies()


@PLACEMENT.register(needs=("Placement.slot_offsets",))
def slots_follow_one_another(pl: PlacementView, r: Any) -> Any:
    """The offsets begin with 0, grow by each rank's slots, and end with P."""
    ends = (pl.offset(0 * r) == 0) & (pl.offset(pl.num_ranks + 0 * r) == pl.num_slots)
    return ends & (pl.offset(r + 1) == pl.offset(r) + pl.slots(r))


@PLACEMENT.register()
def sizes_are_those_of_the_table(pl: PlacementView) -> Any:
    """The placement has the L, E, P and R that it was given."""
    return pl.sizes == (pl.num_layers, pl.num_experts, pl.num_slots, pl.num_ranks)


@PLACEMENT.register()
def table_is_kept(pl: PlacementView, l: Any, j: Any) -> Any:
    """The physical-to-logical table holds what was given."""
    return pl.table(l, j) == pl.given(l, j)


@PLACEMENT.register(needs=("Placement.replica_counts",))
def no_expert_is_left_out(pl: PlacementView, l: Any, e: Any) -> Any:
    """Every expert has a replica in every layer."""
    return pl.count(l, e) >= 1


@PLACEMENT.register(needs=("Placement.replica_counts",))
def counts_are_of_slots(pl: PlacementView, l: Any, e: Any) -> Any:
    """An expert has as many replicas as slots hold it."""
    return pl.count(l, e) == pl.replicas(l, e)


@PLACEMENT.register(needs=LISTS, requires=lambda pl, l, e, k: pl.slot(l, e, k) != -1)
def listed_slots_hold_the_expert(pl: PlacementView, l: Any, e: Any, k: Any) -> Any:
    """Every slot that is listed for an expert holds it."""
    return pl.table(l, pl.slot(l, e, k)) == e


@PLACEMENT.register(needs=LISTS, requires=lambda pl, l, j: pl.given(l, j) != -1)
def slots_are_listed_for_their_expert(pl: PlacementView, l: Any, j: Any) -> Any:
    """A slot that holds an expert is listed for it, after the lower slots that do."""
    return pl.slot(l, pl.table(l, j), pl.place(l, j)) == j


@PLACEMENT.register(needs=LISTS)
def lists_end_with_minus_one(pl: PlacementView, l: Any, e: Any, k: Any) -> Any:
    """The list of an expert's slots has as many of them as it has replicas, and -1 after."""
    return (pl.slot(l, e, k) >= 0) == (k < pl.count(l, e))


@PLACEMENT.register(needs=LISTS)
def lists_are_as_wide_as_needed(pl: PlacementView) -> Any:
    """The lists are as wide as the most replicated expert of any layer has replicas."""
    return pl.width == pl.most_replicas and pl.is_as_wide_as_asked()


@PLACEMENT.register(needs=LISTS)
def wider_lists_say_the_same(pl: PlacementView, l: Any, e: Any, k: Any) -> Any:
    """Lists of a width that the caller names hold the same slots, and -1 after."""
    same = pl.slot_in_wider(l, e, k) == pl.slot(l, e, k)
    beyond = pl.slot_in_wider(l, e, pl.width + 0 * k) == -1
    return same & beyond & (pl.wider_width == pl.most_replicas + 2)


@PLACEMENT.register(needs=MAPS)
def map_holds_the_first_local_slot(pl: PlacementView, l: Any, r: Any, e: Any) -> Any:
    """A rank's map holds for each expert the first of the rank's slots that has it, and -1 where none does."""
    return pl.map(l, r, e) == pl.first_local_slot(l, r, e)


@PLACEMENT.register(needs=MAPS)
def placement_maps_agree(pl: PlacementView, l: Any, r: Any, e: Any) -> Any:
    """All four representations of what a rank holds say the same of every routed expert."""
    entry = pl.map(l, r, e)
    same = (pl.map_with_shared(l, r, e) == entry) & (pl.map_with_sentinel(l, r, e) == entry)
    return same & (pl.mask(l, r, e) == choose(entry >= 0, 1, 0))


@PLACEMENT.register(needs=MAPS)
def shared_experts_follow_all_slots(pl: PlacementView, l: Any, r: Any, h: Any) -> Any:
    """Every rank holds shared expert h in the local slot h after all of its slots, and the mask has 1 for it."""
    position = pl.num_experts + h
    return (pl.map_with_shared(l, r, position) == pl.slots(r) + h) & (pl.mask(l, r, position) == 1)


@PLACEMENT.register(needs=MAPS)
def placement_maps_close(pl: PlacementView, l: Any, r: Any) -> Any:
    """The mask ends with 0, and the index map of length E + 1 with -1."""
    trailing = pl.mask(l, r, pl.num_experts + pl.num_shared_experts + 0 * r)
    return (trailing == 0) & (pl.map_with_sentinel(l, r, pl.num_experts + 0 * r) == -1)


@PLACEMENT.register(needs=WEIGHTS)
def local_experts_are_the_slots(pl: PlacementView, l: Any, r: Any, i: Any) -> Any:
    """The list of a rank's local experts is that part of the table."""
    return pl.local(l, r, i) == pl.table(l, pl.offset(r) + i)


@PLACEMENT.register(needs=(*WEIGHTS, *MAPS))
def weights_to_load_are_those_held(pl: PlacementView, l: Any, r: Any, e: Any) -> Any:
    """The weights that a rank loads are those of the experts on its map, each once."""
    return pl.is_loaded(l, r, e) == choose(pl.first_local_slot(l, r, e) >= 0, 1, 0)


@PLACEMENT.register(needs=WEIGHTS)
def weights_to_load_ascend(pl: PlacementView, l: Any, r: Any) -> Any:
    """The list of weights to load holds experts alone, in ascending order."""
    return pl.lists_to_load_ascend(l, r)


@PLACEMENT.register(needs=(*LISTS, *MAPS, *WEIGHTS, *LOADS))
def placement_tables_are_int32_of_stated_shape(pl: PlacementView) -> Any:
    """Tables are int32 and loads of ranks float64, of the shapes that are stated."""
    return pl.tables_are_well_formed()


@PLACEMENT.register()
def placement_answers_are_fresh(pl: PlacementView) -> Any:
    """What is written into an answer, or into what was given, changes no later answer."""
    return pl.answers_are_fresh()


@PLACEMENT.register()
def tables_are_read_in_every_form(pl: PlacementView) -> Any:
    """A table is read alike in int32 and int64, and wherever its entries lie in memory."""
    return pl.reads_every_form()


@PLACEMENT.register()
def wrong_placements_are_refused(pl: PlacementView) -> Any:
    """Wrong entries, a missing expert, content on inactive ranks, a wrong P or S, and too small a width are errors."""
    return pl.refuses_wrong_placements()


@PLACEMENT.register()
def wrong_layers_and_ranks_are_refused(pl: PlacementView) -> Any:
    """Every query about a layer or a rank refuses layer -1 and L, and rank -1 and R, as no such id."""
    return pl.refuses_wrong_ids()


@PLACEMENT.register(needs=("Partition", "Placement.from_partition", "Placement.local_experts"))
def partitions_are_placements(pl: PlacementView, r: Any) -> Any:
    """In the placement of a partition, in every layer, a rank's slots hold its experts in local order."""
    return pl.partitions_agree(r)


@PLACEMENT.register(needs=("Placement.digest",))
def digest_is_the_stated_hash(pl: PlacementView) -> Any:
    """The digest is the hash of the content that is stated, with its version."""
    return pl.digest == pl.stated_digest


@PLACEMENT.register(needs=("Placement.digest",))
def digest_tells_contents_apart(pl: PlacementView, j: Any) -> Any:
    """Where neighbouring slots exchange their content, the digest changes exactly if they held different experts."""
    return pl.digest_tells_exchange(j) == pl.differs_from_next(j)


@PLACEMENT.register(needs=("Placement.digest",))
def digest_tells_sizes_apart(pl: PlacementView) -> Any:
    """One layer more, one expert more, or other slots of the ranks give another digest."""
    return pl.digest not in pl.digest_of_larger()


@PLACEMENT.register(needs=("Placement.digest",))
def digest_is_of_slots_alone(pl: PlacementView) -> Any:
    """Nodes, speeds, activity, and how the slots of the ranks were given do not change the digest."""
    return set(pl.digest_of_others()) == {pl.digest}


@PLACEMENT.register(needs=LOADS)
def load_is_conserved(pl: PlacementView, w: Any, l: Any) -> Any:
    """The loads of all ranks add up to those of all experts."""
    return close(pl.total_of_ranks(w, l), pl.total_load(w, l))


@PLACEMENT.register(needs=LOADS)
def shares_add_up_in_slot_order(pl: PlacementView, w: Any, l: Any, r: Any) -> Any:
    """The load of a rank is, bit by bit, the float64 sum of the shares of what its slots hold, in slot order."""
    return pl.rank_load(w, l, r) == pl.shares_in_slot_order(w, l, r)


@PLACEMENT.register(needs=LOADS)
def windows_stand_by_themselves(pl: PlacementView, w: Any, l: Any, r: Any) -> Any:
    """The loads of the ranks in one window are those where that window is asked for alone."""
    return pl.rank_load(w, l, r) == pl.rank_load_alone(w, l, r)


@PLACEMENT.register(needs=LOADS)
def loads_are_read_each_time(pl: PlacementView) -> Any:
    """What is said of loads is said of those given, whatever was asked before, and nothing is written there."""
    return pl.reads_loads_each_time()


@PLACEMENT.register(needs=LOADS)
def wrong_loads_are_refused(pl: PlacementView) -> Any:
    """Loads that are negative, infinite or undefined, add up to more than 10^301, or have another shape are errors."""
    return pl.refuses_wrong_loads()


@PLACEMENT.register(needs=("Placement.balancedness",))
def balancedness_is_mean_over_largest(pl: PlacementView) -> Any:
    """The balancedness is the sum of the means over that of the largest times, in 0 ..= 1, and 1 without load."""
    is_ratio = (pl.balancedness >= 0) & (pl.balancedness <= 1 + TOLERANCE)
    return close(pl.balancedness, pl.stated_balancedness) & is_ratio


@PLACEMENT.register(needs=REPORT)
def reports_are_measured(pl: PlacementView, l: Any) -> Any:
    """A report holds the mean and the largest time of its layer, added up over the windows."""
    mean = close(pl.reported("mean")(l), pl.stated("mean")(l))
    return mean & close(pl.reported("largest")(l), pl.stated("largest")(l)) & (pl.reported("layer")(l) == l)


@PLACEMENT.register(needs=REPORT)
def busiest_rank_is_named(pl: PlacementView, l: Any) -> Any:
    """A report names the rank that takes longest in any window, the lowest of equals."""
    return pl.reported("busiest_rank")(l) == pl.stated("busiest_rank")(l)


@PLACEMENT.register(needs=REPORT)
def bound_is_the_stated_one(pl: PlacementView, l: Any) -> Any:
    """The lower bound is the larger of all load over all usable speed and the least largest share over the fastest."""
    return close(pl.reported("lower_bound")(l), pl.stated("lower_bound")(l))


@PLACEMENT.register(needs=REPORT)
def bound_is_respected(pl: PlacementView, l: Any) -> Any:
    """No placement's busiest rank is done before the lower bound."""
    return at_most(pl.reported("lower_bound")(l), pl.stated("largest")(l))


@PLACEMENT.register(needs=REPORT)
def gap_is_largest_over_bound(pl: PlacementView, l: Any) -> Any:
    """The gap is the largest time over the lower bound, less 1, and 0 where there is no load."""
    bound, gap = pl.reported("lower_bound")(l), pl.reported("gap")(l)
    return implies(bound > 0, close((1 + gap) * bound, pl.reported("largest")(l))) & implies(bound == 0, gap == 0)


@PLACEMENT.register(needs=GROUPS, requires=lambda pl, l, g: pl.can_be_grouped(g) & pl.is_measurable(l))
def off_node_is_what_it_says(pl: PlacementView, l: Any, g: Any) -> Any:
    """The load off node is what other nodes serve of a group than the one that serves most of it, as a part of all."""
    # At home and off node together are 1, and what is at home is never next to nothing.
    return close(1 - pl.off_node(l, g), 1 - pl.stated_off_node(l, g)) & (pl.off_node(l, g) >= -TOLERANCE)


@PLACEMENT.register(needs=GROUPS)
def wrong_groups_are_refused(pl: PlacementView) -> Any:
    """Groups below one or above E, or that do not divide E, are errors."""
    return pl.refuses_wrong_groups()
