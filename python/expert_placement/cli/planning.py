"""What the commands that plan have in common: what is asked for, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from expert_placement import Partition, Placement, Topology, formats, least_slots, rebalance
from expert_placement.cli.errors import Refused, refusing
from expert_placement.cli.progress import Progress
from expert_placement.cli.words import many
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from expert_placement import LayerReport
    from expert_placement.names import Policy

__all__ = [
    "LINEAR",
    "Limits",
    "Request",
    "Score",
    "Setting",
    "Wanted",
    "need_torch",
    "read_placement",
    "read_setting",
    "score",
]

# How the placement is called that a plan starts from where none is given.
LINEAR = "linear partition"
# What `--inactive` says where every rank is in service.
_NO_RANK = "none"
# Every rank and every slot of every layer is listed here, so that numbers beyond any machine are refused.
_MAX_RANKS = 2**16
_MAX_TABLE = 2**26


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for, as given."""

    loads: str
    num_ranks: int | None = None
    num_nodes: int | None = None
    num_slots: int | None = None
    num_redundant: int | None = None
    slots_per_rank: str | None = None
    speeds: str | None = None
    inactive: tuple[str, ...] = ()
    num_groups: int = 1
    previous: str | None = None
    num_threads: int = 1
    wanted: Wanted | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A balance, in place of a number of slots."""

    balancedness: float
    policy: str
    max_off_node: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may do at most, under the names of `rebalance`."""

    max_moves: int | None = None
    min_gain: float | None = None
    max_off_node: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What plans are made for, read and checked.

    Attributes:
        name: the file of the loads, for messages.
        loads: `[W, L, E]`; W is 1 where the file has no windows.
        is_windowed: whether the file has windows.
        layer_ids: which layer of the model each row is, where the file says so.
        topology: the ranks.
        num_slots: P.
        num_groups: G.
        num_threads: threads for a plan.
        start: where the experts are: the placement that was given, or one replica of each, as a linear partition of
            the experts over the active ranks, without use of the redundant slots.
        start_file: the file that `start` is from, where it was given.
    """

    name: str
    loads: npt.NDArray[Any]
    is_windowed: bool
    layer_ids: tuple[int, ...] | None
    topology: Topology
    num_slots: int
    num_groups: int
    num_threads: int
    start: Placement
    start_file: str | None

    @property
    def previous(self) -> Placement | None:
        """The start, where it was given."""
        return None if self.start_file is None else self.start

    @property
    def start_name(self) -> str:
        """What the start is called."""
        return LINEAR if self.start_file is None else f"`{printable(self.start_file)}`"

    @property
    def start_in_short(self) -> str:
        """What the start is called where there is little room: a file without its folder."""
        return "linear" if self.start_file is None else printable(Path(self.start_file).name)

    @property
    def num_windows(self) -> int:
        """W."""
        return int(self.loads.shape[0])

    @property
    def num_layers(self) -> int:
        """L."""
        return int(self.loads.shape[1])

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self.loads.shape[2])

    def plan(
        self,
        loads: npt.NDArray[Any],
        policy: str,
        previous: Placement | None = None,
        limits: Limits | None = None,
    ) -> Placement:
        """A placement for these loads.

        Raises:
            Refused: what `rebalance` refuses.
        """
        limits = limits or Limits()
        with refusing():
            return rebalance(
                loads,
                self.num_slots,
                self.topology,
                # The policy is checked by the call, which lists the names that it knows.
                cast("Policy", policy),
                self.num_groups,
                previous,
                limits.max_moves,
                min_gain=limits.min_gain,
                max_off_node=limits.max_off_node,
                num_threads=self.num_threads,
            )

    def kept(self) -> Placement:
        """The start, where it can stay as it is.

        Raises:
            Refused: some of it is on ranks that are out of service.
        """
        with refusing():
            return Placement.from_physical_to_logical(
                self.start.physical_to_logical(), num_experts=self.num_experts, topology=self.topology
            )

    @property
    def has_homes(self) -> bool:
        """Whether groups of experts have a node that is their home, so that load can be off it."""
        return self.num_groups > 1 and self.topology.num_nodes > 1

    def described(self) -> str:
        """The sizes, on one line."""
        nodes = f" of {many(self.topology.num_nodes, 'node')}" if self.topology.num_nodes > 1 else ""
        layers = f"{many(self.num_layers, 'layer')} of {many(self.num_experts, 'expert')}"
        return f"{layers} in {many(self.num_slots, 'slot')} on {many(self.topology.num_ranks, 'rank')}{nodes}"

    def described_loads(self) -> str:
        """Where the loads are from, on one line."""
        windows = f"{many(self.num_windows, 'window')} of loads" if self.is_windowed else "loads"
        return f"{windows} from {self.name}"

    def fields(self) -> dict[str, object]:
        """The sizes, for JSON."""
        active = self.topology.active
        return {
            "num_windows": self.num_windows if self.is_windowed else None,
            "num_layers": self.num_layers,
            "num_experts": self.num_experts,
            "num_slots": self.num_slots,
            "num_ranks": self.topology.num_ranks,
            "num_nodes": self.topology.num_nodes,
            "num_groups": self.num_groups,
            "inactive": [] if active is None else [rank for rank, serves in enumerate(active) if not serves],
        }


@dataclass(frozen=True, slots=True)
class Score:
    """How balanced a placement is, in sums over layers and windows. Scores add up."""

    mean: float = 0.0
    largest: float = 0.0
    lower_bound: float = 0.0

    @property
    def balancedness(self) -> float:
        """1 where all ranks are equally busy."""
        return Placement.balancedness_of(self.mean, self.largest)

    @property
    def best(self) -> float:
        """What no placement's balancedness is above."""
        return Placement.balancedness_of(self.mean, self.lower_bound)

    @property
    def gap(self) -> float:
        """How far the busiest ranks are above the lower bound."""
        return self.largest / self.lower_bound - 1 if self.lower_bound else 0.0

    def __add__(self, other: Score) -> Score:
        return Score(self.mean + other.mean, self.largest + other.largest, self.lower_bound + other.lower_bound)


def score(reports: Sequence[LayerReport]) -> Score:
    """The sum over the layers of a report."""
    return sum((Score(layer.mean, layer.largest, layer.lower_bound) for layer in reports), Score())


def need_torch(command: str) -> None:
    """Refuses where torch is not installed, which holds the tables of a placement."""
    if find_spec("torch") is None:
        raise Refused(f"`{command}` needs torch: pip install 'expert-placement[torch,cli]'")


def read_placement(path: str, num_experts: int | None = None, topology: Topology | None = None) -> Placement:
    """A placement from a file of ours or of an engine.

    Args:
        path: the file, of any format that `expert_placement.formats` knows.
        num_experts: E, where it is known; for the files of engines, which do not always say it.
        topology: the ranks, where they are known; for the files of engines, which do not always say them.

    Raises:
        Refused: the file can not be read, is damaged, or needs what is not given.
    """
    with refusing():
        name = formats.recognise(path)
        if name == "native":
            return Placement.load(path)
        if topology is None and name not in formats.RANKED:
            raise Refused(
                f"`{printable(path)}`: a file of `{name}` does not say how many ranks there are, expected --ranks"
            )
        return formats.read(path, name, num_experts, topology)


def read_setting(request: Request) -> Setting:
    """Reads and checks what was asked for.

    Raises:
        Refused: an argument or a file that can not be used.
    """
    from expert_placement.formats.loads import read_recorded_loads

    with refusing():
        recorded = read_recorded_loads(request.loads)
    is_windowed = recorded.loads.ndim == 3
    loads = recorded.loads if is_windowed else recorded.loads[np.newaxis]
    num_layers, num_experts = loads.shape[1:]
    previous = None
    if request.previous is not None:
        ranks = None if request.num_ranks is None else _topology(request, None)
        previous = read_placement(request.previous, num_experts, ranks)
    topology = _topology(request, previous)
    num_slots = _num_slots(request, loads, topology, previous)
    if not 0 <= num_slots <= _MAX_TABLE // num_layers:
        raise Refused(
            f"num_slots={num_slots} is out of range, expected 0..={_MAX_TABLE // num_layers} for "
            f"{many(num_layers, 'layer')}"
        )
    if previous is None:
        start = _linear(num_layers, num_experts, num_slots, topology)
    else:
        start = _seen_by(previous, topology)
        with refusing():
            start.balancedness(loads)  # Loads of another model are named before anything is planned.
    return Setting(
        name=f"`{printable(request.loads)}`",
        loads=loads,
        is_windowed=is_windowed,
        layer_ids=recorded.layer_ids,
        topology=topology,
        num_slots=num_slots,
        num_groups=request.num_groups,
        num_threads=request.num_threads,
        start=start,
        start_file=request.previous,
    )


# --- ranks and slots --------------------------------------------------------------------------------------------------


def _topology(request: Request, previous: Placement | None) -> Topology:
    """The ranks: those of the previous placement, if any, as far as the request does not say otherwise."""
    known = None if previous is None else previous.topology
    num_ranks = request.num_ranks if known is None or request.num_ranks is not None else known.num_ranks
    if num_ranks is None:
        raise Refused("the number of ranks is not known, expected --ranks or --previous")
    if known is not None and num_ranks != known.num_ranks:
        raise Refused(
            f"num_ranks={num_ranks} is not that of the previous placement, expected {known.num_ranks}: "
            "ranks leave with --inactive, and are not renumbered"
        )
    num_nodes = request.num_nodes
    slots_per_rank = None if request.slots_per_rank is None else _numbers("slots_per_rank", request.slots_per_rank, int)
    speeds = None if request.speeds is None else _numbers("speeds", request.speeds, float)
    with refusing():
        # A number of ranks that is out of range is named before a list of that length is made.
        Topology(num_ranks)
        if num_ranks > _MAX_RANKS:
            raise Refused(f"num_ranks={num_ranks} is out of range, expected 1..={_MAX_RANKS} for a plan")
        return Topology(
            num_ranks,
            num_nodes if num_nodes is not None else known.num_nodes if known is not None else 1,
            _one_or_all(slots_per_rank) if slots_per_rank is not None else known.slots_per_rank if known else None,
            speeds if speeds is not None else known.speeds if known is not None else None,
            _active(request.inactive, num_ranks) if request.inactive else known.active if known is not None else None,
        )


def _one_or_all(slots: list[Any]) -> int | list[int]:
    return slots[0] if len(slots) == 1 else slots


def _numbers(parameter: str, text: str, number: type[int] | type[float]) -> list[Any]:
    numbers = []
    for item in text.split(","):
        try:
            numbers.append(number(item))
        except ValueError:
            noun = "integer" if number is int else "number"
            expected = f"expected {'one or ' if number is int else ''}R of them, with a comma between two"
            raise Refused(f"{parameter}: `{printable(item)}` is no {noun}, {expected}") from None
    return numbers


def _active(inactive: Sequence[str], num_ranks: int) -> list[bool] | None:
    """Which ranks are in service, from lists of those that are not."""
    if list(inactive) == [_NO_RANK]:
        return None
    active = [True] * num_ranks
    for item in ",".join(inactive).split(","):
        rank = int(item) if item.isdecimal() and item.isascii() and len(item) <= 10 else -1
        if not 0 <= rank < num_ranks:
            raise Refused(f"inactive=`{printable(item)}` is out of range, expected a rank in 0..{num_ranks}")
        active[rank] = False
    return active


def _num_slots(request: Request, loads: npt.NDArray[Any], topology: Topology, previous: Placement | None) -> int:
    """P, from the one option that tells it."""
    given = {
        "--slots": request.num_slots,
        "--redundant": request.num_redundant,
        "--slots-per-rank": request.slots_per_rank,
        "--previous": previous,
    }
    if request.num_slots is not None and request.num_redundant is not None:
        raise Refused("both --slots and --redundant are given, expected one of them")
    if request.wanted is not None:
        for option, value in given.items():
            if value is not None:
                raise Refused(f"both --balancedness and {option} are given, expected one of them")
        return _least_slots(request, request.wanted, loads, topology)
    if request.num_slots is not None:
        return request.num_slots
    if request.num_redundant is not None:
        if request.num_redundant < 0:
            raise Refused(f"redundant={request.num_redundant} is out of range, expected 0 or more")
        return int(loads.shape[2]) + request.num_redundant
    if previous is not None:
        return previous.num_slots
    if topology.slots_per_rank is None:
        raise Refused(f"the number of slots is not known, expected one of {', '.join(given)}")
    return sum(_slots(topology, 0))


def _least_slots(request: Request, wanted: Wanted, loads: npt.NDArray[Any], topology: Topology) -> int:
    """The least P, equally many for each rank, whose plan is as balanced as is wanted."""

    def look() -> int:
        with refusing():
            return least_slots(
                loads,
                wanted.balancedness,
                topology,
                cast("Policy", wanted.policy),
                request.num_groups,
                max_off_node=wanted.max_off_node,
                num_threads=request.num_threads,
            ).num_slots

    with Progress("looking for the least number of slots", 1) as progress:
        return progress.step(look)


def _slots(topology: Topology, num_slots: int) -> list[int]:
    """The slots of each rank; P is asked where the topology does not tell them."""
    slots = topology.slots_per_rank
    if slots is None:
        p = Partition(num_slots, topology.num_ranks)
        return [p.count(rank) for rank in range(topology.num_ranks)]
    return [slots] * topology.num_ranks if isinstance(slots, int) else list(slots)


# --- where the experts are at first -----------------------------------------------------------------------------------


def _linear(num_layers: int, num_experts: int, num_slots: int, topology: Topology) -> Placement:
    """One replica of each expert, in the order of ids, as even over the active ranks as their slots allow."""
    with refusing():
        slots = _slots(topology, num_slots)
    active = topology.active or (True,) * topology.num_ranks
    usable = sum(number for number, serves in zip(slots, active, strict=True) if serves)
    if usable < num_experts:
        raise Refused(
            f"num_slots={num_slots} gives the active ranks {many(usable, 'slot')}, expected at least {num_experts}, "
            "one for each expert"
        )
    room = [number if serves else 0 for number, serves in zip(slots, active, strict=True)]
    counts = [0] * topology.num_ranks
    left = num_experts
    while left:
        # All ranks with room take a share of a linear partition; what is beyond the room of one goes to the others.
        ranks = [rank for rank, (count, most) in enumerate(zip(counts, room, strict=True)) if count < most]
        share, rest = divmod(left, len(ranks))
        for position, rank in enumerate(ranks):
            taken = min(share + (position < rest), room[rank] - counts[rank])
            counts[rank] += taken
            left -= taken
    row = np.full(sum(slots), -1, np.int32)
    expert, slot = 0, 0
    for count, number in zip(counts, slots, strict=True):
        row[slot : slot + count] = np.arange(expert, expert + count)
        expert, slot = expert + count, slot + number
    table = np.tile(row, (num_layers, 1))
    with refusing():
        return Placement.from_physical_to_logical(table, num_experts=num_experts, topology=topology)


def _seen_by(previous: Placement, topology: Topology) -> Placement:
    """The placement on the nodes and with the speeds of another topology. What is on lost ranks is still there."""
    with refusing():
        there = Topology(
            topology.num_ranks, topology.num_nodes, topology.slots_per_rank, topology.speeds, previous.topology.active
        )
        return Placement.from_physical_to_logical(
            previous.physical_to_logical(), num_experts=previous.num_experts, topology=there
        )
