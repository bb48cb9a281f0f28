"""Shares of largest likelihood: against closed forms, another optimiser, and their certificate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from cryolike_dask.analysis.populations import passes
from cryolike_dask.analysis.populations.maximum import WITHIN, maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images
from tests.analysis.populations.mixtures import log_likelihoods, relative


def once(likelihoods):
    return Images(likelihoods, np.ones(len(likelihoods)))


def value(likelihoods, shares):
    return np.log(likelihoods.astype(np.float64) @ shares).sum()


def of_another_optimiser(likelihoods):
    """By limited-memory BFGS within bounds, of shares whose sum is free: it is 1 at the optimum."""
    likelihoods = likelihoods.astype(np.float64)
    n, k = likelihoods.shape

    def fall(shares):
        mixture = likelihoods @ shares
        return -np.log(mixture).sum() + n * shares.sum(), n - likelihoods.T @ (1 / mixture)

    found = minimize(
        fall,
        np.full(k, 1 / k),
        jac=True,
        bounds=[(1e-300, None)] * k,
        method="L-BFGS-B",
        options={"maxiter": 50_000, "maxfun": 200_000, "ftol": 1e-15, "gtol": 1e-7},
    )
    return found.x / found.x.sum()


@pytest.mark.parametrize("spread", [0.3, 0.6, 1.2])
def test_no_other_shares_are_likelier_than_certified(rng, spread):
    """50 structures, whose log-likelihoods differ by 0.5 to 2 nat and more."""
    points = spread * rng.normal(size=(50, 3))
    likelihoods = relative(log_likelihoods(rng, points, rng.dirichlet(np.ones(50)), 1500)[0])
    steps = []
    found = maximum_likelihood(once(likelihoods), each=steps.append)
    other = of_another_optimiser(likelihoods)
    assert 0 <= found.certificate <= WITHIN
    assert value(likelihoods, other) <= value(likelihoods, found.shares) + found.certificate + 1e-6
    best = max(value(likelihoods, other), value(likelihoods, found.shares))
    for step in steps:  # and the certificate of each step on the way
        assert best <= value(likelihoods, step.shares) + step.certificate + 1e-6
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    assert (found.shares >= 0).all()
    assert found.log_likelihood == pytest.approx(value(likelihoods, found.shares), abs=1e-6)


def test_of_images_that_show_one_structure_each_shares_are_counts(rng):
    counts = rng.integers(0, 30, 8)
    counts[0] = 0
    likelihoods = np.repeat(np.eye(8, dtype=np.float32), counts, axis=0)
    found = maximum_likelihood(once(likelihoods))
    np.testing.assert_allclose(found.shares, counts / counts.sum(), atol=1e-9)


def test_two_equal_halves_of_two_values_have_the_share_of_the_quadratic():
    """Images of two kinds, 1 : r and r : 1: the derivative is 0 at a known place."""
    n, m, r = 30, 10, 0.3
    likelihoods = np.repeat(np.array([[1, r], [r, 1]], np.float32), [n, m], axis=0)
    found = maximum_likelihood(once(likelihoods), within=1e-7)
    r = float(np.float32(r))
    # n (1 - r) / (w + r (1 - w)) = m (1 - r) / (r w + 1 - w)
    expected = (n - m * r) / ((n + m) * (1 - r))
    assert found.shares[0] == pytest.approx(expected, abs=1e-5)


def test_alike_structures_and_more_structures_than_images(rng):
    likelihoods = relative(rng.normal(0, 2, (7, 40)))
    likelihoods[:, 20:] = likelihoods[:, :20]
    found = maximum_likelihood(once(likelihoods))
    assert found.certificate <= WITHIN
    np.testing.assert_allclose(maximum_likelihood(once(np.ones((5, 1), np.float32))).shares, [1])


def test_images_that_are_counted_are_images_that_are_there_more_than_once(rng):
    likelihoods = relative(rng.normal(0, 1.5, (60, 5)))
    copies = rng.integers(0, 4, 60)
    counted = maximum_likelihood(Images(likelihoods, copies.astype(float)), within=1e-6)
    repeated = maximum_likelihood(once(np.repeat(likelihoods, copies, axis=0)), within=1e-6)
    np.testing.assert_allclose(counted.shares, repeated.shares, atol=1e-5)
    # shares of 0 to begin with may grow
    start = np.eye(5)[0]
    again = maximum_likelihood(Images(likelihoods, copies.astype(float)), start, within=1e-6)
    np.testing.assert_allclose(again.shares, counted.shares, atol=1e-5)


def test_sums_over_blocks_are_those_of_all(rng, monkeypatch):
    likelihoods = relative(rng.normal(0, 3, (500, 6)))
    images = Images(likelihoods, rng.uniform(0, 2, 500))
    shares, columns = rng.dirichlet(np.ones(6)), np.array([0, 2, 5])
    whole = (*images.gradient(shares), images.curvature(shares, columns))
    monkeypatch.setattr(passes, "VALUES_PER_BLOCK", 6 * 7)
    parts = (*images.gradient(shares), images.curvature(shares, columns))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    exact = likelihoods.astype(float)
    mixture = exact @ shares
    np.testing.assert_allclose(whole[1], exact.T @ (images.copies / mixture), rtol=1e-10)
    scaled = exact[:, columns] / mixture[:, None]
    np.testing.assert_allclose(whole[2], scaled.T @ (images.copies[:, None] * scaled), rtol=1e-10)
