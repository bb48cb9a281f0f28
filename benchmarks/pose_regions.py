"""Whether regions hold the true pose as often as they say: those of 95% about the best orientation
and about the mean displacement, of particles off all grids.

Particles of a structure made as code, by the benchmarks' own simulator, at several levels of noise;
for each how many lie in their regions, the sizes of these, and what posteriors take beside the
search.

    python -m benchmarks.pose_regions [--pixels 64] [--images 1000] [--signal-to-noise 0.03 0.1 0.5]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import xarray as xr

from benchmarks.independent_simulator import FloatArray, StarPoses
from benchmarks.search import images_of, structure, templates_of
from cryolike_dask import ImageParameters, ImageStack, compute_optimal_pose
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.labels import SearchMethod

PIXEL = 2.0
LARGEST_PIXELS, STEP = 4.0, 0.5


@dataclass(frozen=True, eq=False)
class Truth:
    """Poses: Rz(azimuth) Ry(polar) Rz(gamma), and where particles lie in their images, angstrom."""

    rotations: FloatArray
    places: FloatArray

    def degrees(self, rotations: FloatArray) -> FloatArray:
        """Angles to other rotations."""
        traces = np.einsum("nij,nij->n", self.rotations, rotations)
        found: FloatArray = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
        return found


def in_image(x: FloatArray, y: FloatArray, gamma: FloatArray) -> FloatArray:
    """Where displacements put particles under rotations, (n, 2)."""
    c, s = np.cos(gamma), np.sin(gamma)
    return np.stack([c * x + s * y, c * y - s * x], axis=1)


def particles(
    positions: FloatArray, parameters: ImageParameters, n: int, signal_to_noise: float, seed: int
) -> tuple[ImageStack, Truth]:
    """Particles off all grids, with white noise, and their poses."""
    rng, grid = np.random.default_rng(seed), parameters.grid
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, n))
    polar = np.arccos(rng.uniform(-1, 1, n))
    largest = 0.75 * LARGEST_PIXELS * grid.pixel_size_angstrom
    x, y = rng.uniform(-largest, largest, (2, n))
    poses = StarPoses.of_template(azimuth, polar, gamma, x, y)
    images = images_of(positions, poses, parameters, signal_to_noise, rng)
    return images, Truth(viewing_rotation(azimuth, polar, gamma), in_image(x, y, gamma))


def found_in(
    images: ImageStack,
    positions: FloatArray,
    parameters: ImageParameters,
    method: SearchMethod = "adaptive",
) -> tuple[xr.Dataset, FloatArray, tuple[float, float]]:
    """Posteriors, the best rotations, and the seconds that a search takes without them and with."""
    n = round(2 * LARGEST_PIXELS / STEP) + 1
    templates = DisplacementSearch(LARGEST_PIXELS, n, n)(templates_of(positions, parameters))
    seconds = []
    for with_posteriors in (False, True):
        start = time.perf_counter()
        found = compute_optimal_pose(
            images, templates, device="cpu", search=method, pose_posteriors=with_posteriors
        ).compute(scheduler="synchronous")
        seconds.append(time.perf_counter() - start)
    best = found.optimal_template.values
    rotations = templates.viewing.rotations()[best] @ viewing_rotation(
        0, 0, found.optimal_inplane_rotation.values
    )
    return found, rotations, (seconds[0], seconds[1])


def covered(
    found: xr.Dataset, rotations: FloatArray, truth: Truth
) -> tuple[FloatArray, FloatArray]:
    """Whether each true orientation, and each true displacement, lies in its region."""
    mean = in_image(
        found.posterior_mean_displacement_x.values,
        found.posterior_mean_displacement_y.values,
        found.optimal_inplane_rotation.values,
    )
    off = np.hypot(*(mean - truth.places).T)
    return (
        truth.degrees(rotations) <= found.orientation_radius_95.values,
        off <= found.displacement_radius_95.values,
    )


def measure(n_pixels: int, shape: str, signal_to_noise: float, n_images: int, views: float) -> str:
    """One row of the table."""
    parameters = ImageParameters(n_pixels, PIXEL, viewing_distance=views, precision="single")
    positions = structure(shape, 0.0)
    images, truth = particles(positions, parameters, n_images, signal_to_noise, seed=3)
    found_in(images[:2], positions, parameters)  # compiles
    found, rotations, (without, with_them) = found_in(images, positions, parameters)
    inside = [of.mean() for of in covered(found, rotations, truth)]
    sizes = (
        float(found[name].median())
        for name in (
            "orientation_radius_95",
            "displacement_radius_95",
            "n_significant_poses",
            "n_effective_poses",
            "view_entropy",
        )
    )
    of_sizes = "".join(f"{size:>10.3g}" for size in sizes)
    return (
        f"{n_pixels:>4} {shape:<10}{views:>6g}{signal_to_noise:>6g}"
        f"{inside[0]:>10.1%}{inside[1]:>10.1%}{of_sizes}{without:>9.1f}{with_them:>9.1f}"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="*", default=[64])
    parser.add_argument("--shapes", nargs="*", default=["elongated"])
    parser.add_argument("--signal-to-noise", type=float, nargs="*", default=[0.03, 0.1, 0.5])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--views", type=float, nargs="*", default=[0.15], help="radian apart")
    options = parser.parse_args()
    names = ("angle in", "place in", "degrees", "angstrom", "signif.", "effect.", "nat")
    wide = "".join(f"{name:>10}" for name in names)
    print(f"{'px':>4} {'shape':<10}{'views':>6}{'SNR':>6}{wide}{'without':>9}{'with, s':>9}")
    for n_pixels in options.pixels:
        for shape in options.shapes:
            for views in options.views:
                for snr in options.signal_to_noise:
                    print(measure(n_pixels, shape, snr, options.images, views), flush=True)


if __name__ == "__main__":
    main()
