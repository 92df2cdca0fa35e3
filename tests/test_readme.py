"""What the README shows is true: its Python runs, and prints what stands beside it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> tuple[str, dict[str, object]]:
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue(), names


def test_the_rust_examples_are_those_of_the_crate_which_are_run_with_its_documentation() -> None:
    crate = (Path(__file__).parents[1] / "rust/expert-placement/README.md").read_text(encoding="utf-8")
    examples = [f"```rust\n{code}```" for language, code in BLOCKS if language == "rust"]
    assert examples
    assert all(example in crate for example in examples)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "spec/SPEC.md", "spec/README.md"])
def test_no_figure_is_left_to_be_filled_in(name: str) -> None:
    assert not re.search(r"@[A-Z0-9]+@", (Path(__file__).parents[1] / name).read_text(encoding="utf-8"))


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
    assert printed == 3


def test_commands_print_what_stands_below_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="placements need torch")
    from expert_placement.cli import main

    monkeypatch.chdir(Path(__file__).parents[1])
    shown = [code for (language, code), (kind, _) in pairwise(BLOCKS) if language == "sh" and kind == "text"]
    outputs = [output for (language, _), (kind, output) in pairwise(BLOCKS) if language == "sh" and kind == "text"]
    assert shown
    for code, output in zip(shown, outputs, strict=True):
        program, *arguments = shlex.split(code.replace("\\\n", " "))
        assert program == "expert-placement"
        assert main(arguments) == 0
        # The text may stop before the output does, at the end of a line.
        assert capsys.readouterr().out.startswith(output)


def test_commands_run_in_order_as_they_stand(tmp_path: Path) -> None:
    """Domain: every block of shell that calls the program, pasted one after the other into a shell in a new folder."""
    for extra in ("torch", "typer", "matplotlib"):
        pytest.importorskip(extra, reason="the commands need the extras [torch,cli,plot]")
    root = Path(__file__).parents[1]
    (tmp_path / "examples").symlink_to(root / "examples")
    program = tmp_path / "bin" / "expert-placement"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m expert_placement.cli "$@"\n')
    program.chmod(0o755)
    blocks = [code for language, code in BLOCKS if language == "sh" and code.split()[0] != "pip"]
    # A GPU is not everywhere.
    script = "".join(
        code for code in blocks if re.search(r"^expert-placement ", code, flags=re.MULTILINE) and "cuda" not in code
    )
    assert script.count("\nexpert-placement ") >= 9
    result = subprocess.run(
        ["sh", "-eu"],
        input=script,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
        check=False,
        timeout=1200,
    )
    assert (result.returncode, result.stderr) == (0, "")
    written = {"plan.json", "next.json", "moves.png", "location.json", "eplb.yaml"}
    assert {path.name for path in tmp_path.iterdir()} == written | {"examples", "bin"}


def test_every_option_named_is_there() -> None:
    """What the commands name is in the help of their command."""
    pytest.importorskip("typer", reason="the command line needs typer")
    from expert_placement.cli.app import app
    from typer.main import get_command

    commands: Any = get_command(app)
    lines = [line for language, code in BLOCKS if language == "sh" for line in code.replace("\\\n", " ").splitlines()]
    for line in lines:
        program, _, rest = line.partition(" ")
        if program != "expert-placement":
            continue
        name, *arguments = shlex.split(rest, comments=True)
        command = commands.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known or name == "check", line


def test_every_target_named_is_there() -> None:
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (root / link).exists(), link
