"""What the `.npz` of an image stack says of the noise of its images: sums over their rings, and
the variance of their pixels. Stacks that CryoLike made, and older ones, say nothing."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import read_archive

FloatArray = NDArray[np.float64]

RING_POWER, RING_OFFSET, PIXEL_VARIANCE = "ringPower", "ringOffset", "pixelVariance"
"""Keys."""
REMEMBERED_STACKS = 4
"""Image stacks whose sums a process keeps: a task reads those of some images after the other."""
REMEDY = "Convert the stack again."


def entries_of_rings(rings: FloatArray) -> dict[str, FloatArray]:
    """Sums over the rings of images, (image, 2, shell), as entries."""
    return {RING_POWER: rings[:, 0], RING_OFFSET: rings[:, 1]}


def tells_of_rings(keys: Collection[str]) -> bool:
    """Whether there are sums over rings among the keys of a stack."""
    return RING_POWER in keys and RING_OFFSET in keys


def read_rings(path: Path, n_images: int, n_shells: int) -> FloatArray:
    """Read the sums over the rings of the images of a stack, (image, 2, shell).

    Raises
    ------
    InputFileError
        If they are missing, of another shape, or not what sums can be.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputFileError("is gone", source=path, remedy=REMEDY) from error
    return _read_rings(path, (status.st_mtime_ns, status.st_size), n_images, n_shells)


@lru_cache(maxsize=REMEMBERED_STACKS)
def _read_rings(path: Path, state: tuple[int, int], n_images: int, n_shells: int) -> FloatArray:
    """The same, of a file in a state (time and size): once for each."""
    keys = (RING_POWER, RING_OFFSET)
    entries = read_archive(path, optional=(), keys=keys, n_images=n_images)
    power, offset = (_checked(entries.get(key), key, (n_images, n_shells), path) for key in keys)
    bad = (power < 0).any(axis=1) | ~(power.sum(axis=1) > 0)
    if bad.any():
        raise InputFileError(
            f"{RING_POWER} of image {np.flatnonzero(bad)[0]} is negative, or zero on all shells",
            source=path,
            remedy=REMEDY,
        )
    rings = np.stack([power, offset], axis=1)
    rings.flags.writeable = False
    return rings


def read_pixel_variance(path: Path, n_pixels: int) -> FloatArray | None:
    """Read the variance of the pixels of a stack, (row, column); None if the file does not say it.

    Raises
    ------
    InputFileError
        If it is of another shape, or not what variances can be.
    """
    entries = read_archive(path, optional=(), keys=(PIXEL_VARIANCE,))
    if PIXEL_VARIANCE not in entries:
        return None
    variance = _checked(entries[PIXEL_VARIANCE], PIXEL_VARIANCE, (n_pixels, n_pixels), path)
    if (variance < 0).any() or not variance.any():
        raise InputFileError(
            f"{PIXEL_VARIANCE} is negative somewhere, or zero everywhere",
            source=path,
            remedy=REMEDY,
        )
    return variance


def _checked(values: object, key: str, shape: tuple[int, ...], path: Path) -> FloatArray:
    if not isinstance(values, np.ndarray):
        raise InputFileError(f"lacks {key}", source=path, remedy=REMEDY)
    if values.shape != shape or values.dtype.kind != "f":
        raise InputFileError(
            f"{key} is {values.dtype} of the shape {values.shape}, not real numbers of {shape}",
            source=path,
            remedy=REMEDY,
        )
    if not np.isfinite(values).all():
        raise InputFileError(f"{key} is NaN or infinite somewhere", source=path, remedy=REMEDY)
    return values.astype(np.float64)
