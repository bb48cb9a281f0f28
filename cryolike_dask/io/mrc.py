"""MRC files: the header when a file is opened, the voxels when a task asks for them.

The layout of the header is mrcfile's. The bytes are read here, because mrcfile reports what is odd
through warnings of the whole process, which threads share; here it is a note on the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError, listed, times
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.identity import refuse_changed, regular_file

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
OTHER_MODES = {3: "complex int16", 4: "complex float32", 101: "4-bit integer"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
PLAUSIBLE_VOXEL_ANGSTROM = (1e-2, 1e3)
PLAIN_AXES = (1, 2, 3)
VOLUME_STACKS = range(401, 631)
"""Space groups that stand for several volumes, one after another."""
IMOD_STAMP, IMOD_SIGNED, IMOD_HALF_BYTES = 1146047817, 1, 16
"""IMOD's mark in the header, and two bits of the flags that follow it."""
NO_GROUP = (
    "its header has the space group of image stacks, 0; a cube in a cell of its own, it is "
    "taken as one volume"
)
REMEDY = "Make the file again, or check that it is the right one."


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


@dataclass(frozen=True)
class _Header:
    """What stacks and maps have in common; the last three are words of the header."""

    path: str
    n_sections_rows_columns: tuple[int, int, int]
    dtype: str
    offset: int
    voxel_size_angstrom: tuple[float | None, float | None, float | None]
    axes: tuple[int, int, int]
    size: int
    mtime_ns: int
    notes: tuple[str, ...]
    space_group: int
    sections_of_cell: int
    angles_degree: tuple[float, float, float]


def open_mrc_stack(path: str | Path) -> MrcStack:
    """Read the header of a stack of images; one image alone is a stack of one.

    Raises
    ------
    InputFileError
        If the file is missing, compressed, cut short, no MRC file, or holds values of a type that
        images cannot have, or its columns do not run along x and its rows along y.
    """
    header = _read_header(path)
    if header.axes != PLAIN_AXES:
        raise InputFileError(
            f"its columns, rows and sections run along "
            f"{', '.join('xyz'[axis - 1] for axis in header.axes)} "
            "(MAPC, MAPR, MAPS), but images need x, y, z",
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
    header = _read_header(path)
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
    )


def _refuse_other_than_one_volume(header: _Header, path: str | Path) -> None:
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


def _doubts(header: _Header) -> tuple[str, ...]:
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


def _is_cube_of_no_group(header: _Header) -> bool:
    """Whether it is a volume by its sides and its cell: some programs write space group 0 into
    all their maps."""
    return header.space_group == 0 and {*header.n_sections_rows_columns} == {
        header.sections_of_cell
    }


def _read_header(path: str | Path) -> _Header:
    path = regular_file(path)
    try:
        status = path.stat()
        with open(path, "rb") as file:
            start = file.read(HEADER_DTYPE.itemsize)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error
    fields, notes = _fields(start, status.st_size, path)
    shape = (int(fields["nz"]), int(fields["ny"]), int(fields["nx"]))
    kind, said = _kind_of_values(fields, path)
    notes += said
    dtype = np.dtype(kind).newbyteorder(fields.dtype["nx"].byteorder)
    offset = len(start) + int(fields["nsymbt"])
    needed = offset + math.prod(shape) * dtype.itemsize
    if status.st_size < needed:
        raise InputFileError(
            f"is cut short: {status.st_size} bytes, but its header ({times(shape)} of "
            f"{dtype.name}) needs {needed}",
            source=path,
            remedy="Copy or make it again.",
        )
    if status.st_size > needed:
        notes.append(f"it is {status.st_size - needed} bytes longer than its header says")
    axes = (int(fields["mapc"]), int(fields["mapr"]), int(fields["maps"]))
    if sorted(axes) != [1, 2, 3]:
        notes += [f"its axes {axes} are none; x, y, z are taken"] if any(axes) else []
        axes = PLAIN_AXES
    angles = fields["cellb"]
    return _Header(
        path=str(path.absolute()),
        n_sections_rows_columns=shape,
        dtype=dtype.str,
        offset=offset,
        voxel_size_angstrom=(
            _voxel_size(fields, "x"),
            _voxel_size(fields, "y"),
            _voxel_size(fields, "z"),
        ),
        axes=axes,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        notes=tuple(notes),
        space_group=int(fields["ispg"]),
        sections_of_cell=int(fields["mz"]),
        angles_degree=(float(angles["alpha"]), float(angles["beta"]), float(angles["gamma"])),
    )


def _kind_of_values(fields: Any, path: Path) -> tuple[str, list[str]]:
    """The type of the values, and how bytes are read: signed by the standard, unsigned by IMOD
    unless a flag is set."""
    if fields["mode"] != 0:
        return MODES[int(fields["mode"])], []
    words = np.frombuffer(fields.tobytes(), fields.dtype["nx"])
    stamp, flags = int(words[38]), int(words[39])
    if stamp == IMOD_STAMP and flags & IMOD_HALF_BYTES:
        raise InputFileError(
            "holds two values of 4 bits in each byte",
            source=path,
            remedy="Convert it to float32 (mode 2).",
        )
    if stamp == IMOD_STAMP and not flags & IMOD_SIGNED:
        return "u1", ["its bytes are read as unsigned, 0 to 255, as IMOD's flags say"]
    least, most = float(fields["dmin"]), float(fields["dmax"])
    if stamp != IMOD_STAMP and least >= 0 and 127 < most <= 255 and most.is_integer():
        return "u1", [
            f"its bytes are read as unsigned, 0 to 255, for its header says that the largest is "
            f"{most:g}"
        ]
    return MODES[0], []


def _fields(start: bytes, size: int, path: Path) -> tuple[Any, list[str]]:
    """The header in the byte order in which it makes sense, and what is odd about it."""
    if len(start) < HEADER_DTYPE.itemsize:
        raise InputFileError(
            f"is no MRC file: {size} bytes, but a header alone has {HEADER_DTYPE.itemsize}",
            source=path,
            remedy=REMEDY,
        )
    as_stored = np.frombuffer(start, HEADER_DTYPE)[0]
    notes = []
    has_id = bytes(as_stored["map"])[:3] == b"MAP"
    if not has_id:
        _refuse_compressed(start, path)
        notes.append("it has no MAP id")
    try:
        said = byte_order_from_machine_stamp(as_stored["machst"])
    except ValueError:
        said = "<"
        notes.append("it has no machine stamp")
    orders = [said, "<" if said == ">" else ">"]
    readings = [np.frombuffer(start, HEADER_DTYPE.newbyteorder(order))[0] for order in orders]
    for order, fields in zip(orders, readings, strict=True):
        if _makes_sense(fields, size):
            if order != said:
                notes.append("its machine stamp names the other byte order")
            return fields, notes
    raise _refusal(readings[0], has_id, path)


def _makes_sense(fields: Any, size: int) -> bool:
    """Whether the numbers can be those of this file, or of the whole of which it is a part."""
    shape = [int(fields[name]) for name in ("nx", "ny", "nz")]
    return (
        int(fields["mode"]) in MODES
        and min(shape) > 0
        and max(shape[:2]) < 2**17
        and 0 <= fields["nsymbt"] <= size
    )


def _refusal(fields: Any, has_id: bool, path: Path) -> InputFileError:
    mode, shape = int(fields["mode"]), tuple(int(fields[name]) for name in ("nz", "ny", "nx"))
    if (has_id or mode in OTHER_MODES) and mode not in MODES and min(shape) > 0:
        kind = OTHER_MODES.get(mode, "unknown")
        usable = ", ".join(str(m) for m in MODES)
        return InputFileError(
            f"has mode {mode} ({kind} values), but only the modes {usable} are images",
            source=path,
            remedy="Convert it to float32 (mode 2).",
        )
    return InputFileError(
        f"is no MRC file: mode {mode}, shape {times(shape)}", source=path, remedy=REMEDY
    )


def _refuse_compressed(start: bytes, path: Path) -> None:
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise InputFileError(
                f"is compressed ({kind})", source=path, remedy="Decompress it first."
            )


def _voxel_size(fields: Any, axis: str) -> float | None:
    least, most = PLAUSIBLE_VOXEL_ANGSTROM
    n, cell = int(fields[f"m{axis}"]), float(fields["cella"][axis])
    return cell / n if n > 0 and least < cell / n < most else None


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
