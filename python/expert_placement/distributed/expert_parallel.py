"""A mixture-of-experts layer whose experts are spread over ranks by a placement: route, dispatch, compute, combine.

Every rank has tokens of its own, however many, and the slots that the placement gives it. Output and gradients are
those of the same layer on one device. It is made to be read and copied: what an engine replaces by faster kernels is
`exchange`, for the way of the rows, and `swiglu`, for the experts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from expert_placement._arguments import bool_argument, is_a
from expert_placement._text import digits
from expert_placement.distributed._groups import group_argument
from expert_placement.distributed.exchange import exchange
from expert_placement.distributed.replica_gradients import ReplicaSum
from expert_placement.torch._arguments import (
    expect_values,
    floats_argument,
    index_argument,
    int_argument,
    made_on,
    placement_argument,
    tensor_argument,
    torch_device,
)
from expert_placement.torch.routing import Routed, RoutingTables, route
from expert_placement.torch.routing.call import valid_tokens_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from expert_placement import Partition, Placement
    from expert_placement.torch._arguments import Device


class ExpertParallel(nn.Module):
    """Router, and SwiGLU experts in the slots of this rank.

    The placement is the one source of what is where: the routing tables, the shapes of the weights and what is loaded
    into them come from it. Every rank of the group makes the layer from the same placement, and all of them call what
    it says to be collective, with gradients recorded on all or on none. For the choice among replicas a rank
    numbers its tokens from its own rank * 2**20 on, so that ranks do not all choose alike.

    Args:
        placement: a `Placement`, or a `Partition`, with as many ranks as the group.
        hidden_size: H, in 1..=2**31 - 1.
        intermediate_size: I, the width of an expert, in 1..=2**31 - 1.
        top_k: k, how many experts serve a token, in 1..=E.
        layer: the layer of the placement, in 0..L.
        renormalize: whether the weights of a token's experts are divided by their sum.
        prefer_near: whether a token is served by a replica on this rank or node where there is one, rather than by all
            replicas equally often.
        group: the ranks among which the experts are; all without other word.
        device: where the weights and the routing tables are; torch's default device without other word. A later `to`
            would move the weights alone.
        dtype: of the weights, one of floating point; torch's default dtype without other word.
        seed: initial weights are drawn from it, in 0..2**31, for each expert and layer by themselves: they are the same
            on every rank and under every placement. With None they are 0, for who loads others.

    Raises:
        ValueError: a placement for another number of ranks, a size or seed out of range, or a process that is not in
            the group.
        IndexError: a layer out of range.
        TypeError: an argument of another type.
    """

    w13: nn.Parameter
    """`[slots of the rank, 2 * I, H]`: each slot's gate projection, and its up projection below."""
    w2: nn.Parameter
    """`[slots of the rank, H, I]`: each slot's down projection."""

    def __init__(
        self,
        placement: Placement | Partition,
        hidden_size: SupportsIndex,
        intermediate_size: SupportsIndex,
        top_k: SupportsIndex,
        *,
        layer: SupportsIndex = 0,
        renormalize: bool = True,
        prefer_near: bool = False,
        group: dist.ProcessGroup | None = None,
        device: Device | None = None,
        dtype: torch.dtype | None = None,
        seed: SupportsIndex | None = 0,
    ) -> None:
        super().__init__()
        self.placement = placement_argument(placement)
        self.group = group_argument(group)
        self.rank = _rank_in(group, self.placement.num_ranks)
        self.layer = index_argument("layer", layer, self.placement.num_layers)
        self.top_k = _in_range("top_k", top_k, 1, self.placement.num_experts)
        self.renormalize = bool_argument("renormalize", renormalize)
        is_near = bool_argument("prefer_near", prefer_near)
        hidden = _in_range("hidden_size", hidden_size, 1, _MOST_WIDTH)
        width = _in_range("intermediate_size", intermediate_size, 1, _MOST_WIDTH)
        like = _like(device, dtype)
        if is_near:
            self.tables = RoutingTables.for_sender(self.placement, self.rank, layer=self.layer, device=like.device)
        else:
            self.tables = RoutingTables(self.placement, layer=self.layer, rank=self.rank, device=like.device)
        num_slots = len(self.local_experts)
        self.router = nn.Linear(hidden, self.placement.num_experts, bias=False, device=like.device, dtype=like.dtype)
        self.w13 = nn.Parameter(like.new_zeros(num_slots, 2 * width, hidden))
        self.w2 = nn.Parameter(like.new_zeros(num_slots, hidden, width))
        self._read_placement()
        if seed is None:
            nn.init.zeros_(self.router.weight)
        else:
            self.reset_parameters(seed)

    @classmethod
    def from_dense(
        cls,
        placement: Placement | Partition,
        router: Tensor,
        w13: Tensor,
        w2: Tensor,
        top_k: SupportsIndex,
        *,
        layer: SupportsIndex = 0,
        renormalize: bool = True,
        prefer_near: bool = False,
        group: dist.ProcessGroup | None = None,
        device: Device | None = None,
    ) -> Self:
        """The layer that has the weights of a layer on one device: sizes and dtype are those of the weights.

        Args:
            placement: as for the class; so are the arguments that follow `w2`.
            router: `[E, H]`: the logits of a token are its product with these rows.
            w13: `[E, 2 * I, H]`: the gate projection of each expert, and its up projection below.
            w2: `[E, H, I]`: the down projection of each expert.
            top_k: k, in 1..=E.
            layer: the layer of the placement.
            renormalize: whether the weights of a token's experts are divided by their sum.
            prefer_near: whether near replicas are preferred.
            group: the ranks.
            device: where the weights come to be; where `w13` is without other word.

        Raises:
            ValueError: weights whose shapes do not fit each other or the placement, and what the class refuses.
            IndexError: a layer out of range.
            TypeError: an argument of another type.
        """
        source = placement_argument(placement)
        floats_argument("w13", w13, w13)
        for name, dense in (("router", router), ("w2", w2)):
            floats_argument(name, dense, w13)
        if w2.dim() != 3:
            raise ValueError(f"w2 has {w2.dim()} dimensions, expected 3, [E, H, I]")
        # Before memory is asked for whose size they say.
        hidden, width = w2.shape[1:]
        _expect_shapes(source.num_experts, hidden, width, router, w13, w2)
        made = cls(
            source,
            hidden,
            width,
            top_k,
            layer=layer,
            renormalize=renormalize,
            prefer_near=prefer_near,
            group=group,
            device=w13.device if device is None else device,
            dtype=w13.dtype,
            seed=None,
        )
        made.load_dense(router, w13, w2)
        return made

    @property
    def local_experts(self) -> list[int]:
        """The expert in each slot of this rank, -1 in an empty one."""
        experts: list[int] = self.placement.local_experts(self.layer, self.rank).tolist()
        return experts

    @torch.no_grad()
    def reset_parameters(self, seed: SupportsIndex = 0) -> None:
        """Draws new weights, uniformly as `torch.nn.Linear` does; replicas get the same ones.

        Args:
            seed: in 0..2**31, the same on all ranks.

        Raises:
            ValueError: a seed out of range, or weights on the device `meta`, where nothing can be drawn.
            TypeError: a seed that is no int.
        """
        streams = self.placement.num_experts + 1
        first = (_in_range("seed", seed, 0, 2**31 - 1) * self.placement.num_layers + self.layer) * streams
        if self.w13.is_meta:
            raise ValueError("seed: nothing can be drawn on the device `meta`, expected None there")
        generator = torch.Generator(self.w13.device)
        # An expert has a stream of its own, so that no rank has to draw, or to hold, what others have.
        _draw(self.router.weight, generator.manual_seed(first))
        for slot, expert in enumerate(self.local_experts):
            if expert >= 0:
                generator.manual_seed(first + 1 + expert)
                _draw(self.w13[slot], generator)
                _draw(self.w2[slot], generator)

    @torch.no_grad()
    def load_dense(self, router: Tensor, w13: Tensor, w2: Tensor) -> None:
        """Takes from the weights of all experts what the slots of this rank hold; empty slots get 0.

        Args:
            router: `[E, H]`, on any device; so are the others.
            w13: `[E, 2 * I, H]`.
            w2: `[E, H, I]`.

        Raises:
            ValueError: weights of another shape; nothing is changed then.
            TypeError: no dense tensors of floating point; likewise.
        """
        for name, given in (("router", router), ("w13", w13), ("w2", w2)):
            floats_argument(name, given, self.w13)
        _expect_shapes(self.placement.num_experts, self.w2.shape[1], self.w2.shape[2], router, w13, w2)
        self.router.weight.copy_(router)
        for slot, expert in enumerate(self.local_experts):
            for dense, parameter in ((w13, self.w13), (w2, self.w2)):
                parameter[slot] = dense[expert] if expert >= 0 else 0

    def update_placement(self, placement: Placement | Partition) -> None:
        """Routes by another placement from now on, on all ranks between the same two forward passes.

        The weights stay where they are. How they have to move, and an optimizer's state with them, is what
        `plan_migration` from the old placement to the new one says.

        Args:
            placement: of as many experts and ranks, with as many slots on each rank, and with the layer.

        Raises:
            ValueError: a placement of another shape; nothing is changed then.
            TypeError: something that is neither.
        """
        made = placement_argument(placement)
        old, new = self.placement.slot_offsets().tolist(), made.slot_offsets().tolist()
        if old != new:
            raise ValueError(f"placement has slot_offsets={new}, expected {old}: weights would need other shapes")
        self.tables.update(made)
        self.placement = made
        self._read_placement()

    def _read_placement(self) -> None:
        self._slots_per_rank: list[int] = self.placement.slot_offsets().diff().tolist()
        self._replica_sum = ReplicaSum(self.placement, self.layer, self.rank, self.w13.device)

    def forward(
        self,
        hidden: Tensor,
        *,
        valid_tokens: SupportsIndex | Tensor | None = None,
        seed: SupportsIndex | Tensor = 0,
        load: Tensor | None = None,
    ) -> Tensor:
        """What the experts make of this rank's tokens. Collective, and so is its backward pass.

        Ranks may have different numbers of tokens, and none. A rank without tokens runs the backward pass, too.

        Args:
            hidden: `[T, H]`, of one dtype on all ranks.
            valid_tokens: how many tokens are not padding, in 0..=T, or a tensor of one element, int32 or int64, on the
                device. The output of padding is 0, whatever it holds.
            seed: another seed is another choice among replicas, in 0..2**63, or a tensor as for `route`. A counter of
                the steps is advised: with one seed the tokens of equal numbers have the same choice in every step. What
                it is may differ between ranks, since the sender alone decides.
            load: int32 or int64 `[P]`, contiguous and on the device: how many ids of this rank's tokens each slot
                serves is added to it in place. Summed up over the ranks it is the load of the slots.

        Returns:
            `[T, H]`, of the dtype of `hidden`.

        Raises:
            ValueError: hidden states of another shape, and what `route` refuses.
            TypeError: an argument of another type.
        """
        self._check(hidden)
        if valid_tokens is not None:
            valid_tokens = valid_tokens_argument(valid_tokens, hidden, self.tables.data, "hidden")
            # What is in padding may be anything, NaN included, which no weight of 0 would keep out of a gradient.
            hidden = hidden.masked_fill(_is_padding(hidden, valid_tokens), 0)
        topk_ids, topk_weights = self.select(hidden)
        return self.apply_experts(hidden, topk_ids, topk_weights, valid_tokens=valid_tokens, seed=seed, load=load)

    def select(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The experts that the router chooses for each token: the largest of the softmax over all.

        Args:
            hidden: `[T, H]`.

        Returns:
            int64 `[T, k]` ids, and their weights `[T, k]`, in float32 at least.

        Raises:
            ValueError: hidden states of another shape, or of inference mode where gradients are recorded.
            TypeError: no dense tensor of floating point.
        """
        self._check(hidden)
        if not torch.compiler.is_compiling() and hidden.is_inference() and self._is_recording():
            raise ValueError(
                "hidden is a tensor of inference mode, expected a clone of it where gradients are recorded"
            )
        logits: Tensor = self.router(hidden)
        scores = logits.to(_at_least_float32(logits.dtype)).softmax(-1)
        topk_weights, topk_ids = scores.topk(self.top_k)
        if self.renormalize:
            topk_weights = topk_weights / topk_weights.sum(-1, keepdim=True)
        return topk_ids, topk_weights

    def apply_experts(
        self,
        hidden: Tensor,
        topk_ids: Tensor,
        topk_weights: Tensor,
        *,
        valid_tokens: SupportsIndex | Tensor | None = None,
        seed: SupportsIndex | Tensor = 0,
        load: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum of the experts that another router has chosen. Collective, and so is its backward pass.

        The host waits for the device once: it has to know how many rows go where.

        Args:
            hidden: `[T, H]`, of one dtype on all ranks.
            topk_ids: int32 or int64 `[T, k]`; an id outside 0..E, such as -1, is no expert and contributes nothing.
            topk_weights: `[T, k]`, floating point.
            valid_tokens: as for `forward`; so are the arguments that follow.
            seed: another seed is another choice among replicas.
            load: what each slot serves is added to it.

        Returns:
            `[T, H]`, of the dtype of `hidden`.

        Raises:
            ValueError: a wrong shape, and what `route` refuses.
            TypeError: an argument of another type.
        """
        self._check(hidden)
        expect_values("topk_ids", tensor_argument("topk_ids", topk_ids), self.w13)
        floats_argument("topk_weights", topk_weights, self.w13)
        for name, given in (("topk_ids", topk_ids), ("topk_weights", topk_weights)):
            if given.dim() != 2 or given.shape[0] != hidden.shape[0] or given.shape != topk_ids.shape:
                raise ValueError(f"{name} has shape {list(given.shape)}, expected [{hidden.shape[0]}, k], k for both")
        want = ("slots", "slot_counts", "rank_counts", "order", "positions")
        routed = route(
            # Of ids that are negated lazily `route` sees the memory, which holds others.
            topk_ids.resolve_neg(),
            self.tables,
            layer=self.layer,
            # Every rank numbers its tokens from another number on, or all would choose the same replica for their first
            # token, for their second, and so on.
            token_offset=self.rank * _TOKENS_OF_A_RANK,
            seed=seed,
            valid_tokens=valid_tokens,
            load=load,
            want=want,
        )
        traffic = self._traffic(routed)
        rows = _rows_to_send(hidden, routed, sum(traffic.sent))
        received = exchange(rows, traffic.sent, traffic.received, self.group)
        by_slot, rows_of_slot = _by_slot(traffic)
        outputs = self._run_experts(received[by_slot], rows_of_slot)[by_slot.argsort()]
        returned = exchange(outputs, traffic.received, traffic.sent, self.group)
        return _combined(returned, topk_weights, routed)

    def reduce_replica_gradients(self) -> None:
        """Adds up the gradients of each expert's replicas, so that each has the gradient of the expert. Collective.

        Called once after the backward passes of a step and before the optimizer, it keeps equal replicas equal, to the
        last bit. The router's weight is on every rank, and its gradient is added up as in data parallel training.
        """
        for parameter in (self.w13, self.w2):
            if parameter.requires_grad:
                # A rank that served nothing has no gradient, and its replicas have to be stepped like the others.
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._replica_sum(parameter.grad, self.group)

    def extra_repr(self) -> str:
        """What the module is printed with."""
        return f"{self.placement!r}, layer={self.layer}, rank={self.rank}, top_k={self.top_k}"

    def _is_recording(self) -> bool:
        return torch.is_grad_enabled() and self.router.weight.requires_grad

    def _check(self, hidden: Tensor) -> None:
        width = self.w13.shape[2]
        floats_argument("hidden", hidden, self.w13)
        if hidden.dim() != 2 or hidden.shape[1] != width:
            raise ValueError(f"hidden has shape {list(hidden.shape)}, expected [T, {width}]")

    def _traffic(self, routed: Routed) -> _Traffic:
        """Tells every rank how many rows its slots get from here, and waits for all numbers at once."""
        assert routed.slot_counts is not None
        assert routed.rank_counts is not None
        num_ranks, num_slots = len(self._slots_per_rank), self.w13.shape[0]
        slot_counts = routed.slot_counts.new_empty(num_ranks * num_slots)
        dist.all_to_all_single(
            slot_counts, routed.slot_counts, [num_slots] * num_ranks, self._slots_per_rank, group=self.group
        )
        numbers: list[int] = torch.cat((routed.rank_counts, slot_counts)).tolist()
        begins = [num_ranks + rank * num_slots for rank in range(num_ranks)]
        return _Traffic(numbers[:num_ranks], [numbers[at : at + num_slots] for at in begins], slot_counts)

    def _run_experts(self, rows: Tensor, rows_of_slot: Sequence[int]) -> Tensor:
        """Each slot's expert on its rows, which stand in the order of the slots."""
        parts = zip(rows.split_with_sizes(rows_of_slot), self.w13.unbind(), self.w2.unbind(), strict=True)
        outputs = [swiglu(part, w13, w2) for part, w13, w2 in parts if part.shape[0]]
        # What goes back has the dtype of what came, under autocast too: ranks without rows know no other. And these
        # stay part of the graph, since their backward pass takes part in the exchanges.
        return torch.cat(outputs).to(rows.dtype) if outputs else rows


# What a size of a tensor of ours may be.
_MOST_WIDTH = 2**31 - 1
# How many numbers of tokens a rank has for itself; more tokens, or more than 4096 ranks, have numbers of others, too.
_TOKENS_OF_A_RANK = 2**20


class _Traffic(NamedTuple):
    """How many rows go where, for one forward pass."""

    sent: list[int]
    """R: the rows that this rank sends to each rank."""
    received_for_slot: list[list[int]]
    """R x local slots: the rows that this rank receives from each rank for each of its slots."""
    slot_counts: Tensor
    """The same on the device, int32 `[R * local slots]`."""

    @property
    def received(self) -> list[int]:
        """R: the rows that this rank receives from each rank."""
        return [sum(counts) for counts in self.received_for_slot]


def swiglu(rows: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    """One expert: `[N, H]` rows, `[2 * I, H]` gate and up projections, and the `[H, I]` down projection."""
    gate, up = functional.linear(rows, w13).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, w2)


def _rows_to_send(hidden: Tensor, routed: Routed, num_served: int) -> Tensor:
    """The hidden state of each id that is served, in the order of slots and so of ranks."""
    assert routed.order is not None
    assert routed.slots is not None
    rows = hidden[routed.order[:num_served] // max(routed.slots.shape[1], 1)]
    # A rank whose hidden states need no gradient, perhaps since it has no tokens, would leave the exchanges of the
    # backward pass out, and the others would wait for it.
    return rows.requires_grad_() if torch.is_grad_enabled() else rows


def _by_slot(traffic: _Traffic) -> tuple[Tensor, list[int]]:
    """The order in which rows that came rank by rank stand slot by slot, and how many each slot has."""
    num_ranks = len(traffic.received_for_slot)
    rows_of_slot = [sum(counts) for counts in zip(*traffic.received_for_slot, strict=True)]
    slots = torch.arange(len(rows_of_slot), device=traffic.slot_counts.device).repeat(num_ranks)
    # With its size the result can be made without a look at the counts, for which the host would wait again.
    slot_of_row = slots.repeat_interleave(traffic.slot_counts, output_size=sum(rows_of_slot))
    return slot_of_row.argsort(stable=True), rows_of_slot


def _combined(returned: Tensor, topk_weights: Tensor, routed: Routed) -> Tensor:
    """The weighted sum over each token's experts, always in the order of its ids, wherever they were served."""
    assert routed.positions is not None
    assert routed.slots is not None
    # Ids that nobody serves come last in the order: to them belong rows of zeros behind those that came back.
    rows = functional.pad(returned, (0, 0, 0, routed.positions.numel() - returned.shape[0]))
    weights = topk_weights.masked_fill(routed.slots < 0, 0).unsqueeze(-1)
    return (rows[routed.positions] * weights).sum(1).to(returned.dtype)


def _is_padding(hidden: Tensor, valid_tokens: int | Tensor) -> Tensor:
    """Which tokens are padding: bool `[T, 1]`."""
    return torch.arange(hidden.shape[0], device=hidden.device).unsqueeze(1) >= valid_tokens


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _draw(weight: Tensor, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(weight.shape[-1])
    weight.uniform_(-bound, bound, generator=generator)


def _like(device: Device | None, dtype: torch.dtype | None) -> Tensor:
    """No weights, of the device and the dtype of all."""
    if dtype is not None and not (is_a(dtype, torch.dtype) and dtype.is_floating_point):
        found = f"torch.{dtype}".replace("torch.torch.", "torch.") if is_a(dtype, torch.dtype) else type(dtype).__name__
        raise TypeError(f"dtype must be a torch.dtype of floating point, got `{found}`")
    place = torch_device(device)
    return made_on(lambda: torch.empty(0, device=place, dtype=dtype), place)


def _expect_shapes(experts: int, hidden: int, width: int, router: Tensor, w13: Tensor, w2: Tensor) -> None:
    """Refuses weights of all experts that are not of these sizes."""
    wanted = {
        "w2": (w2, [experts, hidden, width]),
        "router": (router, [experts, hidden]),
        "w13": (w13, [experts, 2 * width, hidden]),
    }
    for name, (dense, expected) in wanted.items():
        if list(dense.shape) != expected:
            raise ValueError(f"{name} has shape {list(dense.shape)}, expected {expected}")


def _rank_in(group: dist.ProcessGroup | None, num_ranks: int) -> int:
    """This process's rank in the group, which has so many."""
    rank = dist.get_rank(group)
    if dist.get_world_size(group) != num_ranks:
        raise ValueError(f"placement has num_ranks={num_ranks}, expected {dist.get_world_size(group)} as the group has")
    return rank


def _in_range(parameter: str, value: object, least: int, most: int | None = None) -> int:
    number = int_argument(parameter, value)
    if number < least or (most is not None and number > most):
        expected = f"{least}.." if most is None else f"{least}..={most}"
        raise ValueError(f"{parameter}={digits(number)} is out of range, expected {expected}")
    return number
