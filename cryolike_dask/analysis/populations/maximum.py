"""The shares of largest likelihood, certified.

log-likelihood(w) = sum_i log sum_j L_ij w_j is concave over shares that add up to 1. Of n images,
with g_j = sum_i L_ij / (L w)_i, no shares have a log-likelihood more than max_j g_j - n above that
of w: mean_i log (L v)_i / (L w)_i <= log sum_j v_j g_j / n for any shares v. So a pass over the
matrix tells how many nat may be missing.

Some steps of expectation maximisation, w_j g_j / n, which are slow where structures are alike, then
Newton's: a quadratic program over shares of 0 or more, solved as a problem of non-negative least
squares. The constraint that shares add up to 1 need not be told: with n sum_j w_j subtracted
from the log-likelihood they do at the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import nnls

from cryolike_dask.analysis.populations.passes import Images

WITHIN = 0.01
"""Nat, of all images together, that shares may be below the largest log-likelihood."""
FIRST_STEPS = 10
"""Of expectation maximisation: near enough that Newton's steps are rarely cut."""
MOST_STEPS = 1000
MOST_HALVINGS = 30
RIDGE = 1e-10
"""Of the mean curvature, added to that of each share: equal structures have the same column."""
SUFFICIENT = 0.01
"""Part of what a step promises that it has to keep."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Maximum:
    """Shares near the largest likelihood.

    Attributes
    ----------
    shares : float64 array, (structure,)
        Adding up to 1.
    gradient : float64 array, (structure,)
        Sum over images of L_ij / (L w)_i: the number of images where a structure has a share, and
        less or equal where it has none.
    certificate : float
        Nat that their log-likelihood is below the largest, at most.
    log_likelihood : float
        Nat, of likelihoods relative to the best of each image.
    n_passes : int
        Times that the matrix was read.
    """

    shares: Floats
    gradient: Floats
    certificate: float
    log_likelihood: float
    n_passes: int


def maximum_likelihood(
    images: Images,
    start: Floats | None = None,
    within: float = WITHIN,
    each: Callable[[Maximum], None] | None = None,
) -> Maximum:
    """Find shares that are at most so many nat below the largest log-likelihood.

    Parameters
    ----------
    images : Images
    start : float64 array, (structure,), optional
        Shares to begin with; default: all the same. Shares of 0 may grow.
    within : float
    each : function, optional
        Is given what has been reached after each step.

    Returns
    -------
    Maximum
        Its certificate is above `within` only if rounding is too coarse for it.
    """
    n = images.n
    shares = np.full(images.n_structures, 1 / images.n_structures) if start is None else start
    value, gradient = images.gradient(shares)
    n_passes = 1
    for step in range(MOST_STEPS):
        reached = Maximum(shares, gradient, max(0.0, gradient.max() - n), value, n_passes)
        if each is not None:
            each(reached)
        if reached.certificate <= within:
            break
        target = None if step < FIRST_STEPS and start is None else _newton(images, shares, gradient)
        n_passes += target is not None
        moved = None if target is None else _along(images, reached, target)
        if moved is None:
            shares = shares * gradient / n
            value, gradient = images.gradient(shares)
            n_passes += 1
        else:
            shares, value, gradient, tries = moved
            n_passes += tries
    return reached


def _newton(images: Images, shares: Floats, gradient: Floats) -> Floats | None:
    """Where the quadratic approximation of the log-likelihood, less n times the sum of shares, is
    largest; none where it cannot be told."""
    n = images.n
    free = np.flatnonzero((shares > 0) | (gradient > n))
    curvature = images.curvature(shares, free) / n
    curvature[np.diag_indices_from(curvature)] += RIDGE * np.trace(curvature) / len(free)
    try:
        root = cholesky(curvature)
        # y' H y / 2 - y' (2 g - 1) is |R y - R'^-1 (2 g - 1)|^2 / 2 and a constant, for H w = g
        right = solve_triangular(root, 2 * gradient[free] / n - 1, trans="T")
        solution = nnls(root, right)[0]
    except (LinAlgError, RuntimeError):
        return None
    target = np.zeros_like(shares)
    target[free] = solution
    return target


def _along(
    images: Images, reached: Maximum, target: Floats
) -> tuple[Floats, float, Floats, int] | None:
    """As far towards other shares as the log-likelihood keeps a part of what its slope promises."""
    n = images.n
    slope = float((reached.gradient - n) @ (target - reached.shares))
    if slope <= 0:
        return None
    fraction = 1.0
    for tries in range(1, MOST_HALVINGS + 1):
        shares = reached.shares + fraction * (target - reached.shares)
        total = shares.sum()
        value, gradient = images.gradient(shares)
        gain = value - reached.log_likelihood - n * (total - reached.shares.sum())
        if gain >= SUFFICIENT * fraction * slope:
            # of all multiples, that which adds up to 1 is likeliest
            return shares / total, value - n * np.log(total), gradient * total, tries
        fraction /= 2
    return None
