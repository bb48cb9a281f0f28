"""Figures of what particles will tell of structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.plots.drawing import (
    COLOURS,
    GREY,
    ON_DARK,
    ON_LIGHT,
    ORANGE,
    new_figure,
    plain_title,
    short,
)
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED, MOST_NUMBERS = 40, 12
"""Structures whose names, and whose percentages, are legible in a heat map."""


def plot_design(design: xr.Dataset) -> Figure:
    """Show what images of each structure will be taken for, and how well shares will be known.

    Parameters
    ----------
    design : xarray.Dataset
        As `design` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        Left, the mean probability of each structure (column) over images that show another (row),
        percent; up to 12 structures with numbers, up to 40 with names. Right, the standard error of
        the share of each structure over the number of particles; dashed what is to be reached, and
        what is planned.

    Raises
    ------
    InputError
        If this is no design.
    """
    if "particles_needed" not in design or "confusion" not in design:
        raise InputError("no design", remedy="Give the Dataset that design gives.")
    names = [short(str(name)) for name in design[labels.STRUCTURE].values]
    k, longest = len(names), max(map(len, names)) if len(names) <= MOST_NAMED else 0
    size = min(2.2 + 0.45 * k, 7.0) if k <= MOST_NUMBERS else min(2.2 + 0.16 * k, 8.0)
    figure = new_figure(size + 4.6 + 0.065 * longest, max(3.3, size * 0.8 + 0.045 * longest))
    left, right = figure.subplots(1, 2, width_ratios=[size + 0.065 * longest, 4.4])
    _confusion(left, design, names)
    _errors(right, design, names)
    return figure


def _confusion(axes: Axes, design: xr.Dataset, names: list[str]) -> None:
    """A heat map of mean probabilities."""
    percent = 100 * design["confusion"].values
    k = len(names)
    most = 100 if k <= MOST_NUMBERS else float(percent.max())
    drawn = axes.imshow(percent, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    if k <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(percent):
            colour = ON_DARK if value > 55 else ON_LIGHT
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=colour, size="small"
            )
    if k <= MOST_NAMED:
        axes.set_xticks(range(k), names, fontsize="small", parse_math=False)
        axes.set_yticks(range(k), names, fontsize="small", parse_math=False)
        if k * max(map(len, names)) > 20:
            for name in axes.get_xticklabels():
                name.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="taken for", ylabel="structure shown")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.03, label="mean probability (%)")
    value, error, bound = (
        float(design[f"mutual_information{what}"]) for what in ("", "_error", "_bound")
    )
    plain_title(axes, f"{value:.2f} ± {error:.2f} of {bound:.3g} bit an image")


def _errors(axes: Axes, design: xr.Dataset, names: list[str]) -> None:
    """Errors of shares over the number of particles."""
    n, sd = design["n_particles"].values, design[labels.POPULATION_SD].values
    in_colour = len(names) <= len(COLOURS)
    for j, name in enumerate(names):
        colour = COLOURS[j] if in_colour else GREY
        # structures that are as well known lie on each other
        style = ((j, (3, len(names) - 1)) if len(names) > 1 else "-") if in_colour else "-"
        width, label = (1.5, name) if in_colour else (0.7, None)
        axes.loglog(n, sd[:, j], color=colour, linestyle=style, linewidth=width, label=label)
    if not in_colour:
        worst = int(np.argmax(sd[0]))
        axes.loglog(n, sd[:, worst], color=ORANGE, label=names[worst])
    axes.axhline(design.attrs["error"], color="0.3", linestyle="--", linewidth=0.8)
    planned = design.attrs["n_particles"]
    if n[0] <= planned <= n[-1]:
        axes.axvline(planned, color="0.3", linestyle="--", linewidth=0.8)
    axes.set(xlabel="particles", ylabel="standard error of the share")
    axes.set_xlim(n[0], n[-1])
    top = 1.3 * float(max(sd.max(), design.attrs["error"]))
    axes.set_ylim(min(sd.min(), design.attrs["error"] / 2, top / 10), top)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)
    needed, error = float(design["particles_needed_worst"]), design.attrs["error"]
    how_many = f"{needed:,.0f} particles" if np.isfinite(needed) else "never"
    plain_title(axes, f"all shares to {error:g}: {how_many}")
