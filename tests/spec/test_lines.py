"""Programs that answer line by line: right ones hold, wrong ones break laws, broken ones end a check with one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import expert_placement_spec
import pytest
from expert_placement_spec import CHAPTERS, INVARIANTS, Domain, Workers, case_check, check, evaluate, evaluate_case
from expert_placement_spec.command import run_arguments
from expert_placement_spec.commands import check as check_command
from expert_placement_spec.commands.profiles import PROFILES
from expert_placement_spec.lines.command import BrokenProgramError, named
from expert_placement_spec.lines.program import Program, close_all
from expert_placement_spec.lines.protocol import OFFERS, NotOfTheProtocolError, decoded, encoded, number
from expert_placement_spec.sampled import sample

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "spec" / "PROTOCOL.md"
SMALL = Domain(range(7), range(1, 5), wide=6)
CRATE = shutil.which("cargo") is not None


def answering(way: str, *arguments: str) -> str:
    """The name of the program that answers in this way."""
    return named(shlex.join([sys.executable, "-S", str(Path(__file__).with_name("answering.py")), way, *arguments]))


def hello_with(*offers: str) -> str:
    """The name of a program that offers this and answers nothing else."""
    line = json.dumps({"id": 0, "answer": {"protocol": 1, "offers": offers}})
    return named(f"sh -c 'read question; echo '\\''{line}'\\''; read question'")


def found_by(name: str, timeout: float = 20) -> dict[str, expert_placement_spec.Outcome]:
    outcomes = check([name], SMALL, workers=Workers(timeout=timeout))
    return {one.invariant: one for one in outcomes}


@cache
def crate() -> str:
    """The crate's own program, built."""
    build = ["cargo", "build", "--locked", "--profile", "test", "--package", "expert-placement"]
    build += ["--example", "conformance", "--message-format", "json"]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert result.returncode == 0, result.stderr
    messages = map(json.loads, result.stdout.splitlines())
    made = [one["executable"] for one in messages if one.get("target", {}).get("name") == "conformance"]
    return named(shlex.quote(made[-1]))


@pytest.fixture(autouse=True)
def _programs_end() -> Any:
    yield
    close_all()


# Right ones.


def test_a_program_that_answers_right_breaks_nothing() -> None:
    """Domain: E in 0..=6, R in 1..=4, all strategies; and 60 points of each law up to the limits."""
    outcomes = found_by(answering("right"))
    assert [one.counterexample for one in outcomes.values() if one.counterexample is not None] == []
    held = {name for name, one in outcomes.items() if one.result == "holds"}
    assert {"contiguous", "owner_inverts", "covers_exactly_once", "growth_changes_one_rank"} <= held
    assert outcomes["offsets_are_prefix_sums"].missing == ("offsets",)
    assert outcomes["ranges_agree_with_scalars"].missing == ("experts",)
    sampled = sample([answering("right")], 60)
    assert [one.counterexample for one in sampled if one.counterexample is not None] == []
    assert all(one.cases for one in sampled)


def test_what_a_program_says_to_standard_error_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = found_by(answering("noisy"))
    assert outcomes["contiguous"].result == "holds"
    assert "warning: a line of noise" in capfd.readouterr().err


def test_the_rule_in_c_breaks_nothing(tmp_path: Path) -> None:
    """Domain: E in 0..=40, R in 1..=16, all strategies; and 100 points of each law up to the limits."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path / "partition"
    source = Path(__file__).with_name("lines_in_c") / "partition.c"
    subprocess.run([compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", program, source], check=True)
    name = named(shlex.quote(str(program)))
    outcomes = check([name], Domain(range(41), range(1, 17), wide=16))
    sampled = sample([name], 100)
    assert [one.counterexample for one in (*outcomes, *sampled) if one.counterexample is not None] == []
    assert {one.invariant for one in outcomes if one.result == "holds"} >= {
        law.name for law in INVARIANTS.values() if law.subject in ("rule", "answers")
    }


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
def test_the_crate_answers_for_partitions() -> None:
    """Domain: E in 0..=10, R in 1..=6, all strategies, everything that is required; 60 points up to the limits."""
    outcomes = check([crate()], Domain(range(11), range(1, 7), wide=10))
    assert {one.invariant for one in outcomes if one.result != "holds"} == {"no_intermediate_out_of_range"}
    assert [one.counterexample for one in sample([crate()], 60) if one.counterexample is not None] == []


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
@pytest.mark.parametrize("chapter", ["balance", "migration"])
def test_the_crate_answers_in_real_sizes(chapter: str) -> None:
    """Domain: the cases of real sizes of the two chapters in which they take few lines."""
    outcomes = case_check.look_at_real(chapter, [crate()])
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert sum(one.result == "holds" for one in outcomes) > 30


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_crate_answers_for_every_chapter(chapter: str) -> None:
    """Domain: 25 random cases of each chapter, the same in every run."""
    outcomes = case_check.sample(chapter, [crate()], 25)
    assert [one.counterexample.call() for one in outcomes if one.counterexample is not None] == []
    assert [one.invariant for one in outcomes if not one.offered] == []
    assert sum(one.cases for one in outcomes) > 500


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
def test_the_crate_offers_everything_that_there_is() -> None:
    program = Program(crate()[2:], 20)
    try:
        assert program.offers == set(OFFERS)
    finally:
        program.close()


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
def test_the_examples_of_the_protocol_are_what_the_crate_says() -> None:
    lines = [line[4:] for line in PROTOCOL.read_text().splitlines() if line.startswith('    {"id"')]
    pairs = [(json.loads(asked), json.loads(told)) for asked, told in zip(lines[::2], lines[1::2], strict=True)]
    assert len(pairs) == 10
    requests = "".join(f"{json.dumps(asked)}\n" for asked, _ in pairs)
    result = subprocess.run(
        shlex.split(crate()[2:]), input=requests, capture_output=True, text=True, check=True, timeout=60
    )
    for (asked, told), line in zip(pairs, result.stdout.splitlines(), strict=True):
        said = json.loads(line)
        if asked["call"] == "hello":
            assert (said["answer"]["protocol"], set(said)) == (told["answer"]["protocol"], set(told))
        elif asked["call"] == "plan_migration":
            assert {name: said["answer"][name] for name in told["answer"]} == told["answer"]
        else:
            assert said == told, asked


def test_every_name_that_can_be_offered_is_in_the_document() -> None:
    text = PROTOCOL.read_text()
    assert [one for one in OFFERS if f"`{one}`" not in text and not one.startswith("plan.")] == []
    assert all(f"`{one.partition('.')[2]}`" in text or f"`{one}`" in text for one in OFFERS)


# Wrong ones: they keep to the protocol, and break laws.


def test_a_wrong_rule_is_found_with_its_smallest_counterexample() -> None:
    broken = found_by(answering("rest-on-last"))["balanced_within_one"].counterexample
    assert broken is not None
    # Two experts over three ranks leave both on the last.
    assert (broken.num_experts, broken.num_ranks, dict(broken.values)) == (2, 3, {"r": 2, "s": 0})
    assert eval(broken.call(), {"expert_placement_spec": expert_placement_spec}) is False
    assert evaluate(answering("right"), "balanced_within_one", num_experts=2, num_ranks=3, r=2, s=0) is True


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("float", "TypeError: partition.count answers with something else than integers"),
        ("bool", "TypeError: partition.count answers with something else than integers"),
        ("text", "TypeError: partition.count answers with something else than integers"),
        ("short", "TypeError: partition.count answers with 0 entries, expected 1"),
        ("refuses", "ValueError: no"),
    ],
)
def test_an_answer_of_another_kind_breaks_a_law(way: str, message: str) -> None:
    broken = found_by(answering(way))["answers_every_query"].counterexample
    assert broken is not None
    assert broken.message == message
    assert (broken.num_experts, broken.num_ranks) == (0, 1)


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
def test_refusals_are_seen_by_their_kind() -> None:
    program = Program(crate()[2:], 20)
    point = {"num_experts": [3], "num_ranks": [2], "strategy": "linear"}
    try:
        with pytest.raises(IndexError, match=r"rank=2 is out of range, expected 0\.\.2"):
            program.ask("partition.count", **point, ranks=[2])
        with pytest.raises(ValueError, match="strategy=`spiral` is unknown"):
            program.ask("partition.count", **{**point, "strategy": "spiral"}, ranks=[0])
        with pytest.raises(TypeError, match=r"call=`partition\.cuont` is unknown"):
            program.ask("partition.cuont")
        assert program.ask("partition.count", **point, ranks=[0]) == [2]
    finally:
        program.close()


SPOILT = {
    "digest_is_the_stated_hash": ("placement", '"answer":"01', '"answer":"02'),
    "wrong_loads_are_refused": ("placement", '"kind":"value"', '"kind":"type"'),
    "wrong_calls_are_refused": ("balance", '"kind":"value"', '"kind":"index"'),
    "batches_cut_the_moves": ("migration", '"batches":[0,', '"batches":[1,'),
    "order_is_stable": ("routing", '"order":[0', '"order":[1'),
}
"""By the law that is broken: the chapter, and what stands in an answer in the place of what."""


@pytest.mark.skipif(not CRATE, reason="there is no cargo")
@pytest.mark.parametrize("law", SPOILT)
def test_a_spoilt_answer_breaks_a_law_of_its_chapter(law: str) -> None:
    """Domain: 25 random cases, whose smallest counterexample can be pasted."""
    chapter, before, after = SPOILT[law]
    script = Path(__file__).with_name("spoiling.py")
    name = named(shlex.join([sys.executable, "-S", str(script), before, after, *shlex.split(crate()[2:])]))
    broken = {one.invariant: one.counterexample for one in case_check.sample(chapter, [name], 25)}
    example = broken[law]
    assert example is not None
    assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False


def test_a_program_that_offers_less_than_a_chapter_needs_says_so() -> None:
    with pytest.raises(ValueError, match="offers no plan_migration"):
        case_check.sample("migration", [answering("right")], 1)
    with pytest.raises(ValueError, match=r"offers no Placement\.physical_to_logical"):
        case_check.sample("placement", [answering("right")], 1)
    with pytest.raises(ValueError, match="offers neither counts, starts"):
        found_by(hello_with("partition.count"))


# Broken ones: they do not keep to the protocol.

FAULTS = {
    "dies": "it ended with exit code 3",
    "killed": "it was ended by SIGKILL",
    "closes": "it closed its standard output",
    "hangs": "it gave no answer within 0.5 seconds",
    "half-a-line": "it gave no answer within 0.5 seconds",
    "endless": "its answer is longer than 67108864 bytes",
    "garbage": "its answer `Segmentation fault` is no JSON",
    "empty": "its answer `` is no JSON",
    "latin": "its answer is no UTF-8 at byte 21",
    "deep": "is no JSON",
    "nan": "is no JSON",
    "repeated": "is no JSON",
    "list": "its answer `[1,2]` is no object of `id` and either `answer` or `error`",
    "other-id": "expected 3",
    "text-id": "its answer has id `3`, expected 3",
    "both": "is no object of `id` and either `answer` or `error`",
    "neither": 'its answer `{"id": 3}` is no object of `id` and either `answer` or `error`',
    "no-message": "its error is no object of `kind` and `message`",
    "twice": "it wrote more than one line",
}


@pytest.mark.parametrize("way", FAULTS)
def test_a_fault_ends_the_check_and_names_the_request(way: str) -> None:
    name = answering(way)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="command `") as caught:
        found_by(name, timeout=20 if way == "endless" else 0.5)
    message = str(caught.value)
    assert FAULTS[way] in message
    assert message.startswith(f"command `{name[2:]}`: it")
    assert 'asked `{"id":3,"call":"partition.' in message
    assert time.monotonic() - begin < 20


def test_a_line_that_was_not_asked_for_is_a_fault_at_the_next_question() -> None:
    program = Program(answering("later")[2:], 20)
    point = {"num_experts": [3], "num_ranks": [2], "strategy": "linear", "ranks": [0]}
    assert program.ask("partition.count", **point) == [2]
    assert program.ask("partition.count", **point) == [2]
    assert program.ask("partition.count", **point) == [2]
    time.sleep(1)
    with pytest.raises(BrokenProgramError, match=r"it said `still here` before it was asked"):
        program.ask("partition.count", **point)


def test_a_line_before_the_greeting_is_a_fault() -> None:
    # Whether it is there before the greeting is written, or comes in the place of its answer, depends on the machine.
    possible = ("it said `good morning` before it was asked", "its answer `good morning` is no", "more than one line")
    with pytest.raises(ValueError, match="|".join(possible)):
        found_by(answering("early"))


def test_a_refusal_of_an_unknown_kind_is_a_fault() -> None:
    program = Program(answering("unknown-kind")[2:], 20)
    point = {"num_experts": [3], "num_ranks": [2], "strategy": "linear", "ranks": [2]}
    with pytest.raises(BrokenProgramError, match="its error has kind `fatal`, expected one of value, index, type"):
        program.ask("partition.count", **point)
    assert program.is_broken
    with pytest.raises(BrokenProgramError):
        program.ask("partition.count", **{**point, "ranks": [0]})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/such/program", "command `/no/such/program` cannot be started: no such file or directory"),
        ("", "command `` is empty, expected a program and its arguments"),
        ("sh 'unclosed", "cannot be split into words: no closing quotation"),
        (answering("at-once")[2:], 'it ended with exit code 4, asked `{"id":0,"call":"hello","protocol":1}`'),
        (answering("other-protocol")[2:], "it speaks protocol `2`, expected 1"),
        (answering("unknown-offer")[2:], "offers `partition.cuont`, expected some of partition.count,"),
    ],
)
def test_a_program_that_cannot_be_asked_says_why(command: str, message: str) -> None:
    with pytest.raises(ValueError, match="command `") as caught:
        found_by(named(command))
    assert message in str(caught.value)


def test_a_fault_is_neither_true_nor_false() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="it ended with exit code 4"):
            evaluate(answering("at-once"), "contiguous", num_experts=3, num_ranks=2)
    with pytest.raises(ValueError, match="it ended with exit code 4"):
        evaluate_case(
            answering("at-once"),
            "table_is_kept",
            num_experts=1,
            table=[[0]],
            topology={"num_ranks": 1},
            loads=[[[1.0]]],
        )


def run_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "expert_placement_spec", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)


SMALLEST = ("--experts", "0..=4", "--ranks", "1..=3", "--wide", "4", "--samples", "0", "--processes", "2")


@pytest.mark.parametrize("way", ["dies", "hangs", "garbage"])
def test_the_command_ends_with_one_line_and_code_two(way: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = run_check("--command", answering(way, str(pids))[2:], "--timeout", "1", *SMALLEST)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: command `")
    assert 'asked `{"id":3,"call":"partition.' in result.stderr
    assert_gone(pids)


def assert_gone(pids: Path) -> None:
    """No process of these is left; one that was killed may take a moment."""
    left = [int(line) for line in pids.read_text().split()]
    assert left
    deadline = time.monotonic() + 20
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if is_running(pid)]
        time.sleep(0.05)
    assert left == []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_program_that_does_not_end_with_its_input_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = run_check("--command", answering("stays", str(pids))[2:], *SMALLEST)
    assert (result.returncode, result.stderr) == (0, "")
    assert_gone(pids)


def test_the_command_prints_a_counterexample_that_can_be_pasted() -> None:
    result = run_check("--command", answering("rest-on-last")[2:], *SMALLEST)
    assert (result.returncode, result.stderr) == (1, "")
    calls = [line for line in result.stdout.splitlines() if line.startswith("counterexample: ")]
    pasted = [line.partition(": ")[2].partition("  # ")[0] for line in calls]
    own = next(one for one in pasted if '"balanced_within_one"' in one)
    assert eval(own, {"expert_placement_spec": expert_placement_spec}) is False


# Lines.


def test_numbers_that_json_has_not_are_written_as_texts_and_read_again() -> None:
    values = [float("nan"), float("inf"), -float("inf"), 1.5, 2**63, -(2**40)]
    line = encoded({"loads": [values]})
    assert line == b'{"loads":[["NaN","Infinity","-Infinity",1.5,9223372036854775808,-1099511627776]]}\n'
    assert str(number(json.loads(line)["loads"])) == str([values])


def test_a_line_is_an_answer_only_as_stated() -> None:
    assert decoded(b'{"id":1,"answer":null}', 1)() is None
    with pytest.raises(IndexError, match=r"^far$"):
        decoded(b'{"id":1,"error":{"kind":"index","message":"far"}}', 1)()
    for line in (b'{"id":true,"answer":1}', b'{"id":1.0,"answer":1}', b'{"id":1,"answer":1,"more":1}', b"null", b"1"):
        with pytest.raises(NotOfTheProtocolError):
            decoded(line, 1)
    with pytest.raises(NotOfTheProtocolError):
        decoded(b'{"id":1,"error":{"kind":[],"message":"far"}}', 1)


# Profiles.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"experts": "0..=128", "ranks": "1..=128", "wide": 256, "alone": None, "samples": 2000}),
        (["--profile", "small"], {"experts": "0..=96", "ranks": "1..=96", "wide": 64, "alone": 32, "samples": 500}),
        (
            ["--profile", "full", "--wide", "256", "--samples", "0", "--experts", "0..=128"],
            {"experts": "0..=128", "ranks": "1..=1024", "wide": 256, "alone": 64, "samples": 0},
        ),
    ],
)
def test_options_that_are_given_win_over_the_profile(
    arguments: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(check_command, "run", lambda names, **options: seen.update(options) or 0)
    assert run_arguments(arguments, [], "check") == 0
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("small", 500)),
        (["--profile", "small"], ("quick", 200)),
        (["--profile", "full", "--domain", "small"], ("small", 3000)),
        (["--profile", "full", "--samples", "7"], ("full", 7)),
    ],
)
def test_other_chapters_have_profiles_too(
    arguments: list[str], expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(check_command, "run_chapter", lambda chapter, names, **options: seen.update(options) or 0)
    assert run_arguments(["--chapter", "routing", *arguments], [], "check") == 0
    assert (seen["domain"], seen["samples"]) == expected


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="profile=`huge` is unknown, expected one of small, full"):
        run_arguments(["--profile", "huge"], [], "check")
    assert set(PROFILES) == {"small", "full"}


def test_the_timeout_reaches_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(check_command, "run", lambda names, **options: seen.update(options, names=names) or 0)
    assert run_arguments(["--command", "./a 'b c'", "--timeout", "3"], ["x:y"], "check") == 0
    assert (seen["names"], seen["timeout"]) == (["$ ./a 'b c'"], 3)
