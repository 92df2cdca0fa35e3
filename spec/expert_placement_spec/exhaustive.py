"""Every invariant over every partition of a domain, on several processes. SPEC.md, "How it is checked"."""

from __future__ import annotations

import gc
import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from expert_placement_spec.grid import Block, violations
from expert_placement_spec.implementation import NEEDS, Implementation, load
from expert_placement_spec.invariants import INVARIANTS, Invariant
from expert_placement_spec.outcome import Outcome as AnyOutcome
from expert_placement_spec.outcome import in_words
from expert_placement_spec.processes import HERE
from expert_placement_spec.reference import CONTIGUOUS, STRATEGIES
from expert_placement_spec.reproduction import reproduced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from expert_placement_spec.processes import Workers

TABLES = {"tables", "elementwise", "offsets"}
"""Subjects that are asked partition by partition."""
ALONE = {"scalars", "lists", "errors", "arguments", "shared", "fresh", "uniform", "defaults"}
"""Subjects that are asked id by id."""
BLOCK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Points of one block: what a core's cache, or a GPU's memory, takes well."""
GRID = {"cpu": 1 << 13, "cuda": 1 << 24}
"""From how many pairs of rank and expert on a partition is a block by itself, and its pairs a grid."""
TASK = 1 << 21
"""Points of one task at least: enough that handing it to another process costs little."""

Scope: TypeAlias = Literal["ranks", "experts", "pairs", "tables", "alone"]
SCOPES: tuple[Scope, ...] = ("ranks", "experts", "pairs", "tables", "alone")
"""What an invariant looks at: ranks, or experts, one at a time; pairs and maps; tables, partition by partition; and
answers that are asked for id by id."""
ORDER: dict[str, Callable[[tuple[int, int]], tuple[int, ...]]] = {
    "ranks": lambda shape: (shape[1], shape[0]),
    "experts": lambda shape: shape,
    "pairs": lambda shape: (sum(shape), *shape),
    "tables": lambda shape: (sum(shape), *shape),
    "alone": lambda shape: (sum(shape), *shape),
}
"""Partitions of equally many ranks, or experts, next to one another make grids; otherwise the smallest come first."""

LARGEST = 1 << 16
"""The most experts, or ranks, of a partition that is looked at exhaustively."""
MOST_PARTITIONS = 1 << 24
"""How many partitions a domain may have: beyond, a run would take days."""


@dataclass(frozen=True)
class Domain:
    """Which partitions are checked.

    The invariants of the rule over one rank or one expert at a time are evaluated over the whole domain; those over
    pairs, of whole maps, and of the tables of each partition up to `wide` experts and ranks; and those that need every
    id asked by itself up to `alone` (`wide` without other word).
    """

    experts: range
    ranks: range
    wide: int
    strategies: tuple[str, ...] = STRATEGIES
    alone: int | None = None

    def __post_init__(self) -> None:
        for name, numbers in (("experts", self.experts), ("ranks", self.ranks)):
            if numbers[-1] > LARGEST:
                raise ValueError(f"{name} go up to {numbers[-1]}, expected at most {LARGEST}: larger ones are sampled")
        number = len(self.experts) * len(self.ranks)
        if number > MOST_PARTITIONS:
            raise ValueError(f"experts and ranks make {number} partitions, expected at most {MOST_PARTITIONS}")

    def largest(self, scope: Scope) -> int | None:
        """The most experts and ranks that are looked at in a scope, or None where the domain says all."""
        if scope == "alone" and self.alone is not None:
            return self.alone
        return self.wide if scope in ("pairs", "tables", "alone") else None

    def shapes(self, scope: Scope) -> list[tuple[int, int]]:
        """All (E, R) of a scope, in the order in which the first counterexample of a block is its smallest."""
        largest = self.largest(scope)
        shapes = [
            (num_experts, num_ranks)
            for num_experts in self.experts
            for num_ranks in self.ranks
            if largest is None or max(num_experts, num_ranks) <= largest
        ]
        return sorted(shapes, key=ORDER[scope])


@dataclass(frozen=True)
class Counterexample:
    """A point at which an implementation breaks an invariant."""

    implementation: str
    invariant: str
    num_experts: int
    num_ranks: int
    strategy: str
    values: tuple[tuple[str, int], ...] = ()
    message: str = ""
    device: str = "cpu"
    together: tuple[tuple[int, int], ...] = ()
    """The partitions that were asked at once, where asking this one by itself does not show it."""

    @property
    def size(self) -> tuple[int, ...]:
        """By which the smallest is chosen."""
        shape = (self.num_experts + self.num_ranks, self.num_experts, STRATEGIES.index(self.strategy))
        return (*shape, *(value for _, value in self.values))

    def call(self) -> str:
        """An expression that evaluates the invariant at this point, to be pasted."""
        values = "".join(f", {name}={value}" for name, value in self.values)
        values += f', device="{self.device}"' if self.device != "cpu" else ""
        values += f", together={list(self.together)}" if self.together else ""
        return (
            f'expert_placement_spec.evaluate({json.dumps(self.implementation)}, "{self.invariant}", '
            f'num_experts={self.num_experts}, num_ranks={self.num_ranks}, strategy="{self.strategy}"{values})'
        )

    def __str__(self) -> str:
        return f"the counterexample {self.call()}"

    def point(self) -> dict[str, Any]:
        """The point as plain values, for JSON."""
        shape = {"num_experts": self.num_experts, "num_ranks": self.num_ranks, "strategy": self.strategy}
        asked = {"device": self.device, "together": list(self.together)}
        return shape | dict(self.values) | asked


Outcome: TypeAlias = AnyOutcome[Counterexample]
"""What came of one invariant for one implementation."""


@dataclass(frozen=True)
class Loading:
    """An implementation that is to be looked at for the first time."""

    implementation: str
    device: str

    def __str__(self) -> str:
        return f"implementation `{self.implementation}`, at its import or its first partition"


def missing_of(task: Loading) -> dict[str, tuple[str, ...]]:
    """The methods that an implementation lacks, by the subjects of invariants that need them.

    Raises:
        ValueError: an implementation that can not be had.
    """
    implementation = load(task.implementation, task.device)
    return {subject: implementation.missing(subject) for subject in NEEDS}


@dataclass(frozen=True)
class Task:
    """A part of the domain that one process checks at a time."""

    implementation: str
    device: str
    strategy: str
    shapes: list[tuple[int, int]] = field(repr=False)
    scope: Scope
    points: int

    def __str__(self) -> str:
        (experts, ranks), number = zip(*self.shapes, strict=True), len(self.shapes)
        spans = f"E in {min(experts)}..={max(experts)}, R in {min(ranks)}..={max(ranks)}"
        about = f"implementation `{self.implementation}`, strategy {self.strategy}, scope {self.scope}"
        return f"{about}, {spans} ({number} partition{'s' if number != 1 else ''})"


def scope_of(law: Invariant) -> Scope:
    """Which part of the domain the invariant is taken over."""
    if law.subject in TABLES:
        return "tables"
    if law.subject in ALONE:
        return "alone"
    is_of_pairs = law.subject in ("maps", "stacked") or {"r", "e"} <= set(law.quantifiers) or "s" in law.quantifiers
    if is_of_pairs:
        return "pairs"
    return "experts" if {"e", "i"} & set(law.quantifiers) else "ranks"


def laws_for(strategy: str, scope: Scope, subjects: set[str]) -> list[Invariant]:
    """The invariants of one strategy and scope, of subjects that can be observed."""
    return [
        law
        for law in INVARIANTS.values()
        if strategy in law.strategies and law.subject in subjects and scope_of(law) == scope
    ]


def points_of(shape: tuple[int, int], scope: Scope) -> int:
    """About how many points a partition has."""
    num_experts, num_ranks = shape
    return max(num_ranks, num_experts) * (num_ranks if scope in ("pairs", "alone") else 1) + 1


def blocks(shapes: list[tuple[int, int]], scope: Scope, kind: str) -> Iterator[list[tuple[int, int]]]:
    """The shapes of a task, cut into blocks. One of ranks has one R, and one of experts one E, to be a grid."""
    if scope == "ranks":
        families = [list(family) for _, family in groupby(shapes, itemgetter(1))]
    elif scope == "experts":
        families = [list(family) for _, family in groupby(shapes, itemgetter(0))]
    elif scope == "pairs":
        families = [[shape] for shape in shapes if points_of(shape, scope) >= GRID[kind]]
        families.append([shape for shape in shapes if points_of(shape, scope) < GRID[kind]])
    else:
        families = [shapes]
    for family in families:
        yield from parts(family, scope, BLOCK[kind])


def parts(shapes: list[tuple[int, int]], scope: Scope, limit: int) -> Iterator[list[tuple[int, int]]]:
    """The shapes in order, cut into parts of about `limit` points."""
    part: list[tuple[int, int]] = []
    points = 0
    for shape in shapes:
        part.append(shape)
        points += points_of(shape, scope)
        if points >= limit:
            yield part
            part, points = [], 0
    if part:
        yield part


def tasks(implementation: str, device: str, domain: Domain) -> Iterator[Task]:
    """The domain cut into parts that one process checks at a time."""
    limit = max(TASK, BLOCK[kind_of(device)])
    for scope in SCOPES:
        shapes = domain.shapes(scope)
        for strategy in domain.strategies:
            for part in parts(shapes, scope, limit):
                points = sum(points_of(shape, scope) for shape in part)
                yield Task(implementation, device, strategy, part, scope, points)


def kind_of(device: str) -> str:
    """Whether the work is done on the CPU or on something like CUDA."""
    return "cpu" if device == "cpu" else "cuda"


_loaded: dict[tuple[str, str], Implementation] = {}


def run_task(task: Task) -> list[Outcome]:
    """Checks one part; called in a worker process, or in this one."""
    key = (task.implementation, task.device)
    if key not in _loaded:
        _loaded[key] = load(*key)
    with _loaded[key].arrays.placed():
        return check_part(_loaded[key], task)


def check_part(implementation: Implementation, task: Task) -> list[Outcome]:
    """Evaluates every invariant of the task, block by block."""
    subjects = implementation.offered_subjects()
    laws = laws_for(task.strategy, task.scope, subjects)
    if task.scope == "ranks":
        # Growth, for which the rule needs another block, is a matter of ranks alone, and they need no expert's owner.
        needed = {"rule"}
    else:
        needed = {law.subject for law in laws} - {"rule"} | {"experts"}
        needed -= set() if task.strategy in CONTIGUOUS else {"offsets"}
    outcomes = {law.name: Outcome(task.implementation, law.name) for law in laws}
    # Hundreds of thousands of small arrays are alive at once, none of them in a cycle.
    gc.disable()
    try:
        for shapes in blocks(task.shapes, task.scope, kind_of(task.device)):
            block = answered_block(implementation, task.strategy, shapes, needed, outcomes)
            for law in laws if block.shapes else ():
                begin = time.perf_counter()
                example = partial(
                    Counterexample,
                    task.implementation,
                    law.name,
                    strategy=task.strategy,
                    device=task.device,
                    together=tuple(block.shapes),
                )
                try:
                    cases, values, place = violations(law, block)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    # What was answered is of no shape that the law can be read on.
                    broken = example(*block.shapes[0], message=in_words(error))
                    outcomes[law.name].add(Outcome(task.implementation, law.name, cases=1, counterexample=broken))
                    continue
                outcome = outcomes[law.name]
                outcome.cases += cases
                outcome.seconds += time.perf_counter() - begin
                if values is not None and place is not None:
                    broken = example(*block.shapes[place], values=tuple(values.items()))
                    outcome.add(Outcome(task.implementation, law.name, counterexample=broken))
    finally:
        gc.enable()
    return list(outcomes.values())


def answered_block(
    implementation: Implementation,
    strategy: str,
    shapes: list[tuple[int, int]],
    subjects: set[str],
    outcomes: dict[str, Outcome],
) -> Block:
    """The block of all partitions that answer every query; the first that does not is a counterexample."""
    block = Block(implementation, strategy, shapes, subjects)
    try:
        block.build()
    except KeyboardInterrupt:
        raise
    except BaseException:
        answering = []
        law = "answers_every_query"

        def refuse(shape: tuple[int, int], error: BaseException, asked: list[tuple[int, int]]) -> None:
            message, device = in_words(error), implementation.device
            broken = Counterexample(
                implementation.name, law, *shape, strategy, message=message, device=device, together=tuple(asked)
            )
            refused = Outcome(implementation.name, law, cases=1, counterexample=broken)
            outcomes.setdefault(law, Outcome(implementation.name, law)).add(refused)

        for shape in shapes:
            try:
                Block(implementation, strategy, [shape], subjects).build()
                answering.append(shape)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                silent = silent_shape(implementation, strategy, shape, subjects)
                refuse(silent, error, [silent])
        block = Block(implementation, strategy, answering, subjects)
        try:
            # Where nobody answers there is nothing to ask.
            if answering:
                block.build()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            refuse(answering[0], error, answering)
            block = Block(implementation, strategy, [], subjects)
    return block


def silent_shape(
    implementation: Implementation, strategy: str, shape: tuple[int, int], subjects: set[str]
) -> tuple[int, int]:
    """Which partition does not answer: this one, or the one with an expert more that it is compared with."""
    try:
        Block(implementation, strategy, [shape], subjects - {"rule"}).build()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return shape
    return shape[0] + 1, shape[1]


def check(
    implementations: list[str],
    domain: Domain,
    *,
    device: str = "cpu",
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Checks every invariant for every implementation over the domain.

    Args:
        implementations: names of the form `module:attribute`.
        domain: which partitions.
        device: where implementations with torch arrays are evaluated.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the points done and their total.

    Returns:
        One outcome for each implementation and invariant, in the order of the names. A counterexample says whether it
        shows where its partition is asked alone, and which others have to be asked with it where it does not.

    Raises:
        ValueError: an implementation that can not be had, or that ended the process that asked it.
    """
    loaded = dict(workers.run_all(missing_of, [Loading(name, device) for name in implementations]))
    outcomes = {}
    for one in (Loading(name, device) for name in implementations):
        for law in INVARIANTS.values():
            missing = loaded[one].get(law.subject, ())
            outcomes[one.implementation, law.name] = Outcome(one.implementation, law.name, missing=missing)
    work = [task for name in implementations for task in tasks(name, device, domain)]
    total, done = sum(task.points for task in work), 0
    with closing(workers.run_all(run_task, work)) as results:
        for task, found in results:
            for outcome in found:
                outcomes[outcome.implementation, outcome.invariant].add(outcome)
            done += task.points
            progress(done, total)
    broken = [outcome.counterexample for outcome in outcomes.values() if outcome.counterexample is not None]
    for example, again in workers.run_all(reproduced, broken):
        outcomes[example.implementation, example.invariant].counterexample = again
    return list(outcomes.values())
