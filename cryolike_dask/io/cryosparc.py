"""cryoSPARC's `.cs` files: a table of records with named columns, read without ever unpickling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.inputs import regular_file

NUMPY, COMPRESSED, PICKLE = b"\x93NUMPY", b"\x94CSDAT", b"\x80"
LONGEST_HEADER = 2**22
"""Bytes. numpy's own limit, 10000, is passed by tables with a few hundred columns."""

REMEDY = "Export the particles again."


def read_cs(path: str | Path) -> NDArray[np.void]:
    """Read a `.cs` file.

    Returns
    -------
    structured array, (particle,)
        Its columns are named `group/name`, as in `ctf/df1_A`; `text` gives those of text.

    Raises
    ------
    InputFileError
        If the file is missing, damaged, cut short, pickled or compressed, or is no table.
    """
    path = Path(path)
    with _opened(path) as file:
        shape, dtype = _header(file, path)
        n_bytes = shape[0] * dtype.itemsize
        data = file.read(n_bytes) if n_bytes <= path.stat().st_size else b""
        if len(data) != n_bytes:
            held = path.stat().st_size - file.tell() + len(data)
            raise InputFileError(f"is cut short: {held} of {n_bytes} bytes", source=path, remedy=REMEDY)
    return np.frombuffer(data, dtype).copy()


def read_cs_columns(path: str | Path) -> tuple[str, ...]:
    """Read the names of the columns of a `.cs` file, and no more than its header.

    Raises
    ------
    InputFileError
        Those of `read_cs`.
    """
    path = Path(path)
    with _opened(path) as file:
        return _header(file, path)[1].names or ()


def text(column: NDArray[Any]) -> NDArray[np.str_]:
    """Give a column of text as str: cryoSPARC writes bytes or unicode, depending on its version.

    Raises
    ------
    InputFileError
        If the column holds no text, or bytes that are not UTF-8.
    """
    if column.dtype.kind == "U":
        return column.astype(np.str_)
    if column.dtype.kind != "S":
        raise InputFileError(f"a column of type {column.dtype} holds no text")
    try:
        return np.char.decode(column, "utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{error.object!r} is not text in UTF-8") from None


def _opened(path: Path) -> IO[bytes]:
    regular_file(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int], np.dtype[np.void]]:
    start = file.read(len(NUMPY))
    if start == COMPRESSED:
        raise InputFileError(
            "is in cryoSPARC's compressed format, which is not read",
            source=path,
            remedy="Save it as numpy: cryosparc.dataset.Dataset.load(PATH).save(PATH, format=NUMPY_FORMAT).",
        )
    if start[:1] == PICKLE:
        raise InputFileError("is a pickled object, which is not read", source=path, remedy=REMEDY)
    if start != NUMPY:
        raise InputFileError(f"is no .cs file: it starts with {start!r}", source=path, remedy=REMEDY)
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = _header_reader(version)(file, max_header_size=LONGEST_HEADER)
    except Exception as error:  # numpy evaluates the header as a literal, which fails in many ways
        raise InputFileError(f"has a damaged header ({error})", source=path, remedy=REMEDY) from error
    if dtype.hasobject:
        raise InputFileError("is a pickled object, which is not read", source=path, remedy=REMEDY)
    if dtype.names is None or len(shape) != 1 or shape[0] < 0 or not dtype.itemsize:
        raise InputFileError(f"is no table: shape {shape}, type {dtype}", source=path, remedy=REMEDY)
    return shape, dtype


def _header_reader(version: tuple[int, int]) -> Callable[..., tuple[Any, bool, np.dtype[Any]]]:
    return np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
