"""A witness from the physics alone: atoms to pixels by RELION's conventions, and the likelihood of
pixels.

Nothing of the package is used here; much of it is the simulator's beside the benchmarks. An image
is [row, column] = [y, x], and the centre of pixel p lies at (p - n // 2) times the pixel size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.independent_simulator import PADDING as PADDING
from benchmarks.independent_simulator import StarPoses as StarPoses
from benchmarks.independent_simulator import about_y as about_y
from benchmarks.independent_simulator import about_z as about_z
from benchmarks.independent_simulator import apply_filter as apply_filter
from benchmarks.independent_simulator import crop as crop
from benchmarks.independent_simulator import frequencies as frequencies
from benchmarks.independent_simulator import relion_ctf as relion_ctf
from benchmarks.independent_simulator import two_lobes as two_lobes

FloatArray = NDArray[np.float64]


def project(atoms: Any, poses: StarPoses, n: int, pixel_size: float) -> FloatArray:
    """Turn Gaussian atoms, project them along z, shift by -origin, sample at pixel centres:
    (pose, row, column)."""
    centred = atoms.positions_angstrom - atoms.positions_angstrom.mean(axis=0)
    turned = np.einsum("pij,aj->pai", poses.matrices(), centred)
    x = turned[..., 0] - poses.origin_x[:, None]
    y = turned[..., 1] - poses.origin_y[:, None]
    axis = (np.arange(n) - n // 2) * pixel_size
    spread = 2 * atoms.radii_angstrom[:, None] ** 2
    along_x = np.exp(-((axis - x[..., None]) ** 2) / spread)
    along_y = np.exp(-((axis - y[..., None]) ** 2) / spread) * (
        atoms.electrons[:, None] / (np.pi * spread)
    )
    return along_y.swapaxes(1, 2) @ along_x


def band(n: int, pixel_size: float, highest: float) -> NDArray[np.bool_]:
    """The part of the discrete Fourier transform of n x n pixels up to a spatial frequency,
    (row, column)."""
    return np.hypot(*frequencies(n, pixel_size)) <= highest


def render(atoms: Any, poses: StarPoses, optics: Any, n: int, pixel_size: float) -> FloatArray:
    """Noise-free particles, one record of optics for each pose: (pose, row, column)."""
    wide = PADDING * n
    projections = project(atoms, poses, wide, pixel_size)
    transfers = (relion_ctf(record, *frequencies(wide, pixel_size)) for record in optics)
    return np.stack(
        [crop(apply_filter(p, t), n) for p, t in zip(projections, transfers, strict=True)]
    )


def log_likelihood_on_pixels(
    images: FloatArray, models: FloatArray, n_degrees_of_freedom: float
) -> FloatArray:
    """Fit offset and scale of each model to each image and integrate them and the noise variance
    out, flat priors.

    Returns (image, model), natural logarithm, up to a constant that depends on the image alone.
    """
    y = images.reshape(len(images), -1) - images.mean(axis=(1, 2))[:, None]
    x = models.reshape(len(models), -1) - models.mean(axis=(1, 2))[:, None]
    power = (x**2).sum(axis=1)
    residual = (y**2).sum(axis=1)[:, None] - (y @ x.T) ** 2 / power
    return -(n_degrees_of_freedom / 2 - 2) * np.log(residual) - 0.5 * np.log(power)
