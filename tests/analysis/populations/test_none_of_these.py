"""The share of images of none, and shares of structures beside it, of mixtures that are known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize

import cryolike_dask as cld
from cryolike_dask.analysis.populations import gibbs, none_of_these
from cryolike_dask.analysis.populations import likelihoods as reading
from cryolike_dask.analysis.populations.likelihoods import likelihoods_of
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.errors import InputError
from tests.analysis.populations.mixtures import as_results, beside_decoys, with_decoys

N_SETS = 12
MOST_OFF = 4.5
"""Standard errors: of 30 numbers one is as far off less than once in a thousand."""


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(none_of_these, "N_BOOTSTRAP", 25)


def estimates(rng, shares, of_none, strength, n_decoys=4, n_images=700, **options):
    """Of some sets of images of one mixture."""
    found = []
    for _ in range(N_SETS):
        values, _ = beside_decoys(rng, shares, of_none, n_images, n_decoys, strength)
        results = with_decoys(values + 1e4 * rng.normal(size=(n_images, 1)), n_decoys)
        found.append(cld.populations(results, draw=False, n_bootstrap=0, **options))
    return xr.concat(found, "set", combine_attrs="drop")


def off(found, truth):
    """The mean share over sets less the truth, in standard errors."""
    error = found.population_sd.mean("set") / N_SETS**0.5
    return abs(found.population.mean("set") - truth) / error


@pytest.mark.parametrize(
    ("shares", "of_none", "strength"), [((0.7, 0.3), 0.3, 4.0), ((7 / 9, 2 / 9), 0.1, 2.5)]
)
def test_shares_are_those_of_the_mixture(rng, shares, of_none, strength):
    """70/30 beside 3 in 10 of none, and 70/20/10; of weak images, too, that prefer decoys often."""
    found = estimates(rng, shares, of_none, strength)
    none, low_high = found.population_of_none, found.population_of_none_interval.values.T
    # by the least of a distribution that only falls: a point too few, of 700 images
    sd = found.population_of_none_sd.mean()
    assert abs(none.mean() - of_none) < 0.02 + MOST_OFF * sd / N_SETS**0.5
    assert ((low_high[0] <= of_none) & (of_none <= low_high[1])).sum() >= N_SETS - 7
    assert 0.3 < none.std(ddof=1) / sd < 2.3
    assert (off(found, shares) < MOST_OFF).all()
    low, high = found.population_interval.isel(structure=0).values.T
    assert ((low <= shares[0]) & (shares[0] <= high)).sum() >= N_SETS - 5
    if strength == 2.5:  # what decoys win alone says far more
        values, _ = beside_decoys(rng, shares, of_none, 6000, 4, strength)
        assert 1 - cld.decoy_competition(with_decoys(values, 4)).share_shown > 2 * of_none


def test_of_six_in_ten_that_show_none_shares_would_be_wrong_without(rng):
    shares = (0.8, 0.2)
    found = estimates(rng, shares, 0.6, 4.0)
    assert (off(found, shares) < MOST_OFF).all()
    without = estimates(rng, shares, 0.6, 4.0, decoys=False)
    assert without.population[:, 0].max() < 0.75
    assert "population_of_none" not in without


def test_of_pure_noise_all_show_none_and_shares_are_not_known(rng, monkeypatch):
    monkeypatch.setattr(gibbs, "ENOUGH_SWEEPS", 300)
    inside = 0
    for _ in range(N_SETS):
        values, _ = beside_decoys(rng, (0.5, 0.5), 1.0, 600, 4)
        found = cld.populations(with_decoys(values, 4), n_bootstrap=0)
        assert found.population_of_none > 0.8
        inside += float(found.population_of_none_interval[1]) == 1
    assert inside >= N_SETS - 6
    assert found.population_sd.mean() > 0.1


def test_where_all_show_a_structure_none_is_nothing(rng):
    values, _ = beside_decoys(rng, (0.6, 0.4), 0.0, 700, 4, 9.0)
    found = cld.populations(with_decoys(values, 4), n_bootstrap=0)
    low, high = found.population_of_none_interval.values
    assert low == 0
    assert found.population_of_none < 0.005
    assert 0.002 < high < 0.02
    plain = cld.populations(as_results(values[:, :2]), n_bootstrap=0)
    np.testing.assert_allclose(found.population, plain.population, atol=0.01)


def test_the_likelihood_is_that_of_the_definition(rng):
    """Of shares, with the probability of none held: another optimiser finds the same, and draws
    have the moments of the sum over a grid."""
    values, _ = beside_decoys(rng, (0.7, 0.3), 0.5, 200, 3, 2.0)
    results = with_decoys(values, 3)
    with likelihoods_of(results, decoys=True) as likelihoods:
        none = none_of_these.none_of_these(likelihoods, 0.95, 0)
        images = Images(likelihoods.relative, np.ones(200), none.likelihood)
    exact = np.exp(values - values[:, :2].max(axis=1, keepdims=True))
    ratio = 5 * exact[:, :2] / exact.sum(axis=1, keepdims=True)
    # what is none of 5 L / sum L is pi / (1 - pi)
    odds = none.likelihood * 5 / exact.sum(axis=1)
    pi = odds / (1 + odds)
    assert none.share == pytest.approx(pi.mean(), abs=1e-9)
    order = np.argsort(values.max(axis=1) - values.mean(axis=1))
    assert (np.diff(pi[order]) <= 1e-12).all()

    def log_likelihood(first):
        return np.log(pi + (1 - pi) * (ratio @ [first, 1 - first])).sum()

    best = minimize(lambda x: -log_likelihood(x[0]), [0.5], bounds=[(0, 1)]).x[0]
    found = cld.populations(results, n_bootstrap=0)
    assert log_likelihood(float(found.population_maximum_likelihood[0])) > (
        log_likelihood(best) - 0.02
    )
    x = (np.arange(2000) + 0.5) / 2000
    weight = np.exp([log_likelihood(first) - log_likelihood(best) for first in x])
    mean = np.average(x, weights=weight)
    sd = np.sqrt(np.average((x - mean) ** 2, weights=weight))
    n = min(float(found.effective_draws[0]), found.population_draws[..., 0].size)
    assert abs(found.population[0] - mean) < 5 * sd / n**0.5
    np.testing.assert_allclose(found.population_sd[0], sd, rtol=5 / n**0.5)
    # and derivatives are those of a matrix to which none is added
    added = Images(images.relative + none.likelihood[:, None], images.copies)
    shares = np.array([0.4, 0.6])
    np.testing.assert_allclose(images.gradient(shares)[1], added.gradient(shares)[1])
    every = np.arange(2)
    np.testing.assert_allclose(images.curvature(shares, every), added.curvature(shares, every))


def test_none_is_no_share_of_what_structures_are_taken_for(rng):
    """Confusion is of images that show a structure."""
    values, truth = beside_decoys(rng, (0.6, 0.4), 0.5, 2000, 4, 3.0)
    names = np.array(["s0", "s1", ""], object)[truth]
    found = cld.populations(with_decoys(values, 4, true_structure=names), n_bootstrap=0)
    np.testing.assert_allclose(found.expected_confusion.sum("structure_other"), 1)
    np.testing.assert_allclose(found.found_confusion, found.expected_confusion, atol=0.1)


def test_without_decoys_nothing_changes(rng):
    values, _ = beside_decoys(rng, (0.7, 0.3), 0.3, 300, 4)
    plain = cld.populations(as_results(values[:, :2]))
    without = cld.populations(with_decoys(values, 4), decoys=False)
    # of other results, which have decoys besides
    assert without.attrs["results"] != plain.results
    xr.testing.assert_identical(without.assign_attrs(results=plain.results), plain)
    assert "n_decoys" not in plain.attrs
    # decoys alone are what is compared
    alone = with_decoys(values, 4).isel(structure=[2, 3])
    assert "population_of_none" not in cld.populations(alone, n_bootstrap=0)


def test_one_structure_has_all_that_is_shown(rng):
    values, _ = beside_decoys(rng, (1.0,), 0.3, 700, 2, 5.0)
    found = cld.populations(with_decoys(values, 2), n_bootstrap=0)
    assert found.population.values.tolist() == [1.0]
    assert abs(found.population_of_none - 0.3) < 5 * found.population_of_none_sd


def test_decoys_are_read_with_structures_from_results_that_exceed_memory(
    rng, monkeypatch, tmp_path
):
    values, _ = beside_decoys(rng, (0.7, 0.3), 0.3, 500, 4)
    results = with_decoys(values, 4).isel(structure=[2, 0, 3, 1, 4, 5])
    whole = cld.populations(results, n_bootstrap=0)
    assert whole.structure.values.tolist() == ["s0", "s1"]
    monkeypatch.setattr("cryolike_dask.analysis.matrix.IMAGES_AT_ONCE", 64)
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    scratch = tmp_path / "scratch"
    with monkeypatch.context() as patched:
        patched.setattr("cryolike_dask.analysis.populations.estimate.precision", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cld.populations(results, scratch=scratch)
    # what is left there of structures and decoys is no use to structures alone
    cld.populations(results, n_bootstrap=0, decoys=False, scratch=scratch)
    with monkeypatch.context() as patched:
        patched.setattr("cryolike_dask.analysis.populations.estimate.precision", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cld.populations(results, scratch=scratch)
    again = cld.populations(results.chunk({"image": 50}), n_bootstrap=0, scratch=scratch)
    np.testing.assert_allclose(again.population_of_none, whole.population_of_none, atol=1e-6)
    np.testing.assert_allclose(again.population, whole.population, atol=0.01)


def test_images_that_lack_a_decoy_are_left_out_and_said(rng, caplog):
    values, _ = beside_decoys(rng, (0.7, 0.3), 0.3, 300, 4)
    results = with_decoys(values, 4)
    partly = results.where((results.image != 3) | (results.structure != "s4"))
    found = cld.populations(partly, n_bootstrap=0)
    assert (found.attrs["n_images"], found.attrs["n_images_left_out"]) == (299, 1)
    assert "left out: 3" in caplog.text
    with pytest.raises(InputError, match=r"1 structure without results: s4.*decoys=False"):
        cld.populations(results.where(results.structure != "s4"))


def test_of_many_images_the_error_is_that_of_fewer(rng, monkeypatch):
    values, _ = beside_decoys(rng, (1.0,), 0.4, 2000, 2)
    results = with_decoys(values, 2)
    whole = cld.populations(results, n_bootstrap=0)
    monkeypatch.setattr(none_of_these, "MOST_RESAMPLED", 500)
    fewer = cld.populations(results, n_bootstrap=0)
    assert fewer.population_of_none == whole.population_of_none
    np.testing.assert_allclose(fewer.population_of_none_sd, whole.population_of_none_sd, rtol=0.8)


def test_three_images_say_nothing(rng):
    values, _ = beside_decoys(rng, (0.5, 0.5), 0.0, 3, 2, 9.0)
    found = cld.populations(with_decoys(values, 2), n_bootstrap=0)
    assert found.population_of_none_interval[1] > 0.5
    assert found.population_of_none_sd == 0.5
    flat = cld.populations(with_decoys(np.zeros((40, 4)), 2), n_bootstrap=0)
    assert np.isfinite(flat.population_of_none)
    assert flat.population_of_none_interval.values.tolist() == [0, 1]


def test_files_and_figure_say_it(rng, tmp_path):
    values, _ = beside_decoys(rng, (0.7, 0.3), 0.3, 300, 4)
    found = cld.populations(with_decoys(values, 4), n_bootstrap=0)
    table, store = cld.write_populations(found, tmp_path)
    head, *rows = (line.split(",") for line in table.read_text().splitlines())
    assert [row[0] for row in rows] == ["s0", "s1", "none of these"]
    last = dict(zip(head, rows[-1], strict=True))
    assert float(last["population"]) == pytest.approx(float(found.population_of_none), rel=1e-5)
    assert float(last["upper"]) == pytest.approx(float(found.population_of_none_interval[1]), 1e-5)
    assert last["group"] == ""
    xr.testing.assert_identical(xr.open_zarr(store).load(), found)
    (axes,) = cld.plot_populations(found).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(labels) == ["none, of all images", "s0", "s1"]
    assert labels[-1] == "none, of all images"
