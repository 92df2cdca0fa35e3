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
from expert_placement._core import MAX_NUM_EXPERTS, POLICIES, STRATEGIES, ExpertMap, Topology, build_info
from expert_placement.partition import Partition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from expert_placement.balance import rebalance
    from expert_placement.capacity import Capacity, capacity_curve, least_slots
    from expert_placement.migration import Migration, Traffic, plan_migration
    from expert_placement.names import Policy, Strategy
    from expert_placement.placement import LayerReport, Placement

__version__ = _core.VERSION

__all__ = [
    "MAX_NUM_EXPERTS",
    "POLICIES",
    "STRATEGIES",
    "Capacity",
    "ExpertMap",
    "LayerReport",
    "Migration",
    "Partition",
    "Placement",
    "Policy",
    "Strategy",
    "Topology",
    "Traffic",
    "__version__",
    "build_info",
    "capacity_curve",
    "least_slots",
    "plan_migration",
    "rebalance",
]

# What is loaded when it is first asked for: a partition needs none of it.
_LATER = {
    "Capacity": "capacity",
    "LayerReport": "placement",
    "Migration": "migration",
    "Placement": "placement",
    "Policy": "names",
    "Strategy": "names",
    "Traffic": "migration",
    "capacity_curve": "capacity",
    "least_slots": "capacity",
    "plan_migration": "migration",
    "rebalance": "balance",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
