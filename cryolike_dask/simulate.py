"""Particles of known pose from structures, with optics and noise: for the demo, for tests, and to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.optics import electron_wavelength_angstrom, optics_table
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.structures.atoms import Atoms, viewing_rotation

FloatArray = NDArray[np.float64]

RESIDUE_ELECTRONS = 62.0
RESIDUE_RADIUS_ANGSTROM = 3.0


@dataclass(frozen=True, eq=False)
class Poses:
    """Where each particle is: the structure is projected, moved by the displacement, then turned by -gamma.

    Attributes
    ----------
    azimuth, polar, gamma : (image,) float64, radian
    displacement_x_angstrom, displacement_y_angstrom : (image,) float64
    """

    azimuth: FloatArray
    polar: FloatArray
    gamma: FloatArray
    displacement_x_angstrom: FloatArray
    displacement_y_angstrom: FloatArray

    def __len__(self) -> int:
        return len(self.azimuth)

    def take(self, rows: NDArray[np.int64]) -> Poses:
        """Some of the poses."""
        return Poses(**{name: values[rows] for name, values in vars(self).items()})


def hinge(opening_radian: float, n_residues: int = 140, seed: int = 0) -> Atoms:
    """Make a small protein-like structure: two compact lobes of C-alpha atoms, joined by a hinge.

    Parameters
    ----------
    opening_radian : float
        Angle by which the second lobe is turned about the hinge.
    n_residues : int
        Residues in both lobes together.
    seed : int
        Same seed, same lobes: structures that differ in `opening_radian` alone are conformations of one molecule.

    Returns
    -------
    Atoms
        One Gaussian per residue.
    """
    rng = np.random.default_rng(seed)
    first = _lobe(n_residues // 2, np.array([19.0, 0.0, 0.0]), np.array([17.0, 10.0, 7.0]), rng)
    second = _lobe(n_residues - n_residues // 2, np.array([-15.0, 3.0, 0.0]), np.array([13.0, 11.0, 9.0]), rng)
    c, s = np.cos(opening_radian), np.sin(opening_radian)
    second = second @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]).T
    positions = np.concatenate([first[::-1], second[1:]])  # they share the residue of the hinge
    n = len(positions)
    return Atoms(positions, np.full(n, RESIDUE_ELECTRONS), np.full(n, RESIDUE_RADIUS_ANGSTROM))


def draw_poses(n: int, max_displacement_angstrom: float, rng: np.random.Generator) -> Poses:
    """Draw poses uniformly: over directions, in-plane rotations, and a square of displacements."""
    limit = max_displacement_angstrom
    return Poses(
        azimuth=rng.uniform(0, 2 * np.pi, n),
        polar=np.arccos(rng.uniform(-1, 1, n)),
        gamma=rng.uniform(0, 2 * np.pi, n),
        displacement_x_angstrom=rng.uniform(-limit, limit, n),
        displacement_y_angstrom=rng.uniform(-limit, limit, n),
    )


def draw_optics(n: int, rng: np.random.Generator) -> NDArray[np.void]:
    """Draw the optics of a 300 kV microscope: defocus 0.8 to 1.8 micrometre with up to 0.05 of astigmatism."""
    mean, difference = rng.uniform(8000, 18000, n), rng.uniform(-500, 500, n)
    return optics_table(
        n,
        defocus_u_angstrom=mean + difference / 2,
        defocus_v_angstrom=mean - difference / 2,
        defocus_angle_radian=rng.uniform(-np.pi / 2, np.pi / 2, n),
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )


def render_particles(atoms: Atoms, grid: PolarGrid, poses: Poses, optics: NDArray[np.void]) -> FloatArray:
    """Render particles without noise: on pixels, filtered on a box twice as wide, cropped.

    Returns
    -------
    float64, (image, row, column)
        x is the column, y the row; bright on dark.
    """
    n = grid.n_pixels
    axis = (np.arange(2 * n) - n) * grid.pixel_size_angstrom
    inner = slice(n - n // 2, n - n // 2 + n)
    images = np.empty((len(poses), n, n))
    for i in range(len(poses)):
        x, y = _projected(atoms, poses, i)
        along_x = np.exp(-((axis - x[:, None]) ** 2) / (2 * atoms.radii_angstrom[:, None] ** 2))
        along_y = np.exp(-((axis - y[:, None]) ** 2) / (2 * atoms.radii_angstrom[:, None] ** 2))
        mass = atoms.electrons / (2 * np.pi * atoms.radii_angstrom**2)
        density = (along_y * mass[:, None]).T @ along_x
        contrast = _contrast_on_pixels(optics[i], 2 * n, grid.pixel_size_angstrom)
        images[i] = np.fft.ifft2(np.fft.fft2(density) * contrast).real[inner, inner]
    return images


def with_noise(images: FloatArray, signal_to_noise: float, rng: np.random.Generator) -> FloatArray:
    """Add white noise of one level to all images, so that the level tells nothing of what an image shows.

    Parameters
    ----------
    images : (image, row, column)
    signal_to_noise : float
        Mean variance of the images over the variance of the noise.
    """
    level = np.sqrt(images.var(axis=(1, 2)).mean() / signal_to_noise)
    noisy: FloatArray = images + level * rng.standard_normal(images.shape)
    return noisy


def _projected(atoms: Atoms, poses: Poses, i: int) -> tuple[FloatArray, FloatArray]:
    projected = atoms.centred @ viewing_rotation(poses.azimuth[i], poses.polar[i])
    x = projected[:, 0] + poses.displacement_x_angstrom[i]
    y = projected[:, 1] + poses.displacement_y_angstrom[i]
    c, s = np.cos(poses.gamma[i]), np.sin(poses.gamma[i])
    return c * x + s * y, -s * x + c * y


def _contrast_on_pixels(optics: np.void, n: int, pixel_size_angstrom: float) -> FloatArray:
    frequency = np.fft.fftfreq(n, pixel_size_angstrom)
    fx, fy = np.meshgrid(frequency, frequency)
    f2, angle = fx**2 + fy**2, np.arctan2(fy, fx)
    u, v = optics["defocus_u_angstrom"], optics["defocus_v_angstrom"]
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (angle - optics["defocus_angle_radian"]))
    wavelength = electron_wavelength_angstrom(optics["voltage_kilovolt"])
    chi = (
        np.pi / 2 * optics["spherical_aberration_mm"] * 1e7 * wavelength**3 * f2**2 - np.pi * wavelength * f2 * defocus
    )
    chi = chi - optics["phase_shift_radian"]
    amplitude = optics["amplitude_contrast"]
    contrast = -np.sqrt(1 - amplitude**2) * np.sin(chi) + amplitude * np.cos(chi)
    filtered: FloatArray = contrast * optics["scale"] * np.exp(-optics["b_factor_angstrom2"] * f2 / 4)
    return filtered


def _lobe(n: int, centre: FloatArray, radii: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A chain of steps of 3.8 angstrom from the origin that fills an ellipsoid, keeping apart from itself."""
    chain = np.zeros((n, 3))
    for i in range(1, n):
        steps = rng.standard_normal((64, 3))
        candidates = chain[i - 1] + 3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True)
        outside = np.clip(np.linalg.norm((candidates - centre) / radii, axis=1) - 1, 0, None)
        distances = np.linalg.norm(candidates[:, None] - chain[: max(i - 1, 1)], axis=2)
        crowding = np.exp(-((distances / 5.0) ** 2)).sum(axis=1)
        chain[i] = candidates[np.argmin(crowding + 20 * outside)]
    return chain
