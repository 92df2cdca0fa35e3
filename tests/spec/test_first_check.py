"""The first check that the specification's README shows prints what stands below it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "spec" / "README.md").read_text(encoding="utf-8")


def test_the_first_check_prints_what_stands_below_it(tmp_path: Path) -> None:
    section = README.partition("## A first check\n")[2].partition("\n## ")[0]
    engine, command, output = re.findall(r"^```(?:python|sh|text)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_engine.py").write_text(engine, encoding="utf-8")
    program, *arguments = shlex.split(command)
    assert program == "expert-placement-spec"
    run = [sys.executable, "-m", "expert_placement_spec", *arguments]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.endswith(output)
    assert ended.stdout.count("counterexample: ") == output.count("counterexample: ") > 0
