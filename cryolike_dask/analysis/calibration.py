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
MOST_CONFUSED = 12
"""Structures of a confusion matrix; all others are one row and one column."""
OTHERS = "others"

Floats = NDArray[np.float64]


def knows_truth(summary: xr.Dataset) -> bool:
    """Whether it is recorded which structure each image truly shows."""
    return labels.TRUE_STRUCTURE in summary.coords


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
