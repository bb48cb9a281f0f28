"""Figures of the shares of structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.plots.drawing import BLUE, GREY, ORANGE, new_panel, plain_title, short
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SHARES = 40
"""Structures that are shown, those of the largest shares; of the others the number is said."""


def plot_populations(populations: xr.Dataset) -> Figure:
    """Show which share of the images shows each structure, and how well that is known.

    Parameters
    ----------
    populations : xarray.Dataset
        As `populations` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        A point for each structure, of at most 40, with its interval; grey if the images cannot tell
        it from others, with the joint share of these and two standard deviations in orange. Where
        decoys have told it, the last is the part of all images that show none.

    Raises
    ------
    InputError
        If these are no populations.
    """
    if labels.POPULATION not in populations or labels.GROUP not in populations:
        raise InputError("no populations", remedy="Give the Dataset that populations gives.")
    share = populations[labels.POPULATION].values
    interval = populations[labels.POPULATION_INTERVAL].values
    group = populations[labels.GROUP].values
    names = [str(name) for name in populations[labels.STRUCTURE].values]
    joint = populations[labels.GROUP_POPULATION].values
    # those of one group beside each other
    order = np.lexsort((-share, group, -joint.round(12)))[:MOST_SHARES]
    rows = np.arange(len(order))
    shown = [short(names[i]) for i in order]
    if labels.POPULATION_OF_NONE in populations:
        shown.append("none, of all images")
    longest = max(map(len, shown))
    figure, axes = new_panel(4.3 + 0.065 * longest, max(2.2, 1.2 + 0.22 * len(shown)))
    alone = np.bincount(group)[group[order]] == 1
    for these, colour, what in (
        (alone, BLUE, "share"),
        (~alone, GREY, "share, not told from others"),
    ):
        if not these.any():
            continue
        low, high = interval[order[these]].T
        middle = share[order[these]]
        axes.errorbar(
            middle,
            rows[these],
            xerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
            fmt="o",
            color=colour,
            markersize=4,
            label=what,
        )
    at = [int(np.flatnonzero(group[order] == g)[0]) for g in np.unique(group[order[~alone]])]
    if at:
        sd = populations[labels.GROUP_POPULATION_SD].values[order[at]]
        axes.errorbar(
            joint[order[at]],
            at,
            xerr=2 * sd,
            fmt="D",
            color=ORANGE,
            markersize=4,
            label="all of a group",
        )
    if len(shown) > len(order):
        middle = float(populations[labels.POPULATION_OF_NONE])
        low, high = populations[labels.POPULATION_OF_NONE_INTERVAL].values
        axes.errorbar(
            middle, len(order), xerr=[[middle - low], [high - middle]], fmt="s", color=GREY
        )
    axes.set_yticks(np.arange(len(shown)), shown, fontsize="small", parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set(xlabel="share of the images", ylabel="structure")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.3g}")
    axes.spines[["top", "right"]].set_visible(False)
    if at:
        figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize="small")
    if len(order) < len(names):
        n_rest, rest = len(names) - len(order), 1 - share[order].sum()
        plain_title(axes, f"{n_rest} others have {max(rest, 0):.1%} together")
    else:
        plain_title(axes, f"{populations.attrs.get('n_images', 0):,} images")
    return figure
