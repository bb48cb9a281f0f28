"""Errors between the dashboard and a browser, which are nothing to tell of."""

from __future__ import annotations

import logging
from traceback import walk_tb

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

LOGGERS = (
    "asyncio",
    "tornado.application",
    "distributed.scheduler",
    "distributed.utils",
    "bokeh.server.views.ws",
)
SERVING = (
    "bokeh",
    "distributed.dashboard",
    "distributed.diagnostics.websocket",
    "distributed.http",
)


def mute_the_dashboard() -> None:
    """Say nothing of pages that are closed while they are sent, or that stay open in a browser
    longer than a run.

    Each would be 45 lines of traceback in the midst of a run; no setting of tornado's or bokeh's
    leaves out just these.
    """
    for name in LOGGERS:
        logging.getLogger(name).addFilter(is_not_of_the_dashboard)


def is_not_of_the_dashboard(record: logging.LogRecord) -> bool:
    """Whether a record tells of something else than an error on the way to a browser."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return not record.name.startswith("bokeh.")
    if isinstance(error, WebSocketClosedError | StreamClosedError):
        return False
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return not any(
        module == part or module.startswith(f"{part}.") for module in modules for part in SERVING
    )
