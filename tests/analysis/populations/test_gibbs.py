"""Draws from the posterior of shares, against closed forms and integrals over a grid."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.populations import gibbs
from cryolike_dask.analysis.populations.gibbs import posterior
from cryolike_dask.analysis.populations.passes import Images
from tests.analysis.populations.mixtures import log_likelihoods, relative


def drawn(likelihoods, prior, group=None, seed=3):
    n = likelihoods.shape[1]
    group = np.arange(n) if group is None else np.array(group)
    found = posterior(
        Images(likelihoods, np.ones(len(likelihoods))), np.asarray(prior, float), group, 4, seed
    )
    assert found.converged
    return found


def assert_moments(found, mean, sd):
    """Within five standard errors of as many independent draws."""
    flat = found.draws.reshape(-1, len(mean))
    n = np.minimum(found.effective_draws, len(flat))
    np.testing.assert_array_less(np.abs(flat.mean(axis=0) - mean), 5 * sd / np.sqrt(n))
    np.testing.assert_allclose(flat.std(axis=0), sd, rtol=5 / np.sqrt(n.min()))


def on_a_grid(likelihoods, prior, n=400):
    """Mean and standard deviation of shares of two or three structures by summation."""
    exact = likelihoods.astype(float)
    x = (np.arange(n) + 0.5) / n
    if len(prior) == 2:
        shares = np.stack([x, 1 - x], axis=-1)
    else:
        shares = np.stack([a.ravel() for a in np.meshgrid(x, x)], axis=-1)
        shares = shares[shares.sum(axis=1) < 1]
        shares = np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)
    log = np.concatenate(
        [np.log(part @ exact.T).sum(axis=1) for part in np.array_split(shares, 100)]
    )
    log += np.log(shares) @ (np.asarray(prior) - 1)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ shares
    return mean, np.sqrt(weight @ (shares - mean) ** 2)


def test_of_images_that_show_one_structure_each_the_posterior_is_dirichlet():
    counts, prior = np.array([60, 30, 0, 10]), np.array([1, 2, 0.5, 1.0])
    found = drawn(np.repeat(np.eye(4, dtype=np.float32), counts, axis=0), prior)
    assert found.n_counted == 100
    a = counts + prior
    mean = a / a.sum()
    assert_moments(found, mean, np.sqrt(mean * (1 - mean) / (a.sum() + 1)))


@pytest.mark.parametrize("prior", [(1, 1), (3, 0.7)])
def test_of_two_structures_it_is_the_integral(rng, prior):
    likelihoods = relative(log_likelihoods(rng, [[0], [1.5]], [0.3, 0.7], 80)[0])
    assert_moments(drawn(likelihoods, prior), *on_a_grid(likelihoods, prior))


def test_of_structures_that_are_alike_too(rng):
    """What two of a group have is divided between sweeps: of one posterior with plain sweeps."""
    points, prior = [[0], [0.2], [2]], (1, 2, 1)
    likelihoods = relative(log_likelihoods(rng, points, [0.3, 0.3, 0.4], 300)[0])
    expected = on_a_grid(likelihoods, prior)
    together = drawn(likelihoods, prior, [0, 0, 1])
    assert_moments(together, *expected)
    assert_moments(drawn(likelihoods, prior), *expected)


def test_equal_structures_share_what_they_have_as_the_prior_says(rng):
    """Chains that were to move by sweeps alone do not agree in so many."""
    likelihoods = np.ones((2000, 2), np.float32)
    found = drawn(likelihoods, (1, 1), [0, 0])
    assert_moments(found, np.array([0.5, 0.5]), np.full(2, 12**-0.5))


def test_draws_are_those_of_the_seed(rng):
    likelihoods = relative(rng.normal(0, 1, (50, 3)))
    one, again, other = (drawn(likelihoods, np.ones(3), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.draws, again.draws)
    assert not np.isin(other.draws, one.draws).any()


def test_one_chain_alone_agrees_with_itself_or_not(rng):
    likelihoods = relative(log_likelihoods(rng, [[0.0], [2.0]], (0.3, 0.7), 100)[0])
    found = posterior(Images(likelihoods, np.ones(100)), np.ones(2), np.arange(2), 1, 3)
    assert found.converged
    assert found.n_sweeps < 10 * gibbs.ENOUGH_SWEEPS
    assert_moments(found, *on_a_grid(likelihoods, [1, 1]))


def test_chains_that_never_agree_end_and_say_so(rng, monkeypatch):
    monkeypatch.setattr(gibbs, "MOST_SWEEPS", 150)
    monkeypatch.setattr(gibbs, "ENOUGH_SWEEPS", 100)
    likelihoods = np.ones((5000, 2), np.float32)
    found = posterior(
        Images(likelihoods, np.ones(len(likelihoods))), np.ones(2), np.arange(2), 4, 0
    )
    assert not found.converged
    assert found.n_sweeps == 150
