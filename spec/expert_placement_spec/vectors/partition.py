"""Vectors of the partition. SPEC.md, "Partition", "Tables" and "Representations"."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from expert_placement_spec.reference import CONTIGUOUS, MAX, STRATEGIES, Partition
from expert_placement_spec.vectors.file import Case, VectorFile, integer, refused
from expert_placement_spec.vectors.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ABOUT = (
    "`ranks` and `experts` of the input are those that are asked for: `count`, `start`, `local_experts` and the "
    "four maps have an entry for each of the ranks, `owner` and `local_index` one for each of the experts. "
    "`counts`, `starts`, `offsets`, `owners` and `local_indices` are the whole tables; round robin has no "
    "`offsets`.",
    "`num_shared_experts` is S of `expert_map_with_shared` and of `expert_mask`.",
    "A case that is refused has either a wrong `num_experts`, `num_ranks` or `strategy`, or a `call`, which is "
    "the name of a query and the rank or expert that it is given; the partition itself is then a legal one.",
)
NOTES = {
    "Tables": "Every table and every map of a small partition.",
    "Model": "A size like those in use: whole tables, and the maps of some ranks.",
    "Limits": "Near the ends of the ranges: 2^31 - 1 experts or ranks. Only single ranks and experts are asked for.",
    "Random": "Random sizes of up to 31 bits. Only single ranks and experts are asked for.",
    "NoExperts": "E = 0: every rank is empty.",
    "EmptyRanks": "Fewer experts than ranks.",
    "Uniform": "R divides E.",
    "Uneven": "R does not divide E.",
    "OneRank": "R = 1: the one rank owns everything.",
    "Wide": "A product of E or R with a rank or an expert needs more than 32 bits, and may need 62.",
    "OutOfRange": "E or R is outside its range: nothing is clamped.",
    "UnknownStrategy": "A name that no strategy has, in this spelling.",
    "NoSuchId": "A rank outside 0 .. R or an expert outside 0 .. E.",
    "NotContiguous": "Round robin is asked for offsets, which it does not have.",
}
SMALL = (range(10), range(1, 7))
"""Every E and R of the cases with everything."""
MODELS = ((30, 8), (64, 6), (128, 24), (160, 16), (256, 72))
LARGE = (0, 1, 2, 30, 65_535, 65_536, 2**24 + 1, 1_000_000_007, 2**30, MAX - 1, MAX)
"""Every pair of these as E and R, with R at least 1."""
RANDOM = 12

ON_RANKS = ("count", "start", "experts", "local_experts", "expert_map", "expert_map_with_sentinel")
WITH_SHARED = ("expert_map_with_shared", "expert_mask")
ON_EXPERTS = ("owner", "local_index")


def vectors() -> VectorFile:
    """The file of the chapter."""
    cases = [*tables(), *models(), *limits(), *drawn(), *wrong_partitions(), *wrong_calls()]
    return VectorFile("partition", ABOUT, NOTES, cases)


def kinds(num_experts: int, num_ranks: int) -> tuple[str, ...]:
    """The flags that say what sort of partition it is."""
    return tuple(
        flag
        for flag, holds in (
            ("NoExperts", num_experts == 0),
            ("EmptyRanks", num_experts < num_ranks),
            ("Uniform", num_experts % num_ranks == 0),
            ("Uneven", num_experts % num_ranks != 0),
            ("OneRank", num_ranks == 1),
            ("Wide", num_experts * num_ranks >= 2**32),
        )
        if holds
    )


def shape(partition: Partition) -> dict[str, Any]:
    """What makes the partition, as a case has it."""
    return {
        "num_experts": partition.num_experts,
        "num_ranks": partition.num_ranks,
        "strategy": partition.strategy,
    }


def name(partition: Partition) -> str:
    """The id of its case."""
    return f"{partition.strategy}-{partition.num_experts}-{partition.num_ranks}"


def tables() -> Iterator[Case]:
    """Everything about small partitions."""
    for num_experts, num_ranks, strategy in product(*SMALL, STRATEGIES):
        partition = Partition(num_experts, num_ranks, strategy)
        ranks = list(range(num_ranks))
        yield whole(partition, ranks, (num_experts + num_ranks) % 3, "Tables", f"{num_experts} over {num_ranks}")


def models() -> Iterator[Case]:
    """Tables of sizes that are in use, and maps of the first and the last rank and of those where counts change."""
    for (num_experts, num_ranks), strategy in product(MODELS, STRATEGIES):
        partition = Partition(num_experts, num_ranks, strategy)
        change = num_experts % num_ranks
        ranks = sorted({0, max(change - 1, 0), num_ranks - 1})
        yield whole(partition, ranks, 1, "Model", f"{num_experts} experts over {num_ranks} ranks")


def whole(partition: Partition, ranks: list[int], num_shared: int, flag: str, comment: str) -> Case:
    """A case with the whole tables of a partition, and the maps of some ranks."""
    asked = {**shape(partition), "num_shared_experts": num_shared, "ranks": ranks, "experts": []}
    expected: dict[str, Any] = {
        "is_uniform": partition.is_uniform,
        "counts": partition.counts(),
        "starts": partition.starts(),
        "owners": partition.owners(),
        "local_indices": partition.local_indices(),
        "local_experts": [partition.local_experts(rank) for rank in ranks],
        "expert_map": [partition.expert_map(rank) for rank in ranks],
        "expert_map_with_shared": [partition.expert_map_with_shared(rank, num_shared) for rank in ranks],
        "expert_map_with_sentinel": [partition.expert_map_with_sentinel(rank) for rank in ranks],
        "expert_mask": [partition.expert_mask(rank, num_shared) for rank in ranks],
    }
    if partition.strategy in CONTIGUOUS:
        expected["offsets"] = partition.offsets()
    flags = (flag, *kinds(partition.num_experts, partition.num_ranks))
    return Case(name(partition), f"{comment}, {partition.strategy}", flags, asked, expected)


def limits() -> Iterator[Case]:
    """Single ranks and experts of partitions up to the limits."""
    for num_experts, num_ranks, strategy in product(LARGE, LARGE, STRATEGIES):
        if num_ranks and max(num_experts, num_ranks) > 2**16:
            yield points(Partition(num_experts, num_ranks, strategy), "Limits")


def drawn() -> Iterator[Case]:
    """The same of random sizes."""
    numbers = Numbers(1)
    for _, strategy in product(range(RANDOM), STRATEGIES):
        # Bits and not sizes are drawn evenly, so that smaller ones come up as well.
        num_experts, num_ranks = (1 + numbers.below(2 ** (17 + numbers.below(15)) - 1) for _ in range(2))
        yield points(Partition(num_experts, num_ranks, strategy), "Random")


def points(partition: Partition, flag: str) -> Case:
    """A case of ranks and experts at the ends, in the middle, and where counts change."""
    num_experts, num_ranks = partition.num_experts, partition.num_ranks
    change = num_experts % num_ranks
    boundary = change * (num_experts // num_ranks + 1)
    ranks = within({0, 1, num_ranks // 2, num_ranks - 2, num_ranks - 1, change - 1, change}, num_ranks)
    experts = within({0, 1, num_experts // 2, num_experts - 1, boundary - 1, boundary, boundary + 1}, num_experts)
    asked = {**shape(partition), "num_shared_experts": 0, "ranks": ranks, "experts": experts}
    expected = {
        "is_uniform": partition.is_uniform,
        "count": [partition.count(rank) for rank in ranks],
        "start": [partition.start(rank) for rank in ranks],
        "owner": [partition.owner(expert) for expert in experts],
        "local_index": [partition.local_index(expert) for expert in experts],
    }
    comment = f"{num_experts} over {num_ranks}, {partition.strategy}: ends, middle, and where counts change"
    return Case(name(partition), comment, (flag, *kinds(num_experts, num_ranks)), asked, expected)


def within(numbers: set[int], end: int) -> list[int]:
    """Those of the numbers that are in 0 .. end, ascending."""
    return sorted(number for number in numbers if 0 <= number < end)


def wrong_partitions() -> Iterator[Case]:
    """What is no partition."""
    wrong = [(-1, 1), (MAX + 1, 1), (2**32, 1), (2**32 + 5, 2), (2**63, 1), (-(2**63), 1)]
    wrong += [(8, 0), (0, 0), (8, -1), (8, MAX + 1), (8, 2**32 + 2), (8, -(2**63)), (MAX + 1, MAX + 1)]
    for num_experts, num_ranks in wrong:
        asked = {"num_experts": integer(num_experts), "num_ranks": integer(num_ranks), "strategy": "linear"}
        comment = f"{num_experts} experts over {num_ranks} ranks"
        ask = making(num_experts, num_ranks, "linear")
        yield refused(f"refused-{num_experts}-{num_ranks}", comment, ("OutOfRange",), asked, ask)
    for strategy in ("", "Linear", "round-robin", "linear ", "contiguous"):
        asked = {"num_experts": 8, "num_ranks": 2, "strategy": strategy}
        ask = making(8, 2, strategy)
        comment = f"the strategy {strategy!r}"
        yield refused(f"refused-strategy-{strategy}".replace(" ", "_"), comment, ("UnknownStrategy",), asked, ask)


def making(num_experts: int, num_ranks: int, strategy: str) -> Any:
    """The making of a partition, to be called."""
    return lambda: Partition(num_experts, num_ranks, strategy)


def wrong_calls() -> Iterator[Case]:
    """Queries that partitions refuse."""
    for num_experts, num_ranks, strategy in ((8, 3, "linear"), (3, 8, "round_robin"), (0, 2, "proportional")):
        partition = Partition(num_experts, num_ranks, strategy)
        for call in (*ON_RANKS, *WITH_SHARED):
            for rank in (-1, num_ranks, MAX, -(2**40)):
                yield wrong_call(partition, call, {"rank": rank}, "NoSuchId")
        for call in ON_EXPERTS:
            for expert in (-1, num_experts, MAX, 2**40):
                yield wrong_call(partition, call, {"expert": expert}, "NoSuchId")
    yield wrong_call(Partition(8, 3, "round_robin"), "offsets", {}, "NotContiguous")
    yield wrong_call(Partition(9, 3, "round_robin"), "offsets", {}, "NotContiguous")


def wrong_call(partition: Partition, call: str, given: Mapping[str, int], flag: str) -> Case:
    """A query with an id that there is not, or one that the strategy has no answer for."""
    shared = (1,) if call in WITH_SHARED else ()
    asked = {**shape(partition), "num_shared_experts": 1, "call": {"name": call, **given}}
    identity = "-".join(("refused", name(partition), call, *map(str, given.values())))
    comment = f"{call}({', '.join(f'{key}={value}' for key, value in given.items())})"
    return refused(identity, comment, (flag,), asked, lambda: getattr(partition, call)(*given.values(), *shared))
