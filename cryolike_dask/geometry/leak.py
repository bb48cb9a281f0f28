"""What the edges of the box make of a spectrum: an image is cut out of a wider field, so that its
transform at one frequency holds power of the frequencies next to it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

N_ANGLES = 16
"""Over an eighth of a ring."""
STEP = 0.25
"""Cycles per box, in which spectra are told; straight lines a cycle long miss a tenth of the height
of a peak that the box just resolves."""


@lru_cache(maxsize=8)
def leak_of_grid(grid: PolarGrid) -> FloatArray:
    """`leak_of_box` for the shells of a grid, in steps of `STEP`, (shell, step). Not to be written
    to."""
    return leak_of_box(grid.box_size_angstrom * grid.spatial_frequencies, grid.n_pixels, STEP)


def leak_of_box(cycles: FloatArray, n_pixels: int, step: float = 1.0) -> FloatArray:
    """Mean power on rings of a transform by the power of the noise that the box is cut out of.

    Parameters
    ----------
    cycles : (ring,) float64
        Radius of each ring, cycles per box.
    n_pixels : int
        Along a side of the box.
    step : float
        Cycles per box.

    Returns
    -------
    (ring, step) float64
        Power on the ring for a power that is 1 at 0, 1, 2, ... steps, falls linearly to 0 a step
        nearer and farther, and is 0 elsewhere; up to the corners of the transform. A row adds up to
        1: white noise stays white.

    Notes
    -----
    The noise is that of a field twice as wide as the box, of power S(m) at its frequencies m, half
    a cycle apart, so that the transform of the box has, at a frequency q, the power
    sum S(m) D(q - m)^2 / 4, where D is that of the box itself: on average over a ring,
    1 / (pi^2 d) of a band that ends d cycles before it. In a field no wider than the box noise
    would be periodic, and at whole frequencies nothing would leak.
    """
    halves = np.arange(-n_pixels, n_pixels)
    size = np.abs(halves)
    n_sizes = n_pixels + 1
    distance = np.hypot(np.arange(n_sizes), np.arange(n_sizes)[:, None]).ravel() / 2 / step
    below = distance.astype(np.int64)
    above = distance - below
    n = math.floor(distance[-1]) + 2
    angles = (np.arange(N_ANGLES) + 0.5) * np.pi / (4 * N_ANGLES)
    fold = (size == np.arange(n_sizes)[:, None]).astype(np.float64)
    rows = []
    for radius in cycles:
        along_x = fold @ _box_power(radius * np.cos(angles) - halves[:, None] / 2, n_pixels) / 2
        along_y = fold @ _box_power(radius * np.sin(angles) - halves[:, None] / 2, n_pixels) / 2
        spread = (along_y @ along_x.T).ravel() / N_ANGLES
        row = np.bincount(below, spread * (1 - above), n)
        row += np.bincount(below + 1, spread * above, n)
        rows.append(row)
    return np.stack(rows)


def leaked(
    variance: FloatArray, frequencies: FloatArray, band_limit: FloatArray, grid: PolarGrid
) -> FloatArray:
    """Power that noise has on the shells of a grid, in images as they are cut out.

    Parameters
    ----------
    variance : (group, frequency) float64
    frequencies : (frequency,) float64
        1/angstrom; beyond the last the variance stays what it is there.
    band_limit : (group,) float64
        1/angstrom; noise ends there.

    Returns
    -------
    (group, shell) float64
    """
    leak = leak_of_grid(grid)
    steps = np.arange(leak.shape[1]) * STEP / grid.box_size_angstrom
    logs = np.stack([np.interp(steps, frequencies, row) for row in np.log(variance)])
    result: FloatArray = np.where(steps <= band_limit[:, None], np.exp(logs), 0) @ leak.T
    return result


def _box_power(cycles: FloatArray, n: int) -> FloatArray:
    """Power of the transform of n pixels of 1/n each."""
    below = n * np.sin(np.pi * cycles / n)
    small = np.abs(below) < 1e-9
    result: FloatArray = np.where(small, 1, np.sin(np.pi * cycles) / np.where(small, 1, below)) ** 2
    return result
