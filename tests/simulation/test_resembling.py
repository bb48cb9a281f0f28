"""Particles that resemble those of a run: found by the search where they were put, and as noisy as
they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.likelihoods.search.coarser import spacing_of_views
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import (
    normalised_stack,
    pixels_to_fourier,
    radial_power,
)
from cryolike_dask.simulation.demo import write_hinge
from cryolike_dask.simulation.noise import draw_field
from cryolike_dask.simulation.resembling import (
    Drawn,
    _of_stack,
    draw_like,
    make_particles,
)
from cryolike_dask.simulation.slices import slices_at
from cryolike_dask.stacks import ImageStack

PARAMETERS = cld.ImageParameters(
    24, 5.0, viewing_distance=0.5, precision="double", atom_shape="gaussian"
)
GRID = PARAMETERS.grid
SEARCH = cld.configure_displacement(2.0, 5, 3)
FREQUENCIES = np.linspace(0, 1.01 * GRID.spatial_frequencies[-1], 60)
FALLING = NoiseModel.of_spectrum(FREQUENCIES, 1 / (1 + (40 * FREQUENCIES) ** 2), GRID)


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    path = tmp_path_factory.mktemp("structure") / "hinge.pdb"
    write_hinge(path, 0.4)
    return SEARCH(cld.open_structure(path, PARAMETERS))


def originals(n, noise=None, **optics):
    """What is known of images that are described alike."""
    values = np.ones((n, *GRID.shape), np.complex128)
    columns = {"defocus_u_angstrom": 12000.0, "defocus_v_angstrom": 11000.0, **optics}
    table = cld.optics_table(
        n,
        **columns,
        defocus_angle_radian=0.4,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
    return _of_stack(ImageStack.from_array(values, PARAMETERS, table), Settings(noise=noise))


def on_the_grid(templates, n, rng):
    """Particles in poses that are tried."""
    at = rng.integers(len(templates.displacements), size=n)
    view, turn = rng.integers(len(templates), size=n), rng.integers(GRID.n_inplanes, size=n)
    x, y = templates.displacements.table()[:, at]
    viewing = templates.viewing.take(view)
    return Drawn(
        np.arange(n), view * 0, view, viewing.azimuth, viewing.polar, GRID.angles[turn], x, y
    )


@pytest.mark.parametrize("noise", [None, FALLING])
def test_they_are_found_where_they_were_put(templates, noise, rng):
    n, strength = 6, 30.0
    drawn, like = on_the_grid(templates, n, rng), originals(n, noise)
    pixels = make_particles(
        slices_at(templates, drawn.view), drawn, like, np.full(n, strength), GRID, seed=1
    )
    images = ImageStack.from_array(
        normalised_stack(pixels, GRID, "double"), PARAMETERS, like.optics
    )
    found = cld.compute_optimal_pose(images, templates, noise=noise).compute()
    np.testing.assert_array_equal(found.optimal_template, drawn.view)
    np.testing.assert_allclose(found.optimal_displacement_x, drawn.x_angstrom, atol=1e-6)
    np.testing.assert_allclose(found.optimal_displacement_y, drawn.y_angstrom, atol=1e-6)
    np.testing.assert_allclose(found.optimal_inplane_rotation, drawn.gamma, atol=1e-6)
    odds = found.cross_correlation**2 / (1 - found.cross_correlation**2)
    # signal over noise as it was asked for; rings of so few angles know the noise to 5%
    assert odds.mean() == pytest.approx(strength, rel=0.1)


def test_noise_has_its_spectrum_and_one_edge_knows_nothing_of_the_other(rng):
    n = 400
    fields = np.stack(
        [draw_field(FALLING.frequencies, FALLING.variance[0], GRID, rng) for _ in range(n)]
    )
    power = radial_power(transformed(fields), GRID).mean(axis=0)
    middle = slice(3, None)  # of the lowest shells there are too few independent values
    ratio = power[middle] / smeared(FALLING, GRID)[middle]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.15)
    across = (fields[:, :, 0] * fields[:, :, -1]).mean() / fields.var()
    beside = (fields[:, :, 0] * fields[:, :, 1]).mean() / fields.var()
    assert abs(across) < 0.1 < 0.3 < beside


def smeared(model, grid):
    """Power on each shell of noise of a field twice as wide as the box, by the sum over its
    frequencies: the transform of the box takes each of them to its neighbours."""
    n, box = grid.n_pixels, grid.box_size_angstrom
    field = np.fft.fftfreq(2 * n, 1 / n)  # cycles per box
    at = np.hypot(field, field[:, None]) / box
    variance = np.interp(at, model.frequencies, model.variance[0])

    def seen(cycles):
        below = n * np.sin(np.pi * cycles / n)
        small = np.abs(below) < 1e-9
        return np.where(small, 1, np.sin(np.pi * cycles) / np.where(small, 1, below)) ** 2

    angles = np.pi / 4 * (np.arange(16) + 0.5) / 16
    x, y = (2 * grid.radii[:, None] * f(angles) for f in (np.cos, np.sin))
    across, along = (seen(q[..., None] - field) for q in (x, y))
    return np.einsum("raj,ji,rai->r", along, variance, across)


def transformed(fields):
    return pixels_to_fourier(fields, GRID, "double")


def test_masked_and_low_passed_images_stay_so(templates, rng):
    n = 4
    limit = 0.6 * GRID.spatial_frequencies[-1]
    model = replace(FALLING, share=np.array([0.5]), band_limit=np.array([limit]))
    drawn, like = on_the_grid(templates, n, rng), originals(n, model)
    np.testing.assert_allclose(like.share, 0.5)
    series = slices_at(templates, drawn.view)
    pixels = make_particles(series, drawn, like, np.full(n, 1e-6), GRID, seed=2)
    filled = (pixels != 0).mean(axis=(1, 2))
    np.testing.assert_allclose(filled, 0.5, atol=2 / GRID.n_pixels**2)
    assert (pixels[:, 12, 12] != 0).all()
    assert (pixels[:, 0, 0] == 0).all()
    whole = replace(like, share=np.ones(n))
    pixels = make_particles(series, drawn, whole, np.full(n, 1e-6), GRID, seed=2)
    power = radial_power(transformed(pixels), GRID).mean(axis=0)
    beyond = GRID.spatial_frequencies > 1.2 * limit
    assert power[beyond].max() < 0.1 * np.median(power[~beyond])  # the box has an edge


def test_poses_are_drawn_by_the_prior_and_between_those_that_are_tried(templates, rng):
    n = 4000
    drawn = draw_like(2, templates, n, rng)
    assert abs(drawn.which.mean() - 0.5) < 0.05
    step_x, step_y = templates.displacements.steps
    assert (step_x, step_y) == (5.0, 10.0)
    assert np.abs(drawn.x_angstrom).max() == pytest.approx(10 + step_x / 2, abs=0.1)
    assert np.abs(drawn.y_angstrom).max() == pytest.approx(10 + step_y / 2, abs=0.1)
    axes = drawn.views.rotations()[:, :, 2]
    np.testing.assert_allclose(axes.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((axes**2).mean(axis=0), 1 / 3, atol=0.03)
    near = (axes * templates.viewing.take(drawn.view).rotations()[:, :, 2]).sum(axis=1)
    angle = np.arccos(np.clip(near, -1, 1))
    assert 0 < angle.max() < spacing_of_views(templates.viewing)
