"""Probabilities and assignments against a known truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis import findings
from cryolike_dask.analysis.calibration import OTHERS, calibration, confusion, regress
from cryolike_dask.analysis.report.about_structures import truth_section
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.making import make_results, with_truth


def summary_of_probabilities(probability, right):
    """The summary of images whose best structure has some probability, and is right or not."""
    below = np.log(1 / probability - 1)
    values = np.stack([np.zeros(len(probability)), below])
    truth = np.where(right, "a", "b")
    coords = {
        "structure": ["a", "b"],
        "image": np.arange(len(right)),
        "true_structure": ("image", truth),
    }
    results = xr.Dataset({"log_likelihood_integrated": (("structure", "image"), values)}, coords)
    results["cross_correlation"] = abs(results.log_likelihood_integrated) + 1
    return summarise_results(results)


def test_calibrated_probabilities_raise_no_doubt_and_others_do():
    rng = np.random.default_rng(5)
    probability = rng.uniform(0.5, 0.99, 2000)
    calibrated = summary_of_probabilities(probability, rng.random(2000) < probability)
    found = calibration(calibrated)
    which = (probability * 10).astype(int)
    for i in range(10):
        assert found.n_images[i] == (which == i).sum()
        if i >= 5:
            assert found.mean_probability[i] == pytest.approx(probability[which == i].mean())
            assert abs(found.n_right[i] / found.n_images[i] - found.mean_probability[i]) < 0.1
    assert abs(found.surprise) < findings.STANDARD_ERRORS
    assert not findings.warnings_about(calibrated)
    too_sure = summary_of_probabilities(
        probability, rng.random(2000) < 0.5 + (probability - 0.5) / 2
    )
    assert calibration(too_sure).surprise > findings.STANDARD_ERRORS
    (finding,) = findings.warnings_about(too_sure)
    assert finding.text.startswith("Probabilities are too large")
    too_shy = summary_of_probabilities(probability, rng.random(2000) < 0.99)
    (finding,) = findings.warnings_about(too_shy)
    assert finding.text.startswith("Probabilities are too small")


def test_confusion_counts_every_image_once(rng):
    results = with_truth(make_results(rng, [f"s{i}" for i in range(9)], 200), rng)
    summary = summarise_results(results)
    pairs = Counter(
        zip(
            summary.true_structure.values.tolist(),
            summary.best_structure.values.tolist(),
            strict=True,
        )
    )
    table = confusion(summary)
    assert table.names == [f"s{i}" for i in range(9)]
    expected = [[pairs[a, b] for b in table.names] for a in table.names]
    assert table.counts.tolist() == expected
    fewer = confusion(summary, most=4)
    assert len(fewer.names) == 4
    assert fewer.names[-1] == OTHERS
    assert fewer.counts.sum() == 200
    assert fewer.counts[0, 1] == pairs[fewer.names[0], fewer.names[1]]
    n = sum(k for (a, b), k in pairs.items() if a == fewer.names[0] and b not in fewer.names)
    assert fewer.counts[0, 3] == n


def test_structures_of_the_truth_that_were_not_compared(rng):
    results = with_truth(make_results(rng), rng)
    results.true_structure[:5] = "another"
    table = confusion(summarise_results(results))
    assert table.names == ["closed", "open", "another"]
    assert table.counts.sum(axis=1)[2] == 5
    assert not table.counts[:, 2].any()


def test_where_no_image_shows_what_was_compared_nothing_is_held_against_the_truth(rng):
    """Frames of a simulation, say, of particles that were made of other structures."""
    probability = rng.uniform(0.5, 0.99, 200)
    summary = summary_of_probabilities(probability, np.zeros(200, bool))
    assert findings.warnings_about(summary)
    assert truth_section(summary).key == "calibration"
    summary.true_structure[:] = "x"
    assert not findings.warnings_about(summary)
    assert truth_section(summary) is None
    results = with_truth(make_results(rng), rng)
    results.true_structure[:] = "x"
    assert cld.plot_log_likelihood_ratio(results, "open", "closed").legends == []


@pytest.mark.parametrize("n_structures", [2, 3])
@pytest.mark.parametrize("slope", [1.0, 0.4])
def test_a_slope_comes_back(n_structures, slope, rng):
    """Log-likelihoods that are `slope` too large by its inverse."""
    n = 4000
    true = rng.normal(0, 1.5, (n_structures, n))
    truth = (true + rng.gumbel(size=true.shape)).argmax(axis=0)  # by softmax of these
    fitted = regress(true / slope + rng.normal(0, 1e4, n), truth)
    assert abs(fitted.slope - slope) < 4 * fitted.slope_error
    assert fitted.slope_error < 0.1 * slope
    assert np.isfinite(fitted.intercept) == (n_structures == 2)
    if n_structures == 2:
        assert abs(fitted.intercept) < 4 * fitted.intercept_error


def test_an_intercept_comes_back(rng):
    ll = rng.normal(0, 2, (2, 4000))
    truth = (ll + np.array([[0.0], [0.7]]) + rng.gumbel(size=ll.shape)).argmax(axis=0)
    fitted = regress(ll, truth)
    assert abs(fitted.intercept - 0.7) < 4 * fitted.intercept_error < 0.4


def test_where_all_is_right_no_slope_is_known(rng):
    truth = rng.integers(2, size=50)
    ll = np.where(truth == np.arange(2)[:, None], 0.0, -20.0)
    assert np.isnan(regress(ll, truth).slope)
    assert np.isnan(regress(np.zeros((2, 50)), truth).slope)
    only_one = regress(rng.normal(size=(2, 50)), np.zeros(50, int))
    assert np.isnan(only_one.slope)
