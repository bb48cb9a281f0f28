"""A particle set of known poses, computed and written: for the demo, for tests, and to calibrate
on."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.stream import WorkItem, stream, task
from cryolike_dask.errors import CannotFitError, InputError, OutputError, number
from cryolike_dask.geometry.optics import OPTICS, optics_table
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.export_names import SIMULATED_STAR, simulated_files, simulated_stack
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.io.star import write_star
from cryolike_dask.labels import Models, Noise
from cryolike_dask.particles.opening import read_optics
from cryolike_dask.particles.relion import TRUE_STRUCTURE
from cryolike_dask.runs.capacity import existing
from cryolike_dask.simulation.noise import PixelNoise
from cryolike_dask.simulation.particle_set import Particles, draw_optics, draw_poses, star_tables
from cryolike_dask.simulation.rendering import Poses, render_particles
from cryolike_dask.structures.opening import StructureInput, open_structures
from cryolike_dask.structures.sources import Projections, StructureSource

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]

MOST_NAMED = 10
"""Structures that are named when they are counted."""
N_FOR_LEVEL = 64
"""Images that the level of the noise is taken from."""


def simulate_particles(
    structures: StructureInput | Sequence[StructureInput],
    params_input: str | Path | ImageParameters,
    folder_output: str | Path,
    *,
    n_images: int = 1000,
    signal_to_noise: float = 0.1,
    noise: Noise = "white",
    populations: Sequence[float] | None = None,
    max_displacement_pixels: float = 4.0,
    poses: Poses | None = None,
    optics: str | Path | NDArray[np.void] | None = None,
    models: Models = "first",
    batch_size: int = 1024,
    seed: int = 0,
    project_folder: str | Path | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    progress: bool = True,
) -> Path:
    """Simulate a particle set and write it as RELION 3.1 does, the true poses in the STAR file.

    Writes `particles_NNNNNN.mrcs`, and `particles.star` last. The class number of a particle is the
    position of its structure, from 1 on; angles and origins are the true ones, in RELION's
    convention.

    Parameters
    ----------
    structures : path, array, Atoms, Volume, folder, or several of these
        As for `open_structures`.
    params_input : path or ImageParameters
        `parameters.npz`, or its content: the box, the pixels, how atoms are made.
    folder_output : path
    n_images : int
    signal_to_noise : float
        Mean variance of the pixels without noise over the variance of the noise, which is the same
        for all images.
    noise : "white" | "coloured"
        Coloured noise falls off with resolution: half of its power is gone at 20 angstrom.
    populations : sequence of float, optional
        Share of each structure; default: all alike.
    max_displacement_pixels : float
        Displacements are drawn up to this along each axis.
    poses : Poses, optional
        One pose per image instead of drawn ones.
    optics : path or structured array, optional
        A STAR or `.cs` file to draw the optics from, or one row of `optics_table` per image.
        Default: drawn.
    models : "first" | "all"
        Models of PDB and mmCIF files.
    batch_size : int
        Images per `.mrcs` file.
    seed : int
        Same seed, same particles.
    project_folder : path, optional
        Where RELION will be started, which is where names of images start. Default: the current
        folder, or, if the particles are not below it, their own.
    overwrite : bool
        Replace the particles in the output folder.
    client : distributed.Client, optional
        Where to run; default: the current client, or else the threaded scheduler of this process.
    progress : bool
        Show a bar on a terminal or in a notebook.

    Returns
    -------
    Path
        The STAR file.

    Raises
    ------
    InputError, InputFileError
        If a structure or a parameter cannot be used; before anything is written.
    OutputError
        If the output folder holds particles.
    """
    client = active_client(client)
    parameters, folder = read_parameters(params_input), Path(folder_output)
    project = _project(project_folder, folder)
    n = number("n_images", n_images, whole=True, at_least=1)
    n_per_file = number("batch_size", batch_size, whole=True, at_least=1)
    number("signal_to_noise", signal_to_noise, above=0)
    farthest_angstrom = _farthest_angstrom(max_displacement_pixels, parameters)
    _refuse_what_no_disk_holds(n, parameters, folder)
    if noise not in get_args(Noise):
        raise InputError(f"noise={noise!r} is neither white nor coloured")
    names_of_structures, sources = _sources(structures, parameters, models)
    # one generator draws all in this order, so that the same seed gives the same particles
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    which = rng.choice(len(sources), size=n, p=_shares(populations, len(sources)))
    if poses is None:
        poses = draw_poses(n, farthest_angstrom, rng)
    if len(poses) != n:
        raise InputError(f"{len(poses)} poses, but n_images={n}")
    particles = Particles(which, poses, _optics(optics, n, rng))
    star = _claimed(folder, overwrite)
    logger.info("%s, mixed at random", _counted(names_of_structures, which))

    level = _noise_level(particles, sources, parameters.grid, signal_to_noise)
    model = PixelNoise(level, noise, seed)
    paths = [simulated_stack(folder.absolute(), k) for k in range(-(-n // n_per_file))]
    items = []
    for k, path in enumerate(paths):
        rows = np.arange(k * n_per_file, min(n, (k + 1) * n_per_file))
        batch, name = particles.take(rows), f"simulate-{path.stem}"
        graph = partial(task, name, _write_file, batch, rows, sources, parameters.grid, model, path)
        items.append(WorkItem(name, len(rows), graph))
    stream(items, client, n_images=n, progress=progress, title="particles")
    seen_from_project = [Path(os.path.relpath(path, project)).as_posix() for path in paths]
    names = [f"{i % n_per_file + 1:06d}@{seen_from_project[i // n_per_file]}" for i in range(n)]
    tables = star_tables(particles, names, parameters)
    tables["particles"][TRUE_STRUCTURE] = np.array(names_of_structures)[which]
    write_star(star, tables)
    logger.info("names of images start in %s: start RELION there", project)
    return star


def _farthest_angstrom(pixels: float, parameters: ImageParameters) -> float:
    """The largest displacement along an axis, which is within the box."""
    if number("max_displacement_pixels", pixels, at_least=0) > parameters.n_pixels / 2:
        raise InputError(
            f"max_displacement_pixels={pixels:g} is beyond the box, whose half is "
            f"{parameters.n_pixels / 2:g} pixels"
        )
    return pixels * parameters.pixel_size_angstrom


def _refuse_what_no_disk_holds(n_images: int, parameters: ImageParameters, folder: Path) -> None:
    place = existing(folder)
    needed, free = 4 * n_images * parameters.n_pixels**2, shutil.disk_usage(place).free
    if needed > free:
        raise CannotFitError(
            f"n_images={n_images} of {parameters.n_pixels} pixels take {needed / 1e9:.3g} GB, "
            f"but {place} has {free / 1e9:.3g} GB free",
            remedy="Simulate fewer.",
        )


def _sources(
    structures: StructureInput | Sequence[StructureInput],
    parameters: ImageParameters,
    models: Models,
) -> tuple[list[str], list[StructureSource]]:
    """The structures' names, and where they come from, without their templates."""
    opened = [stack.source for stack in open_structures(structures, parameters, models=models)]
    projections = [source for source in opened if isinstance(source, Projections)]
    return [source.name for source in projections], [source.structure for source in projections]


def _shares(populations: Sequence[float] | None, n: int) -> FloatArray | None:
    if populations is None:
        return None
    shares = np.array([number("populations", share, at_least=0) for share in populations])
    if len(shares) != n or shares.sum() <= 0:
        raise InputError(
            f"populations={list(populations)} for {n} structure(s)",
            remedy="Give one share for each.",
        )
    normalised: FloatArray = shares / shares.sum()
    return normalised


def _optics(
    given: str | Path | NDArray[np.void] | None, n: int, rng: np.random.Generator
) -> NDArray[np.void]:
    """Optics of each image: drawn, as given, or drawn from those of a particle set."""
    if given is None:
        return draw_optics(n, rng)
    if isinstance(given, (str, Path)):
        recorded = read_optics(given)
        return recorded[rng.integers(len(recorded), size=n)]
    if not isinstance(given, np.ndarray) or given.dtype != OPTICS or given.shape != (n,):
        raise InputError(
            f"optics for {n} images are needed",
            remedy="Make them with optics_table, or name a file.",
        )
    return optics_table(n, **{name: given[name] for name in OPTICS.names or ()})


def _project(given: str | Path | None, folder: Path) -> Path:
    """The folder in which names of images start, which is above them."""
    whole, current = Path(os.path.abspath(folder)), Path.cwd()
    if given is not None:
        project = Path(os.path.abspath(given))
    else:
        project = current if current in whole.parents else whole
    if project != whole and project not in whole.parents:
        raise InputError(
            f"folder_output={str(folder)!r} is not below project_folder={str(given)!r}"
        )
    return project


def _counted(structures: Sequence[str], which: NDArray[np.int64]) -> str:
    """Numbers of particles that show each structure, in the order of classes."""
    n_each = np.bincount(which, minlength=len(structures)).tolist()
    counts = [
        f"{n} of {name} (class {i + 1})"
        for i, (n, name) in enumerate(zip(n_each, structures, strict=True))
    ]
    if len(counts) > MOST_NAMED:
        n_others = len(counts) - MOST_NAMED
        counts[MOST_NAMED:] = [f"{sum(n_each[MOST_NAMED:])} of {n_others} more"]
    return f"{len(which)} particles: {', '.join(counts)}"


def _claimed(folder: Path, overwrite: bool) -> Path:
    """The STAR file to write; what describes former particles goes first, so that it never
    describes new ones."""
    former_files = simulated_files(folder)
    if former_files and not overwrite:
        raise OutputError(
            "holds particles already",
            source=folder,
            remedy="Choose another folder, or pass overwrite=True (--overwrite) to replace them.",
        )
    for path in former_files:
        path.unlink()
    return folder / SIMULATED_STAR


def _noise_level(
    particles: Particles,
    sources: Sequence[StructureSource],
    grid: PolarGrid,
    signal_to_noise: float,
) -> float:
    """Standard deviation of the noise of a pixel, by the variance of some particles without it."""
    n = len(particles)
    sample = evenly_spread(n, N_FOR_LEVEL)
    clean = _rendered(particles.take(sample), sources, grid)
    return float(np.sqrt(clean.var(axis=(1, 2)).mean() / signal_to_noise))


def _rendered(
    particles: Particles, sources: Sequence[StructureSource], grid: PolarGrid
) -> FloatArray:
    """Particles without noise, each of its own structure."""
    images = np.empty((len(particles), grid.n_pixels, grid.n_pixels))
    for i in np.unique(particles.which):
        rows = np.flatnonzero(particles.which == i)
        images[rows] = render_particles(
            sources[i].load(), grid, particles.poses.take(rows), particles.optics[rows]
        )
    return images


def _write_file(
    particles: Particles,
    numbers: NDArray[np.int64],
    sources: Sequence[StructureSource],
    grid: PolarGrid,
    noise: PixelNoise,
    path: Path,
) -> int:
    """Write some of the particles, with the noise of their numbers; give how many."""
    noisy = _rendered(particles, sources, grid) + noise.draw(numbers, grid)
    write_mrc_stack(path, noisy.astype(np.float32), grid.pixel_size_angstrom)
    return len(particles)
