"""Topologies, placements, plans, migrations and routing that a program answers for. PROTOCOL.md."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.lines.offered import needs, offered_class, with_offered_parameters
from expert_placement_spec.lines.partition import partitions_of, rows
from expert_placement_spec.lines.program import program_of
from expert_placement_spec.lines.protocol import OPTIONS, number
from expert_placement_spec.routing.reference import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import SimpleNamespace as Names

    from expert_placement_spec.lines.partition import Asked as Partition

Described = dict[str, Any]
"""An object as the protocol writes it."""


class Teller:
    """What asks a program, whatever it is about."""

    program_command: str
    offers: frozenset[str]

    def ask(self, call: str, **fields: Any) -> Any:
        """What the program answers to a call."""
        return program_of(self.program_command).ask(call, **fields)

    def confirm(self, call: str, **fields: Any) -> None:
        """Has the program refuse what is wrong, where it looks at such things by themselves."""
        if call in self.offers:
            self.ask(call, **fields)


class Topology(Teller):
    """Ranks, as the program takes them."""

    def __init__(
        self,
        num_ranks: int,
        num_nodes: int = 1,
        slots_per_rank: int | Sequence[int] | None = None,
        speeds: Sequence[float] | None = None,
        active: Sequence[bool] | None = None,
    ) -> None:
        self.described: Described = {
            "num_ranks": num_ranks,
            "num_nodes": num_nodes,
            "slots_per_rank": deepcopy(slots_per_rank),
            "speeds": deepcopy(speeds),
            "active": deepcopy(active),
        }
        self.confirm("topology", topology=self.described)

    @needs("topology.node_of")
    def node_of(self, rank: int) -> Any:
        """The node of a rank."""
        return self.ask("topology.node_of", topology=self.described, rank=rank)


class Placement(Teller):
    """A placement, as the program takes it."""

    described: Described
    _sizes: Described | None = None

    @classmethod
    def from_physical_to_logical(cls, table: Any, num_experts: int, topology: Topology) -> Placement:
        """A placement of a table that the program has looked at."""
        made = cls.of_plan(table, num_experts, topology.described)
        if "placement" in cls.offers:
            made._sizes = made.ask("placement", placement=made.described)
        return made

    @classmethod
    @needs("placement.from_partition")
    def from_partition(cls, partition: Partition, num_layers: int = 1) -> Placement:
        """The placement that the program makes of a partition."""
        shape = {name: getattr(partition, name) for name in ("num_experts", "num_ranks", "strategy")}
        made = cls()
        made.described = made.ask("placement.from_partition", partition=shape, num_layers=num_layers)
        return made

    @classmethod
    def of_plan(cls, table: Any, num_experts: int, topology: Described) -> Placement:
        """A placement of a table that nobody has looked at."""
        made = cls()
        # The program is told the table with every question, and it has to be the one that was given.
        made.described = {"num_experts": num_experts, "table": deepcopy(table), "topology": topology}
        return made

    def _ask(self, method: str, **fields: Any) -> Any:
        return self.ask(f"placement.{method}", placement=self.described, **fields)

    def _size(self, name: str) -> Any:
        """A size that the program says where it looks at placements by themselves, and else that of the table."""
        if self._sizes is None and "placement" in self.offers:
            self._sizes = self.ask("placement", placement=self.described)
        if self._sizes is not None:
            return part("placement", self._sizes, name)
        shape = np.shape(self.described["table"])
        told = {"num_layers": shape[0], "num_slots": shape[1], "num_experts": self.described["num_experts"]}
        return {**told, "num_ranks": self.described["topology"]["num_ranks"]}[name]

    @property
    def num_layers(self) -> Any:
        """L."""
        return self._size("num_layers")

    @property
    def num_experts(self) -> Any:
        """E."""
        return self._size("num_experts")

    @property
    def num_slots(self) -> Any:
        """P."""
        return self._size("num_slots")

    @property
    def num_ranks(self) -> Any:
        """R."""
        return self._size("num_ranks")

    @needs("placement", "topology", "placement.physical_to_logical")
    def physical_to_logical(self) -> Any:
        """The expert of each slot, or -1: [L, P]."""
        return self._ask("physical_to_logical")

    @needs("placement.logical_to_physical")
    def logical_to_physical(self, width: int | None = None) -> Any:
        """The slots of each expert, padded with -1: [L, E, K], or wider."""
        return self._ask("logical_to_physical", width=width)

    @needs("placement.replica_counts")
    def replica_counts(self) -> Any:
        """How many slots hold each expert: [L, E]."""
        return self._ask("replica_counts")

    @needs("placement.slot_offsets")
    def slot_offsets(self) -> Any:
        """Where each rank's slots begin, and P last: [R + 1]."""
        return self._ask("slot_offsets")

    @needs("placement.expert_map")
    def expert_map(self, layer: int, rank: int) -> Any:
        """The index map of a rank."""
        return self._ask("expert_map", layer=layer, rank=rank)

    @needs("placement.expert_map_with_shared")
    def expert_map_with_shared(self, layer: int, rank: int, num_shared_experts: int) -> Any:
        """The index map with shared experts."""
        fields = {"layer": layer, "rank": rank, "num_shared_experts": num_shared_experts}
        return self._ask("expert_map_with_shared", **fields)

    @needs("placement.expert_map_with_sentinel")
    def expert_map_with_sentinel(self, layer: int, rank: int) -> Any:
        """The index map with a sentinel."""
        return self._ask("expert_map_with_sentinel", layer=layer, rank=rank)

    @needs("placement.expert_mask")
    def expert_mask(self, layer: int, rank: int, num_shared_experts: int = 0) -> Any:
        """The mask."""
        return self._ask("expert_mask", layer=layer, rank=rank, num_shared_experts=num_shared_experts)

    @needs("placement.local_experts")
    def local_experts(self, layer: int, rank: int) -> Any:
        """The expert of each of the rank's slots, or -1."""
        return self._ask("local_experts", layer=layer, rank=rank)

    @needs("placement.experts_to_load")
    def experts_to_load(self, layer: int, rank: int) -> Any:
        """The experts whose weights the rank needs."""
        return self._ask("experts_to_load", layer=layer, rank=rank)

    @needs("placement.digest")
    def digest(self) -> Any:
        """The digest."""
        return self._ask("digest")

    @needs("placement.rank_loads")
    def rank_loads(self, loads: Any) -> Any:
        """The load of every rank, [L, R], or [W, L, R] for loads of windows."""
        return number(self._ask("rank_loads", loads=loads))

    @needs("placement.balancedness")
    def balancedness(self, loads: Any) -> Any:
        """The balancedness."""
        return number(self._ask("balancedness", loads=loads))

    @needs("placement.report")
    def report(self, loads: Any) -> Any:
        """One record for each layer."""
        return number(self._ask("report", loads=loads))

    @needs("placement.off_node")
    def off_node(self, loads: Any, num_groups: int) -> Any:
        """The part of each layer's load that is served off node."""
        return number(self._ask("off_node", loads=loads, num_groups=num_groups))

    @needs("placement.replica_weights")
    def replica_weights(self, loads: Any) -> Any:
        """The part of its expert's load that each slot should serve: [L, P]."""
        return number(self._ask("replica_weights", loads=loads))


class PlannedPlacement:
    """What a program planned: a placement whose table is the answer itself."""

    def __init__(self, placement: Placement, table: Any) -> None:
        self._placement, self._table = placement, table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placement, name)

    def physical_to_logical(self) -> Any:
        """The table that was answered."""
        return self._table


class Planner(Teller):
    """The functions that plan placements."""

    def __init__(self, placement: type[Placement]) -> None:
        self._placement = placement

    def rebalance(
        self,
        loads: Any,
        num_slots: int,
        topology: Topology,
        policy: str = "balanced",
        num_groups: int = 1,
        *,
        previous: Placement | None = None,
        max_moves: int | None = None,
        min_gain: float | None = None,
        max_off_node: float | None = None,
        num_threads: int = 1,
    ) -> PlannedPlacement:
        """The placement that the program plans."""
        table = self.ask(
            "rebalance",
            loads=loads,
            num_slots=num_slots,
            topology=topology.described,
            policy=policy,
            num_groups=num_groups,
            previous=None if previous is None else previous.described,
            max_moves=max_moves,
            min_gain=min_gain,
            max_off_node=max_off_node,
            num_threads=num_threads,
        )
        layers = loads[0] if np.ndim(loads) == 3 else loads
        return PlannedPlacement(self._placement.of_plan(table, len(layers[0]), topology.described), table)

    def capacity_curve(
        self,
        loads: Any,
        num_slots: Sequence[int],
        topology: Topology,
        policy: str = "balanced",
        num_groups: int = 1,
        *,
        max_off_node: float | None = None,
    ) -> list[Any]:
        """A record for each number of slots."""
        answer = self.ask(
            "capacity_curve",
            loads=loads,
            num_slots=num_slots,
            topology=topology.described,
            policy=policy,
            num_groups=num_groups,
            max_off_node=max_off_node,
        )
        return [number(one) for one in rows("capacity_curve", answer, len(num_slots))]

    def least_slots(
        self,
        loads: Any,
        balancedness: float,
        topology: Topology,
        policy: str = "balanced",
        num_groups: int = 1,
        *,
        max_slots: int | None = None,
        step: int | None = None,
        max_off_node: float | None = None,
    ) -> Any:
        """The record of the fewest slots that are balanced enough."""
        return number(
            self.ask(
                "least_slots",
                loads=loads,
                balancedness=balancedness,
                topology=topology.described,
                policy=policy,
                num_groups=num_groups,
                max_slots=max_slots,
                step=step,
                max_off_node=max_off_node,
            )
        )


class Plan(Teller):
    """A migration plan that the program has made."""

    def __init__(self, arguments: Described) -> None:
        self._arguments = arguments
        self._answer = self.ask("plan_migration", **arguments)

    def _part(self, name: str) -> Any:
        return part("plan_migration", self._answer, name)

    @property
    def moves(self) -> Any:
        """The moves, [M, 4]."""
        return self._part("moves")

    @property
    def num_moves(self) -> int:
        """M."""
        return len(self._part("moves"))

    @property
    def batches(self) -> Any:
        """Where each batch begins among the moves, and M last."""
        return self._part("batches")

    @property
    @needs("plan.write_batches")
    def write_batches(self) -> Any:
        """The batch at whose end each move is written."""
        return self._part("write_batches")

    @property
    @needs("plan.num_staged")
    def num_staged(self) -> Any:
        """The most experts that a rank stages."""
        return self._part("num_staged")

    @property
    @needs("plan.is_interruption_safe")
    def is_interruption_safe(self) -> Any:
        """Whether every expert has a replica after every batch."""
        return self._part("is_interruption_safe")

    @property
    @needs("plan.senders")
    def senders(self) -> Any:
        """The rank of each source."""
        return self._part("senders")

    @property
    @needs("plan.receivers")
    def receivers(self) -> Any:
        """The rank of each destination."""
        return self._part("receivers")

    @needs("plan.traffic")
    def traffic(self, bytes_per_expert: int | Sequence[int]) -> Any:
        """The bytes that each rank sends and receives in each batch."""
        return self.ask("plan.traffic", **self._arguments, bytes_per_expert=bytes_per_expert)

    @needs("plan.apply")
    def apply(self, weights: Any) -> Any:
        """The weights of all slots after the migration."""
        answer = self.ask("plan.apply", **self._arguments, weights=weights.tolist())
        return shaped(answer, weights.shape, "iuf", weights.dtype)


class Tables(Teller):
    """Routing tables, as the program takes them; a partition's are those of the placement that it makes of it."""

    placements: type[Placement]

    def __init__(
        self,
        placement: Placement | Partition,
        *,
        rank: int | None = None,
        max_slots: int | None = None,
        weights: Any = None,
    ) -> None:
        self._make(placement, rank, None, max_slots, weights)

    def _make(self, placement: Any, rank: int | None, sender: int | None, max_slots: int | None, weights: Any) -> None:
        # A partition is no description of a placement by itself.
        made = placement if hasattr(placement, "described") else self.placements.from_partition(placement)
        self.described: Described = {
            "placement": made.described,
            "rank": rank,
            "sender": sender,
            "max_slots": max_slots,
            "weights": None if weights is None else np.asarray(weights).tolist(),
            "updates": [],
        }
        self.ask("routing_tables", tables=self.described)

    @classmethod
    @needs("routing_tables(sender)")
    def for_sender(cls, placement: Placement, rank: int) -> Tables:
        """Tables that choose among the replicas nearest to the rank that sends."""
        tables = cls.__new__(cls)
        tables._make(placement, rank, rank, None, None)
        return tables

    @needs("routing_tables(updates)")
    def update(self, placement: Placement, *, weights: Any = None) -> None:
        """Has the program replace the content; what it refuses stays among the updates, and must change nothing."""
        update = {
            "placement": placement.described,
            "weights": None if weights is None else np.asarray(weights).tolist(),
        }
        self.described = {**self.described, "updates": [*self.described["updates"], update]}
        self.ask("routing_tables", tables=self.described)

    def route(
        self,
        topk_ids: Any,
        layer: int | None,
        token_offset: int,
        seed: int,
        valid_tokens: int | None,
        load: Any,
        want: Iterable[str],
        exact: bool,
    ) -> Described:
        """What the program makes of a batch; a load is replaced by what it answers."""
        answer = self.ask(
            "route",
            tables=self.described,
            ids=topk_ids.tolist(),
            shape=list(topk_ids.shape),
            dtype=str(topk_ids.dtype),
            layer=layer,
            token_offset=token_offset,
            seed=seed,
            valid_tokens=valid_tokens,
            load=None if load is None else {"dtype": str(load.dtype), "values": load.tolist()},
            want=list(want),
            exact=exact,
        )
        if not isinstance(answer, dict):
            raise TypeError(f"route answers with a {type(answer).__name__}, expected an object")
        if load is not None:
            load[:] = rows("route", part("route", answer, "load"), len(load))
        tokens, top_k = topk_ids.shape
        shapes = {"order": (tokens * top_k,), **dict.fromkeys(("slots", "local_slots", "positions"), (tokens, top_k))}
        wanted = {name: answer.get(name) for name in FIELDS}
        return {
            name: None if one is None else shaped(one, shapes.get(name, (0,)), "iu", np.dtype(np.int32))
            for name, one in wanted.items()
        }


def part(call: str, answer: Any, name: str) -> Any:
    """A field of an answer.

    Raises:
        TypeError: the answer has none of this name.
    """
    if not isinstance(answer, dict) or name not in answer:
        raise TypeError(f"{call} answers without `{name}`")
    return answer[name]


def shaped(answer: Any, shape: tuple[int, ...], kinds: str, dtype: Any) -> Any:
    """Nested lists as an array, of the dtype if it holds them as they are; empty ones do not show their shape.

    Raises:
        TypeError: lists that are no array.
    """
    try:
        array = np.asarray(answer)
    except ValueError:
        raise TypeError("an answer has rows of different lengths") from None
    if not array.size and 0 in shape:
        return np.zeros(shape, dtype)
    is_held = array.dtype.kind in kinds and np.array_equal(array.astype(dtype), array)
    return array.astype(dtype) if is_held else array


def model_of(command: str) -> Names:
    """The public names that a program answers for.

    Raises:
        ValueError: a command that cannot be started, or a program that speaks another protocol.
        BrokenProgramError: a program that broke the protocol.
    """
    offers = program_of(command).offers
    told: Described = {"program_command": command, "offers": offers}
    placement = offered_class(Placement, offers, **told)
    plan, tables = offered_class(Plan, offers, **told), offered_class(Tables, offers, placements=placement, **told)
    planner = offered_class(Planner, offers, **told)(placement)

    def plan_migration(
        old: Placement, new: Placement, *, max_node_transfers: int | None = None, max_staged: int | None = None
    ) -> Any:
        limits = {"max_node_transfers": max_node_transfers, "max_staged": max_staged}
        return plan({"old": old.described, "new": new.described, **limits})

    def route(
        topk_ids: Any,
        tables: Tables,
        *,
        layer: int | None = None,
        token_offset: int = 0,
        seed: int = 0,
        valid_tokens: int | None = None,
        load: Any = None,
        want: Iterable[str] = ("slots",),
        exact: bool = False,
    ) -> Described:
        return tables.route(topk_ids, layer, token_offset, seed, valid_tokens, load, want, exact)

    def free(method: str) -> Callable[..., Any]:
        """A method of the planner as a function that can be told its parameters."""
        bound = getattr(planner, method)

        def call(*arguments: Any, **options: Any) -> Any:
            return bound(*arguments, **options)

        call.__wrapped__ = bound  # type: ignore[attr-defined]
        return call

    names = SimpleNamespace(
        Partition=partitions_of(command)[0],
        Placement=placement,
        Topology=offered_class(Topology, offers, **told),
    )
    for call, made in (
        *((name, free(name)) for name in ("rebalance", "capacity_curve", "least_slots")),
        ("plan_migration", plan_migration),
        ("routing_tables", tables),
    ):
        if call in offers:
            with_offered_parameters(made, call, OPTIONS[call], offers)
            setattr(names, "RoutingTables" if call == "routing_tables" else call, made)
    if "route" in offers:
        names.route = route
    return names
