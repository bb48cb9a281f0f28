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
from cryolike_dask.geometry.leak import STEP, leak_of_grid
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]
Floats = FloatArray | NDArray[np.float32]

LOWEST_SHELL = 1.0
"""Cycles per half box. Below it is what is left of the mean, which conversion subtracts: never
estimated, but continued."""
NARROWEST, WIDEST = 0.5, 4.0
"""Distance of knots, cycles per half box: of spectra, what a box of finite size resolves; and of
what few images say of the difference from one."""
HIDDEN = 1.3
"""What errors of a smooth spectrum are over those of its coefficients: what smoothness hides.
Measured, 1.2 to 1.3 of coloured noise, 0.8 of white."""
N_ROUNDS = 20
N_HALVINGS = 10
"""Of a step that makes a fit worse."""
STEEPEST = 1.0
"""Standard deviation that is expected of the change of the logarithm of a spectrum from knot to
knot: what images say outweighs it, where they say anything."""
SMOOTHNESS = 1e-4, 1e8
"""Least and most that is asked of a spectrum."""
LEAST = 1e-6
"""Part of the median power that a spectrum never falls below while it is fitted."""


@dataclass(frozen=True, eq=False)
class RingPower:
    """What each image says of power, ring by ring.

    Attributes
    ----------
    power : (image, shell) float64, or float32 where there are many images
        Mean of |F|^2.
    contrast : (image, shell), the same
        Mean square of the contrast transfer.
    """

    power: Floats
    contrast: Floats

    def __len__(self) -> int:
        return len(self.power)

    def take(self, rows: NDArray[np.int64]) -> RingPower:
        """Some of the images, in double precision."""
        power, contrast = (a[rows].astype(np.float64) for a in (self.power, self.contrast))
        return RingPower(power, contrast)

    def under(self, b_factor_angstrom2: FloatArray, grid: PolarGrid) -> RingPower:
        """The same under the envelope of each image, (image,)."""
        if not b_factor_angstrom2.any():
            return self
        contrast, rates = self.contrast.copy(), grid.spatial_frequencies**2 / 2
        for b_factor in np.unique(b_factor_angstrom2):  # of few groups, and many images
            contrast[b_factor_angstrom2 == b_factor] *= np.exp(-b_factor * rates)
        return RingPower(self.power, contrast)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The power of noise on the shells of a grid, smooth.

    Attributes
    ----------
    variance, relative_error : (shell,) float64
    power : (shell,) float64
        That images have by it, which the edges of the box have smeared.
    levels : (image,) float64
        Factor of the variance for each image, 1 on average.
    signal : float
        Power of the signal, in units of the power of templates.
    signal_error : float
        Its standard error.
    """

    variance: FloatArray
    relative_error: FloatArray
    power: FloatArray
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
    image is its own. What the box leaks from frequency to frequency is part of the model: whitening
    by a spectrum that it has smeared would not tell a narrow peak from its neighbours.

    A spectrum is as smooth as the images bear out: second differences of the splines' coefficients
    are those of a normal distribution, whose variance maximises the marginal likelihood (Wood and
    Fasiolo, Biometrics 2017, "A generalized Fellner-Schall method").
    """
    n_free = degrees_of_freedom_of_shells(grid)
    inside = (grid.radii >= LOWEST_SHELL) & (grid.spatial_frequencies <= band_limit)
    if not inside.any():
        raise InputError(
            f"the band ends at {band_limit * grid.box_size_angstrom / 2:.3g} cycles per half box, "
            "below which noise cannot be estimated",
            remedy='Give a noise model, or noise="white" (--noise white).',
        )
    basis, leak = _splines(grid.radii, NARROWEST, grid.radii[inside].max()), leak_of_grid(grid)
    steps = np.arange(leak.shape[1]) * STEP / 2
    at_steps = _splines(steps, NARROWEST, grid.radii[inside].max())
    leak = leak * (steps <= band_limit * grid.box_size_angstrom / 2)
    n, power, contrast = basis.shape[1], rings.power, rings.contrast
    shape = np.zeros((len(grid.radii), 0)) if of_templates is None else of_templates[:, None]
    # in logarithms, a variance stays positive whatever the signal takes of the power
    start = power.mean(axis=0)[inside]
    start = np.log(np.maximum(start, LEAST * np.median(start)))
    slope, curvature, smoothness = np.diff(np.eye(n), axis=0), np.diff(np.eye(n), 2, axis=0), 1.0
    steep, rough = slope.T @ slope / STEEPEST**2, curvature.T @ curvature
    logs = np.linalg.solve(basis[inside].T @ basis[inside] + steep, basis[inside].T @ start)
    signal, levels = np.zeros(shape.shape[1]), np.ones(len(power))

    def expected(logs: FloatArray, signal: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        spectrum = np.exp(at_steps @ logs)
        of_noise = leak @ spectrum
        both = of_noise + contrast * (shape @ signal)
        return spectrum, of_noise, np.maximum(both, LEAST * of_noise)

    def cost(logs: FloatArray, signal: FloatArray) -> float:
        model = expected(logs, signal)[2]
        of_shells = (np.log(model) + power / (levels[:, None] * model)).sum(axis=0)
        asked = smoothness * rough + steep
        return float(n_free * inside @ of_shells + logs @ asked @ logs) / 2

    for _ in range(N_ROUNDS):
        spectrum, of_noise, model = expected(logs, signal)
        levels = _sums(power, grid, inside) / _sums(model, grid, inside)
        levels /= levels.mean()
        weights = n_free * inside / (2 * model**2)
        left, slopes = power / levels[:, None] - model, leak @ (spectrum[:, None] * at_steps)
        normal = _normal(slopes, shape, weights, contrast)
        asked = smoothness * rough + steep
        normal[:n, :n] += asked
        right = [slopes.T @ (weights * left).sum(axis=0) - asked @ logs]
        right += [shape.T @ (weights * contrast * left).sum(axis=0)]
        covariance = np.linalg.pinv(normal, rcond=1e-12)
        step = covariance @ np.concatenate(right)
        step[:n] = np.clip(step[:n], -1, 1)
        before = cost(logs, signal)
        for _ in range(N_HALVINGS):  # few images, nearly all signal: a whole step may lead away
            if cost(logs + step[:n], signal + step[n:]) <= before:
                logs, signal = logs + step[:n], signal + step[n:]
                break
            step = step / 2
        told = len(curvature) - smoothness * np.sum(covariance[:n, :n] * rough)
        smoothness = np.clip(told / max(((curvature @ logs) ** 2).sum(), 1e-12), *SMOOTHNESS)
    variance = np.exp(basis @ logs)
    error = np.sqrt(np.einsum("ni,ij,nj->n", basis, covariance[:n, :n], basis))
    error *= HIDDEN * _excess(power / levels[:, None], model, n_free, inside)
    if of_templates is None:
        return Spectrum(variance, error, of_noise, levels)
    signal_error = float(np.sqrt(covariance[-1, -1]))
    return Spectrum(variance, error, of_noise, levels, float(signal[0]), signal_error)


def levels_of(
    rings: RingPower,
    spectrum: Spectrum,
    grid: PolarGrid,
    of_templates: FloatArray | None,
    band_limit: float = np.inf,
) -> FloatArray:
    """Factor of the variance for each of some images, (image,), which may be others than those that
    the spectrum was fitted to; parameters are those of `fit_spectrum`."""
    inside = (grid.radii >= LOWEST_SHELL) & (grid.spatial_frequencies <= band_limit)
    shape = 0.0 if of_templates is None else of_templates
    model = spectrum.power + rings.contrast * shape * spectrum.signal
    model = np.maximum(model, LEAST * spectrum.power)
    return _sums(rings.power, grid, inside) / _sums(model, grid, inside)


def part_of_noise(
    rings: RingPower, spectrum: Spectrum, grid: PolarGrid, band_limit: float = np.inf
) -> float:
    """Part of the power of images that is noise by a spectrum that was fitted to them."""
    inside = (grid.radii >= LOWEST_SHELL) & (grid.spatial_frequencies <= band_limit)
    of_noise = spectrum.levels.mean() * spectrum.power
    weights = grid.weights * inside
    return float((of_noise * weights).sum() / (rings.power.mean(axis=0) * weights).sum())


def _normal(
    slopes: FloatArray, shape: FloatArray, weights: FloatArray, contrast: Floats
) -> FloatArray:
    """Normal equations of the splines of the noise and of the signal."""
    once, twice = (weights * contrast).sum(axis=0), (weights * contrast**2).sum(axis=0)
    crossed = slopes.T @ (once[:, None] * shape)
    of_noise = slopes.T @ (weights.sum(axis=0)[:, None] * slopes)
    return np.block([[of_noise, crossed], [crossed.T, shape.T @ (twice[:, None] * shape)]])


def deviation(
    rings: Floats, expected: FloatArray, grid: PolarGrid, band_limit: float
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


def _splines(radii: FloatArray, distance: float, high: float) -> FloatArray:
    """Cubic B-splines on shells, continued below the lowest that is estimated, and above the
    highest."""
    low = min(LOWEST_SHELL, high / 2)
    n = max(1, round((high - low) / distance))
    knots = np.concatenate([[low] * 3, np.linspace(low, high, n + 1), [high] * 3])
    values: FloatArray = BSpline.design_matrix(np.clip(radii, low, high), knots, 3).toarray()
    return values


def _sums(power: Floats, grid: PolarGrid, inside: NDArray[np.bool_]) -> FloatArray:
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
