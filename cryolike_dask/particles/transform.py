"""Pixels to the Fourier polar grid."""

from __future__ import annotations

from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import GridMismatchError, InputError, NotFiniteError, ZeroPowerError, listed
from cryolike_dask.geometry.polar_grid import PolarGrid


def pixels_to_fourier(images: NDArray[Any], grid: PolarGrid, precision: str = "single") -> NDArray[Any]:
    """Transform images to the polar grid by a non-uniform FFT.

    Parameters
    ----------
    images : real, (image, row, column)
        Square, of the grid's side. x is the column, y the row.
    grid : PolarGrid
    precision : "single" | "double"
        Of the result; relative error of the transform 1e-6 or 1e-12.

    Returns
    -------
    complex, (image, shell, angle)
        (4 pi / N) sum I exp(-2 pi i k . X), X = 2 (pixel - N // 2) / N.
    """
    n = grid.n_pixels
    if images.ndim != 3 or images.shape[1:] != (n, n):
        raise GridMismatchError(f"images have shape {images.shape}, but the parameters describe (image, {n}, {n})")
    if precision not in ("single", "double"):
        raise InputError(f"precision={precision!r} is neither single nor double")
    complex_type, real_type, eps = (
        (np.complex64, np.float32, 1e-6) if precision == "single" else (np.complex128, np.float64, 1e-12)
    )
    kx, ky = (np.ascontiguousarray((4 * np.pi / n * k).ravel(), real_type) for k in grid.points())
    modes = np.ascontiguousarray(images, complex_type)
    values = finufft.nufft2d2(ky, kx, modes, eps=eps, isign=-1, nthreads=1)
    transformed: NDArray[Any] = (4 * np.pi / n * values).reshape(-1, *grid.shape).astype(complex_type)
    return transformed


def normalised_stack(images: NDArray[Any], grid: PolarGrid, precision: str = "single") -> NDArray[Any]:
    """Turn images into what an image stack holds: mean 0, power 1 over the polar grid.

    Raises
    ------
    NotFiniteError, ZeroPowerError
        If an image has NaN or infinite pixels, or is constant; names their indices.
    """
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if len(bad):
        raise NotFiniteError(f"image(s) {listed(bad)} have NaN or infinite pixels", remedy="Leave them out.")
    centred = images - images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    largest = np.abs(centred).max(axis=(1, 2), keepdims=True)
    flat = np.flatnonzero(largest == 0)
    if len(flat):
        raise ZeroPowerError(f"image(s) {listed(flat)} are constant", remedy="Leave them out.")
    values = pixels_to_fourier(centred / largest, grid, precision)
    norm = np.sqrt(grid.integrate(np.abs(values) ** 2))
    return (values / norm[:, None, None]).astype(values.dtype)
