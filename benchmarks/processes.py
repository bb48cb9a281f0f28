"""A scheduler and workers as a user starts them, each a process on loopback, and what kills
them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from distributed import Client

AS_IN_THE_DOCS = {
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "50",
}
"""What docs/clusters.md says that workers and schedulers are started with."""


@contextmanager
def processes(folder: Path, n_workers: int = 2) -> Iterator[Client]:
    """A scheduler and workers, each a process that a user started, on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "scheduler.json"
    host = ["--host", "127.0.0.1"]
    command = [sys.executable, "-m", "dask", "scheduler", *host, "--port", "0", "--no-dashboard"]
    worker = [
        sys.executable,
        "-m",
        "dask",
        "worker",
        "--scheduler-file",
        str(address),
        *host,
        "--nthreads",
        "1",
    ]
    worker += ["--no-dashboard", "--local-directory", str(folder), "--nworkers", str(n_workers)]
    environment = {**os.environ, **AS_IN_THE_DOCS}
    with open(folder / "processes.log", "w") as log:
        settings = {"stdout": log, "stderr": log, "env": environment}
        started = [subprocess.Popen([*command, "--scheduler-file", str(address)], **settings)]
        started.append(subprocess.Popen(worker, **settings))
        try:
            with Client(scheduler_file=str(address), timeout=60) as client:
                client.wait_for_workers(n_workers, timeout=60)
                yield client
        finally:
            family = [p for s in started for p in psutil.Process(s.pid).children(recursive=True)]
            for process in [*started, *family]:
                process.kill()
            for process in started:
                process.wait()


def pids_of_workers(client: Client) -> list[int]:
    """Process numbers, as the system knows who listens: a worker that is busy or dead need not
    answer."""
    ports = {
        int(address.rsplit(":", 1)[-1])
        for address in client.scheduler_info(n_workers=-1)["workers"]
    }
    connections = psutil.net_connections("tcp")
    return sorted(
        {
            c.pid
            for c in connections
            if c.status == psutil.CONN_LISTEN and c.laddr.port in ports and c.pid
        }
    )


@contextmanager
def killing(client: Client, rng: np.random.Generator, n: int) -> Iterator[list[int]]:
    """Kill n workers, one after the other, each at a random moment once work has begun."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < n and not over.wait(rng.uniform(0.1, 0.8)):
            pids = pids_of_workers(client)
            if pids:
                victim = int(rng.choice(pids))
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()
