"""One implementation against all laws of one chapter, as much of it as a profile says: what the pytest plugin shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expert_placement_spec import case_check
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.commands.check import parse_range
from expert_placement_spec.commands.profiles import profile_of
from expert_placement_spec.exhaustive import Domain, check
from expert_placement_spec.implementation import OPTIONAL
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import shown
from expert_placement_spec.report import merged
from expert_placement_spec.sampled import sample, sample_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from expert_placement_spec.invariants import Invariant
    from expert_placement_spec.law import Law
    from expert_placement_spec.outcome import Outcome
    from expert_placement_spec.processes import Workers


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


def outcomes(chapter: str, implementation: str, profile: str, workers: Workers) -> dict[str, Outcome[Any]]:
    """What came of every law of a chapter for one implementation.

    Args:
        chapter: the name of a chapter.
        implementation: a name as `check` takes it.
        profile: how much is looked at.
        workers: who shares the work.

    Raises:
        ValueError: an unknown chapter or profile, or an implementation that can not be had.
    """
    about, names, how_much = laws_about(chapter), [implementation], profile_of(profile)
    parts: list[Outcome[Any]]
    if chapter == PARTITION:
        bounds = parse_range("experts", how_much.experts, 0), parse_range("ranks", how_much.ranks, 1)
        parts = [
            *check(names, Domain(*bounds, how_much.wide, alone=how_much.alone), workers=workers),
            *sample(names, how_much.points, workers=workers),
            *sample_tables(names, how_much.points, how_much.wide, workers=workers),
        ]
    else:
        parts = [
            *case_check.exhaust(chapter, names, how_much.domain, workers=workers),
            *case_check.sample(chapter, names, how_much.cases, workers=workers),
        ]
    return {one.invariant: one for one in merged(parts) if one.invariant in about}
