"""Whether images are what a noise model supposes that was not estimated from them just now."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from distributed import Client

from cryolike_dask.errors import counted
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.particles.noise import fit_spectrum
from cryolike_dask.particles.noise_remarks import WhitenedPower, remarks_on_noise
from cryolike_dask.runs.noise_estimation import shape_of
from cryolike_dask.runs.noise_extent import MOST_STACKS
from cryolike_dask.runs.noise_rings import FEWEST_OF_GROUP, looked_at_all
from cryolike_dask.stacks import ImageStack, TemplateStack

logger = logging.getLogger("cryolike_dask")

CHECKED_OF_STACK = 128
"""Images of a stack whose power is held against a noise model that was given."""


def warn_of_noise(
    images: Sequence[ImageStack],
    templates: Sequence[TemplateStack],
    model: NoiseModel,
    client: Client | None,
) -> None:
    """Log where some images are not what a noise model supposes, that was not estimated from them
    just now."""
    stacks = [images[i][:CHECKED_OF_STACK] for i in evenly_spread(len(images), MOST_STACKS)]
    grid, looked_at, shape = (
        stacks[0].grid,
        looked_at_all(stacks, client),
        shape_of(list(templates)),
    )
    of_image = np.concatenate([model.find(stack.groups, len(stack)) for stack in stacks])
    used = [i for i in np.unique(of_image) if (of_image == i).sum() >= FEWEST_OF_GROUP]
    if not used:
        return
    looked_at = looked_at.under(model.b_factor_angstrom2[of_image], grid)
    part, power, error = model.take(np.array(used)), [], []
    for i, expected in zip(used, part.spectra(grid), strict=True):
        spectrum = fit_spectrum(
            looked_at.take(np.flatnonzero(of_image == i)), grid, shape, model.band_limit[i]
        )
        power.append(spectrum.variance / expected)
        error.append(power[-1] * spectrum.relative_error)
    for remark in remarks_on_noise(part, grid, WhitenedPower(np.stack(power), np.stack(error))):
        logger.warning("%s", remark)


def described(model: NoiseModel) -> str:
    """Say in a few words what a noise model holds."""
    words = counted(len(model), "group")
    if n := int(model.n_images.sum()):
        words += f" of {counted(n, 'image')}"
    if model.b_factor_angstrom2.any():
        low, high = model.b_factor_angstrom2.min(), model.b_factor_angstrom2.max()
        words += f", B-factor {low:.3g}" + (f" to {high:.3g}" if low < high else "")
        words += " angstrom^2"
    return words
