"""Posterior probabilities mean what they say: a small run of the calibration benchmark."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from benchmarks.calibration import calibrate, log_likelihood_ratios


def test_calibration_of_exact_and_of_inflated_ratios() -> None:
    rng = np.random.default_rng(0)
    ratios = rng.normal(0, 2, 20000)
    truth = rng.random(20000) < expit(ratios)
    exact, inflated = calibrate(ratios, truth), calibrate(5 * ratios, truth)
    assert exact.holds
    assert abs(exact.slope - 1) < 3 * exact.slope_error
    np.testing.assert_allclose(inflated.slope, exact.slope / 5, rtol=1e-6)
    assert not inflated.holds


def test_standard_is_calibrated_at_half_resolution_and_cryolike_is_not() -> None:
    # fewer images could not tell: over five bins their sampling error alone reaches 0.05
    ratios, truth = log_likelihood_ratios(n_images=1200, resolution_factor=0.5, seed=0)
    standard, cryolike = (calibrate(ratios[name], truth) for name in ("standard", "cryolike"))
    print(standard, cryolike)
    assert abs(standard.slope - 1) < 3 * standard.slope_error
    assert standard.expected_error < 0.05
    # all pixels counted as degrees of freedom: 5.1 times those in the band
    assert cryolike.slope < 0.3
    assert cryolike.expected_error > 0.1
