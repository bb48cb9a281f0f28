"""The two conventions, compared on images that suit both: one isotropic microscope, poses on the
grid, simulated by the package itself.

With a flat prior, the log-likelihood ratio of the two structures is the log-odds of the truth: the
logistic slope of the truth on the ratio is 1, and among images given a probability p a part p is of
that structure. `standard` is calibrated, and `cryolike` is not at half resolution. Part of
`python -m benchmarks.calibration`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scores import Calibration, calibrate
from cryolike_dask import ImageParameters, ImageStack, TemplateStack, compute_optimal_pose
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.simulation.rendering import Poses, render_particles
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project as project_structure

FloatArray = NDArray[np.float64]

N_PIXELS, PIXEL_SIZE = 32, 3.0
SEARCH = DisplacementSearch(1, 3, 3)
RESOLUTION_FACTORS = (1.0, 0.5)
SIGNAL_TO_NOISE = 0.35
"""Of the pixels. The log-likelihood ratios then have a spread of 2 to 3 nat."""
LARGEST_SLOPE_ERROR, LARGEST_CALIBRATION_ERROR = 0.15, 0.05


def two_lobes(opening_radian: float) -> Atoms:
    """48 residues in two lobes, the second turned about z; within 15 angstrom of the middle."""
    first, second = np.random.default_rng(0).uniform(-5, 5, (2, 24, 3)) + np.array(
        [[[7, 0, 0]], [[-7, 0, 0]]]
    )
    c, s = np.cos(opening_radian), np.sin(opening_radian)
    second = second @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    return Atoms(np.concatenate([first, second]), np.full(48, 62.0), np.full(48, 3.0))


STRUCTURES = (two_lobes(0.0), two_lobes(0.5))


def is_calibrated(found: Calibration) -> bool:
    """Whether slope and probabilities are right, within what some hundred images can tell."""
    return (
        abs(found.slope - 1) <= LARGEST_SLOPE_ERROR
        and found.expected_error < LARGEST_CALIBRATION_ERROR
    )


def log_likelihood_ratios(
    n_images: int, resolution_factor: float, seed: int
) -> tuple[dict[str, FloatArray], NDArray[np.bool_]]:
    """Simulate images and compare them with both structures: ratios by conventions, and which
    are of the first."""
    rng = np.random.default_rng(seed)
    parameters = ImageParameters(
        N_PIXELS,
        PIXEL_SIZE,
        resolution_factor * N_PIXELS / 4,
        viewing_distance=1.0,
        precision="single",
    )
    grid = parameters.grid
    viewing = parameters.viewing_angles()
    displacements = SEARCH.grid(PIXEL_SIZE)
    s = rng.choice(len(viewing), n_images, p=viewing.weight / viewing.weight.sum())
    d = rng.integers(0, len(displacements), n_images)
    gamma = rng.choice(grid.angles, n_images)
    x, y = displacements.table()[:, d]
    poses = Poses(viewing.azimuth[s], viewing.polar[s], gamma, x, y)
    optics = microscope(n_images, rng.uniform(5000, 10000, n_images))
    truth = rng.random(n_images) < 0.5
    noise_free = [render_particles(a, grid, poses, optics) for a in STRUCTURES]
    clean = np.where(truth[:, None, None], *noise_free)
    # one level of noise for all: scaled to each particle it would tell which structure and pose it
    # is
    noise = np.sqrt(clean.var() / SIGNAL_TO_NOISE) * rng.standard_normal(clean.shape)
    images = ImageStack.from_array(normalised_stack(clean + noise, grid), parameters, optics).chunk(
        250
    )

    stacks = [
        SEARCH(
            TemplateStack.from_array(
                project_structure(a, grid, viewing).astype(np.complex64), parameters, viewing
            )
        )
        for a in STRUCTURES
    ]
    ratios = {}
    for conventions in ("standard", "cryolike"):
        first, second = (_integrated(images, stack, conventions) for stack in stacks)
        ratios[conventions] = first - second
    return ratios, truth


def microscope(n: int, defocus: Any) -> NDArray[np.void]:
    """Optics of images of one microscope, without astigmatism, on which the two conventions agree;
    defocus in angstrom, one or (n,)."""
    return optics_table(
        n,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        defocus_angle_radian=0.0,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )


def _integrated(images: ImageStack, templates: TemplateStack, conventions: Any) -> FloatArray:
    found = compute_optimal_pose(images, templates, conventions=conventions)
    return found.log_likelihood_integrated.values


def compare(n_images: int, seed: int) -> bool:
    """Print both conventions at both resolutions; returns whether they are as expected."""
    print(f"conventions: {n_images} images, seed {seed}")
    print(
        f"{'resolution':>10}  {'conventions':<11}  {'slope':>13}  {'calibration error':>17}  "
        f"{'spread (nat)':>12}"
    )
    as_expected = True
    for resolution_factor in RESOLUTION_FACTORS:
        start = time.perf_counter()
        ratios, truth = log_likelihood_ratios(n_images, resolution_factor, seed)
        for conventions, values in ratios.items():
            found = calibrate(values, truth)
            print(
                f"{resolution_factor:>10}  {conventions:<11}  {found.slope:>5.2f} +- "
                f"{found.slope_error:.2f}  {found.expected_error:>17.3f}  {found.spread:>12.2f}"
            )
            if conventions == "standard":
                as_expected &= is_calibrated(found)
            elif resolution_factor == 0.5:
                as_expected &= (
                    abs(found.slope - 1) > LARGEST_SLOPE_ERROR
                    and found.expected_error >= LARGEST_CALIBRATION_ERROR
                )
        print(f"{'':>10}  {time.perf_counter() - start:.0f} s")
    return as_expected
