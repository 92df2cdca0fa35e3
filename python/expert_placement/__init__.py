"""Which rank owns which expert: the single source of truth for mixture-of-experts placement.

    >>> from expert_placement import Partition
    >>> p = Partition(num_experts=30, num_ranks=8)
    >>> [p.count(rank) for rank in range(8)]
    [4, 4, 4, 4, 4, 4, 3, 3]
    >>> p.owner(29), p.local_index(29), p.experts(7)
    (7, 2, range(27, 30))

Importing this package imports neither torch nor numpy; the first tensor does.
"""

from expert_placement import _core
from expert_placement._core import MAX_NUM_EXPERTS, STRATEGIES, ExpertMap, Topology, build_info
from expert_placement.balance import rebalance
from expert_placement.migration import Migration, plan_migration
from expert_placement.partition import Partition
from expert_placement.placement import LayerReport, Placement

__version__ = _core.VERSION

__all__ = [
    "MAX_NUM_EXPERTS",
    "STRATEGIES",
    "ExpertMap",
    "LayerReport",
    "Migration",
    "Partition",
    "Placement",
    "Topology",
    "__version__",
    "build_info",
    "plan_migration",
    "rebalance",
]
