"""Rotations, norms and reductions in one Triton kernel: products of spectra are read once, a few
values are written.

A program has one image, one template and up to 32 displacements. The transform of `rotations` is
four products of n x n matrices, n = (W + 2) // 4: where four divides W, the quarter turn and q =
W/2 have factors of +-1 only and are left to sums, so that a power of two leaves no product padded.
Up to W = 512 all n rows are one block: products are read exactly once, 16 q at a time, into four
accumulators of rows x displacements, 64 registers a thread. As compiled for an H100 by Triton 3.6 a
program takes 164 to 168, so that three are on a multiprocessor at W = 128 and 256, one at W = 512,
and none spill; by Triton 3.9 it takes 217 at W = 256, and two are. Larger W take several blocks of
128 rows, read the products again, from the cache, for each, and spill (18 words). GPUs before sm_80
have no tensor cores for TF32: other units do the same there.

Everything is float32, and likelihoods are relative to the pair's largest height. What that costs a
log-likelihood is twice the relative error of v times exponent v^2 scale, and up to 3e-8 exponent
where v^2 scale is above SERIES_BELOW.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryolike_dask.likelihoods.kernels.rotations import Folding

FEWEST = 16
"""Rows, q and displacements of a block, at least."""
MOST_ROWS = 128
SERIES_BELOW = tl.constexpr(0.05)
"""Squared correlation below which five terms of -log(1 - x) are exact to single precision."""
ROUNDING = tl.constexpr(torch.finfo(torch.float32).eps)


# otherwise compiled anew wherever one of these is 1 or a multiple of 16, as in a last tile
@triton.jit(do_not_specialize=["n_pairs", "n_templates", "n_displacements"])
def _summarise_block(
    products,
    matrices,
    by_rows,
    shifts,
    exponents,
    parts,
    n_pairs,
    n_templates,
    n_displacements,
    image_columns,
    half: tl.constexpr,
    block_rows: tl.constexpr,
    width: tl.constexpr,
    step: tl.constexpr,
    integrate: tl.constexpr,
    precision: tl.constexpr,
):
    """Reduce a block of displacements of one pair: best, root of the fit, peak, and sum relative
    to the peak."""
    # sizes that depend on W are constants: a run has one W, and shapes of blocks must be known when
    # they are compiled
    n: tl.constexpr = (half + 1) // 2
    n_rows: tl.constexpr = (n + block_rows - 1) // block_rows * block_rows
    n_q: tl.constexpr = (n + step - 1) // step * step
    quartered: tl.constexpr = half % 2 == 0
    block, n_blocks = tl.program_id(0), tl.cdiv(n_displacements, width)
    pair = (block // n_blocks).to(tl.int64)
    d = block % n_blocks * width + tl.arange(0, width)
    inside = d < n_displacements
    columns = tl.cast(n_pairs // n_templates, tl.int64) * image_columns
    spectrum = (
        products + pair // n_templates * image_columns + pair % n_templates * n_displacements + d
    )
    shift, exponent = tl.load(shifts + pair), tl.load(exponents + pair // n_templates)
    # one program sees all rotations of its displacements, so that four numbers are all that it
    # writes
    best, root, peak, total = -float("inf"), 0.0, -float("inf"), 0.0
    for first in range(0, n_rows, block_rows):
        w = first + tl.arange(0, block_rows)
        zeros = tl.zeros((block_rows, width), tl.float32)
        few_zeros = tl.zeros((step, width), tl.float32)
        cosine_even, sine_even, cosine_odd, sine_odd = zeros, zeros, zeros, zeros
        quarter_even, quarter_odd = few_zeros, few_zeros
        # each product is read once for all rows of a block: the transform costs little traffic
        for start in range(0, n_q, step):
            k = start + tl.arange(0, step)  # q = 2 k and 2 k + 1
            # beyond n and the last displacement there may be anything, NaN too: read as 0
            here = (k < n)[:, None] & inside[None, :]
            product = spectrum[None, :] + k[:, None] * (4 * columns)
            matrix = matrices + w[:, None] * n_q + k[None, :]
            even_real = tl.load(product, here, 0.0)
            cosine_even = tl.dot(tl.load(matrix), even_real, cosine_even, precision)
            even_imaginary = tl.load(product + columns, here, 0.0)
            sine_even = tl.dot(tl.load(matrix + n_rows * n_q), even_imaginary, sine_even, precision)
            odd_real = tl.load(product + 2 * columns, here, 0.0)
            cosine_odd = tl.dot(tl.load(matrix + 2 * n_rows * n_q), odd_real, cosine_odd, precision)
            odd_imaginary = tl.load(product + 3 * columns, here, 0.0)
            sine_odd = tl.dot(
                tl.load(matrix + 3 * n_rows * n_q), odd_imaginary, sine_odd, precision
            )
            # at a quarter turn cosines of even q are 1, -1, 1 ... and sines of odd q too, so that
            # sums do: a row more would double the rows of the matrices
            if quartered:
                twice = (2 - 4 * (k % 2)).to(tl.float32)[:, None]
                quarter_even += tl.where(k[:, None] == 0, 1.0, twice) * even_real
                quarter_odd += twice * odd_imaginary
        # mirrored, w -> -w, sines change sign; half a turn further, odd q do
        even, odd = cosine_even - sine_even, cosine_odd - sine_odd
        mirrored_even, mirrored_odd = cosine_even + sine_even, cosine_odd + sine_odd
        if quartered:  # row 0 is its own mirror image: the quarter turn takes that place
            nyquist = tl.load(spectrum + n * 4 * columns, inside, 0.0)[None, :]
            alternating = (1 - 2 * (w % 2)).to(tl.float32)[:, None] * nyquist
            even += alternating
            quarter = tl.sum(quarter_even, 0)[None, :] + (1 - 2 * (n % 2)) * nyquist
            mirrored_even = tl.where(w[:, None] == 0, quarter, mirrored_even + alternating)
            mirrored_odd = tl.where(w[:, None] == 0, tl.sum(quarter_odd, 0)[None, :], mirrored_odd)
        # both reflections of a row are compared while they are in registers; row 0 is its own, and
        # counts once unless the quarter turn has taken its place
        at, stride = by_rows + pair * half + w, tl.cast(n_pairs, tl.int64) * half
        best_0, far_0, near_0, height_0 = _compare(even, odd, at, stride, w < n, inside, shift)
        even, odd, at, rows = mirrored_even, mirrored_odd, at + half - n, (w < n) & (w >= half % 2)
        best_1, far_1, near_1, height_1 = _compare(even, odd, at, stride, rows, inside, shift)
        best = tl.maximum(best, tl.max(tl.maximum(best_0, best_1)))
        root = tl.maximum(root, tl.max(tl.maximum(far_0, far_1)))
        if integrate:
            # relative to the highest value so far, and rescaled when a higher one comes: exp stays
            # between 0 and 1 whatever the log-likelihoods are. A branch for the whole block: the
            # series is cheaper than log, and exact where log(1 - x) rounds x away
            small = root * root < SERIES_BELOW
            top_0 = _log_likelihood(far_0, height_0, exponent, small)
            low_0 = _log_likelihood(near_0, height_0, exponent, small)
            top_1 = _log_likelihood(far_1, height_1, exponent, small)
            low_1 = _log_likelihood(near_1, height_1, exponent, small)
            highest = tl.maximum(peak, tl.max(tl.maximum(top_0, top_1)))
            likelihoods = tl.exp(top_0 - highest) + tl.exp(low_0 - highest)
            likelihoods += tl.exp(top_1 - highest) + tl.exp(low_1 - highest)
            total, peak = total * tl.exp(peak - highest) + tl.sum(likelihoods), highest
    # blocks of displacements are put together by torch: fewer numbers than are worth atomics, and
    # in an order that is the same in every run
    part = parts + block.to(tl.int64) * 4
    tl.store(part, best)
    tl.store(part + 1, root)
    tl.store(part + 2, peak)
    tl.store(part + 3, total)


@triton.jit
def _compare(even, odd, at, stride, rows, inside, shift):
    """Larger correlation of w and half a turn further, the larger and the smaller |v| root of
    scale, and height."""
    norm, root = tl.load(at, rows, 0.0)[:, None], tl.load(at + stride, rows, 0.0)[:, None]
    height = tl.load(at + 2 * stride, rows, 0.0)[:, None]
    # v is even + odd here, and even - odd half a turn further: norms of both are the same, so that
    # the larger of both is even + |odd|, and the larger |v| is |even| + |odd|
    odd = tl.abs(odd)
    # padding must neither win nor be summed
    valid, nothing = rows[:, None] & inside[None, :], -float("inf")
    best = tl.where(valid, (even + odd + shift) * norm, nothing)
    height = tl.where(valid, height, nothing)
    return best, (tl.abs(even) + odd) * root, (tl.abs(even) - odd) * root, height


@triton.jit
def _log_likelihood(correlation, height, exponent, small):
    """height - exponent log(1 - correlation^2)."""
    # rounding may bring a correlation to 1, where the logarithm has no value
    x = tl.minimum(correlation * correlation, 1 - ROUNDING)
    log = -x * (1 + x * (0.5 + x * (1 / 3 + x * (0.25 + x * 0.2)))) if small else tl.log(1 - x)
    return height - exponent * log


class TileTerms(NamedTuple):
    """Terms that the poses of a tile are computed from, as in `Tile`.

    Attributes
    ----------
    products : Tensor, float32, contiguous
        Columns beyond (template, displacement) have any content.
    n_displacements : int
    shift, norm, scale, height : Tensor
        Norms are positive.
    exponents : Tensor, (image,)
    """

    products: Tensor
    n_displacements: int
    shift: Tensor
    norm: Tensor
    scale: Tensor
    height: Tensor
    exponents: Tensor


def summarise_fused(
    terms: TileTerms,
    folding: Folding,
    *,
    integrate: bool,
    precision: str = "tf32x3",
) -> tuple[Tensor, Tensor, Tensor]:
    """Transform products of spectra to rotations, and reduce over displacements and rotations.

    Parameters
    ----------
    terms : TileTerms
    folding : Folding
        In float32, on the device of the products.
    integrate : bool
        Sum the likelihood.
    precision : str
        Precision of products of matrices: "tf32x3", on tensor cores, or "ieee".

    Returns
    -------
    best : Tensor, float32, (image, template)
        The largest (v + shift) norm; by rounding it may be beyond 1.
    fit : Tensor, float64, (image, template)
        The largest v^2 scale.
    log_likelihood : Tensor, float64, (image, template)
        Summed; minus infinity if not `integrate`.
    """
    n_images, n_templates = terms.shift.shape
    block_rows, width, n_warps = block_shape(folding.n_inplanes, terms.n_displacements)
    # heights are in the thousands; relative to the highest of a pair float32 is enough for them
    highest = terms.height.amax(0)
    by_rows = (
        torch.stack([terms.norm.double(), terms.scale.sqrt(), terms.height - highest])
        .flatten(2)
        .mT.float()
        .contiguous()
    )
    parts = terms.shift.new_empty(n_images, n_templates, -(-terms.n_displacements // width), 4)
    _summarise_block[(parts[..., 0].numel(),)](
        products=terms.products,
        matrices=_matrices(folding, block_rows),
        by_rows=by_rows,
        shifts=terms.shift.contiguous(),
        exponents=terms.exponents.float(),
        parts=parts,
        n_pairs=n_images * n_templates,
        n_templates=n_templates,
        n_displacements=terms.n_displacements,
        image_columns=terms.products.shape[3],
        half=folding.n_inplanes // 2,
        block_rows=block_rows,
        width=width,
        step=FEWEST,
        integrate=integrate,
        precision=precision,
        num_warps=n_warps,
    )
    best, root, peak, total = parts.unbind(-1)
    summed = highest + torch.logsumexp(peak.double() + total.double().log(), -1)
    return best.amax(-1), root.amax(-1).double().square(), summed


def block_shape(n_inplanes: int, n_displacements: int) -> tuple[int, int, int]:
    """Rows and displacements of a block, and its warps."""
    rows = min(max(triton.next_power_of_2((n_inplanes + 2) // 4), FEWEST), MOST_ROWS)
    return rows, FEWEST if n_displacements <= FEWEST else 2 * FEWEST, 4 if rows < MOST_ROWS else 8


def _matrices(folding: Folding, rows: int) -> Tensor:
    """Cosines and sines of even, then of odd q, without the quarter turn and q = W/2, padded:
    (4, row, q)."""
    n = (folding.n_inplanes + 2) // 4
    four = [
        matrices[parity][:n, :n]
        for parity in (0, 1)
        for matrices in (folding.cosines, folding.sines)
    ]
    return torch.nn.functional.pad(torch.stack(four), (0, -n % FEWEST, 0, -n % rows))
