"""What `make fuzz` makes of a run: a finding, a run of nothing and a planted bug that is not found are failures."""

from __future__ import annotations

import pytest

from tests.fuzz import PACKAGE, Run, described, is_failure, main, parsed, targets

QUIET = "stat::number_of_executed_units: 1200\nstat::peak_rss_mb:              31\n"
PANIC = "thread '<unnamed>' (7) panicked at src/lib.rs:53:9:\ncount[0] is 9, expected 3: Case\n" + QUIET


def test_every_target_has_a_module_and_a_corpus() -> None:
    assert targets() == ["partition", "placement", "routing", "plans", "migrations", "readers"]
    for name in targets():
        assert (PACKAGE / "src" / f"{name}.rs").is_file()
        assert list((PACKAGE / "corpus" / name).iterdir())


def test_a_quiet_run_is_told_with_its_figures() -> None:
    run = parsed(QUIET, 0, 60)
    assert described(run) == "1,200 cases in 60 s, 20 a second, 31 MB, nothing found"
    assert not is_failure(run, is_planted=False)
    assert is_failure(run, is_planted=True)


def test_a_panic_is_a_finding() -> None:
    run = parsed(PANIC, 1, 60)
    assert described(run) == "after 1,200 cases, 31 MB: found `count[0] is 9, expected 3: Case`"
    assert is_failure(run, is_planted=False)
    assert not is_failure(run, is_planted=True)


@pytest.mark.parametrize(
    ("log", "code", "finding"),
    [
        ("", 0, "no case was run"),
        ("==7== ERROR: libFuzzer: timeout after 20 seconds\n" + QUIET, 70, "libFuzzer: timeout after 20 seconds"),
        ("==7== ERROR: libFuzzer: out-of-memory (used: 1100Mb)\n", 71, "libFuzzer: out-of-memory (used: 1100Mb)"),
        ("error: could not\n  compile", 101, "ended with exit code 101: error: could not compile"),
    ],
)
def test_every_other_end_is_a_failure(log: str, code: int, finding: str) -> None:
    run = parsed(log, code, 60)
    assert run.finding == finding
    assert is_failure(run, is_planted=False)


def test_a_build_that_fails_has_not_found_what_was_planted() -> None:
    assert is_failure(Run(cases=0, seconds=1, megabytes=0, finding="ended with exit code 101: "), is_planted=True)


@pytest.mark.parametrize("arguments", [["nothing"], ["--seconds", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err
