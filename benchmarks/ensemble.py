"""Shares of a published ensemble from images in unknown poses, against those in known poses.

Ten structures of chignolin, and the 5277 frames of a simulation that are published with them (Tang
et al., J. Phys. Chem. B 127, 5410 (2023)). One image is drawn of each frame by the benchmarks' own
simulator, as there: 128 pixels of 0.2 angstrom, a Gaussian of 1.5 angstrom for
each C-alpha, no contrast transfer, white noise of as much power as the particle; in a random
orientation, and displaced a little if that is asked for, off all grids.

The package is told no pose: it compares each image with projections of all structures over all
directions, rotations and displacements, in a quarter of the band, which holds all of the signal.
Directions are laid twice as densely until no share moves by a standard deviation. Beside it stand
shares with nothing of the package, from `ensemble_witness`, of the same images, the structures
lying on the frames as published:

    known noise     likelihoods at the true poses, over all pixels, of noise of known level
    known poses     the same of a level that is not known, in the same part of the band
    near them       the latter, integrated over poses near the true ones

Frames are none of the structures, so that a structure fits an image better in a pose a little off
that of the frame; only the last witness, which lets it, is of the same likelihood as the package,
unless the images are of the structures themselves (--of structures: each of the one that is
nearest to its frame).

Exits with 1 if a share differs by more than three standard deviations from that of poses near the
true ones.

    python -m benchmarks.ensemble FOLDER [--of frames] [--frames 5277] [--views 0.4 0.2 0.1]
        [--shift 0.2 --displacements 3]

FOLDER holds image.pdb, image.xtc, struc.pdb and struc_m10.xtc.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

import cryolike_dask as cld
from benchmarks.ensemble_witness import Band, Fit, of_known_noise
from benchmarks.independent_simulator import (
    FloatArray,
    Molecule,
    StarPoses,
    project,
    random_poses,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.projection import project as projections

N_PIXELS, PIXEL_SIZE, SPREAD = 128, 0.2, 1.5
SIGNAL_TO_NOISE = 1.0
RESOLUTION_FACTOR = 0.25
N_INPLANES = 160
"""Twice the angular frequencies that a box has at this band limit, and some more."""
AT_ONCE = 500
WITHIN_SD = 3.0
KNOWN_NOISE, KNOWN_POSES, NEAR = "known noise", "known poses", "near them"


def positions(topology: Path, trajectory: Path) -> FloatArray:
    """Of the C-alphas of all frames, angstrom, (frame, atom, 3)."""
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the file does not say of elements and masses
        universe = MDAnalysis.Universe(str(topology), str(trajectory))
    chosen = universe.select_atoms("name CA")
    return np.array([chosen.positions.astype(np.float64) for _ in universe.trajectory])


def molecule(of: FloatArray) -> Molecule:
    """Gaussians that are all alike."""
    ones = np.ones((len(of), 1))
    return Molecule(of, ones, SPREAD**2 * ones)


def simulate(frames: FloatArray, poses: StarPoses, seed: int) -> tuple[FloatArray, float]:
    """An image of each frame, (image, row, column), and the standard deviation of the noise."""
    images = np.concatenate(
        [
            project(molecule(frame), poses[i : i + 1], N_PIXELS, PIXEL_SIZE)
            for i, frame in enumerate(frames)
        ]
    )
    level = float(np.sqrt((images**2).mean() / SIGNAL_TO_NOISE))
    noise = np.random.default_rng([seed, 1]).standard_normal(images.shape)
    return images + level * noise, level


def witnesses(
    images: FloatArray, level: float, structures: FloatArray, poses: StarPoses, shift: float
) -> dict[str, FloatArray]:
    """Log-likelihoods at the true poses and near them, each (image, structure)."""
    band = Band(N_PIXELS, PIXEL_SIZE, RESOLUTION_FACTOR / (2 * PIXEL_SIZE), SPREAD)
    shape = len(images), len(structures)
    found = {name: np.empty(shape) for name in (KNOWN_NOISE, KNOWN_POSES, NEAR)}
    molecules = [molecule(structure) for structure in structures]
    for i, image in enumerate(images):
        pose = poses[i : i + 1]
        found[KNOWN_NOISE][i] = of_known_noise(image, level, molecules, pose, PIXEL_SIZE)
        for j, structure in enumerate(structures):
            fit = Fit.of(image, band, structure, pose)
            found[KNOWN_POSES][i, j] = fit.at_the_true_pose()
            found[NEAR][i, j] = fit.integrated(displaced=shift > 0)
    return found


def nearest(frames: FloatArray, structures: FloatArray) -> FloatArray:
    """The structure that lies nearest to each frame, in its place."""
    centred = [x - x.mean(axis=1, keepdims=True) for x in (frames, structures)]
    squared = [((centred[0] - one) ** 2).sum(axis=(1, 2)) for one in centred[1]]
    chosen: FloatArray = structures[np.argmin(squared, axis=0)]
    return chosen


def in_all_poses(
    images: FloatArray, structures: FloatArray, views: float, shift: float, n_displacements: int
) -> tuple[FloatArray, int]:
    """Log-likelihoods that the package integrates over all poses, (image, structure), and the
    number of directions."""
    parameters = cld.ImageParameters(
        N_PIXELS,
        PIXEL_SIZE,
        RESOLUTION_FACTOR * N_PIXELS / 4,
        N_INPLANES,
        precision="single",
        viewing_distance=views,
    )
    no_transfer = optics_table(
        len(images),
        defocus_u_angstrom=0.0,
        defocus_v_angstrom=0.0,
        defocus_angle_radian=0.0,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=0.0,
        amplitude_contrast=1.0,
    )
    values = np.concatenate(
        [
            normalised_stack(images[start : start + AT_ONCE], parameters.grid).astype(np.complex64)
            for start in range(0, len(images), AT_ONCE)
        ]
    )
    stack = cld.ImageStack.from_array(values, parameters, no_transfer).chunk(AT_ONCE)
    largest = shift / PIXEL_SIZE * (1 - 1 / n_displacements)
    search = DisplacementSearch(largest, n_displacements, n_displacements)
    viewing = parameters.viewing_angles()
    found = []
    for structure in structures:
        n_atoms = len(structure)
        atoms = cld.Atoms(structure, np.ones(n_atoms), np.full(n_atoms, SPREAD))
        templates = cld.TemplateStack.from_array(
            projections(atoms, parameters.grid, viewing, precision="single"), parameters, viewing
        )
        of = cld.compute_integrated_log_likelihood(stack, search(templates), device="cpu")
        found.append(of.log_likelihood_integrated.compute(scheduler="synchronous").values)
    return np.stack(found, axis=1), len(viewing)


def shares(log_likelihood: FloatArray) -> xr.Dataset:
    """Shares of structures, from (image, structure)."""
    names = np.array([f"{j}" for j in range(log_likelihood.shape[1])], object)
    matrix = ("structure", "image"), log_likelihood.T
    coords = {"structure": names, "image": np.arange(len(log_likelihood))}
    results = xr.Dataset({"log_likelihood_integrated": matrix}, coords)
    return cld.populations(results, n_bootstrap=0)


def row(what: str, found: xr.Dataset, seconds: float) -> str:
    """Shares in per cent, each with its standard deviation."""
    values = zip(found.population.values, found.population_sd.values, strict=True)
    return (
        f"{what:<22}"
        + "".join(f"{100 * p:6.2f}({100 * sd:.2f})" for p, sd in values)
        + (f"{seconds:>7.0f}")
    )


def main() -> int:
    """Print shares, and say whether they are the same."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", choices=["frames", "structures"], default="frames")
    parser.add_argument("--frames", type=int, default=0, help="evenly chosen; default: all")
    parser.add_argument("--views", type=float, nargs="*", default=[0.4, 0.2, 0.1])
    parser.add_argument("--shift", type=float, default=0.2, help="largest along x and y, angstrom")
    parser.add_argument("--displacements", type=int, default=3, help="along x and y")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shift, n_displacements = arguments.shift, arguments.displacements if arguments.shift else 1
    frames = positions(arguments.folder / "image.pdb", arguments.folder / "image.xtc")
    structures = positions(arguments.folder / "struc.pdb", arguments.folder / "struc_m10.xtc")
    if arguments.frames:
        frames = frames[np.linspace(0, len(frames) - 1, arguments.frames).astype(int)]
    if arguments.of == "structures":
        frames = nearest(frames, structures)
    rng = np.random.default_rng([arguments.seed, 0])
    poses = random_poses(len(frames), shift, rng)
    images, level = simulate(frames, poses, arguments.seed)
    print(
        f"{len(frames)} images of {arguments.of}, displaced by up to {shift:g} angstrom and "
        f"searched at {n_displacements**2} displacements; shares in % (standard deviations)"
    )
    print(f"{'structure':<22}" + "".join(f"{j:>12}" for j in range(len(structures))) + "  CPU s")
    start, at_known = time.process_time(), {}
    for name, values in witnesses(images, level, structures, poses, shift).items():
        at_known[name] = shares(values)
        print(row(name, at_known[name], time.process_time() - start), flush=True)
    found = None
    for views in arguments.views:
        start, before = time.process_time(), found
        values, n = in_all_poses(images, structures, views, shift, n_displacements)
        found = shares(values)
        print(row(f"{views:g} rad, {n} views", found, time.process_time() - start), flush=True)
        if before is not None:
            moved = abs(found.population - before.population) / found.population_sd
            print(f"moved by at most {float(moved.max()):.2f} standard deviations", flush=True)
            if moved.max() < 1:
                break
    if found is None:
        return 0
    off = {
        name: ((found.population - of.population) / of.population_sd).values
        for name, of in at_known.items()
    }
    for name, values in off.items():
        print(f"{f'less {name}, in sd':<22}" + "".join(f"{x:>12.2f}" for x in values))
    as_expected = bool((abs(off[NEAR]) <= WITHIN_SD).all())
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
