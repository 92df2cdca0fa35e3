"""`expert-placement plot`: what plans do to the load of the ranks, as a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import typer

from expert_placement.cli import options
from expert_placement.cli.errors import Refused, refusing
from expert_placement.cli.output import Paper, expect_output, write_json
from expert_placement.cli.progress import Progress
from expert_placement.cli.words import many
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy.typing as npt

    from expert_placement import Placement
    from expert_placement.cli.planning import Limits, Setting
    from expert_placement.plot import Curve

__all__ = ["HELP", "PICTURES", "command"]

PICTURES = ("ranks", "layers", "moves", "slots")
_SUFFIXES = (".png", ".svg", ".pdf")

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "Draw what plans do to the load of the ranks, as a picture in a file.",
        options.LOADS_HELP,
        "[bold]Pictures[/bold]",
        "  [bold]ranks[/bold]   the load of each rank before and after",
        "  [bold]layers[/bold]  the same as a heat map of layers and ranks",
        "  [bold]moves[/bold]   balancedness against the number of moves that a plan may make",
        "  [bold]slots[/bold]   balancedness against the number of redundant slots, up to --slots or --redundant",
        "Where there are several windows, `moves` and `slots` plan for all but the last one, and show what comes of it "
        "there, too.",
        "[bold]Examples[/bold]",
        "  expert-placement plot ranks --loads loads.json --ranks 8 --redundant 8 --output ranks.png",
        "  expert-placement plot moves --loads later.json --previous placement.json --output moves.png",
        "  expert-placement plot slots --loads loads.json --ranks 8 --redundant 64 --output slots.png",
    )
)

# Plans for a curve.
_MOST_POINTS = 16
_Y_LABEL = "balancedness (mean / largest rank load)"


def _complete_picture(incomplete: str) -> list[str]:
    return [name for name in PICTURES if name.startswith(incomplete)]


def command(
    picture: str = typer.Argument(
        ..., help=f"One of {', '.join(PICTURES)}.", metavar="PICTURE", autocompletion=_complete_picture
    ),
    output: str = typer.Option(..., "--output", "-o", help=f"The file, in {', '.join(_SUFFIXES)}.", metavar="FILE"),
    loads: str = options.LOADS,
    ranks: int | None = options.RANKS,
    slots: int | None = options.SLOTS,
    redundant: int | None = options.REDUNDANT,
    nodes: int | None = options.NODES,
    groups: int = options.GROUPS,
    slots_per_rank: str | None = options.SLOTS_PER_RANK,
    speeds: str | None = options.SPEEDS,
    inactive: list[str] = options.INACTIVE,
    policy: str | None = typer.Option(
        None,
        "--policy",
        help=f"How to plan: {' or '.join(options.POLICIES)}. `moves` and `slots` show both without it.",
        metavar="NAME",
        autocompletion=options.complete_policy,
    ),
    previous: str | None = options.PREVIOUS,
    max_moves: int | None = options.MAX_MOVES,
    min_gain: float | None = options.MIN_GAIN,
    max_off_node: float | None = options.MAX_OFF_NODE,
    threads: int = options.THREADS,
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement plot`."""
    from expert_placement.cli.planning import Limits, Request, need_torch, read_setting

    if picture not in PICTURES:
        expected = ", ".join(f"`{name}`" for name in PICTURES)
        raise Refused(f"picture=`{printable(picture)}` is unknown, expected one of {expected}")
    if not output.lower().endswith(_SUFFIXES):
        raise Refused(f"output=`{printable(output)}` is of no known format, expected a name in {', '.join(_SUFFIXES)}")
    need_torch("plot")
    if find_spec("matplotlib") is None:
        raise Refused("`plot` needs matplotlib: pip install 'expert-placement[plot]'")
    expect_output("--output", output, {"--loads": loads, "--previous": previous})
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
        )
    )
    limits = Limits(max_moves, min_gain, max_off_node)
    if picture in ("ranks", "layers"):
        fields = _draw_ranks(setting, picture, output, policy or options.POLICIES[0], limits)
    else:
        if limits != Limits():
            raise Refused(f"the picture `{picture}` has no use for --max-moves, --min-gain and --max-off-node")
        policies = options.POLICIES if policy is None else (policy,)
        draw = _draw_moves if picture == "moves" else _draw_slots
        fields = draw(setting, output, policies)
    if as_json:
        write_json({**setting.fields(), "picture": picture, "output": output, **fields})
    else:
        _write(fields, Paper(), setting, output)


def _draw_ranks(setting: Setting, picture: str, output: str, policy: str, limits: Limits) -> dict[str, object]:
    from expert_placement.cli.panels import placed
    from expert_placement.plot import plot_ranks

    with Progress("planning", 1) as progress:
        planned = progress.step(lambda: setting.plan(setting.loads, policy, setting.previous, limits))
    panels = [
        placed(f"before: {setting.start_in_short}", setting.start, setting.loads),
        placed(f"after: {policy}", planned, setting.loads),
    ]
    with refusing():
        plot_ranks(panels, output, title=setting.described(), rows=("loads",) if picture == "ranks" else ("layers",))
    return {
        "policy": policy,
        "balancedness": {"before": panels[0].balancedness, "after": panels[1].balancedness},
        "rank_times": {"before": panels[0].rank_loads.tolist(), "after": panels[1].rank_loads.tolist()},
    }


@dataclass(frozen=True, slots=True)
class _Point:
    """One plan of a curve."""

    policy: str
    num_slots: int
    num_moves: int
    balancedness: float
    balancedness_next: float | None
    best: float


def _split(setting: Setting) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """The windows to plan for, and the one that comes next, where there are several."""
    return (setting.loads[:-1], setting.loads[-1:]) if setting.num_windows > 1 else (setting.loads, None)


def _point(setting: Setting, policy: str, previous: Placement | None, max_moves: int | None = None) -> _Point:
    from expert_placement.cli.planning import Limits, score

    loads, later = _split(setting)
    planned = setting.plan(loads, policy, previous, Limits(max_moves))
    scored = score(planned.report(loads))
    return _Point(
        policy,
        setting.num_slots,
        0 if previous is None else sum(planned.moves_from(previous)),
        scored.balancedness,
        None if later is None else planned.balancedness(later),
        scored.best,
    )


def _draw_moves(setting: Setting, output: str, policies: Sequence[str]) -> dict[str, object]:
    """Balancedness against moves: a curve for the policy that takes a budget, a point for the other one."""
    points: list[_Point] = []
    refused: dict[str, str] = {}
    with Progress("planning", _MOST_POINTS + len(policies)) as progress:
        for policy in policies:
            try:
                points.append(progress.step(partial(_point, setting, policy, setting.start)))
            except Refused as error:
                refused[policy] = str(error)
        whole = next((point for point in points if point.policy == options.POLICIES[0]), None)
        if whole is not None:
            least = _num_lost(setting)
            span = max(0, whole.num_moves - least)
            # Most is gained by the first moves, so that is where most points are.
            budgets = sorted({least + round(span * (n / _MOST_POINTS) ** 2) for n in range(_MOST_POINTS)})
            points += [
                progress.step(partial(_point, setting, whole.policy, setting.start, budget)) for budget in budgets
            ]
    return _draw_points(setting, output, points, policies, refused, "moves")


def _num_lost(setting: Setting) -> int:
    """How many experts have no replica on a rank in service, over all layers: so many moves every plan needs."""
    import numpy as np

    active = np.array(setting.topology.active or (True,) * setting.topology.num_ranks)
    in_service = np.repeat(active, np.diff(setting.start.slot_offsets().numpy()))
    table = setting.start.physical_to_logical().numpy()
    there = [np.unique(row[in_service & (row >= 0)]).size for row in table]
    return sum(setting.num_experts - count for count in there)


def _draw_slots(setting: Setting, output: str, policies: Sequence[str]) -> dict[str, object]:
    """Balancedness against redundant slots: a curve a policy, over the numbers that ranks share evenly."""
    if setting.previous is not None or setting.topology.slots_per_rank is not None:
        raise Refused(
            "the picture `slots` varies the number of slots, expected --slots or --redundant for the most, and neither "
            "--previous nor --slots-per-rank"
        )
    num_ranks, fewest, most = setting.topology.num_ranks, setting.num_experts, setting.num_slots
    even = range(-(-fewest // num_ranks) * num_ranks, most + 1, num_ranks)
    # Of many numbers some that are evenly apart, both ends among them.
    steps = min(_MOST_POINTS, len(even)) - 1
    sizes = sorted({fewest, most, *(even[round(n * (len(even) - 1) / max(1, steps))] for n in range(steps + 1))})
    points, refused = [], {}
    with Progress("planning", len(sizes) * len(policies)) as progress:
        for policy in policies:
            for size in sizes:
                try:
                    points.append(progress.step(partial(_point, replace(setting, num_slots=size), policy, None)))
                except Refused as error:
                    refused[policy] = str(error)
    return _draw_points(setting, output, points, policies, refused, "slots")


def _draw_points(
    setting: Setting,
    output: str,
    points: Sequence[_Point],
    policies: Sequence[str],
    refused: dict[str, str],
    picture: str,
) -> dict[str, object]:
    """Draws the points by policy, and gives back what was drawn. What no policy can plan is an error."""
    from expert_placement.plot import plot_curves

    if not points:
        raise Refused(next(iter(refused.values())))

    def x(point: _Point) -> int:
        return point.num_moves if picture == "moves" else point.num_slots - setting.num_experts

    curves: list[Curve] = []
    # Budgets that are not used up lead to the same plan.
    points = list(dict.fromkeys(points))
    ordered = {policy: sorted((point for point in points if point.policy == policy), key=x) for policy in policies}
    for policy, line in ordered.items():
        if line:
            curves += _curves(policy, [x(point) for point in line], line)
    curves.append(_best(points, x))
    x_label = "experts that come to a rank (count)" if picture == "moves" else "redundant slots of a layer (count)"
    what = "moves" if picture == "moves" else "redundant slots"
    if picture == "slots":
        layers = f"{many(setting.num_layers, 'layer')} of {many(setting.num_experts, 'expert')}"
        title = f"Balance against {what}: {layers} on {many(setting.topology.num_ranks, 'rank')}"
    else:
        title = f"Balance against {what}: {setting.described()}"
    with refusing():
        plot_curves(curves, output, title=title, x_label=x_label, y_label=_Y_LABEL)
    return {
        "points": [
            {
                "policy": point.policy,
                "num_slots": point.num_slots,
                "num_moves": point.num_moves if picture == "moves" else None,
                "balancedness": point.balancedness,
                "balancedness_next": point.balancedness_next,
                "best": point.best,
            }
            for line in ordered.values()
            for point in line
        ],
        "refused": refused,
    }


def _curves(policy: str, x: list[int], points: Sequence[_Point]) -> list[Curve]:
    from expert_placement.plot import Curve

    later = [point.balancedness_next for point in points if point.balancedness_next is not None]
    planned_for = Curve(f"{policy}, planned for" if later else policy, x, [point.balancedness for point in points])
    return [planned_for, Curve(f"{policy}, next window", x, later, "dashes")] if later else [planned_for]


def _best(points: Sequence[_Point], x: Callable[[_Point], int]) -> Curve:
    """The bound that no placement is above."""
    from expert_placement.plot import Curve

    best = {x(point): point.best for point in points}
    return Curve("upper bound", sorted(best), [best[key] for key in sorted(best)], "bound")


def _write(fields: dict[str, Any], paper: Paper, setting: Setting, output: str) -> None:
    paper.line(setting.described())
    paper.line(setting.described_loads())
    if "points" in fields:
        for policy, reason in fields["refused"].items():
            paper.line(f"{policy} is left out where it can not plan: {reason}")
        paper.line()
        has_moves = fields["points"][0]["num_moves"] is not None
        rows = [
            (
                point["policy"],
                f"{point['num_moves'] if has_moves else point['num_slots'] - setting.num_experts:,}",
                f"{point['balancedness']:.4f}",
                "-" if point["balancedness_next"] is None else f"{point['balancedness_next']:.4f}",
                f"{point['best']:.4f}",
            )
            for point in fields["points"]
        ]
        x = "moves" if has_moves else "redundant slots"
        paper.table(("policy", x, "balancedness", "next window", "at most"), rows, left=(0,))
    else:
        before, after = fields["balancedness"]["before"], fields["balancedness"]["after"]
        paper.line(f"balancedness {before:.4f} before, {after:.4f} after: {fields['policy']}")
    paper.line()
    paper.line(f"The picture is in `{printable(output)}`.")
