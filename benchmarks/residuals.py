"""Is what is left of images noise, where structures are right? p-values of residuals of particles
made by an independent simulator and read from files as a user's are.

Of three sets, each compared with one structure: particles of it; of it, another molecule and noise
(70, 20 and 10%), with noise that is estimated from them; and the same with the true noise, which is
white. For each content the part of images whose p-value is below 0.01 and 0.1, and the
Kolmogorov-Smirnov p of being uniform.

Exits with 1 unless that of right images alone is above 0.01.

    python -m benchmarks.residuals [--images 300] [--simulated 1000] [--seed 0] [--matched 180]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

import cryolike_dask as cld
from benchmarks.calibration import Approach, parameters_of, search_of
from benchmarks.junk import MATCHED, MIXTURES, RIGHT, VIEWS, molecules, simulate
from benchmarks.simulated_particles import ATOMS
from benchmarks.simulated_structures import ATOMIC_B

LEAST = 0.01
SETS: dict[str, tuple[dict[str, float], Any]] = {
    "right": ({RIGHT: 1.0}, "estimate"),
    "mixture": ({**MIXTURES["another molecule"]}, "estimate"),
    "true noise": ({**MIXTURES["another molecule"]}, "white"),
}


def p_values(
    parts: dict[str, float], noise: Any, arguments: argparse.Namespace
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """p-values of all images of a set, and what each shows."""
    condition = replace(ATOMS, name="residuals", matched=arguments.matched)
    numbers = {content: round(part * arguments.images) for content, part in parts.items()}
    particles, contents = simulate(condition, numbers, arguments.seed)
    approach = Approach()
    parameters = replace(
        parameters_of(condition, "full", approach), viewing_distance=VIEWS, precision="single"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        molecules()[RIGHT].write(folder / "right.pdb", ATOMIC_B)
        star = particles.write(folder / "particles")
        inputs: dict[str, Any] = {
            "templates": cld.open_structure(folder / "right.pdb", parameters),
        }
        images = cld.open_particles(star, parameters, batch_size=250)
        cld.run_likelihood_optimal_pose(
            cld.configure_likelihood_files(None, None, folder / "out", i_template="all"),
            parameters,
            search_of(condition, "full", approach),
            images=images,
            noise=noise,
            search="exhaustive",
            progress=False,
            **inputs,
        )
        found = cld.fit_residuals(
            folder / "out",
            particles=images,
            parameters=parameters,
            n_images=arguments.simulated,
            seed=arguments.seed,
            progress=False,
            **inputs,
        )
        return found.values, contents


def main() -> int:
    """Print the table, and say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--simulated", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matched", type=float, default=MATCHED, help="strength of signals")
    parser.add_argument("--sets", nargs="*", default=[*SETS], choices=[*SETS])
    arguments = parser.parse_args()
    print(f"{'set':<12}{'content':<8}{'images':>7}{'p<0.01':>8}{'p<0.1':>8}{'KS p':>9}", flush=True)
    as_expected = True
    for name in arguments.sets:
        parts, noise = SETS[name]
        found, contents = p_values(parts, noise, arguments)
        for content in parts:
            p = found[contents == content]
            uniform = float(kstest(p, "uniform").pvalue)
            print(
                f"{name:<12}{content:<8}{len(p):>7}{(p < 0.01).mean():>8.3f}"
                f"{(p < 0.1).mean():>8.3f}{uniform:>9.2g}",
                flush=True,
            )
            if name == RIGHT:
                as_expected &= uniform > LEAST
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
