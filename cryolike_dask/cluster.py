"""Where it runs: a cluster on this machine, with one worker per GPU, or else one per core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import dask
from distributed import Client, LocalCluster

from cryolike_dask.addresses import warn_if_open_to_others
from cryolike_dask.errors import DeviceError, number

LOOPBACK = "127.0.0.1"

QUIET_AND_SINGLE = """
import logging, signal, torch
signal.signal(signal.SIGINT, signal.SIG_IGN)
torch.set_num_threads(1)
logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
logging.getLogger("distributed.worker.memory").setLevel(logging.WARNING)
"""
"""Run in every worker process: Ctrl-C is the client's business, one core runs one thread, and an error is told once, by
the client that it reaches; warnings of memory remain."""

WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1),
    "MALLOC_TRIM_THRESHOLD_": 2**28,
    "MALLOC_MMAP_THRESHOLD_": 2**25,
}
"""Set before a worker starts. Dask's own trim threshold, 64 kB, hands the memory of every tile back to the system:
blocks took twice as long (9.5 against 4.6 microseconds per image, template and displacement at 48 pixels)."""


FLAT_MEMORY = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 50,
}
"""Dask looks every 10 ms at what a worker does, and keeps all of it: 0.1 to 0.3 MB each second. The scheduler keeps the
last messages to each worker, otherwise 1000 of them, with the tasks in them."""


class LocalClient(Client):  # type: ignore[misc]
    """A client that takes its own cluster down with it."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the client, then its cluster."""
        cluster = self.cluster
        result = super().close(*args, **kwargs)
        if cluster is not None and not self.asynchronous:
            cluster.close()
        return result


def local_cluster(n_workers: int | None = None, **kwargs: Any) -> LocalClient:
    """Start workers on this machine, reachable from this machine only unless `host=` says otherwise.

    With GPUs and dask-cuda: a LocalCUDACluster, one process and one thread per GPU. Otherwise a LocalCluster: one
    process per core with one thread of Dask and one of torch. With a GPU but without dask-cuda: one process, so that
    the GPU runs one block at a time.

    Parameters
    ----------
    n_workers : int, optional
        Workers; default one per GPU, or else one per core.
    **kwargs
        Passed on to the cluster, such as `host=` and `security=` to be reached from other machines too.

    Returns
    -------
    distributed.Client
        Use it in a `with` block, or close it: its cluster closes with it. `client.dashboard_link` is the dashboard.

    Raises
    ------
    DeviceError
        If several GPUs are asked for and dask-cuda cannot be used.
    """
    if n_workers is not None:
        n_workers = number("n_workers", n_workers, whole=True, at_least=1)
    n_gpus = count_gpus()
    settings = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0", "threads_per_worker": 1, **kwargs}
    of_dask = {"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT, **FLAT_MEMORY}
    with _environment_kept(), dask.config.set(of_dask):
        if n_gpus and find_spec("dask_cuda") is not None:
            cluster = _cuda_cluster(n_workers, settings)
        elif n_gpus and n_workers is not None and n_workers > 1:
            raise DeviceError(
                f"{n_workers} workers on {n_gpus} GPU(s) need dask-cuda, which is not installed",
                remedy="Install cryolike_dask[cuda12] or cryolike_dask[cuda13] for your CUDA version.",
            )
        else:
            n = n_workers or (1 if n_gpus else os.cpu_count() or 1)
            cluster = LocalCluster(n_workers=n, processes=True, preload=[QUIET_AND_SINGLE], **settings)
        warn_if_open_to_others(cluster.scheduler_address)
        return LocalClient(cluster)


def count_gpus() -> int:
    """GPUs that this process may use; no CUDA context is made."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cuda_cluster(n_workers: int | None, settings: dict[str, Any]) -> Any:
    try:
        from dask_cuda import LocalCUDACluster

        return LocalCUDACluster(n_workers=n_workers, device_memory_limit=None, preload=[QUIET_AND_SINGLE], **settings)
    except Exception as error:  # ImportError without the CUDA bindings; pynvml's errors without a driver
        raise DeviceError(
            f"dask-cuda cannot start ({type(error).__name__}: {error})",
            remedy="Install cryolike_dask[cuda12] or cryolike_dask[cuda13] for your CUDA version.",
        ) from error


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what starting workers leaves in this process's environment."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
