"""What `expert_placement.plot` draws of recorded loads: every strategy beside the old rule, and placements."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from expert_placement.cli.loads import rank_loads
from expert_placement.cli.rules import OLD_RULE, OldRule, every_strategy
from expert_placement.plot import Panel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from expert_placement import Placement
    from expert_placement.cli.loads import LoadTable

__all__ = ["comparison", "placed"]


def comparison(table: LoadTable, num_ranks: int) -> list[Panel]:
    """A panel for the old rule, then one for each strategy, with all layers of the table."""
    rules = {OLD_RULE: OldRule(table.num_experts, num_ranks), **every_strategy(table.num_experts, num_ranks)}
    panels = []
    for name, rule in rules.items():
        loads = rank_loads(rule, table.loads)
        counts = [rule.count(rank) for rank in range(num_ranks)]
        panels.append(Panel(name, counts, loads.dense(), loads.balancedness()))
    return panels


def placed(name: str, placement: Placement, loads: npt.NDArray[Any]) -> Panel:
    """A panel for a placement, with the times of its ranks under loads `[L, E]` or `[W, L, E]`, added up over windows.

    Where layers differ in the number of experts that a rank holds, it is the most.
    """
    times = placement.rank_loads(loads).numpy() / np.array(placement.topology.speeds or 1.0)
    table = placement.physical_to_logical().numpy()
    firsts = placement.slot_offsets().tolist()
    counts = [int((table[:, first:last] >= 0).sum(axis=1).max()) for first, last in pairwise(firsts)]
    return Panel(
        name,
        counts,
        times if times.ndim == 2 else times.sum(axis=0),
        placement.balancedness(loads),
        np.array([layer.mean for layer in placement.report(loads)]),
    )
