"""The transform of what lies in a three-dimensional grid, kept on a grid that is fine enough to
interpolate in; half of it, for its counterpart is the conjugate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryolike_dask.fourier.window import Window, centred

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**29}
"""Bytes of a grid that are transformed, and of values that are gathered, at a time; on a CPU about
the cache of a core."""


@dataclass(frozen=True, eq=False)
class Gridded:
    """A transform to interpolate in.

    Attributes
    ----------
    values : Tensor, real, (z y x and real and imaginary part)
        Of contiguous cells; those beyond half of the grid that windows reach are repeated.
    axes : (Axis, Axis, Axis)
        z, y and x.
    cells_per_cycle, highest : Tensor, float64, (x y z)
        Cells by unit of frequency; and beyond which the transform is taken to be 0.
    window : Window
    """

    values: torch.Tensor
    axes: tuple[Axis, ...]
    cells_per_cycle: torch.Tensor
    highest: torch.Tensor
    window: Window

    @classmethod
    def of(
        cls,
        values: torch.Tensor,
        spacing: tuple[float, float, float],
        highest: float,
        window: Window,
    ) -> Gridded:
        """Transform values, sum V exp(-2 pi i k . X), the origin X = 0 at voxel n // 2 of each
        axis.

        Parameters
        ----------
        values : Tensor, real, (z, y, x)
        spacing : (x, y, z)
            Of the voxels.
        highest : float
            Frequency, in cycles by the unit of the spacing, up to which it will be asked for, in
            any direction.
        window : Window
        """
        import torch

        axes = axes_of(values.shape, spacing, highest, window)
        for axis in axes:
            values = _along_first_axis(values, window, axis)
        cells = [[axis.cells_per_cycle, axis.n_cells / 2] for axis in axes[::-1]]
        scales = torch.tensor(cells, dtype=torch.float64).to(values.device)
        return cls(torch.view_as_real(values).flatten(), axes, scales[:, 0], scales[:, 1], window)

    @property
    def n_bytes(self) -> int:
        """That it takes on its device."""
        return self.values.numel() * self.values.element_size()

    def slices(self, axes: torch.Tensor, kx: torch.Tensor, ky: torch.Tensor) -> torch.Tensor:
        """Values at the points of planes.

        Parameters
        ----------
        axes : Tensor, float64, (plane, 3, 2)
            The two axes of each.
        kx, ky : Tensor, float64, (point,)
            Frequencies along them.

        Returns
        -------
        complex, (plane, point)
        """
        import torch

        results = []
        device = self.values.device
        points = torch.stack([kx, ky])
        together = max(1, CHUNK_BYTES[device.type] // (points.shape[1] * self._bytes_of_point))
        for start in range(0, max(1, len(axes)), together):
            part = axes[start : start + together]
            at = (part * self.cells_per_cycle[:, None]) @ points
            results.append(self._at(at.transpose(1, 2).reshape(-1, 3)).reshape(len(part), len(kx)))
        return torch.cat(results)

    @property
    def _bytes_of_point(self) -> int:
        """That are gathered for a point."""
        return 2 * self.window.width**3 * self.values.element_size()

    def _at(self, at: torch.Tensor) -> torch.Tensor:
        """Values at places, (point, x y z), in cells."""
        import torch

        device, real, w = at.device, self.values.dtype, self.window.width
        inside = (at.abs() <= self.highest).all(1)
        at = at.clamp(-self.highest, self.highest)
        # the conjugate of the point opposite, where that is in the half that is kept
        other = 1 - 2 * (at[:, 2:] < 0).to(at.dtype)
        at *= other
        first, taps = self.window.taps(at, real)
        of_plane = (taps[:, 2, :, None] * taps[:, 1, None, :]).flatten(1)
        _, n_y, n_x = (len(axis.kept) for axis in self.axes)
        z, y, x = (first[:, 2 - i] - axis.kept.start for i, axis in enumerate(self.axes))
        start = (z * n_y + y) * n_x + x
        steps = torch.arange(w, device=device)
        rows = start[:, None] + (steps[:, None] * n_y + steps).flatten() * n_x
        # windows along x overlap, and are next to each other in memory
        windows = self.values.as_strided((self.values.numel() // 2 - w + 1, 2 * w), (2, 1))
        sums = torch.empty((len(at), 2), dtype=real, device=device)
        together = max(1, CHUNK_BYTES[device.type] // self._bytes_of_point)
        for start_of_part in range(0, len(at), together):
            part = slice(start_of_part, start_of_part + together)
            along_x = torch.bmm(of_plane[part, None], windows[rows[part]])
            sums[part] = (along_x.view(-1, w, 2) * taps[part, 0, :, None]).sum(1)
        sums *= inside[:, None]
        sums[:, 1] *= other[:, 0]
        return torch.view_as_complex(sums)


@dataclass(frozen=True)
class Axis:
    """An axis of a grid of frequencies.

    Attributes
    ----------
    n_cells : int
        Of the FFT; half of them is the frequency beyond which the transform is taken to be 0.
    cells_per_cycle : float
        By unit of frequency.
    kept : range
        Cells that are kept.
    """

    n_cells: int
    cells_per_cycle: float
    kept: range


def axes_of(
    shape: Sequence[int], spacing: tuple[float, float, float], highest: float, window: Window
) -> tuple[Axis, ...]:
    """Axes z, y and x that `Gridded.of` makes; half of the first is kept."""
    reach, axes = math.ceil(window.width / 2), list[Axis]()
    for n, step in zip(shape, spacing[::-1], strict=True):
        n_cells = window.cells(n)
        last = math.ceil(min(n_cells / 2, n_cells * step * highest)) + reach
        axes.append(Axis(n_cells, n_cells * step, range(-last if axes else -reach, last + 1)))
    return tuple(axes)


def bytes_of(axes: tuple[Axis, ...], real_bytes: int) -> tuple[int, int]:
    """That a grid takes on its device, and about how many while it is made."""
    kept = 2 * real_bytes * math.prod(len(axis.kept) for axis in axes)
    return kept, 3 * kept


def _along_first_axis(values: torch.Tensor, window: Window, axis: Axis) -> torch.Tensor:
    """Transform the first axis, which becomes the last: divided by the transform of the window,
    and of the cells of its FFT those that are kept."""
    import torch

    n, device, real = len(values), values.device, values.real.dtype
    frequency = (np.arange(n) - n // 2) / axis.n_cells
    undone = torch.from_numpy(1 / window.transform(frequency)).to(device, real)
    index = torch.arange(axis.kept.start, axis.kept.stop, device=device) % axis.n_cells
    values = values.permute(1, 2, 0)
    result = torch.empty((*values.shape[:2], len(index)), dtype=real.to_complex(), device=device)
    bytes_of_row = values.shape[1] * axis.n_cells * result.element_size()
    together = max(1, CHUNK_BYTES[device.type] // bytes_of_row)
    for start in range(0, len(values), together):
        part = slice(start, start + together)
        waves = torch.fft.fft(centred(values[part] * undone, axis.n_cells, n))
        result[part] = waves[..., index]
    return result
