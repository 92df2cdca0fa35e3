"""A partition: E experts over R ranks, one replica each. SPEC.md, "Partition"."""

from __future__ import annotations

from expert_placement import _core
from expert_placement._copying import ItselfAsCopy, attributes, set_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import SupportsIndex, TypeVar

    import torch
    from typing_extensions import Self

    from expert_placement.model_config import HasToDict
    from expert_placement.names import Strategy

    _SomePartition = TypeVar("_SomePartition", bound="Partition")


class Partition(_core.Partition):
    """Which rank owns which of E experts, and where each stands in its owner's own numbering.

    A partition is an immutable value of three fields: hashable, comparable, picklable, and usable in a `match`
    statement. Every scalar answer is computed in constant time. Every tensor is a fresh contiguous `torch.int32` on the
    CPU whose storage is the memory that Rust filled; `device=` moves it, for CUDA without waiting for the device.

    Args:
        num_experts: number of routed experts, E, in 0..=2**31 - 1.
        num_ranks: number of ranks, R, in 1..=2**31 - 1.
        strategy: `"linear"` (consecutive blocks, larger shares first), `"round_robin"` (expert e on rank e % R) or
            `"proportional"` (consecutive blocks that start at r * E // R).

    Raises:
        ValueError: a count out of range or an unknown strategy.
        TypeError: a count that is no int, or a strategy that is no str.

    Example:
        >>> p = Partition(30, 8)
        >>> p.count(7), p.start(7), p.owner(29), p.local_index(29)
        (3, 27, 7, 2)
        >>> p == eval(repr(p))
        True
    """

    __slots__ = ()
    __match_args__ = ("num_experts", "num_ranks", "strategy")

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str] | Mapping[str, object] | HasToDict,
        num_ranks: SupportsIndex,
        strategy: Strategy = "linear",
        *,
        num_redundant_experts: SupportsIndex = 0,
    ) -> Self:
        """The partition of a model's routed experts, read from its Hugging Face `config.json`.

        Args:
            config: the file, a directory that holds a `config.json`, or the configuration itself as a mapping or as an
                object with a `to_dict` method.
            num_ranks: number of ranks, R, in 1..=2**31 - 1.
            strategy: as for the class.
            num_redundant_experts: how many experts more than the model's own to divide, n, in 0..=2**31 - 1 - E;
                `min_redundant_experts` says the least n that makes all ranks equal.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it can not be read.
            ValueError: the path leads to no regular file, or the file is no JSON object, describes no mixture of
                experts, or names E in no known way; a count out of range or an unknown strategy.
            TypeError: a configuration that is neither path nor mapping and has no `to_dict`, a count that is no int, or
                a strategy that is no str.
        """
        from expert_placement.model_config import config_argument

        num_experts = config_argument("config", config).num_experts
        return cls(_core.with_redundant_experts(num_experts, num_redundant_experts), num_ranks, strategy)

    def owner_of(self, experts: _core._Integers) -> torch.Tensor:
        """owner(e) for each element of `experts`.

        Args:
            experts: int32 or int64 expert ids in 0..E, any shape: a tensor on any device, a numpy array or a sequence
                of ints. They are copied first: an id that another thread writes meanwhile may be taken for any value,
                and is answered, or refused, as the value that it was taken for.

        Returns:
            int32 tensor of the same shape, of no dimension for a single int, on the same device (the CPU for anything
            but a tensor).

        Raises:
            IndexError: an id out of range, named with its position in row-major order. On a device other than the CPU
                this check waits for the device; `expert_placement.torch.owner` never does.
            TypeError: another dtype, a sequence that holds anything but ints, a masked array, or a tensor that is
                sparse, nested, on the device `meta`, or larger than its storage.
        """
        return self._each(experts, self._owner_of)

    def local_index_of(self, experts: _core._Integers) -> torch.Tensor:
        """local_index(e) for each element of `experts`; arguments, result and errors are those of `owner_of`."""
        return self._each(experts, self._local_index_of)

    def count_of(self, ranks: _core._Integers) -> torch.Tensor:
        """count(r) for each element of `ranks`, ids in 0..R; otherwise as `owner_of`."""
        return self._each(ranks, self._count_of)

    def start_of(self, ranks: _core._Integers) -> torch.Tensor:
        """start(r) for each element of `ranks`, ids in 0..R; otherwise as `owner_of`."""
        return self._each(ranks, self._start_of)

    @staticmethod
    def _each(ids: _core._Integers, answer: Callable[[_core._Integers], torch.Tensor]) -> torch.Tensor:
        """Answers flattened, gives the shape back, and returns to the device that the ids came from."""
        answers = answer(ids)
        import numpy as np
        import torch

        if isinstance(ids, torch.Tensor):
            return answers.reshape(ids.shape).to(ids.device)
        return answers.reshape(np.shape(ids))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_experts={self.num_experts}, num_ranks={self.num_ranks}, "
            f"strategy={self.strategy!r})"
        )

    # A subclass may hold attributes beside the three fields: a copy of one has its own, and a pickle carries them.

    __copy__ = ItselfAsCopy()
    __deepcopy__ = ItselfAsCopy()

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[type[Self], int, int, str], dict[str, object] | None]:
        return _without_attributes, (type(self), self.num_experts, self.num_ranks, self.strategy), self.__getstate__()

    def __getstate__(self) -> dict[str, object] | None:
        """The attributes that a subclass added, by name, whether in `__dict__` or in slots; None without any."""
        return attributes(self, Partition)

    def __setstate__(self, named: dict[str, object]) -> None:
        set_attributes(self, Partition, named)


def _without_attributes(
    subclass: type[_SomePartition], num_experts: int, num_ranks: int, strategy: Strategy
) -> _SomePartition:
    """A partition of a subclass whose attributes are still to come, as they come from another one.

    The `__new__` of the subclass is left out, since it may ask for more than the three fields.
    """
    return _core.Partition.__new__(subclass, num_experts, num_ranks, strategy)
