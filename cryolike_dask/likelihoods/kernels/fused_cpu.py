"""From products of spectra to the best pose and the likelihood on a CPU, in loops that are compiled
for the machine.

Each thread takes some pairs of images and templates, and a few columns of their products at a time,
small enough for the cache of a core. Columns lie side by side, so that every step is the same for
all of them and is vectorised:

1. An FFT from angular frequencies to rotations; at W = 256 in half the time of the matrix
   products of `rotations`. A real series of W rotations is a complex one of n = W/2, y_j = x_2j +
   i x_2j+1 (`_halve`). That is transformed in place, decimated in frequency, radix by radix, and
   left in the order that this gives (`rotations.Plan`).
2. The largest and the smallest value of each rotation, over displacements; then the best of all,
   normalised.
3. The likelihood, summed over the rotations that come within reach.

In torch each sum, maximum and exponential is a pass over memory, which takes three times as long
together. All of it is one file: numba compiles a function anew when its own file has changed, but
not what it calls in other files.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload

COLUMNS = 64
"""Of a chunk: 64 kB at W = 256. Fewer leave compiled loops too short to be worth their checks;
measured 16 to 128."""
REAL = np.uint64(COLUMNS)
"""A row holds the real parts of a chunk, then the imaginary ones, from here. Unsigned: numba
looks for signs else."""
ROW = 2 * COLUMNS
COLUMNS_AT_ONCE = 1024
"""Templates are taken together up to so many columns: 1 MB of sums at W = 256."""
SERIES_BELOW = 0.01
"""Squared correlation below which eight terms of -log(1 - x) are exact in double precision, and
three in single."""
FAST_MATH = {"nnan", "nsz", "arcp", "contract", "reassoc"}


def compiled(function: Any) -> Any:
    """Compile a function; the machine code is kept for the next process if there is a folder to
    keep it in."""
    try:
        return numba.njit(cache=True, nogil=True, fastmath=FAST_MATH)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=FAST_MATH)(function)


@compiled
def _halve(products, image, first, n_columns, chunks, waves):
    """Fold the half spectra of some columns into complex series of half the length.

    Parameters
    ----------
    products : array, real, (W/2 + 1, 2, image, column)
        Real and imaginary parts, as for `rotations.rotate`.
    image, first, n_columns : int
        Which image, its first column, and how many columns.
    chunks : array, real, (chunk, W * COLUMNS)
        Get the series of COLUMNS columns each; the last of them may have fewer.
    waves : array, real, (2, W)
        Of a `rotations.Plan`.
    """
    n = len(products) - 1
    # the columns of a row lie together in memory, and are read together
    for k in range(n // 2 + 1):
        cosine, sine = waves[0, k], waves[1, k]
        for b in range(-(-n_columns // COLUMNS)):
            columns = slice(first + b * COLUMNS, first + min((b + 1) * COLUMNS, n_columns))
            row, mirrored = (
                chunks[b, k * ROW : (k + 1) * ROW],
                chunks[b, (n - k) * ROW : (n - k + 1) * ROW],
            )
            low, high = products[k, 0, image, columns], products[n - k, 0, image, columns]
            if k == 0:
                _sum_and_difference(low, high, row[:COLUMNS], row[COLUMNS:])
            elif 2 * k == n:
                _double(low, products[k, 1, image, columns], row)
            else:
                _sum_and_difference(low, high, row, mirrored)
                low, high = products[k, 1, image, columns], products[n - k, 1, image, columns]
                _sum_and_difference(low, high, mirrored[COLUMNS:], row[COLUMNS:])
                _turn(row, mirrored, cosine, sine)


@compiled
def _sum_and_difference(low, high, sums, differences):
    for c in range(np.uint64(len(low))):
        sums[c], differences[c] = low[c] + high[c], low[c] - high[c]


@compiled
def _double(real, imaginary, row):
    for c in range(np.uint64(len(real))):
        row[c], row[c + REAL] = 2 * real[c], -2 * imaginary[c]


@compiled
def _turn(row, mirrored, cosine, sine):
    for c in range(REAL):
        real, imaginary = mirrored[c], mirrored[c + REAL]
        turned_real, turned_imaginary = (
            -sine * real - cosine * imaginary,
            cosine * real - sine * imaginary,
        )
        real, imaginary = row[c], row[c + REAL]
        row[c], row[c + REAL] = real + turned_real, imaginary + turned_imaginary
        mirrored[c], mirrored[c + REAL] = real - turned_real, turned_imaginary - imaginary


@compiled
def _two(chunk, start, stride, waves, step):
    cosine, sine = waves[0, step], waves[1, step]
    row0, row1 = chunk[start : start + ROW], chunk[start + stride : start + stride + ROW]
    for c in range(REAL):
        real, imaginary = row0[c] - row1[c], row0[c + REAL] - row1[c + REAL]
        row0[c], row0[c + REAL] = row0[c] + row1[c], row0[c + REAL] + row1[c + REAL]
        row1[c], row1[c + REAL] = real * cosine - imaginary * sine, real * sine + imaginary * cosine


@compiled
def _four(chunk, start, stride, waves, step):
    cosine1, sine1 = waves[0, step], waves[1, step]
    cosine2, sine2 = waves[0, 2 * step], waves[1, 2 * step]
    cosine3, sine3 = waves[0, 3 * step], waves[1, 3 * step]
    row0, row1 = chunk[start : start + ROW], chunk[start + stride : start + stride + ROW]
    start += 2 * stride
    row2, row3 = chunk[start : start + ROW], chunk[start + stride : start + stride + ROW]
    for c in range(REAL):
        sum02, sum13 = row0[c] + row2[c], row1[c] + row3[c]
        real02, real13 = row0[c] - row2[c], row1[c] - row3[c]
        imaginary_sum02, imaginary_sum13 = (
            row0[c + REAL] + row2[c + REAL],
            row1[c + REAL] + row3[c + REAL],
        )
        imaginary02, imaginary13 = row0[c + REAL] - row2[c + REAL], row1[c + REAL] - row3[c + REAL]
        row0[c], row0[c + REAL] = sum02 + sum13, imaginary_sum02 + imaginary_sum13
        real, imaginary = real02 - imaginary13, imaginary02 + real13
        row1[c], row1[c + REAL] = (
            real * cosine1 - imaginary * sine1,
            real * sine1 + imaginary * cosine1,
        )
        real, imaginary = sum02 - sum13, imaginary_sum02 - imaginary_sum13
        row2[c], row2[c + REAL] = (
            real * cosine2 - imaginary * sine2,
            real * sine2 + imaginary * cosine2,
        )
        real, imaginary = real02 + imaginary13, imaginary02 - real13
        row3[c], row3[c + REAL] = (
            real * cosine3 - imaginary * sine3,
            real * sine3 + imaginary * cosine3,
        )


@compiled
def _odd(chunk, start, stride, waves, step, radix, spare):
    """Any odd radix r: x_i + x_r-i take cosines and x_i - x_r-i sines, which give y_j and y_r-j
    together."""
    n_waves, half = waves.shape[1], radix // 2
    turn = n_waves // radix
    row, first = chunk[start : start + ROW], spare[:ROW]
    for c in range(2 * REAL):
        first[c] = row[c]
    for i in range(1, half + 1):
        at, mirrored = start + i * stride, start + (radix - i) * stride
        sums, differences = (
            spare[i * ROW : (i + 1) * ROW],
            spare[(radix - i) * ROW : (radix - i + 1) * ROW],
        )
        _sum_and_difference(
            chunk[at : at + ROW], chunk[mirrored : mirrored + ROW], sums, differences
        )
    for j in range(half + 1):
        at, mirrored = start + j * stride, start + (radix - j if j else 0) * stride
        row, other = chunk[at : at + ROW], chunk[mirrored : mirrored + ROW]
        for c in range(2 * REAL):
            other[c] = 0
            row[c] = first[c]
        for i in range(1, half + 1):
            cosine, sine = waves[0, i * j * turn % n_waves], waves[1, i * j * turn % n_waves]
            sums, differences = (
                spare[i * ROW : (i + 1) * ROW],
                spare[(radix - i) * ROW : (radix - i + 1) * ROW],
            )
            for c in range(2 * REAL):
                row[c] += cosine * sums[c]
            if j:
                for c in range(2 * REAL):
                    other[c] += sine * differences[c]
        if j:
            _combine(row, other, waves[:, j * step], waves[:, (radix - j) * step])


@compiled
def _combine(row, other, wave, other_wave):
    """Turn a and b, complex, into (a + ib) wave and (a - ib) other wave."""
    cosine, sine, other_cosine, other_sine = wave[0], wave[1], other_wave[0], other_wave[1]
    for c in range(REAL):
        real, imaginary = row[c] - other[c + REAL], row[c + REAL] + other[c]
        other_real, other_imaginary = row[c] + other[c + REAL], row[c + REAL] - other[c]
        row[c], row[c + REAL] = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        other[c] = other_real * other_cosine - other_imaginary * other_sine
        other[c + REAL] = other_real * other_sine + other_imaginary * other_cosine


@compiled
def _transform(chunk, spare, radices, waves):
    """Sum series into correlations over rotations, in place.

    Parameters
    ----------
    chunk : array, real, (W * COLUMNS,)
        Of `_halve`. Gets a row of COLUMNS values for each of `rotations.Plan.rotations`.
    spare : array, real, (W * COLUMNS,)
        Is overwritten.
    radices, waves
        Of a `rotations.Plan`.
    """
    n = length = waves.shape[1] // 2
    for radix in radices:
        length //= radix
        for start in range(0, n, length * radix):
            for k in range(length):
                at, stride, step = (start + k) * ROW, length * ROW, 2 * k * (n // (length * radix))
                if radix == 4:
                    _four(chunk, at, stride, waves, step)
                elif radix == 2:
                    _two(chunk, at, stride, waves, step)
                else:
                    _odd(chunk, at, stride, waves, step, radix, spare)


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


def _of_two(name: str) -> Any:
    """The larger or the smaller of two numbers, as one instruction: loops over max and min are
    not vectorised."""

    def generate(context, builder, signature, values):
        real = values[0].type
        function = builder.module.declare_intrinsic(
            name, [real], ir.FunctionType(real, [real, real])
        )
        return builder.call(function, values, fastmath=("nnan", "nsz"))

    return intrinsic(lambda typing, x, y: (x(x, y), generate))


_larger, _smaller = _of_two("llvm.maxnum"), _of_two("llvm.minnum")


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
def _of_template(chunk, template, n_displacements):
    """Where the columns of a template begin and end in a chunk; both count from the first of
    those at hand."""
    start = template * n_displacements - chunk * COLUMNS
    return max(start, 0), min(start + n_displacements, COLUMNS)


@compiled
def _rotate(products, image, first, n_columns, n_displacements, chunks, radices, waves, high, low):
    """Transform columns of an image; get the extremes, (template, rotation), over each
    template's displacements."""
    _halve(products, image, first, n_columns, chunks, waves)
    for k in range(-(-n_columns // COLUMNS)):
        size = min(COLUMNS, n_columns - k * COLUMNS)
        _transform(chunks[k], chunks[-1], radices, waves)
        for j in range(
            k * COLUMNS // n_displacements, (k * COLUMNS + size - 1) // n_displacements + 1
        ):
            start, stop = _of_template(k, j, n_displacements)
            is_first = j * n_displacements >= k * COLUMNS
            for w in range(waves.shape[1]):
                highest, lowest = _extremes(chunks[k, w * COLUMNS + start : w * COLUMNS + stop])
                high[j, w] = highest if is_first else max(high[j, w], highest)
                low[j, w] = lowest if is_first else min(low[j, w], lowest)


@compiled
def _sum(chunks, template, n_displacements, fits, tops, heights, scales, exponent, floor, least):
    """The logarithm of the likelihood, summed over what comes within reach of `least` in a
    template's columns."""
    peak = tops.max()
    least = max(least, peak - math.log(len(tops) * n_displacements / (1 - floor)))
    if peak < least:
        return -np.inf
    total, first = 0.0, template * n_displacements
    for w in range(len(tops)):
        if tops[w] < least:
            continue
        within_reach = 1 - math.exp(min((heights[w] - least) / exponent, 0))
        for k in range(first // COLUMNS, (first + n_displacements - 1) // COLUMNS + 1):
            start, stop = _of_template(k, template, n_displacements)
            values = chunks[k, w * COLUMNS + start : w * COLUMNS + stop]
            if fits[w] < SERIES_BELOW:
                total += _sum_of_small(values, heights[w] - peak, exponent, scales[w])
            else:
                total += _sum_of_large(
                    values, heights[w] - peak, exponent, scales[w], within_reach, floor
                )
    return peak + math.log(total)


@compiled
def reduce_pairs(
    pairs,
    products,
    n_displacements,
    radices,
    waves,
    rows,
    exponent,
    floor,
    shift,
    norm,
    scale,
    height,
    reference,
    best,
    fit,
    summed,
):
    """Reduce some pairs of a tile over displacements and rotations.

    Parameters
    ----------
    pairs : (int, int)
        The first, and the one after the last, counted over (image, template).
    products, exponent, shift, norm, scale, height
        As in `Tile`.
    radices, waves
        Of `fft_cpu.Plan`.
    rows : array, int64, (W,)
        Where each of the plan's rotations is in `norm`, `scale` and `height`.
    floor : float
        The largest v^2 scale that counts.
    reference : array, float64, (image, template)
        Log-likelihoods below may be neglected; where it is infinite nothing is summed.
    best, fit, summed : array, (image, template)
        Get what `Tile.summarise` gives.
    """
    n_templates, n_rotations = norm.shape[2], len(rows)
    most = max(1, COLUMNS_AT_ONCE // n_displacements)
    chunks = np.empty(
        (-(-most * n_displacements // COLUMNS) + 1, n_rotations * COLUMNS), products.dtype
    )
    high, low = (
        np.empty((most, n_rotations), products.dtype),
        np.empty((most, n_rotations), products.dtype),
    )
    fits, tops, heights, scales = np.empty((4, n_rotations))
    pair = pairs[0]
    while pair < pairs[1]:
        i, first = pair // n_templates, pair % n_templates
        n = min(most, n_templates - first, pairs[1] - pair)
        pair += n
        of_templates = first * n_displacements, n * n_displacements, n_displacements
        _rotate(products, i, *of_templates, chunks, radices, waves, high, low)
        for k in range(n):
            j = first + k
            best[i, j], fit[i, j], summed[i, j] = -np.inf, 0, -np.inf
            for w in range(n_rotations):
                row = rows[w]
                best[i, j] = max(best[i, j], (high[k, w] + shift[i, j]) * norm[row, i, j])
                heights[w], scales[w] = height[row, i, j], scale[row, i, j]
                fits[w] = float(max(high[k, w], -low[k, w])) ** 2 * scales[w]
                fit[i, j] = max(fit[i, j], fits[w])
            if reference[i, j] < np.inf:
                for w in range(n_rotations):
                    tops[w] = heights[w] - exponent * math.log1p(-min(fits[w], floor))
                terms = (
                    n_displacements,
                    fits,
                    tops,
                    heights,
                    scales,
                    exponent,
                    floor,
                    reference[i, j],
                )
                summed[i, j] = _sum(chunks, k, *terms)
