"""Particle images, read and transformed where and when they are taken."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import CryolikeError, InputError, NotFiniteError, ZeroPowerError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.identity import InputDescription, describe_file
from cryolike_dask.io.mrc import MrcStack
from cryolike_dask.io.sources import OnDevice, describe_array
from cryolike_dask.particles.on_device import transform_on
from cryolike_dask.particles.resample import block_offset_pixels, downsample
from cryolike_dask.particles.table import ParticleTable
from cryolike_dask.particles.transform import normalised_stack, stack_and_rings

if TYPE_CHECKING:
    import torch

AT_ONCE = 64
"""Images that are read and transformed together: what is needed besides the result stays small."""


REMEMBERED_BYTES = 2**29
"""Transformed images that a process keeps: the tasks of a stack, one for each chunk of
templates, need them again, and the transform (4 ms per image of 128 pixels) would take as long
as the comparison with a small chunk."""

REMEMBERED_PIXEL_BYTES = 2**28
"""Their pixels instead, where they are transformed on a GPU: a quarter of the bytes of an image."""

REMEMBERED_RING_BYTES = 2**26
"""Sums over their rings that a process keeps, of many more images."""

_LATEST: dict[Hashable, NDArray[Any]] = {}
_LATEST_PIXELS: dict[Hashable, NDArray[Any]] = {}
_LATEST_RINGS: dict[Hashable, NDArray[Any]] = {}
_REMEMBERING = threading.Lock()


class PreparationDescription(InputDescription, total=False):
    """A `Preparation`, as completion records describe it."""

    downsample: str
    invert_contrast: bool
    background_radius_pixels: float | None
    recenter: bool
    transposed: bool


@dataclass(frozen=True)
class Preparation:
    """Changes of the pixels before the transform.

    Attributes
    ----------
    downsample : "fourier" | "mean" | "max"
    invert_contrast : bool
    background_radius_pixels : float or None
        Subtract the mean of the pixels beyond this radius, and divide by their standard deviation.
    recenter : bool
        Move each image by its recorded origin.
    transposed : bool
        x is the MRC row, as in CryoLike's stacks.
    """

    downsample: str = "fourier"
    invert_contrast: bool = False
    background_radius_pixels: float | None = None
    recenter: bool = False
    transposed: bool = False

    def describe(self) -> PreparationDescription:
        """All of it, for completion records."""
        return {
            "downsample": self.downsample,
            "invert_contrast": self.invert_contrast,
            "background_radius_pixels": self.background_radius_pixels,
            "recenter": self.recenter,
            "transposed": self.transposed,
        }


@dataclass(frozen=True, eq=False)
class ParticleImages:
    """The images of a particle set on the Fourier polar grid: an `ArraySource`.

    Attributes
    ----------
    table : ParticleTable
    files : tuple of MrcStack
        One for each of the table's image files.
    grid : PolarGrid
    preparation : Preparation
    precision : "single" | "double"
    """

    table: ParticleTable
    files: tuple[MrcStack, ...]
    grid: PolarGrid
    preparation: Preparation
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(image, shell, angle)."""
        return (len(self.table), *self.grid.shape)

    @property
    def dtype(self) -> str:
        """complex64 or complex128."""
        return "complex64" if self.precision == "single" else "complex128"

    @property
    def paths(self) -> tuple[str, ...]:
        """The metadata files."""
        return self.table.metadata_files

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read images and transform them, few at a time; those of late are remembered."""
        values = np.empty((len(rows), *self.grid.shape), self.dtype)
        unknown = _recall(_LATEST, self._keys(rows), values)
        for start in range(0, len(unknown), AT_ONCE):
            part = unknown[start : start + AT_ONCE]
            values[part], _ = self._read(rows[part])
        return values

    def take_on(self, rows: NDArray[np.int64], device: torch.device) -> OnDevice | None:
        """Read images, and transform them on a GPU."""
        import torch

        if device.type == "cpu":
            return None
        transform = transform_on(
            self.grid, self.precision, device.type, resolves_corners=self.knows_rings
        )
        values, rings = [], []
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            pixels = self._remembered_pixels(part)
            offset, shift = self._moves(pixels, part)
            if self.preparation.transposed:
                pixels = pixels.swapaxes(1, 2)
                shift = None if shift is None else shift[:, ::-1]
            of_part = transform.stack_and_rings(pixels, offset, shift)
            values.append(of_part[0])
            rings.append(of_part[1])
        if not values:
            return None
        return OnDevice(torch.cat(values), torch.cat(rings) if self.knows_rings else None)

    def _remembered_pixels(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """`pixels`; those of late are remembered."""
        keys, n = self._keys(rows), self.grid.n_pixels
        pixels = np.empty((len(rows), n, n), np.float32)
        unknown = _recall(_LATEST_PIXELS, keys, pixels)
        if len(unknown):
            pixels[unknown] = self.pixels(rows[unknown])
            new = [keys[i] for i in unknown]
            _remember(_LATEST_PIXELS, new, pixels[unknown], REMEMBERED_PIXEL_BYTES)
        return pixels

    @property
    def knows_rings(self) -> bool:
        """They are summed when images are transformed, but for stacks as CryoLike has them."""
        return not self.preparation.transposed

    def rings(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Those of the images as they are taken, with which they are found and remembered; None
        if x is the MRC row."""
        if self.preparation.transposed:
            return None
        rings = np.empty((len(rows), 2, self.grid.n_shells))
        unknown = _recall(_LATEST_RINGS, self._keys(rows), rings)
        for start in range(0, len(unknown), AT_ONCE):
            part = unknown[start : start + AT_ONCE]
            _, rings[part] = self._read(rows[part])
        return rings

    def _read(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Read images, transform them, and remember them and the sums over their rings."""
        values, rings = self.transform(self.pixels(rows), rows)
        keys = self._keys(rows)
        _remember(_LATEST, keys, values, REMEMBERED_BYTES)
        if rings is not None:
            _remember(_LATEST_RINGS, keys, rings, REMEMBERED_RING_BYTES)
        return values, rings

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read images, bright on dark, on the pixels of the grid: float32, (image, row, column)."""
        n = self.grid.n_pixels
        number, index = self.table.file_number[rows], self.table.image_index[rows]
        pixels = np.empty((len(rows), n, n), np.float32)
        for i in np.unique(number):
            rows_of_file = np.flatnonzero(number == i)
            pixels[rows_of_file] = downsample(
                self.files[i].take(index[rows_of_file]), n, self.preparation.downsample
            )
        sign = self.table.sign[rows] * (-1 if self.preparation.invert_contrast else 1)
        pixels *= sign[:, None, None].astype(np.float32)
        self._refuse_bad(pixels, rows)
        radius = self.preparation.background_radius_pixels
        if radius is None:
            return pixels
        normalised, constant = against_background(pixels, radius)
        self._refuse(constant, "has a constant background", ZeroPowerError, rows)
        return normalised

    def transform(
        self, pixels: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Give what an image stack holds of the pixels of rows, power 1, moved by their origins;
        and the sums over their rings, (image, 2, shell), as `rings`.

        The offset of an image that is moved is the mean of its rim: that of the whole image would
        take part of the particle, which would then be missing from the box where the image was, not
        from where it is.
        """
        offset, shift = self._moves(pixels, rows)
        if self.preparation.transposed:
            return self._transform_transposed(pixels, offset, shift), None
        return stack_and_rings(pixels, self.grid, self.precision, offset, shift)

    def _moves(
        self, pixels: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Offset of images that are moved, (image,), and how far, half boxes along x and y."""
        if not (self.preparation.recenter or self._block_offset_angstrom):
            return None, None
        return mean_of_rim(pixels), 2 * self._shift_angstrom(rows) / self.grid.box_size_angstrom

    def _transform_transposed(
        self,
        pixels: NDArray[np.float32],
        offset: NDArray[np.float64] | None,
        shift: NDArray[np.float64] | None,
    ) -> NDArray[Any]:
        """What CryoLike's stacks hold, x and y exchanged."""
        values = normalised_stack(pixels.swapaxes(1, 2), self.grid, self.precision, offset)
        if shift is None:
            return values
        kx, ky = self.grid.points()
        # one by one: the factors of all images would be as large as the images
        for image, (y, x) in zip(values, shift, strict=True):
            image *= np.exp(-2j * np.pi * (kx * x + ky * y))
        return values

    def locate(self, row: int) -> tuple[str, int]:
        """The file of an image, and its position there."""
        return self.files[self.table.file_number[row]].path, int(self.table.image_index[row])

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """The metadata and image files of rows, and what is done to the pixels."""
        table = self.table
        used = [table.metadata_files[i] for i in np.unique(table.metadata_number[rows])]
        used += [self.files[i].path for i in np.unique(table.file_number[rows])]
        origins = table.origin_angstrom if self.preparation.recenter else None
        where = np.stack(
            [table.metadata_number, table.metadata_row, table.file_number, table.image_index],
            axis=1,
        )
        columns = {"rows": where, "optics": table.optics, "sign": table.sign, "origins": origins}
        arrays = [
            describe_array(name, column[rows])
            for name, column in columns.items()
            if column is not None
        ]
        return [*(describe_file(path) for path in used), *arrays, self.preparation.describe()]

    def subset(self, rows: NDArray[np.int64]) -> ParticleImages:
        """Some of the images, with the files that hold them."""
        table = self.table.take(rows)
        by_path = {file.path: file for file in self.files}
        return replace(self, table=table, files=tuple(by_path[path] for path in table.image_files))

    def _keys(self, rows: NDArray[np.int64]) -> list[Hashable]:
        """All that the transform of each image depends on."""
        settings = (self.grid, self.preparation, self.precision)
        number = self.table.file_number[rows]
        index = self.table.image_index[rows]
        sign = self.table.sign[rows]
        shift = self._shift_angstrom(rows)
        return [
            (self.files[f], i, s, x, y, settings)
            for f, i, s, (x, y) in zip(
                number.tolist(), index.tolist(), sign.tolist(), shift.tolist(), strict=True
            )
        ]

    def _shift_angstrom(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shift that the content needs along x and y, (image, 2)."""
        shift = np.full((len(rows), 2), self._block_offset_angstrom)
        if self.preparation.recenter and self.table.origin_angstrom is not None:
            shift += self.table.origin_angstrom[rows]
        return shift

    @property
    def _block_offset_angstrom(self) -> float:
        """Shift of the content by blocks; CryoLike leaves it there."""
        n = self.files[0].shape[-1]
        offset = block_offset_pixels(n, self.grid.n_pixels, self.preparation.downsample)
        return 0.0 if self.preparation.transposed else offset * self.grid.box_size_angstrom / n

    def _refuse_bad(self, pixels: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        bad = np.asarray(~np.isfinite(pixels).all(axis=(1, 2)))
        self._refuse(bad, "has NaN or infinite pixels", NotFiniteError, rows)
        spread: NDArray[np.float32] = np.ptp(pixels, axis=(1, 2))
        self._refuse(spread == 0, "is constant", ZeroPowerError, rows)

    def _refuse(
        self, bad: NDArray[np.bool_], what: str, error: type[CryolikeError], rows: NDArray[np.int64]
    ) -> None:
        if bad.any():
            path, index = self.locate(int(rows[np.flatnonzero(bad)[0]]))
            raise error(
                f"image {index + 1} {what} ({int(bad.sum())} such image(s) among {len(rows)})",
                source=path,
                remedy="Take it out of the metadata.",
            )


def _recall(
    latest: dict[Hashable, NDArray[Any]], keys: list[Hashable], into: NDArray[Any]
) -> NDArray[np.int64]:
    """Copy what is remembered, and give the positions of what is not."""
    with _REMEMBERING:
        remembered = [latest.get(key) for key in keys]
    for i, values in enumerate(remembered):
        if values is not None:
            into[i] = values
    return np.flatnonzero([values is None for values in remembered])


def _remember(
    latest: dict[Hashable, NDArray[Any]], keys: list[Hashable], of_images: Any, n_bytes: int
) -> None:
    """Keep copies of what belongs to images, and forget the oldest beyond `n_bytes`."""
    with _REMEMBERING:
        for key, values in zip(keys, of_images, strict=True):
            latest[key] = values.copy()
        while latest and len(latest) * next(iter(latest.values())).nbytes > n_bytes:
            del latest[next(iter(latest))]


def against_background(
    pixels: NDArray[np.float32], radius_pixels: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Subtract the mean of the pixels beyond a radius from the centre, and divide by their standard
    deviation.

    Also says which images have a constant background, and cannot be divided.

    Raises
    ------
    InputError
        If there is no pixel beyond the radius.
    """
    n = pixels.shape[-1]
    beyond = _distance(n) > radius_pixels
    if not beyond.any():
        raise InputError(
            f"background_radius_pixels={radius_pixels:g} leaves no background in {n} pixels"
        )
    background = pixels[:, beyond].astype(np.float64)
    spread = background.std(axis=1)
    centred = pixels - background.mean(axis=1)[:, None, None]
    return (centred / np.where(spread > 0, spread, 1)[:, None, None]).astype(
        np.float32
    ), spread == 0


def contrast_with_rim(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Brightness of the middle of each image above that of its rim, in standard deviations of its
    pixels."""
    n = pixels.shape[-1]
    middle = pixels[:, _distance(n) < n / 4].mean(axis=1, dtype=np.float64)
    contrast: NDArray[np.float64] = (middle - mean_of_rim(pixels)) / pixels.std(
        axis=(1, 2), dtype=np.float64
    )
    return contrast


def mean_of_rim(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of the pixels farther from the centre than 0.45 of the side, (image,)."""
    n = pixels.shape[-1]
    mean: NDArray[np.float64] = pixels[:, _distance(n) > 0.45 * n].mean(axis=1, dtype=np.float64)
    return mean


def _distance(n: int) -> NDArray[np.float64]:
    """Distance of each pixel from the centre, pixels, (n, n)."""
    axis = np.arange(n) - n // 2
    return np.hypot(axis, axis[:, None])
