"""Makes Link.v: theorems by evaluation that Coq's definitions give what the reference model gives.

The tables hold answers of the reference model, and nothing else; Coq evaluates its own definitions for the same
arguments and lists the rows that differ. The theorem is that there are none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

from expert_placement_spec import reference
from expert_placement_spec.balance import replication
from expert_placement_spec.migration import batches
from expert_placement_spec.reference import MAPS, MAX, STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXPERTS = range(25)
RANKS = range(1, 13)
"""Every E and R of these, every rank and every expert."""

EDGES = (0, 1, 2, 255, 2**16, 2**30 + 1, MAX - 1, MAX)
"""Every pair of these as E and R, with ranks and experts at both ends and in the middle."""

MAP_EXPERTS, MAP_RANKS, MAP_SHARED = range(6), range(1, 4), range(3)
"""Every map of partitions of these sizes, in all four representations."""

LOADS, ROOMS = range(4), range(3)
"""Loads and rooms of all layers of up to three experts on up to three ranks."""

NUM_RANDOM = 200
"""How many larger layers, and how many larger sets of transfers, are drawn; always the same ones."""

CHUNK = 20
"""How many rows a definition has; Coq reads many short lists faster than a long one."""


@dataclass(frozen=True)
class Model:
    """The functions that are compared with Coq's; the reference model's without other word."""

    partition: Any = reference
    replication: Any = replication
    batches: Any = batches


@dataclass(frozen=True)
class Table:
    """Rows of arguments and answers, and how Coq compares its own answers with them."""

    theorem: str
    statement: str
    strategies: tuple[str, ...]
    row: str
    """The type of a row."""
    pattern: str
    """The parts of a row."""
    agrees: str
    """Whether Coq's definitions give what the row says."""
    rows: list[tuple[Any, ...]]


PRELUDE = """(** Made by spec/proofs/link.py from the reference model whenever the proofs are checked. *)

From Coq Require Import ZArith List Bool.
From ExpertPlacement Require Import Rule Replication Batches.
Import ListNotations.
Open Scope Z_scope.

Fixpoint same (left right : list Z) : bool :=
  match left, right with
  | [], [] => true
  | x :: xs, y :: ys => (x =? y) && same xs ys
  | _, _ => false
  end.

Definition integers (numbers : list nat) : list Z := map Z.of_nat numbers.
Definition transfers (ends : list (Z * Z)) : list transfer :=
  map (fun p => Transfer (Z.to_nat (fst p)) (Z.to_nat (snd p))) ends.
"""


class Name(str):
    """A name of Coq's, which stands as it is."""


def written(value: Any) -> str:
    """A value as Coq reads it."""
    if isinstance(value, Name):
        return str(value)
    if value is None:
        return "None"
    if isinstance(value, list):
        return f"[{'; '.join(map(written, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))})"
    if type(value) is not int:
        raise TypeError(f"value=`{value!r}` is of no type that Coq is given, expected an int, a list, a tuple or None")
    return str(value) if value >= 0 else f"({value})"


def partition_rows(model: Any) -> Iterator[tuple[Any, ...]]:
    """Every count and start, every owner and local index of small partitions."""
    for strategy, num_experts, num_ranks in product(STRATEGIES, EXPERTS, RANKS):
        ranks, experts = answers(model, strategy, num_experts, num_ranks, range(num_ranks), range(num_experts))
        columns = [[each[column] for each in part] for part in (ranks, experts) for column in (1, 2)]
        yield (Name(strategy), num_experts, num_ranks, *columns)


def edge_rows(model: Any) -> Iterator[tuple[Any, ...]]:
    """Some ranks and experts of large partitions."""
    for strategy, num_experts, num_ranks in product(STRATEGIES, EDGES, EDGES):
        if num_ranks >= 1:
            some = some_of(num_ranks), some_of(num_experts)
            yield (Name(strategy), num_experts, num_ranks, *answers(model, strategy, num_experts, num_ranks, *some))


def answers(
    model: Any, strategy: str, num_experts: int, num_ranks: int, ranks: Iterable[int], experts: Iterable[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Each of the ranks with its count and start, and each of the experts with its owner and local index."""
    shape = (num_experts, num_ranks)
    of_ranks = [(r, int(model.count(*shape, r, strategy)), int(model.start(*shape, r, strategy))) for r in ranks]
    of_experts = [
        (e, int(model.owner(*shape, e, strategy)), int(model.local_index(*shape, e, strategy))) for e in experts
    ]
    return of_ranks, of_experts


def some_of(number: int) -> list[int]:
    """Some of the numbers below one: two at each end, and two in the middle."""
    chosen = {first + step for first in (0, number // 2, number - 2) for step in range(2)}
    return sorted(each for each in chosen if 0 <= each < number)


def map_rows(model: Any) -> Iterator[tuple[Any, ...]]:
    """Every map of small partitions."""
    for name, strategy, *shape in product(MAPS, STRATEGIES, MAP_EXPERTS, MAP_RANKS, MAP_SHARED):
        num_experts, num_ranks, num_shared = shape
        for rank in range(num_ranks):
            length = model.map_length(name, num_experts, num_shared)
            entries = [int(model.map_entry(name, *shape, rank, position, strategy)) for position in range(length)]
            yield (Name(name), Name(strategy), num_experts, num_ranks, num_shared, rank, entries)


def replication_rows(model: Any) -> Iterator[tuple[Any, ...]]:
    """The replicas of small layers, and of some larger ones; none where experts are more than slots."""
    for num_experts, num_ranks in product(range(1, 4), range(1, 4)):
        for loads in product(LOADS, repeat=num_experts):
            for rooms in combinations_with_replacement(ROOMS, num_ranks):
                yield list(loads), list(rooms), replicas(model, list(loads), list(rooms))
    draw = random.Random(0)
    for _ in range(NUM_RANDOM):
        drawn = [draw.choice((0, 1, draw.randrange(100), draw.randrange(10**6))) for _ in range(draw.randint(4, 8))]
        rooms_drawn = [draw.randrange(8) for _ in range(draw.randint(2, 6))]
        yield drawn, rooms_drawn, replicas(model, drawn, rooms_drawn)


def replicas(model: Any, loads: list[int], rooms: list[int]) -> list[int]:
    """The numbers of replicas; no numbers where the model refuses. No layer here is without experts."""
    try:
        counts: list[int] = model.replica_counts([float(load) for load in loads], rooms)
    except ValueError:
        return []
    return counts


def batch_rows(model: Any) -> Iterator[tuple[Any, ...]]:
    """The batches of every choice of up to three transfers among three ranks, and of some larger ones."""
    pairs = list(product(range(3), repeat=2))
    chosen = [list(each) for number in range(4) for each in product(pairs, repeat=number)]
    draw = random.Random(0)
    for _ in range(NUM_RANDOM):
        num_ranks = draw.randint(3, 6)
        number = draw.randint(4, 20)
        chosen.append([(draw.randrange(num_ranks), draw.randrange(num_ranks)) for _ in range(number)])
    for transfers in chosen:
        yield transfers, model.fewest_batches(transfers), model.colour(transfers)


def tables(model: Model) -> list[Table]:
    """Everything that is compared."""
    return [
        Table(
            "formulas_are_those_of_the_model",
            "Count, start, owner and local index are those of the reference model, for every rank and expert where "
            f"E is up to {EXPERTS[-1]} and R up to {RANKS[-1]}.",
            STRATEGIES,
            "(strategy * Z * Z * list Z * list Z * list Z * list Z)%type",
            "(s, E, R, counts, starts, owners, local_indices)",
            "same (map (fun r => count E R r s) (numbers R)) counts &&\n"
            "  same (map (fun r => start E R r s) (numbers R)) starts &&\n"
            "  same (map (fun e => owner E R e s) (numbers E)) owners &&\n"
            "  same (map (fun e => local_index E R e s) (numbers E)) local_indices",
            list(partition_rows(model.partition)),
        ),
        Table(
            "formulas_are_those_of_the_model_at_the_edges",
            "Count, start, owner and local index are those of the reference model, for ranks and experts at both ends "
            f"and in the middle where E and R are any of {', '.join(map(str, EDGES))}.",
            STRATEGIES,
            "(strategy * Z * Z * list (Z * Z * Z) * list (Z * Z * Z))%type",
            "(s, E, R, ranks, experts)",
            "forallb (fun x => let '(r, c, f) := x in (count E R r s =? c) && (start E R r s =? f)) ranks &&\n"
            "  forallb (fun x => let '(e, r, i) := x in (owner E R e s =? r) && (local_index E R e s =? i)) experts",
            list(edge_rows(model.partition)),
        ),
        Table(
            "maps_are_those_of_the_model",
            "All four representations are those of the reference model, for every rank where E is up to "
            f"{MAP_EXPERTS[-1]}, R up to {MAP_RANKS[-1]} and S up to {MAP_SHARED[-1]}.",
            STRATEGIES,
            "(representation * strategy * Z * Z * Z * Z * list Z)%type",
            "(m, s, E, R, shared, r, entries)",
            "same (map (fun p => map_entry m E R shared r p s) (numbers (map_length m E shared))) entries",
            list(map_rows(model.partition)),
        ),
        Table(
            "replication_is_that_of_the_model",
            "The replicas are those of the reference model, for every layer of up to three experts of integer loads "
            f"up to {LOADS[-1]} on up to three ranks of up to {ROOMS[-1]} slots, and for {NUM_RANDOM} larger ones.",
            (),
            "(list Z * list Z * list Z)%type",
            "(loads, rooms, counts)",
            "match replica_counts loads rooms with Some found => same found counts | None => same [] counts end",
            list(replication_rows(model.replication)),
        ),
        Table(
            "batches_are_those_of_the_model",
            "The number of batches and the batch of each transfer are those of the reference model, for every choice "
            f"of up to three transfers among three ranks, and for {NUM_RANDOM} of up to twenty among up to six.",
            (),
            "(list (Z * Z) * Z * list Z)%type",
            "(ends, number, found)",
            "(Z.of_nat (fewest_batches (transfers ends)) =? number) && same (integers (colour (transfers ends))) found",
            list(batch_rows(model.batches)),
        ),
    ]


def written_tables(made: list[Table]) -> str:
    """The text of Link.v for these tables."""
    text = [PRELUDE]
    for table in made:
        text.append(f"Definition {table.theorem}_row (row : {table.row}) : bool :=")
        text.append(f"  let '{table.pattern} := row in\n  {table.agrees}.\n")
        names = []
        for first in range(0, len(table.rows), CHUNK):
            names.append(f"{table.theorem}_{first // CHUNK}")
            rows = ";\n  ".join(map(written, table.rows[first : first + CHUNK]))
            text.append(f"Definition {names[-1]} : list {table.row} := [\n  {rows}].\n")
        text.append(f"(** {table.statement} *)")
        text.append(f"Theorem {table.theorem} :")
        text.append(f"  filter (fun row => negb ({table.theorem}_row row)) (concat [{'; '.join(names)}]) = [].")
        text.append("Proof. vm_compute. reflexivity. Qed.\n")
    return "\n".join(text)
