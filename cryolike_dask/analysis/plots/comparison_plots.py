"""Figures of two runs held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.plots.drawing import (
    BLUE,
    GREY,
    MOST_MARKS,
    ON_DARK,
    ON_LIGHT,
    ORANGE,
    legend_below,
    new_panel,
    plain_title,
    short,
)
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STRUCTURES = 12
"""Of a table, those of most images."""


def plot_ratios(comparison: xr.Dataset) -> Figure:
    """Show log-likelihood ratios of one run over those of another.

    Parameters
    ----------
    comparison : xarray.Dataset
        As `compare_runs` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        A dot for each image: the structure of the second most images over that of most, nat, in the
        first run and in the second; orange where the best structure is another.

    Raises
    ------
    InputError
        If this is no comparison, or of one structure.
    """
    structure = second_structure(comparison)
    reference = str(comparison.attrs["reference"])
    ratio = comparison["log_likelihood_ratio"].sel({labels.STRUCTURE: structure}).values
    compared, changed = comparison["compared"].values, comparison["changed"].values
    figure, axes = new_panel(5.4, 4.6)
    many = compared.sum() > MOST_MARKS
    for chosen, colour, name in (
        (compared & ~changed, BLUE, "the same best structure"),
        (changed, ORANGE, "another"),
    ):
        first, second = ratio[:, chosen]
        axes.scatter(first, second, 9, color=colour, lw=0, label=name, rasterized=many)
    limits = np.array([ratio[:, compared].min(), ratio[:, compared].max()])
    axes.plot(limits, limits, "--", color=GREY, linewidth=1, label="the same ratio")
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6)
    names = [short(str(name)) for name in comparison["run"].values]
    axes.set_xlabel(f"in {names[0]} (nat)", parse_math=False)
    axes.set_ylabel(f"in {names[1]} (nat)", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    plain_title(axes, f"{short(structure)} over {short(reference)}")
    legend_below(axes, n_columns=2)
    return figure


def plot_changes(comparison: xr.Dataset) -> Figure:
    """Show how many images of each best structure of one run have which in the other.

    Parameters
    ----------
    comparison : xarray.Dataset
        As `compare_runs` gives it. Of more than 12 structures those of most images are shown.

    Raises
    ------
    InputError
        If this is no comparison.
    """
    _need(comparison)
    counts = comparison["n_images_both"].values
    order = np.argsort(-(counts.sum(axis=0) + counts.sum(axis=1)), kind="stable")
    shown = np.sort(order[:MOST_STRUCTURES])
    table = counts[np.ix_(shown, shown)]
    names = [short(str(name)) for name in comparison[labels.STRUCTURE].values[shown]]
    longest = max(map(len, names))
    figure, axes = new_panel(
        max(3.6, 2.1 + 0.55 * len(names) + 0.08 * longest),
        max(3.0, 1.6 + 0.45 * len(names) + 0.06 * longest),
    )
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), n in np.ndenumerate(table):
        colour = ON_DARK if shares[row, column] > 0.55 else ON_LIGHT
        axes.text(column, row, f"{n:,}", ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(names)), names, fontsize="small", parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize="small", parse_math=False)
    if len(names) > 2 or longest > 8:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")
    runs = [short(str(name)) for name in comparison["run"].values]
    axes.set_xlabel(f"best in {runs[1]}", parse_math=False)
    axes.set_ylabel(f"best in {runs[0]}", parse_math=False)
    return figure


def second_structure(comparison: xr.Dataset) -> str:
    """The structure that is the best of most images but for the reference."""
    _need(comparison)
    names = [str(name) for name in comparison[labels.STRUCTURE].values]
    if len(names) < 2:
        raise InputError("the runs have one structure in common, which has no ratio")
    counts = comparison["n_images_both"].values
    totals = dict(zip(names, (counts.sum(axis=0) + counts.sum(axis=1)).tolist(), strict=True))
    del totals[str(comparison.attrs["reference"])]
    return max(totals, key=totals.__getitem__)


def _need(comparison: xr.Dataset) -> None:
    if not isinstance(comparison, xr.Dataset) or "n_images_both" not in comparison:
        raise InputError("no comparison", remedy="Give the Dataset that compare_runs gives.")
