"""How log-likelihood ratios of two structures relate to the truth. Nothing of the package is used
here.

With a flat prior, the ratio is the log-odds of the truth: the logistic slope of the truth on it is
1, and the intercept 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit

FloatArray = NDArray[np.float64]

WITHIN = 1.96
"""Standard errors to either side of a 95% interval."""


@dataclass(frozen=True)
class Calibration:
    """How ratios relate to the truth.

    Attributes
    ----------
    slope, slope_error, intercept, intercept_error : float
        Of the logistic regression of the truth on the ratio, with standard errors.
    cost : float
        What images would gain by recalibration, nat an image: the mean log score of the
        probabilities that slope and intercept give, less that of the probabilities as they are,
        less what two fitted numbers gain by chance, 1/n. 0 where probabilities are calibrated, with
        a standard error of 1/n.
    expected_error : float
        Mean distance of probability and frequency over five bins of equally many images.
    spread : float
        Standard deviation of the ratios, nat.
    """

    slope: float
    slope_error: float
    intercept: float
    intercept_error: float
    cost: float
    expected_error: float
    spread: float

    @property
    def covers(self) -> bool:
        """Whether 1 is in the 95% interval of the slope."""
        return abs(self.slope - 1) <= WITHIN * self.slope_error


@dataclass(frozen=True)
class Population:
    """The part of images that show the first structure, estimated from ratios alone.

    Attributes
    ----------
    value, error : float
        Where the likelihood is largest, and its standard error there.
    """

    value: float
    error: float

    def covers(self, truth: float) -> bool:
        """Whether the truth is in the 95% interval."""
        return abs(self.value - truth) <= WITHIN * self.error


def calibrate(ratios: FloatArray, truth: NDArray[np.bool_]) -> Calibration:
    """Regress the truth on log-likelihood ratios, by Newton's method, and compare probability
    with frequency."""
    design = np.stack([np.ones_like(ratios), ratios], axis=1)
    coefficients = np.zeros(2)
    for _ in range(50):
        probability = expit(design @ coefficients)
        information = (design.T * (probability * (1 - probability))) @ design
        step = np.linalg.solve(information, design.T @ (truth - probability))
        coefficients += step
        if np.abs(step).max() < 1e-10:
            break
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    gain = _log_score(design @ coefficients, truth) - _log_score(ratios, truth)
    bins = np.array_split(np.argsort(ratios), 5)
    gaps = [abs(expit(ratios[b]).mean() - truth[b].mean()) for b in bins]
    return Calibration(
        slope=float(coefficients[1]),
        slope_error=float(errors[1]),
        intercept=float(coefficients[0]),
        intercept_error=float(errors[0]),
        cost=gain - 1 / len(ratios),
        expected_error=float(np.average(gaps, weights=[len(b) for b in bins])),
        spread=float(ratios.std()),
    )


def population(ratios: FloatArray) -> Population:
    """The part of images that show the first structure, of largest likelihood."""

    def gradient(part: float) -> float:
        return float((_odds(ratios, part)).sum())

    least, most = 1e-9, 1 - 1e-9
    if gradient(least) <= 0:
        value = least
    elif gradient(most) >= 0:
        value = most
    else:
        value = float(brentq(gradient, least, most, xtol=1e-10))
    return Population(value, float(1 / np.sqrt((_odds(ratios, value) ** 2).sum())))


def with_population(
    truth: NDArray[np.bool_], part: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw images, without replacement, each of the first structure with a probability."""
    first, second = (rng.permutation(np.flatnonzero(of)) for of in (truth, ~truth))
    n = int(0.95 * min(len(first) / part, len(second) / (1 - part)))
    n_first = min(int(rng.binomial(n, part)), len(first))
    return np.concatenate([first[:n_first], second[: n - n_first]])


def _odds(ratios: FloatArray, part: float) -> FloatArray:
    """Derivative of each image's log-likelihood, log(part exp(ratio) + 1 - part), by the part."""
    change = np.expm1(-np.abs(ratios))  # without overflow, whichever structure is far the better
    first_is_better: FloatArray = -change / (part + (1 - part) * (1 + change))
    second_is_better: FloatArray = change / (part * (1 + change) + 1 - part)
    return np.where(ratios > 0, first_is_better, second_is_better)


def _log_score(logits: FloatArray, truth: NDArray[np.bool_]) -> float:
    """Mean logarithm of the probability of the truth, nat."""
    return float(np.where(truth, log_expit(logits), log_expit(-logits)).mean())
