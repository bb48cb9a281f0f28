"""Images on fewer pixels."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryolike_dask.errors import InputError
from cryolike_dask.labels import Downsampling


def downsample(
    images: NDArray[np.float32], n_pixels: int, method: str = "fourier"
) -> NDArray[np.float32]:
    """Bring images of a larger number of pixels to `n_pixels` along each side, over the same box.

    Parameters
    ----------
    images : float32, (image, row, column)
    n_pixels : int
    method : "fourier" | "mean" | "max"
        Crop the Fourier transform, which keeps everything up to the new Nyquist frequency and
        nothing else; or take the mean or the largest of square blocks of pixels.

    Returns
    -------
    float32, (image, n_pixels, n_pixels)

    Raises
    ------
    InputError
        If the number of pixels would grow, or is no whole fraction for blocks.
    """
    check_downsampling(images.shape[-1], n_pixels, method)
    n = images.shape[-1]
    if n == n_pixels:
        return images
    if method == "fourier":
        return _cropped(images, n_pixels)
    blocks = images.reshape(len(images), n_pixels, n // n_pixels, n_pixels, n // n_pixels)
    reduced: NDArray[np.float32] = (
        blocks.mean(axis=(2, 4)) if method == "mean" else blocks.max(axis=(2, 4))
    )
    return reduced


def check_downsampling(n: int, n_pixels: int, method: str) -> None:
    """Refuse what `downsample` cannot do with images of `n` pixels."""
    if method not in get_args(Downsampling):
        raise InputError(
            f"downsample={method!r} is not known",
            remedy=f"Use {', '.join(get_args(Downsampling))}.",
        )
    if n < n_pixels:
        raise InputError(
            f"images of {n} pixels cannot be brought to {n_pixels}",
            remedy=f"Make parameters with n_pixels={n} (--n-pixels), or fewer over the same box.",
        )
    if method != "fourier" and n % n_pixels:
        raise InputError(
            f"blocks for {n_pixels} of {n} pixels are not whole",
            remedy='Use downsample="fourier", or other parameters.',
        )


def block_offset_pixels(n: int, n_pixels: int, method: str) -> float:
    """Distance, in pixels of the images before, by which the origin (pixel n // 2) of block-reduced
    images lies too far down."""
    if method == "fourier" or n == n_pixels:
        return 0.0
    block = n // n_pixels
    return n_pixels // 2 * block + (block - 1) / 2 - n // 2


def _cropped(images: NDArray[Any], m: int) -> NDArray[np.float32]:
    n = images.shape[-1]
    spectrum = fft.rfft2(fft.ifftshift(images, axes=(1, 2)))  # the origin of both is pixel n // 2
    rows = np.r_[0 : (m + 1) // 2, n - m // 2 : n]
    low_frequencies = spectrum[:, rows, : m // 2 + 1] * np.float32(m**2 / n**2)
    cropped: NDArray[np.float32] = fft.fftshift(
        fft.irfft2(low_frequencies, s=(m, m)), axes=(1, 2)
    ).astype(np.float32)
    return cropped
