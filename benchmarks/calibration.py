"""Can probabilities be believed? Particles of two similar structures under many conditions, made by
an independent simulator and read from files as a user's are.

For each condition, at full and at half resolution: slope and intercept of the logistic regression
of the truth on the log-likelihood ratio, 1 and 0 where ratios are right; what miscalibration costs,
nat an image; and the estimate of a population of 0.30 of the first structure, from images of which
it is true. Poses lie off the grid of the search. Then the two conventions are compared, on images
that suit both.

Exits with 1 unless every row meets the bounds below, and enough rows hold the true population in
their 95% intervals. With --as-before (white noise, all degrees of freedom of the band, no envelope,
spheres for residues) it exits with 0 if the table sees it: white noise passes, and every condition
that is not what this supposes fails, at full resolution at least; one that meets the bounds is
asked how much it knows, and fails if probabilities of the truth lose more than the bound of the
cost against what the package finds now in the same images.

    python -m benchmarks.calibration [--images 3000] [--seed 0] [--conditions white "mask 0.45"]
        [--search adaptive --pixels 64]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import conventions
from benchmarks.independent_simulator import FloatArray, Molecule, falls_from
from benchmarks.scores import Calibration, Population, calibrate, population, with_population
from benchmarks.simulated_particles import CONDITIONS, Condition, simulate, variance_map
from benchmarks.simulated_structures import ATOMIC_B, Protein, protein, residues
from cryolike_dask import (
    Atoms,
    ImageParameters,
    ImageStack,
    NoiseModel,
    TemplateStack,
    compute_integrated_log_likelihood,
    estimate_noise,
    open_particles,
    open_structure,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.noise import ALL_IMAGES, MICROGRAPH
from cryolike_dask.labels import SearchMethod

ATOM_OPENINGS = (0.0, 28.0)
"""Degrees. The ratios then have a spread of 2 to 3 nat; so have those of residues."""
RESOLUTIONS = ("full", "half")
VIEWS = {"full": 0.25, "half": 0.3}
"""Distance of viewing directions, radian, for a structure of 15 angstrom; atoms reach further."""
STEPS = {"full": 0.36, "half": 0.5}
"""Longest step of displacements, pixels. At full resolution and the spread of ratios here, half a
pixel moves ratios by 0.1 (white noise) to 0.35 nat rms (coloured): a twentieth of the slope."""
SLOPE_BOUND, COST_BOUND, POPULATION_BOUND, LEAST_COVERAGE = 0.1, 0.005, 0.03, 0.85
"""Bounds of slope and population have two standard errors on top."""
SLOPE_BOUNDS = dict.fromkeys(("weak", "strong"), 0.05)
"""Of conditions that are plain: of white noise, and a signal of 0.05 or 0.35 of its power."""
POPULATION = 0.30
IMAGES_PER_TASK = 250


@dataclass(frozen=True)
class Approach:
    """How the package is asked.

    Attributes
    ----------
    noise : "estimate" | "true" | "white"
        Estimated from the images, told by the simulator, or none.
    before : bool
        As it was before it knew noise and atoms.
    finer : float
        How many times as finely to search as otherwise.
    search : "exhaustive" | "adaptive"
        Bands of fewer than 64 pixels are always compared whole.
    """

    noise: str = "estimate"
    before: bool = False
    finer: float = 1.0
    search: SearchMethod = "exhaustive"


@dataclass(frozen=True)
class Row:
    """What is found at one condition and resolution.

    Attributes
    ----------
    scores : (image,)
        Log-probability of what each image shows, nat.
    lost : float
        What probabilities of the truth have lost against those of another approach to the same
        images, nat an image, less two standard errors.
    """

    condition: Condition
    resolution: str
    seed: int
    calibration: Calibration
    population: Population
    seconds: float
    scores: FloatArray
    lost: float = 0.0

    @property
    def slope_bound(self) -> float:
        """How far from 1 the slope may be, but for its error."""
        return SLOPE_BOUNDS.get(self.condition.name, SLOPE_BOUND)

    def against(self, other: Row) -> Row:
        """The same, and what is lost against another approach."""
        gain = other.scores - self.scores
        return replace(self, lost=float(gain.mean() - 2 * gain.std() / np.sqrt(len(gain))))

    @property
    def wrong(self) -> list[str]:
        """The bounds that are not met."""
        c, p = self.calibration, self.population
        met = {
            "slope": abs(c.slope - 1) <= self.slope_bound + 2 * c.slope_error,
            "cost": c.cost <= COST_BOUND,
            "population": abs(p.value - POPULATION) <= POPULATION_BOUND + 2 * p.error,
            "information": self.lost <= COST_BOUND,
        }
        return [name for name, is_met in met.items() if not is_met]

    def __str__(self) -> str:
        c, p = self.calibration, self.population
        inside = "yes" if p.covers(POPULATION) else "no"
        return (
            f"{self.condition.name:<12}{self.resolution:<5}{self.seed:>4}"
            f"{c.slope:>7.3f} +- {c.slope_error:.3f}{c.intercept:>7.2f} +- {c.intercept_error:.2f}"
            f"{c.cost:>9.4f}{p.value:>7.3f} +- {p.error:.3f}{inside:>5}"
            f"{c.spread:>7.2f}{self.seconds:>6.0f}  {', '.join(self.wrong) or 'right'}"
        )


HEAD = (
    f"{'condition':<12}{'res.':<5}{'seed':>4}{'slope':>16}{'intercept':>15}{'cost':>9}"
    f"{'population':>16}{'95%':>5}{'spread':>7}{'s':>6}"
)


def measure(
    condition: Condition, resolution: str, n_images: int, seed: int, approach: Approach
) -> Row:
    """Simulate particles, compute the likelihood of each under both structures, and score it."""
    start = time.perf_counter()
    seeds = [seed, _number(condition), RESOLUTIONS.index(resolution)]
    with tempfile.TemporaryDirectory() as folder:
        found, truth = log_likelihood_ratios(
            condition, resolution, n_images, seeds, approach, Path(folder)
        )
    chosen = with_population(truth, POPULATION, np.random.default_rng([*seeds, 1]))
    return Row(
        condition,
        resolution,
        seed,
        calibrate(found, truth),
        population(found[chosen]),
        time.perf_counter() - start,
        -np.logaddexp(0, np.where(truth, -found, found)),
    )


def log_likelihood_ratios(
    condition: Condition,
    resolution: str,
    n_images: int,
    seeds: list[int],
    approach: Approach,
    folder: Path,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Ratios of the first structure to the second, and which images show the first."""
    images, templates, is_first = opened(condition, resolution, n_images, seeds, approach, folder)
    noise = noise_of(condition, images, templates, approach)
    return ratios(images, templates, noise, approach.search), is_first


def opened(
    condition: Condition,
    resolution: str,
    n_images: int,
    seeds: list[int],
    approach: Approach,
    folder: Path,
) -> tuple[ImageStack, list[TemplateStack], NDArray[np.bool_]]:
    """Simulated particles in files, templates of both structures with their displacements, and
    which images show the first."""
    structures: Any = (
        tuple(protein(opening) for opening in ATOM_OPENINGS)
        if condition.atoms
        else tuple(residues(opening) for opening in (0.0, condition.opening))
    )
    molecules = [s.scattering(ATOMIC_B) if condition.atoms else s for s in structures]
    particles = simulate(condition, (molecules[0], molecules[1]), n_images, seeds)
    parameters = parameters_of(condition, resolution, approach)
    images = open_particles(
        particles.write(folder / "particles"), parameters, batch_size=IMAGES_PER_TASK
    )
    search = search_of(condition, resolution, approach)
    templates = [
        search(templates_of(structure, parameters, folder / f"{number}.pdb"))
        for number, structure in enumerate(structures)
    ]
    return images, templates, particles.is_first


def ratios(
    images: ImageStack,
    templates: list[TemplateStack],
    noise: NoiseModel | None,
    search: SearchMethod = "exhaustive",
) -> FloatArray:
    """Log-likelihood ratios of the first structure to the second."""
    first, second = (
        compute_integrated_log_likelihood(images, stack, noise=noise, search=search)
        .log_likelihood_integrated.compute()
        .values
        for stack in templates
    )
    difference: FloatArray = first - second
    return difference


def parameters_of(condition: Condition, resolution: str, approach: Approach) -> ImageParameters:
    """The grid of images, and how templates are made."""
    n = condition.n_pixels
    views = (
        VIEWS[resolution] * (0.75 if condition.atoms else 1) / (approach.finer * condition.finer)
    )
    atoms: dict[str, Any] = {"atom_shape": "scattering", "atomic_b": ATOMIC_B}
    return ImageParameters(
        n,
        condition.pixel_size,
        n / 4 / (1 if resolution == "full" else 2),
        viewing_distance=views,
        precision="single",
        **(atoms if condition.atoms and not approach.before else {}),
    )


def search_of(condition: Condition, resolution: str, approach: Approach) -> DisplacementSearch:
    """Displacements, each in the middle of those that it stands for; an odd number along each axis,
    so that none is tried twice."""
    largest = condition.largest_displacement / condition.pixel_size
    n = int(np.ceil(2 * largest / STEPS[resolution] * approach.finer * condition.finer - 1e-6)) | 1
    return DisplacementSearch(largest * (1 - 1 / n), n, n)


def templates_of(
    structure: Molecule | Protein, parameters: ImageParameters, path: Path
) -> TemplateStack:
    """Templates of residues as they are, or of atoms in a file."""
    if isinstance(structure, Protein):
        structure.write(path, ATOMIC_B)
        return open_structure(path, parameters)
    atoms = Atoms(structure.positions, structure.weights[:, 0], np.sqrt(structure.variances[:, 0]))
    return open_structure(atoms, parameters)


def noise_of(
    condition: Condition,
    images: ImageStack,
    templates: list[TemplateStack],
    approach: Approach,
) -> NoiseModel | None:
    """The noise model of an approach; None: white."""
    if approach.before or approach.noise == "white":
        return None
    if approach.noise == "estimate":
        return estimate_noise(images, templates, fit_b_factor=True)
    f = np.linspace(0, 0.5 / condition.pixel_size, 200)
    several = len(condition.spectra) > 1
    model = NoiseModel.of_spectrum(
        f,
        np.stack([spectrum(f) for spectrum in condition.spectra]),
        images.grid,
        [f"{MICROGRAPH}{i:04d}.mrc" for i in range(len(condition.spectra))]
        if several
        else [ALL_IMAGES],
    )
    v = variance_map(condition)
    every = np.ones(len(model))
    untouched = np.inf
    if condition.low_pass is not None:
        untouched = falls_from(condition.n_pixels, condition.pixel_size, condition.low_pass)
    return replace(
        model,
        share=every * v.sum() ** 2 / (v.size * (v**2).sum()),
        band_limit=every * untouched,
        b_factor_angstrom2=every * condition.b_factor,
    )


def judged(rows: list[Row], approach: Approach) -> bool:
    """Say whether rows are as they should be."""
    covered = sum(row.population.covers(POPULATION) for row in rows)
    print(f"{covered} of {len(rows)} rows hold the population in their 95% interval")
    print(f"{sum(r.calibration.covers for r in rows)} of {len(rows)} hold the slope of 1 in theirs")
    if not approach.before:
        return covered >= LEAST_COVERAGE * len(rows) and not any(row.wrong for row in rows)
    seen = [bool(r.wrong) is not r.condition.is_plain for r in rows if r.resolution == "full"]
    print(f"{sum(seen)} of {len(seen)} conditions at full resolution are seen for what they are")
    return all(seen)


def _number(condition: Condition) -> int:
    return [c.name for c in CONDITIONS].index(condition.name)


def main() -> int:
    """Print the tables, and say whether they are as they should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    names = [condition.name for condition in CONDITIONS]
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conditions", nargs="*", default=[*names, "conventions"])
    parser.add_argument("--resolutions", nargs="*", default=RESOLUTIONS, choices=RESOLUTIONS)
    parser.add_argument("--noise", choices=["estimate", "true", "white"], default="estimate")
    parser.add_argument("--as-before", action="store_true")
    parser.add_argument("--finer", type=float, default=1.0, help="times as finely searched")
    parser.add_argument("--search", choices=["exhaustive", "adaptive"], default="exhaustive")
    parser.add_argument("--pixels", type=int, default=0, help="of a box, in place of 32 and 40")
    arguments = parser.parse_args()
    unknown = {*arguments.conditions} - {*names, "conventions"}
    if unknown:
        parser.error(f"conditions {sorted(unknown)} are not among {names} and conventions")
    approach = Approach(arguments.noise, arguments.as_before, arguments.finer, arguments.search)
    print(f"{arguments.images} images a row, {approach}")
    rows = []
    as_expected = True
    if {*arguments.conditions} & {*names}:
        print(HEAD, flush=True)
        for condition in CONDITIONS:
            for resolution in arguments.resolutions:
                if condition.name in arguments.conditions:
                    in_box = replace(condition, n_pixels=arguments.pixels or condition.n_pixels)
                    case = in_box, resolution, arguments.images, arguments.seed
                    row = measure(*case, approach)
                    if approach.before and not condition.is_plain and not row.wrong:
                        row = row.against(measure(*case, replace(approach, before=False)))
                    rows.append(row)
                    print(row, flush=True)
        as_expected = judged(rows, approach)
    if "conventions" in arguments.conditions and not arguments.as_before:
        as_expected &= conventions.compare(arguments.images, arguments.seed)
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
