"""Measured loads as the core takes them: float64, windows x layers x experts. SPEC.md, "Loads"."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    import numpy.typing as npt
    import torch

    # Sequences of numbers nest to two or three levels, which no type of a sequence can say.
    LoadsLike: TypeAlias = torch.Tensor | npt.NDArray[np.generic] | "Sequence[object]"
    from collections.abc import Sequence


def as_bits(loads: LoadsLike) -> tuple[npt.NDArray[np.int64], tuple[int, int, int]]:
    """The loads as float64, and their shape with a window axis in front.

    Args:
        loads: `[L, E]`, or `[W, L, E]` for W windows: integers or floats, in a tensor on any device, an array or
            sequences. Integers beyond 2**53 are rounded to the nearest float64.

    Returns:
        The bits of the floats, flat, for the core reads integers alone; and (W, L, E).

    Raises:
        TypeError: no numbers, or bools or complex ones.
        ValueError: neither two nor three dimensions, or rows of different lengths.
    """
    import numpy as np

    if hasattr(loads, "detach"):
        tensor = loads.detach().cpu()  # type: ignore[union-attr]
        # numpy has no bfloat16; wider floats hold every value of the narrow ones.
        loads = (tensor.double() if tensor.is_floating_point() else tensor).resolve_neg().numpy()
    if np.ma.isMaskedArray(loads):
        raise TypeError("loads must not be a masked array")
    try:
        array = np.asarray(loads)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loads must be numbers in rows of equal length: {error}") from None
    if array.dtype.kind == "O":
        # Integers beyond 64 bits, or something that is no number.
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in array.flat):
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
    return values.reshape(-1).view(np.int64), (windows, layers, experts)
