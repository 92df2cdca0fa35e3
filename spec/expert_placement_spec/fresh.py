"""Whether answers are their asker's own, so that nothing that is written into one shows in another."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from expert_placement_spec.implementation import MAP_METHODS, TABLES, WITH_SHARED
from expert_placement_spec.refusing import refuses

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 16
"""Up to how many experts and ranks a partition's maps are looked at: whose they are is no matter of size."""


def is_fresh(ask: Callable[[], Any]) -> bool:
    """Whether what is asked for again is what it was, whatever was written into the first answer before and after."""
    first = ask()
    before = kept(first)
    spoil(first)
    again = ask()
    is_same = same(kept(again), before)
    # One piece of memory that is filled anew for every answer is nobody's own.
    spoil(first)
    return is_same and same(kept(again), before)


def kept(answer: Any) -> Any:
    """A copy of an answer: of lists and numbers as they are, of anything else as an array of numpy."""
    if isinstance(answer, (list, tuple)):
        return [kept(entry) for entry in answer]
    if not hasattr(answer, "__array__"):
        return deepcopy(answer)
    # Of a tensor, wherever it is; torch's `__array__` takes no word about copies.
    return np.asarray(answer.detach().cpu() if hasattr(answer, "detach") else answer).copy()


def same(left: Any, right: Any) -> bool:
    """Whether two such copies are equal."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "shape") or hasattr(right, "shape"):
        return np.array_equal(left, right)
    return bool(left == right)


def spoil(answer: Any) -> None:
    """Writes another number into every place of an answer, unless it lets nobody write."""
    if isinstance(answer, (list, tuple)):
        for place, entry in enumerate(answer):
            if isinstance(answer, list) and isinstance(entry, (int, float, np.number)):
                answer[place] = entry + 1
            else:
                spoil(entry)
    elif hasattr(answer, "copy_"):
        # Torch writes into no tensor of which several places are one.
        with suppress(RuntimeError):
            answer.detach().copy_(answer == 0)
    elif hasattr(answer, "__array__") and not isinstance(answer, np.generic):
        array = np.asarray(answer)
        if array.flags.writeable:
            array[...] = array == 0


def makes_fresh_maps(partition: Any, num_ranks: int, num_shared_experts: int) -> bool:
    """Whether every representation of the maps of the first and the last rank, and every table, is its asker's own."""
    tables = [getattr(partition, name) for name in (*TABLES, "offsets") if hasattr(partition, name)]
    lists = [partial(partition.local_experts, num_ranks - 1)] if hasattr(partition, "local_experts") else []
    # There are no offsets of round robin.
    asked = [ask for ask in tables + lists if not refuses(ValueError, ask)]
    shared = {name: (num_shared_experts,) if name in WITH_SHARED else () for name in MAP_METHODS}
    return all(map(is_fresh, asked)) and all(
        is_fresh(partial(getattr(partition, method), rank, *shared[name]))
        for name, method in MAP_METHODS.items()
        for rank in {0, num_ranks - 1}
    )
