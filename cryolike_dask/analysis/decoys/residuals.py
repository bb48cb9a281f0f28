"""What is left of images without their best projections: whether its power over shells is that of
the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from cryolike_dask.analysis.matching import Match
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

MOST_BINS = 8
"""Of shells: what a few shells hold is hardly told from noise, and slow changes are seen in few."""
PER_BIN = 10
"""Simulated particles for each bin, at least: fewer do not tell how bins vary together."""


def residual_power(match: Match) -> FloatArray:
    """Power of what is left of an image on each shell, whitened, (shell,).

    Projection and a constant offset of the box are taken out, with the amplitudes that leave least.
    """
    grid, whitened = match.templates.grid, match.whitening.whitened
    image = whitened(match.particle)
    parts = np.stack([whitened(match.projection), whitened(grid.mask(exact=True))])
    normal = _inner(parts[:, None], parts[None], grid)
    amplitudes, *_ = np.linalg.lstsq(normal, _inner(parts, image[None], grid), rcond=1e-12)
    left = image - np.tensordot(amplitudes, parts, 1)
    power: FloatArray = (np.abs(left) ** 2).mean(axis=1)
    return power


def bins_of(power: FloatArray, grid: PolarGrid) -> NDArray[np.int64]:
    """The bin of each shell, of about as many values each; -1 where some image has no noise.

    Parameters
    ----------
    power : (image, shell)
    grid : PolarGrid

    Raises
    ------
    InputError
        If there are fewer than two shells with noise.
    """
    known: NDArray[np.bool_] = np.all(power > 0, axis=0)
    if known.sum() < 2:
        raise InputError(f"{known.sum()} shell(s) have noise: residuals have no shape")
    n_bins = min(MOST_BINS, int(known.sum()))
    before = np.cumsum(grid.weights * known)
    bins = np.minimum((before - grid.weights / 2) / before[-1] * n_bins, n_bins - 1)
    # none is left empty, where the outer shells hold most
    _, counted = np.unique(bins.astype(np.int64)[known], return_inverse=True)
    of_shell = np.full(len(known), -1)
    of_shell[known] = counted
    return of_shell


def shape_of(power: FloatArray, bins: NDArray[np.int64], grid: PolarGrid) -> FloatArray:
    """Logarithms of the power in bins over that of the last one, (image, bin - 1): the level of the
    noise is each image's own.

    Parameters
    ----------
    power : (image, shell)
    bins : (shell,) int
    grid : PolarGrid
    """
    weights = grid.weights * (np.arange(bins.max() + 1)[:, None] == bins)
    logarithms = np.log(power @ (weights / weights.sum(axis=1, keepdims=True)).T)
    shape: FloatArray = logarithms[:, :-1] - logarithms[:, -1:]
    return shape


@dataclass(frozen=True, eq=False)
class NoiseShape:
    """How the shape of residuals is distributed over simulated particles of right structures.

    Attributes
    ----------
    mean : (bin - 1,) float64
    covariance : (bin - 1, bin - 1) float64
    n_simulated : int
    """

    mean: FloatArray
    covariance: FloatArray
    n_simulated: int

    @classmethod
    def of(cls, shapes: FloatArray) -> NoiseShape:
        """That of simulated particles, (particle, bin - 1)."""
        return cls(shapes.mean(axis=0), np.atleast_2d(np.cov(shapes, rowvar=False)), len(shapes))

    def p_values(self, shapes: FloatArray) -> FloatArray:
        """How probable a shape so far from the mean is, by Hotelling's distribution, (image,)."""
        n, d = self.n_simulated, len(self.mean)
        away = shapes - self.mean
        distance = np.einsum("ib,ib->i", away, np.linalg.solve(self.covariance, away.T).T)
        ratio = distance * n * (n - d) / (d * (n**2 - 1))
        p: FloatArray = f_distribution.sf(ratio, d, n - d)
        return p


def _inner(a: NDArray[np.complex128], b: NDArray[np.complex128], grid: PolarGrid) -> FloatArray:
    """Over the grid, of arrays (..., shell, angle)."""
    return grid.integrate((a.conj() * b).real)
