"""Figures of what results say about structures: ratios, assignments, and both against a known
truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration import CALIBRATION_BINS, calibration, confusion, knows_truth
from cryolike_dask.analysis.decoys.of_results import DECOY_MARGIN
from cryolike_dask.analysis.matrix import log_likelihood_ratio
from cryolike_dask.analysis.plots.drawing import (
    BLUE,
    GREY,
    ON_DARK,
    ON_LIGHT,
    Floats,
    edges_of,
    finish_histogram,
    interval_of,
    new_figure,
    new_panel,
    note,
    plain_title,
    short,
    stacked_bars,
    whole_numbers,
)
from cryolike_dask.analysis.summaries import positions_of, summary_of
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_RANKED = 8
"""Structures whose ranks are worth a panel."""
NOTHING = "no image has results under all structures"
MOST_BARS = 30
"""Structures of a bar plot, those of most images; of the others the number is said."""


def plot_log_likelihood_ratio(results: xr.Dataset, structure: str, reference: str) -> Figure:
    """Show how much more likely images are under one structure than under another, integrated over
    poses.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    structure, reference : str
        Their names. Images to the right of 0 prefer `structure`, those to the left `reference`.

    Returns
    -------
    matplotlib.figure.Figure
        A histogram; where the truth is recorded, one for each true structure.

    Raises
    ------
    InputError
        If there is no such structure.
    """
    at = positions_of(results, structure, reference)
    if structure == reference:
        raise InputError(
            f"structure and reference are both {structure!r}", remedy="Give two structures."
        )
    ratio = log_likelihood_ratio(results.isel({labels.STRUCTURE: at}), reference).isel(
        {labels.STRUCTURE: 0}
    )
    ratio = ratio.dropna(labels.IMAGE)
    values = ratio.values.astype(np.float64)
    figure, axes = new_panel()
    parts = _by_truth(ratio, structure, reference)
    stacked_bars(axes, [part for _, part in parts], edges_of(values), [name for name, _ in parts])
    axes.axvline(0, color="black", linewidth=1)
    text = f"log-likelihood ratio, {short(structure)} over {short(reference)} (nat)"
    finish_histogram(axes, values, text, legend=len(parts) > 1)
    n_right = int((values > 0).sum())
    prefer = (
        f"{n_right} images prefer {short(structure)}, {int((values < 0).sum())} {short(reference)}"
    )
    plain_title(axes, prefer)
    return figure


def plot_decoy_margin(found: xr.Dataset) -> Figure:
    """Show how much more likely images are under the best structure than under the best decoy, as
    `decoy_competition` gives it."""
    values = found[DECOY_MARGIN].dropna(labels.IMAGE).values.astype(np.float64)
    figure, axes = new_panel()
    stacked_bars(axes, [values], edges_of(values), [None])
    axes.axvline(0, color="black", linewidth=1)
    finish_histogram(
        axes, values, "log-likelihood of the best structure over the best decoy (nat)", legend=False
    )
    n_won = int((values > 0).sum())
    plain_title(axes, f"structures win {n_won} images, decoys {len(values) - n_won}")
    return figure


def _by_truth(
    ratio: xr.DataArray, structure: str, reference: str
) -> list[tuple[str | None, Floats]]:
    """Values by true structure, where that is recorded and is one of these for some."""
    values = ratio.values.astype(np.float64)
    if labels.TRUE_STRUCTURE not in ratio.coords:
        return [(None, values)]
    truth = ratio[labels.TRUE_STRUCTURE].values
    if not np.isin(truth, [structure, reference]).any():
        return [(None, values)]
    parts: list[tuple[str | None, Floats]] = [
        (f"truly {short(n)}", values[truth == n]) for n in (structure, reference)
    ]
    others = values[~np.isin(truth, [structure, reference])]
    return [*parts, ("truly another", others)] if len(others) else parts


def plot_assignment(results: xr.Dataset) -> Figure:
    """Show how many images fit each structure best, and how structures rank over all images.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        Images for which each structure is the best, of at most 30 structures. Of 8 structures or
        more, right of it the mean log-likelihood of each structure, ranked, less that of the first.
    """
    summary = summary_of(results)
    names = [str(name) for name in summary[labels.STRUCTURE].values]
    counts = summary[summaries.N_ASSIGNED].values
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    order = order[counts[order] > 0] if len(names) > MOST_BARS else order
    structures_shown = [(short(names[i]), int(counts[i])) for i in order]
    longest = max(len(short(name)) for name in names)
    is_ranked = len(names) >= LEAST_RANKED
    width = (7.0 if is_ranked else 4.3) + 0.065 * longest
    figure = new_figure(width, max(2.2, 1.2 + 0.2 * len(structures_shown)))
    panels = figure.subplots(
        1, 2 if is_ranked else 1, squeeze=False, width_ratios=[1.2, 1] if is_ranked else None
    )
    left = panels[0, 0]
    rows = np.arange(len(structures_shown))
    bars = left.barh(rows, [count for _, count in structures_shown], color=BLUE, height=0.75)
    left.bar_label(bars, padding=3, fontsize="small")
    left.set_yticks(
        rows, [name for name, _ in structures_shown], fontsize="small", parse_math=False
    )
    left.set_ylim(len(structures_shown) - 0.5, -0.5)
    left.margins(x=0.15)
    left.set(xlabel="images that fit it best", ylabel="structure")
    if len(order) < len(names):
        n_others = int(counts.sum() - counts[order].sum())
        left.set_title(
            f"{n_others} images fit {len(names) - len(order)} others best", fontsize="medium"
        )
    whole_numbers(left.xaxis)
    if is_ranked:
        _ranked(panels[0, 1], summary[summaries.MEAN_LOG_LIKELIHOOD].values, names)
    elif not counts.any():
        note(left, NOTHING)
    return figure


def _ranked(axes: Axes, means: Floats, names: Sequence[str]) -> None:
    order = np.argsort(-means, kind="stable")
    order = order[np.isfinite(means[order])]
    ranked = means[order] - means[order[:1]] if len(order) else means[order]
    axes.plot(
        np.arange(1, len(ranked) + 1),
        ranked,
        "o-",
        color=BLUE,
        markersize=4 if len(ranked) <= 60 else 2,
    )
    axes.set(
        xlabel="rank of the structure", ylabel="mean log-likelihood less\nthat of the first (nat)"
    )
    whole_numbers(axes.xaxis)
    if len(order):
        plain_title(axes, f"first: {short(names[order[0]])}", "small")
    else:
        note(axes, NOTHING)


def plot_confusion(results: xr.Dataset) -> Figure:
    """Show how many images of each true structure are assigned to each structure; for simulated
    particles.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, with the coordinate `true_structure`.

    Raises
    ------
    InputError
        If the truth is not recorded.
    """
    table = confusion(_with_truth(results))
    shares = table.counts / np.maximum(table.counts.sum(axis=1, keepdims=True), 1)
    names = [short(name) for name in table.names]
    longest = max(map(len, names))
    figure, axes = new_panel(
        width=2.1 + 0.62 * len(names) + 0.08 * longest,
        height=1.4 + 0.45 * len(names) + 0.06 * longest,
    )
    drawn = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), count in np.ndenumerate(table.counts):
        colour = ON_DARK if shares[row, column] > 0.55 else ON_LIGHT
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(names)), names, fontsize="small", parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize="small", parse_math=False)
    if len(names) > 2 or longest > 10:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="assigned structure", ylabel="true structure")
    figure.colorbar(drawn, label="of the true structure's\nimages (%)")
    return figure


def plot_calibration(results: xr.Dataset) -> Figure:
    """Show whether probabilities are as often right as they say; for simulated particles.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, with the coordinate `true_structure`.

    Returns
    -------
    matplotlib.figure.Figure
        For the best structure of each image how often it is right (with intervals of 95%) over its
        probability, and how many images have such a probability. Calibrated probabilities lie on
        the diagonal.

    Raises
    ------
    InputError
        If the truth is not recorded.
    """
    bins = calibration(_with_truth(results))
    figure = new_figure(5.4, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = bins.n_images > 0
    n, right = bins.n_images[filled], bins.n_right[filled]
    low, high = interval_of(right, n)
    frequency = right / n
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="calibrated")
    bars = np.clip([frequency - low, high - frequency], 0, None)
    upper.errorbar(
        bins.mean_probability[filled],
        frequency,
        bars,
        fmt="o",
        color=BLUE,
        capsize=3,
        label="found",
    )
    upper.set(ylim=(-0.03, 1.03), ylabel="frequency of being right")
    upper.legend(frameon=False, loc="upper left")
    drawn = lower.bar(
        bins.edges[:-1],
        bins.n_images,
        np.diff(bins.edges),
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    lower.bar_label(
        drawn,
        [str(count) if count else "" for count in bins.n_images],
        fontsize="small",
        padding=1,
    )
    lower.margins(y=0.35)
    first = bins.edges[:-1][filled].min(initial=1 - 1 / CALIBRATION_BINS)
    lower.set(
        xlim=(first - 0.02, 1.02),
        xlabel="posterior probability of the best structure",
        ylabel="images",
    )
    whole_numbers(lower.yaxis, 3)
    return figure


def _with_truth(results: xr.Dataset) -> xr.Dataset:
    summary = summary_of(results)
    if not knows_truth(summary):
        raise InputError(
            "it is not recorded which structures the images truly show",
            remedy="Only particles that cryolike-dask simulate made carry that.",
        )
    return summary
