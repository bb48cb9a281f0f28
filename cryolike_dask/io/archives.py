"""Reading `.npz` and `.npy` files without ever unpickling, and writing `.npz` atomically.

CryoLike writes None as a pickled object of shape (), whose bytes are looked at. This project writes
None as an empty float array, which both programs read as None.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.headers import read_header
from cryolike_dask.io.identity import reading
from cryolike_dask.io.pickles import RECONSTRUCT, Call, parse_pickle
from cryolike_dask.io.zips import Zip, open_zip

LONGEST_HEADER = 10_000
LONGEST_NONE = 1000
"""Bytes of a header, and of a pickled None."""

MOST_BYTES = 2**28
BYTES_PER_IMAGE = 2**13
"""Bytes that entries may take beyond those of the file itself, and that each image adds: some
numbers, and names of 2000 characters in all."""


def read_archive(
    path: str | Path,
    *,
    optional: Collection[str],
    keys: Collection[str] | None = None,
    n_images: int | None = None,
) -> dict[str, NDArray[Any] | None]:
    """Read entries of an `.npz` file; those that stand for None are None.

    Parameters
    ----------
    optional : collection of str
        Keys that may be None.
    keys : collection of str, optional
        What is read if it is there, and nothing else; default: everything.
    n_images : int, optional
        How many images it describes, if that is known: entries that would take far more memory are
        refused.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, an entry is a pickled object that does not stand for an
        optional None, or entries expand to more than they should.
    """
    try:
        with open_zip(path) as file:
            names = {name.removesuffix(".npy"): name for name in file.entries}
            if len(names) < len(file.entries):
                raise InputFileError(
                    "has two entries of one name", source=path, remedy="Make the file again."
                )
            wanted = {key: name for key, name in names.items() if keys is None or key in keys}
            _refuse_bomb(path, file, wanted.values(), n_images)
            return {
                key: _read_entry(path, file, key, name, key in optional)
                for key, name in wanted.items()
            }
    except InputFileError:
        raise
    except Exception as error:  # zipfile raises many types for damaged files
        raise _not_readable(path, error) from error


def archive_keys(path: str | Path) -> set[str]:
    """Give the keys of an `.npz` file, without reading what they stand for.

    Raises
    ------
    InputFileError
        If the file is missing or damaged.
    """
    try:
        with open_zip(path) as file:
            return {name.removesuffix(".npy") for name in file.entries}
    except InputFileError:
        raise
    except Exception as error:
        raise _not_readable(path, error) from error


def read_list(path: str | Path) -> list[str]:
    """Read a `.npy` file that holds a list of strings.

    Raises
    ------
    InputFileError
        If it is missing, damaged, pickled, or not one-dimensional text.
    """
    try:
        with reading(path) as file:
            values = _read_array(file, min(Path(path).stat().st_size, MOST_BYTES), str(path), False)
    except ValueError as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"is not a readable .npy file ({error})", source=path) from error
    if values is None or values.ndim > 1 or values.dtype.kind != "U":
        raise InputFileError("is not a list of file names (one-dimensional text)", source=path)
    return [str(v) for v in np.atleast_1d(values)]


def write_archive(
    path: str | Path, entries: Mapping[str, ArrayLike | None], *, compressed: bool = False
) -> None:
    """Write an `.npz` file atomically; None becomes an empty float array."""
    content = archive_content(path, entries, compressed=compressed)
    with replacing(path) as file:
        file.write(content)


def archive_content(
    path: str | Path, entries: Mapping[str, ArrayLike | None], *, compressed: bool = False
) -> bytes:
    """The bytes of an `.npz` file: the same for the same entries."""
    arrays = {
        key: np.empty(0) if value is None else np.asarray(value) for key, value in entries.items()
    }
    objects = [key for key, value in arrays.items() if value.dtype.hasobject]
    if objects:
        raise InputError(
            f"{', '.join(objects)}: objects are not written to {path}, for they would have to be "
            f"pickled"
        )
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def write_list(path: str | Path, values: list[str]) -> None:
    """Write a `.npy` file of strings atomically."""
    with replacing(path) as file:
        np.save(file, np.array(values, dtype=np.str_), allow_pickle=False)


def _not_readable(path: str | Path, error: Exception) -> InputFileError:
    what = f"is not a readable .npz file ({str(error)[:200] or type(error).__name__})"
    return InputFileError(what, source=path)


def _refuse_bomb(path: str | Path, file: Zip, names: Collection[str], n_images: int | None) -> None:
    """Refuse entries that would take far more memory than they need, before any of them is
    expanded."""
    size = sum(file.entries[name].file_size for name in names)
    most = MOST_BYTES if n_images is None else MOST_BYTES // 16 + n_images * BYTES_PER_IMAGE
    if size > sum(entry.compress_size for entry in file.entries.values()) + most:
        what = f"would expand to {size} bytes, far more than it should hold"
        raise InputFileError(what, source=path, remedy="Make the file again.")


def _read_entry(
    path: str | Path, file: Zip, key: str, name: str, may_be_none: bool
) -> NDArray[Any] | None:
    with file.open(name) as entry:
        return _read_array(
            entry, file.entries[name].file_size, f"{path}, entry {key!r}", may_be_none
        )


def _read_array(file: IO[bytes], size: int, where: str, may_be_none: bool) -> NDArray[Any] | None:
    shape, by_columns, dtype, n_bytes = read_header(file, LONGEST_HEADER)
    if dtype.hasobject:
        if may_be_none and shape == () and _is_none(file.read(LONGEST_NONE)):
            return None
        raise InputFileError(
            "is a pickled object, which is not read",
            source=where,
            remedy="Only optional values may be None; write the file again without objects.",
        )
    if n_bytes > size:
        raise InputFileError(f"claims {n_bytes} bytes but holds at most {size}", source=where)
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise InputFileError(f"is cut short: {len(data)} of {n_bytes} bytes", source=where)
    file.read(1)  # at its end, the checksum is looked at
    values = (
        np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if by_columns else "C").copy()
    )
    return None if may_be_none and values.size == 0 and dtype.kind == "f" else values


def _is_none(pickle: bytes) -> bool:
    """Whether it is None, or an array of numpy's whose only value is None."""
    match parse_pickle(pickle):
        case None | list([None]):
            return True
        case Call(name, _, (_, (), Call("numpy.dtype", ("O8", *_)), _, list([None]))):
            return name in RECONSTRUCT
    return False
