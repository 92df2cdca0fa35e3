"""The reference model as an implementation: the public names that the checkers of placements ask for."""

from expert_placement_spec.balance.capacity import capacity_curve, least_slots
from expert_placement_spec.balance.reference import rebalance
from expert_placement_spec.migration.reference import plan_migration
from expert_placement_spec.placement.reference import Placement
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.reference import Partition
from expert_placement_spec.routing.reference import RoutingTables, route

__all__ = [
    "Partition",
    "Placement",
    "RoutingTables",
    "Topology",
    "capacity_curve",
    "least_slots",
    "plan_migration",
    "rebalance",
    "route",
]
