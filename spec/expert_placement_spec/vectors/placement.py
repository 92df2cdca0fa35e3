"""Vectors of placements. SPEC.md, "Placement", "Topology" and "Loads"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.placement.reference import Placement
from expert_placement_spec.placement.topology import FASTEST, SLOWEST, Topology
from expert_placement_spec.reference import MAX, STRATEGIES, Partition
from expert_placement_spec.vectors.file import FLOATS, Case, VectorFile, refused
from expert_placement_spec.vectors.inputs import placement_input
from expert_placement_spec.vectors.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ABOUT = (
    "A placement is made of a `physical_to_logical` table, L rows of P slots, with the ranks of a `topology`, or "
    "of a `partition` and `num_layers`, as `from_partition` makes it.",
    "`slots_per_rank` is a number for all ranks, a list of one for each, or null, where the P slots are a linear "
    "partition over the ranks; `speeds` and `active` are lists or null, where all ranks are alike.",
    "`node_of` has an entry for each rank. `local_experts`, `experts_to_load` and the four maps are lists by "
    "layer and rank; `num_shared_experts` is S of `expert_map_with_shared` and of `expert_mask`. `wider` is "
    "`logical_to_physical` with a width of two more than it has.",
    "`loads` of the input are by window, layer and expert, and `rank_loads` by window, layer and rank.",
    "A case that is refused is no placement, or has a `call`, which is the name of a query and what it is given: "
    "`layer` and `rank`, or `width`, or `loads`.",
    FLOATS,
)
NOTES = {
    "Partition": "The placement of a partition.",
    "Replicas": "Some experts have several slots.",
    "EmptySlots": "Some slots hold nothing.",
    "TwiceOnARank": "A rank holds an expert in two slots: a map shows the first.",
    "UnevenSlots": "Ranks have unequal numbers of slots.",
    "RankWithoutSlots": "A rank has no slots.",
    "InactiveRanks": "Ranks are out of service.",
    "Nodes": "There are several nodes.",
    "Layers": "There are several layers.",
    "Loads": "The loads of the ranks are asked for, bit by bit.",
    "NoExperts": "E = 0.",
    "Large": "A size like those in use.",
    "WrongTable": "The table is no placement of these experts on these ranks.",
    "WrongTopology": "The ranks are none.",
    "WrongLoads": "The loads are none.",
    "NoSuchId": "A layer outside 0 .. L, or a rank outside 0 .. R.",
    "TooNarrow": "A width below the replicas of the most replicated expert.",
}
MAPS = ("expert_map", "expert_map_with_sentinel", "expert_map_with_shared", "expert_mask")
WITH_SHARED = ("expert_map_with_shared", "expert_mask")
BY_RANK = ("local_experts", "experts_to_load", *MAPS)


def vectors() -> VectorFile:
    """The file of the chapter."""
    return VectorFile(
        "placement", ABOUT, NOTES, [*of_partitions(), *by_hand(), *drawn(), *wrong_placements(), *wrong_calls()]
    )


def answers(placement: Placement, num_shared: int) -> dict[str, Any]:
    """Everything that a placement answers."""

    def by_rank(name: str) -> list[list[Any]]:
        shared = (num_shared,) if name in WITH_SHARED else ()
        ask = getattr(placement, name)
        return [[ask(layer, rank, *shared) for rank in ranks] for layer in range(placement.num_layers)]

    ranks = range(placement.num_ranks)
    return {
        "num_layers": placement.num_layers,
        "num_slots": placement.num_slots,
        "node_of": [placement.topology.node_of(rank) for rank in ranks],
        "slot_offsets": placement.slot_offsets(),
        "physical_to_logical": placement.physical_to_logical(),
        "replica_counts": placement.replica_counts(),
        "logical_to_physical": placement.logical_to_physical(),
        "wider": placement.logical_to_physical(placement.most_replicas + 2),
        **{name: by_rank(name) for name in BY_RANK},
        "digest": placement.digest(),
    }


def kinds(placement: Placement) -> tuple[str, ...]:
    """The flags that say what sort of placement it is."""
    slots = placement.topology.slots(placement.num_slots)
    held = [placement.local_experts(layer, rank) for layer in range(placement.num_layers) for rank in range(len(slots))]
    contents = [[entry for entry in one if entry >= 0] for one in held]
    flags = {
        "Replicas": placement.most_replicas > 1,
        "EmptySlots": any(-1 in row for row in placement.table),
        "TwiceOnARank": any(len(set(one)) < len(one) for one in contents),
        "UnevenSlots": len(set(slots)) > 1,
        "RankWithoutSlots": 0 in slots,
        "InactiveRanks": not all(map(placement.topology.is_active, range(len(slots)))),
        "Nodes": placement.topology.num_nodes > 1,
        "Layers": placement.num_layers > 1,
        "NoExperts": placement.num_experts == 0,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def of_partitions() -> Iterator[Case]:
    """The placements of partitions."""
    for strategy in STRATEGIES:
        for num_experts, num_ranks, num_layers in ((0, 2, 1), (5, 1, 1), (7, 3, 2), (2, 4, 1), (30, 8, 1)):
            placement = Placement.from_partition(Partition(num_experts, num_ranks, strategy), num_layers)
            partition = {"num_experts": num_experts, "num_ranks": num_ranks, "strategy": strategy}
            asked = {"partition": partition, "num_layers": num_layers, "num_shared_experts": num_layers}
            flags = ("Partition", *kinds(placement))
            comment = f"{num_experts} experts over {num_ranks} ranks, {strategy}, {num_layers} layers"
            identity = f"partition-{strategy}-{num_experts}-{num_ranks}-{num_layers}"
            yield Case(identity, comment, flags, asked, answers(placement, num_layers))


BY_HAND: dict[str, tuple[str, int, list[list[int]], Topology]] = {
    "one-slot": ("the smallest placement that holds something", 1, [[0]], Topology(1)),
    "nothing": ("no experts and no slots", 0, [[]], Topology(2)),
    "no-experts": ("no experts in three slots, and nothing to hold", 0, [[-1, -1, -1], [-1, -1, -1]], Topology(2)),
    "replica": ("expert 0 on both ranks", 3, [[0, 1, 2, 0]], Topology(2)),
    "spare": ("an empty slot in the middle of a rank", 3, [[0, -1, 1, 2]], Topology(2)),
    "twice": ("expert 1 twice on rank 1, and once on rank 0", 2, [[0, 1, 1, 1]], Topology(2)),
    "apart": ("two copies on a rank with another between them", 2, [[1, 0, 1, 0, -1, 1]], Topology(2)),
    "uneven-share": ("five slots on two ranks: the first has three", 4, [[3, 2, 1, 0, 3]], Topology(2)),
    "given-shares": ("slots as they are given", 3, [[0, 1, 2, 2, 1, 0]], Topology(3, 2, [1, 4, 1])),
    "equal-shares": ("one number of slots for all ranks", 3, [[2, 0, 1, 2]], Topology(2, 1, 2)),
    "no-slots": ("a rank without slots between two others", 2, [[1, 0, 1]], Topology(3, 3, [2, 0, 1])),
    "dead-rank": (
        "rank 1 is out of service and holds nothing",
        2,
        [[0, 1, -1, -1, 1, 0]],
        Topology(3, 1, 2, None, [True, False, True]),
    ),
    "speeds": ("speeds change neither tables nor loads nor the digest", 2, [[0, 1, 1]], Topology(3, 3, 1, [1, 2, 0.5])),
    "uneven-nodes": ("five ranks on two nodes: the first has three", 5, [[4, 3, 2, 1, 0]], Topology(5, 2)),
    "layers": ("two layers that differ", 3, [[0, 1, 2, 0], [2, 2, 1, 0]], Topology(2, 2)),
    "widths": ("the most replicated expert of any layer fixes the width", 2, [[0, 1, -1], [0, 1, 1]], Topology(3)),
}
"""Placements by their ids: what is special, E, the table and the ranks."""


def by_hand() -> Iterator[Case]:
    """Small placements, each for a reason of its own, with loads in every other."""
    for number, (identity, (comment, num_experts, table, topology)) in enumerate(BY_HAND.items()):
        loads = None
        if number % 2 and num_experts:
            loads = [
                [[(3.0 * e + layer + w) / 7.0 for e in range(num_experts)] for layer in range(len(table))]
                for w in range(1 + number // 2 % 2)
            ]
        yield case(identity, comment, Placement(table, num_experts, topology), number % 4, loads)


def case(
    identity: str,
    comment: str,
    placement: Placement,
    num_shared: int,
    loads: list[list[list[float]]] | None = None,
    flags: tuple[str, ...] = (),
) -> Case:
    """A placement with everything that it answers."""
    asked = placement_input(placement.table, placement.num_experts, placement.topology)
    asked["num_shared_experts"] = num_shared
    expected = answers(placement, num_shared)
    flags = (*flags, *kinds(placement))
    if loads is not None:
        asked["loads"] = loads
        expected["rank_loads"] = placement.rank_loads(loads)
        flags = (*flags, "Loads")
    return Case(identity, comment, flags, asked, expected)


def drawn() -> Iterator[Case]:
    """Random placements, small ones and two of sizes that are in use."""
    sizes = [(3 + number % 5, 8 + number % 4, 2 + number % 3, 1 + number % 2) for number in range(10)]
    sizes += [(64, 72, 8, 1), (128, 144, 16, 1)]
    for number, (num_experts, num_slots, num_ranks, num_layers) in enumerate(sizes):
        numbers = Numbers(100 + number)
        table = [numbers.row(num_experts, num_slots) for _ in range(num_layers)]
        placement = Placement(table, num_experts, Topology(num_ranks, 1 + number % 2))
        # Thousandths, so that sums are rounded and their order is seen.
        loads = [[[numbers.below(10**6) / 1000 for _ in range(num_experts)] for _ in table]]
        flags = ("Large",) if num_experts >= 64 else ()
        comment = f"{num_experts} experts in {num_slots} slots of {num_ranks} ranks, at random"
        yield case(f"random-{number}", comment, placement, number % 3, loads, flags)


def wrong_placements() -> Iterator[Case]:
    """Tables and ranks that are none."""
    two, dead = Topology(2), Topology(2, 1, None, None, [True, False])
    wrong: dict[str, tuple[str, int, list[list[int]], Topology]] = {
        "entry-e": ("an entry that is E", 2, [[0, 1, 2]], two),
        "entry-minus-two": ("-2 is no empty slot", 2, [[0, 1, -2]], two),
        "missing": ("expert 1 has no slot", 2, [[0, 0]], two),
        "missing-in-a-layer": ("expert 0 has no slot in layer 1", 2, [[0, 1], [1, 1]], two),
        "too-few-slots": ("three experts in two slots", 3, [[0, 1]], two),
        "content-on-a-dead-rank": ("rank 1 is out of service and holds something", 2, [[0, 1, -1, 1]], dead),
        "other-slots": ("three slots where the ranks have four", 2, [[0, 1, 0]], Topology(2, 1, 2)),
        "other-shares": ("four slots where the ranks have three", 2, [[0, 1, 0, 1]], Topology(2, 1, [2, 1])),
    }
    for identity, (comment, num_experts, table, topology) in wrong.items():
        asked = placement_input(table, num_experts, topology)
        ask = making(table, num_experts, asked["topology"])
        yield refused(f"refused-{identity}", comment, ("WrongTable",), asked, ask)
    good = {"num_ranks": 2, "num_nodes": 1, "slots_per_rank": None, "speeds": None, "active": None}
    topologies: dict[str, tuple[str, dict[str, Any]]] = {
        "no-ranks": ("R = 0", {"num_ranks": 0}),
        "many-ranks": ("R = 2^31", {"num_ranks": MAX + 1}),
        "no-nodes": ("N = 0", {"num_nodes": 0}),
        "many-nodes": ("more nodes than ranks", {"num_nodes": 3}),
        "negative-slots": ("-1 slots on every rank", {"slots_per_rank": -1}),
        "negative-share": ("-1 slots on rank 1", {"slots_per_rank": [3, -1]}),
        "short-shares": ("slots of one rank of two", {"slots_per_rank": [2]}),
        "long-speeds": ("speeds of three ranks of two", {"speeds": [1.0, 1.0, 1.0]}),
        "no-speed": ("a speed of 0", {"speeds": [1.0, 0.0]}),
        "negative-speed": ("a speed of -1", {"speeds": [-1.0, 1.0]}),
        "too-slow": ("a speed below the least", {"speeds": [1.0, SLOWEST / 2]}),
        "too-fast": ("a speed above the largest", {"speeds": [FASTEST * 2, 1.0]}),
        "none-active": ("no rank in service", {"active": [False, False]}),
        "short-active": ("one rank of two is said to be active", {"active": [True]}),
    }
    for identity, (comment, change) in topologies.items():
        asked = {"num_experts": 2, "topology": {**good, **change}, "physical_to_logical": [[0, 1]]}
        ask = making([[0, 1]], 2, asked["topology"])
        yield refused(f"refused-{identity}", comment, ("WrongTopology",), asked, ask)


def making(table: Sequence[Sequence[int]], num_experts: int, topology: dict[str, Any]) -> Any:
    """The making of a placement, to be called."""
    return lambda: Placement(table, num_experts, Topology(**topology))


def wrong_calls() -> Iterator[Case]:
    """Queries that a placement refuses."""
    table, num_experts = [[0, 1, 2, 0], [2, 1, 0, 2]], 3
    placement = Placement(table, num_experts, Topology(2))
    asked = {**placement_input(table, num_experts, placement.topology), "num_shared_experts": 1}
    for name in BY_RANK:
        for layer, rank in ((-1, 0), (2, 0), (0, -1), (0, 2), (MAX, 0), (0, MAX)):
            shared = (1,) if name in WITH_SHARED else ()
            call = {"name": name, "layer": layer, "rank": rank}
            ask = asking(placement, name, layer, rank, *shared)
            comment = f"layer {layer} of 2, rank {rank} of 2"
            yield refused(f"refused-{name}-{layer}-{rank}", comment, ("NoSuchId",), {**asked, "call": call}, ask)
    for width in (-1, 0, 1):
        call = {"name": "logical_to_physical", "width": width}
        ask = asking(placement, "logical_to_physical", width)
        comment = f"a width of {width}, where an expert has two replicas"
        yield refused(f"refused-width-{width}", comment, ("TooNarrow",), {**asked, "call": call}, ask)
    loads: dict[str, tuple[str, Any]] = {
        "negative": ("a load of -1", [[[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]]),
        "tiny-negative": ("a load of -10^-300", [[[1.0, 0.0, -1e-300], [0.0, 0.0, 0.0]]]),
        "layers": ("loads of three layers", [[[1.0, 1.0, 1.0]] * 3]),
        "experts": ("loads of two experts", [[[1.0, 1.0]] * 2]),
        "sum": ("a sum above 10^301", [[[9e300, 9e300, 0.0], [0.0, 0.0, 0.0]]]),
    }
    for identity, (comment, given) in loads.items():
        call = {"name": "rank_loads", "loads": given}
        ask = asking(placement, "rank_loads", given)
        yield refused(f"refused-loads-{identity}", comment, ("WrongLoads",), {**asked, "call": call}, ask)


def asking(placement: Placement, name: str, *given: Any) -> Any:
    """A query, to be asked."""
    return lambda: getattr(placement, name)(*given)
