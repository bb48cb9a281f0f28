"""The light of a calibration: what it says where a slope is seen, and where none can be."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from cryolike_dask.analysis.calibration_light import calibration_light
from tests.io.test_calibration import MADE

UNKNOWN = {"slope": np.nan, "slope_error": np.nan, "intercept": np.nan, "intercept_error": np.nan}


def decided(n, n_right, promised, **more):
    """Of particles that are all decided."""
    counts = {"n_images": n, "n_right": n_right, "n_promised": promised}
    its = {"n_decided": n, "n_decided_right": n_right, "decided_promised": promised}
    return replace(MADE, **{**counts, **its, "slope": 0.94, "slope_error": 0.42, **more})


@pytest.mark.parametrize("slope", [{}, UNKNOWN])
@pytest.mark.parametrize(
    ("n", "n_right", "promised", "colour", "told"),
    [
        (200, 199, 199.3, "good", "More particles would tell little more"),
        (200, 200, 199.3, "good", "200 of these are assigned rightly"),
        (400, 390, 399.2, "bad", "probabilities are too large"),
        (4000, 3999, 3960.0, "bad", "they are too small"),
        (40, 40, 39.9, "unsure", "too few"),
    ],
)
def test_where_nearly_all_are_decided_these_are_held_against_what_they_promise(
    n, n_right, promised, colour, told, slope
):
    light = calibration_light(decided(n, n_right, promised, **slope))
    assert light.colour == colour
    assert told in light.text
    assert "The slope cannot be seen, since nearly every image is decided" in light.text


def test_a_slope_that_is_known_counts_nevertheless():
    light = calibration_light(decided(4000, 3990, 3991.0, slope_error=0.1))
    assert light.colour == "good"
    assert light.text.startswith("Slope 0.94")


def test_right_probabilities_are_seldom_called_wrong(rng):
    """Particles that are decided, and right as often as they say."""
    colours = []
    for _ in range(300):
        probability = 1 - 0.05 * rng.beta(0.3, 2, 400)
        n_right = int((rng.random(400) < probability).sum())
        colours.append(calibration_light(decided(400, n_right, probability.sum())).colour)
    # 3 expected of 300 at most; 14 and more once in 10^5
    assert colours.count("bad") <= 13
    assert colours.count("good") > 270
    # twice as often wrong as they say, of many
    n_right = 4000 - int(binom.isf(0.99, 4000, 0.04))
    assert calibration_light(decided(4000, n_right, 3920.0)).colour == "bad"


def test_it_is_said_how_many_would_be_enough():
    """Errors fall with the square root."""
    light = calibration_light(replace(MADE, slope_error=0.5, n_decided=100))
    assert light.colour == "unsure"
    n = int(re.search(r"--images (\d+)", light.text)[1])
    assert n == 2500
    assert calibration_light(replace(MADE, n_images=n, slope_error=0.2)).colour == "good"
    assert "Not even" in calibration_light(replace(MADE, slope_error=50.0)).text
    # a file of before, that does not say how many are decided
    assert "--images 2500" in calibration_light(replace(MADE, slope_error=0.5)).text
