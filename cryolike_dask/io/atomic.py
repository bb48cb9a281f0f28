"""Our own small files: written so that a file that is there is complete, and never through a
link."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.outputs import refuse_special


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name once it is complete and on disk.

    The folder is created. If the body fails, or the process is killed, no half file is left under
    `path`, and what was there stays.

    Raises
    ------
    OutputError
        If the folder or the disk does not take it, or what is there is no file.
    """
    path = refuse_special(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_unless_there(path: Path, content: bytes) -> bool:
    """Make a file that is complete from its first moment, unless there is one; say whether it was
    made. Of several that try, the disk lets one.

    Raises
    ------
    OutputError
        If the folder or the disk does not take it.
    """
    name = path.name if path.name.startswith(".") else f".{path.name}"
    temporary = path.with_name(f"{name}.{uuid.uuid4().hex}.part")
    with writing(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # unlike a rename it fails where there is a file, also on disks of a network
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a disk without links
            return _write_without_links(path, content)
        finally:
            with suppress(OSError):
                temporary.unlink()
    return True


def _write_without_links(path: Path, content: bytes) -> bool:
    try:
        # in one piece, so that hardly anyone reads a part of it
        with open(path, "xb", buffering=0) as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which output the folder or the disk does not take.

    Raises
    ------
    OutputError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            source=path,
            remedy="Choose another output folder, or make room.",
        ) from error


def read_own(path: Path, most: int) -> bytes | None:
    """Read a small file that this program writes; None if there is none.

    Parameters
    ----------
    path : Path
    most : int
        Bytes; a larger file is none of ours.

    Raises
    ------
    InputFileError
        If it is a link, a folder or anything else that is no file, too large, or cannot be read.
    """
    try:
        with open(path, "rb", opener=unlinked) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputFileError("is not a file", source=path)
            if status.st_size > most:
                raise InputFileError(
                    f"has {status.st_size} bytes, far more than such a file has", source=path
                )
            return file.read(most)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror or error}"
        raise InputFileError(what, source=path) from error


def unlinked(path: str, flags: int) -> int:
    """Open a file as `open` does, but through no link, and without waiting for the other end of
    a pipe."""
    # Windows has none of them
    flags_for_safety = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    return os.open(path, flags | sum(flags_for_safety), 0o666)
