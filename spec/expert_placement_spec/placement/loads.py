"""Measured loads: windows x layers x experts, in float64. SPEC.md, "Loads"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from expert_placement_spec.floats import in_order

Loads = list[list[list[float]]]
"""For each window and layer one load for each expert."""

MOST = 1e301
"""What all loads add up to at most: over the slowest speed that is still a finite time."""


def checked_loads(loads: Any, num_experts: int | None = None, num_layers: int | None = None) -> Loads:
    """Loads of shape [L, E], or [W, L, E] for W windows, as windows x layers x experts.

    Counts beyond 2^53 are rounded to the nearest float64, as every number here is.

    Raises:
        ValueError: another shape, no window or layer, a load that is negative or not finite, or a sum above `MOST`.
    """
    array = np.asarray(loads, dtype=np.float64)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or 0 in array.shape[:2]:
        raise ValueError(f"loads has shape {array.shape}, expected [layers, experts] or [windows, layers, experts]")
    lengths = [("num_layers", array.shape[1], num_layers), ("num_experts", array.shape[2], num_experts)]
    for name, length, expected in lengths:
        if expected is not None and length != expected:
            raise ValueError(f"loads has {name}={length}, expected {expected}")
    values: Loads = array.tolist()
    for window in values:
        for layer in window:
            for load in layer:
                if not (math.isfinite(load) and load >= 0):
                    raise ValueError(f"loads has {load}, expected finite numbers of at least 0")
    if not in_order(in_order(map(in_order, window)) for window in values) <= MOST:
        raise ValueError(f"loads add up to too much, expected a sum of at most {MOST}")
    return values


def summed_windows(loads: Loads) -> list[list[float]]:
    """The loads of each layer added up over the windows, in their order."""
    total = [list(layer) for layer in loads[0]]
    for window in loads[1:]:
        total = [[sum_ + load for sum_, load in zip(*pair, strict=True)] for pair in zip(total, window, strict=True)]
    return total
