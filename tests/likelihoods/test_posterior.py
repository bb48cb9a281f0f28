"""Posteriors over poses: against all poses enumerated, and how often regions hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask import (
    Around,
    ImageParameters,
    ImageStack,
    TemplateStack,
    compute_optimal_pose,
    configure_displacement,
    labels,
)
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.symmetry import asymmetric_unit
from cryolike_dask.geometry.viewing_angles import healpix_grid, viewing_rotation
from cryolike_dask.likelihoods.search.regions import (
    Orientations,
    count_of_fewest,
    quantile,
    separate,
    spread_evenly,
)
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.likelihoods.test_kernels import brute_force
from tests.optics import microscope
from tests.real_space import StarPoses, render, two_lobes

OF_TOP = ("top_template", "top_inplane_rotation", "top_probability")


def enumerated(images, templates):
    """Posterior of each pose of the whole search, (image, template, displacement, rotation), and
    the same by the offset at each pose in place of that at rest."""
    grid, weight = images.grid, templates.viewing.weight
    brute = brute_force(images, templates, "standard")
    logs, exact = (
        brute.log_likelihood(mask, 4 * math.pi * grid.radius_max**2)
        + np.log(weight / weight.sum())[:, None, None]
        for mask in (brute.template_mask_at_rest, brute.template_mask)
    )
    evidence = np.logaddexp.reduce(logs.reshape(len(logs), -1), axis=1)[:, None, None, None]
    return np.exp(logs - evidence), np.exp(exact - evidence)


def near_views(rng, views, chosen):
    """Rotations to directions at random among those nearest to some views, by the shortest way."""
    directions = rng.standard_normal((200 * len(views), 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    nearest = (directions @ views[:, :, 2].T).argmax(axis=1)
    drawn = np.empty((len(chosen), 3, 3))
    for view in np.unique(chosen):
        here = chosen == view
        ends = directions[rng.choice(np.flatnonzero(nearest == view), here.sum())]
        axes = np.cross(views[view, :, 2], ends)
        angles = np.arctan2(np.linalg.norm(axes, axis=1), ends @ views[view, :, 2])
        axes *= (angles / np.linalg.norm(axes, axis=1))[:, None]
        drawn[here] = Rotation.from_rotvec(axes).as_matrix() @ views[view]
    return drawn


def angles_between(one, others):
    traces = np.einsum("ij,...ij->...", one, others)
    return np.arccos(np.clip((traces - 1) / 2, -1, 1))


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_numbers_are_those_of_all_poses_enumerated(build, noise):
    images, templates = build.stacks(
        4, 6, n_pixels=8, n_inplanes=12, search=(1.5, 3, 3), noise=noise
    )
    grid = images.grid
    found = compute_optimal_pose(
        images, templates, device="cpu", precision="double", pose_posteriors=True, n_top_poses=3
    ).compute()
    posterior, exact = enumerated(images, templates)
    d = templates.displacements.table()
    c, s = np.cos(grid.angles), np.sin(grid.angles)
    x, y = d[0][:, None] * c + d[1][:, None] * s, d[1][:, None] * c - d[0][:, None] * s
    parts_within = []
    for m, p in enumerate(posterior):
        one = found.isel(image=m)
        held = np.sort(p.ravel())[::-1].cumsum()
        n = np.searchsorted(held, 0.999) + 1
        assert abs(int(one.n_significant_poses) - n) <= 1 + 0.01 * n
        assert float(one.n_effective_poses) == pytest.approx(1 / (p**2).sum(), rel=1e-3)
        views = p.sum(axis=(1, 2))
        assert float(one.view_entropy) == pytest.approx(-(views * np.log(views)).sum(), rel=1e-6)
        gamma = float(one.optimal_inplane_rotation)
        off = d.T - [float(one.optimal_displacement_x), float(one.optimal_displacement_y)]
        best = (
            int(one.optimal_template),
            int(np.hypot(*off.T).argmin()),
            int(abs(grid.angles - gamma).argmin()),
        )
        assert float(one.best_pose_probability) == pytest.approx(exact[m][best], rel=1e-6)
        mean = np.array([(p * x).sum(), (p * y).sum()])
        turn = np.array([[np.cos(gamma), -np.sin(gamma)], [np.sin(gamma), np.cos(gamma)]])
        told = [float(one[f"posterior_mean_displacement_{axis}"]) for axis in "xy"]
        np.testing.assert_allclose(told, turn @ mean, atol=1e-3 * max(abs(d).ravel()))
        # what each pose stands for, drawn at random
        chosen = build.rng.choice(p.size, 40000, p=p.ravel())
        view, displacement, rotation = np.unravel_index(chosen, p.shape)
        sides = build.rng.uniform(-0.5, 0.5, (2, len(chosen))) * templates.displacements.steps[0]
        at = np.stack([x, y])[:, displacement, rotation] + sides
        distances = np.hypot(*(at - mean[:, None]))
        radius = float(one.displacement_radius_95)
        assert np.mean(distances <= radius) == pytest.approx(0.95, abs=0.03)
        extra = build.rng.uniform(-0.5, 0.5, len(chosen)) * 2 * np.pi / grid.n_inplanes
        drawn = near_views(build.rng, templates.viewing.rotations(), view)
        drawn = drawn @ viewing_rotation(0, 0, grid.angles[rotation] + extra)
        there = templates.viewing.rotations()[best[0]] @ viewing_rotation(0, 0, gamma)
        within = angles_between(there, drawn) <= np.radians(float(one.orientation_radius_95))
        parts_within.append(within.mean())
        assert int(one.top_template[0]) == best[0]
        assert float(one.top_inplane_rotation[0]) == gamma
        assert float(one.top_probability[0]) == pytest.approx(p[best], rel=1e-4)
    # six views stand for large cells of any shape: of one image in a hundred regions are off by 2%
    np.testing.assert_allclose(parts_within, 0.95, atol=0.03)
    assert np.mean(parts_within) == pytest.approx(0.95, abs=0.015)


def particles(rng, parameters, n, signal_to_noise, positions=None, on_views=None):
    """Images of two lobes, or other residues, in poses off all grids or on some views, templates,
    and these poses: rotations and places."""
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, n))
    polar = np.arccos(rng.uniform(-1, 1, n))
    x, y = rng.uniform(-2, 2, (2, n))
    viewing = parameters.viewing_angles()
    if on_views is not None:
        azimuth, polar = viewing.azimuth[on_views], viewing.polar[on_views]
        x, y, gamma = 0 * x, 0 * y, gamma - gamma % (2 * np.pi / parameters.grid.n_inplanes)
    u = np.full(n, 9000.0)
    optics = microscope(n, u)
    positions = two_lobes(20) if positions is None else positions
    atoms = Atoms(positions, np.full(len(positions), 62.0), np.full(len(positions), 2.0))
    grid = parameters.grid
    poses = StarPoses.of_template(azimuth, polar, gamma, x, y)
    clean = render(atoms, poses, optics, grid.n_pixels, grid.pixel_size_angstrom)
    pixels = clean + np.sqrt(clean.var() / signal_to_noise) * rng.standard_normal(clean.shape)
    values = normalised_stack(pixels, grid).astype(np.complex64)
    images = ImageStack.from_array(values, parameters, optics)
    projections = project(atoms, grid, viewing).astype(np.complex64)
    templates = TemplateStack.from_array(projections, parameters, viewing)
    rotations = viewing_rotation(azimuth, polar, gamma)
    return images, templates, rotations, in_image(x, y, gamma)


def in_image(x, y, gamma):
    c, s = np.cos(gamma), np.sin(gamma)
    return np.stack([c * x + s * y, c * y - s * x], axis=1)


def off_the_truth(found, templates, rotations, places):
    """Degrees from the best orientation, angstrom from the mean place."""
    gamma = found.optimal_inplane_rotation.values
    best = templates.viewing.rotations()[found.optimal_template.values]
    best = best @ viewing_rotation(0, 0, gamma)
    traces = np.einsum("nij,nij->n", best, rotations)
    mean = in_image(
        found.posterior_mean_displacement_x.values,
        found.posterior_mean_displacement_y.values,
        gamma,
    )
    angles = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    return angles, np.hypot(*(mean - places).T)


NARROW = ImageParameters(24, 3.0, n_inplanes=72, viewing_distance=0.25, precision="single")


def test_regions_hold_the_truth_as_often_as_they_say(rng):
    """A small part of `benchmarks.pose_regions`, where several poses share the posterior."""
    n = 50
    images, templates, *truth = particles(rng, NARROW, n, 0.3)
    found = compute_optimal_pose(
        images, configure_displacement(1, 5, 5)(templates), device="cpu", pose_posteriors=True
    ).compute()
    off = off_the_truth(found, templates, *truth)
    for name, distances in zip(("orientation", "displacement"), off, strict=True):
        radius = found[f"{name}_radius_95"].values
        inside, in_half = ((distances <= part * radius).mean() for part in (1, 0.5))
        print(name, inside, in_half)
        # four standard errors below 95% of so many images
        assert inside >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / n)
        assert in_half < 0.85


WIDE = ImageParameters(64, 1.5, n_inplanes=64, viewing_distance=0.3, precision="single")


def test_what_holds_nearly_all_is_compared_in_an_adaptive_search():
    rng = np.random.default_rng(5)
    images, templates, *_ = particles(rng, WIDE, 4, 0.1)
    searched = configure_displacement(2, 9, 9)(templates)
    options = {"device": "cpu", "pose_posteriors": True}
    whole = compute_optimal_pose(images, searched, **options).compute()
    found = compute_optimal_pose(images, searched, search="adaptive", **options).compute()
    # of narrow peaks it is that of a search in much finer steps, of wide ones that in the same
    fine = configure_displacement(2.125, 18, 18)(templates)
    truth = compute_optimal_pose(images, fine, **options).compute()
    off, of_whole = (abs(of - truth).view_entropy.values for of in (found, whole))
    print(off, of_whole)
    assert (off <= of_whole + 1e-4).all()
    np.testing.assert_allclose(found.n_effective_poses, whole.n_effective_poses, rtol=0.05)
    np.testing.assert_allclose(found.n_significant_poses, whole.n_significant_poses, rtol=0.1)
    np.testing.assert_allclose(found.orientation_radius_95, whole.orientation_radius_95, rtol=0.05)
    np.testing.assert_allclose(found.displacement_radius_95, whole.displacement_radius_95, rtol=0.2)
    for axis in "xy":
        name = f"posterior_mean_displacement_{axis}"
        np.testing.assert_allclose(found[name], whole[name], atol=0.02)
    np.testing.assert_array_equal(found.top_template[:, 0], found.optimal_template)
    plain = compute_optimal_pose(images, searched, device="cpu", search="adaptive").compute()
    assert found[list(plain.data_vars)].identical(plain)
    chunked = compute_optimal_pose(
        images.chunk((1, 3)),
        searched.chunk((20, len(templates) - 20)),
        search="adaptive",
        **options,
    ).compute()
    for name in labels.OF_POSTERIOR:
        np.testing.assert_allclose(chunked[name], found[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_structure_of_two_equal_halves_has_two_poses():
    """Half a turn about z leaves it as it is, and nobody has said so. Always the same views: from
    some sides its halves lie one behind the other, and other poses look like it too."""
    rng = np.random.default_rng(2)
    half_a_turn = viewing_rotation(np.pi, 0, 0)
    lobes = two_lobes(20) + np.array([6.0, 2.0, 0.0])
    at_the_side = np.flatnonzero(abs(NARROW.viewing_angles().polar - np.pi / 2) < 0.01)
    images, templates, rotations, _ = particles(
        rng,
        NARROW,
        3,
        3.0,
        positions=np.concatenate([lobes, lobes @ half_a_turn.T]),
        on_views=rng.choice(at_the_side, 3),
    )
    found = compute_optimal_pose(
        images, configure_displacement(1, 3, 3)(templates), device="cpu", pose_posteriors=True
    ).compute()
    views = templates.viewing.rotations()
    for m, rotation in enumerate(rotations):
        one = found.isel(image=m)
        template, gamma, p = (one[name].values[:2] for name in OF_TOP)
        first, second = views[template] @ viewing_rotation(0, 0, gamma)
        np.testing.assert_allclose(half_a_turn @ first, second, atol=1e-6)
        np.testing.assert_allclose(p[0], p[1], rtol=0.05)
        nearest = min(angles_between(rotation, of) for of in (first, second))
        assert nearest < 0.3
        assert float(one.view_entropy) > 0.95 * np.log(2)
        # 95% is more than one of them holds
        assert float(one.orientation_radius_95) > 90


def test_orientations_that_look_alike_are_one():
    viewing = asymmetric_unit(healpix_grid(3), "C4")
    orientations = Orientations.of(viewing, 2 * np.pi * np.arange(40) / 40)
    assert orientations.group.shape == (4, 3, 3)
    one = viewing_rotation(0.3, 1.0, 0.5)
    mate = viewing_rotation(0.3 + np.pi / 2, 1.0, 0.5)
    np.testing.assert_allclose(orientations.cosines(one, mate[None]), 1)
    near = viewing_rotation(0.3 + np.pi / 2, 1.0, 0.6)
    np.testing.assert_allclose(orientations.cosines(one, near[None]), np.cos(0.1))
    # a view of the unit stands for as much of the sphere as one of all views
    whole = Orientations.of(healpix_grid(3), orientations.angles)
    farthest = [np.median(of.cells[:, :, 1].max(axis=1)) for of in (orientations, whole)]
    np.testing.assert_allclose(*farthest, rtol=0.05)


def test_a_pose_alone_stands_for_its_cell():
    """All of the mass in one pose: the region is that of angles in its cell."""
    orientations = Orientations.of(healpix_grid(3), 2 * np.pi * np.arange(40) / 40)
    best = orientations.at(np.array([5]), np.array([7]))[0]
    one, mass = np.array([5]), np.ones(1)
    radius = orientations.radius_about(best, one, np.array([7]), mass, 0.95)
    limit = np.hypot(orientations.cells[5, :, 1].max(), np.pi / 40)
    assert 0.7 * limit < radius < limit


def test_parts_of_bins_are_counted():
    volume, mass = np.array([2.0, 4.0, 100.0]), np.array([0.5, 0.4, 0.1])
    assert count_of_fewest(volume, mass, 0.5) == 2
    assert count_of_fewest(volume, mass, 0.7) == pytest.approx(4)
    assert count_of_fewest(volume, mass, 2.0) == 106
    assert quantile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.75) == 2
    wider = spread_evenly(9, 3.5)
    np.testing.assert_allclose(wider[4].sum(), 1)
    np.testing.assert_allclose(wider[4, 2:7], np.array([0.25, 1, 1, 1, 0.25]) / 3.5)


def test_the_best_poses_are_far_from_all_better_ones(rng):
    orientations = Orientations.of(healpix_grid(2), 2 * np.pi * np.arange(20) / 20)
    best = viewing_rotation(0, 1, 0)
    near = viewing_rotation(0, 1.1, 0)
    far = viewing_rotation(0, 2.8, 0)
    rotations, places = np.stack([near, best, far, near]), np.zeros((4, 2))
    places[3] = 9.0
    found = separate(orientations, rotations, places, np.array([3.0, 4, 1, 2]), 5, 1.0)
    assert found.tolist() == [1, 3, 2]
    assert separate(orientations, rotations, places, np.arange(4.0), 1, 1.0).tolist() == [3]


@pytest.mark.parametrize(
    "options", [{"conventions": "cryolike"}, {"search": Around(10, 2)}, {"n_top_poses": 0}]
)
def test_what_cannot_be_is_refused(build, options):
    images, templates = build.stacks(2, 3)
    with pytest.raises(InputError, match=r"pose_posteriors|n_top_poses"):
        compute_optimal_pose(images, templates, pose_posteriors=True, **options)
