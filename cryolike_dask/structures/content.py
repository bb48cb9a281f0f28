"""The bytes of structure files, compressed or not, as many as a structure can have."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import regular_file
from cryolike_dask.structures.pdb import Span

MOST_BYTES = 2**30
"""Bytes of one model, or of a compressed file: ten million atoms."""
MOST_TIMES = 100
"""Times that a structure can be larger than its compressed file; text of atoms is 4 to 15 times as
large."""
UNSUSPICIOUS_BYTES = 2**24
"""Fewer bytes than this are taken, however well they were compressed."""
PIECE = 2**20


def is_compressed(path: Path) -> bool:
    """Whether the name says that gzip compressed the file."""
    return path.suffix.lower() == ".gz"


def content_of(path: str | Path, span: Span | None = None) -> bytes:
    """Read a file, or a part of one that is not compressed.

    Raises
    ------
    InputFileError
        If there is no such file, it cannot be read, or holds more than a structure can.
    """
    path = regular_file(path)
    start, end = span or (0, path.stat().st_size)
    if end - start > MOST_BYTES and not is_compressed(path):
        raise _too_large(path, "Give one structure, or a PDB file of many models.")
    try:
        with open(path, "rb") as file:
            if is_compressed(path):
                return _decompressed(file, path)
            file.seek(start)
            return file.read(end - start)
    except (OSError, EOFError, zlib.error) as error:
        raise InputFileError(
            f"is not a readable PDB or mmCIF file ({error})", source=path
        ) from error


def _decompressed(file: BinaryIO, path: Path) -> bytes:
    """Decompress piece by piece; no more is ever held than is allowed."""
    content = bytearray()
    with gzip.GzipFile(fileobj=file) as pieces:
        while piece := pieces.read(PIECE):
            content += piece
            suspicious = (
                len(content) > UNSUSPICIOUS_BYTES and len(content) > MOST_TIMES * file.tell()
            )
            if suspicious or len(content) > MOST_BYTES:
                raise _too_large(path, "Decompress it first, and look at what it is.")
    if content.startswith(b"\x1f\x8b"):
        raise InputFileError("is compressed twice", source=path, remedy="Decompress it once.")
    return bytes(content)


def _too_large(path: Path, remedy: str) -> InputFileError:
    return InputFileError(
        f"holds more than a structure can: over {MOST_BYTES // 2**20} MB, or {MOST_TIMES} times "
        f"its compressed size",
        source=path,
        remedy=remedy,
    )
