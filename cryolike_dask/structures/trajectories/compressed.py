"""Frames of XTC files before they are decompressed: whether they hold what the decompression, which
checks nothing itself, takes for granted."""

from __future__ import annotations

import math
import struct
from typing import Any, BinaryIO

import numba
import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct(">i")
HEADER = struct.Struct(">if8i")
"""From the number of atoms on, behind time and box: precision, least and greatest whole numbers
along each axis, by how many bits small steps begin, and bytes of the bits that follow."""
HEAD_AT, FEW = 52, 9
"""Byte of the number of atoms, and so few of them are not compressed."""
LEAST_BITS, MOST_BITS = 9, 72
"""Of small steps."""
ROOM = 14.4
"""Bytes that each atom has in memory while it is decompressed."""


def _compiled(function: Any) -> Any:
    """Compile a function; its code is kept if there is a folder to keep it in."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)


def refuse_wrong_bits(file: BinaryIO, offset: int, n_atoms: int) -> None:
    """Refuse a frame whose bits say more or other than so many atoms.

    Raises
    ------
    ValueError
    """
    file.seek(offset + HEAD_AT)
    (n,) = HEAD.unpack(file.read(HEAD.size))
    if n != n_atoms:
        raise ValueError(f"{n:,} atoms in a frame of {n_atoms:,}")
    if n <= FEW:
        return
    file.seek(offset + HEAD_AT)
    _, precision, *numbers, small, n_bytes = HEADER.unpack(file.read(HEADER.size))
    sizes = [high - low + 1 for low, high in zip(numbers[:3], numbers[3:], strict=True)]
    if not 0 < precision < math.inf or min(sizes) < 1 or max(sizes) >= 2**32:
        raise ValueError("its box of whole numbers is none")
    if not 0 <= n_bytes <= ROOM * n - 16:
        raise ValueError(f"{n_bytes:,} bytes of {n:,} atoms")
    if max(sizes) > 0xFFFFFF:  # axes that long have bits of their own
        bits = sum(size.bit_length() for size in sizes)
    else:
        bits = math.prod(sizes).bit_length()
    data = np.frombuffer(file.read(n_bytes), np.uint8)
    if len(data) < n_bytes or not _holds(data, n, bits, small):
        raise ValueError("its bits are not those of as many atoms")


@_compiled
def _bit(data: NDArray[np.uint8], at: int) -> int:
    return int(data[at // 8] >> (7 - at % 8)) & 1


@_compiled
def _holds(data: NDArray[np.uint8], n: int, bits: int, small: int) -> bool:
    """Whether bits are of n atoms: each in full, or a run of small steps from one to the next."""
    at, found, run, last = 0, 0, 0, 8 * len(data)
    while found < n:
        if small < LEAST_BITS or small > MOST_BITS:
            return False
        at += bits
        if at + 1 > last:
            return False
        is_said, step = _bit(data, at), 0
        at += 1
        if is_said:
            if at + 5 > last:
                return False
            run = 0
            for _ in range(5):
                run = 2 * run + _bit(data, at)
                at += 1
            step = run % 3
            run -= step
            step -= 1
        found += 1 + run // 3
        at += run // 3 * small
        small += step
        if at > last:
            return False
    return found == n and LEAST_BITS <= small <= MOST_BITS
