"""Norms and reductions on a CPU, in loops that are compiled for the machine.

They start from the four products of `rotations.quarter_turn`: cosines and sines of even and of odd angular
frequencies. With the even part e = cosine -+ sine and the odd part o, a row and its mirror image hold e + o, and half
a turn further e - o. The larger is e + |o| and the smaller e - |o|: no sum is stored. Then the likelihood is summed
over the rows that come within reach. In torch each sum, maximum and exponential is a pass over the cache, which takes
three times as long together.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.extending import overload

SERIES_BELOW = 0.01
"""Squared correlation below which eight terms of -log(1 - x) are exact in double precision, and three in single."""
FAST_MATH = {"nnan", "nsz", "arcp", "contract", "reassoc"}


def compiled(function: Any) -> Any:
    """Compile a function; the machine code is kept for the next process if there is a folder to keep it in."""
    try:
        return numba.njit(cache=True, nogil=True, fastmath=FAST_MATH)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=FAST_MATH)(function)


def likelihood(above, exponent, x):
    """exp(above - exponent log(1 - x)) for small x and a result not far above 1; for compiled functions only."""
    raise NotImplementedError


@overload(likelihood, jit_options={"fastmath": FAST_MATH})
def _likelihood_of_dtype(above, exponent, x):
    """Series, and 2^n made of its bits: without a branch or a call, so that loops over it are vectorised."""
    single = x == numba.float32
    real, integer, n_bits, bias = (np.float32, np.int32, 23, 127) if single else (np.float64, np.int64, 52, 1023)
    half, one, log2_e, ln2 = real(0.5), real(1), real(1 / math.log(2)), real(math.log(2))
    l2, l3, l4, l5, l6, l7, l8 = (real(1 / k) for k in range(2, 9))
    e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12 = (real(1 / math.factorial(k)) for k in range(2, 13))
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


@compiled
def _row(products, w, i, columns):
    """The four products of a row: each slice is contiguous, and typed so, which loops over it need to be vectorised."""
    even = products[0, w, i, columns], products[1, w, i, columns]
    return *even, products[2, w, i, columns], products[3, w, i, columns]


@compiled
def _extremes(cosine_even, sine_even, cosine_odd, sine_odd):
    """The largest and the smallest v of a row, then of its mirror image."""
    start = cosine_even.dtype.type(np.inf)
    high, low, mirrored_high, mirrored_low = -start, start, -start, start
    for d in range(len(cosine_even)):
        even, odd = cosine_even[d] - sine_even[d], abs(cosine_odd[d] - sine_odd[d])
        high, low = max(high, even + odd), min(low, even - odd)
        even, odd = cosine_even[d] + sine_even[d], abs(cosine_odd[d] + sine_odd[d])
        mirrored_high, mirrored_low = max(mirrored_high, even + odd), min(mirrored_low, even - odd)
    return high, low, mirrored_high, mirrored_low


@compiled
def _sum_of_small(cosine_even, sine_even, cosine_odd, sine_odd, sign, above, exponent, scale):
    """Sum exp(above - exponent log(1 - v^2 scale)) over a row, all v^2 scale small."""
    real = cosine_even.dtype.type
    sign, above, exponent, root, total = real(sign), real(above), real(exponent), real(math.sqrt(scale)), real(0)
    for d in range(len(cosine_even)):
        even, odd = cosine_even[d] + sign * sine_even[d], cosine_odd[d] + sign * sine_odd[d]
        total += likelihood(above, exponent, ((even + odd) * root) ** 2)
        total += likelihood(above, exponent, ((even - odd) * root) ** 2)
    return float(total)


@compiled
def _sum_of_large(cosine_even, sine_even, cosine_odd, sine_odd, sign, above, exponent, scale, least, floor):
    """Sum the same over those of a row from a v^2 scale on, in double precision."""
    sign, total = cosine_even.dtype.type(sign), 0.0
    for d in range(len(cosine_even)):
        even, odd = cosine_even[d] + sign * sine_even[d], cosine_odd[d] + sign * sine_odd[d]
        for v in (even + odd, even - odd):
            x = float(v) ** 2 * scale
            if x >= least:
                total += math.exp(above - exponent * math.log1p(-min(x, floor)))
    return total


@compiled
def reduce_pairs(
    pairs,
    products,
    first_image,
    n_displacements,
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
    products : array, real, (4, W // 4 + 1, image, column)
        Of `rotations.quarter_turn`, of a few images.
    first_image : int
        The first of these.
    exponent, shift, norm, scale, height
        As in `Tile`.
    floor : float
        The largest v^2 scale that counts.
    reference : array, float64, (image, template)
        Log-likelihoods below may be neglected; where it is infinite nothing is summed.
    best, fit, summed : array, (image, template)
        Get what `Tile.summarise` gives; summed is left as it is where no pose is within reach.
    """
    n_rows, _, n_templates = norm.shape
    n = products.shape[1]
    neglected = math.log(2 * n_rows * n_displacements / (1 - floor))
    fits, tops = np.empty(n_rows), np.empty(n_rows)
    for pair in range(pairs[0], pairs[1]):
        i, j = pair // n_templates, pair % n_templates
        columns = slice(j * n_displacements, (j + 1) * n_displacements)
        best[i, j], fit[i, j] = -np.inf, 0
        for w in range(n):
            found = _extremes(*_row(products, w, i - first_image, columns))
            is_its_own_mirror_image = w == 0 or n + w - 1 >= n_rows
            for k in range(1 if is_its_own_mirror_image else 2):
                row, high, low = n + w - 1 if k else w, found[2 * k], found[2 * k + 1]
                best[i, j] = max(best[i, j], (high + shift[i, j]) * norm[row, i, j])
                fits[row] = float(max(high, -low)) ** 2 * scale[row, i, j]
                fit[i, j] = max(fit[i, j], fits[row])
        if reference[i, j] == np.inf:
            continue
        peak = -np.inf
        for row in range(n_rows):
            tops[row] = height[row, i, j] - exponent * math.log1p(-min(fits[row], floor))
            peak = max(peak, tops[row])
        least = max(reference[i, j], peak - neglected)
        if peak < least:
            continue
        total = 0.0
        for row in range(n_rows):
            if tops[row] < least:
                continue
            w, sign = (row, -1) if row < n else (row - n + 1, 1)
            terms = (
                *_row(products, w, i - first_image, columns),
                sign,
                height[row, i, j] - peak,
                exponent,
                scale[row, i, j],
            )
            if fits[row] < SERIES_BELOW:
                total += _sum_of_small(*terms)
            else:
                within_reach = 1 - math.exp(min((height[row, i, j] - least) / exponent, 0))
                total += _sum_of_large(*terms, within_reach, floor)
        summed[i, j] = peak + math.log(total)
