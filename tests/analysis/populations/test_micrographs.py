"""Whether micrographs differ by more than chance."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.micrographs import LARGEST_P, heterogeneity
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import precision
from tests.analysis.populations.mixtures import relative


def shown(rng, shares):
    """Likelihoods of two structures, of images that show the second with these probabilities."""
    truth = rng.random(len(shares)) < shares
    seen = 2.0 * truth + rng.normal(size=len(shares))
    return Images(relative(np.stack([2 - 2 * seen, 2 * seen - 2], axis=1)), np.ones(len(shares)))


def compared(images, members, seed):
    maximum = maximum_likelihood(images)
    information = precision(images, maximum, 0.95).information
    return heterogeneity(images, maximum.shares, information, members, seed)


def test_of_micrographs_that_are_alike_p_is_uniform(rng):
    members = rng.integers(0, 20, 300)
    found = [compared(shown(rng, np.full(300, 0.4)), members, k) for k in range(60)]
    assert kstest([f.p_value for f in found], "uniform").pvalue > 1e-4
    assert abs(np.mean([f.ratio for f in found]) - 1) < 0.25


def test_micrographs_that_differ_are_seen(rng):
    members = np.repeat(np.arange(20), 15)
    of_each = np.where(np.arange(20) < 10, 0.2, 0.8)
    found = compared(shown(rng, of_each[members]), members, 1)
    assert found.p_value < LARGEST_P
    assert found.n_micrographs == 20
    assert found.ratio > 2


def test_nothing_is_said_where_there_is_nothing_to_compare(rng):
    images = shown(rng, np.full(30, 0.5))
    assert compared(images, np.zeros(30, int), 0) is None
    assert compared(images, np.arange(30), 0) is None
    alike = Images(np.ones((30, 2), np.float32), np.ones(30))
    assert compared(alike, rng.integers(0, 3, 30), 0) is None
