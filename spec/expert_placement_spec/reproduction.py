"""What a counterexample that was found among many partitions needs to be one again, by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from expert_placement_spec.evaluation import evaluate

if TYPE_CHECKING:
    from expert_placement_spec.exhaustive import Counterexample

ATTEMPTS = 500
"""How often it is asked again at most to find fewer partitions that show it together."""


def reproduced(example: Counterexample) -> Counterexample:
    """The same counterexample with as few partitions asked together as show it: only its own, if that is enough.

    One that does not show again says so in its message.
    """
    alone = replace(example, together=())
    if is_broken(alone):
        return alone
    if example.together and is_broken(example):
        example = shrunk(example)
        alone = replace(example, together=())
        return alone if len(example.together) == 1 and is_broken(alone) else example
    note = "seen once and not again, so that answers depend on what was asked before"
    return replace(alone, message=f"{example.message} ({note})" if example.message else note)


def is_broken(example: Counterexample) -> bool:
    """Whether the call that a counterexample prints gives False."""
    try:
        return not evaluate(
            example.implementation,
            example.invariant,
            num_experts=example.num_experts,
            num_ranks=example.num_ranks,
            strategy=example.strategy,
            device=example.device,
            together=example.together,
            **dict(example.values),
        )
    except ValueError:
        # Asked in this way there is no such point, or no such partition.
        return False


def shrunk(example: Counterexample) -> Counterexample:
    """The counterexample with fewer partitions, from which none of the parts that were tried can be left out."""
    attempts, pieces = 0, 2
    while pieces <= len(example.together) and attempts < ATTEMPTS:
        asked = example.together
        size = -(-len(asked) // pieces)
        for first in range(0, len(asked), size):
            fewer = among(example, asked[:first] + asked[first + size :])
            attempts += 1
            if fewer is not None and is_broken(fewer):
                example, pieces = fewer, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(2 * pieces, len(asked))
    return example


def among(example: Counterexample, asked: tuple[tuple[int, int], ...]) -> Counterexample | None:
    """The same with other partitions asked together, or None where it cannot be one without those that are gone.

    What an implementation raised belongs to no partition in particular, and stays with the first of those asked.
    """
    shape = (example.num_experts, example.num_ranks)
    if shape in asked:
        return replace(example, together=asked)
    if example.values or not example.message or not asked:
        return None
    return replace(example, num_experts=asked[0][0], num_ranks=asked[0][1], together=asked)
