"""Headers of `.npy` files: read without trust in how long they are, or what they stand for."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import IO, Any

import numpy as np

MOST_DIMENSIONS = 32
SHORT = 1000
"""Bytes of headers that are kept: those of tables of many columns can have thousands."""
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}


def read_header(file: IO[bytes], longest: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and bytes of the values that follow.

    Parameters
    ----------
    file : binary file
    longest : int
        Bytes that the header may take.

    Raises
    ------
    ValueError
        If it is damaged, or longer.
    """
    version = np.lib.format.read_magic(file)
    if version not in LENGTH_BYTES:
        raise ValueError(f"its header is of version {version[0]}.{version[1]}")
    length = file.read(LENGTH_BYTES[version])
    if int.from_bytes(length, "little") > longest:
        raise ValueError(f"its header takes {int.from_bytes(length, 'little')} bytes")
    text = length + file.read(int.from_bytes(length, "little"))
    shape, by_columns, dtype = (_parsed if len(text) < SHORT else _parsed.__wrapped__)(
        text, version, longest
    )
    if len(shape) > MOST_DIMENSIONS or any(not 0 <= n < 2**63 for n in shape):
        raise ValueError(f"its header says shape {str(shape[:MOST_DIMENSIONS])[:100]}")
    return shape, by_columns, dtype, math.prod(shape) * dtype.itemsize


@lru_cache(maxsize=256)
def _parsed(
    text: bytes, version: tuple[int, int], longest: int
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that the text of a header says. Most files have the same few; to parse
    each was a third of opening stacks."""
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, by_columns, dtype = read(io.BytesIO(text), max_header_size=longest)
    except Exception as error:  # numpy evaluates it as a literal, which fails in many ways
        raise ValueError(f"its header is damaged: {str(error)[:100]}") from error
    return shape, by_columns, dtype
