"""Pictures of partitions and placements, and of the load of their ranks. Needs matplotlib, the extra `[plot]`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from typing import Any, Literal

import numpy as np

from expert_placement._arguments import is_a, items_argument, str_argument
from expert_placement._text import excerpt
from expert_placement.formats.files import expect_writable, path_argument, write_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    _Drawn = TypeVar("_Drawn", "Panel", "Curve")

__all__ = ["Curve", "Panel", "Row", "plot_curves", "plot_ranks"]

Row = Literal["counts", "loads", "layers"]
"""What a row of `plot_ranks` shows: experts of each rank, loads of each rank, or loads by layer and rank."""

# From the palette of Okabe and Ito, which people with any colour vision tell apart.
_BAR = "#56B4E9"
_LARGEST = "#D55E00"
_LAYER = "#333333"
_MEAN = "#000000"
# Each curve has a colour and a marker of its own.
_CURVES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
# From blue through white to red, which people with any colour vision tell apart; white is the mean.
_DIVERGING = "RdBu_r"
_INCHES_PER_PANEL = 3.1
_INCHES_PER_ROW = 2.5
_LEAST_INCHES = (8.6, 4.4)
_DOTS_PER_INCH = 200
# Counts are written on the bars of up to this many ranks.
_MAX_LABELS = 16
# How many panels, rows and curves are looked at; what never ends is none of these.
_MOST_DRAWN = 2**12
# Single layers are drawn as dots up to this many dots a panel.
_MAX_DOTS = 4096


@dataclass(frozen=True, slots=True)
class Panel:
    """One way to deal experts to ranks, and what the ranks then carry.

    Attributes:
        name: what stands above the panel.
        counts: experts that each rank holds, int[R].
        rank_loads: the load of each rank in each layer, float64[L, R], finite and never negative.
        balancedness: sum over layers of the mean rank load / sum over layers of the largest rank load.
        means: the load of each rank if all were equally busy, float64[L]. Without it the mean over all ranks; it is
            another where ranks have speeds or are out of service.
    """

    name: str
    counts: Sequence[int]
    rank_loads: npt.NDArray[np.float64]
    balancedness: float
    means: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together, drawn in the order of x.

    Attributes:
        name: what the legend calls it.
        x: float[N], ascending.
        y: float[N].
        style: `line`; `dashes` for one that belongs to the curve before it, in the same colour; or `bound` for what the
            others can not pass, without markers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "dashes", "bound"] = "line"


def plot_ranks(
    panels: Sequence[Panel], path: str | os.PathLike[str], *, title: str, rows: Sequence[Row] = ("counts", "loads")
) -> None:
    """Draws what each rank holds and carries, a column a panel, all on one scale.

    Loads are drawn relative to the mean rank load. The row `counts` has the number of experts of each rank; `loads` has
    bars for the sum over layers and dots for single layers; `layers` is a heat map of layers and ranks.

    Args:
        panels: at least one, all of the same numbers of ranks and layers.
        path: the file; its suffix says which format, PNG without one.
        title: one line above all.
        rows: what is drawn, from top to bottom.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no panels, panels of different shapes, a number that is negative or not finite, no rows or an
            unknown one, a title that is no Unicode, a suffix that matplotlib does not know, or the path of a pipe, a
            device or a socket.
        OSError: the file can not be written.
        TypeError: an argument of another type.
    """
    kind = _figure_class()
    panels, rows, title = _panels(panels), _rows(rows), _label("title", title)
    # A single row is taller, and the legend needs some width, however few panels there are.
    width = max(_INCHES_PER_PANEL * len(panels) + 0.6, _LEAST_INCHES[0])
    figure = _figure(kind, width, max(_INCHES_PER_ROW * len(rows) + 0.6, _LEAST_INCHES[1]))
    suffix = _suffix(figure, path)
    axes = figure.subplots(len(rows), len(panels), sharex=True, sharey="row", squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        if row == "layers":
            _draw_heat_maps(figure, line, panels)
        for place, panel in zip(line, panels, strict=True):
            if row == "counts":
                _draw_counts(place, panel)
            elif row == "loads":
                _draw_loads(place, panel)
        line[0].set_ylabel(_ROW_LABELS[row])
    _finish_ranks(axes, panels)
    figure.suptitle(title, fontweight="bold")
    if handles := _handles(panels[0], rows):
        # Outside of the axes, where there are no data to cover.
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    _save(figure, path, suffix)


def plot_curves(
    curves: Sequence[Curve], path: str | os.PathLike[str], *, title: str, x_label: str, y_label: str
) -> None:
    """Draws curves over one another. A curve of one point is a marker.

    Args:
        curves: at least one, each with at least one point.
        path: the file; its suffix says which format, PNG without one.
        title: one line above all.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no curves, one without points, with x and y of different lengths or with a number that is not
            finite, a title or a label that is no Unicode, a suffix that matplotlib does not know, or the path of a
            pipe, a device or a socket.
        OSError: the file can not be written.
        TypeError: an argument of another type.
    """
    kind = _figure_class()
    title = _label("title", title)
    x_label, y_label = _label("x_label", x_label), _label("y_label", y_label)
    curves = _drawn("curves", curves, Curve)
    figure = _figure(kind, 8, 5)
    suffix = _suffix(figure, path)
    for curve in curves:
        if len(curve.x) != len(curve.y) or not curve.x:
            raise ValueError(
                f"curve `{curve.name}` has {len(curve.x)} x and {len(curve.y)} y, expected equally many, 1 or more"
            )
        _expect_finite(f"curve `{curve.name}`: x", curve.x)
        _expect_finite(f"curve `{curve.name}`: y", curve.y)
    axes = figure.subplots()
    styles = cycle(_CURVES)
    colour, marker = _CURVES[0]
    for curve in curves:
        if curve.style == "bound":
            axes.plot(curve.x, curve.y, color=_MEAN, linestyle=":", linewidth=1.4, label=curve.name, zorder=1)
            continue
        if curve.style == "line":
            colour, marker = next(styles)
        is_line = curve.style == "line"
        axes.plot(
            curve.x,
            curve.y,
            color=colour,
            linestyle="-" if is_line else "--",
            linewidth=1.6,
            marker=marker,
            # A single point has no line to be found by.
            markersize=10 if len(curve.x) == 1 else 6,
            markerfacecolor=colour if is_line else "white",
            markeredgecolor="white" if is_line else colour,
            label=curve.name,
            zorder=4 if len(curve.x) == 1 else 3,
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _tidy(axes)
    axes.grid(axis="x", color="0.9")
    figure.suptitle(title, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=min(3, len(curves)), frameon=False)
    _save(figure, path, suffix)


_ROW_LABELS: dict[str, str] = {
    "counts": "experts held (count)",
    "loads": "load / mean rank load (ratio)",
    "layers": "layer (index)",
}


def _figure_class() -> type[Figure]:
    """What figures are of; where matplotlib is missing nothing else is said."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        message = f"plots need `{error.name}`: pip install 'expert-placement[plot]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    return Figure


def _figure(kind: type[Figure], width: float, height: float) -> Figure:
    """A figure of its own, without pyplot: no window system, and nothing kept between calls."""
    return kind(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")


def _drawn(parameter: str, values: object, kind: type[_Drawn]) -> list[_Drawn]:
    """Panels or curves, one or more.

    Raises:
        ValueError: there is none, or there are too many.
        TypeError: something else.
    """
    found = items_argument(parameter, values, f"a sequence of {parameter}", _MOST_DRAWN, parameter)
    for index, each in enumerate(found):
        if not is_a(each, kind):
            raise TypeError(f"{parameter}[{index}] must be a {kind.__name__}, got `{type(each).__name__}`")
    if not found:
        raise ValueError(f"{parameter} is empty, expected one or more")
    return found


def _label(parameter: str, value: object) -> str:
    """A text that can be drawn.

    Raises:
        ValueError: half a surrogate pair is in it, which no font has.
        TypeError: no text.
    """
    text = str_argument(parameter, value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{parameter}=`{excerpt(text)}` has half a surrogate pair, expected Unicode text") from None
    return text


def _suffix(figure: Figure, path: str | os.PathLike[str]) -> str:
    """The suffix of a path, in lower case and without the dot, which says the format of the picture.

    Raises:
        OSError: a directory, or a path that can not be looked at.
        ValueError: a suffix that matplotlib does not know, no path, or one of what no picture may replace.
    """
    suffix = path_argument(path).suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix and suffix not in known:
        raise ValueError(
            f"path=`{excerpt(os.fspath(path), 200)}` has the suffix `{excerpt(suffix)}`, expected one of "
            f"{', '.join(sorted(known))}"
        )
    expect_writable(path)
    return suffix


def _save(figure: Figure, path: str | os.PathLike[str], suffix: str) -> None:
    """Writes a picture in the format that the suffix says; without one it is PNG, and gets the suffix."""
    stream = BytesIO()
    figure.savefig(stream, format=suffix or "png")
    write_bytes(path if suffix else f"{os.fspath(path).rstrip('.')}.png", stream.getvalue())


def _rows(rows: object) -> list[Any]:
    """The names of rows, one or more."""
    given = items_argument("rows", rows, "a sequence of names", _MOST_DRAWN, "rows")
    names = [str_argument(f"rows[{index}]", row) for index, row in enumerate(given)]
    if not names or any(row not in _ROW_LABELS for row in names):
        shown = f"[{', '.join(repr(excerpt(row)) for row in names[:8])}{', ...' if len(names) > 8 else ''}]"
        raise ValueError(f"rows={shown} is out of range, expected one or more of {', '.join(_ROW_LABELS)}")
    return names


def _panels(given: object) -> list[Panel]:
    """Panels of equal shapes, one or more, whose numbers can be drawn."""
    panels = _drawn("panels", given, Panel)
    expected = (panels[0].rank_loads.shape[0], len(panels[0].counts))
    for panel in panels:
        if panel.rank_loads.shape != expected or len(panel.counts) != expected[1] or 0 in expected:
            raise ValueError(
                f"panel `{panel.name}` has {len(panel.counts)} counts and loads of shape {panel.rank_loads.shape}, "
                f"expected {expected[1]} counts and loads of shape {expected}, without a zero"
            )
        values = {"rank_loads": panel.rank_loads, "counts": panel.counts, "balancedness": panel.balancedness}
        for name, value in (values | ({} if panel.means is None else {"means": panel.means})).items():
            _expect_finite(f"panel `{panel.name}`: {name}", value, least=0.0)
    return panels


def _expect_finite(what: str, values: Any, least: float = -math.inf) -> None:
    """Refuses what can not be drawn: a number that is not finite, or below the least."""
    import numpy as np

    numbers = np.asarray(values, dtype=np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= least))
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        where = f"[{', '.join(map(str, place))}]" if place else ""
        expected = "finite numbers" if least == -math.inf else f"finite numbers of {least:g} or more"
        raise ValueError(f"{what}{where}={numbers[place]:g} is out of range, expected {expected}")


def _finish_ranks(axes: npt.NDArray[Any], panels: Sequence[Panel]) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, panel in zip(axes[0], panels, strict=True):
        place.set_title(f"{panel.name}\nbalancedness {panel.balancedness:.3f}", fontsize="medium")
    for place in axes[-1]:
        place.set_xlabel("rank (index)")
        place.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        place.set_xlim(-0.5, len(panels[0].counts) - 0.5)


def _handles(panel: Panel, rows: Sequence[Row]) -> list[Any]:
    """What the legend explains: bars, the mean, and dots where they are drawn. A heat map has a scale beside it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if set(rows) == {"layers"}:
        return []
    num_layers = panel.rank_loads.shape[0]
    layers = "the one layer" if num_layers == 1 else f"all {num_layers} layers together"
    handles: list[Any] = [
        Patch(color=_BAR, label=f"rank ({layers})"),
        Patch(color=_LARGEST, label="largest rank"),
        Line2D([], [], color=_MEAN, linestyle="--", linewidth=1.2, label="mean over ranks"),
    ]
    if "loads" in rows and _shows_layers(panel):
        dots = Line2D([], [], color=_LAYER, marker="o", linestyle="", markersize=4, markeredgecolor="white")
        dots.set_label("one layer")
        handles.append(dots)
    return handles


def _shows_layers(panel: Panel) -> bool:
    return bool(panel.rank_loads.shape[0] > 1 and panel.rank_loads.size <= _MAX_DOTS)


def _draw_counts(axes: Axes, panel: Panel) -> None:
    counts = np.asarray(panel.counts, dtype=np.int64)
    # Shares that differ by one are as even as they can be.
    colours = _colours(counts) if counts.max() > counts.min() + 1 else [_BAR] * counts.size
    axes.bar(np.arange(counts.size), counts, width=0.8, color=colours)
    axes.axhline(float(counts.mean()), color=_MEAN, linestyle="--", linewidth=1.2)
    if counts.size <= _MAX_LABELS:
        for rank, count in enumerate(counts):
            # At the foot of the bar, where no mean line crosses it.
            axes.annotate(f"{count}", (rank, 0), (0, 3), textcoords="offset points", ha="center", fontsize="small")
    _integers(axes)
    _tidy(axes)


def _draw_loads(axes: Axes, panel: Panel) -> None:
    num_layers, num_ranks = panel.rank_loads.shape
    totals = panel.rank_loads.sum(axis=0)
    mean = _means(panel).sum()
    # Without any load every rank carries as much as the mean.
    relative = totals / mean if mean else np.ones(num_ranks)
    # What is above the mean by less than this is not worth a colour.
    colours = _colours(relative) if relative.max() > 1.01 else [_BAR] * num_ranks
    axes.bar(np.arange(num_ranks), relative, width=0.8, color=colours)
    if _shows_layers(panel):
        by_layer = _relative(panel)
        # Side by side within a bar, in the order of the layers.
        offsets = np.linspace(-0.28, 0.28, num_layers)
        places = np.arange(num_ranks) + offsets[:, None]
        size = 10 if panel.rank_loads.size <= 256 else 5
        axes.scatter(places, by_layer, s=size, color=_LAYER, edgecolors="white", linewidths=0.3, zorder=3)
    axes.axhline(1.0, color=_MEAN, linestyle="--", linewidth=1.2, zorder=4)
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _draw_heat_maps(figure: Figure, axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """The load of each rank in each layer as a colour, on one scale for all panels."""
    from matplotlib.colors import TwoSlopeNorm

    tables = [_relative(panel) for panel in panels]
    # Twice the mean at least, so that what is nearly even looks so.
    norm = TwoSlopeNorm(1.0, vmin=0.0, vmax=max(2.0, *(float(table.max()) for table in tables)))
    for place, table in zip(axes, tables, strict=True):
        image = place.imshow(table, cmap=_DIVERGING, norm=norm, aspect="auto", interpolation="nearest")
        _integers(place)
    scale = figure.colorbar(image, ax=list(axes), label=_ROW_LABELS["loads"], pad=0.02)
    scale.ax.axhline(1.0, color=_MEAN, linewidth=1.2)


def _relative(panel: Panel) -> npt.NDArray[np.float64]:
    """The load of each rank over the mean rank load of the layer; 1 where a layer has no load."""
    means = _means(panel)[:, np.newaxis]
    relative: npt.NDArray[np.float64] = np.ones_like(panel.rank_loads)
    return np.divide(panel.rank_loads, means, out=relative, where=means > 0)


def _means(panel: Panel) -> npt.NDArray[np.float64]:
    if panel.means is not None:
        return panel.means
    means: npt.NDArray[np.float64] = panel.rank_loads.mean(axis=1)
    return means


def _integers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _colours(values: npt.NDArray[Any]) -> list[str]:
    """The colour of each bar: the largest ones stand out, unless all are equal."""
    largest = values.max()
    return [_LARGEST if value == largest > values.min() else _BAR for value in values]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
