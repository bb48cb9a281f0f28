"""Figures of results: how well images fit, in which poses, and how long it took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.block_times import read_blocks
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.plots.drawing import (
    COLOURS,
    GREY,
    MOST_TICKS,
    ORANGE,
    bars,
    coloured,
    distinct,
    duration,
    edges_of,
    entitle,
    finish_histogram,
    known,
    legend_below,
    mark_median,
    new_panel,
    short,
    stacked_bars,
)
from cryolike_dask.analysis.pose_errors import (
    angles_of,
    direction_errors_degree,
    directions,
    random_angles_degree,
    symmetry_of,
    why_no_pose_errors,
)
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.summaries import summary_of
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, point_group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROTATION_BINS = 72
ROUND_ANGSTROM, ROUND_RADIAN = 3, 6
"""Decimals to which directions and displacements are the same."""


def plot_viewing_directions(results: xr.Dataset, structure: str | None = None) -> Figure:
    """Show from which directions the images are best seen: the sphere, areas true (Mollweide).

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    structure : str, optional
        Under this structure; default: the best of each image.

    Returns
    -------
    matplotlib.figure.Figure
        A dot for each direction that is the best of some image, and for each other one that looks
        the same under the symmetry of the structures; its colour says of how many.

    Raises
    ------
    InputError
        If there is no such structure, or viewing directions are not known.
    """
    summary = summary_of(results, structure)
    if labels.OPTIMAL_AZIMUTH not in summary:
        raise InputError(
            "the viewing directions of the templates are not known", remedy=summaries.NOT_RESULTS
        )
    places, counts = distinct(summary, (labels.OPTIMAL_AZIMUTH, labels.OPTIMAL_POLAR), ROUND_RADIAN)
    if symmetry_of(summary) != NO_SYMMETRY:
        every = point_group(symmetry_of(summary)).images(directions(*places).T)  # with itself
        places, counts = np.stack(angles_of(every.reshape(-1, 3).T)), counts.repeat(every.shape[1])
    figure, axes = new_panel(6.4, 3.3, projection="mollweide")
    axes.grid(color="0.8", linewidth=0.5)
    axes.set_axisbelow("line")
    size = float(np.clip(30000 / max(len(counts), 1), 3, 60))
    longitude = np.mod(places[0] + np.pi, 2 * np.pi) - np.pi
    coloured(axes, (longitude, np.pi / 2 - places[1]), counts, size)
    azimuths, polars = np.arange(-120, 121, 60), np.arange(30, 151, 30)
    axes.set_xticks(
        np.radians(azimuths), [f"{a}°" for a in azimuths], fontsize="small", color="0.35"
    )
    axes.set_yticks(
        np.pi / 2 - np.radians(polars), [f"{p}°" for p in polars], fontsize="small", color="0.35"
    )
    for text in axes.get_xticklabels():
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5})
    axes.set(xlabel="azimuth (degree)", ylabel="polar angle (degree)")
    entitle(axes, summary, structure)
    return figure


def plot_displacements(results: xr.Dataset, structure: str | None = None) -> Figure:
    """Show how the best displacements are spread, and where the search ended.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    structure : str, optional
        Under this structure; default: the best of each image.

    Returns
    -------
    matplotlib.figure.Figure
        A square for each displacement that is the best of some image, coloured by how many; a dot
        for each that was tried; a dashed line around the search. Displacements are those of the
        template before it is turned.

    Raises
    ------
    InputError
        If there is no such structure.
    """
    summary = summary_of(results, structure)
    names = (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
    places, counts = distinct(summary, names, ROUND_ANGSTROM)
    tried = np.stack(displacements_tried(summary))
    every = np.concatenate([tried, places], axis=1)
    limit = float(np.abs(every).max(initial=0.0)) or 1.0
    figure, axes = new_panel(5.4, 4.4)
    axes.plot(*tried, ".", color="0.6", markersize=3, zorder=1)
    # points; the panel has about 250
    side = 225 / max(len(np.unique(every[0])), len(np.unique(every[1])), 2)
    coloured(axes, places, counts, float(np.clip(0.85 * side, 2, 20)) ** 2, marker="s")
    edge = on_the_edge(summary)
    if edge is not None:
        x, y = edge.limit_x, edge.limit_y
        corners = np.array([(-x, -y), (x, -y), (x, y), (-x, y), (-x, -y)]).T
        axes.plot(*corners, "--", color=ORANGE, linewidth=1, zorder=1, label="edge of the search")
        legend_below(axes)
    axes.set(aspect="equal", xlim=(-1.15 * limit, 1.15 * limit), ylim=(-1.15 * limit, 1.15 * limit))
    axes.locator_params(nbins=MOST_TICKS)
    axes.set(xlabel="displacement along x (Å)", ylabel="displacement along y (Å)")
    entitle(axes, summary, structure)
    return figure


def plot_inplane_rotations(results: xr.Dataset, structure: str | None = None) -> Figure:
    """Show how the best in-plane rotations are spread.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    structure : str, optional
        Under this structure; default: the best of each image.

    Raises
    ------
    InputError
        If there is no such structure.
    """
    summary = summary_of(results, structure)
    values = np.degrees(known(summary[labels.OPTIMAL_INPLANE_ROTATION].values)) % 360
    n = int(summary.attrs.get("n_inplanes", 0))
    n_bins = max((d for d in range(1, MOST_ROTATION_BINS + 1) if n and n % d == 0), default=36)
    first = -180 / n if n else 0.0  # a bin holds as many of the rotations tried as any other
    edges = first + np.linspace(0, 360, n_bins + 1)
    figure, axes = new_panel()
    bars(axes, (values - first) % 360 + first, edges)
    axes.axhline(len(values) / n_bins, color=GREY, linestyle="--", linewidth=1, label="all alike")
    finish_histogram(axes, values, "in-plane rotation (degree)", legend=bool(len(values)))
    axes.set_xticks(np.arange(0, 361, 60))
    axes.set_xlim(first, first + 360)
    entitle(axes, summary, structure)
    return figure


def plot_cross_correlation(results: xr.Dataset, structure: str | None = None) -> Figure:
    """Show how well the images correlate with their best projections.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    structure : str, optional
        Under this structure; default: the best of each image.

    Raises
    ------
    InputError
        If there is no such structure.
    """
    summary = summary_of(results, structure)
    values = known(summary[labels.CROSS_CORRELATION].values)
    figure, axes = new_panel()
    edges = edges_of(values)
    bars(axes, values, edges)
    if len(values):
        mark_median(axes, values)
        if edges[0] < 0:
            axes.axvspan(edges[0], 0, color="0.9", zorder=0, label="negative: contrast inverted?")
    finish_histogram(axes, values, "cross-correlation of the best pose", legend=bool(len(values)))
    entitle(axes, summary, structure)
    return figure


def plot_direction_errors(results: xr.Dataset) -> Figure:
    """Show the angle between the best viewing direction of each image and the recorded one.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, with recorded poses, all in the standard conventions.

    Raises
    ------
    InputError
        If there is nothing to compare.
    """
    summary = summary_of(results)
    reason = why_no_pose_errors(summary)
    if reason is not None:
        raise InputError(f"directions cannot be compared: {reason}")
    values = known(direction_errors_degree(summary))
    edges = np.linspace(0, 180, 61)
    figure, axes = new_panel()
    bars(axes, values, edges)
    if len(values):
        by_chance = random_angles_degree(symmetry_of(summary), edges) * len(values)
        axes.plot(
            (edges[1:] + edges[:-1]) / 2, by_chance, "--", color=GREY, label="of random directions"
        )
        mark_median(axes, values, "°")
    axes.set_xlim(0, 180)
    axes.set_xticks(np.arange(0, 181, 30))
    finish_histogram(
        axes, values, "angle to the recorded direction (degree)", legend=bool(len(values))
    )
    entitle(axes, summary, None)
    return figure


def plot_block_times(path: str | Path) -> Figure:
    """Show how long the blocks of a run took.

    Parameters
    ----------
    path : path
        `blocks.csv` of an output folder.

    Raises
    ------
    InputFileError
        If there is no such table.
    """
    blocks = read_blocks(path)
    devices = sorted(set(blocks.device.tolist()))
    named = devices if len(devices) <= len(COLOURS) else devices[: len(COLOURS) - 1]
    parts = {name: blocks.seconds[blocks.device == name] for name in named}
    if len(named) < len(devices):
        others = f"{len(devices) - len(named)} other devices"
        parts[others] = blocks.seconds[~np.isin(blocks.device, named)]
    names = [
        f"{short(name)}: {len(seconds)} blocks, {duration(float(seconds.sum()))}"
        for name, seconds in parts.items()
    ]
    figure, axes = new_panel()
    stacked_bars(axes, list(parts.values()), edges_of(blocks.seconds, least=0.0), names)
    finish_histogram(axes, blocks.seconds, "seconds per block", legend=bool(parts), of="blocks")
    return figure
