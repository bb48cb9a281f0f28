"""Figures of noise models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryolike_dask.analysis.plots.drawing import (
    COLOURS,
    GREY,
    Floats,
    new_panel,
    plain_title,
    resolution_axis,
    short,
)
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.noise import NoiseModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 12
"""Groups that are drawn, those of most images; of the others the number is said."""
LARGEST_ERROR = np.log(100.0)
"""That is shaded, of logarithms: of three images the lowest frequencies are known no better."""
STYLES = ("-", "--")
"""Where there are more groups than colours."""


def plot_noise(model: NoiseModel) -> Figure:
    """Show how the variance of noise depends on spatial frequency, in each group of images.

    Parameters
    ----------
    model : NoiseModel
        As `estimate_noise` and `read_noise` give it. Of more than 12 groups those of most images
        are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        Variance over its geometric mean, on a logarithmic scale: white noise is a level line at 1.
        Shades are one standard error; a line ends where the noise of its group does.

    Raises
    ------
    InputError
        If `model` is no noise model.
    """
    if not isinstance(model, NoiseModel):
        raise InputError(
            f"a {type(model).__name__} is no noise model", remedy="Give what read_noise gives."
        )
    drawn = np.argsort(-model.n_images, kind="stable")[:MOST_LINES]
    figure, axes = new_panel(6.2, 3.6 + 0.1 * len(drawn))
    for line, group in enumerate(np.sort(drawn).tolist()):
        _draw(axes, model, group, line)
    axes.axhline(1, color=GREY, linewidth=0.8, zorder=0.9)
    limit = float(model.frequencies[-1])
    axes.set(xlim=(0, limit), yscale="log", xlabel="spatial frequency (1/Å)")
    axes.set_ylabel("variance of the noise\n(1: its geometric mean)")
    axes.spines[["right"]].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    _mark_variances(axes)
    resolution_axis(axes, limit, model.n_pixels * model.pixel_size_angstrom)
    columns = 1 if len(drawn) < 3 else 2
    legend = figure.legend(
        loc="outside lower center", frameon=False, fontsize="small", ncols=columns
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    if left_out := len(model) - len(drawn):
        plain_title(axes, f"{len(drawn)} of {len(model)} groups; {left_out} are of fewer images")
    return figure


def relative_variance(model: NoiseModel, group: int) -> tuple[Floats, Floats]:
    """Frequencies up to the end of the noise of a group, and its variance there over the geometric
    mean, in which each frequency counts as much as its ring is long."""
    inside = model.frequencies <= model.band_limit[group]
    f, logs = model.frequencies[inside], np.log(model.variance[group][inside])
    weights = f if f.any() else np.ones(len(f))
    return f, np.exp(logs - np.average(logs, weights=weights))


def _draw(axes: Axes, model: NoiseModel, group: int, line: int) -> None:
    f, variance = relative_variance(model, group)
    error = np.minimum(model.relative_error[group][: len(f)], LARGEST_ERROR)
    colour = COLOURS[line % len(COLOURS)]
    name = short(model.groups[group])
    if n := int(model.n_images[group]):
        name += f" ({n:,} image{'s' if n != 1 else ''})"
    style = STYLES[line // len(COLOURS) % len(STYLES)]
    axes.plot(f, variance, style, color=colour, linewidth=1.2, label=name)
    if error.any():
        # of logarithms, so that it stays above 0
        low, high = variance * np.exp(-error), variance * np.exp(error)
        axes.fill_between(f, low, high, color=colour, alpha=0.25, linewidth=0)
    if len(f) < len(model.frequencies):
        axes.plot(f[-1:], variance[-1:], "|", color=colour, markersize=12)


def _mark_variances(axes: Axes) -> None:
    """Numbers that are read at a glance, and no more room than noise needs that is nearly
    white."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 2))
    marked = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(LogLocator(subs=marked, numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
