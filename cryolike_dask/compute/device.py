"""The device that this process computes on, the workers that there are, and what each of them may
use.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.system import CPU_COUNT
from distributed import Client, default_client

from cryolike_dask.compute.gpu import free_memory_of_gpu
from cryolike_dask.errors import DeviceError, InputError

if TYPE_CHECKING:
    import torch

MOST_THREADS = 64
_of_worker: list[int] = []
"""Threads of the worker that this process is; empty: it is none of ours."""


def real_dtype(precision: str) -> np.dtype[Any]:
    """The real numpy type of a precision."""
    return np.dtype("f8" if precision == "double" else "f4")


def resolve_device(name: str) -> torch.device:
    """Find the device of this process.

    Raises
    ------
    DeviceError
        If a GPU is asked for and there is none: a CPU is never taken silently.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError(
            'device="cuda", but this process sees no CUDA GPU',
            remedy='Use device="auto" or "cpu", or check nvidia-smi and CUDA_VISIBLE_DEVICES.',
        )
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def free_memory(device: str) -> int:
    """Bytes that this process may still use: of the GPU, of the machine, or of the limit of the
    worker that it is."""
    if device == "cuda":
        return free_memory_of_gpu()
    import psutil
    from distributed import get_worker

    free = int(psutil.virtual_memory().available)
    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):
        return free
    return free if not limit else max(0, min(free, int(limit) - psutil.Process().memory_info().rss))


def threads_of_a_worker() -> int:
    """Threads that a worker may use on the processor: one, as each core has a worker of its own;
    beside a GPU its share of the cores, for there is one worker for each GPU that it sees."""
    import torch

    if not torch.cuda.is_available():
        return 1
    return share_of_cores(len(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")))


def share_of_cores(n_workers: int) -> int:
    """Cores of this machine that are for each of so many workers: two threads of one core would
    only wait for each other."""
    import psutil

    cores: int = min(CPU_COUNT, psutil.cpu_count(logical=False) or CPU_COUNT)
    return max(1, cores // max(1, n_workers))


def take_threads_of_a_worker() -> None:
    """Let torch, and what asks for `host_threads`, have the threads of a worker in this process."""
    import torch

    n = threads_of_a_worker()
    torch.set_num_threads(n)
    _of_worker[:] = [n]


def host_threads() -> int:
    """Threads for what the processor does by libraries of its own, such as transforms: those of a
    worker, as far as OMP_NUM_THREADS allows, and as are near its GPU where it is kept on such
    cores. 1 where nothing is known, as many tasks may ask at a time then."""
    import psutil

    allowed = os.environ.get("OMP_NUM_THREADS", "")
    n = min(max(_of_worker, default=1), int(allowed) if allowed.isdecimal() else MOST_THREADS)
    return max(1, n if n <= 1 else min(n, len(psutil.Process().cpu_affinity())))


@contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Let torch use so many threads meanwhile; None: as many as it does."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if n is None else n)
        yield
    finally:
        torch.set_num_threads(before)


def active_client(client: Client | None) -> Client | None:
    """The client to use: the one given, or the current one, or none (the threaded scheduler)."""
    if client is not None:
        if not isinstance(client, Client):
            raise InputError(
                f"client={client!r} is not a Client",
                remedy="Connect with distributed.Client(address).",
            )
        return client
    try:
        return default_client()
    except ValueError:
        return None


def count_workers(client: Client | None) -> int:
    """Workers that run tasks; 1 without a client, since one block at a time uses all cores."""
    return 1 if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def device_of_workers(client: Client | None, device: str) -> str:
    """Where blocks will run, "cpu" or "cuda", if they are asked to run on that device: one
    worker answers for all."""
    if device != "auto":
        return device
    if client is None:
        return resolve_device(device).type
    if not client.scheduler_info(n_workers=-1)["workers"]:
        return "cpu"
    kind: str = client.submit(_resolved, device, key=f"device-{uuid.uuid4().hex}").result()
    return kind


def _resolved(device: str) -> str:
    return resolve_device(device).type
