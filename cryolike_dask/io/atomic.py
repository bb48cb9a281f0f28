"""Writing files so that a file that is there is complete."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cryolike_dask.errors import OutputError
from cryolike_dask.io.outputs import refuse_special


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name once it is complete and on disk.

    The folder is created. If the body fails, or the process is killed, no half file is left under `path`, and what
    was there stays.

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
