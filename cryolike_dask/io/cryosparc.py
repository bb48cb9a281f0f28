"""cryoSPARC's `.cs` files: a table of records with named columns, read without ever unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.headers import read_header
from cryolike_dask.io.identity import reading

NUMPY, COMPRESSED, PICKLE = b"\x93NUMPY", b"\x94CSDAT", b"\x80"
LONGEST_HEADER = 2**18
"""Bytes. numpy's own limit, 10000, is passed by tables with a few hundred columns; this is one
of thousands."""
LONGEST_ROW, LONGEST_TEXT = 2**20, 10_000
"""Bytes of a particle, and characters of a text: names of files have 4096 at most."""

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
    with reading(path) as file:
        n_rows, dtype = _header(file, path)
        start, size = file.tell(), path.stat().st_size
        if n_rows * dtype.itemsize > size - start:
            what = f"is cut short: {size - start} of {n_rows * dtype.itemsize} bytes"
            raise InputFileError(what, source=path, remedy=REMEDY)
        return np.fromfile(file, dtype, n_rows)


def read_cs_columns(path: str | Path) -> tuple[str, ...]:
    """Read the names of the columns of a `.cs` file, and no more than its header.

    Raises
    ------
    InputFileError
        Those of `read_cs`.
    """
    with reading(path) as file:
        return _header(file, Path(path))[1].names or ()


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


def _header(file: IO[bytes], path: Path) -> tuple[int, np.dtype[np.void]]:
    """Number and type of the particles."""
    start = file.read(len(NUMPY))
    if start == COMPRESSED:
        raise InputFileError(
            "is in cryoSPARC's compressed format, which is not read",
            source=path,
            remedy="Save it as numpy: cryosparc.dataset.Dataset.load(PATH).save(PATH, "
            "format=NUMPY_FORMAT).",
        )
    if start[:1] == PICKLE:
        raise InputFileError("is a pickled object, which is not read", source=path, remedy=REMEDY)
    if start != NUMPY:
        raise InputFileError(
            f"is no .cs file: it starts with {start!r}", source=path, remedy=REMEDY
        )
    file.seek(0)
    try:
        shape, _, dtype, _ = read_header(file, LONGEST_HEADER)
    except ValueError as error:
        raise InputFileError(
            f"has a damaged header ({error})", source=path, remedy=REMEDY
        ) from error
    if dtype.hasobject:
        raise InputFileError("is a pickled object, which is not read", source=path, remedy=REMEDY)
    if not dtype.names or not dtype.itemsize or len(shape) != 1:
        raise InputFileError(
            f"is no table: shape {shape}, type {str(dtype)[:200]}", source=path, remedy=REMEDY
        )
    _refuse_wide(dtype, path)
    return shape[0], dtype


def _refuse_wide(dtype: np.dtype[np.void], path: Path) -> None:
    """Refuse particles, and text, of megabytes each."""
    for name in dtype.names or ():
        column = dtype[name].base
        n_characters = column.itemsize // {"U": 4, "S": 1}.get(column.kind, 2**32)
        if n_characters > LONGEST_TEXT:
            what = f"has the column {name[:100]} of {n_characters} characters for each particle"
            raise InputFileError(what, source=path, remedy=REMEDY)
    if dtype.itemsize > LONGEST_ROW:
        raise InputFileError(
            f"has {dtype.itemsize} bytes for each particle", source=path, remedy=REMEDY
        )
