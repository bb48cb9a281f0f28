"""What making inputs costs: time and peak memory of projecting a large structure and of converting
many particles.

    python benchmarks/inputs.py                 # everything: some minutes, 8 GB of disk
    python benchmarks/inputs.py --n-particles 2000 --n-views 300

Each job runs in a process of its own, without a cluster; its peak is the largest resident memory of
that process, pages of mapped files included. Exits with an error if a peak is above its bound.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask import Atoms, ImageParameters, convert_particles, make_templates
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.star import write_star
from cryolike_dask.simulation.particle_set import (
    Particles,
    draw_optics,
    draw_poses,
    star_tables,
)
from cryolike_dask.structures.projection import project

BOUND_GB = {"templates": 2.0, "particles": 1.5}
"""The interpreter with torch takes 0.4 of it."""
RESIDUE_RADII = [2.25, 2.5, 2.6, 2.75, 2.8, 2.85, 2.95, 3.0, 3.05, 3.1, 3.2, 3.25, 3.3, 3.4]
TEMPLATES = ImageParameters(132, 1.3, n_inplanes=256, precision="single", atom_shape="gaussian")
PARTICLES = ImageParameters(128, 1.3, precision="single")


def structure(n_atoms: int) -> Atoms:
    """Residues spread over a shell, as in ferritin."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((n_atoms, 3))
    positions = (
        directions
        / np.linalg.norm(directions, axis=1)[:, None]
        * rng.uniform(40, 62, n_atoms)[:, None]
    )
    return Atoms(positions, rng.uniform(30, 98, n_atoms), rng.choice(RESIDUE_RADII, n_atoms))


def some_views(n: int) -> ViewingAngles:
    """The first directions of the grid, or all of them."""
    viewing = TEMPLATES.viewing_angles()
    return viewing.take(np.arange(min(n, len(viewing))))


def direct_sum(atoms: Atoms, n_views: int) -> np.ndarray[Any, Any]:
    """Templates from the definition: a sum over atoms at every point, float64."""
    grid, half = TEMPLATES.grid, TEMPLATES.n_inplanes // 2
    kx, ky = (k[:, :half].ravel() for k in grid.points())
    sigma = 2 * atoms.radii_angstrom / grid.box_size_angstrom
    envelope = atoms.electrons * np.exp(-2 * (np.pi * sigma * np.hypot(kx, ky)[:, None]) ** 2)
    positions = 2 * atoms.centred / grid.box_size_angstrom
    templates = np.empty((n_views, *grid.shape), np.complex128)
    for i, rotation in enumerate(some_views(n_views).rotations()):
        x, y, _ = (positions @ rotation).T
        rings = np.empty(len(kx), np.complex128)
        for part in np.array_split(np.arange(len(kx)), 32):
            phase = np.outer(kx[part], x) + np.outer(ky[part], y)
            rings[part] = (envelope[part] * np.exp(-2j * np.pi * phase)).sum(axis=1)
        rings = rings.reshape(-1, half)
        templates[i] = np.concatenate([rings, rings.conj()], axis=1)
    return templates / np.sqrt(grid.integrate(np.abs(templates) ** 2))[:, None, None]


def compare(n_atoms: int) -> None:
    """The non-uniform FFT against the direct sum: time and error."""
    atoms, n_views = structure(n_atoms), 4
    start = time.perf_counter()
    expected = direct_sum(atoms, n_views)
    slow = (time.perf_counter() - start) / n_views
    for precision in ("single", "double"):
        start = time.perf_counter()
        found = project(atoms, TEMPLATES.grid, some_views(n_views), precision=precision)
        fast = (time.perf_counter() - start) / n_views
        error = np.abs(found - expected).max() / np.abs(expected).max()
        print(
            f"{n_atoms} residues, {precision}: direct sum {1e3 * slow:.0f} ms per view, NUFFT "
            f"{1e3 * fast:.1f} ms, "
            f"{slow / fast:.0f} times less; largest difference {error:.1e} of the largest value"
        )


def write_particles(folder: Path, n: int) -> Path:
    """Noise on 128 pixels, in files of 1000 images, and a STAR file."""
    rng, per_file = np.random.default_rng(0), 1000
    for k in range(-(-n // per_file)):
        pixels = rng.standard_normal((min(per_file, n - k * per_file), 128, 128), np.float32)
        write_mrc_stack(folder / f"{k}.mrcs", pixels, PARTICLES.pixel_size_angstrom)
    particles = Particles(np.zeros(n, np.int64), draw_poses(n, 5.0, rng), draw_optics(n, rng))
    names = [f"{i % per_file + 1:06d}@{i // per_file}.mrcs" for i in range(n)]
    write_star(folder / "particles.star", star_tables(particles, names, PARTICLES))
    return folder / "particles.star"


def measured(name: str, function: Callable[..., Any], *arguments: Any) -> bool:
    """Run a job in a process of its own; say its time and peak, and whether it stays below its
    bound."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak_of, (function, *arguments))
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.0f} s, peak {peak:.2f} GB, bound {BOUND_GB[name]} GB")
    return bool(peak <= BOUND_GB[name])


def _peak_of(function: Callable[..., Any], *arguments: Any) -> float:
    function(*arguments, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def make(atoms: Atoms, viewing: ViewingAngles, folder: Path, progress: bool) -> None:
    """Make templates along some directions."""
    make_templates(atoms, TEMPLATES, folder, viewing=viewing, progress=progress)


def main() -> None:
    """Measure everything that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-particles", type=int, default=20000)
    parser.add_argument("--n-atoms", type=int, default=4000)
    parser.add_argument("--n-views", type=int, default=2370)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; default: a temporary folder"
    )
    options = parser.parse_args()
    compare(options.n_atoms)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        fits = measured(
            "templates",
            make,
            structure(options.n_atoms),
            some_views(options.n_views),
            folder / "templates",
        )
        star = write_particles(folder, options.n_particles)
        fits &= measured("particles", convert_particles, star, PARTICLES, folder / "particles")
    raise SystemExit(0 if fits else 1)


if __name__ == "__main__":
    main()
