"""Figures of free energies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask.analysis.landscape import COLLECTIVE_VARIABLE, FREE_ENERGY
from cryolike_dask.analysis.plots.drawing import BLUE, GREY, new_panel
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OF_BAND = 3.0
"""kT above the largest free energy that are shown of a band without an end."""


def plot_free_energy(free_energy: xr.Dataset) -> Figure:
    """Show the free energy along a collective variable, with the band of its error.

    Parameters
    ----------
    free_energy : xarray.Dataset
        As `free_energy` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        In blue that of the shares of structures and its interval; in grey that of the frames as
        they are. There are gaps where there is no frame.

    Raises
    ------
    InputError
        If this is no free energy, or of no frame.
    """
    if FREE_ENERGY not in free_energy or COLLECTIVE_VARIABLE not in free_energy.coords:
        raise InputError("no free energy", remedy="Give the Dataset that free_energy gives.")
    variable, energy = free_energy[COLLECTIVE_VARIABLE], free_energy[FREE_ENERGY].values
    if not np.isfinite(energy).any():
        raise InputError("a free energy of no frame", remedy="Give other bins.")
    of_frames = free_energy["free_energy_of_frames"].values
    top = np.nanmax([energy, of_frames]) + MOST_OF_BAND
    low, high = free_energy["free_energy_interval"].values
    figure, axes = new_panel(5.4, 3.5)
    edges = free_energy["bin_edge"].values
    axes.stairs(
        np.minimum(high, top),
        edges,
        baseline=low,
        fill=True,
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label=f"{free_energy.attrs.get('probability_of_intervals', 0.95):.0%} interval",
    )
    axes.stairs(of_frames, edges, baseline=None, color=GREY, label="frames as they are")
    axes.stairs(
        energy, edges, baseline=None, color=BLUE, linewidth=1.5, label="shares of structures"
    )
    name = str(free_energy.attrs.get("collective_variable", "collective variable"))
    units = str(variable.attrs.get("units", ""))
    axes.set_xlabel(f"{name} ({units})" if units else name, parse_math=False)
    axes.set_ylabel("free energy (kT)")
    axes.set_ylim(min(0.0, float(np.nanmin(low))) - 0.2, None)
    axes.set_xlim(edges[0], edges[-1])
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", frameon=False, fontsize="small", ncols=3)
    return figure
