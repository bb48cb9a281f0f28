"""Do intervals of 95% hold the shares of structures? Mixtures whose shares are drawn from the prior
that is used, and particles of these that are drawn anew for each, by the benchmarks' own simulator.

A mixture has two or five structures, its shares are drawn from the flat Dirichlet distribution, and
each of its images shows one of the structures by these probabilities, in a pose off all grids. Its
signal-to-noise ratio is drawn between 0.05 and 0.2 (evenly in its logarithm; power of particles
over that of the noise, as well seen as in white noise of that ratio). The noise is white, and taken
as white; or coloured, with the spectrum given, or estimated from the images as a run does.

Printed is which part of the true shares, those by which images were drawn, lies in the intervals of
the posterior and in those of the curvature of the likelihood; with counting errors, by mixtures,
whose shares are not independent. Structures that are nearly absent, with a true share below 1%, are
judged by the upper limit as well. The last columns are the mean square of the error over the stated
variance, and the mean error of the first structure, in standard deviations.

Exits with 1 if the posterior's intervals hold other than 91 to 99% of all shares.

    python -m benchmarks.coverage [--mixtures 200] [--images 500] [--seed 0] [--finer 1]
        [--minutes 20]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import cryolike_dask as cld
from benchmarks.independent_simulator import (
    Coloured,
    FloatArray,
    Spectrum,
    draw_noise,
    matched_power,
    random_optics,
    random_poses,
    render,
    white,
)
from benchmarks.simulated_structures import residues
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.io.sources import InMemory
from cryolike_dask.particles.transform import stack_and_rings

N_PIXELS, PIXEL_SIZE = 24, 4.0
OPENINGS = {2: (0.0, 60.0), 5: (0.0, 30.0, 60.0, 90.0, 120.0)}
"""Degrees by which the second lobe of each structure is turned."""
RATIOS = (0.05, 0.2)
LARGEST_SHIFT = 1.0
"""Angstrom, along x and y."""
DEFOCUS = (5000.0, 10000.0)
BAND, VIEWS, STEP = 2 / 3, 0.35, 0.2
"""Part of the band, distance of views in radian, and longest step in pixels: with half a pixel, one
displacement stood for all, and shares of the first structure were 1.5 +- 0.3 standard deviations
too small."""
COLOURED = Coloured()
NOISES: tuple[tuple[str, Spectrum], ...] = (
    ("white", white),
    ("coloured, given", COLOURED),
    ("coloured, estimated", COLOURED),
)
NEARLY_ABSENT = 0.01
INTENDED, WITHIN = 0.95, 0.04


@dataclass(frozen=True, eq=False)
class Templates:
    """Of all structures, with what is searched."""

    parameters: cld.ImageParameters
    stacks: dict[float, cld.TemplateStack]

    @classmethod
    def made(cls, finer: float) -> Templates:
        """So many times as finely as otherwise."""
        parameters = cld.ImageParameters(
            N_PIXELS,
            PIXEL_SIZE,
            BAND * N_PIXELS / 4,
            precision="single",
            viewing_distance=VIEWS / finer,
        )
        largest = LARGEST_SHIFT / PIXEL_SIZE
        n = int(np.ceil(2 * largest / STEP * finer - 1e-6)) | 1
        search = DisplacementSearch(largest * (1 - 1 / n), n, n)
        stacks = {}
        for opening in sorted({one for of in OPENINGS.values() for one in of}):
            molecule = residues(opening)
            spreads = np.sqrt(molecule.variances[:, 0])
            atoms = cld.Atoms(molecule.positions, molecule.weights[:, 0], spreads)
            values = cld.open_structure(atoms, parameters).data.compute(scheduler="synchronous")
            stacks[opening] = search(cld.TemplateStack.from_array(values, parameters))
        return cls(parameters, stacks)


@dataclass(frozen=True, eq=False)
class Mixture:
    """What was true of a mixture, and what was found.

    Attributes
    ----------
    noise : str
    signal_to_noise : float
    shares, found, sd : (structure,)
    interval, by_curvature : (structure, 2)
    """

    noise: str
    signal_to_noise: float
    shares: FloatArray
    found: FloatArray
    sd: FloatArray
    interval: FloatArray
    by_curvature: FloatArray

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which shares the posterior's intervals hold."""
        return _inside(self.shares, self.interval)

    @property
    def covered_by_curvature(self) -> NDArray[np.bool_]:
        """Which those of the curvature hold."""
        return _inside(self.shares, self.by_curvature)


def _inside(shares: FloatArray, interval: FloatArray) -> NDArray[np.bool_]:
    low, high = interval.T
    inside: NDArray[np.bool_] = (low <= shares) & (shares <= high)
    return inside


def measure(number: int, n_images: int, seed: int, templates: Templates) -> Mixture:
    """Draw a mixture and its images, and estimate its shares."""
    rng = np.random.default_rng([seed, number])
    openings = OPENINGS[(2, 5)[number % 2]]
    noise, spectrum = NOISES[number // 2 % len(NOISES)]
    signal_to_noise = float(np.exp(rng.uniform(*np.log(RATIOS))))
    shares = rng.dirichlet(np.ones(len(openings)))
    images = draw(openings, shares, n_images, signal_to_noise, spectrum, templates.parameters, rng)
    stacks = [templates.stacks[opening] for opening in openings]
    model = None
    if noise == "coloured, given":
        f = np.linspace(0, 0.5 / PIXEL_SIZE, 200)
        model = cld.NoiseModel.of_spectrum(f, spectrum(f), images.grid)
    elif noise == "coloured, estimated":
        model = cld.estimate_noise(images, stacks)
    values = np.stack(
        [
            cld.compute_integrated_log_likelihood(images, stack, noise=model, device="cpu")
            .log_likelihood_integrated.compute(scheduler="synchronous")
            .values
            for stack in stacks
        ]
    )
    results = xr.Dataset(
        {"log_likelihood_integrated": (("structure", "image"), values)},
        {"structure": np.array([f"{x:g}" for x in openings], object), "image": range(n_images)},
    )
    found = cld.populations(results, n_bootstrap=0)
    curvature = cld.populations(results, n_bootstrap=0, draw=False)
    return Mixture(
        noise,
        signal_to_noise,
        shares,
        found.population.values,
        found.population_sd.values,
        found.population_interval.values,
        curvature.population_interval.values,
    )


def draw(
    openings: tuple[float, ...],
    shares: FloatArray,
    n: int,
    signal_to_noise: float,
    spectrum: Spectrum,
    parameters: cld.ImageParameters,
    rng: np.random.Generator,
) -> cld.ImageStack:
    """Images of a mixture, in memory."""
    shows = rng.choice(len(openings), n, p=shares)
    poses, optics = random_poses(n, LARGEST_SHIFT, rng), random_optics(n, DEFOCUS, rng)
    pixels = np.empty((n, N_PIXELS, N_PIXELS))
    for j, opening in enumerate(openings):
        of = np.flatnonzero(shows == j)
        pixels[of] = render(residues(opening), poses[of], optics[of], N_PIXELS, PIXEL_SIZE)
    wanted = signal_to_noise * N_PIXELS**2
    level = np.sqrt(matched_power(pixels, PIXEL_SIZE, spectrum) / wanted)
    pixels += level * draw_noise(n, N_PIXELS, PIXEL_SIZE, spectrum, rng)
    values, rings = stack_and_rings(pixels, parameters.grid)
    images = cld.ImageStack.from_array(values, parameters, optics.astype(OPTICS))
    return replace(images, source=InMemory(values, rings))


HEAD = (
    f"{'':<22}{'mixtures':>9}{'shares':>7}{'posterior':>17}{'curvature':>17}"
    f"{'nearly absent':>15}{'variance':>10}{'first, sd':>16}"
)


def row(name: str, mixtures: list[Mixture]) -> str:
    """Coverage of some mixtures."""
    text = f"{name:<22}{len(mixtures):>9}{sum(len(m.shares) for m in mixtures):>7}"
    for inside in ([m.covered for m in mixtures], [m.covered_by_curvature for m in mixtures]):
        part, error = _part(inside)
        text += f"{part:>9.1%} +- {error:.1%}"
    below = np.concatenate(
        [(m.shares <= m.interval[:, 1])[m.shares < NEARLY_ABSENT] for m in mixtures]
    )
    text += f"{f'{below.sum()} of {len(below)}':>15}"
    off = np.concatenate([(m.found - m.shares) / m.sd for m in mixtures])
    first = np.array([(m.found[0] - m.shares[0]) / m.sd[0] for m in mixtures])
    return text + f"{(off**2).mean():>10.2f}{first.mean():>9.2f} +- {len(first) ** -0.5:.2f}"


def _part(inside: list[NDArray[np.bool_]]) -> tuple[float, float]:
    """Part of all shares, and its error by mixtures."""
    n = sum(map(len, inside))
    part = sum(int(of.sum()) for of in inside) / n
    apart = np.array([of.sum() - part * len(of) for of in inside])
    return part, float(np.sqrt((apart**2).sum())) / n


def main() -> int:
    """Print the table, and say whether it is as it should be."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--mixtures", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=np.inf, help="after which to end early")
    parser.add_argument("--finer", type=float, default=1.0, help="times as finely searched")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, processor = time.perf_counter(), time.process_time()
    logging.disable(logging.WARNING)  # images in memory do not say whether they are masked
    templates = Templates.made(arguments.finer)
    mixtures = []
    for number in range(arguments.mixtures):
        if time.perf_counter() - start > 60 * arguments.minutes:
            break
        mixtures.append(measure(number, arguments.images, arguments.seed, templates))
        if number % 10 == 9:
            print(row("so far", mixtures), file=sys.stderr, flush=True)
    n_views = len(next(iter(templates.stacks.values())))
    print(
        f"{arguments.images} images a mixture, {n_views} views; "
        f"{time.process_time() - processor:.0f} s of the processor, "
        f"{time.perf_counter() - start:.0f} s\n{HEAD}"
    )
    low, high = RATIOS
    between = low ** (2 / 3) * high ** (1 / 3), low ** (1 / 3) * high ** (2 / 3)
    chosen: dict[str, Callable[[Mixture], bool]] = {
        "all": lambda m: True,
        **{f"{n} structures": lambda m, n=n: len(m.shares) == n for n in OPENINGS},
        **{noise: lambda m, noise=noise: m.noise == noise for noise, _ in NOISES},
        f"SNR below {between[0]:.2f}": lambda m: m.signal_to_noise < between[0],
        "between": lambda m: between[0] <= m.signal_to_noise < between[1],
        f"SNR above {between[1]:.2f}": lambda m: m.signal_to_noise >= between[1],
    }
    for name, choose in chosen.items():
        if some := [m for m in mixtures if choose(m)]:
            print(row(name, some))
    part, _ = _part([m.covered for m in mixtures])
    as_expected = abs(part - INTENDED) <= WITHIN
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
