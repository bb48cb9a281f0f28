"""A search coarse to fine where it might lose something: at the end of the search, and where
several poses explain an image as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import TemplateStack, compute_optimal_pose
from cryolike_dask.geometry.displacements import DisplacementGrid, DisplacementSearch
from cryolike_dask.structures.projection import project
from tests.likelihoods.test_search import (
    ATOMS,
    N_PIXELS,
    PARAMETERS,
    PIXEL_SIZE,
    integrated,
    stack_of,
)
from tests.optics import microscope
from tests.real_space import StarPoses, render

N, SIGNAL_TO_NOISE = 1, 0.1
PARTS, PARTS_AT_END = 4, 8
"""Of a step, in the truth; and where the end of the search cuts through peaks: sums over quarters
are off by up to 0.15 nat there."""


def disc(rng):
    """Flat, as large as the others, hardly anything to tell rotations about its axis by."""
    radius, angle = 20 * np.sqrt(rng.random(48)), rng.uniform(0, 2 * np.pi, 48)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(0, 1, 48)], 1)


def two_fold(rng):
    """Two halves, half a turn about z apart: nobody says so."""
    half = rng.normal(0, (5, 6, 9), (24, 3)) + np.array([9.0, 0, 0])
    return np.concatenate([half, half * (-1, -1, 1)])


def atoms_at(positions):
    return replace(ATOMS, positions_angstrom=positions - positions.mean(axis=0))


def particles(rng, atoms, polar=None, x_pixels=0.0, y_pixels=0.0, n=N):
    """Without noise."""
    polar = np.arccos(rng.uniform(-1, 1, n)) if polar is None else np.full(n, polar)
    turns = rng.uniform(0, 2 * np.pi, (2, n))
    shift = np.full((2, n), [[x_pixels * PIXEL_SIZE], [y_pixels * PIXEL_SIZE]])
    poses = StarPoses.of_template(turns[0], polar, turns[1], *shift)
    return render(atoms, poses, microscope(n, np.full(n, 6000.0)), N_PIXELS, PIXEL_SIZE)


def noisy(rng, clean, signal_to_noise=SIGNAL_TO_NOISE):
    level = np.sqrt(clean.var() / signal_to_noise)
    pixels = clean + level * rng.standard_normal(clean.shape)
    return stack_of(pixels, microscope(len(clean), np.full(len(clean), 6000.0)))


def templates_of(atoms, rows=slice(None)):
    every = PARAMETERS.viewing_angles()
    viewing = every.take(np.arange(len(every))[rows])
    values = project(atoms, PARAMETERS.grid, viewing).astype(np.complex64)
    return TemplateStack.from_array(values, PARAMETERS, viewing)


WHOLE = DisplacementSearch(2, 9, 9)


def in_parts(search, parts):
    """The same square in parts of the steps, to half a step beyond the last displacement."""
    n = search.n_displacements_x, search.n_displacements_y
    limit = search.max_displacement_pixels * PIXEL_SIZE
    x, y = (
        (np.arange(k * parts) + 0.5 - k * parts / 2) * 2 * limit / (k - 1) / parts
        if k > 1
        else np.zeros(1)
        for k in n
    )
    return DisplacementGrid(np.tile(x, len(y)), np.repeat(y, len(x)))


def nothing_is_lost(images, templates, parts=PARTS, search=WHOLE):
    """Coarse to fine against everything in parts of the steps."""
    of_truth = replace(templates, displacements=in_parts(search, parts))
    truth = integrated(images, of_truth, "exhaustive")
    searched = search(templates)
    found, everything = (integrated(images, searched, by) for by in ("adaptive", "exhaustive"))
    off = (found - truth).log_likelihood_integrated.values
    print(off, (everything - truth).log_likelihood_integrated.values)
    assert (off > -0.1 - found.log_likelihood_error.values).all()
    assert (off < 0.1).all()


def test_a_disc_seen_from_its_axis(rng):
    atoms = atoms_at(disc(rng))
    nothing_is_lost(
        noisy(rng, particles(rng, atoms, 0.0, *rng.uniform(-1, 1, 2))), templates_of(atoms)
    )


def test_two_far_poses_that_are_equally_likely(rng):
    atoms = atoms_at(two_fold(rng))
    nothing_is_lost(
        noisy(rng, particles(rng, atoms, None, *rng.uniform(-1, 1, 2))), templates_of(atoms)
    )


@pytest.fixture(scope="module")
def templates():
    return templates_of(ATOMS)


def test_the_mean_of_two_views(rng, templates):
    both = particles(rng, ATOMS, x_pixels=0.5), particles(rng, ATOMS, y_pixels=-1)
    nothing_is_lost(noisy(rng, sum(both) / 2), templates)


@pytest.mark.parametrize(("x", "y"), [(2, -2), (2.25, 0.3)])
def test_particles_at_the_end_of_the_search(rng, templates, x, y):
    """In its corner, and half outside: of sums over half a pixel up to a nat is lost there."""
    images = noisy(rng, particles(rng, ATOMS, x_pixels=x, y_pixels=y))
    nothing_is_lost(images, templates, PARTS_AT_END)


@pytest.mark.parametrize("times", [1, 3])
def test_a_single_view(rng, times):
    """Which has no neighbours; and the same one several times."""
    images = noisy(rng, particles(rng, ATOMS, 0.0, 0.5))
    nearest = int(PARAMETERS.viewing_angles().polar.argmin())
    nothing_is_lost(images, templates_of(ATOMS, [nearest] * times))


@pytest.fixture(scope="module")
def few_templates():
    return templates_of(ATOMS, slice(None, None, 4))


@pytest.mark.parametrize(("n_x", "n_y"), [(1, 9), (9, 1)])
def test_a_search_along_one_axis_does_not_leave_it(rng, few_templates, n_x, n_y):
    """Particles lie beside it: a place in the image is on the line at one rotation alone."""
    images = noisy(rng, particles(rng, ATOMS, x_pixels=-0.9, y_pixels=0.9, n=6))
    nothing_is_lost(images, few_templates, PARTS_AT_END, DisplacementSearch(2, n_x, n_y))


def test_a_small_search(rng, few_templates):
    """Of five displacements along each axis likelihoods between them are not known to a nat."""
    images = noisy(rng, particles(rng, ATOMS, None, *rng.uniform(-0.3, 0.3, 2), n=6), 0.3)
    nothing_is_lost(images, few_templates, PARTS_AT_END, DisplacementSearch(1, 5, 5))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_posteriors_of_images_without_noise(rng, few_templates):
    """What lies between displacements is up to 1000 nat above what is there."""
    images = stack_of(particles(rng, ATOMS, x_pixels=0.3, n=4), microscope(4, np.full(4, 6000.0)))
    found = compute_optimal_pose(
        images, WHOLE(few_templates), device="cpu", search="adaptive", pose_posteriors=True
    ).compute()
    np.testing.assert_array_equal(found.n_effective_poses, 1)
    assert np.isfinite(found.displacement_radius_95).all()
