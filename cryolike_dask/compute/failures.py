"""GPUs that fail while a run goes on: their worker is started anew once, and left out when that
does not help."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict

from distributed import Client

from cryolike_dask.errors import BrokenGpuError, DeviceError

logger = logging.getLogger("cryolike_dask")

SECONDS_TO_START = 60
"""That a worker is waited for which is started anew."""


class FailedGpus:
    """What has failed among the workers of a client, and what has been done about it.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: set[str] = set()
        self.n_failures = Counter[str]()
        self.failed_under: defaultdict[str, set[str]] = defaultdict(set)

    def done_about(self, error: BrokenGpuError, item: str) -> DeviceError | None:
        """Start the worker anew, or leave it out, so that an item of work can be submitted again;
        or give the error why it cannot: no worker is left, or one GPU after the other failed under
        it.

        Other workers compute meanwhile what they have been given.
        """
        worker = self._workers().get(error.worker)
        # several items fail at once in a worker, the first of which has led to its end
        if worker is not None and error.worker not in self.seen:
            self.seen.add(error.worker)
            place = worker["nanny"] or error.worker
            self.n_failures[place] += 1
            self.failed_under[item].add(place)
            if worker["nanny"] and self.n_failures[place] == 1:
                self._start_anew(error)
            elif len(self._workers()) > 1:
                self._leave_out(error)
            else:
                return error
        if not self._workers():
            return error
        if len(self.failed_under[item]) > 1:
            return DeviceError(
                f"{item}: one GPU after the other failed while computing it; the last said: "
                f"{error.reason}",
                remedy="Compute it with device='cpu', and report what it says.",
            )
        return None

    def _workers(self) -> dict[str, dict[str, str]]:
        workers: dict[str, dict[str, str]] = self.client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _start_anew(self, error: BrokenGpuError) -> None:
        logger.warning(
            "%s has failed (%s): its worker is started anew, and computes again what it had",
            error.device,
            error.reason,
        )
        try:
            self.client.restart_workers(
                [error.worker], timeout=SECONDS_TO_START, raise_for_error=False
            )
        except TimeoutError:
            logger.warning("%s: its worker has not come back; others go on", error.device)

    def _leave_out(self, error: BrokenGpuError) -> None:
        logger.warning(
            "%s has failed again (%s): it is left out; look at it with nvidia-smi",
            error.device,
            error.reason,
        )
        self.client.retire_workers([error.worker], close_workers=True)
