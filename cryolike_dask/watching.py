"""What a run tells while it goes: progress with rate and remaining time, a table of its blocks, a log file."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, performance_report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.atomic import unlinked, writing
from cryolike_dask.io.outputs import DASK_REPORT, LOG, own_output
from cryolike_dask.likelihoods.telling import BLOCKS

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


Show = Callable[..., None]
T = TypeVar("T")


class Meter:
    """How much of a run is done: whole pieces, and what is done of those that are in work.

    Parameters
    ----------
    n_images : int
        Of all pieces.
    show : callable
        Gets the number of images that are done, which may be a fraction, and how many of them were done before.
    """

    def __init__(self, n_images: int, show: Show) -> None:
        self.n_images, self.show = n_images, show
        self.done, self.kept, self.in_work = 0, 0, 0.0
        self.parts = dict[str, dict[tuple[int, ...], float]]()
        self.lock = threading.Lock()
        """Pieces finish in one thread, and events of their parts come in another."""

    def finished(self, name: str, n_images: int, error: BaseException | None = None, *, kept: bool = False) -> None:
        """Count a whole piece, or one that failed, or one that was done before."""
        fields = {"name": name, "n_images": n_images} | ({} if error is None else {"error": str(error)})
        EVENTS.info("finished" if error is None else "failed", extra={"fields": fields})
        with self.lock:
            self.done += n_images
            self.kept += n_images if kept else 0
            self.in_work -= sum(self.parts.pop(name, {}).values())
        self._show()

    def started(self, name: str) -> None:
        """Count what is done of a piece from now on; what was done of it when its worker died stays."""
        with self.lock:
            self.parts.setdefault(name, {})

    def part(self, name: str, at: Iterable[int], n_images: float) -> bool:
        """Count what is done of a part of a piece, and say whether the piece is in work.

        A part that is computed again, since its worker is gone, counts as much as it did.
        """
        with self.lock:
            if name not in self.parts:
                return False
            parts, key = self.parts[name], tuple(at)
            more = max(0.0, n_images - parts.get(key, 0.0))
            parts[key] = parts.get(key, 0.0) + more
            self.in_work += more
        self._show()
        return True

    def block(self, block: dict[str, Any]) -> bool:
        """Count a block, and say whether it belongs to a piece that is in work."""
        n_images = block["n_images"] * block["n_templates"] / block["of_templates"]
        return self.part(block["name"], (block["first_image"], block["first_template"]), n_images)

    def _show(self) -> None:
        self.show(min(self.done + self.in_work, self.n_images), self.kept)


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
        show = stack.enter_context(progress_bar(n_images, title, shown=progress))
        meter = Meter(n_images, show)
        write = stack.enter_context(_table(table)) if table is not None else _nothing

        def heard(block: dict[str, Any]) -> None:
            if "n_done" in block:
                meter.part(block["name"], block["at"], block["n_done"])
            elif meter.block(block):
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


def _nothing(*_: Any) -> None:
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
        file = open(path, "a", newline="", encoding="utf-8", buffering=1, opener=unlinked)  # noqa: SIM115
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be written: {error.strerror or error}"
        raise OutputError(what, source=path, remedy="Remove it." if path.is_symlink() else None) from error
    with file:
        rows = csv.DictWriter(file, BLOCK_COLUMNS, extrasaction="ignore")

        def write(block: dict[str, Any]) -> None:
            tile = dict(zip(("n_images_per_tile", "n_templates_per_tile"), block["tile"], strict=True))
            with writing(path):
                rows.writerow({**block, **tile, "time": _now()})

        with writing(path):
            if os.fstat(file.fileno()).st_size == 0:
                rows.writeheader()
        yield write


@contextmanager
def progress_bar(total: int, title: str, *, shown: bool = True) -> Iterator[Show]:
    """Show how much is done: a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Gives a function that takes how much is done of the total, and how much of that was done before.
    """
    console = Console(file=sys.stderr)
    if not shown or not total:
        yield _nothing
    elif not (console.is_terminal or console.is_jupyter):
        yield _lines(total, title)
    else:
        unbroken = (kind(table_column=Column(no_wrap=True)) for kind in (MofNCompleteColumn, _Rate, _Times))
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), *unbroken)
        with Progress(*columns, console=console, expand=True) as bar:
            task = bar.add_task(title, total=total, done=0.0, kept=0.0)

            def show(done: float, kept: float = 0.0) -> None:
                bar.update(task, completed=int(done), done=done, kept=kept)

            yield show
            bar.refresh()  # in a notebook the last state is not drawn otherwise


def counted(things: Sequence[T], title: str, *, shown: bool = True) -> Iterator[T]:
    """Give things one by one, and show how many are dealt with."""
    with progress_bar(len(things), title, shown=shown) as show:
        for n, thing in enumerate(things, start=1):
            yield thing
            show(n)


class _Rate(ProgressColumn):
    """How much is done in a second."""

    def render(self, task: Task) -> Text:
        """Of what was not done before."""
        rate = _rate(task.fields["done"], task.fields["kept"], task.elapsed or 0.0)
        return Text(f"{rate:.3g}/s" if rate else "")


class _Times(ProgressColumn):
    """How long it has taken, and will take."""

    def render(self, task: Task) -> Text:
        """As the log says it."""
        return Text(_times(task.total or 0, task.fields["done"], task.fields["kept"], task.elapsed or 0.0))


def _rate(done: float, kept: float, seconds: float) -> float:
    return (done - kept) / max(seconds, 1e-3)


def _times(total: float, done: float, kept: float, seconds: float) -> str:
    """What has passed, and what is left if it goes on so."""
    rate = _rate(done, kept, seconds)
    left = f", left {_clock((total - done) / rate)}" if rate else ""
    return f"elapsed {_clock(seconds)}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _lines(total: int, title: str) -> Show:
    """Log a line of progress, not too often."""
    start = last = time.monotonic()

    def show(done: float, kept: float = 0.0) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate, times = _rate(done, kept, now - start), _times(total, done, kept, now - start)
            logger.info("%d of %d %s, %.3g per second, %s", done, total, title, rate, times)

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
