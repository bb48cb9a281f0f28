"""Files that a run tells what happens if it is asked to: a log, one JSON object a line, and Dask's
page for a browser."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, performance_report

from cryolike_dask.compute.run_log import LogFile, message_of, timestamp
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.outputs import DASK_REPORT, LOG, own_output

logger = logging.getLogger("cryolike_dask")
EVENTS = logging.getLogger("cryolike_dask.events")
"""Events that are too many for a terminal: every item and every block, for the log file. Records
have `fields`."""
EVENTS.propagate = False


def page_of_report(path: str | Path | None, client: Client | None) -> Path | None:
    """Where Dask's report goes; None if none is asked for.

    Raises
    ------
    InputError
        If there is no client, and so nothing to report.
    OutputError
        If the path is no place for a report.
    """
    if path is None:
        return None
    if client is None:
        raise InputError(
            "performance_report is asked for, but there are no workers", remedy="Give a client."
        )
    page = own_output(path, DASK_REPORT)
    if not page.parent.is_dir():
        raise OutputError(
            "cannot be written: there is no such folder", source=page, remedy="Choose another."
        )
    return page


@contextmanager
def reporting_to(path: str | Path | None, client: Client | None) -> Iterator[None]:
    """Write Dask's report of what the scheduler and the workers did, as a page for a browser.

    Paths are refused as `page_of_report` refuses them, before anything is computed. A disk that
    does not take the report in the end is a warning, for the results are there.
    """
    page = page_of_report(path, client)
    if page is None or client is None:
        yield
        return
    report = performance_report(filename=str(page))
    with client.as_current():  # Dask reports on the current client
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
    """Append everything that the package logs, and every item and block, to a file: one JSON
    object a line.

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
        handler = LogFile(path, encoding="utf-8")
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


class _Structured(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and message."""
        line = {
            "time": timestamp(),
            "level": record.levelname.lower(),
            "message": message_of(record),
        }
        return json.dumps(line | record.__dict__.get("fields", {}))
