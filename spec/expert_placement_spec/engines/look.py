"""The laws of a chapter, evaluated on an engine's function over the cases that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import Phase

from expert_placement_spec import case_check
from expert_placement_spec.adapter import load_model
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.engines.catalogue import CASES, DOMAIN, KINDS, REFUSING, SHAPES, indivisible, kind_of
from expert_placement_spec.exhaustive import Domain, check
from expert_placement_spec.implementation import OPTIONAL
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from expert_placement_spec.adapter import Model
    from expert_placement_spec.cases import Case, Chapter
    from expert_placement_spec.engines.catalogue import Subject
    from expert_placement_spec.law import Law


@dataclass(frozen=True)
class Finding:
    """What came of one law for one function."""

    outcome: Outcome[Any]
    why_not: str = ""
    """Why the law was not looked at, where it was not."""


def look(subject: Subject, shapes: tuple[int, int] = SHAPES, examples: int = CASES) -> list[Finding]:
    """Looks at every law of the function's chapter.

    Args:
        subject: the function.
        shapes: up to how many experts and ranks partitions are looked at.
        examples: how many random cases are drawn, before those are left out that the function does not take.

    Raises:
        ValueError: the engine's source is not at hand.
    """
    if subject.chapter == PARTITION:
        return list(look_at_partitions(subject, shapes))
    return list(look_at_cases(subject, examples))


def look_at_partitions(subject: Subject, shapes: tuple[int, int]) -> Iterator[Finding]:
    """The laws of partitions, of one strategy."""
    name, (experts, ranks) = subject.implementation, shapes
    domain = Domain(range(experts + 1), range(1, ranks + 1), max(shapes), (subject.strategy,))
    for outcome in check([name], domain):
        law = INVARIANTS[outcome.invariant]
        if subject.strategy in law.strategies and law.subject not in OPTIONAL:
            yield Finding(outcome, lacks(outcome.missing))


def look_at_cases(subject: Subject, examples: int) -> Iterator[Finding]:
    """The laws of another chapter, over the cases that the function takes."""
    chapter, model, reasons = CHAPTERS[subject.chapter], load_model(subject.implementation), dict(subject.not_offered)
    findings: dict[str, Finding] = {}
    for law in chapter.laws.values():
        missing = tuple(need for need in law.needs if not model.offers(need))
        if missing or law.name in reasons:
            why = lacks(missing) or reasons[law.name]
            findings[law.name] = Finding(Outcome(model.name, law.name, missing=missing or (why,)), why)
    for kind in KINDS:
        laws = [law for law in chapter.laws.values() if law.name not in findings and kind_of(law) == kind]
        for outcome in outcomes_of(subject, kind, model, laws, examples):
            findings[outcome.invariant] = Finding(outcome)
    return (findings[name] for name in chapter.laws)


def outcomes_of(subject: Subject, kind: str, model: Model, laws: list[Law], examples: int) -> list[Outcome[Any]]:
    """Laws of one kind, over the cases of the domain and random ones."""
    if not laws:
        return []
    chapter, taken = CHAPTERS[subject.chapter], partial(subject.taken, kind)
    outcomes = case_check.check_cases(chapter, model, laws, filter(None, map(taken, cases_of(chapter, kind))))
    drawn = filter(None, map(taken, case_check.drawn_cases(subject.chapter, examples)))
    for law, outcome, sampled in zip(laws, outcomes, case_check.check_cases(chapter, model, laws, drawn), strict=True):
        # What a random case shows first may be shown by a smaller one.
        if outcome.counterexample is None and sampled.counterexample is not None:
            outcome.add(Outcome(model.name, law.name, counterexample=shrunk(chapter, model, law, taken)))
        outcome.add(sampled)
    return outcomes


def cases_of(chapter: Chapter, kind: str) -> Iterator[Any]:
    """The cases that are looked at one and all."""
    if kind == REFUSING:
        # The domains of the chapter have next to none of them.
        yield from indivisible()
        return
    domain = chapter.domains[DOMAIN]
    for block in domain.blocks():
        yield from domain.cases(block)


def shrunk(
    chapter: Chapter, model: Model, law: Law, taken: Callable[[Any], Case | None]
) -> case_check.CaseCounterexample | None:
    """The smallest counterexample that hypothesis comes to, among cases that the function takes."""
    found: list[case_check.CaseCounterexample] = []

    def is_broken(case: Case) -> bool:
        narrower = taken(case)
        if narrower is None:
            return False
        broken = case_check.check_cases(chapter, model, [law], [narrower])[0].counterexample
        if broken is not None:
            found.append(broken)
        return broken is not None

    case_check.search(chapter, is_broken, case_check.SHRINKING, (Phase.generate, Phase.shrink))
    return min(found, key=lambda one: one.size, default=None)


def lacks(missing: tuple[str, ...]) -> str:
    """Why a law is not offered, where something is missing."""
    return f"it gives no {', '.join(missing)}" if missing else ""
