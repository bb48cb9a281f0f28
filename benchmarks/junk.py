"""Images of none of the structures: are as many of the accepted ones false as is stated?

Particles of one structure, of another molecule as large, and of nothing but noise, made by an
independent simulator and read from files as a user's are. They are compared with the structure,
its decoys of both kinds, and a third molecule that is given as a decoy. For each mixture and each
set of decoys, at stated false discovery rates of 1, 5 and 10%: how many images are accepted, the
largest q-value among them, and which part of them does not show the structure; what part of the
images is held to show it, counted by those that decoys win; and the part of none of the structures
that `populations` estimates.

All mixtures are drawn from one pool of images, whose noise is estimated from all of them under the
structure.

Exits with 1 unless, of the structure and noise, stated and true rates are within 2 points with
decoys of random phases; of noise alone, 95% of images have q-values above 0.05; and with another
molecule and the third one as a decoy, the true rate is at most 2 points above 5 and 10%; and unless
the part of none, beside the structure and noise, is within three of its standard deviations. What
made decoys give with another molecule is printed, and not judged.

    python -m benchmarks.junk [--images 3000] [--seed 0] [--decoys 4] [--matched 180]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import cryolike_dask as cld
from benchmarks.calibration import Approach, parameters_of, search_of
from benchmarks.independent_simulator import (
    FloatArray,
    draw_noise,
    matched_power,
    random_optics,
    random_poses,
    render,
    white,
)
from benchmarks.simulated_particles import ATOMS, Condition, Particles
from benchmarks.simulated_structures import ATOMIC_B, Protein, protein
from cryolike_dask.analysis.decoys.competition import Competition, compete

LEVELS = (0.01, 0.05, 0.10)
WITHIN = 0.02
NOISE_Q, NOISE_PART = 0.05, 0.95
N_SD = 3.0
RIGHT, OTHER, NOISE = "right", "other", "noise"
MIXTURES: Mapping[str, Mapping[str, float]] = {
    "right and noise": {RIGHT: 0.7, NOISE: 0.3},
    "noise": {NOISE: 1.0},
    "another molecule": {RIGHT: 0.7, OTHER: 0.2, NOISE: 0.1},
}
OPENINGS = {RIGHT: 0.0, OTHER: 40.0, "given": -40.0}
"""Degrees by which the second of two lobes is turned. Residues lie elsewhere in each."""
MATCHED = 180.0
"""Power of particles over that of the noise, summed over the box: 0.11 of it in a pixel."""
VIEWS = 0.35
"""Distance of viewing directions, radian."""


@dataclass(frozen=True)
class Row:
    """What is stated of a mixture with some decoys, and what is true."""

    mixture: str
    decoys: str
    accepted: tuple[int, ...]
    stated: tuple[float, ...]
    true: tuple[float, ...]
    share: float
    share_error: float
    none: float
    none_sd: float
    above: float

    @property
    def wrong(self) -> list[str]:
        """The bounds that are not met."""
        if self.mixture == "noise":
            return ["q"] if self.above < NOISE_PART else []
        if self.mixture == "right and noise":
            is_off = abs(self.none - MIXTURES[self.mixture][NOISE]) > N_SD * self.none_sd
            of_none = ["none"] if is_off else []
            if self.decoys != "phases":
                return of_none
            pairs = zip(LEVELS, self.stated, self.true, strict=True)
            return of_none + [
                f"{level:.0%}" for level, said, is_so in pairs if abs(said - is_so) > WITHIN
            ]
        if self.mixture == "another molecule" and self.decoys == "given":
            pairs = zip(LEVELS[1:], LEVELS[1:], self.true[1:], strict=True)
            return [f"{level:.0%}" for level, said, is_so in pairs if is_so > said + WITHIN]
        return []

    def __str__(self) -> str:
        rates = "".join(
            f"{n:>7}{said:>7.1%}{is_so:>7.1%}"
            for n, said, is_so in zip(self.accepted, self.stated, self.true, strict=True)
        )
        return (
            f"{self.mixture:<18}{self.decoys:<10}{rates}{self.share:>8.3f} +- "
            f"{self.share_error:.3f}{self.none:>8.3f} +- {self.none_sd:.3f}{self.above:>8.3f}  "
            f"{', '.join(self.wrong) or 'right'}"
        )


HEAD = (
    f"{'mixture':<18}{'decoys':<10}"
    + "".join(f"{f'{level:.0%}: n':>7}{'stated':>7}{'true':>7}" for level in LEVELS)
    + f"{'part shown':>17}{'none':>17}{'q>0.05':>8}"
)


def molecules() -> dict[str, Protein]:
    """The structure, another molecule, and one that is given as a decoy."""
    return {
        name: protein(opening, seed=seed) for seed, (name, opening) in enumerate(OPENINGS.items())
    }


def simulate(
    condition: Condition, numbers: Mapping[str, int], seed: int
) -> tuple[Particles, NDArray[np.str_]]:
    """Particles of all contents, in this order, and what each is of."""
    rng = np.random.default_rng([seed, 1])
    n, contents = condition.n_pixels, np.repeat(list(numbers), list(numbers.values()))
    poses = random_poses(len(contents), condition.largest_displacement, rng)
    optics = random_optics(len(contents), condition.defocus, rng)
    pixels = np.zeros((len(contents), n, n))
    for name, structure in molecules().items():
        of = contents == name
        if of.any():
            molecule = structure.scattering(ATOMIC_B)
            pixels[of] = render(molecule, poses[of], optics[of], n, condition.pixel_size)
    signal = pixels[contents == RIGHT]
    level = np.sqrt(matched_power(signal, condition.pixel_size, white) / condition.matched)
    pixels += level * draw_noise(len(contents), n, condition.pixel_size, white, rng)
    every = np.zeros(len(contents), np.int64)
    is_right = contents == RIGHT
    return Particles(condition, pixels.astype(np.float32), is_right, poses, optics, every), contents


def log_likelihoods(
    condition: Condition, particles: Particles, n_decoys: int, folder: Path
) -> tuple[FloatArray, NDArray[np.str_]]:
    """Integrated log-likelihoods, (structure, image), and what each structure is."""
    approach = Approach()
    parameters = replace(
        parameters_of(condition, "full", approach), viewing_distance=VIEWS, precision="single"
    )
    images = cld.open_particles(particles.write(folder / "particles"), parameters, batch_size=250)
    stacks, search = {}, search_of(condition, "full", approach)
    for name, structure in molecules().items():
        structure.write(folder / f"{name}.pdb", ATOMIC_B)
        stacks[name] = cld.open_structure(folder / f"{name}.pdb", parameters)
    made = {
        kind: cld.open_decoys(stacks[RIGHT], n_decoys, kind=kind)  # type: ignore[arg-type]
        for kind in ("phases", "residues")
    }
    sets = {RIGHT: [stacks[RIGHT]], **made, "given": cld.as_decoys(stacks["given"])}
    noise = cld.estimate_noise(images, [search(stacks[RIGHT])])
    found = [
        cld.compute_integrated_log_likelihood(images, search(stack), noise=noise)
        .log_likelihood_integrated.compute()
        .values.astype(np.float64)
        for of_set in sets.values()
        for stack in of_set
    ]
    return np.stack(found), np.repeat(list(sets), [len(of_set) for of_set in sets.values()])


def judged(
    mixture: str,
    decoys: str,
    log_likelihood: FloatArray,
    kinds: NDArray[np.str_],
    shows: FloatArray,
) -> Row:
    """Compete with one set of decoys, and hold what is stated against the truth."""
    chosen = (kinds == RIGHT) | (kinds == decoys)
    is_decoy = kinds[chosen] != RIGHT
    margin, score = compete(log_likelihood[chosen], is_decoy)
    found = Competition(int((~is_decoy).sum()), int(is_decoy.sum()), margin, score)
    q = found.q_values()
    accepted = [q <= level for level in LEVELS]
    return Row(
        mixture,
        decoys,
        tuple(int(of.sum()) for of in accepted),
        tuple(float(q[of].max(initial=0.0)) for of in accepted),
        tuple(float((of & ~shows).sum() / max(of.sum(), 1)) for of in accepted),
        *found.share_shown(),
        *share_of_none(log_likelihood[chosen], is_decoy),
        float((q > NOISE_Q).mean()),
    )


def share_of_none(log_likelihood: FloatArray, is_decoy: NDArray[np.bool_]) -> tuple[float, float]:
    """The part of images of none of the structures, and its standard deviation."""
    names = np.array([f"{i}" for i in range(len(is_decoy))], object)
    results = xr.Dataset(
        {"log_likelihood_integrated": (("structure", "image"), log_likelihood)},
        {"structure": names, "decoy_of": ("structure", np.where(is_decoy, "0", "").astype(object))},
    )
    shares = cld.populations(results, draw=False, n_bootstrap=0)
    return float(shares.population_of_none), float(shares.population_of_none_sd)


def main() -> int:
    """Print the table, and say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoys", type=int, default=4)
    parser.add_argument("--matched", type=float, default=MATCHED, help="strength of signals")
    arguments = parser.parse_args()
    start, n = time.perf_counter(), arguments.images
    condition = replace(ATOMS, name="junk", matched=arguments.matched)
    counts = {
        name: {content: round(part * n) for content, part in parts.items()}
        for name, parts in MIXTURES.items()
    }
    pool = {
        content: max(of.get(content, 0) for of in counts.values())
        for content in (RIGHT, OTHER, NOISE)
    }
    particles, contents = simulate(condition, pool, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        values, kinds = log_likelihoods(condition, particles, arguments.decoys, Path(folder))
    print(f"{n} images a mixture, {arguments.decoys} decoys of each kind, {condition}")
    print(f"{time.perf_counter() - start:.0f} s\n{HEAD}")
    rows = []
    for mixture, of in counts.items():
        drawn = np.concatenate(
            [np.flatnonzero(contents == content)[:m] for content, m in of.items()]
        )
        for decoys in ("phases", "residues", "given"):
            shows = contents[drawn] == RIGHT
            rows.append(judged(mixture, decoys, values[:, drawn], kinds, shows))
            print(rows[-1], flush=True)
    as_expected = not any(row.wrong for row in rows)
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
