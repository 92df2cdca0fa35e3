"""The package answers what the test vectors say, and its readers reject vectors that say anything else."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the package answers with tensors")

from tests.vectors.reading import READERS, VECTORS, check_torch_partition, flaw, flaws, for_torch, is_for_torch, read
from tests.vectors.spoiling import changed, changes

READS = [pytest.param(name, by, id=f"{name} by {by}") for name, readers in READERS.items() for by in readers]


def test_every_file_has_a_reader() -> None:
    assert sorted(READERS) == sorted(path.stem for path in VECTORS.glob("*.json"))


@pytest.mark.parametrize(("name", "by"), READS)
def test_the_package_answers_what_the_vectors_say(name: str, by: str) -> None:
    """Domain: every case."""
    assert flaws(read(name), READERS[name][by]) == []


def test_the_torch_functions_answer_what_the_vectors_of_partitions_say() -> None:
    """Domain: every case about whole tables and maps, and every one that is refused."""
    cases = [for_torch(case) for case in read("partition")["cases"] if is_for_torch(case)]
    assert len(cases) > 250
    assert [f"{case['id']}: {text}" for case in cases if (text := flaw(case, check_torch_partition))] == []


@pytest.mark.parametrize(("name", "by"), READS)
def test_a_changed_case_is_rejected(name: str, by: str) -> None:
    """Domain: the last number of every field, in three cases that have it; every error, and some results."""
    file, check = read(name), READERS[name][by]
    passed = [f"{case['id']}: {what}" for what, case in changes(file) if not flaw(case, check)]
    assert passed == []
    file["cases"].pop()
    assert flaws(file, check) == ["the number of cases is another"]


def test_a_changed_case_is_rejected_by_the_torch_functions() -> None:
    """Domain: the last number of every field, in every fifth case that they are asked about."""
    cases = [for_torch(case) for case in read("partition")["cases"] if is_for_torch(case) and "expected" in case]
    others = [changed(case, field) for case in cases[::5] for field in case["expected"]]
    spoils = [case for case in others if case is not None]
    assert len(spoils) > 200
    assert all(flaw(case, check_torch_partition) for case in spoils)
