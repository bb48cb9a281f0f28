"""A search coarse to fine against one of everything in the same steps: how near both are to the
truth, and what they cost.

Particles of structures made as code are drawn by the benchmarks' own simulator, off all grids:
elongated, globular, and pseudo-symmetric ones (two halves alike but for some residues). For some of
the images the truth is computed: in a quarter of the steps (of strong signals a sixteenth), two
pixels (one) about the best displacement of each view that lies within 25 nat of the best one, and
what a search of everything finds beyond. Printed are how far integrated log-likelihoods are from
it, nat, and their ratios to those under a similar structure (root mean square and largest); the
largest part of an image's posterior in views that the search leaves out; poses that are compared,
of all of them; and CPU seconds of both searches of all images, on one thread.

    python -m benchmarks.search [--pixels 64 132] [--signal-to-noise 0.03 0.1 0.5]
        [--shapes elongated globular pseudo-symmetric] [--noise white coloured]
        [--images 128] [--true 32] [--largest-pixels 4]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from benchmarks.independent_simulator import (
    Coloured,
    FloatArray,
    Molecule,
    Spectrum,
    StarPoses,
    about_z,
    draw_noise,
    matched_power,
    random_optics,
    random_poses,
    render,
    white,
)
from cryolike_dask import (
    Atoms,
    ImageParameters,
    ImageStack,
    NoiseModel,
    TemplateStack,
    compute_optimal_displacement_and_rotation,
    compute_optimal_pose,
)
from cryolike_dask.geometry.displacements import DisplacementGrid, DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.labels import SearchMethod
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.search.adaptive import wanted_in_whole_band
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.projection import project

AXES = {"elongated": (23.0, 11.0, 9.0), "globular": (13.0, 12.5, 12.0)}
"""Spread of residues along principal axes, angstrom: radii of gyration of 27 and 22."""
PSEUDO_SYMMETRIC = "pseudo-symmetric"
OWN_PART = 0.1
"""Of the residues of its halves, which one does not share with the other."""
N_RESIDUES, SPREAD, ELECTRONS = 400, 2.0, 60.0
OPENING = 8.0
"""Degrees that the second structure's half is turned by."""
PIXEL_SIZE = 2.0
LARGEST_SHIFT_PIXELS = 3.0
VIEWS = {44: 0.2, 64: 0.15, 132: 0.12}
STEP = 0.5
"""Pixels, of both searches."""
WITHIN_NAT = 25.0
"""Below the best view, of those whose truth is computed in finer steps."""
STRONG, FINE = 0.2, ((4, 2.0), (16, 1.0))
"""The signal-to-noise ratio from which on peaks are narrow; parts of a step of the truth, and
pixels about a peak, below and above it."""
SPECTRA: dict[str, Spectrum] = {"white": white, "coloured": Coloured()}


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    n_pixels: int
    shape: str
    noise: str
    signal_to_noise: float
    largest_pixels: float

    @property
    def parameters(self) -> ImageParameters:
        """Images and views."""
        return ImageParameters(
            self.n_pixels, PIXEL_SIZE, viewing_distance=VIEWS[self.n_pixels], precision="single"
        )

    @property
    def displacements(self) -> DisplacementSearch:
        """What is searched."""
        n = round(2 * self.largest_pixels / STEP) + 1
        return DisplacementSearch(self.largest_pixels, n, n)

    @property
    def parts(self) -> int:
        """Of a step, in the truth."""
        return FINE[self.signal_to_noise >= STRONG][0]

    @property
    def about_pixels(self) -> float:
        """How far about a peak the truth is computed."""
        return FINE[self.signal_to_noise >= STRONG][1]

    @property
    def noise_model(self) -> NoiseModel | None:
        """The spectrum that the noise has."""
        if self.noise == "white":
            return None
        grid = self.parameters.grid
        frequencies = np.linspace(0, 0.5 / PIXEL_SIZE, 200)
        return NoiseModel.of_spectrum(frequencies, SPECTRA[self.noise](frequencies), grid)


def structure(shape: str, opening: float) -> FloatArray:
    """Positions of residues, half of them turned, (residue, 3)."""
    rng = np.random.default_rng(1)
    if shape == PSEUDO_SYMMETRIC:
        half = rng.standard_normal((N_RESIDUES // 2, 3)) * (9.0, 10.0, 14.0) + (14.0, 0, 0)
        other = half * (-1, -1, 1)  # turned by half about z
        own = rng.random(len(half)) < OWN_PART
        other[own] += rng.normal(0, 6.0, (own.sum(), 3))
        positions = np.concatenate([half, other])
    else:
        positions = rng.standard_normal((N_RESIDUES, 3)) * AXES[shape]
    turned = positions[:, 0] > 0
    positions[turned] = positions[turned] @ about_z(np.float64(opening))
    return positions - positions.mean(axis=0)


def images_of(
    positions: FloatArray,
    poses: StarPoses,
    parameters: ImageParameters,
    signal_to_noise: float,
    rng: np.random.Generator,
    spectrum: Spectrum = white,
) -> ImageStack:
    """Particles in some poses, of as much power over the noise as white noise of the
    signal-to-noise ratio of pixels leaves them."""
    n_pixels, pixel = parameters.n_pixels, parameters.grid.pixel_size_angstrom
    n, optics = len(poses), random_optics(len(poses), (6000, 15000), rng)
    ones = np.ones((N_RESIDUES, 1))
    molecule = Molecule(positions, ELECTRONS * ones, SPREAD**2 * ones)
    pixels = render(molecule, poses, optics, n_pixels, pixel)
    wanted = signal_to_noise * n_pixels**2
    level = np.sqrt(matched_power(pixels, pixel, spectrum) / wanted)
    pixels += level * draw_noise(n, n_pixels, pixel, spectrum, rng)
    columns: dict[str, Any] = {name: optics[name] for name in optics.dtype.names}
    values = normalised_stack(pixels, parameters.grid).astype(np.complex64)
    return ImageStack.from_array(values, parameters, optics_table(n, **columns))


def atoms_of(positions: FloatArray) -> Atoms:
    """A Gaussian for each residue."""
    return Atoms(positions, np.full(N_RESIDUES, ELECTRONS), np.full(N_RESIDUES, SPREAD))


def templates_of(positions: FloatArray, parameters: ImageParameters) -> TemplateStack:
    """Projections, in memory."""
    viewing = parameters.viewing_angles()
    values = project(atoms_of(positions), parameters.grid, viewing).astype(np.complex64)
    return TemplateStack.from_array(values, parameters, viewing)


def searched(
    images: ImageStack, templates: TemplateStack, noise: NoiseModel | None, search: SearchMethod
) -> tuple[xr.Dataset, float]:
    """Best poses and likelihoods, and CPU seconds."""
    start = time.process_time()
    found = compute_optimal_pose(images, templates, noise=noise, device="cpu", search=search)
    return found.compute(), time.process_time() - start


def compared(
    images: ImageStack, templates: TemplateStack, noise: NoiseModel | None
) -> NDArray[np.bool_]:
    """Which views an adaptive search compares in the whole band, (image, view)."""
    settings = Settings(device="cpu", noise=noise, search="adaptive")
    return wanted_in_whole_band(ComparisonGraph(images, templates, settings, discover_tiles=False))


def truth(images: ImageStack, templates: TemplateStack, case: Case) -> NDArray[np.float64]:
    """Log-likelihoods integrated over the poses of each view, prior included, of few images,
    (image, view)."""
    prior = np.log(templates.viewing.weight / templates.viewing.weight.sum())
    prior -= np.log(len(templates.displacements) * templates.grid.n_inplanes)
    everywhere = pairs(images, templates, case)
    logs = everywhere.log_likelihood.values + prior
    x = everywhere.optimal_displacement_x.values
    y = everywhere.optimal_displacement_y.values
    for i in range(len(images)):
        left = np.flatnonzero(logs[i] > logs[i].max() - WITHIN_NAT)
        left = left[np.argsort(-logs[i, left])]
        while len(left):
            middle = x[i, left[0]], y[i, left[0]]
            far = np.maximum(abs(x[i, left] - middle[0]), abs(y[i, left] - middle[1]))
            near = left[far <= case.about_pixels * PIXEL_SIZE / 2 + 1e-6]
            inside = []
            for parts in (1, case.parts):
                about = replace(
                    templates,
                    source=templates.source.subset(near),
                    viewing=templates.viewing.take(near),
                    displacements=_about(middle, parts, case, templates.displacements),
                )
                found = pairs(images[i : i + 1], about, case).log_likelihood.values[0]
                inside.append(found + prior[near] - 2 * np.log(parts))
            # beyond, what the search of everything finds
            part = np.minimum(np.exp(inside[0] - logs[i, near]), 1 - 1e-12)
            logs[i, near] = np.logaddexp(inside[1], logs[i, near] + np.log1p(-part))
            left = np.setdiff1d(left, near, assume_unique=True)
    return logs


def pairs(images: ImageStack, templates: TemplateStack, case: Case) -> xr.Dataset:
    """Each image under each template, summed over displacements and rotations."""
    return compute_optimal_displacement_and_rotation(
        images, templates, noise=case.noise_model, device="cpu"
    ).compute()


def _about(
    middle: tuple[float, float], parts: int, case: Case, search: DisplacementGrid
) -> DisplacementGrid:
    """Displacements about one, in parts of a step, those of the search alone."""
    n = round(case.about_pixels / STEP) * parts
    steps = np.arange(-n, n + 1) * (STEP * PIXEL_SIZE / parts)
    limit = abs(search.x_angstrom).max() + 1e-6
    x, y = (along[abs(along) <= limit] for along in (one + steps for one in middle))
    return DisplacementGrid(np.tile(x, len(y)), np.repeat(y, len(x)))


def measure(case: Case, n_images: int, n_true: int) -> str:
    """One row of the table."""
    noise = case.noise_model
    positions = [structure(case.shape, opening) for opening in (0.0, OPENING)]
    parameters, rng = case.parameters, np.random.default_rng(0)
    stacks = [case.displacements(templates_of(one, parameters)) for one in positions]
    poses = random_poses(n_images, LARGEST_SHIFT_PIXELS * PIXEL_SIZE, rng)
    images = images_of(
        positions[0], poses, parameters, case.signal_to_noise, rng, SPECTRA[case.noise]
    )
    some = images[:n_true]
    searched(images[:2], stacks[0], noise, "adaptive")  # compiles
    of_views = [truth(some, stack, case) for stack in stacks]
    true = [logsumexp(logs, axis=1) for logs in of_views]
    posterior = np.exp(of_views[0] - true[0][:, None])
    missed = np.where(compared(some, stacks[0], noise), 0, posterior).sum(axis=1)
    row = f"{case.n_pixels:>4} {case.shape:<17}{case.noise:<9}{case.signal_to_noise:>5g}"
    row += f"{len(stacks[0]):>6}"
    seconds, poses = [], np.zeros(())
    for search in ("adaptive", "exhaustive"):
        found, took = searched(images, stacks[0], noise, search)
        other, _ = searched(some, stacks[1], noise, search)
        seconds.append(took)
        off = found.log_likelihood_integrated.values[:n_true] - true[0]
        ratio = off - (other.log_likelihood_integrated.values - true[1])
        row += f"{_rms(off):>8.3f}{abs(off).max():>8.3f}{_rms(ratio):>8.3f}{abs(ratio).max():>8.3f}"
        if search == "adaptive":
            poses = found.n_poses_compared.values
    n_poses = len(stacks[0]) * len(stacks[0].displacements) * stacks[0].grid.n_inplanes
    row += f"{missed.max():>9.0e}{np.mean(poses) / n_poses:>8.2%}"
    return f"{row}{seconds[0]:>8.1f}{seconds[1]:>9.1f}{seconds[1] / seconds[0]:>7.1f}x"


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


def main() -> None:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--pixels", type=int, nargs="*", default=[64], choices=sorted(VIEWS))
    shapes = [*AXES, PSEUDO_SYMMETRIC]
    parser.add_argument("--shapes", nargs="*", default=shapes, choices=shapes)
    parser.add_argument("--noise", nargs="*", default=list(SPECTRA), choices=list(SPECTRA))
    parser.add_argument("--signal-to-noise", type=float, nargs="*", default=[0.03, 0.1, 0.5])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--true", type=int, default=32, help="images that the truth is computed of")
    parser.add_argument("--largest-pixels", type=float, default=4.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dask.config.set(scheduler="synchronous")
    print("nat off the truth: rms, largest; the same of ratios of two structures")
    print(
        f"{'box':>4} {'shape':<17}{'noise':<9}{'SNR':>5}{'views':>6}{'adaptive':>32}"
        f"{'everything':>32}{'missed':>9}{'poses':>8}{'CPU seconds of both':>24}",
        flush=True,
    )
    for n_pixels in arguments.pixels:
        for shape in arguments.shapes:
            for noise in arguments.noise:
                for ratio in arguments.signal_to_noise:
                    case = Case(n_pixels, shape, noise, ratio, arguments.largest_pixels)
                    print(measure(case, arguments.images, arguments.true), flush=True)


if __name__ == "__main__":
    main()
