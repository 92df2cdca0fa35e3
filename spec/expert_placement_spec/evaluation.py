"""One invariant at one point: what a counterexample's pasted call does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.grid import Block
from expert_placement_spec.implementation import load
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import RAISED
from expert_placement_spec.reference import CONTIGUOUS, MAX
from expert_placement_spec.single import One, can_sample

if TYPE_CHECKING:
    from expert_placement_spec.implementation import Implementation
    from expert_placement_spec.invariants import Invariant

LARGEST_TABLES = 4096
"""Beyond this E or R tables are not made, and a law that can be decided without them is."""


def evaluate(
    implementation: str, invariant: str, *, num_experts: int, num_ranks: int, strategy: str = "linear", **values: int
) -> bool:
    """Whether one invariant holds at one point, by the tables and, where the law allows it, by single queries.

    Args:
        implementation: a name of the form `module:attribute`.
        invariant: an invariant's name.
        num_experts: E.
        num_ranks: R.
        strategy: the strategy.
        values: a value for each of the invariant's quantifiers.

    Returns:
        False where the law is broken, or where the implementation raises.

    Raises:
        ValueError: an unknown name, other quantifiers than the invariant's, or a point that does not exist.
    """
    law = INVARIANTS.get(invariant)
    if law is None:
        raise ValueError(f"invariant `{invariant}` is unknown, expected one of {', '.join(INVARIANTS)}")
    if set(values) != set(law.quantifiers):
        raise ValueError(f"{invariant} is about {', '.join(law.quantifiers) or 'p alone'}, got {', '.join(values)}")
    if strategy not in law.strategies:
        raise ValueError(f"strategy=`{strategy}`: {invariant} is about {', '.join(law.strategies)}")
    for name, number, least in (("num_experts", num_experts, 0), ("num_ranks", num_ranks, 1)):
        if not isinstance(number, int) or not least <= number <= MAX:
            raise ValueError(f"{name}={number} is out of range, expected {least}..={MAX}")
    loaded = load(implementation)
    shape = (num_experts, num_ranks)
    holds = True
    try:
        if can_sample(law):
            holds = holds_alone(loaded, law, shape, strategy, values)
        if holds and max(shape) <= LARGEST_TABLES:
            holds = holds_in_tables(loaded, law, shape, strategy, values)
    except NoSuchPointError as error:
        raise ValueError(str(error)) from None
    except RAISED:
        return False
    return holds


class NoSuchPointError(Exception):
    """The quantifiers' values are out of their ranges."""


def holds_alone(
    loaded: Implementation, law: Invariant, shape: tuple[int, int], strategy: str, values: dict[str, int]
) -> bool:
    """Whether the law holds as single queries answer it."""
    p = One(loaded, *shape, strategy)
    arguments = [values[name] for name in law.quantifiers]
    for name, value in values.items():
        end = p.num_experts if name == "e" else p.count(values["r"]) if name == "i" else p.num_ranks
        if not 0 <= value < end:
            raise NoSuchPointError(f"there is no point {name}={value}, expected 0..{end}")
    return bool(law.requires is not None and not law.requires(p, *arguments)) or bool(law.predicate(p, *arguments))


def holds_in_tables(
    loaded: Implementation, law: Invariant, shape: tuple[int, int], strategy: str, values: dict[str, int]
) -> bool:
    """Whether the law holds as tables and maps answer it."""
    subjects = loaded.offered_subjects() if law.subject == "answers" else {law.subject, "rule"}
    block = Block(loaded, strategy, [shape], subjects - (set() if strategy in CONTIGUOUS else {"offsets"}))
    block.build()
    points = block.points(law.quantifiers)
    for name, value in values.items():
        points = points.where(points.values[name] == value)
    if not len(points):
        raise NoSuchPointError(
            f"there is no point {values} in the partition of {shape[0]} experts over {shape[1]} ranks"
        )
    if law.requires is not None and not bool(law.requires(points, *points.values.values()).all()):
        return True
    return bool(law.predicate(points, *points.values.values()).all())
