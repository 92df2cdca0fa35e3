"""Where the parts of a routing table begin, as the compiled core says. SPEC.md, "Routing tables"."""

from __future__ import annotations

from functools import lru_cache

from expert_placement import _core
from expert_placement.torch.routing.request import Parts, Sizes

__all__ = ["parts_of", "width_of"]


@lru_cache(maxsize=256)
def _shape(sizes: Sizes) -> tuple[int, Parts]:
    width, starts = _core._routing_shape(sizes)
    return width, Parts(*starts)


def width_of(sizes: Sizes) -> int:
    """How many int32 a table has.

    Raises:
        ValueError: a size out of range.
    """
    return _shape(sizes)[0]


def parts_of(sizes: Sizes) -> Parts:
    """Where each part begins."""
    return _shape(sizes)[1]
