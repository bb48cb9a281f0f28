"""Assignments and their probabilities against the structures that images truly show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis import summaries

CALIBRATION_BINS = 10
MOST_STEPS, SMALLEST_STEP = 100, 1e-10
"""Of Newton's method."""
STEEPEST = 50.0
"""A slope beyond it is none: every image is assigned rightly, or every one wrongly."""
MOST_CONFUSED = 12
"""Structures of a confusion matrix; all others are one row and one column."""
OTHERS = "others"

Floats = NDArray[np.float64]


def knows_truth(summary: xr.Dataset) -> bool:
    """Whether it is recorded which structure each image truly shows."""
    return labels.TRUE_STRUCTURE in summary.coords


def is_among_the_compared(summary: xr.Dataset) -> bool:
    """Whether some images are recorded to show a structure that was compared; those that were made
    of others cannot be assigned rightly."""
    if not knows_truth(summary):
        return False
    names = summary[labels.STRUCTURE].values.astype(str)
    return bool(np.isin(summary[labels.TRUE_STRUCTURE].values.astype(str), names).any())


@dataclass(frozen=True, eq=False)
class Calibration:
    """Posterior probability of the best structure against how often it is right, in bins of equal
    width.

    Attributes
    ----------
    edges : (bin + 1,) float64
    n_images, n_right : (bin,) int
    mean_probability : (bin,) float64
        NaN in an empty bin.
    surprise : float
        Expected less found number of right assignments, in standard errors; above 0 where too sure.
    """

    edges: Floats
    n_images: NDArray[np.int64]
    n_right: NDArray[np.int64]
    mean_probability: Floats
    surprise: float

    @property
    def expected(self) -> float:
        """Fraction of assignments that should be right."""
        known = self.n_images > 0
        return float(
            (self.mean_probability * self.n_images)[known].sum() / max(self.n_images.sum(), 1)
        )

    @property
    def found(self) -> float:
        """Fraction of assignments that are right."""
        return float(self.n_right.sum() / max(self.n_images.sum(), 1))


def calibration(summary: xr.Dataset, n_bins: int = CALIBRATION_BINS) -> Calibration:
    """Hold the probability of each best structure against the truth; images that can be compared
    only."""
    chosen = summary[summaries.COMPARABLE].values
    probability = summary[summaries.PROBABILITY].values[chosen]
    best, truth = summary[summaries.BEST_STRUCTURE].values, summary[labels.TRUE_STRUCTURE].values
    right = (best == truth)[chosen]
    which = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    n_images = np.bincount(which, minlength=n_bins)
    sums = np.bincount(which, probability, minlength=n_bins)
    # of the number of right assignments, were they independent and the probabilities true
    variance = float((probability * (1 - probability)).sum())
    too_many = float(probability.sum() - right.sum())
    return Calibration(
        edges=np.linspace(0, 1, n_bins + 1),
        n_images=n_images,
        n_right=np.bincount(which[right], minlength=n_bins),
        mean_probability=np.where(n_images > 0, sums / np.maximum(n_images, 1), np.nan),
        surprise=too_many / np.sqrt(max(variance, 1e-12)),
    )


@dataclass(frozen=True)
class Regression:
    """How the truth depends on log-odds: log-odds that are true have the slope 1 and the
    intercept 0.

    Attributes
    ----------
    slope, slope_error : float
        Below 1 where log-odds are too large; with its standard error. NaN where images do not
        tell: all of them are assigned rightly, say.
    intercept, intercept_error : float
        Nat, in favour of the second structure; NaN of other than two structures.
    """

    slope: float
    slope_error: float
    intercept: float
    intercept_error: float


def regress(log_likelihood: Floats, truth: NDArray[np.int64]) -> Regression:
    """Fit P(structure) ~ exp(slope * log-likelihood + intercept) to structures that are known.

    For two structures this is the logistic regression of the truth on the log-likelihood ratio.
    For more there is one slope, and no intercept: that at which the product of the probabilities
    of the true structures is the largest.

    Parameters
    ----------
    log_likelihood : (structure, image) float64
        Natural logarithm.
    truth : (image,) int
        Position of the structure that each image shows.
    """
    ll = log_likelihood - log_likelihood.mean(axis=0)
    n_structures, n = ll.shape
    # what a unit of each coefficient adds to each structure: (coefficient, structure, image)
    basis = ll[None]
    if n_structures == 2:
        basis = np.stack([ll, np.stack([np.zeros(n), np.ones(n)])])
    right = basis[:, truth, np.arange(n)].sum(axis=1)
    values, errors = np.zeros(len(basis)), np.full(len(basis), np.nan)
    values[0] = 1.0
    for _ in range(MOST_STEPS):
        probability = probabilities(np.tensordot(values, basis, 1))
        mean = (probability * basis).sum(axis=1)
        gradient = right - mean.sum(axis=1)
        curvature = np.einsum("asn,bsn,sn->ab", basis, basis, probability) - mean @ mean.T
        if not np.linalg.cond(curvature) < 1 / SMALLEST_STEP:
            break
        step = np.linalg.solve(curvature, gradient)
        values = values + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < SMALLEST_STEP:
            variances = np.diag(np.linalg.inv(curvature))
            if (variances > 0).all():  # of rounding, where all images are as sure as can be
                errors = np.sqrt(variances)
            break
    if not (np.isfinite(errors).all() and abs(values[0]) < STEEPEST):
        values, errors = np.full(len(basis), np.nan), np.full(len(basis), np.nan)
    both = [*zip(values.tolist(), errors.tolist(), strict=True), (np.nan, np.nan)][:2]
    return Regression(*both[0], *both[1])


def probabilities(log_likelihood: Floats) -> Floats:
    """Probabilities of structures that are equally likely beforehand, (structure, image)."""
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=0))
    probability: Floats = likelihood / likelihood.sum(axis=0)
    return probability


@dataclass(frozen=True, eq=False)
class Confusion:
    """Images of each true structure (row) that are assigned to each structure (column), counted."""

    names: list[str]
    counts: NDArray[np.int64]


def confusion(summary: xr.Dataset, most: int = MOST_CONFUSED) -> Confusion:
    """Count true against assigned structures; beyond `most` of them, the less frequent are taken
    together."""
    chosen = summary[summaries.COMPARABLE].values
    best = summary[summaries.BEST_STRUCTURE].values[chosen].astype(str)
    truth = summary[labels.TRUE_STRUCTURE].values[chosen].astype(str)
    names = list(dict.fromkeys([*map(str, summary[labels.STRUCTURE].values), *truth.tolist()]))
    if len(names) > most:
        counts = Counter([*best.tolist(), *truth.tolist()])
        frequent = {name for name, _ in counts.most_common(most - 1)}
        names = [*(name for name in names if name in frequent), OTHERS]
    position = {name: i for i, name in enumerate(names)}
    rows, columns = (
        [position.get(str(name), len(names) - 1) for name in values] for values in (truth, best)
    )
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (rows, columns), 1)
    return Confusion(names, table)
