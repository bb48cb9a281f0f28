"""Density maps in files: their voxels, how large these are, and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import CannotFitError, InputFileError, times
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.identity import regular_file
from cryolike_dask.io.layout import FILE_SUFFIX
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.io.tensors import open_tensor
from cryolike_dask.structures.accounts import Account
from cryolike_dask.structures.volumes import reach_angstrom

ARRAY_SUFFIXES = (".npy", FILE_SUFFIX)
MOST_VOXELS = 2**30
"""1024 along each side."""
BYTES_PER_VOXEL = 50
"""Bytes that projecting takes at least: the map in single and complex double precision, and the
grid of the FFT."""
SAY_IT = "voxel_size_angstrom (--voxel-size-angstrom) says the true one"

VoxelSize = tuple[float, float, float]


@dataclass(frozen=True)
class MapHeader:
    """Header of a map; along (x, y, z).

    Attributes
    ----------
    shape : tuple of int
    stated : tuple of float or None
        The voxel size that the file states, angstrom.
    warnings, notes : tuple of str
    """

    shape: tuple[int, int, int]
    stated: VoxelSize | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_map_header(path: Path) -> MapHeader:
    """Read what a map says of itself; arrays say their shape alone.

    Raises
    ------
    InputFileError
        If it is no map, or one of more voxels than can be projected.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        shape = _tensor_shape(path) if suffix == FILE_SUFFIX else map_array(path).shape
        known = MapHeader((shape[2], shape[1], shape[0]), None)
    else:
        mrc = open_mrc_map(path)
        known = MapHeader(mrc.shape, mrc.voxel_size_angstrom, mrc.doubts, mrc.notes)
    if min(known.shape) < 2:
        raise InputFileError(f"{times(known.shape)} voxels are no volume", source=path)
    if math.prod(known.shape) > MOST_VOXELS:
        raise InputFileError(
            f"{times(known.shape)} voxels are more than can be projected",
            source=path,
            remedy="Crop or bin it.",
        )
    return known


def map_array(path: str | Path) -> NDArray[Any]:
    """Map a `.npy` file into memory, (z, y, x): nothing is read yet.

    Raises
    ------
    InputFileError
        If it holds something other than real values along three axes.
    """
    try:
        values = np.load(regular_file(path), mmap_mode="r", allow_pickle=False)
    except InputFileError:
        raise
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise InputFileError(f"is not a readable .npy file ({error})", source=path) from error
    if not isinstance(values, np.ndarray):
        raise InputFileError("is not a readable .npy file, but an archive of several", source=path)
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise InputFileError(
            f"has shape {values.shape} and type {values.dtype}; a map has three axes (z, y, x) and "
            f"real values",
            source=path,
        )
    return values


def voxel_size(
    path: Path, header: MapHeader, parameters: ImageParameters, given: float | None
) -> tuple[VoxelSize, str, list[str]]:
    """Decide on the voxel size; say where it is from, and warn of one that no file states."""
    pixel, n = parameters.pixel_size_angstrom, parameters.n_pixels
    if given is not None:
        return (given,) * 3, "as you say", []
    if header.stated is not None:
        return header.stated, "by its header", []
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return (pixel,) * 3, "the size of the pixels", []
    if set(header.shape) != {n}:
        raise InputFileError(
            f"has no voxel size, and {header.shape} voxels are not the {n} of the images",
            source=path,
            remedy=f"Write the voxel size into its header; or {SAY_IT}.",
        )
    taken = f"the header has no voxel size; that of the pixels is taken, {pixel:g} angstrom"
    return (pixel,) * 3, "the size of the pixels", [f"{taken}; {SAY_IT}"]


def account_of_map(
    shape: Sequence[int],
    voxel: VoxelSize,
    origin: str,
    values: NDArray[Any] | None,
    parameters: ImageParameters,
) -> Account:
    """Account for a map: its size, and its density beyond the box of the images where it is
    larger than that."""
    sides = [n * size for n, size in zip(shape, voxel, strict=True)]
    sizes = (
        f"{voxel[0]:.4g}"
        if len(set(voxel)) == 1
        else times(tuple(round(size, 3) for size in voxel))
    )
    taken = (
        f"{times(tuple(shape))} voxels of {sizes} angstrom ({origin}), a box of "
        f"{max(sides):.4g} angstrom"
    )
    box, warnings = parameters.grid.box_size_angstrom, tuple[str, ...]()
    if values is not None and max(sides) > 1.01 * box:
        reach = reach_angstrom(values, voxel)
        if reach > box / 2:
            warnings = (
                f"reaches {reach:.0f} angstrom from its centre, but half a box is {box / 2:g}",
            )
    return Account(taken, warnings=warnings)


def open_map(
    path: Path, parameters: ImageParameters, conventions: Conventions, given: float | None
) -> tuple[VoxelSize, Account]:
    """The voxel size of a map in a file, and an account of it.

    Raises
    ------
    InputFileError
        If it is no map, has no voxel size, or is no cube where it has to be.
    """
    header = read_map_header(path)
    if conventions.reads_map_header or given is not None:
        voxel, origin, warnings = voxel_size(path, header, parameters, given)
    else:
        voxel, origin, warnings = header.stated or (parameters.pixel_size_angstrom,) * 3, "", []
    notes, shape = list(header.notes), header.shape
    if len(set(shape)) > 1:
        if not conventions.reads_map_header:
            raise InputFileError(
                f"is no cube: {shape} voxels", source=path, remedy="Pad it to a cube."
            )
        notes.append(f"is no cube ({times(shape)} voxels): the origin is the middle of each side")
    if not conventions.reads_map_header:
        account = Account(f"{times(shape)} voxels, which fill the box of the images")
        return voxel, replace(account, warnings=header.warnings, notes=tuple(notes))
    if header.stated is not None and given is None:
        warnings += doubts_of_voxel_size(shape, voxel, parameters)
    finest, wanted = 2 * max(voxel), parameters.grid.box_size_angstrom / (2 * parameters.radius_max)
    if finest > 1.001 * wanted:
        notes.append(
            f"the map ends at {finest:.3g} angstrom, the images at {wanted:.3g}; its templates are "
            f"0 beyond"
        )
    larger = (
        max(n * size for n, size in zip(shape, voxel, strict=True))
        > parameters.grid.box_size_angstrom
    )
    account = account_of_map(shape, voxel, origin, map_values(path) if larger else None, parameters)
    return voxel, replace(
        account, warnings=(*header.warnings, *warnings, *account.warnings), notes=tuple(notes)
    )


def doubts_of_voxel_size(
    shape: Sequence[int], voxel: VoxelSize, parameters: ImageParameters
) -> list[str]:
    """Doubt 1 angstrom where it is unlikely, sides that differ, and a map far smaller than the
    images."""
    pixel, box = parameters.pixel_size_angstrom, parameters.grid.box_size_angstrom
    side = max(n * size for n, size in zip(shape, voxel, strict=True))
    is_default = np.allclose(voxel, 1, rtol=1e-6) and not math.isclose(pixel, 1, rel_tol=1e-2)
    if is_default and (parameters.n_pixels in shape or side < 0.9 * box):
        wrong = f"{pixel:.3g} times too small" if pixel > 1 else f"{1 / pixel:.3g} times too large"
        return [
            "the voxel size of 1 angstrom in its header is taken, but many programs write 1 "
            f"without knowing it; if its voxels are as large as the pixels, {pixel:g} angstrom, "
            f"the structure is {wrong}; {SAY_IT}"
        ]
    if max(voxel) > 1.05 * min(voxel):
        sides = times([round(size, 3) for size in voxel])
        return [f"its voxels are {sides} angstrom by its header, which is rarely meant; {SAY_IT}"]
    if side < box / 2:
        return [
            f"its box of {side:.4g} angstrom is much smaller than that of the images, {box:g}; if "
            f"{voxel[0]:.4g} angstrom in its header is not its voxel size, {SAY_IT}"
        ]
    return []


def map_values(path: str | Path) -> NDArray[Any]:
    """The voxels of a map, (z, y, x), mapped where the file can be."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return map_array(path)
    return (
        open_tensor(path, n_dims=3).take() if suffix == FILE_SUFFIX else open_mrc_map(path).mapped()
    )


def read_map_values(path: str | Path) -> NDArray[Any]:
    """Read the voxels of a map into memory, (z, y, x).

    Raises
    ------
    InputFileError
        If the file is no map any more.
    CannotFitError
        If the memory of this machine is too small to project it.
    """
    shape = read_map_header(Path(path)).shape
    needed, memory = BYTES_PER_VOXEL * math.prod(shape), psutil.virtual_memory().total
    if needed > memory:
        raise CannotFitError(
            f"{times(shape)} voxels take {needed / 1e9:.0f} GB to project, and this machine has "
            f"{memory / 1e9:.0f}",
            source=path,
            remedy="Crop or bin it.",
        )
    return open_mrc_map(path).read() if _is_mrc(path) else np.ascontiguousarray(map_values(path))


def _is_mrc(path: str | Path) -> bool:
    return Path(path).suffix.lower() not in ARRAY_SUFFIXES


def _tensor_shape(path: Path) -> tuple[int, ...]:
    return open_tensor(regular_file(path), n_dims=3, dtypes=("float32", "float64", "float16")).shape
