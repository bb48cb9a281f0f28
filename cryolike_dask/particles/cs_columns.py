"""The columns of cryoSPARC's `.cs` files, one value per particle, completed from a passthrough
file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.cryosparc import read_cs, read_cs_columns, text
from cryolike_dask.particles.star_columns import LARGEST_INTEGER

FloatArray = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


def read_columns(path: Path) -> Columns:
    """Read all columns of a `.cs` file."""
    rows = read_cs(path)
    return {name: rows[name] for name in rows.dtype.names or ()}


def completed_columns(path: Path, passthrough: str | Path | None, needed: Sequence[str]) -> Columns:
    """Read the columns of a `.cs` file, with those that it lacks taken from its passthrough file.

    Parameters
    ----------
    path : Path
    passthrough : path, optional
        None: looked for beside the file, if columns are missing.
    needed : sequence of str

    Raises
    ------
    InputFileError
        If a column that is needed is in neither file, or the two do not have the same particles.
    """
    columns = read_columns(path)
    missing = [name for name in needed if name not in columns]
    if not missing and passthrough is None:
        return columns
    other = Path(passthrough) if passthrough is not None else _beside(path, missing)
    joined = {**_joined(path, columns, other), **columns}
    still_missing = [name for name in missing if name not in joined]
    if still_missing:
        raise InputFileError(
            f"does not have {', '.join(still_missing)}, and neither has {other}",
            source=path,
            remedy="Give the passthrough file that has them.",
        )
    return joined


def _beside(path: Path, missing: list[str]) -> Path:
    seen = [
        file
        for file in cs_files(path.parent)
        if "passthrough" in file.name and file.name != path.name
    ]
    complete = [file for file in seen if has_columns(file, missing)]
    if len(complete) != 1:
        raise InputFileError(
            f"does not have {', '.join(missing)}, and of the passthrough files beside it "
            f"({file_names(seen)}) {len(complete)} have",
            source=path,
            remedy="Give the passthrough file of these particles.",
        )
    return complete[0]


def _joined(path: Path, columns: Columns, passthrough: Path) -> Columns:
    """The columns of a passthrough file, in the order of the particles."""
    other = read_columns(passthrough)
    wanted, known = _uids(path, columns), _uids(passthrough, other)
    order = np.argsort(known)
    rows = (
        order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
        if len(known)
        else order
    )
    n_missing = np.count_nonzero(known[rows] != wanted) if len(known) else len(wanted)
    if n_missing:
        raise InputFileError(
            f"{n_missing} of {len(wanted)} particles are not in {passthrough}, which has "
            f"{len(known)}",
            source=path,
            remedy="Give the passthrough file of the same job.",
        )
    return {name: values[rows] for name, values in other.items()}


def _uids(path: Path, columns: Columns) -> NDArray[Any]:
    if "uid" not in columns:
        raise InputFileError("has no uid, by which two .cs files are joined", source=path)
    n_twice = len(columns["uid"]) - len(np.unique(columns["uid"]))
    if n_twice:
        raise InputFileError(
            f"has {n_twice} of {len(columns['uid'])} uid values more than once", source=path
        )
    return columns["uid"]


def numbers_in(
    path: Path, columns: Columns, name: str, width: int | None = None
) -> FloatArray | None:
    """A column of finite numbers, `width` of them in each row; None if it is not there."""
    if name not in columns:
        return None
    column = columns[name]
    if column.dtype.kind not in "biuf":
        raise InputFileError(f"{name} holds {column.dtype}, not numbers", source=path)
    if column.shape[1:] != (() if width is None else (width,)):
        raise InputFileError(
            f"{name} has the shape {column.shape}, not {width or 1} number(s) a row", source=path
        )
    values: FloatArray = column.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        value = values[tuple(bad[0])]
        raise InputFileError(
            f"{name} is {value} in row {bad[0][0]} (from 0), which is no number", source=path
        )
    return values


def whole_numbers_in(
    path: Path, columns: Columns, name: str, width: int | None = None
) -> NDArray[np.int64] | None:
    """A column of whole numbers, 0 or more."""
    values = numbers_in(path, columns, name, width)
    if values is None:
        return None
    bad = np.argwhere((values != np.round(values)) | (values < 0) | (values > LARGEST_INTEGER))
    if len(bad):
        value = values[tuple(bad[0])]
        raise InputFileError(
            f"{name} is {value:g} in row {bad[0][0]} (from 0), which counts nothing", source=path
        )
    return values.astype(np.int64)


def unless_zero(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Give values that cryoSPARC leaves 0 where it does not know them; None if any is."""
    return values if values is not None and (values > 0).all() else None


def text_in(path: Path, columns: Columns, name: str) -> NDArray[np.str_]:
    """A column of text."""
    try:
        return text(columns[name])
    except InputFileError as error:
        raise InputFileError(f"{name}: {error}", source=path) from None


def cs_files(folder: Path) -> list[Path]:
    """The `.cs` files of a folder, by name."""
    return sorted(folder.glob("*.cs"))


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Whether a `.cs` file has all of these columns."""
    return set(names) <= set(read_cs_columns(path))


def file_names(paths: list[Path]) -> str:
    """Names of files for a message."""
    return ", ".join(path.name for path in paths) or "none"
