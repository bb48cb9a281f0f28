"""What a run tells while it goes: progress with rate and remaining time, a table of its blocks, a log file."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from distributed import Client, performance_report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.atomic import unlinked
from cryolike_dask.io.outputs import DASK_REPORT, LOG, own_output
from cryolike_dask.likelihoods.blocks import BLOCKS

logger = logging.getLogger("cryolike_dask")
EVENTS = logging.getLogger("cryolike_dask.events")
"""What is too much for a terminal: every piece and every block, for the log file. Records have `fields`."""
EVENTS.propagate = False

SECONDS_BETWEEN_LINES = 60.0
"""Of progress, where there is neither a terminal nor a notebook."""
BLOCK_COLUMNS = (
    *("time", "name", "first_image", "n_images", "first_template", "n_templates", "device", "dtype"),
    *("n_images_per_tile", "n_templates_per_tile", "seconds"),
)


class Meter:
    """How much of a run is done: whole pieces, and blocks of those that are in work.

    Parameters
    ----------
    n_images : int
        Of all pieces.
    show : callable
        Gets the number of images that are done, blocks counted as parts of them.
    """

    def __init__(self, n_images: int, show: Callable[[float], None]) -> None:
        self.n_images, self.show = n_images, show
        self.done, self.parts = 0, dict[str, float]()

    def finished(self, name: str, n_images: int, error: BaseException | None = None) -> None:
        """Count a whole piece, or one that failed."""
        self.done += n_images
        fields = {"name": name, "n_images": n_images} | ({} if error is None else {"error": str(error)})
        EVENTS.info("finished" if error is None else "failed", extra={"fields": fields})
        self.parts.pop(name, None)
        self.show(self.done + sum(self.parts.values()))

    def started(self, name: str) -> None:
        """Count blocks of a piece from now on."""
        self.parts[name] = 0.0

    def block(self, block: dict[str, Any]) -> bool:
        """Count a block, and say whether it belongs to a piece that is in work."""
        if block["name"] not in self.parts:
            return False
        self.parts[block["name"]] += block["n_images"] * block["n_templates"] / block["of_templates"]
        self.show(min(self.done + sum(self.parts.values()), self.n_images))
        return True


@contextmanager
def watch(
    client: Client | None, n_images: int, title: str, *, progress: bool, table: Path | None = None
) -> Iterator[Meter]:
    """Show progress while the body runs, and write every block to a table.

    Parameters
    ----------
    client : Client or None
        Whose workers tell of their blocks.
    n_images : int
        Of the whole run.
    title : str
        What is counted.
    progress : bool
        Show a bar on a terminal or in a notebook, and otherwise log a line from time to time.
    table : Path, optional
        Of blocks; rows are appended.
    """
    with ExitStack() as stack:
        show = stack.enter_context(_bar(n_images, title)) if progress and n_images else _nothing
        meter = Meter(n_images, show)
        write = stack.enter_context(_table(table)) if table is not None else _nothing

        def heard(block: dict[str, Any]) -> None:
            if meter.block(block):
                if block["tile"] != block["first_tile"]:
                    sizes = (*block["first_tile"], *block["tile"])
                    logger.warning(
                        "%s: out of memory with tiles of %d x %d (images x templates); went on with %d x %d",
                        *(block["name"], *sizes),
                    )
                write(block)
                EVENTS.info("block", extra={"fields": block})

        stack.enter_context(_listening(client, heard))
        yield meter


def _nothing(_: Any) -> None:
    """Show nothing."""


@contextmanager
def _listening(client: Client | None, heard: Callable[[dict[str, Any]], None]) -> Iterator[None]:
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
def _table(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Append rows to a table, each at once."""
    try:
        with open(path, "a", newline="", encoding="utf-8", buffering=1, opener=unlinked) as file:
            rows = csv.DictWriter(file, BLOCK_COLUMNS, extrasaction="ignore")
            if os.fstat(file.fileno()).st_size == 0:
                rows.writeheader()

            def write(block: dict[str, Any]) -> None:
                tile = dict(zip(("n_images_per_tile", "n_templates_per_tile"), block["tile"], strict=True))
                rows.writerow({**block, **tile, "time": _now()})

            yield write
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be written: {error.strerror or error}"
        raise OutputError(what, source=path, remedy="Remove it." if path.is_symlink() else None) from error


@contextmanager
def _bar(n_images: int, title: str) -> Iterator[Callable[[float], None]]:
    console = Console(file=sys.stderr)
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(n_images, title)
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    start = time.monotonic()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=n_images, rate="")

        def show(done: float) -> None:
            rate = f"{done / max(time.monotonic() - start, 1e-3):.3g}/s"
            bar.update(task, completed=int(done), rate=rate)

        yield show
        bar.refresh()  # in a notebook the last state is not drawn otherwise


def _lines(n_images: int, title: str) -> Callable[[float], None]:
    """Log a line of progress, not too often."""
    start = last = time.monotonic()

    def show(done: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done:
            last = now
            left = timedelta(seconds=round((n_images - done) * (now - start) / done))
            logger.info("%d of %d %s, %.3g per second, %s left", done, n_images, title, done / (now - start), left)

    return show


@contextmanager
def reporting_to(path: str | Path | None, client: Client | None) -> Iterator[None]:
    """Write Dask's report of what the scheduler and the workers did, as a page for a browser.

    Raises
    ------
    InputError
        If there is no client, and so nothing to report.
    OutputError
        If the path is no place for a report, before anything is computed. A disk that does not take it in the end is
        a warning, for the results are there.
    """
    if path is None:
        yield
        return
    if client is None:
        raise InputError("performance_report is asked for, but there are no workers", remedy="Give a client.")
    page = own_output(path, DASK_REPORT)
    if not page.parent.is_dir():
        raise OutputError("cannot be written: there is no such folder", source=page, remedy="Choose another.")
    report = performance_report(filename=str(page))
    report.__enter__()
    try:
        yield
    finally:
        try:
            report.__exit__(None, None, None)
        except Exception as error:  # of the disk, or of a scheduler that is lost
            logger.warning("%s: the performance report cannot be written (%s)", page, error)


@contextmanager
def logging_to(path: str | Path | None) -> Iterator[None]:
    """Append everything that the package logs, and every piece and block, to a file: one JSON object a line.

    Raises
    ------
    OutputError
        If the file cannot be written, or is no such file.
    """
    if path is None:
        yield
        return
    own_output(path, LOG)
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", source=path) from error
    handler.setFormatter(_Structured())
    levels = {log: log.level for log in (logger, EVENTS)}
    for log in levels:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for log, level in levels.items():
            log.removeHandler(handler)
            log.setLevel(level)
        handler.close()


class _LogFile(logging.FileHandler):
    """A file that a run goes on without when it cannot be written any more."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write, unless that has failed."""
        if not self.failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say once that it failed."""
        self.failed, error = True, sys.exc_info()[1]
        logger.warning("%s: cannot be written (%s); the run goes on without it", self.baseFilename, error)

    def close(self) -> None:
        """Close the file, whose last words may be lost."""
        with suppress(OSError):
            super().close()


class _Structured(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and message."""
        line = {"time": _now(), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | record.__dict__.get("fields", {}))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
