"""What holds it up? Launches and waits, memory against its plan, several workers, projection."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import cryolike_dask as cld
from benchmarks.cases import make_inputs
from benchmarks.gpu.bench import STRONG, Bench, Setting, setting
from cryolike_dask.compute.device import free_memory
from cryolike_dask.likelihoods.tiles import ranks_of
from cryolike_dask.runs.kinds import OPTIMAL_POSE
from cryolike_dask.runs.trial import memory_of

CALLS = ("LaunchKernel", "Synchronize", "MemcpyAsync", "Malloc")
"""In the names of what CUDA is asked for."""
MOST_ROWS = 25
MOST_WORKERS = 2
"""In a dry run, on a machine without GPUs."""


def launches(bench: Bench) -> None:
    """What a block launches and waits for, and how much of the time the device is busy."""
    one = setting(bench, 1024, 28)
    one.search()
    bench.synchronize()
    counts = profiled(one, bench.device)
    bench.say(wall_s=counts.wall, busy_s=counts.busy, busy_fraction=counts.busy / counts.wall)
    for name, milliseconds, n in counts.kernels[:MOST_ROWS]:
        bench.say(kernel=name[:90], ms=milliseconds, n=n)
    for name, n in counts.calls.items():
        bench.say(call=name, n=n)
    if bench.needs_cuda("lines that wait"):
        return
    for place, n in waits_of(one).most_common(MOST_ROWS):
        bench.say(waits_at=place, n=n)


class Profiled:
    """What torch's profiler says of a block.

    Attributes
    ----------
    wall, busy : float
        Seconds: of the block, and of its kernels together.
    kernels : list of (str, float, int)
        Name, milliseconds and number, longest first.
    calls : Counter
        What CUDA was asked for.
    """

    def __init__(self, wall: float, rows: list[Any]) -> None:
        times = {row.key: getattr(row, "self_device_time_total", 0) / 1e3 for row in rows}
        self.wall, self.busy = wall, sum(times.values()) / 1e3
        self.kernels = sorted(
            ((row.key, times[row.key], row.count) for row in rows if times[row.key]),
            key=lambda row: -row[1],
        )
        self.calls = Counter[str]()
        for row in rows:
            if any(call in row.key for call in CALLS):
                self.calls[row.key] += row.count

    def number(self, call: str) -> int:
        """How often something of this name was asked for."""
        return sum(n for name, n in self.calls.items() if call in name)


def profiled(one: Setting, device: str) -> Profiled:
    """Search a block under torch's profiler."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        one.search()
        if device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - started
    return Profiled(wall, list(profiler.key_averages()))


def waits_of(one: Setting) -> Counter[str]:
    """Lines at which the host waits for the device while a block is searched."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            one.search()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught)


def memory(bench: Bench) -> None:
    """What a block takes against what its plan says, and what the allocator holds after it."""
    for case, n_images, n_templates in (("standard", 1024, 28), ("large", 342, 8)):
        one = setting(bench, n_images, n_templates, case=case)
        ranks, block = ranks_of(one.basis, one.comparison), one.block
        planned = memory_of(
            one.comparison, ranks, block.tile, block.shape, OPTIMAL_POSE, bench.device
        ).total
        tile = [int(n) for n in block.tile]
        if bench.dry:
            bench.say(case=case, tile=tile, planned_MB=planned / 1e6)
            bench.needs_cuda("peaks of memory")
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        free = free_memory("cuda")
        one.search()
        bench.say(
            case=case,
            tile=tile,
            planned_MB=planned / 1e6,
            peak_MB=torch.cuda.max_memory_allocated() / 1e6,
            reserved_MB=torch.cuda.memory_reserved() / 1e6,
            free_before_MB=free / 1e6,
            free_after_MB=free_memory("cuda") / 1e6,
            retries=torch.cuda.memory_stats().get("num_alloc_retries", 0),
        )


def projection(bench: Bench) -> None:
    """Templates that are projected while a run goes on, and particles that are transformed: as they
    are read, wherever that is."""
    parameters = bench.case().parameters
    rng = np.random.default_rng(0)
    n_atoms, n_views = (50, 4) if bench.dry else (2000, 64)
    positions = rng.normal(0, parameters.grid.box_size_angstrom / 12, (n_atoms, 3))
    atoms = cld.Atoms(positions, np.ones(n_atoms), np.full(n_atoms, 2.5))
    n = 24 if bench.dry else 96
    axis = np.linspace(-3, 3, n)
    density = np.exp(-sum(np.meshgrid(axis**2, axis**2, axis**2))).astype(np.float32)
    side = parameters.grid.box_size_angstrom / n / 1.5
    for name, structure in (
        ("atoms", atoms),
        ("map", cld.Volume(density, (side, side, side))),
    ):
        templates = cld.open_structure(structure, parameters)
        rows = np.arange(n_views)
        seconds = bench.attempt(
            lambda t=templates, r=rows: bench.seconds(lambda: t.source.take(r), 3), source=name
        )
        if seconds is not None:
            bench.say(source=name, views=n_views, ms_each=seconds / n_views * 1e3)


def cluster(bench: Bench) -> None:
    """`local_cluster` on this machine: a worker for each GPU, and results through Dask."""
    n_images, n_templates = (6, 4) if bench.dry else (256, 64)
    images, templates, _ = make_inputs(bench.case(), n_images, n_templates, signal=STRONG)
    started = time.perf_counter()
    with cld.local_cluster(MOST_WORKERS if bench.dry else None) as client:
        bench.say(
            cluster=type(client.cluster).__name__,
            workers=len(client.nthreads()),
            torch_threads=sorted(client.run(torch.get_num_threads).values()),
            start_s=time.perf_counter() - started,
        )
        for _ in range(1 if bench.dry else 2):
            started = time.perf_counter()
            found = cld.compute_optimal_pose(images, templates, device=bench.device).compute()
            bench.say(
                seconds=time.perf_counter() - started,
                best=float(found.cross_correlation.max()),
            )
        started = time.perf_counter()
    bench.say(close_s=time.perf_counter() - started)
