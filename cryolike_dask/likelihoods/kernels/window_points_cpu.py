"""The points of windows of displacements, in loops that are compiled for the machine: values
between displacements, their likelihoods, and how much of each counts."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.kernels.compiled import compiled
from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS
from cryolike_dask.likelihoods.kernels.fused_cpu import likelihood


class WindowTerms(NamedTuple):
    """Windows about places of images, as in `windows.Windows`; float64 unless they say otherwise.

    Attributes
    ----------
    nodes_x, nodes_y : array, (displacement along an axis,)
        From the place, angstrom.
    x, y : array, (point along an axis,)
        Where likelihoods are summed: first with each step in one part, then in two, in four, ...
    matrix_x, matrix_y : array, (point, displacement)
        Interpolation.
    first_x, first_y : array, int64, (cut + 1,)
        Where points of each number of parts begin, and end.
    half_width, limit : (float, float)
        Of the window and of the search, along x and y.
    turns : array, (W, 2)
        Cosine and sine of each rotation, in the order of the transform.
    rotations : array, int64, (W,)
        Which these are.
    places : array, (row, place, 2)
    own : array, int64, (row,)
        Which place a row is of.
    bits : array, int64, (row, template)
        Places whose windows are summed under a template.
    wanted : array, bool, (row, template)
        The others are left out.
    is_free : array, bool, (row,)
        Windows that reach neither another's nor the end of the search.
    edge : (int, int)
        Displacements at the edge of a window, along x and y, as much as about which lies beyond it.
    arcs : array, (row, template, 3)
        a, b, c: rotations are allowed where a cos + b sin >= c; of no rows: all of them.
    slope : float
        Logarithm of the prior of rotations, below that of the likeliest, over these sums.
    neglects : float
        Nat below the best pose of a pair that rotations do not count from.
    prior_x, prior_y : array, (point along an axis,)
        Of points.
    parts_per_narrowness : float
        As there.
    """

    nodes_x: NDArray[np.float64]
    nodes_y: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    matrix_x: NDArray[np.float64]
    matrix_y: NDArray[np.float64]
    first_x: NDArray[np.int64]
    first_y: NDArray[np.int64]
    half_width: tuple[float, float]
    limit: tuple[float, float]
    turns: NDArray[np.float64]
    rotations: NDArray[np.int64]
    places: NDArray[np.float64]
    own: NDArray[np.int64]
    bits: NDArray[np.int64]
    wanted: NDArray[np.bool_]
    is_free: NDArray[np.bool_]
    edge: tuple[int, int]
    arcs: NDArray[np.float64]
    slope: float
    neglects: float
    prior_x: NDArray[np.float64]
    prior_y: NDArray[np.float64]
    parts_per_narrowness: float


@compiled
def moved(windows, row, place, w):
    """A place of a row's image as templates are displaced under a rotation."""
    cosine, sine = windows.turns[w]
    x, y = windows.places[row, place]
    return cosine * x - sine * y, sine * x + cosine * y


@compiled
def _tapers(at, half_width, distances, tapers):
    """What windows of some places count at points of this one: (place, point)."""
    for k in range(len(distances)):
        for a in range(len(at)):
            z = (at[a] - distances[k]) / half_width
            tapers[k, a] = max(1 - z * z, 0.0) ** 2


@compiled
def curvature(windows, template, chunks, w):
    """How fast the covariance falls off about its extreme under a rotation, along x and y: its
    second difference over it, 0 where no step is cut; and at which displacement that is."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    if len(windows.first_x) < 3:
        return 0.0, 0.0, 0
    first, most, at = template * n_x * n_y, 0.0, 0
    for d in range(n_x * n_y):
        value = chunks[(first + d) // COLUMNS, w * COLUMNS + (first + d) % COLUMNS]
        if abs(value) > abs(most):
            most, at = value, d
    along = [0.0, 0.0]
    for axis in range(2):
        n, step = (n_x, 1) if axis == 0 else (n_y, n_x)
        if n < 3 or most == 0:
            continue
        i = at // step % n
        middle = first + at + (min(max(i, 1), n - 2) - i) * step
        second = 0.0
        for k in range(-1, 2):
            column = middle + k * step
            value = chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS]
            second += value * (2.0 if k == 0 else -1.0)
        along[axis] = max(second / most, 0.0)
    return along[0], along[1], at


@compiled
def near_end(windows, row, w, displacement):
    """Whether a displacement of a row's window under a rotation lies within a step of the end of
    the search, or beyond."""
    if windows.is_free[row]:
        return False
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    x, y = moved(windows, row, windows.own[row], w)
    x, y = (
        abs(x + windows.nodes_x[displacement % n_x]),
        abs(y + windows.nodes_y[displacement // n_x]),
    )
    if n_x > 1 and x > windows.limit[0] - (windows.nodes_x[1] - windows.nodes_x[0]):
        return True
    return n_y > 1 and y > windows.limit[1] - (windows.nodes_y[1] - windows.nodes_y[0])


@compiled
def parts(windows, narrowness):
    """Into how many parts a step has to be cut, as a power of two, where the likelihood is as
    narrow as a Gaussian of 1 / narrowness steps squared."""
    cut = 0
    while cut < len(windows.first_x) - 2 and 4.0**cut < windows.parts_per_narrowness * narrowness:
        cut += 1
    return cut


@compiled
def reached(windows, template, chunks, w, least):
    """The first displacement along x and y, and the one after the last, whose covariance squared
    reaches so much; nothing where none does."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    first = template * n_x * n_y
    x, x_end, y, y_end = n_x, 0, n_y, 0
    for b in range(n_y):
        for a in range(n_x):
            column = first + b * n_x + a
            value = float(chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS])
            if value * value >= least:
                x, x_end, y, y_end = min(x, a), max(x_end, a + 1), min(y, b), b + 1
    return x, x_end, y, y_end


@compiled
def weigh_by_prior(windows, box, values):
    """Multiply values at the points of a part of a window, (y, x), by the prior there."""
    for b in range(box[3] - box[2]):
        for a in range(box[1] - box[0]):
            values[b, a] *= windows.prior_y[box[2] + b] * windows.prior_x[box[0] + a]


@compiled
def _part_inside(points, at, limit):
    """Which parts of what points about a place stand for lie inside of the search, along an
    axis."""
    size = points[1] - points[0] if len(points) > 1 else 1.0
    parts = np.empty(len(points))
    for a in range(len(points)):
        parts[a] = min(max((limit - abs(at + points[a])) / size + 0.5, 0.0), 1.0)
    return parts


@compiled
def share_out(windows, row, template, w, box, memory, values):
    """Leave of values at the points of a part of a window, (y, x), what they count under a
    template and a rotation: less where it overlaps with others that are wanted, nothing outside of
    the search."""
    along_x, along_y, from_x, from_y = memory
    own, n = windows.own[row], 1
    x, y = moved(windows, row, own, w)
    from_x[0] = from_y[0] = 0.0
    for k in range(windows.places.shape[1]):
        if k != own and windows.bits[row, template] >> k & 1:
            other_x, other_y = moved(windows, row, k, w)
            from_x[n], from_y[n] = other_x - x, other_y - y
            n += 1
    at_x, at_y = windows.x[box[0] : box[1]], windows.y[box[2] : box[3]]
    _tapers(at_x, windows.half_width[0], from_x[:n], along_x)
    _tapers(at_y, windows.half_width[1], from_y[:n], along_y)
    inside_x = _part_inside(at_x, x, windows.limit[0])
    inside_y = _part_inside(at_y, y, windows.limit[1])
    for b in range(len(at_y)):
        for a in range(len(at_x)):
            total = 0.0
            for k in range(n):
                total += along_y[k, b] * along_x[k, a]
            share = along_y[0, b] * along_x[0, a] / total
            values[b, a] *= share * inside_y[b] * inside_x[a]


@compiled
def between(windows, template, chunks, w, box, rows, values):
    """Values at the points of a part of a window, (y, x), by those at displacements; and the
    largest square. The first points are the displacements themselves."""
    n_x, n_y = len(windows.nodes_x), len(windows.nodes_y)
    first, largest = template * n_x * n_y, 0.0
    if box[1] <= n_x and box[3] <= n_y:
        for b in range(n_y):
            for a in range(n_x):
                column = first + b * n_x + a
                value = float(chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS])
                values[b, a] = value
                largest = max(largest, value * value)
        return largest
    for a in range(box[1] - box[0]):
        for b in range(n_y):
            rows[a, b] = 0.0
            for i in range(n_x):
                column = first + b * n_x + i
                value = chunks[column // COLUMNS, w * COLUMNS + column % COLUMNS]
                rows[a, b] += windows.matrix_x[box[0] + a, i] * value
    for b in range(box[3] - box[2]):
        for a in range(box[1] - box[0]):
            value = 0.0
            for i in range(n_y):
                value += windows.matrix_y[box[2] + b, i] * rows[a, i]
            values[b, a] = value
            largest = max(largest, value * value)
    return largest


@compiled
def weigh(values, box, above, exponent, scale, is_small, floor):
    """Put exp(above - exponent log(1 - v^2 scale)) in place of values."""
    n = box[1] - box[0]
    for b in range(box[3] - box[2]):
        if is_small:
            for a in range(n):
                values[b, a] = likelihood(above, exponent, values[b, a] ** 2 * scale)
        else:
            for a in range(n):
                x = min(values[b, a] ** 2 * scale, floor)
                values[b, a] = math.exp(above - exponent * math.log1p(-x))


@compiled
def weigh_nodes(chunks, of, above, exponent, scale, line, values):
    """Put exp(above - exponent log(1 - v^2 scale)) of the displacements themselves, all v^2 scale
    small, in place of values, (y, x), in the precision of the covariances: those `of` a template
    and a rotation, `line` being room for them."""
    template, w = of
    real = chunks.dtype.type
    above, exponent, root = real(above), real(exponent), real(math.sqrt(scale))
    of_nodes, first, d = line.ravel(), template * line.size, 0
    # as long as they lie side by side, loops over them are vectorised
    while d < line.size:
        chunk, column = (first + d) // COLUMNS, (first + d) % COLUMNS
        n = min(line.size - d, COLUMNS - column)
        start = w * COLUMNS + column
        part, to = chunks[chunk, start : start + n], of_nodes[d : d + n]
        for k in range(n):
            to[k] = likelihood(above, exponent, (part[k] * root) ** 2)
        d += n
    for b in range(line.shape[0]):
        for a in range(line.shape[1]):
            values[b, a] = line[b, a]


@compiled
def sum_part(values, x, x_end, y, y_end):
    """Sum some of the values."""
    total = 0.0
    for b in range(y, y_end):
        for a in range(x, x_end):
            total += values[b, a]
    return total
