"""What compression changes: correlations and log-likelihoods against double precision without
compression.

For several tolerances and signal strengths, at the standard case: the largest change of the best
correlation and of the integrated log-likelihood of any image, the largest bound that the kernel
gives, and the mean rank. Exits with 1 unless the default tolerance keeps every log-likelihood
within 0.01 nat of what single precision gives without it.

    python -m benchmarks.tolerance [--images 24] [--templates 24] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.cases import STANDARD, make_inputs
from cryolike_dask.likelihoods.blocks import optimal_poses, radial_basis_of
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.settings import DEFAULT_TOLERANCE, Settings

SIGNALS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 0.0)
LARGEST_CHANGE = 0.01


def main() -> int:
    """Print the table, and say whether the default holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--templates", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{arguments.images} images, {arguments.templates} templates, seed {arguments.seed}; "
        f"maxima over images"
    )
    print(
        f"{'signal':>6} {'tolerance':>9} {'rank':>5} {'correlation':>11} "
        f"{'log-likelihood (nat)':>20} {'bound':>8}"
    )
    holds = True
    for signal in SIGNALS:
        images, templates, _ = make_inputs(
            STANDARD, arguments.images, arguments.templates, signal=signal, seed=arguments.seed
        )
        exact = _poses(images, templates, "double", 0.0)[0]
        change_of = {}
        for tolerance in TOLERANCES:
            poses, rank = _poses(images, templates, "single", tolerance)
            correlation, log_likelihood = (
                np.abs(poses[name] - exact[name]).max()
                for name in ("cross_correlation", "log_likelihood_integrated")
            )
            change_of[tolerance] = log_likelihood
            bound = poses["correlation_error_bound"].max()
            name = f"{tolerance:.0e}" if tolerance else "0"
            print(
                f"{signal:>6} {name:>9} {rank:>5.1f} {correlation:>11.1e} {log_likelihood:>20.1e} "
                f"{bound:>8.1e}"
            )
        holds &= change_of[DEFAULT_TOLERANCE] - change_of[0.0] < LARGEST_CHANGE
    print("the default tolerance holds" if holds else "the default tolerance does NOT hold")
    return 0 if holds else 1


def _poses(images, templates, precision, tolerance):
    graph = ComparisonGraph(
        images, templates, Settings(device="cpu", precision=precision, tolerance=tolerance)
    )
    basis = radial_basis_of(graph.comparison)
    ranks = [rank for group in basis for rank in [group.shape[1]] * len(group)] or [
        templates.grid.n_shells
    ]
    conventions = graph.comparison.conventions
    rows = image_rows(images, conventions), template_rows(templates, conventions)
    return optimal_poses(*rows, basis, comparison=graph.comparison)[:, 0], float(np.mean(ranks))


if __name__ == "__main__":
    sys.exit(main())
