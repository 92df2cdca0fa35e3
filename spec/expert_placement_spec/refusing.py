"""What is asked to see that it is refused, and whether it is. It needs nothing, so that solvers can run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_WRONG_ID = 8
"""E and R up to which more is asked than the neighbours of a range."""


def wrong_ids(end: int, *, is_small: bool) -> tuple[int, ...]:
    """Ids that are not in 0..end: its neighbours and, of small partitions, what lists or narrower ints would wrap."""
    wrapping = (-2, -end - 1, end + 1, 2**31, 2**32, 2**63 - 1) if is_small else ()
    return (-1, end, *wrapping)


def refuses(error: type[Exception], query: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a query raises an error of this type, and not something else."""
    try:
        query(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        # By its type, since an object may say that it is of another class.
        return issubclass(type(raised), error)
    return False
