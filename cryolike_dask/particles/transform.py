"""Pixels to the Fourier polar grid, and back."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryolike_dask.compute.device import host_threads
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
    return _whole_rings(_half_rings(images, grid, precision))


def _whole_rings(half_rings: NDArray[Any]) -> NDArray[Any]:
    """Rings of transforms of real images by the first half of each: the other is its conjugate."""
    rings: NDArray[Any] = np.concatenate([half_rings, half_rings.conj()], axis=-1)
    return rings


def _half_rings(images: NDArray[Any], grid: PolarGrid, precision: str) -> NDArray[Any]:
    """The first half of each ring of `pixels_to_fourier`, (image, shell, angle)."""
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
    half = grid.n_inplanes // 2
    kx, ky = (
        np.ascontiguousarray((4 * np.pi / n * k[:, :half]).ravel(), real_type)
        for k in grid.points()
    )
    modes = np.ascontiguousarray(images, complex_type)
    values: NDArray[Any] = finufft.nufft2d2(
        ky, kx, modes, eps=eps, isign=-1, nthreads=host_threads()
    ).reshape(-1, grid.n_shells, half)
    values *= real_type(4 * np.pi / n)
    return values


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


def stack_and_rings(
    images: NDArray[Any],
    grid: PolarGrid,
    precision: str = "single",
    offset: NDArray[Any] | None = None,
    shift: NDArray[np.float64] | None = None,
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Turn images into what an image stack holds, and sum them over rings of more angles than the
    grid has.

    What lies in the corners of the box turns faster along a ring than the angles of a usual grid
    resolve. Images are transformed on as many angles as resolve it, which are summed; of the ring,
    the angular frequencies that the grid has are kept. By the sums over 2 N angles the power of an
    image of noise is off by 1.7%.

    Parameters are those of `normalised_stack`, and

    Parameters
    ----------
    shift : (image, 2), optional
        Displacement of the content along x and y, in half boxes.

    Returns
    -------
    values : complex, (image, shell, angle)
        Of power 1 over the grid.
    rings : float64, (image, 2, shell)
        Of each ring the integral of |F|^2 over the annulus that it stands for, and that of
        Re conj(s) F, s the exact transform of the box.

    Raises
    ------
    NotFiniteError, ZeroPowerError
        If an image has NaN or infinite pixels, or is constant; names their indices.
    """
    fine = fine_grid(grid)
    half_rings = _half_rings(scaled(images, offset), fine, precision)
    values = np.empty((len(images), *grid.shape), half_rings.dtype)
    rings = np.empty((len(images), 2, grid.n_shells))
    weights = half_weights(fine)
    # one by one: whole rings of all images would be four times as large as what is kept
    for i, image in enumerate(half_rings):
        if shift is not None:
            image *= _phases(fine, *shift[i])
        rings[i] = _ring_sums(image, weights)
        values[i] = _folded(image, grid.n_inplanes)
    norm = np.sqrt(grid.integrate(np.abs(values) ** 2))
    values /= norm[:, None, None].astype(values.real.dtype)
    rings /= np.stack([norm**2, norm], axis=1)[:, :, None]
    return values, rings


def fine_grid(grid: PolarGrid) -> PolarGrid:
    """The grid with angles, a multiple of its own, that resolve all of the box up to the Nyquist
    frequency: four for each pixel."""
    return replace(
        grid, n_inplanes=grid.n_inplanes * math.ceil(4 * grid.n_pixels / grid.n_inplanes)
    )


def _phases(grid: PolarGrid, x: float, y: float) -> NDArray[np.complex128]:
    """What moves content by x and y half boxes, on half rings, (shell, angle)."""
    kx, ky = (k[:, : grid.n_inplanes // 2] for k in grid.points())
    phases: NDArray[np.complex128] = np.exp(-2j * np.pi * (kx * x + ky * y))
    return phases


def _ring_sums(
    half_rings: NDArray[Any], weights: tuple[NDArray[np.float64], ...]
) -> NDArray[np.float64]:
    """Integrals of |F|^2 and of Re conj(s) F over each ring, of which half is given, (2, shell)."""
    of_power, s_real, s_imag = weights
    real, imag = half_rings.real, half_rings.imag
    power = np.einsum("nj,nj->n", real, real) + np.einsum("nj,nj->n", imag, imag)
    offset = np.einsum("nj,nj->n", s_real, real) + np.einsum("nj,nj->n", s_imag, imag)
    sums: NDArray[np.float64] = np.stack([of_power * power, offset])
    return sums


@lru_cache(maxsize=1)
def half_weights(grid: PolarGrid) -> tuple[NDArray[np.float64], ...]:
    """Weights of the sums over rings of which half is given: of |F|^2, (shell,), and of the real
    and the imaginary part of F in Re conj(s) F, (shell, angle)."""
    weights = 2 * grid.weights
    mask = grid.mask(exact=True)[:, : grid.n_inplanes // 2] * weights[:, None]
    return weights, mask.real.copy(), mask.imag.copy()


def _folded(half_rings: NDArray[Any], n_angles: int) -> NDArray[Any]:
    """Rings without what turns faster than `n_angles` resolve, on these angles, (shell, angle).

    Of the highest angular frequency, n_angles / 2, both signs look alike on these angles: they are
    added.
    """
    n_given = 2 * half_rings.shape[-1]
    if n_given == n_angles:
        return _whole_rings(half_rings)
    half = n_angles // 2
    spectrum = fft.fft(_whole_rings(half_rings), axis=-1)
    kept = np.concatenate([spectrum[:, :half], spectrum[:, n_given - half :]], axis=-1)
    kept[:, half] += spectrum[:, half]
    kept *= kept.real.dtype.type(n_angles / n_given)
    return _whole_rings(fft.ifft(kept, axis=-1, overwrite_x=True)[:, :half])


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
