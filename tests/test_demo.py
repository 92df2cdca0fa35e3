"""The demo, as `make demo` runs it, and the recorded loads that it reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from expert_placement.formats.loads import read_loads
from expert_placement.model_config import read_model_config

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"


def test_the_demo_runs_twice_and_says_where_its_picture_is(tmp_path: Path) -> None:
    outputs = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-W", "error", ROOT / "examples" / "demo.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (result.returncode, result.stderr) == (0, "")
        outputs.append(result.stdout)
        picture = tmp_path / "demo.png"
        assert result.stdout.endswith(f"\nThe picture is in {picture.resolve()}\n")
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert outputs[0] == outputs[1]
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]
    # The last rank of the last case, as the tensors have it.
    assert "local_experts(6) [28, 29, 30, 31]" in outputs[0]
    assert "torch.int32, shape (32,), device cpu" in outputs[0]
    for title in ("mixtral-8x7b on 3 ranks", "olmoe-1b-7b on 6 ranks", "gpt-oss-20b on 7 ranks"):
        assert title in outputs[0]
    # What each command printed, before and after.
    assert "before: linear          0.6188" in outputs[0]
    after = re.search(r"^after: balanced +([0-9.]+) ", outputs[0], flags=re.MULTILINE)
    assert after is not None
    assert float(after[1]) > 0.99
    assert "start: linear partition; 5 plans, each from the last 1 window and for the next" in outputs[0]


@pytest.mark.parametrize(
    ("model", "num_experts", "top_k", "num_layers"),
    [("gpt-oss-20b", 32, 4, 24), ("mixtral-8x7b", 8, 2, 32), ("olmoe-1b-7b", 64, 8, 16)],
)
def test_each_recorded_load_fits_its_model(model: str, num_experts: int, top_k: int, num_layers: int) -> None:
    config = read_model_config(DATA / model)
    assert (config.num_experts, config.top_k, config.num_moe_layers) == (num_experts, top_k, num_layers)
    readme = (DATA / "README.md").read_text()
    for trace in (DATA / model).iterdir():
        if trace.name in ("config.json", "topk_ids.json"):
            continue
        assert f"`{model}/{trace.name}`" in readme
        raw = json.loads(trace.read_text())
        tables = read_loads(trace)
        windows = tables if tables.ndim == 3 else tables[None]
        assert windows.shape[0] == len(raw.get("windows", [trace.stem]))
        for table in windows:
            assert table.shape == (len(raw.get("layers", range(num_layers))), num_experts)
            # Every token picks equally many experts in every layer.
            assert table.sum(axis=1).tolist() == pytest.approx([table[0].sum()] * len(table), rel=1e-5)


def test_the_corpora_hold_the_loads_of_c4() -> None:
    folder = DATA / "olmoe-1b-7b"
    window = json.loads((folder / "corpora.json").read_text())["windows"].index("c4")
    assert read_loads(folder / "corpora.json")[window].tolist() == read_loads(folder / "c4.json").tolist()
