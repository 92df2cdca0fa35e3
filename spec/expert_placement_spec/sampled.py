"""Invariants beyond what can be exhausted: hypothesis up to the limits of E and R, and whole maps of some partitions.

SPEC.md, "How it is checked".
"""

from __future__ import annotations

import operator
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import log2
from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, NoSuchExample

from expert_placement_spec.exhaustive import Counterexample, Outcome, Scope, points_of, scope_of
from expert_placement_spec.exhaustive import Task as PartitionTask
from expert_placement_spec.exhaustive import run_task as run_partition_task
from expert_placement_spec.implementation import Implementation, load
from expert_placement_spec.invariants import INVARIANTS, Invariant
from expert_placement_spec.outcome import in_words
from expert_placement_spec.processes import HERE
from expert_placement_spec.reference import MAX, STRATEGIES
from expert_placement_spec.report import merged
from expert_placement_spec.reproduction import reproduced
from expert_placement_spec.single import One, can_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from expert_placement_spec.processes import Workers

COUNT = st.one_of(st.integers(0, MAX), st.integers(0, 300), st.integers(MAX - 300, MAX))


@dataclass(frozen=True)
class Point:
    """A partition and a value for each quantifier; or, with a message, one that does not answer."""

    num_experts: int
    num_ranks: int
    strategy: str
    values: Mapping[str, int]
    message: str = ""

    def __hash__(self) -> int:
        return hash((self.num_experts, self.num_ranks, self.strategy, tuple(self.values.items())))


@st.composite
def points(
    draw: st.DrawFn, implementation: Implementation, law: Invariant, strategies: Sequence[str], drawn: list[Point]
) -> Point | None:
    """A partition up to the limits and a value for each quantifier, or None where there is none.

    What is drawn, also where it is not drawn to the end, is the last of `drawn`.
    """
    num_experts, num_ranks = draw(COUNT), max(1, draw(COUNT))
    strategy = draw(st.sampled_from(strategies))
    values: dict[str, int] = {}
    drawn[:] = [Point(num_experts, num_ranks, strategy, values)]
    for name in law.quantifiers:
        extent = num_experts if name == "e" else num_ranks
        if name == "i":
            try:
                count = One(implementation, num_experts, num_ranks, strategy).count(values["r"])
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # Whatever i is, the count is asked for first.
                return Point(num_experts, num_ranks, strategy, {**values, name: 0}, in_words(error))
            extent = min(count, num_experts)
        if extent <= 0:
            return None
        near = st.integers(0, min(extent, 300) - 1)
        from_end = near.map(partial(operator.sub, extent - 1))
        values[name] = draw(st.one_of(st.integers(0, extent - 1), near, from_end))
    return drawn[0]


@dataclass(frozen=True)
class Task:
    """An invariant of one implementation."""

    implementation: str
    device: str
    invariant: str
    strategies: tuple[str, ...]
    examples: int

    def __str__(self) -> str:
        return f"implementation `{self.implementation}` by samples of {self.invariant}"


def run_task(task: Task) -> Outcome:
    """Samples one invariant; called in a worker process, or in this one."""
    implementation = load(task.implementation, task.device)
    with implementation.arrays.placed():
        return sample_one(implementation, INVARIANTS[task.invariant], task.strategies, task.examples)


def sample(
    implementations: list[str],
    examples: int,
    *,
    strategies: Sequence[str] = STRATEGIES,
    device: str = "cpu",
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Looks for a counterexample to every invariant of the rule among random partitions up to the limits.

    Args:
        implementations: names of the form `module:attribute`.
        examples: how many points each invariant is given.
        strategies: which strategies; an invariant that speaks of none of them is left out.
        device: where implementations with torch arrays are evaluated.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the invariants done and their total.

    Returns:
        One outcome for each implementation and invariant that can be sampled. The seed of the points is fixed.
    """
    laws = {law.name: chosen(strategies, law) for law in INVARIANTS.values() if can_sample(law)}
    work = [
        Task(name, device, law, among, examples) for name in implementations for law, among in laws.items() if among
    ]
    outcomes = {}
    with closing(workers.run_all(run_task, work)) as results:
        for task, outcome in results:
            outcomes[task] = outcome
            progress(len(outcomes), len(work))
    return [outcomes[task] for task in work]


MOST_EXPERTS, MOST_RANKS, MOST_PAIRS = 1 << 16, 1 << 11, 1 << 17
"""The largest partitions whose maps and tables are sampled, and the most pairs of rank and expert that one may have."""
WHOLE = (MOST_EXPERTS * 3 // 2 + 1, 1)
"""A partition whose local indices are more than 16 bits tell."""
MANY_RANKS = (WHOLE[0], WHOLE[0] - 1)
"""One whose ranks are, too; its experts are looked at, and not the maps of so many ranks."""
POINTS_A_PARTITION = 200
"""How many points are drawn for each partition whose maps and tables are sampled, all of them."""


def large_shapes(examples: int, beyond: int) -> list[tuple[int, int]]:
    """(E, R) of partitions for maps and tables: the same for the same arguments, larger ones as likely as small ones.

    Args:
        examples: how many points of the rule are sampled.
        beyond: what was looked at exhaustively; every partition has more experts, or more ranks.
    """
    chooser = Random(beyond)

    def drawn(least: int, most: int) -> int:
        return round(2 ** chooser.uniform(log2(least), log2(most)))

    shapes: list[tuple[int, int]] = []
    for number in range(-(-examples // POINTS_A_PARTITION)):
        # Every third has many ranks, where that is beyond what was looked at.
        if number % 3 == 2 and beyond < MOST_RANKS:
            ranks = drawn(beyond + 1, MOST_RANKS)
            shapes.append((drawn(1, MOST_PAIRS // ranks), ranks))
        elif beyond < MOST_EXPERTS:
            experts = drawn(beyond + 1, MOST_EXPERTS)
            shapes.append((experts, drawn(1, min(MOST_PAIRS // experts, MOST_RANKS))))
    return shapes


def sample_tables(
    implementations: list[str],
    examples: int,
    beyond: int,
    *,
    strategies: Sequence[str] = STRATEGIES,
    device: str = "cpu",
    workers: Workers = HERE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Checks the maps, tables and scalars of some large partitions, whole.

    Args:
        implementations: names of the form `module:attribute`.
        examples: how many points of the rule are sampled; for each 200 of them one partition is looked at.
        beyond: up to where maps and tables were looked at exhaustively.
        strategies: which strategies.
        device: where implementations with torch arrays are evaluated.
        workers: who shares the work; without other word it is done in this process.
        progress: called with the partitions done and their total.

    Returns:
        One outcome for each implementation and invariant that was looked at. The same arguments give the same
        partitions.
    """
    scopes: tuple[Scope, ...] = ("pairs", "tables", "alone")
    parts: list[tuple[tuple[int, int], Scope]]
    parts = [(shape, scope) for shape in large_shapes(examples, beyond) for scope in scopes]
    if examples and beyond < MOST_EXPERTS:
        parts += [(WHOLE, "pairs"), (WHOLE, "tables"), (MANY_RANKS, "experts")]
    work = [
        PartitionTask(name, device, strategy, [shape], scope, points_of(shape, scope))
        for name in implementations
        for shape, scope in parts
        for strategy in strategies
    ]
    found = [
        Outcome(name, law.name) for name in implementations for law in INVARIANTS.values() if scope_of(law) in scopes
    ]
    with closing(workers.run_all(run_partition_task, work)) as results:
        for done, (_, outcomes) in enumerate(results, 1):
            found += outcomes
            progress(done, len(work))
    outcomes = merged(found)
    broken = [outcome.counterexample for outcome in outcomes if outcome.counterexample is not None]
    again = dict(workers.run_all(reproduced, broken))
    for outcome in outcomes:
        if outcome.counterexample is not None:
            outcome.counterexample = again[outcome.counterexample]
    return [one for one in outcomes if one.cases or one.counterexample is not None]


def chosen(strategies: Sequence[str], law: Invariant) -> tuple[str, ...]:
    """Those of the strategies that the law speaks of."""
    return tuple(strategy for strategy in law.strategies if strategy in strategies)


def sample_one(implementation: Implementation, law: Invariant, strategies: tuple[str, ...], examples: int) -> Outcome:
    """Looks for the smallest counterexample to one invariant."""
    outcome = Outcome(implementation.name, law.name)

    silent: dict[Point, str] = {}
    drawn: list[Point] = []
    broken_at: list[Point] = []

    def is_broken(point: Point | None) -> bool:
        if point is None:
            return False
        broken = bool(point.message)
        if broken:
            silent[point] = point.message
        else:
            try:
                broken = not holds_at(implementation, law, point, outcome)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                silent[point], broken = in_words(error), True
        if broken:
            broken_at.append(point)
        return broken

    options = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    begin = time.perf_counter()
    try:
        found = find(points(implementation, law, chosen(strategies, law), drawn), is_broken, settings=options)
    except NoSuchExample:
        return outcome
    except Flaky:
        # Answers that are not the same when asked again are seen for what they are where one of them is evaluated.
        found = min(broken_at or drawn, key=lambda point: (point.num_experts + point.num_ranks, point.num_experts))
    finally:
        outcome.seconds = time.perf_counter() - begin
    if found is not None:
        # A partition that raises is shown as what it is, under the law that it was asked for.
        shape, values = (found.num_experts, found.num_ranks), tuple(found.values.items())
        broken = Counterexample(
            implementation.name, law.name, *shape, found.strategy, values, silent.get(found, ""), implementation.device
        )
        outcome.counterexample = reproduced(broken)
    return outcome


def holds_at(implementation: Implementation, law: Invariant, point: Point, outcome: Outcome) -> bool:
    """Whether the law holds at a point; where its premise does, the point counts as a case."""
    p = One(implementation, point.num_experts, point.num_ranks, point.strategy)
    arguments = tuple(point.values.values())
    if law.requires is not None and not law.requires(p, *arguments):
        return True
    outcome.cases += 1
    return bool(law.predicate(p, *arguments))
