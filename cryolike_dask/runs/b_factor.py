"""The B-factor at which a likelihood is largest, sought with few evaluations, and its error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.noise import B_FACTORS

COARSE_STEP, FINE_STEP = 100.0, 50.0
"""Angstrom^2 between evaluations. At 3 angstrom an amplitude falls by e in 36, at 5 in 100; a
likelihood of many images is a parabola over less than that."""
MOST_CENTRES = 3
"""Times that the fine steps are taken about another centre."""
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
        """B-factors at which the likelihood is to be known next; none: the search is over."""
        if not self.known:
            return [0.0]
        if unknown := self._unknown(self._best(), COARSE_STEP):
            return unknown
        return self._fine()[0]

    def result(self) -> BFactor:
        """What is found when the search is over."""
        n = len(next(iter(self.known.values())))
        if n < LEAST_IMAGES:
            return BFactor(0.0, math.nan, f"not fitted: only {n} image(s)", n)
        _, centre = self._fine()
        below, here, above = (self.known[centre + k * FINE_STEP] for k in (-1, 0, 1))
        slopes, bends = (above - below) / (2 * FINE_STEP), _bend(below, here, above)
        curvature = -bends.sum()
        if self._at_an_end() and not abs(slopes.sum()) <= curvature * FINE_STEP:
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
        if abs(step) > FINE_STEP or error > LARGEST_ERROR:
            why = (
                f"not fitted: too little signal, B = {centre + step:.0f} +- {error:.0f} angstrom^2"
            )
            return BFactor(0.0, math.nan, why, n)
        return BFactor(float(centre + step), error, f"fitted to {n} images", n)

    def _best(self) -> float:
        """The coarse B-factor with the largest likelihood so far."""
        return max((b for b in self.known if b % COARSE_STEP == 0), key=self._total)

    def _total(self, b: float) -> float:
        return float(self.known[b].sum())

    def _at_an_end(self) -> bool:
        return self._best() in B_FACTORS

    def _unknown(self, centre: float, step: float) -> list[float]:
        low, high = B_FACTORS
        around = (centre - step, centre, centre + step)
        return [b for b in around if low <= b <= high and b not in self.known]

    def _fine(self) -> tuple[list[float], float]:
        """What is to be known about the maximum in fine steps, and their centre."""
        centre = self._best()
        if self._at_an_end():  # there are coarse steps on one side alone
            centre = min(max(centre, B_FACTORS[0] + FINE_STEP), B_FACTORS[1] - FINE_STEP)
        else:
            centre = self._vertex(centre, COARSE_STEP)
        for _ in range(MOST_CENTRES):
            if unknown := self._unknown(centre, FINE_STEP):
                return unknown, centre
            vertex = self._vertex(centre, FINE_STEP)
            if abs(vertex - centre) <= FINE_STEP / 2:
                break
            last, centre = centre, vertex
        else:
            centre = last
        return [], centre

    def _vertex(self, centre: float, step: float) -> float:
        """Where a parabola through three totals is largest, to 1 angstrom^2: no farther than a step
        away, and with room for fine steps."""
        below, here, above = (np.array(self._total(centre + k * step)) for k in (-1, 0, 1))
        slope, bend = (above - below) / (2 * step), _bend(below, here, above, step)
        moved = -slope / bend if bend < 0 else np.sign(slope) * step
        low, high = B_FACTORS[0] + FINE_STEP, B_FACTORS[1] - FINE_STEP
        return float(np.clip(round(centre + float(np.clip(moved, -step, step))), low, high))


def _bend(
    below: NDArray[np.float64],
    here: NDArray[np.float64],
    above: NDArray[np.float64],
    step: float = FINE_STEP,
) -> NDArray[np.float64]:
    """Second derivative."""
    bend: NDArray[np.float64] = (below + above - 2 * here) / step**2
    return bend
