"""`expert-placement-spec check`: the conformance run."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expert_placement_spec.cases import Chapter
from expert_placement_spec.chapters import CHAPTERS, PARTITION
from expert_placement_spec.commands.profiles import PROFILES, parse_range, profile_of
from expert_placement_spec.commands.terminal import JSON, output_console, progress_bar, whole
from expert_placement_spec.conformance import look_at_cases, look_at_partitions
from expert_placement_spec.deviations import Declared, read_deviations
from expert_placement_spec.exhaustive import Domain
from expert_placement_spec.implementation import NEEDS, OPTIONAL, REFERENCE
from expert_placement_spec.invariants import INVARIANTS
from expert_placement_spec.lines.command import named
from expert_placement_spec.lines.program import TIMEOUT
from expert_placement_spec.outcome import AS_DECLARED, shown
from expert_placement_spec.processes import Workers
from expert_placement_spec.reference import MAX, STRATEGIES
from expert_placement_spec.report import REPORT_PARTS, as_json, as_table, lacking, merged, without_cases
from expert_placement_spec.sampled import MOST_EXPERTS, MOST_RANKS, large_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from expert_placement_spec.outcome import Outcome as AnyOutcome

EXPERTS, RANKS, WIDE = "0..=128", "1..=128", 256
"""The partitions that are checked without other word."""
POINTS, CASES = 2000, 500
"""Random points of partitions, and random cases of the other chapters, without other word."""

ALL = "all"
"""What `--require` calls everything that an implementation can offer."""

MOST_PROCESSES = 1024
"""More than any machine has cores; a limit against slips of the pen."""

MOST_SECONDS = 86_400
"""A day, for one answer of a program."""

EXAMPLES = """
Examples:

    expert-placement-spec check --implementation expert_placement:Partition

    expert-placement-spec check --implementation my_engine.moe:Partition --experts 0..=64 --ranks 1..=64 --json

    expert-placement-spec check --implementation my_engine.moe:Partition --require maps --require offsets

    expert-placement-spec check --chapter migration --implementation expert_placement --require all

    expert-placement-spec check --profile small --command './my-program --flag'

    expert-placement-spec prove
"""


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
    timeout: float = TIMEOUT,
    require: Sequence[str] = (),
    deviations: str | None = None,
    as_json_text: bool = False,
) -> int:
    """Checks implementations exhaustively and by sampling, prints the outcome, and gives the exit code.

    Args:
        implementations: names of the form `module:attribute`, or `$ ` and the command of a program.
        experts: the range of E, such as `0..=128`.
        ranks: the range of R, such as `1..=128`.
        wide: how many experts and ranks the invariants over pairs, of whole maps and of tables are taken to.
        alone: how many experts and ranks those are taken to that ask for every id by itself; `wide` without other word.
        strategies: which strategies.
        samples: how many random points beyond the domain each invariant of the rule is given; 0 for none.
        device: where implementations with torch arrays are evaluated.
        processes: how many processes share the work; all cores without other word.
        timeout: how many seconds an answer of a program may take.
        require: what has to be offered and seen: `all`, subjects of invariants that ask for methods, or names of
            invariants.
        deviations: a file with known deviations, which have to apply.
        as_json_text: whether to print JSON instead of tables.

    Returns:
        0 where every invariant holds; 1 where one is broken, or one that is required can not be looked at or has no
        case in the domain.

    Raises:
        ValueError: an unknown implementation or strategy, a malformed range, or a program that breaks the protocol.
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
    declared = declared_in(deviations, PARTITION, names)
    with Workers(processes or os.cpu_count() or 1, timeout) as workers:
        parts = look_at_partitions(names, domain, samples, device=device, workers=workers, bar=progress_bar)
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
    return show(parts, titles, {"domain": domain_text}, required, declared, as_json_text=as_json_text)


def run_chapter(
    chapter: str,
    implementations: Sequence[str],
    *,
    domain: str = "small",
    samples: int = CASES,
    real: bool = True,
    processes: int | None = None,
    timeout: float = TIMEOUT,
    require: Sequence[str] = (),
    deviations: str | None = None,
    as_json_text: bool = False,
) -> int:
    """Checks implementations of placements, plans or migrations, prints the outcome, and gives the exit code.

    Args:
        chapter: a chapter of laws about cases.
        implementations: names of the form `module` or `module:attribute`, or `$ ` and the command of a program.
        domain: `quick`, `small` or `full`: which cases are looked at one and all.
        samples: how many random cases beyond the domain; 0 for none.
        real: whether implementations other than the reference model are given cases of real sizes.
        processes: how many processes share the work; all cores without other word.
        timeout: how many seconds an answer of a program may take.
        require: which laws have to be observable: `all`, or names of laws.
        deviations: a file with known deviations, which have to apply.
        as_json_text: whether to print JSON instead of tables.

    Returns:
        0 where every law holds; 1 where one is broken, or one that is required can not be observed or has no case.

    Raises:
        ValueError: an unknown implementation, chapter or domain, or a program that breaks the protocol.
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
    declared = declared_in(deviations, chapter, names)
    with Workers(processes or os.cpu_count() or 1, timeout) as workers:
        parts = look_at_cases(chapter, names, domain, samples, workers=workers, real=real, bar=progress_bar)
    titles = (
        f"exhaustive: {domains[domain].description}",
        f"sampled: {samples:,} random cases",
        f"real sizes: {'; '.join(CHAPTERS[chapter].real)}",
    )
    header = {"chapter": chapter, "domain": {"name": domain, "description": domains[domain].description}}
    return show(parts, titles, header, required, declared, as_json_text=as_json_text)


def declared_in(file: str | None, chapter: str, implementations: Sequence[str]) -> Declared:
    """What a file declares of implementations in a chapter: nothing where there is no file.

    Raises:
        ValueError: the file, or what it names, is not as it should be.
    """
    return Declared([] if file is None else read_deviations(file), chapter, implementations)


def show(
    parts: Sequence[Sequence[AnyOutcome[Any]]],
    titles: Sequence[str],
    header: dict[str, Any],
    required: Collection[str],
    declared: Declared,
    *,
    as_json_text: bool,
) -> int:
    """Prints what came of a check, and gives its exit code.

    Args:
        parts: the outcomes over the whole domain, of samples and, where there are any, of cases of real sizes.
        titles: of the tables of these parts.
        header: what the JSON says of the domain.
        required: the invariants that fail the check where they can not be looked at, or have no case to look at.
        declared: the deviations that are no failures, and are ones where they no longer apply.
        as_json_text: whether to print JSON instead of tables.
    """
    everything = merged([one for part in parts for one in part])
    expected = [one for one in everything if declared.expects(one)]
    broken = [one.counterexample for one in everything if one.counterexample is not None and one not in expected]
    unmet = list(declared.unmet(everything))
    unseen, idle = list(lacking(everything, required)), list(without_cases(everything, required))
    failed = bool(broken or idle or unmet) or any(one.required for one in unseen)
    if as_json_text:
        results = {name: as_json(part) for name, part in zip(REPORT_PARTS[: len(parts)], parts, strict=True)} | {
            "broken": len(broken)
        }
        not_seen = {"not_offered": [vars(one) for one in unseen], "no_cases": [vars(one) for one in idle]}
        deviating = {"deviations": {"as_declared": as_json(expected), "unmet": unmet}}
        print(json.dumps(header | results | not_seen | deviating, indent=2))
        return 1 if failed else 0
    console = output_console()
    for part, title in zip(parts, titles, strict=True):
        if part:
            console.print(as_table(part, title, expected))
    for one in broken:
        reason = f"  # {' '.join(one.message.split())}" if one.message else ""
        console.print(f"counterexample: {one.call()}{reason}", markup=False, highlight=False, soft_wrap=True)
    for outcome in expected:
        sentence = f"{AS_DECLARED}: {outcome.invariant} of {outcome.implementation}: {declared.of(outcome)}"
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for lack in (*unmet, *unseen, *idle):
        console.print(str(lack), markup=False, highlight=False, soft_wrap=True)
    cases = sum(one.cases for one in everything)
    held, not_offered = (sum(one.result == result for one in everything) for result in ("holds", "not offered"))
    tail = f", {len(expected)} as declared" if expected else ""
    tail += f", {not_offered} not offered" if not_offered else ""
    console.print(f"{held} checks hold over {cases:,} cases, {len(broken)} broken{tail}", highlight=False)
    return 1 if failed else 0


def check_command(
    context: typer.Context,
    implementation: Annotated[
        list[str] | None,
        typer.Option(help="What to check, as `module:attribute` or, for other chapters, `module`; may be repeated."),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(
            help="A program to check, with its arguments, that answers line by line (PROTOCOL.md); may be repeated."
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(
            help="Seconds that a program may take for an answer.",
            parser=whole("timeout", 1, MOST_SECONDS),
            metavar="SECONDS",
        ),
    ] = TIMEOUT,
    profile: Annotated[
        str | None,
        typer.Option(
            help="How much is looked at: "
            + "; ".join(f"{name} for {one}" for name, one in PROFILES.items())
            + ". Options that are given count instead."
        ),
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
    real: Annotated[bool, typer.Option(help="Whether the other chapters look at cases of real sizes, too.")] = True,
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
    deviations: Annotated[
        str | None,
        typer.Option(
            help="A TOML file of known deviations: they are no failures, and are ones where they no longer apply.",
            metavar="FILE",
        ),
    ] = None,
    json_output: Annotated[bool, JSON] = False,
) -> None:
    """Check every invariant for an implementation: over a whole domain, and by samples beyond it."""
    defaults: Mapping[str, Sequence[str]] = context.obj or {}
    asked_for = [*(implementation or ()), *map(named, command or ())]
    chosen = None if profile is None else profile_of(profile)

    def is_given(option: str) -> bool:
        source = context.get_parameter_source(option)
        return source is not None and source.name != "DEFAULT"

    if chapter != PARTITION:
        of_partitions = (experts, ranks, wide, alone, strategy, device)
        if of_partitions != (EXPERTS, RANKS, WIDE, None, None, "cpu"):
            options = "--experts, --ranks, --wide, --alone, --strategy and --device"
            raise ValueError(f"chapter=`{chapter}` has no {options}, expected --domain")
        names = asked_for or defaults.get(chapter) or [Chapter.reference]
        number, looked_at = (CASES, "small") if chosen is None else (chosen.cases, chosen.domain)
        code = run_chapter(
            chapter,
            names,
            domain=looked_at if domain is None else domain,
            samples=number if samples is None else samples,
            real=real,
            processes=processes,
            timeout=timeout,
            require=require or (),
            deviations=deviations,
            as_json_text=json_output,
        )
        raise typer.Exit(code)
    if is_given("real"):
        raise ValueError(f"--real and --no-real are for the chapters {', '.join(CHAPTERS)}")
    if domain is not None:
        raise ValueError(f"domain=`{domain}` is for the chapters {', '.join(CHAPTERS)}, expected --experts and --ranks")
    points = POINTS
    if chosen is not None:
        experts = experts if is_given("experts") else chosen.experts
        ranks = ranks if is_given("ranks") else chosen.ranks
        wide = wide if is_given("wide") else chosen.wide
        alone = chosen.alone if alone is None else alone
        points = chosen.points
    raise typer.Exit(
        run(
            asked_for or defaults.get(PARTITION) or [REFERENCE],
            experts=experts,
            ranks=ranks,
            wide=wide,
            alone=alone,
            strategies=strategy or STRATEGIES,
            samples=points if samples is None else samples,
            device=device,
            processes=processes,
            timeout=timeout,
            require=require or (),
            deviations=deviations,
            as_json_text=json_output,
        )
    )
