"""A search coarse to fine, against one of everything in the same steps and against a finer one.

Particles of structures made as code, elongated and globular, by the benchmarks' own simulator: how
far integrated log-likelihoods, and their ratios between two similar structures, are from those of a
search in a quarter of the steps, of some images; how many views there are; and times of the
first search and the second, of all images, on one thread.

    python -m benchmarks.search [--pixels 64] [--signal-to-noise 0.03 0.1] [--images 128]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.independent_simulator import (
    FloatArray,
    Molecule,
    about_z,
    random_optics,
    random_poses,
    render,
)
from cryolike_dask import (
    Atoms,
    ImageParameters,
    ImageStack,
    TemplateStack,
    compute_optimal_pose,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.projection import project

AXES = {"elongated": (23.0, 11.0, 9.0), "globular": (13.0, 12.5, 12.0)}
"""Spread of residues along principal axes, angstrom."""
N_RESIDUES, SPREAD = 400, 2.0
OPENING = 8.0
"""Degrees that the second structure's half is turned by."""
VIEWS = {64: 0.15, 132: 0.12}
LARGEST_PIXELS, STEP = 4.0, 0.5
PARTS = 4
"""Of a step, in the truth."""


def structure(shape: str, opening: float) -> FloatArray:
    """Positions of residues, half of them turned, (residue, 3)."""
    positions = np.random.default_rng(1).standard_normal((N_RESIDUES, 3)) * AXES[shape]
    turned = positions[:, 0] > 0
    positions[turned] = positions[turned] @ about_z(np.float64(opening))
    return positions - positions.mean(axis=0)


def images_of(
    positions: FloatArray, parameters: ImageParameters, n: int, signal_to_noise: float, seed: int
) -> ImageStack:
    """Particles off all grids, with white noise."""
    rng, pixel = np.random.default_rng(seed), parameters.grid.pixel_size_angstrom
    poses, optics = random_poses(n, 3 * pixel, rng), random_optics(n, (6000, 15000), rng)
    ones = np.ones((N_RESIDUES, 1))
    molecule = Molecule(positions, 60 * ones, SPREAD**2 * ones)
    clean = render(molecule, poses, optics, parameters.grid.n_pixels, pixel)
    noisy = clean + np.sqrt(clean.var() / signal_to_noise) * rng.standard_normal(clean.shape)
    columns: dict[str, Any] = {name: optics[name] for name in optics.dtype.names}
    values = normalised_stack(noisy, parameters.grid).astype(np.complex64)
    return ImageStack.from_array(values, parameters, optics_table(n, **columns))


def templates_of(positions: FloatArray, parameters: ImageParameters) -> TemplateStack:
    """Its projections, in memory."""
    atoms = Atoms(positions, np.full(N_RESIDUES, 60.0), np.full(N_RESIDUES, SPREAD))
    viewing = parameters.viewing_angles()
    values = project(atoms, parameters.grid, viewing).astype(np.complex64)
    return TemplateStack.from_array(values, parameters, viewing)


def integrated(
    images: ImageStack, templates: TemplateStack, search: Any, parts: int = 1
) -> tuple[NDArray[np.float64], float]:
    """Log-likelihoods, and seconds; less the logarithm of the area that the prior is spread to."""
    n = round(2 * LARGEST_PIXELS / STEP) * parts + 1
    displaced = DisplacementSearch(LARGEST_PIXELS, n, n)(templates)
    start = time.perf_counter()
    found = compute_optimal_pose(images, displaced, device="cpu", search=search)
    values = found.log_likelihood_integrated.compute(scheduler="synchronous").values
    return values + 2 * np.log(1 + 1 / (n - 1)), time.perf_counter() - start


def measure(n_pixels: int, shape: str, signal_to_noise: float, n_images: int, n_true: int) -> str:
    """One row of the table."""
    parameters = ImageParameters(
        n_pixels, 2.0, viewing_distance=VIEWS[n_pixels], precision="single"
    )
    positions = [structure(shape, opening) for opening in (0.0, OPENING)]
    stacks = [templates_of(one, parameters) for one in positions]
    images = images_of(positions[0], parameters, n_images, signal_to_noise, seed=0)
    some = images[:n_true]
    integrated(images[:2], stacks[0], "adaptive")  # compiles
    fine = [integrated(some, stack, "exhaustive", PARTS)[0] for stack in stacks]
    row = f"{n_pixels:>4} {shape:<10}{signal_to_noise:>5g}{len(stacks[0]):>7}"
    seconds = []
    for search in ("adaptive", "exhaustive"):
        coarse, took = integrated(images, stacks[0], search)
        other, _ = integrated(some, stacks[1], search)
        seconds.append(took)
        off = coarse[:n_true] - fine[0]
        ratio = off - (other - fine[1])
        row += f"{_rms(off):>9.3f}{abs(off).max():>8.3f}{_rms(ratio):>9.3f}{abs(ratio).max():>8.3f}"
    return f"{row}{seconds[0]:>9.1f}{seconds[1]:>9.1f}{seconds[1] / seconds[0]:>7.1f}x"


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


def main() -> None:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--pixels", type=int, nargs="*", default=[64], choices=sorted(VIEWS))
    parser.add_argument("--shapes", nargs="*", default=list(AXES), choices=list(AXES))
    parser.add_argument("--signal-to-noise", type=float, nargs="*", default=[0.03, 0.1])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--true", type=int, default=8, help="images that the truth is computed of")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("nat off a search in a quarter of the steps: rms, largest; the same of ratios")
    print(
        f"{'box':>4} {'shape':<10}{'SNR':>5}{'views':>7}{'adaptive':>34}{'everything':>34}", end=""
    )
    print(f"{'seconds of both':>18}")
    for n_pixels in arguments.pixels:
        for shape in arguments.shapes:
            for ratio in arguments.signal_to_noise:
                row = measure(n_pixels, shape, ratio, arguments.images, arguments.true)
                print(row, flush=True)


if __name__ == "__main__":
    main()
