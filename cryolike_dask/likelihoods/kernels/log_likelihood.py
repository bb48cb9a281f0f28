"""The log-likelihood of a pose, and its integral over poses. In float64: it is a difference of
large numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def residual_fraction(
    cross: Tensor,
    template_power: Tensor,
    image_power: Tensor,
    template_mask: Tensor,
    image_mask: Tensor,
    mask_power: Tensor | float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare image and template after fitting offset and scale.

    Parameters
    ----------
    cross, template_power, image_power, template_mask, image_mask : Tensor, real, broadcastable
        Ixy, Ixx, Iyy, Isx, Isy.
    mask_power : Tensor or float
        Iss.

    Returns
    -------
    template_variance, image_variance : Tensor, float64
        A = Ixx Iss - Isx^2 and -C = Iyy Iss - Isy^2.
    fraction : Tensor, float64
        D / -C with D = -(B^2 / A + C), B = Ixy Iss - Isx Isy: the part of the image's variance that
        is left, 1 minus the square of the zero-normalised correlation. Outside (0, 1], or NaN, only
        if Isx is not that of the pose.
    """
    template_mask, image_mask = template_mask.double(), image_mask.double()
    template_variance = template_power.double() * mask_power - template_mask**2
    image_variance = image_power.double() * mask_power - image_mask**2
    # in place: with a temporary for each step, half of the time goes into getting memory
    covariance = (
        cross.to(torch.float64, copy=True).mul_(mask_power).sub_(template_mask * image_mask)
    )
    fraction = covariance.square_().div_(template_variance * image_variance).neg_().add_(1)
    return template_variance, image_variance, fraction


@dataclass(frozen=True)
class NoiseTerms:
    """Numbers that the likelihood takes of the noise: of groups of images, or of each image.

    Attributes
    ----------
    mask_power : Tensor, float64, (x,)
        Iss.
    exponent : Tensor, float64, (x,)
        The power p that the residual is raised to: likelihood ~ residual^-p.
    constant : Tensor, float64, (x,)
        What all poses have alike.
    """

    mask_power: Tensor
    exponent: Tensor
    constant: Tensor

    @classmethod
    def of(
        cls,
        mask_power: Sequence[float],
        n_degrees_of_freedom: Sequence[float],
        device: torch.device,
    ) -> NoiseTerms:
        """Make them of Iss and of the number of independent values in an image."""
        exponents = [n / 2 - 2 for n in n_degrees_of_freedom]
        constants = [
            (3 - n) / 2 * math.log(2 * math.pi)
            - math.log(2)
            - 0.5 * math.log(power)
            + math.lgamma(p)
            + p * math.log(2 * power)
            for power, n, p in zip(mask_power, n_degrees_of_freedom, exponents, strict=True)
        ]
        columns = (list(mask_power), exponents, constants)
        return cls(*(torch.tensor(c, dtype=torch.float64, device=device) for c in columns))

    def at(self, rows: Tensor) -> NoiseTerms:
        """Those of some groups, in this order."""
        return NoiseTerms(self.mask_power[rows], self.exponent[rows], self.constant[rows])

    @classmethod
    def joined(cls, parts: Sequence[NoiseTerms]) -> NoiseTerms:
        """One after the other."""
        return cls(
            torch.cat([part.mask_power for part in parts]),
            torch.cat([part.exponent for part in parts]),
            torch.cat([part.constant for part in parts]),
        )

    def of_scaled(self, scales: Tensor) -> NoiseTerms:
        """The same for images that are multiplied by something, each, float64 (x,): as likely as
        they were before."""
        higher = 2 * self.exponent * scales.log()
        return NoiseTerms(self.mask_power, self.exponent, self.constant + higher)

    def along(self, n_more: int) -> NoiseTerms:
        """The same, with so many more axes of 1 behind."""
        shape = (-1, *(1,) * n_more)
        return NoiseTerms(
            self.mask_power.view(shape), self.exponent.view(shape), self.constant.view(shape)
        )


def log_likelihood_height(
    template_variance: Tensor, image_variance: Tensor, noise: NoiseTerms
) -> Tensor:
    """Log-likelihood that a pose would have if nothing of its image were explained; operands
    broadcast, float64.

    Parameters
    ----------
    template_variance, image_variance : Tensor, float64
        As `residual_fraction` gives them.
    noise : NoiseTerms
    """
    return noise.constant - 0.5 * template_variance.log() - noise.exponent * image_variance.log()


def log_likelihood_of_poses(
    template_variance: Tensor,
    image_variance: Tensor,
    fraction: Tensor,
    noise: NoiseTerms,
    rounding: float,
) -> Tensor:
    """Log-likelihood of an image at a pose, with offset, scale and noise variance integrated out.

    Parameters
    ----------
    template_variance, image_variance, fraction : Tensor, float64
        As `residual_fraction` gives them.
    noise : NoiseTerms
    rounding : float
        Relative rounding error of the correlations. The residual is not let below it, so that a
        noise-free image at its exact pose has a large but finite value.

    Returns
    -------
    Tensor, float64
        Natural logarithm.

    Notes
    -----
    Flat priors on offset and scale, flat in the variance: -p log D - (1/2) log A + const with p =
    n/2 - 2.
    """
    height = log_likelihood_height(template_variance, image_variance, noise)
    return fraction.clamp(min=rounding).log_().mul_(-noise.exponent).add_(height)


def integrate_log_likelihood(log_likelihood: Tensor) -> Tensor:
    """Sum the likelihood over displacements and rotations.

    Parameters
    ----------
    log_likelihood : Tensor, float64, (image, template, displacement, rotation)

    Returns
    -------
    Tensor, float64, (image, template)
    """
    return torch.logsumexp(log_likelihood.flatten(2), dim=2)
