"""Whether the search was fine enough: what images lose half-way between two displacements,
rotations or views.

A best projection is compared with itself half a step away: if these correlate a, an image that
would correlate c with the right pose correlates c a with the one that was tried, and with n degrees
of freedom its log-likelihood is n/2 log((1 - (c a)^2) / (1 - c^2)) lower. For c the correlation
that was found is taken, which is a little low. The loss grows as the square of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.matching import Images, Match, Templates, single_matches
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.search_method import Adaptive
from cryolike_dask.geometry.symmetry import point_group
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.likelihoods.image_formation import correlation, displacement_phases
from cryolike_dask.likelihoods.search.adaptive import is_worth_levels

LARGEST = 1 - 1e-6
"""Largest correlation that counts: rounding and the offset of a template may bring that of an
image without noise above 1."""

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Step:
    """Coarseness of a search in one respect.

    Attributes
    ----------
    name : str
        "displacements", "rotations" or "views".
    size : float
        Distance from one to the next: angstrom, or radian; of views to the nearest, which is a
        little less than the step of their grid.
    loss : float
        Loss of log-likelihood half a step away, nat; the median over images. For displacements
        half a step along both axes.
    """

    name: str
    size: float
    loss: float

    def shown(self, size: float) -> str:
        """A size as people read it."""
        return f"{size:.3g} Å" if self.name == "displacements" else f"{np.degrees(size):.3g}°"

    @property
    def loss_on_average(self) -> float:
        """Loss of poses that lie anywhere between those tried, as it grows with the square: of a
        square cell, of its corner; of a line, of its middle; of a cell of views, of its side."""
        return self.loss * {"views": 2 / 3}.get(self.name, 1 / 3)

    def size_of_loss(self, loss: float) -> float:
        """The step that would lose so many nat."""
        return self.size * float(np.sqrt(loss / self.loss))


def search_steps(
    chosen: xr.Dataset, images: Images, templates: Templates, noise: NoiseModel | None = None
) -> list[Step]:
    """Measure how coarse the search was for some images; of an adaptive one in rotations and views.

    Parameters
    ----------
    chosen : xarray.Dataset
        The summary of these images alone.
    images, templates : stack or several
    noise : NoiseModel, optional
        As `match` takes them.

    Raises
    ------
    InputError, GridMismatchError
        As for `match`.
    """
    x, y = (np.round(values, 3) for values in displacements_tried(chosen))
    half_steps = [
        float(np.median(np.diff(axis))) / 2 if len(axis) > 1 else 0.0 for axis in axes_of(x, y)
    ]
    losses, angles = [], []
    for match in single_matches(chosen, images, templates, noise):
        grid = match.templates.grid
        filtered = match.whitening.whitened(match.contrast * match.template)
        neighbour, angle = _nearest(match.templates.viewing, match.row)
        # half-way to the next view: what is lost grows as the square of the angle
        half_way = 1 - (1 - _seen_from(match, neighbour)) / 4
        alike = [
            correlation(filtered, _displaced(filtered, half_steps, grid), grid),
            correlation(filtered, _turned(filtered), grid),
            half_way,
        ]
        c, n = np.clip(match.correlation, -LARGEST, LARGEST), match.whitening.n_degrees_of_freedom
        losses.append(n / 2 * np.log((1 - (c * np.array(alike)) ** 2) / (1 - c**2)))
        angles.append(angle)
    between = 0.0 if searched_in_levels(chosen, grid) else 2 * max(half_steps)
    sizes = (between, 2 * np.pi / grid.n_inplanes, float(np.median(angles)))
    steps = zip(
        ("displacements", "rotations", "views"),
        sizes,
        np.median(losses, axis=0).tolist(),
        strict=True,
    )
    return [Step(*step) for step in steps if step[1] > 0]


def searched_in_levels(results: xr.Dataset, grid: PolarGrid) -> bool:
    """Whether results are of an adaptive search that was worth its levels: then likelihoods are
    interpolated between displacements, and nothing is lost half-way."""
    is_adaptive = Adaptive.named(str(results.attrs.get("search"))) is not None
    return is_adaptive and is_worth_levels(grid)


def axes_of(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The axes of a grid of displacements, to which (0, 0) may be appended; empty if they are no
    grid."""
    for n in (len(x), len(x) - 1):
        axes = np.unique(x[:n]), np.unique(y[:n])
        if len(axes[0]) * len(axes[1]) == n:
            return axes
    return x[:0], y[:0]


def _nearest(viewing: ViewingAngles, row: int) -> tuple[int, float]:
    """The view next to a view, and the angle between them; where structures have a symmetry, views
    that look the same as another are next to it as that one is."""
    directions = viewing.rotations()[:, :, 2]
    if len(viewing) == 1:
        return row, 0.0
    images = directions[row] @ point_group(viewing.symmetry).rotations
    cosines = (directions @ images.T).max(axis=1)
    cosines[row] = -np.inf
    neighbour = int(cosines.argmax())
    return neighbour, float(np.arccos(np.clip(cosines[neighbour], -1, 1)))


def _displaced(projection: Complex, by: Sequence[float], grid: PolarGrid) -> Complex:
    """Displace by so many angstrom."""
    x, y = (2 * length / grid.box_size_angstrom for length in by)
    displaced: Complex = projection * displacement_phases(x, y, *grid.points())
    return displaced


def _turned(projection: Complex) -> Complex:
    """Turn by half an angle of the grid."""
    n = projection.shape[-1]
    phases = np.exp(1j * np.pi * np.fft.fftfreq(n, 1 / n) / n)
    turned: Complex = np.fft.ifft(np.fft.fft(projection, axis=-1) * phases, axis=-1)
    return turned


def _seen_from(match: Match, neighbour: int) -> float:
    """Correlation of two views at the best rotation; contrast transfer without astigmatism."""
    grid = match.templates.grid
    contrast = match.whitening.whitened(np.sqrt((match.contrast**2).mean(-1, keepdims=True)))
    neighbouring = contrast * match.templates.source.take(np.atleast_1d(neighbour))[0]
    spectra = [np.fft.fft(values, axis=-1) for values in (contrast * match.template, neighbouring)]
    products = np.fft.ifft(spectra[0].conj() * spectra[1], axis=-1).real
    turns = int((grid.weights[:, None] * products).sum(0).argmax())
    return correlation(contrast * match.template, np.roll(neighbouring, -turns, axis=-1), grid)
