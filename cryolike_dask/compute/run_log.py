"""The log beside the results of a run."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryolike_dask.errors import OutputError
from cryolike_dask.io.outputs import refuse_special
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")


class Remembering(logging.Handler):
    """A handler that remembers the last messages of the package, with which the log of a run
    begins."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=1000)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record for the log of a run to come."""
        if str(record.name).startswith(logger.name):
            self.records.append(record)

    def worded(self, text: str) -> str:
        """A message as whoever reads the log knows things by name."""
        return text

    def forget(self) -> Iterator[logging.LogRecord]:
        """Give what is remembered, once."""
        while self.records:
            yield self.records.popleft()


@contextmanager
def run_log(path: Path, what: str) -> Iterator[Callable[[], None]]:
    """Append what the package logs while a run goes on, and what it has logged before, to the
    text file beside the results; a file that cannot be written is a warning.

    Gives what begins to write: a run that is refused before leaves nothing.
    """
    kept, level = _Keeping(logger.getEffectiveLevel()), logger.level
    logger.addFilter(kept)
    logger.setLevel(min(logging.INFO, kept.level))
    try:
        yield lambda: kept.begin(path, f"cryolike-dask {__version__} begins: {what}")
        kept.tell("ends: all is done")
    except BaseException as error:
        kept.tell(f"ends: {str(error) or type(error).__name__}", logging.ERROR)
        raise
    finally:
        logger.removeFilter(kept)
        logger.setLevel(level)
        kept.close()


class _Keeping(logging.Filter):
    """Keeps every record for the log of a run, and lets those pass that would have passed without
    it: a log changes nothing of what a terminal shows."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level, self.file = level, None  # type: int, LogFile | None
        self.waiting: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and say whether it goes on."""
        if self.file is None:
            self.waiting.append(record)
        else:
            self.file.handle(record)
        return record.levelno >= self.level

    def begin(self, path: Path, text: str) -> None:
        """Write what was kept, and from now on all."""
        try:
            file = LogFile(refuse_special(path), encoding="utf-8")
        except (OSError, OutputError) as error:
            logger.warning("%s: cannot be written (%s); the run goes on without it", path, error)
            return
        file.setFormatter(_Plain())
        begins = _own(text, logging.INFO)
        before = {id(record): record for record in [*_remembered(), *self.waiting]}.values()
        # what was said before is of this run, which began with it
        begins.created = min(record.created for record in [begins, *before])
        self.file = file
        for record in sorted([begins, *before], key=lambda record: record.created):
            file.handle(record)

    def tell(self, text: str, level: int = logging.INFO) -> None:
        """Write a message of the run itself, once it has begun."""
        if self.file is not None:
            self.file.handle(_own(text, level))

    def close(self) -> None:
        """Close the file; what stands in it is not of the log of the next run."""
        if self.file is not None:
            self.file.close()
            list(_remembered())


def _own(text: str, level: int) -> logging.LogRecord:
    return logging.LogRecord(logger.name, level, "", 0, text, None, None)


def _handlers() -> list[Remembering]:
    return [one for one in logging.getLogger().handlers if isinstance(one, Remembering)]


def _remembered() -> Iterator[logging.LogRecord]:
    for handler in _handlers():
        yield from handler.forget()


def message_of(record: logging.LogRecord) -> str:
    """The message of a record in the words that it is shown in, those of a command if one runs."""
    text = record.getMessage()
    for handler in _handlers():
        text = handler.worded(text)
    return text


class LogFile(logging.FileHandler):
    """A file that a run goes on without when it cannot be written any more."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write, unless that has failed."""
        if not self.failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say once that it failed."""
        self.failed, error = True, sys.exc_info()[1]
        logger.warning(
            "%s: cannot be written (%s); the run goes on without it", self.baseFilename, error
        )

    def close(self) -> None:
        """Close the file, whose last words may be lost."""
        with suppress(OSError):
            super().close()


class _Plain(logging.Formatter):
    """A record as text: time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or those of the message."""
        return f"{timestamp(record.created)} {record.levelname.lower():<7} {message_of(record)}"


def timestamp(seconds: float | None = None) -> str:
    """The time now, or so many seconds after 1970, as files say it."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds")
