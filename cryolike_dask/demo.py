"""The product's main job on data made on the spot: two conformations, noisy particles of both, which is which?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import write_archive, write_list
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.run_likelihood import (
    configure_displacement,
    configure_likelihood_files,
    run_likelihood_optimal_pose,
)
from cryolike_dask.simulate import Poses, draw_optics, draw_poses, hinge, render_particles, with_noise
from cryolike_dask.structures.atoms import project_atoms, viewing_rotation

PARAMETERS = ImageParameters(
    n_pixels=48, pixel_size_angstrom=2.5, viewing_distance=0.3, precision="single", atom_shape="gaussian"
)
STRUCTURES = {"closed": 0.0, "open": 0.9}
"""Name and opening of the hinge, radian."""
SEARCH = configure_displacement(max_displacement_pixels=3.0, n_displacements_x=7, n_displacements_y=7)
SIGNAL_TO_NOISE = 1.0
N_STACKS, N_IMAGES_PER_STACK = 4, 64


@dataclass(frozen=True, eq=False)
class Truth:
    """What the particles of the demo are: their structure (position in `STRUCTURES`) and pose."""

    structure: NDArray[np.int64]
    poses: Poses


@dataclass(frozen=True)
class Outcome:
    """How well the demo's particles were understood.

    Attributes
    ----------
    n_images, n_templates, n_displacements, n_rotations : int
    seconds : float
        Of the likelihood run of both structures.
    pose_recovered : float
        Fraction of images whose best pose under their own structure is within one grid step of the truth, in
        orientation and in both displacements.
    structure_recovered : float
        Fraction of images whose integrated likelihood is larger under their own structure.
    results : xarray.Dataset
        Dims (structure, image).
    """

    n_images: int
    n_templates: int
    n_displacements: int
    n_rotations: int
    seconds: float
    pose_recovered: float
    structure_recovered: float
    results: xr.Dataset


def make_demo_inputs(folder: Path, seed: int = 0) -> tuple[LikelihoodFiles, Truth]:
    """Write templates of both structures and stacks of particles of both, in CryoLike's formats.

    Parameters
    ----------
    folder : Path
        Gets `templates/` and `particles/`; results will go to `likelihood/`.
    seed : int
    """
    files = configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "likelihood", n_stacks=N_STACKS, i_template="all"
    )
    rng, grid = np.random.default_rng(seed), PARAMETERS.grid
    atoms = [hinge(opening, seed=seed) for opening in STRUCTURES.values()]
    write_parameters(files.folder_templates / "parameters.npz", PARAMETERS)
    names = [f"templates_fourier_{name}.pt" for name in STRUCTURES]
    viewing = PARAMETERS.viewing_angles()
    for name, structure in zip(names, atoms, strict=True):
        templates = project_atoms(structure, grid, viewing).astype(np.complex64)
        write_template_stack(files.folder_templates / name, templates, viewing, PARAMETERS, "standard")
    write_list(files.template_list, names)

    n = N_STACKS * N_IMAGES_PER_STACK
    truth = Truth(rng.integers(len(atoms), size=n), draw_poses(n, 3.0 * grid.pixel_size_angstrom, rng))
    optics = draw_optics(n, rng)
    pixels = np.empty((n, grid.n_pixels, grid.n_pixels))
    for i, structure in enumerate(atoms):
        mine = np.flatnonzero(truth.structure == i)
        pixels[mine] = render_particles(structure, grid, truth.poses.take(mine), optics[mine])
    values = normalised_stack(with_noise(pixels, SIGNAL_TO_NOISE, rng), grid)
    for k, rows in enumerate(np.split(np.arange(n), N_STACKS)):
        write_image_stack(files.image_stack(k)[0], values[rows], optics[rows], PARAMETERS)
    write_archive(files.folder_particles / "truth.npz", {"structure": truth.structure, **vars(truth.poses)})
    return files, truth


def run_demo(files: LikelihoodFiles, truth: Truth, client: Client | None = None, *, progress: bool = True) -> Outcome:
    """Run the likelihood of every image under both structures, and hold the results against the truth."""
    start = time.perf_counter()
    results = run_likelihood_optimal_pose(
        files, files.folder_templates / "parameters.npz", SEARCH, overwrite=True, client=client, progress=progress
    ).load()
    seconds = time.perf_counter() - start
    viewing = PARAMETERS.viewing_angles()
    own = results.isel(structure=xr.DataArray(truth.structure, dims="image"))
    best = results.log_likelihood_integrated.argmax("structure")
    return Outcome(
        n_images=results.sizes["image"],
        n_templates=len(viewing),
        n_displacements=len(SEARCH.grid(PARAMETERS.pixel_size_angstrom)),
        n_rotations=PARAMETERS.n_inplanes,
        seconds=seconds,
        pose_recovered=float(_pose_recovered(own, truth.poses).mean()),
        structure_recovered=float((best.values == truth.structure).mean()),
        results=results,
    )


def _pose_recovered(found: xr.Dataset, poses: Poses) -> NDArray[np.bool_]:
    """Whether each pose is within one step of the search: in orientation, and along both axes."""
    viewing = PARAMETERS.viewing_angles()
    template = found.optimal_template.values
    step = PARAMETERS.pixel_size_angstrom * 2 * 3.0 / (SEARCH.n_displacements_x - 1)
    near = np.abs(found.optimal_displacement_x.values - poses.displacement_x_angstrom) <= step
    near &= np.abs(found.optimal_displacement_y.values - poses.displacement_y_angstrom) <= step
    for i in range(len(near)):
        true = viewing_rotation(poses.azimuth[i], poses.polar[i], poses.gamma[i])
        gamma = float(found.optimal_inplane_rotation[i])
        ours = viewing_rotation(viewing.azimuth[template[i]], viewing.polar[template[i]], gamma)
        angle = np.arccos(np.clip((np.trace(true.T @ ours) - 1) / 2, -1, 1))
        near[i] &= angle <= PARAMETERS.viewing_distance
    return np.asarray(near, np.bool_)
