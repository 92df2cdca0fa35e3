"""Vectors of the policy `deepseek`. SPEC.md, "The policy `deepseek`"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec.balance.reference import rebalance
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.vectors.file import FLOATS, Case, VectorFile, refused
from expert_placement_spec.vectors.inputs import topology_input
from expert_placement_spec.vectors.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.placement.loads import Loads

POLICY = "deepseek"

ABOUT = (
    "`rebalance(loads, num_slots, topology, policy, num_groups)` gives the placement with the expected table. "
    "`loads` are by window, layer and expert.",
    "Ties between equal loads go to the lower index, as the specification says, and a sort that is not stable "
    "shows in the cases flagged `Ties`.",
    FLOATS,
)
NOTES = {
    "Golden": "The example of the algorithm's own authors.",
    "Ties": "Some loads, or some shares of them, are equal.",
    "NoLoad": "All loads of a layer are 0.",
    "NoExperts": "E = 0.",
    "Hierarchical": "Nodes divide the groups: whole groups are packed into nodes first.",
    "Flat": "Nodes do not divide the groups, or there is one of either: one group and one node take their place.",
    "NoReplicas": "P = E: every expert has one slot.",
    "SingleSlots": "P = R: a slot on each rank, which is not sorted for.",
    "Windows": "Loads of several windows are added up, and rounded to float32.",
    "Layers": "Several layers, each planned by itself.",
    "Rounded": "Counts that float32 does not hold are rounded to it.",
    "Scaled": "Loads are outside the range of float32 and are multiplied by a power of two.",
    "Large": "A size like those in use.",
    "DoesNotApply": "Numbers do not divide, or ranks are not equal and all active.",
    "WrongCall": "Loads, groups or slots that are none.",
}
GOLDEN = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
Sizes = tuple[int, int, int, int, int]
"""E, P, R, N and G."""
SMALL: tuple[Sizes, ...] = (
    (1, 1, 1, 1, 1),
    (1, 4, 2, 1, 1),
    (2, 4, 4, 2, 2),
    (4, 4, 2, 1, 1),
    (4, 6, 2, 1, 1),
    (4, 8, 4, 2, 2),
    (4, 8, 4, 2, 4),
    (4, 6, 3, 3, 2),
    (6, 8, 4, 2, 3),
    (6, 12, 4, 2, 2),
    (8, 12, 4, 2, 4),
    (8, 16, 8, 4, 4),
    (8, 8, 8, 2, 2),
    (12, 16, 8, 2, 4),
    (9, 12, 6, 3, 3),
)
LARGE: tuple[Sizes, ...] = ((64, 72, 8, 2, 8), (128, 144, 16, 4, 1), (256, 288, 32, 4, 8))


def vectors() -> VectorFile:
    """The file of the policy."""
    cases = [golden(), *patterns(), *larger(), *unusual(), *wrong()]
    return VectorFile("balance", ABOUT, NOTES, cases, title="deepseek")


def case(identity: str, comment: str, loads: Loads, sizes: Sizes, flags: tuple[str, ...] = ()) -> Case:
    """A call with its answer."""
    num_experts, num_slots, num_ranks, num_nodes, num_groups = sizes
    topology = Topology(num_ranks, num_nodes)
    kinds = {
        "NoExperts": num_experts == 0,
        "Hierarchical": num_nodes > 1 and num_groups % num_nodes == 0,
        "Flat": num_nodes == 1 or num_groups % num_nodes != 0,
        "NoReplicas": num_slots == num_experts,
        "SingleSlots": num_slots == num_ranks,
        "Windows": len(loads) > 1,
        "Layers": len(loads[0]) > 1,
        "Ties": any(len(set(layer)) < len(layer) for window in loads for layer in window),
        "NoLoad": num_experts > 0 and not all(any(layer) for window in loads for layer in window),
    }
    plan = rebalance(loads, num_slots, topology, POLICY, num_groups)
    flags = (*flags, *(flag for flag, holds in kinds.items() if holds))
    expected = {"physical_to_logical": plan.physical_to_logical()}
    return Case(identity, comment, flags, call(loads, num_slots, topology, num_groups), expected)


def call(loads: Any, num_slots: int, topology: Topology, num_groups: int) -> dict[str, Any]:
    """The arguments of a call."""
    return {
        "loads": loads,
        "num_slots": num_slots,
        "topology": topology_input(topology),
        "policy": POLICY,
        "num_groups": num_groups,
    }


def golden() -> Case:
    """The published example."""
    loads = [[list(map(float, layer)) for layer in GOLDEN]]
    return case(
        "golden", "two layers of 12 experts in 16 slots of 8 ranks on 2 nodes", loads, (12, 16, 8, 2, 4), ("Golden",)
    )


def patterns() -> Iterator[Case]:
    """Every small size with loads of several sorts."""
    for number, sizes in enumerate(SMALL):
        experts = range(sizes[0])
        numbers = Numbers(200 + number)
        few, many = ([float(numbers.below(bound)) for _ in experts] for bound in (3, 1000))
        loads = {
            "zero": [0.0 for _ in experts],
            "equal": [7.0 for _ in experts],
            "ascending": [float(expert) for expert in experts],
            "hot": [1000.0 if expert == sizes[0] // 2 else 1.0 for expert in experts],
            "few": few,
            "many": many,
        }
        text = "-".join(map(str, sizes))
        for name, layer in loads.items():
            yield case(f"{name}-{text}", f"{name} loads: {described(sizes)}", [[layer]], sizes)


def described(sizes: Sizes) -> str:
    """The sizes in words."""
    return "{} experts in {} slots of {} ranks on {} nodes, {} groups".format(*sizes)


def larger() -> Iterator[Case]:
    """Sizes that are in use, with a few hot experts and many cold ones."""
    for number, sizes in enumerate(LARGE):
        numbers = Numbers(300 + number)
        layer = [float(numbers.below(10 ** (2 + numbers.below(4)))) for _ in range(sizes[0])]
        yield case(f"large-{'-'.join(map(str, sizes))}", described(sizes), [[layer]], sizes, ("Large",))


def unusual() -> Iterator[Case]:
    """Layers, windows, and loads at the ends of what floats hold."""
    sizes = (4, 8, 4, 2, 2)
    numbers = Numbers(400)
    rows = [[float(numbers.below(50)) for _ in range(4)] for _ in range(6)]
    yield case("layers", "three layers", [rows[:3]], sizes)
    yield case("windows", "two windows of three layers", [rows[:3], rows[3:]], sizes)
    yield case(
        "windows-cancel", "windows whose sums are equal", [[[1.0, 2.0, 3.0, 4.0]], [[4.0, 3.0, 2.0, 1.0]]], sizes
    )
    yield case("no-experts", "no experts, and four empty slots", [[[]]], (0, 4, 2, 1, 1))
    just = [2.0**24, 2.0**24 + 1, 2.0**24 + 2, 2.0**24 + 3]
    yield case("rounded-24", "2^24 + 1 is 2^24 in float32, and 2^24 + 3 is 2^24 + 4", [[just]], sizes, ("Rounded",))
    large = [2.0**53, 2.0**53 - 1, 2.0**60 + 2.0**40, 3.0]
    yield case("rounded-53", "counts about 2^53 and 2^60", [[large]], sizes, ("Rounded",))
    thirds = [1 / 3, 2 / 3, 0.1, 0.7]
    yield case("thirds", "fractions that no float32 holds", [[thirds]], sizes, ("Rounded",))
    ends = {
        "tiny": [1e-300, 2e-300, 5e-301, 1.5e-300],
        "least": [5e-324, 1e-323, 5e-324, 0.0],
        "huge": [1e300, 2e300, 5e299, 1.5e300],
        "above": [2.0**127, 1.0, 2.0**126, 2.0**100],
        "below": [2.0**-101, 2.0**-102, 2.0**-103, 3 * 2.0**-103],
    }
    for name, layer in ends.items():
        yield case(f"scaled-{name}", f"loads {layer}", [[layer]], sizes, ("Scaled",))
    inside = {"most": [2.0**126, 2.0**125, 2.0**124, 2.0**123], "least-inside": [2.0**-100, 2.0**-101, 0.0, 2.0**-110]}
    for name, layer in inside.items():
        yield case(f"unscaled-{name}", f"loads {layer}, which float32 holds", [[layer]], sizes)


def wrong() -> Iterator[Case]:
    """Calls that the policy refuses."""
    loads = [[[4.0, 3.0, 2.0, 1.0]]]
    needs: dict[str, tuple[str, int, Topology, int]] = {
        "slots-by-ranks": ("7 slots on 2 ranks", 7, Topology(2), 1),
        "experts-by-groups": ("4 experts in 3 groups", 6, Topology(2), 3),
        "ranks-by-nodes": ("3 ranks on 2 nodes, which divide 2 groups", 6, Topology(3, 2), 2),
        "few-slots": ("2 slots for 4 experts", 2, Topology(2), 1),
        "uneven-slots": ("ranks of 2 and 4 slots", 6, Topology(2, 1, [2, 4]), 1),
        "other-slots": ("6 slots where the ranks have 8", 6, Topology(2, 1, 4), 1),
        "speeds": ("ranks of two speeds", 4, Topology(2, 1, None, [1.0, 2.0]), 1),
        "inactive": ("a rank out of service", 8, Topology(2, 1, None, None, [True, False]), 1),
    }
    for identity, (comment, num_slots, topology, num_groups) in needs.items():
        yield refusal(identity, comment, "DoesNotApply", loads, num_slots, topology, num_groups)
    calls: dict[str, tuple[str, Any, int, int]] = {
        "no-groups": ("G = 0", loads, 4, 0),
        "many-groups": ("G = 5 of 4 experts", loads, 4, 5),
        "negative-groups": ("G = -1", loads, 4, -1),
        "negative-slots": ("P = -2", loads, -2, 1),
        "negative-load": ("a load of -1", [[[4.0, 3.0, 2.0, -1.0]]], 4, 1),
        "sum": ("loads that add up to more than 10^301", [[[9e300, 9e300, 2.0, 1.0]]], 4, 1),
    }
    for identity, (comment, given, num_slots, num_groups) in calls.items():
        yield refusal(identity, comment, "WrongCall", given, num_slots, Topology(2), num_groups)


def refusal(
    identity: str, comment: str, flag: str, loads: Any, num_slots: int, topology: Topology, num_groups: int
) -> Case:
    """A call that is refused."""
    asked = call(loads, num_slots, topology, num_groups)
    ask = lambda: rebalance(loads, num_slots, topology, POLICY, num_groups)  # noqa: E731
    return refused(f"refused-{identity}", comment, (flag,), asked, ask)
