"""Correlations of images with displaced, rotated and filtered templates, and their norms: Ixy, Ixx,
Iyy, Isx, Isy.

The image is modelled as contrast x rotated(displaced template): rotation w reads the template at
theta + 2 pi w / W, so its content turns by -2 pi w / W.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.errors import ZeroPowerError, listed
from cryolike_dask.likelihoods.kernels.fourier_bessel import (
    half_spectrum,
    rotations_from_half_spectrum,
)


def image_spectra(images: Tensor, contrast: Tensor, weights: Tensor) -> Tensor:
    """Expand contrast x image: complex (image, shell, angle) -> (q, image, shell), conjugated,
    weighted by the root."""
    return half_spectrum(images * contrast * weights.sqrt()).conj().permute(2, 0, 1).contiguous()


def template_spectra(templates: Tensor, weights: Tensor) -> Tensor:
    """Expand displaced templates: (template, displacement, shell, angle) -> (q, shell, template
    * displacement)."""
    spectra = half_spectrum(templates * weights.sqrt())
    return spectra.permute(3, 2, 0, 1).reshape(spectra.shape[3], spectra.shape[2], -1)


def cross_terms(images_q: Tensor, templates_q: Tensor, n_inplanes: int) -> Tensor:
    """Contract two spectra over shells: (q, image, shell) x (q, shell, x) -> real (image, x,
    rotation)."""
    return rotations_from_half_spectrum(
        torch.bmm(images_q, templates_q).permute(1, 2, 0), n_inplanes
    )


def contrast_power_spectra(contrast: Tensor, weights: Tensor) -> Tensor:
    """Expand contrast^2: real (image, shell, angle) -> complex (q, image, shell), conjugated."""
    return half_spectrum(contrast**2 * weights.sqrt()).conj().permute(2, 0, 1).contiguous()


def template_power_spectra(templates: Tensor, weights: Tensor) -> Tensor:
    """Expand |template|^2: complex (template, shell, angle) -> complex (q, shell, template)."""
    return half_spectrum(templates.abs() ** 2 * weights.sqrt()).permute(2, 1, 0).contiguous()


def squared(values: Tensor) -> Tensor:
    """|values|^2 of complex values; measured, eight times faster than sums of two squares, and
    more than by way of the modulus."""
    return (values * values.conj()).real


def overlaps(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Re sum conj(first) second weights over the last two axes: Ixy, and with the box Isx, Isy."""
    return ((first.conj() * second).real * weights).sum((-2, -1))


def powers(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of |values|^2 weights over the last two axes: Ixx, Iyy."""
    return (squared(values) * weights).sum((-2, -1))


def plain_correlation(cross: Tensor, template_power: Tensor, image_power: Tensor) -> Tensor:
    """Ixy / sqrt(Ixx Iyy); operands broadcast."""
    return cross * torch.rsqrt(template_power) * torch.rsqrt(image_power)


def zero_normalised_correlation(
    cross: Tensor,
    template_power: Tensor,
    image_power: Tensor,
    template_mask: Tensor,
    image_mask: Tensor,
    mask_power: Tensor | float,
) -> Tensor:
    """Correlate after projecting a constant offset out of both sides; operands broadcast."""
    template_variance = template_power - template_mask**2 / mask_power
    image_variance = image_power - image_mask**2 / mask_power
    covariance = cross - template_mask * image_mask / mask_power
    return covariance * torch.rsqrt(template_variance) * torch.rsqrt(image_variance)


def compute_cross_correlation(
    images: Tensor, contrast: Tensor, templates: Tensor, weights: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Correlate every image with every template at every displacement and in-plane rotation.

    Parameters
    ----------
    images : Tensor, complex, (image, shell, angle)
        Fourier polar images, not weighted, not filtered.
    contrast : Tensor, real, (image | 1, shell, angle)
        Contrast transfer of each image.
    templates : Tensor, complex, (template, displacement, shell, angle)
        Displaced templates, not filtered.
    weights : Tensor, real, (shell, angle)
        Quadrature weights of the polar grid, cycles^2 per half box^2.
    mask : Tensor, complex, (shell, angle), optional
        Transform of the box. With it a constant offset is projected out (zero-normalised
        correlation), the template's offset being taken at each pose.

    Returns
    -------
    Tensor, real, (image, template, displacement, rotation)
        In [-1, 1]; 1 where the image is the moved, turned and filtered template up to a positive
        factor.

    Raises
    ------
    ZeroPowerError
        If an image or a filtered template has no power; names their indices.

    Notes
    -----
    Rotation w reads the template at theta + 2 pi w / W: its content turns by -2 pi w / W.
    """
    n_templates, n_displacements = templates.shape[:2]
    n_inplanes = images.shape[-1]
    contrast = contrast.expand(images.shape)
    templates_q = template_spectra(templates, weights)

    def at_poses(values: Tensor) -> Tensor:
        cross = cross_terms(image_spectra(values, contrast, weights), templates_q, n_inplanes)
        return cross.view(-1, n_templates, n_displacements, n_inplanes)

    cross = at_poses(images)
    image_power = (images.abs() ** 2 * weights).sum((-2, -1))[:, None, None, None]
    template_power = cross_terms(
        contrast_power_spectra(contrast, weights),
        template_power_spectra(templates[:, 0], weights),
        n_inplanes,
    )[:, :, None, :]
    refuse_without_power(image_power.flatten(), "image")
    refuse_without_power(template_power.amin((0, 2, 3)), "template")
    if mask is None:
        return plain_correlation(cross, template_power, image_power).clamp(-1, 1)
    mask_power = float(overlaps(mask, mask, weights))
    template_mask = at_poses(mask.expand(images.shape))
    image_mask = overlaps(mask, images, weights)[:, None, None, None]
    return zero_normalised_correlation(
        cross, template_power, image_power, template_mask, image_mask, mask_power
    ).clamp(-1, 1)


def refuse_without_power(power: Tensor, what: str, first: int = 0) -> None:
    """Raise ZeroPowerError naming the indices, counted from `first`, whose power is not positive
    and finite."""
    bad = ~((power > 0) & power.isfinite())
    if bad.any():
        raise without_power(bad.cpu().numpy(), what, first)


def without_power(bad: NDArray[np.bool_], what: str, first: int = 0) -> ZeroPowerError:
    """The error that names what is bad, counted from `first`."""
    return ZeroPowerError(
        f"{what}(s) {listed(first + i for i in np.flatnonzero(bad).tolist())} have no power: all "
        f"zero, or constant; or too much",
        remedy=f"Leave such {what}s out.",
    )
