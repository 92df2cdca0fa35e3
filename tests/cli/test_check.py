"""`expert-placement check` and `expert-placement-spec`: what is run, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from expert_placement.cli import main
from expert_placement_spec import INVARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("torch", reason="tensors need torch")

ROOT = Path(__file__).parents[2]
SMALL = ("--experts", "0..=6", "--ranks", "1..=6", "--samples", "10", "--processes", "1")
MUTANT = "tests.spec.mutants:RestOnLastRank"
REFERENCE = "expert_placement_spec.reference:Partition"


def spec(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "expert_placement_spec", *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def run_package(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "expert_placement.cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def test_all_three_implementations_are_checked_without_other_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *SMALL, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert {row["implementation"] for row in result["exhaustive"]} == {
        "expert_placement_spec.reference:Partition",
        "expert_placement:Partition",
        "expert_placement.conformance:TorchPartition",
    }
    assert result["broken"] == 0
    assert {row["result"] for row in result["exhaustive"]} == {"holds", "not offered", "no cases"}
    assert sum(row["seconds"] for row in result["sampled"]) > 0


def test_a_broken_implementation_ends_with_1_and_a_call_to_paste(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *SMALL, "--implementation", MUTANT]) == 1
    output = capfd.readouterr().out
    assert (
        f'counterexample: expert_placement_spec.evaluate("{MUTANT}", "balanced_within_one", num_experts=2, '
        'num_ranks=3, strategy="linear", r=2, s=0)\n'
    ) in output
    assert "\x1b" not in output


def test_the_json_of_a_broken_implementation_holds_the_counterexample() -> None:
    result = spec("check", *SMALL, "--implementation", MUTANT, "--json")
    assert result.returncode == 1
    rows = {row["invariant"]: row for row in json.loads(result.stdout)["exhaustive"]}
    example = rows["balanced_within_one"]["counterexample"]
    assert (example["num_experts"], example["num_ranks"], example["r"], example["s"]) == (2, 3, 2, 0)


def test_each_counterexample_is_printed_once_and_is_the_smallest_of_both_parts() -> None:
    result = spec("check", *SMALL[:4], "--samples", "100", "--processes", "1", "--implementation", MUTANT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("counterexample: ")]
    laws = [line.split('"')[3] for line in lines]
    assert len(laws) == len(set(laws)) > 5
    assert result.stdout.splitlines()[-1].endswith(f", {len(laws)} broken")
    rows = json.loads(
        spec("check", *SMALL[:4], "--samples", "100", "--processes", "1", "--implementation", MUTANT, "--json").stdout
    )
    assert rows["broken"] == len(laws)
    # Both parts find the same, and each keeps its own.
    calls = {
        part: {row["invariant"]: row["counterexample"]["call"] for row in rows[part] if row["result"] == "broken"}
        for part in ("exhaustive", "sampled")
    }
    assert set(calls["exhaustive"]) & set(calls["sampled"])
    assert {line.removeprefix("counterexample: ") for line in lines} <= {
        *calls["exhaustive"].values(),
        *calls["sampled"].values(),
    }


MISSPELT = ("--implementation", "tests.spec.odd:Misspelt")
NOT_OFFERED = "not offered: expert_map (9 invariants of tests.spec.odd:Misspelt"


def test_what_is_not_offered_is_named_at_the_end_and_fails_where_it_is_required() -> None:
    result = spec("check", *SMALL, *MISSPELT)
    *_, lacking, summary = result.stdout.splitlines()
    assert (result.returncode, lacking) == (0, f"{NOT_OFFERED})")
    assert summary.endswith(" cases, 0 broken, 9 not offered")
    for required, number in (("all", 9), ("maps", 6), ("uniform_when_divisible", 1)):
        result = spec("check", *SMALL, *MISSPELT, "--require", required)
        assert (result.returncode, result.stdout.splitlines()[-2]) == (1, f"{NOT_OFFERED}, {number} required)")
    assert spec("check", *SMALL, *MISSPELT, "--require", "offsets", "--require", "rule_holds").returncode == 2
    assert spec("check", *SMALL, *MISSPELT, "--require", "offsets", "--require", "contiguous").returncode == 0


def test_the_json_holds_what_is_not_offered() -> None:
    result = spec("check", *SMALL, *MISSPELT, "--require", "maps", "--json")
    assert result.returncode == 1
    parsed = json.loads(result.stdout)
    (lacking,) = parsed["not_offered"]
    assert (lacking["implementation"], lacking["missing"]) == ("tests.spec.odd:Misspelt", ["expert_map"])
    others = {"wrong_ids_are_refused", "uniform_when_divisible", "maps_are_fresh"}
    assert set(lacking["invariants"]) - set(lacking["required"]) == others
    rows = {row["invariant"]: row for row in parsed["exhaustive"]}
    assert rows["map_has_one_owner"]["missing"] == ["expert_map"]
    assert "missing" not in rows["contiguous"]


def test_everything_is_offered_by_the_package_and_the_model() -> None:
    names = ("--implementation", "expert_placement:Partition", "--implementation", REFERENCE)
    result = spec("check", *SMALL, *names, "--require", "all")
    assert (result.returncode, "not offered" in result.stdout) == (0, False)


def test_other_chapters_name_and_require_what_is_not_offered() -> None:
    chapter = ("check", "--chapter", "placement", "--domain", "quick", "--samples", "1", "--processes", "1")
    only_tables = ("--implementation", "tests.spec.test_chapters:OnlyTables")
    result = spec(*chapter, *only_tables)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-2].startswith("not offered: ")
    assert "Placement.replica_counts, " in result.stdout.splitlines()[-2]
    for required in ("all", "load_is_conserved"):
        result = spec(*chapter, *only_tables, "--require", required)
        assert (result.returncode, "required)" in result.stdout.splitlines()[-2]) == (1, True)
    assert spec(*chapter, *only_tables, "--require", "table_is_kept").returncode == 0
    result = spec(*chapter, *only_tables, "--require", "maps")
    message = "error: require=`maps` is unknown, expected all or the name of an invariant\n"
    assert (result.returncode, result.stderr) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--require", "everything"),
            "error: require=`everything` is unknown, expected all, tables, scalars, lists, offsets, maps, arguments, "
            "shared, fresh, defaults, uniform, errors or the name of an invariant",
        ),
        (("--experts", "5"), "error: experts=`5` is no range, expected the form `0..=128`"),
        (("--ranks", "0..=5"), "error: ranks=`0..=5` is out of range, expected bounds in 1..=65536"),
        (("--experts", "9..=5"), "error: experts=`9..=5` is out of range"),
        (
            ("--strategy", "ring"),
            "error: strategy=`ring` is unknown, expected one of linear, round_robin, proportional",
        ),
        (("--implementation", "expert_placement:Nothing"), "error: implementation `expert_placement:Nothing`"),
        (("--wide", "x"), "error: wide=`x` is out of range, expected an integer in 1..=2147483647\n"),
        (("--alone", "0"), "error: alone=`0` is out of range, expected an integer in 1..=2147483647\n"),
        (("--samples", "-1"), "error: samples=`-1` is out of range, expected an integer in 0..=2147483647\n"),
        (("--processes", "1.5"), "error: processes=`1.5` is out of range, expected an integer in 1..=1024\n"),
        (
            ("--processes", "1" + "0" * 30),
            f"error: processes=`1{'0' * 30}` is out of range, expected an integer in 1..=1024\n",
        ),
        (
            ("--experts", f"0..={'9' * 5000}"),
            f"error: experts=`0..={'9' * 96}...` is out of range, expected bounds in 0",
        ),
        (("--experts", "0..=65537"), "error: experts=`0..=65537` is out of range, expected bounds in 0..=65536"),
        (("--implementation", "\x1b[31m:x"), "error: implementation `\\x1b[31m:x`"),
        (("--nonsense",), "error: No such option: --nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    error = capfd.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    result = spec("check", *arguments)
    assert (result.returncode, result.stderr) == (2, error)


@pytest.mark.parametrize("program", [spec, run_package], ids=["spec", "package"])
def test_a_worker_that_dies_is_one_line_that_names_its_work_and_2(
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Whichever of the partitions is being asked when the first worker dies, its strategy and shapes are named."""
    domain = ("--experts", "0..=6", "--ranks", "1..=6", "--samples", "0", "--processes", "2")
    result = program("check", *domain, "--implementation", "tests.spec.odd:EndsWorkers")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(
        "error: a worker process ended with exit code 0 while it checked implementation `tests.spec.odd:EndsWorkers`, "
        "strategy "
    )
    assert "scope alone, E in 0..=6, R in 1..=6 (42 partitions)" in result.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_an_implementation_prints_and_raises_leaves_results_readable(processes: str) -> None:
    domain = ("--experts", "0..=4", "--ranks", "1..=4", "--samples", "2", "--processes", processes)
    result = spec("check", *domain, "--implementation", "tests.spec.odd:Noisy")
    assert result.returncode == 1
    assert "a line" not in result.stdout
    assert "a line on standard output" in result.stderr
    assert "# RuntimeError: half a pair: \\ud800, and an escape: \\x1b[31m!!!" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 1500
    result = spec("check", *domain, "--implementation", "tests.spec.odd:Noisy", "--json")
    assert json.loads(result.stdout)["broken"] == 1


def test_no_command_prints_the_help_and_is_bad_usage() -> None:
    result = spec()
    assert (result.returncode, result.stderr) == (2, "")
    assert all(command in result.stdout for command in ("check", "prove", "list"))


def test_an_interrupt_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "expert_placement_spec", "check", "--processes", "2", "--samples", "0"]
    process = subprocess.Popen(
        [*command, "--implementation", "tests.spec.odd:Marking"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"MARKS": str(tmp_path)},
        start_new_session=True,
    )
    # Until both workers are at work: before, they are on their way through imports.
    while process.poll() is None and len({path.name for path in tmp_path.iterdir()} - {str(process.pid)}) < 2:
        time.sleep(0.1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in error
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    pytest.fail("a worker outlived the run")


PROGRAMS = {
    "expert-placement-spec": (
        "expert_placement_spec",
        [("list",), ("--help",), ("prove", "--invariant", "ends_meet", "--json"), ("check", *SMALL)],
    ),
    "expert-placement": ("expert_placement.cli", [("check", "--help"), ("check", *SMALL, "--implementation", MUTANT)]),
}
RUNS = [
    pytest.param([sys.executable, "-m", module, *arguments], id=" ".join((program, *arguments[:2])))
    for program, (module, runs) in PROGRAMS.items()
    for arguments in runs
]
# The interpreter writes what is left only on its way out, unless the environment says otherwise.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("command", RUNS)
def test_a_reader_that_goes_away_ends_the_run_quietly(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=BUFFERED) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", RUNS)
def test_a_full_disk_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, env=BUFFERED, check=False, timeout=60
        )
    assert (result.returncode, result.stderr) == (2, b"error: no space left on device\n")


def test_a_closed_output_is_one_line() -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "expert_placement_spec", "list"]
    result = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (2, b"error: standard output is closed\n")


def test_every_invariant_is_listed() -> None:
    output = spec("list").stdout
    assert all(f" {law.name} " in output and law.sentence in output for law in INVARIANTS.values())


@pytest.mark.parametrize("command", ["check", "prove", "list"])
def test_the_help_says_nothing_of_types_of_flags(command: str) -> None:
    output = spec(command, "--help").stdout
    assert "--help" in output
    assert "<bool>" not in output


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("expert_placement_spec", "`check` needs the specification: pip install expert-placement-spec"),
        ("torch", "`check` needs torch: pip install 'expert-placement[torch]'"),
    ],
)
def test_what_is_not_installed_is_named(missing: str, message: str) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        f"sys.modules[{missing!r}] = None; u.find_spec = lambda name: None if name == {missing!r} else find(name); "
        "from expert_placement.cli import main; sys.exit(main(['check']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")


def test_routing_is_checked_of_the_model_and_of_both_implementations_for_the_cpu(
    capfd: pytest.CaptureFixture[str],
) -> None:
    few = ("--domain", "quick", "--samples", "8", "--processes", "1", "--require", "all")
    assert main(["check", "--chapter", "routing", *few, "--json"]) == 0
    conformance = "expert_placement.conformance"
    expected = {"expert_placement_spec.model", f"{conformance}:RustRouting", f"{conformance}:TorchRouting"}
    assert {row["implementation"] for row in json.loads(capfd.readouterr().out)["exhaustive"]} == expected
