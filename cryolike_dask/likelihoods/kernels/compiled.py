"""Compiling of loops for the machine that they run on, and the cache of their machine code."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numba

FAST_MATH = {"nnan", "nsz", "arcp", "contract", "reassoc"}
SOURCES = [Path(__file__), *sorted(Path(__file__).parent.glob("*_cpu.py"))]
CHECKSUM = zlib.crc32(b"".join(path.read_bytes() for path in SOURCES if path.is_file()))
"""Checksum of all that compiled loops are made of."""


def compiled(function: Any) -> Any:
    """Compile a function; the machine code is kept for the next process if there is a folder to
    keep it in."""
    # numba looks for changes in a function's own file, but not in those of functions that it calls
    # and whose code it has taken in: its name in the cache tells of all of them
    function.__qualname__ += f"-{CHECKSUM:x}"
    try:
        return numba.njit(cache=True, nogil=True, fastmath=FAST_MATH)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=FAST_MATH)(function)
