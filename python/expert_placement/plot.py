"""Pictures of partitions and the load of their ranks. Needs matplotlib, the extra `[plot]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["Panel", "plot_ranks"]

# From the palette of Okabe and Ito, which people with any colour vision tell apart.
_BAR = "#56B4E9"
_LARGEST = "#D55E00"
_LAYER = "#333333"
_MEAN = "#000000"
_INCHES_PER_PANEL = 3.1
_DOTS_PER_INCH = 200
# Counts are written on the bars of up to this many ranks.
_MAX_LABELS = 16
# Single layers are drawn as dots up to this many dots a panel.
_MAX_DOTS = 4096


@dataclass(frozen=True, slots=True)
class Panel:
    """One way to deal experts to ranks, and what the ranks then carry.

    Attributes:
        name: what stands above the panel.
        counts: experts that each rank owns, int[R].
        rank_loads: the load of each rank in each layer, float64[L, R], finite and never negative.
        balancedness: sum over layers of the mean rank load / sum over layers of the largest rank load.
    """

    name: str
    counts: Sequence[int]
    rank_loads: npt.NDArray[np.float64]
    balancedness: float


def plot_ranks(panels: Sequence[Panel], path: str | os.PathLike[str], *, title: str) -> None:
    """Draws the experts and the load of each rank, a column a panel, all on one scale.

    Loads are drawn relative to the mean rank load: bars for the sum over layers, dots for single layers.

    Args:
        panels: at least one, all of the same numbers of ranks and layers.
        path: the file; its suffix says which format, PNG without one.
        title: one line above all.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no panels, panels of different shapes, or a suffix that matplotlib does not know.
        OSError: the file can not be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        message = f"plots need `{error.name}`: pip install 'expert-placement[plot]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    _check(panels)
    num_layers = panels[0].rank_loads.shape[0]

    # A figure of its own, without pyplot: no window system, and nothing kept between calls.
    figure = Figure(figsize=(_INCHES_PER_PANEL * len(panels) + 0.6, 5.6), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, panel in enumerate(panels):
        _draw_counts(axes[0, column], panel)
        _draw_loads(axes[1, column], panel)
        axes[1, column].set_xlabel("rank (index)")
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("experts owned (count)")
    axes[1, 0].set_ylabel("load / mean rank load (ratio)")
    figure.suptitle(title, fontweight="bold")

    layers = "the one layer" if num_layers == 1 else f"all {num_layers} layers together"
    handles: list[Any] = [
        Patch(color=_BAR, label=f"rank ({layers})"),
        Patch(color=_LARGEST, label="largest rank"),
        Line2D([], [], color=_MEAN, linestyle="--", linewidth=1.2, label="mean over ranks"),
    ]
    if _shows_layers(panels[0]):
        dots = Line2D([], [], color=_LAYER, marker="o", linestyle="", markersize=4, markeredgecolor="white")
        dots.set_label("one layer")
        handles.append(dots)
    # Outside of the axes, where there are no data to cover.
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path)


def _check(panels: Sequence[Panel]) -> None:
    if not panels:
        raise ValueError("panels is empty, expected one or more")
    expected = (panels[0].rank_loads.shape[0], len(panels[0].counts))
    for panel in panels:
        if panel.rank_loads.shape != expected or len(panel.counts) != expected[1] or 0 in expected:
            raise ValueError(
                f"panel `{panel.name}` has {len(panel.counts)} counts and loads of shape {panel.rank_loads.shape}, "
                f"expected {expected[1]} counts and loads of shape {expected}, without a zero"
            )


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
    axes.set_title(f"{panel.name}\nbalancedness {panel.balancedness:.3f}", fontsize="medium")
    _tidy(axes)


def _draw_loads(axes: Axes, panel: Panel) -> None:
    num_layers, num_ranks = panel.rank_loads.shape
    totals = panel.rank_loads.sum(axis=0)
    mean = totals.mean()
    # Without any load every rank carries as much as the mean.
    relative = totals / mean if mean else np.ones(num_ranks)
    axes.bar(np.arange(num_ranks), relative, width=0.8, color=_colours(relative))
    if _shows_layers(panel):
        means = panel.rank_loads.mean(axis=1, keepdims=True)
        by_layer = np.divide(panel.rank_loads, means, out=np.ones_like(panel.rank_loads), where=means > 0)
        # Side by side within a bar, in the order of the layers.
        offsets = np.linspace(-0.28, 0.28, num_layers)
        places = np.arange(num_ranks) + offsets[:, None]
        size = 10 if panel.rank_loads.size <= 256 else 5
        axes.scatter(places, by_layer, s=size, color=_LAYER, edgecolors="white", linewidths=0.3, zorder=3)
    axes.axhline(1.0, color=_MEAN, linestyle="--", linewidth=1.2, zorder=4)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.7, num_ranks - 0.3)
    _tidy(axes)


def _colours(values: npt.NDArray[Any]) -> list[str]:
    """The colour of each bar. The largest ones stand out, unless all are equal."""
    largest = values.max()
    return [_LARGEST if value == largest > values.min() else _BAR for value in values]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
