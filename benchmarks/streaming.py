"""What does a run cost beside its blocks, and does it stay small however long it is?

Runs of growing length with a block that computes nothing, on a scheduler and two workers that are
processes of their own: seconds for each stack under a structure, time to the first result, memory
of the client and of the scheduler. Then the time to find 10,000 finished stacks finished, and one
and two workers with the real block.

    python -m benchmarks.streaming [--largest 2000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask.array as da
import numpy as np
import psutil
import xarray as xr

import cryolike_dask as cld
from benchmarks import faults
from benchmarks.processes import processes
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.layout import OPTIMAL_POSE_FILES, LikelihoodFiles, covering
from cryolike_dask.io.results import write_results
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.kinds import OPTIMAL_POSE, Kind
from cryolike_dask.runs.run import open_run

PARAMETERS = cld.ImageParameters(12, 2.0, n_inplanes=20, viewing_distance=2.0)
SEARCH = cld.configure_displacement(1.0, 3, 3)
N_IMAGES = 4


def nothing(graph: ComparisonGraph) -> xr.Dataset:
    """As best poses of a graph, with one task for each variable that computes nothing."""
    data = {}
    for name in OPTIMAL_POSE_FILES:
        dtype = np.int64 if name == "optimal_template" else np.float64
        data[name] = ("image", da.zeros(len(graph.images), chunks=-1, dtype=dtype))
    return xr.Dataset(data)


def inputs(folder: Path, n_structures: int, n_stacks: int) -> LikelihoodFiles:
    """Tiny files."""
    rng, grid, viewing = np.random.default_rng(0), PARAMETERS.grid, PARAMETERS.viewing_angles()
    files = cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "out", i_template="all"
    )
    names = [f"templates_fourier_{i}.pt" for i in range(n_structures)]
    half = rng.standard_normal((len(viewing), grid.n_shells, grid.n_inplanes // 2, 2)).astype(
        np.float32
    )
    rings = half.view(np.complex64)[..., 0]
    rings = np.concatenate([rings, rings.conj()], 2)
    for name in names:
        write_template_stack(files.folder_templates / name, rings, viewing, PARAMETERS, "standard")
    write_list(files.template_list, names)
    optics = np.zeros(N_IMAGES, cld.geometry.optics.OPTICS)
    optics["defocus_u_angstrom"] = optics["defocus_v_angstrom"] = 1e4
    optics["voltage_kilovolt"], optics["amplitude_contrast"], optics["scale"] = 300, 0.1, 1
    for k in range(n_stacks):
        write_image_stack(files.image_stack(k)[0], rings[:N_IMAGES], optics, PARAMETERS)
    return files


def run(files: LikelihoodFiles, kind: Kind = OPTIMAL_POSE, **options: Any) -> float:
    """Run without reading the results back, and give the seconds that it took."""
    start = time.perf_counter()
    kind = replace(kind, open=lambda _: xr.Dataset())
    with patch("cryolike_dask.run_likelihood.OPTIMAL_POSE", kind):
        cld.run_likelihood_optimal_pose(
            files, PARAMETERS, SEARCH, progress=False, device="cpu", **options, noise="white"
        )
    return time.perf_counter() - start


def lengths(folder: Path, largest: int) -> None:
    """Three decades of stacks under structures."""
    print(f"{'pieces':>8}{'ms/piece':>10}{'first, s':>10}{'client MB':>11}{'scheduler MB':>14}")
    for n in (largest // 100, largest // 10, largest):
        n_structures = max(1, round((n / 20) ** 0.5))
        files = inputs(folder / str(n), n_structures, n // n_structures)
        with processes(folder / str(n)) as client:
            scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
            first, done = [], threading.Event()
            start = time.perf_counter()
            out = files.folder_output

            def watch(
                out: Path = out, first: list[float] = first, done: threading.Event = done
            ) -> None:
                while not done.wait(0.002) and not first:
                    if any(out.glob("template0/done/*.json")):
                        first.append(time.perf_counter())

            watcher = threading.Thread(target=watch)
            watcher.start()
            before = psutil.Process().memory_info().rss
            seconds = run(files, replace(OPTIMAL_POSE, compute=nothing), client=client)
            done.set()
            watcher.join()
            memory = psutil.Process().memory_info().rss - before, scheduler.memory_info().rss
        n = n_structures * (n // n_structures)
        print(f"{n:>8}{seconds / n * 1e3:>10.1f}{first[0] - start:>10.2f}", end="")
        print(f"{f'+{memory[0] / 1e6:.0f}':>11}{memory[1] / 1e6:>14.0f}", flush=True)


def resuming(folder: Path, n_structures: int = 100, n_stacks: int = 100) -> None:
    """Find every stack finished."""
    files = inputs(folder, n_structures, n_stacks)
    opened = open_run(covering(files, "all", None), PARAMETERS, SEARCH, Settings(device="cpu"))
    values = {
        name: np.zeros(N_IMAGES, np.int64 if name == "optimal_template" else float)
        for name in OPTIMAL_POSE_FILES
    }
    with patch("os.fsync"):
        for i, k in opened.pairs():
            write_results(values, opened.job(OPTIMAL_POSE, i, k), {})
    n = n_structures * n_stacks
    print(
        f"{n} finished stacks are found finished in {run(files, skip_exist=True):.1f} s", flush=True
    )


def scaling(folder: Path) -> None:
    """The real block on one worker and on two."""
    files = faults.inputs(folder)
    seconds = []
    for n in (1, 2):
        with processes(folder / f"{n}-workers", n) as client:
            seconds += [faults.run(replace(files, folder_output=folder / f"out-{n}"), client)]
    efficiency = seconds[0] / seconds[1] / 2
    print(
        f"one worker {seconds[0]:.1f} s, two {seconds[1]:.1f} s: efficiency {efficiency:.0%} "
        f"(client and scheduler",
        end="",
    )
    print(f" share {os.cpu_count()} cores with them)")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--largest", type=int, default=2000)
    with tempfile.TemporaryDirectory() as name:
        lengths(Path(name), parser.parse_args().largest)
        resuming(Path(name) / "resuming")
        scaling(Path(name) / "scaling")


if __name__ == "__main__":
    main()
