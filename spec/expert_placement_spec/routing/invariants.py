"""The named invariants of routing; each stands under its own name in SPEC.md.

`rt` is every batch with the placement that it is routed over; `t` is every token, `i` every place among its ids, `e`
every expert, `j` every slot, `r` every rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.law import Laws
from expert_placement_spec.logic import choose

if TYPE_CHECKING:
    from expert_placement_spec.routing.view import RoutingView

ROUTING = Laws("rt", ("t", "i", "e", "j", "r"))

SENDER = ("RoutingTables.for_sender",)
UPDATE = ("RoutingTables.update",)
WEIGHTS = ("RoutingTables(weights)",)
BEST = ("Placement.replica_weights",)


@ROUTING.register()
def routed_tables_are_int32_of_stated_shape(rt: RoutingView) -> Any:
    """Everything that can be asked for is int32 of the stated shape."""
    return rt.tables_are_well_formed()


@ROUTING.register(requires=lambda rt, t, i: rt.is_valid(t, i))
def slots_hold_the_expert(rt: RoutingView, t: Any, i: Any) -> Any:
    """The slot that serves an id holds the expert that the id names."""
    return rt.expert(rt.slot(t, i)) == rt.id(t, i)


@ROUTING.register(requires=lambda rt, t, i: rt.is_valid(t, i) == False)  # noqa: E712
def other_ids_have_no_slot(rt: RoutingView, t: Any, i: Any) -> Any:
    """An id that is no expert, and every id of a padded token, has slot -1."""
    return rt.slot(t, i) == -1


@ROUTING.register()
def replicas_are_chosen_by_the_rule(rt: RoutingView, t: Any, i: Any) -> Any:
    """The slot is that of the replica that the stated rule names, by hash, by weight or in turn."""
    return rt.slot(t, i) == rt.stated(t, i)


@ROUTING.register(requires=lambda rt, t, i: rt.is_valid(t, i) & (not rt.is_exact))
def choice_is_of_expert_token_and_seed_alone(rt: RoutingView, t: Any, i: Any) -> Any:
    """Routed alone under the same number, a token's id has the same slot."""
    return rt.slot(t, i) == rt.slot_alone(t, i)


@ROUTING.register(requires=lambda rt, e: rt.is_exact)
def turns_are_even_within_one(rt: RoutingView, e: Any) -> Any:
    """In the exact variant no replica of an expert serves two ids more than another."""
    return rt.replicas_used(e) <= 1


@ROUTING.register(requires=lambda rt, e: not rt.is_exact)
def replicas_serve_their_parts(rt: RoutingView, e: Any) -> Any:
    """Of every other of many tokens each replica serves its part, within six standard deviations and one."""
    return rt.is_spread(e)


@ROUTING.register()
def layers_are_routed_by_their_own(rt: RoutingView) -> Any:
    """In tables of several layers each is routed as by tables of its own."""
    return rt.layers_stand_alone()


@ROUTING.register()
def routed_answers_are_fresh(rt: RoutingView) -> Any:
    """Ids and weights are read alone, and what is written into them or into an answer changes no later answer."""
    return rt.answers_are_fresh()


@ROUTING.register()
def routing_repeats_itself(rt: RoutingView) -> Any:
    """The same arguments give the same answer, and every rank's tables the same slots."""
    return rt.is_repeated()


@ROUTING.register()
def each_id_is_local_on_one_rank(rt: RoutingView, t: Any, i: Any) -> Any:
    """Over all ranks every id that has a slot is local exactly once, and no other ever."""
    return rt.ranks_that_have(t, i) == choose(rt.is_valid(t, i), 1, 0)


@ROUTING.register()
def local_slots_are_those_of_the_rank(rt: RoutingView, t: Any, i: Any, r: Any) -> Any:
    """A local slot is the slot less the rank's first where the rank has it, and -1 elsewhere."""
    slot = rt.slot(t, i)
    is_local = (slot >= rt.offset(r)) & (slot < rt.offset(r + 1))
    return rt.local(r, t, i) == choose(is_local, slot - rt.offset(r), -1)


@ROUTING.register()
def slot_counts_are_a_histogram(rt: RoutingView, j: Any) -> Any:
    """The count of a slot is the number of ids that have it."""
    return rt.count(j) == rt.histogram(j)


@ROUTING.register()
def slot_offsets_sum_up_counts(rt: RoutingView, j: Any) -> Any:
    """The offsets begin with 0 and grow by each slot's count; the last is the number of ids that have a slot."""
    ends = (rt.slot_begin(0 * j) == 0) & (rt.slot_begin(rt.num_slots + 0 * j) == rt.histogram.array.sum())
    return ends & (rt.slot_begin(j + 1) == rt.slot_begin(j) + rt.histogram(j))


@ROUTING.register()
def rank_counts_are_those_of_their_slots(rt: RoutingView, r: Any) -> Any:
    """The count of a rank is the sum of those of its slots."""
    return rt.rank_count(r) == rt.counted_on(r)


@ROUTING.register()
def rank_offsets_sum_up_counts(rt: RoutingView, r: Any) -> Any:
    """The offsets of ranks begin with 0 and grow by each rank's count; the last is the number of ids with a slot."""
    ends = (rt.rank_begin(0 * r) == 0) & (rt.rank_begin(rt.num_ranks + 0 * r) == rt.histogram.array.sum())
    return ends & (rt.rank_begin(r + 1) == rt.rank_begin(r) + rt.counted_on(r))


@ROUTING.register()
def order_is_stable(rt: RoutingView) -> Any:
    """The order has the places of all ids by their slots, equal slots as in the batch and ids without one last."""
    return rt.is_stable_order()


@ROUTING.register()
def positions_invert_the_order(rt: RoutingView, t: Any, i: Any) -> Any:
    """The order has an id's place where the id's position says."""
    return rt.ordered(rt.position(t, i)) == t * rt.case.batch().shape[1] + i


@ROUTING.register()
def load_is_added_in_place(rt: RoutingView) -> Any:
    """What each slot serves is added to int32 and int64 loads in their place, and nothing else, whatever is wanted."""
    return rt.loads_are_added()


@ROUTING.register()
def what_is_not_wanted_is_not_given(rt: RoutingView) -> Any:
    """A field asked for alone is what it is among all, and the others are None."""
    return rt.gives_what_is_wanted()


@ROUTING.register()
def widths_of_ids_change_nothing(rt: RoutingView) -> Any:
    """int32 and int64 ids are routed alike, and an id of 64 bits is no expert by its lower half."""
    return rt.widths_of_ids_agree()


@ROUTING.register()
def strides_of_ids_change_nothing(rt: RoutingView) -> Any:
    """Ids that are apart in memory, or stand column by column, are routed like those that follow each other."""
    return rt.strides_change_nothing()


@ROUTING.register(needs=("RoutingTables(max_slots)",))
def room_for_more_slots_changes_nothing(rt: RoutingView) -> Any:
    """With room for more slots the slots are the same, and those beyond count nothing."""
    return rt.room_changes_nothing()


@ROUTING.register(needs=UPDATE)
def updates_equal_tables_made_anew(rt: RoutingView) -> Any:
    """Tables that held another placement, updated in place, give what tables made for this one give."""
    return rt.updates_like_made()


@ROUTING.register(needs=UPDATE)
def wrong_updates_are_refused(rt: RoutingView) -> Any:
    """A placement that does not fit is an error that changes nothing, and one of too many slots names the room."""
    return rt.refuses_wrong_updates()


@ROUTING.register(needs=SENDER, requires=lambda rt, t, i, r: rt.is_valid(t, i) & (not rt.is_weighted))
def senders_are_served_near(rt: RoutingView, t: Any, i: Any, r: Any) -> Any:
    """Where a rank sends, the slot is on it, else on its node, else anywhere, and no replica is nearer."""
    slot, expert = rt.near(r, t, i), rt.id(t, i)
    return (rt.expert(slot) == expert) & (rt.distance(r, slot) == rt.least_distance(r, expert))


@ROUTING.register(needs=SENDER, requires=lambda rt, t, i, r: not rt.is_weighted)
def near_replicas_are_chosen_by_the_rule(rt: RoutingView, t: Any, i: Any, r: Any) -> Any:
    """Where a rank sends, the rule chooses among the nearest replicas."""
    return rt.near(r, t, i) == rt.stated_near_slot(r, t, i)


@ROUTING.register(needs=SENDER, requires=lambda rt: not rt.is_weighted)
def senders_are_told_what_follows(rt: RoutingView) -> Any:
    """Where a rank sends, all that can be asked for is what follows from the slots, with that rank's as local."""
    return rt.tells_senders_everything()


@ROUTING.register(needs=("Partition", "Placement.from_partition"), requires=lambda rt: not rt.is_weighted)
def partitions_are_routed_as_placements(rt: RoutingView) -> Any:
    """A partition of any strategy is routed as the placement of one layer that it is."""
    return rt.routes_partitions()


@ROUTING.register(needs=WEIGHTS)
def wrong_weights_of_replicas_are_refused(rt: RoutingView) -> Any:
    """Weights that are negative, not finite or all 0 for an expert, and another number of them, are errors."""
    return rt.refuses_wrong_weights()


@ROUTING.register()
def wrong_requests_are_refused(rt: RoutingView) -> Any:
    """Layers, ranks, numbers and lengths out of range, unknown fields, and what excludes each other are errors."""
    return rt.refuses_wrong_requests()


@ROUTING.register(needs=BEST, requires=lambda rt, e: rt.has_load)
def parts_of_an_expert_are_one(rt: RoutingView, e: Any) -> Any:
    """The best parts of an expert's replicas add up to 1."""
    return abs(rt.parts_of(e) - 1) <= 1e-9


@ROUTING.register(needs=BEST, requires=lambda rt, j: rt.has_load)
def parts_are_of_slots_that_serve(rt: RoutingView, j: Any) -> Any:
    """The best part of a slot is in 0 ..= 1, and 0 for an empty one."""
    part = rt.part(j)
    return (part >= 0) & (part <= 1 + 1e-9) & ((rt.expert(j) != -1) | (part == 0))


@ROUTING.register(needs=BEST, requires=lambda rt: rt.has_load)
def best_parts_make_the_busiest_rank_fastest(rt: RoutingView) -> Any:
    """With the best parts the busiest rank is done when the slowest set of ranks could be, with what it alone holds."""
    return rt.is_fastest()


@ROUTING.register(needs=BEST, requires=lambda rt, j: rt.has_load)
def parts_on_a_rank_are_equal(rt: RoutingView, j: Any) -> Any:
    """Replicas of an expert on one rank have equal parts, and so have all replicas of an expert without load."""
    return rt.is_even(j)


@ROUTING.register(needs=BEST, requires=lambda rt: rt.has_load)
def parts_follow_their_loads(rt: RoutingView) -> Any:
    """Each layer has best parts for its own loads, added up over the windows, whatever was asked before."""
    return rt.follows_loads()
