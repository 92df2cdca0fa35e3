"""The named invariants of plans; each stands under its own name in SPEC.md.

`c` is every call of `rebalance` with what it gives; `l` is every layer, `e` every expert, `j` every slot of a layer,
`r` every rank, `b` every budget from 0 to 4, `s` every place on the curve of capacity.
"""

# The letters are those of SPEC.md, where l is a layer.
# ruff: noqa: E741

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.answers import TOLERANCE, at_most, close
from expert_placement_spec.law import Laws
from expert_placement_spec.logic import choose, implies, least, negate

if TYPE_CHECKING:
    from expert_placement_spec.balance.view import BalanceView

BALANCE = Laws("c", ("l", "e", "j", "r", "b", "s"))

WARM = ("rebalance(previous)", "rebalance(max_moves)")
GROUPS = ("rebalance(max_off_node)",)
CAPACITY = ("capacity_curve",)


@BALANCE.register(needs=("Placement.slot_offsets",))
def plan_has_the_asked_shape(c: BalanceView) -> Any:
    """A plan has the layers, experts, slots and ranks that were asked for."""
    return c.is_shaped_as_asked()


@BALANCE.register()
def plan_leaves_no_expert_out(c: BalanceView, l: Any, e: Any) -> Any:
    """Every expert has a replica in every layer of a plan."""
    return c.replicas(l, e) >= 1


@BALANCE.register()
def inactive_ranks_stay_empty(c: BalanceView, l: Any, r: Any) -> Any:
    """A plan puts nothing on ranks that are not active."""
    return implies(negate(c.is_active(r)), c.is_empty(l, r))


@BALANCE.register(requires=lambda c, l, r, e: (c.case.policy == "balanced") & c.is_measurable(l))
def replicas_are_kept_apart(c: BalanceView, l: Any, r: Any, e: Any) -> Any:
    """No rank holds two replicas of an expert, unless it did before, or `deepseek` has them there and they pay."""
    before = choose(c.copies_before(l, r, e) > 1, c.copies_before(l, r, e), 1)
    return (c.copies(l, r, e) <= before) | c.is_taken_over(l)


@BALANCE.register()
def plans_respect_the_bound(c: BalanceView, l: Any) -> Any:
    """The busiest rank of a plan is not done before the lower bound."""
    return at_most(c.bound(l), c.largest(l))


@BALANCE.register(needs=("Placement.report",), requires=lambda c, l: c.is_tiny)
def replication_is_optimal(c: BalanceView, l: Any) -> Any:
    """The largest share that enters the reported bound is the least of all ways to hold replicas apart."""
    return close(c.reported_bound(l), c.bound_by_exhaustion(l))


@BALANCE.register(requires=lambda c, l: c.is_tiny & negate(c.has_duplicates(l)))
def plans_respect_the_optimum(c: BalanceView, l: Any) -> Any:
    """The busiest rank of a plan that keeps replicas apart is not done before that of the best of all such plans."""
    return at_most(c.optimum(l), c.largest(l))


@BALANCE.register(requires=lambda c, l: c.is_from_nothing and not c.needs_of_deepseek)
def never_worse_than_deepseek(c: BalanceView, l: Any) -> Any:
    """In no layer is the busiest rank done later than under `deepseek`, where that applies."""
    return at_most(c.largest(l), c.largest_of_deepseek(l))


@BALANCE.register(
    requires=lambda c, l: c.is_from_nothing and c.num_windows == 1 and c.has_single_slots and not c.has_homes
)
def single_slots_are_used_best(c: BalanceView, l: Any) -> Any:
    """Where every usable rank has one slot, all are equally fast and no group has a home, no placement is better."""
    return close(c.largest(l), c.bound(l))


@BALANCE.register(
    requires=lambda c, l: (
        (c.is_from_nothing and (not c.has_homes or c.has_roomy_homes))
        & negate(c.is_balanced(l))
        & negate(c.is_of_the_field(l))
    )
)
def no_step_helps(c: BalanceView, l: Any) -> Any:
    """No step of refinement that keeps groups at home lets the busiest rank be done earlier."""
    return negate(c.is_helped_by_a_step(l))


@BALANCE.register(requires=lambda c, l, j: c.case.policy == "deepseek" and not c.has_previous)
def deepseek_is_followed_exactly(c: BalanceView, l: Any, j: Any) -> Any:
    """The policy `deepseek` puts into every slot what its chapter says."""
    return c.table(l, j) == c.table_of_deepseek(l, j)


@BALANCE.register(
    needs=("rebalance(previous)",), requires=lambda c, l, r, e: c.case.policy == "deepseek" and c.has_previous
)
def deepseek_knows_nothing_of_moves(c: BalanceView, l: Any, r: Any, e: Any) -> Any:
    """With a previous placement the policy `deepseek` puts onto every rank what it puts there without."""
    return c.copies(l, r, e) == c.copies_of_deepseek(l, r, e)


@BALANCE.register(requires=lambda c: c.case.num_slots > 0 and bool(c.needs_of_deepseek))
def deepseek_refuses_what_it_can_not_plan(c: BalanceView) -> Any:
    """The policy `deepseek` is an error where numbers do not divide, or ranks are not equal and all active."""
    return c.refuses_what_deepseek_lacks()


@BALANCE.register()
def plans_repeat_themselves(c: BalanceView) -> Any:
    """The same arguments give the same plan."""
    return c.is_repeated()


@BALANCE.register()
def loads_are_left_alone(c: BalanceView) -> Any:
    """Loads in an array are planned as those in lists are, and nothing is written into them."""
    return c.leaves_loads_alone()


@BALANCE.register(needs=("rebalance(num_threads)",))
def threads_change_nothing(c: BalanceView) -> Any:
    """The plan does not depend on the number of threads."""
    return c.is_the_same_with_threads()


@BALANCE.register(requires=lambda c: c.scales)
def only_ratios_of_loads_matter(c: BalanceView) -> Any:
    """Loads in a unit a quarter as large give the same plan."""
    return c.is_repeated(loads=c.multiplied(4.0))


@BALANCE.register(requires=lambda c, l, j: not c.has_previous and c.num_layers > 1)
def layers_are_planned_alone(c: BalanceView, l: Any, j: Any) -> Any:
    """From nothing, a layer is planned as it would be if it were the only one."""
    return c.table(l, j) == c.table_alone(l, j)


@BALANCE.register(requires=lambda c, l: c.is_from_nothing and c.num_windows > 1)
def windows_are_planned_for(c: BalanceView, l: Any) -> Any:
    """The mean over the windows of the largest time is not above that of the plan for their sum."""
    return at_most(c.largest(l), c.largest_for_sum(l))


@BALANCE.register(needs=WARM, requires=lambda c: c.has_previous and c.has_budget)
def budget_is_kept(c: BalanceView) -> Any:
    """A plan is at most as many moves away from the previous placement as it may be, over all layers together."""
    return c.num_moves <= c.budget


@BALANCE.register(needs=WARM, requires=lambda c: c.is_warm and c.num_lost == 0)
def no_moves_change_nothing(c: BalanceView) -> Any:
    """Where nothing may move the plan is what is left of the previous placement, slot by slot."""
    return c.rows_without_moves == c.live_rows


@BALANCE.register(needs=WARM, requires=lambda c, b: c.is_warm)
def more_moves_never_hurt(c: BalanceView, b: Any) -> Any:
    """With one move more the sum over the layers of the largest time is not larger."""
    return at_most(c.total_at(b + 1), c.total_at(b)) | (c.total_at(b) == float("inf"))


@BALANCE.register(needs=WARM, requires=lambda c, l, r, e: c.has_previous)
def staying_experts_keep_their_slots(c: BalanceView, l: Any, r: Any, e: Any) -> Any:
    """As many replicas of an expert as stay on a rank stay in the slots where they were."""
    return c.copies_in_place(l, r, e) == least(c.copies(l, r, e), c.copies_before(l, r, e))


@BALANCE.register(needs=WARM, requires=lambda c, l: c.has_previous and c.moves_freely)
def free_moves_balance_as_from_nothing(c: BalanceView, l: Any) -> Any:
    """Without a budget a layer is as well balanced as from nothing, or within the tolerance of its lower bound."""
    return at_most(c.largest(l), c.largest_from_nothing(l)) | c.is_balanced(l)


@BALANCE.register(needs=WARM, requires=lambda c: c.is_warm)
def enough_moves_are_as_good_as_free_ones(c: BalanceView) -> Any:
    """With a move for every slot the sum over the layers of the largest time is not above that without a budget."""
    return at_most(c.total_with_every_move, c.total_of_free_moves)


@BALANCE.register(needs=(*WARM, "rebalance(min_gain)"), requires=lambda c: c.is_warm)
def moves_save_what_they_must(c: BalanceView) -> Any:
    """With a gain that moves must bring, the largest times and the price of the moves are as low as for any budget."""
    return c.moves_save_what_they_must()


@BALANCE.register(needs=("rebalance(previous)", "rebalance(min_gain)"), requires=lambda c: c.has_previous)
def wrong_gains_are_refused(c: BalanceView) -> Any:
    """A gain that is negative or not finite, with `deepseek`, or without a previous placement, is an error."""
    return c.refuses_wrong_gains()


@BALANCE.register(
    needs=("rebalance(previous)",),
    requires=lambda c, l: c.is_previous_live and c.moves_freely and not c.has_homes and c.is_best_already(l),
)
def nothing_moves_in_vain(c: BalanceView, l: Any) -> Any:
    """Without a budget nothing moves in a layer as good as from nothing, and within the tolerance of its bound."""
    return c.moves(l) == 0


@BALANCE.register(needs=("rebalance(previous)",), requires=lambda c: c.has_previous)
def previous_ranks_change_nothing(c: BalanceView) -> Any:
    """The plan is the same whatever nodes, speeds and active ranks the previous placement has."""
    return c.is_the_same_from_other_ranks()


@BALANCE.register(needs=("rebalance(previous)",), requires=lambda c: c.has_previous)
def other_previous_shapes_are_refused(c: BalanceView) -> Any:
    """A previous placement of other layers, experts, slots or ranks is an error."""
    return c.refuses_other_shapes()


@BALANCE.register()
def impossible_plans_are_refused(c: BalanceView) -> Any:
    """Fewer slots on active ranks than experts are an error."""
    return c.refuses_impossible_plans()


@BALANCE.register(needs=WARM, requires=lambda c: c.is_warm)
def lost_experts_are_named(c: BalanceView) -> Any:
    """With a previous placement, that error names an expert that has no live replica."""
    return c.names_lost_experts()


@BALANCE.register(needs=WARM, requires=lambda c: c.is_warm and c.num_lost > 0)
def budgets_too_small_to_restore_are_refused(c: BalanceView) -> Any:
    """A budget below the number of experts without a live replica is an error."""
    return c.refuses_too_small_a_budget()


@BALANCE.register()
def wrong_calls_are_refused(c: BalanceView) -> Any:
    """Loads that are none, unknown policies, wrong groups, budgets and slots, and other shapes are errors."""
    return c.refuses_wrong_calls()


@BALANCE.register(needs=GROUPS, requires=lambda c, l, e: c.is_from_nothing and c.has_roomy_homes)
def experts_keep_a_replica_at_home(c: BalanceView, l: Any, e: Any) -> Any:
    """Where nodes have room for whole groups, some node has a replica of every expert of a group."""
    return c.is_at_home(l, e)


@BALANCE.register(needs=GROUPS, requires=lambda c, l: c.is_from_nothing and c.has_roomy_homes and c.is_measurable(l))
def load_off_node_is_limited(c: BalanceView, l: Any) -> Any:
    """Of a layer at most the part that is allowed is served off the nodes that have replicas of whole groups."""
    return c.off_home(l) <= c.most_off_node + TOLERANCE


@BALANCE.register(
    needs=(*GROUPS, *WARM),
    requires=lambda c, l: (
        (c.is_previous_live or (c.is_warm and c.moves_freely)) and c.has_roomy_homes and c.is_measurable(l)
    ),
)
def moves_lift_no_load_off_node(c: BalanceView, l: Any) -> Any:
    """With a previous placement no more is served off node than is allowed, or, with a budget, than was before."""
    return c.off_node(l) <= c.most_off_node_now(l) + TOLERANCE


@BALANCE.register(
    needs=(*GROUPS, *WARM, "rebalance(min_gain)"),
    requires=lambda c, l: c.is_previous_live and c.has_roomy_homes and c.is_measurable(l),
)
def gains_lift_no_load_off_node(c: BalanceView, l: Any) -> Any:
    """Where moves must bring a gain, no more is served off node than is allowed, or than was before."""
    return c.off_node_for_gains(l) <= c.most_off_node_for_gains(l) + TOLERANCE


@BALANCE.register(needs=(*GROUPS, *WARM), requires=lambda c, l, e: c.is_previous_live and c.has_roomy_homes)
def moves_leave_groups_at_home(c: BalanceView, l: Any, e: Any) -> Any:
    """With a previous placement a group that is whole where it is served most is whole on some node after."""
    return implies(c.was_at_home(l, e), c.is_at_home(l, e))


@BALANCE.register(needs=GROUPS, requires=lambda c: c.is_from_nothing and c.has_narrow_homes)
def limits_out_of_reach_are_refused(c: BalanceView) -> Any:
    """Where nodes have too little room for whole groups and all experts have load, none off node is an error."""
    return c.refuses_limits_out_of_reach()


@BALANCE.register(needs=GROUPS)
def wrong_limits_off_node_are_refused(c: BalanceView) -> Any:
    """A limit outside 0 ..= 1, with `deepseek`, or for groups that the nodes do not divide is an error."""
    return c.refuses_wrong_limits()


@BALANCE.register(needs=GROUPS)
def uneven_groups_are_refused(c: BalanceView) -> Any:
    """Under either policy groups that do not divide the experts are an error."""
    return c.refuses_uneven_groups()


@BALANCE.register(needs=CAPACITY, requires=lambda c, s: c.has_curve)
def curve_says_what_plans_say(c: BalanceView, s: Any) -> Any:
    """The curve has, in the order asked for, the balancedness of the plan for so many slots at each point."""
    return (c.slots_on_curve(s) == c.slots_asked_for(s)) & close(c.curve(s), c.balancedness_of_plan(s))


@BALANCE.register(needs=CAPACITY, requires=lambda c, s: c.has_curve)
def curve_stays_below_what_can_be(c: BalanceView, s: Any) -> Any:
    """What no placement exceeds is the sum of the means over that of the lower bounds; the curve is not above."""
    return close(c.most_on_curve(s), c.stated_most(s)) & at_most(c.curve(s), c.most_on_curve(s))


@BALANCE.register(needs=(*CAPACITY, "least_slots"), requires=lambda c, s: c.has_curve)
def least_slots_are_the_first_that_are_enough(c: BalanceView, s: Any) -> Any:
    """The least slots for a balance are the first on the curve that are enough, of those that the step divides."""
    return c.finds_least_slots(s)


@BALANCE.register(needs=("least_slots",), requires=lambda c: c.has_curve)
def wrong_capacities_are_refused(c: BalanceView) -> Any:
    """A balance outside 0 ..= 1, a step below 1, and too few slots for the experts are errors."""
    return c.refuses_wrong_capacities()
