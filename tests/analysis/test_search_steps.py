"""How coarse a search was: against closed forms, and against what a search between the poses
finds."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis import search_steps as steps
from cryolike_dask.analysis.findings import LOST_BETWEEN_POSES, about_steps
from cryolike_dask.analysis.matching import contrast_of_image
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.conventions import conventions_named
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.likelihoods.image_formation import correlation
from cryolike_dask.likelihoods.search import adaptive as adaptive_search

PARAMETERS = cld.ImageParameters(24, 2.0, n_inplanes=60)
GRID = PARAMETERS.grid


def gaussians(x, y, width=0.15):
    """Transform of Gaussians at some places, half boxes."""
    kx, ky = GRID.points()
    waves = sum(np.exp(-2j * np.pi * (kx * a + ky * b)) for a, b in zip(x, y, strict=True))
    return waves * np.exp(-2 * (np.pi * width * GRID.radii[:, None]) ** 2)


def test_a_projection_is_displaced_by_angstrom(rng):
    x, y = rng.uniform(-0.3, 0.3, (2, 5))
    half_box = GRID.box_size_angstrom / 2
    moved = steps._displaced(gaussians(x, y), (1.5, -2.5), GRID)
    np.testing.assert_allclose(moved, gaussians(x + 1.5 / half_box, y - 2.5 / half_box), atol=1e-9)


def test_a_projection_is_turned_by_half_an_angle(rng):
    x, y = rng.uniform(-0.3, 0.3, (2, 5))
    angle = np.pi / GRID.n_inplanes
    either = [
        gaussians(np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y)
        for a in (angle, -angle)
    ]
    turned = steps._turned(gaussians(x, y))
    assert min(np.abs(turned - one).max() for one in either) < 1e-9
    assert correlation(turned, turned, GRID) == pytest.approx(1)


def test_the_nearest_view(rng):
    polar = np.array([0.1, 1.0, 1.2, 2.0])
    viewing = ViewingAngles(np.full(4, 0.3), polar, np.ones(4))
    assert steps._nearest(viewing, 1) == (2, pytest.approx(0.2))
    assert steps._nearest(viewing, 3) == (2, pytest.approx(0.8))


def test_the_loss_is_that_of_poses_half_a_step_off(build, monkeypatch):
    """Images lie half a step off along both axes; the likelihood of each is computed at its
    pose, and at (0, 0)."""
    rng, n, n_templates, step = build.rng, 32, 6, 2.0
    values = np.stack([gaussians(*rng.uniform(-0.3, 0.3, (2, 6))) for _ in range(n_templates)])
    templates = cld.TemplateStack.from_array(values, PARAMETERS, build.viewing(n_templates))
    optics, chosen = build.optics(n), rng.integers(n_templates, size=n)
    plain = cld.ImageStack.from_array(np.zeros((n, *GRID.shape), complex), PARAMETERS, optics)
    contrast = np.stack(
        [contrast_of_image(plain[[m]], conventions_named("standard")) for m in range(n)]
    )
    moved = steps._displaced(values[chosen], (step / 2, step / 2), GRID)
    images = cld.ImageStack.from_array(
        contrast * moved + 0.3 * build.rings(n, GRID), PARAMETERS, optics
    )

    def searched(n_displacements):
        pixels = step / PARAMETERS.pixel_size_angstrom
        return cld.configure_displacement(pixels, n_displacements, n_displacements)(templates)

    full = cld.compute_cross_correlation_complete(
        images, searched(5), precision="double"
    ).cross_correlation
    full = full.compute(scheduler="synchronous").values[np.arange(n), chosen, :, 0]
    x, y = searched(5).displacements.table()
    off, right = (full[:, np.argmin(np.hypot(x - at, y - at))] for at in (0, step / 2))
    lost = np.median(2 * np.pi * GRID.radius_max**2 * np.log((1 - off**2) / (1 - right**2)))
    coarse = cld.compute_optimal_pose(images, searched(3), precision="double").compute(
        scheduler="synchronous"
    )
    tried = dict(
        zip(
            ("displacements_x_angstrom", "displacements_y_angstrom"),
            searched(3).displacements.table(),
            strict=True,
        )
    )
    summary = summarise_results(coarse.assign_attrs(coarse.attrs | tried))
    found = {step.name: step for step in steps.search_steps(summary, images, templates)}
    assert found["displacements"].size == pytest.approx(step)
    assert found["rotations"].size == pytest.approx(2 * np.pi / 60)
    assert found["displacements"].loss == pytest.approx(lost, rel=0.4)
    # an adaptive search interpolates between displacements, if the band is worth levels
    adaptive = summary.assign_attrs(search="adaptive")
    for coarsest, names in ((32, list(found)), (8, ["rotations", "views"])):
        monkeypatch.setattr(adaptive_search, "HALF_PIXELS", coarsest)
        assert [s.name for s in steps.search_steps(adaptive, images, templates)] == names


def test_what_is_lost_grows_as_the_square():
    step = steps.Step("displacements", 2.0, 20.0)
    assert step.size_of_loss(5.0) == pytest.approx(1.0)
    assert step.shown(1.0) == "1 Å"
    assert steps.Step("views", 0.2, 1.0).shown(0.2) == "11.5°"


def test_what_is_lost_on_average_is_that_of_poses_anywhere(rng):
    at = rng.uniform(-1, 1, (2, 100_000))  # of a cell from -1 to 1, whose corner loses 2
    assert steps.Step("displacements", 2.0, 2.0).loss_on_average == pytest.approx(
        (at**2).sum(axis=0).mean(), rel=0.02
    )
    assert steps.Step("rotations", 2.0, 1.0).loss_on_average == pytest.approx(
        (at[0] ** 2).mean(), rel=0.02
    )
    # half-way to the next view, 1 is lost
    assert steps.Step("views", 2.0, 1.0).loss_on_average == pytest.approx(
        (at**2).sum(axis=0).mean(), rel=0.02
    )


def test_much_loss_is_a_finding():
    fine, coarse = (steps.Step("views", 0.1, LOST_BETWEEN_POSES * f) for f in (0.9, 4.0))
    summary = xr.Dataset({"margin": ("image", [np.nan, 1.0, 19.0, 21.0, 40.0])})
    assert about_steps(summary, [fine]) == []
    (finding,) = about_steps(summary, [fine, coarse])
    assert "1 of 4 images is ahead by less than the average of this" in finding.text
    assert "Try views 0.35 times as far apart" in finding.text
    (of_one,) = about_steps(summary.isel(image=[0]), [coarse])
    assert "Assignments suffer" in of_one.text
    assert finding.section == "steps"
    assert "half-way between views, 5.73° apart" in finding.text
    assert "up to 20 nat lower" in finding.text


def test_only_a_grid_of_displacements_has_steps(rng):
    x, y = (v.ravel() for v in np.meshgrid([-3.0, -1.0, 1.0, 3.0], [-2.0, 2.0]))
    for appended in ([], [0.0]):
        axes = steps.axes_of(np.append(x, appended), np.append(y, appended))
        assert [len(axis) for axis in axes] == [4, 2]
    assert [len(axis) for axis in steps.axes_of(*rng.uniform(-3, 3, (2, 49)))] == [0, 0]


def test_one_view_has_no_neighbour():
    assert steps._nearest(ViewingAngles(*np.ones((3, 1))), 0) == (0, 0.0)
