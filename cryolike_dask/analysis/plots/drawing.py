"""Parts that figures of results share: their size, colours, histograms, names that fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.summaries import BEST_STRUCTURE, NO_STRUCTURE
from cryolike_dask.geometry.polar_grid import PolarGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "0.55"
ON_LIGHT, ON_DARK = "#101010", "#fefefe"
"""Of letters on a colour: no black and no white, which are another on a dark page."""
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "0.3")
"""Told apart by readers who do not see all colours."""
FEW_TO_MANY = ("#5b7fd6", "#b3589a", "#e0702a")
"""Seen on white and on black; told apart without red, or without green."""
MOST_MARKS = 2000
"""Marks that a drawing names one by one."""
LONGEST_NAME, WIDE_LABEL, LONGEST_LABEL = 28, 24, 46
"""Characters."""
RESOLUTIONS = np.outer(10.0 ** np.arange(4), [1, 1.5, 2, 3, 4, 5, 6, 8]).ravel()
"""Candidates for the ticks of a resolution axis, in units of a power of ten."""
N_BINS = 40
MOST_TICKS, MOST_RESOLUTIONS = 5, 14
"""Along x, so that labels of four digits do not touch."""
OUTLIERS = 0.002
"""Share of the values at either end that is counted in the last bin where it would stretch a
histogram."""


def new_figure(width: float = 5.4, height: float = 3.3) -> Figure:
    """An empty figure that lays itself out; inches."""
    from cryolike_dask.analysis.plots.figures import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_panel(
    width: float = 5.4, height: float = 3.3, projection: str | None = None
) -> tuple[Figure, Axes]:
    """A new figure of one panel, and the panel."""
    figure = new_figure(width, height)
    axes = figure.add_subplot(projection=projection)
    if projection is None:
        axes.locator_params(axis="x", nbins=MOST_TICKS)
    return figure, axes


def known(values: NDArray[Any]) -> Floats:
    """The values that are there."""
    return np.asarray(values[np.isfinite(values)], np.float64)


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that fits into a figure, its middle left out if it is long."""
    name = " ".join(name.split())
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def duration(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:.3g} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def entitle(axes: Axes, summary: xr.Dataset, structure: str | None) -> None:
    """Write how many images a figure is of, and under which structure."""
    n = int((summary[BEST_STRUCTURE] != NO_STRUCTURE).sum())
    several = structure is None and summary.sizes[labels.STRUCTURE] > 1
    name = str(summary[labels.STRUCTURE].values[0])
    which = "best structure of each" if several else f"under {short(name)}"
    plain_title(axes, f"{n} image{'s' if n != 1 else ''}, {which}")


def plain_title(axes: Axes, text: str, size: str = "medium") -> None:
    """Write a title in which names may hold any character."""
    axes.set_title(text, fontsize=size, parse_math=False)


def resolution_axis(axes: Axes, limit: float, box_size_angstrom: float) -> None:
    """Mark resolutions along the top of an axis of frequencies up to a limit, 1/angstrom, at round
    values far enough apart to be read."""
    resolutions = RESOLUTIONS * 10.0 ** np.floor(np.log10(1 / limit))
    inside = (resolutions * limit >= 1 - 1e-9) & (resolutions <= box_size_angstrom)
    ticks: list[float] = []
    for frequency in 1 / resolutions[inside]:
        if not ticks or ticks[-1] - frequency > limit / MOST_RESOLUTIONS:
            ticks.append(frequency)
    top = axes.secondary_xaxis("top")
    top.set_xticks(ticks, labels=[f"{1 / f:g}" for f in ticks])
    top.set_xlabel("resolution (Å)")


def box_limits_angstrom(grid: PolarGrid) -> tuple[float, float]:
    """The edges of a box along an axis, whose origin is the centre of the pixel n // 2."""
    n, size = grid.n_pixels, grid.pixel_size_angstrom
    return (-0.5 - n // 2) * size, (n - 0.5 - n // 2) * size


def edges_of(values: Floats, n_bins: int = N_BINS, least: float | None = None) -> Floats:
    """Edges of a histogram's bins, over all values unless a few are far out."""
    if not len(values):
        return np.linspace(0, 1, n_bins + 1)
    low, high = values.min(), values.max()
    inner_low, inner_high = np.quantile(values, [OUTLIERS, 1 - OUTLIERS])
    if high - low > 2 * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    low = low if least is None else least
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, n_bins + 1)


def bars(axes: Axes, values: Floats, edges: Floats) -> None:
    """Draw a histogram; values outside are counted in the bins at the ends."""
    stacked_bars(axes, [values], edges, [None])


def stacked_bars(
    axes: Axes, parts: Sequence[Floats], edges: Floats, names: Sequence[str | None]
) -> None:
    """Draw histograms of several parts on top of each other, and say how many values lie beyond
    the edges."""
    below = np.zeros(len(edges) - 1)
    for values, name, colour in zip(parts, names, COLOURS, strict=False):
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        above = below + counts
        axes.stairs(above, edges, baseline=below, fill=True, color=colour, label=name)
        below = above
    axes.set_ylim(0, 1.06 * max(1.0, below.max()))
    everything = np.concatenate(parts) if parts else np.zeros(0)
    beyond = int(((everything < edges[0]) | (everything > edges[-1])).sum())
    if beyond:
        axes.annotate(
            f"{beyond} beyond, counted in the last bins",
            xy=(1, 1),
            xytext=(-4, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
        )


def mark_median(axes: Axes, values: Floats, unit: str = "") -> None:
    """Draw a line at the median."""
    median = float(np.median(values))
    axes.axvline(median, color=ORANGE, linewidth=1.2, label=f"median {median:.3g}{unit}")


def finish_histogram(
    axes: Axes, values: Floats, label: str, *, legend: bool, of: str = "images"
) -> None:
    """Label a histogram, and say so if there is nothing in it."""
    axes.set_xlabel(fill(label, LONGEST_LABEL), parse_math=False)
    axes.set_ylabel(of)
    axes.spines[["top", "right"]].set_visible(False)
    whole_numbers(axes.yaxis)
    if legend:
        widest = max(len(name) for name in axes.get_legend_handles_labels()[1])
        legend_below(axes, n_columns=2 if widest < WIDE_LABEL else 1)
    if not len(values):
        note(axes, "no results")


def legend_below(axes: Axes, n_columns: int = 1) -> None:
    """Say below a panel what is what; names may hold any character."""
    drawn = axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=n_columns,
        frameon=False,
        borderaxespad=0,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def whole_numbers(axis: Any, n: int = 6) -> None:
    """Mark whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(n, integer=True))


def distinct(
    summary: xr.Dataset, names: tuple[str, str], decimals: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Places where images are, (2, place), and how many are there."""
    values = np.stack([summary[name].values.astype(np.float64) for name in names])
    # no negative zero
    rounded = np.round(values[:, np.isfinite(values).all(axis=0)], decimals) + 0.0
    places, counts = np.unique(rounded, axis=1, return_counts=True)
    return places, counts


def coloured(
    axes: Axes,
    places: Sequence[Floats] | Floats,
    counts: NDArray[np.int64],
    size: float,
    marker: str = "o",
) -> None:
    """Draw a mark at each place, coloured by how many images are there."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if not len(counts):
        note(axes, "no results")
        return
    order = np.argsort(counts, kind="stable")
    norm = Normalize(min(1, counts.min()), max(2, counts.max()))
    x, y = (values[order] for values in places)
    few_to_many = LinearSegmentedColormap.from_list("images", FEW_TO_MANY)
    dots = axes.scatter(
        x,
        y,
        size,
        c=counts[order],
        marker=marker,
        norm=norm,
        cmap=few_to_many,
        lw=0,
        zorder=1.2,
        rasterized=len(counts) > MOST_MARKS,
    )
    bar = axes.figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.03, label="images")
    whole_numbers(bar.ax.yaxis, 5)


def interval_of(n_right: NDArray[np.int64], n: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Wilson's interval of 95% for a frequency."""
    z2 = 1.96**2
    middle = (n_right + z2 / 2) / (n + z2)
    half = 1.96 / (n + z2) * np.sqrt(n_right * (n - n_right) / n + z2 / 4)
    return middle - half, middle + half


def note(axes: Axes, text: str) -> None:
    """Write a text in the middle of an empty panel."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.35", wrap=True
    )
