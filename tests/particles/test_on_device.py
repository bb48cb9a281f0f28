"""Particles transformed on the device of a task, against a non-uniform FFT in double precision.

`test_ring_sums` holds both against sums from the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import cryolike_dask as cld
from benchmarks.pretended_gpu import GPU, pretended_gpu
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.joined import Joined
from cryolike_dask.io.sources import on_device
from cryolike_dask.particles import images as module
from cryolike_dask.particles.on_device import Transform, transform_on
from cryolike_dask.particles.transform import stack_and_rings
from tests.particles.test_images import particles as particles

CPU = torch.device("cpu")
ERROR = {"single": 1e-6, "double": 1e-11}
"""Of the largest value. Measured: 5e-7 and 3e-12."""


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    transform_on.cache_clear()
    module._LATEST_PIXELS.clear()


def assert_close(found, expected, precision):
    for one, other in zip(found, expected, strict=True):
        error = np.abs(one - other).max() / np.abs(other).max()
        print(f"error {error:.1e} of the largest value")
        assert error < ERROR[precision]


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    "grid",
    [
        PolarGrid(16, 2.0, 4.0, 32),
        PolarGrid(15, 2.0, 3.75, 20),
        PolarGrid(12, 2.0, 2.0, 48),
        PolarGrid(5, 2.0, 1.25, 2),
    ],
    ids=["even", "odd", "a part of the band", "smaller than the window"],
)
def test_images_and_their_rings(grid, moved, precision, rng):
    images = rng.standard_normal((5, grid.n_pixels, grid.n_pixels)) + 3
    offset = rng.uniform(2, 4, 5) if moved else None
    shift = rng.uniform(-0.3, 0.3, (5, 2)) if moved else None
    transform = Transform.of(grid, precision, CPU, resolves_corners=True)
    values, rings = transform.stack_and_rings(images, offset, shift)
    assert rings.dtype == torch.float64
    assert values.dtype == {"single": torch.complex64, "double": torch.complex128}[precision]
    expected, of_rings = stack_and_rings(images, grid, "double", offset, shift)
    found = [values.numpy(), rings[:, 0].numpy(), rings[:, 1].numpy()]
    half = expected[..., : grid.n_inplanes // 2]
    assert_close(found, [half, of_rings[:, 0], of_rings[:, 1]], precision)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recenter": True},
        {"invert_contrast": True, "background_radius_pixels": 6.0},
        {"downsample": "fourier"},
        {"downsample": "mean", "recenter": True},
        {"transposed": True, "recenter": True},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_rows_of_particles(particles, changes, precision, rng):
    """As they are taken on a CPU in double precision, with their sums, whatever is done to their
    pixels; again from pixels that are remembered."""
    star, _ = particles
    n = 8 if "downsample" in changes else 16
    parameters = cld.ImageParameters(n, 32.0 / n, precision=precision)
    source = cld.open_particles(star, parameters).source
    origins = rng.uniform(-4, 4, (10, 2))
    source = replace(
        source,
        table=replace(source.table, origin_angstrom=origins),
        preparation=replace(source.preparation, **changes),
    )
    rows, exact = rng.permutation(10)[:7], replace(source, precision="double")
    with pretended_gpu() as gpu:
        made = on_device(source, rows, GPU)
        before = gpu.waits.total()
        again = on_device(source.subset(rows), np.array([3, 1]), GPU)
        assert gpu.waits.total() == before
        values, others = (one.half_rings.cpu().numpy() for one in (made, again))
        rings = None if made.ring_sums is None else made.ring_sums.cpu().numpy()
    assert values.dtype == source.dtype
    expected = exact.take(rows)[..., : parameters.grid.n_inplanes // 2]
    assert_close([values, others], [expected, expected[[3, 1]]], precision)
    if source.knows_rings:
        known = exact.rings(rows)
        found = [rings[:, 0], rings[:, 1]]
        assert_close(found, [known[:, 0], known[:, 1]], precision)
    else:
        assert rings is None
    assert on_device(source, rows, CPU) is None


def test_stacks_that_are_joined(particles, rng):
    star, _ = particles
    source = cld.open_particles(star, cld.ImageParameters(16, 2.0, precision="single")).source
    joined, rows = Joined((source, source.subset(np.arange(4)))), rng.permutation(14)
    exact = replace(source, precision="double")
    expected = Joined((exact, exact.subset(np.arange(4))))
    with pretended_gpu():
        made = on_device(joined, rows, GPU)
        values, rings = made.half_rings.cpu().numpy(), made.ring_sums.cpu().numpy()
    assert_close([values], [expected.take(rows)[..., : values.shape[2]]], "single")
    known = expected.rings(rows)
    assert_close([rings[:, 0], rings[:, 1]], [known[:, 0], known[:, 1]], "single")


def test_pixels_are_remembered_as_far_as_memory_goes(particles, monkeypatch):
    star, _ = particles
    source = cld.open_particles(star, cld.ImageParameters(16, 2.0, precision="single")).source
    monkeypatch.setattr(module, "REMEMBERED_PIXEL_BYTES", 4 * 16 * 16 * 4)
    with pretended_gpu():
        first = on_device(source, np.arange(10), GPU).half_rings.cpu().numpy()
        assert len(module._LATEST_PIXELS) == 4
        reads = []
        take = module.MrcStack.take
        monkeypatch.setattr(
            module.MrcStack, "take", lambda file, rows: reads.append(len(rows)) or take(file, rows)
        )
        again = on_device(source, np.arange(10), GPU).half_rings.cpu().numpy()
    assert sum(reads) == 6
    np.testing.assert_array_equal(again, first)


def test_bad_images_are_refused_as_on_a_cpu(particles, rng):
    star, _ = particles
    source = cld.open_particles(star, cld.ImageParameters(16, 2.0, precision="single")).source
    wrong = replace(source, preparation=replace(source.preparation, background_radius_pixels=40.0))
    with pretended_gpu(), pytest.raises(cld.errors.InputError, match="leaves no background"):
        on_device(wrong, np.arange(2), GPU)
