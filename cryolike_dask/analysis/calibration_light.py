"""What particles simulated for a run say of its probabilities, as a light and in words."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

from cryolike_dask.analysis.lights import Light
from cryolike_dask.errors import is_or_are
from cryolike_dask.io.calibration import RunCalibration

SURE = 0.95
"""An image is decided where a structure has a larger probability."""
NEAR_ONE, WELL_KNOWN = 0.1, 0.2
"""Slopes so far from 1, beyond two standard errors, are good enough; errors beyond the second are
too large to say."""
NEARLY_ALL = 0.9
"""Of the particles: where as many are decided there is hardly a doubtful one that tells a slope."""
PROBABILITY = 0.99
"""Of the interval for the part of decided particles that are right."""
LARGEST_DOUBT = 0.05
"""Where more than this part of the decided particles may be wrong, they are too few to say."""
MOST_ASKED_FOR = 100_000
"""Particles: more are not asked for."""


def is_off(slope: float, error: float) -> bool:
    """Whether a slope is further from 1 than is good, and than chance makes it; one that is not
    known is not."""
    return abs(slope - 1) > NEAR_ONE + 2 * error


def calibration_light(calibration: RunCalibration) -> Light:
    """Say whether the probabilities of a run keep what they promise on particles simulated for
    it."""
    slope, error = calibration.slope, calibration.slope_error
    n = calibration.n_images
    found = (
        f"{calibration.n_right:,} of {n:,} simulated particles are assigned rightly; by their "
        f"probabilities {calibration.n_promised:,.0f} should be."
    )
    told = f"Slope {slope:.2f} ± {error:.2f}"
    if np.isfinite(calibration.intercept):
        told += f", intercept {calibration.intercept:.2f} ± {calibration.intercept_error:.2f} nat"
    if calibration.n_decided >= NEARLY_ALL * n and not error <= WELL_KNOWN:
        return _of_decided(calibration)
    if is_off(slope, error):
        how = "large" if slope < 1 else "small"
        return Light(
            "bad", f"{told}, where 1 and 0 are right: probabilities are too {how}. {found}"
        )
    if error <= WELL_KNOWN:
        return Light("good", f"{told}, where 1 and 0 are right. {found}")
    if np.isnan(slope):
        return Light("unsure", f"{found} They tell no slope: nearly all are sure, or none is.")
    needed = _rounded_up(n * (error / WELL_KNOWN) ** 2)
    remedy = (
        f"About {needed:,} are needed (--images {needed}): errors fall with the square root of "
        "their number."
        if needed <= MOST_ASKED_FOR
        else f"Not even {MOST_ASKED_FOR:,} would tell it."
    )
    return Light("unsure", f"{told}, which is not known well. {found} {remedy}")


def _of_decided(calibration: RunCalibration) -> Light:
    """Where hardly a particle is in doubt: whether those that are decided are as often right as
    they should be."""
    n, n_right = calibration.n_decided, calibration.n_decided_right
    promised = calibration.decided_promised
    found = (
        f"The slope cannot be seen, since nearly every image is decided: {n:,} of "
        f"{calibration.n_images:,} simulated particles have a structure of more than {SURE:.0%}, "
        f"and {n_right:,} of these {is_or_are(n_right)} assigned rightly; by their "
        f"probabilities {promised:,.1f} should be."
    )
    low, high = _interval(n_right, n)
    if promised / n > high:
        return Light("bad", f"{found} That is too few: probabilities are too large.")
    if promised / n < low:
        return Light("bad", f"{found} That is more than chance explains: they are too small.")
    if 1 - low > LARGEST_DOUBT:
        needed = _rounded_up(np.log((1 - PROBABILITY) / 2) / np.log(1 - LARGEST_DOUBT))
        needed = max(needed, 2 * calibration.n_images)
        more = f"About {needed:,} would tell (--images {needed})."
        return Light("unsure", f"{found} They are too few to say that this is no chance. {more}")
    return Light("good", f"{found} More particles would tell little more.")


def _interval(n_right: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's interval for a frequency."""
    tail = (1 - PROBABILITY) / 2
    low = float(beta.ppf(tail, n_right, n - n_right + 1)) if n_right else 0.0
    high = float(beta.ppf(1 - tail, n_right + 1, n - n_right)) if n_right < n else 1.0
    return low, high


def _rounded_up(value: float) -> int:
    """To two digits."""
    step = 10 ** max(int(np.floor(np.log10(value))) - 1, 0)
    return int(np.ceil(value / step) * step)


def calibration_in_words(calibration: RunCalibration) -> dict[str, str]:
    """What a user wants to read of it, by what it is called."""
    light = calibration_light(calibration)
    views = (
        "between those of the search" if calibration.views_between else "those of the search alone"
    )
    return {
        "probabilities": light.text,
        "median correlation": f"{calibration.correlation:.3g}; of the images of the run "
        f"{calibration.correlation_of_run:.3g}",
        "views": views,
        "seed": str(calibration.seed),
    }
