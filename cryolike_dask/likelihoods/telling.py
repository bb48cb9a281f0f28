"""What tasks tell whoever watches a run: blocks that are done, and how far long tasks are."""

from __future__ import annotations

import logging
import time
from typing import Any

BLOCKS = "cryolike_dask.blocks"
"""The topic of Dask's events, and in a process without workers the logger, that tasks tell of blocks."""
SECONDS_BETWEEN_PARTS = 1.0


def announce(block: dict[str, Any]) -> None:
    """Tell whoever listens of a block, or of a part of one."""
    from distributed import get_worker

    try:
        get_worker().log_event(BLOCKS, block)
    except ValueError:  # not in a worker
        logging.getLogger(BLOCKS).debug("block", extra={"block": block})


def announce_part(name: str, at: tuple[int, ...], n_images: float) -> None:
    """Tell how many images are done, as a number that may be a fraction, in the part of piece `name` at this place."""
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
