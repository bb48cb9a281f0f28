"""The time that the noise of a run takes to be estimated, by what a block takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryolike_dask.io.records import FITTED
from cryolike_dask.io.stacks import filled_groups
from cryolike_dask.runs import envelope, noise_estimation
from cryolike_dask.runs.noise_rings import FEWEST_OF_GROUP
from cryolike_dask.runs.run import Run

ROUNDS = 3
"""How many times likelihoods are computed at B-factors, as a rule, at some together."""
SECONDS_OF_RING, SECONDS_OF_MICROGRAPHS = 1e-6, 5e-6
"""Of one ring of one image, of a core: to tell noise and signal apart; and to see whether
micrographs differ. Measured: 13 and 60 s of 100,000 images of 129 shells."""


@dataclass(frozen=True)
class NoiseWork:
    """What estimating the noise of a run takes.

    Attributes
    ----------
    n_images : int
        That are read for it.
    n_pairs : int
        Of images and templates that are compared.
    n_bases : int
        Radial bases that are made.
    seconds : float
        Of the process that fits the spectra.
    """

    n_images: int = 0
    n_pairs: int = 0
    n_bases: int = 0
    seconds: float = 0.0


def work_of_noise(run: Run) -> NoiseWork:
    """Count what estimating the noise of a run takes; nothing if its noise is white, or known."""
    if run.identity.get("noise") is None or run.settings.noise is not None:
        return NoiseWork()
    names = np.concatenate([filled_groups(s.groups, len(s)) for s in run.images.values()])
    n_images, n_structures = len(names), run.n_structures
    each = [n for n in np.unique(names[:, 1], return_counts=True)[1] if n >= FEWEST_OF_GROUP]
    sizes = np.array(each or [n_images])
    n_templates = round(np.mean([len(t) for t in run.templates.values()]))
    most = max(noise_estimation.LEAST_OF_MANY, noise_estimation.REFINED_IN_ALL // len(sizes))
    refined = np.minimum(sizes, min(noise_estimation.REFINED_OF_GROUP, most))
    compared = refined.sum() * min(n_structures, noise_estimation.REFINED_STRUCTURES)
    n_bases = len(sizes) * min(n_structures, noise_estimation.REFINED_STRUCTURES)
    if run.identity.get("b_factor") == FITTED:
        fitted = np.maximum(envelope.FEWEST_IMAGES, sizes * envelope.PART_OF_IMAGES)
        fitted = np.minimum(np.minimum(fitted, sizes), envelope.MOST_IMAGES)
        of_fit = min(n_structures, envelope.MOST_STRUCTURES)
        compared += fitted.sum() * (of_fit + envelope.CLIMBED)
        n_bases += -(-round(fitted.sum()) // envelope.IMAGES_OF_PIECE) * of_fit * (1 + ROUNDS)
    of_micrographs = np.unique(names[:, 0], return_counts=True)
    tells = any(m and n >= FEWEST_OF_GROUP for m, n in zip(*of_micrographs, strict=True))
    n_rings = n_images * next(iter(run.images.values())).grid.n_shells
    per_ring = SECONDS_OF_RING + SECONDS_OF_MICROGRAPHS * tells
    return NoiseWork(n_images, round(compared * n_templates), n_bases, n_rings * per_ring)
