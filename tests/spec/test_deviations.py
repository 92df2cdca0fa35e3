"""Declared deviations: exactly what is declared is expected, and what no longer applies fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from expert_placement_spec.command import run_arguments
from expert_placement_spec.deviations import Declared, Deviation, read_deviations
from expert_placement_spec.outcome import Outcome
from expert_placement_spec.reference import Partition

if TYPE_CHECKING:
    from pathlib import Path

    from expert_placement_spec.exhaustive import Counterexample

NAME = "tests.spec.mutants:OffsetIsRankTimesCount"
SMALL = ["--experts", "0..=6", "--ranks", "1..=4", "--samples", "0", "--processes", "1"]
LACKING = "tests.spec.test_deviations:OnlyScalars"


class OnlyScalars:
    """The reference model without its tables and maps."""

    def __init__(self, num_experts: int, num_ranks: int, strategy: str) -> None:
        model = Partition(num_experts, num_ranks, strategy)
        self.count, self.start, self.owner, self.local_index = model.count, model.start, model.owner, model.local_index


def table(invariant: str, implementation: str = NAME, chapter: str = "partition", **more: str) -> str:
    fields = {"implementation": implementation, "chapter": chapter, "invariant": invariant, "reason": "known"} | more
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    return f"[[deviation]]\n{lines}\n"


def written(folder: Path, *tables: str) -> str:
    path = folder / "deviations.toml"
    path.write_text("".join(tables), encoding="utf-8")
    return str(path)


def broken_laws(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What the check finds to be broken without a file."""
    assert run_arguments([*arguments, "--json"], [], "check") == 1
    parsed = json.loads(capsys.readouterr().out)
    return [one["invariant"] for one in parsed["exhaustive"] if one["result"] == "broken"]


def test_what_is_declared_is_expected_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--implementation", NAME, *SMALL]
    broken = broken_laws(capsys, *arguments)
    assert len(broken) > 5

    every = written(tmp_path, *(table(law, until="2.0") for law in broken))
    assert run_arguments([*arguments, "--deviations", every], [], "check") == 0
    printed = capsys.readouterr().out
    assert printed.count("\ndeviates as declared: ") == len(broken)
    assert f"\ndeviates as declared: contiguous of {NAME}: known, until 2.0\n" in printed
    assert "counterexample" not in printed
    assert f" 0 broken, {len(broken)} as declared" in printed

    for left_out in ("contiguous", broken[-1]):
        others = written(tmp_path, *(table(law) for law in broken if law != left_out))
        assert run_arguments([*arguments, "--deviations", others, "--json"], [], "check") == 1
        parsed = json.loads(capsys.readouterr().out)
        assert parsed["broken"] == 1
        assert parsed["deviations"]["unmet"] == []
        assert {one["invariant"] for one in parsed["deviations"]["as_declared"]} == set(broken) - {left_out}


def test_a_deviation_that_no_longer_applies_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = "expert_placement_spec.reference:Partition"
    file = written(tmp_path, table("contiguous", reference))
    assert run_arguments(["--implementation", reference, *SMALL, "--deviations", file], [], "check") == 1
    printed = capsys.readouterr().out
    law = f"contiguous of {reference}"
    assert f"\na declared deviation no longer applies: {law} holds over " in printed
    assert "(declared because known)" in printed


def test_a_deviation_that_is_not_looked_at_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, table("map_has_one_owner", LACKING))
    assert run_arguments(["--implementation", LACKING, *SMALL], [], "check") == 0
    assert run_arguments(["--implementation", LACKING, *SMALL, "--deviations", file], [], "check") == 1
    assert "a declared deviation was not looked at: map_has_one_owner" in capsys.readouterr().out


def test_chapters_of_cases_know_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "tests.spec.broken_placements:NodesInTurn"
    arguments = ["--chapter", "placement", "--implementation", name, "--domain", "quick", "--samples", "0"]
    broken = broken_laws(capsys, *arguments, "--processes", "2")
    tables = [table(law, name, "placement") for law in broken]
    # What is declared of another chapter is left to the check of that one.
    file = written(tmp_path, *tables, table("contiguous"))
    assert run_arguments([*arguments, "--deviations", file, "--processes", "2"], [], "check") == 0
    assert capsys.readouterr().out.count("\ndeviates as declared: ") == len(broken)


def test_another_implementation_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, table("contiguous", "my_engine:Other"))
    with pytest.raises(ValueError, match=f"declared of `my_engine:Other`, which is not checked .* one of {NAME}"):
        run_arguments(["--implementation", NAME, *SMALL, "--deviations", file], [], "check")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table("contigous"), r"\[\[deviation\]\] 1: invariant `contigous` is unknown, expected one of ends_meet, "),
        (table("plan_leaves_no_expert_out"), "invariant `plan_leaves_no_expert_out` is unknown"),
        (
            table("contiguous", chapter="partitions"),
            "1: chapter=`partitions` is unknown, expected partition, placement",
        ),
        (table("contiguous") + table("contiguous"), rf"\[\[deviation\]\] 2 declares contiguous of {NAME} again$"),
        ('[[deviation]]\nimplementation = "a:b"\n', r"\[\[deviation\]\] 1 has no `chapter`$"),
        (table("contiguous", note="x"), "has `note`, expected implementation, chapter, invariant, reason, until$"),
        (table("contiguous", reason=" "), "has reason=` ?`, expected a text$"),
        (table("contiguous").replace('"known"', "3"), "has reason=`3`, expected a text$"),
        ("[deviation]\n", r"has a `deviation` that is no list of tables, expected \[\[deviation\]\]$"),
        ("deviation = [1]\n", "is no list of tables"),
        ("version = 1\n", r"has `version`, expected tables \[\[deviation\]\] alone$"),
        ("[[deviation]\n", "is no TOML in UTF-8: "),
        ("a = " + "[" * 100_000 + "\n", "is nested too deeply$"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^deviations `.*deviations.toml`.*{message}"):
        read_deviations(written(tmp_path, content))


def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^deviations `.*nothing.toml`: no such file or directory$"):
        read_deviations(tmp_path / "nothing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is no TOML in UTF-8"):
        read_deviations(tmp_path / "bytes.toml")


def test_an_empty_file_declares_nothing(tmp_path: Path) -> None:
    assert read_deviations(written(tmp_path, "")) == []


def test_a_law_of_which_nothing_came_was_not_looked_at() -> None:
    declared = Declared([Deviation("a:b", "partition", "contiguous", "known")], "partition", ["a:b"])
    (sentence,) = declared.unmet([])
    assert sentence == "a declared deviation was not looked at: contiguous of a:b (declared because known)"
    idle: Outcome[Counterexample] = Outcome("a:b", "contiguous")
    (sentence,) = declared.unmet([idle])
    assert "was not looked at: contiguous of a:b, no cases" in sentence
