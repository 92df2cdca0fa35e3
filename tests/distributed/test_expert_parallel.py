"""`ExpertParallel` on real processes against a dense layer in one, which is written here without the library's routing.

Processes talk through gloo on the CPU, in float64. Sizes are small: H = 6, I = 5, at most 12 experts and 8 ranks.
"""

from __future__ import annotations

import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

pytest.importorskip("torch", reason="the layer is a torch module")

import torch
import torch.distributed as dist
from expert_placement import Partition, Placement, Topology, plan_migration, rebalance
from expert_placement.distributed import Balancer
from expert_placement.distributed.exchange import exchange
from expert_placement.distributed.expert_parallel import ExpertParallel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.distributed.running import new_group, on_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN, WIDTH = 6, 5


class Case(NamedTuple):
    """A layer on its ranks, and how many tokens each rank has."""

    name: str
    placement: Placement | Partition
    tokens: tuple[int, ...]
    top_k: int = 2
    layer: int = 0
    renormalize: bool = True
    prefer_near: bool = False
    padding: int = 0
    """How many of each rank's tokens are padding, as far as it has so many."""

    def padding_of(self, rank: int) -> int:
        return min(self.padding, self.tokens[rank])


def placed(table: list[int], num_experts: int, num_ranks: int, slots: list[int] | None = None) -> Placement:
    return Placement.from_physical_to_logical(table, num_experts, Topology(num_ranks, slots_per_rank=slots))


TWO_LAYERS = Placement.from_physical_to_logical([[0, 1, 2, 0], [1, 2, 0, 2]], 3, Topology(2))
# Expert 0 twice on rank 0 and once on rank 2, expert 3 on ranks 1 and 2, and an empty slot on rank 1.
REPLICAS = placed([0, 1, 0, 3, 2, -1, 0, 3, 4], 5, 3)
# Rank 1 has no slot, and rank 3 has most.
UNEVEN = placed([0, 1, 2, 3, 0, 4, 1], 5, 4, [2, 0, 1, 4])
# Rank 2 is out of service: it has slots, and nothing in them.
INACTIVE = Placement.from_physical_to_logical(
    [0, 1, 2, 3, -1, -1, 1, 4], 5, Topology(4, active=[True, True, False, True])
)
PLANNED = rebalance([[90, 1, 1, 30, 1, 1, 50, 1, 1, 1]], 16, Topology(8, num_nodes=2))


def drawn_case(seed: int) -> Case:
    """Any placement of 1 to 9 experts on 4 ranks of 0 to 4 slots each, with empty slots, and 0 to 9 tokens on each."""
    draw = random.Random(seed)
    slots = [draw.randint(0, 4) for _ in range(4)]
    slots[draw.randrange(4)] += 1
    num_experts = draw.randint(1, min(9, sum(slots)))
    table = [*range(num_experts), *(draw.randint(-1, num_experts - 1) for _ in range(sum(slots) - num_experts))]
    draw.shuffle(table)
    return Case(
        f"drawn from seed {seed}: {table} on ranks with {slots} slots",
        placed(table, num_experts, 4, slots),
        (draw.randint(0, 9), draw.randint(0, 9), draw.randint(0, 9), draw.randint(0, 9)),
        top_k=draw.randint(1, num_experts),
        prefer_near=draw.random() < 0.5,
        padding=draw.randint(0, 2),
    )


CASES = {
    2: [
        Case("5 experts on 2 ranks", Partition(5, 2), (7, 4)),
        Case("round robin", Partition(5, 2, "round_robin"), (3, 9), top_k=3),
        Case("proportional", Partition(7, 2, "proportional"), (4, 4), top_k=7),
        Case("one expert", Partition(1, 2), (3, 2), top_k=1),
        Case("the second of two layers", TWO_LAYERS, (8, 3), layer=1),
        Case("weights that are not divided by their sum", Partition(4, 2), (5, 6), renormalize=False),
        Case("padding", Partition(5, 2), (7, 4), padding=3),
        Case("nothing but padding on a rank", Partition(5, 2), (7, 2), padding=2),
    ],
    3: [
        Case("replicas on a rank and across ranks", REPLICAS, (20, 13, 6)),
        Case("replicas, one expert a token", REPLICAS, (20, 13, 6), top_k=1),
        Case("near replicas", REPLICAS, (20, 13, 6), prefer_near=True),
        Case("no tokens on a rank", REPLICAS, (9, 0, 5)),
        Case("no tokens at all", REPLICAS, (0, 0, 0)),
        Case("one token", REPLICAS, (0, 0, 1)),
        Case("everything everywhere", placed([0, 1, 2] * 3, 3, 3), (5, 6, 7), padding=1),
    ],
    4: [
        Case("3 experts on 4 ranks", Partition(3, 4), (3, 0, 5, 4)),
        Case("3 experts on 4 ranks, round robin", Partition(3, 4, "round_robin"), (3, 2, 5, 0)),
        Case("slots as uneven as can be", UNEVEN, (6, 7, 0, 9), top_k=3),
        Case("a rank out of service", INACTIVE, (6, 7, 2, 9)),
        *map(drawn_case, range(24)),
    ],
    8: [
        Case("12 experts on 8 ranks", Partition(12, 8), (4, 3, 0, 5, 1, 2, 6, 3), top_k=4),
        Case("a plan for measured loads", PLANNED, (4, 3, 8, 5, 0, 2, 6, 3), top_k=3, padding=1),
        Case("near replicas of a plan", PLANNED, (4, 3, 8, 5, 0, 2, 6, 3), prefer_near=True),
    ],
}
each_number_of_ranks = pytest.mark.parametrize("num_ranks", CASES)


class Dense(NamedTuple):
    """The weights of all experts, in one process."""

    router: Tensor
    w13: Tensor
    w2: Tensor

    @staticmethod
    def drawn(num_experts: int, seed: int = 0) -> Dense:
        generator = torch.Generator().manual_seed(seed)
        shapes = ((num_experts, HIDDEN), (num_experts, 2 * WIDTH, HIDDEN), (num_experts, HIDDEN, WIDTH))
        weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return Dense(*(weight.requires_grad_() for weight in weights))

    def on(self, device: str) -> Dense:
        return Dense(*(weight.detach().to(device) for weight in self))

    def expert(self, expert: int, hidden: Tensor) -> Tensor:
        gate, up = hidden @ self.w13[expert, :WIDTH].T, hidden @ self.w13[expert, WIDTH:].T
        return (gate * torch.sigmoid(gate) * up) @ self.w2[expert].T

    def mix(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """The experts' outputs with a weight `[T, E]` for every expert of every token."""
        output = torch.zeros_like(hidden)
        for expert in range(weights.shape[1]):
            output = output + weights[:, expert, None] * self.expert(expert, hidden)
        return output

    def __call__(self, hidden: Tensor, case: Case, is_valid: Tensor) -> Tensor:
        exponentials = (hidden @ self.router.T).exp()
        scores = exponentials / exponentials.sum(1, keepdim=True)
        chosen = scores.argsort(1, descending=True)[:, : case.top_k]
        weights = scores * torch.zeros_like(scores).scatter(1, chosen, 1)
        if case.renormalize:
            weights = weights / weights.sum(1, keepdim=True)
        return self.mix(hidden, weights * is_valid[:, None])


def tokens_of(case: Case, seed: int = 1) -> list[Tensor]:
    """The hidden states of every rank, the same wherever they are drawn."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, HIDDEN, generator=generator, dtype=torch.float64) for count in case.tokens]


def layer_of(case: Case, weights: Dense) -> ExpertParallel:
    return ExpertParallel.from_dense(
        case.placement,
        *weights,
        case.top_k,
        layer=case.layer,
        renormalize=case.renormalize,
        prefer_near=case.prefer_near,
    )


def added_up(tensor: Tensor) -> Tensor:
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def backward(loss: Tensor) -> None:
    torch.autograd.backward((loss,))


def gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def by_expert(layer: ExpertParallel, slots: Tensor) -> Tensor:
    """What all slots of all ranks have, added up for each expert."""
    total = slots.new_zeros(layer.placement.num_experts, *slots.shape[1:])
    for slot, expert in enumerate(layer.local_experts):
        if expert >= 0:
            total[expert] += slots[slot]
    return added_up(total)


def assert_slots_have(layer: ExpertParallel, slots: Tensor, dense: Tensor, what: str) -> None:
    """Each slot of this rank has what the dense tensor has for its expert, and equal replicas are equal to the bit."""
    mine = [(expert, slots[slot]) for slot, expert in enumerate(layer.local_experts) if expert >= 0]
    for expert, value in mine:
        assert_near(value, dense[expert], f"{what} of expert {expert}")
    everything: list[list[tuple[int, Tensor]]] = [[]] * dist.get_world_size()
    dist.all_gather_object(everything, [(expert, value.detach().cpu().clone()) for expert, value in mine])
    first: dict[int, Tensor] = {}
    for expert, value in (pair for pairs in everything for pair in pairs):
        assert torch.equal(value, first.setdefault(expert, value)), f"{what} of the replicas of expert {expert}"


def assert_near(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{what}: {text}")


# Output and gradients.


def compare_with_dense(rank: int, num_ranks: int) -> None:
    for case in CASES[num_ranks]:
        try:
            compare_case(rank, case)
        except Exception as error:
            raise AssertionError(f"case: {case.name}") from error


def compare_case(rank: int, case: Case, device: str = "cpu") -> None:
    weights = Dense.drawn(case.placement.num_experts)
    whole = torch.cat(tokens_of(case)).requires_grad_()
    counts = zip(case.tokens, map(case.padding_of, range(len(case.tokens))), strict=True)
    is_valid = torch.tensor([token < count - padding for count, padding in counts for token in range(count)])
    expected = weights(whole, case, is_valid.bool())
    towards = torch.linspace(-1, 1, whole.numel(), dtype=torch.float64).view(whole.shape)
    backward((expected * towards).sum())

    layer = layer_of(case, weights.on(device))
    hidden = tokens_of(case)[rank].to(device).requires_grad_()
    valid_tokens = case.tokens[rank] - case.padding_of(rank) if case.padding else None
    output = layer(hidden, valid_tokens=valid_tokens)
    assert output.device == hidden.device
    backward((output * towards.split_with_sizes(case.tokens)[rank].to(device)).sum())

    assert_near(output, expected.split_with_sizes(case.tokens)[rank], "output")
    assert_near(gradient(hidden), gradient(whole).split_with_sizes(case.tokens)[rank], "gradient of hidden states")
    assert_near(added_up(gradient(layer.router.weight)), gradient(weights.router), "gradient of the router")
    for name, parameter, dense in (("w13", layer.w13, weights.w13), ("w2", layer.w2, weights.w2)):
        assert_near(by_expert(layer, gradient(parameter)), gradient(dense), f"gradient of {name}, replicas added up")
    layer.reduce_replica_gradients()
    for name, parameter, dense in (("w13", layer.w13, weights.w13), ("w2", layer.w2, weights.w2)):
        assert_slots_have(layer, gradient(parameter), gradient(dense), f"reduced gradient of {name}")


@each_number_of_ranks
def test_output_and_gradients_are_those_of_the_dense_layer(num_ranks: int) -> None:
    on_ranks(num_ranks, compare_with_dense, num_ranks)


def compare_with_wrong_weights(rank: int) -> None:
    case = CASES[2][0]
    layer = layer_of(case, Dense.drawn(5))
    with torch.no_grad():
        layer.w2[-1, 0, 0] += 1e-6
    output = layer(tokens_of(case)[rank])
    expected = Dense.drawn(5)(torch.cat(tokens_of(case)), case, torch.ones(sum(case.tokens)))
    assert_near(output, expected.split_with_sizes(case.tokens)[rank], "output")


def test_the_comparison_rejects_a_weight_that_is_a_little_off() -> None:
    with pytest.raises(AssertionError, match="output: Tensor-likes are not close"):
        on_ranks(2, compare_with_wrong_weights)


# Training.


def train(rank: int, case: Case, steps: int) -> None:
    weights = Dense.drawn(case.placement.num_experts)
    layer = layer_of(case, weights)
    optimizers = [torch.optim.Adam(list(each), lr=0.05) for each in (weights, layer.parameters())]
    for step in range(steps):
        tokens = tokens_of(case, seed=step)
        expected = weights(torch.cat(tokens), case, torch.ones(sum(case.tokens)))
        output = layer(tokens[rank], seed=step)
        assert_near(output, expected.split_with_sizes(case.tokens)[rank], f"output of step {step}")
        for result in (expected, output):
            backward(result.square().sum())
        layer.reduce_replica_gradients()
        layer.router.weight.grad = added_up(gradient(layer.router.weight))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_slots_have(layer, layer.w13, weights.w13, "w13")
    assert_slots_have(layer, layer.w2, weights.w2, "w2")
    assert_near(layer.router.weight, weights.router, "router")


def train_all(rank: int) -> None:
    train(rank, Case("replicas", REPLICAS, (12, 0, 5)), steps=5)
    train(rank, Case("everything everywhere", placed([2, 1, 0, 1, 2, 0, 0, 1, 2], 3, 3), (4, 5, 6)), steps=5)


def test_replicas_stay_equal_to_the_bit_and_right_over_five_steps_of_training() -> None:
    on_ranks(3, train_all)


# Ids of another router.


def other_router(rank: int) -> None:
    weights = Dense.drawn(5)
    layer = layer_of(Case("", REPLICAS, ()), weights)
    # No expert, ids that are none, and the same expert twice.
    topk_ids = torch.tensor([[0, -1, 3], [-1, -1, -1], [4, 4, 2], [5, 1, 2**31 - 1]], dtype=torch.int32)[rank:]
    topk_weights = torch.rand(topk_ids.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    hidden = tokens_of(Case("", REPLICAS, (4 - rank,)))[0]
    is_expert = (topk_ids >= 0) & (topk_ids < 5)
    dense = torch.zeros(4 - rank, 5, dtype=torch.float64)
    dense.scatter_add_(1, topk_ids.long() * is_expert, topk_weights * is_expert)
    for ids in (topk_ids, topk_ids.long()):
        weight_of_nothing = topk_weights.masked_fill(~is_expert, torch.nan)
        assert_near(layer.apply_experts(hidden, ids, weight_of_nothing), weights.mix(hidden, dense), "output")


def test_ids_that_are_no_expert_contribute_nothing_whatever_their_weight() -> None:
    on_ranks(3, other_router)


def padding_of_nan(rank: int) -> None:
    case = CASES[2][0]
    layer = layer_of(case, Dense.drawn(5))
    hidden = tokens_of(case)[rank]
    valid = 3 - rank
    expected = layer(hidden[:valid])
    backward(expected.sum())
    without = [gradient(parameter).clone() for parameter in layer.parameters()]
    layer.zero_grad()
    hidden[valid:] = torch.nan
    output = layer(hidden.requires_grad_(), valid_tokens=torch.tensor([valid], dtype=torch.int32))
    assert torch.equal(output[valid:], torch.zeros_like(output[valid:]))
    assert_near(output[:valid], expected, "output")
    backward(output.sum())
    assert torch.equal(gradient(hidden)[valid:], torch.zeros_like(hidden[valid:]))
    for parameter, before in zip(layer.parameters(), without, strict=True):
        assert_near(gradient(parameter), before, "gradient of a parameter")


def test_padding_contributes_nothing_even_where_it_is_nan() -> None:
    on_ranks(2, padding_of_nan)


# The choice among replicas, and loads.


def seeds_and_loads(rank: int, prefer_near: bool) -> None:
    case = Case("", REPLICAS, (40, 25, 30), padding=5, prefer_near=prefer_near)
    layer = layer_of(case, Dense.drawn(5))
    hidden = tokens_of(case)[rank]
    valid = len(hidden) - 5
    chosen, _ = layer.select(hidden[:valid])
    histogram = added_up(torch.bincount(chosen.flatten(), minlength=5))
    outputs, loads = [], []
    for seed in (0, 1, torch.tensor(2)):
        load = torch.ones(REPLICAS.num_slots, dtype=torch.int64)
        outputs.append(layer(hidden, valid_tokens=valid, seed=seed, load=load))
        loads.append(added_up(load - 1))
        experts = REPLICAS.physical_to_logical()[0].long()
        served = torch.zeros(5, dtype=torch.int64).index_add_(0, experts.clamp(min=0), loads[-1] * (experts >= 0))
        assert torch.equal(served, histogram)
        assert not loads[-1][experts < 0].any()
    for output in outputs[1:]:
        assert_near(output, outputs[0], "output")
    assert not torch.equal(loads[0], loads[1])
    if prefer_near:
        mine = torch.zeros(REPLICAS.num_slots, dtype=torch.int32)
        layer(hidden, valid_tokens=valid, load=mine)
        begin, end = REPLICAS.slot_offsets()[rank : rank + 2].tolist()
        nearby = sum(int((chosen == expert).sum()) for expert in set(layer.local_experts))
        assert int(mine[begin:end].sum()) == nearby


@pytest.mark.parametrize("prefer_near", [False, True])
def test_the_load_is_the_histogram_of_the_experts_and_a_seed_changes_who_serves_but_not_what(prefer_near: bool) -> None:
    on_ranks(3, seeds_and_loads, prefer_near)


def first_tokens(rank: int) -> list[int]:
    """The slots that serve few tokens of each rank, all of them for the expert that is everywhere."""
    placement = placed([0, 1, 2, 0] + [0] * 12, 3, 4)
    layer = layer_of(Case("", placement, ()), Dense.drawn(3))
    ids, mix = torch.zeros(8, 1, dtype=torch.int64), torch.ones(8, 1, dtype=torch.float64)
    load = torch.zeros(placement.num_slots, dtype=torch.int64)
    for step in range(2):
        layer.apply_experts(tokens_of(Case("", placement, (8,)))[0], ids, mix, seed=step, load=load)
    everything = added_up(load)
    assert int(everything.sum()) == 2 * 8 * 4
    # Of 64 ids for 14 replicas most have some; were ranks to choose alike, each would serve a multiple of 4.
    served = everything[placement.physical_to_logical()[0] == 0]
    assert int((served > 0).sum()) >= 12
    assert bool((served % 4 != 0).any())
    assert int(served.max()) <= 12
    return [*map(int, load.tolist())]


def test_ranks_do_not_choose_the_same_replicas_for_their_first_tokens() -> None:
    loads = on_ranks(4, first_tokens)
    assert len({tuple(load) for load in loads}) == 4


def follow_loads(rank: int) -> tuple[str, int]:
    """A balancer moves the weights of layers that are used in every step, and the outputs stay what they are."""
    layers, experts = 2, 6
    topology = Topology(3, slots_per_rank=[4, 3, 3])
    start = Placement.from_physical_to_logical([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]] * layers, experts, topology)
    dense = [Dense.drawn(experts, seed=layer) for layer in range(layers)]
    modules = [
        ExpertParallel.from_dense(start, *weights, 2, layer=layer, group=new_group())
        for layer, weights in enumerate(dense)
    ]
    numbers = iter(range(100))

    def planned(loads: Tensor, placement: Placement) -> Placement:
        generator = torch.Generator().manual_seed(next(numbers))
        return rebalance(torch.rand(layers, experts, generator=generator) ** 3 + 0.01, 10, topology)

    balancer = Balancer(
        start,
        {"w13": [module.w13 for module in modules], "w2": [module.w2 for module in modules]},
        on_layer=lambda layer, placement: modules[layer].update_placement(placement),
        group=new_group(),
        control_group=new_group(),
        planning=planned,
        interval=3,
        timeout=20,
    )
    case = Case("", start, (0, 4, 8))
    for step in range(30):
        load = torch.zeros(layers, 10, dtype=torch.int64)
        for layer, module in enumerate(modules):
            hidden = tokens_of(case, seed=step)[rank]
            with torch.no_grad():
                output = module(hidden, seed=step, load=load[layer])
                expected = dense[layer](hidden, case, torch.ones(len(hidden)))
            assert_near(output, expected, f"output of layer {layer} in step {step}")
        balancer.step(load)
    assert balancer.state.failures == 0
    return balancer.placement.digest(), balancer.state.plans


def test_outputs_stay_what_they_are_while_a_balancer_moves_the_experts() -> None:
    results = on_ranks(3, follow_loads)
    assert len(set(results)) == 1
    assert results[0][1] >= 3


# Weights and placements.


def every_slot(slots: Tensor) -> Tensor:
    """What all slots of all ranks hold: `[P, ...]`."""
    everything: list[Tensor] = [slots] * dist.get_world_size()
    dist.all_gather_object(everything, slots.detach())
    return torch.cat(everything)


def move(rank: int) -> None:
    loads = ([90, 10, 10, 10, 10], [10, 10, 90, 40, 10], [10, 60, 10, 10, 60])
    placements = [rebalance([loads[0], load], 8, Topology(4)) for load in loads]
    case = Case("", placements[0], (6, 0, 5, 3), layer=1)
    weights = Dense.drawn(5)
    whole = weights(torch.cat(tokens_of(case)), case, torch.ones(14))
    backward(whole.sum())
    expected = whole.split_with_sizes(case.tokens)[rank]
    layer = layer_of(case, weights)
    hidden = tokens_of(case)[rank]
    begin, end = placements[0].slot_offsets()[rank : rank + 2].tolist()
    for new in placements[1:]:
        plan = plan_migration(layer.placement, new)
        assert plan.num_moves > 0
        with torch.no_grad():
            for parameter in (layer.w13, layer.w2):
                # The plan is for both layers, of which only the second one has weights here.
                second = every_slot(parameter)
                parameter.copy_(plan.apply(torch.stack((torch.zeros_like(second), second)))[1, begin:end])
        layer.update_placement(new)
        output = layer(hidden)
        assert_near(output, expected, "output")
        layer.zero_grad()
        backward(output.sum())
        layer.reduce_replica_gradients()
        assert_slots_have(layer, gradient(layer.w13), gradient(weights.w13), "reduced gradient of w13")
        assert_slots_have(layer, gradient(layer.w2), gradient(weights.w2), "reduced gradient of w2")
    with pytest.raises(ValueError, match=r"slot_offsets=\[0, 2, 3, 4, 5\], expected \[0, 2, 4, 6, 8\]"):
        layer.update_placement(Placement.from_partition(Partition(5, 4), 2))
    with pytest.raises(ValueError, match=r"placement has num_layers=1, expected more than 1"):
        layer.update_placement(rebalance([loads[0]], 8, Topology(4)))
    assert layer.placement == placements[-1]
    assert_near(layer(hidden), expected, "output after placements that were refused")


def test_a_new_placement_with_moved_weights_gives_the_same_output() -> None:
    on_ranks(4, move)


def draw(rank: int) -> None:
    sizes = (HIDDEN, WIDTH, 2)
    layers = [
        ExpertParallel(placement, *sizes, dtype=torch.float64, seed=seed, layer=layer)
        for placement, layer, seed in (
            (Partition(3, 2), 0, 7),
            (TWO_LAYERS, 0, 7),
            (TWO_LAYERS, 1, 7),
            (TWO_LAYERS, 0, 8),
        )
    ]
    hidden = tokens_of(Case("", Partition(3, 2), (5, 4)))[rank]
    for layer in layers:
        for expert, slots in by_slot_of(layer).items():
            assert all(torch.equal(slots[0], slot) for slot in slots), f"replicas of expert {expert}"
    one_layer = Placement.from_physical_to_logical([0, 1, 2, 0], 3, Topology(2))
    replicated = ExpertParallel(one_layer, *sizes, dtype=torch.float64, seed=7)
    assert_near(replicated(hidden), layers[0](hidden), "output of the same seed")
    outputs = [layer(hidden) for layer in layers[1:]]
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    bound = HIDDEN**-0.5
    assert float(layers[0].router.weight.detach().abs().max()) <= bound


def by_slot_of(layer: ExpertParallel) -> dict[int, list[Tensor]]:
    """For each expert what its slots hold."""
    experts = layer.placement.physical_to_logical()[layer.layer].tolist()
    slots = every_slot(layer.w13)
    return {each: [slots[slot] for slot, expert in enumerate(experts) if expert == each] for each in set(experts)}


def test_initial_weights_are_equal_for_replicas_and_the_same_under_every_placement_and_differ_by_layer_and_seed() -> (
    None
):
    on_ranks(2, draw)


# What would make others wait for ever, or take bytes for something else.


def unlike_ranks(rank: int) -> None:
    case = Case("", Partition(2, 3), (4, 0, 3))
    weights = Dense.drawn(2)
    whole = torch.cat(tokens_of(case)).requires_grad_()
    backward(weights(whole, case, torch.ones(7)).sum())
    layer = layer_of(case, weights).requires_grad_(False)
    # Rank 1 has no tokens that could need a gradient, nor is there a parameter that does.
    hidden = tokens_of(case)[rank].requires_grad_(rank != 1)
    backward(layer(hidden).sum())
    if rank != 1:
        assert_near(gradient(hidden), gradient(whole).split_with_sizes(case.tokens)[rank], "gradient of hidden states")
    layer.reduce_replica_gradients()
    with torch.no_grad():
        assert not layer(hidden).requires_grad


def test_a_rank_without_tokens_or_slots_takes_part_in_the_backward_pass_of_a_frozen_layer() -> None:
    on_ranks(3, unlike_ranks)


def autocast(rank: int) -> None:
    case = Case("", Partition(2, 3), (4, 0, 3))
    layer = ExpertParallel(case.placement, HIDDEN, WIDTH, 2)
    hidden = tokens_of(case)[rank].float().requires_grad_()
    expected = layer(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(hidden)
    backward(output.sum())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.02)
    low = layer.to(torch.bfloat16)(hidden.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.02)


def test_ranks_without_slots_send_back_what_the_others_expect_under_autocast_and_in_bfloat16() -> None:
    on_ranks(3, autocast)


def subgroup(rank: int) -> None:
    groups: list[Any] = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    group = groups[rank % 2]
    weights = Dense.drawn(5)
    layer = ExpertParallel.from_dense(Partition(5, 2), *weights, 2, group=group)
    case = Case("", Partition(5, 2), (3, 4, 5, 6))
    hidden = tokens_of(case)[rank]
    assert_near(layer(hidden), weights(hidden, case, torch.ones(len(hidden))), "output")
    with pytest.raises(ValueError, match="group: this process does not belong to it, expected a group that it is in"):
        ExpertParallel(Partition(5, 2), HIDDEN, WIDTH, 2, group=groups[1 - rank % 2])


def test_experts_are_spread_over_the_ranks_of_a_group() -> None:
    on_ranks(4, subgroup)


# The exchange by itself.


def exchange_rows(rank: int) -> None:
    # Rank s sends r * s rows to rank r, numbered.
    num_ranks = dist.get_world_size()
    sent = [torch.arange(r * rank) + 100 * rank + 10 * r for r in range(num_ranks)]
    counts = [len(rows) for rows in sent], [rank * s for s in range(num_ranks)]
    expected = torch.cat([torch.arange(rank * s) + 100 * s + 10 * rank for s in range(num_ranks)])
    assert torch.equal(exchange(torch.cat(sent), *counts), expected)

    rows = torch.cat(sent).double().unsqueeze(1).expand(-1, 2).clone().requires_grad_()
    received = exchange(rows, *counts)
    (first,) = torch.autograd.grad((received**3).sum(), rows, create_graph=True)
    assert_near(first, 3 * rows**2, "gradient")
    (second,) = torch.autograd.grad(first.sum(), rows)
    assert_near(second, 6 * rows, "gradient of the gradient")

    with pytest.raises(ValueError, match="send_counts has 1 entries, expected 3 as the group has ranks"):
        exchange(rows, [len(rows)], counts[1])
    with pytest.raises(ValueError, match=f"send_counts add up to {len(rows) + 1}, expected {len(rows)}"):
        exchange(rows, [counts[0][0] + 1, *counts[0][1:]], counts[1])


def test_an_exchange_brings_rows_in_the_order_of_the_ranks_and_gradients_back_and_can_be_differentiated_twice() -> None:
    on_ranks(3, exchange_rows)


# Refusals.


class Disguised:
    """What says that it is a tensor."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return torch.Tensor


def _no_weights() -> list[Any]:
    """What is no tensor of floating point whose values are known."""
    shrunk = torch.zeros(3, 6).double()
    shrunk.untyped_storage().resize_(8)
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(3, 6).double())
    meta = torch.zeros(3, 6, device="meta")
    return [
        None,
        3,
        "w",
        [1.0],
        Disguised(),
        shrunk,
        nested,
        fake,
        meta,
        torch.zeros(3, 6).to_sparse(),
        torch.ones(3, 6).int(),
    ]


def refuse(rank: int) -> None:
    def refused(kind: type[Exception], message: str, call: Callable[[], object]) -> None:
        with pytest.raises(kind, match=message):
            call()

    p, weights = Partition(5, 2), Dense.drawn(5)
    router, w13, w2 = (weight.detach() for weight in weights)
    make = ExpertParallel
    refused(ValueError, r"^placement has num_ranks=3, expected 2", lambda: make(Partition(5, 3), 6, 5, 2))
    refused(ValueError, r"^top_k=6 is out of range, expected 1..=5$", lambda: make(p, 6, 5, 6))
    refused(ValueError, r"^top_k=1 is out of range, expected 1..=0$", lambda: make(Partition(0, 2), 6, 5, 1))
    refused(ValueError, r"^hidden_size=0 is out of range, expected 1..=2147483647$", lambda: make(p, 0, 5, 2))
    refused(ValueError, r"^intermediate_size=-1 is out of range", lambda: make(p, 6, -1, 2))
    refused(ValueError, r"^seed=-1 is out of range, expected 0..=2147483647$", lambda: make(p, 6, 5, 2, seed=-1))
    refused(TypeError, r"^top_k must be an int, got `float`$", lambda: make(p, 6, 5, 2.0))  # type: ignore[arg-type]
    refused(TypeError, r"^placement must be a Placement or a Part", lambda: make([0], 6, 5, 2))  # type: ignore[arg-type]
    refused(IndexError, r"^layer=1 is out of range, expected 0..1$", lambda: make(p, 6, 5, 2, layer=1))
    refused(
        ValueError,
        r"^w13 has shape \[4, 10, 6\], expected \[5, 10, 6\]$",
        lambda: make.from_dense(p, router, w13[:4], w2, 2),
    )
    refused(ValueError, r"^w2 has 2 dimensions, expected 3", lambda: make.from_dense(p, router, w13, w2[0], 2))
    layer = make.from_dense(p, router, w13, w2, 2)
    before = [parameter.clone() for parameter in layer.parameters()]
    refused(ValueError, r"^w2 has shape", lambda: layer.load_dense(router + 1, w13 + 1, w2[:, :, 1:]))
    assert all(map(torch.equal, before, layer.parameters()))
    hidden, ids, mix = torch.zeros(3, 6).double(), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)
    refused(ValueError, r"^hidden has shape \[3, 5\], expected \[T, 6\]$", lambda: layer(hidden[:, 1:]))
    refused(ValueError, r"^topk_ids has shape \[2, 2\]", lambda: layer.apply_experts(hidden, ids[1:], mix))
    refused(ValueError, r"^topk_weights has shape \[3, 1\]", lambda: layer.apply_experts(hidden, ids, mix[:, 1:]))
    refused(ValueError, r"^valid_tokens=4 is out of range", lambda: layer(hidden, valid_tokens=4))
    refused(TypeError, r"^valid_tokens must be an int or a tensor", lambda: layer(hidden, valid_tokens="1"))
    refused(TypeError, r"^placement must be a Placement or", lambda: layer.update_placement(None))  # type: ignore[arg-type]
    wrong: Any = "yes"
    refused(TypeError, r"^renormalize must be a bool, got `str`$", lambda: make(p, 6, 5, 2, renormalize=wrong))
    refused(TypeError, r"^prefer_near must be a bool, got `str`$", lambda: make(p, 6, 5, 2, prefer_near=wrong))
    refused(TypeError, r"^layer must be an int, got `NoneType`$", lambda: make(p, 6, 5, 2, layer=None))  # type: ignore[arg-type]
    refused(TypeError, r"^group must be a torch\.distributed\.ProcessGroup", lambda: make(p, 6, 5, 2, group=[0]))  # type: ignore[arg-type]
    refused(TypeError, r"^dtype must be a torch.dtype of floating point", lambda: make(p, 6, 5, 2, dtype=torch.int32))
    refused(ValueError, r"^device=`nonsense` cannot be used", lambda: make(p, 6, 5, 2, device="nonsense"))
    refused(ValueError, r"^seed: nothing can be drawn on the device `meta`", lambda: make(p, 6, 5, 2, device="meta"))
    refused(ValueError, r"^hidden_size=1844674407370955161", lambda: make(p, 2**64, 5, 2))
    claim = torch.tensor(1.0).expand(2**31, 2**20, 2)
    refused(ValueError, r"^w2 has shape \[2147483648, ", lambda: make.from_dense(p, router, w13, claim, 2))
    for odd in _no_weights():
        calls: dict[str, Callable[[], object]] = {
            "router": partial(make.from_dense, p, odd, w13, w2, 2),
            "w13": partial(layer.load_dense, router, odd, w2),
            "w2": partial(layer.load_dense, router + 1, w13 + 1, odd),
            "hidden": partial(layer.select, odd),
            "topk_weights": partial(layer.apply_experts, hidden, ids, odd),
        }
        for name, call in calls.items():
            refused(TypeError, rf"^{name} (must be a|has the dtype)", call)
        refused(TypeError, r"^hidden (must be a|has the dtype)", partial(layer, odd))
    assert all(map(torch.equal, before, layer.parameters()))
    refused(TypeError, r"^topk_ids must be a torch.Tensor", lambda: layer.apply_experts(hidden, wrong, mix))
    refused(ValueError, r"^valid_tokens=18446744073709551616 is out", lambda: layer(hidden, valid_tokens=2**64))
    refused(ValueError, r"^valid_tokens has 2 elements", lambda: layer(hidden, valid_tokens=torch.tensor([1, 2])))
    with torch.inference_mode():
        inferred = hidden.clone()
    refused(ValueError, r"^hidden is a tensor of inference mode", lambda: layer.select(inferred))
    with torch.no_grad():
        layer.select(inferred)
    assert "5 experts" in repr(layer)


def test_what_is_wrong_is_refused_by_name_value_and_range_before_anything_is_sent() -> None:
    on_ranks(2, refuse)


def test_the_example_runs_and_finds_no_difference() -> None:
    script = Path(__file__).parents[2] / "examples" / "expert_parallel.py"
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "equal the dense layer's" in result.stdout
