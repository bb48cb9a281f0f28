"""Figures of the noise of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryolike_dask.analysis.plots.drawing import COLOURS, new_panel, note, plain_title, short
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.noise import NoiseModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 12
LIKELY = 1.96
"""Standard errors of a 95% interval."""


def plot_noise(model: NoiseModel) -> Figure:
    """Draw the spectrum of the noise of each group of images, with 95% intervals.

    Parameters
    ----------
    model : NoiseModel
        Of many groups the twelve of most images are drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If it is no noise model.
    """
    if not isinstance(model, NoiseModel):
        raise InputError(
            f"a {type(model).__name__} is no noise model", remedy="Give what estimate_noise gives."
        )
    figure, axes = new_panel(6.4, 3.6)
    drawn = np.sort(np.argsort(-model.n_images, kind="stable")[:MOST_DRAWN])
    for k, i in enumerate(drawn):
        inside = model.frequencies <= model.band_limit[i]
        f = model.frequencies[inside]
        variance = model.variance[i, inside] / np.exp(np.log(model.variance[i, inside]).mean())
        spread = np.exp(LIKELY * model.relative_error[i, inside])
        colour = COLOURS[k % len(COLOURS)]
        style = ("-", "--")[k // len(COLOURS) % 2]
        axes.plot(f, variance, style, color=colour, label=short(model.groups[i]))
        axes.fill_between(f, variance / spread, variance * spread, color=colour, alpha=0.25, lw=0)
    axes.axhline(1.0, color="0.4", lw=0.8, ls=":")
    axes.set_yscale("log")
    axes.set_xlim(0, model.frequencies[-1])
    axes.set_xlabel("spatial frequency (1/Å)")
    axes.set_ylabel("variance of the noise\n(geometric mean 1)")
    plain_title(axes, "Spectrum of the noise; dotted: white")
    if len(drawn) > 1:
        axes.legend(fontsize="x-small", ncols=2)
    if len(drawn) < len(model):
        note(axes, f"{len(drawn)} of {len(model):,} groups")
    return figure
