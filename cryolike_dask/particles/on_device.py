"""Pixels to the Fourier polar grid on the device of a task, many images at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import sent
from cryolike_dask.fourier.planar import Points
from cryolike_dask.fourier.window import Window
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.transform import fine_grid, half_weights

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]

ERROR = {"single": 1e-7, "double": 1e-12}
"""Of the transform, relative to the largest value; the rounding of single precision comes beside
it."""


@dataclass(frozen=True, eq=False)
class Transform:
    """Images to half rings of a grid, and sums over rings of more angles.

    Attributes
    ----------
    grid, fine : PolarGrid
        Of the result, and the one on which rings are summed.
    points : Points
        Half rings of `fine`.
    kx, ky : Tensor, float64, (point,)
        The same, cycles per half box.
    weights : Tensor, float64, (shell,)
        Quadrature weights of half rings of `fine`, which stand for whole ones.
    mask : Tensor, float64, (shell, angle, 2)
        Weighted transform of the box, real and imaginary part.
    """

    grid: PolarGrid
    fine: PolarGrid
    points: Points
    kx: torch.Tensor
    ky: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(
        cls, grid: PolarGrid, precision: str, device: torch.device, *, resolves_corners: bool
    ) -> Transform:
        """To a grid, through as many angles as resolve the corners of the box, or its own."""
        import torch

        real = torch.float32 if precision == "single" else torch.float64
        fine = fine_grid(grid) if resolves_corners else grid
        kx, ky = (k[:, : fine.n_inplanes // 2].ravel() for k in fine.points())
        window = Window.of(ERROR[precision])
        weights, *mask = half_weights(fine)
        return cls(
            grid,
            fine,
            Points.of(2 * kx, 2 * ky, grid.n_pixels, window, real, device),
            sent(kx, device),
            sent(ky, device),
            sent(weights, device),
            sent(np.stack(mask, axis=-1), device),
        )

    def stack_and_rings(
        self, images: NDArray[Any], offset: FloatArray | None, shift: FloatArray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn images, finite and not constant, into what `transform.stack_and_rings` gives: half
        rings, complex (image, shell, W/2), and sums, float64 (image, 2, shell)."""
        import torch

        device = self.kx.device
        pixels = sent(images, device).double()
        mean = pixels.mean((1, 2)) if offset is None else sent(offset, device)
        pixels = pixels - mean[:, None, None]
        pixels /= pixels.abs().amax((1, 2), keepdim=True)
        values = self.points.transform(pixels.to(self.points.weights.dtype))
        values = values * (4 * np.pi / self.grid.n_pixels)
        if shift is not None:
            x, y = sent(np.ascontiguousarray(-2 * np.pi * shift.T), device)[..., None]
            angle = x * self.kx + y * self.ky
            values *= torch.complex(angle.cos(), angle.sin()).to(values.dtype)
        values = values.view(len(values), self.grid.n_shells, -1)
        parts = torch.view_as_real(values).double()
        power, overlap = parts.square().sum((2, 3)) * self.weights, (parts * self.mask).sum((2, 3))
        values = self._folded(values)
        norm = self._power(values).sqrt()
        values = values / norm.to(values.real.dtype)[:, None, None]
        return values, torch.stack([power / norm[:, None] ** 2, overlap / norm[:, None]], 1)

    def _power(self, values: torch.Tensor) -> torch.Tensor:
        """Of half rings of the grid, float64, (image,)."""
        import torch

        weights = self.weights * (self.fine.n_inplanes / self.grid.n_inplanes)
        return torch.view_as_real(values).double().square().sum((2, 3)) @ weights

    def _folded(self, values: torch.Tensor) -> torch.Tensor:
        """Half rings without what turns faster than the angles of the grid resolve, as
        `transform.stack_and_rings` has them."""
        import torch

        n_given, n = self.fine.n_inplanes, self.grid.n_inplanes
        if n_given == n:
            return values
        series = torch.fft.fft(torch.cat([values, values.conj()], -1))
        kept = torch.cat([series[..., : n // 2], series[..., n_given - n // 2 :]], -1)
        kept[..., n // 2] += series[..., n // 2]
        folded: torch.Tensor = torch.fft.ifft(kept)[..., : n // 2] * (n / n_given)
        return folded


@lru_cache(maxsize=1)
def transform_on(
    grid: PolarGrid, precision: str, device: str, *, resolves_corners: bool
) -> Transform:
    """The latest `Transform` of a process: 40 MB in single precision for 132 pixels."""
    return Transform.of(grid, precision, resolve_device(device), resolves_corners=resolves_corners)
