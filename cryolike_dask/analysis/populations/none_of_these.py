"""The share of images that show none of the structures, told by decoys.

An image of none prefers T structures and D decoys alike: its likelihoods stand in any order with
the same probability. Of an image of structure j orders are the more probable the larger the
likelihood that stands at j, in proportion to it; how the others stand does not matter. With pi(s)
the probability that images of score s show none, and s the same in any order, the order of an image
therefore has a probability in proportion to

    pi(s) + (1 - pi(s)) (T + D) sum_j w_j L_j / sum_k L_k

with j over structures, of shares w, and k over decoys too. pi falls with the score, and is
otherwise free: isotonic regression is the step of expectation maximisation in which it is found.
Nothing is supposed of how well images of none fit, nor that right images never prefer a decoy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from cryolike_dask import labels
from cryolike_dask.analysis.populations.likelihoods import BesideDecoys, Likelihoods
from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images

WITHIN = 1e-4
"""Nat, of all images together: steps end where they gain less."""
MOST_STEPS, MOST_ROUNDS = 1000, 50
LEAST = 1e-6
"""Probability that steps begin with: from 0 or 1 they would not move."""
LARGEST = 1e30
"""Likelihood of none over that of the best structure: more would say nothing more."""
N_BOOTSTRAP, MOST_RESAMPLED = 100, 5000
"""Sets of images drawn again, and images of each: the error of more follows from theirs."""
DOUBTFUL = 4.0
"""Nat, and one for each structure, within which all images, or none, may show a structure: what
steps gain by chance (pure noise in `tests/analysis/populations/test_none_of_these.py`)."""
LARGEST_SD = 0.5
"""Of anything between 0 and 1."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NoneOfThese:
    """Images of none of the structures.

    Attributes
    ----------
    share, sd : float
        Their part of the images, and its standard deviation.
    interval : float64 array, (2,)
        Their part lies between.
    likelihood : float64 array, (image,)
        Of none, by the factor by which those of structures are relative: as `Images` takes it.
    n_decoys : int
        That have told them.
    """

    share: float
    sd: float
    interval: Floats
    likelihood: Floats
    n_decoys: int

    def shown(self, images: Images, shares: Floats) -> Floats:
        """The probability that each image shows a structure, (image,)."""
        likelihood = images.likelihood(shares)
        of_structures: Floats = likelihood / (likelihood + self.likelihood)
        return of_structures

    def variables(self) -> dict[str, tuple[Any, ...]]:
        """As they stand among the shares of structures."""
        what = "part of all images that show none of the structures"
        return {
            labels.POPULATION_OF_NONE: ((), self.share, {"long_name": what}),
            labels.POPULATION_OF_NONE_SD: (
                (),
                self.sd,
                {"long_name": f"standard deviation of the {what}"},
            ),
            labels.POPULATION_OF_NONE_INTERVAL: (
                "bound",
                self.interval,
                {"long_name": f"between which lies the {what}"},
            ),
        }


def none_of_these(likelihoods: Likelihoods, probability: float, seed: int) -> NoneOfThese | None:
    """Find the part of images that show none of the structures; None without decoys.

    Parameters
    ----------
    likelihoods : Likelihoods
    probability : float
        Of the interval.
    seed : int
    """
    beside = likelihoods.beside_decoys
    if beside is None:
        return None
    n_images, n_all = likelihoods.n_images, beside.n_structures + beside.n_decoys
    factor = n_all * np.exp(-beside.log_all)
    ranks = _Ranks.of(beside.score)
    pi = ranks.falling(np.where(beside.margin > 0, 0.0, n_all / beside.n_decoys))
    images = Images(likelihoods.relative, np.ones(n_images))
    shares = np.full(beside.n_structures, 1 / beside.n_structures)
    before = -np.inf
    for _ in range(MOST_ROUNDS):
        pi = pi.clip(LEAST, 1 - LEAST)
        with_none = Images(likelihoods.relative, images.copies, _likelihood(pi, factor))
        shares = maximum_likelihood(with_none, shares).shares
        ratio = factor * images.likelihood(shares)
        pi = _steps(ratio, pi, ranks)
        value = float(np.log(pi + (1 - pi) * ratio).sum())
        if value - before < WITHIN:
            break
        before = value
    share = float(pi.mean())
    sd, bias = _error(ratio, pi, beside, seed)
    low, high = share - bias + sd * norm.ppf([(1 - probability) / 2, (1 + probability) / 2])
    doubt = DOUBTFUL + beside.n_structures
    with np.errstate(divide="ignore"):
        all_shown = float(np.log(ratio).sum())
    interval = np.array(
        [
            0.0 if value - all_shown < doubt else min(max(low, 0.0), share),
            1.0 if value < doubt else max(min(high, 1.0), share),
        ]
    )
    return NoneOfThese(share, sd, interval, _likelihood(pi, factor), beside.n_decoys)


def _likelihood(pi: Floats, factor: Floats) -> Floats:
    """Of none, over that of the best structure of each image."""
    with np.errstate(divide="ignore", over="ignore"):
        likelihood: Floats = np.minimum(pi / ((1 - pi) * factor), LARGEST)
    return likelihood


def _steps(ratio: Floats, pi: Floats, ranks: _Ranks) -> Floats:
    """The probability of none at each image's score, by expectation maximisation.

    Parameters
    ----------
    ratio : float64 array, (image,)
        Likelihood of structures over that of none.
    pi : float64 array, (image,)
        To begin with.
    ranks : _Ranks
    """
    before = -np.inf
    for _ in range(MOST_STEPS):
        likelihood = pi + (1 - pi) * ratio
        value = float(ranks.copies @ np.log(likelihood))
        if value - before < WITHIN:
            break
        before = value
        pi = ranks.falling(pi / likelihood)
    return pi


def _error(ratio: Floats, pi: Floats, beside: BesideDecoys, seed: int) -> tuple[float, float]:
    """Standard deviation and bias of the share of none, by a bootstrap over images; what decoys win
    is known to within one image at best."""
    rng = np.random.default_rng(seed)
    n = len(ratio)
    which = np.arange(n) if n <= MOST_RESAMPLED else rng.choice(n, MOST_RESAMPLED, replace=False)
    ratio, pi, score = ratio[which], pi[which].clip(LEAST, 1 - LEAST), beside.score[which]
    m = len(which)
    once = _Ranks.of(score)
    share = _steps(ratio, pi, once).mean()
    found = []
    for _ in range(N_BOOTSTRAP):
        copies = np.bincount(rng.integers(m, size=m), minlength=m).astype(np.float64)
        there = np.flatnonzero(copies)
        again = _Ranks.of(score[there], copies[there])
        found.append(again.copies @ _steps(ratio[there], pi[there], again) / m)
    fewer = np.sqrt(m / n)
    one = (beside.n_structures + beside.n_decoys) / beside.n_decoys / n
    sd = min(float(np.hypot(np.std(found) * fewer, one)), LARGEST_SD)
    return sd, float(np.mean(found) - share) * fewer


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Images by their scores.

    Attributes
    ----------
    which : int array, (image,)
        Rank of the score of each, from the lowest.
    copies : float64 array, (image,)
        How often each is counted.
    weights : float64 array, (rank,)
        How many images have it.
    """

    which: Integers
    copies: Floats
    weights: Floats

    @classmethod
    def of(cls, score: Floats, copies: Floats | None = None) -> _Ranks:
        copies = np.ones(len(score)) if copies is None else copies
        which = np.unique(score, return_inverse=True)[1]
        return cls(which, copies, np.bincount(which, copies).astype(np.float64))

    def falling(self, values: Floats) -> Floats:
        """Probabilities nearest to values of images that do not rise with the score, (image,)."""
        mean = np.bincount(self.which, self.copies * values) / self.weights
        fitted = isotonic_regression(mean, weights=self.weights, increasing=False)
        probability: Floats = np.clip(fitted.x, 0, 1)[self.which]
        return probability
