"""Particles made in real space, to judge the package by: nothing of it is used here.

A structure is a sum of Gaussians in space. It is turned, projected and sampled on pixels finer than
those of the image, over a field wider than its box; the contrast transfer function acts on the
field, noise is drawn on a field too, and the box is cut out of both: neither is periodic in the
box. Masks and low-passes act on the box, as programs apply them to particles. An image is [row,
column] = [y, x], and the centre of pixel p lies at (p - n // 2) times the pixel size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import constants

FloatArray = NDArray[np.float64]
Spectrum = Callable[[FloatArray], FloatArray]
"""Power of noise at spatial frequencies in 1/angstrom, in any unit."""

PADDING = 2
"""Side of the field on which particles are filtered and noise is drawn, over that of the box."""
NARROWEST = 0.75
"""Standard deviation of the narrowest Gaussian, in the fine pixels that it is sampled on: what
folds back at the Nyquist frequency of pixels twice as large is below 1e-5 of it."""
EDGE = 2
"""Fourier pixels over which a low-pass falls off."""
OPTICS = np.dtype(
    [
        ("defocus_u_angstrom", "f8"),
        ("defocus_v_angstrom", "f8"),
        ("defocus_angle_radian", "f8"),
        ("phase_shift_radian", "f8"),
        ("voltage_kilovolt", "f8"),
        ("spherical_aberration_mm", "f8"),
        ("amplitude_contrast", "f8"),
        ("b_factor_angstrom2", "f8"),
        ("scale", "f8"),
    ]
)


@dataclass(frozen=True, eq=False)
class Molecule:
    """Gaussians in space.

    Attributes
    ----------
    positions : (atom, 3)
        Angstrom, x, y, z. The origin of poses is their unweighted mean.
    weights : (atom, gaussian)
        Integrals.
    variances : (atom, gaussian)
        Along each axis, angstrom^2.
    """

    positions: FloatArray
    weights: FloatArray
    variances: FloatArray


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


def random_poses(n: int, largest: float, rng: np.random.Generator) -> StarPoses:
    """Poses off any grid: uniform over orientations, and over displacements (of the structure
    before it is turned in the plane) of up to `largest` angstrom along x and y."""
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, n))
    polar = np.arccos(rng.uniform(-1, 1, n))
    return StarPoses.of_template(azimuth, polar, gamma, *rng.uniform(-largest, largest, (2, n)))


def random_optics(n: int, defocus: tuple[float, float], rng: np.random.Generator) -> Any:
    """One microscope at many defoci (angstrom), with some astigmatism; `OPTICS`, (n,)."""
    optics = np.zeros(n, OPTICS)
    mean, difference = rng.uniform(*defocus, n), rng.uniform(-300, 300, n)
    optics["defocus_u_angstrom"] = mean + difference / 2
    optics["defocus_v_angstrom"] = mean - difference / 2
    optics["defocus_angle_radian"] = rng.uniform(-np.pi, np.pi, n)
    optics["voltage_kilovolt"] = 300
    optics["spherical_aberration_mm"] = 2.7
    optics["amplitude_contrast"] = 0.1
    optics["scale"] = 1
    return optics


def two_lobes(opening_degrees: float, n_residues: int = 48) -> FloatArray:
    """Positions of residues in two lobes, the second turned about z: no symmetry, within 15
    angstrom of the middle."""
    centres = np.array([[[7, 0, 0]], [[-7, 0, 0]]])
    first, second = centres + np.random.default_rng(0).uniform(-5, 5, (2, n_residues // 2, 3))
    return np.concatenate([first, second @ about_z(np.float64(-opening_degrees))])


def about_z(degrees: FloatArray) -> FloatArray:
    """Counter-clockwise from x to y, (pose, 3, 3)."""
    c, s, o = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros_like(degrees)
    return np.stack([c, -s, o, s, c, o, o, o, o + 1], axis=-1).reshape(*np.shape(degrees), 3, 3)


def about_y(degrees: FloatArray) -> FloatArray:
    """Counter-clockwise from z to x, (pose, 3, 3)."""
    c, s, o = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros_like(degrees)
    return np.stack([c, o, s, o, o + 1, o, -s, o, c], axis=-1).reshape(*np.shape(degrees), 3, 3)


def project(molecule: Molecule, poses: StarPoses, n: int, pixel_size: float) -> FloatArray:
    """Turn Gaussians, project them along z, shift by -origin, sample at pixel centres: (pose, row,
    column)."""
    centred = molecule.positions - molecule.positions.mean(axis=0)
    axis = (np.arange(n) - n // 2) * pixel_size
    spread = 2 * molecule.variances.ravel()[:, None]
    height = molecule.weights.ravel()[:, None] / (np.pi * spread)
    images = np.empty((len(poses), n, n))
    for image, matrix, dx, dy in zip(
        images, poses.matrices(), poses.origin_x, poses.origin_y, strict=True
    ):
        x, y = (
            np.repeat(turned, molecule.weights.shape[1])[:, None]
            for turned in (centred @ matrix[0] - dx, centred @ matrix[1] - dy)
        )
        along_y = height * np.exp(-((axis - y) ** 2) / spread)
        np.matmul(along_y.T, np.exp(-((axis - x) ** 2) / spread), out=image)
    return images


def render(
    molecule: Molecule, poses: StarPoses, optics: Any, n: int, pixel_size: float
) -> FloatArray:
    """Noise-free particles, one record of optics for each pose: (pose, row, column).

    A structure has to lie inside of the box; what its contrast transfer spreads need not.
    """
    finer = max(2, int(np.ceil(NARROWEST * pixel_size / np.sqrt(molecule.variances.min()))))
    fine, wide = n * finer, PADDING * n * finer
    fx, fy = frequencies(wide, pixel_size / finer)
    kept = np.maximum(np.abs(fx), np.abs(fy)) < 0.5 / pixel_size
    particles = np.empty((len(poses), n, n))
    for i in range(len(poses)):
        field = np.zeros((wide, wide))
        crop(field, fine)[...] = project(molecule, poses[i : i + 1], fine, pixel_size / finer)[0]
        filtered = apply_filter(field, kept * relion_ctf(optics[i], fx, fy))
        particles[i] = crop(filtered[wide // 2 % finer :: finer, wide // 2 % finer :: finer], n)
    return particles


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


def apply_filter(images: FloatArray, transfer: NDArray[Any]) -> FloatArray:
    """Multiply by a real, even function of frequency in Fourier space; over the last two axes."""
    n = images.shape[-1]
    return np.fft.irfft2(np.fft.rfft2(images) * transfer[:, : n // 2 + 1], s=(n, n))


def crop(images: FloatArray, n: int) -> FloatArray:
    """Keep the n x n pixels about the centre; a view."""
    start = images.shape[-1] // 2 - n // 2
    return images[..., start : start + n, start : start + n]


def white(f: FloatArray) -> FloatArray:
    """The same power everywhere."""
    return np.ones_like(f)


@dataclass(frozen=True)
class Coloured:
    """Noise of amplitude 1 / sqrt(1 + (length f)^2), a part of whose power (over the whole band of
    pixels of 3 angstrom) may be white instead."""

    length_angstrom: float = 20.0
    white_part: float = 0.0

    def __call__(self, f: FloatArray) -> FloatArray:
        red = 1 / (1 + (self.length_angstrom * f) ** 2)
        x = (self.length_angstrom / 6) ** 2
        mean = np.log1p(x) / x  # over a disc that ends at 6 angstrom
        return self.white_part + (1 - self.white_part) * red / mean


@dataclass(frozen=True)
class Bump:
    """White noise with a ring of much more about one spatial frequency."""

    at_angstrom: float = 20.0
    width: float = 0.012
    height: float = 20.0

    def __call__(self, f: FloatArray) -> FloatArray:
        return 1 + self.height * np.exp(-(((f - 1 / self.at_angstrom) / self.width) ** 2) / 2)


def draw_noise(
    n_images: int, n: int, pixel_size: float, spectrum: Spectrum, rng: np.random.Generator
) -> FloatArray:
    """Stationary noise of a spectrum, cut out of a wider field; (image, row, column). Of variance
    1 if the spectrum is 1 everywhere."""
    wide = PADDING * n
    amplitude = np.sqrt(spectrum(np.hypot(*frequencies(wide, pixel_size))))
    noise = np.empty((n_images, n, n))
    for image in noise:
        image[...] = crop(apply_filter(rng.standard_normal((wide, wide)), amplitude), n)
    return noise


def matched_power(particles: FloatArray, pixel_size: float, spectrum: Spectrum) -> float:
    """Mean over particles of the sum of their power over that of noise of a spectrum: how well they
    can be seen."""
    n = particles.shape[-1]
    power = (np.abs(np.fft.fft2(particles)) ** 2).mean(axis=0) / n**2
    return float((power / spectrum(np.hypot(*frequencies(n, pixel_size)))).sum())


def circular_mask(n: int, inner: float, outer: float) -> FloatArray:
    """1 up to a radius, 0 beyond another (parts of the box's side), a cosine between; (row,
    column)."""
    axis = (np.arange(n) - n // 2) / n
    radius = np.hypot(*np.meshgrid(axis, axis))
    if inner == outer:
        return (radius <= inner).astype(float)
    return 0.5 + 0.5 * np.cos(np.pi * ((radius - inner) / (outer - inner)).clip(0, 1))


def falls_from(n: int, pixel_size: float, resolution: float) -> float:
    """Spatial frequency up to which a low-pass of images leaves everything as it is, 1/angstrom."""
    return 1 / resolution - EDGE / 2 / (n * pixel_size)


def low_pass(images: FloatArray, pixel_size: float, resolution: float) -> FloatArray:
    """Leave out what is finer than a resolution, with an edge of a few Fourier pixels about it."""
    n = images.shape[-1]
    k = np.hypot(*frequencies(n, pixel_size)) * n * pixel_size
    part = (k - falls_from(n, pixel_size, resolution) * n * pixel_size) / EDGE
    return apply_filter(images, 0.5 + 0.5 * np.cos(np.pi * part.clip(0, 1)))
