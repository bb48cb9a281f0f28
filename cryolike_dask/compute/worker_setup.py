"""Start and end of a worker process of a local cluster. Dask imports this file there."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from typing import Any


def dask_setup(worker: Any) -> None:
    """One thread of torch for one core, or a GPU's share of the cores; errors are told once, by the
    client that they reach, but memory is warned of.

    A terminal sends Ctrl-C to workers as well, whose end is the client's business.
    """
    from cryolike_dask.compute.device import take_threads_of_a_worker

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_threads_of_a_worker()
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    logging.getLogger("distributed.worker.memory").setLevel(logging.WARNING)
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
    atexit.register(_leave)


def dask_teardown(worker: Any) -> None:
    """Wait for no block that is still computed: nobody will ask for it."""
    worker.executors.clear()


def _leave() -> None:
    """End the process here. Python takes most of a second of computing to unload what we import,
    so that workers that share few cores seemed to hang, and were killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
