"""`expert-placement plan`: where the replicas of every expert should live, before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import typer

from expert_placement.cli import options
from expert_placement.cli.errors import refusing
from expert_placement.cli.output import Paper, expect_output, write_json
from expert_placement.cli.progress import Progress
from expert_placement.cli.words import amount, many, middle_left_out, percent
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from expert_placement import LayerReport, Placement
    from expert_placement.cli.planning import Score, Setting

__all__ = ["HELP", "command"]

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "Plan which replicas of which experts each rank holds, and compare with what is there.",
        options.LOADS_HELP,
        "What is there is the placement of --previous, or else a linear partition of the experts over the ranks. "
        "Balancedness is the sum of the mean times of the ranks over that of the largest ones, in all layers and "
        "windows; the lower bound is one that no placement in these slots can beat. A move is an expert that comes to "
        "a rank which did not hold it. Where the routing chooses among groups of experts on several nodes, off "
        "node is the part of the load that is served elsewhere than on the home of its group.",
        "[bold]Examples[/bold]",
        "  expert-placement plan --loads loads.json --ranks 32 --redundant 32 --output placement.json",
        "  expert-placement plan --loads later.json --previous placement.json --max-moves 50 --output next.json",
        "  expert-placement plan --loads later.json --previous placement.json --inactive 3",
        "  expert-placement plan --loads loads.json --ranks 32 --balancedness 0.98",
        "  expert-placement plan --loads loads.json --ranks 32 --slots 288 --json | jq .physical_to_logical",
    )
)

# Layers that are shown where not all are asked for.
_WORST_LAYERS = 5


def command(
    loads: str = options.LOADS,
    ranks: int | None = options.RANKS,
    slots: int | None = options.SLOTS,
    redundant: int | None = options.REDUNDANT,
    balancedness: float | None = typer.Option(
        None,
        "--balancedness",
        help="The least number of slots whose plan is so balanced, up to twice as many as experts.",
        metavar="X",
    ),
    nodes: int | None = options.NODES,
    groups: int = options.GROUPS,
    slots_per_rank: str | None = options.SLOTS_PER_RANK,
    speeds: str | None = options.SPEEDS,
    inactive: list[str] = options.INACTIVE,
    policy: str = options.POLICY,
    previous: str | None = options.PREVIOUS,
    max_moves: int | None = options.MAX_MOVES,
    min_gain: float | None = options.MIN_GAIN,
    max_off_node: float | None = options.MAX_OFF_NODE,
    threads: int = options.THREADS,
    output: str | None = typer.Option(None, "--output", "-o", help="Write the placement to this file.", metavar="FILE"),
    layers: bool = typer.Option(False, "--layers", help="Show every layer, not only the worst ones.", metavar=""),
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement plan`."""
    from expert_placement.cli.planning import Limits, Request, Wanted, need_torch, read_setting

    need_torch("plan")
    if output is not None:
        # The placement to start from may be replaced by the next one.
        expect_output("--output", output, {"--loads": loads})
    setting = read_setting(
        Request(
            loads=loads,
            num_ranks=ranks,
            num_nodes=nodes,
            num_slots=slots,
            num_redundant=redundant,
            slots_per_rank=slots_per_rank,
            speeds=speeds,
            inactive=tuple(inactive),
            num_groups=groups,
            previous=previous,
            num_threads=threads,
            wanted=None if balancedness is None else Wanted(balancedness, policy, max_off_node),
        )
    )
    limits = Limits(max_moves, min_gain, max_off_node)
    with Progress("planning", 1) as progress:
        planned = progress.step(lambda: setting.plan(setting.loads, policy, setting.previous, limits))
    comparison = _compare(setting, planned, policy)
    if output is not None:
        with refusing():
            planned.save(output)
    if as_json:
        write_json(_fields(comparison, {"policy": policy, **asdict(limits), "output": output}))
    else:
        _write(comparison, Paper(), all_layers=layers)
        if output is not None:
            _write_output(output, planned)


@dataclass(frozen=True, slots=True)
class _Side:
    """A placement under the loads."""

    name: str
    placement: Placement
    reports: list[LayerReport]
    score: Score
    rank_loads: npt.NDArray[np.float64]
    """The load of each rank in each window and layer: float64[W, L, R]."""
    off_node: list[float] | None
    """The part of each layer's load that is served off the groups' homes, where they have some."""

    def all_off_node(self) -> float:
        """The same of all layers together."""
        off_node = (
            0.0
            if self.off_node is None
            else sum(part * layer.mean for part, layer in zip(self.off_node, self.reports, strict=True))
        )
        return off_node / self.score.mean if self.score.mean else 0.0


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What is there, and what was planned."""

    setting: Setting
    before: _Side
    after: _Side
    moves: list[int]
    """How many experts come to a rank that did not hold them, in each layer."""


def _compare(setting: Setting, planned: Placement, policy: str) -> _Comparison:
    from expert_placement.cli.planning import score

    def side(name: str, placement: Placement) -> _Side:
        reports = placement.report(setting.loads)
        rank_loads = placement.rank_loads(setting.loads).numpy()
        off_node = placement.off_node(setting.loads, setting.num_groups) if setting.has_homes else None
        return _Side(name, placement, reports, score(reports), rank_loads, off_node)

    return _Comparison(
        setting,
        side(setting.start_in_short, setting.start),
        side(policy, planned),
        planned.moves_from(setting.start),
    )


# --- for programs -----------------------------------------------------------------------------------------------------


def _fields(comparison: _Comparison, asked: dict[str, object]) -> dict[str, object]:
    from expert_placement.cli.planning import LINEAR

    setting = comparison.setting

    def fields(name: str, side: _Side) -> dict[str, object]:
        loads = side.rank_loads if setting.is_windowed else side.rank_loads[0]
        return {
            "name": name,
            "digest": side.placement.digest(),
            "balancedness": side.score.balancedness,
            "mean": side.score.mean,
            "largest": side.score.largest,
            "lower_bound": side.score.lower_bound,
            "gap": side.score.gap,
            "layers": [report._asdict() for report in side.reports],
            "rank_loads": loads.tolist(),
            "off_node": side.off_node,
        }

    return {
        **setting.fields(),
        **asked,
        "before": fields(setting.start_file or LINEAR, comparison.before),
        "after": fields(comparison.after.name, comparison.after),
        "num_moves": sum(comparison.moves),
        "moves_of_layers": comparison.moves,
        "physical_to_logical": comparison.after.placement.physical_to_logical().tolist(),
    }


# --- for people -------------------------------------------------------------------------------------------------------


def _write(comparison: _Comparison, paper: Paper, *, all_layers: bool) -> None:
    setting, before, after = comparison.setting, comparison.before, comparison.after
    paper.line(setting.described())
    paper.line(setting.described_loads())
    paper.line()
    rows = [
        (
            f"{when}: {side.name}",
            f"{side.score.balancedness:.4f}",
            amount(side.score.largest),
            amount(side.score.lower_bound),
            percent(side.score.gap),
            *((percent(side.all_off_node()),) if setting.has_homes else ()),
            f"{moves:,}" if moves is not None else "",
        )
        for when, side, moves in (("before", before, None), ("after", after, sum(comparison.moves)))
    ]
    off_node = ("off node",) if setting.has_homes else ()
    paper.table(("", "balancedness", "busiest ranks", "lower bound", "gap", *off_node, "moves"), rows, left=(0,))
    _write_layers(comparison, paper, all_layers=all_layers)
    _write_ranks(comparison, paper)


def _write_layers(comparison: _Comparison, paper: Paper, *, all_layers: bool) -> None:
    before, after, ids = comparison.before, comparison.after, comparison.setting.layer_ids
    layers: Sequence[int] = range(len(after.reports))
    if not all_layers and len(layers) > _WORST_LAYERS:
        # A stable sort: of layers that are equally bad the first ones.
        layers = sorted(layers, key=lambda layer: -after.reports[layer].gap)[:_WORST_LAYERS]
        paper.heading(
            f"balancedness of the {_WORST_LAYERS} layers that are farthest above their lower bound (--layers shows all)"
        )
    else:
        paper.heading("balancedness of the layers")
    renamed = ids is not None and ids != tuple(range(len(ids)))

    def row(layer: int) -> tuple[str, ...]:
        old, new = before.reports[layer], after.reports[layer]
        return (
            str(layer),
            *((str(ids[layer]),) if renamed and ids is not None else ()),
            f"{old.balancedness:.4f}",
            f"{new.balancedness:.4f}",
            amount(new.largest),
            amount(new.lower_bound),
            percent(new.gap),
            *(() if after.off_node is None else (percent(after.off_node[layer]),)),
            f"{comparison.moves[layer]:,}",
        )

    header = ("layer", *(("of the model",) if renamed else ()), "before", "after", "busiest rank", "lower bound")
    off_node = () if after.off_node is None else ("off node",)
    paper.table((*header, "gap", *off_node, "moves"), map(row, layers))


def _write_ranks(comparison: _Comparison, paper: Paper) -> None:
    """What each rank carries before and after, with bars on one scale."""
    topology = comparison.setting.topology
    active = topology.active or (True,) * topology.num_ranks
    what = "load" if topology.speeds is None else "time"
    if not comparison.after.score.mean:
        paper.heading(f"no {what} at all")
        return
    paper.heading(f"{what} of each rank over the mean, in all layers together and in its worst layer (bars)")
    sides = [_relative(comparison.before), _relative(comparison.after)]
    largest = max(float(worst.max()) for _, worst in sides)
    header = ("rank", "before", "worst layer", "", "after", "worst layer", "")
    width = paper.bar_width(sum(len(title) + 3 for title in header), 2)

    def row(rank: int) -> tuple[str, ...]:
        cells = [str(rank)]
        for together, worst in sides:
            cells += [f"{together[rank]:.3f}", f"{worst[rank]:.3f}", paper.bar(worst[rank] / largest, width)]
        if not active[rank]:
            cells[-1] = "out of service"
        return tuple(cells)

    head, left_out, tail = middle_left_out(range(topology.num_ranks))
    rows = [*map(row, head)]
    if left_out:
        rows.append(("...", "...", "...", f"{many(left_out, 'more rank')}, all of them with --json"))
    rows += map(row, tail)
    paper.table(header, rows, left=(3, 6))


def _relative(side: _Side) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The time of each rank over the mean one: of all layers together, and in the layer where that is most."""
    import numpy as np

    times = side.rank_loads.sum(axis=0) / np.array(side.placement.topology.speeds or 1.0)
    means = np.array([layer.mean for layer in side.reports])
    by_layer = np.divide(times, means[:, np.newaxis], out=np.zeros_like(times), where=means[:, np.newaxis] > 0)
    return times.sum(axis=0) / means.sum(), by_layer.max(axis=0)


def _write_output(output: str, planned: Placement) -> None:
    paper = Paper()
    paper.line()
    paper.line(f"The placement is in `{printable(output)}`, digest {planned.digest()[:14]}..")
