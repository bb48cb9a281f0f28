"""Files that an option names to be written: where one stands already, it must be of the kind
that is written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryolike_dask.errors import OutputError

HEAD = 16384
"""Bytes that tell what a file is."""
LOG_LINE = re.compile(rb'\{"time": "[^"]*", "level": "')


@dataclass(frozen=True)
class Kind:
    """Name of a kind of files, and a test of their first bytes."""

    name: str
    is_one: Callable[[bytes], bool]


LOG = Kind("log file of these commands", lambda head: LOG_LINE.match(head) is not None)
DASK_REPORT = Kind(
    "performance report of Dask's", lambda head: b"<title>Dask Performance Report</title>" in head
)
HTML = Kind(
    "web page",
    lambda head: head.lstrip()[:9].lower() == b"<!doctype" or b"<html" in head[:1000].lower(),
)
STAR = Kind("STAR file", lambda head: any(line.startswith(b"data_") for line in head.splitlines()))
NPY = Kind(".cs file", lambda head: head.startswith(b"\x93NUMPY"))
NPZ = Kind("file of parameters", lambda head: head.startswith(b"PK\x03\x04"))
TEXT = Kind("text file", lambda head: b"\0" not in head)
RUN = Kind("file that describes a run", lambda head: b"\nlikelihood:" in b"\n" + head)


def own_output(path: str | Path, kind: Kind) -> Path:
    """Refuse what is no place for such a file, or is something else that would be lost, and give
    the path.

    Raises
    ------
    OutputError
        If the path is a folder, a device, a pipe, or a file of another kind.
    """
    path = refuse_special(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", source=path) from error
    if head and not kind.is_one(head):
        raise OutputError(
            f"is there already, and is no {kind.name}", source=path, remedy="Name another file."
        )
    return path


def refuse_special(path: str | Path) -> Path:
    """Refuse a folder, a device or a pipe where a file is to be written, and give the path.

    Raises
    ------
    OutputError
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return Path(path)
    except (OSError, ValueError) as error:  # part of it is no folder, or a name no file can have
        raise OutputError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}", source=path
        ) from error
    if stat.S_ISDIR(mode):
        raise OutputError("is a folder", source=path, remedy="Name a file, or remove it.")
    if not stat.S_ISREG(mode):
        raise OutputError(
            "is a pipe, a socket or a device, not a file", source=path, remedy="Name a file."
        )
    return Path(path)
