"""The B-factor at which a likelihood is largest, sought with few evaluations, and its error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.noise import B_FACTORS

STEP = 50.0
"""Angstrom^2 between evaluations. At 3 angstrom an amplitude falls by e in 36, at 5 in 100; a
likelihood of many images is a parabola over less than that."""
FIRST = (-STEP, STEP, 2 * STEP)
"""What is tried first beside 0: envelopes that are missing take power away."""
FARTHEST = 4 * STEP
"""From the best so far to what is tried next, however far a parabola goes."""
LARGEST_ERROR = 100.0
"""Angstrom^2. A B-factor that is known no better tells nothing."""
BIAS = 0.05
"""What B is off by whatever the number of images, in units of 1/r and of r n error^2, r = f^2/4 at
the highest frequency: of images with signal, and of those with little. Measured to 5.9 angstrom: 5
to 9 angstrom^2 too large in means of 1024 images at a signal to noise ratio of 0.2; -40, -98 and
-95 at 0.02, where the error of 128 images is 30 to 48."""
LEAST_IMAGES = 16
"""From fewer no error can be estimated."""


@dataclass(frozen=True)
class BFactor:
    """The B-factor of a group of images.

    Attributes
    ----------
    b_factor_angstrom2 : float
        0 where it cannot be told.
    error : float
        Standard error; NaN where it cannot be told.
    reason : str
        What it comes from, or why it cannot be told.
    n_images : int
    """

    b_factor_angstrom2: float
    error: float
    reason: str
    n_images: int


@dataclass(frozen=True, eq=False)
class Climb:
    """The search for the largest likelihood of a group of images.

    Attributes
    ----------
    highest_frequency : float
        1/angstrom, of the images.
    known : dict of float: (image,) float64
        Log-likelihood of each image at B-factors.
    """

    highest_frequency: float
    known: dict[float, NDArray[np.float64]] = field(default_factory=dict)

    def wanted(self) -> list[float]:
        """B-factors at which the likelihood is to be known next, all of them multiples of `STEP`;
        none: the search is over."""
        if 0.0 not in self.known:
            return [0.0]
        if len(self.known) == 1:
            return list(FIRST)
        best, centre = self._best(), self._centre()
        beside = [b for b in (centre - STEP, centre, centre + STEP) if b not in self.known]
        if best in B_FACTORS or not beside:
            return beside
        (low, high), ahead = B_FACTORS, STEP * round(self._ahead(best) / STEP)
        around = (ahead - STEP, ahead, ahead + STEP)
        # where a parabola went wrong, that which is next to the best is left
        return [b for b in around if low <= b <= high and b not in self.known] or beside

    def result(self) -> BFactor:
        """What is found when the search is over."""
        n = len(next(iter(self.known.values())))
        if n < LEAST_IMAGES:
            return BFactor(0.0, math.nan, f"not fitted: only {n} image(s)", n)
        centre = self._centre()
        below, here, above = (self.known[centre + k * STEP] for k in (-1, 0, 1))
        slopes, bends = (above - below) / (2 * STEP), _bend(below, here, above)
        curvature = -bends.sum()
        if self._best() in B_FACTORS and not abs(slopes.sum()) <= curvature * STEP:
            why = (
                f"not fitted: the likelihood still grows at B = {self._best():g} angstrom^2, where "
                "the range ends: too little signal, or images that are described wrongly"
            )
            return BFactor(0.0, math.nan, why, n)
        if not curvature > 0:
            return BFactor(
                0.0, math.nan, "not fitted: too little signal, the likelihood has no maximum", n
            )
        step = slopes.sum() / curvature
        slopes = slopes + step * bends
        spread = math.sqrt(slopes.var(ddof=1) * n)
        # the first is right whatever the distribution is; the second is not small by chance
        error = max(spread / curvature, 1 / math.sqrt(curvature))
        rate = self.highest_frequency**2 / 4
        error = math.hypot(error, BIAS / rate, BIAS * rate * n * error**2)
        if abs(step) > STEP or error > LARGEST_ERROR:
            why = (
                f"not fitted: too little signal, B = {centre + step:.0f} +- {error:.0f} angstrom^2"
            )
            return BFactor(0.0, math.nan, why, n)
        return BFactor(float(centre + step), error, f"fitted to {n} images", n)

    def _best(self) -> float:
        """The B-factor with the largest likelihood so far; of equal ones that next to 0."""
        return max(self.known, key=lambda b: (self._total(b), -abs(b)))

    def _centre(self) -> float:
        """The middle of the parabola that tells the maximum: the best, or next to it at an end."""
        low, high = B_FACTORS
        return min(max(self._best(), low + STEP), high - STEP)

    def _total(self, b: float) -> float:
        return float(self.known[b].sum())

    def _ahead(self, best: float) -> float:
        """Where the maximum is by a parabola through the best, which lies at one end, and the two
        next to it."""
        inwards = STEP if best + STEP in self.known else -STEP
        if best + 2 * inwards not in self.known:
            return best
        here, near, far = (self._total(best + k * inwards) for k in range(3))
        bend = here + far - 2 * near
        steps = (here - near + bend / 2) / bend if bend < 0 else -math.inf
        ahead = best + inwards * max(steps, -FARTHEST / STEP)
        return min(max(ahead, B_FACTORS[0]), B_FACTORS[1])


def _bend(
    below: NDArray[np.float64], here: NDArray[np.float64], above: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Second derivative."""
    bend: NDArray[np.float64] = (below + above - 2 * here) / STEP**2
    return bend
