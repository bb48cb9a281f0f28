"""Posterior probabilities mean what they say: small runs of the calibration benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.calibration import Approach, Row, judged, log_likelihood_ratios
from benchmarks.conventions import is_calibrated
from benchmarks.conventions import log_likelihood_ratios as ratios_by_conventions
from benchmarks.independent_simulator import Bump
from benchmarks.scores import calibrate, population, with_population
from benchmarks.simulated_particles import CONDITIONS


def test_calibration_of_exact_and_of_inflated_ratios() -> None:
    rng = np.random.default_rng(0)
    ratios = rng.normal(0, 2, 20000)
    truth = rng.random(20000) < expit(ratios)
    exact, inflated = calibrate(ratios, truth), calibrate(5 * ratios, truth)
    assert is_calibrated(exact)
    assert abs(exact.slope - 1) < 3 * exact.slope_error
    np.testing.assert_allclose(inflated.slope, exact.slope / 5, rtol=1e-6)
    assert not is_calibrated(inflated)


def test_standard_is_calibrated_at_half_resolution_and_cryolike_is_not() -> None:
    # fewer images could not tell: over five bins their sampling error alone reaches 0.05
    ratios, truth = ratios_by_conventions(n_images=1200, resolution_factor=0.5, seed=0)
    standard, cryolike = (calibrate(ratios[name], truth) for name in ("standard", "cryolike"))
    print(standard, cryolike)
    assert abs(standard.slope - 1) < 3 * standard.slope_error
    assert standard.expected_error < 0.05
    # all pixels counted as degrees of freedom: 5.1 times those in the band
    assert cryolike.slope < 0.3
    assert cryolike.expected_error > 0.1


def test_scores_of_calibrated_and_of_inflated_ratios(rng: np.random.Generator) -> None:
    ratios = rng.normal(0, 2, 6000)
    truth = rng.random(6000) < expit(ratios)
    right, inflated = calibrate(ratios, truth), calibrate(3 * ratios, truth)
    assert abs(right.cost) < 12 / 6000  # twice it is a chi-square of 2, less 2: 3e-6 are above 25
    assert abs(right.intercept) < 5 * right.intercept_error
    # 2/3 of the odds are wrong: the log score of logits of 2 and of 6 nat, by quadrature
    x, weight = np.polynomial.hermite_e.hermegauss(60)
    score = {
        k: -expit(2 * x) * np.logaddexp(0, -k * x) - expit(-2 * x) * np.logaddexp(0, k * x)
        for k in (2, 6)
    }
    expected = ((score[2] - score[6]) * weight).sum() / weight.sum()
    scores = [-np.logaddexp(0, np.where(truth, -k * ratios, k * ratios)) for k in (1, 3)]
    error = (scores[0] - scores[1]).std() / np.sqrt(len(ratios))
    assert abs(inflated.cost - expected) < 5 * error + 12 / 6000  # 0.3 of it: 0.066 of 0.221
    chosen = with_population(truth, 0.3, rng)
    assert len(set(chosen)) == len(chosen)
    assert 0.2 < truth[chosen].mean() < 0.4
    found = population(ratios[chosen])
    assert abs(found.value - 0.3) < 5 * found.error
    assert 0.008 < found.error < 0.02
    assert population(np.full(10, 3.0)).value > 0.999
    assert population(np.full(10, -3.0)).value < 0.001


def test_a_table_that_misses_its_bounds_is_not_as_expected() -> None:
    rng = np.random.default_rng(1)
    ratios = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < expit(ratios)
    chosen = with_population(truth, 0.3, rng)
    white, coloured = CONDITIONS[:2]
    scores = -np.logaddexp(0, np.where(truth, -ratios, ratios))
    found = calibrate(ratios, truth), population(ratios[chosen])
    right = Row(white, "full", 0, *found, seconds=1.0, scores=scores)
    wrong = replace(
        right,
        condition=coloured,
        calibration=calibrate(3 * ratios, truth),
        population=population(3 * ratios[chosen] + 1),
    )
    assert right.wrong == []
    assert wrong.wrong == ["slope", "cost", "population"]
    now, before = Approach(), Approach(before=True)
    assert judged([right], now)
    assert not judged([right, wrong], now)
    assert judged([right, wrong], before)
    assert not judged([right, replace(right, condition=coloured)], before)
    # calibrated, but of half of the information: seen by what it loses
    ignorant = replace(right, scores=scores - 0.02).against(right)
    assert ignorant.wrong == ["information"]
    assert right.against(right).wrong == []
    assert all(len(str(row)) <= 120 for row in (right, wrong, ignorant))


def test_noise_with_a_bump_is_calibrated_where_its_spectrum_is_known(tmp_path: Path) -> None:
    bump = replace(CONDITIONS[0], spectra=(Bump(),))
    found = {}
    for noise in ("true", "white"):
        ratios, truth = log_likelihood_ratios(
            bump, "full", 250, [2], Approach(noise, finer=0.7), tmp_path / noise
        )
        found[noise] = calibrate(ratios, truth)
    print(found)
    assert abs(found["true"].slope - 1) < 0.1 + 2.5 * found["true"].slope_error
    assert found["true"].cost < 0.03
    assert found["white"].slope + 3 * found["white"].slope_error < 0.75
