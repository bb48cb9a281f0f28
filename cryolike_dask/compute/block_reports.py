"""Reports of tasks to whoever watches a run: blocks that are done, and how far long tasks are."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client

from cryolike_dask.compute.run_log import timestamp
from cryolike_dask.errors import OutputError
from cryolike_dask.io.atomic import unlinked, writing

BLOCKS = "cryolike_dask.blocks"
"""The topic of Dask's events, and in a process without workers the logger, that tasks tell of
blocks."""
SECONDS_BETWEEN_PARTS = 1.0


@dataclass(frozen=True)
class BlockReport:
    """A block that is done: what was compared, where, and how.

    Attributes
    ----------
    name : str
        The comparison that the block belongs to.
    first_image, n_images, first_template, n_templates : int
    of_templates : int
        All templates of the comparison.
    device, dtype : str
    tile, first_tile : (int, int)
        Images and templates of a tile; those of the tile that was tried first.
    seconds : float
    level : int
        Of a search in levels.
    share : float
        Part of the work of all levels together.
    """

    name: str
    first_image: int
    n_images: int
    first_template: int
    n_templates: int
    of_templates: int
    device: str
    dtype: str
    tile: tuple[int, int]
    first_tile: tuple[int, int]
    seconds: float
    level: int = 0
    share: float = 1.0

    @property
    def at(self) -> tuple[int, ...]:
        """Place of the block in the comparison."""
        of_level = (self.level,) if self.level else ()
        return (self.first_image, self.first_template, *of_level)

    @property
    def n_images_done(self) -> float:
        """Images that are done with it, each as much of one as its templates are of all."""
        return self.share * self.n_images * self.n_templates / self.of_templates


@dataclass(frozen=True)
class PartReport:
    """Progress of a part of an item of work.

    Attributes
    ----------
    name : str
        The item.
    at : tuple of int
        Place of the part in the item.
    n_done : float
        Images that are done there, which may be a fraction.
    """

    name: str
    at: tuple[int, ...]
    n_done: float


Report = BlockReport | PartReport


class BlockRow(NamedTuple):
    """A row of the table of blocks; its fields are the columns."""

    time: str
    name: str
    first_image: int
    n_images: int
    first_template: int
    n_templates: int
    device: str
    dtype: str
    n_images_per_tile: int
    n_templates_per_tile: int
    seconds: float

    @classmethod
    def of(cls, block: BlockReport) -> BlockRow:
        """Make the row of a block that is done now."""
        n_images_per_tile, n_templates_per_tile = block.tile
        return cls(
            time=timestamp(),
            name=block.name,
            first_image=block.first_image,
            n_images=block.n_images,
            first_template=block.first_template,
            n_templates=block.n_templates,
            device=block.device,
            dtype=block.dtype,
            n_images_per_tile=n_images_per_tile,
            n_templates_per_tile=n_templates_per_tile,
            seconds=block.seconds,
        )


BLOCK_COLUMNS = BlockRow._fields


def announce(report: Report) -> None:
    """Tell whoever listens of a block, or of a part of one."""
    from distributed import get_worker

    try:
        get_worker().log_event(BLOCKS, _event_of(report))
    except ValueError:  # not in a worker
        logging.getLogger(BLOCKS).debug("block", extra={"report": report})


def _event_of(report: Report) -> dict[str, object]:
    """A report as Dask's events can carry it: plain values under the name of their type."""
    return {type(report).__name__: asdict(report)}


def _report_of(event: Mapping[str, Mapping[str, Any]]) -> Report:
    """The report in an event, whose tuples have become lists on the way."""
    if (part := event.get(PartReport.__name__)) is not None:
        return PartReport(**{**part, "at": tuple(part["at"])})
    block = event[BlockReport.__name__]
    tiles = {name: tuple(block[name]) for name in ("tile", "first_tile")}
    return BlockReport(**{**block, **tiles})


def announce_part(name: str, at: tuple[int, ...], n_images: float) -> None:
    """Tell how many images are done, as a number that may be a fraction, in the part of item
    `name` at this place."""
    announce(PartReport(name, at, n_images))


class Teller:
    """Tells how far a task is, once a second at most: it may be called as often as one likes.

    Parameters
    ----------
    name : str
        The item that the task belongs to.
    at : tuple of int
        Place of the part in the item.
    """

    def __init__(self, name: str, at: tuple[int, ...]) -> None:
        self.name, self.at, self.last = name, at, time.monotonic()

    def __call__(self, n_images: float) -> None:
        """Tell how many images are done."""
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_PARTS:
            self.last = now
            announce_part(self.name, self.at, n_images)


@contextmanager
def listening_to_blocks(client: Client | None, heard: Callable[[Report], None]) -> Iterator[None]:
    """Call a function with each report of the workers, or of this process."""
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
        client.subscribe_topic(BLOCKS, lambda event: heard(_report_of(event[1])))
        try:
            yield
        finally:
            if client.status == "running":
                client.unsubscribe_topic(BLOCKS)


class _Calling(logging.Handler):
    """Gives reports to a function."""

    def __init__(self, heard: Callable[[Report], None]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Give the report that the record carries."""
        self.heard(record.__dict__["report"])


@contextmanager
def block_table(path: Path) -> Iterator[Callable[[BlockReport], None]]:
    """Append rows to a table, each at once."""
    try:
        file = open(path, "a", newline="", encoding="utf-8", buffering=1, opener=unlinked)  # noqa: SIM115
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be written: {error.strerror or error}"
        raise OutputError(
            what, source=path, remedy="Remove it." if path.is_symlink() else None
        ) from error
    with file:
        rows = csv.writer(file)

        def write(block: BlockReport) -> None:
            with writing(path):
                rows.writerow(BlockRow.of(block))

        with writing(path):
            if os.fstat(file.fileno()).st_size == 0:
                rows.writerow(BLOCK_COLUMNS)
        yield write
