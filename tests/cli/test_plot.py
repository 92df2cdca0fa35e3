"""`expert-placement plot`: that each picture shows what the library plans, and that wrong input is one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="placements need torch")

import expert_placement.plot
from expert_placement import Placement, Topology, rebalance
from matplotlib.image import imread

from tests.cli.running import GPT_OSS, OLMOE, program, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from expert_placement.plot import Curve, Panel

    from tests.cli.running import Shell

LOADS = np.random.default_rng(5).integers(1, 100, (3, 2, 12))


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    return write(tmp_path / "windows.json", LOADS.tolist())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Any], dict[str, Any]]]:
    """What is handed to the pictures, which are drawn all the same."""
    calls: list[tuple[Sequence[Any], dict[str, Any]]] = []
    for name in ("plot_ranks", "plot_curves"):
        original = getattr(expert_placement.plot, name)

        def keep(shown: Sequence[Any], path: str, original: Any = original, **how: Any) -> None:
            calls.append((shown, how))
            original(shown, path, **how)

        monkeypatch.setattr(expert_placement.plot, name, keep)
    return calls


def assert_a_picture(path: Path) -> None:
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 800
    assert len(np.unique(pixels[::8, ::8].reshape(-1, pixels.shape[2]), axis=0)) > 20


@pytest.mark.parametrize(("picture", "rows"), [("ranks", ("loads",)), ("layers", ("layers",))])
def test_ranks_and_layers_show_before_and_after(
    shell: Shell, tmp_path: Path, drawn: list[tuple[Sequence[Panel], dict[str, Any]]], picture: str, rows: tuple[str]
) -> None:
    path = tmp_path / "picture.png"
    lines = shell.lines("plot", picture, "--loads", GPT_OSS, "--ranks", 8, "--redundant", 8, "--output", path)
    assert_a_picture(path)
    ((panels, how),) = drawn
    assert [panel.name for panel in panels] == ["before: linear", "after: balanced"]
    assert (how["title"], how["rows"]) == ("24 layers of 32 experts in 40 slots on 8 ranks", rows)
    assert [panel.counts for panel in panels] == [[4] * 8, [5] * 8]
    assert panels[0].rank_loads.shape == (24, 8)
    # Both carry the same load.
    np.testing.assert_allclose(*(panel.rank_loads.sum(axis=1) for panel in panels))
    assert lines[-1] == f"The picture is in `{path}`."
    assert lines[2] == f"balancedness {panels[0].balancedness:.4f} before, {panels[1].balancedness:.4f} after: balanced"
    shown = shell.fields("plot", picture, "--loads", GPT_OSS, "--ranks", 8, "--redundant", 8, "--output", path)
    assert shown["rank_times"]["after"] == panels[1].rank_loads.tolist()
    assert (shown["picture"], shown["output"]) == (picture, str(path))


def test_times_are_drawn_where_ranks_have_speeds_and_means_are_over_those_in_service(
    shell: Shell, windows: Path, tmp_path: Path, drawn: list[tuple[Sequence[Panel], dict[str, Any]]]
) -> None:
    ranks = ("--ranks", 3, "--slots", 18, "--speeds", "2,1,1", "--inactive", 2)
    shell.text("plot", "ranks", "--loads", windows, *ranks, "--output", tmp_path / "picture.svg")
    ((panels, _),) = drawn
    for panel in panels:
        totals = LOADS.sum(axis=(0, 2))
        np.testing.assert_allclose(panel.rank_loads @ [2, 1, 1], totals)
        np.testing.assert_allclose(panel.means, totals / 3)  # type: ignore[arg-type]
        assert panel.rank_loads[:, 2].tolist() == [0, 0]


def test_moves_are_a_curve_from_what_is_there_to_the_best_plan(
    shell: Shell, windows: Path, tmp_path: Path, drawn: list[tuple[Sequence[Curve], dict[str, Any]]]
) -> None:
    file, path = tmp_path / "start.json", tmp_path / "picture.png"
    start = rebalance(LOADS[2], 16, Topology(4))
    start.save(file)
    lines = shell.lines("plot", "moves", "--loads", windows, "--previous", file, "--output", path)
    assert_a_picture(path)
    ((curves, how),) = drawn
    names = ["balanced, planned for", "balanced, next window", "deepseek, planned for", "deepseek, next window"]
    assert [curve.name for curve in curves] == [*names, "upper bound"]
    assert how["x_label"] == "experts that come to a rank (count)"
    planned, later = curves[:2]
    whole = rebalance(LOADS[:-1], 16, Topology(4), previous=start)
    assert (planned.x[0], planned.y[0], later.y[0]) == (
        0,
        start.balancedness(LOADS[:-1]),
        start.balancedness(LOADS[-1]),
    )
    assert (planned.x[-1], planned.y[-1]) == (sum(whole.moves_from(start)), whole.balancedness(LOADS[:-1]))
    assert list(planned.x) == sorted(planned.x)
    assert list(planned.y) == sorted(planned.y)
    assert [len(curve.x) for curve in curves[2:4]] == [1, 1]
    field = rebalance(LOADS[:-1], 16, Topology(4), "deepseek", previous=start)
    assert curves[3].y[0] == pytest.approx(field.balancedness(LOADS[-1]))
    assert lines[3].split("   ")[0] == "policy"
    assert sum(line.startswith("balanced ") for line in lines) == len(planned.x)


def test_lost_ranks_need_some_moves_whatever_the_budget(
    shell: Shell, windows: Path, tmp_path: Path, drawn: list[tuple[Sequence[Curve], dict[str, Any]]]
) -> None:
    file = tmp_path / "start.json"
    row = [3 * rank + slot if slot < 3 else -1 for rank in range(4) for slot in range(6)]
    Placement.from_physical_to_logical([row] * 2, num_experts=12, topology=Topology(4)).save(file)
    arguments = ("--loads", windows, "--previous", file, "--inactive", 1, "--policy", "balanced")
    shell.text("plot", "moves", *arguments, "--output", tmp_path / "picture.svg")
    ((curves, _),) = drawn
    assert curves[0].x[0] == 6


def test_slots_are_a_curve_a_policy_under_a_bound(
    shell: Shell, tmp_path: Path, drawn: list[tuple[Sequence[Curve], dict[str, Any]]]
) -> None:
    path = tmp_path / "picture.png"
    arguments = ("plot", "slots", "--loads", OLMOE, "--ranks", 6, "--redundant", 40, "--output", path)
    lines = shell.lines(*arguments)
    assert_a_picture(path)
    ((curves, how),) = drawn
    assert [curve.name for curve in curves] == ["balanced", "deepseek", "upper bound"]
    # Without redundant slots, in steps that the ranks share evenly, and as many as were asked for.
    assert curves[0].x == [0, 2, 8, 14, 20, 26, 32, 38, 40]
    assert curves[1].x == [2, 8, 14, 20, 26, 32, 38]
    assert all(low <= high + 1e-12 for low, high in zip(curves[0].y, curves[2].y, strict=True))
    assert how["title"] == "Balance against redundant slots: 3 layers of 64 experts on 6 ranks"
    assert "deepseek is left out where it can not plan: num_slots=104 does not divide by num_ranks=6" in lines[2]
    shown = shell.fields(*arguments)
    assert [point["num_slots"] - 64 for point in shown["points"] if point["policy"] == "balanced"] == curves[0].x
    only = shell.fields(*arguments, "--policy", "balanced")
    assert only["points"] == [point for point in shown["points"] if point["policy"] == "balanced"]


def test_many_slots_are_thinned_out_to_both_ends(shell: Shell, windows: Path, tmp_path: Path) -> None:
    arguments = ("plot", "slots", "--loads", windows, "--ranks", 1, "--redundant", 90, "--policy", "balanced")
    points = shell.fields(*arguments, "--output", tmp_path / "picture.svg")["points"]
    assert (points[0]["num_slots"], points[-1]["num_slots"], len(points)) == (12, 102, 16)
    assert points[0]["balancedness_next"] == 1.0


@pytest.mark.parametrize("suffix", ["svg", "pdf", "PNG"])
def test_the_suffix_says_the_format(shell: Shell, windows: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    shell.text("plot", "ranks", "--loads", windows, "--ranks", 2, "--slots", 12, "--output", path)
    begins = {"svg": b"<?xml", "pdf": b"%PDF", "PNG": b"\x89PNG"}
    assert path.read_bytes().startswith(begins[suffix])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("what --output x.png", "picture=`what` is unknown, expected one of `ranks`, `layers`, `moves`, `slots`"),
        ("ranks --output x.qqq", "output=`x.qqq` is of no known format, expected a name in .png, .svg, .pdf"),
        ("ranks --output x", "output=`x` is of no known format, expected a name in .png, .svg, .pdf"),
        ("ranks --output /nowhere/x.png", "`/nowhere/x.png`: no such file or directory"),
        (
            "moves --output x.png --max-moves 3",
            "the picture `moves` has no use for --max-moves, --min-gain and --max-off-node",
        ),
        (
            "slots --output x.png --min-gain 3",
            "the picture `slots` has no use for --max-moves, --min-gain and --max-off-node",
        ),
        (
            "slots --output x.png --slots-per-rank 6",
            "the picture `slots` varies the number of slots, expected --slots or --redundant for the most, and neither "
            "--previous nor --slots-per-rank",
        ),
        ("moves --output x.png --policy x", "policy=`x` is unknown, expected one of `balanced`, `deepseek`"),
        (
            "slots --output x.png --groups 13",
            "num_groups=13 is out of range, expected 1..=12: a group has at least one expert",
        ),
    ],
)
def test_wrong_arguments_are_one_line(shell: Shell, windows: Path, arguments: str, message: str) -> None:
    sizes = ("--ranks", 2) if "slots-per-rank" in arguments else ("--ranks", 2, "--slots", 12)
    assert shell.refused("plot", *arguments.split(), "--loads", windows, *sizes) == message


def test_usage_without_a_picture_or_a_file_is_one_line(shell: Shell, windows: Path) -> None:
    sizes = ("--loads", windows, "--ranks", 2, "--slots", 12)
    assert "PICTURE" in shell.refused("plot", *sizes, "--output", "x.png")
    assert "--output" in shell.refused("plot", "ranks", *sizes)


def test_a_missing_extra_is_one_line_that_names_it() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name: None if name == 'matplotlib' else find(name); "
        "from expert_placement.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ("plot", "ranks", "--loads", str(OLMOE), "--ranks", "4", "--slots", "64", "--output", "never.png")
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    message = "error: `plot` needs matplotlib: pip install 'expert-placement[plot]'\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)


def test_help_names_the_pictures() -> None:
    text = " ".join(program("plot", "--help").stdout.split())
    for picture in ("ranks", "layers", "moves", "slots"):
        assert f" {picture} " in text
