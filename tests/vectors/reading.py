"""Reads test vectors with the Python package: what it answers against what they say, by its public names.

`spec/vectors/README.md` says how the files are read.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from expert_placement import Partition, Placement, Topology, plan_migration, rebalance
from expert_placement.conformance import TorchPartition
from expert_placement.torch import Routed, RoutingTables, route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VECTORS = Path(__file__).parents[2] / "spec/vectors"

Case = dict[str, Any]
KINDS = {IndexError: "no_such_id", ValueError: "wrong_value"}


class Wrong(Exception):  # noqa: N818 - a case that does not hold
    """A case does not hold."""


def expect(holds: bool, text: str) -> None:
    """The case holds only if this does."""
    if not holds:
        raise Wrong(text)


def flaw(case: Case, check: Callable[[Case, Case | None], None]) -> str:
    """What is wrong with a case; empty where it holds."""
    if case["result"] not in ("valid", "refused"):
        return f"the result is {case['result']}"
    try:
        check(case["input"], case["expected"] if case["result"] == "valid" else None)
    except Wrong as wrong:
        return str(wrong)
    except (IndexError, ValueError) as error:
        kind = next(kind for raised, kind in KINDS.items() if isinstance(error, raised))
        return "" if kind == case.get("error") else f"it is refused: {error}"
    return "it is answered" if "error" in case else ""


def flaws(file: Any, check: Callable[[Case, Case | None], None]) -> list[str]:
    """Every case that does not hold, and whether all cases are there."""
    found = [f"{case['id']}: {text}" for case in file["cases"] if (text := flaw(case, check))]
    return found if file["number_of_cases"] == len(file["cases"]) else ["the number of cases is another", *found]


def read(name: str) -> Any:
    """A file by its chapter."""
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def plain(value: Any) -> Any:
    """Tensors, ranges and tuples as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, (list, tuple, range)) else value


def compare(expected: Case, answer: Callable[[str], Any]) -> None:
    """Every field is what is answered for its name, in value and in type: 1 is no 1.0."""
    for name, value in expected.items():
        given = plain(answer(name))
        expect(repr(given) == repr(value), f"{name} is {given}, expected {value}")


# Partitions.

WHOLE = ("counts", "starts", "owners", "local_indices", "offsets")
WITH_SHARED = ("expert_map_with_shared", "expert_mask")
ON_EXPERTS = ("owner", "local_index")
ON_RANKS = ("count", "start", "experts", "local_experts", "expert_map", "expert_map_with_sentinel", *WITH_SHARED)


def check_partition(asked: Case, expected: Case | None) -> None:
    """By `expert_placement.Partition`."""
    shape = {name: asked[name] for name in ("num_experts", "num_ranks", "strategy")}
    made = Partition(int(shape["num_experts"]), int(shape["num_ranks"]), shape["strategy"])

    def of(name: str, one: int) -> Any:
        expect(name in (*ON_EXPERTS, *ON_RANKS), f"{name} is unknown")
        return getattr(made, name)(one, *([asked["num_shared_experts"]] if name in WITH_SHARED else []))

    def answer(name: str) -> Any:
        if name in WHOLE:
            return getattr(made, name)()
        if name == "is_uniform":
            return made.is_uniform
        return [of(name, one) for one in asked["experts" if name in ON_EXPERTS else "ranks"]]

    if "call" in asked:
        ids = [asked["call"][key] for key in ("rank", "expert") if key in asked["call"]]
        answer(asked["call"]["name"]) if not ids else of(asked["call"]["name"], *ids)
    if expected is not None:
        compare(expected, answer)


OF_TORCH = (*WHOLE, "expert_map", "expert_map_with_sentinel", *WITH_SHARED)
"""What the torch functions answer; other questions are for the class."""


def check_torch_partition(asked: Case, expected: Case | None) -> None:
    """By the functions of `expert_placement.torch`, for one rank and for all asked ones at once."""
    made = TorchPartition(int(asked["num_experts"]), int(asked["num_ranks"]), asked["strategy"])

    def of(name: str, rank: int) -> Any:
        return getattr(made, name)(rank, *([asked["num_shared_experts"]] if name in WITH_SHARED else []))

    if "call" in asked and asked["call"]["name"] == "offsets":
        made.offsets()
    elif "call" in asked:
        of(asked["call"]["name"], asked["call"]["rank"])
    for name, value in (expected or {}).items():
        given = getattr(made, name)() if name in WHOLE else [of(name, rank) for rank in asked["ranks"]]
        expect(plain(given) == value, f"{name} is {plain(given)}, expected {value}")


def is_for_torch(case: Case) -> bool:
    """Whether the torch functions are asked what the case asks: whole tables and maps."""
    call = case["input"].get("call")
    return call["name"] in OF_TORCH if call else case["result"] == "refused" or "counts" in case["expected"]


def for_torch(case: Case) -> Case:
    """The case with what the torch functions answer."""
    if "expected" not in case:
        return case
    return {**case, "expected": {name: value for name, value in case["expected"].items() if name in OF_TORCH}}


# Placements.


def placement(asked: Case) -> Placement:
    """The placement of an input."""
    topology = Topology(**asked["topology"])
    return Placement.from_physical_to_logical(asked["physical_to_logical"], asked["num_experts"], topology)


BY_RANK = ("local_experts", "experts_to_load", "expert_map", "expert_map_with_sentinel", *WITH_SHARED)


def check_placement(asked: Case, expected: Case | None) -> None:
    """By `expert_placement.Placement`."""
    if "partition" in asked:
        made = Placement.from_partition(Partition(**asked["partition"]), asked["num_layers"])
    else:
        made = placement(asked)

    def of(name: str, layer: int, rank: int) -> Any:
        expect(name in BY_RANK, f"{name} is unknown")
        return getattr(made, name)(layer, rank, *([asked["num_shared_experts"]] if name in WITH_SHARED else []))

    def answer(name: str) -> Any:
        ranks = range(made.num_ranks)
        if name in BY_RANK:
            return [[of(name, layer, rank) for rank in ranks] for layer in range(made.num_layers)]
        answers: dict[str, Callable[[], Any]] = {
            "num_layers": lambda: made.num_layers,
            "num_slots": lambda: made.num_slots,
            "node_of": lambda: [made.topology.node_of(rank) for rank in ranks],
            "slot_offsets": made.slot_offsets,
            "physical_to_logical": made.physical_to_logical,
            "replica_counts": made.replica_counts,
            "logical_to_physical": made.logical_to_physical,
            "wider": lambda: made.logical_to_physical(made.most_replicas + 2),
            "digest": made.digest,
            "rank_loads": lambda: made.rank_loads(asked["loads"]),
        }
        expect(name in answers, f"{name} is unknown")
        return answers[name]()

    if "call" in asked:
        call = asked["call"]
        if "rank" in call:
            of(call["name"], call["layer"], call["rank"])
        else:
            getattr(made, call["name"])(call["width"] if "width" in call else call["loads"])
    if expected is not None:
        compare(expected, answer)


# The policy `deepseek`.


def check_deepseek(asked: Case, expected: Case | None) -> None:
    """By `expert_placement.rebalance`."""
    rest = {name: value for name, value in asked.items() if name not in ("loads", "topology")}
    # Without experts a list says nothing of the type of what it holds.
    loads = torch.tensor(asked["loads"], dtype=torch.float64)
    plan = rebalance(loads, topology=Topology(**asked["topology"]), **rest)
    if expected is not None:
        compare(expected, partial(of_plan, plan))


def of_plan(plan: Placement, name: str) -> Any:
    """What is expected of a plan."""
    expect(name == "physical_to_logical", f"{name} is unknown")
    return plan.physical_to_logical()


# Migrations.

State = list[list[int]]
FIELDS_OF_MIGRATION = {"moves", "num_batches", "plan", "states"}


def by_destination(moves: list[list[int]]) -> list[list[int]]:
    """Moves by layer and destination."""
    return sorted(moves, key=lambda move: (move[0], move[3]))


def carried_out(plan: Case, old: Placement, new: Placement, limits: Case) -> Iterator[State]:
    """Carries a plan out from what can be read: what the slots hold before and after each batch."""
    moves, batches, writes = plan["moves"], plan["batches"], plan["write_batches"]
    number = len(batches) - 1
    expect(batches[0] == 0 and batches[-1] == len(moves) == len(writes), "the batches hold all moves")
    expect(all(first < last for first, last in pairwise(batches)), "every batch has a move")
    reads = [batch for batch in range(number) for _ in range(batches[batch], batches[batch + 1])]
    for index, (layer, _, _, destination) in enumerate(moves):
        copies = [writes[copy] for copy, move in enumerate(moves) if (move[0], move[2]) == (layer, destination)]
        # Moves in a ring wait for one another: later batches of all of them would do here, and the states tell.
        expect(writes[index] == max([reads[index], *copies]), "a move is written as early as it can be")
    ranks = range(new.num_ranks)
    offsets = new.slot_offsets().tolist()
    rank_of = [rank for rank in ranks for _ in range(offsets[rank], offsets[rank + 1])]
    node_of = [new.topology.node_of(rank) for rank in ranks]
    active = new.topology.active or [True] * new.num_ranks
    state = [
        [entry if active[rank_of[slot]] else -1 for slot, entry in enumerate(row)]
        for row in old.physical_to_logical().tolist()
    ]
    yield [list(row) for row in state]
    waiting: dict[int, int] = {}
    most = 0
    for batch in range(number):
        own = range(batches[batch], batches[batch + 1])
        ends = [(rank_of[moves[index][2]], rank_of[moves[index][3]]) for index in own]
        for side in (0, 1):
            busy = [pair[side] for pair in ends if pair[0] != pair[1]]
            expect(len(set(busy)) == len(busy), "no rank sends or receives twice")
            nodes = [node_of[pair[side]] for pair in ends if node_of[pair[0]] != node_of[pair[1]]]
            most_nodes = max(map(nodes.count, nodes), default=0)
            limit = limits["max_node_transfers"]
            expect(limit is None or most_nodes <= limit, "transfers between nodes are limited")
        waiting |= {index: state[moves[index][0]][moves[index][2]] for index in own}
        receivers = [rank_of[moves[index][3]] for index in waiting]
        most = max([most, *map(receivers.count, receivers)])
        for index, (layer, _, _, destination) in enumerate(moves):
            if writes[index] == batch:
                state[layer][destination] = waiting.pop(index)
        expect(all(set(range(new.num_experts)) <= set(row) for row in state), "every expert is in every state")
        yield [list(row) for row in state]
    expect(most == plan["num_staged"], f"num_staged is {most}, expected {plan['num_staged']}")
    expect(limits["max_staged"] is None or most <= limits["max_staged"], "staging is limited")
    pairs = zip(new.physical_to_logical().tolist(), state, strict=True)
    ends_well = all(want in (-1, has) for rows in pairs for want, has in zip(*rows, strict=True))
    expect(ends_well, "the plan ends in the new placement")


def check_migration(asked: Case, expected: Case | None) -> None:
    """By `expert_placement.plan_migration`."""
    old, new = placement(asked["old"]), placement(asked["new"])
    limits = {name: asked[name] for name in ("max_node_transfers", "max_staged")}
    migration = plan_migration(old, new, **limits)
    if expected is None:
        return
    expect(set(expected) <= FIELDS_OF_MIGRATION, "a field is unknown")
    # The package's plan keeps the rule, and has the moves of the case.
    own = {name: getattr(migration, name).tolist() for name in ("moves", "batches", "write_batches")}
    expect(by_destination(own["moves"]) == expected["moves"], "the package has other moves")
    unlimited = migration.num_batches if set(limits.values()) == {None} else None
    expect(expected.get("num_batches") == unlimited, "the package has more or fewer batches")
    expect(migration.is_interruption_safe, "the package's plan is said to lose something")
    states = list(carried_out({**own, "num_staged": migration.num_staged}, old, new, limits))
    # What its executor leaves is what the plan says, where anything is written.
    table = old.physical_to_logical()
    moved = migration.apply(table[..., None])[..., 0]
    written = new.physical_to_logical() >= 0
    expect(torch.equal(moved[written], torch.tensor(states[-1], dtype=torch.int32)[written]), "apply does otherwise")
    # The plan of the case, carried out, goes through its states.
    expect(by_destination(expected["plan"]["moves"]) == expected["moves"], "the plan has other moves")
    expect(list(carried_out(expected["plan"], old, new, limits)) == expected["states"], "the plan has other states")


# Routing.


def hashed(expert: int, token: int, seed: int) -> int:
    """ "Choice of a replica", word by word."""
    x = (token * 0x9E3779B1 + expert * 0x85EBCA77 + seed * 0xC2B2AE3D) % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


def check_routing(asked: Case, expected: Case | None, *, implementation: str) -> None:
    """By `expert_placement.torch.route` of one implementation, all fields at once and each by itself."""
    made = placement(asked["placement"])
    if asked["sender"] is not None:
        tables = RoutingTables.for_sender(made, asked["sender"])
    else:
        weights = asked["weights"]
        tables = RoutingTables(made, rank=asked["rank"], max_slots=asked["max_slots"], weights=weights)
    ids = [[int(one) for one in row] for row in asked["topk_ids"]]
    options = {
        "layer": asked["layer"],
        "token_offset": int(asked["token_offset"]),
        "seed": int(asked["seed"]),
        "valid_tokens": asked["valid_tokens"],
        "exact": asked["exact"],
        "implementation": implementation,
    }
    widths = {"int32": (torch.int32, torch.int64), "int64": (torch.int64,)}
    expect(asked["id_type"] in widths, "the type of the ids is unknown")
    for dtype in widths[asked["id_type"]]:
        batch = torch.tensor(ids, dtype=dtype).reshape(len(ids), len(ids[0]) if ids else 0)
        routed = route(batch, tables, want=Routed._fields, **options)
        if expected is None:
            continue
        hashes = [
            [
                hashed(one, options["token_offset"] + token, options["seed"]) if slot >= 0 else None
                for one, slot in zip(*rows, strict=True)
            ]
            for token, rows in enumerate(zip(ids, plain(routed.slots), strict=True))
        ]
        answers = {**{name: getattr(routed, name) for name in Routed._fields}, "hashes": hashes}
        for name, value in expected.items():
            expect(name in answers, f"{name} is unknown")
            expect(plain(answers[name]) == value, f"{name} is {plain(answers[name])}, expected {value}")
            if name != "hashes":
                alone = getattr(route(batch, tables, want=(name,), **options), name)
                expect(plain(alone) == value, f"{name} alone is {plain(alone)}, expected {value}")


READERS: dict[str, dict[str, Callable[[Case, Case | None], None]]] = {
    "partition": {"Partition": check_partition},
    "placement": {"Placement": check_placement},
    "deepseek": {"rebalance": check_deepseek},
    "migration": {"plan_migration": check_migration},
    "routing": {name: partial(check_routing, implementation=name) for name in ("rust", "torch")},
}
"""The readers of each file, by what they ask."""
