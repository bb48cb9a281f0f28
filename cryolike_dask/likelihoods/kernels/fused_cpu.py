"""From products of spectra to the best pose and the likelihood on a CPU, in loops that are compiled
for the machine.

Each thread takes some pairs of images and templates, and a few columns of their products at a time,
small enough for the cache of a core. Columns lie side by side, so that every step is the same for
all of them and is vectorised:

1. An FFT from angular frequencies to rotations (`fft_cpu`).
2. The largest and the smallest value of each rotation, over displacements; then the best of all,
   normalised.
3. The likelihood, summed over the rotations that come within reach.

In torch each sum, maximum and exponential is a pass over memory, which takes three times as long
together.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from cryolike_dask.likelihoods.kernels.compiled import FAST_MATH, compiled
from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS, halve, transform

COLUMNS_AT_ONCE = 1024
"""Templates are taken together up to so many columns: 1 MB of sums at W = 256."""
SERIES_BELOW = 0.01
"""Squared correlation below which eight terms of -log(1 - x) are exact in double precision, and
three in single."""


class PairTerms(NamedTuple):
    """Terms that the poses of each pair of a tile are computed from, as in `Tile`; all contiguous.

    Attributes
    ----------
    products : array, real, (W/2 + 1, 2, image, column)
    n_displacements : int
    shift, norm, scale, height : array
    exponents : array, float64, (image,)
    floor : float
        The largest v^2 scale that counts.
    reference : array, float64, (image, template)
        Log-likelihoods below may be neglected; where it is infinite nothing is summed.
    """

    products: NDArray[Any]
    n_displacements: int
    shift: NDArray[Any]
    norm: NDArray[Any]
    scale: NDArray[np.float64]
    height: NDArray[np.float64]
    exponents: NDArray[np.float64]
    floor: float
    reference: NDArray[np.float64]


class Rotations(NamedTuple):
    """Tables of the FFT from angular frequencies to rotations.

    Attributes
    ----------
    radices, waves : array
        As in a `rotations.Plan`.
    rows : array, int64, (W,)
        Where each of the plan's rotations is in `norm`, `scale` and `height`.
    """

    radices: NDArray[np.int64]
    waves: NDArray[Any]
    rows: NDArray[np.int64]


class Summary(NamedTuple):
    """Results of `Tile.summarise`, each (image, template)."""

    best: NDArray[Any]
    fit: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]


def likelihood(above, exponent, x):
    """exp(above - exponent log(1 - x)) for small x and a result not far above 1; for compiled
    functions only."""
    raise NotImplementedError


@overload(likelihood, jit_options={"fastmath": FAST_MATH})
def _likelihood_of_dtype(above, exponent, x):
    """Series, and 2^n made of its bits: without a branch or a call, so that loops over it are
    vectorised."""
    single = x == numba.float32
    real, integer, n_bits, bias = (
        (np.float32, np.int32, 23, 127) if single else (np.float64, np.int64, 52, 1023)
    )
    half, one, log2_e, ln2 = real(0.5), real(1), real(1 / math.log(2)), real(math.log(2))
    l2, l3, l4, l5, l6, l7, l8 = (real(1 / k) for k in range(2, 9))
    e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12 = (
        real(1 / math.factorial(k)) for k in range(2, 13)
    )
    lowest, ones, shift = real(1 - bias), integer(bias), integer(n_bits)

    def in_single(above, exponent, x):
        z = (above + exponent * (x * (one + x * (l2 + x * l3)))) * log2_e
        z = z if z > lowest else lowest
        n = np.floor(z + half)
        f = (z - n) * ln2
        p = one + f * (one + f * (e2 + f * (e3 + f * (e4 + f * (e5 + f * e6)))))
        return p * integer((integer(n) + ones) << shift).view(real)

    def in_double(above, exponent, x):
        p = one + x * (l2 + x * (l3 + x * (l4 + x * (l5 + x * (l6 + x * (l7 + x * l8))))))
        z = (above + exponent * (x * p)) * log2_e
        z = z if z > lowest else lowest
        n = np.floor(z + half)
        f = (z - n) * ln2
        p = e6 + f * (e7 + f * (e8 + f * (e9 + f * (e10 + f * (e11 + f * e12)))))
        p = one + f * (one + f * (e2 + f * (e3 + f * (e4 + f * (e5 + f * p)))))
        return p * integer((integer(n) + ones) << shift).view(real)

    return in_single if single else in_double


def _instruction(name: str) -> Any:
    """Larger or smaller of two numbers, as one instruction: loops over max and min are not
    vectorised."""

    def generate(context, builder, signature, values):
        real = values[0].type
        function = builder.module.declare_intrinsic(
            name, [real], ir.FunctionType(real, [real, real])
        )
        return builder.call(function, values, fastmath=("nnan", "nsz"))

    return intrinsic(lambda typing, x, y: (x(x, y), generate))


_larger, _smaller = _instruction("llvm.maxnum"), _instruction("llvm.minnum")


@compiled
def _extremes(values):
    """The largest and the smallest."""
    high, low = values[0], values[0]
    for k in range(len(values)):
        high, low = _larger(high, values[k]), _smaller(low, values[k])
    return high, low


@compiled
def _sum_of_small(values, above, exponent, scale):
    """Sum exp(above - exponent log(1 - v^2 scale)) over values, all v^2 scale small."""
    real = values.dtype.type
    above, exponent, root, total = real(above), real(exponent), real(math.sqrt(scale)), real(0)
    for k in range(len(values)):
        total += likelihood(above, exponent, (values[k] * root) ** 2)
    return float(total)


@compiled
def _sum_of_large(values, above, exponent, scale, least, floor):
    """Sum the same over those from a v^2 scale on, in double precision."""
    total = 0.0
    for k in range(len(values)):
        x = float(values[k]) ** 2 * scale
        if x >= least:
            total += math.exp(above - exponent * math.log1p(-min(x, floor)))
    return total


@compiled
def _columns_of_template(chunk, template, n_displacements):
    """Where the columns of a template begin and end in a chunk; both count from the first of
    those at hand."""
    start = template * n_displacements - chunk * COLUMNS
    return max(start, 0), min(start + n_displacements, COLUMNS)


@compiled
def rotate(terms, rotations, image, first, n_templates, chunks, high, low):
    """Transform the columns of an image and of templates from `first` on; get the extremes,
    (template, rotation), over each template's displacements."""
    n_displacements, n_columns = terms.n_displacements, n_templates * terms.n_displacements
    halve(terms.products, image, first * n_displacements, n_columns, chunks, rotations.waves)
    for k in range(-(-n_columns // COLUMNS)):
        size = min(COLUMNS, n_columns - k * COLUMNS)
        transform(chunks[k], chunks[-1], rotations.radices, rotations.waves)
        # at once, while the chunk is in the inner cache; templates do not begin where chunks do
        last = (k * COLUMNS + size - 1) // n_displacements
        for j in range(k * COLUMNS // n_displacements, last + 1):
            start, stop = _columns_of_template(k, j, n_displacements)
            is_first = j * n_displacements >= k * COLUMNS
            for w in range(len(rotations.rows)):
                highest, lowest = _extremes(chunks[k, w * COLUMNS + start : w * COLUMNS + stop])
                high[j, w] = highest if is_first else max(high[j, w], highest)
                low[j, w] = lowest if is_first else min(low[j, w], lowest)


@compiled
def _sum(terms, exponent, chunks, template, by_rotation, least):
    """The logarithm of the likelihood, summed over what comes within reach of `least` in a
    template's columns."""
    n_displacements = terms.n_displacements
    fits, tops, heights, scales = by_rotation
    peak = tops.max()
    # all poses so far below the best one are together less than the rounding of the sum
    least = max(least, peak - math.log(len(tops) * n_displacements / (1 - terms.floor)))
    if peak < least:
        return -np.inf
    total, first = 0.0, template * n_displacements
    for w in range(len(tops)):
        # most rotations are left out here: of those the extremes are all that was needed
        if tops[w] < least:
            continue
        # the v^2 scale of a pose whose log-likelihood is `least`
        within_reach = 1 - math.exp(min((heights[w] - least) / exponent, 0))
        for k in range(first // COLUMNS, (first + n_displacements - 1) // COLUMNS + 1):
            start, stop = _columns_of_template(k, template, n_displacements)
            values = chunks[k, w * COLUMNS + start : w * COLUMNS + stop]
            # relative to the peak: log-likelihoods are in the thousands, which exp cannot take
            above = heights[w] - peak
            if fits[w] < SERIES_BELOW:
                total += _sum_of_small(values, above, exponent, scales[w])
            else:
                total += _sum_of_large(
                    values, above, exponent, scales[w], within_reach, terms.floor
                )
    return peak + math.log(total)


@compiled
def memory_of_thread(terms, n_rotations):
    """Memory for all pairs of a thread: how many templates are taken together; their columns, of
    which the last chunk is room for odd radices; their extremes; and four terms by rotation."""
    dtype, most = terms.products.dtype, max(1, COLUMNS_AT_ONCE // terms.n_displacements)
    n_chunks = -(-most * terms.n_displacements // COLUMNS) + 1
    chunks = np.empty((n_chunks, n_rotations * COLUMNS), dtype)
    high, low = np.empty((most, n_rotations), dtype), np.empty((most, n_rotations), dtype)
    return most, chunks, high, low, np.empty((4, n_rotations))


@compiled
def reduce_pairs(pairs, terms, rotations, summary):
    """Reduce some pairs of a tile over displacements and rotations.

    Parameters
    ----------
    pairs : (int, int)
        The first, and the one after the last, counted over (image, template).
    terms : PairTerms
    rotations : Rotations
    summary : Summary
        Gets the results of these pairs.
    """
    best, fit, summed = summary.best, summary.fit, summary.log_likelihood
    shift, norm = terms.shift, terms.norm
    n_rotations, n_templates = len(rotations.rows), norm.shape[2]
    most, chunks, high, low, by_rotation = memory_of_thread(terms, n_rotations)
    fits, tops, heights, scales = by_rotation
    pair = pairs[0]
    while pair < pairs[1]:
        # neighbouring templates of one image, whose products lie side by side
        i, first = pair // n_templates, pair % n_templates
        exponent = terms.exponents[i]
        n = min(most, n_templates - first, pairs[1] - pair)
        pair += n
        rotate(terms, rotations, i, first, n, chunks, high, low)
        for k in range(n):
            j = first + k
            best[i, j], fit[i, j], summed[i, j] = -np.inf, 0, -np.inf
            # norms do not depend on displacements, so that only the extremes need them; the
            # likelihood grows with |v|, the correlation with v
            for w in range(n_rotations):
                row = rotations.rows[w]
                best[i, j] = max(best[i, j], (high[k, w] + shift[i, j]) * norm[row, i, j])
                heights[w], scales[w] = terms.height[row, i, j], terms.scale[row, i, j]
                fits[w] = float(max(high[k, w], -low[k, w])) ** 2 * scales[w]
                fit[i, j] = max(fit[i, j], fits[w])
            if terms.reference[i, j] < np.inf:
                # one logarithm for each rotation says which of them are worth a sum over all
                # displacements
                for w in range(n_rotations):
                    tops[w] = heights[w] - exponent * math.log1p(-min(fits[w], terms.floor))
                summed[i, j] = _sum(terms, exponent, chunks, k, by_rotation, terms.reference[i, j])
