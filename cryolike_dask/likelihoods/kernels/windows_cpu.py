"""Best poses and likelihoods in windows of displacements about places of images, in loops that are
compiled for the machine: as `fused_cpu`, but each point of a window counts as `windows` says.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.kernels.compiled import compiled
from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS
from cryolike_dask.likelihoods.kernels.fused_cpu import (
    SERIES_BELOW,
    likelihood,
    memory_of_thread,
    rotate,
)


class WindowTerms(NamedTuple):
    """Windows about places of images, as in `windows.Windows`; float64 unless they say otherwise.

    Attributes
    ----------
    nodes_x, nodes_y : array, (displacement along an axis,)
        From the place, angstrom.
    x, y : array, (point along an axis,)
        Where likelihoods are summed.
    matrix_x, matrix_y : array, (point, displacement)
        Interpolation.
    half_width, limit : (float, float)
        Of the window and of the search, along x and y.
    turns : array, (W, 2)
        Cosine and sine of each rotation, in the order of the transform.
    rotations : array, int64, (W,)
        Which these are.
    places : array, (row, place, 2)
    wanted : array, bool, (row, template)
        The others are left out.
    is_free : array, bool, (row,)
        Windows that reach neither another's nor the end of the search.
    edge : int
        Points at the edge of a window, along each axis, as much as which lies beyond it.
    arcs : array, (row, template, 3)
        a, b, c: rotations are allowed where a cos + b sin >= c; of no rows: all of them.
    slope : float
        Logarithm of the prior of rotations, below that of the likeliest, over these sums.
    prior_x, prior_y : array, (point along an axis,)
        Of points.
    """

    nodes_x: NDArray[np.float64]
    nodes_y: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    matrix_x: NDArray[np.float64]
    matrix_y: NDArray[np.float64]
    half_width: tuple[float, float]
    limit: tuple[float, float]
    turns: NDArray[np.float64]
    rotations: NDArray[np.int64]
    places: NDArray[np.float64]
    wanted: NDArray[np.bool_]
    is_free: NDArray[np.bool_]
    edge: tuple[int, int]
    arcs: NDArray[np.float64]
    slope: float
    prior_x: NDArray[np.float64]
    prior_y: NDArray[np.float64]


class WindowSummary(NamedTuple):
    """Results, each (row, template): as in `fused_cpu.Summary`; what of the sum lies at the edge of
    windows; and the best poses, int64, over (displacement, rotation), -1 where none is allowed."""

    best: NDArray[Any]
    fit: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    at_edge: NDArray[np.float64]
    pose: NDArray[np.int64]


@compiled
def _moved(windows, row, place, w):
    """A place of a row's image as templates are displaced under a rotation."""
    cosine, sine = windows.turns[w]
    x, y = windows.places[row, place]
    return cosine * x - sine * y, sine * x + cosine * y


@compiled
def _extremes_inside(windows, row, template, chunks, high, low):
    """The largest and the smallest value of each rotation among displacements inside of the
    search."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    for w in range(len(high)):
        x, y = _moved(windows, row, 0, w)
        high[w], low[w] = -np.inf, np.inf
        for b in range(n_y):
            if not abs(y + windows.nodes_y[b]) < windows.limit[1]:
                continue
            for a in range(n_x):
                if abs(x + windows.nodes_x[a]) < windows.limit[0]:
                    column = (template * n_y + b) * n_x + a
                    value = chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS]
                    high[w], low[w] = max(high[w], value), min(low[w], value)


@compiled
def _drop_rotations_off_arc(windows, row, template, high, low):
    """Leave no displacement to rotations that are not allowed."""
    a, b, c = windows.arcs[row, template]
    for w in range(len(high)):
        if not a * windows.turns[w, 0] + b * windows.turns[w, 1] >= c:
            high[w], low[w] = -np.inf, np.inf


@compiled
def _log_prior(windows, row, template, w):
    """Of a rotation, below that of the likeliest."""
    a, b = windows.arcs[row, template, 0], windows.arcs[row, template, 1]
    along = a * windows.turns[w, 0] + b * windows.turns[w, 1]
    return windows.slope * (along - math.hypot(a, b))


@compiled
def _first_displacement(windows, row, template, chunks, w, value):
    """The first displacement inside of the search that has a value under a rotation."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    x, y = _moved(windows, row, 0, w)
    for d in range(n_x * n_y):
        column = template * n_x * n_y + d
        if chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS] != value:
            continue
        inside = abs(x + windows.nodes_x[d % n_x]) < windows.limit[0]
        inside = inside and abs(y + windows.nodes_y[d // n_x]) < windows.limit[1]
        if inside or windows.is_free[row]:
            return d
    return -1


@compiled
def _tapers(at, half_width, distances, tapers):
    """What windows of some places count at points of this one: (place, point)."""
    for k in range(len(distances)):
        for a in range(len(at)):
            z = (at[a] - distances[k]) / half_width
            tapers[k, a] = max(1 - z * z, 0.0) ** 2


@compiled
def _shares(windows, row, w, memory):
    """What each point of a window counts under a rotation, (y, x): less where it overlaps with
    others of the same image, nothing outside of the search."""
    along_x, along_y, from_x, from_y, shares = memory
    x, y = _moved(windows, row, 0, w)
    for k in range(len(from_x)):
        other_x, other_y = _moved(windows, row, k, w)
        from_x[k], from_y[k] = other_x - x, other_y - y
    _tapers(windows.x, windows.half_width[0], from_x, along_x)
    _tapers(windows.y, windows.half_width[1], from_y, along_y)
    for b in range(len(windows.y)):
        inside = abs(y + windows.y[b]) < windows.limit[1]
        for a in range(len(windows.x)):
            total = 0.0
            for k in range(len(from_x)):
                total += along_y[k, b] * along_x[k, a]
            inside_both = inside and abs(x + windows.x[a]) < windows.limit[0]
            own = along_y[0, b] * along_x[0, a] * windows.prior_y[b] * windows.prior_x[a]
            shares[b, a] = own / total if inside_both else 0.0


@compiled
def _between(windows, template, chunks, w, rows, values):
    """Values where likelihoods are summed, (y, x), by those at displacements; and the largest
    square."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    first, largest = template * n_x * n_y, 0.0
    if len(windows.x) == n_x and len(windows.y) == n_y:
        for b in range(n_y):
            for a in range(n_x):
                column = first + b * n_x + a
                value = float(chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS])
                values[b, a] = value
                largest = max(largest, value * value)
        return largest
    for a in range(len(windows.x)):
        for b in range(n_y):
            rows[a, b] = 0.0
            for i in range(n_x):
                column = first + b * n_x + i
                value = chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS]
                rows[a, b] += windows.matrix_x[a, i] * value
    for b in range(len(windows.y)):
        for a in range(len(windows.x)):
            value = 0.0
            for i in range(n_y):
                value += windows.matrix_y[b, i] * rows[a, i]
            values[b, a] = value
            largest = max(largest, value * value)
    return largest


@compiled
def _weigh(values, shares, above, exponent, scale, is_small, floor):
    """Put exp(above - exponent log(1 - v^2 scale)), times what each point counts, in place of
    values, and sum it."""
    total = 0.0
    for b in range(len(values)):
        if is_small:
            for a in range(values.shape[1]):
                values[b, a] = likelihood(above, exponent, values[b, a] ** 2 * scale)
        else:
            for a in range(values.shape[1]):
                x = min(values[b, a] ** 2 * scale, floor)
                values[b, a] = math.exp(above - exponent * math.log1p(-x))
        for a in range(values.shape[1]):
            values[b, a] *= shares[b, a]
            total += values[b, a]
    return total


@compiled
def _sum_inside(values, edge):
    """Sum what does not lie at the edge."""
    total = 0.0
    for b in range(edge[1], len(values) - edge[1]):
        for a in range(edge[0], values.shape[1] - edge[0]):
            total += values[b, a]
    return total


@compiled
def reduce_pairs_in_windows(pairs, terms, rotations, windows, summary):
    """Reduce some pairs of a tile over rotations and the displacements of windows.

    Parameters
    ----------
    pairs : (int, int)
        The first, and the one after the last, counted over (row, template).
    terms : PairTerms
    rotations : Rotations
    windows : WindowTerms
    summary : WindowSummary
        Gets the results of these pairs.
    """
    shift, norm = terms.shift, terms.norm
    n_rotations, n_templates = len(rotations.rows), norm.shape[2]
    most, chunks, high, low, by_rotation = memory_of_thread(terms, n_rotations)
    fits, tops, heights, scales = by_rotation
    n_x, n_y, n_places = len(windows.x), len(windows.y), windows.places.shape[1]
    shares, values = np.ones((n_y, n_x)), np.empty((n_y, n_x))
    rows = np.empty((n_x, len(windows.nodes_y)))
    memory = (
        np.empty((n_places, n_x)),
        np.empty((n_places, n_y)),
        np.empty(n_places),
        np.empty(n_places),
        shares,
    )
    log_part = math.log(terms.n_displacements / (n_x * n_y))
    pair = pairs[0]
    while pair < pairs[1]:
        i, first = pair // n_templates, pair % n_templates
        if not windows.wanted[i, first]:
            summary.best[i, first], summary.fit[i, first] = -np.inf, 0
            summary.log_likelihood[i, first], summary.pose[i, first] = -np.inf, -1
            summary.at_edge[i, first] = -np.inf
            pair += 1
            continue
        # neighbouring templates that are wanted, whose products lie side by side
        n, most_here = 1, min(most, n_templates - first, pairs[1] - pair)
        while n < most_here and windows.wanted[i, first + n]:
            n += 1
        pair += n
        exponent = terms.exponents[i]
        rotate(terms, rotations, i, first, n, chunks, high, low)
        if windows.is_free[i]:
            for b in range(n_y):
                for a in range(n_x):
                    shares[b, a] = windows.prior_y[b] * windows.prior_x[a]
        for k in range(n):
            j = first + k
            if not windows.is_free[i]:
                _extremes_inside(windows, i, k, chunks, high[k], low[k])
            if len(windows.arcs):
                _drop_rotations_off_arc(windows, i, j, high[k], low[k])
            best, fit, pose = -np.inf, 0.0, -1
            for w in range(n_rotations):
                row = rotations.rows[w]
                heights[w], scales[w] = terms.height[row, i, j], terms.scale[row, i, j]
                if windows.slope > 0:
                    heights[w] += _log_prior(windows, i, j, w)
                fits[w] = -1.0
                if high[k, w] < low[k, w]:  # no displacement is allowed
                    continue
                fits[w] = float(max(high[k, w], -low[k, w], 0)) ** 2 * scales[w]
                fit = max(fit, fits[w])
                value = (high[k, w] + shift[i, j]) * norm[row, i, j]
                if value >= best:
                    d = _first_displacement(windows, i, k, chunks, w, high[k, w])
                    at = d * n_rotations + windows.rotations[w]
                    # of equal ones the first displacement, then the first rotation
                    pose = at if value > best else min(pose, at)
                    best = value
            summary.best[i, j], summary.fit[i, j], summary.pose[i, j] = best, fit, pose
            summary.log_likelihood[i, j] = summary.at_edge[i, j] = -np.inf
            peak = -np.inf
            for w in range(n_rotations):
                tops[w] = -np.inf
                if fits[w] >= 0:
                    tops[w] = heights[w] - exponent * math.log1p(-min(fits[w], terms.floor))
                peak = max(peak, tops[w])
            reach = math.log(n_rotations * terms.n_displacements / (1 - terms.floor))
            least = max(terms.reference[i, j], peak - reach)
            if not peak >= least or peak == -np.inf:  # -inf: nothing is allowed
                continue
            total, inside = 0.0, 0.0
            for w in range(n_rotations):
                if tops[w] < least:
                    continue
                if not windows.is_free[i]:
                    _shares(windows, i, w, memory)
                largest = _between(windows, k, chunks, w, rows, values)
                is_small = largest * scales[w] < SERIES_BELOW
                above = heights[w] - peak
                total += _weigh(values, shares, above, exponent, scales[w], is_small, terms.floor)
                inside += _sum_inside(values, windows.edge)
            if total > 0:
                summary.log_likelihood[i, j] = peak + math.log(total) + log_part
            if total > inside:
                summary.at_edge[i, j] = peak + math.log(total - inside) + log_part
