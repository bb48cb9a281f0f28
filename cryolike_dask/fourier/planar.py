"""Transforms of images at points that are the same for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.fourier.window import Window, centred

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the transforms of images, and how they are interpolated between cells of an FFT.

    Attributes
    ----------
    n_pixels, n_cells : int
        Along a side of the images, and of the grid that their FFT is made on.
    rows : Tensor, int64, (row,)
        Of the FFT that windows cover.
    undone : Tensor, real, (n_pixels,)
        What pixels are divided by along each axis, inverted.
    cells : Tensor, int64, (point, width^2)
        That the window of each point covers, of these rows.
    weights : Tensor, real, (point, width^2)
        Its values there.
    """

    n_pixels: int
    n_cells: int
    rows: torch.Tensor
    undone: torch.Tensor
    cells: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(
        cls,
        kx: FloatArray,
        ky: FloatArray,
        n_pixels: int,
        window: Window,
        real: torch.dtype,
        device: torch.device,
    ) -> Points:
        """Points (kx, ky), in cycles by side of the image, ky not below 0, of images whose origin
        is pixel n // 2."""
        import torch

        n_cells = window.cells(n_pixels)
        at = torch.from_numpy(np.stack([ky, kx], axis=1) * (n_cells / n_pixels)).to(device)
        first, taps = window.taps(at, real)
        steps = torch.arange(window.width, device=device)
        reach = math.ceil(window.width / 2)
        last = math.ceil(float(ky.max(initial=0)) * (n_cells / n_pixels)) + reach
        row = (first[:, 0, None] + steps) + reach
        column = (first[:, 1, None] + steps) % n_cells
        undone = 1 / window.transform((np.arange(n_pixels) - n_pixels // 2) / n_cells)
        return cls(
            n_pixels,
            n_cells,
            torch.arange(-reach, last + 1, device=device) % n_cells,
            torch.from_numpy(undone).to(device, real),
            (row[:, :, None] * n_cells + column[:, None]).flatten(1),
            (taps[:, 0, :, None] * taps[:, 1, None]).flatten(1),
        )

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """Sum over pixels, I exp(-2 pi i k . X / n), X in pixels from n // 2.

        Parameters
        ----------
        images : Tensor, real, (image, row, column)

        Returns
        -------
        complex, (image, point)
        """
        import torch

        values = images * self.undone * self.undone[:, None]
        values = centred(values, self.n_cells, self.n_pixels).transpose(1, 2)
        values = centred(values, self.n_cells, self.n_pixels)
        waves = torch.fft.fft2(values)  # (image, column, row)
        table = torch.view_as_real(waves[:, :, self.rows].permute(2, 1, 0).contiguous())
        sums = torch.nn.functional.embedding_bag(
            self.cells, table.flatten(0, 1).flatten(1), mode="sum", per_sample_weights=self.weights
        )
        return torch.view_as_complex(sums.view(len(sums), -1, 2)).T
