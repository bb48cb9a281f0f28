"""The log beside the results of a run."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator
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

    def forget(self) -> Iterator[logging.LogRecord]:
        """Give what is remembered, once."""
        while self.records:
            yield self.records.popleft()


@contextmanager
def run_log(path: Path, what: str) -> Iterator[None]:
    """Append what the package logs while a run goes on, and what it has logged before, to the
    text file beside the results; a file that cannot be written is a warning."""
    try:
        handler = LogFile(refuse_special(path), encoding="utf-8")
    except (OSError, OutputError) as error:
        logger.warning("%s: cannot be written (%s); the run goes on without it", path, error)
        yield
        return
    handler.setFormatter(_Plain())
    kept = _Keeping(handler, logger.getEffectiveLevel())
    handler.tell(f"cryolike-dask {__version__} begins: {what}")
    for remembering in logging.getLogger().handlers:
        if isinstance(remembering, Remembering):
            for record in remembering.forget():
                handler.handle(record)
    level = logger.level
    logger.addFilter(kept)
    logger.setLevel(min(logging.INFO, kept.level))
    try:
        yield
    except BaseException as error:
        handler.tell(f"ends: {str(error) or type(error).__name__}", logging.ERROR)
        raise
    else:
        handler.tell("ends: all is done")
    finally:
        logger.removeFilter(kept)
        logger.setLevel(level)
        handler.close()


class _Keeping(logging.Filter):
    """Gives every record to the log of a run, and lets those pass that would have passed without
    it: a log changes nothing of what a terminal shows."""

    def __init__(self, handler: logging.Handler, level: int) -> None:
        super().__init__()
        self.handler, self.level = handler, level

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and say whether it goes on."""
        self.handler.handle(record)
        return record.levelno >= self.level


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

    def tell(self, text: str, level: int = logging.INFO) -> None:
        """Write a message of the run itself."""
        self.handle(logging.LogRecord(logger.name, level, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file, whose last words may be lost."""
        with suppress(OSError):
            super().close()


class _Plain(logging.Formatter):
    """A record as text: time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or those of the message."""
        return f"{timestamp(record.created)} {record.levelname.lower():<7} {record.getMessage()}"


def timestamp(seconds: float | None = None) -> str:
    """The time now, or so many seconds after 1970, as files say it."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds")
