"""Tiles inside a task: chosen by memory, halved when they do not fit, and never seen in a
result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import xarray as xr

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import CannotFitError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.sources import InMemory
from cryolike_dask.likelihoods import blocks, tiles
from cryolike_dask.likelihoods.comparison import Comparison, Whitening
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows
from cryolike_dask.likelihoods.interface import (
    compute_optimal_displacement_and_rotation,
    compute_optimal_pose,
)
from cryolike_dask.likelihoods.kernels.compressed import (
    correlate,
    prepare_images,
    prepare_templates,
)
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import find_basis, make_constants
from cryolike_dask.likelihoods.tiles import (
    Footprint,
    first_tile,
    images_at_a_time,
    ranks_of,
    smaller_tile,
)
from tests.pretended_gpu import pretended_gpu


@dataclass(frozen=True, eq=False)
class Scarce(InMemory):
    """Rows for which there is only so much memory."""

    most: int = 1

    def take(self, rows):
        if len(rows) > self.most:
            raise torch.OutOfMemoryError(f"no memory for {len(rows)} rows")
        return super().take(rows)


def scarce(stack, most):
    return replace(stack, source=Scarce(stack.source.values, most=most))


@pytest.mark.parametrize("discover", [False, True])
@pytest.mark.parametrize(
    "compute", [compute_optimal_pose, compute_optimal_displacement_and_rotation]
)
def test_a_block_that_runs_out_of_memory_goes_on_with_smaller_tiles(build, compute, discover):
    images, templates = build.stacks(n_images=6, n_templates=9)
    settings = {"device": "cpu", "discover_batch_size": discover}
    expected = compute(images, templates, **settings).compute(scheduler="sync")
    # the templates of the six winners are settled two at a time
    found = compute(scarce(images, 6), scarce(templates, 2), **settings)
    xr.testing.assert_allclose(found.compute(scheduler="sync"), expected, rtol=1e-12)


def test_what_does_not_fit_at_all_is_said(build):
    images, templates = build.stacks()
    with pytest.raises(
        CannotFitError, match=r"one image and one template do not fit .*no memory for 1 rows"
    ):
        compute_optimal_pose(images, scarce(templates, 0), device="cpu").compute(scheduler="sync")


@pytest.mark.parametrize("n_failures", [1, 2])
def test_a_block_that_cannot_be_opened_is_opened_once_more(build, monkeypatch, n_failures):
    images, templates = build.stacks()
    lazy = compute_optimal_pose(images, templates, device="cpu")
    expected, open_block = lazy.compute(scheduler="sync"), blocks.open_block
    failures = iter([torch.OutOfMemoryError("CUDA out of memory")] * n_failures)

    def opening(*args):
        for failure in failures:
            raise failure
        return open_block(*args)

    monkeypatch.setattr(blocks, "open_block", opening)
    if n_failures == 1:
        xr.testing.assert_identical(lazy.compute(scheduler="sync"), expected)
        return
    with pytest.raises(CannotFitError, match=r"what all poses share .*CUDA out of memory"):
        lazy.compute(scheduler="sync")


def test_the_larger_side_is_halved():
    halved = [(5, 3)]
    while halved[-1] != (1, 1):
        halved.append(smaller_tile(halved[-1], "full"))
    assert halved == [(5, 3), (3, 3), (2, 3), (2, 2), (1, 2), (1, 1)]
    with pytest.raises(CannotFitError, match="full"):
        smaller_tile((1, 1), "full")


def footprint_of(comparison, basis=()):
    return Footprint.of(comparison, ranks_of(basis, comparison))


def tile_of(images, templates, *, discover=False):
    comparison = ComparisonGraph(
        images, templates, Settings(device="cpu"), discover_tiles=discover
    ).comparison
    return first_tile(len(images), len(templates), comparison, footprint_of(comparison))


def test_batch_sizes_are_the_tiles(build):
    images, templates = build.stacks()
    assert tile_of(replace(images, n_per_batch=2), replace(templates, n_per_batch=3)) == (2, 3)
    assert tile_of(replace(images, n_per_batch=100), templates)[0] == len(images)


def test_discovery_does_not_ask_for_batch_sizes(build):
    """On a CPU the tile that stays in the cache is the fastest there is: discovery finds it."""
    images, templates = build.stacks(search=(1.5, 41, 41))
    asked = replace(images, n_per_batch=1), replace(templates, n_per_batch=2)
    assert tile_of(*asked) == (1, 2)
    assert tile_of(*asked, discover=True) == tile_of(images, templates)
    expected = compute_optimal_pose(images, templates, device="cpu").compute(scheduler="sync")
    found = compute_optimal_pose(*asked, device="cpu", discover_batch_size=True).compute(
        scheduler="sync"
    )
    np.testing.assert_allclose(
        found.log_likelihood_integrated, expected.log_likelihood_integrated, rtol=1e-12
    )


def standard_case(device, asked=(None, None)):
    """1024 images and 2370 templates."""
    parameters = ImageParameters(132, 1.35, n_inplanes=256, precision="single")
    rows = InMemory(np.zeros((1, *parameters.grid.shape), "c8"))
    comparison = Comparison(
        rows,
        rows,
        parameters.grid,
        DisplacementSearch(8, 16, 16).grid(1.35),
        STANDARD,
        Whitening(np.ones((1, parameters.grid.n_shells)), np.ones((1, 1)), np.ones(1)),
        "single",
        device,
        1e-6,
        *asked,
    )
    return comparison, Footprint.of(comparison, np.full(129, 40))


@pytest.mark.parametrize("asked", [(1024, 2370), (1024, 1), (1, 2370), (None, None)])
@pytest.mark.parametrize("free", [2**34, 2**32, 2**31])
def test_no_batch_size_takes_more_memory_than_there_is(monkeypatch, asked, free):
    """At the standard case a tile and the images of a task stay far below 4 GB."""
    comparison, footprint = standard_case("cpu", asked)
    monkeypatch.setattr(tiles, "free_memory", lambda device: free)
    n_images, n_templates = first_tile(1024, 2370, comparison, footprint)
    held = images_at_a_time(comparison, footprint, (n_images, n_templates))
    taken = (
        footprint.pair * n_images * n_templates
        + footprint.template * n_templates
        + footprint.image * held
    )
    assert taken < free / 2
    assert taken < 2.5e9


def test_a_large_gpu_takes_all_images_of_a_stack_at_once():
    """Templates are then prepared once for all of them."""
    with pretended_gpu(80 * 2**30):
        assert first_tile(1024, 2370, *standard_case("cuda")) == (1024, 7)
    with pretended_gpu(8 * 2**30):
        assert first_tile(1024, 2370, *standard_case("cuda"))[0] < 600


def test_tiles_of_a_single_displacement_fit(build):
    """What a pair needs whatever the displacements is most of it then."""
    images, templates = build.stacks(n_images=3000, n_templates=3000, n_pixels=8, search=(0, 1, 1))
    free = 2**28
    with pretended_gpu(free):
        comparison = ComparisonGraph(images, templates, Settings(device="cuda")).comparison
        footprint = footprint_of(comparison)
        n_images, n_templates = first_tile(3000, 3000, comparison, footprint)
    taken = n_images * n_templates * (footprint.pair + footprint.terms)
    assert free / 16 < taken <= free / 8


@pytest.mark.parametrize("tolerance", [0, 1e-3])
def test_footprint_is_what_the_kernel_holds(build, tolerance):
    """The memory model against the sizes of the tensors."""
    images, templates = build.stacks(
        n_images=3, n_templates=16, n_pixels=16, n_inplanes=24, search=(1.5, 3, 3)
    )
    comparison = ComparisonGraph(
        images, templates, Settings(device="cpu", precision="single", tolerance=tolerance)
    ).comparison
    basis = find_basis(comparison)
    footprint = footprint_of(comparison, basis)
    constants = make_constants(comparison, torch.device("cpu"), basis)
    rows = image_rows(images, comparison.conventions)
    of_images = prepare_images(read_images(rows, comparison, constants), constants)
    of_templates = prepare_templates(
        next(read_templates([np.arange(16)], comparison, constants)), constants
    )
    tile = correlate(of_images, of_templates, constants)

    def held(terms):
        parts = [
            part
            for value in vars(terms).values()
            for part in (value if isinstance(value, tuple) else (value,))
        ]
        return sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))

    assert held(of_images) == pytest.approx(3 * footprint.image, rel=0.01)
    before_compression = constants.scratch.kept["spectra"].nbytes
    assert held(of_templates) + before_compression == pytest.approx(
        16 * footprint.template, rel=0.01
    )
    assert tile.products.nbytes == 48 * footprint.pair
    assert held(tile) - tile.products.nbytes < 48 * footprint.terms


def test_images_that_do_not_fit_take_turns(build, monkeypatch):
    images, templates = build.stacks(n_images=7)
    expected = compute_optimal_pose(images, templates, device="cpu").compute(scheduler="sync")
    monkeypatch.setattr(tiles, "IMAGES_BYTES", 1)
    found = compute_optimal_pose(replace(images, n_per_batch=2), templates, device="cpu").compute(
        scheduler="sync"
    )
    xr.testing.assert_allclose(found, expected, rtol=1e-12)
