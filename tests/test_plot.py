"""Pictures: what is drawn, and what is refused."""

from __future__ import annotations

import itertools
import math
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from expert_placement.cli.loads import read_loads
from expert_placement.cli.panels import comparison
from expert_placement.plot import Curve, Panel, plot_curves, plot_ranks
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

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def assert_large_and_not_blank(path: Path) -> None:
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 800
    assert len(np.unique(pixels[::8, ::8].reshape(-1, pixels.shape[2]), axis=0)) > 20


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
    assert figure.axes[0].get_ylabel() == "experts held (count)"
    assert figure.axes[4].get_ylabel() == "load / mean rank load (ratio)"
    assert {axes.get_xlabel() for axes in figure.axes[4:]} == {"rank (index)"}
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in figure.axes)  # type: ignore[arg-type]


def test_the_picture_is_large_and_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    plot_ranks(comparison(read_loads(str(LOADS)), 7), path, title="a title")
    assert_large_and_not_blank(path)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 40), (2, 3)])
@pytest.mark.parametrize("load", [0.0, 1.0])
def test_every_shape_is_drawn(tmp_path: Path, shape: tuple[int, int], load: float) -> None:
    panel = Panel("one", [1] * shape[1], np.full(shape, load), 1.0)
    plot_ranks([panel], tmp_path / "picture.svg", title="even")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("num_panels", [1, 2, 4])
def test_a_heat_map_has_a_cell_a_layer_and_rank_and_white_at_the_mean(
    tmp_path: Path, drawn: list[Figure], num_panels: int
) -> None:
    panels = comparison(read_loads(str(LOADS)), 7)[:num_panels]
    plot_ranks(panels, tmp_path / "picture.png", title="a title", rows=("layers",))
    (figure,) = drawn
    assert_large_and_not_blank(tmp_path / "picture.png")
    *maps, scale = figure.axes
    for axes, panel in zip(maps, panels, strict=True):
        (image,) = axes.images
        relative = panel.rank_loads / panel.rank_loads.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(image.get_array(), relative)  # type: ignore[arg-type]
        # One scale for all, on which the mean is in the middle.
        np.testing.assert_array_equal(image.norm(np.array([0.0, 1.0])), [0.0, 0.5])
    assert scale.get_ylabel() == "load / mean rank load (ratio)"
    assert maps[0].get_ylabel() == "layer (index)"
    assert not figure.legends


def test_rows_are_drawn_in_the_order_that_is_asked_for(tmp_path: Path, drawn: list[Figure]) -> None:
    panels = comparison(read_loads(str(LOADS)), 7)[:2]
    plot_ranks(panels, tmp_path / "picture.png", title="a title", rows=("layers", "counts", "loads"))
    labels = [axes.get_ylabel() for axes in drawn[0].axes[:6:2]]
    assert labels == ["layer (index)", "experts held (count)", "load / mean rank load (ratio)"]
    for rows in ((), ("nothing",)):
        with pytest.raises(ValueError, match=r"rows=.* is out of range, expected one or more of counts, loads, layers"):
            plot_ranks(panels, tmp_path / "never.png", title="", rows=rows)  # type: ignore[arg-type]


def test_loads_are_drawn_over_the_mean_that_a_panel_names(tmp_path: Path, drawn: list[Figure]) -> None:
    # Two ranks in service and one that is not: the mean is over the two.
    panel = Panel("one", [2, 1, 0], np.array([[3.0, 1.0, 0.0]]), 2 / 3, means=np.array([2.0]))
    plot_ranks([panel], tmp_path / "picture.png", title="", rows=("loads", "layers"))
    bars, cells, _ = drawn[0].axes
    assert heights(bars) == [1.5, 0.5, 0.0]
    assert cells.images[0].get_array().tolist() == [[1.5, 0.5, 0.0]]  # type: ignore[union-attr]


def test_curves_have_colours_of_their_own_and_share_them_where_they_belong_together(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    curves = [
        Curve("first", [0, 1, 2], [0.5, 0.7, 0.8]),
        Curve("first, later", [0, 1, 2], [0.4, 0.6, 0.7], "dashes"),
        Curve("second", [3], [0.6]),
        Curve("bound", [0, 3], [1.0, 1.0], "bound"),
    ]
    path = tmp_path / "picture.png"
    plot_curves(curves, path, title="a title", x_label="moves (count)", y_label="balancedness (ratio)")
    assert_large_and_not_blank(path)
    (figure,) = drawn
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("moves (count)", "balancedness (ratio)")
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == [curve.name for curve in curves]
    assert [list(line.get_ydata()) for line in lines] == [list(curve.y) for curve in curves]  # type: ignore[arg-type]
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1]
    assert len({*colours}) == 3
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", ":"]
    assert not figure.legends[0].get_window_extent().overlaps(axes.get_tightbbox())  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", ["ranks", "curves"])
def test_a_picture_replaces_regular_files_alone_and_keeps_links_and_permissions(tmp_path: Path, draw: str) -> None:
    def plot(path: Path) -> None:
        if draw == "ranks":
            plot_ranks(comparison(read_loads(str(LOADS)), 7), path, title="a title")
        else:
            plot_curves([Curve("a", [1], [2])], path, title="a title", x_label="x", y_label="y")

    pipe, link, file = tmp_path / "pipe.png", tmp_path / "link.png", tmp_path / "file.png"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=re.escape(f"`{pipe}`: this is no regular file, expected one, or a new path")):
        plot(pipe)
    file.touch()
    file.chmod(0o640)
    link.symlink_to(file)
    plot(link)
    assert_large_and_not_blank(file)
    assert (stat.S_ISFIFO(pipe.lstat().st_mode), link.is_symlink()) == (True, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "written", "begins"),
    [
        ("a.svg", "a.svg", b"<?xml"),
        ("a.PDF", "a.PDF", b"%PDF"),
        ("a", "a.png", b"\x89PNG"),
        ("b.", "b.png", b"\x89PNG"),
    ],
)
def test_the_suffix_says_the_format(tmp_path: Path, name: str, written: str, begins: bytes) -> None:
    plot_curves([Curve("a", [1], [2])], tmp_path / name, title="a title", x_label="x", y_label="y")
    (file,) = tmp_path.iterdir()
    assert file.name == written
    assert file.read_bytes().startswith(begins)


def test_curves_without_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="curves is empty"):
        plot_curves([], tmp_path / "picture.png", title="", x_label="", y_label="")
    for curve in (Curve("one", [], []), Curve("one", [1, 2], [1])):
        with pytest.raises(ValueError, match="curve `one` has"):
            plot_curves([curve], tmp_path / "picture.png", title="", x_label="", y_label="")
    assert not list(tmp_path.iterdir())


def test_what_is_no_text_and_no_curve_is_refused_by_name(tmp_path: Path) -> None:
    usual: dict[str, Any] = {"title": "t", "x_label": "x", "y_label": "y"}
    curve, panel, path = Curve("one", [1], [1.0]), Panel("one", [1, 1], np.ones((2, 2)), 1.0), tmp_path / "picture.png"
    for name in usual:
        for wrong in (None, 3, b"t", ["t"], object()):
            with pytest.raises(TypeError, match=rf"^{name} must be a str, got `{type(wrong).__name__}`$"):
                plot_curves([curve], path, **{**usual, name: wrong})
        with pytest.raises(ValueError, match=rf"^{name}=`\\ud800` has half a surrogate pair, expected Unicode text$"):
            plot_curves([curve], path, **{**usual, name: "\ud800"})
    with pytest.raises(TypeError, match=r"^title must be a str, got `int`$"):
        plot_ranks([panel], path, title=3)  # type: ignore[arg-type]
    odd: Any
    for odd, message in (
        (3, "curves must be a sequence of curves, got `int`"),
        ("ab", "curves must be a sequence of curves, got `str`"),
        ([curve, "b"], r"curves\[1\] must be a Curve, got `str`"),
        ([panel], r"curves\[0\] must be a Curve, got `Panel`"),
    ):
        with pytest.raises(TypeError, match=f"^{message}$"):
            plot_curves(odd, path, **usual)
    with pytest.raises(ValueError, match=r"^curves has more than 4096 curves, expected fewer$"):
        plot_curves(itertools.repeat(curve), path, **usual)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^panels\[0\] must be a Panel, got `Curve`$"):
        plot_ranks([curve], path, title="")  # type: ignore[list-item]
    for odd, message in ((None, "rows must be a sequence of names, got `NoneType`"), ([3], r"rows\[0\] must be a str")):
        with pytest.raises(TypeError, match=f"^{message}"):
            plot_ranks([panel], path, title="", rows=odd)
    with pytest.raises(ValueError, match=r"^rows=\['x{40}\.\.\.'\] is out of range"):
        plot_ranks([panel], path, title="", rows=["x" * 10**6])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_a_suffix_that_is_no_picture_is_refused_before_anything_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    with pytest.raises(ValueError, match=r"^path=`.*` has the suffix `json`, expected one of .*png"):
        plot_curves([Curve("one", [1], [1.0])], tmp_path / "p.json", title="", x_label="", y_label="")
    assert not drawn


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank_loads": np.array([[1.0, np.nan]])}, "panel `a`: rank_loads[0, 1]=nan is out of range"),
        ({"rank_loads": np.array([[-1.0, 2.0]])}, "panel `a`: rank_loads[0, 0]=-1 is out of range"),
        ({"means": np.array([np.inf])}, "panel `a`: means[0]=inf is out of range"),
        ({"balancedness": float("nan")}, "panel `a`: balancedness=nan is out of range"),
        ({"counts": (1, -1)}, "panel `a`: counts[1]=-1 is out of range"),
    ],
)
def test_what_can_not_be_drawn_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"name": "a", "counts": (1, 1), "rank_loads": np.array([[1.0, 2.0]]), "balancedness": 0.75}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the beginning of the message is compared
        plot_ranks([Panel(**(given | change))], tmp_path / "a.png", title="a")
    assert str(caught.value) == f"{message}, expected finite numbers of 0 or more"
    assert not (tmp_path / "a.png").exists()


def test_a_curve_through_what_is_no_number_is_refused(tmp_path: Path) -> None:
    for x, y, where in (([1.0, math.nan], [1.0, 2.0], "x[1]=nan"), ([1.0, 2.0], [math.inf, 2.0], "y[0]=inf")):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            plot_curves([Curve("c", x, y)], tmp_path / "a.png", title="a", x_label="x", y_label="y")
        assert str(caught.value) == f"curve `c`: {where} is out of range, expected finite numbers"
