"""The header of an MRC file: what its numbers mean, and what is odd about them.

The layout is mrcfile's. The bytes are read here, because mrcfile reports what is odd through
warnings of the whole process, which threads share; here it is a note on the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp

from cryolike_dask.errors import InputFileError, times
from cryolike_dask.io.identity import regular_file

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
OTHER_MODES = {3: "complex int16", 4: "complex float32", 101: "4-bit integer"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
PLAUSIBLE_VOXEL_ANGSTROM = (1e-2, 1e3)
PLAIN_AXES = (1, 2, 3)
IMOD_STAMP, IMOD_SIGNED, IMOD_HALF_BYTES = 1146047817, 1, 16
"""IMOD's mark in the header, and two bits of the flags that follow it."""
REMEDY = "Make the file again, or check that it is the right one."


@dataclass(frozen=True)
class MrcHeader:
    """Header of a stack or a map; the last five are words of it as they stand."""

    path: str
    n_sections_rows_columns: tuple[int, int, int]
    dtype: str
    offset: int
    voxel_size_angstrom: tuple[float | None, float | None, float | None]
    axes: tuple[int, int, int]
    size: int
    mtime_ns: int
    notes: tuple[str, ...]
    origin_angstrom: tuple[float, float, float]
    start: tuple[int, int, int]
    space_group: int
    sections_of_cell: int
    angles_degree: tuple[float, float, float]


def read_mrc_header(path: str | Path) -> MrcHeader:
    path = regular_file(path)
    try:
        status = path.stat()
        with open(path, "rb") as file:
            start = file.read(HEADER_DTYPE.itemsize)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error
    fields, notes = _fields(start, status.st_size, path)
    shape = (int(fields["nz"]), int(fields["ny"]), int(fields["nx"]))
    kind, kind_notes = _kind_of_values(fields, path)
    notes += kind_notes
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
    return MrcHeader(
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
        origin_angstrom=tuple(float(fields["origin"][axis]) for axis in "xyz"),  # type: ignore[arg-type]
        start=(int(fields["nxstart"]), int(fields["nystart"]), int(fields["nzstart"])),
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
        stated_order = byte_order_from_machine_stamp(as_stored["machst"])
    except ValueError:
        stated_order = "<"
        notes.append("it has no machine stamp")
    orders = [stated_order, "<" if stated_order == ">" else ">"]
    readings = [np.frombuffer(start, HEADER_DTYPE.newbyteorder(order))[0] for order in orders]
    for order, fields in zip(orders, readings, strict=True):
        if _makes_sense(fields, size):
            if order != stated_order:
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
