"""Norms of a tile in one Triton kernel: torch would go some forty times over numbers in double
precision. Each pair lies in memory for itself, as the kernel of pairs reads it (`pairs_cuda`).

GPUs that are made for single precision compute doubles at a sixty-fourth of its rate. There are W/2
numbers of a pair, against some hundred thousand of its poses, which take a few operations each:
about a fifth of the time of the kernel of pairs on those, and a hundredth on others.
"""

# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryolike_dask.likelihoods.kernels.direct import BlockConstants
from cryolike_dask.likelihoods.kernels.log_likelihood import NoiseTerms
from cryolike_dask.likelihoods.kernels.norms import Norms


@triton.jit(do_not_specialize=["n_templates"])
def _norms_of_pair(
    template_power,
    template_mask,
    order,
    image_power,
    image_mask,
    mask_power,
    exponent,
    constant,
    offsets,
    shifts,
    norms,
    scales,
    heights,
    largest,
    empty,
    n_templates,
    n_rows: tl.constexpr,
    n_padded: tl.constexpr,
    zero_normalised: tl.constexpr,
):
    """Norms of one pair, as `norms` computes them."""
    pair = tl.program_id(0).to(tl.int64)
    image = pair // n_templates
    iyy, isy, iss = (
        tl.load(image_power + image),
        tl.load(image_mask + image),
        tl.load(mask_power + image),
    )
    isx = tl.load(template_mask + pair).to(tl.float64)
    offset, image_variance = isx * isy / iss, iyy - isy * isy / iss
    row = tl.arange(0, n_padded)
    inside = row < n_rows
    # padding has values that nothing is wrong with
    power = tl.load(
        template_power + pair * n_rows + tl.load(order + row, inside, 0), inside, 1.0
    ).to(tl.float64)
    variance = tl.where(inside, power - isx * isx / iss, 1.0)
    scale = 1 / (variance * image_variance)
    height = tl.load(constant + image) - 0.5 * tl.log(variance * iss)
    height -= tl.load(exponent + image) * tl.log(image_variance * iss)
    if zero_normalised:
        norm, shift = tl.sqrt(scale), 0.0
    else:
        norm, shift = 1 / tl.sqrt(power * iyy), offset
    tl.store(offsets + pair, offset)
    tl.store(shifts + pair, shift)
    at = pair * n_rows + row
    tl.store(norms + at, norm, inside)
    tl.store(scales + at, scale, inside)
    tl.store(heights + at, height, inside)
    tl.store(largest + pair, tl.max(tl.where(inside, norm, 0.0), 0))
    least = tl.minimum(variance, power)
    # what is not a number is not positive
    good = (variance > 0) & (power > 0) & (least < float("inf"))
    tl.store(empty + pair, tl.min(good.to(tl.int8), 0) == 0)


def norms_in_one_kernel(
    template_power: Tensor,
    template_mask: Tensor,
    image_terms: tuple[Tensor, Tensor, NoiseTerms],
    constants: BlockConstants,
) -> Norms:
    """What `norms` gives, in single precision; infinite powers are refused, whatever others are."""
    image_power, image_mask, noise = image_terms
    n_images, n_templates, n_rows = template_power.shape
    pairs = template_power.new_empty(n_images, n_templates)
    in_double = pairs.new_empty(2, *pairs.shape, dtype=torch.float64)
    by_rows = in_double.new_empty(2, *template_power.shape)
    norm = template_power.new_empty(template_power.shape)
    shift, empty = torch.empty_like(pairs), torch.empty_like(pairs, dtype=torch.bool)
    _norms_of_pair[(pairs.numel(),)](
        template_power=template_power.contiguous(),
        template_mask=template_mask.contiguous(),
        order=constants.row_order,
        image_power=image_power,
        image_mask=image_mask,
        mask_power=noise.mask_power,
        exponent=noise.exponent,
        constant=noise.constant,
        offsets=in_double[0],
        shifts=shift,
        norms=norm,
        scales=by_rows[0],
        heights=by_rows[1],
        largest=in_double[1],
        empty=empty,
        n_templates=n_templates,
        n_rows=n_rows,
        n_padded=triton.next_power_of_2(n_rows),
        zero_normalised=constants.zero_normalised,
        num_warps=4,
        enable_fp_fusion=True,  # or Triton 3.9 warns, and later ones do without
    )
    return Norms(
        offset=in_double[0],
        shift=shift,
        norm=norm.permute(2, 0, 1),
        scale=by_rows[0].permute(2, 0, 1),
        height=by_rows[1].permute(2, 0, 1),
        largest=in_double[1],
        is_empty=empty.any(0),
    )
