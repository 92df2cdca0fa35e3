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


def test_examples_run_and_print_what_stands_below_them() -> None:
    pytest.importorskip("torch", reason="tensors need torch")
    printed = 0
    for (language, code), (kind, output) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if language != "python":
            continue
        text, names = run(code)
        if kind == "text":
            assert text == output
            printed += 1
        else:
            p = names["p"]
            assert f"({p.is_uniform}, {p.min_redundant_experts})" in code  # type: ignore[attr-defined]
    assert printed == 2


def test_every_target_named_is_there() -> None:
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (root / link).exists(), link
