"""Errors of shares, against closed forms; and which structures images cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import groups, precision
from tests.analysis.populations.mixtures import log_likelihoods, relative


def looked_at(likelihoods, probability=0.95):
    images = Images(likelihoods, np.ones(len(likelihoods)))
    maximum = maximum_likelihood(images, within=1e-6)
    errors = precision(images, maximum, probability)
    return maximum, errors, groups(images, maximum, errors.information)


def test_where_images_show_one_structure_each_the_covariance_is_that_of_counts():
    counts = np.array([600, 300, 100])
    maximum, errors, _ = looked_at(np.repeat(np.eye(3, dtype=np.float32), counts, axis=0))
    w, n = counts / counts.sum(), counts.sum()
    expected = (np.diag(w) - np.outer(w, w)) / n
    np.testing.assert_allclose(errors.covariance, expected, rtol=2e-3)
    np.testing.assert_allclose(errors.sd, np.sqrt(np.diag(expected)), rtol=5e-3)
    low, high = errors.interval.T
    np.testing.assert_allclose(low, maximum.shares - 1.96 * errors.sd, atol=1e-3)
    np.testing.assert_allclose(high, maximum.shares + 1.96 * errors.sd, atol=1e-3)


def test_the_share_of_a_structure_that_no_image_shows_has_an_upper_limit():
    """The likelihood of a share x is (1 - x)^n, as good as exp(-n x)."""
    n = 400
    likelihoods = np.zeros((n, 2), np.float32)
    likelihoods[:, 0] = 1
    _, errors, group = looked_at(likelihoods)
    assert errors.interval[1, 0] == 0
    assert errors.interval[1, 1] == pytest.approx(-np.log(0.05) / n, rel=0.02)
    assert errors.sd[1] == pytest.approx(1 / n, rel=0.02)
    assert group.tolist() == [0, 1]


def test_information_is_the_second_derivative(rng):
    likelihoods = relative(log_likelihoods(rng, [[0], [1], [3]], [0.5, 0.3, 0.2], 300)[0])
    maximum, errors, _ = looked_at(likelihoods)
    exact, h = likelihoods.astype(float), 1e-4

    def value(shares):
        return np.log(exact @ shares).sum()

    for j in range(3):
        for k in range(3):
            step_j, step_k = h * np.eye(3)[j], h * np.eye(3)[k]
            corners = [
                value(maximum.shares + a * step_j + b * step_k) for a in (1, -1) for b in (1, -1)
            ]
            second = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h * h)
            assert -second == pytest.approx(errors.information[j, k], rel=1e-3)


@pytest.mark.parametrize(
    ("points", "shares", "expected"),
    [
        ([0, 5, 10], [0.3, 0.7, 0.0], [0, 1, 2]),
        ([0, 0, 10], [0.3, 0.3, 0.4], [0, 0, 1]),
        ([0, 10, 0.01, 20, 30], [0.5, 0.4, 0.1, 0, 0], [0, 1, 0, 2, 3]),
        ([0, 3, 6, 9], [0.2, 0.4, 0.2, 0.2], [0, 1, 2, 3]),
        ([0, 0, 0, 10], [0.2, 0.4, 0.2, 0.2], [0, 0, 0, 1]),
    ],
)
def test_structures_that_images_cannot_tell_apart_are_one_group(rng, points, shares, expected):
    points = np.array(points, float)[:, None]
    likelihoods = relative(log_likelihoods(rng, points, shares, 2000)[0])
    assert looked_at(likelihoods)[2].tolist() == expected


def test_one_between_two_that_are_as_good_together_is_of_their_group():
    """What the one explains, equal shares of the two explain."""
    n = 500
    ends = np.repeat(np.array([[1.0, 0.9], [0.9, 1.0]]), n, axis=0)
    likelihoods = np.concatenate([ends, ends.mean(axis=1, keepdims=True)], axis=1)
    likelihoods = np.pad(likelihoods, ((0, n), (0, 1))).astype(np.float32)
    likelihoods[-n:, -1] = 1
    maximum, errors, group = looked_at(likelihoods)
    assert group[3] not in group[:3]
    joint = np.bincount(group, maximum.shares)
    np.testing.assert_allclose(joint[group[3]], 1 / 3, atol=1e-3)
    # nothing is told that is not known: of each group the share is known to half of itself
    of_group = np.zeros((group.max() + 1, 4))
    of_group[group, np.arange(4)] = 1
    assert (np.sqrt(np.diag(of_group @ errors.covariance @ of_group.T)) <= 0.5 * joint).all()


def test_one_structure_is_all():
    maximum, errors, group = looked_at(np.ones((20, 1), np.float32))
    assert maximum.shares.tolist() == [1]
    assert errors.covariance.tolist() == [[0]]
    assert group.tolist() == [0]
