"""The named invariants of migration plans; each stands under its own name in SPEC.md.

`m` is every pair of placements with the plan from one to the other; `i` is every move, `b` every batch, `l` every
layer, `e` every expert, `j` every slot of a layer, `r` every rank, `n` every node, `s` every number of staged experts.
"""

# The letters are those of SPEC.md, where l is a layer.
# ruff: noqa: E741

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.law import Laws
from expert_placement_spec.logic import choose

if TYPE_CHECKING:
    from expert_placement_spec.migration.view import MigrationView

MIGRATION = Laws("m", ("i", "b", "l", "e", "j", "r", "n", "s"))

WRITES = ("plan.write_batches",)
NODE_LIMIT = ("plan_migration(max_node_transfers)",)
STAGING_LIMIT = ("plan_migration(max_staged)",)


@MIGRATION.register(needs=WRITES)
def migration_tables_are_int32_of_stated_shape(m: MigrationView) -> Any:
    """Moves, batches and write batches are int32 of the stated shapes, and M is the number of moves."""
    return m.tables_are_well_formed()


@MIGRATION.register()
def changed_slots_are_moved_to(m: MigrationView, l: Any, j: Any) -> Any:
    """One move goes to each slot that comes to hold another expert, and none to any other."""
    is_changed = (m.new(l, j) != m.old(l, j)) & (m.new(l, j) != -1)
    return m.arrivals(l, j) == choose(is_changed, 1, 0)


@MIGRATION.register()
def moves_bring_what_is_wanted(m: MigrationView, i: Any) -> Any:
    """The expert of a move is the one that its destination is to hold."""
    return m.expert(i) == m.new(m.layer(i), m.destination(i))


@MIGRATION.register()
def sources_hold_the_expert(m: MigrationView, i: Any) -> Any:
    """The source of a move holds its expert in the old placement, on a rank that is active in the new one."""
    return (m.old(m.layer(i), m.source(i)) == m.expert(i)) & m.is_active(m.rank(m.source(i)))


@MIGRATION.register()
def sources_are_as_near_as_can_be(m: MigrationView, i: Any) -> Any:
    """No slot that holds the expert of a move is nearer to its destination than the source."""
    return m.distance(i) == m.least_distance(i)


@MIGRATION.register()
def senders_are_spared(m: MigrationView, i: Any) -> Any:
    """Of ranks equally near the one sends that has sent least, destinations taken in their order."""
    return m.source(i) == m.stated_source(m.layer(i), m.destination(i))


@MIGRATION.register()
def batches_cut_the_moves(m: MigrationView) -> Any:
    """The batches begin with move 0, end with the last, and hold a move each."""
    return m.batches_cut_the_moves()


@MIGRATION.register()
def no_rank_sends_or_receives_twice(m: MigrationView, b: Any, r: Any) -> Any:
    """In a batch a rank sends at most once, and receives at most once; copies inside a rank do not count."""
    return (m.sends(b, r) <= 1) & (m.receives(b, r) <= 1)


@MIGRATION.register()
def batches_are_as_few_as_can_be(m: MigrationView) -> Any:
    """Without limits there are as many batches as the busiest rank sends or receives; one for moves inside ranks."""
    return m.unlimited.num_batches == m.unlimited.fewest_batches


@MIGRATION.register(needs=WRITES)
def writes_follow_reads(m: MigrationView, i: Any) -> Any:
    """A move is written at the end of its own batch or of a later one."""
    return (m.read(i) <= m.write(i)) & (m.write(i) < m.num_batches)


@MIGRATION.register(needs=WRITES)
def nothing_is_read_too_late(m: MigrationView, i: Any) -> Any:
    """No source is written before the batch in which it is read has ended."""
    return m.read(i) <= m.overwritten_at(m.layer(i), m.source(i))


@MIGRATION.register(needs=WRITES)
def plan_ends_in_the_new_placement(m: MigrationView, l: Any, j: Any) -> Any:
    """Carried out batch by batch, the plan leaves in every slot the expert that it is to hold."""
    return (m.final(l, j) == m.new(l, j)) | (m.new(l, j) == -1)


@MIGRATION.register(needs=WRITES)
def interruptions_lose_nothing(m: MigrationView, b: Any, l: Any, e: Any) -> Any:
    """After every batch every expert has a replica on an active rank."""
    return m.replicas_after(b, l, e) >= 1


@MIGRATION.register(needs=(*WRITES, "plan.is_interruption_safe"))
def safety_is_told_truly(m: MigrationView) -> Any:
    """The plan says that it is safe to interrupt exactly where every expert has a replica after every batch."""
    return m.is_said_to_be_safe == m.is_safe


@MIGRATION.register(needs=WRITES)
def writes_wait_for_copies(m: MigrationView, i: Any) -> Any:
    """A move is written with its batch, or with the last copy of what its destination held, if that is later."""
    return m.write(i) == m.stated_write(i)


@MIGRATION.register(needs=(*WRITES, "plan.num_staged"))
def staging_is_the_stated_peak(m: MigrationView) -> Any:
    """The staging is the most experts that a rank has read and not yet written, before a batch writes."""
    return m.num_staged == m.peak_staging


@MIGRATION.register(needs=("plan.apply",))
def weights_follow_the_moves(m: MigrationView, l: Any, j: Any) -> Any:
    """Applied to weights, the plan puts into every destination what was in its source, and leaves other slots."""
    return (m.applied(l, j) == m.expected(l, j)) & m.applied_otherwise(l, j)


@MIGRATION.register()
def nothing_moves_where_nothing_changes(m: MigrationView) -> Any:
    """From a placement to itself there are no moves and no batches."""
    return m.is_empty_where_nothing_changes()


@MIGRATION.register()
def migrations_repeat_themselves(m: MigrationView) -> Any:
    """The same placements give the same plan."""
    return m.is_repeated()


@MIGRATION.register()
def ranks_of_the_old_placement_change_nothing(m: MigrationView) -> Any:
    """The plan is the same whatever nodes, speeds and active ranks the old placement has: the new one's count."""
    return m.is_the_same_from_other_ranks()


@MIGRATION.register()
def missing_sources_are_refused(m: MigrationView) -> Any:
    """An expert that no active rank held is an error before anything moves."""
    return m.refuses_missing_sources()


@MIGRATION.register()
def other_shapes_are_refused(m: MigrationView) -> Any:
    """Placements of different layers, slots or slots of the ranks are an error."""
    return m.refuses_other_shapes()


@MIGRATION.register(needs=("plan.senders", "plan.receivers"))
def senders_and_receivers_are_told(m: MigrationView, i: Any) -> Any:
    """The sender of a move is the rank of its source, and the receiver that of its destination."""
    return (m.sender(i) == m.rank(m.source(i))) & (m.receiver(i) == m.rank(m.destination(i)))


@MIGRATION.register(needs=("plan.traffic",))
def traffic_is_of_transfers(m: MigrationView, b: Any, r: Any) -> Any:
    """A rank sends, and receives, the bytes of its transfers in a batch, each of its layer's size; copies are free."""
    return (m.sent(b, r) == m.stated_sent(b, r)) & (m.received(b, r) == m.stated_received(b, r))


@MIGRATION.register(needs=("plan.traffic",))
def traffic_is_conserved(m: MigrationView, b: Any) -> Any:
    """In a batch as much is sent as received: one size for all layers, for each transfer."""
    bytes_of_all = m.size * m.transfers_in(b)
    return (m.sent_by_all(b) == bytes_of_all) & (m.received_by_all(b) == bytes_of_all)


@MIGRATION.register(needs=("plan.traffic",))
def wrong_sizes_are_refused(m: MigrationView) -> Any:
    """Sizes of another number of layers, and negative ones, are errors."""
    return m.refuses_wrong_sizes()


@MIGRATION.register(needs=NODE_LIMIT, requires=lambda m, b, n: m.has_node_limit)
def node_transfers_are_limited(m: MigrationView, b: Any, n: Any) -> Any:
    """In a batch no more transfers leave a node for others than may, and no more enter it."""
    return (m.leaving(b, n) <= m.node_limit) & (m.entering(b, n) <= m.node_limit)


@MIGRATION.register(needs=NODE_LIMIT, requires=lambda m: m.has_node_limit and not m.has_staging_limit)
def batches_are_split_as_little_as_can_be(m: MigrationView) -> Any:
    """A limit on transfers between nodes makes of a batch as many as its busiest node needs."""
    return m.num_batches == m.stated_batches


@MIGRATION.register(needs=STAGING_LIMIT, requires=lambda m: m.has_staging_limit)
def staging_is_limited(m: MigrationView) -> Any:
    """No rank keeps more experts beside its slots than it may."""
    return m.peak_staging <= m.staging_limit


@MIGRATION.register(needs=STAGING_LIMIT, requires=lambda m: m.has_staging_limit and not m.has_node_limit)
def staging_costs_no_more_than_layer_by_layer(m: MigrationView) -> Any:
    """With a limit on staging there are no more batches than layers that follow one another need."""
    return m.num_batches <= m.batches_by_layer


@MIGRATION.register(needs=(*NODE_LIMIT, *STAGING_LIMIT), requires=lambda m: m.is_limited)
def limits_change_no_moves(m: MigrationView) -> Any:
    """With limits the moves are the same, in other batches."""
    return sorted(m.moves) == m.unlimited_moves


@MIGRATION.register(needs=(*NODE_LIMIT, *STAGING_LIMIT))
def loose_limits_change_nothing(m: MigrationView) -> Any:
    """Limits that the plan without any keeps to give that plan."""
    return m.is_kept_by_loose_limits()


@MIGRATION.register(needs=STAGING_LIMIT)
def staging_out_of_reach_is_refused(m: MigrationView, s: Any) -> Any:
    """A plan stages what it may or is an error that names how many are staged, as it is where nothing may be staged."""
    return m.stages_or_refuses(s)


@MIGRATION.register(needs=(*NODE_LIMIT, *STAGING_LIMIT))
def wrong_limits_of_batches_are_refused(m: MigrationView) -> Any:
    """Less than one transfer between nodes, and fewer than no staged experts, are errors."""
    return m.refuses_wrong_limits()
