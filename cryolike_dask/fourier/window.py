"""The window of Kaiser and Bessel, by which values are interpolated in a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import i0

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """I0(b sqrt(1 - (2 u / w)^2)) / I0(b) at a distance of u cells, and 0 beyond w / 2.

    Attributes
    ----------
    width : int
        Cells w that it covers.
    upsampling : float
        By how much grids that it is used on are finer than what is in them needs.
    """

    width: int
    upsampling: float = 2.0

    @classmethod
    def of(cls, error: float, upsampling: float = 2.0) -> Window:
        """The narrowest window of about this error, relative to the largest value: measured, of
        noise up to the edges of what is transformed 5 to 10 times exp(-pi w sqrt(1 - 1 /
        upsampling)), of what fades towards them less than that."""
        per_cell = math.pi * math.sqrt(1 - 1 / upsampling)
        return cls(math.ceil(math.log(4 / error) / per_cell), upsampling)

    @property
    def steepness(self) -> float:
        """b, of the smallest error: measured, at its upper limit the error is three times as
        large."""
        return 0.98 * math.pi * self.width * (1 - 0.5 / self.upsampling)

    def cells(self, n: int) -> int:
        """Cells of a grid that is so much finer, of a size that an FFT is fast for."""
        return int(next_fast_len(math.ceil(self.upsampling * n), real=True))

    def transform(self, frequency: FloatArray) -> FloatArray:
        """Integral of the window times exp(2 pi i f u), f in cycles per cell, no more than half of
        one by the upsampling."""
        root = np.sqrt(self.steepness**2 - (np.pi * self.width * frequency) ** 2)
        values: FloatArray = self.width * np.sinh(root) / (root * i0(self.steepness))
        return values

    def taps(self, at: torch.Tensor, real: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The first of the cells that the window about a place covers, and its values there.

        Parameters
        ----------
        at : Tensor, float64, (...)
            Places, in cells.
        real : torch type of the values
            They are evaluated in float64: in float32 half of their digits after the seventh would
            be lost to the exponential in I0.

        Returns
        -------
        first : Tensor, int64, (...)
        values : Tensor, (..., width)
        """
        import torch

        first = torch.ceil(at - self.width / 2)
        cells = torch.arange(self.width, dtype=at.dtype, device=at.device)
        part = ((first - at)[..., None] + cells) * (2 / self.width)
        inside = (1 - part.square()).clamp_(min=0).sqrt_()
        values = torch.special.i0(inside.mul_(self.steepness)).mul_(1 / i0(self.steepness))
        return first.to(torch.int64), values.to(real)


def centred(values: Any, n_cells: int, n: int) -> Any:
    """Put n values, the origin at n // 2, into the last axis of zeros of n_cells, the origin at
    0."""
    padded = values.new_zeros((*values.shape[:-1], n_cells))
    padded[..., : n - n // 2] = values[..., n // 2 :]
    padded[..., n_cells - n // 2 :] = values[..., : n // 2]
    return padded
