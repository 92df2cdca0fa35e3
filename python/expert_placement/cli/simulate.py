"""`expert-placement simulate`: recorded windows of loads, played through policies side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial

import typer

from expert_placement.cli import options
from expert_placement.cli.errors import Refused
from expert_placement.cli.output import Paper, write_json
from expert_placement.cli.progress import Progress
from expert_placement.cli.words import MAX_ROWS, many, middle_left_out
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from expert_placement import Placement
    from expert_placement.cli.planning import Limits, Score, Setting

__all__ = ["HELP", "command"]

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "Play recorded windows of loads through policies: how balanced each window is under the placement that was "
        "planned before it, and how much moves.",
        options.LOADS_HELP,
        "Every N windows each policy plans from the last N ones, from the placement that it has, and what it plans is "
        "used for the next N. The policy `none` keeps the placement that all of them begin with: that of --previous, "
        "or else a linear partition of the experts over the ranks, with empty redundant slots. Balancedness is given "
        "for the windows that were planned for and for those that came next, which is what a user gets.",
        "[bold]Examples[/bold]",
        "  expert-placement simulate --loads windows.json --ranks 8 --redundant 8",
        "  expert-placement simulate --loads windows.json --ranks 8 --redundant 8 --every 4 --policy deepseek",
        "  expert-placement simulate --loads windows.json --previous placement.json --max-moves 20 --max-moves 100",
    )
)

_DEFAULT_POLICIES = (options.KEEP, options.POLICIES[0])
# The one that takes a budget of moves.
_LIMITED = options.POLICIES[0]


def _complete_policy(incomplete: str) -> list[str]:
    return [name for name in (options.KEEP, *options.POLICIES) if name.startswith(incomplete)]


_POLICIES = typer.Option(
    list(_DEFAULT_POLICIES),
    "--policy",
    help=f"One of {', '.join((options.KEEP, *options.POLICIES))}; repeat it to compare.",
    metavar="NAME",
    autocompletion=_complete_policy,
)
_MAX_MOVES = typer.Option(
    [], "--max-moves", help=f"Budget of moves of a plan, for {_LIMITED}; repeat it to compare.", metavar="N"
)


def command(
    loads: str = options.LOADS,
    ranks: int | None = options.RANKS,
    slots: int | None = options.SLOTS,
    redundant: int | None = options.REDUNDANT,
    nodes: int | None = options.NODES,
    groups: int = options.GROUPS,
    slots_per_rank: str | None = options.SLOTS_PER_RANK,
    speeds: str | None = options.SPEEDS,
    inactive: list[str] = options.INACTIVE,
    policies: list[str] = _POLICIES,
    every: int = typer.Option(1, "--every", help="Plan after so many windows, from their loads.", metavar="N"),
    previous: str | None = options.PREVIOUS,
    max_moves: list[int] = _MAX_MOVES,
    min_gain: float | None = options.MIN_GAIN,
    max_off_node: float | None = options.MAX_OFF_NODE,
    threads: int = options.THREADS,
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement simulate`."""
    from expert_placement.cli.planning import Limits, Request, need_torch, read_setting

    need_torch("simulate")
    budgets: list[int | None] = [*max_moves] or [None]
    contestants = _contestants(policies, [Limits(budget, min_gain, max_off_node) for budget in budgets])
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
    if setting.num_windows < 2:
        raise Refused(
            f"{setting.name} has {many(setting.num_windows, 'window')}, expected at least 2, one to plan for and one "
            "to score it in: [windows][layers][experts]"
        )
    if not 1 <= every < setting.num_windows:
        raise Refused(
            f"every={every} is out of range, expected 1..={setting.num_windows - 1}, fewer than the "
            f"{setting.num_windows} windows of {setting.name}"
        )
    with Progress("simulating", len(contestants) * len(_plans(setting, every))) as progress:
        runs = [_run(setting, contestant, every, progress) for contestant in contestants]
    if as_json:
        write_json(_fields(setting, runs, every))
    else:
        _write(setting, runs, every, Paper())


# --- what is played ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contestant:
    """A policy, and what it is limited by."""

    policy: str
    limits: Limits

    @property
    def name(self) -> str:
        moves = self.limits.max_moves
        return self.policy if moves is None else f"{self.policy}, {many(moves, 'move')}"


@dataclass(frozen=True, slots=True)
class _Step:
    """One plan and the windows that it was used in."""

    planned_for: range
    used_in: range
    score_planned_for: Score
    score_next: Score
    num_moves: int
    num_batches: int | None


@dataclass(slots=True)
class _Run:
    """What came of a policy."""

    contestant: _Contestant
    steps: list[_Step] = field(default_factory=list)

    def planned_for(self) -> Score:
        return sum((step.score_planned_for for step in self.steps[1:]), self.steps[0].score_planned_for)

    def next(self) -> Score:
        return sum((step.score_next for step in self.steps[1:]), self.steps[0].score_next)

    def worst(self) -> float:
        return min(step.score_next.balancedness for step in self.steps)

    def num_moves(self) -> int:
        return sum(step.num_moves for step in self.steps)

    def num_batches(self) -> int | None:
        batches = [step.num_batches for step in self.steps if step.num_batches is not None]
        return sum(batches) if len(batches) == len(self.steps) else None


def _contestants(policies: Sequence[str], limits: Sequence[Limits]) -> list[_Contestant]:
    """Each policy, and that which can be limited once for each of the limits."""
    from expert_placement.cli.planning import Limits

    known = (options.KEEP, *options.POLICIES)
    for position, policy in enumerate(policies):
        if policy not in known:
            expected = ", ".join(f"`{name}`" for name in known)
            raise Refused(f"policy=`{printable(policy)}` is unknown, expected one of {expected}")
        if policy in policies[:position]:
            raise Refused(f"policy=`{policy}` is given twice")
    if _LIMITED not in policies:
        for name, limit in asdict(limits[0]).items():
            if limit is not None:
                raise Refused(
                    f"--{name.replace('_', '-')} limits the policy `{_LIMITED}`, which is not among those of --policy"
                )
    contestants = []
    for policy in policies:
        contestants += [_Contestant(policy, limit) for limit in (limits if policy == _LIMITED else [Limits()])]
    return contestants


def _plans(setting: Setting, every: int) -> range:
    """The windows before which there is a plan."""
    return range(every, setting.num_windows, every)


def _run(setting: Setting, contestant: _Contestant, every: int, progress: Progress) -> _Run:
    run = _Run(contestant)
    placement = setting.kept() if contestant.policy == options.KEEP else setting.start
    for window in _plans(setting, every):
        planned_for, used_in = range(window - every, window), range(window, min(window + every, setting.num_windows))
        step, placement = progress.step(partial(_step, setting, contestant, placement, planned_for, used_in))
        run.steps.append(step)
    return run


def _step(
    setting: Setting, contestant: _Contestant, there: Placement, planned_for: range, used_in: range
) -> tuple[_Step, Placement]:
    from expert_placement.cli.planning import score

    past = setting.loads[planned_for.start : planned_for.stop]
    future = setting.loads[used_in.start : used_in.stop]
    placement, num_moves = there, 0
    num_batches: int | None = 0
    if contestant.policy != options.KEEP:
        placement = setting.plan(past, contestant.policy, there, contestant.limits)
        num_moves, num_batches = sum(placement.moves_from(there)), _num_batches(there, placement)
    scores = score(placement.report(past)), score(placement.report(future))
    return _Step(planned_for, used_in, *scores, num_moves, num_batches), placement


def _num_batches(old: Placement, new: Placement) -> int | None:
    """The batches of the migration; none where an expert was lost with its ranks, and has to be loaded again."""
    from expert_placement import plan_migration

    try:
        return plan_migration(old, new).num_batches
    except ValueError:
        return None


# --- for programs -----------------------------------------------------------------------------------------------------


def _fields(setting: Setting, runs: Sequence[_Run], every: int) -> dict[str, object]:
    from expert_placement.cli.planning import LINEAR

    return {
        **setting.fields(),
        "every": every,
        "start": setting.start_file or LINEAR,
        "best_next": runs[0].next().best,
        "policies": [
            {
                "name": run.contestant.name,
                "policy": run.contestant.policy,
                **asdict(run.contestant.limits),
                "balancedness_planned_for": run.planned_for().balancedness,
                "balancedness_next": run.next().balancedness,
                "worst_next": run.worst(),
                "num_moves": run.num_moves(),
                "num_batches": run.num_batches(),
                "steps": [
                    {
                        "planned_for": list(step.planned_for),
                        "used_in": list(step.used_in),
                        "balancedness_planned_for": step.score_planned_for.balancedness,
                        "balancedness_next": step.score_next.balancedness,
                        "num_moves": step.num_moves,
                        "num_batches": step.num_batches,
                    }
                    for step in run.steps
                ],
            }
            for run in runs
        ],
    }


# --- for people -------------------------------------------------------------------------------------------------------


def _write(setting: Setting, runs: Sequence[_Run], every: int, paper: Paper) -> None:
    plans = _plans(setting, every)
    paper.line(setting.described())
    paper.line(setting.described_loads())
    paper.line(
        f"start: {setting.start_name}; {many(len(plans), 'plan')}, each from the last {many(every, 'window')} and for "
        "the next"
    )
    paper.line()
    rows = [
        (
            run.contestant.name,
            f"{run.planned_for().balancedness:.4f}",
            f"{run.next().balancedness:.4f}",
            f"{run.worst():.4f}",
            f"{run.num_moves():,}",
            f"{run.num_moves() / len(plans):,.1f}",
            _count(run.num_batches()),
        )
        for run in runs
    ]
    header = ("policy", "planned for", "next", "worst next", "moves", "a plan", "batches")
    paper.table(header, rows, left=(0,))
    paper.line(f"No placement in these slots could have more than {runs[0].next().best:.4f} in the next windows.")

    paper.heading("plan by plan: balancedness in the windows planned for and in the next, and what moves")
    head, left_out, tail = middle_left_out(range(len(plans)), max(2, MAX_ROWS // len(runs)))
    steps = [row for index in head for row in _step_rows(runs, index)]
    if left_out:
        steps.append(("...", f"{many(left_out, 'more plan')}, all of them with --json"))
    steps += [row for index in tail for row in _step_rows(runs, index)]
    paper.table(("windows", "policy", "planned for", "next", "moves", "batches"), steps, left=(1,))


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _step_rows(runs: Sequence[_Run], index: int) -> Iterator[tuple[str, ...]]:
    for position, run in enumerate(runs):
        step = run.steps[index]
        first, last = step.used_in[0], step.used_in[-1]
        yield (
            ("" if position else f"{first}" if first == last else f"{first}-{last}"),
            run.contestant.name,
            f"{step.score_planned_for.balancedness:.4f}",
            f"{step.score_next.balancedness:.4f}",
            f"{step.num_moves:,}",
            _count(step.num_batches),
        )
