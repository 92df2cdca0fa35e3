"""vLLM's functions as implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from expert_placement_spec.engines.reading import PartitionOfRanks, Planner, Table, equal_ranks, tensor
from expert_placement_spec.engines.sources import EngineFunction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from expert_placement_spec.placement.topology import Topology

DETERMINE_EXPERT_MAP = EngineFunction(
    "vllm",
    "determine_expert_map",
    (("vllm/model_executor/layers/fused_moe/expert_map_manager.py", ("determine_expert_map",)),),
)
COMPUTE_LOCAL_EXPERT_IDS = EngineFunction(
    "vllm",
    "compute_local_expert_ids",
    (("vllm/model_executor/model_loader/ep_weight_filter.py", ("compute_local_expert_ids",)),),
)
EPLB_POLICY = EngineFunction(
    "vllm",
    "DefaultEplbPolicy.rebalance_experts",
    (
        ("vllm/distributed/eplb/policy/abstract.py", ("AbstractEplbPolicy",)),
        ("vllm/distributed/eplb/policy/default.py", ("DefaultEplbPolicy",)),
    ),
)


class ExpertMap(PartitionOfRanks):
    """`determine_expert_map`, as it answers: of one rank alone there is no map."""

    ask: ClassVar[Callable[..., Any]] = DETERMINE_EXPERT_MAP

    def count(self, rank: int) -> int:
        """The number that comes with the map."""
        return int(self.ask(self.num_ranks, rank, self.num_experts, self.strategy)[0])

    def expert_map(self, rank: int) -> Any:
        """The map."""
        return self.ask(self.num_ranks, rank, self.num_experts, self.strategy)[1]

    def expert_map_with_shared(self, rank: int, num_shared_experts: int) -> Any:
        """The map where a mask is asked for."""
        return self.ask(self.num_ranks, rank, self.num_experts, self.strategy, num_shared_experts, True)[1]

    def expert_mask(self, rank: int, num_shared_experts: int = 0) -> Any:
        """The mask."""
        return self.ask(self.num_ranks, rank, self.num_experts, self.strategy, num_shared_experts, True)[2]

    def locals_of(self, rank: int) -> Mapping[int, int]:
        """The entries of the map that are none of -1."""
        return {expert: index for expert, index in enumerate(self.expert_map(rank).tolist()) if index != -1}


class ExpertMapOrAll(ExpertMap):
    """The same, where no map is read as the function documents it: every expert is local, at its own index."""

    def locals_of(self, rank: int) -> Mapping[int, int]:
        """The entries of the map, or every expert."""
        is_absent = self.expert_map(rank) is None
        return {expert: expert for expert in range(self.num_experts)} if is_absent else super().locals_of(rank)


class LocalExpertIds(PartitionOfRanks):
    """`compute_local_expert_ids`, as it answers: of one rank alone there is no set. A set is taken as ascending."""

    ask: ClassVar[Callable[..., Any]] = COMPUTE_LOCAL_EXPERT_IDS

    def local_experts(self, rank: int) -> list[int]:
        """The set in ascending order."""
        return sorted(self.ask(self.num_experts, self.num_ranks, rank, self.strategy))

    def locals_of(self, rank: int) -> Mapping[int, int]:
        """The place of each expert in that order."""
        return {expert: index for index, expert in enumerate(self.local_experts(rank))}


class LocalExpertIdsOrAll(LocalExpertIds):
    """The same, where no set is read as the function documents it: every expert is local."""

    def local_experts(self, rank: int) -> list[int]:
        """The set in ascending order, or every expert."""
        held = self.ask(self.num_experts, self.num_ranks, rank, self.strategy)
        return list(range(self.num_experts)) if held is None else sorted(held)


class EplbPolicy(Planner):
    """`DefaultEplbPolicy.rebalance_experts`, which takes a previous table and no budget."""

    ask: ClassVar[Callable[..., Any]] = EPLB_POLICY

    @classmethod
    def rebalance(
        cls,
        loads: Any,
        num_slots: int,
        topology: Topology,
        policy: str = "deepseek",
        num_groups: int = 1,
        previous: Table | None = None,
        max_moves: int | None = None,
    ) -> Table:
        """The table that the function gives."""
        import torch

        equal_ranks(topology, policy)
        if max_moves is not None:
            raise TypeError("the engine's function takes no budget")
        old = None if previous is None else torch.tensor(previous.rows)
        return Table(cls.ask(tensor(loads), num_slots, num_groups, topology.num_nodes, topology.num_ranks, old))
