"""The conformance run from a terminal: `expert-placement-spec check` and `expert-placement-spec prove`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from expert_placement_spec import case_check
from expert_placement_spec.cases import Chapter
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.exhaustive import LARGEST, Domain, Outcome, check
from expert_placement_spec.implementation import NEEDS, OPTIONAL, REFERENCE
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.outcome import shown
from expert_placement_spec.processes import Workers
from expert_placement_spec.prove import prove_all
from expert_placement_spec.reference import MAX, STRATEGIES
from expert_placement_spec.report import as_json, as_table, lacking, merged, without_cases
from expert_placement_spec.sampled import MOST_EXPERTS, MOST_RANKS, large_shapes, sample, sample_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from expert_placement_spec.outcome import Outcome as AnyOutcome


def flags_without_a_type(parameters: list[Any]) -> list[Any]:
    """The parameters of a command as its help shows them: typer would write that a flag is a bool."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command with a help that says nothing of types of flags."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters."""
        return flags_without_a_type(super().get_params(ctx))


class Group(TyperGroup):
    """The commands, with such a help."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters."""
        return flags_without_a_type(super().get_params(ctx))


class WrongNumber(Exception):  # noqa: N818 - the input is at fault and not the program
    """A text that is no number for an option. It is no `ValueError`, which typer would put in its own words."""

    def format_message(self) -> str:
        """What is said of it, under the name that typer's usage errors have for it."""
        return str(self)


def whole(name: str, least: int, most: int = MAX) -> Callable[[str | int], int]:
    """What reads an option's integer.

    Raises:
        WrongNumber: a text that is no integer, or one that is out of range.
    """

    def read(value: str | int) -> int:
        text = str(value)
        with suppress(ValueError):
            if text.isascii() and "_" not in text and text == text.strip() and least <= int(text) <= most:
                return int(text)
        raise WrongNumber(f"{name}=`{shown(text, 100)}` is out of range, expected an integer in {least}..={most}")

    return read


app = typer.Typer(
    cls=Group,
    help="The specification of expert placement, made executable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

PROGRAM = "expert-placement-spec"

EXPERTS, RANKS, WIDE = "0..=128", "1..=128", 256
"""The partitions that are checked without other word."""
POINTS, CASES = 2000, 500
"""Random points of partitions, and random cases of the other chapters, without other word."""

ALL = "all"
"""What `--require` calls everything that an implementation can offer."""

MOST_PROCESSES = 1024
"""More than any machine has cores; a limit against slips of the pen."""

USAGE = 2
# What a shell reports for a process that ends by the signal of the same cause.
INTERRUPTED = 130
OUTPUT_CLOSED = 141

EXAMPLES = """
Examples:

    expert-placement-spec check --implementation expert_placement:Partition

    expert-placement-spec check --implementation my_engine.moe:Partition --experts 0..=64 --ranks 1..=64 --json

    expert-placement-spec check --implementation my_engine.moe:Partition --require maps --require offsets

    expert-placement-spec check --chapter migration --implementation expert_placement --require all

    expert-placement-spec prove
"""


def parse_range(parameter: str, text: str, least: int) -> range:
    """`0..=128` as a range that ends with 128.

    Raises:
        ValueError: another form, or bounds outside `least ..= LARGEST`.
    """
    first, dots, last = text.partition("..=")
    what = f"{parameter}=`{shown(text, 100)}`"
    if not dots or not (first + last).isascii() or not first.isdecimal() or not last.isdecimal():
        raise ValueError(f"{what} is no range, expected the form `{least}..=128`")
    if max(len(first), len(last)) > 10 or not least <= int(first) <= int(last) <= LARGEST:
        raise ValueError(f"{what} is out of range, expected bounds in {least}..={LARGEST}, the smaller first")
    return range(int(first), int(last) + 1)


def required_laws(require: Sequence[str], laws: Collection[str], groups: Mapping[str, Collection[str]]) -> set[str]:
    """The names of the invariants that `--require` asks for.

    Args:
        require: `all`, names of groups, and names of invariants.
        laws: all names of invariants.
        groups: names of invariants by what they have in common.

    Raises:
        ValueError: another word.
    """
    found: set[str] = set()
    for word in require:
        if word != ALL and word not in groups and word not in laws:
            known = ", ".join((ALL, *groups))
            raise ValueError(f"require=`{shown(word, 100)}` is unknown, expected {known} or the name of an invariant")
        found |= set(laws) if word == ALL else set(groups.get(word, (word,)))
    return found


def error_console() -> Console:
    """Where progress and errors go, so that results can be piped."""
    return Console(stderr=True)


def output_console() -> Console:
    """Where results go; as wide as they need where nobody looks at a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=10_000, force_terminal=False, no_color=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, and a function that moves it. Where errors go elsewhere, nothing stands between them."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    console = error_console()
    # By the file itself: an environment may ask rich for colours where no terminal is.
    hidden = sys.stderr is None or not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run(
    implementations: Sequence[str],
    *,
    experts: str = EXPERTS,
    ranks: str = RANKS,
    wide: int = WIDE,
    alone: int | None = None,
    strategies: Sequence[str] = STRATEGIES,
    samples: int = POINTS,
    device: str = "cpu",
    processes: int | None = None,
    require: Sequence[str] = (),
    as_json_text: bool = False,
) -> int:
    """Checks implementations exhaustively and by sampling, prints the outcome, and gives the exit code.

    Args:
        implementations: names of the form `module:attribute`.
        experts: the range of E, such as `0..=128`.
        ranks: the range of R, such as `1..=128`.
        wide: how many experts and ranks the invariants over pairs, of whole maps and of tables are taken to.
        alone: how many experts and ranks those are taken to that ask for every id by itself; `wide` without other word.
        strategies: which strategies.
        samples: how many random points beyond the domain each invariant of the rule is given; 0 for none.
        device: where implementations with torch arrays are evaluated.
        processes: how many processes share the work; all cores without other word.
        require: what has to be offered and seen: `all`, subjects of invariants that ask for methods, or names of
            invariants.
        as_json_text: whether to print JSON instead of tables.

    Returns:
        0 where every invariant holds; 1 where one is broken, or one that is required can not be looked at or has no
        case in the domain.

    Raises:
        ValueError: an unknown implementation or strategy, or a malformed range.
    """
    unknown = [name for name in strategies if name not in STRATEGIES]
    if unknown:
        raise ValueError(f"strategy=`{shown(unknown[0], 100)}` is unknown, expected one of {', '.join(STRATEGIES)}")
    subjects = {subject: [law.name for law in INVARIANTS.values() if law.subject == subject] for subject in NEEDS}
    required = required_laws(require, INVARIANTS, subjects)
    bounds = (parse_range("experts", experts, 0), parse_range("ranks", ranks, 1))
    domain = Domain(*bounds, wide, tuple(dict.fromkeys(strategies)), alone)
    # An implementation may be a module of the folder where the command is called, as for `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    names = list(dict.fromkeys(implementations))
    sampled: list[Outcome] = []
    with Workers(processes or os.cpu_count() or 1) as workers:
        with progress_bar("exhaustive") as progress:
            outcomes = check(names, domain, device=device, workers=workers, progress=progress)
        if samples:
            with progress_bar("sampled") as progress:
                sampled = sample(
                    names,
                    samples,
                    strategies=domain.strategies,
                    device=device,
                    workers=workers,
                    progress=progress,
                )
            with progress_bar("sampled maps") as progress:
                tables = sample_tables(
                    names,
                    samples,
                    wide,
                    strategies=domain.strategies,
                    device=device,
                    workers=workers,
                    progress=progress,
                )
            sampled = merged([*sampled, *tables])
    title = (
        f"exhaustive: E in {experts}, R in {ranks}; pairs, maps and tables up to {wide}, ids asked one by one up to "
    )
    titles = (
        f"{title}{domain.largest('alone')}",
        f"sampled: E and R up to {MAX}, {samples:,} points each at most; maps, tables and ids asked one by one of "
        f"{len(large_shapes(samples, wide))} partitions of up to {MOST_EXPERTS:,} experts and {MOST_RANKS:,} ranks",
    )
    domain_text = {
        "experts": experts,
        "ranks": ranks,
        "wide": wide,
        "alone": domain.largest("alone"),
        "strategies": list(domain.strategies),
    }
    # Of no strategy that is looked at, a law has nothing to say; one that is asked for by its name says so.
    spoken_of = {
        law.name
        for law in INVARIANTS.values()
        if law.subject not in OPTIONAL and set(law.strategies) & set(domain.strategies)
    }
    required &= spoken_of | set(require)
    return show(outcomes, sampled, titles, {"domain": domain_text}, required, as_json_text=as_json_text)


def run_chapter(
    chapter: str,
    implementations: Sequence[str],
    *,
    domain: str = "small",
    samples: int = CASES,
    processes: int | None = None,
    require: Sequence[str] = (),
    as_json_text: bool = False,
) -> int:
    """Checks implementations of placements, plans or migrations, prints the outcome, and gives the exit code.

    Args:
        chapter: a chapter of laws about cases.
        implementations: names of the form `module` or `module:attribute`.
        domain: `quick`, `small` or `full`: which cases are looked at one and all.
        samples: how many random cases beyond the domain; 0 for none.
        processes: how many processes share the work; all cores without other word.
        require: which laws have to be observable: `all`, or names of laws.
        as_json_text: whether to print JSON instead of tables.

    Returns:
        0 where every law holds; 1 where one is broken, or one that is required can not be observed or has no case.

    Raises:
        ValueError: an unknown implementation, chapter or domain.
    """
    if chapter not in CHAPTERS:
        raise ValueError(
            f"chapter=`{shown(chapter, 100)}` is unknown, expected one of {', '.join((PARTITION, *CHAPTERS))}"
        )
    domains = CHAPTERS[chapter].domains
    if domain not in domains:
        raise ValueError(f"domain=`{shown(domain, 100)}` is unknown, expected one of {', '.join(domains)}")
    required = required_laws(require, CHAPTERS[chapter].laws, {})
    # An implementation may be a module of the folder where the command is called, as for `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    names = list(dict.fromkeys(implementations))
    sampled: list[case_check.Outcome] = []
    with Workers(processes or os.cpu_count() or 1) as workers:
        with progress_bar("exhaustive") as progress:
            outcomes = case_check.exhaust(chapter, names, domain, workers=workers, progress=progress)
        if samples:
            with progress_bar("sampled") as progress:
                sampled = case_check.sample(chapter, names, samples, workers=workers, progress=progress)
    titles = (f"exhaustive: {domains[domain].description}", f"sampled: {samples:,} random cases")
    header = {"chapter": chapter, "domain": {"name": domain, "description": domains[domain].description}}
    return show(outcomes, sampled, titles, header, required, as_json_text=as_json_text)


def show(
    outcomes: Sequence[AnyOutcome[Any]],
    sampled: Sequence[AnyOutcome[Any]],
    titles: tuple[str, str],
    header: dict[str, Any],
    required: Collection[str],
    *,
    as_json_text: bool,
) -> int:
    """Prints what came of a check, and gives its exit code.

    Args:
        outcomes: over the whole domain.
        sampled: beyond it.
        titles: of the two tables.
        header: what the JSON says of the domain.
        required: the invariants that fail the check where they can not be looked at, or have no case to look at.
        as_json_text: whether to print JSON instead of tables.
    """
    everything = merged([*outcomes, *sampled])
    broken = [one.counterexample for one in everything if one.counterexample is not None]
    unseen, idle = list(lacking(everything, required)), list(without_cases(everything, required))
    failed = bool(broken or idle) or any(one.required for one in unseen)
    if as_json_text:
        results = {"exhaustive": as_json(outcomes), "sampled": as_json(sampled), "broken": len(broken)}
        not_seen = {"not_offered": [vars(one) for one in unseen], "no_cases": [vars(one) for one in idle]}
        print(json.dumps(header | results | not_seen, indent=2))
        return 1 if failed else 0
    console = output_console()
    for part, title in zip((outcomes, sampled), titles, strict=True):
        if part:
            console.print(as_table(part, title))
    for one in broken:
        reason = f"  # {' '.join(one.message.split())}" if one.message else ""
        console.print(f"counterexample: {one.call()}{reason}", markup=False, highlight=False, soft_wrap=True)
    for lack in (*unseen, *idle):
        console.print(str(lack), markup=False, highlight=False, soft_wrap=True)
    cases = sum(one.cases for one in everything)
    held, not_offered = (sum(one.result == result for one in everything) for result in ("holds", "not offered"))
    tail = f", {not_offered} not offered" if not_offered else ""
    console.print(f"{held} checks hold over {cases:,} cases, {len(broken)} broken{tail}", highlight=False)
    return 1 if failed else 0


JSON = typer.Option("--json", help="Print JSON.")


@app.command(name="check", cls=Command, epilog=EXAMPLES)
def check_command(
    context: typer.Context,
    implementation: Annotated[
        list[str] | None,
        typer.Option(help="What to check, as `module:attribute` or, for other chapters, `module`; may be repeated."),
    ] = None,
    chapter: Annotated[str, typer.Option(help=f"What is checked: {', '.join((PARTITION, *CHAPTERS))}.")] = PARTITION,
    domain: Annotated[
        str | None, typer.Option(help="Cases of the other chapters: quick, small (the default) or full.")
    ] = None,
    experts: Annotated[str, typer.Option(help="The range of E.")] = EXPERTS,
    ranks: Annotated[str, typer.Option(help="The range of R.")] = RANKS,
    wide: Annotated[
        int,
        typer.Option(
            help="E and R up to which pairs, whole maps and tables are checked.", parser=whole("wide", 1), metavar="N"
        ),
    ] = WIDE,
    alone: Annotated[
        int | None,
        typer.Option(
            help="E and R up to which every id is asked by itself; as --wide by default.",
            parser=whole("alone", 1),
            metavar="N",
        ),
    ] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="A strategy; may be repeated.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Random points for each invariant (2000), with a large partition for each 200 of them, or cases of "
            "the other chapters (500).",
            parser=whole("samples", 0),
            metavar="N",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where torch implementations are evaluated.")] = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(
            help="Processes; all cores by default.", parser=whole("processes", 1, MOST_PROCESSES), metavar="N"
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="What has to be offered, and to have a case, or the check fails: all, an invariant, or, of "
            f"partitions, what several ask for ({', '.join(NEEDS)}); may be repeated.",
        ),
    ] = None,
    json_output: Annotated[bool, JSON] = False,
) -> None:
    """Check every invariant for an implementation: over a whole domain, and by samples beyond it."""
    defaults: Mapping[str, Sequence[str]] = context.obj or {}
    if chapter != PARTITION:
        of_partitions = (experts, ranks, wide, alone, strategy, device)
        if of_partitions != (EXPERTS, RANKS, WIDE, None, None, "cpu"):
            options = "--experts, --ranks, --wide, --alone, --strategy and --device"
            raise ValueError(f"chapter=`{chapter}` has no {options}, expected --domain")
        names = implementation or defaults.get(chapter) or [Chapter.reference]
        number = CASES if samples is None else samples
        code = run_chapter(
            chapter,
            names,
            domain=domain or "small",
            samples=number,
            processes=processes,
            require=require or (),
            as_json_text=json_output,
        )
        raise typer.Exit(code)
    if domain is not None:
        raise ValueError(f"domain=`{domain}` is for the chapters {', '.join(CHAPTERS)}, expected --experts and --ranks")
    raise typer.Exit(
        run(
            implementation or defaults.get(PARTITION) or [REFERENCE],
            experts=experts,
            ranks=ranks,
            wide=wide,
            alone=alone,
            strategies=strategy or STRATEGIES,
            samples=POINTS if samples is None else samples,
            device=device,
            processes=processes,
            require=require or (),
            as_json_text=json_output,
        )
    )


@app.command(name="prove", cls=Command)
def prove_command(json_output: Annotated[bool, JSON] = False) -> None:
    """Prove every invariant of the formulas for all E and R, with the solver z3."""
    with progress_bar("proving") as progress:
        theorems = prove_all(progress)
    failed = [theorem for theorem in theorems if theorem.result != "proved"]
    if json_output:
        print(json.dumps([vars(theorem) for theorem in theorems], indent=2))
    else:
        table = Table(title="theorems for every E and R")
        for heading in ("invariant", "strategy", "result", "time"):
            table.add_column(heading, no_wrap=True)
        for theorem in theorems:
            table.add_row(theorem.invariant, theorem.strategy, theorem.result, f"{theorem.seconds:.2f} s")
        output_console().print(table)
        print(f"{len(theorems) - len(failed)} proved, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)


@app.command(name="list", cls=Command)
def list_command() -> None:
    """List every invariant with its sentence."""
    table = Table()
    table.add_column("chapter", no_wrap=True)
    table.add_column("invariant", no_wrap=True)
    table.add_column("for every", no_wrap=True)
    table.add_column("the law")
    for law in INVARIANTS.values():
        table.add_row(PARTITION, law.name, ", ".join(("p", *law.quantifiers)), law.sentence)
    for name, chapter in CHAPTERS.items():
        for one in chapter.laws.values():
            table.add_row(name, one.name, ", ".join((one.subject, *one.quantifiers)), one.sentence)
    output_console().print(table)


def run_arguments(
    arguments: Sequence[str], implementations: Sequence[str] | Mapping[str, Sequence[str]], program: str
) -> int:
    """Runs `check` with the arguments of a command line that belongs to another program.

    Args:
        arguments: what stands behind the word `check`.
        implementations: what is checked where the arguments name nothing: partitions, or for each chapter its own.
        program: the name that usage and help show.

    Returns:
        The exit code of `run`.

    Raises:
        ValueError: as `run`; usage errors are raised as typer's own.
    """
    command: Any = typer.main.get_command(app)
    check_only = command.commands["check"]
    defaults = dict(implementations) if isinstance(implementations, Mapping) else {PARTITION: list(implementations)}
    code = check_only.main(list(arguments), prog_name=program, standalone_mode=False, obj=defaults)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point: ends the process with the exit code of the command line."""
    try:
        sys.exit(run_program())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def run_program() -> int:
    """Runs the command line of this process and gives its exit code.

    Returns:
        0; 1 where a check failed; 2 for bad usage or input and where the output can not be written, after one line on
        standard error; 130 after Ctrl-C; 141 where the reader of the output went away.
    """
    if sys.stdout is None:
        return refuse("standard output is closed")
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as end:
        # typer and rich end the process where a pipe breaks, each in its own way.
        cause = end.__context__ if isinstance(end, SystemExit) else end
        if not isinstance(cause, BrokenPipeError):
            raise
        discard_output()
        return OUTPUT_CLOSED
    except OSError as error:
        discard_output()
        return refuse(describe(error))
    except Exception as error:
        # Usage errors have this method in every version of typer.
        message = getattr(error, "format_message", None)
        if message is None and not isinstance(error, ValueError):
            raise
        text = str(message() if message else error)
        # Without arguments the help was printed, and there is nothing to add.
        return refuse(text) if text else USAGE
    return code if isinstance(code, int) else 0


LONGEST_ERROR = 2000
"""Characters of the one line that says what is wrong."""


def refuse(message: str) -> int:
    """Says on one line of standard error what is wrong, and gives the exit code for it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print("error:", shown(message, LONGEST_ERROR), file=sys.stderr, flush=True)
    return USAGE


def describe(error: OSError) -> str:
    """An operating system's error, after the file where it has one."""
    if error.strerror is None:
        return str(error)
    reason = error.strerror[:1].lower() + error.strerror[1:]
    return reason if error.filename is None else f"`{error.filename}`: {reason}"


def discard_output() -> None:
    """Sends what is still buffered nowhere, since the interpreter would fail to write it on its way out."""
    stream = sys.__stdout__
    if stream is not None and not stream.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
