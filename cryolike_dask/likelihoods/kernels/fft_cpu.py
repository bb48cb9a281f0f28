"""An FFT from angular frequencies to rotations of many columns at a time, compiled for the machine.

Columns lie side by side, so that every step is the same for all of them and is vectorised. A real
series of W rotations is a complex one of n = W/2, y_j = x_2j + i x_2j+1 (`halve`). That is
transformed in place, decimated in frequency, radix by radix, and left in the order that this gives
(`rotations.Plan`). At W = 256 it takes half the time of the matrix products of `rotations`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import numpy as np

from cryolike_dask.likelihoods.kernels.compiled import compiled

COLUMNS = 64
"""Columns of a chunk: 64 kB at W = 256. Fewer leave compiled loops too short to be worth their
checks; measured 16 to 128."""
REAL = np.uint64(COLUMNS)
"""A row holds the real parts of a chunk, then the imaginary ones, from here. Unsigned: numba
looks for signs else."""
ROW = 2 * COLUMNS


@compiled
def halve(products, image, first, n_columns, chunks, waves):
    """Fold the half spectra of some columns into complex series of half the length.

    Parameters
    ----------
    products : array, real, (W/2 + 1, 2, image, column)
        Real and imaginary parts, as for `rotations.rotate`.
    image, first, n_columns : int
        Index of the image, its first column, and the number of columns.
    chunks : array, real, (chunk, W * COLUMNS)
        Get the series of COLUMNS columns each; the last of them may have fewer.
    waves : array, real, (2, W)
        As in a `rotations.Plan`.
    """
    n = len(products) - 1
    # the columns of a row lie together in memory, and are read together
    for k in range(n // 2 + 1):
        cosine, sine = waves[0, k], waves[1, k]
        for b in range(-(-n_columns // COLUMNS)):
            columns = slice(first + b * COLUMNS, first + min((b + 1) * COLUMNS, n_columns))
            row = chunks[b, k * ROW : (k + 1) * ROW]
            mirrored = chunks[b, (n - k) * ROW : (n - k + 1) * ROW]
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
        turned_real = -sine * real - cosine * imaginary
        turned_imaginary = cosine * real - sine * imaginary
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
        imaginary_sum02 = row0[c + REAL] + row2[c + REAL]
        imaginary_sum13 = row1[c + REAL] + row3[c + REAL]
        imaginary02, imaginary13 = row0[c + REAL] - row2[c + REAL], row1[c + REAL] - row3[c + REAL]
        row0[c], row0[c + REAL] = sum02 + sum13, imaginary_sum02 + imaginary_sum13
        real, imaginary = real02 - imaginary13, imaginary02 + real13
        row1[c] = real * cosine1 - imaginary * sine1
        row1[c + REAL] = real * sine1 + imaginary * cosine1
        real, imaginary = sum02 - sum13, imaginary_sum02 - imaginary_sum13
        row2[c] = real * cosine2 - imaginary * sine2
        row2[c + REAL] = real * sine2 + imaginary * cosine2
        real, imaginary = real02 + imaginary13, imaginary02 - real13
        row3[c] = real * cosine3 - imaginary * sine3
        row3[c + REAL] = real * sine3 + imaginary * cosine3


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
        sums = spare[i * ROW : (i + 1) * ROW]
        differences = spare[(radix - i) * ROW : (radix - i + 1) * ROW]
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
            sums = spare[i * ROW : (i + 1) * ROW]
            differences = spare[(radix - i) * ROW : (radix - i + 1) * ROW]
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
def transform(chunk, spare, radices, waves):
    """Sum series into correlations over rotations, in place.

    Parameters
    ----------
    chunk : array, real, (W * COLUMNS,)
        A chunk of `halve`. Gets a row of COLUMNS values for each of `rotations.Plan.rotations`.
    spare : array, real, (W * COLUMNS,)
        Memory that is overwritten.
    radices, waves
        As in a `rotations.Plan`.
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
