"""Routing as one torch operator, for `torch.compile` and for devices: the CPU has the compiled core, CUDA the kernels.

The operator's arguments are those of a `Request`, taken apart; `call` checks them, and nothing here does again.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expert_placement.torch._arguments import is_fake
from expert_placement.torch.routing import reference, rust
from expert_placement.torch.routing.layout import parts_of
from expert_placement.torch.routing.request import BITS, OUTPUTS, Request, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = (
    "route(Tensor topk_ids, Tensor table, int num_experts, int max_slots, int num_ranks, bool is_weighted, "
    "SymInt token_offset, SymInt seed, SymInt valid_tokens, Tensor? token_offset_tensor, Tensor? seed_tensor, "
    "Tensor? valid_tokens_tensor, int rank, bool is_exact, int wanted, Tensor(a!)? load) -> ("
    + ", ".join(["Tensor"] * len(OUTPUTS))
    + ")"
)
# torch functionalises no operator that both writes to an argument and returns a list: so there is a tensor for each
# output, and what is not wanted is empty.

_library: Any = torch.library.Library("expert_placement", "DEF")  # type: ignore[no-untyped-call]
_library.define(SCHEMA)


def _request(
    topk_ids: Tensor,
    table: Tensor,
    num_experts: int,
    max_slots: int,
    num_ranks: int,
    is_weighted: bool,
    token_offset: int,
    seed: int,
    valid_tokens: int,
    token_offset_tensor: Tensor | None,
    seed_tensor: Tensor | None,
    valid_tokens_tensor: Tensor | None,
    rank: int,
    is_exact: bool,
    wanted: int,
    load: Tensor | None,
) -> Request:
    sizes = Sizes(num_experts, max_slots, num_ranks, is_weighted)
    return Request(
        topk_ids,
        table,
        sizes,
        parts_of(sizes),
        token_offset if token_offset_tensor is None else token_offset_tensor,
        seed if seed_tensor is None else seed_tensor,
        valid_tokens if valid_tokens_tensor is None else valid_tokens_tensor,
        rank,
        is_exact,
        wanted,
        load,
    )


def taken_apart(request: Request) -> tuple[object, ...]:
    """A request as the operator's arguments."""
    numbers = (request.token_offset, request.seed, request.valid_tokens)
    ints = (0 if isinstance(number, Tensor) else number for number in numbers)
    tensors = (number if isinstance(number, Tensor) else None for number in numbers)
    rest = (request.rank, request.is_exact, request.wanted, request.load)
    return (request.topk_ids, request.table, *request.sizes, *ints, *tensors, *rest)


def _operator(route: Callable[[Request], list[Tensor]]) -> Callable[..., tuple[Tensor, ...]]:
    """The operator by an implementation."""

    def call(*arguments: Any) -> tuple[Tensor, ...]:
        request = _request(*arguments)
        answers = iter(route(request))
        return tuple(next(answers) if request.wanted & bit else _nothing(request.topk_ids) for bit in BITS)

    return call


def _nothing(topk_ids: Tensor) -> Tensor:
    return topk_ids.new_empty(0, dtype=torch.int32)


def _for_cuda(request: Request) -> list[Tensor]:
    """By the kernels, or by plain operations where there are none or tables are too large for them."""
    launch = kernels()
    if launch is None:
        return reference.route(request)
    answers: list[Tensor] = (launch if launch.fits(request.sizes) else reference).route(request)
    return answers


@lru_cache(maxsize=1)
def kernels() -> Any:
    """The module that launches kernels, where there is a Triton that has what they need."""
    try:
        import triton.language as tl
    except ModuleNotFoundError:
        return None
    if "mask" not in inspect.signature(tl.histogram).parameters:
        return None
    from expert_placement.torch.routing import launch

    return launch


def _shaped(request: Request) -> list[Tensor]:
    return [request.topk_ids.new_empty(shape, dtype=torch.int32) for shape in request.shapes()]


_library.impl("route", _operator(rust.route), "CPU")
_library.impl("route", _operator(_for_cuda), "CUDA")
for _key in ("XPU", "MPS", "PrivateUse1"):
    _library.impl("route", _operator(reference.route), _key)
torch.library.register_fake("expert_placement::route", _operator(_shaped), lib=_library)

operator: torch._ops.OpOverload[..., tuple[Tensor, ...]] = torch.ops.expert_placement.route.default

# How many modes of torch stand between a call and the device. They are no public names: without one of them every call
# goes through the dispatcher, which takes longer than all the rest.
_MODES: tuple[Any, Any, Any] = (
    getattr(torch._C, "_len_torch_dispatch_stack", None),
    getattr(torch._C, "_len_torch_function_stack", None),
    getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None),
)
_dispatch_modes, _function_modes, _transforms = _MODES if all(_MODES) else (lambda: True,) * 3


def run(request: Request) -> list[Tensor]:
    """Routes through the operator; directly, with the same result, where nobody would see the difference."""
    ids = request.topk_ids
    if is_seen(request):
        answers = operator(*taken_apart(request)) if torch.compiler.is_compiling() else _dispatched(request)
        return [answer for answer, bit in zip(answers, BITS, strict=True) if request.wanted & bit]
    return _for_cuda(request) if ids.is_cuda else rust.route(request) if ids.is_cpu else reference.route(request)


def _dispatched(request: Request) -> tuple[Tensor, ...]:
    """The operator's answers; tensors that are fake beside others that are not are refused by their names."""
    try:
        return operator(*taken_apart(request))
    except AssertionError as error:
        named = {name: getattr(request, name) for name in (*_NUMBERS, "topk_ids", "load")}
        fakes = [name for name, given in named.items() if is_fake(given)]
        if not fakes or is_fake(request.table):
            raise
        raise TypeError(
            f"{' and '.join(fakes)} must be a dense tensor whose values are known: a fake tensor has none, and the "
            "tables are no fake ones"
        ) from error


_NUMBERS = ("token_offset", "seed", "valid_tokens")


def is_seen(request: Request) -> bool:
    """Whether a call has to go through the operator: it is traced or watched, or has tensors of other classes."""
    given = (request.topk_ids, request.token_offset, request.seed, request.valid_tokens, request.load)
    if torch.compiler.is_compiling():
        return True
    return any(isinstance(one, Tensor) and type(one) is not Tensor for one in given) or is_watched()


def is_watched() -> bool:
    """Whether a mode or a transform wants to see the operator."""
    return bool(
        _dispatch_modes() or _function_modes() or _transforms() is not None or torch._C._get_tracing_state() is not None
    )
