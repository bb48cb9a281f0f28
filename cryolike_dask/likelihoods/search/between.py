"""How likely orientations are between those of a search, by the likelihoods of these (numpy only).

Where a posterior is narrower than orientations are apart, the best of them holds all of it, and the
truth lies beside it. A log-likelihood is a smooth function of the orientation, which its values at
those about the best one tell in between, up to an error that they tell too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from cryolike_dask.likelihoods.search.regions import Orientations

FloatArray = NDArray[np.float64]
Positions = NDArray[np.int64]

NEAR, WITHIN = 2.0, 1.25
"""Spacings from the best orientation, of those whose likelihoods are used, and of the ones between
them that are told."""
FARTHEST = 1.2
"""Radian: beyond, rotation vectors do not add up as those of flat space."""
PER_SPACING = 2.5
"""Rotations that are used of one view, at most."""
FEWEST = 20
"""Orientations of the search that tell anything of those between them: twice as many as a quadratic
form has terms."""
LENGTHS = 0.5, 0.65, 0.8, 1.0, 1.4, 2.0, 2.8
"""Of correlation, in spacings: the likeliest is used."""
ROUNDED, LEAST = 0.1, 1e-9
"""Error of a log-likelihood, nat; of variance beside that of all of them, at least."""
N_POINTS, N_FUNCTIONS, N_WAVES = 2000, 48, 512
ROUGHER = 3
"""Degrees of freedom of the distribution that frequencies of waves are drawn from."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """Orientations of a search about the best ones of images.

    Attributes
    ----------
    first, count : (image, view) int64
        Of each view the first rotation that is near, and how many are; 0: the view is not.
    step : int
        From one rotation to the next.
    """

    first: Positions
    count: Positions
    step: int

    @classmethod
    def about(cls, orientations: Orientations, views: Positions, rotations: Positions) -> Nodes:
        """Those about some orientations, one of each image."""
        n, reach = len(orientations.angles), NEAR * orientations.spacing
        turn = 2 * np.pi / n
        step = max(1, round(orientations.spacing / PER_SPACING / turn))
        first, count = np.zeros((2, len(views), len(orientations.views)), np.int64)
        for m, best in enumerate(orientations.at(views, rotations)):
            near, relative = orientations.views_about(best, reach)
            along = relative[:, 0, 0] + relative[:, 1, 1]
            across = relative[:, 0, 1] - relative[:, 1, 0]
            needed = (2 * math.cos(min(reach, np.pi)) + 1 - relative[:, 2, 2]) / np.hypot(
                along, across
            )
            beside = np.arccos(np.clip(needed, -1, 1)) / (step * turn)
            beside = np.minimum(beside, (n // step - 1) // 2).astype(np.int64)
            middle = np.arctan2(across, along) - orientations.angles[0]
            first[m, near] = (np.rint(middle / turn).astype(np.int64) - step * beside) % n
            count[m, near] = np.where(needed <= 1, 2 * beside + 1, 0)
        return cls(first, count, step)

    def take(self, images: Positions) -> Nodes:
        """Those of some images."""
        return Nodes(self.first[images], self.count[images], self.step)

    def hold(self, image: int, views: Positions, rotations: Positions, n: int) -> NDArray[np.bool_]:
        """Whether orientations are among those of an image."""
        since = (rotations - self.first[image, views]) % n
        held: NDArray[np.bool_] = (since % self.step == 0) & (
            since // self.step < self.count[image, views]
        )
        return held


@dataclass(frozen=True, eq=False)
class Interpolated:
    """What is known between the orientations of a search about one of them.

    Attributes
    ----------
    angles : (point,) float64
        From that one, radian.
    parts : (point,) float64
        Of the posterior within reach: they add up to 1.
    values : (point, n) float64
        Of what else is known at the orientations of the search.
    """

    angles: FloatArray
    parts: FloatArray
    values: FloatArray


def interpolated(
    vectors: FloatArray, logs: FloatArray, values: FloatArray, spacing: float
) -> Interpolated:
    """Posterior between orientations.

    Log-likelihoods about the best orientation are a quadratic form in the rotation vector and what
    this misses, a Gaussian process of Matérn's covariance (7/2), whose length and variance are the
    likeliest ones. The posterior is the mean over functions drawn from it that have the values
    that are known, of the density that each of them gives: what the values leave open of where
    the peak is widens it.

    Parameters
    ----------
    vectors : (node, 3) float64
        Rotation vectors to orientations of the search, radian.
    logs : (node,) float64
        Log-likelihoods there.
    values : (node, n) float64
        What else is interpolated.
    spacing : float
        Radian between orientations.
    """
    at, points, waves = vectors / spacing, _points(), _waves()
    process = _likeliest(at, logs)
    sigma = math.sqrt(process.variance)
    drawn = sigma * waves.at(at, process.length)
    form, weights = process.interpolate(np.column_stack([logs[:, None] - drawn, values]))
    toward = correlation(squares(points, at) / process.length**2)
    found = quadratic(points) @ form + toward @ weights
    functions = found[:, :N_FUNCTIONS] + sigma * _functions(process.length)
    functions -= functions.max(axis=0)
    np.exp(functions, out=functions)
    parts = (functions / functions.sum(axis=0)).mean(axis=1)
    angles = np.linalg.norm(points, axis=1) * spacing
    return Interpolated(angles, parts, found[:, N_FUNCTIONS:])


@dataclass(frozen=True, eq=False)
class _Process:
    """A Gaussian process beside a quadratic form.

    Attributes
    ----------
    length, variance : float
    factor : (node, node) float64
        Of Cholesky, lower, of its correlations.
    forms : (node, term) float64
        Terms of the form.
    """

    length: float
    variance: float
    factor: FloatArray
    forms: FloatArray

    def interpolate(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The form through values, (node, n), and weights of what it misses."""
        form, off, _ = _regression(self.factor, self.forms, values)
        weights: FloatArray = solve_triangular(self.factor, off, lower=True, trans="T")
        return form, weights


def _regression(
    factor: FloatArray, forms: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """The form through values, what it misses in units that are not correlated, and the logarithm
    of the determinant of its normal matrix."""
    both = solve_triangular(factor, np.concatenate([forms, values], axis=1), lower=True)
    terms, values = both[:, : forms.shape[1]], both[:, forms.shape[1] :]
    q, r = np.linalg.qr(terms)
    form = solve_triangular(r, q.T @ values)
    return form, values - terms @ form, 2 * float(np.log(np.abs(np.diag(r))).sum())


def _likeliest(at: FloatArray, logs: FloatArray) -> _Process:
    """The process that values are likeliest under, whatever the form."""
    apart, n = squares(at, at), len(at)
    forms = quadratic(at)
    rounded = max(LEAST, ROUNDED**2 / max(ROUNDED**2, float(logs.var())))
    n_free, best, found = n - forms.shape[1], -np.inf, None
    for length in LENGTHS:
        factor = np.linalg.cholesky(correlation(apart / length**2) + rounded * np.eye(n))
        _, off, log_normal = _regression(factor, forms, logs[:, None])
        variance = max(ROUNDED**2, float((off**2).sum()) / n_free)
        log_volume = 2 * float(np.log(np.diag(factor)).sum()) + log_normal
        likelihood = -log_volume - n_free * math.log(variance)
        if likelihood > best or found is None:
            best, found = likelihood, _Process(length, variance, factor, forms)
    assert found is not None
    return found


def quadratic(at: FloatArray) -> FloatArray:
    """Terms of a quadratic form, (point, 10)."""
    i, j = np.triu_indices(3)
    return np.column_stack([np.ones(len(at)), at, at[:, i] * at[:, j]])


@dataclass(frozen=True, eq=False)
class _Waves:
    """Waves that functions are sums of: frequencies for a length of 1, (wave, 3), and heights of
    cosines and sines, (2 wave, function)."""

    frequencies: FloatArray
    heights: FloatArray

    def at(self, points: FloatArray, length: float) -> FloatArray:
        """Functions of a length, variance 1, (point, function)."""
        phases = points @ (self.frequencies.T / length)
        values: FloatArray = np.concatenate([np.cos(phases), np.sin(phases)], 1) @ self.heights
        return values


@lru_cache(maxsize=1)
def _waves() -> _Waves:
    """Frequencies of a wider distribution than that of the covariance, and heights that make up for
    it: what nodes leave open is in the rare high ones."""
    rng = np.random.default_rng(0)  # the same for all images, whatever their order
    widths = np.sqrt(rng.chisquare(ROUGHER, (N_WAVES, 1)) / ROUGHER)
    frequencies = rng.standard_normal((N_WAVES, 3)) / widths
    square = (frequencies**2).sum(axis=1)
    shares = np.exp(-square / 2) * (1 + square / ROUGHER) ** ((ROUGHER + 3) / 2)
    heights = rng.standard_normal((2 * N_WAVES, N_FUNCTIONS))
    return _Waves(frequencies, heights * np.sqrt(np.tile(shares / shares.sum(), 2))[:, None])


@lru_cache(maxsize=len(LENGTHS))
def _functions(length: float) -> FloatArray:
    """Functions of a length at all points, (point, function)."""
    return _waves().at(_points(), length)


@lru_cache(maxsize=1)
def _points() -> FloatArray:
    """Points that fill a ball evenly, (point, 3), spacings."""
    ratio = 1.2207440846057596  # its fourth power is larger by 1
    u = (0.5 + np.arange(1, N_POINTS + 1)[:, None] / ratio ** np.arange(1, 4)) % 1
    radius, z, azimuth = WITHIN * np.cbrt(u[:, 0]), 2 * u[:, 1] - 1, 2 * np.pi * u[:, 2]
    flat = np.sqrt(1 - z**2)
    return radius[:, None] * np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z], axis=1)


def squares(one: FloatArray, other: FloatArray) -> FloatArray:
    """Squared distances between points, (one, other)."""
    of_one, of_other = (one**2).sum(axis=1)[:, None], (other**2).sum(axis=1)
    apart: FloatArray = np.maximum(of_one + of_other - 2 * one @ other.T, 0)
    return apart


def correlation(squares: FloatArray) -> FloatArray:
    """Correlation over a distance, by its square, in lengths."""
    values: FloatArray = np.exp(-squares / 2)
    return values
