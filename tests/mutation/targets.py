"""What is mutated, and the tests that have to notice.

Tests are named in the order in which they run, those that are soon through first: the first that fails ends the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

CRATE, MODEL, TORCH, CHECKERS = "the crate", "the reference model", "the torch implementation", "the checkers"
PARTS = (CRATE, MODEL, TORCH, CHECKERS)


@dataclass(frozen=True)
class Target:
    """A file and the arguments of the command that tests it: of `cargo test`, or of pytest."""

    part: str
    path: str
    tests: tuple[str, ...]
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
        found.append(Target(CRATE, path.relative_to(root).as_posix(), tests, options))
    return found


_SPEC = "spec/expert_placement_spec"
_OF_MODELS = ("tests/vectors", "tests/spec/test_vectors.py", "tests/spec/test_chapters.py")
_OF_CHECKS = ("tests/spec/test_checks_reject.py", "tests/spec/test_chapters.py", "tests/spec/test_conformance.py")
_OF_CHECKS_OF_PARTITIONS = ("tests/spec/test_sampled_tables.py", "tests/spec/test_checks_reject.py")

MODELS = {
    "reference": ("tests/vectors", "tests/spec/test_vectors.py", "tests/spec/test_checks_reject.py"),
    **dict.fromkeys(
        (
            *("placement/reference", "placement/topology", "placement/loads"),
            *("balance/reference", "balance/deepseek", "balance/packing", "balance/refinement", "balance/replication"),
            *("balance/homes", "balance/warm_start", "balance/optimum", "balance/measure", "balance/capacity"),
            *("migration/reference", "migration/sources", "migration/batches", "migration/writing"),
            *("migration/execution", "routing/reference", "routing/rule", "routing/weights"),
        ),
        _OF_MODELS,
    ),
}
CHECKS = {
    **dict.fromkeys(("exhaustive", "sampled", "grid", "plain", "single", "invariants"), _OF_CHECKS_OF_PARTITIONS),
    **dict.fromkeys(
        (
            *("case_check", "cases", "evaluation", "law", "outcome", "view"),
            *(
                f"{chapter}/{name}"
                for chapter in ("placement", "balance", "migration", "routing")
                for name in ("invariants", "view", "domain")
            ),
        ),
        _OF_CHECKS,
    ),
}
OF_TORCH = {
    "partition": ("tests/torch/test_partition.py",),
    **dict.fromkeys(("routing/reference", "routing/request", "routing/tables"), ("tests/torch/test_routing.py",)),
}


def of_python() -> list[Target]:
    """The reference model, the torch implementation and the checkers."""
    models = [Target(MODEL, f"{_SPEC}/{name}.py", tests) for name, tests in MODELS.items()]
    torch = [Target(TORCH, f"python/expert_placement/torch/{name}.py", tests) for name, tests in OF_TORCH.items()]
    checks = [Target(CHECKERS, f"{_SPEC}/{name}.py", tests) for name, tests in CHECKS.items()]
    return models + torch + checks


def targets() -> list[Target]:
    """Everything that is mutated."""
    return of_the_crate() + of_python()
