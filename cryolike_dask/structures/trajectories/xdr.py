"""XTC and TRR files of GROMACS: where their frames are, found by hopping from header to header."""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import reading

XTC_HEADER, XTC_BEGIN = struct.Struct(">ii80xi"), struct.Struct(">ii")
"""Magic number, atoms, and bytes of compressed coordinates, which follow."""
XTC_MAGIC, XTC_PLAIN, XTC_FEW = 1995, 56, 9
"""So few atoms are not compressed; the header is then shorter."""
TRR_HEADER = struct.Struct(">iii12s13i")
"""Magic number, version, bytes of ten parts, atoms, step, and a number that is not used; time and
lambda follow, in the precision of the positions."""
TRR_MAGIC, TRR_VERSION, TRR_POSITIONS = 1993, b"GMX_trn_file", 7
AT_ONCE = 2**26
"""Bytes of the file after which those behind are given back: memory does not grow with it."""

Hop = Callable[[mmap.mmap, int], tuple[int, int]]
"""Atoms of the frame that begins at a byte, and the bytes that it has; ValueError if none does."""


def frame_offsets(path: Path, suffix: str) -> tuple[NDArray[np.int64], int, bool]:
    """Find where the frames of an XTC or TRR file begin; nothing is decompressed.

    Returns
    -------
    offsets : (frame,) int64
        Of whole frames.
    n_atoms : int
    is_cut_off : bool
        Whether the file ends inside a frame.

    Raises
    ------
    InputFileError
        If it is empty, or not of this format, at its beginning or further on.
    """
    hop = _xtc_frame if suffix == ".xtc" else _trr_frame
    offsets, at, atoms, behind = array("q"), 0, 0, 0
    with reading(path) as file:
        if not (size := path.stat().st_size):
            raise InputFileError("is empty", source=path, remedy="Give a trajectory.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                while at < size:
                    n, length = hop(content, at)
                    if n != atoms and atoms:
                        raise ValueError(f"{n:,} atoms after frames of {atoms:,}")
                    if at + length > size:
                        break
                    offsets.append(at)
                    atoms, at = n, at + length
                    if at - behind > AT_ONCE:
                        behind = _given_back(content, at)
            except struct.error:
                pass  # the file ends inside a header
            except ValueError as error:
                raise _damaged(path, suffix, len(offsets), at, error) from None
    if not offsets:
        raise InputFileError(
            f"is cut off inside its first frame ({size:,} bytes)",
            source=path,
            remedy="Copy it again.",
        )
    return np.frombuffer(offsets, np.int64), atoms, at < size


def _given_back(content: mmap.mmap, at: int) -> int:
    """Give back what was read of a file, where the system can; and say where that was."""
    if hasattr(mmap, "MADV_DONTNEED"):
        content.madvise(mmap.MADV_DONTNEED)
    return at


def _damaged(path: Path, suffix: str, frame: int, at: int, why: Exception) -> InputFileError:
    kind = {".xtc": "an XTC", ".trr": "a TRR"}[suffix]
    if frame == 0:
        return InputFileError(
            f"is not {kind} file ({why})", source=path, remedy="Does its name say what it is?"
        )
    return InputFileError(
        f"is damaged after {frame:,} frames: none of {kind} file begins at byte {at:,} ({why})",
        source=path,
        remedy="Copy it again, or write the frames before anew (gmx trjconv -e).",
    )


def _xtc_frame(content: mmap.mmap, at: int) -> tuple[int, int]:
    try:
        magic, n, n_bytes = XTC_HEADER.unpack_from(content, at)
    except struct.error:  # the last of frames of few atoms is shorter than that
        (magic, n), n_bytes = XTC_BEGIN.unpack_from(content, at), 0
    if magic != XTC_MAGIC:
        raise ValueError("another magic number")
    if 0 < n <= XTC_FEW:
        return n, XTC_PLAIN + 12 * n
    if n < 1 or n_bytes < 0:
        raise ValueError(f"{n:,} atoms in {n_bytes:,} bytes")
    return n, XTC_HEADER.size + (n_bytes + 3 & -4)


def _trr_frame(content: mmap.mmap, at: int) -> tuple[int, int]:
    magic, _, length, version, *numbers = TRR_HEADER.unpack_from(content, at)
    parts, n = numbers[:10], numbers[10]
    if (magic, length, version) != (TRR_MAGIC, len(TRR_VERSION), TRR_VERSION):
        raise ValueError("another magic number")
    if n < 1 or min(parts) < 0:
        raise ValueError(f"{n:,} atoms, parts of {min(parts):,} bytes")
    positions = parts[TRR_POSITIONS]
    if positions not in (12 * n, 24 * n):
        raise ValueError(
            f"{positions:,} bytes of positions of {n:,} atoms"
            if positions
            else "velocities or forces without positions; gmx trjconv leaves such frames out"
        )
    return n, TRR_HEADER.size + 2 * (positions // (3 * n)) + sum(parts)
