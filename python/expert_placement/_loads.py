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
        loads: `[L, E]`, or `[W, L, E]` for W windows: integers or floats, in a tensor on any device, an array or
            sequences. Integers beyond 2**53 are rounded to the nearest float64.

    Raises:
        TypeError: no numbers, or bools or complex ones; within lists the message says where.
        ValueError: neither two nor three dimensions, or rows of different lengths.
    """
    import numpy as np

    plain: Any = loads
    if hasattr(plain, "detach"):
        _core._expect_dense("loads", plain)
        try:
            tensor = plain.detach().cpu()
            # numpy has no bfloat16; wider floats hold every value of the narrow ones.
            plain = (tensor.double() if tensor.is_floating_point() else tensor).resolve_conj().resolve_neg().numpy()
        except (NotImplementedError, TypeError) as error:
            # A fault of the device, which torch raises otherwise, is none of the loads.
            reason = excerpt(str(error).partition("\n")[0], 240)
            raise TypeError(f"loads must be a dense tensor whose values are known: {reason}") from error
    if np.ma.isMaskedArray(plain):
        raise TypeError("loads must not be a masked array")
    if isinstance(plain, (list, tuple)):
        _refuse_bools(plain, ())
    try:
        array = np.asarray(plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loads must be numbers in rows of equal length: {error}") from None
    if array.dtype.kind == "O":
        # Integers beyond 64 bits, or something that is no number.
        numbers = (int, float, np.integer, np.floating)
        if not all(isinstance(value, numbers) and not isinstance(value, bool) for value in array.flat):
            raise TypeError("loads must be numbers")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError("loads hold an integer that no float64 holds, expected finite numbers") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"loads must be integers or floats, got {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(f"loads has {array.ndim} dimensions, expected 2, [L, E], or 3, [W, L, E]")
    windows, layers, experts = array.shape if array.ndim == 3 else (1, *array.shape)
    values = np.ascontiguousarray(array, dtype=np.float64)
    return LoadBits(values.reshape(-1).view(np.int64), (windows, layers, experts), array.ndim == 3)


def _refuse_bools(values: Sequence[object], at: tuple[int, ...]) -> None:
    """Refuses truth values among numbers, which numpy takes for 0 and 1."""
    import numpy as np

    for position, value in enumerate(values):
        if isinstance(value, (list, tuple)):
            # Deeper than loads go nothing is looked at: that is refused for its dimensions.
            if len(at) < 3:
                _refuse_bools(value, (*at, position))
        elif isinstance(value, (bool, np.bool_)):
            where = ", ".join(map(str, (*at, position)))
            raise TypeError(f"loads[{where}] must be a number, got `{type(value).__name__}`")
