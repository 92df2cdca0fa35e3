"""What every rank counted, added up over the ranks and kept for the last windows of time. SPEC.md, "Loads"."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

from expert_placement import Placement, _core
from expert_placement._text import digits
from expert_placement.distributed._groups import Deadline, Members, reason_of, seconds_argument
from expert_placement.torch._arguments import (
    Device,
    expect_placement,
    int_argument,
    made_on,
    tensor_argument,
    torch_device,
)

if TYPE_CHECKING:
    from typing import SupportsIndex

    from expert_placement.distributed._groups import Group

_COUNTERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MOST = 2**31 - 1


def all_reduce_load(
    load: torch.Tensor, placement: Placement | None = None, group: Group = None, *, timeout: float = 60.0
) -> torch.Tensor:
    """Adds up counters over the ranks of a group and, with a placement, over the replicas of every expert.

    It is one all-reduce of int64, which every rank of the group has to call with the same shape. A rank whose
    argument is refused does not take part: the others wait for it until the timeout.

    Args:
        load: integers of any width, at least 0: `[L, S]` or `[W, L, S]` for windows, what this rank counted in each
            physical slot, on any device. S is P, or more where the counters have room for later placements.
        placement: the placement under which was counted; none where the columns are logical experts already.
        group: the process group; torch's default group without other word.
        timeout: seconds to wait for the other ranks, more than 0 and at most 86400.

    Returns:
        int64 on the device of `load`: `[L, E]` or `[W, L, E]` with a placement, of the same shape without.

    Raises:
        ValueError: another shape, a negative sum, or something counted in a slot that holds no expert; on every rank.
        TypeError: an argument of another type, or counters that are no integers.
        RuntimeError: another rank did not answer in time.
    """
    waiting = seconds_argument("timeout", timeout)
    members = Members(group)
    expect_counters(load)
    if load.ndim not in (2, 3):
        raise ValueError(f"load has {load.ndim} dimensions, expected 2, [L, S], or 3, [W, L, S]")
    if placement is None:
        counted = load.detach().to(torch.int64, copy=True)
        counted = torch.cat((counted, torch.zeros_like(counted[..., :1])), dim=-1)
    else:
        counted = per_expert(load, slot_experts(placement, load), placement.num_experts)
    return without_nowhere(summed(counted, members, Deadline(waiting)))


class LoadWindows:
    """The loads of the last windows of time, by logical expert, as `rebalance` takes them.

    A window is the steps between two calls of `close`. While it is open, `record` adds on the device what a step
    counted, and neither waits for it nor talks to another rank.

    Args:
        num_layers: number of layers, L, in 0..=2**31 - 1.
        num_experts: number of logical experts, E, in 0..=2**31 - 1.
        num_windows: how many closed windows are kept, W, in 1..=2**31 - 1.
        device: where is counted; the CPU without other word. It has to be where the steps' counters are.

    Raises:
        ValueError: a number out of range, or a device that cannot be used.
        TypeError: an argument of another type.

    Example:
        >>> from expert_placement import Placement, Topology
        >>> placement = Placement.from_physical_to_logical([[0, 1, 2, 0]], num_experts=3, topology=Topology(2))
        >>> windows = LoadWindows(num_layers=1, num_experts=3)
        >>> windows.record(torch.tensor([[5, 1, 0, 4]]), placement)
        >>> windows.open_load()
        tensor([[9, 1, 0]])
    """

    __slots__ = ("_closed", "_experts_of", "_open", "_placement", "num_experts", "num_layers", "num_windows")

    num_layers: int
    """L."""
    num_experts: int
    """E."""
    num_windows: int
    """How many closed windows are kept at most."""

    def __init__(
        self,
        num_layers: SupportsIndex,
        num_experts: SupportsIndex,
        num_windows: SupportsIndex = 1,
        *,
        device: Device | None = None,
    ) -> None:
        self.num_layers = number_argument("num_layers", num_layers, 0)
        self.num_experts = number_argument("num_experts", num_experts, 0)
        self.num_windows = number_argument("num_windows", num_windows, 1)
        place = torch_device(device)
        # One column more than experts, for what is counted in slots without one: it is looked at when the window is
        # closed, since looking at it in every step would wait for the device.
        shape = (self.num_layers, self.num_experts + 1)
        self._open = made_on(lambda: torch.zeros(shape, dtype=torch.int64, device=place), place)
        self._closed: deque[torch.Tensor] = deque(maxlen=self.num_windows)
        self._placement: Placement | None = None
        self._experts_of: torch.Tensor | None = None

    def record(self, load: torch.Tensor, placement: Placement) -> None:
        """Adds what this rank counted in a step to the open window.

        Args:
            load: integers of any width, at least 0: `[L, S]`, what was counted in each physical slot. S is P, or more
                where the counters have room for later placements.
            placement: the placement under which was counted, whose experts the slots held.

        Raises:
            ValueError: counters of another shape or on another device, or a placement of another size.
            TypeError: an argument of another type, or counters that are no integers.
        """
        expect_counters(load)
        expect_placement(placement)
        for name in ("num_layers", "num_experts"):
            if getattr(placement, name) != getattr(self, name):
                expected = f"{getattr(self, name)} as the windows have"
                raise ValueError(f"placement has {name}={getattr(placement, name)}, expected {expected}")
        if load.ndim != 2:
            raise ValueError(f"load has {load.ndim} dimensions, expected 2, [L, S]")
        if load.device != self._open.device:
            raise ValueError(f"load is on `{load.device}`, expected `{self._open.device}` as the windows are")
        if placement is not self._placement or self._experts_of is None or self._experts_of.shape != load.shape:
            self._experts_of = slot_experts(placement, load)
            self._placement = placement
        self._open.scatter_add_(1, self._experts_of, load.detach().to(torch.int64))

    def open_load(self) -> torch.Tensor:
        """What this rank recorded since the last window was closed: int64[L, E], a copy.

        Raises:
            ValueError: a negative load, or something counted in a slot that holds no expert.
        """
        return without_nowhere(self._open)

    def close(self, group: Group = None, *, timeout: float = 60.0) -> torch.Tensor:
        """Closes the window: adds it up over the ranks, keeps the sum, and begins another.

        It is one all-reduce of `L * (E + 1)` int64, which every rank of the group has to call. The window that is
        open is cleared when all answers are there, and only then, whether they are fine or not.

        Args:
            group: the process group; torch's default group without other word.
            timeout: seconds to wait for the other ranks, more than 0 and at most 86400.

        Returns:
            int64[L, E], the same on every rank.

        Raises:
            ValueError: a negative sum, or something counted in a slot that holds no expert; on every rank.
            TypeError: an argument of another type.
            RuntimeError: another rank did not answer in time.
        """
        waiting = seconds_argument("timeout", timeout)
        total, _ = self._take(Members(group), Deadline(waiting))
        return self._keep(without_nowhere(total))

    def _take(self, members: Members, deadline: Deadline, failed: int = 0) -> tuple[torch.Tensor, int]:
        """The sum of the open windows, with its column of what was counted nowhere; and the sum of all `failed`."""
        mine = torch.cat((self._open.reshape(-1), self._open.new_tensor([failed])))
        total = summed(mine, members, deadline)
        self._open.zero_()
        return total[:-1].view(self._open.shape), int(total[-1])

    def _keep(self, load: torch.Tensor) -> torch.Tensor:
        """Keeps a window's sum, on the CPU, in the place of the oldest."""
        self._closed.append(load.cpu())
        return load

    def loads(self) -> torch.Tensor:
        """The closed windows, the oldest first: int64[W, L, E] on the CPU, with W from 0 to `num_windows`."""
        if not self._closed:
            return torch.zeros((0, self.num_layers, self.num_experts), dtype=torch.int64)
        return torch.stack(tuple(self._closed))

    def __len__(self) -> int:
        return len(self._closed)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} with {len(self)} of {self.num_windows} windows of {self.num_layers} x "
            f"{self.num_experts} loads>"
        )


def number_argument(name: str, value: SupportsIndex, least: int) -> int:
    """An int in least..=2**31 - 1.

    Raises:
        ValueError: one out of range.
        TypeError: something else.
    """
    number = int_argument(name, value)
    if not least <= number <= _MOST:
        raise ValueError(f"{name}={digits(number)} is out of range, expected {least}..={_MOST}")
    return number


def expect_counters(load: object) -> None:
    """Refuses what is no dense tensor of integers."""
    counters = tensor_argument("load", load)
    _core._expect_dense("load", counters)
    if counters.dtype not in _COUNTERS:
        raise TypeError(f"load has the dtype {counters.dtype}, expected integers")


def slot_experts(placement: Placement, load: torch.Tensor) -> torch.Tensor:
    """int64[L, S] on the device of the counters: the column that a slot counts for, E where it holds no expert."""
    expect_placement(placement)
    layers, slots = load.shape[-2:]
    if layers != placement.num_layers or slots < placement.num_slots:
        expected = f"[{placement.num_layers}, {placement.num_slots}] or more columns, as the placement has"
        raise ValueError(f"load has the shape {list(load.shape)}, expected {expected}")
    nowhere = placement.num_experts
    experts = torch.full((layers, slots), nowhere, dtype=torch.int64)
    table = placement.physical_to_logical().to(torch.int64)
    experts[:, : placement.num_slots] = torch.where(table < 0, nowhere, table)
    return experts.to(load.device)


def per_expert(load: torch.Tensor, experts_of: torch.Tensor, num_experts: int) -> torch.Tensor:
    """int64[..., L, E + 1]: the sums over each expert's slots, and of what was counted in slots without one."""
    counted = load.detach().to(torch.int64)
    result = counted.new_zeros((*counted.shape[:-1], num_experts + 1))
    return result.scatter_add_(-1, experts_of.expand(counted.shape), counted)


def summed(counted: torch.Tensor, members: Members, deadline: Deadline) -> torch.Tensor:
    """The sum over all ranks."""
    try:
        return members.sum(counted, deadline)
    except RuntimeError as error:
        waited = f"no answer from every rank within {deadline.seconds:g} s"
        raise RuntimeError(f"load: {waited}: {reason_of(error)}") from error


def without_nowhere(counted: torch.Tensor) -> torch.Tensor:
    """The loads alone, checked.

    Raises:
        ValueError: a negative load, or something counted in a slot that holds no expert.
    """
    loads, nowhere = counted[..., :-1], counted[..., -1]
    if bool((nowhere != 0).any()):
        layer = int(torch.nonzero(nowhere)[0][-1])
        raise ValueError(
            f"load: layer {layer} counted {int(nowhere[nowhere != 0][0])} in slots that hold no expert, expected 0: "
            "the placement is not the one under which was counted"
        )
    if bool((loads < 0).any()):
        at = torch.nonzero(loads < 0)[0].tolist()
        raise ValueError(f"load of layer {at[-2]} and expert {at[-1]} is {int(loads[tuple(at)])}, expected at least 0")
    return loads.clone()
