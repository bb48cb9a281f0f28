"""What a coarse search costs: assignments and probabilities over steps of views and displacements.

Particles of the demo's two conformations, in random poses, are compared with both. For each search:
what is lost of log-likelihoods half-way between two views and between two displacements, as the
report measures it; how many particles are assigned rightly, and how many should be by their
probabilities.

    python -m benchmarks.steps [--images 256] [--signal-to-noise 0.2] [--seed 0]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import cryolike_dask as cld
from cryolike_dask.analysis.calibration import calibration
from cryolike_dask.analysis.search_steps import search_steps
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.simulation.demo import STRUCTURES, write_hinge

SEARCHES = ((0.3, 4), (0.3, 7), (0.3, 13), (0.2, 7), (0.2, 13), (0.15, 13))
"""Viewing distance, radian; displacements along each axis, from -3 to 3 pixels."""
N_MEASURED = 12


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--signal-to-noise", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{arguments.images} images, signal to noise {arguments.signal_to_noise}, seed "
        f"{arguments.seed}"
    )
    print(
        f"{'views':>8} {'shifts':>8} {'lost, nat: views':>16} {'shifts':>8} {'right':>7} "
        f"{'expected':>8}"
    )
    with tempfile.TemporaryDirectory() as name, cld.local_cluster():
        folder = Path(name)
        paths = []
        for structure, opening in STRUCTURES.items():
            paths.append(folder / f"{structure}.pdb")
            write_hinge(paths[-1], opening)
        star = cld.simulate_particles(
            *(paths, _parameters(0.3), folder / "relion"),
            n_images=arguments.images,
            signal_to_noise=arguments.signal_to_noise,
            max_displacement_pixels=2.0,
            seed=arguments.seed,
            progress=False,
        )
        for distance, n in SEARCHES:
            print(_row(paths, star, folder / f"{distance}-{n}", distance, n), flush=True)


def _parameters(distance: float) -> cld.ImageParameters:
    return cld.make_parameters(48, 2.5, viewing_distance=distance, atom_shape="gaussian")


def _row(paths: list[Path], star: Path, output: Path, distance: float, n: int) -> str:
    parameters = _parameters(distance)
    structures = cld.open_structures(paths, parameters)
    images = cld.open_particles(star, parameters)
    files = cld.configure_likelihood_files(None, None, output, i_template="all")
    search = cld.configure_displacement(3.0, n, n)
    cld.run_likelihood_optimal_pose(
        files,
        parameters,
        search,
        images=images,
        templates=structures,
        progress=False,
        noise="white",
    )
    summary = summarise_results(cld.open_results(output))
    rows = np.argsort(summary.cross_correlation.values)[:: max(1, len(images) // N_MEASURED)]
    lost = {
        step.name: step.loss for step in search_steps(summary.isel(image=rows), images, structures)
    }
    found = calibration(summary)
    steps = f"{np.degrees(distance):>7.3g}° {6 / (n - 1):>5.2g} px"
    return (
        f"{steps} {lost['views']:>16.2g} {lost['displacements']:>8.2g} {found.found:>7.1%} "
        f"{found.expected:>8.1%}"
    )


if __name__ == "__main__":
    main()
