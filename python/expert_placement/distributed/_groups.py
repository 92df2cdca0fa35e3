"""Process groups: who is in them, where their messages live, and small messages with an end to the waiting."""

from __future__ import annotations

import threading
import time
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from expert_placement._arguments import is_a, real_argument
from expert_placement._text import excerpt

if TYPE_CHECKING:
    from typing import TypeAlias

    from torch._C._distributed_c10d import Store

    Group: TypeAlias = dist.ProcessGroup | None

MOST_SECONDS = 86_400.0
_SOON_SECONDS = 0.005


def seconds_argument(name: str, value: object) -> float:
    """A time of waiting.

    Raises:
        ValueError: one that is out of 0..=86400 seconds, or 0.
        TypeError: no number.
    """
    expected = f"more than 0 and at most {MOST_SECONDS:.0f} seconds"
    return real_argument(name, value, lambda seconds: 0 < seconds <= MOST_SECONDS, expected, "a number of seconds")


def group_argument(group: Group, name: str = "group") -> Group:
    """A process group that this process is in.

    Raises:
        ValueError: no process group, or one that this process does not belong to.
        TypeError: something that is no group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(f"{name}: there is no process group, expected torch.distributed.init_process_group before")
    outside = f"{name}: this process does not belong to it, expected a group that it is in"
    if group is not None and not is_a(group, dist.ProcessGroup):
        if is_a(group, int):
            # What `torch.distributed.new_group` gives a process that is not in the group.
            raise ValueError(outside)
        raise TypeError(f"{name} must be a torch.distributed.ProcessGroup, got `{type(group).__name__}`")
    if dist.get_rank(group) < 0:
        raise ValueError(outside)
    return group


class Deadline:
    """A point in time until which is waited.

    Args:
        seconds: from now on.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> timedelta:
        """What is left of it, at least a millisecond: no time at all would mean to torch to wait for ever."""
        return timedelta(seconds=max(self._end - time.monotonic(), 0.001))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return time.monotonic() >= self._end


class Members:
    """A process group as one of its ranks sees it.

    Args:
        group: a group that this process belongs to; torch's default group without other word.
        name: what messages call it.

    Raises:
        ValueError: no process group, or one that this process does not belong to.
        TypeError: something that is no group.
    """

    __slots__ = ("device", "group", "rank", "size")

    def __init__(self, group: Group = None, name: str = "group") -> None:
        self.group = group_argument(group, name)
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.device = _message_device(group)

    def global_rank(self, rank: int) -> int:
        """The rank in torch's default group."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def exchange(self, message: bytes, deadline: Deadline) -> list[bytes]:
        """Every rank's message, in one all-gather; all ranks give equally many bytes."""
        mine = torch.frombuffer(bytearray(message), dtype=torch.uint8).to(self.device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        waited_for(dist.all_gather(gathered, mine, group=self.group, async_op=True), deadline, self.device)
        rows: list[list[int]] = torch.stack(gathered).tolist()
        return [bytes(row) for row in rows]

    def sum(self, values: torch.Tensor, deadline: Deadline) -> torch.Tensor:
        """The sum of every rank's int64 values, on the device of this rank's."""
        summed = values.to(self.device, copy=True).contiguous()
        waited_for(
            dist.all_reduce(summed, op=dist.ReduceOp.SUM, group=self.group, async_op=True), deadline, self.device
        )
        return summed.to(values.device)

    def largest(self, value: int, deadline: Deadline) -> int:
        """The largest of every rank's int64."""
        largest = torch.tensor([value], dtype=torch.int64, device=self.device)
        waited_for(
            dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group, async_op=True), deadline, self.device
        )
        return int(largest.item())

    def broadcast(self, values: torch.Tensor, source: int, deadline: Deadline) -> torch.Tensor:
        """One rank's values; the others give a tensor of that shape and dtype, whose content does not matter."""
        sent = values.to(self.device, copy=True).contiguous()
        root = self.global_rank(source)
        waited_for(dist.broadcast(sent, root, group=self.group, async_op=True), deadline, self.device)
        return sent.to(values.device)

    def decide(self, key: str, proposed: str, seconds: float) -> str | None:
        """What the first rank that asked for this key proposed, the same for all that ask.

        The group's store keeps it, which answers each rank by itself, whether others come or not.

        Returns:
            None where the store cannot be asked, or did not answer in time.
        """
        answers: list[str] = []

        def ask() -> None:
            try:
                answers.append(bytes(_store(self._whole()).compare_set(key, "", proposed)).decode())
            except Exception:
                # Whatever a store of a rank that is gone says, it is no answer.
                return

        try:
            # A store that hangs would be waited for as long as it was made for.
            asking = threading.Thread(target=ask, name="expert-placement-decision", daemon=True)
            asking.start()
        except RuntimeError:
            return None
        asking.join(seconds)
        return answers[0] if answers else None

    def is_warm(self, device: torch.device) -> bool:
        """Whether every rank took part in a collective on that kind of device, as far as this process knows."""
        return device.type == self.device.type or self._whole() in _WARM.get(device.type, ())

    def warm(self, device: torch.device, deadline: Deadline) -> None:
        """One collective of all ranks on that device.

        Of NCCL a group's first operation has to be one that all its ranks take part in.
        """
        number = torch.zeros(1, dtype=torch.int64, device=device)
        waited_for(dist.all_reduce(number, group=self.group, async_op=True), deadline, device)
        _WARM.setdefault(device.type, weakref.WeakSet()).add(self._whole())

    def _whole(self) -> dist.ProcessGroup:
        group = dist.group.WORLD if self.group is None else self.group
        assert group is not None
        return group


# By kind of device the groups that were used on it.
_WARM: dict[str, weakref.WeakSet[dist.ProcessGroup]] = {}


def _store(group: dist.ProcessGroup) -> Store:
    """The key-value store that a group was made with."""
    store: Store = dist.distributed_c10d._world.pg_map[group][1]
    return store


def expect_ranks(members: Members, control: Members, num_ranks: int, whose: str) -> None:
    """Refuses a group of another number of ranks than a plan or a placement has, and a control group of other ranks.

    Raises:
        ValueError: either of these.
    """
    if members.size != num_ranks:
        raise ValueError(f"group has {members.size} ranks, expected {num_ranks} as the {whose} has")
    if (control.rank, control.size) != (members.rank, members.size):
        mine, expected = f"rank {control.rank} of {control.size}", f"{members.rank} of {members.size} as in group"
        raise ValueError(f"control_group has this process as {mine}, expected {expected}")


def waited_for(work: dist.Work | None, deadline: Deadline, device: torch.device) -> None:
    """Waits for an operation; a device is waited for as well, since the time is limited.

    Args:
        work: what was begun; None where there was nothing to do.
        deadline: until when.
        device: what it runs on.

    Raises:
        RuntimeError: it failed, or was not done in time.
    """
    if work is None:
        return
    if device.type != "cpu":
        # To wait with a limit, torch looks for NCCL's answer once a millisecond: most are there long before.
        soon = time.perf_counter() + _SOON_SECONDS
        while not work.is_completed() and time.perf_counter() < soon:
            pass
    if not work.wait(deadline.left()):
        raise RuntimeError(f"not done within {deadline.seconds:g} s")


def reason_of(error: BaseException, most: int = 160) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split())
    return excerpt(text, most) if text else type(error).__name__


def merged(said: dict[int, str]) -> str:
    """What ranks say, those that say the same together."""
    ranks: dict[str, tuple[int, ...]] = {}
    for rank in sorted(said):
        ranks[said[rank]] = (*ranks.get(said[rank], ()), rank)
    return "; ".join(f"{rank_words(those)}: {text}" for text, those in ranks.items())


def holds_words(ranks: tuple[int, ...]) -> str:
    """The verb that goes with so many ranks."""
    return "holds" if len(ranks) == 1 else "hold"


def rank_words(ranks: tuple[int, ...]) -> str:
    """Ascending ranks in words, runs of them as one."""
    return f"rank{'' if len(ranks) == 1 else 's'} {number_words(ranks)}"


def number_words(numbers: tuple[int, ...]) -> str:
    """Ascending numbers, runs of them as one."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(f"{first}" if first == last else f"{first}..={last}" for first, last in runs)


def _message_device(group: Group) -> torch.device:
    """Where the tensors of small messages must be: the CPU wherever the group can send from there."""
    backends = dist.get_backend_config(group)
    if "cpu:" in backends:
        return torch.device("cpu")
    kind = backends.partition(":")[0] or "cuda"
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


def transfer_device(members: Members, weights: torch.device) -> torch.device:
    """Where weights travel from: where they are if the group can send from there, else the CPU.

    Gloo is said to serve CUDA, but not for what goes from one rank to another.
    """
    backends = dict(pair.split(":", 1) for pair in dist.get_backend_config(members.group).split(",") if ":" in pair)
    direct = backends.get(weights.type)
    if direct is not None and (weights.type == "cpu" or direct != "gloo"):
        return weights
    return members.device
