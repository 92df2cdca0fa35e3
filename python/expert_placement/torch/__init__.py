"""The same contract in torch operations only: on any device, traceable, capturable, without the compiled core.

Everything here runs where the arguments are, never waits for the device, and can be compiled with
`torch.compile(fullgraph=True, dynamic=True)` or captured in a CUDA graph. That rules out looking at the values of a
tensor, so an id *in a tensor* that is out of range is not an error but has a stated answer: a count of 0, and -1 for
everything else. Ids and counts given as Python ints are checked as everywhere, as far as their range is no tensor's.

`route` and its tables take the router's top-k ids to slots, counts and offsets; these use the compiled core on the CPU,
Triton on CUDA, and plain operations elsewhere.
"""

from expert_placement.torch.partition import (
    count,
    expert_map,
    expert_map_with_sentinel,
    expert_map_with_shared,
    expert_mask,
    local_index,
    owner,
    partition_counts,
    partition_local_indices,
    partition_offsets,
    partition_owners,
    partition_starts,
    start,
)
from expert_placement.torch.routing import Routed, RoutingTables, route

__all__ = [
    "Routed",
    "RoutingTables",
    "count",
    "expert_map",
    "expert_map_with_sentinel",
    "expert_map_with_shared",
    "expert_mask",
    "local_index",
    "owner",
    "partition_counts",
    "partition_local_indices",
    "partition_offsets",
    "partition_owners",
    "partition_starts",
    "route",
    "start",
]
