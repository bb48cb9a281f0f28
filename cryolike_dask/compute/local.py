"""A cluster on this machine, with one worker per GPU, or else one per core: how many workers it
starts, and the memory of each."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security
from distributed.system import MEMORY_LIMIT
from distributed.utils import LoopRunner

from cryolike_dask.compute.addresses import warn_if_open_to_others
from cryolike_dask.compute.closing import (
    LocalClient,
    abandon,
    abandon_if_stuck,
    loop_without_ctrl_c,
)
from cryolike_dask.compute.dashboard import mute_the_dashboard
from cryolike_dask.compute.device import share_of_cores
from cryolike_dask.errors import ClusterError, CryolikeError, DeviceError, InputError, number

LOOPBACK = "127.0.0.1"
MOST_WORKERS_PER_CORE = 16
"""More is a slip of the keyboard: each takes 0.3 GB and seconds to start."""
WORKER_SETUP = "cryolike_dask.compute.worker_setup"
"""Module that workers import first."""
INSTALL_CUDA = "Install cryolike_dask[cuda12] or cryolike_dask[cuda13] for your CUDA version."
THREADS_OF_LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WORKER_ENVIRONMENT = {
    **dict.fromkeys(THREADS_OF_LIBRARIES, 1),
    "MALLOC_TRIM_THRESHOLD_": 2**28,
    "MALLOC_MMAP_THRESHOLD_": 2**25,
}
"""Set before a worker starts. Dask's own trim threshold, 64 kB, hands the memory of every tile
back to the system: blocks took twice as long (9.5 against 4.6 microseconds per image, template
and displacement at 48 pixels)."""

FLAT_MEMORY = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 50,
}
"""Dask looks every 10 ms at what a worker does, and keeps all of it: 0.1 to 0.3 MB each second.
The scheduler keeps the last messages to each worker, otherwise 1000 of them, with the tasks in
them."""
SATURATION = 1.0
"""Tasks for each thread of a worker that are handed out, where others may wait at the scheduler.
Dask's own 1.1 gives a worker one block more than it computes, behind which waits what it has
found."""
FEW_LOOKS = {
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
"""Dask looks at its loop every 20 ms, at memory every 100 ms, and at the machine every 500 ms.
Measured, of a core: 1.3% of each worker and 2.5% of the client's process, while nothing is
computed; a half and a third of it so."""


def local_cluster(
    n_workers: int | None = None, *, security: Security | bool = True, **kwargs: Any
) -> LocalClient:
    """Start workers on this machine that nobody else can use.

    They are reached from this machine only, unless `host=` says otherwise, and with a certificate
    that is made for them and stays in memory: neither other machines nor other users of this one
    can run programs on them. The dashboard is open to all users of this machine, who can look but
    change nothing.

    With GPUs and dask-cuda: a LocalCUDACluster, one process per GPU with one thread of Dask, on the
    cores that are near that GPU, of which it has its share for reading and transforming. Otherwise
    a LocalCluster: one process per core with one thread of Dask and one of torch. With a GPU but
    without dask-cuda: one process, so that the GPU runs one block at a time.

    Parameters
    ----------
    n_workers : int, optional
        Workers; default one per GPU, or else one per core that this process may use.
    security : distributed.Security or bool
        Certificates of your own; True: make one; False: none, or those of Dask's configuration.
        Without, every user of this machine can run programs as you while the cluster runs.
    **kwargs
        Passed on to the cluster, such as `host=`, with certificates of your own, to be reached from
        other machines too.

    Returns
    -------
    distributed.Client
        Use it in a `with` block, or close it: its cluster closes with it. `client.dashboard_link`
        is the dashboard.

    Raises
    ------
    ClusterError
        If the workers cannot start, which Dask's configuration, an argument, or the machine may be
        the reason for.
    DeviceError
        If several GPUs are asked for and dask-cuda cannot be used.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "this script starts workers again in each of its workers",
            remedy='Put what it does below a line `if __name__ == "__main__":`.',
        )
    n = number_of_workers(n_workers)
    settings = {
        "host": LOOPBACK,
        "dashboard_address": f"{LOOPBACK}:0",
        "threads_per_worker": 1,
        **kwargs,
    }
    settings.setdefault("local_directory", str(_scratch_folder()))
    mute_the_dashboard()
    runner = loop_without_ctrl_c()
    try:
        with _starting(runner, _environment(n)):
            cluster = _cluster(
                n, {"security": _security(security), "loop": runner.loop, **settings}
            )
            warn_if_open_to_others(cluster.scheduler_address)
            return LocalClient(cluster, runner)
    except BaseException:
        abandon(runner)
        raise


def number_of_workers(asked: int | None) -> int:
    """Number of workers that start: one for each GPU, or else for each core that this process may
    use, if none are asked for.

    Raises
    ------
    DeviceError
        If several GPUs are asked for and dask-cuda cannot be used.
    """
    n = None if asked is None else int(number("n_workers", asked, whole=True, at_least=1))
    if n is not None and n > MOST_WORKERS_PER_CORE * CPU_COUNT:
        raise InputError(
            f"n_workers={n}, but this machine has {CPU_COUNT} core(s)",
            remedy="Ask for one for each.",
        )
    n_gpus = count_gpus()
    if not n_gpus:
        return n or CPU_COUNT
    if find_spec("dask_cuda") is not None:
        return n or n_gpus
    if n is not None and n > 1:
        raise DeviceError(
            f"{n} workers on {n_gpus} GPU(s) need dask-cuda, which is not installed",
            remedy=INSTALL_CUDA,
        )
    return 1


def memory_of_a_worker(client: Client | None, n_workers: int = 0) -> int:
    """Bytes that a worker may use.

    Parameters
    ----------
    client : Client or None
        Its worker that may use least counts.
    n_workers : int
        Without a client: workers that `local_cluster` would start; 0: this process alone, which
        may use what is free on this machine.
    """
    free = int(psutil.virtual_memory().available)
    if client is None:
        return min(free, MEMORY_LIMIT) // n_workers if n_workers else free
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return min(limits, default=free)


def count_gpus() -> int:
    """GPUs that this process may use; no CUDA context is made."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cluster(n_workers: int, settings: Mapping[str, object]) -> Any:
    if count_gpus() and find_spec("dask_cuda") is not None:
        return _cuda_cluster(n_workers, settings)
    return LocalCluster(n_workers=n_workers, processes=True, preload=[WORKER_SETUP], **settings)


def _environment(n_workers: int) -> dict[str, int]:
    """Variables of workers; each of a GPU has its share of the cores."""
    n_threads = share_of_cores(n_workers) if count_gpus() else 1
    return {**WORKER_ENVIRONMENT, **dict.fromkeys(THREADS_OF_LIBRARIES, n_threads)}


def _cuda_cluster(n_workers: int, settings: Mapping[str, object]) -> Any:
    try:
        from dask_cuda import LocalCUDACluster

        return LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=_first_gpus(n_workers),
            n_workers=n_workers,
            device_memory_limit=None,
            preload=[WORKER_SETUP],
            **settings,
        )
    # ImportError without the CUDA bindings; pynvml's errors without a driver
    except Exception as error:
        raise DeviceError(
            f"dask-cuda cannot start ({type(error).__name__}: {error})", remedy=INSTALL_CUDA
        ) from error


def _first_gpus(n: int) -> list[str] | None:
    """The first of the GPUs that may be used: workers see no others, and know by their number with
    how many they share the cores."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(k) for k in range(count_gpus())]
    return [name.strip() for name in names[:n]] or None


def _security(asked: Security | bool) -> Security | None:
    """Certificates to use; None: what Dask's configuration says."""
    if asked is True:
        return Security.temporary()
    return asked or None


def _scratch_folder() -> Path:
    """A folder for what workers put on disk that is the user's alone: what they put there, they
    would run again."""
    try:
        parent = Path(dask.config.get("temporary-directory") or tempfile.gettempdir())
        folder = parent / f"cryolike_dask-{os.getuid()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.getuid()
            or status.st_mode & 0o022
        ):
            folder = Path(tempfile.mkdtemp(prefix="cryolike_dask-", dir=parent))
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ClusterError(
            f"workers need a temporary folder, and this one cannot be used ({error})",
            remedy="Set TMPDIR, or temporary-directory in Dask's configuration, to a folder that "
            "you can write to.",
        ) from error


@contextmanager
def _starting(runner: LoopRunner, environment: Mapping[str, int]) -> Iterator[None]:
    """One error for all that can go wrong, in place of what scheduler and workers say of it one
    after the other."""
    watch = asyncio.run_coroutine_threadsafe(abandon_if_stuck(runner), runner.loop.asyncio_loop)
    settings = {
        "distributed.nanny.pre-spawn-environ": environment,
        **FLAT_MEMORY,
        **FEW_LOOKS,
        "distributed.scheduler.worker-saturation": SATURATION,
    }
    with _hearing_causes() as causes:
        try:
            with _environment_kept(), dask.config.set(settings):
                yield
        except CryolikeError:
            raise
        except Exception as error:
            raise _cannot_start(causes[0] if causes else error) from error
        finally:
            watch.cancel()


def _cannot_start(error: BaseException) -> ClusterError:
    while (cause := error.__cause__ or error.__context__) is not None and str(cause):
        error = cause
    variables = [name for name in os.environ if name.startswith("DASK_")]
    among = f" ({', '.join(variables)})" if variables else ""
    return ClusterError(
        f"the workers of this machine cannot start ({type(error).__name__}: {error})",
        remedy=f"Check Dask's settings, in environment variables{among} and in ~/.config/dask.",
    )


@contextmanager
def _hearing_causes() -> Iterator[list[BaseException]]:
    """Keep Dask from printing the errors that its logs tell of, and give them."""
    log, hearing = logging.getLogger("distributed"), _Hearing()
    handlers, propagate = log.handlers[:], log.propagate
    log.handlers[:], log.propagate = [hearing], False
    try:
        yield hearing.causes
    finally:
        log.handlers[:], log.propagate = handlers, propagate


class _Hearing(logging.Handler):
    """Keeps the errors of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.causes: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the error, if there is one."""
        if record.exc_info and record.exc_info[1] is not None:
            self.causes.append(record.exc_info[1])


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
