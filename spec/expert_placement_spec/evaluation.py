"""One invariant at one point: what a counterexample's pasted call does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expert_placement_spec.grid import Block
from expert_placement_spec.implementation import load
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.lines.command import BrokenProgramError
from expert_placement_spec.reference import CONTIGUOUS, MAX
from expert_placement_spec.single import One, can_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expert_placement_spec.implementation import Implementation
    from expert_placement_spec.invariants import Invariant

LARGEST_TABLES = 4096
"""Beyond this E or R tables are made only where `together` asks for them; single queries decide what they can."""


def evaluate(
    implementation: str,
    invariant: str,
    *,
    num_experts: int,
    num_ranks: int,
    strategy: str = "linear",
    device: str = "cpu",
    together: Sequence[tuple[int, int]] = (),
    **values: int,
) -> bool:
    """Whether one invariant holds at one point, by the tables and, where the law allows it, by single queries.

    Args:
        implementation: a name of the form `module:attribute`, or `$ ` and the command of a program.
        invariant: an invariant's name.
        num_experts: E.
        num_ranks: R.
        strategy: the strategy.
        device: where an implementation with torch arrays is evaluated.
        together: (E, R) of the partitions that are asked at once, this one among them, as a check over a domain asks;
            then tables alone are looked at. Without it this partition is asked by itself.
        values: a value for each of the invariant's quantifiers; without any, every point of the partition is looked at.

    Returns:
        False where the law is broken, or where the implementation raises.

    Raises:
        ValueError: an unknown name, an implementation that does not offer what the invariant is about, other
            quantifiers than the invariant's, a point that does not exist, partitions that are asked together without
            this one, or a program that breaks the protocol.
    """
    law = INVARIANTS.get(invariant)
    if law is None:
        raise ValueError(f"invariant `{invariant}` is unknown, expected one of {', '.join(INVARIANTS)}")
    if values and set(values) != set(law.quantifiers):
        raise ValueError(f"{invariant} is about {', '.join(law.quantifiers) or 'p alone'}, got {', '.join(values)}")
    if strategy not in law.strategies:
        raise ValueError(f"strategy=`{strategy}`: {invariant} is about {', '.join(law.strategies)}")
    shape = (num_experts, num_ranks)
    if any(len(one) != 2 for one in together):
        raise ValueError(f"together={list(together)} holds something else than pairs (E, R)")
    asked = [shape, *((experts, ranks) for experts, ranks in together)]
    for name, numbers, least in zip(("num_experts", "num_ranks"), zip(*asked, strict=True), (0, 1), strict=True):
        for number in numbers:
            if not isinstance(number, int) or not least <= number <= MAX:
                raise ValueError(f"{name}={number} is out of range, expected {least}..={MAX}")
    if together and shape not in asked[1:]:
        raise ValueError(f"together={list(together)} lacks {shape}, the partition that is looked at")
    is_alone = not together and can_sample(law) and len(values) == len(law.quantifiers)
    is_in_tables = bool(together) or max(shape) <= LARGEST_TABLES
    if not is_alone and not is_in_tables:
        needed = f"expected together=[{shape}] to make them nevertheless"
        raise ValueError(f"{invariant} needs tables, which are made up to {LARGEST_TABLES} experts and ranks, {needed}")
    loaded = load(implementation, device)
    if law.subject == "formulas":
        raise ValueError(f"{invariant} is about the formulas, which no implementation shows: `prove` looks at it")
    missing = loaded.missing(law.subject)
    if missing or law.subject not in loaded.offered_subjects():
        what = ", ".join(missing) or f"what {invariant} is about"
        raise ValueError(f"implementation `{implementation}` does not offer {what}")
    holds = True
    try:
        with loaded.arrays.placed():
            if is_alone:
                holds = holds_alone(loaded, law, shape, strategy, values)
            if holds and is_in_tables:
                holds = holds_in_tables(loaded, law, shape, strategy, values, asked[1:] or [shape])
    except NoSuchPointError as error:
        raise ValueError(str(error)) from None
    except BrokenProgramError as error:
        # A program that breaks the protocol has not answered at all.
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        raise
    except BaseException:
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
    loaded: Implementation,
    law: Invariant,
    shape: tuple[int, int],
    strategy: str,
    values: dict[str, int],
    asked: list[tuple[int, int]],
) -> bool:
    """Whether the law holds as tables and maps answer it, where these partitions are asked at once."""
    subjects = loaded.offered_subjects() if law.subject == "answers" else {law.subject, "rule"}
    block = Block(loaded, strategy, asked, subjects - (set() if strategy in CONTIGUOUS else {"offsets"}))
    block.build()
    points = block.points(law.quantifiers)
    points = points.where(points.partition == asked.index(shape))
    for name, value in values.items():
        points = points.where(points.values[name] == value)
    if values and not len(points):
        raise NoSuchPointError(
            f"there is no point {values} in the partition of {shape[0]} experts over {shape[1]} ranks"
        )
    if law.requires is not None and len(points):
        points = points.where(law.requires(points, *points.values.values()))
    return not len(points) or bool(law.predicate(points, *points.values.values()).all())
