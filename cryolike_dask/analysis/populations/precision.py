"""How well shares are known, from the curvature of the log-likelihood where it is largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.populations.maximum import Maximum
from cryolike_dask.analysis.populations.passes import Images

N_POINTS = 2001
"""At which the likelihood of a share is looked at."""
REACH = 40.0
"""Nat below the largest that points go down to."""
LEAST_INFORMATION = 1.0
"""Of each share: it is between 0 and 1, whatever images say."""
KNOWN, LEAST_IMAGES = 0.5, 10
"""A share of so many images is told from others if its standard deviation is at most this part of
it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Precision:
    """The errors of shares of largest likelihood.

    Attributes
    ----------
    covariance : float64 array, (structure, structure)
        0 for structures that have no share: their errors are not those of a normal distribution.
    sd : float64 array, (structure,)
        Of the likelihood of each share, as normal in it and cut at 0 and 1.
    interval : float64 array, (structure, 2)
        The share lies between, with the probability that was asked for: with tails alike, and
        from 0 where a structure has no share.
    information : float64 array, (structure, structure)
        Less the second derivative of the log-likelihood.
    """

    covariance: Floats
    sd: Floats
    interval: Floats
    information: Floats


def precision(images: Images, maximum: Maximum, probability: float) -> Precision:
    """Take the errors of shares from the curvature of the log-likelihood (Fisher).

    Where structures have no share the log-likelihood falls with it: the error is one-sided.
    """
    shares = maximum.shares
    if images.n_structures == 1:
        return Precision(np.zeros((1, 1)), np.zeros(1), np.ones((1, 2)), np.full((1, 1), images.n))
    information = images.curvature(shares, np.arange(images.n_structures))
    there = np.flatnonzero(shares > 0)
    least = LEAST_INFORMATION * np.eye(len(there))
    of_these = information[np.ix_(there, there)] + least
    constrained = _constrained(of_these)
    covariance = np.zeros_like(information)
    covariance[np.ix_(there, there)] = constrained
    # the others adjust to a share that is held: their part of the information is lost
    across = information[:, there]
    left = np.diag(information) - (across * np.linalg.solve(of_these, across.T).T).sum(axis=1)
    # and what others may have, as far as one image tells, it has not
    left[there] = 1 / np.maximum(np.diag(constrained), images.n**-2.0)
    slope = np.where(shares > 0, 0.0, images.n - maximum.gradient)
    sd, interval = _of_each(shares, slope, np.maximum(left, 0), probability)
    return Precision(covariance, sd, interval, information)


def groups(images: Images, maximum: Maximum, information: Floats) -> NDArray[np.int64]:
    """Number the structures so that those that the images cannot tell apart have one number.

    Where a share is not known to half of itself, it and the one that it is most often taken for
    become one, until what is left is known.

    Parameters
    ----------
    images : Images
    maximum : Maximum
    information : float64 array, (structure, structure)
        As `precision` gives it.

    Returns
    -------
    int array, (structure,)
        From 0, in the order of the first structure of each.
    """
    n_structures = images.n_structures
    # a share of 0 whose likelihood falls by a slope is 0 to within one over the slope
    slope = np.maximum(images.n - maximum.gradient, 0)
    covariance = _constrained(information + np.diag(slope**2 + LEAST_INFORMATION))
    shares = maximum.shares.copy()
    number = np.arange(n_structures)
    there = np.ones(n_structures, bool)
    while there.sum() > 1:
        sd = np.sqrt(np.maximum(np.diag(covariance), 0))
        is_open = there & (shares * images.n >= LEAST_IMAGES) & (sd > KNOWN * shares)
        if not is_open.any():
            break
        one = int(np.argmax(np.where(is_open, sd, -1)))
        others = there.copy()
        others[one] = False
        two = int(np.argmin(np.where(others, covariance[one], np.inf)))
        shares[one] += shares[two]
        covariance[one] += covariance[two]
        covariance[:, one] += covariance[:, two]
        number[number == number[two]] = number[one]
        there[two] = False
    _, first, numbers = np.unique(number, return_index=True, return_inverse=True)
    order: NDArray[np.int64] = np.argsort(np.argsort(first))[numbers].astype(np.int64)
    return order


def _constrained(information: Floats) -> Floats:
    """The covariance of shares whose sum is held."""
    covariance = np.asarray(np.linalg.inv(information), np.float64)
    sums = covariance.sum(axis=1)
    return covariance - np.outer(sums, sums) / float(sums.sum())


def _of_each(
    mode: Floats, slope: Floats, information: Floats, probability: float
) -> tuple[Floats, Floats]:
    """Standard deviation, and interval, of shares whose log-likelihood falls from a mode by a slope
    and by half of an information, between 0 and 1."""
    with np.errstate(divide="ignore"):
        # where slope x + information x^2 / 2 = REACH
        width = 2 * REACH / (slope + np.sqrt(slope**2 + 2 * information * REACH))
    low, high = np.maximum(mode - width, 0), np.minimum(mode + width, 1)
    x = np.linspace(low, high, N_POINTS)
    away = np.abs(x - mode)
    density = np.exp(-(slope * away + information * away**2 / 2))
    below = np.concatenate(
        [np.zeros((1, len(mode))), np.cumsum((density[1:] + density[:-1]) / 2, axis=0)]
    )
    total = np.trapezoid(density, axis=0)
    mean = np.trapezoid(density * x, axis=0) / total
    sd = np.sqrt(np.trapezoid(density * (x - mean) ** 2, axis=0) / total)
    ends = []
    for j in range(len(mode)):
        is_one_sided = slope[j] > 0
        lower = 0.0 if is_one_sided else (1 - probability) / 2
        at = np.interp([lower, lower + probability], below[:, j] / total[j], x[:, j])
        ends.append(at)
    return sd, np.array(ends)
