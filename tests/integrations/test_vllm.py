"""vLLM's `determine_expert_map`: against a plain oracle always, and against the engine's own function where it is.

The environment variable PEERS names a folder with a `load.py` that loads the engine's function as `vllm_expert_map`.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

pytest.importorskip("torch", reason="the engine's maps are tensors")

import torch
from expert_placement.integrations.vllm import determine_expert_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Strategy = Literal["linear", "round_robin"]
STRATEGIES: tuple[Strategy, ...] = ("linear", "round_robin")
Answer: TypeAlias = "tuple[int, torch.Tensor | None, torch.Tensor | None]"
Case: TypeAlias = "tuple[int, int, int, Strategy, int, bool]"


def cases() -> Iterator[Case]:
    """Every rank of every small shape, and some ranks of the shapes of published models."""
    for experts in range(18):
        for ranks in range(1, 14):
            for rank in range(ranks):
                for strategy in STRATEGIES:
                    yield ranks, rank, experts, strategy, 0, False
                    yield ranks, rank, experts, strategy, (experts + rank) % 3, True
    for experts in (30, 64, 128, 160, 256, 257, 288, 384, 512, 896):
        for ranks in (1, 2, 3, 7, 8, 16, 32, 64, 72):
            for rank in {0, 1, ranks // 2, ranks - 1} & set(range(ranks)):
                for strategy in STRATEGIES:
                    for mask in (False, True):
                        yield ranks, rank, experts, strategy, 2, mask


def oracle(ranks: int, rank: int, experts: int, strategy: Strategy, shared: int, mask: bool) -> tuple[int, Any, Any]:
    """What the engine documents, as lists."""
    if ranks == 1:
        return experts, None, None
    base, remainder = divmod(experts, ranks)
    if strategy == "round_robin":
        own = [expert for expert in range(experts) if expert % ranks == rank]
    else:
        start = sum(base + (each < remainder) for each in range(rank))
        own = list(range(start, start + base + (rank < remainder)))
    index_map = [own.index(expert) if expert in own else -1 for expert in range(experts)]
    if not mask:
        return len(own), index_map, None
    bits = [int(expert in own) for expert in range(experts)]
    return len(own), index_map + list(range(len(own), len(own) + shared)), [*bits, *[1] * shared, 0]


def as_lists(answer: Answer) -> tuple[int, Any, Any]:
    count, *tensors = answer
    for tensor in tensors:
        if tensor is not None:
            assert (tensor.dtype, tensor.dim(), tensor.device.type) == (torch.int32, 1, "cpu")
            assert tensor.is_contiguous()
    lists = [None if tensor is None else tensor.tolist() for tensor in tensors]
    return count, lists[0], lists[1]


@pytest.fixture(scope="module")
def engine() -> Callable[..., Answer]:
    """The engine's own function."""
    folder = os.environ.get("PEERS")
    if not folder:
        pytest.skip("PEERS is not set, so the engine's own function is not at hand")
    path = Path(folder) / "load.py"
    if not path.is_file():
        pytest.skip(f"PEERS has no load.py: {folder}")
    spec = importlib.util.spec_from_file_location("expert_placement_peers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses of the peers look their own module up.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The peers' sources are not ours to mend.
            spec.loader.exec_module(module)
    except FileNotFoundError as error:
        pytest.skip(f"the engine's source is not at hand: {error}")
    function: Callable[..., Answer] = module.vllm_expert_map
    return function


def crashes_in_the_engine(case: Case) -> bool:
    """A round robin rank beyond E: its `arange` runs backwards there."""
    ranks, rank, experts, strategy, _, _ = case
    return strategy == "round_robin" and ranks > 1 and rank > experts


def test_every_answer_is_that_of_the_oracle() -> None:
    checked = 0
    for case in cases():
        assert as_lists(determine_expert_map(*case)) == oracle(*case), case
        checked += 1
    assert checked > 7000


def test_every_answer_is_that_of_the_engine(engine: Callable[..., Answer]) -> None:
    crashed = checked = 0
    for case in cases():
        if crashes_in_the_engine(case):
            with pytest.raises(RuntimeError):
                engine(*case)
            crashed += 1
        else:
            assert as_lists(determine_expert_map(*case)) == as_lists(engine(*case)), case
            checked += 1
    assert checked > 6000
    assert crashed > 100


def test_the_signature_is_that_of_the_engine(engine: Callable[..., Answer]) -> None:
    ours, theirs = inspect.signature(determine_expert_map), inspect.signature(engine)
    assert [(each.name, each.default, each.kind) for each in ours.parameters.values()] == [
        (each.name, each.default, each.kind) for each in theirs.parameters.values()
    ]


def test_the_signature_is_the_published_one() -> None:
    parameters = inspect.signature(determine_expert_map).parameters.values()
    assert [(each.name, each.default) for each in parameters] == [
        ("ep_size", inspect.Parameter.empty),
        ("ep_rank", inspect.Parameter.empty),
        ("global_num_experts", inspect.Parameter.empty),
        ("expert_placement_strategy", "linear"),
        ("num_fused_shared_experts", 0),
        ("return_expert_mask", False),
    ]


def test_the_seed_case_is_balanced() -> None:
    assert [determine_expert_map(8, rank, 30)[0] for rank in range(8)] == [4, 4, 4, 4, 4, 4, 3, 3]


def test_one_rank_needs_no_map() -> None:
    for strategy in STRATEGIES:
        for shared, mask in [(0, False), (2, False), (0, True), (2, True)]:
            assert determine_expert_map(1, 0, 30, strategy, shared, mask) == (30, None, None)


def test_ranks_beyond_the_last_expert_own_nothing() -> None:
    # The engine raises "upper bound and lower bound inconsistent with step sign" for ranks 3 and above of round robin.
    for strategy in STRATEGIES:
        for rank in range(2, 8):
            count, expert_map, mask = determine_expert_map(8, rank, 2, strategy)
            assert (count, mask) == (0, None)
            assert expert_map is not None
            assert expert_map.tolist() == [-1, -1]
            count, expert_map, mask = determine_expert_map(8, rank, 2, strategy, 1, True)
            assert expert_map is not None
            assert mask is not None
            assert (count, expert_map.tolist(), mask.tolist()) == (0, [-1, -1, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_a_mask_that_is_asked_for_by_no_bool_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"^return_expert_mask must be a bool, got `{type(wrong).__name__}`$"):
        determine_expert_map(8, 0, 30, return_expert_mask=wrong)


def test_shared_experts_are_appended_only_beside_a_mask() -> None:
    _, expert_map, mask = determine_expert_map(8, 7, 30, "linear", 2)
    assert expert_map is not None
    assert mask is None
    assert expert_map.shape == (30,)
    _, expert_map, mask = determine_expert_map(8, 7, 30, "linear", 2, return_expert_mask=True)
    assert expert_map is not None
    assert mask is not None
    assert (expert_map.shape, mask.shape) == ((32,), (33,))
    assert expert_map[30:].tolist() == [3, 4]
    assert mask[30:].tolist() == [1, 1, 0]


def test_every_call_gives_fresh_memory() -> None:
    first, second = (determine_expert_map(8, 0, 30)[1] for _ in range(2))
    assert first is not None
    assert second is not None
    first.fill_(9)
    assert second[:5].tolist() == [0, 1, 2, 3, -1]


def test_maps_are_made_on_the_default_device(engine: Callable[..., Answer]) -> None:
    # The engine builds its layers under `with torch.device(...)`, and finds its maps there.
    with torch.device("meta"):
        ours, theirs = (function(8, 7, 30, "linear", 2, True) for function in (determine_expert_map, engine))
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        assert isinstance(mine, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert (mine.device, mine.shape, mine.dtype) == (other.device, other.shape, other.dtype)


def test_a_default_device_is_where_the_maps_are() -> None:
    with torch.device("meta"):
        _, expert_map, mask = determine_expert_map(8, 7, 30, return_expert_mask=True)
        _, lone_map, _ = determine_expert_map(8, 7, 30)
    for table in (expert_map, mask, lone_map):
        assert table is not None
        assert table.device.type == "meta"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_maps_are_made_on_cuda_without_waiting_for_it() -> None:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.device("cuda"):
            count, expert_map, mask = determine_expert_map(8, 7, 30, "linear", 2, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert expert_map is not None
    assert mask is not None
    assert (expert_map.device.type, mask.device.type) == ("cuda", "cuda")
    assert (count, expert_map.tolist(), mask.tolist()) == oracle(8, 7, 30, "linear", 2, True)


LIMIT = 2**31 - 1
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 0, 30), ValueError, f"ep_size=0 is out of range, expected 1..={LIMIT}"),
        ((-8, 0, 30), ValueError, f"ep_size=-8 is out of range, expected 1..={LIMIT}"),
        ((2**31, 0, 30), ValueError, f"ep_size=2147483648 is out of range, expected 1..={LIMIT}"),
        ((8, 8, 30), IndexError, "ep_rank=8 is out of range, expected 0..8"),
        ((8, -1, 30), IndexError, "ep_rank=-1 is out of range, expected 0..8"),
        ((8, 2**70, 30), IndexError, f"ep_rank={2**70} is out of range, expected 0..8"),
        ((1, 1, 30), IndexError, "ep_rank=1 is out of range, expected 0..1"),
        ((8, 0, -1), ValueError, f"global_num_experts=-1 is out of range, expected 0..={LIMIT}"),
        ((8, 0, 2**31), ValueError, f"global_num_experts=2147483648 is out of range, expected 0..={LIMIT}"),
        ((1, 0, -1), ValueError, f"global_num_experts=-1 is out of range, expected 0..={LIMIT}"),
        ((8, 0, 30, "linear", -1), ValueError, f"num_fused_shared_experts=-1 is out of range, expected 0..={LIMIT}"),
        ((1, 0, 30, "linear", -1), ValueError, f"num_fused_shared_experts=-1 is out of range, expected 0..={LIMIT}"),
        (
            (8, 0, 30, "linear", LIMIT, True),
            ValueError,
            f"num_fused_shared_experts={LIMIT} is out of range, expected 0..={LIMIT - 30} beside "
            "global_num_experts=30: ids are int32",
        ),
        (
            (8, 0, 30, "striped"),
            ValueError,
            "expert_placement_strategy=`striped` is unknown, expected one of `linear`, `round_robin`",
        ),
        (
            (8, 0, 30, "proportional"),
            ValueError,
            "expert_placement_strategy=`proportional` is unknown, expected one of `linear`, `round_robin`",
        ),
        (
            (1, 0, 30, "rank=8"),
            ValueError,
            "expert_placement_strategy=`rank=8` is unknown, expected one of `linear`, `round_robin`",
        ),
        (
            (8, 0, 30, "half\ud800\n\x1b"),
            ValueError,
            "expert_placement_strategy=`half\\ud800\\n\\x1b` is unknown, expected one of `linear`, `round_robin`",
        ),
        (
            (8, 0, 30, ALPHA * 21),
            ValueError,
            "expert_placement_strategy=`" + ALPHA * 20 + "...` is unknown, expected one of `linear`, `round_robin`",
        ),
        ((10**5000, 0, 30), ValueError, f"ep_size=a huge integer is out of range, expected 1..={LIMIT}"),
        ((8, 10**5000, 30), IndexError, "ep_rank=a huge integer is out of range, expected 0..8"),
        ((8, 0, 30, None), TypeError, "expert_placement_strategy must be a str, got `NoneType`"),
        ((True, 0, 30), TypeError, "ep_size must be an int, got `bool`"),
        ((8.0, 0, 30), TypeError, "ep_size must be an int, got `float`"),
        ((8, None, 30), TypeError, "ep_rank must be an int, got `NoneType`"),
        ((8, "0", 30), TypeError, "ep_rank must be an int, got `str`"),
        ((8, 0, 30.5), TypeError, "global_num_experts must be an int, got `float`"),
        ((8, 0, 30, "linear", 1.0), TypeError, "num_fused_shared_experts must be an int, got `float`"),
        # The words of an error that are the caller's own look like the core's, and stay as they are.
        ((type("num_ranks=8", (), {})(), 0, 30), TypeError, "ep_size must be an int, got `num_ranks=8`"),
        ((8, type("rank must be 0", (), {})(), 30), TypeError, "ep_rank must be an int, got `rank must be 0`"),
        (
            (8, 0, 30, "linear", type(" beside num_experts=30: ids are int32", (), {})()),
            TypeError,
            "num_fused_shared_experts must be an int, got ` beside num_experts=30: ids are int32`",
        ),
    ],
)
def test_a_wrong_argument_is_named_as_the_engine_names_it(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        determine_expert_map(*arguments)
    assert str(caught.value) == message
    assert caught.type is error


@pytest.mark.parametrize("ep_size", [1, 8])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("experts", "shared"), [(30, LIMIT - 29), (LIMIT, 1), (1, LIMIT), (30, LIMIT)])
def test_shared_experts_beyond_the_ids_are_refused_also_where_no_map_holds_them(
    ep_size: int, mask: bool, experts: int, shared: int
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        determine_expert_map(ep_size, 0, experts, "linear", shared, mask)
    assert str(caught.value) == (
        f"num_fused_shared_experts={shared} is out of range, expected 0..={LIMIT - experts} beside "
        f"global_num_experts={experts}: ids are int32"
    )


def test_as_many_shared_experts_as_there_are_ids_left_are_taken() -> None:
    assert determine_expert_map(1, 0, 30, "linear", LIMIT - 30, True) == (30, None, None)
    assert as_lists(determine_expert_map(8, 7, 8, "linear", LIMIT - 8)) == (1, [-1] * 7 + [0], None)


class Failing:
    """An `__index__` that raises what it is given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __index__(self) -> int:
        raise self.error


@pytest.mark.parametrize("place", [0, 1, 2, 4], ids=["ep_size", "ep_rank", "global_num_experts", "shared"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no index today: rank=3, and num_ranks must be known"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "num_experts=8"),
        RuntimeError("rank=3"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_argument_that_fails_keeps_its_own_error(place: int, error: Exception) -> None:
    arguments: list[Any] = [8, 0, 30, "linear", 0]
    arguments[place] = Failing(error)
    with pytest.raises(type(error)) as caught:
        determine_expert_map(*arguments)
    assert caught.value is error


def test_where_the_engine_returns_the_map_of_no_rank_ours_refuses(engine: Callable[..., Answer]) -> None:
    # A negative rank may get experts of two other ranks, and one past the end a map without experts.
    count, expert_map, _ = engine(8, -2, 30)
    assert expert_map is not None
    assert (count, (expert_map >= 0).nonzero().flatten().tolist()) == (4, [22, 23, 24, 25])
    assert engine(8, 9, 4)[0] == 0
    for rank, experts in ((-2, 30), (9, 4)):
        with pytest.raises(IndexError, match=rf"^ep_rank={rank} is out of range, expected 0\.\.8$"):
            determine_expert_map(8, rank, experts)
