"""`Partition` as a value and its scalar answers. Needs no torch. SPEC.md, "Partition"."""

from __future__ import annotations

import copy
import enum
import inspect
import itertools
import json
import pickle
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, get_args

import expert_placement
import numpy as np
import pytest
from expert_placement import ExpertMap, Partition, Policy, Strategy
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALL: tuple[Strategy, ...] = get_args(Strategy)
MAX = 2**31 - 1


def deal(num_experts: int, num_ranks: int, strategy: Strategy) -> list[list[int]]:
    """Every rank's experts in local order, dealt out by hand."""
    if strategy == "round_robin":
        return [list(range(rank, num_experts, num_ranks)) for rank in range(num_ranks)]
    base, remainder = divmod(num_experts, num_ranks)
    shares = [base + (rank < remainder) for rank in range(num_ranks)]
    if strategy == "proportional":
        bounds = [rank * num_experts // num_ranks for rank in range(num_ranks + 1)]
        shares = [end - begin for begin, end in itertools.pairwise(bounds)]
    experts = iter(range(num_experts))
    return [[next(experts) for _ in range(share)] for share in shares]


def start_by_formula(num_experts: int, num_ranks: int, strategy: Strategy, rank: int) -> int:
    if strategy == "round_robin":
        return rank
    if strategy == "proportional":
        return rank * num_experts // num_ranks
    return rank * (num_experts // num_ranks) + min(rank, num_experts % num_ranks)


def owner_by_formula(num_experts: int, num_ranks: int, strategy: Strategy, expert: int) -> int:
    if strategy == "round_robin":
        return expert % num_ranks
    if strategy == "proportional":
        return ((expert + 1) * num_ranks - 1) // num_experts
    base, remainder = divmod(num_experts, num_ranks)
    boundary = remainder * (base + 1)
    return expert // (base + 1) if expert < boundary else remainder + (expert - boundary) // base


def run_python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, with warnings as errors, away from the checkout's own folders."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ALL)
def test_every_scalar_answer_is_that_of_dealing_by_hand(strategy: Strategy) -> None:
    for num_experts in range(41):
        for num_ranks in range(1, 41):
            p = Partition(num_experts, num_ranks, strategy)
            dealt = deal(num_experts, num_ranks, strategy)
            case = repr(p)
            assert [p.count(rank) for rank in range(num_ranks)] == [len(own) for own in dealt], case
            assert [list(p.experts(rank)) for rank in range(num_ranks)] == dealt, case
            assert [p.start(rank) for rank in range(num_ranks)] == [
                start_by_formula(num_experts, num_ranks, strategy, rank) for rank in range(num_ranks)
            ], case
            homes = {expert: (rank, local) for rank, own in enumerate(dealt) for local, expert in enumerate(own)}
            assert {expert: (p.owner(expert), p.local_index(expert)) for expert in range(num_experts)} == homes, case
            assert p.is_uniform == (len({len(own) for own in dealt}) == 1), case


def test_the_seed_case_is_balanced() -> None:
    p = Partition(30, 8)
    assert [p.count(rank) for rank in range(8)] == [4, 4, 4, 4, 4, 4, 3, 3]


COUNTS = st.one_of(st.integers(0, 600), st.integers(0, MAX), st.integers(MAX - 5, MAX))


@given(COUNTS, COUNTS.map(lambda value: max(value, 1)), st.sampled_from(ALL), st.data())
def test_answers_of_any_size_follow_the_formulas(
    num_experts: int, num_ranks: int, strategy: Strategy, data: st.DataObject
) -> None:
    p = Partition(num_experts, num_ranks, strategy)
    rank = data.draw(st.integers(0, num_ranks - 1))
    start = start_by_formula(num_experts, num_ranks, strategy, rank)
    step = num_ranks if strategy == "round_robin" else 1
    share = num_experts // num_ranks + (rank < num_experts % num_ranks)
    if strategy == "proportional":
        share = start_by_formula(num_experts, num_ranks, strategy, rank + 1) - start
    assert p.start(rank) == start
    assert p.count(rank) == share
    assert p.experts(rank) == range(start, start + share * step, step)
    if num_experts:
        expert = data.draw(st.integers(0, num_experts - 1))
        owner = owner_by_formula(num_experts, num_ranks, strategy, expert)
        assert p.owner(expert) == owner
        assert p.experts(owner)[p.local_index(expert)] == expert


@pytest.mark.parametrize("strategy", ALL)
def test_the_largest_partition_gives_each_rank_its_own_expert(strategy: Strategy) -> None:
    p = Partition(MAX, MAX, strategy)
    assert p.is_uniform
    assert p.uniform_count() == 1
    for each in (0, 1, MAX // 2, MAX - 2, MAX - 1):
        assert (p.count(each), p.start(each), p.owner(each), p.local_index(each)) == (1, each, each, 0)
        assert list(p.experts(each)) == [each]


@pytest.mark.parametrize("strategy", ALL)
def test_extreme_shapes_answer(strategy: Strategy) -> None:
    one = Partition(MAX, 1, strategy)
    assert (one.count(0), one.start(0), one.owner(MAX - 1), one.local_index(MAX - 1)) == (MAX, 0, 0, MAX - 1)
    assert one.experts(0) == range(MAX)
    none = Partition(0, MAX, strategy)
    assert none.is_uniform
    assert (none.uniform_count(), none.count(MAX - 1), list(none.experts(MAX - 1))) == (0, 0, [])
    assert none.start(MAX - 1) == (MAX - 1 if strategy == "round_robin" else 0)
    nearly = Partition(MAX, MAX - 1, strategy)
    assert sum(nearly.count(rank) for rank in (0, MAX - 2)) == 3
    assert nearly.min_redundant_experts == MAX - 2


def test_an_empty_rank_has_an_empty_range() -> None:
    for strategy in ALL:
        p = Partition(3, 8, strategy)
        for rank in range(8):
            assert (len(p.experts(rank)) == 0) == (p.count(rank) == 0)


def test_answers_are_plain_python_values() -> None:
    p = Partition(30, 8)
    scalars: list[object] = [
        p.num_experts,
        p.num_ranks,
        p.count(0),
        p.start(0),
        p.owner(0),
        p.local_index(0),
        p.min_redundant_experts,
        Partition(32, 8).uniform_count(),
    ]
    assert {type(value) for value in scalars} == {int}
    assert type(p.experts(0)) is range
    assert type(p.strategy) is str
    assert type(p.is_uniform) is type(p.is_contiguous) is bool
    assert [Partition(1, 1, strategy).is_contiguous for strategy in ALL] == [True, False, True]


def test_is_uniform_means_that_ranks_divide_experts() -> None:
    for num_experts in range(60):
        for num_ranks in range(1, 60):
            p = Partition(num_experts, num_ranks)
            least = next(n for n in range(num_ranks) if (num_experts + n) % num_ranks == 0)
            assert p.min_redundant_experts == least, repr(p)
            assert p.is_uniform == (least == 0), repr(p)
            if p.is_uniform:
                assert p.uniform_count() == num_experts // num_ranks, repr(p)


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "message"),
    [
        (
            30,
            8,
            "num_experts=30 does not divide by num_ranks=8, so slabs are not equal: "
            "add 2 redundant experts (32 over 8 ranks), or use 6 or 10 ranks",
        ),
        (
            7,
            8,
            "num_experts=7 does not divide by num_ranks=8, so slabs are not equal: "
            "add 1 redundant expert (8 over 8 ranks), or use 7 ranks",
        ),
        (
            1,
            2,
            "num_experts=1 does not divide by num_ranks=2, so slabs are not equal: "
            "add 1 redundant expert (2 over 2 ranks), or use 1 rank",
        ),
        (
            MAX,
            2**30,
            "num_experts=2147483647 does not divide by num_ranks=1073741824, so slabs are not equal: "
            "use 1 or 2147483647 ranks",
        ),
    ],
)
def test_uneven_slabs_are_refused_with_the_remedies(num_experts: int, num_ranks: int, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Partition(num_experts, num_ranks).uniform_count()
    assert str(caught.value) == message


def test_legal_ranks_are_the_divisors_in_order() -> None:
    for num_experts in range(1, 400):
        divisors = [ranks for ranks in range(1, num_experts + 1) if num_experts % ranks == 0]
        assert Partition.legal_ranks(num_experts) == divisors
        for most in (1, 7, 72, 1000):
            assert Partition.legal_ranks(num_experts, most) == [ranks for ranks in divisors if ranks <= most]
    assert Partition.legal_ranks(MAX) == [1, MAX]  # 2**31 - 1 is prime
    assert Partition.legal_ranks(2**30) == [2**k for k in range(31)]
    assert Partition.legal_ranks(0, 5) == [1, 2, 3, 4, 5]
    assert all(Partition(896, ranks).is_uniform for ranks in Partition.legal_ranks(896, max_ranks=72))


def test_the_nearest_legal_ranks_are_divisors() -> None:
    assert Partition(30, 8).nearest_legal_ranks == (6, 10)
    assert Partition(7, 8).nearest_legal_ranks == (7, None)
    assert Partition(1, 1).nearest_legal_ranks == (None, None)
    assert Partition(0, 5).nearest_legal_ranks == (4, 6)


def test_legal_ranks_of_no_experts_need_a_bound() -> None:
    with pytest.raises(ValueError, match=r"^max_ranks=16777217 is out of range, expected 1..=16777216$"):
        Partition.legal_ranks(0, 2**24 + 1)
    assert len(Partition.legal_ranks(0, 2**20)) == 2**20
    with pytest.raises(ValueError, match=r"^max_ranks is needed where num_experts=0: every rank count is legal$"):
        Partition.legal_ranks(0)


# --- the value --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ALL)
def test_equal_partitions_are_one_value(strategy: Strategy) -> None:
    p, same = Partition(30, 8, strategy), Partition(num_experts=30, num_ranks=8, strategy=strategy)
    assert p == same
    assert hash(p) == hash(same)
    assert p is not same
    assert {p: "found"}[same] == "found"


def test_different_partitions_differ() -> None:
    values = [Partition(e, r, s) for e in range(12) for r in range(1, 12) for s in ALL]
    assert len(set(values)) == len(values)
    assert len({hash(value) for value in values}) == len(values)
    p = Partition(30, 8)
    others: list[object] = [(30, 8, "linear"), None, "Partition", 30, Partition]
    assert all(p != other for other in others)
    assert not any(p == other for other in others)


def test_linear_is_the_default() -> None:
    assert Partition(30, 8) == Partition(30, 8, "linear")
    assert Partition(30, 8).strategy == "linear"


def test_the_signature_shows_the_default_strategy() -> None:
    default = inspect.signature(Partition).parameters["strategy"].default
    assert default == "linear", f"the signature promises strategy='linear' but shows {default!r}"


def test_partitions_have_no_order() -> None:
    p: Any = Partition(30, 8)
    with pytest.raises(TypeError):
        _ = p < p


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("strategy", ALL)
def test_pickling_keeps_the_value(protocol: int, strategy: Strategy) -> None:
    p = Partition(30, 8, strategy)
    restored = pickle.loads(pickle.dumps(p, protocol))
    assert restored == p
    assert type(restored) is Partition


def test_copies_are_the_partition_itself() -> None:
    p = Partition(30, 8, "round_robin")
    assert copy.copy(p) is p
    assert copy.deepcopy(p) is p
    assert copy.deepcopy([p, p]) == [p, p]


def test_a_match_statement_takes_it_apart() -> None:
    match Partition(30, 8, "proportional"):
        case Partition(experts, 8, strategy=name):
            assert (experts, name) == (30, "proportional")
        case _:
            pytest.fail("no case matched")
    assert Partition.__match_args__ == ("num_experts", "num_ranks", "strategy")


@pytest.mark.parametrize("strategy", ALL)
def test_repr_evaluates_to_the_partition(strategy: Strategy) -> None:
    p = Partition(30, 8, strategy)
    assert repr(p) == f"Partition(num_experts=30, num_ranks=8, strategy='{strategy}')"
    assert eval(repr(p)) == p


def test_nothing_about_a_partition_can_be_changed() -> None:
    p: Any = Partition(30, 8)
    for name in ("num_experts", "num_ranks", "strategy", "is_uniform", "count", "brand_new"):
        with pytest.raises(AttributeError):
            setattr(p, name, 1)
        with pytest.raises(AttributeError):
            object.__setattr__(p, name, 1)
    for name in ("num_experts", "num_ranks", "strategy"):
        with pytest.raises(AttributeError):
            delattr(p, name)
    assert not hasattr(p, "__dict__")
    assert p == Partition(30, 8)


def test_calling_init_again_changes_nothing() -> None:
    p: Any = Partition(30, 8)
    p.__init__(5, 5)
    assert p == Partition(30, 8)


class Named(Partition):
    """A subclass with behaviour of its own."""

    @property
    def label(self) -> str:
        return f"{self.num_experts}/{self.num_ranks}"


def test_subclasses_keep_their_type_and_stay_comparable() -> None:
    named, plain = Named(30, 8, "round_robin"), Partition(30, 8, "round_robin")
    assert named.label == "30/8"
    assert named == plain
    assert plain == named
    assert hash(named) == hash(plain)
    assert repr(named) == "Named(num_experts=30, num_ranks=8, strategy='round_robin')"
    assert type(pickle.loads(pickle.dumps(named))) is Named
    assert type(copy.deepcopy(named)) is Named
    assert isinstance(Named.from_config({"model_type": "mixtral", "num_local_experts": 8}, 2), Named)


class Tagged(Partition):
    """A subclass with attributes that its `__new__` demands, which lie in `__dict__`."""

    tags: list[str]

    def __new__(cls, num_experts: int, num_ranks: int, *, tags: list[str]) -> Tagged:
        self = super().__new__(cls, num_experts, num_ranks)
        self.tags = tags
        return self


class Slotted(Partition):
    """A subclass with slots, one of a name that Python makes private."""

    __slots__ = ("__secret", "tags")
    tags: list[str]

    def hide(self, secret: list[str]) -> None:
        self.__secret = secret

    def reveal(self) -> list[str]:
        return self.__secret


class Unchanging(Tagged):
    """A subclass that forbids to set attributes, and shows one by a property of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "tags":
            raise AttributeError(name)
        super().__setattr__(name, value)

    @property
    def note(self) -> object:
        return self.__dict__["note"]


def with_attributes() -> list[Any]:
    """A partition of each kind of subclass, with the attribute `tags` and more."""
    tagged, slotted, unchanging = Tagged(30, 8, tags=["a"]), Slotted(30, 8), Unchanging(30, 8, tags=["a"])
    slotted.tags = ["a"]
    slotted.hide(["b"])
    unchanging.__dict__["note"] = "c"
    return [tagged, slotted, unchanging]


def pickled(p: Any) -> Any:
    return pickle.loads(pickle.dumps(p))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_subclass_has_attributes_of_its_own(duplicate: Callable[[Any], Any]) -> None:
    for p in with_attributes():
        twin = duplicate(p)
        assert type(twin) is type(p)
        assert twin is not p
        assert twin == p
        assert twin.tags == ["a"]
        assert (twin.tags is p.tags) == (duplicate is copy.copy)
        twin.tags = ["z"]
        assert p.tags == ["a"]
    _, slotted, unchanging = map(duplicate, with_attributes())
    assert slotted.reveal() == ["b"]
    assert unchanging.note == "c"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_a_subclass_keeps_its_attributes(protocol: int) -> None:
    for p in with_attributes():
        restored = pickle.loads(pickle.dumps(p, protocol))
        assert (type(restored), restored, restored.tags) == (type(p), p, ["a"])


def test_an_attribute_that_leads_back_is_the_copy() -> None:
    p: Any = Tagged(30, 8, tags=[])
    p.tags.append(p)
    assert copy.deepcopy(p).tags[0] is not p
    for twin in (copy.deepcopy(p), pickled(p)):
        assert twin.tags[0] is twin
    assert copy.copy(p).tags[0] is p
    first, second = copy.deepcopy([p, p])
    assert first is second


class Reducing(Tagged):
    """A subclass that says itself how it is made again."""

    def __reduce__(self) -> Any:
        return Reducing.made, (self.num_experts, self.num_ranks, self.tags)

    @classmethod
    def made(cls, num_experts: int, num_ranks: int, tags: list[str]) -> Reducing:
        return cls(num_experts, num_ranks, tags=[*tags, "made"])


class ReducingEx(Tagged):
    """The same by `__reduce_ex__`, whose third part is the state."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, arguments, _ = super().__reduce__()
        return make, arguments, {"tags": [*self.tags, "made"]}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("subclass", [Reducing, ReducingEx])
def test_a_subclass_that_says_how_it_is_made_again_is_copied_so(
    duplicate: Callable[[Any], Any], subclass: type[Tagged]
) -> None:
    twin = duplicate(subclass(30, 8, tags=["a"]))
    assert (type(twin), twin, twin.tags) == (subclass, Partition(30, 8), ["a", "made"])


def test_a_subclass_may_define_its_own_copy() -> None:
    class Copied(Partition):
        def __copy__(self) -> str:
            return "a copy"

    assert copy.copy(Copied(30, 8)) == "a copy"


def test_a_slot_without_a_value_stays_empty() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickled):
        twin = duplicate(Slotted(30, 8))
        assert twin == Partition(30, 8)
        assert not hasattr(twin, "tags")


def test_a_copy_without_attributes_shares_none_that_come_later() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickled):
        named: Any = Named(30, 8)
        duplicate(named).note = "mine"
        assert not hasattr(named, "note")


class Choosing(Partition):
    """A subclass with an attribute that no pickle can hold."""

    kept: int
    made: Any

    def __init__(self, *_: object) -> None:
        self.kept, self.made = 1, lambda: None

    def __getstate__(self) -> dict[str, object]:
        return {"kept": self.kept}

    def __setstate__(self, attributes: dict[str, object]) -> None:
        super().__setstate__(attributes)
        self.made = "again"


def test_a_subclass_chooses_what_its_pickle_carries() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickled):
        twin = duplicate(Choosing(30, 8))
        assert (twin.kept, twin.made) == (1, "again")


# --- refusals ---------------------------------------------------------------------------------------------------------


class Index:
    """Nothing but an `__index__`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __str__(self) -> str:
        return "not the value"


class Broken:
    """An `__index__` that fails."""

    def __index__(self) -> int:
        raise RuntimeError("no index today")


def kind(value: object) -> str:
    """A test id that is the same in every run."""
    return type(value).__name__


class Size(enum.IntEnum):
    EIGHT = 8


# Every parameter that takes an integer: its call, its name, the error out of range, and the range in words.
PARAMETERS: dict[str, tuple[Callable[[Any], object], str, type[Exception], str]] = {
    "num_experts": (lambda value: Partition(value, 8), "num_experts", ValueError, "0..=2147483647"),
    "num_ranks": (lambda value: Partition(30, value), "num_ranks", ValueError, "1..=2147483647"),
    "count": (lambda value: Partition(30, 9).count(value), "rank", IndexError, "0..9"),
    "start": (lambda value: Partition(30, 9).start(value), "rank", IndexError, "0..9"),
    "experts": (lambda value: Partition(30, 9).experts(value), "rank", IndexError, "0..9"),
    "owner": (lambda value: Partition(30, 9).owner(value), "expert", IndexError, "0..30"),
    "local_index": (lambda value: Partition(30, 9).local_index(value), "expert", IndexError, "0..30"),
    "legal_ranks": (Partition.legal_ranks, "num_experts", ValueError, "0..=2147483647"),
    "max_ranks": (lambda value: Partition.legal_ranks(30, value), "max_ranks", ValueError, "1..=2147483647"),
}
each_parameter = pytest.mark.parametrize("where", PARAMETERS)


@each_parameter
@pytest.mark.parametrize("value", [-1, -(2**31), -(2**63), -(2**63) - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**200])
def test_an_integer_out_of_range_is_named_with_the_range(where: str, value: int) -> None:
    call, parameter, error, allowed = PARAMETERS[where]
    with pytest.raises(error) as caught:
        call(value)
    assert str(caught.value) == f"{parameter}={value} is out of range, expected {allowed}"
    assert caught.type is error


@each_parameter
@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["10**5000", "-(10**5000)"])
def test_an_integer_too_long_to_print_is_out_of_range(where: str, value: int) -> None:
    call, parameter, error, allowed = PARAMETERS[where]
    with pytest.raises(error) as caught:
        call(value)
    assert str(caught.value) == f"{parameter}=a huge integer is out of range, expected {allowed}"


@each_parameter
@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        8.0,
        float("nan"),
        float("inf"),
        "8",
        b"8",
        None,
        [8],
        (8,),
        8j,
        object(),
        np.bool_(True),
        np.float64(8),
    ],
    ids=kind,
)
def test_what_is_no_integer_is_a_type_error(where: str, value: object) -> None:
    if where == "max_ranks" and value is None:
        return  # None stands for num_experts there.
    call, parameter, _, _ = PARAMETERS[where]
    with pytest.raises(TypeError) as caught:
        call(value)
    assert str(caught.value) == f"{parameter} must be an int, got `{type(value).__name__}`"


@each_parameter
def test_whatever_has_an_index_is_an_integer(where: str) -> None:
    call = PARAMETERS[where][0]
    kinds = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, Index)
    for value in [*(kind(8) for kind in kinds), np.array(8), Size.EIGHT]:
        assert call(value) == call(8), repr(value)


@each_parameter
def test_an_index_out_of_range_is_named_by_its_value(where: str) -> None:
    call, parameter, error, allowed = PARAMETERS[where]
    for value in (-1, 2**40, 2**70):
        with pytest.raises(error) as caught:
            call(Index(value))
        assert str(caught.value) == f"{parameter}={value} is out of range, expected {allowed}"


@each_parameter
def test_an_index_that_fails_keeps_its_own_error(where: str) -> None:
    with pytest.raises(RuntimeError, match=r"^no index today$"):
        PARAMETERS[where][0](Broken())


@pytest.mark.parametrize(
    ("where", "end"), [("count", 9), ("start", 9), ("experts", 9), ("owner", 30), ("local_index", 30)]
)
def test_the_first_id_past_the_end_is_refused(where: str, end: int) -> None:
    call, parameter, _, allowed = PARAMETERS[where]
    call(end - 1)
    with pytest.raises(IndexError) as caught:
        call(end)
    assert str(caught.value) == f"{parameter}={end} is out of range, expected {allowed}"


def test_zero_ranks_are_refused_and_zero_experts_are_not() -> None:
    with pytest.raises(ValueError, match=r"^num_ranks=0 is out of range, expected 1\.\.=2147483647$"):
        Partition(30, 0)
    with pytest.raises(IndexError, match=r"^expert=0 is out of range, expected 0\.\.0$"):
        Partition(0, 3).owner(0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", ""),
        ("Linear", "Linear"),
        (" linear", " linear"),
        ("roundrobin", "roundrobin"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40 + "..."),
        ("line\nbreak", "line\\nbreak"),
        ("\N{GREEK SMALL LETTER ALPHA}" * 20, "\N{GREEK SMALL LETTER ALPHA}" * 20),
    ],
)
def test_an_unknown_strategy_is_named_beside_the_known_ones(name: Any, shown: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Partition(30, 8, name)
    known = "`linear`, `round_robin`, `proportional`"
    assert str(caught.value) == f"strategy=`{shown}` is unknown, expected one of {known}"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\ud800", "\\ud800"), ("lin\udfffear\n", "lin\\udfffear\\n"), ("\ud800" * 7, "\\ud800" * 6 + "\\ud8...")],
    ids=ascii,
)
def test_a_strategy_with_a_lone_surrogate_is_printed_escaped(name: Any, shown: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Partition(30, 8, name)
    assert str(caught.value).startswith(f"strategy=`{shown}` is unknown, expected one of ")


@pytest.mark.parametrize("strategy", [b"linear", 0, True, None, ["linear"], object()], ids=kind)
def test_a_strategy_that_is_no_str_is_a_type_error(strategy: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Partition(30, 8, strategy)
    assert str(caught.value) == f"strategy must be a str, got `{type(strategy).__name__}`"


def test_a_str_subclass_is_a_strategy() -> None:
    class Name(str):
        __slots__ = ()

    strategy: Any = Name("round_robin")
    assert Partition(30, 8, strategy) == Partition(30, 8, "round_robin")


def test_missing_and_unknown_arguments_are_type_errors() -> None:
    make: Any = Partition
    for arguments, options in [((), {}), ((30,), {}), ((30, 8, "linear", 1), {}), ((30, 8), {"ranks": 1})]:
        with pytest.raises(TypeError):
            make(*arguments, **options)


# --- the package ------------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = """
        import copy, json, pickle, sys
        from expert_placement import Partition
        import expert_placement.integrations.vllm
        p = Partition(30, 8)
        assert (p.count(7), p.start(7), p.owner(29), p.local_index(29)) == (3, 27, 7, 2)
        config = {"model_type": "mixtral", "num_local_experts": 8}
        assert Partition.from_config(config, 2).count(0) == 4
        with open("config.json", "w") as file:
            json.dump(config, file)
        assert Partition.from_config(".", 2) == pickle.loads(pickle.dumps(copy.deepcopy(Partition(8, 2))))
        print([name for name in ("torch", "numpy") if name in sys.modules])
    """
    assert run_python(code, tmp_path) == "[]\n"


def test_importing_the_package_imports_none_of_its_planners_and_files(tmp_path: Path) -> None:
    code = """
        import sys
        import expert_placement
        print(sorted(name for name in sys.modules if name.startswith("expert_placement")))
    """
    modules = ["expert_placement", *(f"expert_placement.{name}" for name in ("_copying", "_core", "partition"))]
    assert run_python(code, tmp_path) == f"{modules}\n"


WITHOUT_TORCH = """
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise {error}
    sys.meta_path.insert(0, Blocker())
    from expert_placement import ExpertMap, Partition, build_info
    from expert_placement.integrations.vllm import determine_expert_map
    p = Partition(30, 8)
    e = ExpertMap.from_partition(p, 7)
    for call in (
        p.counts, p.starts, p.offsets, p.owners, p.local_indices, lambda: p.local_experts(0),
        lambda: p.expert_map(0), lambda: p.expert_map_with_shared(0, 1), lambda: p.expert_map_with_sentinel(0),
        lambda: p.expert_mask(0), lambda: p.owner_of([1]), lambda: p.counts(device="cpu"),
        e.local_experts, e.index_map, lambda: e.index_map_with_shared(1), e.index_map_with_sentinel, e.mask,
    ):
        try:
            call()
        except ImportError as error:
            print(type(error).__name__, error)
    assert determine_expert_map(1, 0, 30) == (30, None, None)
    assert ExpertMap.from_index_map([-1] * 27 + [0, 1, 2], 30) == e
    assert build_info()["tensor_hand_over"] is None
"""


def test_without_torch_every_tensor_is_one_line_that_names_the_extra(tmp_path: Path) -> None:
    error = "ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    printed = run_python(WITHOUT_TORCH.replace("{error}", error), tmp_path)
    line = "ImportError tensors need torch, install it with: pip install 'expert-placement[torch]'\n"
    assert printed == line * 17


@pytest.mark.parametrize(
    "error",
    ["ImportError('libcudart.so is broken')", "ModuleNotFoundError(\"No module named 'torch._C'\", name='torch._C')"],
)
def test_a_broken_torch_keeps_its_own_error(error: str, tmp_path: Path) -> None:
    printed = set(run_python(WITHOUT_TORCH.replace("{error}", error), tmp_path).splitlines())
    broken = eval(error)
    assert printed == {f"{type(broken).__name__} {broken}"}


def test_the_package_says_what_it_is() -> None:
    info = expert_placement.build_info()
    assert set(info) == {"version", "python_abi", "profile", "target", "tensor_hand_over"}
    assert info["version"] == expert_placement.__version__
    assert expert_placement.STRATEGIES == ALL
    assert get_args(Policy) == expert_placement.POLICIES
    assert expert_placement.MAX_NUM_EXPERTS == MAX
    assert all(hasattr(expert_placement, name) for name in expert_placement.__all__)


# --- a model's configuration ------------------------------------------------------------------------------------------

MIXTRAL: dict[str, object] = {"model_type": "mixtral", "num_local_experts": 8, "num_hidden_layers": 32}


def test_a_partition_reads_a_model_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    for source in (MIXTRAL, tmp_path, str(tmp_path), tmp_path / "config.json"):
        assert Partition.from_config(source, 3) == Partition(8, 3)
        assert Partition.from_config(source, 3, strategy="round_robin") == Partition(8, 3, "round_robin")
        assert Partition.from_config(source, 3, "round_robin") == Partition(8, 3, "round_robin")
        assert Partition.from_config(source, 3, num_redundant_experts=1) == Partition(9, 3)


def test_a_configuration_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Partition.from_config(tmp_path / "nothing.json", 3)


@pytest.mark.parametrize("value", [-1, 2**31, 2**70])
def test_redundant_experts_out_of_range_are_named(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^num_redundant_experts={value} is out of range, expected 0\.\.="):
        Partition.from_config(MIXTRAL, 3, num_redundant_experts=value)


def test_redundant_experts_that_are_no_int_are_named() -> None:
    wrong: Any = 1.5
    with pytest.raises(TypeError, match=r"^num_redundant_experts must be an int, got `float`$"):
        Partition.from_config(MIXTRAL, 3, num_redundant_experts=wrong)


def test_a_configuration_has_the_errors_of_the_partition() -> None:
    with pytest.raises(ValueError, match=r"^num_ranks=0 is out of range"):
        Partition.from_config(MIXTRAL, 0)
    strategy: Any = "unknown"
    with pytest.raises(ValueError, match=r"^strategy=`unknown` is unknown"):
        Partition.from_config(MIXTRAL, 2, strategy=strategy)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_a_map_is_copied_whole(duplicate: Callable[[ExpertMap], ExpertMap]) -> None:
    given = ExpertMap.from_local_experts([1, 3], 5)
    twin = duplicate(given)
    assert twin == given
    assert repr(twin) == repr(given)
