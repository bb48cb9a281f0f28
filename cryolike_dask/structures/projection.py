"""Structures into templates: projections along viewing directions, on the Fourier polar grid."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import STANDARD, Conventions
from cryolike_dask.errors import InputError, ZeroPowerError, listed
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles

FloatArray = NDArray[np.float64]

EPS = {"single": 1e-7, "double": 1e-12}
"""Error of the non-uniform FFT, relative to the largest value: below the rounding of the result."""


class Structure(Protocol):
    """A structure that can be projected: `Atoms` or a `Volume`."""

    def slices(
        self,
        rotations: FloatArray,
        kx: FloatArray,
        ky: FloatArray,
        box_size_angstrom: float,
        conventions: Conventions,
        eps: float,
    ) -> NDArray[np.complex128]:
        """Transform of the projection along each direction, (template, point)."""

    def removed_box(self, box_size_angstrom: float, conventions: Conventions) -> float:
        """Integral of the constant box that is subtracted from projections."""


def project(
    structure: Structure,
    grid: PolarGrid,
    viewing: ViewingAngles,
    conventions: Conventions = STANDARD,
    precision: str = "double",
) -> NDArray[Any]:
    """Project a structure along every viewing direction.

    Parameters
    ----------
    structure : Atoms or Volume
    grid : PolarGrid
    viewing : ViewingAngles
    conventions : Conventions
    precision : "single" | "double"

    Returns
    -------
    complex64 or complex128, (template, shell, angle)
        Normalised to power 1 over the grid. Half of each ring is computed; the other half is its
        conjugate.

    Raises
    ------
    ZeroPowerError
        If a projection has no power; names the indices.
    """
    if precision not in EPS:
        raise InputError(f"precision={precision!r} is neither single nor double")
    viewing = viewing.in_single_precision() if conventions.rounds_to_single else viewing
    rotations, eps = viewing.rotations(), EPS[precision]
    values = project_half_rings(structure, grid, rotations, conventions, eps)
    dtype = np.complex64 if precision == "single" else np.complex128
    return np.concatenate([values, values.conj()], axis=2).astype(dtype)


def project_half_rings(
    structure: Structure,
    grid: PolarGrid,
    rotations: FloatArray,
    conventions: Conventions,
    eps: float,
) -> NDArray[np.complex128]:
    """Project along any axes: half of each ring, as `project` does.

    Parameters
    ----------
    structure, grid, conventions
        Those of `project`.
    eps : float
        Error of the non-uniform FFT, relative to the largest value.
    rotations : (rotation, 3, 3) float64
        Columns: the axes of the image in the coordinates of the structure.

    Returns
    -------
    complex128, (rotation, shell, W/2)
    """
    half = grid.n_inplanes // 2
    kx, ky = (k[:, :half].ravel() for k in grid.points())
    values = structure.slices(rotations, kx, ky, grid.box_size_angstrom, conventions, eps)
    values = values.reshape(len(rotations), grid.n_shells, half)
    with np.errstate(over="ignore", invalid="ignore"):
        power = 2 * grid.integrate(np.abs(values) ** 2)
    bad = np.flatnonzero(~((power > 0) & (power < np.inf)))
    if len(bad):
        raise ZeroPowerError(
            f"projection(s) {listed(bad)} have a power of {power[bad[0]]:g}",
            remedy="Is the structure empty, or huge?",
        )
    values /= np.sqrt(power)[:, None, None]
    return values
