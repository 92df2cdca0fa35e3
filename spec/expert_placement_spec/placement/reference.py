"""The reference model of a placement. SPEC.md, "Placement" and "Loads".

The physical-to-logical table and the ranks are the only state; each answer is read off the table by its definition.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np

from expert_placement_spec.balance import homes, measure
from expert_placement_spec.floats import in_order
from expert_placement_spec.placement.loads import checked_loads, summed_windows
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.reference import MAX, Partition
from expert_placement_spec.routing import weights

EMPTY = -1
"""The entry of a slot that holds nothing."""
DIGEST_VERSION = 1
"""The first byte of a digest; another layout of the content gets another one."""


class Placement:
    """L layers of P slots, each holding one of E logical experts or nothing.

    Args:
        table: the expert of each slot or -1, of shape [L, P], or [P] for one layer.
        num_experts: E.
        topology: the ranks.

    Raises:
        ValueError: an entry that is neither -1 nor an expert, an expert that a layer leaves out, content on a rank that
            is not active, or another number of slots than the ranks have.
    """

    def __init__(self, table: Any, num_experts: int, topology: Topology) -> None:
        if not 0 <= num_experts <= MAX:
            raise ValueError(f"num_experts={num_experts} is out of range, expected 0..={MAX}")
        array = np.asarray(table)
        if array.ndim == 1:
            array = array[np.newaxis]
        if array.ndim != 2 or not len(array):
            raise ValueError(f"physical_to_logical has shape {array.shape}, expected [slots] or [layers, slots]")
        self.table: list[list[int]] = array.tolist()
        self.num_experts = num_experts
        self.num_layers, self.num_slots = array.shape
        self.num_ranks = topology.num_ranks
        self.topology = topology
        self.offsets = topology.slot_offsets(self.num_slots)
        for layer, row in enumerate(self.table):
            self._check(layer, row)

    def _check(self, layer: int, row: list[int]) -> None:
        for slot, entry in enumerate(row):
            if not EMPTY <= entry < self.num_experts:
                raise ValueError(
                    f"physical_to_logical[{layer}, {slot}]={entry} is out of range, expected -1 or an expert"
                )
        for expert in range(self.num_experts):
            if expert not in row:
                raise ValueError(f"expert {expert} has no slot in layer {layer}, expected every expert in at least one")
        for rank in range(self.num_ranks):
            if not self.topology.is_active(rank) and any(entry != EMPTY for entry in self.local_experts(layer, rank)):
                raise ValueError(f"layer {layer} has content on rank {rank}, which is not active, expected -1")

    @classmethod
    def from_physical_to_logical(cls, table: Any, num_experts: int, topology: Topology) -> Placement:
        """A placement from any engine's table."""
        return cls(table, num_experts, topology)

    @classmethod
    def from_partition(cls, partition: Partition, num_layers: int = 1) -> Placement:
        """One replica of each expert and a slot for it on the rank that owns it, every layer alike."""
        ranks = range(partition.num_ranks)
        row = [expert for rank in ranks for expert in partition.experts(rank)]
        topology = Topology(partition.num_ranks, slots_per_rank=partition.counts())
        return cls([row] * num_layers, partition.num_experts, topology)

    def physical_to_logical(self) -> list[list[int]]:
        """The expert of each slot, or -1: [L, P]."""
        return [list(row) for row in self.table]

    def slot_offsets(self) -> list[int]:
        """Where each rank's slots begin, and P last: [R + 1]."""
        return list(self.offsets)

    def replica_counts(self) -> list[list[int]]:
        """How many slots hold each expert: [L, E]."""
        return [[row.count(expert) for expert in range(self.num_experts)] for row in self.table]

    @property
    def most_replicas(self) -> int:
        """The replicas of the most replicated expert of any layer, K."""
        return max((count for counts in self.replica_counts() for count in counts), default=0)

    def logical_to_physical(self, width: int | None = None) -> list[list[list[int]]]:
        """The slots of each expert, ascending and padded with -1: [L, E, K], or wider where a width is given."""
        width = self.most_replicas if width is None else width
        if width < self.most_replicas:
            raise ValueError(f"width={width} is out of range, expected at least {self.most_replicas}")
        return [[padded(slots_of(row, expert), width) for expert in range(self.num_experts)] for row in self.table]

    def local_experts(self, layer: int, rank: int) -> list[int]:
        """The expert of each of the rank's slots, or -1."""
        if not 0 <= layer < self.num_layers:
            raise IndexError(f"layer={layer} is out of range, expected 0..{self.num_layers}")
        if not 0 <= rank < self.num_ranks:
            raise IndexError(f"rank={rank} is out of range, expected 0..{self.num_ranks}")
        return self.table[layer][self.offsets[rank] : self.offsets[rank + 1]]

    def experts_to_load(self, layer: int, rank: int) -> list[int]:
        """The experts whose weights the rank needs, ascending, each once."""
        return sorted(set(self.local_experts(layer, rank)) - {EMPTY})

    def expert_map(self, layer: int, rank: int) -> list[int]:
        """The first local slot of each expert that the rank holds, and -1 elsewhere."""
        held = self.local_experts(layer, rank)
        return [held.index(expert) if expert in held else -1 for expert in range(self.num_experts)]

    def expert_map_with_shared(self, layer: int, rank: int, num_shared_experts: int) -> list[int]:
        """The index map, and the shared experts in the local slots after all of the rank's own."""
        self._check_shared(num_shared_experts)
        first = len(self.local_experts(layer, rank))
        return [*self.expert_map(layer, rank), *range(first, first + num_shared_experts)]

    def expert_map_with_sentinel(self, layer: int, rank: int) -> list[int]:
        """The index map and one more entry, -1."""
        return [*self.expert_map(layer, rank), -1]

    def expert_mask(self, layer: int, rank: int, num_shared_experts: int = 0) -> list[int]:
        """1 for each expert that the rank holds, shared ones included, and a trailing 0."""
        self._check_shared(num_shared_experts)
        return [*(int(slot >= 0) for slot in self.expert_map(layer, rank)), *[1] * num_shared_experts, 0]

    def _check_shared(self, num_shared_experts: int) -> None:
        # A partition refuses the same numbers.
        Partition(self.num_experts, 1)._check_shared(num_shared_experts)

    def rank_loads(self, loads: Any) -> list[Any]:
        """The load of every rank, [L, R], or [W, L, R] for loads of windows."""
        windows = checked_loads(loads, self.num_experts, self.num_layers)
        answer = [
            [measure.rank_loads(row, layer, self.offsets) for row, layer in zip(self.table, window, strict=True)]
            for window in windows
        ]
        return answer if np.ndim(loads) == 3 else answer[0]

    def report(self, loads: Any) -> list[measure.LayerReport]:
        """One report for each layer."""
        windows = checked_loads(loads, self.num_experts, self.num_layers)
        return [
            measure.report(layer, row, [window[layer] for window in windows], self.topology)
            for layer, row in enumerate(self.table)
        ]

    def balancedness(self, loads: Any) -> float:
        """The sum over layers and windows of the mean time over that of the largest; 1 where there is no load."""
        reports = self.report(loads)
        return measure.ratio(
            in_order(report.mean for report in reports), in_order(report.largest for report in reports)
        )

    def off_node(self, loads: Any, num_groups: int) -> list[float]:
        """For each layer the part of its load, added up over the windows, that is served off node."""
        windows = checked_loads(loads, self.num_experts, self.num_layers)
        most = max(self.num_experts, 1)
        if not 1 <= num_groups <= most:
            raise ValueError(f"num_groups={num_groups} is out of range, expected 1..={most}")
        if self.num_experts % num_groups:
            raise ValueError(f"num_experts={self.num_experts} does not divide by num_groups={num_groups}")
        return [
            homes.off_node(row, layer, self.offsets, self.topology, num_groups)
            for row, layer in zip(self.table, summed_windows(windows), strict=True)
        ]

    def replica_weights(self, loads: Any) -> list[list[float]]:
        """The part of its expert's load that each slot should serve: [L, P]; windows are added up."""
        windows = checked_loads(loads, self.num_experts, self.num_layers)
        return [
            weights.replica_weights(row, layer, self.offsets, self.topology)
            for row, layer in zip(self.table, summed_windows(windows), strict=True)
        ]

    def digest(self) -> str:
        """A hash of the content: two digits of version and a SHA-256, in hexadecimal."""
        numbers = (self.num_experts, self.num_layers, self.num_slots, self.num_ranks, *self.offsets)
        content = struct.pack("<B", DIGEST_VERSION) + struct.pack(f"<{len(numbers)}I", *numbers)
        for row in self.table:
            content += struct.pack(f"<{len(row)}i", *row)
        return f"{DIGEST_VERSION:02x}{hashlib.sha256(content).hexdigest()}"


def slots_of(row: list[int], expert: int) -> list[int]:
    """The slots that hold an expert, ascending."""
    return [slot for slot, entry in enumerate(row) if entry == expert]


def padded(values: list[int], width: int) -> list[int]:
    """The values and as many -1 as the width needs."""
    return values + [EMPTY] * (width - len(values))
