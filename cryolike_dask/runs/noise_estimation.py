"""The noise of images, estimated from the images themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from distributed import Client

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.noise import ALL_IMAGES, NoiseModel
from cryolike_dask.stacks import ImageStack, TemplateStack


def estimate_noise(
    images: ImageStack | Sequence[ImageStack],
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    *,
    fit_b_factor: bool = False,
    client: Client | None = None,
) -> NoiseModel:
    """Estimate the noise of images: its spectrum and its degrees of freedom, by optics group.

    Parameters
    ----------
    images : ImageStack or several
    templates : TemplateStack or several, optional
        Structures, with their displacements, whose images these are: what they explain is taken out
        of the noise. None: signal is left in it.
    fit_b_factor : bool
        Fit a B-factor to each optics group too; needs templates.
    client : distributed.Client, optional
        Where to compute; default: the current client, or else the threaded scheduler.

    Returns
    -------
    NoiseModel
    """
    stacks = [images] if isinstance(images, ImageStack) else list(images)
    if not stacks:
        raise InputError("no images to estimate noise from")
    grid = stacks[0].grid
    power = np.concatenate(
        [(np.abs(stack.source.take(np.arange(len(stack)))) ** 2).mean(axis=2) for stack in stacks]
    )
    return NoiseModel.of_spectrum(grid.spatial_frequencies, power.mean(axis=0), grid, [ALL_IMAGES])
