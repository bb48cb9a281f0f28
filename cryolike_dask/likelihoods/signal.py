"""What templates explain of images: block functions for the estimation of noise.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.block_reports import Teller, announce_part
from cryolike_dask.compute.device import resolve_device
from cryolike_dask.conventions import Conventions
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.image_formation import contrast_at_points
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.setup import make_constants
from cryolike_dask.likelihoods.turns import turn
from cryolike_dask.stacks import ImageStack

FloatArray = NDArray[np.float64]

SIGNAL = "noise-signal"
"""Name of the tasks that say what structures explain, and what tells of them."""

ANGLES_OF_CONTRAST = 16
"""Angles that the square of the contrast transfer is averaged over: it has two lobes at most."""
AT_ONCE = 64


def power_of_rings(images: ImageStack, conventions: Conventions) -> tuple[FloatArray, FloatArray]:
    """Mean of |F|^2 over each ring of each image, and of the square of its contrast transfer, each
    (image, shell)."""
    grid, rows = images.grid, np.arange(len(images))
    power = np.empty((len(rows), grid.n_shells))
    contrast = np.empty_like(power)
    half = np.pi * np.arange(ANGLES_OF_CONTRAST) / ANGLES_OF_CONTRAST
    rings = images.source.rings(rows)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        power[part] = (
            (np.abs(images.source.take(part)) ** 2).mean(axis=2)
            if rings is None
            else rings[part, 0] / (grid.weights * grid.n_inplanes)
        )
        contrast[part] = (
            contrast_at_points(
                images.optics[part], grid.spatial_frequencies[:, None], half, conventions
            )
            ** 2
        ).mean(axis=2)
    return power, contrast


def explained_by_pairs(
    image_rows: Rows,
    templates: NDArray[np.int64],
    levels: FloatArray,
    uniform: FloatArray,
    *,
    comparison: Comparison,
) -> tuple[FloatArray, FloatArray]:
    """Draw a pose for each of some pairs of images and templates, as `draw_pose` does; how many
    images are done, each as much of one as pairs are done of all of its own, is told.

    Parameters
    ----------
    image_rows : structured array, (image,)
    templates : (image, pair) int64
        -1: of another structure.
    levels : (image, 2) float64
    uniform : (image, pair) float64
    comparison : Comparison

    Returns
    -------
    log_likelihood : (image, pair) float64
        Minus infinity for pairs of other structures.
    explained : (image, pair, shell) float64
    """

    from cryolike_dask.likelihoods.kernels.posterior import draw_pose

    log_likelihood = np.full(templates.shape, -np.inf)
    explained = np.zeros((*templates.shape, comparison.grid.n_shells))
    name, at = f"{SIGNAL}-{comparison.name}", (int(image_rows["index"][0]),)
    tell, n_done = Teller(name, at), 0.0
    with turn(comparison):
        constants = make_constants(comparison, resolve_device(comparison.device))
        for m in np.flatnonzero((templates >= 0).any(axis=1)):
            image = read_images(image_rows[m : m + 1], comparison, constants)
            known = float(levels[m, 0]), float(levels[m, 1])
            pairs = np.flatnonzero(templates[m] >= 0)
            (of_pairs,) = read_templates([templates[m, pairs]], comparison, constants)
            constants.checks.read()
            for k, template in zip(pairs, of_pairs, strict=True):
                found = draw_pose(image, template[None], known, float(uniform[m, k]), constants)
                log_likelihood[m, k] = found[0]
                explained[m, k] = found[1].cpu().numpy()
            n_done += len(pairs) / templates.shape[1]
            tell(n_done)
    announce_part(name, at, n_done)
    return log_likelihood, explained


def power_of_templates(sources: list[Any], n_each: int) -> FloatArray:
    """Mean of |T|^2 over rings, of templates spread over those of each source, (shell,)."""
    means = []
    for source in sources:
        rows = evenly_spread(source.shape[0], n_each)
        means.append((np.abs(source.take(rows)).astype(np.float64) ** 2).mean(axis=(0, 2)))
    mean: FloatArray = np.mean(means, axis=0)
    return mean
