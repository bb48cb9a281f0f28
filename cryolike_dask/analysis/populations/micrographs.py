"""Whether micrographs differ in the shares of structures by more than chance.

Of the particles of one sample each micrograph shows a random part. Where shares differ between
micrographs (ice, preferred places, how particles were picked), images are not independent draws,
and errors that take them for such are too small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.populations.passes import Images

N_SHUFFLES = 999
LARGEST_P = 0.01
"""Below, chance does not explain the differences."""
LEAST_VARIANCE = 1e-9
"""Of probabilities: below it is rounding."""
MOST_DIRECTIONS = 16
"""In which shares differ most from image to image: enough, and bounded in memory."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Heterogeneity:
    """How far micrographs differ.

    Attributes
    ----------
    ratio : float
        Variance between micrographs over that of images shuffled among them: 1 if chance is all.
    p_value : float
        Of a ratio as large, by images shuffled among micrographs.
    n_micrographs : int
    """

    ratio: float
    p_value: float
    n_micrographs: int


def heterogeneity(
    images: Images, shares: Floats, information: Floats, members: Integers, seed: int
) -> Heterogeneity | None:
    """Compare what images of each micrograph show with what all show.

    Parameters
    ----------
    images : Images
    shares : float64 array, (structure,)
        Those of all, of largest likelihood.
    information : float64 array, (structure, structure)
        As `precision` gives it.
    members : int array, (image,)
        Number of the micrograph of each image, from 0.
    seed : int

    Returns
    -------
    Heterogeneity, or None
        None if there is one micrograph, or all images say the same.
    """
    sizes = np.bincount(members)
    if (sizes > 0).sum() < 2 or len(sizes) == len(members):
        return None
    # of probabilities of structures, whose mean are the shares
    covariance = np.outer(shares, shares) * (information / images.n - 1)
    values, vectors = np.linalg.eigh(covariance)
    kept = np.flatnonzero(values > LEAST_VARIANCE)[-MOST_DIRECTIONS:]
    if not len(kept):
        return None
    scores = images.probabilities_along(shares, vectors[:, kept])
    scores = (scores - scores.mean(axis=0)) / np.sqrt(values[kept])
    rng = np.random.default_rng(seed)
    found = _between(scores, members, sizes)
    shuffled = np.array(
        [_between(scores, rng.permutation(members), sizes) for _ in range(N_SHUFFLES)]
    )
    p_value = (1 + (shuffled >= found).sum()) / (1 + N_SHUFFLES)
    return Heterogeneity(found / float(shuffled.mean()), float(p_value), int((sizes > 0).sum()))


def _between(scores: Floats, members: Integers, sizes: Integers) -> float:
    """The squared sum of scores over the number of images, summed over micrographs."""
    sums = np.stack([np.bincount(members, of_one, len(sizes)) for of_one in scores.T])
    return float((sums**2 / np.maximum(sizes, 1)).sum())
