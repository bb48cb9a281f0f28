"""A witness from the physics alone: atoms to pixels by RELION's conventions, and the likelihood of
pixels.

Nothing of the package is used here; much of it is the simulator's beside the benchmarks. An image
is [row, column] = [y, x], and the centre of pixel p lies at (p - n // 2) times the pixel size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

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


def disc_metric(n: int, radius: float) -> FloatArray:
    """Inner product of images of n x n pixels, as that of their transforms over the disc of a
    radius (cycles per half box), which is known in closed form: (n^2, n^2)."""
    axis = np.arange(n) * 2 / n
    x, y = np.meshgrid(axis, axis)
    x, y = x.ravel(), y.ravel()
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    apart = np.where(distance > 0, distance, 1.0)
    metric = np.where(
        distance > 0, radius * special.j1(2 * np.pi * radius * apart) / apart, np.pi * radius**2
    )
    return (4 * np.pi / n) ** 2 * metric


def log_likelihood_in_disc(
    images: FloatArray, models: FloatArray, metric: FloatArray, n_degrees_of_freedom: float
) -> FloatArray:
    """As `log_likelihood_on_pixels`, of the part of images and models that a metric knows."""
    y, x = (array.reshape(len(array), -1) for array in (images, models))
    ones = metric.sum(axis=0)
    total = ones.sum()
    y_metric, x_metric = y @ metric, x @ metric
    y_offset, x_offset = y @ ones, x @ ones
    power = (x_metric * x).sum(axis=1) - x_offset**2 / total
    residual = (y_metric * y).sum(axis=1) - y_offset**2 / total
    overlap = y_metric @ x.T - y_offset[:, None] * x_offset / total
    left = residual[:, None] - overlap**2 / power
    return -(n_degrees_of_freedom / 2 - 2) * np.log(left) - 0.5 * np.log(power)
