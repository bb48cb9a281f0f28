"""Shares of structures among many images: seconds and memory for a certified maximum with its
errors, and for draws.

Images are points seen through noise, structures points among them, so that likelihoods of many
structures overlap. Results lie in a Zarr store, and are read from there by a process of its own.
With --killed it is killed (SIGKILL) after so many seconds, once for each number, and begun again:
what it says meanwhile is shown, and how long each part took. Memory is told as a whole, and without
the pages of files (of the scratch file above all), which the system takes back when it needs them.

    python -m benchmarks.populations [--images 100000] [--structures 1000] [--draws]
        [--killed 30 200] [--folder WHERE]
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

import cryolike_dask as cld
from cryolike_dask.analysis.populations.cost import plan_populations

IMAGES_AT_ONCE = 4096
SECONDS_BETWEEN = 0.2
"""Between two looks at the memory of the process."""


def write_matrix(path: Path, n_images: int, n_structures: int, seed: int) -> np.ndarray:
    """Put log-likelihoods into a store, some images at a time, and give the true shares."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n_structures, 8))
    shares = rng.dirichlet(np.full(n_structures, 0.3))
    root = zarr.open_group(path, mode="w", zarr_format=3)
    values = root.create_array(
        "log_likelihood_integrated",
        shape=(n_structures, n_images),
        chunks=(n_structures, IMAGES_AT_ONCE),
        dtype="float32",
        dimension_names=("structure", "image"),
        compressors=None,
    )
    names = root.create_array(
        "structure", shape=(n_structures,), dtype="int64", dimension_names=("structure",)
    )
    names[:] = np.arange(n_structures)
    for start in range(0, n_images, IMAGES_AT_ONCE):
        n = min(IMAGES_AT_ONCE, n_images - start)
        seen = points[rng.choice(n_structures, n, p=shares)] + 0.5 * rng.normal(size=(n, 8))
        squared = (points**2).sum(axis=1)[:, None] - 2 * points @ seen.T + (seen**2).sum(axis=1)
        values[:, start : start + n] = -2 * squared - 1e4
    return shares


def estimated(path: Path, scratch: Path, draws: bool, found: Path) -> None:
    """Estimate the shares of a store, saying how far it is, and write them."""
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)9.0f ms  %(message)s")
    logging.getLogger("cryolike_dask").setLevel(logging.INFO)
    results = xr.open_zarr(path, consolidated=False).set_coords("structure")
    cld.populations(results, draw=draws, scratch=scratch).to_netcdf(found)


@dataclass(frozen=True)
class Watched:
    """A process that ended, or was killed.

    Attributes
    ----------
    exit_code : int
        Less the number of the signal, if it was killed.
    seconds : float
    whole_gib, own_gib : float
        Most memory, with and without pages of files.
    """

    exit_code: int
    seconds: float
    whole_gib: float
    own_gib: float


def watched(seconds: float | None, *arguments: Any) -> Watched:
    """Estimate shares in a process of its own, which is killed after some seconds."""
    process = multiprocessing.get_context("spawn").Process(target=estimated, args=arguments)
    started, whole, own = time.perf_counter(), 0.0, 0.0
    process.start()
    while process.is_alive():
        sizes = _sizes(Path(f"/proc/{process.pid}/status"))
        whole = max(whole, sizes.get("VmHWM", 0.0))
        own = max(own, sizes.get("RssAnon", 0.0))
        if seconds is not None and time.perf_counter() - started > seconds:
            process.kill()
        process.join(SECONDS_BETWEEN)
    return Watched(process.exitcode or 0, time.perf_counter() - started, whole, own)


def _sizes(status: Path) -> dict[str, float]:
    """What Linux says of the memory of a process, GiB; nothing once it has ended."""
    try:
        text = status.read_text()
    except OSError:
        return {}
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(kilobytes) / 2**20 for name, kilobytes in found}


def main() -> None:
    """Print seconds, memory and what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--structures", type=int, default=1000)
    parser.add_argument("--draws", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--killed", type=float, nargs="*", default=[], metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        store, found_at = Path(name) / "results.zarr", Path(name) / "found.nc"
        started = time.perf_counter()
        shares = write_matrix(store, arguments.images, arguments.structures, arguments.seed)
        print(
            f"{arguments.images} images, {arguments.structures} structures, written in "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
        for seconds in (*arguments.killed, None):
            of = watched(seconds, store, Path(name) / "scratch", arguments.draws, found_at)
            print(
                f"{'killed after' if of.exit_code else 'done in'} {of.seconds:.1f} s, at most "
                f"{of.whole_gib:.2f} GiB, {of.own_gib:.2f} without pages of files",
                flush=True,
            )
            if not of.exit_code:
                break
        found = xr.load_dataset(found_at)
    low, high = found["population_interval"].values.T
    print(
        f"within {found.attrs['certificate_nat']:.1e} nat of the largest likelihood; "
        f"{((low <= shares) & (shares <= high)).mean():.1%} of shares in their intervals; "
        f"{len(np.unique(found['group'].values))} groups"
    )
    if arguments.draws:
        sizes = arguments.images, arguments.structures
        planned = plan_populations(*sizes, draw=True, n_chains=found.sizes["chain"])
        print(f"{found.attrs['n_sweeps']} sweeps of each chain; planned: {planned}")


if __name__ == "__main__":
    main()
