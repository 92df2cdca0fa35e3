"""The chapters whose laws are about cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.balance import domain as balance
from expert_placement_spec.balance.invariants import BALANCE
from expert_placement_spec.balance.view import BalanceCase, BalanceView
from expert_placement_spec.cases import Chapter
from expert_placement_spec.migration import domain as migration
from expert_placement_spec.migration.invariants import MIGRATION
from expert_placement_spec.migration.view import MigrationCase, MigrationView
from expert_placement_spec.placement import domain as placement
from expert_placement_spec.placement.invariants import PLACEMENT
from expert_placement_spec.placement.view import PlacementCase, PlacementView
from expert_placement_spec.routing import domain as routing
from expert_placement_spec.routing.invariants import ROUTING
from expert_placement_spec.routing.view import RoutingCase, RoutingView

if TYPE_CHECKING:
    from expert_placement_spec.law import Law

CHAPTERS = {
    "placement": Chapter(
        PLACEMENT,
        PlacementCase,
        PlacementView,
        ("Placement.physical_to_logical",),
        placement.domains(),
        placement.drawn,
        placement.real(),
    ),
    "balance": Chapter(
        BALANCE, BalanceCase, BalanceView, ("rebalance",), balance.domains(), balance.drawn, balance.real()
    ),
    "migration": Chapter(
        MIGRATION,
        MigrationCase,
        MigrationView,
        ("plan_migration",),
        migration.domains(),
        migration.drawn,
        migration.real(),
    ),
    "routing": Chapter(
        ROUTING,
        RoutingCase,
        RoutingView,
        ("RoutingTables", "route"),
        routing.domains(),
        routing.drawn,
        routing.real(),
    ),
}

PARTITION = "partition"
"""The chapter that has checkers of its own."""


def chapter_of(law: str) -> tuple[Chapter, Law]:
    """The chapter that has a law of this name, and the law.

    Raises:
        ValueError: no chapter has one.
    """
    for chapter in CHAPTERS.values():
        if law in chapter.laws:
            return chapter, chapter.laws[law]
    names = ", ".join(name for chapter in CHAPTERS.values() for name in chapter.laws)
    raise ValueError(f"invariant `{law}` is unknown, expected one of {names}")
