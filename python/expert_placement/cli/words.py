"""Numbers and names as the tables for people write them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    _Item = TypeVar("_Item")

__all__ = ["MAX_ROWS", "amount", "bytes_as_text", "many", "middle_left_out", "percent", "seconds_as_text"]

# Tables for people have at most one row more than this.
MAX_ROWS = 48


def many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def amount(value: float) -> str:
    """A load or a time, in any unit, with five digits or all of its whole part."""
    if value >= 1e15 or 0 < value < 1e-3:
        return f"{value:.5g}"
    if value % 1 == 0:
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 5 - len(str(int(value))))}f}"


def percent(ratio: float) -> str:
    """A ratio above 0 in percent, with enough digits to tell a small one from none."""
    return "0 %" if ratio == 0 else f"{ratio:.1%}".replace("%", " %") if ratio >= 0.01 else f"{100 * ratio:.2g} %"


def bytes_as_text(count: float) -> str:
    """A number of bytes in units of a thousand, as bandwidths are."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:,.4g} PB"


def seconds_as_text(seconds: float) -> str:
    """A time in the unit that suits it."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns" if seconds else "0 s"


def middle_left_out(rows: Sequence[_Item], limit: int = MAX_ROWS) -> tuple[Sequence[_Item], int, Sequence[_Item]]:
    """The rows before the middle, how many are left out there, and the rows after it."""
    if len(rows) <= limit:
        return rows, 0, ()
    half = limit // 2
    return rows[:half], len(rows) - 2 * half, rows[-half:]
