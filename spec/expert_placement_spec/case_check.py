"""Every law of a chapter over a domain of cases and random ones beyond. SPEC.md, "How placements are checked"."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from expert_placement_spec.adapter import load_model
from expert_placement_spec.cases import Chapter, first_violation
from expert_placement_spec.chapters import CHAPTERS, chapter_of
from expert_placement_spec.lines.command import BrokenProgramError
from expert_placement_spec.outcome import Outcome as AnyOutcome
from expert_placement_spec.outcome import in_words, shown
from expert_placement_spec.processes import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from expert_placement_spec.adapter import Model
    from expert_placement_spec.cases import Case
    from expert_placement_spec.law import Law
    from expert_placement_spec.processes import Workers

SHRINKING = 1000
"""How many cases are tried at most to find a smaller counterexample."""
PARTS = 8
"""How many tasks the random cases of an implementation are."""


@dataclass(frozen=True)
class CaseCounterexample:
    """A case, and values of the quantifiers, at which an implementation breaks a law."""

    implementation: str
    invariant: str
    case: Case
    values: tuple[tuple[str, int], ...] = ()
    message: str = ""
    real: str = ""
    """The name of the case, where it is one of real sizes."""

    @property
    def size(self) -> tuple[Any, ...]:
        """By which the smallest is chosen."""
        return (self.case.size, tuple(number for _, number in self.values))

    def call(self) -> str:
        """An expression that evaluates the law at this point, to be pasted."""
        given = {"real": self.real} if self.real else self.case.values()
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        at = f", at={dict(self.values)}" if self.values else ""
        what = f'{json.dumps(self.implementation)}, "{self.invariant}"'
        return f"expert_placement_spec.evaluate_case({what}, {values}{at})"

    def point(self) -> dict[str, Any]:
        """The point as plain values, for JSON."""
        return {**({"real": self.real} if self.real else self.case.values()), "at": dict(self.values)}


Outcome: TypeAlias = AnyOutcome[CaseCounterexample]
"""What came of one law for one implementation."""


AnyTask = TypeVar("AnyTask")


@dataclass(frozen=True)
class Task:
    """A part of a domain that one process checks at a time."""

    chapter: str
    implementation: str
    domain: str
    block: Any

    def __str__(self) -> str:
        return f"implementation `{self.implementation}` in the chapter {self.chapter}, cases {self.block}"


def offered_laws(chapter: Chapter, model: Model) -> list[Law]:
    """The laws that can be observed.

    Raises:
        ValueError: the implementation lacks what the chapter is about.
    """
    missing = [need for need in chapter.needs if not model.offers(need)]
    if missing:
        raise ValueError(f"implementation `{model.name}` offers no {' and no '.join(missing)}")
    return [law for law in chapter.laws.values() if all(map(model.offers, law.needs))]


def check_cases(
    chapter: Chapter, model: Model, laws: list[Law], cases: Iterable[Case], real: str = ""
) -> list[Outcome]:
    """Evaluates laws on cases that an implementation can be given, and keeps the smallest counterexample to each.

    Args:
        chapter: the chapter of the laws.
        model: the implementation.
        laws: what is evaluated.
        cases: on what.
        real: the name of the only case, where it is one of real sizes.
    """
    outcomes = {law.name: Outcome(model.name, law.name) for law in laws}
    offers = cache(model.offers)
    for case in cases:
        if not all(map(offers, case.needs)):
            continue
        view = chapter.view(model, case)
        for law in laws:
            begin = time.perf_counter()
            outcome, broken = outcomes[law.name], None
            try:
                number, point = first_violation(law, view)
                outcome.cases += number
                if point is not None:
                    values = tuple(zip(law.quantifiers, point, strict=True))
                    broken = CaseCounterexample(model.name, law.name, case, values, real=real)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                broken = CaseCounterexample(model.name, law.name, case, message=in_words(error), real=real)
                outcome.cases += 1
            outcome.seconds += time.perf_counter() - begin
            if broken is not None:
                outcome.add(Outcome(model.name, law.name, counterexample=broken))
    return list(outcomes.values())


def run_task(task: Task) -> list[Outcome]:
    """Checks one part; called in a worker process, or in this one."""
    chapter, model = CHAPTERS[task.chapter], load_model(task.implementation)
    return check_cases(chapter, model, offered_laws(chapter, model), chapter.domains[task.domain].cases(task.block))


def exhaust(
    chapter: str,
    implementations: list[str],
    domain: str,
    *,
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Checks every law of a chapter for every implementation over a domain.

    Args:
        chapter: the name of a chapter.
        implementations: names of the form `module` or `module:attribute`.
        domain: which of the chapter's domains.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the blocks done and their total.

    Returns:
        One outcome for each implementation and law, in the order of the names.

    Raises:
        ValueError: an implementation that can not be had, or lacks what the chapter is about.
    """
    outcomes = unobserved(chapter, implementations, workers)
    blocks = CHAPTERS[chapter].domains[domain].blocks()
    work = [Task(chapter, name, domain, block) for block in blocks for name in implementations]
    gather(outcomes, workers, run_task, work, progress)
    return list(outcomes.values())


def gather(
    outcomes: dict[tuple[str, str], Outcome],
    workers: Workers,
    run: Callable[[AnyTask], list[Outcome]],
    work: Sequence[AnyTask],
    progress: Callable[[int, int], None],
) -> None:
    """Adds what comes of every part of a check to the outcomes of their implementations and laws."""
    with closing(workers.run_all(run, work)) as results:
        for done, (_, found) in enumerate(results, 1):
            for outcome in found:
                outcomes[outcome.implementation, outcome.invariant].add(outcome)
            progress(done, len(work))


@dataclass(frozen=True)
class Loading:
    """An implementation that is to be looked at for the first time."""

    chapter: str
    implementation: str

    def __str__(self) -> str:
        return f"implementation `{self.implementation}`, at its import"


def missing_of(task: Loading) -> dict[str, tuple[str, ...]]:
    """What an implementation lacks, by the laws that need it.

    Raises:
        ValueError: an implementation that can not be had, or lacks what the chapter is about.
    """
    chapter, model = CHAPTERS[task.chapter], load_model(task.implementation)
    offered_laws(chapter, model)
    return {law.name: tuple(need for need in law.needs if not model.offers(need)) for law in chapter.laws.values()}


def unobserved(chapter: str, implementations: list[str], workers: Workers) -> dict[tuple[str, str], Outcome]:
    """An outcome without cases for each implementation and law."""
    work = [Loading(chapter, name) for name in implementations]
    missing = dict(workers.run_all(missing_of, work))
    return {
        (one.implementation, law): Outcome(one.implementation, law, missing=missing[one][law])
        for one in work
        for law in CHAPTERS[chapter].laws
    }


@dataclass(frozen=True)
class Sampling:
    """Every `PARTS`-th of the random cases of one implementation."""

    chapter: str
    implementation: str
    examples: int
    part: int

    def __str__(self) -> str:
        about = f"implementation `{self.implementation}` in the chapter {self.chapter}"
        return f"{about}, random cases {self.part}, {self.part + PARTS}, ... of {self.examples}"


@lru_cache(maxsize=1)
def drawn_cases(chapter: str, examples: int) -> list[Case]:
    """The random cases of a chapter."""
    cases: list[Case] = []

    def look(case: Case) -> bool:
        cases.append(case)
        return False

    search(CHAPTERS[chapter], look, examples, (Phase.generate,))
    return cases


def run_sampling(task: Sampling) -> list[Outcome]:
    """Checks some of the random cases; called in a worker process, or in this one."""
    chapter, model = CHAPTERS[task.chapter], load_model(task.implementation)
    cases = drawn_cases(task.chapter, task.examples)[task.part :: PARTS]
    return check_cases(chapter, model, offered_laws(chapter, model), cases)


@dataclass(frozen=True)
class RealSize:
    """A case of real sizes for one implementation."""

    chapter: str
    implementation: str
    name: str

    def __str__(self) -> str:
        return f"implementation `{self.implementation}` in the chapter {self.chapter}, {self.name}"


def run_real(task: RealSize) -> list[Outcome]:
    """Checks one case of real sizes; called in a worker process, or in this one."""
    chapter, model = CHAPTERS[task.chapter], load_model(task.implementation)
    return check_cases(chapter, model, offered_laws(chapter, model), [chapter.real[task.name]()], task.name)


def look_at_real(
    chapter: str,
    implementations: list[str],
    *,
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Checks every law of a chapter on cases of the sizes that models and deployments have.

    Args:
        chapter: the name of a chapter.
        implementations: names of the form `module` or `module:attribute`. The reference model is not asked: its
            planner is written to be read, and takes more than two minutes for one of these cases.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the cases done and their total.

    Returns:
        One outcome for each implementation and law.
    """
    names = [name for name in implementations if name != Chapter.reference]
    outcomes = unobserved(chapter, names, workers)
    work = [RealSize(chapter, name, case) for case in CHAPTERS[chapter].real for name in names]
    gather(outcomes, workers, run_real, work, progress)
    return list(outcomes.values())


@dataclass(frozen=True)
class Shrinking:
    """A law that one implementation breaks."""

    chapter: str
    implementation: str
    invariant: str
    examples: int

    def __str__(self) -> str:
        return f"implementation `{self.implementation}` for a smaller counterexample to {self.invariant}"


def run_shrinking(task: Shrinking) -> CaseCounterexample | None:
    """Looks for the smallest counterexample; called in a worker process, or in this one."""
    chapter, model = CHAPTERS[task.chapter], load_model(task.implementation)
    return shrunk(chapter, model, chapter.laws[task.invariant], task.examples)


def sample(
    chapter: str,
    implementations: list[str],
    examples: int,
    *,
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Looks for counterexamples to every law of a chapter among random cases, and shrinks what it finds.

    Args:
        chapter: the name of a chapter.
        implementations: names of the form `module` or `module:attribute`.
        examples: how many cases each implementation is given.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the parts done and their total.

    Returns:
        One outcome for each implementation and law. The same arguments give the same cases, as long as the same modules
        are imported: hypothesis draws numbers that stand in them, too.
    """
    outcomes = unobserved(chapter, implementations, workers)
    work = [Sampling(chapter, name, examples, part) for name in implementations for part in range(PARTS)]
    gather(outcomes, workers, run_sampling, work, progress)
    broken = [Shrinking(chapter, *key, examples) for key, one in outcomes.items() if one.counterexample is not None]
    for task, smaller in workers.run_all(run_shrinking, broken):
        shrunk_one = Outcome(task.implementation, task.invariant, counterexample=smaller)
        outcomes[task.implementation, task.invariant].add(shrunk_one)
    return list(outcomes.values())


def shrunk(chapter: Chapter, model: Model, law: Law, examples: int) -> CaseCounterexample | None:
    """The smallest counterexample to a law that hypothesis comes to."""
    found: list[CaseCounterexample] = []

    def is_broken(case: Case) -> bool:
        broken = check_cases(chapter, model, [law], [case])[0].counterexample
        if broken is not None:
            found.append(broken)
        return broken is not None

    search(chapter, is_broken, max(examples, SHRINKING), (Phase.generate, Phase.shrink))
    return min(found, key=lambda one: one.size, default=None)


def search(chapter: Chapter, condition: Callable[[Case], bool], examples: int, phases: tuple[Phase, ...]) -> None:
    """Shows random cases to a condition, and smaller ones than the first that meets it."""
    options = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    try:
        find(chapter.drawn(), condition, settings=options)
    except (NoSuchExample, Flaky):
        # Of answers that are not the same when asked again, the condition has seen those that met it.
        return


def real_case(chapter: Chapter, name: str, values: dict[str, Any]) -> Case:
    """The case of real sizes that has this name.

    Raises:
        ValueError: there is none, or values are given beside it.
    """
    if values:
        raise ValueError(f"real=`{shown(str(name), 100)}` says the whole case, got {', '.join(values)} as well")
    if not isinstance(name, str) or name not in chapter.real:
        raise ValueError(f"real=`{shown(str(name), 100)}` is unknown, expected one of {'; '.join(chapter.real)}")
    return chapter.real[name]()


def evaluate_case(
    implementation: str, invariant: str, *, at: dict[str, int] | None = None, real: str | None = None, **values: Any
) -> bool:
    """Whether one law holds of one case.

    Args:
        implementation: a name of the form `module` or `module:attribute`, or `$ ` and the command of a program.
        invariant: the law's name.
        at: a value for each of the law's quantifiers; without it, every point is looked at.
        real: the name of a case of real sizes, instead of what it is made of.
        values: what the case is made of; a topology may be given as a dict of its arguments.

    Returns:
        False where the law is broken, or where the implementation raises.

    Raises:
        ValueError: an unknown name, a case that the definitions do not allow, a point that does not exist, or a program
            that breaks the protocol.
    """
    chapter, law = chapter_of(invariant)
    if real is None:
        case = chapter.case.of(**values)
        case.check()
    else:
        case = real_case(chapter, real, values)
    if at is not None and set(at) != set(law.quantifiers):
        raise ValueError(f"{invariant} is about {', '.join(law.quantifiers) or 'the case alone'}, got {', '.join(at)}")
    view = chapter.view(load_model(implementation), case)
    try:
        if at is None:
            return first_violation(law, view)[1] is None
        point = tuple(at[name] for name in law.quantifiers)
        if view.has_point(law.quantifiers, point):
            is_spoken_of = law.requires is None or law.requires(view, *point)
            return not is_spoken_of or bool(law.predicate(view, *point))
    except BrokenProgramError as error:
        # A program that breaks the protocol has not answered at all.
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False
    raise ValueError(f"there is no point {at} in this case")
