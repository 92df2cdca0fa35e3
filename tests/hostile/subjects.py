"""How everything public is called: the kind of each parameter, and an ordinary value for it."""

from __future__ import annotations

import functools
import importlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import expert_placement as ep
import numpy as np
import torch
import torch.distributed as dist
from expert_placement import distributed, plot
from expert_placement.torch import RoutingTables

from tests.hostile import paths, values
from tests.hostile.judging import Subject
from tests.hostile.surface import MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.hostile.judging import Value

    Kind = Callable[[Any], list[Value]]


@dataclass(frozen=True)
class Fed:
    """What a parameter is fed.

    Attributes:
        kind: makes the hostile values of an ordinary one.
        usual: makes the ordinary value.
        is_optional: whether None is an ordinary value too.
        of: makes what the hostile values are made of, where that is another.
    """

    kind: Kind
    usual: Callable[[], Any]
    is_optional: bool = False
    of: Callable[[], Any] | None = None

    def values(self) -> list[Value]:
        """The hostile values."""
        made = self.kind((self.of or self.usual)())
        return made if self.is_optional else [*made, values.NOTHING]


def fed(kind: Kind, usual: Any) -> Fed:
    """A parameter that has to be given; a function makes what is changed by a call."""
    return Fed(kind, usual if callable(usual) and not isinstance(usual, type) else lambda: usual)


def maybe(kind: Kind, usual: Any = None, *, of: Any = None) -> Fed:
    """A parameter that may be None; hostile values may be made of another than the usual one."""
    return Fed(kind, fed(kind, usual).usual, is_optional=True, of=None if of is None else lambda: of)


TABLE = [[0, 1, 2, 3, 4, 5, 0, 1], [5, 4, 3, 2, 1, 0, 5, 4]]
WEIGHTS = [[1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0, 2.0], [1.0] * 8]
LOADS = [[8.0, 4.0, 2.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 8.0, 4.0]]


def partition() -> ep.Partition:
    """30 experts on 8 ranks."""
    return ep.Partition(30, 8)


def placement(num_ranks: int = 2) -> ep.Placement:
    """Two layers of 6 experts in 8 slots."""
    return ep.Placement.from_physical_to_logical(TABLE, 6, ep.Topology(num_ranks))


def other(num_ranks: int = 2) -> ep.Placement:
    """Another placement of the same shape."""
    return ep.Placement.from_physical_to_logical([row[::-1] for row in TABLE], 6, ep.Topology(num_ranks))


def migration(num_ranks: int = 2) -> ep.Migration:
    """The way from one to the other."""
    return ep.plan_migration(placement(num_ranks), other(num_ranks))


def tables() -> RoutingTables:
    """The tables of two layers, with local slots of rank 1."""
    return RoutingTables(placement(), rank=1)


def weights() -> torch.Tensor:
    """What each slot of two layers holds."""
    return torch.arange(2 * 8 * 3, dtype=torch.float32).reshape(2, 8, 3)


@functools.cache
def group() -> None:
    """The process group of this process alone, which is made once."""
    store = Path(tempfile.mkdtemp()) / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


def alone(make: Callable[..., Any]) -> Callable[[], Any]:
    """Something of a placement on one rank, once there is a process group."""

    def made() -> Any:
        group()
        return make(1)

    return made


def layer() -> distributed.ExpertParallel:
    """A layer of 6 experts, 4 wide, on one rank."""
    group()
    return distributed.ExpertParallel(placement(1), 4, 2, 2)


def balancer() -> distributed.Balancer:
    """A balancer of one rank."""
    group()
    return distributed.Balancer(placement(1), weights(), interval=2)


def windows() -> distributed.LoadWindows:
    """Windows of loads of two layers of 6 experts, with something counted."""
    group()
    made = distributed.LoadWindows(2, 6)
    made.record(counted(), placement(1))
    return made


def counted() -> torch.Tensor:
    """How often each slot was chosen."""
    return torch.arange(16).reshape(2, 8)


COUNT, ID = values.integers, values.integers
NUM_EXPERTS, NUM_RANKS, RANK = fed(COUNT, 30), fed(COUNT, 8), fed(ID, 3)
STRATEGY = fed(values.choices, "linear")
POLICY = fed(values.choices, "balanced")
DEVICE = maybe(values.devices, "cpu")
SHARED, NO_SHARED = fed(COUNT, 2), maybe(COUNT, 2)
A_LAYER, A_RANK = fed(ID, 1), fed(ID, 1)
IDS = fed(values.tables, [0, 7, 29])
A_LOAD = fed(values.loads, LOADS)
TOPOLOGY = fed(values.objects, ep.Topology(2))
PLACEMENT = fed(values.objects, placement())
TIMEOUT = fed(values.seconds, 5.0)
SHAPE = {"num_experts": NUM_EXPERTS, "num_ranks": NUM_RANKS}
IN_TORCH = {**SHAPE, "strategy": STRATEGY}
TENSOR_RANK = fed(values.ids_in_tensors, 3)
PLANNED = {
    "policy": POLICY,
    "num_groups": fed(COUNT, 1),
    "max_off_node": maybe(values.floats, of=0.5),
    "num_threads": maybe(COUNT, 1),
}
GROUP = {"group": maybe(values.groups)}
BOTH_GROUPS = {**GROUP, "control_group": maybe(values.groups)}
MAP = [0, -1, 1, -1, 2, -1]
HIDDEN = fed(values.any_tensors, lambda: torch.arange(12, dtype=torch.float32).reshape(3, 4))
SEED, VALID = fed(values.seeds, 3), maybe(values.seeds, 2)
SLOT_LOAD = maybe(values.counters, lambda: torch.zeros(8, dtype=torch.int64))
ON_ONE = fed(values.objects, alone(placement))
DENSE = {
    "router": fed(values.any_tensors, lambda: torch.arange(24.0).reshape(6, 4)),
    "w13": fed(values.any_tensors, lambda: torch.arange(96.0).reshape(6, 4, 4)),
    "w2": fed(values.any_tensors, lambda: torch.arange(48.0).reshape(6, 4, 2)),
}
FLAG = fed(values.bools, False)
PANEL = plot.Panel("a panel", [1, 2], np.array([[1.0, 2.0]]), 0.75)
CURVE = plot.Curve("a curve", [1, 2], [1.0, 2.0])
LAYER_IDS = maybe(values.sequences, [0, 1])
READ = {
    "path": fed(paths.readable, paths.placement_file),
    "format": maybe(values.choices, "native"),
    "num_experts": maybe(COUNT, 6),
    "topology": maybe(values.objects, ep.Topology(2)),
    "layer_ids": LAYER_IDS,
}
PICTURE = fed(paths.writable, lambda: paths.new_file(".png"))
TEXT = fed(values.texts, "a title")

FED: dict[str, dict[str, Fed]] = {
    "expert_placement.Partition": IN_TORCH,
    "expert_placement.Partition.from_config": {
        "config": fed(paths.readable, paths.config_file),
        "num_ranks": NUM_RANKS,
        "strategy": STRATEGY,
        "num_redundant_experts": fed(COUNT, 2),
    },
    **{f"expert_placement.Partition.{name}": {"experts": IDS} for name in ("owner_of", "local_index_of")},
    **{
        f"expert_placement.Partition.{name}": {"ranks": fed(values.tables, [0, 7, 3])}
        for name in ("count_of", "start_of")
    },
    **{f"expert_placement.Partition.{name}": {"rank": RANK} for name in ("count", "start", "experts")},
    **{f"expert_placement.Partition.{name}": {"expert": fed(ID, 7)} for name in ("owner", "local_index")},
    **{
        f"expert_placement.Partition.{name}": {"device": DEVICE}
        for name in ("counts", "starts", "offsets", "owners", "local_indices")
    },
    **{
        f"expert_placement.Partition.{name}": {"rank": RANK, "device": DEVICE}
        for name in ("local_experts", "expert_map", "expert_map_with_sentinel")
    },
    "expert_placement.Partition.expert_map_with_shared": {
        "rank": RANK,
        "num_shared_experts": SHARED,
        "device": DEVICE,
    },
    "expert_placement.Partition.expert_mask": {"rank": RANK, "num_shared_experts": NO_SHARED, "device": DEVICE},
    "expert_placement.Partition.legal_ranks": {"num_experts": NUM_EXPERTS, "max_ranks": maybe(COUNT, 8)},
    "expert_placement.Topology": {
        "num_ranks": fed(COUNT, 4),
        "num_nodes": maybe(COUNT, 2),
        "slots_per_rank": maybe(values.tables, [3, 3, 2, 2]),
        "speeds": maybe(values.sequences, [1.0, 2.0, 1.0, 0.5]),
        "active": maybe(values.sequences, [True, True, False, True]),
    },
    "expert_placement.Topology.node_of": {"rank": A_RANK},
    "expert_placement.Placement": {"placement": PLACEMENT},
    "expert_placement.Placement.from_partition": {
        "partition": fed(values.objects, partition()),
        "num_layers": fed(COUNT, 2),
    },
    "expert_placement.Placement.from_physical_to_logical": {
        "table": fed(values.tables, TABLE),
        "num_experts": fed(COUNT, 6),
        "topology": TOPOLOGY,
    },
    "expert_placement.Placement.load": {"path": fed(paths.readable, paths.placement_file)},
    "expert_placement.Placement.save": {"path": fed(paths.writable, lambda: paths.new_file(".json"))},
    "expert_placement.Placement.logical_to_physical": {"width": maybe(COUNT, 3), "device": DEVICE},
    **{
        f"expert_placement.Placement.{name}": {"device": DEVICE}
        for name in ("physical_to_logical", "replica_counts", "slot_offsets")
    },
    **{
        f"expert_placement.Placement.{name}": {"loads": A_LOAD}
        for name in ("rank_loads", "balancedness", "replica_weights", "report")
    },
    "expert_placement.Placement.off_node": {"loads": A_LOAD, "num_groups": fed(COUNT, 2)},
    **{
        f"expert_placement.Placement.{name}": {"layer": A_LAYER, "rank": A_RANK, "device": DEVICE}
        for name in ("local_experts", "experts_to_load", "expert_map", "expert_map_with_sentinel")
    },
    "expert_placement.Placement.expert_map_with_shared": {
        "layer": A_LAYER,
        "rank": A_RANK,
        "num_shared_experts": SHARED,
        "device": DEVICE,
    },
    "expert_placement.Placement.expert_mask": {
        "layer": A_LAYER,
        "rank": A_RANK,
        "num_shared_experts": NO_SHARED,
        "device": DEVICE,
    },
    "expert_placement.Placement.moves_from": {"previous": fed(values.objects, other())},
    "expert_placement.Placement.balancedness_of": {
        "mean": fed(values.floats, 1.5),
        "largest": fed(values.floats, 2.0),
    },
    "expert_placement.Migration": {"plan": fed(values.objects, migration())},
    "expert_placement.Migration.traffic": {"bytes_per_expert": fed(values.sizes, 7)},
    "expert_placement.Migration.apply": {"weights": fed(values.any_tensors, weights)},
    "expert_placement.ExpertMap.from_partition": {"partition": fed(values.objects, partition()), "rank": RANK},
    "expert_placement.ExpertMap.from_local_experts": {
        "local_experts": fed(values.tables, [0, 2, 4]),
        "num_experts": NUM_EXPERTS,
    },
    "expert_placement.ExpertMap.from_index_map": {
        "expert_map": fed(values.tables, MAP),
        "num_experts": fed(COUNT, 6),
    },
    "expert_placement.ExpertMap.from_index_map_with_sentinel": {
        "expert_map": fed(values.tables, [*MAP, -1]),
        "num_experts": fed(COUNT, 6),
    },
    "expert_placement.ExpertMap.from_index_map_with_shared": {
        "expert_map": fed(values.tables, [*MAP, 3, 4]),
        "num_experts": fed(COUNT, 6),
        "num_shared_experts": SHARED,
    },
    "expert_placement.ExpertMap.from_mask": {
        "expert_mask": fed(values.tables, [1, 0, 1, 0, 1, 0, 1, 1, 0]),
        "num_experts": fed(COUNT, 6),
        "num_shared_experts": NO_SHARED,
    },
    **{
        f"expert_placement.ExpertMap.{name}": {"device": DEVICE}
        for name in ("local_experts", "index_map", "index_map_with_sentinel")
    },
    "expert_placement.ExpertMap.index_map_with_shared": {"num_shared_experts": SHARED, "device": DEVICE},
    "expert_placement.ExpertMap.mask": {"num_shared_experts": NO_SHARED, "device": DEVICE},
    "expert_placement.capacity_curve": {
        "loads": A_LOAD,
        "num_slots": fed(values.sequences, [6, 8]),
        "topology": TOPOLOGY,
        **PLANNED,
        "looked": fed(values.callables, lambda: _ignore),
    },
    "expert_placement.least_slots": {
        "loads": A_LOAD,
        "balancedness": fed(values.floats, 0.5),
        "topology": TOPOLOGY,
        "max_slots": maybe(COUNT, 12),
        "step": maybe(COUNT, 2),
        **PLANNED,
    },
    "expert_placement.plan_migration": {
        "old": PLACEMENT,
        "new": fed(values.objects, other()),
        "max_node_transfers": maybe(COUNT, 1),
        "max_staged": maybe(COUNT, 9),
    },
    "expert_placement.rebalance": {
        "loads": A_LOAD,
        "num_slots": fed(COUNT, 8),
        "topology": TOPOLOGY,
        **PLANNED,
        "previous": maybe(values.objects, placement()),
        "max_moves": maybe(COUNT, 3),
        "min_gain": maybe(values.floats, 0.01),
        "active": maybe(values.sequences, [True, True]),
    },
    **{
        f"expert_placement.torch.partition_{name}": {**IN_TORCH, "device": DEVICE}
        for name in ("counts", "starts", "offsets", "owners", "local_indices")
    },
    **{
        f"expert_placement.torch.{name}": {
            "num_experts": fed(values.ids_in_tensors, 30),
            "num_ranks": fed(values.ids_in_tensors, 8),
            parameter: TENSOR_RANK,
            "strategy": STRATEGY,
        }
        for name, parameter in (("count", "rank"), ("start", "rank"), ("owner", "expert"), ("local_index", "expert"))
    },
    **{
        f"expert_placement.torch.{name}": {**IN_TORCH, "rank": TENSOR_RANK, "device": DEVICE}
        for name in ("expert_map", "expert_map_with_sentinel")
    },
    "expert_placement.torch.expert_map_with_shared": {
        **IN_TORCH,
        "rank": TENSOR_RANK,
        "num_shared_experts": SHARED,
        "device": DEVICE,
    },
    "expert_placement.torch.expert_mask": {
        **IN_TORCH,
        "rank": TENSOR_RANK,
        "num_shared_experts": NO_SHARED,
        "device": DEVICE,
    },
    "expert_placement.torch.RoutingTables": {
        "placement": PLACEMENT,
        "layer": maybe(ID, 1),
        "rank": maybe(ID, 1),
        "device": DEVICE,
        "max_slots": maybe(COUNT, 9),
        "weights": maybe(values.loads, WEIGHTS),
    },
    "expert_placement.torch.RoutingTables.for_sender": {
        "placement": PLACEMENT,
        "rank": A_RANK,
        "layer": maybe(ID, 1),
        "device": DEVICE,
        "max_slots": maybe(COUNT, 9),
    },
    "expert_placement.torch.RoutingTables.update": {
        "placement": PLACEMENT,
        "layer": maybe(ID, None, of=1),
        "weights": fed(values.loads, WEIGHTS),
    },
    "expert_placement.torch.RoutingTables.row": {"layer": A_LAYER},
    "expert_placement.torch.route": {
        "topk_ids": fed(values.counters, lambda: torch.tensor([[0, 5], [2, -1], [4, 1]])),
        "tables": fed(values.objects, tables),
        "layer": A_LAYER,
        "token_offset": SEED,
        "seed": SEED,
        "valid_tokens": VALID,
        "load": SLOT_LOAD,
        "want": fed(values.sequences, ["slots", "order"]),
        "exact": FLAG,
        "implementation": maybe(values.choices, "rust"),
    },
    "expert_placement.torch.warm_up": {
        "tables": fed(values.objects, tables),
        "top_k": fed(COUNT, 2),
        "max_tokens": fed(COUNT, 4),
        "dtype": fed(values.dtypes, torch.int32),
        "load_dtype": maybe(values.dtypes, torch.int32),
        "want": fed(values.sequences, ["slots", "order"]),
        "exact": FLAG,
    },
    "expert_placement.distributed.Balancer": {
        "placement": ON_ONE,
        "weights": fed(values.any_tensors, weights),
        "tables": fed(values.sequences, lambda: [RoutingTables(placement(1))]),
        "on_layer": maybe(values.callables, lambda: _ignore),
        **BOTH_GROUPS,
        "planner_rank": fed(ID, 0),
        "planning": maybe(values.callables, lambda: _ignore),
        "interval": fed(COUNT, 3),
        "num_windows": fed(COUNT, 2),
        "balanced_enough": fed(values.floats, 0.5),
        "cost": maybe(values.objects, distributed.MovingCost(1.0, 1.0, 1.0)),
        "layers_per_step": fed(COUNT, 1),
        "max_staged": maybe(COUNT, 9),
        "max_node_transfers": maybe(COUNT, 1),
        "device": DEVICE,
        "verify": FLAG,
        "on_error": fed(values.choices, "raise"),
        "timeout": TIMEOUT,
        "planning_timeout": TIMEOUT,
    },
    "expert_placement.distributed.Balancer.step": {"load": fed(values.counters, counted)},
    "expert_placement.distributed.ExpertParallel": {
        "placement": ON_ONE,
        "hidden_size": fed(COUNT, 4),
        "intermediate_size": fed(COUNT, 2),
        "top_k": fed(COUNT, 2),
        "layer": A_LAYER,
        "renormalize": FLAG,
        "prefer_near": FLAG,
        **GROUP,
        "device": DEVICE,
        "dtype": maybe(values.dtypes, torch.float32),
        "seed": maybe(COUNT, 3),
    },
    "expert_placement.distributed.ExpertParallel.from_dense": {
        "placement": ON_ONE,
        **DENSE,
        "top_k": fed(COUNT, 2),
        "layer": A_LAYER,
        "renormalize": FLAG,
        "prefer_near": FLAG,
        **GROUP,
        "device": DEVICE,
    },
    "expert_placement.distributed.ExpertParallel.reset_parameters": {"seed": fed(COUNT, 3)},
    "expert_placement.distributed.ExpertParallel.load_dense": DENSE,
    "expert_placement.distributed.ExpertParallel.update_placement": {"placement": fed(values.objects, alone(other))},
    "expert_placement.distributed.ExpertParallel.forward": {
        "hidden": HIDDEN,
        "valid_tokens": VALID,
        "seed": SEED,
        "load": SLOT_LOAD,
    },
    "expert_placement.distributed.ExpertParallel.select": {"hidden": HIDDEN},
    "expert_placement.distributed.ExpertParallel.apply_experts": {
        "hidden": HIDDEN,
        "topk_ids": fed(values.counters, lambda: torch.tensor([[0, 5], [2, -1], [4, 1]])),
        "topk_weights": fed(values.any_tensors, lambda: torch.full((3, 2), 0.5)),
        "valid_tokens": VALID,
        "seed": SEED,
        "load": SLOT_LOAD,
    },
    "expert_placement.distributed.LoadWindows": {
        "num_layers": fed(COUNT, 2),
        "num_experts": fed(COUNT, 6),
        "num_windows": fed(COUNT, 2),
        "device": DEVICE,
    },
    "expert_placement.distributed.LoadWindows.record": {"load": fed(values.counters, counted), "placement": ON_ONE},
    "expert_placement.distributed.LoadWindows.close": {**GROUP, "timeout": TIMEOUT},
    "expert_placement.distributed.MovingCost": {
        "step_seconds": fed(values.floats, 0.5),
        "num_steps": fed(values.floats, 10.0),
        "bytes_per_second": fed(values.floats, 1e9),
    },
    "expert_placement.distributed.Planning": {
        **PLANNED,
        "max_moves": maybe(COUNT, 3),
        "min_gain": maybe(values.floats, 0.01),
    },
    "expert_placement.distributed.Planning.__call__": {"loads": A_LOAD, "placement": PLACEMENT},
    "expert_placement.distributed.agree": {"placement": ON_ONE, **GROUP, "timeout": TIMEOUT},
    "expert_placement.distributed.all_reduce_load": {
        "load": fed(values.counters, counted),
        "placement": maybe(values.objects, alone(placement)),
        **GROUP,
        "timeout": TIMEOUT,
    },
    "expert_placement.distributed.migrate": {
        "weights": fed(values.any_tensors, weights),
        "plan": fed(values.objects, alone(migration)),
        **BOTH_GROUPS,
        "verify": FLAG,
        "timeout": TIMEOUT,
    },
    "expert_placement.distributed.placement_after": {
        "old": PLACEMENT,
        "plan": fed(values.objects, migration()),
        "num_batches": fed(COUNT, 1),
        "topology": maybe(values.objects, ep.Topology(2)),
    },
    "expert_placement.formats.read": READ,
    "expert_placement.formats.read_layers": READ,
    "expert_placement.formats.read_loads": {"path": fed(paths.readable, paths.loads_file)},
    "expert_placement.formats.recognise": {"path": fed(paths.readable, paths.placement_file)},
    "expert_placement.formats.format_of": {"path": fed(paths.names, "placement.yaml")},
    "expert_placement.formats.write": {
        "placement": PLACEMENT,
        "path": fed(paths.writable, lambda: paths.new_file(".json")),
        # Without one it goes by the suffix of the path.
        "format": maybe(values.choices, "sglang"),
        "layer_ids": LAYER_IDS,
        "num_hidden_layers": maybe(COUNT, 4),
    },
    "expert_placement.model_config.read_model_config": {"source": fed(paths.readable, paths.config_file)},
    "expert_placement.plot.plot_ranks": {
        "panels": fed(values.sequences, [PANEL]),
        "path": PICTURE,
        "title": TEXT,
        "rows": fed(values.sequences, ["counts", "loads"]),
    },
    "expert_placement.plot.plot_curves": {
        "curves": fed(values.sequences, [CURVE]),
        "path": PICTURE,
        "title": TEXT,
        "x_label": TEXT,
        "y_label": TEXT,
    },
    # Without any they are those of the process.
    "expert_placement.cli.main": {"arguments": maybe(values.sequences, ["show", "--experts", "30", "--ranks", "8"])},
    "expert_placement.integrations.vllm.determine_expert_map": {
        "ep_size": NUM_RANKS,
        "ep_rank": RANK,
        "global_num_experts": NUM_EXPERTS,
        "expert_placement_strategy": STRATEGY,
        "num_fused_shared_experts": SHARED,
        "return_expert_mask": FLAG,
    },
}
"""What is fed to each parameter of each public name."""

RECEIVERS: dict[str, Callable[[], Any]] = {
    "expert_placement.Partition": partition,
    "expert_placement.Topology": lambda: ep.Topology(2),
    "expert_placement.Placement": placement,
    "expert_placement.Migration": migration,
    "expert_placement.ExpertMap": lambda: ep.ExpertMap.from_partition(partition(), 3),
    "expert_placement.torch.RoutingTables": tables,
    "expert_placement.torch.RoutingTables.update": lambda: RoutingTables(placement(), weights=WEIGHTS),
    "expert_placement.distributed.Balancer": balancer,
    "expert_placement.distributed.ExpertParallel": layer,
    "expert_placement.distributed.LoadWindows": windows,
    "expert_placement.distributed.Planning": distributed.Planning,
}
"""Whose methods are called; those of the class itself are called on it as well."""

WORDS_FOR: dict[str, tuple[str, ...]] = {
    # Of a line of words the command line names the word.
    "arguments": ("command",),
    "config": ("configuration",),
    "slots_per_rank": ("num_slots",),
    "placement": ("Placement",),
    "plan": ("Migration",),
    "loads": ("num_windows", "num_layers", "num_slots"),
    "num_experts": ("expert",),
    "table": ("physical_to_logical", "num_layers", "expert"),
    "experts": ("expert",),
    "ranks": ("rank",),
}
"""What messages call parameters beside their names."""


def _ignore(*_: object) -> None:
    """A function that is called back."""


def resolve(name: str) -> Callable[..., Any]:
    """What is called under a public name, taking its arguments by name."""
    module = max(
        (each for each in (*MODULES, "expert_placement.integrations.vllm") if name.startswith(f"{each}.")), key=len
    )
    owner, _, method = name.rpartition(".")
    if owner == module:
        return getattr(importlib.import_module(module), method)  # type: ignore[no-any-return]

    def call(**arguments: Any) -> Any:
        receiver = RECEIVERS.get(name, RECEIVERS[owner])()
        answer = getattr(receiver, method)(**arguments)
        # What changes its object has no other answer.
        return answer if answer is not None else receiver

    return call


def subjects() -> dict[str, Subject]:
    """Everything public that takes something, by name."""
    return {name: _subject(name, parameters) for name, parameters in FED.items()}


def _subject(name: str, parameters: Mapping[str, Fed]) -> Subject:
    found = resolve(name)
    call = WRAPPED[name](found) if name in WRAPPED else found

    def usual() -> dict[str, Any]:
        return {parameter: each.usual() for parameter, each in parameters.items()}

    return Subject(name, call, usual, WORDS_FOR)


def _with_written(path: Any, answer: Any) -> Any:
    """What a call wrote, beside what it gave back."""
    return answer, Path(os.fsdecode(path)).read_bytes()


def _writes(found: Callable[..., Any]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        found(**arguments)
        return Path(os.fsdecode(arguments["path"])).read_bytes()

    return call


def _draws(found: Callable[..., Any]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        found(**arguments)
        # A picture has the version of its library in it, and is no answer to be compared.
        return "drawn"

    return call


def _in_place(parameter: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A call that writes to an argument, which is part of the answer."""

    def wrapped(found: Callable[..., Any]) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            answer = found(**arguments)
            given = arguments[parameter]
            return answer, None if given is None else torch.as_tensor(given).detach().clone()

        return call

    return wrapped


def _exit_code(found: Callable[..., Any]) -> Callable[..., Any]:
    """The command line refuses by its exit code and one line on standard error."""

    def call(**arguments: Any) -> Any:
        import contextlib
        import io

        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = found(**arguments)
        # Without any words the answer is the help, though a shell is told by the code that nothing was asked for.
        if code and error.getvalue():
            raise ValueError(error.getvalue())
        return out.getvalue()

    return call


def _rounded(found: Callable[..., Any]) -> Callable[..., Any]:
    """A call with a matrix product, which adds up in another order where strides are others: the last bits differ."""

    def call(**arguments: Any) -> Any:
        ids, weights = found(**arguments)
        return ids, weights.round(decimals=5)

    return call


WRAPPED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "expert_placement.Placement.save": _writes,
    "expert_placement.formats.write": _writes,
    "expert_placement.plot.plot_ranks": _draws,
    "expert_placement.plot.plot_curves": _draws,
    "expert_placement.cli.main": _exit_code,
    "expert_placement.distributed.migrate": _in_place("weights"),
    "expert_placement.torch.route": _in_place("load"),
    "expert_placement.distributed.ExpertParallel.select": _rounded,
    "expert_placement.distributed.ExpertParallel.forward": _in_place("load"),
    "expert_placement.distributed.ExpertParallel.apply_experts": _in_place("load"),
}
"""How the answer of a call is had where it is not what the call gives back."""
