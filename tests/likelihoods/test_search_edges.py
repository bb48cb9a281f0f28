"""A search coarse to fine where it might lose something: at the end of the search, and where
several poses explain an image as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import TemplateStack
from cryolike_dask.geometry.displacements import DisplacementSearch
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


def particles(rng, atoms, polar=None, x_pixels=0.0, y_pixels=0.0):
    """Without noise."""
    polar = np.arccos(rng.uniform(-1, 1, N)) if polar is None else np.full(N, polar)
    turns = rng.uniform(0, 2 * np.pi, (2, N))
    shift = np.full((2, N), [[x_pixels * PIXEL_SIZE], [y_pixels * PIXEL_SIZE]])
    poses = StarPoses.of_template(turns[0], polar, turns[1], *shift)
    return render(atoms, poses, microscope(N, np.full(N, 6000.0)), N_PIXELS, PIXEL_SIZE)


def noisy(rng, clean):
    level = np.sqrt(clean.var() / SIGNAL_TO_NOISE)
    pixels = clean + level * rng.standard_normal(clean.shape)
    return stack_of(pixels, microscope(len(clean), np.full(len(clean), 6000.0)))


def templates_of(atoms):
    viewing = PARAMETERS.viewing_angles()
    values = project(atoms, PARAMETERS.grid, viewing).astype(np.complex64)
    return TemplateStack.from_array(values, PARAMETERS, viewing)


def nothing_is_lost(images, templates, parts=PARTS):
    """Coarse to fine against everything in parts of the steps over the same square, to half a step
    beyond the last displacement."""
    n = 9
    of_truth = DisplacementSearch(2.25 - 2.25 / (n * parts), n * parts, n * parts)
    truth = integrated(images, of_truth(templates), "exhaustive")
    searched = DisplacementSearch(2, n, n)(templates)
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
