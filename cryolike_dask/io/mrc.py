"""MRC files of images and of density maps: the header when a file is opened, the voxels when a task
asks for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError, listed
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.identity import refuse_changed
from cryolike_dask.io.mrc_header import PLAIN_AXES, MrcHeader, read_mrc_header

VOLUME_STACKS = range(401, 631)
"""Space groups that stand for several volumes, one after another."""
NO_GROUP = (
    "its header has the space group of image stacks, 0; a cube in a cell of its own, it is "
    "taken as one volume"
)


@dataclass(frozen=True)
class MrcStack:
    """A stack of images in an MRC file, described by its header: what tasks carry instead of the
    data.

    Attributes
    ----------
    path : str
        Absolute.
    shape : tuple of int
        (image, row, column).
    dtype : str
        numpy's name, with the byte order.
    offset : int
        Where the first image starts, bytes.
    voxel_size_angstrom : float or None
        None if the header has none, or one that cannot be.
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    notes : tuple of str
        What is odd about the header.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: str
    offset: int
    voxel_size_angstrom: float | None
    size: int
    mtime_ns: int
    notes: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copy images into memory, in the order asked for; (rows, row, column).

        Raises
        ------
        InputFileError
            If the file is gone, is not the one that was opened, or has no such image.
        """
        rows = np.asarray(rows, np.int64)
        beyond = rows[(rows < 0) | (rows >= self.shape[0])]
        if len(beyond):
            raise InputFileError(
                f"holds {self.shape[0]} image(s), counted from 0, but {listed(np.unique(beyond))} "
                f"is asked for",
                source=self.path,
                remedy="Check that the metadata belong to this file.",
            )
        distinct, inverse = np.unique(rows, return_inverse=True)
        images = _voxels(self)[distinct].astype(np.float32)
        return images if np.array_equal(distinct, rows) else images[inverse]


@dataclass(frozen=True)
class MrcMap:
    """A density map in an MRC file, described by its header.

    Attributes
    ----------
    path : str
        Absolute.
    shape : tuple of int
        Voxels along (x, y, z), whatever the order of the axes in the file.
    dtype : str
        numpy's name, with the byte order.
    offset : int
        Where the first voxel is, bytes.
    voxel_size_angstrom : tuple of float or None
        Along (x, y, z); None if the header has none, or one that cannot be.
    axes : tuple of int
        Which of x, y, z (1, 2, 3) the columns, rows and sections of the file are.
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    notes : tuple of str
        What is odd about the header.
    doubts : tuple of str
        Why the file may hold something other than one volume.
    first_voxel_angstrom : tuple of float
        Where the first voxel lies, (x, y, z), by its header.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: str
    offset: int
    voxel_size_angstrom: tuple[float, float, float] | None
    axes: tuple[int, int, int]
    size: int
    mtime_ns: int
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    first_voxel_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def middle(self) -> tuple[float, float, float]:
        """Where voxel n // 2 along each axis lies, in the coordinates of models in the map.

        Raises
        ------
        InputFileError
            If the header states no voxel size.
        """
        if self.voxel_size_angstrom is None:
            raise InputFileError(
                "has no voxel size, so that it is not known where its middle is",
                source=self.path,
                remedy="Write it into the header.",
            )
        x, y, z = (
            first + (n // 2) * size
            for first, n, size in zip(
                self.first_voxel_angstrom, self.shape, self.voxel_size_angstrom, strict=True
            )
        )
        return x, y, z

    def mapped(self) -> NDArray[Any]:
        """Map the file, indexed [z, y, x], in the type and order of the file: nothing is read
        yet."""
        stored = self.axes[::-1]
        return _voxels(self).transpose([stored.index(axis) for axis in (3, 2, 1)])

    def read(self) -> NDArray[np.float32]:
        """Copy the map into memory, indexed [z, y, x].

        Raises
        ------
        InputFileError
            If the file is gone, or is not the one that was opened.
        """
        return np.ascontiguousarray(self.mapped(), np.float32)


def open_mrc_stack(path: str | Path) -> MrcStack:
    """Read the header of a stack of images; one image alone is a stack of one.

    Raises
    ------
    InputFileError
        If the file is missing, compressed, cut short, no MRC file, or holds values of a type that
        images cannot have, or its columns do not run along x and its rows along y.
    """
    header = read_mrc_header(path)
    if header.axes != PLAIN_AXES:
        raise InputFileError(
            "its columns, rows and sections run along "
            f"{', '.join('xyz'[axis - 1] for axis in header.axes)} (MAPC, MAPR, MAPS), but images "
            "need x, y, z",
            source=path,
            remedy="Write it again with plain axes; programs that do not look at these words read "
            "it mirrored.",
        )
    notes = header.notes
    x, y, _ = header.voxel_size_angstrom
    if x and y and not math.isclose(x, y, rel_tol=1e-2):
        notes = (*notes, f"its pixels are {x:g} x {y:g} angstrom, which is not believed")
        x = None
    return MrcStack(
        path=header.path,
        shape=header.n_sections_rows_columns,
        dtype=header.dtype,
        offset=header.offset,
        voxel_size_angstrom=x if y else None,
        size=header.size,
        mtime_ns=header.mtime_ns,
        notes=notes,
    )


def open_mrc_map(path: str | Path) -> MrcMap:
    """Read the header of a density map.

    Raises
    ------
    InputFileError
        If the file is missing, compressed, cut short, no MRC file, or holds values of a type that
        maps cannot have, or holds images or several volumes, or a cell whose angles are not 90
        degrees.
    """
    header = read_mrc_header(path)
    _refuse_other_than_one_volume(header, path)
    x, y, z = header.voxel_size_angstrom
    n_along = dict(zip(header.axes[::-1], header.n_sections_rows_columns, strict=True))
    return MrcMap(
        path=header.path,
        shape=(n_along[1], n_along[2], n_along[3]),
        dtype=header.dtype,
        offset=header.offset,
        voxel_size_angstrom=(x, y, z) if x and y and z else None,
        axes=header.axes,
        size=header.size,
        mtime_ns=header.mtime_ns,
        notes=(*header.notes, *([NO_GROUP] if _is_cube_of_no_group(header) else [])),
        doubts=_doubts(header),
        first_voxel_angstrom=_first_voxel(header),
    )


def _first_voxel(header: MrcHeader) -> tuple[float, float, float]:
    """By the origin, as MRC2014 has it; by the number of the first voxel where that is 0, as CCP4
    has it."""
    if any(header.origin_angstrom):
        return header.origin_angstrom
    along = dict(zip(header.axes, header.start, strict=True))
    x, y, z = (
        along[axis] * (size or 0.0)
        for axis, size in zip((1, 2, 3), header.voxel_size_angstrom, strict=True)
    )
    return x, y, z


def _refuse_other_than_one_volume(header: MrcHeader, path: str | Path) -> None:
    """Refuse what the header says is no volume, or one in a cell that is no box."""
    n, group, of_cell = header.n_sections_rows_columns, header.space_group, header.sections_of_cell
    if min(n) < 2 or (group == 0 and of_cell == 1):
        images = (
            f"a stack of {n[0]} images (space group 0, one section per cell)"
            if n[0] > 1
            else "one image"
        )
        raise InputFileError(
            f"its header says that it is {images}, not a volume",
            source=path,
            remedy="If it is a volume all the same, say so in its header (mrcfile: set_volume()), "
            "else give one.",
        )
    if group in VOLUME_STACKS and of_cell != n[0]:
        several = n[0] // of_cell if of_cell > 0 and n[0] % of_cell == 0 else "several"
        raise InputFileError(
            f"holds {several} volumes (space group {group}, {of_cell} of {n[0]} sections each)",
            source=path,
            remedy="Write each into a file of its own.",
        )
    angles = header.angles_degree
    if all(0 < angle < 180 for angle in angles) and not np.allclose(angles, 90, atol=0.1):
        raise InputFileError(
            f"its cell has angles of {', '.join(f'{angle:g}' for angle in angles)} degrees, and "
            f"only 90 make a box",
            source=path,
            remedy="Resample the map onto a grid of right angles.",
        )


def _doubts(header: MrcHeader) -> tuple[str, ...]:
    n, group = header.n_sections_rows_columns, header.space_group
    sizes, is_cell = f"{n[0]} sections of {n[2]} x {n[1]}", header.sections_of_cell == n[0]
    if group == 0 and not _is_cube_of_no_group(header):
        return (
            f"its header says that it is a stack of images (space group 0); its {sizes} are taken "
            f"as one volume",
        )
    if group != 0 and n[1] == n[2] and n[0] != n[1] and not (group == 1 and is_cell):
        return (
            f"its {sizes} are taken as one volume; a stack of images or of volumes is no structure",
        )
    return ()


def _is_cube_of_no_group(header: MrcHeader) -> bool:
    """Whether it is a volume by its sides and its cell: some programs write space group 0 into
    all their maps."""
    return header.space_group == 0 and {*header.n_sections_rows_columns} == {
        header.sections_of_cell
    }


def _voxels(mrc: MrcStack | MrcMap) -> NDArray[Any]:
    """The voxels as they lie in the file, mapped: nothing is read yet."""
    refuse_changed(mrc.path, mrc.size, mrc.mtime_ns)
    shape = (
        mrc.shape
        if isinstance(mrc, MrcStack)
        else tuple(mrc.shape[axis - 1] for axis in mrc.axes[::-1])
    )
    return np.memmap(mrc.path, mrc.dtype, "r", mrc.offset, shape)


def write_mrc_stack(
    path: str | Path, images: NDArray[np.float32], pixel_size_angstrom: float
) -> None:
    """Write images as an MRC stack (mode 2), atomically."""
    with replacing(path) as file, mrcfile.new(file.name, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32, copy=False))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size_angstrom
        mrc.header.label[0] = b""  # mrcfile writes the time there: same images, same bytes


def write_mrc_map(
    path: str | Path,
    values: NDArray[np.float32],
    voxel_size_angstrom: tuple[float, float, float],
    middle_angstrom: tuple[float, float, float],
    label: str,
) -> None:
    """Write a density map, (z, y, x), as an MRC file (mode 2), atomically; voxel n // 2 along each
    axis lies at `middle_angstrom`, (x, y, z)."""
    with replacing(path) as file, mrcfile.new(file.name, overwrite=True) as mrc:
        mrc.set_data(values.astype(np.float32, copy=False))
        mrc.set_volume()
        mrc.voxel_size = voxel_size_angstrom
        for axis, n, size, middle in zip(
            "xyz", values.shape[::-1], voxel_size_angstrom, middle_angstrom, strict=True
        ):
            mrc.header.origin[axis] = middle - (n // 2) * size
        mrc.header.label[0] = label[:80].encode("ascii", "replace")
