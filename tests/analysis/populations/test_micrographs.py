"""Whether micrographs differ by more than chance."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from cryolike_dask.analysis.populations.micrographs import heterogeneity


def shown(rng, shares):
    """Probabilities of two structures, of images that show the second with these probabilities."""
    sure = rng.uniform(0.6, 1, len(shares))
    second = np.where(rng.random(len(shares)) < shares, sure, 1 - sure)
    return np.stack([1 - second, second], axis=1)


def test_of_micrographs_that_are_alike_p_is_uniform(rng):
    members = rng.integers(0, 20, 300)
    found = [heterogeneity(shown(rng, np.full(300, 0.4)), members, k) for k in range(60)]
    assert kstest([f.p_value for f in found], "uniform").pvalue > 1e-4
    assert abs(np.mean([f.ratio for f in found]) - 1) < 0.25


def test_micrographs_that_differ_are_seen(rng):
    members = np.repeat(np.arange(20), 15)
    of_each = np.where(np.arange(20) < 10, 0.2, 0.8)
    found = heterogeneity(shown(rng, of_each[members]), members, 1)
    assert found.by_more_than_chance
    assert found.n_micrographs == 20
    assert found.ratio > 2


def test_nothing_is_said_where_there_is_nothing_to_compare(rng):
    probability = shown(rng, np.full(30, 0.5))
    assert heterogeneity(probability, np.zeros(30, int), 0) is None
    assert heterogeneity(probability, np.arange(30), 0) is None
    assert heterogeneity(np.full((30, 2), 0.5), rng.integers(0, 3, 30), 0) is None
