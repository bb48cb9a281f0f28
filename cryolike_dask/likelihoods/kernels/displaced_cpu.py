"""Displaced templates in angular frequency and on the radial basis on a CPU, in loops that are
compiled for the machine.

Some columns, displaced templates, of one shell are in the cache of a core at a time: their half
rings are displaced, transformed, and leave as spectra. When all shells are there, the same columns
are projected on the basis. In torch each step is a pass over memory.

The half ring F(theta_j), j < n = W/2, of a real image gives a_q = 2 / sqrt(W) sum_j Re F_j
exp(-i q theta_j) at even q, with i Im F_j in place of Re F_j at odd ones (`rotations`). Either is a
complex FFT of M = W/4 points (`fft_cpu`):

- Even q: y_j = r_2j + i r_2j+1, as usual for a real series; its frequencies m and M - m give q = 2m
  and W/2 - 2m.
- Odd q: y_j = (s_j + i s_j+M) exp(2 pi i j / W) gives q = 4m + 1 at once, and those beyond W/2 as
  conjugates of the others.

W is divisible by four. Rings come multiplied by 2 / sqrt(W).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.kernels.compiled import compiled
from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS, REAL, ROW, transform


class Rings(NamedTuple):
    """Half rings of templates, and the factors that displace them; all contiguous.

    Attributes
    ----------
    real, imaginary : array, real, (shell, template, W/2)
    cosine, sine : array, real, (W/2, shell, displacement)
        Parts of the factors.
    angles : array, int64, (W/2,)
        Which angle is where in all of these.
    """

    real: NDArray[Any]
    imaginary: NDArray[Any]
    cosine: NDArray[Any]
    sine: NDArray[Any]
    angles: NDArray[np.int64]


class Series(NamedTuple):
    """Tables of the transform.

    Attributes
    ----------
    radices, waves : array
        As in the `rotations.Plan` of W/2 rotations.
    rows : array, int64, (W/4,)
        Which row of a transformed chunk holds each frequency.
    turns : array, real, (2, W)
        Cosine and sine of each of W rotations.
    """

    radices: NDArray[np.int64]
    waves: NDArray[Any]
    rows: NDArray[np.int64]
    turns: NDArray[Any]


# Loops read arrays where they are: taking a row out of one costs more than the work on 64 columns.


@compiled
def _displace(rings, shell, first, n_columns, even, odd):
    """Displace the half rings of some columns; real parts go where even frequencies are made of,
    imaginary ones where odd ones are."""
    n_displacements, quarter = rings.cosine.shape[2], len(rings.angles) // 2
    column = 0
    while column < n_columns:
        template, d = divmod(first + column, n_displacements)
        size = min(n_displacements - d, n_columns - column)
        for w in range(len(rings.angles)):
            j = rings.angles[w]
            to_even = np.uint64(j // 2 * ROW + j % 2 * COLUMNS + column)
            to_odd = np.uint64(j % quarter * ROW + j // quarter * COLUMNS + column)
            real, imaginary = rings.real[shell, template, w], rings.imaginary[shell, template, w]
            for c in range(np.uint64(size)):
                cosine = rings.cosine[w, shell, np.uint64(d) + c]
                sine = rings.sine[w, shell, np.uint64(d) + c]
                even[to_even + c] = cosine * real - sine * imaginary
                odd[to_odd + c] = cosine * imaginary + sine * real
        column += size


@compiled
def _turn(odd, turns):
    for j in range(1, len(odd) // ROW):
        cosine, sine, row = turns[0, j], turns[1, j], np.uint64(j * ROW)
        for c in range(row, row + REAL):
            real, imaginary = odd[c], odd[c + REAL]
            odd[c] = real * cosine - imaginary * sine
            odd[c + REAL] = real * sine + imaginary * cosine


@compiled
def _even_frequencies(even, series, shell, spectra, columns):
    """Frequencies m and M - m of the series of a real one's even and odd terms; those of the
    latter are turned, and all are conjugated."""
    n, half, (at, size) = len(series.rows), even.dtype.type(0.5), columns
    for m in range(n // 2 + 1):
        low, high = 2 * m, 2 * (n - m)
        row, mirrored = np.uint64(series.rows[m] * ROW), np.uint64(series.rows[(n - m) % n] * ROW)
        cosine, sine = half * series.turns[0, low], half * series.turns[1, low]
        for c in range(size):
            real0, imaginary0 = even[row + c], even[row + REAL + c]
            real1, imaginary1 = even[mirrored + c], even[mirrored + REAL + c]
            real, imaginary = half * (real0 + real1), half * (imaginary0 - imaginary1)
            odd_real, odd_imaginary = imaginary0 + imaginary1, real1 - real0
            turned_real = cosine * odd_real - sine * odd_imaginary
            turned_imaginary = sine * odd_real + cosine * odd_imaginary
            spectra[low, 0, shell, at + c] = real + turned_real
            spectra[low, 1, shell, at + c] = -imaginary - turned_imaginary
            spectra[high, 0, shell, at + c] = real - turned_real
            spectra[high, 1, shell, at + c] = imaginary - turned_imaginary


@compiled
def _odd_frequencies(odd, series, shell, spectra, columns):
    n, (at, size) = len(series.rows), columns
    for m in range(n):
        q = min(4 * m + 1, 4 * n - 4 * m - 1)
        row, sign = np.uint64(series.rows[m] * ROW), odd.dtype.type(1 if q == 4 * m + 1 else -1)
        for c in range(size):
            spectra[q, 0, shell, at + c] = sign * odd[row + REAL + c]
            spectra[q, 1, shell, at + c] = odd[row + c]


@compiled
def expand(shells, first, rings, series, spectra, at):
    """Displace and transform COLUMNS columns.

    Parameters
    ----------
    shells : (int, int)
        The first, and the one after the last.
    first : int
        The first column, counted over (template, displacement); after the last one come zeros.
    rings : Rings
    series : Series
    spectra : array, real, (W/2 + 1, 2, shell, column)
        Gets them, from column `at` on, as far as it has columns.
    at : int
    """
    n_columns = rings.real.shape[1] * rings.cosine.shape[2] - first
    columns = np.uint64(at), np.uint64(min(COLUMNS, spectra.shape[3] - at))
    size = len(series.rows) * ROW
    even, odd = np.zeros(size, spectra.dtype), np.zeros(size, spectra.dtype)
    spare = np.empty(size, spectra.dtype)
    for shell in range(shells[0], shells[1]):
        _displace(rings, shell, first, min(COLUMNS, n_columns), even, odd)
        _turn(odd, series.turns)
        for chunk in (even, odd):
            transform(chunk, spare, series.radices, series.waves)
        _even_frequencies(even, series, shell, spectra, columns)
        _odd_frequencies(odd, series, shell, spectra, columns)


@compiled
def project(share, matrices, spectra, coefficients, at):
    """Multiply COLUMNS columns with the matrices of some angular frequencies.

    Parameters
    ----------
    share : (int, int)
        The first angular frequency, and the one after the last.
    matrices : array, real, (q, rank, shell)
        The number of shells is divisible by four.
    spectra : array, real, (q, 2, shell, COLUMNS)
    coefficients : array, real, (q, 2, rank, column)
        Gets them, from column `at` on, as far as it has columns.
    at : int
    """
    n_shells, rank = spectra.shape[2], matrices.shape[1]
    some, at = np.uint64(min(COLUMNS, coefficients.shape[3] - at)), np.uint64(at)
    sums, row, rows = np.empty(3 * ROW, spectra.dtype), np.uint64(ROW), np.uint64(2 * ROW)
    for q in range(share[0], share[1]):
        # three rows of a matrix by four shells at a time, real and imaginary parts of all columns:
        # what is read is used again while it is in registers
        for r0 in range(0, rank, 3):
            r1, r2 = min(r0 + 1, rank - 1), min(r0 + 2, rank - 1)
            sums[:] = 0
            for k in range(0, n_shells, 4):
                a0, a1 = matrices[q, r0, k], matrices[q, r0, k + 1]
                a2, a3 = matrices[q, r0, k + 2], matrices[q, r0, k + 3]
                b0, b1 = matrices[q, r1, k], matrices[q, r1, k + 1]
                b2, b3 = matrices[q, r1, k + 2], matrices[q, r1, k + 3]
                c0, c1 = matrices[q, r2, k], matrices[q, r2, k + 1]
                c2, c3 = matrices[q, r2, k + 2], matrices[q, r2, k + 3]
                for part in range(2):
                    to = np.uint64(part) * REAL
                    for c in range(REAL):
                        x0, x1 = spectra[q, part, k, c], spectra[q, part, k + 1, c]
                        x2, x3 = spectra[q, part, k + 2, c], spectra[q, part, k + 3, c]
                        sums[to + c] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                        sums[to + row + c] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                        sums[to + rows + c] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            for part in range(2):
                to = np.uint64(part) * REAL
                for c in range(some):
                    coefficients[q, part, r0, at + c] = sums[to + c]
                    coefficients[q, part, r1, at + c] = sums[to + row + c]
                    coefficients[q, part, r2, at + c] = sums[to + rows + c]
