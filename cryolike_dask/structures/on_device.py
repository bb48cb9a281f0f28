"""Structures projected on the device of a task: slices of a transform that is made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import float32_products, sent
from cryolike_dask.conventions import Conventions
from cryolike_dask.fourier.gridded import Gridded, axes_of, bytes_of
from cryolike_dask.fourier.window import Window
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.band_limited import Voxels, band_limited
from cryolike_dask.structures.projection import EPS
from cryolike_dask.structures.volumes import Volume

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Central:
    """The transform of a structure, and the points of half rings to take slices of it at.

    Attributes
    ----------
    gridded : Gridded
        Of the structure, by `scale`.
    scale : float
    kx, ky : Tensor, float64, (point,)
        Cycles per half box.
    box : Tensor, real, (point,)
        Transform of the box that is subtracted, by `scale`.
    weights : Tensor, float64, (shell, 1)
        Of points of half rings, which stand for whole ones.
    """

    gridded: Gridded
    scale: float
    kx: torch.Tensor
    ky: torch.Tensor
    box: torch.Tensor
    weights: torch.Tensor

    def slices(self, rotations: FloatArray) -> torch.Tensor:
        """Those of `Volume.slices` or `Atoms.slices`, by `scale`, complex (rotation, point)."""
        axes = sent(np.ascontiguousarray(rotations[:, :, :2]), self.kx.device)
        with float32_products(axes.device.type):
            return self.gridded.slices(axes, self.kx, self.ky) - self.box

    def half_rings(self, rotations: FloatArray) -> torch.Tensor:
        """Project along any axes, as `projection.project_half_rings`, complex (rotation, shell,
        W/2). A projection without power is zero everywhere; one whose power overflows, NaN."""
        n_shells = len(self.weights)
        values = self.slices(rotations).view(-1, n_shells, len(self.kx) // n_shells)
        power = (values.real.double().square() + values.imag.double().square()) * self.weights
        norm = power.sum((1, 2)).sqrt()
        values /= norm.where(norm != 0, 1).to(values.real.dtype)[:, None, None]
        return values


def bytes_on_device(
    structure: Atoms | Volume, grid: PolarGrid, conventions: Conventions, precision: str
) -> tuple[int, int]:
    """That a `Central` takes, and about how many while it is made."""
    size, highest, eps = grid.box_size_angstrom, grid.radius_max, EPS[precision]
    window, item = Window.of(eps), 4 if precision == "single" else 8
    if isinstance(structure, Volume):
        values, spacing = structure.voxels(size, conventions)
        return bytes_of(axes_of(values.shape, spacing, highest, window), item)
    voxels = Voxels.of(structure, size, highest, eps)
    axes = axes_of((voxels.n,) * 3, (voxels.step,) * 3, highest, window)
    kept, making = bytes_of(axes, item)
    return kept, max(making + item * voxels.n**3, 5 * item * voxels.n**3)


def central(
    structure: Atoms | Volume,
    grid: PolarGrid,
    conventions: Conventions,
    precision: str,
    device: torch.device,
) -> Central:
    """Transform a structure on a device.

    Parameters
    ----------
    structure : Atoms or Volume
    grid : PolarGrid
    conventions : Conventions
    precision : "single" | "double"
        Of the transform; its error relative to the largest value is that of
        `projection.project`, and the rounding of single precision beside it.
    device : torch.device
    """
    import torch

    eps, real = EPS[precision], torch.float32 if precision == "single" else torch.float64
    size, highest = grid.box_size_angstrom, grid.radius_max
    if isinstance(structure, Volume):
        values, spacing = structure.voxels(size, conventions)
        scale = float(np.abs(values, dtype=np.float64).max()) or 1.0
        density = sent(np.ascontiguousarray(values / scale), device).to(real)
    else:
        scale, voxels = 1.0, Voxels.of(structure, size, highest, eps)
        density = band_limited(structure, voxels, size, conventions, eps, real, device)
        spacing = (voxels.step,) * 3
    half = grid.n_inplanes // 2
    kx, ky = (k[:, :half].ravel() for k in grid.points())
    box = structure.removed_box(size, conventions) / scale * np.sinc(2 * kx) * np.sinc(2 * ky)
    return Central(
        Gridded.of(density, spacing, highest, Window.of(eps)),
        scale,
        sent(kx, device),
        sent(ky, device),
        sent(box, device).to(real),
        sent(2 * grid.weights[:, None], device),
    )
