"""A witness from the physics alone: atoms to pixels by RELION's conventions, and the likelihood of
pixels.

Nothing of the package is used here. An image is [row, column] = [y, x], and the centre of pixel p
lies at (p - n // 2) times the pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import constants, special

FloatArray = NDArray[np.float64]

PADDING = 2
"""Side of the grid on which particles are rendered and filtered, over that of the image."""


def two_lobes(opening_degrees: float, n_residues: int = 48) -> FloatArray:
    """Positions of residues in two lobes, the second turned about z: no symmetry, within 15
    angstrom of the middle."""
    centres = np.array([[[7, 0, 0]], [[-7, 0, 0]]])
    first, second = centres + np.random.default_rng(0).uniform(-5, 5, (2, n_residues // 2, 3))
    return np.concatenate([first, second @ about_z(np.float64(-opening_degrees))])


@dataclass(frozen=True, eq=False)
class StarPoses:
    """Columns of a RELION star file: rlnAngleRot, Tilt, Psi (degrees) and rlnOriginXAngst,
    YAngst, each (pose,)."""

    rot: FloatArray
    tilt: FloatArray
    psi: FloatArray
    origin_x: FloatArray
    origin_y: FloatArray

    @classmethod
    def of_template(cls, azimuth: Any, polar: Any, gamma: Any, dx: Any, dy: Any) -> StarPoses:
        """Poses of templates (radian) that are displaced by d (angstrom), then turned by -gamma."""
        azimuth, polar, gamma, dx, dy = np.broadcast_arrays(azimuth, polar, gamma, dx, dy)
        x = np.cos(gamma) * dx + np.sin(gamma) * dy
        y = -np.sin(gamma) * dx + np.cos(gamma) * dy
        return cls(np.degrees(azimuth), np.degrees(polar), np.degrees(gamma), -x, -y)

    def __len__(self) -> int:
        return len(self.rot)

    def __getitem__(self, part: Any) -> StarPoses:
        return StarPoses(
            self.rot[part],
            self.tilt[part],
            self.psi[part],
            self.origin_x[part],
            self.origin_y[part],
        )

    def matrices(self) -> FloatArray:
        """A = Rz(-psi) Ry(-tilt) Rz(-rot), which acts on atom positions, (pose, 3, 3)."""
        return about_z(-self.psi) @ about_y(-self.tilt) @ about_z(-self.rot)


def about_z(degrees: FloatArray) -> FloatArray:
    """Counter-clockwise from x to y, (pose, 3, 3)."""
    c, s, o = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros_like(degrees)
    return np.stack([c, -s, o, s, c, o, o, o, o + 1], axis=-1).reshape(*np.shape(degrees), 3, 3)


def about_y(degrees: FloatArray) -> FloatArray:
    """Counter-clockwise from z to x, (pose, 3, 3)."""
    c, s, o = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros_like(degrees)
    return np.stack([c, o, s, o, o + 1, o, -s, o, c], axis=-1).reshape(*np.shape(degrees), 3, 3)


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


def relion_ctf(optics: Any, fx: FloatArray, fy: FloatArray) -> FloatArray:
    """RELION's CTF of one image (a record of optics) at spatial frequencies in 1/angstrom."""
    u2 = fx**2 + fy**2
    wavelength = electron_wavelength(1e3 * optics["voltage_kilovolt"])
    mean = -(optics["defocus_u_angstrom"] + optics["defocus_v_angstrom"]) / 2
    deviation = -(optics["defocus_u_angstrom"] - optics["defocus_v_angstrom"]) / 2
    defocus = mean + deviation * np.cos(2 * (np.arctan2(fy, fx) - optics["defocus_angle_radian"]))
    k1, k2 = np.pi * wavelength, np.pi / 2 * optics["spherical_aberration_mm"] * 1e7 * wavelength**3
    k3 = np.arcsin(optics["amplitude_contrast"])
    phase = k1 * defocus * u2 + k2 * u2**2 - optics["phase_shift_radian"] - k3
    return -np.sin(phase) * optics["scale"] * np.exp(-optics["b_factor_angstrom2"] / 4 * u2)


def electron_wavelength(volt: float) -> float:
    """De Broglie's, relativistic, angstrom. RELION writes 12.2643247 / sqrt(V (1 + 0.978466e-6
    V)): 5e-6 larger."""
    energy = volt * constants.e
    return (
        1e10
        * constants.h
        * constants.c
        / np.sqrt(energy * (energy + 2 * constants.m_e * constants.c**2))
    )


def frequencies(n: int, pixel_size: float) -> tuple[FloatArray, FloatArray]:
    """Where the discrete Fourier transform of n x n pixels lies, fx and fy in 1/angstrom, (row,
    column)."""
    frequency = np.fft.fftfreq(n, pixel_size)
    fx, fy = np.meshgrid(frequency, frequency)
    return fx, fy


def band(n: int, pixel_size: float, highest: float) -> NDArray[np.bool_]:
    """The part of the discrete Fourier transform of n x n pixels up to a spatial frequency,
    (row, column)."""
    return np.hypot(*frequencies(n, pixel_size)) <= highest


def apply_filter(images: FloatArray, transfer: NDArray[Any]) -> FloatArray:
    """Multiply by a real, even function of frequency in Fourier space; over the last two axes."""
    n = images.shape[-1]
    return np.fft.irfft2(np.fft.rfft2(images) * transfer[:, : n // 2 + 1], s=(n, n))


def crop(images: FloatArray, n: int) -> FloatArray:
    """Keep the n x n pixels about the centre."""
    start = images.shape[-1] // 2 - n // 2
    return images[..., start : start + n, start : start + n]


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
