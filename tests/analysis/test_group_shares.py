"""Shares in groups of images, against maximisation by brute force, and against chance."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.group_shares import (
    MOST_SHOWN,
    ODD_P,
    Fit,
    grouped_shares,
    groups_of_images,
    relative_likelihoods,
)
from tests.analysis.making import make_results, without


def likelihoods(rng, share, n, spread=2.0):
    """Of images of two structures, and how much there is of both."""
    is_second = rng.random(n) < share
    ratio = rng.normal(np.where(is_second, spread, -spread), np.sqrt(2 * spread))
    values = np.stack([np.zeros(n), ratio], axis=1)
    return np.exp(values - values.max(axis=1, keepdims=True)).astype(np.float32)


def fit_of(rng, n):
    return Fit(rng.normal(0.2, 0.03, n), rng.exponential(10, n))


def test_shares_are_those_of_largest_likelihood(rng):
    relative = likelihoods(rng, 0.3, 60)
    members = np.array([f"g{i % 3}" for i in range(60)], object)
    members[:3] = ""
    found = grouped_shares("micrograph", members, relative, np.array([0.7, 0.3]), fit_of(rng, 60))
    grid = np.linspace(0, 1, 100_001)
    for g, name in enumerate(found.names):
        rows = relative[members == name].astype(float)
        log_likelihood = sum(np.log(a * (1 - grid) + b * grid) for a, b in rows)
        assert found.share[g, 1] == pytest.approx(grid[log_likelihood.argmax()], abs=2e-2)
        assert found.n_images[g] == len(rows)
        low, high = found.interval[g, 1]
        assert low <= found.share[g, 1] <= high


def test_an_odd_half_set_is_found_and_chance_is_not(rng):
    relative = np.concatenate([likelihoods(rng, share, 500) for share in (0.2, 0.6)])
    halves = np.repeat(np.array(["1", "2"], object), 500)
    overall, fit = np.array([0.6, 0.4]), fit_of(rng, 1000)
    found = grouped_shares("half-set", halves, relative, overall, fit)
    assert found.odd.tolist() == [0, 1]
    assert found.p_value.tolist() == [found.least_p] * 2  # one comparison
    assert [found.called(g) for g in found.odd] == ["half-set 1", "half-set 2"]
    n_odd = sum(
        len(grouped_shares("half-set", rng.permutation(halves), relative, overall, fit).odd) > 0
        for _ in range(50)
    )
    assert n_odd <= 6  # 0.5 expected; 7 and more once in 10^6
    assert ODD_P == 0.01


def test_of_many_groups_the_odd_ones_are_shown_in_order(rng):
    relative = likelihoods(rng, 0.5, 600)
    members = np.array([f"{i % 30:d}" for i in range(600)], object)
    relative[members == "17"] = [1.0, 1e-6]
    found = grouped_shares("micrograph", members, relative, np.array([0.5, 0.5]), fit_of(rng, 600))
    assert (found.n_groups, len(found.names)) == (30, MOST_SHOWN)
    assert "17" in [found.called(g) for g in found.odd]
    assert [int(name) for name in found.names] == sorted(int(name) for name in found.names)


def test_groups_that_are_too_small_or_alone_say_nothing(rng):
    relative = likelihoods(rng, 0.5, 20)
    members = np.array(["a"] * 18 + ["b"] * 2, object)
    fit, shares = fit_of(rng, 20), np.array([0.5, 0.5])
    found = grouped_shares("micrograph", members, relative, shares, fit)
    assert np.isnan(found.p_value).all()
    assert np.isnan(found.p_of_fit).all()
    alike = np.ones((20, 2), np.float32)
    assert np.isnan(grouped_shares("m", members, alike, shares, fit).p_value).all()
    alone = np.array([*"a" * 10, *"b" * 9, "c"], object)
    found = grouped_shares("micrograph", alone, relative, shares, fit)
    assert found.n_images.tolist() == [10, 9, 1]
    assert np.isnan(found.p_value).tolist() == [False, False, True]
    none = grouped_shares("micrograph", alone, relative * np.float32(np.nan), shares, fit)
    assert (none.n_groups, len(none.odd)) == (0, 0)


def test_how_well_groups_fit(rng):
    relative = likelihoods(rng, 0.5, 90)
    members = np.array(["1", "2", ""] * 30, object)
    correlation = rng.normal(0.2, 0.02, 90) - 0.05 * (members == "2")
    correlation[:9] = np.nan
    lost = (np.arange(90) % 10 == 0).astype(float)
    lost[60:] = np.nan
    fit = Fit(correlation, np.arange(90.0), lost, 1.5)
    found = grouped_shares("half-set", members, relative, np.array([0.5, 0.5]), fit)
    for g, name in enumerate("12"):
        its = members == name
        assert found.correlation[g] == np.nanmedian(correlation[its])
        assert found.lead[g] == np.median(np.arange(90.0)[its])
        assert found.none[g] == pytest.approx(1.5 * np.nanmean(lost[its]))
    assert found.worse.tolist() == [1]
    assert np.isnan(grouped_shares(*given(rng, members, relative)).none).all()


def given(rng, members, relative):
    return "half-set", members, relative, np.array([0.5, 0.5]), fit_of(rng, len(members))


def test_micrographs_are_called_without_their_folders(rng):
    results = make_results(rng)
    for folder in ("a", "b c"):
        paths = [f"job/{folder}/m{i % 2}.mrc" if i else "" for i in range(40)]
        named = results.assign_coords(micrograph=("image", np.array(paths, object)))
        groups = groups_of_images(named, None)["micrograph"]
        assert sorted(set(groups) - {""}) == ["m0.mrc", "m1.mrc"]
    same = np.array([f"{'ab'[i % 2]}/m.mrc" for i in range(40)], object)
    groups = groups_of_images(results.assign_coords(micrograph=("image", same)), None)
    assert sorted(set(groups["micrograph"])) == ["a/m.mrc", "b/m.mrc"]


def test_what_is_recorded_makes_groups(rng):
    results = make_results(rng)
    assert groups_of_images(results, None) == {}
    recorded = results.assign_coords(
        random_subset=("image", np.where(np.arange(40) < 5, -1, 1 + np.arange(40) % 2)),
        micrograph=("image", np.array(["one"] * 40, object)),
    )
    defocus = np.where(np.arange(40) == 7, np.nan, np.linspace(1e4, 2e4, 40))
    found = groups_of_images(recorded, defocus)
    assert list(found) == ["half-set", "defocus"]
    assert found["half-set"][:6].tolist() == ["", "", "", "", "", "2"]
    assert found["defocus"][7] == ""
    names, counts = np.unique(
        found["defocus"][found["defocus"] != ""].astype(str), return_counts=True
    )
    assert names[0].startswith("1.00 to ")
    assert counts.max() - counts.min() <= 2
    assert "defocus" not in groups_of_images(recorded, np.full(40, 1e4))


def test_images_that_were_not_compared_are_left_out(rng):
    results = make_results(rng)
    gone = np.zeros((2, 40), bool)
    gone[1, :10] = True
    relative = relative_likelihoods(without(results, gone))
    assert np.isnan(relative[:10]).any(axis=1).all()
    np.testing.assert_allclose(relative[10:].max(axis=1), 1)
