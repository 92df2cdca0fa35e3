"""Ints, placements and devices as arguments of everything in torch: what is taken, and how the rest is refused."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from expert_placement import Partition, Placement, _core
from expert_placement._arguments import is_a
from expert_placement._text import digits, excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

Device: TypeAlias = torch.device | str | int


def int_argument(parameter: str, value: object, expected: str = "an int") -> int:
    """Anything with `__index__` but a truth value, and but a tensor, of which that would wait for the device."""
    if type(value) is int:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        # What a subclass says of itself, when it is compared, may be anything.
        return int.__index__(value)
    if not isinstance(value, (bool, Tensor)) and str(getattr(value, "dtype", "")) != "bool":
        index: Any = value
        try:
            return operator.index(index)
        except TypeError:
            pass
    raise TypeError(f"{parameter} must be {expected}, got `{type(value).__name__}`")


def index_argument(parameter: str, value: object, end: int) -> int:
    """An int in 0..end.

    Raises:
        IndexError: one out of range.
        TypeError: something else.
    """
    number = int_argument(parameter, value)
    if not 0 <= number < end:
        raise IndexError(f"{parameter}={digits(number)} is out of range, expected 0..{end}")
    return number


def placement_argument(source: object) -> Placement:
    """A placement; a partition is one of one layer.

    Raises:
        TypeError: something else.
    """
    if is_a(source, Partition):
        return Placement.from_partition(source)
    if not is_a(source, Placement):
        raise TypeError(f"placement must be a Placement or a Partition, got `{type(source).__name__}`")
    return source


def expect_placement(value: object, parameter: str = "placement") -> Placement:
    """A placement, and no partition.

    Raises:
        TypeError: something else.
    """
    if not is_a(value, Placement):
        raise TypeError(f"{parameter} must be a Placement, got `{type(value).__name__}`")
    return value


def tensor_argument(parameter: str, value: object) -> Tensor:
    """A tensor; torch would follow the memory of what only says that it is one.

    Raises:
        TypeError: something else.
    """
    if not is_a(value, Tensor):
        raise TypeError(f"{parameter} must be a torch.Tensor, got `{type(value).__name__}`")
    return value


def floats_argument(parameter: str, value: object, beside: Tensor) -> Tensor:
    """A dense tensor of floating point numbers.

    Args:
        parameter: the parameter's name.
        value: what was given for it.
        beside: what it is used with. Where that has no values, on the device `meta` or as a fake tensor, it need not
            have any either; nor where a graph is traced, in which nothing has.

    Raises:
        TypeError: something else, or a tensor whose memory does not hold what its shape says.
    """
    tensor = tensor_argument(parameter, value)
    expect_values(parameter, tensor, beside)
    if not tensor.is_floating_point():
        raise TypeError(f"{parameter} has the dtype {tensor.dtype}, expected one of floating point")
    return tensor


def expect_values(parameter: str, tensor: Tensor, beside: Tensor) -> None:
    """Refuses a tensor that is not one block of values in memory; `beside` is as for `floats_argument`."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        layout = "it is nested" if tensor.is_nested else f"its layout is {tensor.layout}"
        raise TypeError(f"{parameter} must be a dense tensor whose values are known: {layout}")
    if not (torch.compiler.is_compiling() or beside.is_meta or is_fake(beside) or _is_dispatched()):
        _core._expect_dense(parameter, tensor)


def is_fake(tensor: object) -> bool:
    """Whether a tensor stands for one that nobody has made."""
    return is_a(tensor, FakeTensor)


# How many modes look at every operation. It is no public name: where it is missing, none is taken to do so.
_num_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def _is_dispatched() -> bool:
    return _num_modes() > 0


def torch_device(device: Device | None) -> torch.device | None:
    """The device of that name."""
    if device is None or isinstance(device, torch.device):
        return device
    try:
        return torch.device(device)
    except TypeError:
        raise TypeError(f"device must be a torch.device, a str or an int, got `{type(device).__name__}`") from None
    except Exception as error:
        raise _unusable(device, error) from error


def made_on(make: Callable[[], Tensor], device: Device | None) -> Tensor:
    """A tensor made on a device, or an error that says so where nothing can be made on it."""
    try:
        return make()
    except Exception as error:
        try:
            torch.empty(0, device=device)
        except Exception:
            raise _unusable(device, error) from error
        raise


def _unusable(device: Device | None, reason: Exception) -> ValueError:
    name = digits(device) if isinstance(device, int) else str(device)
    why = excerpt(str(reason).partition("\n")[0], 240)
    return ValueError(
        f"device=`{excerpt(name, 240)}` cannot be used, expected one that torch has here, such as `cpu` or "
        f"`cuda:0`: {why}"
    )
