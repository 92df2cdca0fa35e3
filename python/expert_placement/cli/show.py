"""`expert-placement show`: a partition, and the load that its ranks carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import typer

from expert_placement import MAX_NUM_EXPERTS, STRATEGIES, Partition
from expert_placement.cli import options
from expert_placement.cli.errors import Refused, refusing
from expert_placement.cli.output import Paper, write_json
from expert_placement.cli.rules import OLD_RULE, OldRule, Row, every_strategy, rows
from expert_placement.cli.words import MAX_ROWS, many
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from expert_placement import Strategy
    from expert_placement.cli.loads import LoadTable, RankLoads
    from expert_placement.cli.rules import Rule

    _Amount = Callable[[float], str]

__all__ = ["HELP", "Request", "command", "show"]

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "Which rank owns which experts, and what load each rank carries.",
        "Loads are a table \\[layers]\\[experts] in a regular file, not a pipe: JSON, alone or in an object as "
        "`counts`, `counts_total`, `expert_popularity` or `logical_count`, or an array that numpy or torch saved. "
        "Balancedness is the sum over layers of the mean rank load, divided by the sum over layers of the largest rank "
        "load: 1 where all ranks carry the same.",
        "[bold]Examples[/bold]",
        "  expert-placement show --experts 30 --ranks 8",
        "  expert-placement show --config config.json --ranks 8 --rank 3",
        "  expert-placement show --ranks 6 --loads counts.json --compare",
        "  expert-placement show --experts 30 --ranks 8 --json | jq .counts",
    )
)

# Index maps for people are shortened above this many entries.
_MAX_ENTRIES = 2048
# Experts of a rank, written out one by one up to this many.
_MAX_IDS = 8


def _complete_strategy(incomplete: str) -> list[str]:
    return [strategy for strategy in STRATEGIES if strategy.startswith(incomplete)]


def command(
    ranks: int = typer.Option(..., "--ranks", help="Number of ranks, R.", metavar="R"),
    experts: int | None = typer.Option(None, "--experts", help="Number of routed experts of a layer, E.", metavar="E"),
    config: str | None = typer.Option(
        None, "--config", help="A model's config.json, or its directory, in place of --experts.", metavar="FILE"
    ),
    strategy: str = typer.Option(
        STRATEGIES[0],
        "--strategy",
        help=f"How experts are dealt to ranks: {', '.join(STRATEGIES)}.",
        metavar="NAME",
        autocompletion=_complete_strategy,
    ),
    loads: str | None = typer.Option(
        None, "--loads", help="Recorded loads, for the load of each rank by each strategy.", metavar="FILE"
    ),
    layer: int | None = typer.Option(
        None, "--layer", help="One row of the loads, from 0. Without it: all layers.", metavar="INDEX"
    ),
    rank: int | None = typer.Option(None, "--rank", help="Show this rank's experts and its index map.", metavar="RANK"),
    compare: bool = typer.Option(
        False, "--compare", help="Every strategy beside the old rule, which left the rest to the last rank.", metavar=""
    ),
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement show`."""
    request = Request(
        num_ranks=ranks,
        num_experts=experts,
        config=config,
        strategy=strategy,
        loads=loads,
        layer=layer,
        rank=rank,
        compare=compare,
    )
    show(request, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for, as given."""

    num_ranks: int
    num_experts: int | None = None
    config: str | None = None
    strategy: str = "linear"
    loads: str | None = None
    layer: int | None = None
    rank: int | None = None
    compare: bool = False


@dataclass(frozen=True, slots=True)
class _View:
    """What the user asked for, read and checked."""

    partition: Partition
    table: LoadTable | None
    layers: tuple[int, ...]
    rules: dict[str, Rule]
    loads: dict[str, RankLoads]
    rank: int | None
    compare: bool


def show(request: Request, *, as_json: bool = False) -> None:
    """Writes what was asked for to standard output.

    Raises:
        Refused: an argument or a file that can not be used.
    """
    view = _view(request)
    if as_json:
        write_json(_fields(view))
    else:
        _write(view, Paper())


# --- from a request to what is known ----------------------------------------------------------------------------------


def _view(request: Request) -> _View:
    if request.num_experts is not None and request.config is not None:
        raise Refused("both --experts and --config are given, expected one of them")
    if request.layer is not None and request.loads is None:
        raise Refused("--layer picks a row of --loads, which is not given")
    num_experts, source = request.num_experts, "as --experts says"
    if request.config is not None:
        from expert_placement.model_config import read_model_config

        with refusing():
            model = read_model_config(request.config)
        num_experts, source = model.num_experts, f"as `{model.experts_key}` of `{printable(request.config)}` says"
    if num_experts is None and request.loads is None:
        raise Refused("the number of experts is not known, expected --experts, --config or --loads")

    def partition(num_experts: int) -> Partition:
        # The strategy is checked by the call, which lists the names that it knows.
        strategy = cast("Strategy", request.strategy)
        with refusing():
            return Partition(num_experts, request.num_ranks, strategy)

    if num_experts is not None:
        partition(num_experts)  # A count out of range is named before a file is read.
    table = None
    if request.loads is not None:
        from expert_placement.cli.loads import read_loads

        table = read_loads(request.loads, num_experts=num_experts, source=source)
        num_experts = table.num_experts
    chosen = partition(num_experts or 0)
    if request.rank is not None:
        with refusing():
            chosen.count(request.rank)
    layers = _layers(table, request.layer)
    rules = every_strategy(chosen.num_experts, chosen.num_ranks)
    if request.compare:
        rules[OLD_RULE] = OldRule(chosen.num_experts, chosen.num_ranks)
    loads = {}
    if table is not None:
        from expert_placement.cli.loads import rank_loads

        loads = {name: rank_loads(rule, table.loads[list(layers)]) for name, rule in rules.items()}
    return _View(chosen, table, layers, rules, loads, request.rank, request.compare)


def _layers(table: LoadTable | None, layer: int | None) -> tuple[int, ...]:
    """The rows of the table that are looked at."""
    if table is None:
        return ()
    if layer is None:
        return tuple(range(table.num_layers))
    if not 0 <= layer < table.num_layers:
        raise Refused(f"layer={layer} is out of range, expected 0..{table.num_layers}, the rows of {table.name}")
    return (layer,)


# --- for programs -----------------------------------------------------------------------------------------------------


def _fields(view: _View) -> dict[str, object]:
    """The fields of the JSON object, under the names of the Python API where it has one."""
    p = view.partition
    fields: dict[str, object] = {
        "num_experts": p.num_experts,
        "num_ranks": p.num_ranks,
        "strategy": p.strategy,
        "is_uniform": p.is_uniform,
        "min_redundant_experts": p.min_redundant_experts,
        "nearest_legal_ranks": p.nearest_legal_ranks,
        # Without experts every rank count is legal.
        "legal_ranks": Partition.legal_ranks(p.num_experts) if p.num_experts else None,
        "counts": map(p.count, range(p.num_ranks)),
        "starts": map(p.start, range(p.num_ranks)),
        "ranks": (
            {"rank": rank, "count": p.count(rank), "start": p.start(rank), "experts": _listed(p.experts(rank))}
            for rank in range(p.num_ranks)
        ),
    }
    if view.rank is not None:
        experts = p.experts(view.rank)
        fields |= {
            "rank": view.rank,
            "count": p.count(view.rank),
            "start": p.start(view.rank),
            "experts": experts,
            "expert_map": _index_map(p, view.rank),
        }
    strategies = [name for name in view.rules if name != OLD_RULE]
    if view.loads:
        fields |= {
            "layers": view.layers,
            "rank_loads": {name: view.loads[name].rows() for name in strategies},
            "balancedness": {name: view.loads[name].balancedness() for name in strategies},
        }
    if view.compare:
        fields["compare"] = {name: _counts_and_starts(view.rules[name]) for name in strategies}
        old_rule: dict[str, object] = {"description": "rest on the last rank"}
        old_rule |= _counts_and_starts(view.rules[OLD_RULE])
        if view.loads:
            old = view.loads[OLD_RULE]
            old_rule |= {"rank_loads": old.rows(), "balancedness": old.balancedness()}
        fields["old_rule"] = old_rule
    return fields


def _listed(experts: range) -> Sequence[int]:
    """A short range as a list, which is written in one go; a long one as it is, which is written piece by piece."""
    return list(experts) if len(experts) <= _MAX_ENTRIES else experts


def _counts_and_starts(rule: Rule) -> dict[str, object]:
    ranks = range(rule.num_ranks)
    return {"counts": map(rule.count, ranks), "starts": map(rule.start, ranks)}


def _index_map(p: Partition, rank: int) -> Iterator[int]:
    """`expert_map(rank)`, without torch and one by one: it may have 2**31 - 1 entries."""
    return (p.local_index(expert) if p.owner(expert) == rank else -1 for expert in range(p.num_experts))


# --- for people -------------------------------------------------------------------------------------------------------


def _write(view: _View, paper: Paper) -> None:
    p = view.partition
    paper.line(f"{many(p.num_experts, 'expert')} on {many(p.num_ranks, 'rank')}, {p.strategy}")
    paper.line(_uniformity(p))
    paper.line()
    if view.rank is None:
        _write_ownership(p, paper)
    else:
        _write_rank(p, view.rank, paper)
    if view.compare:
        _write_comparison(view.rules, paper)
    if view.table is not None:
        _write_loads(view, view.table, paper)


def _uniformity(p: Partition) -> str:
    """Whether all ranks own equally many experts, and what would make it so."""
    if p.is_uniform:
        return f"Uniform: every rank owns {many(p.num_experts // p.num_ranks, 'expert')}."
    missing = p.min_redundant_experts  # One for each rank with the smaller share.
    share = (p.num_experts + missing) // p.num_ranks
    nearest = [ranks for ranks in p.nearest_legal_ranks if ranks is not None]
    ways = [f"on {' or '.join(map(_number, nearest))} {'rank' if nearest == [1] else 'ranks'}"]
    if p.num_experts + missing <= MAX_NUM_EXPERTS:
        ways.insert(0, f"with {many(missing, 'redundant expert')} ({p.num_experts + missing:,} in all)")
    return (
        f"Not uniform: {many(p.num_ranks - missing, 'rank')} with {share:,}, {many(missing, 'rank')} with "
        f"{share - 1:,}. It would be uniform {', or '.join(ways)}."
    )


def _write_ownership(p: Partition, paper: Paper) -> None:
    table = rows([p], MAX_ROWS)
    grouped = p.num_ranks > MAX_ROWS
    header = ("ranks", "experts each", "experts") if grouped else ("rank", "count", "start", "experts")

    def cells(row: Row) -> tuple[str, ...]:
        if row.omitted:
            return ("...", "...", f"{many(row.num_ranks, 'more rank')}, all of them with --json")
        if grouped:
            return (_span(row.first, row.last), _number(p.count(row.first)), _experts_of_run(p, row))
        return (
            str(row.first),
            str(p.count(row.first)),
            str(p.start(row.first)),
            _experts(p.experts(row.first)),
        )

    paper.table(header, map(cells, table), left=(len(header) - 1,))


def _experts_of_run(p: Partition, row: Row) -> str:
    """The experts of consecutive ranks that own equally many."""
    first, last = p.experts(row.first), p.experts(row.last)
    if not first or row.first == row.last:
        return _experts(first)
    if p.is_contiguous:
        return _span(first[0], last[-1])
    steps = f", then steps of {_number(p.num_ranks)}" if len(first) > 1 else ""
    return f"{_span(first[0], last[0])}{steps}"


def _write_rank(p: Partition, rank: int, paper: Paper) -> None:
    experts = p.experts(rank)
    paper.line(f"rank {rank} of {p.num_ranks}")
    paper.line(f"  count    {p.count(rank)}")
    paper.line(f"  start    {p.start(rank)}")
    paper.line(f"  experts  {_experts(experts)}")
    paper.heading("expert_map: the local index of each expert that the rank owns, and -1 elsewhere")
    if p.num_experts <= _MAX_ENTRIES:
        paper.line(f"[{', '.join(map(str, _index_map(p, rank)))}]")
    else:
        paper.line(f"{_number(p.num_experts)} entries: --json writes them")


def _write_comparison(rules: dict[str, Rule], paper: Paper) -> None:
    every = list(rules.values())
    num_ranks = every[0].num_ranks
    paper.heading("experts each rank owns")

    def cells(row: Row) -> list[str]:
        name = _span(row.first, row.last)
        return [name, *("..." if row.omitted else _number(rule.count(row.first)) for rule in every)]

    # Every rule gives the most to the first rank or to the last one.
    most = ["most", *(_number(max(rule.count(0), rule.count(num_ranks - 1))) for rule in every)]
    header = ("rank" if num_ranks <= MAX_ROWS else "ranks", *rules)
    paper.table(header, [*map(cells, rows(every, MAX_ROWS)), most])


def _write_loads(view: _View, table: LoadTable, paper: Paper) -> None:
    p = view.partition
    largest = max((float(loads.totals().max(initial=0.0)) for loads in view.loads.values()), default=0.0)
    amount = _amounts(table, largest)
    paper.heading(f"load of each rank: {_layers_shown(view, table)}")
    for name, loads in view.loads.items():
        carried = dict(zip(loads.ranks.tolist(), loads.totals().tolist(), strict=True))
        mean = loads.mean_total()
        paper.heading(f"{name}: balancedness {loads.balancedness():.4f}")
        paper.line(_hottest(carried, mean, amount))
        table_rows = _load_rows(carried, p.num_ranks)
        names = [_span(row.first, row.last) for row in table_rows]
        width = paper.bar_width(max(map(len, names)) + len(amount(largest)) + len("x mean") + 3 * 3)
        cells = []
        for row, ranks in zip(table_rows, names, strict=True):
            load = carried.get(row.first, 0.0)
            if row.omitted:
                cells.append(("...", "...", "...", f"{many(row.num_ranks, 'more rank')}, all of them with --json"))
            else:
                bar = paper.bar(load / largest if largest else 0.0, width)
                cells.append((ranks, amount(load), f"{load / mean:.3f}" if mean else "-", bar))
        paper.table(("rank", "load", "x mean", ""), cells, left=(3,))


def _hottest(carried: dict[int, float], mean: float, amount: _Amount) -> str:
    """The mean rank load, and the rank farthest above it."""
    if not mean:
        return "no load at all"
    rank = max(carried, key=lambda rank: carried[rank])
    load = carried[rank]
    return f"mean rank load {amount(mean)}; largest {amount(load)} on rank {rank}, {load / mean:.3f} x mean"


def _load_rows(carried: dict[int, float], num_ranks: int) -> list[Row]:
    """The ranks as at most `MAX_ROWS + 1` rows. Ranks without experts share one; they carry nothing."""
    if num_ranks <= MAX_ROWS:
        return [Row(rank, rank) for rank in range(num_ranks)]
    table, rank = [], 0
    for owner in [*carried, num_ranks]:
        if rank < owner:
            table.append(Row(rank, owner - 1))
        if owner < num_ranks:
            table.append(Row(owner, owner))
        rank = owner + 1
    if len(table) <= MAX_ROWS:
        return table
    half = MAX_ROWS // 2
    return [*table[:half], Row(table[half].first, table[-half].first - 1, omitted=True), *table[-half:]]


def _layers_shown(view: _View, table: LoadTable) -> str:
    def named(layer: int) -> str:
        ids = table.layer_ids
        return (
            f"layer {layer}" if ids is None or ids[layer] == layer else f"row {layer}, layer {ids[layer]} of the model"
        )

    if len(view.layers) == 1:
        return f"{named(view.layers[0])}, from {table.name}"
    return f"the sum over all {len(view.layers)} layers, from {table.name} (--layer picks one)"


def _amounts(table: LoadTable, largest: float) -> _Amount:
    """How loads are written: whole numbers as such, others with enough digits to tell them apart."""
    whole = bool((table.loads % 1 == 0).all())

    def amount(load: float) -> str:
        if largest >= 1e15 or 0 < largest < 1e-3:
            return f"{load:.5g}"
        if whole:
            return f"{load:,.0f}" if load % 1 == 0 else f"{load:,.1f}"
        return f"{load:,.{max(1, 5 - len(str(int(largest))))}f}"

    return amount


# --- words ------------------------------------------------------------------------------------------------------------


def _experts(experts: range) -> str:
    """The ids of a rank's experts in local order, shortened where they are many."""
    if not experts:
        return "none"
    if experts.step == 1 or len(experts) == 1:
        return _span(experts[0], experts[-1])
    if len(experts) <= _MAX_IDS:
        return ", ".join(map(str, experts))
    return f"{experts[0]}, {experts[1]}, .. {experts[-1]}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _number(value: int) -> str:
    return f"{value:,}"
