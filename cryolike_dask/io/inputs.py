"""Input files: what they are when they are opened, and whether they still are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryolike_dask.errors import InputFileError


def describe_file(path: str | Path) -> dict[str, Any]:
    """Name, size and time of a file; contents are never hashed on the way."""
    status = _status(path)
    return {"name": Path(path).name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def refuse_changed(path: str | Path, size: int, mtime_ns: int) -> None:
    """Refuse a file that is gone, or is not the one that was opened."""
    status = _status(path)
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        raise InputFileError("has changed since it was opened", source=path, remedy="Open it again.")


def _status(path: str | Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error
