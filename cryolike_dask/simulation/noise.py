"""Noise of simulated particles: white, falling off with resolution, or of any spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.labels import Noise

FloatArray = NDArray[np.float64]

HALF_POWER_ANGSTROM = 20.0
"""Coloured noise has half of its low-resolution power here."""


@dataclass(frozen=True)
class PixelNoise:
    """Noise of one level in all images, so that the level tells nothing of what an image shows.

    Attributes
    ----------
    level : float
        Standard deviation of a pixel.
    kind : "white" | "coloured"
    seed : int
        With the number of an image it gives the noise of that image, in whatever file it is
        written.
    """

    level: float
    kind: Noise
    seed: int

    def draw(self, numbers: NDArray[np.int64], grid: PolarGrid) -> FloatArray:
        """Draw the noise of images by their numbers, (image, row, column)."""
        n = grid.n_pixels
        shape = (n, n)
        drawn = np.stack(
            [np.random.default_rng((self.seed, 1, int(i))).standard_normal(shape) for i in numbers]
        )
        if self.kind == "coloured":
            fx = np.fft.fftfreq(n, grid.pixel_size_angstrom)
            amplitude = 1 / np.sqrt(1 + (fx**2 + fx[:, None] ** 2) * HALF_POWER_ANGSTROM**2)
            amplitude /= np.sqrt((amplitude**2).mean())
            drawn = np.fft.ifft2(np.fft.fft2(drawn) * amplitude).real
        return self.level * drawn


def draw_field(
    frequencies: FloatArray, variance: FloatArray, grid: PolarGrid, rng: np.random.Generator
) -> FloatArray:
    """Draw the noise of one image, cut from a field twice as wide, so that one edge knows nothing
    of the other.

    Parameters
    ----------
    frequencies : (frequency,) float64
        1/angstrom, ascending.
    variance : (frequency,) float64
        Of the noise at these, and at others in between; before the first and after the last it is
        theirs. All 1: white noise whose pixels have the variance 1.
    grid : PolarGrid
        The box and its pixels.
    rng : numpy.random.Generator

    Returns
    -------
    float64, (row, column)
    """
    n = grid.n_pixels
    fx = np.fft.rfftfreq(2 * n, grid.pixel_size_angstrom)
    fy = np.fft.fftfreq(2 * n, grid.pixel_size_angstrom)[:, None]
    amplitude = np.sqrt(np.interp(np.hypot(fx, fy), frequencies, variance))
    wave = np.fft.rfft2(rng.standard_normal((2 * n, 2 * n))) * amplitude
    field: FloatArray = np.fft.irfft2(wave, s=(2 * n, 2 * n))[n // 2 :, n // 2 :]
    return field[:n, :n]
