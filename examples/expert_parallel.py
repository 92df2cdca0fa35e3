"""A mixture-of-experts layer on four processes and in one, compared. Needs the extra `[torch]`, and no GPU."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from expert_placement import Placement, Topology, rebalance
from expert_placement.distributed.expert_parallel import ExpertParallel, swiglu
from torch import Tensor

HIDDEN, WIDTH, TOP_K, STEPS = 32, 48, 2, 3
# Every rank has tokens of its own, as with data parallel attention; rank 2 has none.
TOKENS = (100, 60, 0, 75)
# Measured loads of 10 experts: 14 slots on 4 ranks are room for four more replicas, and do not divide by 4.
LOADS = [[900, 120, 40, 300, 80, 60, 700, 30, 20, 90]]
NUM_SLOTS, TOPOLOGY = 14, Topology(len(TOKENS))


class Dense(NamedTuple):
    """The layer in one process: all experts, one after another."""

    router: Tensor
    w13: Tensor
    w2: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """The output `[T, H]` for hidden states `[T, H]`."""
        weights, ids = (hidden @ self.router.T).softmax(-1).topk(TOP_K)
        weights = weights / weights.sum(-1, keepdim=True)
        output = torch.zeros_like(hidden)
        for expert, matrices in enumerate(zip(self.w13, self.w2, strict=True)):
            weight = (weights * (ids == expert)).sum(-1, keepdim=True)
            output = output + weight * swiglu(hidden, *matrices)
        return output


class Line(NamedTuple):
    """What a rank says of itself: its experts, its tokens, what it served, and the largest difference."""

    experts: list[int]
    num_tokens: int
    rows_served: int
    difference: float


def dense_layer(num_experts: int) -> Dense:
    """The same weights in every process."""
    torch.manual_seed(0)
    shapes = ((num_experts, HIDDEN), (num_experts, 2 * WIDTH, HIDDEN), (num_experts, HIDDEN, WIDTH))
    return Dense(*((torch.randn(shape, dtype=torch.float64) / 4).requires_grad_() for shape in shapes))


def train(placement: Placement, rank: int) -> Line:
    """Some steps of training of both layers, side by side; a step goes wrong where the gradients of one before did."""
    dense = dense_layer(placement.num_experts)
    layer = ExpertParallel.from_dense(placement, *dense, TOP_K)
    optimizers = [torch.optim.AdamW(list(parameters), lr=0.01) for parameters in (dense, layer.parameters())]
    load = torch.zeros(placement.num_slots, dtype=torch.int64)
    difference = 0.0
    for step in range(STEPS):
        hidden = torch.randn(sum(TOKENS), HIDDEN, dtype=torch.float64)
        expected, output = dense(hidden), layer(hidden.split(TOKENS)[rank], seed=step, load=load)
        for result in (expected, output):
            result.square().sum().backward()
        # The replicas of an expert get its whole gradient; the router is on all ranks, as in data parallel training.
        layer.reduce_replica_gradients()
        dist.all_reduce(layer.router.weight.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        difference = max(difference, largest(output - expected.split(TOKENS)[rank]))
    # After the steps each slot holds what the dense layer has for its expert.
    for mine, whole in zip((layer.w13, layer.w2), dense[1:], strict=True):
        difference = max(difference, largest(mine - whole[layer.local_experts]))
    dist.all_reduce(load)
    begin, end = placement.slot_offsets()[rank : rank + 2].tolist()
    return Line(layer.local_experts, TOKENS[rank], int(load[begin:end].sum()), difference)


def largest(difference: Tensor) -> float:
    """The largest absolute value, 0 of nothing."""
    return float(difference.detach().abs().max()) if difference.numel() else 0.0


def work(rank: int, folder: str) -> None:
    """What each process runs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=60), len(TOKENS), rank)
    # A plan is a function of its arguments alone, so every rank makes the same one by itself.
    placement = rebalance(LOADS, NUM_SLOTS, TOPOLOGY)
    lines: list[Line | None] = [None] * len(TOKENS)
    dist.all_gather_object(lines, train(placement, rank))
    if rank == 0:
        report([line for line in lines if line])
    dist.destroy_process_group()


def report(lines: list[Line]) -> None:
    """Prints what the ranks say, and fails where it is not what it should be."""
    print(f"{'rank':>4}  {'experts in its slots':<22}{'tokens':>8}{'rows served':>13}{'difference':>12}")
    for rank, line in enumerate(lines):
        experts = " ".join(map(str, line.experts))
        print(f"{rank:>4}  {experts:<22}{line.num_tokens:>8}{line.rows_served:>13}{line.difference:>12.0e}")
    assert sum(line.rows_served for line in lines) == STEPS * TOP_K * sum(TOKENS)
    assert max(line.difference for line in lines) < 1e-10
    print(f"Outputs, and weights after {STEPS} steps of training, equal the dense layer's.")


if __name__ == "__main__":
    # Processes are forked from one that has imported torch, so that not each of them has to.
    torch.multiprocessing.set_forkserver_preload(["expert_placement.distributed.expert_parallel"])
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(work, (folder,), nprocs=len(TOKENS), start_method="forkserver")
