"""Tiles inside a task: chosen by memory, halved when they do not fit, and never seen in a result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import psutil
import pytest
import torch
import xarray as xr

from cryolike_dask.errors import CannotFitError
from cryolike_dask.io.sources import InMemory
from cryolike_dask.likelihoods.interface import compute_optimal_displacement_and_rotation, compute_optimal_pose
from cryolike_dask.likelihoods.pairs import Pair
from cryolike_dask.likelihoods.tiles import CPU_MEMORY_FRACTION, first_tile, smaller_tile


@dataclass(frozen=True, eq=False)
class Scarce(InMemory):
    """Rows for which there is only so much memory."""

    most: int = 1

    def take(self, rows):
        if len(rows) > self.most:
            raise torch.OutOfMemoryError(f"no memory for {len(rows)} rows")
        return super().take(rows)


def scarce(stack, most):
    return replace(stack, source=Scarce(stack.source.values, most))


@pytest.mark.parametrize("discover", [False, True])
@pytest.mark.parametrize("compute", [compute_optimal_pose, compute_optimal_displacement_and_rotation])
def test_a_block_that_runs_out_of_memory_goes_on_with_smaller_tiles(build, compute, discover):
    images, templates = build.stacks(n_images=6, n_templates=9)
    settings = {"device": "cpu", "discover_batch_size": discover}
    expected = compute(images, templates, **settings).compute()
    found = compute(scarce(images, 6), scarce(templates, 2), **settings)
    if compute is compute_optimal_pose:  # reads the templates of the six winners at once
        found = compute(scarce(images, 6), scarce(templates, 6), **settings)
    xr.testing.assert_allclose(found.compute(), expected, rtol=1e-12)


def test_what_does_not_fit_at_all_is_said(build):
    images, templates = build.stacks()
    with pytest.raises(CannotFitError, match=r"one image and one template do not fit .*no memory for 1 rows"):
        compute_optimal_pose(images, scarce(templates, 0), device="cpu").compute()


def test_the_larger_side_is_halved():
    tiles = [(5, 3)]
    while tiles[-1] != (1, 1):
        tiles.append(smaller_tile(tiles[-1], "full"))
    assert tiles == [(5, 3), (3, 3), (2, 3), (2, 2), (1, 2), (1, 1)]
    with pytest.raises(CannotFitError, match="full"):
        smaller_tile((1, 1), "full")


def tile_of(images, templates, *, discover=False):
    comparison = Pair(images, templates, "standard", "cpu", "default", discover).comparison
    return first_tile(len(images), len(templates), comparison)


def test_batch_sizes_are_the_tiles(build):
    images, templates = build.stacks()
    assert tile_of(replace(images, n_per_batch=2), replace(templates, n_per_batch=3)) == (2, 3)
    assert tile_of(replace(images, n_per_batch=100), templates)[0] == len(images)


def test_discovery_takes_the_largest_tile_that_the_free_memory_holds(build):
    images, templates = build.stacks(search=(1.5, 41, 41))
    images = replace(images, n_per_batch=1)
    templates = replace(templates, n_per_batch=1)
    assert tile_of(images, templates) == (1, 1)
    n_images, n_templates = tile_of(images, templates, discover=True)
    per_pair = 41 * 41 * templates.grid.n_inplanes * 64
    assert n_images * n_templates * per_pair < CPU_MEMORY_FRACTION * psutil.virtual_memory().available
    assert (n_images, n_templates) == (len(images), len(templates))
    expected = compute_optimal_pose(images, templates, device="cpu").compute()
    found = compute_optimal_pose(images, templates, device="cpu", discover_batch_size=True).compute()
    np.testing.assert_allclose(found.log_likelihood_integrated, expected.log_likelihood_integrated, rtol=1e-12)
