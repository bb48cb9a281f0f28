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
from cryolike_dask.likelihoods.kernels.fused_cpu import SERIES_BELOW, memory_of_thread, rotate
from cryolike_dask.likelihoods.kernels.window_points_cpu import (
    between,
    curvature,
    moved,
    near_end,
    parts,
    reached,
    share_out,
    sum_part,
    weigh,
    weigh_by_prior,
    weigh_nodes,
)
from cryolike_dask.likelihoods.kernels.windows import NARROWER_AT_END


class WindowSummary(NamedTuple):
    """Results, each (row, template): as in `fused_cpu.Summary`; what of the sum lies at the edge of
    windows; and the best poses, int64, over (displacement, rotation), -1 where none is allowed."""

    best: NDArray[Any]
    fit: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    at_edge: NDArray[np.float64]
    pose: NDArray[np.int64]


@compiled
def _extremes_inside(windows, row, template, chunks, high, low):
    """The largest and the smallest value of each rotation among displacements inside of the
    search."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    for w in range(len(high)):
        x, y = moved(windows, row, windows.own[row], w)
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
    x, y = moved(windows, row, windows.own[row], w)
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
    n_x, n_y, n_places = len(windows.nodes_x), len(windows.nodes_y), windows.places.shape[1]
    most_x = windows.first_x[-1] - windows.first_x[-2]
    most_y = windows.first_y[-1] - windows.first_y[-2]
    values, rows = np.empty((most_y, most_x)), np.empty((most_x, n_y))
    narrowness, line = np.empty(n_rotations), np.empty((n_y, n_x), chunks.dtype)
    has_prior = windows.prior_x.min() < 1 or windows.prior_y.min() < 1
    memory = (
        np.empty((n_places, most_x)),
        np.empty((n_places, most_y)),
        np.empty(n_places),
        np.empty(n_places),
    )
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
            peak, best_of_all = -np.inf, -1
            for w in range(n_rotations):
                tops[w] = -np.inf
                if fits[w] >= 0:
                    tops[w] = heights[w] - exponent * math.log1p(-min(fits[w], terms.floor))
                if tops[w] > peak:
                    peak, best_of_all = tops[w], w
            if best_of_all < 0:  # nothing is allowed
                continue
            # as the second difference is a property of spectra, that of the best will do for all
            along_x, along_y, extreme = curvature(windows, k, chunks, best_of_all)
            narrower = 1.0
            if near_end(windows, i, best_of_all, extreme):
                narrower = NARROWER_AT_END
            highest = -np.inf
            for w in range(n_rotations):
                fit_of = min(max(fits[w], 0.0), terms.floor)
                narrowness[w] = 2 * exponent * fit_of / (1 - fit_of)
                # the likelihood may be larger between displacements
                tops[w] += narrowness[w] * (along_x + along_y) / 8
                highest = max(highest, tops[w])
            reach = math.log(n_rotations * terms.n_displacements / (1 - terms.floor))
            least = max(terms.reference[i, j], peak - min(reach, windows.neglects))
            if not highest >= least:
                continue
            total, inside = 0.0, 0.0
            for w in range(n_rotations):
                if tops[w] < least:
                    continue
                cut = parts(windows, narrowness[w] * max(along_x, along_y) * narrower)
                first_x, first_y = windows.first_x[cut], windows.first_y[cut]
                per_x = (windows.first_x[cut + 1] - first_x) // n_x
                per_y = (windows.first_y[cut + 1] - first_y) // n_y
                x, x_end, y, y_end = 0, n_x, 0, n_y
                if cut:
                    missing = heights[w] - least + narrowness[w] * (along_x + along_y) / 8
                    part = -math.expm1(min(missing / exponent, 0.0))
                    x, x_end, y, y_end = reached(windows, k, chunks, w, part / scales[w])
                    if x_end <= x:
                        continue
                box = (
                    first_x + x * per_x,
                    first_x + x_end * per_x,
                    first_y + y * per_y,
                    first_y + y_end * per_y,
                )
                above = heights[w] - peak
                if not cut and fits[w] < SERIES_BELOW:
                    weigh_nodes(chunks, (k, w), above, exponent, scales[w], line, values)
                else:
                    largest = between(windows, k, chunks, w, box, rows, values)
                    is_small = largest * scales[w] < SERIES_BELOW
                    weigh(values, box, above, exponent, scales[w], is_small, terms.floor)
                if has_prior:
                    weigh_by_prior(windows, box, values)
                if not windows.is_free[i]:
                    share_out(windows, i, j, w, box, memory, values)
                # each displacement counts as one, in however many parts
                part = 1 / (per_x * per_y)
                total += part * sum_part(values, 0, box[1] - box[0], 0, box[3] - box[2])
                inside += part * sum_part(
                    values,
                    max(windows.edge[0] - x, 0) * per_x,
                    (min(x_end, n_x - windows.edge[0]) - x) * per_x,
                    max(windows.edge[1] - y, 0) * per_y,
                    (min(y_end, n_y - windows.edge[1]) - y) * per_y,
                )
            if total > 0:
                summary.log_likelihood[i, j] = peak + math.log(total)
            if total > inside:
                summary.at_edge[i, j] = peak + math.log(total - inside)
