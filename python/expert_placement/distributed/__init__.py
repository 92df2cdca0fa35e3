"""Placements across processes: agreed on, measured, moved to and kept balanced, over `torch.distributed`.

`agreement` compares placements, `loads` adds up what ranks counted, `migration` moves weights from one placement to the
next while it can be interrupted, and `balancer` is what an engine calls once a step to have all of that done.
`expert_parallel` dispatches tokens to the ranks of their experts and combines what comes back.

Ranks are those of the process group, which are the placement's.
"""

from typing import TYPE_CHECKING

from expert_placement.distributed.agreement import DisagreementError, agree
from expert_placement.distributed.balancer import BalanceError, Balancer, BalancerState, MovingCost, Planning
from expert_placement.distributed.loads import LoadWindows, all_reduce_load
from expert_placement.distributed.migration import MigrationError, Moved, migrate, placement_after

if TYPE_CHECKING:
    from expert_placement.distributed.expert_parallel import ExpertParallel

__all__ = [
    "BalanceError",
    "Balancer",
    "BalancerState",
    "DisagreementError",
    "ExpertParallel",
    "LoadWindows",
    "MigrationError",
    "Moved",
    "MovingCost",
    "Planning",
    "agree",
    "all_reduce_load",
    "migrate",
    "placement_after",
]


def __getattr__(name: str) -> object:
    # Loaded when it is first asked for: it brings the routing and its kernels.
    if name != "ExpertParallel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from expert_placement.distributed import expert_parallel

    value: object = expert_parallel.ExpertParallel
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
