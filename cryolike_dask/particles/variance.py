"""The variance of each pixel over images: flat where noise fills the box, low where a mask has
taken it away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import GridMismatchError
from cryolike_dask.io.layout import metadata_file, pixels_of_stack
from cryolike_dask.io.noise_entries import read_pixel_variance
from cryolike_dask.io.sources import ArraySource, Files, Subset, evenly_spread
from cryolike_dask.io.tensors import TensorFile, open_tensor
from cryolike_dask.particles.images import AT_ONCE, ParticleImages
from cryolike_dask.stacks import ImageStack

FloatArray = NDArray[np.float64]

N_READ = 512
"""Images, evenly spread, whose pixels are read where no file tells the variance."""


def sum_of_squares(pixels: NDArray[np.float32]) -> FloatArray:
    """Squares of the pixels of images, each of mean 0 and variance 1, summed over the images,
    (row, column)."""
    total = np.zeros(pixels.shape[1:])
    for image in pixels:
        centred = image - image.mean(dtype=np.float64)
        total += centred**2 / np.mean(centred**2)
    return total


def variance_map(images: ImageStack) -> FloatArray | None:
    """Give the variance of each pixel over images that are each brought to mean 0 and variance 1.

    Parameters
    ----------
    images : ImageStack
        Stacks in files tell the variance over all of their images, or have their pixels beside
        them; of particles, and of such pixels, up to 512 images are read.

    Returns
    -------
    float64, (row, column), or None
        As pixels lie in the MRC files, 1 on average; the mean over files, weighted by images. None
        if it is not known of all files.
    """
    source, rows = _whole(images.source, np.arange(len(images)))
    n = images.grid.n_pixels
    if isinstance(source, ParticleImages):
        return _of_particles(source, rows[evenly_spread(len(rows), N_READ)])
    if not isinstance(source, Files):
        return None
    total = np.zeros((n, n))
    parts = list(source.by_part(rows))
    for part, _, inside in parts:
        variance = _of_file(part, inside, n, max(1, N_READ // len(parts)))
        if variance is None:
            return None
        total += variance * (len(inside) / len(rows))
    return total


def _whole(source: ArraySource, rows: NDArray[np.int64]) -> tuple[ArraySource, NDArray[np.int64]]:
    """The source that a subset is of, in the end, and the rows there."""
    if isinstance(source, Subset):
        return _whole(source.source, source.rows[rows])
    return source, rows


def _of_particles(source: ParticleImages, rows: NDArray[np.int64]) -> FloatArray:
    n = source.grid.n_pixels
    total = np.zeros((n, n))
    for start in range(0, len(rows), AT_ONCE):
        total += sum_of_squares(source.pixels(rows[start : start + AT_ONCE]))
    variance: FloatArray = total / len(rows)
    return variance


def _of_file(
    part: TensorFile, rows: NDArray[np.int64], n_pixels: int, n_read: int
) -> FloatArray | None:
    """By the `.npz` beside a stack, or else by its pixels, if they are there."""
    path = Path(part.path)
    # the file tells that of all of its images, which may be of several groups
    if len(rows) == part.shape[0]:
        variance = read_pixel_variance(metadata_file(path), n_pixels)
        if variance is not None:
            return variance
    pixels = pixels_of_stack(path)
    if pixels is None:
        return None
    stored = open_tensor(pixels, n_dims=3, dtypes=("float32", "float64"))
    if stored.shape != (part.shape[0], n_pixels, n_pixels):
        raise GridMismatchError(
            f"holds pixels of the shape {stored.shape}, but {path} has {part.shape[0]} images of "
            f"{n_pixels} pixels",
            source=pixels,
            remedy="Convert the stack again.",
        )
    chosen = rows[evenly_spread(len(rows), n_read)]
    return sum_of_squares(stored.take(chosen)) / len(chosen)
