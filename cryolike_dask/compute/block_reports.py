"""What tasks tell whoever watches a run: blocks that are done, and how far long tasks are."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from cryolike_dask.compute.log import timestamp
from cryolike_dask.errors import OutputError
from cryolike_dask.io.atomic import unlinked, writing

BLOCKS = "cryolike_dask.blocks"
"""The topic of Dask's events, and in a process without workers the logger, that tasks tell of
blocks."""
SECONDS_BETWEEN_PARTS = 1.0


def announce(block: dict[str, Any]) -> None:
    """Tell whoever listens of a block, or of a part of one."""
    from distributed import get_worker

    try:
        get_worker().log_event(BLOCKS, block)
    except ValueError:  # not in a worker
        logging.getLogger(BLOCKS).debug("block", extra={"block": block})


def announce_part(name: str, at: tuple[int, ...], n_images: float) -> None:
    """Tell how many images are done, as a number that may be a fraction, in the part of piece
    `name` at this place."""
    announce({"name": name, "at": list(at), "n_done": n_images})


class Teller:
    """Tells how far a task is, once a second at most: it may be called as often as one likes.

    Parameters
    ----------
    name : str
        The piece that the task belongs to.
    at : tuple of int
        Which part of the piece it is.
    """

    def __init__(self, name: str, at: tuple[int, ...]) -> None:
        self.name, self.at, self.last = name, at, time.monotonic()

    def __call__(self, n_images: float) -> None:
        """Tell how many images are done."""
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_PARTS:
            self.last = now
            announce_part(self.name, self.at, n_images)


BLOCK_COLUMNS = (
    *(
        "time",
        "name",
        "first_image",
        "n_images",
        "first_template",
        "n_templates",
        "device",
        "dtype",
    ),
    *("n_images_per_tile", "n_templates_per_tile", "seconds"),
)


@contextmanager
def listening_to_blocks(
    client: Client | None, heard: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Call a function with each block that the workers, or this process, have done."""
    if client is None:
        handler, log = _Calling(heard), logging.getLogger(BLOCKS)
        level, log.propagate = log.level, False
        log.setLevel(logging.DEBUG)
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
    else:
        client.subscribe_topic(BLOCKS, lambda event: heard(event[1]))
        try:
            yield
        finally:
            if client.status == "running":
                client.unsubscribe_topic(BLOCKS)


class _Calling(logging.Handler):
    """Gives blocks to a function."""

    def __init__(self, heard: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Give what the record describes."""
        self.heard(record.__dict__["block"])


@contextmanager
def block_table(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Append rows to a table, each at once."""
    try:
        file = open(path, "a", newline="", encoding="utf-8", buffering=1, opener=unlinked)  # noqa: SIM115
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be written: {error.strerror or error}"
        raise OutputError(
            what, source=path, remedy="Remove it." if path.is_symlink() else None
        ) from error
    with file:
        rows = csv.DictWriter(file, BLOCK_COLUMNS, extrasaction="ignore")

        def write(block: dict[str, Any]) -> None:
            tile = dict(
                zip(("n_images_per_tile", "n_templates_per_tile"), block["tile"], strict=True)
            )
            with writing(path):
                rows.writerow({**block, **tile, "time": timestamp()})

        with writing(path):
            if os.fstat(file.fileno()).st_size == 0:
                rows.writeheader()
        yield write
