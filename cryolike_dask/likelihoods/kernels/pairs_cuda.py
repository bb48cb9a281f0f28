"""Rotations, norms and reductions in one Triton kernel: products of spectra are read once, and of
each pair of an image and a template a few numbers are written.

A program takes one pair after the other, and of each a block of displacements at a time. The
transform of `rotations` is four products of n x n matrices, n = (W + 2) // 4: where four divides W,
the quarter turn and q = W/2 have factors of +-1 only and need no row or column of their own, so
that a power of two leaves no product padded.

Both sides of a product are split into two half-precision numbers, high and low, and three products
of tensor cores with sums in single precision are one of float32: what is left out is 2^-22 of each
term. Matrices are split once. Up to W = 256 they are 64 KB: they are loaded before the first pair,
and stay in shared memory for all (as compiled, tensor cores take them from there in every turn of
the loop: `wgmma` by its descriptors, `mma.sync` by `ldmatrix`). For larger W a part of them is read
for each block, from the cache. Products of a pair are brought into the range of half precision by a
power of two near the pair's norm, as no product of spectra is larger than its inverse, by Cauchy
and Schwarz.

Norms do not depend on displacements, so that only the largest and smallest values over a block need
them. They bound its largest log-likelihood, too: a block that stays below what counts for the
image, or for the pair so far, is not summed. Almost none is, once an image has found where it fits:
the exponentials that are left out would be two thirds of all instructions.

Everything is float32 but the terms of a pair, and likelihoods are relative to the pair's largest
height. What that costs a log-likelihood is twice the relative error of v times exponent v^2 scale,
and up to 3e-8 exponent where v^2 scale is above SERIES_BELOW.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

SERIES_BELOW = tl.constexpr(0.05)
"""Squared correlation below which five terms of -log(1 - x) are exact to single precision."""
ROUNDING = tl.constexpr(torch.finfo(torch.float32).eps)
SLACK = tl.constexpr(1.0)
"""Nat by which log-likelihoods in single precision may be off without harm to what counts."""
LARGEST = tl.constexpr(2.0**9)
"""Largest product of spectra after scaling, about: half precision goes to 2^16, for those that
Cauchy and Schwarz do not hold for, as where an offset is far larger than what is beside it."""
EXPONENT_BITS = tl.constexpr(0x7F800000)
BEYOND = tl.constexpr(2**31 - 1)
"""Index of no pose."""
NOTHING = tl.constexpr(-1e30)
"""Height of rows that are none."""


# otherwise compiled anew wherever one of these is 1 or a multiple of 16, as in a last tile
@triton.jit(
    do_not_specialize=[
        "n_parts",
        "n_splits",
        "n_images",
        "n_templates",
        "n_displacements",
        "column_steps",
        "row_stride",
        "pair_stride",
    ]
)
def summarise_pairs(
    products,
    matrices,
    shifts,
    norms,
    scales,
    heights,
    exponents,
    references,
    to_beat,
    best_of_parts,
    fit_of_parts,
    sum_of_parts,
    pose_of_parts,
    n_parts,
    n_splits,
    n_images,
    n_templates,
    n_displacements,
    column_steps,
    image_columns,
    row_stride,
    pair_stride,
    reach,
    half: tl.constexpr,
    column_step: tl.constexpr,
    block_rows: tl.constexpr,
    width: tl.constexpr,
    depth: tl.constexpr,
    stages: tl.constexpr,
):
    """Reduce pairs, or parts of their displacements: best, fit, summed log-likelihood, and where
    the best is."""
    # sizes that depend on W are constants: a run has one W, and shapes of blocks must be known when
    # they are compiled
    n: tl.constexpr = (half + 1) // 2
    n_rows: tl.constexpr = (n + block_rows - 1) // block_rows * block_rows
    n_q: tl.constexpr = (n + depth - 1) // depth * depth
    quartered: tl.constexpr = half % 2 == 0
    kept: tl.constexpr = n_rows == block_rows and n_q == depth
    narrow: tl.constexpr = column_step == 1
    rows, some_q = tl.arange(0, block_rows), tl.arange(0, depth)
    matrix = matrices + rows[:, None] * n_q + some_q[None, :]
    if kept:
        cosines_even = _both(matrix, 0, n_rows * n_q)
        sines_even = _both(matrix, 1, n_rows * n_q)
        cosines_odd = _both(matrix, 2, n_rows * n_q)
        sines_odd = _both(matrix, 3, n_rows * n_q)
    column_stride = column_steps * column_step
    columns = tl.cast(n_images, tl.int64) * image_columns
    n_blocks = tl.cdiv(n_displacements, width)
    of_part = tl.cdiv(n_blocks, n_splits)
    for part in range(tl.program_id(0), n_parts, tl.num_programs(0)):
        pair = tl.cast(part // n_splits, tl.int64)
        image, template = pair // n_templates, pair % n_templates
        of_pair = products + image * image_columns + template * column_stride
        exponent = tl.load(exponents + image).to(tl.float32)
        pair_terms = pair * pair_stride
        mirror_terms = pair_terms + (half - n) * row_stride
        highest = -float("inf")
        smallest = float("inf")
        for first in tl.static_range(0, n_rows, block_rows):
            at, valid = (first + rows) * row_stride, first + rows < n
            height = tl.load(heights + pair_terms + at, valid, -float("inf"))
            height_1 = tl.load(heights + mirror_terms + at, valid, -float("inf"))
            highest = tl.maximum(highest, tl.max(tl.maximum(height, height_1), 0))
            scale = tl.load(scales + pair_terms + at, valid, float("inf"))
            scale_1 = tl.load(scales + mirror_terms + at, valid, float("inf"))
            smallest = tl.minimum(smallest, tl.min(tl.minimum(scale, scale_1), 0))
        # a power of two, so that scaling rounds nothing
        unit = tl.sqrt(smallest).to(tl.float32).to(tl.int32, bitcast=True) & EXPONENT_BITS
        unit = unit.to(tl.float32, bitcast=True) * LARGEST
        shift = tl.load(shifts + pair) * unit
        terms = norms, scales, heights
        if n_rows == block_rows:
            of_rows = _rows(terms, pair_terms, rows, rows < n, row_stride, unit, highest)
            mirrored = (rows < n) & (rows >= half % 2)
            of_mirror = _rows(terms, mirror_terms, rows, mirrored, row_stride, unit, highest)
        reference = (tl.load(references + pair) - highest).to(tl.float32) - SLACK
        best_of_rows = tl.full((block_rows,), -float("inf"), tl.float32)
        far_of_rows = tl.zeros((block_rows,), tl.float32)
        peak, total = tl.full((), -float("inf"), tl.float32), tl.full((), 0.0, tl.float32)
        pose, beaten = tl.full((), 0, tl.int32), tl.load(to_beat + image)
        start = part % n_splits * of_part
        for block in tl.range(start, tl.minimum(start + of_part, n_blocks)):
            # a last block begins earlier, so that none is left half empty
            column = block * width
            if not narrow:
                column = tl.multiple_of(tl.minimum(column, column_stride - width), column_step)
            d = column + tl.arange(0, width)
            inside = (d < n_displacements)[None, :]
            spectrum = of_pair + column + tl.arange(0, width)[None, :]
            for first in tl.static_range(0, n_rows, block_rows):
                w = first + rows
                mirrored = (w < n) & (w >= half % 2)
                if n_rows > block_rows:
                    of_rows = _rows(terms, pair_terms, w, w < n, row_stride, unit, highest)
                    of_mirror = _rows(terms, mirror_terms, w, mirrored, row_stride, unit, highest)
                zeros = tl.zeros((block_rows, width), tl.float32)
                cosine_even, sine_even, cosine_odd, sine_odd = zeros, zeros, zeros, zeros
                quarter = tl.zeros((depth, width), tl.float32)
                if quartered:
                    # q = W/2, whose cosine is 1, -1, 1 ..., is added to whatever comes
                    nyquist = unit * _load(spectrum + n * 4 * columns, inside, not narrow)
                    cosine_even = (1 - 2 * (w % 2)).to(tl.float32)[:, None] * nyquist
                for start_q in tl.range(0, n_q, depth, num_stages=stages):
                    k = start_q + some_q  # q = 2 k and 2 k + 1
                    product = spectrum + k[:, None] * (4 * columns)
                    # beyond n and the last displacement there may be anything, NaN too: read as 0
                    here = (k < n)[:, None]
                    if narrow:
                        here = here & inside
                    whole: tl.constexpr = n == n_q and not narrow
                    if not kept:
                        tile = matrix + first * n_q + start_q
                        cosines_even = _both(tile, 0, n_rows * n_q)
                        sines_even = _both(tile, 1, n_rows * n_q)
                        cosines_odd = _both(tile, 2, n_rows * n_q)
                        sines_odd = _both(tile, 3, n_rows * n_q)
                    values = unit * _load(product, here, whole)
                    if quartered:
                        # a quarter turn further cosines of even q are 1, -1, 1 ..., so that a sum
                        # does: a row more would double the rows of the matrices
                        twice = (2 - 4 * (k % 2)).to(tl.float32)[:, None]
                        quarter += tl.where(k[:, None] == 0, 1.0, twice) * values
                    cosine_even = _product(cosines_even, values, cosine_even)
                    values = unit * _load(product + columns, here, whole)
                    sine_even = _product(sines_even, values, sine_even)
                    values = unit * _load(product + 2 * columns, here, whole)
                    cosine_odd = _product(cosines_odd, values, cosine_odd)
                    values = unit * _load(product + 3 * columns, here, whole)
                    sine_odd = _product(sines_odd, values, sine_odd)
                # mirrored, w -> -w, sines change sign; half a turn further, odd q do
                even, odd = cosine_even - sine_even, cosine_odd - sine_odd
                mirror_even, mirror_odd = cosine_even + sine_even, cosine_odd + sine_odd
                if quartered:
                    # row 0 is its own mirror image: the quarter turn takes that place, whose odd q
                    # are in the row of the sines that is 0 otherwise
                    zeroth = w[:, None] == 0
                    quarter_even = tl.sum(quarter, 0)[None, :] + (1 - 2 * (n % 2)) * nyquist
                    mirror_even = tl.where(zeroth, quarter_even, mirror_even)
                    odd = tl.where(zeroth, cosine_odd, odd)
                    mirror_odd = tl.where(zeroth, sine_odd, mirror_odd)
                # v is even + odd here, and even - odd half a turn further, with the same norms: the
                # larger of both is even + |odd|, and the larger |v| |even| + |odd|
                signs, mirror_signs = odd, mirror_odd
                if quartered:  # a quarter turn further sines of odd q are taken away
                    mirror_signs = tl.where(zeroth, -sine_odd, mirror_odd)
                odd, mirror_odd = tl.abs(odd), tl.abs(mirror_odd)
                found = _extremes(even, odd, of_rows, shift, inside, narrow)
                mirror = _extremes(mirror_even, mirror_odd, of_mirror, shift, inside, narrow)
                best_of_rows = tl.maximum(best_of_rows, tl.where(w < n, found[0], -float("inf")))
                best = tl.where(mirrored, mirror[0], -float("inf"))
                best_of_rows = tl.maximum(best_of_rows, best)
                best = tl.max(tl.maximum(best, tl.where(w < n, found[0], -float("inf"))), 0)
                # where is asked for few pairs: those that fit an image better than all before
                if best > beaten:
                    beaten = best
                    index = tl.minimum(d, n_displacements - 1)[None, :] * (2 * half)
                    position = _position(even, signs, of_rows, shift, w, index, best, half)
                    pose = _least(position, (w < n)[:, None] & inside)
                    # the mirror image of row 0 is the quarter turn
                    turned = tl.where(w == 0, half // 2, 2 * half - w)
                    position = _position(
                        mirror_even, mirror_signs, of_mirror, shift, turned, index, best, half
                    )
                    pose = tl.minimum(pose, _least(position, mirrored[:, None] & inside))
                far_of_rows = tl.maximum(far_of_rows, tl.maximum(found[1], mirror[1]))
                least = tl.maximum(reference, peak - reach)
                above = _above(found[1], of_rows[2], exponent, least)
                above = tl.maximum(above, _above(mirror[1], of_mirror[2], exponent, least))
                # a branch for the whole block
                if tl.max(above, 0) >= 0:
                    # and another: the series is cheaper than log, and exact where log(1 - x)
                    # rounds x away
                    far = tl.max(tl.maximum(found[1], mirror[1]), 0)
                    small = far * far < SERIES_BELOW
                    tops = _log_likelihood(found[1], of_rows[2], exponent, small)
                    mirror_tops = _log_likelihood(mirror[1], of_mirror[2], exponent, small)
                    # relative to the highest value so far, and rescaled when a higher one
                    # comes: exp stays between 0 and 1 whatever the log-likelihoods are
                    top = tl.maximum(peak, tl.max(tl.maximum(tops, mirror_tops), 0))
                    scalars = exponent, top, small
                    sums = _likelihoods(even, odd, of_rows, scalars)
                    sums += _likelihoods(mirror_even, mirror_odd, of_mirror, scalars)
                    counted = (d >= block * width)[None, :] & inside
                    total = total * tl.exp(peak - top) + tl.sum(tl.where(counted, sums, 0.0))
                    peak = top
        tl.store(best_of_parts + part, tl.max(best_of_rows, 0))
        tl.store(pose_of_parts + part, pose)
        root = tl.max(far_of_rows, 0).to(tl.float64)
        tl.store(fit_of_parts + part, root * root)
        # a sum that rounds to nothing beside another part's highest value has a logarithm too;
        # where nothing is within reach, the peak is minus infinity, and so is the sum
        summed = peak.to(tl.float64) + tl.log(tl.maximum(total, 1e-37).to(tl.float64))
        tl.store(sum_of_parts + part, highest + summed)


@triton.jit
def _both(matrix, which: tl.constexpr, size: tl.constexpr):
    """High and low parts of one of the four matrices."""
    return tl.load(matrix + 2 * which * size), tl.load(matrix + (2 * which + 1) * size)


@triton.jit
def _load(at, here, whole: tl.constexpr):
    if whole:
        return tl.load(at)
    else:
        return tl.load(at, here, 0.0)


@triton.jit
def _product(matrix, values, total):
    """Add a product in single precision to a total."""
    high, low = matrix
    values_high = values.to(tl.float16)
    values_low = (values - values_high.to(tl.float32)).to(tl.float16)
    total = tl.dot(low, values_high, total)
    total = tl.dot(high, values_low, total)
    return tl.dot(high, values_high, total)


@triton.jit
def _rows(terms, of_pair, w, valid, row_stride, unit, highest):
    """Norm and root of scale of scaled values, and height above the highest; padding has none."""
    norms, scales, heights = terms
    at = of_pair + w * row_stride
    norm = tl.load(norms + at, valid, 0.0) / unit
    root = tl.sqrt(tl.load(scales + at, valid, 0.0)).to(tl.float32) / unit
    height = (tl.load(heights + at, valid, highest + NOTHING) - highest).to(tl.float32)
    return norm, root, height


@triton.jit
def _extremes(even, odd, of_rows, shift, inside, narrow: tl.constexpr):
    """Of each row the best correlation, and the largest |v| root of scale."""
    norm, root, _ = of_rows
    high = even + odd
    if narrow:
        high = tl.where(inside, high, -float("inf"))
    high = tl.max(high, 1)
    return (high + shift) * norm, tl.maximum(high, tl.max(odd - even, 1)) * root


@triton.jit
def _position(even, odd, of_rows, shift, rotation, at, best, half: tl.constexpr):
    """Where a pose is the best: of a rotation, or of half a turn further; else beyond all."""
    norm = of_rows[0][:, None]
    opposite = (rotation + half) % (2 * half)
    here = tl.where((even + odd + shift) * norm == best, rotation[:, None] + at, BEYOND)
    there = tl.where((even - odd + shift) * norm == best, opposite[:, None] + at, BEYOND)
    return tl.minimum(here, there)


@triton.jit
def _least(positions, valid):
    return tl.min(tl.min(tl.where(valid, positions, BEYOND), 1), 0)


@triton.jit
def _above(far, height, exponent, least):
    """Not negative, if a log-likelihood can reach the least that counts: -log(1 - x) is no more
    than x (1 - x / 2) / (1 - x)."""
    x = tl.minimum(far * far, 1 - ROUNDING)
    return x * (1 - 0.5 * x) * exponent + (x - 1) * (least - height)


@triton.jit
def _likelihoods(even, odd, of_rows, scalars):
    """Likelihoods of w and half a turn further, relative to the top."""
    exponent, top, small = scalars
    root, height = of_rows[1][:, None], (of_rows[2] - top)[:, None]
    even = tl.abs(even)
    far = tl.exp(_log_likelihood((even + odd) * root, height, exponent, small))
    return far + tl.exp(_log_likelihood((even - odd) * root, height, exponent, small))


@triton.jit
def _log_likelihood(correlation, height, exponent, small):
    """height - exponent log(1 - correlation^2)."""
    # rounding may bring a correlation to 1, where the logarithm has no value
    x = tl.minimum(correlation * correlation, 1 - ROUNDING)
    log = -x * (1 + x * (0.5 + x * (1 / 3 + x * (0.25 + x * 0.2)))) if small else tl.log(1 - x)
    return height - exponent * log
