"""Whether groups of images differ by more than chance: in what they show, and in how well it
fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc
from scipy.stats import norm, rankdata

from cryolike_dask.analysis.populations.micrographs import LEAST_VARIANCE

LEAST_IMAGES = 5
"""A smaller group says nothing of itself, nor do all other images where they are fewer."""
MOST_SHUFFLES, LEAST_SHUFFLES = 999, 199
SHUFFLED_VALUES = 4 * 10**8
"""Scores that are shuffled in all: fewer shuffles of a large data set. Of a million images of three
structures in 1000 micrographs one takes 25 ms."""
ENOUGH_LIKE_IT = 20
"""Shuffles in which some group differs as much as the oddest does: it is none, and they end."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def p_values_of_shares(
    probabilities: Floats, number: Integers, n: Integers, seed: int = 0
) -> tuple[Floats, float]:
    """How often chance alone makes some group differ as much in its mean probabilities.

    Parameters
    ----------
    probabilities : (image, structure) float64
        Of each structure, given the shares of all images.
    number : (image,) int
        The group of each image, from 0.
    n : (group,) int
        Their sizes.
    seed : int

    Returns
    -------
    p_value : (group,) float64
        Of all groups together: so many groups, of these sizes, were shuffled. NaN of one that is
        too small.
    least : float
        That can be told by so many shuffles.

    Notes
    -----
    The squared distance of a mean of n rows from that of all, in units of its covariance, has the
    mean d and the variance 2 d + k / n: d directions, and k the excess of Mardia's kurtosis, which
    is large where a structure is rare. A gamma distribution of these makes groups of different
    sizes comparable. It is not right in its tail, where the oddest of many groups is: of 1000
    micrographs of 30 images of one sample, of which 1% show one of two structures, it finds an odd
    one 15 times in a hundred, and a chi-squared distribution always. So images are shuffled among
    the groups, and the oddest group of each shuffle counts.
    """
    enough = _are_enough(n)
    if not enough.any():
        return np.full(len(n), np.nan), np.nan
    centred = probabilities - probabilities.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > LEAST_VARIANCE
    if not kept.any():
        return np.full(len(n), np.nan), np.nan
    scores = centred @ (vectors[:, kept] / np.sqrt(values[kept]))
    d, others = scores.shape[1], len(number) - n
    excess = max(float(((scores**2).sum(axis=1) ** 2).mean()) - d * (d + 2), 0.0)
    variance = 2 * d + excess / np.maximum(np.minimum(n, others), 1)
    # of a sum of so many scores, which have the mean 0 and the variance 1
    of_sum = np.where(enough, n * others / len(number), np.nan)
    columns = np.ascontiguousarray(scores.T)

    def tails(members: Integers) -> Floats:
        sums = np.stack([np.bincount(members, column, len(n)) for column in columns])
        distance = (sums**2).sum(axis=0) / of_sum
        tail: Floats = gammaincc(d * d / variance, distance * d / variance)
        return tail

    found = tails(number)
    rng = np.random.default_rng(seed)
    shuffled, as_odd, n_shuffled = number.copy(), np.zeros(len(n), np.int64), 0
    for _ in range(np.clip(SHUFFLED_VALUES // columns.size, LEAST_SHUFFLES, MOST_SHUFFLES)):
        rng.shuffle(shuffled)
        as_odd += np.nanmin(tails(shuffled)) <= found * (1 + 1e-9)
        n_shuffled += 1
        if as_odd[enough].min() >= ENOUGH_LIKE_IT:
            break
    least = 1 / (1 + n_shuffled)
    return np.where(enough, (1 + as_odd) * least, np.nan), least


def p_values_of_fit(
    fit: Floats, best: Integers, number: Integers, n_groups: int
) -> tuple[Floats, Floats]:
    """How often chance alone makes some group fit so much worse, or better, than all others.

    Structures may fit differently well: an image is ranked among those of the same best structure,
    so that groups which show more of one are not taken for such that fit worse.

    Parameters
    ----------
    fit : (image,) float64
        The larger, the better; NaN where it is not known.
    best : (image,) int
        The best structure.
    number : (image,) int
        The group of each image, from 0.
    n_groups : int

    Returns
    -------
    p_value, score : (group,) float64
        Two-sided, times the number of comparisons, of which two groups are one; and the mean rank
        in standard errors, below 0 where a group fits worse. NaN of one that is too small, or if
        all fit alike.
    """
    known = np.isfinite(fit)
    fit, best, number = fit[known], best[known], number[known]
    sums, variance = np.zeros(n_groups), np.zeros(n_groups)
    for structure in np.unique(best):
        its = best == structure
        of = number[its]
        n = len(of)
        if n < 2:
            continue
        rank = (rankdata(fit[its]) - (n + 1) / 2) / (n + 1)
        size = np.bincount(of, minlength=n_groups)
        sums += np.bincount(of, rank, n_groups)
        variance += size * (n - size) / (n - 1) * np.mean(rank**2)
    enough = _are_enough(np.bincount(number, minlength=n_groups)) & (variance > 0)
    score = np.where(enough, sums / np.sqrt(np.where(enough, variance, 1)), np.nan)
    n_compared = int(enough.sum())
    p_value = 2 * norm.sf(abs(score)) * (1 if n_groups == 2 else n_compared)
    return np.minimum(p_value, 1), score


def _are_enough(n: Integers) -> NDArray[np.bool_]:
    """Groups that are large enough, and are not nearly all."""
    enough: NDArray[np.bool_] = np.minimum(n, n.sum() - n) >= LEAST_IMAGES
    return enough
