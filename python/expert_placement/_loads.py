"""Measured loads as the core takes them: float64, windows x layers x experts. SPEC.md, "Loads"."""

from __future__ import annotations

from typing import NamedTuple

from expert_placement import _core
from expert_placement._text import excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    import numpy as np
    import numpy.typing as npt
    import torch

    # Sequences of numbers nest to two or three levels, which no type of a sequence can say.
    LoadsLike: TypeAlias = torch.Tensor | npt.NDArray[Any] | Sequence[Any]


class LoadBits(NamedTuple):
    """Loads as the core reads them."""

    bits: npt.NDArray[np.int64]
    """The bits of the float64 loads, flat: the core reads integers alone."""
    shape: tuple[int, int, int]
    """(W, L, E)."""
    is_windowed: bool
    """Whether there was a window axis."""


def as_bits(loads: LoadsLike) -> LoadBits:
    """The loads as float64, and their shape with a window axis in front.

    Args:
        loads: `[L, E]`, or `[W, L, E]` for W windows; and as for `float_bits`.

    Raises:
        TypeError: as for `float_bits`.
        ValueError: neither two nor three dimensions, or rows of different lengths.
    """
    bits = float_bits("loads", loads, {2: "[L, E]", 3: "[W, L, E]"})
    windows, layers, experts = bits.shape if bits.ndim == 3 else (1, *bits.shape)
    return LoadBits(bits.reshape(-1), (windows, layers, experts), bits.ndim == 3)


def float_bits(name: str, values: LoadsLike, shapes: dict[int, str]) -> npt.NDArray[np.int64]:
    """Numbers as float64, of which the bits are given: the core reads integers alone.

    Args:
        name: the parameter's name.
        values: integers or floats, in a tensor on any device, an array or sequences. Integers beyond 2**53 are rounded
            to the nearest float64.
        shapes: by the number of dimensions that there may be, what they are.

    Raises:
        TypeError: no numbers, or bools or complex ones; within lists the message says where.
        ValueError: another number of dimensions, or rows of different lengths.
    """
    import numpy as np

    plain: Any = values
    if hasattr(plain, "detach"):
        _core._expect_dense(name, plain)
        try:
            tensor = plain.detach().cpu()
            # numpy has no bfloat16; wider floats hold every value of the narrow ones.
            plain = (tensor.double() if tensor.is_floating_point() else tensor).resolve_conj().resolve_neg().numpy()
        except (AttributeError, NotImplementedError, TypeError) as error:
            # A fault of the device, which torch raises otherwise, is none of the numbers.
            reason = excerpt(str(error).partition("\n")[0], 240)
            raise TypeError(f"{name} must be a dense tensor whose values are known: {reason}") from error
    if np.ma.isMaskedArray(plain):
        raise TypeError(f"{name} must not be a masked array")
    if isinstance(plain, (list, tuple)):
        _refuse_bools(name, plain, (), max(shapes))
    try:
        array = np.asarray(plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in rows of equal length: {error}") from None
    if array.dtype.kind == "O":
        # Integers beyond 64 bits, or something that is no number.
        numbers = (int, float, np.integer, np.floating)
        if not all(isinstance(value, numbers) and not isinstance(value, bool) for value in array.flat):
            raise TypeError(f"{name} must be numbers")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{name} hold an integer that no float64 holds, expected finite numbers") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be integers or floats, got {array.dtype}")
    if array.ndim not in shapes:
        expected = ", or ".join(f"{ndim}, {axes}" for ndim, axes in shapes.items())
        raise ValueError(f"{name} has {array.ndim} dimensions, expected {expected}")
    return np.ascontiguousarray(array, dtype=np.float64).view(np.int64)


def _refuse_bools(name: str, values: Sequence[object], at: tuple[int, ...], most: int) -> None:
    """Refuses truth values among numbers, which numpy takes for 0 and 1."""
    import numpy as np

    for position, value in enumerate(values):
        if isinstance(value, (list, tuple)):
            # Deeper than the numbers go nothing is looked at: that is refused for its dimensions.
            if len(at) < most:
                _refuse_bools(name, value, (*at, position), most)
        elif isinstance(value, (bool, np.bool_)):
            where = ", ".join(map(str, (*at, position)))
            raise TypeError(f"{name}[{where}] must be a number, got `{type(value).__name__}`")
