"""Reading `.npz` and `.npy` files without ever unpickling, and writing `.npz` atomically.

CryoLike writes None as a pickled object of shape (); such an entry is recognised by its header alone. This project
writes None as an empty float array, which both programs read as None.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.inputs import regular_file


def read_archive(path: str | Path, *, optional: Collection[str]) -> dict[str, NDArray[Any] | None]:
    """Read every entry of an `.npz` file; entries that stand for None are None.

    Parameters
    ----------
    optional : collection of str
        Keys that may be None.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, or an entry is a pickled object that does not stand for an optional None.
    """
    path = regular_file(path)
    entries: dict[str, NDArray[Any] | None] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                key = entry.filename.removesuffix(".npy")
                with archive.open(entry) as file:
                    entries[key] = _read_array(file, entry.file_size, f"{path}, entry {key!r}", key in optional)
    except InputFileError:
        raise
    except Exception as error:  # zipfile raises many types for damaged files
        raise InputFileError(f"is not a readable .npz file ({error})", source=path) from error
    return entries


def read_list(path: str | Path) -> list[str]:
    """Read a `.npy` file that holds a list of strings.

    Raises
    ------
    InputFileError
        If it is missing, damaged, pickled, or not one-dimensional text.
    """
    path = regular_file(path)
    try:
        with open(path, "rb") as file:
            values = _read_array(file, path.stat().st_size, str(path), False)
    except (OSError, ValueError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"is not a readable .npy file ({error})", source=path) from error
    if values is None or values.ndim > 1 or values.dtype.kind != "U":
        raise InputFileError("is not a list of file names (one-dimensional text)", source=path)
    return [str(v) for v in np.atleast_1d(values)]


def write_archive(path: str | Path, entries: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write an `.npz` file atomically; None becomes an empty float array."""
    arrays = {key: np.empty(0) if value is None else np.asarray(value) for key, value in entries.items()}
    objects = [key for key, value in arrays.items() if value.dtype.hasobject]
    if objects:
        raise InputError(f"{', '.join(objects)}: objects are not written to {path}, for they would have to be pickled")
    with replacing(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def write_list(path: str | Path, values: list[str]) -> None:
    """Write a `.npy` file of strings atomically."""
    with replacing(path) as file:
        np.save(file, np.array(values, dtype=np.str_), allow_pickle=False)


def _read_array(file: IO[bytes], size: int, where: str, may_be_none: bool) -> NDArray[Any] | None:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        if may_be_none and shape == ():
            return None
        raise InputFileError(
            "is a pickled object, which is not read",
            source=where,
            remedy="Only optional values may be None; write the file again without objects.",
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > size:
        raise InputFileError(f"claims {n_bytes} bytes but holds at most {size}", source=where)
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise InputFileError(f"is cut short: {len(data)} of {n_bytes} bytes", source=where)
    values = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran_order else "C").copy()
    return None if may_be_none and values.size == 0 and dtype.kind == "f" else values
