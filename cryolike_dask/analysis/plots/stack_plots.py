"""Figures of image and template stacks: real space, Fourier space, and power over spatial
frequency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.plots.drawing import box_limits_angstrom, new_figure, resolution_axis
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.atomic import replacing
from cryolike_dask.particles.transform import fourier_to_pixels, radial_power
from cryolike_dask.stacks import ImageStack, TemplateStack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

MOST_PANELS = 12
"""Side by side in one figure; more could not be read."""
DECADES = 4
"""Amplitudes further than this below the largest, and their power, are not told apart."""


def plot_images(images: ImageStack, n: int = 4) -> Figure:
    """Show the first images of a stack, in real space, in Fourier space, and their power over
    spatial frequency.

    Parameters
    ----------
    images : ImageStack
        In the frame of the stack: x to the right, y upwards. In stacks that CryoLike made, x is the
        row of the MRC file. Real space is computed from the polar grid: see `fourier_to_pixels` for
        what that does to noise.
    n : int
        Images to show, at most 12; of a shorter stack all.

    Returns
    -------
    matplotlib.figure.Figure
        Each image, real space above Fourier space, on common colour scales; below, the mean power
        of each ring.

    Raises
    ------
    InputError
        If `images` is no image stack, or n is not from 1 to 12.
    """
    _check_type(images, ImageStack, "images", "open_images")
    n = _panels(n, len(images))
    defocus = images.optics["defocus_u_angstrom"] + images.optics["defocus_v_angstrom"]
    titles = [
        f"image {images.image_in_stack[i]} of stack {images.stack[i]}\n"
        f"defocus {defocus[i] / 2e4:.2f} µm"
        for i in range(n)
    ]
    return _plot(images.source.take(np.arange(n)), images.grid, titles, "image")


def plot_templates(templates: TemplateStack, n: int = 4) -> Figure:
    """Show some templates of a structure, in real space, in Fourier space, and their power over
    spatial frequency.

    Parameters
    ----------
    templates : TemplateStack
        Shown as they are stored, not displaced: x to the right, y upwards.
    n : int
        Templates to show, spread evenly over the stack, at most 12; of a shorter stack all.

    Returns
    -------
    matplotlib.figure.Figure
        Each template, real space above Fourier space, on common colour scales; below, the mean
        power of each ring.

    Raises
    ------
    InputError
        If `templates` is no template stack, or n is not from 1 to 12.
    """
    _check_type(templates, TemplateStack, "templates", "open_templates")
    rows = np.linspace(0, len(templates) - 1, _panels(n, len(templates))).round().astype(np.int64)
    viewing = templates.viewing
    azimuth, polar = (np.degrees(angles[rows]) for angles in (viewing.azimuth, viewing.polar))
    titles = [f"azimuth {a:.0f}°\npolar {p:.0f}°" for a, p in zip(azimuth, polar, strict=True)]
    figure = _plot(templates.source.take(rows), templates.grid, titles, "template")
    figure.suptitle(f"structure {templates.structure}", parse_math=False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, 150 dots per inch where it has dots; a file that is there is complete.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Its suffix is the format: .png, .pdf, .svg.

    Raises
    ------
    InputError
        If `figure` is no figure, or matplotlib does not write the format.
    OutputError
        If the folder or the disk does not take it.
    """
    from matplotlib.figure import Figure

    _check_type(figure, Figure, "figure", "plot_images or plot_templates")
    suffix = Path(path).suffix.removeprefix(".").lower()
    formats = figure.canvas.get_supported_filetypes()
    if suffix not in formats:
        raise InputError(
            f"no figure can be written as {suffix!r}",
            source=path,
            remedy="Give it the suffix .png.",
        )
    with replacing(path) as file:
        figure.savefig(file, format=suffix, dpi=150)


def _check_type(value: Any, kind: type, name: str, maker: str) -> None:
    if not isinstance(value, kind):
        type_name = type(value).__name__
        raise InputError(
            f"{name} is of type {type_name}, not {kind.__name__}", remedy=f"Make it with {maker}."
        )


def _panels(n: int, n_stack: int) -> int:
    if number("n", n, whole=True, at_least=1) > MOST_PANELS:
        raise InputError(
            f"n={n} panels do not fit side by side", remedy=f"Take at most {MOST_PANELS}."
        )
    return min(int(n), n_stack)


def _plot(values: NDArray[Any], grid: PolarGrid, titles: Sequence[str], what: str) -> Figure:
    """Lay out a column of two panels for each row of `values`, complex (n, shell, angle), and
    the power below."""
    n = len(values)
    values = np.where(np.isfinite(values), values, np.nan).astype(values.dtype)
    figure = new_figure(2.0 * max(n, 2) + 1.6, 8.0)
    figure.set_layout_engine("constrained", h_pad=0.1)
    layout = figure.add_gridspec(3, n, height_ratios=[1, 1, 0.85])
    rows = [[figure.add_subplot(layout[row, column]) for column in range(n)] for row in range(2)]
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize="medium")
    _draw_real_space(rows[0], fourier_to_pixels(values, grid), grid)
    _draw_fourier_space(rows[1], np.abs(values).astype(np.float64), grid)
    _draw_power(figure.add_subplot(layout[2, :]), radial_power(values, grid), grid, what)
    return figure


def _draw_real_space(row: Sequence[Axes], pixels: NDArray[Any], grid: PolarGrid) -> None:
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    low, high = box_limits_angstrom(grid)
    seen = pixels[np.isfinite(pixels)]
    least, most = (seen.min(), seen.max()) if len(seen) else (0.0, 0.0)
    norm = Normalize(least, most if most > least else least + 1)
    for axes, image in zip(row, pixels, strict=True):
        drawn = axes.imshow(
            image, cmap="gray", norm=norm, origin="lower", extent=(low, high, low, high)
        )
        if not np.isfinite(image).all():
            _note(axes, "not finite")
    _label_row(row, "x (Å)", "y (Å)")
    ticks = MaxNLocator(4)
    row[0].figure.colorbar(
        drawn, ax=list(row), pad=0.01, label="intensity\n(arbitrary units)", ticks=ticks
    )


def _draw_fourier_space(row: Sequence[Axes], amplitudes: FloatArray, grid: PolarGrid) -> None:
    from matplotlib.colors import LogNorm

    (fx, fy), limit = _cell_corners(grid), _highest_frequency(grid)
    seen = amplitudes[amplitudes > 0]
    most = seen.max() if len(seen) else 1.0
    least = max(np.quantile(seen, 0.01) if len(seen) else 0.0, most * 10.0**-DECADES)
    norm = LogNorm(least if least < most else most / 10, most)
    for axes, amplitude in zip(row, amplitudes, strict=True):
        colours = np.ma.masked_invalid(amplitude.clip(least, most))
        drawn = axes.pcolormesh(fx, fy, colours, norm=norm, cmap="viridis", rasterized=True)
        axes.set(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
    _label_row(row, "x frequency (1/Å)", "y frequency (1/Å)")
    row[0].figure.colorbar(
        drawn, ax=list(row), pad=0.01, label="amplitude\n(arbitrary units)", extend="min"
    )


def _draw_power(axes: Axes, power: FloatArray, grid: PolarGrid, what: str) -> None:
    """Draw the power of each ring, (n, shell), and its mean; values that are not finite or
    positive are left out."""
    frequencies = grid.spatial_frequencies
    finite = power[np.isfinite(power).all(axis=1)]
    each = axes.plot(frequencies, np.ma.masked_less_equal(finite, 0).T, color="0.5", linewidth=0.8)
    if len(each) > 1:
        mean = np.ma.masked_less_equal(finite.mean(axis=0), 0)
        axes.plot(frequencies, mean, color="black", linewidth=1.8, label=f"mean of {len(each)}")
        each[0].set_label(f"each {what}")
    most = finite.max(initial=0.0)
    if most:
        axes.set_yscale("log")
        if len(each) > 1:
            axes.legend(frameon=False)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], most * 10.0 ** (-2 * DECADES)))
    else:
        axes.set_yticks([])
        _note(axes, "no power")
    axes.set_xlim(0, _highest_frequency(grid))
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="mean power\n(arbitrary units)")
    resolution_axis(axes, _highest_frequency(grid), grid.box_size_angstrom)


def _highest_frequency(grid: PolarGrid) -> float:
    return 2 * grid.radius_max / grid.box_size_angstrom


def _cell_corners(grid: PolarGrid) -> tuple[FloatArray, FloatArray]:
    """Corners of a cell around each point, 1/angstrom, each (shell + 1, angle + 1)."""
    frequencies = grid.spatial_frequencies
    between = (frequencies[1:] + frequencies[:-1]) / 2
    edges = np.concatenate([[0.0], between, [_highest_frequency(grid)]])[:, None]
    angles = 2 * np.pi * (np.arange(grid.n_inplanes + 1) - 0.5) / grid.n_inplanes
    return edges * np.cos(angles), edges * np.sin(angles)


def _label_row(row: Sequence[Axes], x_label: str, y_label: str) -> None:
    """Label the panels of a row; the first one's y axis serves all."""
    for axes in row:
        axes.set_xlabel(x_label)
        axes.locator_params(nbins=4, prune="both")
        axes.tick_params(labelleft=axes is row[0])
    row[0].set_ylabel(y_label)


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, horizontalalignment="center")
