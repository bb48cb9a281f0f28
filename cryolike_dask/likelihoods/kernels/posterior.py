"""What the posterior of poses explains of an image, ring by ring, when signal and noise have known
levels.

The likelihood of the rest of this package integrates the amplitude of the signal over all values:
right for weighing structures, but among a million poses of an image that is noise alone some fit
well by chance, and would be taken for signal. Here the amplitude of all images is about the same,
and known: where it is small, nothing is explained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryolike_dask.likelihoods.kernels.cross_correlation import (
    contrast_power_spectra,
    cross_terms,
    image_spectra,
    overlaps,
    template_power_spectra,
    template_spectra,
)
from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages

SPREAD = 1 / 3
"""Standard deviation of amplitudes, of their mean: templates of all views have power 1, while the
power of what is seen differs."""
DISPLACEMENTS_AT_A_TIME = 64
"""Spectra of so many displaced templates are in memory."""


def draw_pose(
    image: WhitenedImages,
    template: Tensor,
    levels: tuple[float, float],
    uniform: float,
    constants: BlockConstants,
) -> tuple[float, Tensor]:
    """Draw a displacement and a rotation from the posterior of one image under one template.

    Parameters
    ----------
    image : WhitenedImages
        One.
    template : Tensor, complex, (1, shell, angle)
    levels : (float, float)
        Amplitude of the signal over the standard deviation s of the noise; and s^2.
    uniform : float
        In [0, 1): what is drawn.
    constants : BlockConstants

    Returns
    -------
    log_likelihood : float
        Summed over all displacements and rotations, relative to noise alone.
    explained : Tensor, float64, (shell,)
        Mean over the ring of Re conj(I) c CTF T at the pose drawn, c its mean amplitude.
    """
    (amplitude, noise_power), n_inplanes = levels, template.shape[-1]
    contrast, of_mask = (c.repeat(1, 1, 2) for c in (image.contrast, image.contrast_of_mask))
    of_image = image_spectra(image.values, contrast, constants.weights)
    factors = constants.translation_factors
    cross = torch.cat(
        [
            cross_terms(
                of_image,
                template_spectra(template[:, None] * part, constants.weights),
                n_inplanes,
            )[0].double()
            for part in torch.split(factors, DISPLACEMENTS_AT_A_TIME)
        ]
    )
    power = cross_terms(
        contrast_power_spectra(contrast, constants.weights),
        template_power_spectra(template, constants.weights),
        n_inplanes,
    )[0].double()
    offset = overlaps(constants.mask, of_mask * template, constants.weights).double()
    covariance = cross - offset * image.mask / image.noise.mask_power
    variance = power - offset**2 / image.noise.mask_power
    # a normal distribution of amplitudes, integrated: mean `amplitude`, deviation `spread`
    spread2 = (SPREAD * amplitude) ** 2
    matched, narrowing = covariance / noise_power**0.5, 1 + spread2 * variance
    logs = amplitude * matched + spread2 * matched**2 / 2 - amplitude**2 * variance / 2
    logs = logs / narrowing - narrowing.log() / 2
    total = torch.logsumexp(logs.flatten(), 0)
    cumulated = (logs.flatten() - total).exp().cumsum(0)
    drawn = int(torch.searchsorted(cumulated, uniform * cumulated[-1]))
    d, w = divmod(min(drawn, logs.numel() - 1), n_inplanes)
    mean = (amplitude + spread2 * matched[d, w]) / narrowing[0, w] * noise_power**0.5
    seen = contrast * (template * factors[d]).roll(-w, -1)
    explained = mean * (image.values.conj() * seen).real.double().mean(-1)[0]
    whitening = image.whitening[0].double()
    return float(total), torch.where(whitening > 0, explained / whitening**2, 0)
