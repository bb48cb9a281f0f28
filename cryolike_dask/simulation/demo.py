"""The product's main job on data made on the spot: two conformations, noisy particles of both,
which is which?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.io.layout import PARAMETERS as PARAMETERS_FILE
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.particles.converting import convert_particles
from cryolike_dask.particles.star_columns import open_columns
from cryolike_dask.run_likelihood import (
    configure_displacement,
    configure_likelihood_files,
    run_likelihood_optimal_pose,
)
from cryolike_dask.simulation.simulate import simulate_particles
from cryolike_dask.structures.making import make_templates

FloatArray = NDArray[np.float64]

PARAMETERS = ImageParameters(
    n_pixels=48,
    pixel_size_angstrom=2.5,
    viewing_distance=0.3,
    precision="single",
    atom_shape="scattering",
)
STRUCTURES = {"closed": 0.0, "open": 0.9}
"""Name and opening of the hinge, radian."""
SEARCH = configure_displacement(
    max_displacement_pixels=3.0, n_displacements_x=17, n_displacements_y=17
)
FARTHEST_PIXELS = 2.0
"""Off centre, along x and y: less than 3 in any direction."""
SIGNAL_TO_NOISE = 0.05
LEUCINE = ("N", "CA", "C", "O", "CB", "CG", "CD1", "CD2")
N_STACKS, N_IMAGES_PER_STACK = 2, 64


@dataclass(frozen=True, eq=False)
class Truth:
    """Structure (position in `STRUCTURES`) and pose of the demo's particles, as their STAR file
    says.

    Attributes
    ----------
    structure : (image,) int
    rotation : (image, 3, 3) float64
        Columns: the axes of the image in the frame of the structure.
    displacement_angstrom : (2, image) float64
        Displacement of the projection before it is turned.
    """

    structure: NDArray[np.int64]
    rotation: FloatArray
    displacement_angstrom: FloatArray


@dataclass(frozen=True)
class Outcome:
    """Figures of how well the demo's particles were understood.

    Attributes
    ----------
    n_images, n_templates, n_displacements, n_rotations : int
    seconds : float
        Time of the likelihood run of both structures.
    pose_recovered : float
        Fraction of images whose best pose under their own structure is within one viewing distance
        of the truth, and within one pixel along both axes.
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


def make_demo_inputs(
    folder: Path, seed: int = 0, client: Client | None = None, *, progress: bool = True
) -> tuple[LikelihoodFiles, Truth]:
    """Write two structures, particles of both as RELION writes them, and templates and image stacks
    made of these.

    Parameters
    ----------
    folder : Path
        Gets `structures/`, `relion/`, `templates/` and `particles/`; results will go to
        `likelihood/`.
    seed : int
    client : distributed.Client, optional
    progress : bool
    """
    structures = [folder / "structures" / f"{name}.pdb" for name in STRUCTURES]
    for path, opening in zip(structures, STRUCTURES.values(), strict=True):
        write_hinge(path, opening, seed)
    star = simulate_particles(
        structures,
        PARAMETERS,
        folder / "relion",
        n_images=N_STACKS * N_IMAGES_PER_STACK,
        signal_to_noise=SIGNAL_TO_NOISE,
        max_displacement_pixels=FARTHEST_PIXELS,
        seed=seed,
        project_folder=folder,
        overwrite=True,
        client=client,
        progress=progress,
    )
    files = configure_likelihood_files(
        folder / "templates",
        folder / "particles",
        folder / "likelihood",
        n_stacks=N_STACKS,
        i_template="all",
    )
    make_templates(
        structures,
        PARAMETERS,
        folder / "templates",
        overwrite=True,
        client=client,
        progress=progress,
    )
    convert_particles(
        star,
        folder / "templates" / PARAMETERS_FILE,
        folder / "particles",
        batch_size=N_IMAGES_PER_STACK,
        overwrite=True,
        client=client,
        progress=progress,
    )
    return files, read_truth(star)


def write_hinge(path: Path, opening_radian: float, seed: int = 0, n_residues: int = 140) -> None:
    """Write a small protein-like structure as PDB: two compact lobes of leucines, joined by a
    hinge.

    Parameters
    ----------
    path : Path
    opening_radian : float
        Angle by which the second lobe is turned about the hinge.
    seed : int
        Same seed, same lobes: structures that differ in `opening_radian` alone are conformations of
        one molecule.
    n_residues : int
        Residues in both lobes together.
    """
    rng = np.random.default_rng(seed)
    first = _lobe(n_residues // 2, np.array([19.0, 0.0, 0.0]), np.array([17.0, 10.0, 7.0]), rng)
    second = _lobe(
        n_residues - n_residues // 2, np.array([-15.0, 3.0, 0.0]), np.array([13.0, 11.0, 9.0]), rng
    )
    second = second @ viewing_rotation(opening_radian, 0.0).T
    chain = gemmi.Chain("A")
    # they share the residue of the hinge
    trace = np.array([*first[::-1], *second[1:]])
    for i, atoms in enumerate(_leucines(trace), start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "LEU", gemmi.SeqId(i, " ")
        for name, position in zip(LEUCINE, atoms, strict=True):
            atom = gemmi.Atom()
            atom.name, atom.element = name, gemmi.Element(name[0])
            atom.pos = gemmi.Position(*position.tolist())
            residue.add_atom(atom)
        chain.add_residue(residue)
    model, structure = gemmi.Model(1), gemmi.Structure()
    model.add_chain(chain)
    structure.add_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    structure.write_pdb(str(path))


def read_truth(star: Path) -> Truth:
    """Read the true structures and poses from the STAR file of simulated particles."""
    columns = open_columns(star, need_names=True)
    rot, tilt, psi = np.asarray(columns.together("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")).T
    x, y = -np.asarray(columns.together("rlnOriginXAngst", "rlnOriginYAngst")).T
    c, s = np.cos(psi), np.sin(psi)
    return Truth(
        structure=np.asarray(columns.integer("rlnClassNumber")) - 1,
        rotation=viewing_rotation(rot, tilt, psi),
        displacement_angstrom=np.stack([c * x - s * y, s * x + c * y]),
    )


def run_demo(
    files: LikelihoodFiles, truth: Truth, client: Client | None = None, *, progress: bool = True
) -> Outcome:
    """Run the likelihood of every image under both structures, and hold the results against the
    truth."""
    start = time.perf_counter()
    results = run_likelihood_optimal_pose(
        files,
        PARAMETERS,
        SEARCH,
        overwrite=True,
        client=client,
        progress=progress,
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
        pose_recovered=float(_pose_recovered(own, truth).mean()),
        structure_recovered=float((best.values == truth.structure).mean()),
        results=results,
    )


def _pose_recovered(own: xr.Dataset, truth: Truth) -> NDArray[np.bool_]:
    """Whether each pose is within one viewing distance of the truth, and within one pixel along
    both axes."""
    viewing = PARAMETERS.viewing_angles()
    template = own.optimal_template.values
    displacement = np.stack([own.optimal_displacement_x.values, own.optimal_displacement_y.values])
    rotation = viewing_rotation(
        viewing.azimuth[template], viewing.polar[template], own.optimal_inplane_rotation.values
    )
    trace = np.einsum("mij,mij->m", truth.rotation, rotation)
    near = np.arccos(np.clip((trace - 1) / 2, -1, 1)) <= PARAMETERS.viewing_distance
    near &= (
        np.abs(displacement - truth.displacement_angstrom) <= PARAMETERS.pixel_size_angstrom
    ).all(axis=0)
    return np.asarray(near, np.bool_)


def _leucines(trace: FloatArray) -> FloatArray:
    """Place the atoms of leucines about their C-alpha atoms, with bonds of about the right length.

    Parameters
    ----------
    trace : (residue, 3)

    Returns
    -------
    (residue, atom, 3)
        In the order of `LEUCINE`.
    """
    steps = np.diff(trace, axis=0, prepend=2 * trace[:1] - trace[1:2])
    after = np.vstack([steps[1:], steps[-1:]])
    along, before = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (after, steps))
    out = before - along
    # a straight chain has no outer side: any will do
    out += 1e-3 * np.cross(along, [1.0, 0.0, 0.0]) + 1e-3 * np.cross(along, [0.0, 1.0, 0.0])
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    side = np.cross(along, out)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    carbonyl, beta = trace + 1.52 * along, trace + 1.53 * out
    gamma = beta + 1.53 * (0.8 * out + 0.6 * side)
    places = [
        trace - 1.46 * before,
        trace,
        carbonyl,
        carbonyl + 1.23 * side,
        beta,
        gamma,
        gamma + 1.52 * (0.6 * out + 0.8 * along),
        gamma + 1.52 * (0.6 * out - 0.8 * along),
    ]
    return np.stack(places, axis=1)


def _lobe(n: int, centre: FloatArray, radii: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A chain of steps of 3.8 angstrom from the origin that fills an ellipsoid, keeping apart
    from itself."""
    chain = np.zeros((n, 3))
    for i in range(1, n):
        steps = rng.standard_normal((64, 3))
        candidates = chain[i - 1] + 3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True)
        outside = np.clip(np.linalg.norm((candidates - centre) / radii, axis=1) - 1, 0, None)
        distances = np.linalg.norm(candidates[:, None] - chain[: max(i - 1, 1)], axis=2)
        crowding = np.exp(-((distances / 5.0) ** 2)).sum(axis=1)
        chain[i] = candidates[np.argmin(crowding + 20 * outside)]
    return chain
