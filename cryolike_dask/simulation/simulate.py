"""Particles of known pose from structures, with optics and noise: for the demo, for tests, and
to calibrate on."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.stream import Piece, stream, task
from cryolike_dask.errors import CannotFitError, InputError, OutputError, number
from cryolike_dask.geometry.optics import OPTICS, optics_table
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.star import write_star
from cryolike_dask.particles.opening import read_optics
from cryolike_dask.particles.relion import TRUE_STRUCTURE
from cryolike_dask.runs.capacity import existing
from cryolike_dask.simulation.rendering import Poses, render_particles
from cryolike_dask.structures.opening import Models, StructureInput, open_structures
from cryolike_dask.structures.sources import Projections, StructureSource

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Noise = Literal["white", "coloured"]

HALF_POWER_ANGSTROM = 20.0
"""Coloured noise has half of its low-resolution power here."""
MOST_NAMED = 10
"""Structures that are named when they are counted."""
N_FOR_LEVEL = 64
"""Images that the level of the noise is taken from."""


@dataclass(frozen=True, eq=False)
class Particles:
    """What particles are: their structures (positions in a list), poses and optics."""

    which: NDArray[np.int64]
    poses: Poses
    optics: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.which)

    def take(self, rows: NDArray[np.int64]) -> Particles:
        """Some of them."""
        return Particles(self.which[rows], self.poses.take(rows), self.optics[rows])


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
        Of PDB and mmCIF files.
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
    step = number("batch_size", batch_size, whole=True, at_least=1)
    number("signal_to_noise", signal_to_noise, above=0)
    if (
        number("max_displacement_pixels", max_displacement_pixels, at_least=0)
        > parameters.n_pixels / 2
    ):
        what = (
            f"max_displacement_pixels={max_displacement_pixels:g} is beyond the box, whose half is"
        )
        raise InputError(f"{what} {parameters.n_pixels / 2:g} pixels")
    _refuse_what_no_disk_holds(n, parameters, folder)
    if noise not in get_args(Noise):
        raise InputError(f"noise={noise!r} is neither white nor coloured")
    names_of_structures, sources = _sources(structures, parameters, models)
    poses_rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    which = poses_rng.choice(len(sources), size=n, p=_shares(populations, len(sources)))
    if poses is None:
        poses = draw_poses(n, max_displacement_pixels * parameters.pixel_size_angstrom, poses_rng)
    if len(poses) != n:
        raise InputError(f"{len(poses)} poses, but n_images={n}")
    particles = Particles(which, poses, _optics(optics, n, poses_rng))
    star = _claimed(folder, overwrite)
    logger.info("%s, mixed at random", _counted(names_of_structures, which))

    sample = np.unique(np.linspace(0, n - 1, min(n, N_FOR_LEVEL)).round().astype(np.int64))
    clean = _rendered(particles.take(sample), sources, parameters.grid)
    level = float(np.sqrt(clean.var(axis=(1, 2)).mean() / signal_to_noise))
    model, graphs = NoiseModel(level, noise, seed), []
    for k, rows in enumerate(np.split(np.arange(n), np.arange(step, n, step))):
        batch, path = particles.take(rows), folder.absolute() / _file_name(k)
        name = f"simulate-{path.stem}"
        graph = partial(
            task, name, _write_batch, batch, rows, sources, parameters.grid, model, path
        )
        graphs.append(Piece(name, len(rows), graph))
    stream(graphs, client, n_images=n, progress=progress, title="particles")
    below = Path(os.path.relpath(folder, project))
    names = [f"{i % step + 1:06d}@{(below / _file_name(i // step)).as_posix()}" for i in range(n)]
    tables = star_tables(particles, names, parameters)
    tables["particles"][TRUE_STRUCTURE] = np.array(names_of_structures)[which]
    write_star(star, tables)
    logger.info("names of images start in %s: start RELION there", project)
    return star


def draw_poses(n: int, max_displacement_angstrom: float, rng: np.random.Generator) -> Poses:
    """Draw poses uniformly: over directions, in-plane rotations, and a square of displacements."""
    limit = max_displacement_angstrom
    return Poses(
        azimuth=rng.uniform(0, 2 * np.pi, n),
        polar=np.arccos(rng.uniform(-1, 1, n)),
        gamma=rng.uniform(0, 2 * np.pi, n),
        displacement_x_angstrom=rng.uniform(-limit, limit, n),
        displacement_y_angstrom=rng.uniform(-limit, limit, n),
    )


def draw_optics(n: int, rng: np.random.Generator) -> NDArray[np.void]:
    """Draw the optics of a 300 kV microscope: defocus 0.8 to 1.8 micrometre with up to 0.05 of
    astigmatism."""
    mean, difference = rng.uniform(8000, 18000, n), rng.uniform(-500, 500, n)
    return optics_table(
        n,
        defocus_u_angstrom=mean + difference / 2,
        defocus_v_angstrom=mean - difference / 2,
        defocus_angle_radian=rng.uniform(-np.pi / 2, np.pi / 2, n),
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )


@dataclass(frozen=True)
class NoiseModel:
    """Noise of one level in all images, so that the level tells nothing of what an image shows.

    Attributes
    ----------
    level : float
        Standard deviation of a pixel.
    kind : "white" | "coloured"
    seed : int
        With the number of an image it gives the noise of that image, in whatever file it is
        written.
    """

    level: float
    kind: Noise
    seed: int

    def draw(self, numbers: NDArray[np.int64], grid: PolarGrid) -> FloatArray:
        """Draw the noise of images by their numbers, (image, row, column)."""
        n = grid.n_pixels
        shape = (n, n)
        drawn = np.stack(
            [np.random.default_rng((self.seed, 1, int(i))).standard_normal(shape) for i in numbers]
        )
        if self.kind == "coloured":
            fx = np.fft.fftfreq(n, grid.pixel_size_angstrom)
            amplitude = 1 / np.sqrt(1 + (fx**2 + fx[:, None] ** 2) * HALF_POWER_ANGSTROM**2)
            amplitude /= np.sqrt((amplitude**2).mean())
            drawn = np.fft.ifft2(np.fft.fft2(drawn) * amplitude).real
        return self.level * drawn


def star_tables(
    particles: Particles, names: Sequence[str], parameters: ImageParameters
) -> dict[str, dict[str, Any]]:
    """What a RELION 3.1 STAR file says of particles: its `optics` and `particles` tables."""
    optics, poses = particles.optics, particles.poses
    columns = ["voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast"]
    groups, group = np.unique(optics[columns], return_inverse=True)
    x, y = poses.shifts_angstrom()
    degrees = {
        name: np.degrees(values) for name, values in vars(poses).items() if "angstrom" not in name
    }
    return {
        "optics": {
            "rlnOpticsGroup": np.arange(len(groups)) + 1,
            "rlnOpticsGroupName": np.array([f"opticsGroup{i + 1}" for i in range(len(groups))]),
            "rlnVoltage": groups["voltage_kilovolt"],
            "rlnSphericalAberration": groups["spherical_aberration_mm"],
            "rlnAmplitudeContrast": groups["amplitude_contrast"],
            "rlnImagePixelSize": np.full(len(groups), parameters.pixel_size_angstrom),
            "rlnImageSize": np.full(len(groups), parameters.n_pixels),
            "rlnImageDimensionality": np.full(len(groups), 2),
        },
        "particles": {
            "rlnImageName": np.array(names),
            "rlnOpticsGroup": group.ravel() + 1,
            "rlnDefocusU": optics["defocus_u_angstrom"],
            "rlnDefocusV": optics["defocus_v_angstrom"],
            "rlnDefocusAngle": np.degrees(optics["defocus_angle_radian"]),
            "rlnPhaseShift": np.degrees(optics["phase_shift_radian"]),
            "rlnCtfBfactor": optics["b_factor_angstrom2"],
            "rlnCtfScalefactor": optics["scale"],
            "rlnAngleRot": degrees["azimuth"],
            "rlnAngleTilt": degrees["polar"],
            "rlnAnglePsi": degrees["gamma"],
            "rlnOriginXAngst": -x,
            "rlnOriginYAngst": -y,
            "rlnClassNumber": particles.which + 1,
            "rlnRandomSubset": np.arange(len(names)) % 2 + 1,
        },
    }


def _refuse_what_no_disk_holds(n_images: int, parameters: ImageParameters, folder: Path) -> None:
    there = existing(folder)
    needed, free = 4 * n_images * parameters.n_pixels**2, shutil.disk_usage(there).free
    if needed > free:
        raise CannotFitError(
            f"n_images={n_images} of {parameters.n_pixels} pixels take {needed / 1e9:.3g} GB, but "
            f"{there} has "
            f"{free / 1e9:.3g} GB free",
            remedy="Simulate fewer.",
        )


def _sources(
    structures: Any, parameters: ImageParameters, models: Models
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


def _optics(given: Any, n: int, rng: np.random.Generator) -> NDArray[np.void]:
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
    whole, here = Path(os.path.abspath(folder)), Path.cwd()
    project = (
        Path(os.path.abspath(given))
        if given is not None
        else here
        if here in whole.parents
        else whole
    )
    if project != whole and project not in whole.parents:
        raise InputError(
            f"folder_output={str(folder)!r} is not below project_folder={str(given)!r}"
        )
    return project


def _counted(structures: Sequence[str], which: NDArray[np.int64]) -> str:
    """How many particles show each structure, in the order of classes."""
    n_each = np.bincount(which, minlength=len(structures)).tolist()
    said = [
        f"{n} of {name} (class {i + 1})"
        for i, (n, name) in enumerate(zip(n_each, structures, strict=True))
    ]
    more = (
        [f"{sum(n_each[MOST_NAMED:])} of {len(said) - MOST_NAMED} more"]
        if len(said) > MOST_NAMED
        else []
    )
    return f"{len(which)} particles: {', '.join(said[:MOST_NAMED] + more)}"


def _claimed(folder: Path, overwrite: bool) -> Path:
    """The STAR file to write; what describes former particles goes first, so that it never
    describes new ones."""
    star = folder / "particles.star"
    there = [
        path for path in (star, *sorted(folder.glob("particles_??????.mrcs"))) if path.exists()
    ]
    if there and not overwrite:
        raise OutputError(
            "holds particles already",
            source=folder,
            remedy="Choose another folder, or pass overwrite=True (--overwrite) to replace them.",
        )
    for path in there:
        path.unlink()
    return star


def _file_name(k: int) -> str:
    return f"particles_{k:06d}.mrcs"


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


def _write_batch(
    particles: Particles,
    numbers: NDArray[np.int64],
    sources: Sequence[StructureSource],
    grid: PolarGrid,
    noise: NoiseModel,
    path: Path,
) -> int:
    noisy = _rendered(particles, sources, grid) + noise.draw(numbers, grid)
    write_mrc_stack(path, noisy.astype(np.float32), grid.pixel_size_angstrom)
    return len(particles)
