"""Clients and clusters whose closing ends, however it is interrupted.

Dask waits without end for a closing that Ctrl-C has broken off: when it is closed again, when
Python collects it as garbage, when Python ends. So what is broken off counts as closed, and its
workers are ended at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any

from distributed import Client, Nanny, SpecCluster
from distributed.core import Status
from distributed.utils import LoopRunner

TELL_OF_CANCELLING = ("distributed.client", "distributed.core", "distributed.utils")


class OnceClosingClient(Client):  # type: ignore[misc]
    """A client whose closing is not begun again after Ctrl-C; scheduler and workers that others
    started stay."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the client."""
        try:
            return super().close(*args, **kwargs)
        except KeyboardInterrupt:
            self.status = "closed"
            # Dask tells of the closing that is cancelled, with the way that it came
            for name in TELL_OF_CANCELLING:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            raise


class LocalClient(OnceClosingClient):
    """A client that takes its own cluster down with it, and the loop that both run on."""

    def __init__(self, cluster: SpecCluster, runner: LoopRunner) -> None:
        self.runner = runner
        super().__init__(cluster)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the client, then its cluster."""
        if self.status == "closed":
            return None
        try:
            try:
                result = super().close(*args, **kwargs)
            finally:
                self.cluster.close()
                self.runner.stop()
        except KeyboardInterrupt:
            abandon(self.runner)
            raise
        return result


def loop_without_ctrl_c() -> LoopRunner:
    """Start a loop whose threads, and whatever processes they start, are spared Ctrl-C: it is
    the client's business."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        runner = LoopRunner()
        runner.start()
        return runner
    # whoever starts this process of Python's lets Ctrl-C through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner()
        runner.start()
        return runner
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def abandon(runner: LoopRunner) -> None:
    """End all workers that were started on a loop, and let nobody wait for a cluster on it, or
    hear of its end."""
    runner.loop.asyncio_loop.set_exception_handler(lambda loop, context: None)
    # it warns of processes that others have ended
    logging.getLogger("distributed.process").setLevel(logging.ERROR)
    for nanny in list(Nanny._instances):
        if nanny.loop is runner.loop:
            # or it would start another worker in place of one that is gone
            nanny.status = Status.closed
            with suppress(ProcessLookupError):
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)
    for cluster in list(SpecCluster._instances):
        if cluster.loop is runner.loop:
            cluster.status = Status.closed


async def abandon_if_stuck(runner: LoopRunner) -> None:
    """End a start that cannot succeed: Dask waits without end for a nanny that could not start
    its process."""
    while not any(
        _is_stuck(nanny) for nanny in list(Nanny._instances) if nanny.loop is runner.loop
    ):
        await asyncio.sleep(0.2)
    abandon(runner)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "LoopRunner" not in repr(task.get_coro()):  # it keeps the loop running
            task.cancel()


def _is_stuck(nanny: Nanny) -> bool:
    process = nanny.process
    return (
        nanny.status == Status.closing
        and process is not None
        and process.status in (Status.init, Status.starting)
    )
