"""Density maps, and the transform of their projections: central slices of the transform of the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError, NotFiniteError

FloatArray = NDArray[np.float64]

POINTS_AT_ONCE = 2**21
"""Points of one non-uniform FFT: 150 MB, and the FFT of the map, which each one repeats, is a small part of it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A density map. The origin of poses is voxel n // 2 along each axis, as in RELION.

    Attributes
    ----------
    values : real, (z, y, x)
        Bright density.
    voxel_size_angstrom : (x, y, z)
    """

    values: NDArray[Any]
    voxel_size_angstrom: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype.kind not in "fiu" or min(self.values.shape) < 2:
            raise InputError(f"a map of shape {self.values.shape} and type {self.values.dtype} is no density map")
        if not np.isfinite(self.values).all():
            raise NotFiniteError("a map has NaN or infinite voxels", remedy="Make it again, or set them to 0.")

    def slices(
        self,
        rotations: FloatArray,
        kx: FloatArray,
        ky: FloatArray,
        box_size_angstrom: float,
        conventions: Conventions,
        eps: float,
    ) -> NDArray[np.complex128]:
        """Transform of the projection along each direction.

        Parameters and result are those of `Atoms.slices`. Beyond the Nyquist frequency of the map the result is 0.
        """
        values = self.values
        if conventions.reads_map_header:
            per_voxel = 4 * np.pi * np.array(self.voxel_size_angstrom)[::-1, None] / box_size_angstrom  # z, y, x
            axes = (2, 1, 0)
        else:
            per_voxel = 4 * np.pi / np.array(values.shape)[:, None]
            axes = (0, 1, 2)
        modes = np.ascontiguousarray(values, np.complex128)
        finer = 1.25 if eps > 1e-9 else 2.0  # the grid of the FFT itself: a quarter of the memory, 2 to 5 times faster
        at_once = max(1, POINTS_AT_ONCE // len(kx))
        slices = np.empty((len(rotations), len(kx)), np.complex128)
        for start in range(0, len(rotations), at_once):
            part = slice(start, start + at_once)
            points = rotations[part, :, :2] @ np.stack([kx, ky])  # (template, x y z, point)
            points = per_voxel * points.transpose(1, 0, 2).reshape(3, -1)[list(axes)]
            waves = finufft.nufft3d2(*points, modes, eps=eps, isign=-1, nthreads=1, upsampfac=finer)
            slices[part] = np.where(np.abs(points).max(axis=0) <= np.pi, waves, 0).reshape(-1, len(kx))
        if conventions.removes_box_from_templates:
            slices -= values.sum(dtype=np.float64) * np.sinc(2 * kx) * np.sinc(2 * ky)
        return slices
