"""Shares of structures among many images: seconds and memory for a certified maximum with its
errors, and for draws.

Images are points seen through noise, structures points among them, so that likelihoods of many
structures overlap. python -m benchmarks.populations [--images 100000] [--structures 1000]
[--draws]; results lie in a Zarr store, and are read from there.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

import cryolike_dask as cld
from cryolike_dask.analysis.populations.cost import plan_populations

IMAGES_AT_ONCE = 4096


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


def main() -> None:
    """Print seconds, memory and what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--structures", type=int, default=1000)
    parser.add_argument("--draws", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results.zarr"
        shares = write_matrix(path, arguments.images, arguments.structures, arguments.seed)
        results = xr.open_zarr(path, consolidated=False).set_coords("structure")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        found = cld.populations(results, draw=arguments.draws, scratch=Path(name) / "scratch")
        seconds = time.perf_counter() - started
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    low, high = found["population_interval"].values.T
    print(
        f"{arguments.images} images, {arguments.structures} structures: {seconds:.1f} s, at most "
        f"{most / 2**20:.2f} GiB ({before / 2**20:.2f} before); within "
        f"{found.attrs['certificate_nat']:.1e} nat of the largest likelihood; "
        f"{((low <= shares) & (shares <= high)).mean():.1%} of shares in their intervals; "
        f"{len(np.unique(found['group'].values))} groups"
    )
    if arguments.draws:
        sizes = arguments.images, arguments.structures
        planned = plan_populations(*sizes, draw=True, n_chains=found.sizes["chain"])
        print(f"{found.attrs['n_sweeps']} sweeps of each chain; planned: {planned}")


if __name__ == "__main__":
    main()
