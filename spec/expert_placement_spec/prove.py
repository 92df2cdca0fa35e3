"""Invariants as theorems about the reference model, for every E and R at once. SPEC.md, "How it is checked".

The predicates and the formulas are the ones that the tests run; only the numbers are terms of the solver z3. A floor
division a // b brings a fresh quotient and remainder with it, a == b * quotient + remainder and 0 <= remainder < b, so
that nothing but linear arithmetic and a few products is left. What the solver cannot decide counts as a failure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import z3

from expert_placement_spec import reference
from expert_placement_spec.formula_mutants import formula_mutants
from expert_placement_spec.invariants import INVARIANTS, Invariant
from expert_placement_spec.plain import Plain, first_broken, is_case, obeys, widest
from expert_placement_spec.reference import MAX

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 60

TYPES = "no_intermediate_out_of_range"
"""The law about types, whose E and R are within their limits."""

LEMMA = "any"
"""In the place of a strategy, of what the solver is told about numbers and proves first."""

SMALL = 8
"""The largest E, R and S among which a mutant is refuted, so that the counterexample can be looked at by itself."""


class Facts:
    """What is known of the fresh variables that divisions brought in, and every intermediate that was computed."""

    def __init__(self) -> None:
        self.intermediates: list[Any] = []
        self._divisions: dict[tuple[int, int], Division] = {}
        self._products: list[tuple[Any, Any]] = []
        self._reached: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    def divide(self, dividend: Any, divisor: Any) -> Division:
        """The floor division of two terms; the same one for the same operands."""
        key = (dividend.get_id(), divisor.get_id())
        if key not in self._divisions:
            number = len(self._divisions)
            fresh = z3.Int(f"quotient{number}"), z3.Int(f"remainder{number}")
            self._divisions[key] = Division(dividend, divisor, *fresh)
        return self._divisions[key]

    def multiply(self, left: Any, right: Any) -> Any:
        """The product of two terms."""
        self._products.append((left, right))
        return left * right

    def reached(self, result: Any, number: Any) -> Any:
        """The condition under which a number takes part in a result that chooses between branches.

        A quotient or remainder is an unknown of its own, so what it is computed from is looked for in its division.
        """
        key = (result.get_id(), number.get_id())
        if key not in self._reached:
            self._reached[key] = (result, number, self._looked_for(result, number))
        return self._reached[key][2]

    def _looked_for(self, result: Any, number: Any) -> Any:
        if result.eq(number):
            return z3.BoolVal(True)
        if z3.is_app_of(result, z3.Z3_OP_ITE):
            condition, then, otherwise = result.children()
            in_then = z3.And(condition, self.reached(then, number))
            in_otherwise = z3.And(z3.Not(condition), self.reached(otherwise, number))
            return z3.Or(self.reached(condition, number), in_then, in_otherwise)
        parts = result.children()
        for division in self._divisions.values():
            if result.eq(division.quotient) or result.eq(division.remainder):
                parts = [division.dividend, division.divisor]
        return z3.Or(*(self.reached(part, number) for part in parts)) if parts else z3.BoolVal(False)

    def constraints(self) -> list[Any]:
        """What defines each division, and the lemmas about pairs of divisions and of products that share an operand."""
        divisions = list(self._divisions.values())
        known = [division.definition() for division in divisions]
        for first, second in permutations(divisions, 2):
            if first.divisor.eq(second.divisor):
                known.append(neighbours(first, second))
        for (a, b), (c, d) in permutations(self._products, 2):
            for shared, one, other in ((a, b, d), (b, a, c)) if a.eq(c) or b.eq(d) else ():
                if shared.eq(c) or shared.eq(d):
                    known.append(distributes(shared, one, other))
        return known


@dataclass(frozen=True)
class Division:
    """A floor division by a divisor, with the unknowns that stand for its quotient and remainder."""

    dividend: Any
    divisor: Any
    quotient: Any
    remainder: Any

    def definition(self) -> Any:
        """Dividend == divisor * quotient + remainder and 0 <= remainder < divisor, for a positive divisor."""
        whole = self.dividend == self.divisor * self.quotient + self.remainder
        return z3.Implies(self.divisor > 0, z3.And(whole, self.remainder >= 0, self.remainder < self.divisor))


def neighbours(first: Division, second: Division) -> Any:
    """How two divisions by the same divisor differ where the second dividend is at most one divisor larger."""
    distance = second.dividend - first.dividend
    same = z3.And(second.quotient == first.quotient, second.remainder == first.remainder + distance)
    next_one = z3.And(
        second.quotient == first.quotient + 1, second.remainder == first.remainder + distance - first.divisor
    )
    return z3.Implies(z3.And(first.divisor > 0, distance >= 0, distance <= first.divisor), z3.Or(same, next_one))


def distributes(shared: Any, one: Any, other: Any) -> Any:
    """How two products with a shared factor differ where the other factors differ by one, or not at all."""
    equal = z3.Implies(one == other, shared * one == shared * other)
    return z3.And(equal, z3.Implies(one == other + 1, shared * one == shared * other + shared))


def prove_lemmas() -> list[Theorem]:
    """The statements that every proof may use, themselves proved from the definition of division alone."""
    x, y, divisor, one, other, shared = z3.Ints("x y divisor one other shared")
    first = Division(x, divisor, z3.Int("q"), z3.Int("m"))
    second = Division(y, divisor, z3.Int("u"), z3.Int("v"))
    given = [first.definition(), second.definition()]
    beyond = z3.Implies(z3.And(divisor > 0, x <= y), z3.Or(first.quotient == second.quotient, y - x <= divisor))
    claims = {
        "neighbouring_divisions": (given, neighbours(first, second), "of any two dividends", beyond),
        "neighbouring_products": (
            [],
            distributes(shared, one, other),
            "of unequal factors",
            shared * one == shared * other,
        ),
    }
    theorems = []
    for name, (known, claim, mutant, wrong) in claims.items():
        begin = time.perf_counter()
        answers = [ask([*known, z3.Not(statement)])[0] for statement in (claim, wrong)]
        result = {"unsat": "proved", "sat": "refuted"}.get(answers[0], "unknown")
        if result == "proved" and answers[1] != "sat":
            result = "no mutant"
        theorems.append(Theorem(name, LEMMA, result, time.perf_counter() - begin, mutant=mutant))
    return theorems


class Term:
    """An integer term, with Python's operators."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Any, facts: Facts) -> None:
        self.expression = expression
        self.facts = facts

    def _of(self, other: Any) -> Any:
        if isinstance(other, Term):
            return other.expression
        if isinstance(other, int) and not isinstance(other, bool):
            return z3.IntVal(other)
        raise TypeError(f"a term meets a `{type(other).__name__}`, expected a term or an int")

    def __bool__(self) -> bool:
        raise TypeError("a term has no truth value: write a predicate with &, |, negate, implies and choose")

    def _new(self, expression: Any) -> Term:
        self.facts.intermediates.append(expression)
        return Term(expression, self.facts)

    def __add__(self, other: Any) -> Term:
        return self._new(self.expression + self._of(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Term:
        return self._new(self.expression - self._of(other))

    def __rsub__(self, other: Any) -> Term:
        return self._new(self._of(other) - self.expression)

    def __mul__(self, other: Any) -> Term:
        return self._new(self.facts.multiply(self.expression, self._of(other)))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Term:
        return self._new(self.facts.divide(self.expression, self._of(other)).quotient)

    def __mod__(self, other: Any) -> Term:
        return self._new(self.facts.divide(self.expression, self._of(other)).remainder)

    def __lt__(self, other: Any) -> Proposition:
        return Proposition(self.expression < self._of(other), self.facts)

    def __le__(self, other: Any) -> Proposition:
        return Proposition(self.expression <= self._of(other), self.facts)

    def __gt__(self, other: Any) -> Proposition:
        return Proposition(self.expression > self._of(other), self.facts)

    def __ge__(self, other: Any) -> Proposition:
        return Proposition(self.expression >= self._of(other), self.facts)

    def __eq__(self, other: object) -> Any:
        return Proposition(self.expression == self._of(other), self.facts)

    def __ne__(self, other: object) -> Any:
        return Proposition(self.expression != self._of(other), self.facts)


class Proposition:
    """A truth value that is a term, with Python's operators."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Any, facts: Facts) -> None:
        self.expression = expression
        self.facts = facts

    def _of(self, other: Any) -> Any:
        if isinstance(other, Proposition):
            return other.expression
        if isinstance(other, bool):
            return z3.BoolVal(other)
        raise TypeError(f"a proposition meets a `{type(other).__name__}`, expected a proposition or a bool")

    def __bool__(self) -> bool:
        raise TypeError("a proposition has no truth value: write a predicate with &, |, negate, implies and choose")

    def __and__(self, other: Any) -> Proposition:
        return Proposition(z3.And(self.expression, self._of(other)), self.facts)

    __rand__ = __and__

    def __or__(self, other: Any) -> Proposition:
        return Proposition(z3.Or(self.expression, self._of(other)), self.facts)

    __ror__ = __or__

    def __invert__(self) -> Proposition:
        return Proposition(z3.Not(self.expression), self.facts)

    def __eq__(self, other: object) -> Any:
        return Proposition(self.expression == self._of(other), self.facts)

    def choose(self, then: Any, otherwise: Any) -> Any:
        """`then` where this is true, `otherwise` elsewhere."""
        for_bool = isinstance(then, (Proposition, bool)) and isinstance(otherwise, (Proposition, bool))
        kind: Any = Proposition if for_bool else Term
        example: Any = kind(None, self.facts)
        return kind(z3.If(self.expression, example._of(then), example._of(otherwise)), self.facts)


@dataclass
class Lemma:
    """A further statement that a theorem rests on, proved beside it."""

    name: str
    premise: Any
    conclusion: Any


class Symbolic:
    """The view of every partition at once: E, R and the quantifiers are unknowns.

    Args:
        strategy: the strategy.
        model: the module with the formulas; the reference model, or a mutant of it.
        most: the largest E, R and S, where they are kept within limits, as only the claims about types need.
    """

    def __init__(
        self, strategy: str, model: Any = reference, *, most: int | None = None, grown_of: Symbolic | None = None
    ) -> None:
        self.strategy = strategy
        self.model = model
        self.facts: Facts = grown_of.facts if grown_of else Facts()
        self.num_experts: Any = grown_of.num_experts + 1 if grown_of else Term(z3.Int("E"), self.facts)
        self.num_ranks: Any = grown_of.num_ranks if grown_of else Term(z3.Int("R"), self.facts)
        self.num_shared_experts: Any = grown_of.num_shared_experts if grown_of else Term(z3.Int("S"), self.facts)
        self.stride: Any = self.num_ranks if strategy == "round_robin" else Term(z3.IntVal(1), self.facts)
        self.lemmas: list[Lemma] = []
        self.domain = [self.num_experts.expression >= 0, self.num_ranks.expression >= 1]
        self.domain.append(self.num_shared_experts.expression >= 0)
        if most is not None:
            numbers = (self.num_experts, self.num_ranks, self.num_shared_experts)
            self.domain += [number.expression <= most for number in numbers]

    def quantify(self, name: str) -> Term:
        """An unknown value of a quantifier, within its range."""
        value = Term(z3.Int(name), self.facts)
        if name == "i":
            end = self.count(Term(z3.Int("r"), self.facts))
        elif name == "h":
            end = self.num_shared_experts
        else:
            end = self.num_experts if name == "e" else self.num_ranks
        self.domain += [value.expression >= 0, value.expression < end.expression]
        return value

    def count(self, rank: Any) -> Any:
        """The count of a rank."""
        return self.model.count(self.num_experts, self.num_ranks, rank, self.strategy)

    def start(self, rank: Any) -> Any:
        """The start of a rank."""
        return self.model.start(self.num_experts, self.num_ranks, rank, self.strategy)

    def owner(self, expert: Any) -> Any:
        """The owner of an expert."""
        return self.model.owner(self.num_experts, self.num_ranks, expert, self.strategy)

    def local_index(self, expert: Any) -> Any:
        """The local index of an expert."""
        return self.model.local_index(self.num_experts, self.num_ranks, expert, self.strategy)

    def grown(self) -> Symbolic:
        """The partition of E + 1 experts."""
        return Symbolic(self.strategy, self.model, grown_of=self)

    def sum_of_counts(self) -> Any:
        """The sum over all ranks: `before` at R, proved to be that sum by induction over the ranks."""
        shape = (self.num_experts, self.num_ranks)
        rank = Term(z3.Int("k"), self.facts)
        within = (rank >= 0) & (rank < self.num_ranks)
        nothing = self.model.before(*shape, Term(z3.IntVal(0), self.facts), self.strategy) == 0
        step = self.model.before(*shape, rank + 1, self.strategy) == (
            self.model.before(*shape, rank, self.strategy) + self.count(rank)
        )
        self.lemmas.append(Lemma("the sum over no rank is 0", z3.BoolVal(True), nothing.expression))
        self.lemmas.append(Lemma("each rank adds its count", within.expression, step.expression))
        return self.model.before(*shape, self.num_ranks, self.strategy)

    def index_map(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map."""
        return self._entry("index_map", rank, position)

    def index_map_with_shared(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with shared experts."""
        return self._entry("index_map_with_shared", rank, position)

    def index_map_with_sentinel(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's index map with a sentinel."""
        return self._entry("index_map_with_sentinel", rank, position)

    def mask(self, rank: Any, position: Any) -> Any:
        """An entry of the rank's mask."""
        return self._entry("mask", rank, position)

    def _entry(self, representation: str, rank: Any, position: Any) -> Any:
        shape = (self.num_experts, self.num_ranks, self.num_shared_experts, rank)
        return self.model.map_entry(representation, *shape, position, self.strategy)

    def intermediates_in_range(self, rank: Any, expert: Any) -> Proposition:
        """Whether each number computed on the way to any answer is at least 0 and within its type."""
        wide = widest(self.strategy)
        claims = self._bounds(self.count, rank, wide) + self._bounds(self.start, rank, wide)
        claims += self._bounds(self.owner, expert, wide) + self._bounds(self.local_index, expert, wide)
        return Proposition(z3.And(*claims), self.facts)

    def _bounds(self, query: Callable[[Any], Any], identifier: Any, wide: int) -> list[Any]:
        before = len(self.facts.intermediates)
        result = query(identifier).expression
        computed = self.facts.intermediates[before:]
        # A branch that is not taken may compute nonsense, as the reference's formulas evaluate both; what is taken
        # is part of the result, so a branch's numbers are claimed under the conditions that lead to it.
        return [z3.And(result >= 0, result <= MAX)] + [
            z3.Implies(self.facts.reached(result, number), z3.And(number >= 0, number <= wide)) for number in computed
        ]


@dataclass
class Theorem:
    """What came of one invariant for one strategy."""

    invariant: str
    strategy: str
    result: str
    """`proved`, `refuted`, `unknown`, `unsatisfiable premise` or `no mutant`."""
    seconds: float
    counterexample: dict[str, int] = field(default_factory=dict)
    mutant: str = ""
    """The mutant of the formulas for which the same statement is refuted."""


def prove(law: Invariant, strategy: str, model: Any = reference, *, most: int | None = None) -> Theorem:
    """Asks the solver for a counterexample among all E and R, after asking for a point that meets the premise.

    Args:
        law: the invariant.
        strategy: the strategy.
        model: the module with the formulas; the reference model, or a mutant of it.
        most: the largest E, R and S; none without other word, or their limit for the law about types.
    """
    begin = time.perf_counter()
    p = Symbolic(strategy, model, most=MAX if most is None and law.name == TYPES else most)
    values = [p.quantify(name) for name in law.quantifiers]
    premise = [] if law.requires is None else [law.requires(p, *values).expression]
    claim = law.predicate(p, *values).expression
    known = p.domain + premise
    result, example = "proved", {}
    satisfiable = ask(known + p.facts.constraints())[0]
    if satisfiable != "sat":
        result = "unsatisfiable premise" if satisfiable == "unsat" else "unknown"
    else:
        questions = [(known, claim)] + [([*p.domain, lemma.premise], lemma.conclusion) for lemma in p.lemmas]
        for premises, conclusion in questions:
            answer, solution = ask([*premises, *p.facts.constraints(), z3.Not(conclusion)])
            if answer != "unsat":
                result = "refuted" if answer == "sat" else "unknown"
                example = {str(name): solution[name].as_long() for name in solution} if solution is not None else {}
                break
    example = {name: value for name, value in example.items() if len(name) == 1}
    return Theorem(law.name, strategy, result, time.perf_counter() - begin, example)


def ask(assertions: list[Any]) -> tuple[str, Any]:
    """The solver's word, `sat`, `unsat` or `unknown`, and the solution where there is one."""
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_SECONDS * 1000)
    solver.add(*assertions)
    answer = solver.check()
    return str(answer), solver.model() if answer == z3.sat else None


def work() -> list[tuple[Invariant, str]]:
    """Every provable invariant with every strategy that it holds for."""
    return [(law, strategy) for law in INVARIANTS.values() if law.is_provable for strategy in law.strategies]


def prove_paired(task: tuple[str, str]) -> Theorem:
    """One invariant for one strategy, with a mutant that the solver refutes.

    Args:
        task: the invariant's name and the strategy.
    """
    law = INVARIANTS[task[0]]
    return paired(prove(law, task[1]), law)


def paired(theorem: Theorem, law: Invariant) -> Theorem:
    """The theorem with the first mutant of the formulas that the solver refutes it for.

    A counterexample counts where it is one without the solver, too. A proved theorem without a mutant is none.
    """
    if theorem.result != "proved":
        return theorem
    begin = time.perf_counter()
    mutants = (one for one in formula_mutants() if one.is_formula)
    mutant = next((one for one in mutants if refutes(law, theorem.strategy, one.model)), None)
    seconds = theorem.seconds + time.perf_counter() - begin
    if mutant is None:
        return replace(theorem, result="no mutant", seconds=seconds)
    return replace(theorem, mutant=mutant.name, seconds=seconds)


def refutes(law: Invariant, strategy: str, model: Any) -> dict[str, int] | None:
    """A counterexample to a law for a broken model, by the solver and confirmed in plain ints, or None."""
    if first_broken(law, strategy, model) is None:
        return None
    theorem = prove(law, strategy, model, most=SMALL)
    if theorem.result != "refuted":
        return None
    example = {name: theorem.counterexample.get(name, 0) for name in ("E", "R", "S", *law.quantifiers)}
    known = Plain(example["E"], example["R"], example["S"], strategy)
    real = is_case(law, known, example) and not obeys(
        law, Plain(example["E"], example["R"], example["S"], strategy, model), example
    )
    return example if real else None


def same_formulas(model: Any, strategy: str) -> str:
    """Whether a model's formulas give what the reference's do for all E, R and ids: `proved`, `refuted`, `unknown`."""
    for name, query in QUESTIONS.items():
        p = Symbolic(strategy)
        within, end = Term(z3.Int("k"), p.facts), query.end(p)
        theirs, ours = (query.ask(getattr(one, name), p, within) for one in (model, reference))
        domain = [*p.domain, within.expression >= 0, within.expression < end.expression]
        rank = Term(z3.Int("r"), p.facts)
        domain += [rank.expression >= 0, rank.expression < p.num_ranks.expression]
        for their, our in zip(theirs, ours, strict=True):
            answer, _ = ask([*domain, *p.facts.constraints(), z3.Not((our == their).expression)])
            if answer != "unsat":
                return {"sat": "refuted"}.get(answer, "unknown")
    return "proved"


@dataclass(frozen=True)
class Question:
    """How a formula is asked in every way that it can be, of ids below an end."""

    end: Callable[[Symbolic], Any]
    ask: Callable[[Any, Symbolic, Any], list[Any]]


def of_one(formula: Any, p: Symbolic, identifier: Any) -> list[Any]:
    """The answer for one rank or expert."""
    return [Term(z3.IntVal(0), p.facts) + formula(p.num_experts, p.num_ranks, identifier, p.strategy)]


def of_maps(formula: Any, p: Symbolic, position: Any) -> list[Any]:
    """The entries of a rank's four maps at a position."""
    shape = (p.num_experts, p.num_ranks, p.num_shared_experts, Term(z3.Int("r"), p.facts))
    longer = {"index_map": p.num_experts, "index_map_with_shared": p.num_experts + p.num_shared_experts}
    longer |= {"index_map_with_sentinel": p.num_experts + 1, "mask": p.num_experts + p.num_shared_experts + 1}
    return [(position < longer[name]).choose(formula(name, *shape, position, p.strategy), 0) for name in reference.MAPS]


QUESTIONS = {
    "count": Question(lambda p: p.num_ranks, of_one),
    "start": Question(lambda p: p.num_ranks, of_one),
    "owner": Question(lambda p: p.num_experts, of_one),
    "local_index": Question(lambda p: p.num_experts, of_one),
    "before": Question(lambda p: p.num_ranks + 1, of_one),
    "map_entry": Question(lambda p: p.num_experts + p.num_shared_experts + 1, of_maps),
}
"""The formulas, each asked within its domain."""
