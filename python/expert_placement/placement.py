"""A placement: which logical expert each physical slot of each layer holds. SPEC.md, "Placement"."""

from __future__ import annotations

from typing import NamedTuple

from expert_placement import _core
from expert_placement._copying import ItselfAsCopy, attributes, set_attributes
from expert_placement._loads import LoadBits, as_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import SupportsIndex, TypeVar

    import torch
    from typing_extensions import Self

    from expert_placement._core import Topology
    from expert_placement._loads import LoadsLike
    from expert_placement.partition import Partition

    _SomePlacement = TypeVar("_SomePlacement", bound="Placement")


class LayerReport(NamedTuple):
    """One layer of a placement under measured loads.

    A time is a load divided by the rank's speed; with several windows times are added up over them.
    """

    layer: int
    mean: float
    """The time of every rank if all were equally busy."""
    largest: float
    """The time of the busiest rank."""
    busiest_rank: int
    """The busiest rank, the lowest of equals."""
    lower_bound: float
    """The best lower bound on `largest` for any placement in these slots."""
    bound: str
    """What the bound follows from: `"mean"` or `"largest_replica"`."""
    balancedness: float
    """mean / largest: 1 where all ranks are equally busy."""
    gap: float
    """largest / lower_bound - 1: 0 where no placement is better."""


class Placement(_core.Placement):
    """Which of E logical experts each of P physical slots holds, in each of L layers, replicas included.

    A placement is an immutable value: hashable, comparable and picklable. Its state is the physical-to-logical table
    and the ranks that the slots belong to; everything else is derived. Every tensor is a fresh contiguous `torch.int32`
    on the CPU whose storage is the memory that Rust filled; `device=` moves it.

    Make one with `from_partition`, `from_physical_to_logical`, `load` or `rebalance`.

    Example:
        >>> from expert_placement import Topology
        >>> p = Placement.from_physical_to_logical([[0, 1, 2, 0]], num_experts=3, topology=Topology(2))
        >>> p.replica_counts().tolist(), p.expert_map(0, 1).tolist()
        ([[2, 1, 1]], [1, -1, 0])
    """

    __slots__ = ()

    @classmethod
    def from_partition(cls, partition: Partition, num_layers: SupportsIndex = 1) -> Self:
        """One replica of each expert where the partition has it, every layer alike.

        Args:
            partition: E experts over R ranks; each rank gets as many slots as it owns experts.
            num_layers: number of layers, L, in 1..=2**31 - 1.

        Raises:
            ValueError: `num_layers` out of range.
            TypeError: a partition that is none, or a number that is no int.
        """
        return cls(_core.Placement._from_partition(partition, num_layers))

    @classmethod
    def from_physical_to_logical(cls, table: _core._Integers, num_experts: SupportsIndex, topology: Topology) -> Self:
        """From the table that every engine has: the expert of each slot, -1 for an empty one.

        Args:
            table: int32 or int64, `[L, P]`, or `[P]` for one layer: a tensor on any device, a numpy array or sequences.
            num_experts: number of logical experts, E, in 0..=2**31 - 1.
            topology: the ranks; without `slots_per_rank` the P slots are a linear partition over them.

        Raises:
            ValueError: an entry that is neither an expert nor -1, an expert that a layer leaves out, content on a rank
                that is not active, or another P than the topology has.
            TypeError: another dtype, a number that is no int, or a topology that is none.
        """
        import numpy as np

        if table is None or isinstance(table, (str, bytes)):
            raise TypeError(f"physical_to_logical must be an array or a sequence, got `{type(table).__name__}`")
        if hasattr(table, "detach"):
            _core._expect_dense("physical_to_logical", table)
        try:
            shape = tuple(table.shape) if hasattr(table, "shape") else np.shape(table)
        except TypeError:
            raise TypeError(
                f"physical_to_logical must be an array or a sequence, got `{type(table).__name__}`"
            ) from None
        except ValueError:
            raise ValueError("physical_to_logical has rows of different lengths, expected [P] or [L, P]") from None
        if len(shape) not in (1, 2):
            raise ValueError(f"physical_to_logical has {len(shape)} dimensions, expected 1, [P], or 2, [L, P]")
        num_layers = shape[0] if len(shape) == 2 else 1
        return cls(_core.Placement._from_table(table, num_layers, num_experts, topology))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a file that `save` wrote, and verifies it.

        Args:
            path: a regular file, or a link to one.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it can not be read.
            ValueError: a file that is damaged, of another format or of an unknown version; the message names the file,
                the field and the position.
        """
        from expert_placement.formats import native

        return native.read(cls, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the placement as JSON with a version and its digest; the file appears whole or not at all.

        A link is followed, and stays one; a file that is replaced hands its permissions on.

        Args:
            path: a file that may be there already, in a directory that is.

        Raises:
            OSError: the file cannot be written.
            ValueError: an empty path, or that of a pipe, a device or a socket.
        """
        from expert_placement.formats import native

        native.write(self, path)

    def physical_to_logical(self, *, device: _core._Device | None = None) -> torch.Tensor:
        """The expert of each slot, or -1: int32[L, P].

        Args:
            device: where the tensor is moved to; the CPU without other word. CUDA is not waited for.

        Raises:
            ValueError: a device that cannot be used.
        """
        return self._physical_to_logical(device).view(self.num_layers, self.num_slots)

    def logical_to_physical(
        self, width: SupportsIndex | None = None, *, device: _core._Device | None = None
    ) -> torch.Tensor:
        """The slots of each expert, ascending, padded with -1: int32[L, E, K].

        Args:
            width: K; the replicas of the most replicated expert without other word. A fixed width keeps the shape from
                one placement to the next, as captured CUDA graphs need.
            device: where the tensor is moved to; the CPU without other word. CUDA is not waited for.

        Raises:
            ValueError: a width that is too small, whose error names the least, or a device that cannot be used.
            TypeError: a width that is no int.
        """
        table, columns = self._logical_to_physical(width, device)
        return table.view(self.num_layers, self.num_experts, columns)

    def replica_counts(self, *, device: _core._Device | None = None) -> torch.Tensor:
        """How many replicas each expert has: int32[L, E].

        Args:
            device: where the tensor is moved to; the CPU without other word. CUDA is not waited for.

        Raises:
            ValueError: a device that cannot be used.
        """
        return self._replica_counts(device).view(self.num_layers, self.num_experts)

    def rank_loads(self, loads: LoadsLike) -> torch.Tensor:
        """The load of every rank: float64[L, R], or float64[W, L, R] for loads of W windows.

        An expert's load is split evenly over its replicas; a rank's shares are added up in slot order.

        Args:
            loads: `[L, E]` or `[W, L, E]`, finite and at least 0.

        Raises:
            ValueError: loads of another shape, or one that is negative or not finite.
            TypeError: loads that are no numbers, or a tensor without dense values.
        """
        checked = self._checked(loads)
        ranks = self._rank_loads(checked.bits, checked.shape[0])
        windows = checked.shape[:1] if checked.is_windowed else ()
        return ranks.view(*windows, self.num_layers, self.num_ranks)

    def balancedness(self, loads: LoadsLike) -> float:
        """The sum over layers (and windows) of the mean rank time over that of the largest; 1 is perfect.

        Arguments and errors are those of `rank_loads`.
        """
        checked = self._checked(loads)
        return self._balancedness(checked.bits, checked.shape[0])

    def off_node(self, loads: LoadsLike, num_groups: SupportsIndex) -> list[float]:
        """For each layer the part of its load that is served off node, 0.0..=1.0.

        Experts of a group of E / G consecutive ones are at home on the node that serves most of the group's load; what
        replicas on other nodes serve is off node. Where the model's routing keeps a token's experts in few groups, this
        is about what leaves the nodes that a token has to visit anyway.

        Args:
            loads: as for `rank_loads`; windows are added up.
            num_groups: groups of experts that routing chooses among, G, which divides E.

        Raises:
            ValueError: groups that do not divide E; and the errors of `rank_loads`.
            TypeError: a number of groups that is no int.
        """
        checked = self._checked(loads)
        return self._off_node(checked.bits, checked.shape[0], num_groups)

    def replica_weights(self, loads: LoadsLike) -> torch.Tensor:
        """The part of its expert's load that each slot should serve: float64[L, P], what weighted routing takes.

        With these parts the busiest rank of each layer is done as early as any split of the loads over the replicas
        allows, within a part in 10^9 for speeds within a factor of 10^4 of each other. The parts of an expert's slots
        add up to 1, and those of an expert without load are equal. Where several splits are equally good, which one it
        is follows from the arguments alone.

        Args:
            loads: as for `rank_loads`; windows are added up.

        Raises:
            ValueError, TypeError: as for `rank_loads`.
        """
        checked = self._checked(loads)
        return _core._split(self, checked.bits, checked.shape[0])[0].view(self.num_layers, self.num_slots)

    def report(self, loads: LoadsLike) -> list[LayerReport]:
        """For each layer how busy the busiest rank is, and how far from the best that any placement could do.

        Arguments and errors are those of `rank_loads`.
        """
        checked = self._checked(loads)
        rows = self._report(checked.bits, checked.shape[0])
        return [LayerReport(layer, *row) for layer, row in enumerate(rows)]

    def _checked(self, loads: LoadsLike) -> LoadBits:
        checked = as_bits(loads)
        for name, actual, expected in zip(
            ("num_layers", "num_experts"), checked.shape[1:], (self.num_layers, self.num_experts), strict=True
        ):
            if actual != expected:
                raise ValueError(f"loads has {name}={actual}, expected {expected} as the placement has")
        return checked

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self.num_experts} experts in {self.num_layers} x {self.num_slots} slots "
            f"on {self.num_ranks} ranks, digest {self.digest()[:12]}>"
        )

    # As for a partition: a subclass may hold attributes, which its copies and pickles have too.

    __copy__ = ItselfAsCopy()
    __deepcopy__ = ItselfAsCopy()

    def __reduce__(self) -> tuple[object, tuple[object, ...], dict[str, object] | None]:
        table = self._physical_to_logical(None).numpy()
        content = (table, self.num_layers, self.num_experts, self.topology)
        return _without_attributes, (type(self), *content), self.__getstate__()

    def __getstate__(self) -> dict[str, object] | None:
        """The attributes that a subclass added, by name, whether in `__dict__` or in slots; None without any."""
        return attributes(self, Placement)

    def __setstate__(self, named: dict[str, object]) -> None:
        set_attributes(self, Placement, named)


def _without_attributes(
    subclass: type[_SomePlacement], table: _core._Integers, num_layers: int, num_experts: int, topology: Topology
) -> _SomePlacement:
    """A placement of a subclass whose attributes are still to come, without a call of the subclass's `__new__`."""
    placement = _core.Placement._from_table(table, num_layers, num_experts, topology)
    return _core.Placement.__new__(subclass, placement)
