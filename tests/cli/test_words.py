"""The words that `main` is called with from Python, and those that it writes."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer
from expert_placement.cli import convert, main, words
from expert_placement.cli.errors import Refused, refusing
from expert_placement.formats import FORMATS

from tests.cli.running import Shell, write

if TYPE_CHECKING:
    from pathlib import Path


def test_words_that_are_no_texts_are_refused_by_their_places() -> None:
    odd: Any
    for odd, message in (
        (3, "arguments must be a sequence of texts, got `int`"),
        ("show", "arguments must be a sequence of texts, got `str`"),
        ({"show": 1}, "arguments must be a sequence of texts, got `dict`"),
        (["show", 3], r"arguments\[1\] must be a str, got `int`"),
    ):
        with pytest.raises(TypeError, match=f"^{message}$"):
            main(odd)
    with pytest.raises(ValueError, match=r"^arguments has more than 65536 words, expected fewer$"):
        main(itertools.repeat("show"))  # type: ignore[arg-type]


def test_what_is_said_of_a_long_word_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x" * 10**6]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No such command")
    assert len(said) <= 1000


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (1.5, "1.5000"), (2e-4, "0.0002"), (3e15, "3e+15")]
)
def test_amounts_have_five_digits_or_their_whole_part(value: float, text: str) -> None:
    assert words.amount(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2.5e9, "2.5 GB"), (1e15, "1 PB"), (5e17, "500 PB")]
)
def test_bytes_have_the_unit_that_suits_them(count: float, text: str) -> None:
    assert words.bytes_as_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (2, "2 s"), (0.25, "250 ms"), (3e-6, "3 us"), (4e-9, "4 ns")]
)
def test_times_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert words.seconds_as_text(seconds) == text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, typer.Abort])
def test_an_interrupted_command_ends_with_130(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr("expert_placement.cli.app.typer.main.get_command", lambda _: SimpleNamespace(main=interrupted))
    assert main(["show"]) == 130


def test_without_standard_output_a_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["show"]) == 2
    assert capsys.readouterr().err == "error: standard output is closed\n"


def test_a_missing_part_of_the_package_is_no_fault_of_the_input() -> None:
    with pytest.raises(ModuleNotFoundError), refusing():
        raise ModuleNotFoundError("No module named 'expert_placement.x'", name="expert_placement.x")
    with pytest.raises(Refused, match="pip install"), refusing():
        raise ModuleNotFoundError("plots need matplotlib: pip install matplotlib")


def test_formats_are_completed() -> None:
    assert convert._complete_format("") == list(FORMATS)
    assert convert._complete_format("vll") == ["vllm_ascend"]


def test_the_middle_of_many_ranks_is_left_out(shell: Shell, tmp_path: Path) -> None:
    loads = write(tmp_path / "loads.json", [[1e16 if expert == 3 else 2e15 for expert in range(128)]])
    text = shell.text("show", "--experts", 128, "--ranks", 64, "--loads", loads)
    assert "more ranks, all of them with --json" in text
    assert "1.2e+16" in text
    text = shell.text("show", "--experts", 1500, "--ranks", 1000, "--strategy", "proportional")
    assert re.search(r"[.]{3} +[.]{3} +\d+ more ranks, all of them with --json", text)
    planned = shell.text("plan", "--loads", loads, "--ranks", 64, "--slots", 128)
    assert "16 more ranks, all of them with --json" in planned


def test_many_experts_in_turn_are_shortened(shell: Shell) -> None:
    assert "0, 2, .. 198" in shell.text("show", "--experts", 200, "--ranks", 2, "--strategy", "round_robin")
