"""Implementations against the laws of a chapter: what the command `check` and the pytest plugin look at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from expert_placement_spec import case_check
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.commands.profiles import parse_range, profile_of
from expert_placement_spec.exhaustive import Domain, check
from expert_placement_spec.implementation import OPTIONAL
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import shown
from expert_placement_spec.report import merged
from expert_placement_spec.sampled import sample, sample_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from expert_placement_spec.invariants import Invariant
    from expert_placement_spec.law import Law
    from expert_placement_spec.outcome import Outcome
    from expert_placement_spec.processes import Workers

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""What shows how far a part is: by the part's name a function that is told what is done, and of how much."""


@contextmanager
def no_bar(_: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None


def laws_about(chapter: str) -> Mapping[str, Invariant | Law]:
    """The laws of a chapter that an implementation may be asked about, by name.

    Raises:
        ValueError: there is no such chapter.
    """
    if chapter == PARTITION:
        return {law.name: law for law in INVARIANTS.values() if law.subject != "formulas"}
    if chapter not in CHAPTERS:
        raise ValueError(f"chapter=`{shown(chapter, 100)}` is unknown, expected {', '.join((PARTITION, *CHAPTERS))}")
    return CHAPTERS[chapter].laws


def is_asked_of_all(law: Invariant | Law) -> bool:
    """Whether the law is about more than a faster way to ask, which there need not be."""
    return getattr(law, "subject", "") not in OPTIONAL


def look_at_partitions(
    names: list[str],
    domain: Domain,
    points: int,
    *,
    workers: Workers,
    device: str = "cpu",
    bar: Bar = no_bar,
) -> tuple[list[Outcome[Any]], list[Outcome[Any]]]:
    """What came of every law of partitions: over a whole domain, and of samples beyond it.

    Args:
        names: of the implementations.
        domain: which partitions are looked at one and all.
        points: how many random points each law of the rule is given; 0 for none.
        workers: who shares the work.
        device: where implementations with torch arrays are evaluated.
        bar: what shows how far it is.

    Raises:
        ValueError: an implementation that can not be had.
    """
    with bar("exhaustive") as progress:
        exhaustive = check(names, domain, device=device, workers=workers, progress=progress)
    if not points:
        return exhaustive, []
    with bar("sampled") as progress:
        sampled = sample(names, points, strategies=domain.strategies, device=device, workers=workers, progress=progress)
    with bar("sampled maps") as progress:
        tables = sample_tables(
            names,
            points,
            domain.wide,
            strategies=domain.strategies,
            device=device,
            workers=workers,
            progress=progress,
        )
    return exhaustive, merged([*sampled, *tables])


def look_at_cases(
    chapter: str, names: list[str], domain: str, number: int, *, workers: Workers, real: bool = True, bar: Bar = no_bar
) -> tuple[list[Outcome[Any]], list[Outcome[Any]], list[Outcome[Any]]]:
    """What came of every law of a chapter about cases: over a whole domain, of random cases, and of real sizes.

    Args:
        chapter: the name of the chapter.
        names: of the implementations.
        domain: which domain is looked at one and all.
        number: how many random cases are.
        workers: who shares the work.
        real: whether cases of real sizes are.
        bar: what shows how far it is.

    Raises:
        ValueError: an implementation that can not be had.
    """
    sampled: list[Outcome[Any]] = []
    of_real_sizes: list[Outcome[Any]] = []
    with bar("exhaustive") as progress:
        exhaustive = case_check.exhaust(chapter, names, domain, workers=workers, progress=progress)
    if number:
        with bar("sampled") as progress:
            sampled = case_check.sample(chapter, names, number, workers=workers, progress=progress)
    if real:
        with bar("real sizes") as progress:
            of_real_sizes = case_check.look_at_real(chapter, names, workers=workers, progress=progress)
    return exhaustive, sampled, of_real_sizes


def outcomes(
    chapter: str, implementation: str, profile: str, workers: Workers, *, real: bool = True
) -> dict[str, Outcome[Any]]:
    """What came of every law of a chapter for one implementation.

    Args:
        chapter: the name of a chapter.
        implementation: a name as `check` takes it.
        profile: how much is looked at.
        workers: who shares the work.
        real: whether cases of real sizes are looked at, too.

    Raises:
        ValueError: an unknown chapter or profile, or an implementation that can not be had.
    """
    about, names, how_much = laws_about(chapter), [implementation], profile_of(profile)
    if chapter == PARTITION:
        bounds = parse_range("experts", how_much.experts, 0), parse_range("ranks", how_much.ranks, 1)
        domain = Domain(*bounds, how_much.wide, alone=how_much.alone)
        parts = [*look_at_partitions(names, domain, how_much.points, workers=workers)]
    else:
        parts = [*look_at_cases(chapter, names, how_much.domain, how_much.cases, workers=workers, real=real)]
    return {one.invariant: one for one in merged([one for part in parts for one in part]) if one.invariant in about}
