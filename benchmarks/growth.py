"""Does anything grow while a run goes on? Memory of workers, client and scheduler, sampled
throughout a long run.

Items are tiny and their blocks real, on two workers; `--apart` gives the scheduler a process of
its own, which it otherwise shares with the client, as it does in a command. Slopes are those of
straight lines through the second half of the samples, when caches are full.

    python -m benchmarks.growth [--items 5000] [--apart]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from distributed import Client

import cryolike_dask as cld
from benchmarks.processes import pids_of_workers, processes
from benchmarks.streaming import inputs, run

N_STRUCTURES = 50
SECONDS_BETWEEN_SAMPLES = 5.0


def families(client: Client) -> dict[str, psutil.Process]:
    """The processes whose memory is watched."""
    found = {f"worker {i}": psutil.Process(pid) for i, pid in enumerate(pids_of_workers(client))}
    found["client"] = psutil.Process()
    scheduler = client.run_on_scheduler(os.getpid)
    return found if scheduler == os.getpid() else {**found, "scheduler": psutil.Process(scheduler)}


@contextmanager
def sampling(
    watched: dict[str, psutil.Process], progress: Callable[[], int]
) -> Iterator[list[list[float]]]:
    """Samples, taken while the body runs: seconds, items done, bytes of each process."""
    samples: list[list[float]] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SECONDS_BETWEEN_SAMPLES):
            memory = [process.memory_info().rss for process in watched.values()]
            samples.append([time.monotonic(), progress(), *memory])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def report(watched: dict[str, psutil.Process], samples: list[list[float]]) -> None:
    """Print what each process takes at first and at last, and how fast that grows."""
    table = np.array(samples)
    late = table[len(table) // 2 :]
    print(f"{'':<10}{'first MB':>10}{'last MB':>10}{'MB/s':>10}{'kB/piece':>10}")
    for i, name in enumerate(watched, start=2):
        per_second, per_piece = (np.polyfit(late[:, axis], late[:, i], 1)[0] for axis in (0, 1))
        print(f"{name:<10}{table[0, i] / 1e6:>10.0f}{table[-1, i] / 1e6:>10.0f}", end="")
        print(f"{per_second / 1e6:>10.4f}{per_piece / 1e3:>10.2f}", flush=True)


def main() -> None:
    """Run, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument(
        "--apart", action="store_true", help="give the scheduler a process of its own"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = inputs(folder, N_STRUCTURES, arguments.items // N_STRUCTURES)
        done = files.folder_output
        with processes(folder) if arguments.apart else cld.local_cluster(2) as client:
            watched = families(client)
            with sampling(
                watched, lambda: sum(1 for _ in done.glob("template*/done/*.json"))
            ) as samples:
                seconds = run(files, client=client)
    print(f"{arguments.items} items in {seconds:.0f} s")
    report(watched, samples)


if __name__ == "__main__":
    main()
