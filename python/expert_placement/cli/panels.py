"""What `expert_placement.plot` draws of recorded loads: every strategy beside the old rule."""

from __future__ import annotations

from expert_placement.cli.loads import rank_loads
from expert_placement.cli.rules import OLD_RULE, OldRule, every_strategy
from expert_placement.plot import Panel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from expert_placement.cli.loads import LoadTable

__all__ = ["comparison"]


def comparison(table: LoadTable, num_ranks: int) -> list[Panel]:
    """A panel for the old rule, then one for each strategy, with all layers of the table."""
    rules = {OLD_RULE: OldRule(table.num_experts, num_ranks), **every_strategy(table.num_experts, num_ranks)}
    panels = []
    for name, rule in rules.items():
        loads = rank_loads(rule, table.loads)
        counts = [rule.count(rank) for rank in range(num_ranks)]
        panels.append(Panel(name, counts, loads.dense(), loads.balancedness()))
    return panels
