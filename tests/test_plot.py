"""Pictures: what is drawn, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from expert_placement.cli.loads import read_loads
from expert_placement.cli.panels import comparison
from expert_placement.plot import Panel, plot_ranks
from matplotlib.figure import Figure
from matplotlib.image import imread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOADS = Path(__file__).parents[1] / "examples" / "data" / "gpt-oss-20b" / "gpqa_diamond.json"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def heights(axes: Axes) -> list[float]:
    return [float(bar.get_height()) for bar in axes.patches]  # type: ignore[attr-defined]


def test_bars_are_the_counts_and_the_relative_loads(tmp_path: Path, drawn: list[Figure]) -> None:
    panels = comparison(read_loads(str(LOADS)), 7)
    plot_ranks(panels, tmp_path / "picture.png", title="a title")
    (figure,) = drawn
    top, bottom = figure.axes[:4], figure.axes[4:]
    assert [heights(axes) for axes in top] == [
        [4, 4, 4, 4, 4, 4, 8],
        [5, 5, 5, 5, 4, 4, 4],
        [5, 5, 5, 5, 4, 4, 4],
        [4, 5, 4, 5, 4, 5, 5],
    ]
    for axes, panel in zip(bottom, panels, strict=True):
        totals = panel.rank_loads.sum(axis=0)
        assert heights(axes) == pytest.approx((totals / totals.mean()).tolist())
        # A dot for each layer and rank, and a line at the mean.
        assert len(axes.collections[0].get_offsets()) == 24 * 7  # type: ignore[arg-type]
        assert axes.lines[0].get_ydata() == [1.0, 1.0]
    assert figure.axes[0].get_title() == "old rule (rest on the last rank)\nbalancedness 0.527"


def test_axes_have_names_with_units_and_the_legend_covers_no_data(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_ranks(comparison(read_loads(str(LOADS)), 7), tmp_path / "picture.png", title="a title")
    (figure,) = drawn
    assert figure.axes[0].get_ylabel() == "experts owned (count)"
    assert figure.axes[4].get_ylabel() == "load / mean rank load (ratio)"
    assert {axes.get_xlabel() for axes in figure.axes[4:]} == {"rank (index)"}
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in figure.axes)  # type: ignore[arg-type]


def test_the_picture_is_large_and_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    plot_ranks(comparison(read_loads(str(LOADS)), 7), path, title="a title")
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 1000
    assert len(np.unique(pixels[::8, ::8].reshape(-1, pixels.shape[2]), axis=0)) > 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 40), (2, 3)])
@pytest.mark.parametrize("load", [0.0, 1.0])
def test_every_shape_is_drawn(tmp_path: Path, shape: tuple[int, int], load: float) -> None:
    panel = Panel("one", [1] * shape[1], np.full(shape, load), 1.0)
    plot_ranks([panel], tmp_path / "picture.svg", title="even")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_panels_that_differ_in_shape_are_refused(tmp_path: Path) -> None:
    panel = Panel("one", [1, 1], np.ones((2, 2)), 1.0)
    for other in (Panel("two", [1], np.ones((2, 2)), 1.0), Panel("two", [1, 1], np.ones((3, 2)), 1.0)):
        with pytest.raises(ValueError, match="panel `two` has"):
            plot_ranks([panel, other], tmp_path / "picture.png", title="")
    with pytest.raises(ValueError, match="panels is empty"):
        plot_ranks([], tmp_path / "picture.png", title="")
    with pytest.raises(ValueError, match="panel `none` has 0 counts"):
        plot_ranks([Panel("none", [], np.ones((2, 0)), 1.0)], tmp_path / "picture.png", title="")
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_one_line_that_names_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from expert_placement.plot import plot_ranks\n"
        "try:\n"
        "    plot_ranks([], 'never.png', title='')\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("plots need `matplotlib")
    assert result.stdout.endswith("pip install 'expert-placement[plot]'\n")
