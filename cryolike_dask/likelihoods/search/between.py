"""How likely orientations are between those of a search, by the likelihoods of these (numpy only).

Where a posterior is narrower than orientations are apart, the best of them holds all of it, and the
truth lies beside it. Likelihoods at those about it (nodes) tell where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from cryolike_dask.likelihoods.search.regions import Orientations

FloatArray = NDArray[np.float64]
Positions = NDArray[np.int64]

NEAR = 1.5
"""Spacings from the best orientation, of those whose likelihoods are used, and of all between them
that are told."""
FARTHEST = 1.2
"""Radian: beyond, rotation vectors do not add up as those of flat space."""
PER_SPACING = 2.5
"""Rotations that are used of one view, at most."""
FEWEST = 12
"""Nodes that tell anything of what lies between them: a few more than a quadratic form has
terms."""
LENGTHS, LEFT = (0.8, 1.3, 2.0, 3.2, 5.0), (0.0, 0.4, 0.7, 0.85, 0.95)
"""Over which correlations fall off, spacings, and parts that are left of them: all that may be are
used."""
NEGLECTED = 0.01
"""Part of the posterior in a length and a part that are not used again."""
FLATTEST = 0.05
"""Least curvature along an axis, beside the largest."""
ROUNDED = 1e-4
"""Variance of rounding, beside that of noise."""
N_POINTS, ENOUGH, MOST_PASSES, FARTHEST_SIGMA = 600, 60, 4, 4.0
"""Points, laid once more about those that hold the posterior, standard deviations wide, until so
many of them share it."""


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
        """Those about some orientations, one of each image; none where all are far apart."""
        n, reach = len(orientations.angles), NEAR * orientations.spacing
        turn = 2 * np.pi / n
        step = max(1, round(orientations.spacing / PER_SPACING / turn))
        first, count = np.zeros((2, len(views), len(orientations.views)), np.int64)
        if reach > FARTHEST:
            return cls(first, count, step)
        for m, best in enumerate(orientations.at(views, rotations)):
            near, relative = orientations.views_about(best, reach)
            along = relative[:, 0, 0] + relative[:, 1, 1]
            across = relative[:, 0, 1] - relative[:, 1, 0]
            needed = (2 * math.cos(reach) + 1 - relative[:, 2, 2]) / np.hypot(along, across)
            beside = np.arccos(np.clip(needed, -1, 1)) / turn
            exact = (np.arctan2(across, along) - orientations.angles[0]) / turn
            middle = np.rint(exact)
            most = (n // step - 1) // 2
            below, above = (
                np.minimum(np.floor((beside + off) / step), most).astype(np.int64)
                for off in (middle - exact, exact - middle)
            )
            first[m, near] = (middle.astype(np.int64) - step * below) % n
            count[m, near] = np.where(needed <= 1, np.maximum(below + above + 1, 0), 0)
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


def tell_between(n: int, spacing: float) -> bool:
    """Whether so many nodes tell how likely orientations between them are."""
    return n >= FEWEST and NEAR * spacing <= FARTHEST


def interpolated(
    vectors: FloatArray, logs: FloatArray, gain: float, spacing: float
) -> tuple[FloatArray, FloatArray]:
    """Posterior between orientations.

    Of a particle at an orientation, the scores of nodes (square roots of twice the log-likelihood
    over that of noise alone) are an amplitude times the correlations of their templates with that
    at the orientation, and noise, which has the same correlations among nodes. So scores tell how
    likely each orientation is: at nodes themselves as they say, between them less surely. Over
    what is not known of correlations it is summed.

    Parameters
    ----------
    vectors : (node, 3) float64
        Rotation vectors from the best orientation to nodes, radian.
    logs : (node,) float64
        Log-likelihoods there, up to a constant.
    gain : float
        That of the best orientation over noise alone, nat.
    spacing : float
        Radian between orientations.

    Returns
    -------
    angles, parts : (point,) float64
        Angles of orientations about the best one, radian, and the posterior there: it adds up
        to 1.
    """
    at = vectors / spacing
    of_best = logs[(at**2).sum(axis=1).argmin()]
    scores = np.sqrt(np.maximum(2 * (gain + logs - of_best), 0))
    shape = _shape(at, scores)
    models, middle, axes = list(product(LENGTHS, LEFT)), np.zeros(3), NEAR * np.eye(3)
    for _ in range(MOST_PASSES):
        points = middle + _ball() @ axes
        angles = np.linalg.norm(points, axis=1)
        found = _log_posteriors(at @ shape, scores, points @ shape, models)
        found[:, angles > NEAR] = -np.inf
        joint = np.exp(found - found.max())
        counts = joint.sum(axis=1) >= NEGLECTED * joint.sum()
        models = [model for model, is_used in zip(models, counts, strict=True) if is_used]
        parts: FloatArray = joint.sum(axis=0) / joint.sum()
        if 1 / (parts**2).sum() >= ENOUGH:
            break
        apart = (4 / 3 * np.pi * np.linalg.det(axes) / N_POINTS) ** (2 / 3) / 4
        middle = parts @ points
        spread = (points - middle).T @ ((points - middle) * parts[:, None]) + apart * np.eye(3)
        axes = FARTHEST_SIGMA * np.linalg.cholesky(spread).T
    return angles * spacing, parts


def _log_posteriors(
    nodes: FloatArray, scores: FloatArray, points: FloatArray, models: list[tuple[float, float]]
) -> FloatArray:
    """Logarithms of the posterior at points, (model, point), if correlations fall off over a
    length, to a part that is left at all distances."""
    among, toward = distances(nodes, nodes), distances(nodes, points)
    of_length = {
        length: (correlation(among / length), correlation(toward / length))
        for length in {length for length, _ in models}
    }
    return np.stack(
        [
            _log_posterior(scores, *(left + (1 - left) * of for of in of_length[length]))
            for length, left in models
        ]
    )


def _log_posterior(scores: FloatArray, among: FloatArray, toward: FloatArray) -> FloatArray:
    """The same by correlations among nodes, and of these with points, (node, point)."""
    factor = cholesky(among + ROUNDED * np.eye(len(scores)), lower=True)
    both = solve_triangular(factor, np.column_stack([scores, toward]), lower=True)
    score, whitened = both[:, 0], both[:, 1:]
    power = (whitened**2).sum(axis=0)
    amplitude = np.maximum(score @ whitened, 0) / power
    missed = score @ score - amplitude**2 * power
    log_volume = 2 * np.log(np.diag(factor)).sum() + np.log(power)
    logs: FloatArray = -(log_volume + missed) / 2
    return logs


def _shape(at: FloatArray, scores: FloatArray) -> FloatArray:
    """The transformation after which scores fall off alike in all directions, (3, 3)."""
    weights = np.exp(-(at**2).sum(axis=1) / 4)
    root = np.sqrt(weights)
    terms = np.linalg.lstsq(quadratic(at) * root[:, None], scores * root, rcond=None)[0][4:]
    i, j = np.triu_indices(3)
    curvature = np.zeros((3, 3))
    curvature[i, j] = -terms
    values, axes = np.linalg.eigh(curvature + curvature.T)
    if values[-1] <= 0:
        return np.eye(3)
    values = np.maximum(values, FLATTEST * values[-1])
    shape: FloatArray = (axes * np.sqrt(values / np.prod(values) ** (1 / 3))) @ axes.T
    return shape


def quadratic(at: FloatArray) -> FloatArray:
    """Terms of a quadratic form, (point, 10)."""
    i, j = np.triu_indices(3)
    terms: FloatArray = np.column_stack([np.ones(len(at)), at, at[:, i] * at[:, j]])
    return terms


@lru_cache(maxsize=1)
def _ball() -> FloatArray:
    """Points that fill a ball of radius 1 evenly, (point, 3)."""
    ratio = 1.2207440846057596  # its fourth power is larger by 1
    u = (0.5 + np.arange(1, N_POINTS + 1)[:, None] / ratio ** np.arange(1, 4)) % 1
    radius, z, azimuth = np.cbrt(u[:, 0]), 2 * u[:, 1] - 1, 2 * np.pi * u[:, 2]
    x, y = np.sqrt(1 - z**2) * np.array([np.cos(azimuth), np.sin(azimuth)])
    points: FloatArray = radius[:, None] * np.stack([x, y, z], axis=1)
    return points


def distances(one: FloatArray, other: FloatArray) -> FloatArray:
    """Between points, (one, other)."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    apart: FloatArray = np.sqrt(np.maximum(squares, 0))
    return apart


def correlation(distance: FloatArray) -> FloatArray:
    """Matérn's (3/2) over a distance, in lengths: quadratic about 0, and with the long tail that
    structures of many scales have."""
    scaled = math.sqrt(3) * distance
    values: FloatArray = (1 + scaled) * np.exp(-scaled)
    return values
