"""Structures into pixels: particles of given pose and optics, without noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.likelihoods.image_formation import contrast_at_points, displacement_phases
from cryolike_dask.structures.projection import Structure

FloatArray = NDArray[np.float64]

AT_ONCE = 16
"""Particles whose slices are made together."""
EPS = 1e-6
"""Error of the non-uniform FFT: far below any noise."""


@dataclass(frozen=True, eq=False)
class Poses:
    """Where each particle is: the structure is projected, moved by the displacement, then turned by
    -gamma.

    Attributes
    ----------
    azimuth, polar, gamma : (image,) float64, radian
        In RELION's words: rot, tilt, psi.
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

    def shifts_angstrom(self) -> tuple[FloatArray, FloatArray]:
        """Where the origin of each structure is in its image: x and y. RELION's origins are
        their negatives."""
        c, s = np.cos(self.gamma), np.sin(self.gamma)
        x, y = self.displacement_x_angstrom, self.displacement_y_angstrom
        return c * x + s * y, -s * x + c * y


def render_particles(
    structure: Structure, grid: PolarGrid, poses: Poses, optics: NDArray[np.void]
) -> FloatArray:
    """Render particles without noise, filtered on a box twice as wide, cropped.

    Parameters
    ----------
    structure : Atoms or Volume
    grid : PolarGrid
        The box and its pixels.
    poses : Poses
    optics : structured array, `OPTICS`, (image,)

    Returns
    -------
    float64, (image, row, column)
        x is the column, y the row; bright on dark.
    """
    n, pixel = grid.n_pixels, grid.pixel_size_angstrom
    fy, fx = np.meshgrid(np.fft.fftfreq(2 * n, pixel), np.fft.rfftfreq(2 * n, pixel), indexing="ij")
    frequencies, angles = np.hypot(fx, fy), np.arctan2(fy, fx)
    kx, ky = (f.ravel() * grid.box_size_angstrom / 2 for f in (fx, fy))
    rotations = viewing_rotation(poses.azimuth, poses.polar, poses.gamma)
    x, y = (shift + n * pixel for shift in poses.shifts_angstrom())  # the middle of the wide box
    inner = slice(n - n // 2, n - n // 2 + n)
    images = np.empty((len(poses), n, n))
    for start in range(0, len(poses), AT_ONCE):
        turned = rotations[start : start + AT_ONCE]
        waves = structure.slices(turned, kx, ky, grid.box_size_angstrom, STANDARD, EPS)
        for i, wave in enumerate(waves.reshape(-1, *fx.shape), start):
            moved = wave * displacement_phases(x[i], y[i], fx, fy)
            (contrast,) = contrast_at_points(optics[i : i + 1], frequencies, angles, STANDARD)
            wide = np.fft.irfft2(moved * contrast, s=(2 * n, 2 * n))
            images[i] = wide[inner, inner] / pixel**2
    return images
