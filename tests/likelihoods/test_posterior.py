"""Posteriors over poses: against all poses enumerated, and how often regions hold the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import compute_optimal_pose, labels
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.likelihoods.kernels.tile import Tile
from cryolike_dask.likelihoods.search.regions import (
    Orientations,
    count_of_fewest,
    quantile,
    separate,
    spread_evenly,
)
from tests.likelihoods.test_kernels import brute_force


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


def angles_between(one, others):
    traces = np.einsum("ij,...ij->...", one, others)
    return np.arccos(np.clip((traces - 1) / 2, -1, 1))


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_numbers_are_those_of_all_poses_enumerated(build, noise):
    images, templates = build.stacks(4, 6, n_pixels=8, n_inplanes=12, search=(1.5, 3, 3), noise=noise)
    grid = images.grid
    found = compute_optimal_pose(
        images, templates, device="cpu", precision="double", pose_posteriors=True, n_top_poses=3
    ).compute()
    posterior, exact = enumerated(images, templates)
    orientations = Orientations.of(templates.viewing, grid.angles)
    d = templates.displacements.table()
    c, s = np.cos(grid.angles), np.sin(grid.angles)
    x, y = d[0][:, None] * c + d[1][:, None] * s, d[1][:, None] * c - d[0][:, None] * s
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
        tilt = orientations.radius[view] * np.sqrt(build.rng.random(len(chosen)))
        about, extra = build.rng.uniform(0, 2 * np.pi, (2, len(chosen)))
        extra = (extra / (2 * np.pi) - 0.5) * 2 * np.pi / grid.n_inplanes
        drawn = templates.viewing.rotations()[view] @ viewing_rotation(
            about, tilt, grid.angles[rotation] + extra - about
        )
        there = templates.viewing.rotations()[best[0]] @ viewing_rotation(0, 0, gamma)
        within = angles_between(there, drawn) <= np.radians(float(one.orientation_radius_95))
        assert within.mean() == pytest.approx(0.95, abs=0.015)
        assert int(one.top_template[0]) == best[0]
        assert float(one.top_inplane_rotation[0]) == gamma
        assert float(one.top_probability[0]) == pytest.approx(p[best], rel=1e-4)
