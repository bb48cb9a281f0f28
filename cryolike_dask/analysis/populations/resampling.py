"""Shares of other sets of images than the one that there is: a bootstrap, and half-sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images

WITHIN = 0.1
"""Nat: a tenth of what makes a standard deviation would be 0.005 nat of each, and is averaged."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def bootstrap(
    images: Images, start: Floats, n: int, seed: int, members: Integers | None = None
) -> Floats:
    """Shares of images drawn with replacement, or of groups of images that are drawn together.

    Parameters
    ----------
    images : Images
    start : float64 array, (structure,)
        Shares of all.
    n : int
        Number of such sets.
    seed : int
    members : int array, (image,), optional
        Number of the group that each image is in: that of its micrograph.

    Returns
    -------
    float64 array, (set, structure)
    """
    rng = np.random.default_rng(seed)
    which = np.arange(len(images.copies)) if members is None else members
    n_groups = int(which.max()) + 1
    begin = (start + 1e-3 / len(start)) / (1 + 1e-3)
    found = []
    for _ in range(n):
        drawn = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        again = replace(images, copies=drawn[which].astype(np.float64))
        found.append(maximum_likelihood(again, begin, WITHIN).shares)
    return np.array(found)


def of_parts(images: Images, members: Integers, numbers: Sequence[int]) -> Floats:
    """Shares of each part of the images alone, (part, structure)."""
    copies = [(members == number).astype(np.float64) for number in numbers]
    return np.array([maximum_likelihood(replace(images, copies=c)).shares for c in copies])
