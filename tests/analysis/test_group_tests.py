"""P-values of groups of images: calibrated where groups are alike, small where one is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from cryolike_dask.analysis.group_shares import ODD_P
from cryolike_dask.analysis.group_tests import (
    LEAST_IMAGES,
    p_values_of_fit,
    p_values_of_shares,
)

SIZES = {
    "two": [60, 60],
    "a small one": [8, 400],
    "some": [40] * 10,
    "many": [12] * 60,
    "tiny": [1, 1, 2, 5, 6, 300],
}


def probabilities(rng, shares, n):
    """Of images of structures that are nearly sure, or not, as Bayes says."""
    shown = rng.choice(len(shares), size=n, p=shares)
    ll = rng.normal(size=(n, len(shares))) * 2
    ll[np.arange(n), shown] += 4
    rows = np.exp(ll - ll.max(axis=1, keepdims=True)) * shares
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.98, 0.02), (0.5, 0.3, 0.19, 0.01)])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_groups_of_one_sample_are_odd_as_seldom_as_said(sizes, shares, rng):
    """Rare structures too, of which a chi-squared distribution makes odd groups."""
    n, number = np.array(sizes), np.repeat(np.arange(len(sizes)), sizes)
    odd, fits_worse, n_tried = 0, 0, 60
    for seed in range(n_tried):
        rows = probabilities(rng, np.array(shares), len(number))
        p, least = p_values_of_shares(rows, number, n, seed)
        assert np.isnan(p[n < LEAST_IMAGES]).all()
        assert (p[n >= LEAST_IMAGES] >= least).all()
        odd += bool((np.nan_to_num(p, nan=1) < ODD_P).any())
        # structures fit differently well, and many images alike
        best = rows.argmax(axis=1)
        fit = rng.normal(0.2, 0.03, len(number)).round(2) + 0.1 * best
        p, _ = p_values_of_fit(fit, best, number, len(n))
        fits_worse += bool((np.nan_to_num(p, nan=1) < ODD_P).any())
    # 0.6 expected; 8 or more once in 10^6
    assert max(odd, fits_worse) <= 7


def test_an_odd_group_is_found(rng):
    number = np.repeat(np.arange(20), 40)
    rows = probabilities(rng, np.array([0.7, 0.3]), 800)
    rows[number == 7] = probabilities(rng, np.array([0.2, 0.8]), 40)
    p, least = p_values_of_shares(rows, number, np.bincount(number))
    assert p[7] == least == 0.001
    assert np.median(p) > 0.1
    halves = (np.arange(800) % 2 == 0) & (number != 7)
    p, _ = p_values_of_shares(rows, halves.astype(int), np.bincount(halves))
    assert p[0] == p[1]  # one comparison


def test_a_group_that_fits_worse_is_found_whatever_it_shows(rng):
    number = np.repeat(np.arange(20), 40)
    best = rng.integers(3, size=800)
    fit = rng.normal(0.25, 0.03, 800) - 0.05 * best
    p, score = p_values_of_fit(fit - 0.04 * (number == 7), best, number, 20)
    assert p[7] < 1e-3
    assert score[7] < -4
    assert p[np.arange(20) != 7].min() > 1e-5
    # all of the worst structure, but no worse than others of it
    best = np.where(number == 7, 2, best)
    fit = rng.normal(0.25, 0.03, 800) - 0.05 * best
    assert p_values_of_fit(fit, best, number, 20)[0][7] > 1e-3
    assert mannwhitneyu(fit[number == 7], fit[number != 7]).pvalue < 1e-3


def test_two_groups_of_one_structure_are_those_of_mann_and_whitney(rng):
    number, fit = rng.integers(2, size=90), rng.normal(size=90).round(1)
    p, score = p_values_of_fit(fit, np.zeros(90, int), number, 2)
    expected = mannwhitneyu(
        fit[number == 0], fit[number == 1], method="asymptotic", use_continuity=False
    )
    # ties are counted, in both
    np.testing.assert_allclose(p, expected.pvalue, rtol=1e-9)
    assert score[0] == pytest.approx(-score[1])


def test_what_is_missing_or_all_alike_says_nothing(rng):
    number = np.repeat(np.arange(3), 20)
    n = np.bincount(number)
    assert np.isnan(p_values_of_shares(np.full((60, 2), 0.5), number, n)[0]).all()
    alike = np.full(60, 0.2)
    best = np.zeros(60, int)
    assert np.isnan(p_values_of_fit(alike, best, number, 3)[0]).all()
    assert np.isnan(p_values_of_fit(np.full(60, np.nan), best, number, 3)[0]).all()
    # every image another structure: none to compare it with
    assert np.isnan(p_values_of_fit(rng.normal(size=60), np.arange(60), number, 3)[0]).all()
    some = np.where((number == 1) & (np.arange(60) % 20 > 3), np.nan, rng.normal(size=60))
    p, _ = p_values_of_fit(some, best, number, 3)
    assert np.isnan(p).tolist() == [False, True, False]
    # a group of all but few is held against few
    few = (np.arange(60) < 3).astype(int)
    assert np.isnan(p_values_of_fit(rng.normal(size=60), best, few, 2)[0]).all()
