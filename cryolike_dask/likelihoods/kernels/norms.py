"""What turns sums over shells into correlations and likelihoods: numbers of each image, template
and rotation, the same for all displacements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryolike_dask.likelihoods.kernels.direct import BlockConstants
from cryolike_dask.likelihoods.kernels.log_likelihood import NoiseTerms, log_likelihood_height


@dataclass(frozen=True)
class Norms:
    """Terms of a tile beside its products; rows are those of `rotate`.

    Attributes
    ----------
    offset : Tensor, float64, (image, template)
        Isx Isy / Iss, which the covariance is less by than Ixy.
    shift, norm, scale, height : Tensor
        As of `Tile`.
    largest : Tensor, float64, (image, template)
        The largest norm of any rotation.
    is_empty : Tensor, bool, (template,)
        Whether nothing is left of a template, filtered for some image, or beside a constant offset;
        or too much.
    """

    offset: Tensor
    shift: Tensor
    norm: Tensor
    scale: Tensor
    height: Tensor
    largest: Tensor
    is_empty: Tensor


def norms_by_torch(
    template_power: Tensor,
    template_mask: Tensor,
    image_terms: tuple[Tensor, Tensor, NoiseTerms],
    constants: BlockConstants,
) -> Norms:
    """Norms of some images and templates, on any device.

    The algebra is that of `zero_normalised_correlation` and `log_likelihood_of_poses`.

    Parameters
    ----------
    template_power : Tensor, real, (image, template, W/2)
        Ixx, by rotations.
    template_mask : Tensor, real, (image, template)
        Isx.
    image_terms : (Tensor, Tensor, NoiseTerms), float64, (image,)
        Iyy, Isy, and what is known of the noise of each image.
    constants : BlockConstants
    """
    # in double precision: the likelihood is a difference of large numbers, and there are W/2
    # numbers per pair, not one for each pose
    power, template_mask = template_power.double(), template_mask.double()
    image_power, image_mask, noise = image_terms
    mask_power = noise.mask_power[:, None]
    offset = template_mask * image_mask[:, None] / mask_power
    template_variance = power - (template_mask**2 / mask_power)[..., None]
    least = torch.minimum(power.amin((0, 2)), template_variance.amin((0, 2)))
    image_variance = (image_power[:, None] - image_mask[:, None] ** 2 / mask_power)[..., None]
    scale = 1 / (template_variance * image_variance)
    # residual_fraction has both variances multiplied by Iss
    of_rotations = noise.along(2)
    height = log_likelihood_height(
        template_variance * of_rotations.mask_power,
        image_variance * of_rotations.mask_power,
        of_rotations,
    )
    # the plain correlation needs Ixy, and has the offset added again
    if constants.zero_normalised:
        norm, shift = scale.sqrt(), torch.zeros_like(offset)
    else:
        norm, shift = (power * image_power[:, None, None]).rsqrt(), offset
    real, order = constants.weights.dtype, constants.row_order
    return Norms(
        offset=offset,
        shift=shift.to(real),
        norm=norm[..., order].permute(2, 0, 1).to(real).contiguous(),
        scale=scale[..., order].permute(2, 0, 1).contiguous(),
        height=height[..., order].permute(2, 0, 1).contiguous(),
        largest=norm.amax(2),
        is_empty=~((least > 0) & least.isfinite()),
    )
