"""Figures of particles beside the projections that match them best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.image_names import IMAGE_NAME
from cryolike_dask.analysis.matching import Images, Matches, Templates, match
from cryolike_dask.analysis.plots.drawing import box_limits_angstrom, new_figure, plain_title, short
from cryolike_dask.analysis.summaries import BEST_STRUCTURE, summary_of
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.transform import fourier_to_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
MOST_OF_FILE = 21
"""Characters of the name of a file above a panel."""
RESOLVED_PER_BOX = 12
"""Smoothing leaves detail of a box's side over this, so that a particle can be seen in its
noise."""


def plot_matches(
    results: xr.Dataset,
    images: Images,
    templates: Templates,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    structure: str | None = None,
    n: int = 4,
    noise: NoiseModel | None = None,
) -> Figure:
    """Show particles beside the projections that match them best.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    images : ImageStack or several
        What the results were computed from, as `open_images` gives it; of several stacks those that
        are needed.
    templates : TemplateStack or several
        Those of the structures that are needed, as `open_templates` or `open_structures` give them.
    rows : sequence of int, optional
        Positions of the images in the results, at most 12; default: those of the largest
        correlation.
    structure : str, optional
        Under this structure; default: the best of each image.
    n : int
        How many, where `rows` are not given.
    noise : NoiseModel, optional
        That of the results, where no folder keeps it.

    Returns
    -------
    matplotlib.figure.Figure
        A column for each image: the particle; the same, smoothed; the projection in its best pose,
        filtered by the contrast transfer of the image, smoothed as well. Grey values of each panel
        are its own. x and y are those of the stack: in stacks that CryoLike made, x is the row of
        the MRC file.

    Raises
    ------
    InputError
        If an image or a structure is not there, an image has no result, or there are too many.
    GridMismatchError
        If images and templates lie on different grids.
    """
    if rows is None:
        summary = summary_of(results, structure)
        rows = extreme_rows(summary, number("n", n, whole=True, at_least=1))[0]
        chosen = summary.isel({labels.IMAGE: rows})
    else:
        chosen = summary_of(
            results.isel({labels.IMAGE: _checked(rows, results.sizes[labels.IMAGE])}), structure
        )
    if not 1 <= chosen.sizes[labels.IMAGE] <= MOST_PANELS:
        raise InputError(
            f"{chosen.sizes[labels.IMAGE]} images to show", remedy=f"Choose 1 to {MOST_PANELS}."
        )
    return draw_matches(chosen, match(chosen, images, templates, noise))


def extreme_rows(summary: xr.Dataset, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images of the largest, and of the smallest, correlations; no image is
    among both."""
    correlation = summary[labels.CROSS_CORRELATION].values
    order = np.argsort(-correlation, kind="stable")
    order = order[np.isfinite(correlation[order])]
    best = order[:n]
    return best, order[len(best) :][::-1][:n]


def draw_matches(chosen: xr.Dataset, matches: Matches) -> Figure:
    """Draw matches; `chosen` is the summary of these images alone."""
    grid, n = matches.grid, len(matches.particles)
    finest = grid.box_size_angstrom / RESOLVED_PER_BOX
    smooth = np.exp(-np.log(2) * (grid.spatial_frequencies[:, None] * finest) ** 2)
    stacks = (matches.particles, matches.particles * smooth, matches.projections * smooth)
    names = (
        "particle",
        f"particle,\nsmoothed to {finest:.2g} Å",
        f"its projection,\nsmoothed to {finest:.2g} Å",
    )
    figure = new_figure(1.95 * max(n, 2) + 0.9, 6.6)
    panels = figure.subplots(3, n, squeeze=False, sharex=True, sharey=True)
    for row, name, values in zip(panels, names, stacks, strict=True):
        for axes, pixels in zip(row, fourier_to_pixels(values, grid), strict=True):
            _draw(axes, pixels, grid)
        row[0].set_ylabel(f"{name}\n\ny (Å)")
    for m, axes in enumerate(panels[0]):
        plain_title(axes, _name(chosen.isel({labels.IMAGE: m})), "small")
    for axes in panels[-1]:
        axes.set_xlabel("x (Å)")
    return figure


def _name(image: xr.Dataset) -> str:
    if IMAGE_NAME in image.coords:
        number, at, file = str(image[IMAGE_NAME].item()).rpartition("@")
        name = f"{number}{at}\n{short(file.rpartition('/')[2], MOST_OF_FILE)}"
    else:
        name = f"image {int(image[labels.IMAGE_IN_STACK])} of stack {int(image[labels.STACK])}"
    return (
        f"{name}\n{short(str(image[BEST_STRUCTURE].item()))}\n"
        f"correlation {float(image[labels.CROSS_CORRELATION]):.3f}"
    )


def _draw(axes: Axes, pixels: NDArray[Any], grid: PolarGrid) -> None:
    low, high = box_limits_angstrom(grid)
    darkest, brightest = np.quantile(pixels, [0.005, 0.995])
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=darkest,
        vmax=brightest,
        origin="lower",
        extent=(low, high, low, high),
    )
    axes.locator_params(nbins=4, prune="both")


def _checked(rows: Sequence[int] | NDArray[np.int64], n: int) -> NDArray[np.int64]:
    chosen = [number("rows", row, whole=True, at_least=0) for row in rows]
    if any(row >= n for row in chosen):
        raise InputError(f"rows={chosen}, but there are {n} images")
    return np.array(chosen, np.int64)
