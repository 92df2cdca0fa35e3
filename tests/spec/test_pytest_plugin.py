"""The pytest plugin: a test for each law, which fails, skips and expects what it should."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from expert_placement_spec.commands import profiles
from expert_placement_spec.conformance import laws_about

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]

IMPLEMENTATIONS = """
from expert_placement_spec import reference
from expert_placement_spec.model import Placement, Topology


class Right(reference.Partition):
    elementwise = None


class Wrong(Right):
    '''Offsets of rank * count.'''

    def start(self, rank):
        return rank * self.count(rank)


class Raises(Right):
    def owner(self, expert):
        raise RuntimeError("no owner today")


class Few:
    '''Scalars alone.'''

    def __init__(self, *shape):
        made = reference.Partition(*shape)
        self.count, self.start, self.owner, self.local_index = made.count, made.start, made.owner, made.local_index


class RightIfSmall:
    '''Counts at most 200 replicas.'''

    Topology = Topology

    class Placement(Placement):
        def replica_counts(self):
            counts = super().replica_counts()
            return counts if self.num_slots <= 200 else [[0] * self.num_experts for _ in counts]

"""
CONFTEST = """
from expert_placement_spec.commands.profiles import PROFILES, Profile

PROFILES["tiny"] = Profile("0..=6", "1..=4", wide=4, alone=4, points=20, domain="quick", cases=5)
"""
TINY = ("--expert-placement-profile", "tiny", "-p", "no:cacheprovider", "-p", "no:benchmark")


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with right and wrong implementations."""
    pytester.makepyfile(engine=IMPLEMENTATIONS)
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    monkeypatch.setattr(profiles, "PROFILES", dict(profiles.PROFILES))
    return pytester


def laws(chapter: str = "partition") -> int:
    return len(laws_about(chapter))


def test_every_law_of_a_right_implementation_is_a_test_that_passes(folder: pytest.Pytester) -> None:
    result = folder.runpytest_subprocess("--expert-placement", "engine:Right", "-v", "-rs", *TINY)
    # Two laws are about faster ways to ask, which it does not offer.
    result.assert_outcomes(passed=laws() - 2, skipped=2)
    result.stdout.fnmatch_lines(["*partition=engine:Right::contiguous PASSED*"])
    result.stdout.fnmatch_lines(["*not offered: a faster way to ask*"])


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_broken_law_fails_with_its_sentence_and_a_call_that_shows_it(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    # Where CI is set, pytest says everything once more in its summary.
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    result = folder.runpytest_subprocess("--expert-placement", "engine:Wrong", *TINY)
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] >= 5
    assert outcomes["passed"] >= 10
    text, summary, _ = result.stdout.str().partition("short test summary info")
    assert summary
    assert "engine:Wrong breaks contiguous: Each rank starts where the one before it ends." in text
    calls = [line.strip() for line in text.splitlines() if line.startswith("    expert_placement_spec.evaluate(")]
    assert len(calls) == outcomes["failed"]
    assert "Traceback" not in text
    # Pasted, every call says that the law is broken.
    pasted = f"import expert_placement_spec\nprint({', '.join(calls)})\n"
    said = subprocess.run([sys.executable, "-c", pasted], capture_output=True, text=True, check=True, cwd=folder.path)
    assert set(said.stdout.split()) == {"False"}


def test_what_an_implementation_raises_is_shown(folder: pytest.Pytester) -> None:
    result = folder.runpytest_subprocess("--expert-placement", "engine:Raises", *TINY)
    result.stdout.fnmatch_lines(
        ["*engine:Raises breaks answers_every_query*", "it raised RuntimeError: no owner today"]
    )


def test_a_law_that_is_not_offered_is_skipped_with_the_reason(folder: pytest.Pytester) -> None:
    result = folder.runpytest_subprocess("--expert-placement", "engine:Few", "-rs", *TINY)
    assert set(result.parseoutcomes()) == {"passed", "skipped"}
    result.stdout.fnmatch_lines(["*not offered: counts, starts, owners, local_indices"])


def test_other_chapters_are_named_before_the_implementation(folder: pytest.Pytester) -> None:
    named = ("--expert-placement", "placement=engine", "--expert-placement", "engine:Right")
    result = folder.runpytest_subprocess(
        *named, "-v", "-m", "expert_placement", "-k", "table_is_kept or contiguous", *TINY
    )
    result.assert_outcomes(passed=2, deselected=laws() + laws("placement") - 2)
    result.stdout.fnmatch_lines(
        ["*placement=engine::table_is_kept PASSED*", "*partition=engine:Right::contiguous PASSED*"]
    )


def test_a_chapter_may_be_an_option_of_its_own(folder: pytest.Pytester) -> None:
    options = ("--expert-placement", "engine", "--expert-placement-chapter", "placement", "--collect-only", "-q")
    result = folder.runpytest_subprocess(*options, *TINY)
    result.stdout.fnmatch_lines(["*placement=engine::table_is_kept"])


def test_cases_of_real_sizes_may_be_left_out(folder: pytest.Pytester) -> None:
    named = ("--expert-placement", "placement=engine:RightIfSmall", "-k", "counts_are_of_slots", *TINY)
    others = laws("placement") - 1
    result = folder.runpytest_subprocess(*named)
    result.assert_outcomes(failed=1, deselected=others)
    result.stdout.fnmatch_lines(["*counts_are_of_slots*real=*"])
    folder.runpytest_subprocess(*named, "--expert-placement-no-real").assert_outcomes(passed=1, deselected=others)
    folder.makeini("[pytest]\nexpert_placement_real = false\n")
    folder.runpytest_subprocess(*named).assert_outcomes(passed=1, deselected=others)
    folder.makeini("[pytest]\nexpert_placement_real = perhaps\n")
    refused = folder.runpytest_subprocess(*named)
    refused.stderr.fnmatch_lines(["*expert_placement_real=`perhaps` is unknown, expected true or false*"])


def test_settings_name_implementations_for_runs_that_name_no_files(folder: pytest.Pytester) -> None:
    folder.makeini("[pytest]\nexpert_placement = engine:Right\n")
    folder.makepyfile(test_other="def test_other():\n    pass\n")
    everything = folder.runpytest_subprocess("--collect-only", "-q", *TINY)
    everything.stdout.fnmatch_lines(["test_other.py::test_other", "*partition=engine:Right::contiguous"])
    one = folder.runpytest_subprocess("test_other.py", *TINY)
    one.assert_outcomes(passed=1)


def declare(folder: pytest.Pytester, *laws: str) -> None:
    head = '[[deviation]]\nimplementation = "engine:Wrong"\nchapter = "partition"\nreason = "known"\n'
    tables = "".join(f'{head}invariant = "{law}"\n' for law in laws)
    (folder.path / "known.toml").write_text(tables, encoding="utf-8")


def test_declared_deviations_are_expected_as_long_as_they_apply(folder: pytest.Pytester) -> None:
    declare(folder, "contiguous", "owner_in_range")
    named = ("--expert-placement", "engine:Wrong", "--expert-placement-deviations", "known.toml", "-rx")
    result = folder.runpytest_subprocess(*named, "-k", "contiguous or owner_in_range or larger_shares_first", *TINY)
    result.assert_outcomes(passed=1, failed=1, xfailed=1, deselected=laws() - 3)
    result.stdout.fnmatch_lines(["*a declared deviation no longer applies: owner_in_range of engine:Wrong holds over*"])
    result.stdout.fnmatch_lines(["XFAIL *contiguous - deviates as declared: known"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--expert-placement", "chapter=engine"), "chapter=`chapter` is unknown, expected partition, placement*"),
        (("--expert-placement", "engine:Right", "--expert-placement-profile", "big"), "profile=`big` is unknown*"),
        (
            ("--expert-placement", "engine:Right", "--expert-placement-deviations", "nothing.toml"),
            "deviations `*nothing.toml`: no such file or directory",
        ),
        (
            ("--expert-placement", "engine:Right", "--expert-placement-deviations", "known.toml"),
            "a deviation from contiguous is declared of `engine:Wrong`, which is not checked*",
        ),
        (("--expert-placement-deviations", "known.toml"), "*expected --expert-placement as well"),
    ],
)
def test_wrong_usage_is_refused(folder: pytest.Pytester, options: tuple[str, ...], message: str) -> None:
    declare(folder, "contiguous")
    result = folder.runpytest_subprocess(*options, "-p", "no:benchmark")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_an_implementation_that_can_not_be_had_fails_every_law(folder: pytest.Pytester) -> None:
    result = folder.runpytest_subprocess("--expert-placement", "engine:Nothing", *TINY)
    result.assert_outcomes(failed=laws())
    result.stdout.fnmatch_lines(["implementation `engine:Nothing`: it has no attribute `Nothing`"])


def test_workers_of_xdist_say_the_same(folder: pytest.Pytester) -> None:
    options = ("--expert-placement", "engine:Wrong", *TINY)
    alone = folder.runpytest_subprocess(*options).parseoutcomes()
    for distribution in ("load", "loadgroup"):
        shared = folder.runpytest_subprocess(*options, "-n", "2", "--dist", distribution).parseoutcomes()
        assert shared == alone, distribution
    assert alone["failed"] >= 5


def test_nothing_is_loaded_where_no_implementation_is_named(folder: pytest.Pytester) -> None:
    (folder.path / "conftest.py").unlink()
    folder.makepyfile(
        """
        import sys

        def test_it():
            assert "expert_placement_spec.pytest_plugin" in sys.modules
            loaded = [name for name in sys.modules if name.startswith("expert_placement_spec.")]
            assert loaded == ["expert_placement_spec.pytest_plugin"]
            assert not {"numpy", "torch", "z3", "rich", "typer"} & set(sys.modules)
        """
    )
    folder.runpytest_subprocess("-p", "no:benchmark", "-p", "no:xdist").assert_outcomes(passed=1)


def test_the_marker_is_registered(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.expert_placement: *"])


def test_the_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    from importlib import metadata

    (found,) = metadata.entry_points(group="pytest11", name="expert_placement")
    assert found.value == "expert_placement_spec.pytest_plugin"
