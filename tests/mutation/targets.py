"""What is mutated, and the tests that have to notice.

Tests are named in the order in which they run, those that are soon through first: the first that fails ends the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]

CRATE, MODEL, TORCH, CHECKERS = "the crate", "the reference model", "the torch implementation", "the checkers"
PARTS = (CRATE, MODEL, TORCH, CHECKERS)


Stages: TypeAlias = "tuple[tuple[str, ...], ...]"


@dataclass(frozen=True)
class Target:
    """A file and the commands that test it, one after another until one fails."""

    part: str
    path: str
    stages: Stages
    """The arguments of each command: of `cargo test`, or of pytest."""
    options: tuple[str, ...] = ()
    """For the programs that `cargo test` runs."""


IN_SOURCE = re.compile(r"#\[cfg\(test\)\]")
OF_PARTITIONS = {"arithmetic", "batch", "error", "expert_map", "legal_ranks", "lib", "limits", "partition"}
"""Files of the crate that the laws of partitions look at as well; those of placements need none of them."""


def of_the_crate(root: Path = ROOT) -> list[Target]:
    """The crate's sources, but for the laws, which are tests."""
    folder = root / "rust" / "expert-placement" / "src"
    found = []
    for path in sorted(folder.rglob("*.rs")):
        if path.name == "laws.rs":
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        has_own_tests = name in OF_PARTITIONS or IN_SOURCE.search(path.read_text(encoding="utf-8")) is not None
        tests = ("--test=it", "--lib") if has_own_tests else ("--test=it",)
        options = () if name in OF_PARTITIONS else ("--skip", "laws::", "--skip", "partition::")
        found.append(Target(CRATE, path.relative_to(root).as_posix(), (tests,), options))
    return found


_SPEC = "spec/expert_placement_spec"
_REGENERATED = "vectors_are_what"
"""That the vectors are what the reference model answers, which takes less than a second."""


def _tests(*names: str, chosen: str = "") -> tuple[str, ...]:
    """Arguments of pytest for files in `tests/spec`, and which of their tests."""
    return (*(f"tests/spec/test_{name}.py" for name in names), *(("-k", chosen) if chosen else ()))


def _of_chapter(chapter: str, *names: str) -> dict[str, Stages]:
    """Files of a chapter with the tests that have to notice.

    That is a file of tests of the same name, where there is one; then what is recorded; then vectors, a few cases, and
    what has to be rejected.
    """
    recorded = _tests("recording", chosen=f"those_recorded and {chapter}")
    chosen = f"{_REGENERATED} or {chapter} and (every_law_holds or rejected_by_name)"
    stages = (recorded, _tests("vectors", "few_cases", "chapters", chosen=chosen))
    # Of the tests of domains those of the chapter are enough.
    chosen_own = {"domain": chapter}
    own = {
        name: (_tests(name, chosen=chosen_own.get(name, "")),) if (ROOT / _tests(name)[0]).is_file() else ()
        for name in names
    }
    return {f"{chapter}/{name}": (*own[name], *stages) for name in names}


_OF_PARTITIONS = (
    _tests("laws_fix_the_partition", "sampled_tables"),
    # What is sampled of the largest maps takes longer than everything else there.
    _tests("vectors", "checks_reject", chosen=f"{_REGENERATED} or test_checks_reject and not maps_beyond"),
)
_OF_CHECKS = (
    _tests("recording"),
    _tests(
        *("few_cases", "chapters", "real_sizes"),
        chosen="not command_line and not model_obeys and not ours_obey and not another_program and not processes",
    ),
)

MODELS: dict[str, Stages] = {
    "reference": _OF_PARTITIONS,
    **_of_chapter("placement", "reference", "topology", "loads"),
    **_of_chapter("balance", "reference", "deepseek", "packing", "refinement", "replication", "homes", "warm_start"),
    **_of_chapter("balance", "optimum", "measure", "capacity"),
    **_of_chapter("migration", "reference", "sources", "batches", "writing", "execution"),
    **_of_chapter("routing", "reference", "rule", "weights"),
}
CHECKS: dict[str, Stages] = {
    **dict.fromkeys(("exhaustive", "sampled", "grid", "plain", "single", "invariants"), _OF_PARTITIONS),
    **dict.fromkeys(("case_check", "cases", "evaluation", "law", "outcome", "view"), _OF_CHECKS),
    **_of_chapter("placement", "invariants", "view", "domain"),
    **_of_chapter("balance", "invariants", "view", "domain"),
    **_of_chapter("migration", "invariants", "view", "domain"),
    **_of_chapter("routing", "invariants", "view", "domain"),
}
_OF_ROUTING = (("tests/torch/test_routing.py", "-k", "not Triton and not triton and not warm_up"),)
OF_TORCH: dict[str, Stages] = {
    "partition": (("tests/torch/test_partition.py",),),
    **dict.fromkeys(("routing/reference", "routing/request", "routing/tables"), _OF_ROUTING),
}


def of_python() -> list[Target]:
    """The reference model, the torch implementation and the checkers."""
    models = [Target(MODEL, f"{_SPEC}/{name}.py", stages) for name, stages in MODELS.items()]
    torch = [Target(TORCH, f"python/expert_placement/torch/{name}.py", stages) for name, stages in OF_TORCH.items()]
    checks = [Target(CHECKERS, f"{_SPEC}/{name}.py", stages) for name, stages in CHECKS.items()]
    return models + torch + checks


def targets() -> list[Target]:
    """Everything that is mutated."""
    return of_the_crate() + of_python()
