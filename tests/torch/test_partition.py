"""`expert_placement.torch` against the compiled core: two implementations of one contract. SPEC.md, "Formulas"."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import pytest

pytest.importorskip("torch", reason="this is the torch implementation")

import expert_placement.torch as ept
import numpy as np
import torch
from expert_placement import Partition
from torch._subclasses.fake_tensor import FakeTensorMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Strategy = Literal["linear", "round_robin", "proportional"]
ALL: tuple[Strategy, ...] = get_args(Strategy)
MAX = 2**31 - 1
each_strategy = pytest.mark.parametrize("strategy", ALL)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

QUERIES: dict[str, Callable[..., torch.Tensor]] = {
    "count": ept.count,
    "start": ept.start,
    "owner": ept.owner,
    "local_index": ept.local_index,
}
each_query = pytest.mark.parametrize("query", QUERIES)
OUTSIDE = {"count": 0, "start": -1, "owner": -1, "local_index": -1}


def with_shared(experts: int, ranks: int, rank: Any, strategy: Strategy) -> torch.Tensor:
    return ept.expert_map_with_shared(experts, ranks, rank, 2, strategy)


def mask(experts: int, ranks: int, rank: Any, strategy: Strategy) -> torch.Tensor:
    return ept.expert_mask(experts, ranks, rank, 2, strategy)


MAPS: dict[str, Callable[[Any, Any, Any, Any], torch.Tensor]] = {
    "expert_map": ept.expert_map,
    "expert_map_with_shared": with_shared,
    "expert_map_with_sentinel": ept.expert_map_with_sentinel,
    "expert_mask": mask,
}
each_map = pytest.mark.parametrize("name", MAPS)

TABLES: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "partition_counts": (ept.partition_counts, "counts"),
    "partition_starts": (ept.partition_starts, "starts"),
    "partition_owners": (ept.partition_owners, "owners"),
    "partition_local_indices": (ept.partition_local_indices, "local_indices"),
    "partition_offsets": (ept.partition_offsets, "offsets"),
}


def core_map(p: Partition, name: str, rank: int) -> torch.Tensor:
    made: torch.Tensor = getattr(p, name)(rank, *([2] if name in ("expert_map_with_shared", "expert_mask") else []))
    return made


def shapes() -> Iterator[tuple[int, int]]:
    for experts in range(41):
        for ranks in range(1, 41):
            yield experts, ranks


# --- equal to the compiled core ---------------------------------------------------------------------------------------


@each_strategy
def test_every_small_table_is_that_of_the_core(strategy: Strategy) -> None:
    for experts, ranks in shapes():
        p = Partition(experts, ranks, strategy)
        for name, (make, core) in TABLES.items():
            if core == "offsets" and not p.is_contiguous:
                continue
            table = make(experts, ranks, strategy)
            assert table.dtype == torch.int32, f"{name} of {p!r}"
            assert torch.equal(table, getattr(p, core)()), f"{name} of {p!r}"


@each_strategy
def test_every_small_map_is_that_of_the_core(strategy: Strategy) -> None:
    for experts, ranks in shapes():
        p = Partition(experts, ranks, strategy)
        for name, make in MAPS.items():
            made = make(experts, ranks, torch.arange(ranks), strategy)
            expected = torch.stack([core_map(p, name, rank) for rank in range(ranks)])
            assert made.dtype == torch.int32, f"{name} of {p!r}"
            assert torch.equal(made, expected), f"{name} of {p!r}"


@each_strategy
@each_map
def test_a_rank_is_an_int_or_a_tensor(name: str, strategy: Strategy) -> None:
    make = MAPS[name]
    for experts, ranks in ((0, 3), (3, 8), (30, 8), (256, 72)):
        p = Partition(experts, ranks, strategy)
        for rank in range(ranks):
            expected = core_map(p, name, rank)
            forms: list[int | torch.Tensor] = [rank]
            dtypes = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
            forms += [torch.tensor(rank, dtype=dtype) for dtype in dtypes]
            for form in forms:
                assert torch.equal(make(experts, ranks, form, strategy), expected), f"{p!r}, rank {form!r}"
            for dtype in dtypes:
                column = make(experts, ranks, torch.tensor([rank, 0], dtype=dtype), strategy)
                assert torch.equal(column, torch.stack((expected, core_map(p, name, 0))))
        empty = make(experts, ranks, torch.empty(0, dtype=torch.int64), strategy)
        assert empty.shape == (0, core_map(p, name, 0).numel())


def test_one_rank_asks_for_one_map() -> None:
    assert ept.expert_map(30, 8, 7).shape == (30,)
    assert ept.expert_map(30, 8, torch.tensor(7)).shape == (30,)
    assert ept.expert_map(30, 8, torch.tensor([7])).shape == (1, 30)
    with pytest.raises(ValueError, match=r"^rank has 2 dimensions, expected 0 or 1$"):
        ept.expert_map(30, 8, torch.tensor([[7]]))


@each_strategy
@each_query
def test_every_small_query_is_that_of_the_core(query: str, strategy: Strategy) -> None:
    # E and R as tensors too: the whole grid in one call.
    experts, ranks = torch.arange(41).reshape(-1, 1, 1), torch.arange(1, 41).reshape(1, -1, 1)
    ids = torch.arange(-2, 43)
    answers = QUERIES[query](experts, ranks, ids, strategy)
    assert answers.dtype == torch.int32
    assert answers.shape == (41, 40, 45)
    expected = torch.full((41, 40, 45), OUTSIDE[query], dtype=torch.int32)
    for e, r in shapes():
        scalar = getattr(Partition(e, r, strategy), query)
        end = r if query in ("count", "start") else e
        row = torch.tensor([scalar(each) for each in range(end)], dtype=torch.int32)
        expected[e, r - 1, 2 : 2 + end] = row
    torch.testing.assert_close(answers, expected, rtol=0, atol=0)


@each_strategy
@each_query
def test_the_largest_sizes_are_those_of_the_core(query: str, strategy: Strategy) -> None:
    for experts in (1, 2**30, MAX - 1, MAX):
        for ranks in (1, 3, 2**16, 2**30 + 1, MAX - 1, MAX):
            scalar = getattr(Partition(experts, ranks, strategy), query)
            end = ranks if query in ("count", "start") else experts
            ids = sorted({each for each in (0, 1, end // 3, end // 2, end - 2, end - 1) if 0 <= each < end})
            expected = [scalar(each) for each in ids]
            for dtype in (torch.int32, torch.int64):
                case = f"{experts} over {ranks}, {strategy}"
                assert QUERIES[query](experts, ranks, torch.tensor(ids, dtype=dtype), strategy).tolist() == expected, (
                    case
                )
            assert [int(QUERIES[query](experts, ranks, each, strategy)) for each in ids] == expected


@each_query
def test_queries_broadcast(query: str) -> None:
    ask = QUERIES[query]
    assert ask(30, 8, torch.arange(8)).shape == (8,)
    assert ask(30, 8, torch.zeros(2, 3, dtype=torch.int32)).shape == (2, 3)
    assert ask(30, 8, 5).shape == ()
    for strategy in ALL:
        column = ask(torch.tensor([[30], [31]]), 8, torch.arange(8), strategy)
        assert column.shape == (2, 8), strategy
        assert ask(30, torch.tensor([[8], [9]]), torch.arange(8), strategy).shape == (2, 8), strategy
        assert ask(torch.tensor([30, 31, 32]), torch.tensor([[8], [9]]), 5, strategy).shape == (2, 3), strategy


# --- the stated answers and refusals ----------------------------------------------------------------------------------


@each_strategy
@each_query
def test_an_id_in_a_tensor_that_is_out_of_range_has_a_stated_answer(query: str, strategy: Strategy) -> None:
    end = 8 if query in ("count", "start") else 30
    for dtype in (torch.int32, torch.int64):
        low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        ids = torch.tensor([low, low + 1, -9, -1, 0, end - 1, end, end + 1, high - 1, high], dtype=dtype)
        answers = QUERIES[query](30, 8, ids, strategy).tolist()
        scalar = getattr(Partition(30, 8, strategy), query)
        outside = OUTSIDE[query]
        assert answers == [*[outside] * 4, scalar(0), scalar(end - 1), *[outside] * 4]


@each_query
def test_no_expert_is_owned_where_there_is_none(query: str) -> None:
    for strategy in ALL:
        ids = torch.tensor([-1, 0, 1])
        for experts in (0, torch.tensor(0)):
            answers = QUERIES[query](experts, 3, ids, strategy).tolist()
            inside = (
                [getattr(Partition(0, 3, strategy), query)(each) for each in (0, 1)]
                if query in ("count", "start")
                else [-1, -1]
            )
            assert answers == [OUTSIDE[query], *inside], strategy


@each_strategy
def test_a_rank_in_a_tensor_that_is_out_of_range_has_an_empty_map(strategy: Strategy) -> None:
    for wrong in (-1, 8, 2**40):
        ranks = torch.tensor([wrong, 7])
        maps = ept.expert_map(30, 8, ranks, strategy)
        assert maps[0].tolist() == [-1] * 30
        assert torch.equal(maps[1], Partition(30, 8, strategy).expert_map(7))
        assert ept.expert_map_with_shared(30, 8, ranks, 2, strategy)[0].tolist() == [-1] * 32
        assert ept.expert_map_with_sentinel(30, 8, ranks, strategy)[0].tolist() == [-1] * 31
        assert ept.expert_mask(30, 8, ranks, 2, strategy)[0].tolist() == [0] * 33


@each_query
@pytest.mark.parametrize("value", [-1, 30, 2**31, 2**70])
def test_an_id_given_as_an_int_is_checked(query: str, value: int) -> None:
    parameter, end = ("rank", 8) if query in ("count", "start") else ("expert", 30)
    with pytest.raises(IndexError) as caught:
        QUERIES[query](30, 8, value)
    assert str(caught.value) == f"{parameter}={value} is out of range, expected 0..{end}"


@each_map
@pytest.mark.parametrize("rank", [-1, 8, 2**70])
def test_a_rank_given_as_an_int_is_checked(name: str, rank: int) -> None:
    with pytest.raises(IndexError) as caught:
        MAPS[name](30, 8, rank, "linear")
    assert str(caught.value) == f"rank={rank} is out of range, expected 0..8"


def call_of(name: str) -> Callable[[Any, Any, Any], torch.Tensor]:
    """A function of E, R and a strategy; where it wants an id as well, that is 0."""
    if name in TABLES:
        return TABLES[name][0]
    make = MAPS[name] if name in MAPS else QUERIES[name]
    return lambda experts, ranks, strategy: make(experts, ranks, 0, strategy)


CALLS = {name: call_of(name) for name in (*QUERIES, *TABLES, *MAPS)}
each_call = pytest.mark.parametrize("call", CALLS)


@each_call
@pytest.mark.parametrize(
    ("experts", "ranks", "message"),
    [
        (-1, 8, f"num_experts=-1 is out of range, expected 0..={MAX}"),
        (2**31, 8, f"num_experts={2**31} is out of range, expected 0..={MAX}"),
        (30, 0, f"num_ranks=0 is out of range, expected 1..={MAX}"),
        (30, -8, f"num_ranks=-8 is out of range, expected 1..={MAX}"),
        (30, 2**31, f"num_ranks={2**31} is out of range, expected 1..={MAX}"),
    ],
)
def test_a_count_given_as_an_int_is_checked(call: str, experts: int, ranks: int, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        CALLS[call](experts, ranks, "linear")
    assert str(caught.value) == message


@each_call
@pytest.mark.parametrize("wrong", [True, 8.0, "8", None, [8]], ids=lambda value: type(value).__name__)
def test_a_count_that_is_no_integer_is_a_type_error(call: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^num_experts must be an int"):
        CALLS[call](wrong, 8, "linear")
    with pytest.raises(TypeError, match=r"^num_ranks must be an int"):
        CALLS[call](30, wrong, "linear")


@each_call
def test_a_count_that_shapes_a_table_is_no_tensor(call: str) -> None:
    # The length of a table is needed on the host, and reading it from a tensor would wait for the device.
    if call in QUERIES:
        return
    with pytest.raises(TypeError, match=r"^num_experts must be an int, got `Tensor`$"):
        CALLS[call](torch.tensor(30), 8, "linear")
    with pytest.raises(TypeError, match=r"^num_ranks must be an int, got `Tensor`$"):
        CALLS[call](30, torch.tensor(8), "linear")


@each_call
def test_a_strategy_that_is_no_str_is_refused_as_in_the_core(call: str) -> None:
    for wrong in (None, 0, ["linear"], b"linear"):
        with pytest.raises(TypeError, match=rf"^strategy must be a str, got `{type(wrong).__name__}`$"):
            CALLS[call](30, 8, wrong)


@each_call
def test_an_unknown_strategy_is_refused_in_the_words_of_the_core(call: str) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - the whole message is compared
        CALLS[call](30, 8, "striped")
    wrong: Any = "striped"
    with pytest.raises(ValueError, match=r"^strategy=`striped` is unknown") as core:
        Partition(30, 8, wrong)
    assert str(expected.value) == str(core.value)


@each_query
def test_a_tensor_of_no_integers_is_a_type_error(query: str) -> None:
    parameter = "rank" if query in ("count", "start") else "expert"
    for dtype in (torch.float32, torch.float64, torch.bool, torch.float16):
        wrong, name = torch.zeros(3, dtype=dtype), str(dtype).removeprefix("torch.")
        known = "int32, int64, int16, int8, uint8"
        with pytest.raises(TypeError, match=rf"^{parameter} must have one of the dtypes {known}, got {name}$"):
            QUERIES[query](30, 8, wrong)
        with pytest.raises(TypeError, match=r"^num_experts must have one of the dtypes "):
            QUERIES[query](wrong, 8, 0)
        with pytest.raises(TypeError, match=r"^num_ranks must have one of the dtypes "):
            QUERIES[query](30, wrong, 0)
    for nothing in (True, 1.5, "0", None, [0]):
        with pytest.raises(TypeError, match=rf"^{parameter} must be an int or a tensor, got `"):
            QUERIES[query](30, 8, nothing)


class Indexed:
    """An integer of another library, or one that fails."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __index__(self) -> int:
        if isinstance(self.answer, Exception):
            raise self.answer
        number: int = self.answer
        return number


WRONG_COUNTS: list[Any] = [
    -1,
    2**31,
    2**70,
    -(2**70),
    10**5000,
    True,
    np.bool_(True),
    8.0,
    "8",
    None,
    [8],
    np.array([1, 2]),
]
WRONG_COUNTS += [np.int64(-1), Indexed(-1), Indexed(TypeError("no")), Indexed(ValueError("no index today"))]
WRONG_IDS: list[Any] = [-1, 8, 30, 2**31, 10**5000, -(10**5000), np.int64(-1), np.uint8(200), True, 1.5, "0", None, [0]]
WRONG_IDS += [Indexed(300), Indexed(RuntimeError("no index today"))]
WRONG_STRATEGIES: list[Any] = ["striped", "", "Linear", "x" * 41, "\N{GREEK SMALL LETTER ALPHA}" * 21, "\\ ' \""]
WRONG_STRATEGIES += ["a\nb\t\x1b\x85\u200b"]
WRONG_STRATEGIES += ["\ud800" * 7, None, 0, b"linear", ["linear"]]
WRONG_DEVICES: list[Any] = ["nowhere", "cuda:-1", "", "line\nbreak", "x" * 300, 2.5, ["cpu"], 10**30]
if not torch.cuda.is_available():
    WRONG_DEVICES += ["cuda", torch.device("cuda"), "cuda:0"]


METHODS: dict[str, Callable[..., torch.Tensor]] = {
    **QUERIES,
    **{method: make for make, method in TABLES.values()},
    "expert_map": ept.expert_map,
    "expert_map_with_shared": ept.expert_map_with_shared,
    "expert_map_with_sentinel": ept.expert_map_with_sentinel,
    "expert_mask": ept.expert_mask,
}
TAKES_SHARED = ("expert_map_with_shared", "expert_mask")

# A method of `Partition`, the (E, R, strategy) that it is asked of, its arguments, and those by keyword.
WrongCall: TypeAlias = "tuple[str, tuple[Any, Any, Any], list[Any], dict[str, Any]]"


def wrong_calls() -> Iterator[WrongCall]:
    """Calls with one wrong argument each, and some with two, of which the same one is to be named."""
    for method in METHODS:
        fitting: list[Any] = [] if method in {method for _, method in TABLES.values()} else [0]
        if method in TAKES_SHARED:
            fitting.append(1)
        for wrong in WRONG_COUNTS:
            yield method, (wrong, 8, "linear"), fitting, {}
            yield method, (30, wrong, "linear"), fitting, {}
            # A mask has no shared experts without other word, and None is no word.
            if method == "expert_map_with_shared" or (method == "expert_mask" and wrong is not None):
                yield method, (30, 8, "linear"), [0, wrong], {}
        for wrong in WRONG_STRATEGIES:
            yield method, (30, 8, wrong), fitting, {}
        for wrong in WRONG_IDS if fitting else []:
            # The eighth expert there is.
            if method not in ("owner", "local_index") or wrong not in (8, 200):
                yield method, (30, 8, "linear"), [wrong, *fitting[1:]], {}
        for wrong in WRONG_DEVICES if method not in QUERIES else []:
            yield method, (30, 8, "linear"), fitting, {"device": wrong}
    yield "offsets", (30, 8, "round_robin"), [], {}
    yield "counts", (-1, 0, "linear"), [], {}
    yield "count", (30, 0, "striped"), [9], {}
    yield "count", (30, 8, "striped"), [9], {}
    yield "expert_mask", (30, 8, "linear"), [9, -1], {}
    yield "expert_mask", (30, 8, "linear"), [7, -1], {"device": "nowhere"}


def asked_of_core(call: WrongCall) -> object:
    method, of, arguments, options = call
    return getattr(Partition(*of), method)(*arguments, **options)


def asked_of_torch(call: WrongCall) -> object:
    method, (experts, ranks, strategy), arguments, options = call
    return METHODS[method](experts, ranks, *arguments, strategy=strategy, **options)


def refusal(ask: Callable[[WrongCall], object], call: WrongCall) -> tuple[type[Exception], str]:
    try:
        answer = ask(call)
    except Exception as error:
        # Where a tensor would do, too, the torch implementation says so.
        return type(error), str(error).replace("an int or a tensor", "an int")
    raise AssertionError(f"{call!r}: nothing was refused, the answer is {answer!r}")


def test_a_wrong_call_is_refused_in_the_words_of_the_core() -> None:
    calls = list(wrong_calls())
    assert len(calls) > 500
    for call in calls:
        expected = refusal(asked_of_core, call)
        assert refusal(asked_of_torch, call) == expected, f"{call[0]}: {expected[1]}"


def test_integers_of_other_libraries_are_integers() -> None:
    for make in (np.int64, np.int32, np.uint8, Indexed):
        thirty, eight, seven = make(30), make(8), make(7)
        for query in QUERIES.values():
            assert torch.equal(query(thirty, eight, seven), query(30, 8, 7)), make
        for table, _ in TABLES.values():
            assert torch.equal(table(thirty, eight), table(30, 8)), make
        for name in MAPS.values():
            assert torch.equal(name(thirty, eight, seven, "linear"), name(30, 8, 7, "linear")), make
        assert torch.equal(ept.expert_mask(30, 8, 7, make(2)), ept.expert_mask(30, 8, 7, 2)), make
    assert torch.equal(ept.expert_mask(30, 8, 7, None), Partition(30, 8).expert_mask(7, None))


@each_query
def test_an_int_beside_a_range_in_a_tensor_is_checked_as_far_as_it_is_known(query: str) -> None:
    # What the tensor holds is not looked at: that would wait for its device.
    parameter = "rank" if query in ("count", "start") else "expert"
    experts, ranks = torch.tensor(30), torch.tensor(8)
    for value in (30, 31, MAX - 1):
        assert int(QUERIES[query](experts, ranks, value)) == OUTSIDE[query]
    for value in (-1, MAX, 2**70, 10**5000):
        with pytest.raises(IndexError) as caught:
            QUERIES[query](experts, ranks, value)
        shown = "a huge integer" if value == 10**5000 else str(value)
        assert str(caught.value) == f"{parameter}={shown} is out of range, expected 0..{MAX}"


@each_query
def test_the_answer_is_where_the_first_tensor_off_the_cpu_is(query: str) -> None:
    ask = QUERIES[query]
    there, here = torch.tensor(8, device="meta"), torch.tensor([8])
    for arguments in itertools.product((there, here, 8), (there, here, 8), (there, here, 0)):
        expected = "meta" if any(each is there for each in arguments) else "cpu"
        assert ask(*arguments).device.type == expected, arguments


@pytest.mark.parametrize("shared", [-1, 2**31, MAX - 29])
def test_shared_experts_are_refused_in_the_words_of_the_core(shared: int) -> None:
    p = Partition(30, 8)
    for ours, core in ((ept.expert_map_with_shared, p.expert_map_with_shared), (ept.expert_mask, p.expert_mask)):
        with pytest.raises(ValueError, match=r"^num_shared_experts=") as expected:
            core(0, shared)
        with pytest.raises(ValueError, match=r"^num_shared_experts=") as caught:
            ours(30, 8, 0, shared)
        assert str(caught.value) == str(expected.value)


def test_every_public_name_is_tested_here() -> None:
    # Those of routing have a file of their own, test_routing.py.
    assert set(ept.__all__) - {"Routed", "RoutingTables", "route", "warm_up"} == {*QUERIES, *MAPS, *TABLES}


# --- devices, tracing, compiling --------------------------------------------------------------------------------------


def everything(experts: int, ranks: int, rank: torch.Tensor, strategy: Strategy) -> tuple[torch.Tensor, ...]:
    """All of the module, with the rank in a tensor."""
    contiguous = strategy != "round_robin"
    return (
        ept.count(experts, ranks, rank, strategy),
        ept.start(experts, ranks, rank, strategy),
        ept.owner(experts, ranks, rank, strategy),
        ept.local_index(experts, ranks, rank, strategy),
        ept.expert_map(experts, ranks, rank, strategy),
        ept.expert_map_with_shared(experts, ranks, rank, 2, strategy),
        ept.expert_map_with_sentinel(experts, ranks, rank, strategy),
        ept.expert_mask(experts, ranks, rank, 2, strategy),
        ept.partition_counts(experts, ranks, strategy, device=rank.device),
        ept.partition_starts(experts, ranks, strategy, device=rank.device),
        ept.partition_owners(experts, ranks, strategy, device=rank.device),
        ept.partition_local_indices(experts, ranks, strategy, device=rank.device),
        *((ept.partition_offsets(experts, ranks, strategy, device=rank.device),) if contiguous else ()),
    )


def assert_all_equal(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], case: str) -> None:
    assert len(found) == len(expected)
    for position, (one, other) in enumerate(zip(found, expected, strict=True)):
        message = f"result {position} of {case}"
        assert one.dtype == torch.int32, message
        assert torch.equal(one.cpu(), other.cpu()), message


@each_strategy
def test_nothing_looks_at_the_values_of_a_tensor(strategy: Strategy) -> None:
    # A fake tensor has no values: whatever reads one raises.
    with FakeTensorMode():
        rank = torch.empty(3, dtype=torch.int64)
        results = everything(30, 8, rank, strategy)
        batch = ept.owner(torch.empty(4, 1, dtype=torch.int64), torch.empty(1, 5, dtype=torch.int64), 0, strategy)
    assert [tuple(result.shape) for result in results[:8]] == [(3,)] * 4 + [(3, 30), (3, 32), (3, 31), (3, 33)]
    assert batch.shape == (4, 5)
    assert all(result.dtype == torch.int32 for result in results)


@each_strategy
def test_the_meta_device_gives_shapes(strategy: Strategy) -> None:
    results = everything(30, 8, torch.empty(3, dtype=torch.int32, device="meta"), strategy)
    assert {result.device.type for result in results} == {"meta"}
    assert ept.expert_map(30, 8, 7, strategy, device="meta").device.type == "meta"


@each_strategy
def test_queries_vectorise_over_ranks(strategy: Strategy) -> None:
    ranks = torch.arange(8)
    vmap: Any = torch.func.vmap
    for query, ask in QUERIES.items():
        mapped = vmap(lambda rank, ask=ask: ask(30, 8, rank, strategy))(ranks)
        assert torch.equal(mapped, ask(30, 8, ranks, strategy)), query
    maps = vmap(lambda rank: ept.expert_map(30, 8, rank, strategy))(ranks)
    assert torch.equal(maps, ept.expert_map(30, 8, ranks, strategy))


def counting_backend(inner: str) -> tuple[Callable[..., Any], list[object]]:
    """A compiler that notes every graph it is given."""
    graphs: list[object] = []
    compiler: Any = torch._dynamo.lookup_backend(inner)

    def backend(graph: Any, inputs: Any, **options: Any) -> Any:
        graphs.append(graph)
        return compiler(graph, inputs, **options)

    return backend, graphs


COMPILED_CASES = [(30, 8), (256, 72), (7, 5), (3, 8), (97, 13)]


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    reset: Any = torch._dynamo.reset
    reset()
    yield
    reset()


@pytest.mark.usefixtures("_fresh_compiler")
@each_strategy
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_everything_compiles_as_one_dynamic_graph(strategy: Strategy) -> None:
    backend, graphs = counting_backend("aot_eager")
    compiled: Any = torch.compile(everything, fullgraph=True, dynamic=True, backend=backend)
    for experts, ranks in COMPILED_CASES:
        for rank in (torch.tensor(0), torch.tensor(ranks - 1), torch.tensor(ranks), torch.tensor(-1)):
            expected = everything(experts, ranks, rank, strategy)
            assert_all_equal(compiled(experts, ranks, rank, strategy), expected, f"{experts} over {ranks}, {rank}")
    # One graph for E >= R and one for E < R at most: sizes are symbols, and no value of a tensor takes part.
    assert len(graphs) <= 3, f"{len(graphs)} graphs for {len(COMPILED_CASES)} shapes"
    seen = len(graphs)
    for experts, ranks in [(31, 9), (255, 71), (11, 6)]:
        rank = torch.tensor(1)
        assert_all_equal(compiled(experts, ranks, rank, strategy), everything(experts, ranks, rank, strategy), strategy)
    assert len(graphs) == seen, "a shape like an earlier one was compiled again"


@pytest.mark.usefixtures("_fresh_compiler")
@each_strategy
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_everything_compiles_for_many_ranks_at_once(strategy: Strategy) -> None:
    backend, graphs = counting_backend("aot_eager")
    compiled: Any = torch.compile(everything, fullgraph=True, dynamic=True, backend=backend)
    for experts, ranks in COMPILED_CASES:
        ids = torch.tensor([0, ranks - 1, ranks, -1])
        expected = everything(experts, ranks, ids, strategy)
        assert_all_equal(compiled(experts, ranks, ids, strategy), expected, f"{experts} over {ranks}, {strategy}")
    assert len(graphs) <= 3


def everything_of_a_known_rank(experts: int, ranks: int, rank: int, strategy: Strategy) -> tuple[torch.Tensor, ...]:
    """All queries and maps with the rank as an int, which stands for an expert too."""
    return (
        *(ask(experts, ranks, rank, strategy) for ask in QUERIES.values()),
        ept.expert_map(experts, ranks, rank, strategy),
        ept.expert_map_with_shared(experts, ranks, rank, 2, strategy),
        ept.expert_map_with_sentinel(experts, ranks, rank, strategy),
        ept.expert_mask(experts, ranks, rank, 2, strategy),
    )


@pytest.mark.usefixtures("_fresh_compiler")
@each_strategy
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_everything_compiles_for_a_rank_that_is_an_int(strategy: Strategy) -> None:
    compiled: Any = torch.compile(everything_of_a_known_rank, fullgraph=True, dynamic=True, backend="aot_eager")
    for experts, ranks in COMPILED_CASES:
        for rank in sorted({0, 1, min(experts, ranks) - 1}):
            expected = everything_of_a_known_rank(experts, ranks, rank, strategy)
            assert_all_equal(compiled(experts, ranks, rank, strategy), expected, f"{experts} over {ranks}, {rank}")


@pytest.mark.parametrize("query", QUERIES)
def test_tensors_that_do_not_broadcast_are_refused_by_their_names(query: str) -> None:
    parameter = "rank" if query in ("count", "start") else "expert"
    message = rf"^num_experts of shape \(2,\), {parameter} of shape \(3,\) do not broadcast, expected shapes that do$"
    with pytest.raises(ValueError, match=message):
        QUERIES[query](torch.tensor([30, 31]), 8, torch.tensor([0, 1, 2]), "linear")


@pytest.mark.parametrize("strategy", ["linear", "round_robin", "proportional"])
@pytest.mark.parametrize("query", QUERIES)
def test_no_ranks_in_a_tensor_own_nothing(query: str, strategy: str) -> None:
    """For E in 0..40, R in -3..=0 and every id in -1..=E, beside an R for which there is an answer."""
    nothing = 0 if query == "count" else -1
    ids = torch.arange(-1, 41)
    for experts in range(40):
        found = QUERIES[query](experts, torch.tensor([[-3], [-1], [0], [7]]), ids, strategy)
        assert bool((found[:3] == nothing).all())
        assert torch.equal(found[3], QUERIES[query](experts, 7, ids, strategy))


@pytest.mark.parametrize("query", QUERIES)
def test_a_tensor_that_is_not_dense_is_refused(query: str) -> None:
    with pytest.raises(TypeError, match=r"must be a dense tensor, got the layout torch.sparse_coo$"):
        QUERIES[query](30, 8, torch.tensor([0, 1]).to_sparse(), "linear")


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_inductor_compiles_the_map_of_a_batch_of_ranks() -> None:
    compiled: Any = torch.compile(ept.expert_map, fullgraph=True, dynamic=True)
    for experts, ranks in [(30, 8), (257, 72)]:
        ids = torch.arange(-1, ranks + 1)
        assert torch.equal(compiled(experts, ranks, ids, "linear"), ept.expert_map(experts, ranks, ids, "linear"))


# --- CUDA -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    """Every wait for the device is an error; tests end it before they read results."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@needs_cuda
@each_query
@each_strategy
def test_the_grid_on_cuda_is_that_of_the_core(query: str, strategy: Strategy) -> None:
    # Domain: E in 0..=128, R in 1..=128, ids in -2..=130. The core's answers are computed once for each (E, R).
    experts = torch.arange(129, device="cuda").reshape(-1, 1, 1)
    ranks = torch.arange(1, 129, device="cuda").reshape(1, -1, 1)
    ids = torch.arange(-2, 131, device="cuda")
    answers = QUERIES[query](experts, ranks, ids, strategy)
    expected = torch.full((129, 128, 133), OUTSIDE[query], dtype=torch.int32)
    table = {"count": "counts", "start": "starts", "owner": "owners", "local_index": "local_indices"}[query]
    for e in range(129):
        for r in range(1, 129):
            row = getattr(Partition(e, r, strategy), table)()
            expected[e, r - 1, 2 : 2 + row.numel()] = row
    torch.testing.assert_close(answers.cpu(), expected, rtol=0, atol=0)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@each_strategy
def test_nothing_waits_for_the_device(strategy: Strategy) -> None:
    results = [
        everything(30, 8, torch.full((3,), 7, device="cuda"), strategy),
        everything(256, 72, torch.full((), 71, device="cuda"), strategy),
    ]
    lone = ept.expert_map(30, 8, 7, strategy, device="cuda")
    # Tensors on the CPU follow to the device, whichever argument is there already.
    moved = ept.expert_map(30, 8, torch.tensor([7, 0]), strategy, device="cuda")
    counts = [
        ept.count(torch.full((2,), 30, device="cuda"), 8, torch.tensor([7, 0]), strategy),
        ept.count(torch.tensor([30, 30]), torch.full((2,), 8, device="cuda"), torch.tensor([7, 0]), strategy),
        ept.count(torch.tensor([30, 30]), torch.tensor(8), torch.full((2,), 7, device="cuda"), strategy),
    ]
    torch.cuda.set_sync_debug_mode("default")
    assert_all_equal(results[0], everything(30, 8, torch.full((3,), 7), strategy), strategy)
    assert_all_equal(results[1], everything(256, 72, torch.full((), 71), strategy), strategy)
    p = Partition(30, 8, strategy)
    assert torch.equal(lone.cpu(), p.expert_map(7))
    assert torch.equal(moved.cpu(), torch.stack((p.expert_map(7), p.expert_map(0))))
    for answer, ranks in zip(counts, ([7, 0], [7, 0], [7, 7]), strict=True):
        assert answer.device.type == "cuda"
        assert torch.equal(answer.cpu(), p.count_of(ranks))


@pytest.mark.cuda
@needs_cuda
@each_strategy
def test_a_cuda_graph_replays_with_another_rank(strategy: Strategy) -> None:
    rank = torch.zeros((), dtype=torch.int64, device="cuda")
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        everything(257, 72, rank, strategy)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = everything(257, 72, rank, strategy)
    for value in (0, 1, 40, 71, 72, -1):
        rank.fill_(value)
        graph.replay()
        torch.cuda.synchronize()
        assert_all_equal(results, everything(257, 72, torch.tensor(value), strategy), f"{strategy}, rank {value}")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.usefixtures("_fresh_compiler")
@each_strategy
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_inductor_compiles_everything_on_cuda(strategy: Strategy) -> None:
    compiled: Any = torch.compile(everything, fullgraph=True, dynamic=True)
    for experts, ranks in COMPILED_CASES:
        rank = torch.tensor([0, ranks - 1, ranks, -1], device="cuda")
        case = f"{experts} over {ranks}, {strategy}"
        assert_all_equal(
            compiled(experts, ranks, rank, strategy), everything(experts, ranks, rank.cpu(), strategy), case
        )


def test_the_grid_is_as_large_as_it_says() -> None:
    assert math.prod((41, 40)) == len(list(shapes()))


def test_the_limits_are_the_core_s() -> None:
    # This implementation does not import the compiled core, so its copy of the limit is compared here.
    from expert_placement import MAX_NUM_EXPERTS, STRATEGIES
    from expert_placement.torch import partition

    assert partition._MAX == MAX_NUM_EXPERTS
    assert partition._STRATEGIES == STRATEGIES
