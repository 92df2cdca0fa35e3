"""Placement on tensors: the partition in torch operations, and the routing of top-k ids.

Everything here runs where the arguments are, never waits for the device, and can be compiled with
`torch.compile(fullgraph=True, dynamic=True)` or captured in a CUDA graph. That rules out looking at the values of a
tensor, so an id *in a tensor* that is out of range is not an error but has a stated answer. Ids and counts given as
Python ints are checked as everywhere, as far as their range is no tensor's.

The functions of the partition are the same contract as `Partition` in torch operations only, without the compiled core;
of an id that is out of range they say a count of 0, and -1 for everything else. `route` and `RoutingTables` take the
router's top-k ids to slots, counts and offsets: the compiled core makes the tables, and routes on the CPU; on CUDA
Triton does, and elsewhere plain operations. An id that is out of range has no slot there, and is counted nowhere.
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
from expert_placement.torch.routing import Routed, RoutingTables, route, warm_up

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
    "warm_up",
]
