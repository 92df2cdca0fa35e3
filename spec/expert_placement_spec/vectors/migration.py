"""Vectors of migrations. SPEC.md, "Migration" and "Batches"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expert_placement_spec.migration.execution import Contents, Schedule, execute, live_contents, lost_expert
from expert_placement_spec.migration.reference import Migration, plan_migration
from expert_placement_spec.migration.sources import Move
from expert_placement_spec.placement.reference import Placement
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.vectors.file import Case, VectorFile, refused
from expert_placement_spec.vectors.inputs import placement_input
from expert_placement_spec.vectors.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

ABOUT = (
    "`old` and `new` are placements of the same layers, experts and slots; `old` was made when every rank was "
    "active. `max_node_transfers` and `max_staged` are limits, or null.",
    "`moves` are layer, expert, source slot and destination slot of every move, by layer and destination: every "
    "plan has these, in an order of its own. `num_batches` is the least number of batches, which every plan "
    "without limits has; with limits it is not given.",
    "Moves may be shared out among batches in several ways. `plan` is one that the rule allows: its `moves` batch "
    "by batch, where each batch begins among them in `batches`, with their number last, the batch at whose end "
    "each move is written in `write_batches`, and the most experts that a rank keeps beside its slots in "
    "`num_staged`. A planner need not give this one; whoever carries plans out can be given it.",
    "`states` says for each layer and slot whose weights are there: before the first batch, and after each batch "
    "of `plan`. -1 stands for nothing that may be read: an empty slot, or a rank that is no longer active. Every "
    "expert of every layer is in every state, and every slot that `new` fills has its expert in the last one.",
)
NOTES = {
    "NothingMoves": "Every slot of the new placement holds what it held.",
    "CopiesInsideRanks": "Some moves are copies inside a rank, which are not sent.",
    "Exchange": "Two slots hand each other what they hold, in one batch.",
    "Ring": "Three or more slots pass on what they hold.",
    "Waits": "A move is written after the batch in which it is read.",
    "SeveralBatches": "A rank sends or receives more than once.",
    "SeveralSources": "An expert that moves has several replicas to be copied from.",
    "Failure": "A rank is out of service in the new placement: nothing is read from it.",
    "EmptySlots": "The new placement leaves slots empty: they are not written.",
    "Nodes": "There are several nodes: sources on the same node come first.",
    "Layers": "Several layers, whose moves share the batches.",
    "LimitedTransfers": "Transfers between nodes are limited.",
    "LimitedStaging": "Experts that a rank keeps beside its slots are limited.",
    "LostExpert": "An expert that no active rank held.",
    "OtherShape": "The placements differ in layers, experts or slots.",
    "WrongLimit": "A limit that is none, or that no plan keeps.",
}


def vectors() -> VectorFile:
    """The file of the chapter."""
    return VectorFile("migration", ABOUT, NOTES, [*by_hand(), *drawn(), *wrong()])


Pair = tuple[str, list[list[int]], list[list[int]], Topology, int | None, int | None]
"""What is special, the tables, the ranks of the new placement, and the limits on transfers and staging."""

BY_HAND: dict[str, Pair] = {
    "nothing": ("a placement to itself", [[0, 1, 0]], [[0, 1, 0]], Topology(3), None, None),
    "fewer": ("a replica is given up, which needs no move", [[0, 1, 0]], [[0, 1, -1]], Topology(3), None, None),
    "filled": ("an empty slot comes to hold expert 1", [[0, 1, -1]], [[0, 1, 1]], Topology(3), None, None),
    "copy": ("a copy inside rank 0", [[0, -1, 1, 2]], [[0, 0, 1, 2]], Topology(2), None, None),
    "inside": ("two slots of one rank change places", [[0, 1, 2, 2]], [[1, 0, 2, 2]], Topology(2), None, None),
    "exchange": ("two ranks exchange their experts", [[0, 1]], [[1, 0]], Topology(2), None, None),
    "ring": ("three ranks pass their experts on", [[0, 1, 2]], [[2, 0, 1]], Topology(3), None, None),
    "two-rings": ("two exchanges in one batch", [[0, 1, 2, 3]], [[1, 0, 3, 2]], Topology(4), None, None),
    "fan-out": (
        "one rank sends to three: three batches",
        [[0, 1, 1, 1, 1]],
        [[0, 0, 0, 0, 1]],
        Topology(5),
        None,
        None,
    ),
    "fan-in": (
        "one rank receives three",
        [[0, -1, -1, -1, 1, 2, 3, 0]],
        [[0, 1, 2, 3, 1, 2, 3, 0]],
        Topology(2),
        None,
        None,
    ),
    "spared": (
        "two ranks hold what two others want: each sends once",
        [[0, 0, 1, 1, 1]],
        [[0, 0, 1, 0, 0]],
        Topology(5),
        None,
        None,
    ),
    "near": (
        "a source on the node comes before one elsewhere",
        [[0, 1, 0, 1]],
        [[0, 0, 0, 1]],
        Topology(4, 2),
        None,
        None,
    ),
    "nearer": ("a source on the rank comes before all", [[0, 1, 0, 1]], [[0, 1, 0, 0]], Topology(2, 2), None, None),
    "waiting": (
        "what is overwritten last was read before",
        [[0, 1, 2, 3, 4, 5]],
        [[3, 4, 5, 0, 1, 2]],
        Topology(2),
        None,
        None,
    ),
    "dead-rank": (
        "rank 1 is out of service, and expert 1 comes from rank 2",
        [[0, 1, 1]],
        [[1, -1, 0]],
        Topology(3, 1, None, None, [True, False, True]),
        None,
        None,
    ),
    "layers": ("two layers whose moves share batches", [[0, 1], [1, 0]], [[1, 0], [0, 1]], Topology(2), None, None),
    "one-node-transfer": (
        "a transfer between nodes in a batch at a time",
        [[0, 1, 2, 3]],
        [[2, 3, 0, 1]],
        Topology(4, 2),
        1,
        None,
    ),
    "two-node-transfers": (
        "two of three transfers between nodes at a time",
        [[0, 1, 2, 3, 4, 5]],
        [[3, 4, 5, 0, 1, 2]],
        Topology(6, 2),
        2,
        None,
    ),
    "staged-one": (
        "one expert beside the slots of a rank: layers follow one another",
        [[0, 1], [0, 1], [0, 1]],
        [[1, 0], [1, 0], [1, 0]],
        Topology(2),
        None,
        1,
    ),
    "loose-limits": ("limits that change nothing", [[0, 1, 2]], [[2, 0, 1]], Topology(3, 3), 9, 9),
}


def by_hand() -> Iterator[Case]:
    """Small migrations, each for a reason of its own."""
    for identity, pair in BY_HAND.items():
        yield case(identity, pair)


def case(identity: str, pair: Pair) -> Case:
    """A migration with its plan and what the slots hold after each batch."""
    comment, old_table, new_table, topology, transfers, staged = pair
    old, new = placements(old_table, new_table, topology)
    plan = plan_migration(old, new, transfers, staged)
    states = history(plan, old, new)
    assert not any(lost_expert(state, new.num_experts) for state in states), identity
    moves = [Move(*move) for move in plan.moves]
    expected: dict[str, Any] = {
        "moves": sorted(plan.moves, key=lambda move: (move[0], move[3])),
        "plan": {
            "moves": plan.moves,
            "batches": plan.batches,
            "write_batches": plan.write_batches,
            "num_staged": plan.num_staged,
        },
        "states": states,
    }
    if transfers is None and staged is None:
        expected["num_batches"] = len(plan.batches) - 1
    asked = {**given(old, new), "max_node_transfers": transfers, "max_staged": staged}
    return Case(identity, comment, kinds(plan, moves, old, new, transfers, staged), asked, expected)


def placements(old: list[list[int]], new: list[list[int]], topology: Topology) -> tuple[Placement, Placement]:
    """The old placement, of ranks that are all active, and the new one."""
    num_experts = max((entry for row in old for entry in row), default=-1) + 1
    return Placement(old, num_experts, replace(topology, active=None)), Placement(new, num_experts, topology)


def given(old: Placement, new: Placement) -> dict[str, Any]:
    """The two placements as a case has them."""
    return {
        name: placement_input(one.table, one.num_experts, one.topology) for name, one in (("old", old), ("new", new))
    }


def reads(plan: Migration) -> list[int]:
    """The batch in which each move is read."""
    return [
        batch for batch in range(len(plan.batches) - 1) for _ in range(plan.batches[batch], plan.batches[batch + 1])
    ]


def history(plan: Migration, old: Placement, new: Placement) -> list[Contents]:
    """What can be read before the first batch, and after each."""
    schedule = Schedule([Move(*move) for move in plan.moves], reads(plan), plan.write_batches)
    before = live_contents(old, new)
    return [before, *execute(schedule, before, len(plan.batches) - 1)]


def kinds(
    plan: Migration, moves: list[Move], old: Placement, new: Placement, transfers: int | None, staged: int | None
) -> tuple[str, ...]:
    """The flags that say what sort of migration it is."""
    follows = {(move.layer, move.source): (move.layer, move.destination) for move in moves}
    rings = {length for start in follows if (length := ring(follows, start))}
    flags = {
        "NothingMoves": not moves,
        "CopiesInsideRanks": any(ends[0] == ends[1] for ends in zip(plan.senders, plan.receivers, strict=True)),
        "Exchange": 2 in rings,
        "Ring": any(length > 2 for length in rings),
        "Waits": plan.write_batches != reads(plan),
        "SeveralBatches": len(plan.batches) > 2,
        "SeveralSources": any(old.table[move.layer].count(move.expert) > 1 for move in moves),
        "Failure": new.topology.active is not None,
        "EmptySlots": any(-1 in row for row in new.table),
        "Nodes": new.topology.num_nodes > 1,
        "Layers": new.num_layers > 1,
        "LimitedTransfers": transfers is not None,
        "LimitedStaging": staged is not None,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def ring(follows: dict[tuple[int, int], tuple[int, int]], start: tuple[int, int]) -> int:
    """How many slots pass on what they hold until it comes back to the first; 0 where it does not."""
    place = follows[start]
    for length in range(1, len(follows) + 1):
        if place == start:
            return length
        if place not in follows:
            return 0
        place = follows[place]
    return 0


def drawn() -> Iterator[Case]:
    """Random pairs: on one node and several, of one layer and more, with a rank out of service, and with limits."""
    for number in range(36):
        numbers = Numbers(500 + number)
        num_ranks, per_rank, num_layers = 2 + number % 4, 2 + number % 3, 1 + number % 3
        num_slots = num_ranks * per_rank
        num_experts = num_slots - per_rank - numbers.below(2)
        old, new = ([numbers.row(num_experts, num_slots) for _ in range(num_layers)] for _ in range(2))
        active = None
        if number % 6 == 5:
            active = [rank > 0 for rank in range(num_ranks)]
            # What rank 0 held alone gets a slot elsewhere, so that it can be read.
            old = [with_everything_beyond(row, per_rank, num_experts) for row in old]
            new = [[-1] * per_rank + numbers.row(num_experts, num_slots - per_rank) for _ in new]
        transfers = 1 + number // 4 % 2 if number % 4 == 3 else None
        topology = Topology(num_ranks, 1 + number % num_ranks, per_rank, None, active)
        comment = f"{num_experts} experts in {num_slots} slots of {num_ranks} ranks, {num_layers} layers"
        yield case(f"random-{number}", (comment, old, new, topology, transfers, None))


def with_everything_beyond(row: list[int], first: int, num_experts: int) -> list[int]:
    """The row with every expert in some slot from `first` on."""
    rest = [entry for entry in row[first:] if entry >= 0]
    missing = [expert for expert in range(num_experts) if expert not in rest]
    others = list(row)
    for slot in range(first, len(row)):
        if missing and (others[slot] < 0 or others[first:].count(others[slot]) > 1):
            others[slot] = missing.pop()
    return others


def wrong() -> Iterator[Case]:
    """Pairs and limits that are refused."""
    dead = Topology(2, 1, 2, None, [False, True])
    pairs: dict[str, tuple[str, str, Placement, Placement]] = {
        "lost": ("LostExpert", "rank 0 alone held expert 0", *placements([[0, 0, 1, 1]], [[-1, -1, 0, 1]], dead)),
        "layers": (
            "OtherShape",
            "one layer and two",
            Placement([[0, 1]], 2, Topology(2)),
            Placement([[0, 1], [0, 1]], 2, Topology(2)),
        ),
        "experts": (
            "OtherShape",
            "two experts and three",
            Placement([[0, 1, 0]], 2, Topology(3)),
            Placement([[0, 1, 2]], 3, Topology(3)),
        ),
        "slots": (
            "OtherShape",
            "two slots and four",
            Placement([[0, 1]], 2, Topology(2)),
            Placement([[0, 1, 0, 1]], 2, Topology(2)),
        ),
        "shares": (
            "OtherShape",
            "slots shared out otherwise",
            Placement([[0, 1, 0]], 2, Topology(2, 1, [2, 1])),
            Placement([[0, 1, 0]], 2, Topology(2, 1, [1, 2])),
        ),
    }
    for identity, (flag, comment, old, new) in pairs.items():
        yield refusal(identity, flag, comment, old, new, None, None)
    exchange = placements([[0, 1, 2, 3]], [[2, 3, 0, 1]], Topology(2, 2))
    limits: dict[str, tuple[str, int | None, int | None]] = {
        "no-transfers": ("no transfer between nodes at all", 0, None),
        "negative-transfers": ("-1 transfers between nodes", -1, None),
        "negative-staging": ("-1 staged experts", None, -1),
        "no-staging": ("nothing may be staged, and each rank receives two", None, 0),
    }
    for identity, (comment, transfers, staged) in limits.items():
        yield refusal(identity, "WrongLimit", comment, *exchange, transfers, staged)


def refusal(
    identity: str, flag: str, comment: str, old: Placement, new: Placement, transfers: int | None, staged: int | None
) -> Case:
    """A migration that is refused."""
    asked = {**given(old, new), "max_node_transfers": transfers, "max_staged": staged}
    ask = lambda: plan_migration(old, new, transfers, staged)  # noqa: E731
    return refused(f"refused-{identity}", comment, (flag,), asked, ask)
