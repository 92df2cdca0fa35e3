"""The words that `main` is called with from Python."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from expert_placement.cli import main


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
