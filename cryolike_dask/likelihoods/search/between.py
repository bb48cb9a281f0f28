"""How likely orientations are between those of a search, by the likelihoods of these (numpy only).

Where a posterior is narrower than orientations are apart, the best of them holds all of it, and the
truth lies beside it. A log-likelihood is a smooth function of the orientation, which its values at
those about the best one tell in between, up to an error that they tell too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

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
LENGTHS = 0.8, 1.1, 1.5, 2.0, 2.8, 4.0
"""Of correlation, in spacings: the likeliest is used."""
ROUNDED = 0.1
"""Nat: error of a log-likelihood."""
N_POINTS, N_FUNCTIONS, N_WAVES = 3000, 64, 512
SMOOTHNESS, ROUGHER = 7, 3
"""Twice the order of Matérn's covariance, and of that whose frequencies waves have."""


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
    toward = matern(distances(points, at) / process.length)
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
    inverse : (node, node) float64
        Of its correlations.
    forms : (node, term) float64
        Terms of the form.
    """

    length: float
    variance: float
    inverse: FloatArray
    forms: FloatArray

    @property
    def normal(self) -> FloatArray:
        """Normal matrix of the terms, (term, term)."""
        return self.forms.T @ self.inverse @ self.forms

    def interpolate(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The form through values, (node, n), and weights of what it misses."""
        form = np.linalg.solve(self.normal, self.forms.T @ (self.inverse @ values))
        return form, self.inverse @ (values - self.forms @ form)


def _likeliest(at: FloatArray, logs: FloatArray) -> _Process:
    """The process that values are likeliest under, whatever the form."""
    apart, n = distances(at, at), len(at)
    forms, rounded = quadratic(at), ROUNDED**2 / max(ROUNDED**2, float(logs.var()))
    n_free, best, found = n - forms.shape[1], -np.inf, None
    for length in LENGTHS:
        correlations = matern(apart / length) + rounded * np.eye(n)
        process = _Process(length, 1.0, np.linalg.inv(correlations), forms)
        _, missed = process.interpolate(logs[:, None])
        variance = max(ROUNDED**2, float(logs @ missed[:, 0]) / n_free)
        log_volume = sum(np.linalg.slogdet(of)[1] for of in (correlations, process.normal))
        likelihood = -log_volume - n_free * math.log(variance)
        if likelihood > best or found is None:
            best, found = likelihood, replace(process, variance=variance)
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
    """Frequencies are drawn from the spectrum of a rougher covariance, and heights make up for it:
    what values at nodes leave open is in the rare high ones."""
    rng = np.random.default_rng(0)  # the same for all images, whatever their order
    widths = np.sqrt(rng.chisquare(ROUGHER, (N_WAVES, 1)) / ROUGHER)
    frequencies = rng.standard_normal((N_WAVES, 3)) / widths
    squares = (frequencies**2).sum(axis=1)
    logs = [-(nu + 3) / 2 * np.log1p(squares / nu) for nu in (SMOOTHNESS, ROUGHER)]
    shares = np.exp(logs[0] - logs[1])
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


def distances(one: FloatArray, other: FloatArray) -> FloatArray:
    """Between points, (one, other)."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))


def matern(r: FloatArray) -> FloatArray:
    """Matérn's correlation (7/2) over a distance, in lengths."""
    a = math.sqrt(SMOOTHNESS) * r
    correlation: FloatArray = (1 + a * (1 + a * (0.4 + a / 15))) * np.exp(-a)
    return correlation
