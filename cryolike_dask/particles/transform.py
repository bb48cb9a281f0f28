"""Pixels to the Fourier polar grid, and back."""

from __future__ import annotations

from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import (
    GridMismatchError,
    InputError,
    NotFiniteError,
    ZeroPowerError,
    listed,
    number,
)
from cryolike_dask.geometry.polar_grid import PolarGrid


def pixels_to_fourier(
    images: NDArray[Any], grid: PolarGrid, precision: str = "single"
) -> NDArray[Any]:
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
        raise GridMismatchError(
            f"images have shape {images.shape}, but the parameters describe (image, {n}, {n})"
        )
    if precision not in ("single", "double"):
        raise InputError(f"precision={precision!r} is neither single nor double")
    complex_type, real_type, eps = (
        (np.complex64, np.float32, 1e-6)
        if precision == "single"
        else (np.complex128, np.float64, 1e-12)
    )
    half = grid.n_inplanes // 2  # the other half of each ring is the conjugate
    kx, ky = (
        np.ascontiguousarray((4 * np.pi / n * k[:, :half]).ravel(), real_type)
        for k in grid.points()
    )
    modes = np.ascontiguousarray(images, complex_type)
    values = finufft.nufft2d2(ky, kx, modes, eps=eps, isign=-1, nthreads=1).reshape(
        -1, grid.n_shells, half
    )
    values *= real_type(4 * np.pi / n)
    transformed: NDArray[Any] = np.concatenate([values, values.conj()], axis=2)
    return transformed


def fourier_to_pixels(
    values: NDArray[Any], grid: PolarGrid, n_pixels: int | None = None
) -> NDArray[Any]:
    """Transform from the polar grid to pixels: the inverse of `pixels_to_fourier`, up to the band
    limit.

    Parameters
    ----------
    values : complex, (image, shell, angle)
    grid : PolarGrid
    n_pixels : int, optional
        Pixels along a side, over the same box; default: the grid's. The scale of the values does
        not depend on it.

    Returns
    -------
    real, (image, row, column)
        x is the column, y the row. In the precision of `values`.

    Raises
    ------
    GridMismatchError, InputError
        If the values are not on the grid, or not complex.

    Notes
    -----
    The adjoint with the quadrature weights, 4 pi / N sum F weight exp(2 pi i k . X) / (2 pi)^2.
    Detail of more than `radius_max` cycles is lost, and the angles on a ring are finite: detail of
    k cycles per half box also shows, as a ghost, beyond about n_inplanes / (2 pi k) half boxes from
    where it is, 1.27 at the Nyquist frequency of a default grid. A particle well inside the box
    comes back to about the precision of the transform. White noise fills the corners, and on a
    default grid comes back with an error of 0.2 of its level at the centre and 0.6 in the corners;
    with twice the angles, of less than 0.001 and 0.06.
    """
    _check_values(values, grid)
    n = grid.n_pixels if n_pixels is None else number("n_pixels", n_pixels, whole=True, at_least=1)
    real_type, eps = (np.float32, 1e-6) if values.dtype == np.complex64 else (np.float64, 1e-12)
    kx, ky = (np.ascontiguousarray((4 * np.pi / n * k).ravel(), real_type) for k in grid.points())
    weights = (grid.weights / (np.pi * grid.n_pixels)).astype(real_type)
    strengths = (values * weights[:, None]).reshape(len(values), -1)
    modes = finufft.nufft2d1(ky, kx, strengths, n_modes=(n, n), eps=eps, isign=1, nthreads=1)
    pixels: NDArray[Any] = np.ascontiguousarray(modes.reshape(-1, n, n).real)
    return pixels


def radial_power(values: NDArray[Any], grid: PolarGrid) -> NDArray[np.float64]:
    """Average the power over each ring.

    Parameters
    ----------
    values : complex, (image, shell, angle)
    grid : PolarGrid

    Returns
    -------
    float64, (image, shell)
        Mean of |F|^2.
    """
    _check_values(values, grid)
    power: NDArray[np.float64] = (np.abs(values).astype(np.float64) ** 2).mean(axis=-1)
    return power


def normalised_stack(
    images: NDArray[Any],
    grid: PolarGrid,
    precision: str = "single",
    offset: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Turn images into what an image stack holds: power 1 over the polar grid, without their
    offset.

    Parameters are those of `pixels_to_fourier`, and `offset` as in `scaled`.

    Raises
    ------
    NotFiniteError, ZeroPowerError
        If an image has NaN or infinite pixels, or is constant; names their indices.
    """
    values = pixels_to_fourier(scaled(images, offset), grid, precision)
    norm = np.sqrt(grid.integrate(np.abs(values) ** 2))
    return (values / norm[:, None, None]).astype(values.dtype)


def scaled(images: NDArray[Any], offset: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Subtract an offset, (image,), or else the mean of each image, and bring the largest absolute
    value to 1.

    Raises
    ------
    NotFiniteError, ZeroPowerError
        If an image has NaN or infinite pixels, or is constant; names their indices.
    """
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if len(bad):
        raise NotFiniteError(
            f"image(s) {listed(bad)} have NaN or infinite pixels", remedy="Leave them out."
        )
    offset = images.mean(axis=(1, 2), dtype=np.float64) if offset is None else offset
    centred = images - offset[:, None, None]
    largest = np.abs(centred).max(axis=(1, 2), keepdims=True)
    flat = np.flatnonzero(largest == 0)
    if len(flat):
        raise ZeroPowerError(f"image(s) {listed(flat)} are constant", remedy="Leave them out.")
    result: NDArray[np.float64] = centred / largest
    return result


def _check_values(values: NDArray[Any], grid: PolarGrid) -> None:
    if values.ndim != 3 or values.shape[1:] != grid.shape:
        raise GridMismatchError(
            f"values have shape {values.shape}, but the parameters describe (image, "
            f"{grid.shape[0]}, {grid.shape[1]})"
        )
    if values.dtype not in (np.complex64, np.complex128):
        raise InputError(
            f"values are {values.dtype}", remedy="They must be complex64 or complex128."
        )
