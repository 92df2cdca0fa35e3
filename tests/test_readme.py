"""What the README shows is true: its Python runs, and prints what stands beside it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> tuple[str, dict[str, object]]:
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue(), names


def test_the_first_example_prints_what_stands_below_it() -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    (language, code), (kind, output) = BLOCKS[:2]
    assert (language, kind) == ("python", "text")
    assert run(code)[0] == output


def test_the_other_examples_run() -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    examples = [code for language, code in BLOCKS[1:] if language == "python"]
    assert examples
    for code in examples:
        _, names = run(code)
        p = names["p"]
        assert f"({p.is_uniform}, {p.min_redundant_experts})" in code  # type: ignore[attr-defined]


def test_every_target_named_is_there() -> None:
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (root / link).exists(), link
