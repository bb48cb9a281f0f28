"""The spectrum of noise, smooth, from the power of rings of images that hold signal too.

The power of a ring of an image is, in the mean, that of the noise, and that of the signal times the
square of the contrast transfer. The first is smooth; the second comes and goes with the zeros of
the contrast transfer, which lie elsewhere in images of another defocus. So both can be told apart
without any pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

LOWEST_SHELL = 1.0
"""Cycles per half box. Below it is what is left of the mean, which conversion subtracts: never
estimated, but continued."""
FREEDOM_OF_A_KNOT = 4000.0
"""Independent values of all images that a knot of the spectrum is worth, so that it is known to 2%
there; and at most `NARROWEST`, which is all that a box of finite size resolves."""
NARROWEST, WIDEST = 0.5, 4.0
"""Distance of knots, cycles per half box."""
N_ROUNDS = 20
LEAST = 1e-6
"""Part of the median power that a spectrum never falls below while it is fitted."""


@dataclass(frozen=True, eq=False)
class RingPower:
    """What each image says of power, ring by ring.

    Attributes
    ----------
    power : (image, shell) float64
        Mean of |F|^2.
    contrast : (image, shell) float64
        Mean square of the contrast transfer.
    """

    power: FloatArray
    contrast: FloatArray

    def __len__(self) -> int:
        return len(self.power)

    def take(self, rows: NDArray[np.int64]) -> RingPower:
        """Some of the images."""
        return RingPower(self.power[rows], self.contrast[rows])

    def under(self, b_factor_angstrom2: FloatArray, grid: PolarGrid) -> RingPower:
        """The same under the envelope of each image, (image,)."""
        if not b_factor_angstrom2.any():
            return self
        envelope = np.exp(-b_factor_angstrom2[:, None] * grid.spatial_frequencies**2 / 4)
        return RingPower(self.power, self.contrast * envelope**2)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The power of noise on the shells of a grid, smooth.

    Attributes
    ----------
    variance, relative_error : (shell,) float64
    levels : (image,) float64
        Factor of the variance for each image, 1 on average.
    signal : float
        Power of the signal, in units of the power of templates.
    signal_error : float
        Its standard error.
    """

    variance: FloatArray
    relative_error: FloatArray
    levels: FloatArray
    signal: float = 0.0
    signal_error: float = 0.0


def degrees_of_freedom_of_shells(grid: PolarGrid) -> FloatArray:
    """Independent values of an image that each shell stands for, (shell,)."""
    return 4 * grid.weights * grid.n_inplanes


def fit_spectrum(
    rings: RingPower,
    grid: PolarGrid,
    of_templates: FloatArray | None,
    band_limit: float = np.inf,
) -> Spectrum:
    """Fit the spectrum of the noise of images.

    Parameters
    ----------
    rings : RingPower
    grid : PolarGrid
    of_templates : (shell,) float64 or None
        Mean of |T|^2 of templates, which is the shape of the signal; None: signal is left in the
        noise.
    band_limit : float
        1/angstrom. Shells beyond hold no noise, and are left out.

    Notes
    -----
    Weighted least squares of power on B-splines of the noise and on contrast^2 |T|^2, the weights
    those of the model itself, so that it is the maximum of Whittle's likelihood; the level of each
    image is its own.
    """
    n_free = degrees_of_freedom_of_shells(grid)
    inside = (grid.radii >= LOWEST_SHELL) & (grid.spatial_frequencies <= band_limit)
    if not inside.any():
        raise InputError(
            f"the band ends at {band_limit * grid.box_size_angstrom / 2:.3g} cycles per half box, "
            "below which noise cannot be estimated",
            remedy='Give a noise model, or noise="white" (--noise white).',
        )
    basis = _splines(grid.radii, knot_distance(len(rings), grid), grid.radii[inside].max())
    n, power, contrast = basis.shape[1], rings.power, rings.contrast
    shape = np.zeros((len(grid.radii), 0)) if of_templates is None else of_templates[:, None]
    # in logarithms, a variance stays positive whatever the signal takes of the power
    start = power.mean(axis=0)[inside]
    start = np.log(np.maximum(start, LEAST * np.median(start)))
    logs = np.linalg.lstsq(basis[inside], start, rcond=None)[0]
    signal, levels = np.zeros(shape.shape[1]), np.ones(len(power))
    for _ in range(N_ROUNDS):
        variance = np.exp(basis @ logs)
        model = np.maximum(variance + contrast * (shape @ signal), LEAST * variance)
        levels = _sums(power, grid, inside) / _sums(model, grid, inside)
        levels /= levels.mean()
        weights = n_free * inside / (2 * model**2)
        left, slopes = power / levels[:, None] - model, variance[:, None] * basis
        normal = _normal(slopes, shape, weights, contrast)
        right = [slopes.T @ (weights * left).sum(axis=0)]
        right += [shape.T @ (weights * contrast * left).sum(axis=0)]
        step = np.linalg.lstsq(normal, np.concatenate(right), rcond=1e-12)[0]
        logs, signal = logs + np.clip(step[:n], -1, 1), signal + step[n:]
    variance, covariance = np.exp(basis @ logs), np.linalg.pinv(normal, rcond=1e-12)
    error = np.sqrt(np.einsum("ni,ij,nj->n", basis, covariance[:n, :n], basis))
    error *= _excess(power / levels[:, None], model, n_free, inside)
    if of_templates is None:
        return Spectrum(variance, error, levels)
    return Spectrum(variance, error, levels, float(signal[0]), float(np.sqrt(covariance[-1, -1])))


def _normal(
    slopes: FloatArray, shape: FloatArray, weights: FloatArray, contrast: FloatArray
) -> FloatArray:
    """Normal equations of the splines of the noise and of the signal."""
    once, twice = (weights * contrast).sum(axis=0), (weights * contrast**2).sum(axis=0)
    crossed = slopes.T @ (once[:, None] * shape)
    of_noise = slopes.T @ (weights.sum(axis=0)[:, None] * slopes)
    return np.block([[of_noise, crossed], [crossed.T, shape.T @ (twice[:, None] * shape)]])


def deviation(
    rings: FloatArray, expected: FloatArray, grid: PolarGrid, band_limit: float
) -> tuple[FloatArray, FloatArray]:
    """How the logarithm of the spectrum of few images differs from one that is known.

    Parameters
    ----------
    rings : (image, shell) float64
        Power of rings.
    expected : (image, shell) float64
        What is expected of it.
    grid : PolarGrid
    band_limit : float
        1/angstrom.

    Returns
    -------
    coefficients, variances : (spline,) float64
        Of cubic splines, `deviation_splines`, with knots as few images allow, and their variances.
    """
    n_free = degrees_of_freedom_of_shells(grid)
    inside = (grid.radii >= LOWEST_SHELL) & (grid.spatial_frequencies <= band_limit)
    basis = deviation_splines(grid)
    weights = n_free * inside * len(rings) / 2
    covariance = np.linalg.pinv(basis.T @ (weights[:, None] * basis), rcond=1e-12)
    coefficients = np.zeros(basis.shape[1])
    for _ in range(N_ROUNDS):
        model = expected * np.exp(basis @ coefficients)
        levels = _sums(rings, grid, inside) / _sums(model, grid, inside)
        left = (rings / (levels[:, None] * model)).mean(axis=0) - 1
        coefficients = coefficients + np.clip(covariance @ (basis.T @ (weights * left)), -1, 1)
    return coefficients - coefficients.mean(), np.diag(covariance).copy()


def deviation_splines(grid: PolarGrid) -> FloatArray:
    """Splines of `deviation` on the shells of a grid, (shell, spline)."""
    return _splines(grid.radii, max(WIDEST, grid.radius_max / 6), grid.radii[-1])


def knot_distance(n_images: int, grid: PolarGrid) -> float:
    """Distance of knots that so many images allow, cycles per half box."""
    density = degrees_of_freedom_of_shells(grid).sum() / grid.radius_max
    return float(np.clip(FREEDOM_OF_A_KNOT / (n_images * density), NARROWEST, WIDEST))


def _splines(radii: FloatArray, distance: float, high: float) -> FloatArray:
    """Cubic B-splines on shells, continued below the lowest that is estimated, and above the
    highest."""
    low = min(LOWEST_SHELL, high / 2)
    n = max(1, round((high - low) / distance))
    knots = np.concatenate([[low] * 3, np.linspace(low, high, n + 1), [high] * 3])
    values: FloatArray = BSpline.design_matrix(np.clip(radii, low, high), knots, 3).toarray()
    return values


def _sums(power: FloatArray, grid: PolarGrid, inside: NDArray[np.bool_]) -> FloatArray:
    total: FloatArray = (power * (grid.weights * inside)).sum(axis=1)
    return total


def _excess(
    power: FloatArray, model: FloatArray, n_free: FloatArray, inside: NDArray[np.bool_]
) -> float:
    """How much farther than independent values images lie from their model: neighbouring shells of
    a box say the same in part, and the signal of views differs."""
    if len(power) < 2:
        return 1.0
    chi2 = ((power / model - 1) ** 2 * n_free / 2)[:, inside].mean()
    return float(max(1.0, np.sqrt(chi2)))
