"""Atoms into templates: the transform of a sum of Gaussians is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Atoms:
    """Gaussian atoms, or one per residue.

    Attributes
    ----------
    positions_angstrom : (atom, 3) float64
    electrons : (atom,) float64
        Integral of each Gaussian.
    radii_angstrom : (atom,) float64
        Standard deviation of each Gaussian.
    """

    positions_angstrom: FloatArray
    electrons: FloatArray
    radii_angstrom: FloatArray

    def __post_init__(self) -> None:
        n = len(self.electrons)
        if self.positions_angstrom.shape != (n, 3) or self.radii_angstrom.shape != (n,) or n == 0:
            raise InputError(
                f"atoms: positions {self.positions_angstrom.shape}, electrons {self.electrons.shape}, "
                f"radii {self.radii_angstrom.shape} do not belong together"
            )

    @property
    def centred(self) -> FloatArray:
        """Positions about their unweighted mean, which is the origin of all poses, angstrom."""
        mean: FloatArray = self.positions_angstrom.mean(axis=0)
        return self.positions_angstrom - mean


def viewing_rotation(azimuth: float, polar: float, gamma: float = 0.0) -> FloatArray:
    """Rz(azimuth) Ry(polar) Rz(gamma): its columns are the axes of the image in the frame of the structure, (3, 3)."""
    return _about_z(azimuth) @ _about_y(polar) @ _about_z(gamma)


def project_atoms(atoms: Atoms, grid: PolarGrid, viewing: ViewingAngles) -> NDArray[np.complex128]:
    """Project atoms along every viewing direction.

    Parameters
    ----------
    atoms : Atoms
    grid : PolarGrid
    viewing : ViewingAngles

    Returns
    -------
    complex128, (template, shell, angle)
        Normalised to power 1 over the grid.

    Notes
    -----
    T = sum_a Z_a exp(-2 pi^2 sigma_a^2 k^2) exp(-2 pi i k . u_a), u_a the projected position and sigma_a the radius,
    both in half boxes. Direct sums over half of each ring; the other half is its conjugate.
    """
    half = grid.n_inplanes // 2
    kx, ky = (k[:, :half].ravel() for k in grid.points())
    sigma = 2 * atoms.radii_angstrom / grid.box_size_angstrom
    envelope = atoms.electrons * np.exp(-2 * np.pi**2 * sigma**2 * grid.radii[:, None] ** 2)
    envelope = np.repeat(envelope, half, axis=0)
    positions = 2 * atoms.centred / grid.box_size_angstrom
    templates = np.empty((len(viewing), *grid.shape), np.complex128)
    for i, (azimuth, polar) in enumerate(zip(viewing.azimuth, viewing.polar, strict=True)):
        x, y, _ = (positions @ viewing_rotation(azimuth, polar)).T
        phase = -2 * np.pi * (np.outer(kx, x) + np.outer(ky, y))
        rings = (envelope * np.exp(1j * phase)).sum(axis=1).reshape(-1, half)
        templates[i] = np.concatenate([rings, rings.conj()], axis=1)
    return templates / np.sqrt(grid.integrate(np.abs(templates) ** 2))[:, None, None]


def _about_z(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _about_y(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
