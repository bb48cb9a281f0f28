"""Input files: what they are when they are opened, and whether they still are."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from cryolike_dask.errors import InputFileError


class InputDescription(TypedDict, total=False):
    """One input of a result, as completion records describe it.

    Attributes
    ----------
    name : str
        Of a file, without its folders, or of an array or a choice.
    size, mtime_ns : int
        Of a file; its content is never hashed on the way.
    shape : list of int
    sha256 : str
        Of an array: that of its values.
    value : str
        Of a choice.
    """

    name: str
    size: int
    mtime_ns: int
    shape: list[int]
    sha256: str
    value: str


def regular_file(path: str | Path, remedy: str | None = None) -> Path:
    """Refuse what is not a file that can be opened and read to its end, and give the path.

    Parameters
    ----------
    path : path
    remedy : str, optional
        What to do where there is no such file.

    Raises
    ------
    InputFileError
        If nothing is there, or a folder, or a pipe, socket or device, whose reading might never
        end.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputFileError("there is no such file", source=path, remedy=remedy) from None
    except (OSError, ValueError) as error:  # no permission, or a name that no file can have
        raise InputFileError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", source=path
        ) from error
    if stat.S_ISDIR(mode):
        raise InputFileError("is a folder", source=path, remedy="Give the file itself.")
    if not stat.S_ISREG(mode):
        raise InputFileError(
            "is a pipe, a socket or a device, not a file", source=path, remedy="Give a file."
        )
    return Path(path)


@contextmanager
def reading(path: str | Path, remedy: str | None = None) -> Iterator[io.BufferedReader]:
    """Open a `regular_file`, and say which file it is that the disk does not give.

    Parameters
    ----------
    path : path
    remedy : str, optional
        What to do where there is no such file.

    Raises
    ------
    InputFileError
        In place of an OSError, while the file is open too.
    """
    path = regular_file(path, remedy)
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror or error}", source=path) from error


def is_there(path: Path) -> bool:
    """Whether anything is there; nothing is by a name that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def describe_file(path: str | Path) -> InputDescription:
    """Name, size and time of a file."""
    status = _status(path)
    return {"name": Path(path).name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def refuse_changed(path: str | Path, size: int, mtime_ns: int) -> None:
    """Refuse a file that is gone, or is not the one that was opened."""
    status = _status(path)
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        raise InputFileError(
            "has changed since it was opened", source=path, remedy="Open it again."
        )


def _status(path: str | Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error
